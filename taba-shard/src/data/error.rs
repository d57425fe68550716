//! [`DataError`]: why an operation on a user's keys did not do as asked.

use std::sync::Arc;

use taba_core::Remedy;

use crate::keys::KeyError;
use crate::limits::{COMMAND_ARGUMENTS_MAX, COMMAND_BYTES_MAX, TRANSACTION_COMMANDS_MAX};
use crate::map::ShardId;
use crate::redis::{LinkError, RedisRefusal};

/// Why an operation on a user's keys did not do as asked.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The key cannot be.
    #[error("the key is not possible")]
    Key(#[from] KeyError),
    /// The command is larger than one may be.
    #[error(
        "a command of {arguments} arguments and {bytes} bytes: there may be {COMMAND_ARGUMENTS_MAX} of \
         {COMMAND_BYTES_MAX} bytes in all"
    )]
    TooLarge {
        /// How many arguments it has.
        arguments: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// The transaction has more commands than one may have.
    #[error("a transaction of {commands} commands: there may be {TRANSACTION_COMMANDS_MAX}")]
    TooMany {
        /// How many it has.
        commands: usize,
    },
    /// The keys of a transaction live in different VBuckets; put what they share in braces.
    #[error(
        "the keys of a transaction live in different vbuckets; put what they share in braces: {{cart:7}}:total"
    )]
    Apart,
    /// The shard did not answer. Whether the operation was done may be unknown.
    #[error("the shard did not answer")]
    Link(#[source] Arc<LinkError>),
    /// Redis refused: the key holds another type, a counter would leave its range, memory is full, …
    #[error("{shard} refused")]
    Refused {
        /// Which shard.
        shard: ShardId,
        /// What it said.
        source: RedisRefusal,
    },
    /// The answer is of another kind than the operation has: the key holds something else.
    #[error("{shard} answered something else than was asked for")]
    WrongAnswer {
        /// Which shard.
        shard: ShardId,
    },
}

impl From<LinkError> for DataError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Refused { shard, source } => Self::Refused { shard, source },
            other => Self::Link(Arc::new(other)),
        }
    }
}

impl DataError {
    /// What to do next.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Link(source) => source.remedy(),
            Self::Refused { source, .. } => source.remedy(),
            Self::TooLarge { .. } | Self::TooMany { .. } => Remedy::Split,
            Self::Key(_) | Self::Apart | Self::WrongAnswer { .. } => Remedy::GiveUp,
        }
    }

    /// Whether the operation may have been done all the same.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::Link(source) if source.is_outcome_unknown())
    }
}
