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
    proxy: Option<String>,
}

impl Client {
    /// Asks by this proxy, or by none: a Server is near, and a proxy that is set for the web does not know it.
    pub(crate) fn new(server: &str, proxy: Option<&str>) -> Result<Self, CliError> {
        let bad = |source| CliError::Proxy {
            proxy: proxy.unwrap_or_default().to_owned(),
            source: Box::new(source),
        };
        let by = proxy.map(ureq::Proxy::new).transpose().map_err(bad)?;
        let config = Agent::config_builder()
            .proxy(by)
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIME))
            .build();
        Ok(Self { agent: config.new_agent(), server: server.to_owned(), proxy: proxy.map(str::to_owned) })
    }

    /// The body of the answer, to be read as it comes.
    pub(crate) fn open(
        &self,
        method: Method,
        question: &Question,
        accept: &str,
    ) -> Result<impl Read + use<>, CliError> {
        let url = question.url(&self.server);
        tracing::debug!(?method, url, proxy = self.proxy, "asking");
        let answer = match method {
            Method::Get => self.agent.get(&url).header("accept", accept).call(),
            Method::Delete => self.agent.delete(&url).header("accept", accept).call(),
            Method::Post => self.agent.post(&url).header("accept", accept).send_empty(),
        };
        let answer = answer.map_err(|source| CliError::Unreachable {
            server: self.server.clone(),
            by: self
                .proxy
                .as_ref()
                .map_or_else(String::new, |proxy| format!(" by the proxy {proxy} (--proxy)")),
            source: Box::new(source),
        })?;
        let status = answer.status();
        tracing::debug!(status = status.as_u16(), "answered");
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
