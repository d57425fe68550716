//! [`QueryState::guarded`]: routes that a web page cannot ask.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use taba_core::{HostName, RequestGuard};

use super::error::refuse;
use super::state::QueryState;

impl QueryState {
    /// The same, also asked under these names; before any router is made of it. See [`RequestGuard`].
    pub fn with_host_names(mut self, names: Vec<HostName>) -> Self {
        self.guard = Arc::new(RequestGuard::new(names));
        self
    }

    /// These routes, and their fallback, behind the [`RequestGuard`] that is in front of all routes of this crate.
    pub fn guarded(&self, routes: Router) -> Router {
        routes.layer(from_fn_with_state(self.clone(), refuse_pages))
    }
}

async fn refuse_pages(State(state): State<QueryState>, request: Request, next: Next) -> Response {
    let checked = taba_listen::check_page(&state.guard, &request);
    let Err(foreign) = checked else { return next.run(request).await };
    let reason = foreign.reason();
    if let Some(suppressed) = state.shared.log.admit("refused request", reason.word) {
        let path = &*taba_core::printable(request.uri().path());
        tracing::warn!(
            reason = reason.word,
            path,
            suppressed,
            error = foreign.to_string(),
            "a request was refused"
        );
    }
    refuse(reason, reason.body(&foreign.to_string()), Duration::ZERO)
}
