//! [`Client`]: requests to a Server or an Agent.

use std::io::{BufReader, Read};
use std::time::Duration;

use serde_json::Value;
use taba_core::{REQUEST_HEADER, RequestHeader};
use ureq::http::{Response, StatusCode};
use ureq::{RequestBuilder, Timeout};

use crate::args::Args;
use crate::error::CliError;
use crate::url::Question;

/// Timeout of a connection.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// The HTTP method.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Method {
    Get,
    Post,
    Delete,
}

/// Requests to one Server or Agent.
pub(crate) struct Client {
    agent: ureq::Agent,
    server: String,
    /// The setting that names it.
    setting: &'static str,
    header: Vec<RequestHeader>,
    proxy: Option<String>,
    timeout: Duration,
}

impl Client {
    /// For the Server of the settings.
    pub(crate) fn new(args: &Args) -> Result<Self, CliError> {
        Ok(Self { setting: "--server or TABA_SERVER", ..Self::to(&args.server, args)? })
    }

    /// For an Agent. Both use the proxy of the settings, or none: a Server is near, and a web proxy in the
    /// environment cannot reach it.
    pub(crate) fn to(agent: &str, args: &Args) -> Result<Self, CliError> {
        let proxy = args.proxy.as_deref();
        let bad = |source| CliError::Proxy {
            proxy: proxy.unwrap_or_default().to_owned(),
            source: Box::new(source),
        };
        let by = proxy.map(ureq::Proxy::new).transpose().map_err(bad)?;
        let config = ureq::Agent::config_builder()
            .proxy(by)
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIME))
            .timeout_global(Some(args.timeout))
            .build();
        Ok(Self {
            agent: config.new_agent(),
            server: agent.to_owned(),
            setting: "--agent or TABA_AGENT",
            header: args.header.clone(),
            proxy: proxy.map(str::to_owned),
            timeout: args.timeout,
        })
    }

    /// For an endless answer: only its beginning has a timeout.
    pub(crate) fn without_end(self) -> Self {
        let config = ureq::Agent::config_builder()
            .proxy(self.agent.config().proxy().cloned())
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIME))
            .timeout_recv_response(Some(self.timeout))
            .build();
        Self { agent: config.new_agent(), ..self }
    }

    /// The body of the answer, as a stream.
    pub(crate) fn open(
        &self,
        method: Method,
        question: &Question,
        accept: &str,
    ) -> Result<BufReader<impl Read + use<>>, CliError> {
        let url = question.url(&self.server);
        tracing::debug!(?method, url, proxy = self.proxy, "asking");
        let answer = match method {
            Method::Get => self.with_headers(self.agent.get(&url)).header("accept", accept).call(),
            Method::Delete => {
                let delete = self.with_headers(self.agent.delete(&url)).header(REQUEST_HEADER, "1");
                delete.header("accept", accept).call()
            }
            Method::Post => {
                let post = self.with_headers(self.agent.post(&url)).header(REQUEST_HEADER, "1");
                post.header("accept", accept).send_empty()
            }
        };
        self.answer(answer)
    }

    /// Records lines under a key, and returns the result.
    pub(crate) fn record(&self, lines: &[u8], client: Option<&str>, key: &str) -> Result<Value, CliError> {
        let url = Question::new("/v2/record").with_some("client", client).url(&self.server);
        let post = self.with_headers(self.agent.post(&url)).header("idempotency-key", key);
        let answer = self.answer(post.header("content-type", "application/x-ndjson").send(lines))?;
        serde_json::from_reader(answer).map_err(unreadable)
    }

    fn with_headers<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        self.header.iter().fold(request, |request, header| request.header(header.name(), header.value()))
    }

    /// The body of a successful answer.
    fn answer(
        &self,
        answer: Result<Response<ureq::Body>, ureq::Error>,
    ) -> Result<BufReader<impl Read + use<>>, CliError> {
        let answer = answer.map_err(|error| self.unanswered(error))?;
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
        if status == StatusCode::SERVICE_UNAVAILABLE {
            return Err(CliError::Busy { server: self.server.clone(), reason, message });
        }
        Err(CliError::Refused { reason, message })
    }

    fn unanswered(&self, error: ureq::Error) -> CliError {
        let server = self.server.clone();
        let proxy = self.proxy.as_ref();
        let by = proxy.map_or_else(String::new, |proxy| format!(" by the proxy {proxy} (--proxy)"));
        match error {
            // It was connected.
            ureq::Error::Timeout(Timeout::Global | Timeout::RecvResponse) => {
                CliError::TimedOut { server, by, timeout: self.timeout }
            }
            error => CliError::Unreachable { server, setting: self.setting, by, source: Box::new(error) },
        }
    }

    /// The whole answer.
    pub(crate) fn ask(&self, method: Method, question: &Question) -> Result<Value, CliError> {
        let reader = self.open(method, question, "application/json")?;
        serde_json::from_reader(reader).map_err(unreadable)
    }
}

fn unreadable(error: serde_json::Error) -> CliError {
    match error.is_io() {
        true => CliError::BrokeOff { source: error.into() },
        false => CliError::Unreadable { source: error },
    }
}
