//! How a [`Client`] makes handles.

use std::sync::Arc;

use taba_core::{NameError, TabName, TabType, Value};

use super::{Buffered, Counter, Distinct, ExpiryGauge, Gauge, KeyedCounter, Percentile, Tab, Timer};
use crate::client::Client;
use crate::tab::TabSpec;
use crate::tabs::TabError;

impl Client {
    /// A Tab of any type, whose Handler folds values of type `V`. The name is a text, with labels if need be
    /// (`delay;to=MEM`), a [`TabName`], or a [`TabName::builder`], whose labels may have any text, a route or a city:
    ///
    /// ```
    /// # use taba_client::{Client, TabName};
    /// # let client = Client::disabled();
    /// let requests = client.counter(TabName::builder("http_requests").label("path", "/users/{id}"))?;
    /// requests.increment();
    /// # Ok::<(), taba_client::TabError>(())
    /// ```
    ///
    /// # Errors
    /// [`TabError`] when a name breaks the rules, the Tab is in use with another type, there are
    /// [`Config::tabs_max`](crate::Config::tabs_max) Tabs in use, or the Client's background task is gone for good.
    pub fn tab<V: Value>(
        &self,
        name: impl TryInto<TabName, Error: Into<NameError>>,
        tab_type: &str,
    ) -> Result<Tab<V>, TabError> {
        let name = name.try_into().map_err(Into::into)?;
        let spec = TabSpec::new::<V>(name, TabType::new(tab_type)?);
        if let Some(reason) = self.core().gone() {
            return Err(TabError::ClientGone { tab: spec.name().clone(), reason: Arc::clone(reason) });
        }
        if self.is_disabled() {
            return match spec.name().is_reserved() {
                true => Err(TabError::Reserved { tab: spec.name().clone() }),
                false => Ok(Tab::disabled(self.core())),
            };
        }
        let recorder = &self.core().recorder;
        let lease = recorder.tabs().lease(&spec, Arc::clone(recorder) as _)?;
        Ok(Tab::new(lease, self.core()))
    }

    /// A counter with windows and percentiles (`CounterGroup`).
    ///
    /// # Errors
    /// As [`tab`](Self::tab).
    pub fn counter(&self, name: impl TryInto<TabName, Error: Into<NameError>>) -> Result<Counter, TabError> {
        self.tab(name, "CounterGroup").map(Counter)
    }

    /// Count, total, least and greatest of all time (`TotalsCounter`).
    ///
    /// # Errors
    /// As [`tab`](Self::tab).
    pub fn totals(&self, name: impl TryInto<TabName, Error: Into<NameError>>) -> Result<Counter, TabError> {
        self.tab(name, "TotalsCounter").map(Counter)
    }

    /// Percentiles over windows (`PercentileGroup`).
    ///
    /// # Errors
    /// As [`tab`](Self::tab).
    pub fn percentile(
        &self,
        name: impl TryInto<TabName, Error: Into<NameError>>,
    ) -> Result<Percentile, TabError> {
        self.tab(name, "PercentileGroup").map(Percentile)
    }

    /// Percentiles of all time (`PercentileCounter`).
    ///
    /// # Errors
    /// As [`tab`](Self::tab).
    pub fn percentile_totals(
        &self,
        name: impl TryInto<TabName, Error: Into<NameError>>,
    ) -> Result<Percentile, TabError> {
        self.tab(name, "PercentileCounter").map(Percentile)
    }

    /// Percentiles of how long something takes, in seconds (`PercentileGroup`).
    ///
    /// # Errors
    /// As [`tab`](Self::tab).
    pub fn timer(&self, name: impl TryInto<TabName, Error: Into<NameError>>) -> Result<Timer, TabError> {
        self.tab(name, "PercentileGroup").map(Timer)
    }

    /// A value, a number or a text (`Gauge`).
    ///
    /// # Errors
    /// As [`tab`](Self::tab).
    pub fn gauge(&self, name: impl TryInto<TabName, Error: Into<NameError>>) -> Result<Gauge, TabError> {
        self.tab(name, "Gauge").map(Gauge)
    }

    /// A value that expires (`ExpiryGauge`).
    ///
    /// # Errors
    /// As [`tab`](Self::tab).
    pub fn expiry_gauge(
        &self,
        name: impl TryInto<TabName, Error: Into<NameError>>,
    ) -> Result<ExpiryGauge, TabError> {
        self.tab(name, "ExpiryGauge").map(ExpiryGauge)
    }

    /// Recent values, each for a while (`Buffer`).
    ///
    /// # Errors
    /// As [`tab`](Self::tab).
    pub fn buffer(&self, name: impl TryInto<TabName, Error: Into<NameError>>) -> Result<Buffered, TabError> {
        self.tab(name, "Buffer").map(Buffered)
    }

    /// Counters under keys (`CommonPrefixCounterGroup`).
    ///
    /// # Errors
    /// As [`tab`](Self::tab).
    pub fn keyed(
        &self,
        name: impl TryInto<TabName, Error: Into<NameError>>,
    ) -> Result<KeyedCounter, TabError> {
        self.tab(name, "CommonPrefixCounterGroup").map(KeyedCounter)
    }

    /// How many different texts there are (`Distinct`).
    ///
    /// # Errors
    /// As [`tab`](Self::tab).
    pub fn distinct(
        &self,
        name: impl TryInto<TabName, Error: Into<NameError>>,
    ) -> Result<Distinct, TabError> {
        self.tab(name, "Distinct").map(Distinct)
    }
}
