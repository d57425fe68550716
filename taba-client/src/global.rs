//! Recording in a library, which does not know whether its application has a [`Client`]: the default Client of the
//! process, the Client of a scope, and [`Lazy`], a handle in a static that finds them.

use std::cell::RefCell;
use std::fmt;
use std::ops::Deref;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::client::Client;
use crate::handles::{Buffered, Counter, Distinct, ExpiryGauge, Gauge, KeyedCounter, Percentile, Timer};
use crate::tabs::TabError;

static DEFAULT: OnceLock<Client> = OnceLock::new();

/// Scopes that are open, in all threads: while there is none, no thread looks for its scope.
static SCOPES_OPEN: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The Clients of this thread's scopes, the innermost last.
    static SCOPES: RefCell<Vec<Client>> = const { RefCell::new(Vec::new()) };
}

/// There is a default Client already.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the process has a default client already, {id}: set it once, in the application and not in a library"
)]
#[non_exhaustive]
pub struct DefaultError {
    /// The id of the Client that is the default, and stays so.
    pub id: taba_core::ClientId,
}

impl Client {
    /// Makes this the default Client of the process, for as long as the process runs: what libraries record with
    /// [`counter`](crate::counter) and its like goes here from now on. For the application, once, at its start.
    ///
    /// What is unsent when the process ends is sent then, for at most [`Config::exit_deadline`](crate::Config::exit_deadline).
    ///
    /// # Errors
    /// [`DefaultError`] when there is a default Client already, which stays.
    pub fn set_default(&self) -> Result<(), DefaultError> {
        DEFAULT.set(self.clone()).map_err(|_| {
            let default = DEFAULT.get().expect("it could not be set because it is");
            DefaultError { id: default.id().clone() }
        })
    }
}

/// The Client that a library should record with here and now: that of the scope ([`with_client`]), else the default of
/// the process ([`Client::set_default`]), else one that records nothing ([`Client::disabled`]).
///
/// For names that are known at run time only; a handle for a fixed name is better kept in a static ([`counter`]).
///
/// # Examples
/// ```
/// use taba_client::{TabName, current};
///
/// fn serve(route: &str) -> Result<(), taba_client::TabError> {
///     current().counter(TabName::builder("http_requests").label("path", route))?.increment();
///     Ok(())
/// }
/// # serve("/users/{id}").unwrap();
/// ```
pub fn current() -> Client {
    scoped().or_else(|| DEFAULT.get().cloned()).unwrap_or_else(Client::disabled)
}

/// Calls `body` with `client` in place of the default Client, in this thread: for tests, and for programs with several
/// Clients. Scopes nest. A thread or a task that `body` starts is outside of the scope.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use taba_client::{Client, Counter, Lazy, TestSink, with_client};
///
/// static PARSED: Lazy<Counter> = taba_client::counter("parsed"); // In a library.
///
/// let sink = TestSink::new();
/// let client = Client::builder("test").sink(sink.clone()).build()?;
/// with_client(&client, || PARSED.get().add(3.0));
/// let _ = client.flush(Duration::from_secs(5));
/// assert_eq!(sink.values::<f64>("parsed"), [3.0]);
/// # Ok::<(), taba_client::BuildError>(())
/// ```
pub fn with_client<R>(client: &Client, body: impl FnOnce() -> R) -> R {
    struct Scope;
    impl Drop for Scope {
        fn drop(&mut self) {
            SCOPES_OPEN.fetch_sub(1, Ordering::Relaxed);
            // Dropped outside of the borrow: the last of a Client flushes, and a sink may record.
            drop(SCOPES.with(|scopes| scopes.borrow_mut().pop()));
        }
    }
    SCOPES.with(|scopes| scopes.borrow_mut().push(client.clone()));
    SCOPES_OPEN.fetch_add(1, Ordering::Relaxed);
    let _scope = Scope;
    body()
}

/// The Client of the innermost scope of this thread.
fn scoped() -> Option<Client> {
    if SCOPES_OPEN.load(Ordering::Relaxed) == 0 {
        return None;
    }
    SCOPES.try_with(|scopes| scopes.borrow().last().cloned()).ok().flatten()
}

