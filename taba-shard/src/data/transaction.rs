//! [`Transaction`]: several commands on the keys of one VBucket, executed atomically.

use std::marker::PhantomData;

use redis::cmd;

use super::{Data, DataError, KeyLocation, read};
use crate::command::{Command, Reply};
use crate::limits::TRANSACTION_COMMANDS_MAX;
use crate::map::ShardId;
use crate::redis::{LinkError, RedisRefusal, SendRules, VBucketRequest};

/// Several commands on the keys of one VBucket: no client sees a state between them, and either all run or none.
///
/// As with `MULTI`, a command that fails because of the value it finds (a string instead of a hash, a counter at its
/// limit) does not stop the others; its [`ReplySlot`] gives the error.
///
/// # Examples
/// ```no_run
/// # async fn run(data: taba_shard::Data) -> Result<(), taba_shard::DataError> {
/// use taba_shard::command;
///
/// let mut transaction = data.transaction();
/// let items = transaction.add(command::increment("{cart:7}:items", 1))?;
/// let total = transaction.add(command::increment("{cart:7}:total", 1995))?;
/// let mut answers = transaction.run().await?;
/// println!("{} items, {} cents", answers.take(items)?, answers.take(total)?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Transaction<'a> {
    data: &'a Data,
    place: Option<KeyLocation>,
    calls: Vec<redis::Cmd>,
}

/// The index of one command's answer in the [`Replies`].
#[derive(Debug)]
pub struct ReplySlot<T> {
    at: usize,
    read: fn(Reply) -> Option<T>,
    answer: PhantomData<T>,
}

/// The answers of a transaction.
#[derive(Debug)]
pub struct Replies {
    shard: ShardId,
    replies: Vec<Option<Reply>>,
}

impl Data {
    /// Begins a transaction; nothing is sent before [`Transaction::run`].
    pub const fn transaction(&self) -> Transaction<'_> {
        Transaction { data: self, place: None, calls: Vec::new() }
    }
}

impl Transaction<'_> {
    /// Adds a command.
    ///
    /// # Errors
    /// [`DataError::Apart`] when its key lives in another VBucket than those before; else as any command. Commands
    /// added before stay.
    #[expect(clippy::needless_pass_by_value, reason = "a command is made to be used once")]
    pub fn add<T>(&mut self, command: Command<T>) -> Result<ReplySlot<T>, DataError> {
        let place = self.data.place(&command)?;
        if self.place.is_some_and(|known| known.vbucket != place.vbucket) {
            return Err(DataError::Apart);
        }
        let at = self.calls.len();
        if at == TRANSACTION_COMMANDS_MAX {
            return Err(DataError::TooMany { commands: at + 1 });
        }
        self.place = Some(place);
        self.calls.push(self.data.words(place.vbucket, &command));
        Ok(ReplySlot { at, read: command.read, answer: PhantomData })
    }

    /// Runs all commands. They are sent as one piece: no other client's command comes between, and no half of it
    /// arrives.
    ///
    /// # Errors
    /// [`DataError`]; nothing was done, unless [`DataError::is_outcome_unknown`].
    ///
    /// # Cancel safety
    /// When dropped, it is unknown whether all or none ran.
    pub async fn run(self) -> Result<Replies, DataError> {
        let Some(place) = self.place else { return Ok(Replies { shard: ShardId(0), replies: Vec::new() }) };
        let (shard, count) = (place.shard, self.calls.len());
        let mut calls = vec![cmd("MULTI")];
        calls.extend(self.calls);
        calls.push(cmd("EXEC"));
        let request = VBucketRequest { vbucket: place.vbucket, commands: calls };
        let answer = self.data.shards.send(shard, vec![request], SendRules::PATIENT).await.pop();
        let mut replies = answer.ok_or(LinkError::Answer { shard })??.replies;
        match replies.pop() {
            Some(Reply::List(items)) if items.len() == count => {
                Ok(Replies { shard, replies: items.into_iter().map(Some).collect() })
            }
            // The earlier error names the reason; EXEC's does not.
            Some(Reply::Refused { code, detail }) => {
                let first = replies.into_iter().find_map(|reply| match reply {
                    Reply::Refused { code, detail } => Some(RedisRefusal { code, detail }),
                    _ => None,
                });
                Err(DataError::Refused { shard, source: first.unwrap_or(RedisRefusal { code, detail }) })
            }
            _ => Err(LinkError::Answer { shard }.into()),
        }
    }
}

impl Replies {
    /// Takes the answer to one command.
    ///
    /// # Errors
    /// [`DataError::Refused`] when this command failed because of the value it found; the others ran.
    ///
    /// # Panics
    /// When the slot belongs to another transaction; not always detected.
    #[expect(clippy::needless_pass_by_value, reason = "an answer is taken once, and so is its slot")]
    pub fn take<T>(&mut self, slot: ReplySlot<T>) -> Result<T, DataError> {
        let reply = self.replies[slot.at].take();
        assert!(reply.is_some(), "an answer is taken once");
        read(reply, self.shard, slot.read)
    }
}
