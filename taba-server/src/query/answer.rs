//! A streamed answer: rows are encoded as they arrive, in chunks of bounded size.

use std::convert::Infallible;
use std::pin::Pin;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};
use serde::Serialize;
use serde_json::{Map, Value, json};
use taba_core::{TabName, printable, unescape_label};

use super::error::QueryError;
use super::fault::{QueryItem, StateFault};
use super::missing::{Affects, MissingPart};
use super::negotiate::Media;
use super::row::Row;
use super::state::QueryState;

/// The size at which a chunk is sent.
const CHUNK_BYTES: usize = 16 * 1024;

type Source<T> = Pin<Box<dyn Stream<Item = Result<QueryItem<T>, QueryError>> + Send>>;

/// The format and bounds of an answer.
pub(super) struct AnswerShape {
    pub(super) media: Media,
    /// Rows at most.
    pub(super) rows_max: usize,
    /// Fields of the answer besides its rows.
    pub(super) head: Map<String, Value>,
    /// The same as text, at the end.
    pub(super) foot: String,
}

/// Answers with a stream of rows.
///
/// # Errors
/// The stream's error when it comes before any row; a later one ends the answer, and is part of it.
pub(super) async fn respond<T: Row>(
    state: &QueryState,
    shape: AnswerShape,
    source: impl Stream<Item = Result<QueryItem<T>, QueryError>> + Send + 'static,
) -> Result<Response, QueryError> {
    let mut source: Source<T> = Box::pin(source.fuse());
    let first = match source.next().await {
        Some(Err(error)) => return Err(error),
        first => first,
    };
    let content_type = shape.media.content_type();
    let source: Source<T> = Box::pin(stream::iter(first).chain(source));
    let writer = AnswerWriter {
        state: state.clone(),
        shape,
        source: Some(source),
        has_begun: false,
        rows: 0,
        faults: FaultLog::default(),
        missing: None,
    };
    let chunks = stream::unfold(Some(writer), |writer| async move {
        let mut writer = writer?;
        let (chunk, more) = writer.chunk().await;
        Some((Ok::<_, Infallible>(chunk), more.then_some(writer)))
    });
    Ok(([(header::CONTENT_TYPE, content_type)], Body::from_stream(chunks)).into_response())
}

/// Answers with rows in memory.
pub(super) async fn respond_all<T: Row>(
    state: &QueryState,
    shape: AnswerShape,
    rows: Vec<T>,
    faults: Vec<StateFault>,
    missing: Option<MissingPart>,
) -> Result<Response, QueryError> {
    let items = rows.into_iter().map(QueryItem::Row).chain(faults.into_iter().map(QueryItem::Fault));
    let items = items.chain(missing.map(QueryItem::Missing));
    respond(state, shape, stream::iter(items.map(Ok).collect::<Vec<_>>())).await
}

struct AnswerWriter<T> {
    state: QueryState,
    shape: AnswerShape,
    /// `None` once it has ended.
    source: Option<Source<T>>,
    has_begun: bool,
    rows: usize,
    faults: FaultLog,
    missing: Option<MissingPart>,
}

/// The faults met: the first ones in full, the others counted.
#[derive(Default)]
struct FaultLog {
    told: Vec<StateFault>,
    told_count: usize,
    omitted: u64,
}

/// The end of an answer.
#[derive(Default)]
struct AnswerEnd {
    truncated: bool,
    /// The `from=` of the next page.
    next: Option<String>,
    error: Option<QueryError>,
}