/// A handle for a static of a library, which belongs to whatever Client is [`current`] when it is used.
///
/// Until the process has a default Client, what is recorded goes nowhere and is counted nowhere. From then on the handle is
/// the default Client's, made once. Where a handle cannot be made (another crate uses the name with another type), one
/// line in the log says so, and each event counts as dropped in the Client's [`stats`](Client::stats).
///
/// # Examples
/// ```
/// use taba_client::{Counter, Lazy, Timer};
///
/// static REQUESTS: Lazy<Counter> = taba_client::counter("requests");
/// static LATENCY: Lazy<Timer> = taba_client::timer("latency");
///
/// pub fn serve() {
///     let _time = LATENCY.get().start();
///     REQUESTS.get().increment();
/// }
/// # serve();
/// ```
pub struct Lazy<H> {
    name: &'static str,
    make: fn(&Client, &'static str) -> Result<H, TabError>,
    /// Of the default Client.
    handle: OnceLock<H>,
    /// Used while there is none.
    disabled: OnceLock<H>,
    has_failed: OnceLock<()>,
}

impl<H: Default> Lazy<H> {
    /// A handle that is made by `make` when a Client is there. [`counter`] and its like are shorter; this is for types of
    /// your own.
    ///
    /// # Examples
    /// ```
    /// use taba_client::{Lazy, Tab};
    ///
    /// static DELAYS: Lazy<Tab<f64>> = Lazy::new("delays", |client, name| client.tab(name, "MyType"));
    /// DELAYS.get().record(1.5);
    /// ```
    pub const fn new(name: &'static str, make: fn(&Client, &'static str) -> Result<H, TabError>) -> Self {
        Self { name, make, handle: OnceLock::new(), disabled: OnceLock::new(), has_failed: OnceLock::new() }
    }

    /// The handle of the Client that is current here.
    ///
    /// # Cost
    /// Two loads more than a handle that is at hand. In a scope, a look into the Client's table of Tabs.
    #[inline]
    pub fn get(&self) -> LazyRef<'_, H> {
        match self.handle.get() {
            Some(handle) if SCOPES_OPEN.load(Ordering::Relaxed) == 0 => LazyRef(LazyHandle::Static(handle)),
            Some(_) | None => self.find(),
        }
    }

    #[cold]
    fn find(&self) -> LazyRef<'_, H> {
        if let Some(client) = scoped() {
            let made =
                self.make(&client).map_or_else(|| LazyHandle::Static(self.disabled()), LazyHandle::Scoped);
            return LazyRef(made);
        }
        let handle = self.handle.get().or_else(|| {
            let made = self.make(DEFAULT.get()?)?;
            Some(self.handle.get_or_init(|| made))
        });
        LazyRef(LazyHandle::Static(handle.unwrap_or_else(|| self.disabled())))
    }

    fn make(&self, client: &Client) -> Option<H> {
        let made = (self.make)(client, self.name);
        made.map_err(|error| {
            client.note_refused(error.why());
            if self.has_failed.set(()).is_ok() {
                tracing::error!(client = %client.id(), tab = self.name, %error, "a handle in a static cannot be made; its events are dropped");
            }
        })
        .ok()
    }

    fn disabled(&self) -> &H {
        self.disabled.get_or_init(H::default)
    }
}

impl<H> fmt::Debug for Lazy<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lazy").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The handle that [`Lazy::get`] found.
#[derive(Debug)]
pub struct LazyRef<'a, H>(LazyHandle<'a, H>);

#[derive(Debug)]
enum LazyHandle<'a, H> {
    Static(&'a H),
    Scoped(H),
}

impl<H> Deref for LazyRef<'_, H> {
    type Target = H;

    #[inline]
    fn deref(&self) -> &H {
        match &self.0 {
            LazyHandle::Static(handle) => handle,
            LazyHandle::Scoped(handle) => handle,
        }
    }
}

macro_rules! lazy_handles {
    ($($(#[$doc:meta])* $function:ident: $handle:ty;)*) => {$(
        $(#[$doc])*
        pub const fn $function(name: &'static str) -> Lazy<$handle> {
            Lazy::new(name, |client, name| client.$function(name))
        }
    )*};
}

lazy_handles! {
    /// [`Client::counter`] of the current Client, for a static.
    counter: Counter;
    /// [`Client::totals`] of the current Client, for a static.
    totals: Counter;
    /// [`Client::percentile`] of the current Client, for a static.
    percentile: Percentile;
    /// [`Client::percentile_totals`] of the current Client, for a static.
    percentile_totals: Percentile;
    /// [`Client::timer`] of the current Client, for a static.
    timer: Timer;
    /// [`Client::gauge`] of the current Client, for a static.
    gauge: Gauge;
    /// [`Client::expiry_gauge`] of the current Client, for a static.
    expiry_gauge: ExpiryGauge;
    /// [`Client::buffer`] of the current Client, for a static.
    buffer: Buffered;
    /// [`Client::keyed`] of the current Client, for a static.
    keyed: KeyedCounter;
    /// [`Client::distinct`] of the current Client, for a static.
    distinct: Distinct;
}
