//! The standard Tab types: short compositions of parts, under the names of the first Taba, and one new.

mod common_prefix;
mod counter_group;
mod gauge;
mod percentile_counter;
mod percentile_group;
mod totals_counter;

pub use common_prefix::CommonPrefixCounterGroup;
pub use counter_group::CounterGroup;
pub use gauge::Gauge;
pub use percentile_counter::PercentileCounter;
pub use percentile_group::PercentileGroup;
pub use totals_counter::TotalsCounter;

/// Gives a composition a name of its own, and a version that does not move with its parts' when their bytes do not.
macro_rules! tab_type {
    ($(#[$doc:meta])* $name:ident = $inner:ty, version $version:literal, made by $make:expr) => {
        $crate::tabs::tab_type! {
            $(#[$doc])*
            $name = $inner, version $version, made by $make, older read by ::taba_core::Handler::upgrade
        }
    };
    (
        $(#[$doc:meta])* $name:ident = $inner:ty, version $version:literal, made by $make:expr,
        older read by $upgrade:expr
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name($inner);

        impl $name {
            /// The Handler. It has no settings: all who share a deployment must agree on them.
            pub fn new() -> Self {
                Self($make)
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl ::taba_core::Handler for $name {
            type Value = <$inner as ::taba_core::Handler>::Value;
            type State = <$inner as ::taba_core::Handler>::State;
            type Projection = <$inner as ::taba_core::Handler>::Projection;
            const VERSION: u16 = $version;

            fn fold(&self, state: &mut Self::State, event: ::taba_core::Event<&Self::Value>) {
                self.0.fold(state, event);
            }

            fn merge(&self, into: &mut Self::State, other: &Self::State) {
                ::taba_core::Handler::merge(&self.0, into, other);
            }

            fn project(&self, state: &Self::State, at: ::taba_core::Timestamp) -> Self::Projection {
                ::taba_core::Handler::project(&self.0, state, at)
            }

            fn project_now(&self, state: &Self::State, now: ::taba_core::Timestamp) -> Self::Projection {
                ::taba_core::Handler::project_now(&self.0, state, now)
            }

            fn aggregate(&self, into: &mut Self::Projection, other: &Self::Projection) {
                ::taba_core::Handler::aggregate(&self.0, into, other);
            }

            fn encoded_bytes_max(&self) -> usize {
                ::taba_core::Handler::encoded_bytes_max(&self.0)
            }

            fn decoded_bytes_max(&self, encoded_bytes: usize) -> usize {
                ::taba_core::Handler::decoded_bytes_max(&self.0, encoded_bytes)
            }

            fn heap_bytes(&self, state: &Self::State) -> Option<usize> {
                ::taba_core::Handler::heap_bytes(&self.0, state)
            }

            fn fit(&self, state: &mut Self::State) {
                ::taba_core::Handler::fit(&self.0, state);
            }

            fn fold_all(&self, state: &mut Self::State, events: ::taba_core::Events<'_, Self::Value>) {
                self.0.fold_all(state, events);
            }

            fn render(&self, projection: &Self::Projection, format: ::taba_core::Format) -> ::serde_json::Value {
                ::taba_core::Handler::render(&self.0, projection, format)
            }

            fn upgrade(&self, version: u16, bytes: &[u8]) -> Result<Self::State, ::taba_core::StateError> {
                let upgrade: fn(&$inner, u16, &[u8]) -> Result<Self::State, ::taba_core::StateError> = $upgrade;
                upgrade(&self.0, version, bytes).map_err(|error| match error {
                    ::taba_core::StateError::UnknownVersion { found, .. } => {
                        ::taba_core::StateError::UnknownVersion { found, known: Self::VERSION }
                    }
                    other => other,
                })
            }

            fn should_prune(&self, state: &Self::State, at: ::taba_core::Timestamp) -> bool {
                ::taba_core::Handler::should_prune(&self.0, state, at)
            }

            fn compact(&self, state: &mut Self::State, at: ::taba_core::Timestamp) {
                ::taba_core::Handler::compact(&self.0, state, at);
            }

            fn clamp(&self, state: &mut Self::State, latest: ::taba_core::Timestamp) {
                ::taba_core::Handler::clamp(&self.0, state, latest);
            }

            fn tallies(&self) -> bool {
                ::taba_core::Handler::tallies(&self.0)
            }

            fn tally(&self, projection: &Self::Projection) -> Option<String> {
                ::taba_core::Handler::tally(&self.0, projection)
            }

            fn error_bound(&self, projection: &Self::Projection) -> Option<f64> {
                ::taba_core::Handler::error_bound(&self.0, projection)
            }

            fn caveats(&self, projection: &Self::Projection) -> ::taba_core::Caveats {
                ::taba_core::Handler::caveats(&self.0, projection)
            }
        }
    };
}

use tab_type;