impl<T: Row> AnswerWriter<T> {
    /// The next chunk, and whether more follow.
    async fn chunk(&mut self) -> (Bytes, bool) {
        let mut out = String::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 4);
        if !std::mem::replace(&mut self.has_begun, true) {
            self.begin(&mut out);
        }
        while out.len() < CHUNK_BYTES {
            let next = match &mut self.source {
                Some(source) => source.next().await,
                None => None,
            };
            match next {
                Some(Ok(QueryItem::Row(row))) if self.rows == self.shape.rows_max => {
                    self.end(&AnswerEnd { truncated: true, next: row.key(), error: None }, &mut out);
                    return (out.into(), false);
                }
                Some(Ok(QueryItem::Row(row))) => self.row(&row, &mut out),
                Some(Ok(QueryItem::Fault(fault))) => self.fault(fault, &mut out),
                Some(Ok(QueryItem::Missing(missing))) => {
                    self.state.shared.counters.partial();
                    self.missing = MissingPart::join(self.missing.take(), Some(missing));
                }
                Some(Err(error)) => {
                    self.state.shared.counters.failure();
                    self.end(&AnswerEnd { error: Some(error), ..AnswerEnd::default() }, &mut out);
                    return (out.into(), false);
                }
                None => {
                    self.end(&AnswerEnd::default(), &mut out);
                    return (out.into(), false);
                }
            }
        }
        (out.into(), true)
    }

    fn begin(&self, out: &mut String) {
        if self.shape.media == Media::Json {
            out.push('{');
            for (key, value) in &self.shape.head {
                push_json(key, out);
                out.push(':');
                push_json(value, out);
                out.push(',');
            }
            out.push_str("\"results\":[");
        }
    }

    fn row(&mut self, row: &T, out: &mut String) {
        match self.shape.media {
            Media::Text => row.write_text(out),
            Media::Lines => {
                push_row(row, out);
                out.push('\n');
            }
            Media::Json => {
                out.push_str(if self.rows == 0 { "\n" } else { ",\n" });
                push_row(row, out);
            }
        }
        self.rows += 1;
    }

    fn fault(&mut self, fault: StateFault, out: &mut String) {
        if self.faults.told_count == self.state.limits.faults_max {
            self.faults.omitted += fault.states;
            return;
        }
        self.faults.told_count += 1;
        match self.shape.media {
            Media::Json => self.faults.told.push(fault),
            Media::Lines => {
                push_json(&json!({ "error": fault }), out);
                out.push('\n');
            }
            Media::Text => {
                let StateFault { name, client, message, states, .. } = fault;
                out.push_str(&format!(
                    "# not included: {states} states of {name} ({client}, …): {}\n",
                    printable(&message)
                ));
            }
        }
    }

    fn end(&mut self, end: &AnswerEnd, out: &mut String) {
        self.source = None;
        let mut tail = Map::new();
        if self.shape.media == Media::Json {
            tail.insert("errors".to_owned(), json!(std::mem::take(&mut self.faults.told)));
        } else {
            tail.append(&mut self.shape.head);
            tail.insert("results".to_owned(), json!(self.rows));
        }
        tail.insert("errors_omitted".to_owned(), json!(self.faults.omitted));
        tail.insert("truncated".to_owned(), json!(end.truncated));
        tail.extend(end.next.as_ref().map(|next| ("next".to_owned(), json!(next))));
        tail.insert("missing".to_owned(), json!(self.missing));
        tail.insert(
            "complete".to_owned(),
            json!(end.error.is_none() && self.has_all_results() && self.faults.told_count == 0),
        );
        if let Some(error) = &end.error {
            tail.insert("error".to_owned(), error.to_json());
        }
        match self.shape.media {
            Media::Json => {
                out.push_str("\n],");
                let mut object = String::new();
                push_json(&tail, &mut object);
                out.push_str(&object[1..]);
                out.push('\n');
            }
            Media::Lines => {
                push_json(&json!({ "end": tail }), out);
                out.push('\n');
            }
            Media::Text => self.end_text(end, out),
        }
    }

    /// Whether the results are complete as far as the store is concerned.
    fn has_all_results(&self) -> bool {
        self.missing.as_ref().is_none_or(|missing| missing.affects == Affects::Lost)
    }

    fn end_text(&self, end: &AnswerEnd, out: &mut String) {
        out.push_str(&self.shape.foot);
        if self.faults.omitted > 0 {
            out.push_str(&format!("# not included: {} more states\n", self.faults.omitted));
        }
        if end.truncated {
            let next = end.next.as_ref().map(|next| format!("; continue with from={}", printable(next)));
            out.push_str(&format!(
                "# there are more than {} results{}\n",
                self.rows,
                next.unwrap_or_default()
            ));
        }
        if let Some(error) = &end.error {
            out.push_str(&format!("# incomplete: {}\n", error.message()));
        }
        if let Some(missing) = &self.missing {
            out.push_str(&missing.text());
        }
        if self.rows == 0 && end.error.is_none() {
            out.push_str("# nothing found\n");
        }
    }
}

/// A row; if labels of its Tab are escaped, with their texts: `"labels": {"city": "Zürich"}`.
fn push_row<T: Row>(row: &T, out: &mut String) {
    let labels = row.tab().map(label_texts).unwrap_or_default();
    push_json(row, out);
    if !labels.is_empty() && out.ends_with('}') {
        out.pop();
        out.push_str(",\"labels\":");
        push_json(&labels, out);
        out.push('}');
    }
}

/// The texts of a Tab's labels, if one of them is escaped.
pub(super) fn label_texts(name: &str) -> Map<String, Value> {
    let Some(name) = TabName::new(name).ok().filter(|name| name.shown() != name.as_str()) else {
        return Map::new();
    };
    name.labels().map(|(key, value)| (key.to_owned(), unescape_label(value).into())).collect()
}

fn push_json<T: Serialize + ?Sized>(value: &T, out: &mut String) {
    // Handlers' values are JSON and our own structs have text keys, so this cannot fail.
    out.push_str(&serde_json::to_string(value).expect("plain data becomes JSON"));
}
