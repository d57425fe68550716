//! A value of the redis crate, as a [`Reply`].

use bytes::Bytes;
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, Pipeline, RedisError, Value};

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

/// Sends commands over a connection that is made for them. The caller bounds the time.
pub(super) async fn ask_once(info: ConnectionInfo, questions: &Pipeline) -> Result<Vec<Reply>, RedisError> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let mut connection = Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await?;
    let values = connection.send_packed_commands(questions, 0, questions.len()).await?;
    Ok(values.into_iter().map(reply).collect())
}
