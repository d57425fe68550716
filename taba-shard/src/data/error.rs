//! [`DataError`]: why an operation on a user's keys failed.

use std::sync::Arc;

use taba_core::Remedy;

use crate::keys::KeyError;
use crate::limits::{COMMAND_ARGUMENTS_MAX, COMMAND_BYTES_MAX, TRANSACTION_COMMANDS_MAX};
use crate::map::ShardId;
use crate::redis::{LinkError, RedisRefusal};

/// Why an operation on a user's keys failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The key or namespace is invalid.
    #[error("the key is invalid")]
    Key(#[from] KeyError),
    /// The command exceeds a limit.
    #[error(
        "a command of {arguments} arguments and {bytes} bytes: there may be {COMMAND_ARGUMENTS_MAX} of \
         {COMMAND_BYTES_MAX} bytes in all"
    )]
    TooLarge {
        /// Its number of arguments.
        arguments: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// The transaction has too many commands.
    #[error("a transaction of {commands} commands: there may be {TRANSACTION_COMMANDS_MAX}")]
    TooMany {
        /// Their number.
        commands: usize,
    },
    /// The keys of a transaction live in different VBuckets; give them the same text in braces.
    #[error(
        "the keys of a transaction live in different vbuckets; give them the same text in braces: {{cart:7}}:total"
    )]
    Apart,
    /// The shard did not answer. The outcome may be unknown.
    #[error("the shard did not answer")]
    Link(#[source] Arc<LinkError>),
    /// Redis refused: the key holds another type, a counter would leave its range, memory is full, …
    #[error("{shard} refused")]
    Refused {
        /// The shard.
        shard: ShardId,
        /// Its error.
        source: RedisRefusal,
    },
    /// The reply has another type than the operation expects: the key holds something else.
    #[error("{shard} sent a reply of an unexpected type")]
    WrongAnswer {
        /// The shard.
        shard: ShardId,
    },
}

impl From<Arc<LinkError>> for DataError {
    fn from(error: Arc<LinkError>) -> Self {
        match &*error {
            LinkError::Refused { shard, source } => Self::Refused { shard: *shard, source: source.clone() },
            _ => Self::Link(error),
        }
    }
}

impl From<LinkError> for DataError {
    fn from(error: LinkError) -> Self {
        Arc::new(error).into()
    }
}

impl DataError {
    /// What the caller should do.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Link(source) => source.remedy(),
            Self::Refused { source, .. } => source.remedy(),
            Self::TooLarge { .. } | Self::TooMany { .. } => Remedy::Split,
            Self::Key(_) | Self::Apart | Self::WrongAnswer { .. } => Remedy::GiveUp,
        }
    }

    /// Whether the operation may have been executed.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::Link(source) if source.is_outcome_unknown())
    }
}
