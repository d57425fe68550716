//! The query surface: what was recorded, asked for over HTTP or from Rust.
//!
//! Every endpoint of [`router`] is a thin shell around a function of this module, which can be called without HTTP:
//! [`aggregates`] and [`projections`] are streams, Tab by Tab in the order of names, so that an answer never has to
//! fit in memory; [`super_aggregate`], [`clients`], [`names`], [`types`] and [`ledger`] answer at once; [`delete`] and
//! [`prune`] change the store.
//!
//! | question | answer | cost |
//! |---|---|---|
//! | `GET /v2/tabs` | one aggregate for each Tab, or for each combination of labels (`by=`) | its States |
//! | `GET /v2/projections` | one projection for each Client and Tab | its States |
//! | `GET /v2/super` | one aggregate over all chosen Tabs, which must be of one type | its States |
//! | `GET /v2/names`, `/v2/types` | what there is | the index of every VBucket |
//! | `GET /v2/clients` | who recorded | the keys of every State |
//! | `GET /v2/ledger` | recorded = folded + dropped + in flight, for each Client | every State |
//! | `GET /v2/watch` | server-sent events: aggregates, whenever they changed | as `/v2/tabs`, each interval |
//! | `GET /v2/status`, `/metrics` | what the Server counts about itself | none; the Ledger, unless `ledger=false` |
//! | `DELETE /v2/tabs`, `POST /v2/prune` | how much was removed | the States looked at |
//!
//! # Parameters
//! - `name=delay;to=MEM,departures` chooses exactly these Tabs; `base=delay` all labels of `delay`; `type=Gauge` those
//!   of a type; `label.to=MEM` those with a label. Different parameters must all hold, one's values are alternatives;
//!   `name` and `base` together are alternatives. A name that nothing has is no error: the answer is empty.
//! - `client=web-1,web-2` chooses Clients.
//! - `re=true` makes `name` and `client` regular expressions that must match in full; a comma is then part of the
//!   expression, and the parameter may be repeated.
//! - `by=from,to` groups by the values of labels; a Tab without the label is in the group of `null`.
//! - `at=` projects as of a time: RFC 3339, or seconds since the Unix epoch, to the year 9999. Default: now.
//! - `detail=true` shows what lies under a projection, such as the buckets of windows.
//! - `limit=` bounds the results; the answer says `"truncated": true` when there was more, and `next`:
//!   what `from=` goes on with.
//! - `reserved=true` includes the Tabs of the Ledger, which otherwise only show when they are asked for by name.
//!
//! # What is not known
//! A value that is not known is `null`, and `unknown` beside it says which part and why (`{"1m": "begins before what is
//! kept"}`; `*` is the whole value): windows as of a time that they no longer reach, totals and gauges as of a time before
//! their latest event. `left_out` says what was observed and a bound kept out of the value, `standard_error` how far
//! estimates without an `error_bound` are off. Each is there only when there is something to say.
//!
//! # When a part of the store cannot be read
//! What does not rest on it is answered with status 200, and `missing` says what the answer lacks: how many VBuckets, on
//! which shards, why, and whether `results` may be missing or only the counts of `lost` events, which are then `null`.
//! Groups and super-aggregates that may lack something carry `"partial": true`; `complete` is false. Only when nothing
//! that was asked for can be read, the status is 503, or 500 for what is damaged. `/metrics` always has the Server's own
//! counters.
//!
//! Values are percent-encoded as usual, with one exception: a `+` stands for itself, because names, expressions and
//! times hold it and none of them holds a space.

mod aggregate;
mod answer;
mod catalog;
mod deadline;
mod error;
mod fault;
mod ledger;
mod lists;
mod metrics;
mod missing;
mod negotiate;
mod note;
mod notes;
mod params;
mod projection;
mod removal;
mod routes;
mod row;
mod selection;
mod state;
mod text;
mod times;
mod upkeep;
mod watch;

pub use aggregate::{Aggregate, Quality, Query, aggregates, super_aggregate};
pub use error::QueryError;
pub(crate) use error::refuse;
pub use fault::{QueryItem, StateFault};
pub use ledger::{Account, DroppedEvents, Ledger, ledger};
pub use lists::{ClientRow, TabRow, TypeRow, clients, names, types};
pub use missing::{Affects, MissingPart, PartialAnswer};
pub use projection::{ClientProjection, projections};
pub use removal::{Removed, delete, prune};
pub use routes::{admin_router, metrics_router, read_router, router};
pub use selection::{Pattern, Selection};
pub use state::{Limits, QueryReport, QueryState};
pub use upkeep::{Upkeep, upkeep};
