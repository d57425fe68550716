//! Queries over HTTP or from Rust.
//!
//! Every endpoint of [`router`] is a thin layer over a function of this module. [`aggregates`] and [`projections`]
//! are streams sorted by Tab, so an answer never has to fit in memory; [`super_aggregate`], [`clients`], [`names`],
//! [`types`] and [`ledger`] return one value; [`delete`] and [`prune`] change the store.
//!
//! | query | answer | cost |
//! |---|---|---|
//! | `GET /v2/tabs` | one aggregate for each Tab, or for each combination of labels (`by=`) | its States, of VBuckets that changed |
//! | `GET /v2/projections` | one projection for each Client and Tab | its States |
//! | `GET /v2/super` | one aggregate over all chosen Tabs, which must be of one type | as `/v2/tabs` |
//! | `GET /v2/names`, `/v2/types` | all Tabs, all types | a look at every VBucket; the names of those whose Tabs changed |
//! | `GET /v2/clients` | all Clients | a value for every 24 Clients of each VBucket; the keys of every State, if Tabs are chosen |
//! | `GET /v2/ledger` | recorded = folded + dropped + in flight, for each Client; or only their sum (`totals=true`) | a value for every 24 Clients of each VBucket; or one of each VBucket |
//! | `GET /v2/watch` | server-sent events: changed aggregates | as `/v2/tabs`, each interval: States of VBuckets that changed |
//! | `GET /v2/status`, `/metrics` | the Server's own counters | none; the Ledger's totals, unless `ledger=false` |
//! | `GET /v2/spread`, `POST /v2/spread` | which Tabs are split over several VBuckets; splits some | a few States; a wait for replicas |
//! | `DELETE /v2/tabs`, `POST /v2/prune` | the number of removed States; how far it is and where to go on, if time ran out | the States examined |
//!
//! Every query that does not name its Tabs looks at every VBucket: one request to each place that keeps some (`Store::peek`), and what
//! changed there since names of Tabs were last read (`Limits::tab_index_bytes_max`). Several Tabs are read at a time (`Limits::tabs_ahead`). What was read for aggregates is kept while
//! nobody commits to its VBuckets (`Limits::tab_cache_bytes_max`): then each Tab costs one projection.
//!
//! # Parameters
//! - `name=delay;to=MEM,departures` chooses exactly these Tabs; `base=delay` all labels of `delay`; `type=Gauge` a
//!   type; `label.to=MEM` a label. Different parameters must all match; values of one are alternatives, and so are
//!   `name` and `base`. A name that does not exist is no error: the answer is empty.
//! - `client=web-1,web-2` chooses Clients.
//! - `re=true` makes `name` and `client` regular expressions that must match in full; a comma is then part of the
//!   expression, and the parameter may be repeated.
//! - `by=from,to` groups by the values of labels; a Tab without the label is in the group of `null`.
//! - `at=` projects as of a time: RFC 3339, or seconds since the Unix epoch, to the year 9999. Default: now.
//! - `detail=true` shows more of a projection, such as the buckets of windows.
//! - `limit=` bounds the results; if there are more, the answer has `"truncated": true`, and `next` for `from=`.
//! - `reserved=true` includes the Tabs of the Ledger, which otherwise appear only when named.
//!
//! # Unknown values
//! An unknown value is `null`, and `unknown` says which part and why (`{"1m": "begins before what is kept"}`; `*` is
//! the whole value): windows as of a time that they no longer cover, totals and gauges as of a time before their
//! latest event. `left_out` names observed data that a bound kept out of the value, `standard_error` the error of
//! estimates without an `error_bound`. Each appears only when needed.
//!
//! # When a part of the store cannot be read
//! Results that do not depend on it are answered with status 200; `missing` says how many VBuckets could not be read,
//! on which shards, why, and whether `results` may be missing or only the counts of `lost` events, which are then
//! `null`. Groups and super-aggregates that may lack something have `"partial": true`; `complete` is false. If
//! nothing requested can be read, the status is 503, or 500 for damage. `/metrics` always has the Server's own
//! counters.
//!
//! Values are percent-encoded as usual, except that a `+` means itself: names, expressions and times contain `+` and
//! no spaces.

mod accounts;
mod accounts_sum;
mod admission;
mod aggregate;
mod aggregates;
mod ahead;
mod answer;
mod catalog;
mod chooser;
mod context;
mod deadline;
mod error;
mod excess;
mod fault;
mod groups;
mod head_cache;
mod heads;
mod ledger;
mod lists;
mod loss_cache;
mod losses;
mod metrics;
mod missing;
mod negotiate;
mod pages;
mod params;
mod projection;
mod removal;
mod renewal;
mod routes;
mod row;
mod selection;
mod spread;
mod spread_cache;
mod state;
mod sums;
mod tab_cache;
mod tab_index;
mod text;
mod times;
mod upkeep;
mod walk;
mod watch;

pub use aggregate::{Aggregate, Quality};
pub use aggregates::{aggregates, super_aggregate};
pub use context::Query;
pub use error::QueryError;
pub(crate) use error::refuse;
pub use fault::{QueryItem, StateFault};
pub use ledger::{Account, DroppedEvents, Ledger, ledger, ledger_totals};
pub use lists::{ClientRow, TabRow, TypeRow, clients, names, types};
pub use missing::{Affects, MissingPart, PartialAnswer};
pub use projection::{ClientProjection, projections};
pub use removal::{RemovalCursor, RemovalCursorError, RemovalRest, Removed, delete, forget, prune};
pub use routes::{admin_router, metrics_router, read_router, router};
pub(crate) use routes::{admin_routes, metrics_routes, read_routes};
pub use selection::{Pattern, Selection};
pub use spread::{set_spread, spread_rules};
pub use state::{Limits, QueryReport, QueryState};
pub use upkeep::{Upkeep, upkeep};
