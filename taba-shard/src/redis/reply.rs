//! A value of the redis crate, as a [`Reply`].

use bytes::Bytes;
use redis::Value;

use crate::command::Reply;

pub(super) fn reply(value: Value) -> Reply {
    match value {
        Value::Nil => Reply::Nothing,
        Value::Okay => Reply::Done,
        Value::Int(number) => Reply::Integer(number),
        Value::BulkString(bytes) => Reply::Bytes(bytes.into()),
        Value::SimpleString(text) => Reply::Bytes(text.into()),
        Value::Array(items) => Reply::List(items.into_iter().map(reply).collect()),
        Value::ServerError(error) => Reply::Refused {
            code: error.code().to_owned(),
            detail: error.details().unwrap_or_default().to_owned(),
        },
        // Other types are only in RESP3, which is not used.
        _ => Reply::Bytes(Bytes::new()),
    }
}
