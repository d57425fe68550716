//! [`Client`]: asks the server.

use std::io::{BufReader, Read};
use std::time::Duration;

use serde_json::Value;
use ureq::Agent;
use ureq::http::Response;

use crate::error::CliError;
use crate::url::Question;

/// How long to wait for a connection. Answers may take as long as the server lets them.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// What to do with the answer's resource.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Method {
    Get,
    Post,
    Delete,
}

/// Asks one server.
pub(crate) struct Client {
    agent: Agent,
    server: String,
}

impl Client {
    pub(crate) fn new(server: &str) -> Self {
        let config =
            Agent::config_builder().http_status_as_error(false).timeout_connect(Some(CONNECT_TIME)).build();
        Self { agent: config.new_agent(), server: server.to_owned() }
    }

    /// The body of the answer, to be read as it comes.
    pub(crate) fn open(
        &self,
        method: Method,
        question: &Question,
        accept: &str,
    ) -> Result<impl Read + use<>, CliError> {
        let url = question.url(&self.server);
        let answer = match method {
            Method::Get => self.agent.get(&url).header("accept", accept).call(),
            Method::Delete => self.agent.delete(&url).header("accept", accept).call(),
            Method::Post => self.agent.post(&url).header("accept", accept).send_empty(),
        };
        let answer = answer.map_err(|source| CliError::Unreachable {
            server: self.server.clone(),
            source: Box::new(source),
        })?;
        let status = answer.status();
        let reader = BufReader::new(Response::into_body(answer).into_with_config().limit(u64::MAX).reader());
        if status.is_success() {
            return Ok(reader);
        }
        let stranger = || CliError::Stranger { server: self.server.clone(), status: status.as_u16() };
        let error: Value = serde_json::from_reader(reader).map_err(|_| stranger())?;
        if !error["reason"].is_string() {
            return Err(stranger());
        }
        let (reason, message) = CliError::words(&error);
        Err(CliError::Refused { reason, message })
    }

    /// The whole answer.
    pub(crate) fn ask(&self, method: Method, question: &Question) -> Result<Value, CliError> {
        let reader = self.open(method, question, "application/json")?;
        serde_json::from_reader(reader).map_err(|error| match error.is_io() {
            true => CliError::BrokeOff { source: error.into() },
            false => CliError::Unreadable { source: error },
        })
    }
}
