//! [`Group`]: several parts that look at the same events.

use std::fmt::Debug;

use serde_json::{Map, Value};
use taba_core::{Caveats, Event, Events, Format, Handler, Timestamp};

/// Two to six parts that fold the same events, each under a name of its own.
///
/// Rendered as one map: `{"name": what that part says, …}`, in the order given. The map of a part whose name is `""`
/// is laid out in the group's own map instead of under a name.
///
/// The State is the tuple of the parts' States, and the laws hold for it because they hold for each. The version is
/// the sum of the parts' versions, less one for each part but the first; so it rises when that of a part does.
///
/// # Examples
/// What a service wants to know of its answers' sizes: totals, percentiles, and the last five minutes.
/// ```
/// use std::time::Duration;
/// use taba_core::{Event, Format, Handler, Registry, Timestamp};
/// use taba_handlers::{Group, Sketch, Sum, Totals, Windowed};
///
/// let recent = Windowed::new(Sum, Duration::from_secs(300), Duration::from_secs(10));
/// let sizes = Group::new(["", "", "5m"], (Totals, Sketch, recent));
///
/// let mut state = Default::default();
/// sizes.fold(&mut state, Event::new(Timestamp::from_secs(1000), &512.0));
/// let now = sizes.project(&state, Timestamp::from_secs(1001));
/// let said = sizes.render(&now, Format::Summary);
/// assert_eq!((&said["max"], &said["5m"]["count"]), (&512.0.into(), &1.into()));
///
/// let registry = Registry::builder().with("Sizes", sizes).build()?;
/// # Ok::<(), taba_core::RegistryError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Group<P: Parts> {
    names: P::Names,
    parts: P,
}

/// A tuple of two to six [`Handler`]s of one kind of value. There is nothing to implement.
pub trait Parts: sealed::Sealed {
    /// One name for each.
    type Names: AsRef<[&'static str]> + Clone + Debug;
}

mod sealed {
    pub trait Sealed {}
}

impl<P: Parts> Group<P> {
    /// A group of `parts`, in this order.
    ///
    /// # Panics
    /// When two parts have one name (other than `""`): that is a bug of the caller.
    pub fn new(names: P::Names, parts: P) -> Self {
        let all = names.as_ref();
        let twice = |(i, name): (usize, &&str)| !name.is_empty() && all[..i].contains(name);
        assert!(!all.iter().enumerate().any(twice), "two parts share a name in {all:?}");
        Self { names, parts }
    }
}

/// Puts what one part says into the map of the group.
fn lay_out(map: &mut Map<String, Value>, name: &str, said: Value) {
    match said {
        Value::Object(said) if name.is_empty() => map.extend(said),
        said => {
            map.insert(name.to_owned(), said);
        }
    }
}

macro_rules! group {
    ($count:literal: $($part:ident $place:tt),+) => {
        impl<A: Handler, $($part: Handler<Value = A::Value>),+> sealed::Sealed for (A, $($part),+) {}

        impl<A: Handler, $($part: Handler<Value = A::Value>),+> Parts for (A, $($part),+) {
            type Names = [&'static str; $count];
        }

        impl<A: Handler, $($part: Handler<Value = A::Value>),+> Handler for Group<(A, $($part),+)> {
            type Value = A::Value;
            type State = (A::State, $($part::State),+);
            type Projection = (A::Projection, $($part::Projection),+);
            const VERSION: u16 = A::VERSION $(+ $part::VERSION - 1)+;

            fn fold(&self, state: &mut Self::State, event: Event<&A::Value>) {
                self.parts.0.fold(&mut state.0, event);
                $(self.parts.$place.fold(&mut state.$place, event);)+
            }

            fn merge(&self, into: &mut Self::State, other: &Self::State) {
                self.parts.0.merge(&mut into.0, &other.0);
                $(self.parts.$place.merge(&mut into.$place, &other.$place);)+
            }

            fn project(&self, state: &Self::State, at: Timestamp) -> Self::Projection {
                (self.parts.0.project(&state.0, at), $(self.parts.$place.project(&state.$place, at)),+)
            }

            fn project_now(&self, state: &Self::State, now: Timestamp) -> Self::Projection {
                (
                    self.parts.0.project_now(&state.0, now),
                    $(self.parts.$place.project_now(&state.$place, now)),+
                )
            }

            fn aggregate(&self, into: &mut Self::Projection, other: &Self::Projection) {
                self.parts.0.aggregate(&mut into.0, &other.0);
                $(self.parts.$place.aggregate(&mut into.$place, &other.$place);)+
            }

            fn encoded_bytes_max(&self) -> usize {
                self.parts.0.encoded_bytes_max() $(+ self.parts.$place.encoded_bytes_max())+
            }

            fn heap_bytes(&self, state: &Self::State) -> Option<usize> {
                Some(self.parts.0.heap_bytes(&state.0)? $(+ self.parts.$place.heap_bytes(&state.$place)?)+)
            }

            fn fit(&self, state: &mut Self::State) {
                self.parts.0.fit(&mut state.0);
                $(self.parts.$place.fit(&mut state.$place);)+
            }

            fn fold_all(&self, state: &mut Self::State, events: Events<'_, A::Value>) {
                self.parts.0.fold_all(&mut state.0, events);
                $(self.parts.$place.fold_all(&mut state.$place, events);)+
            }

            fn render(&self, projection: &Self::Projection, format: Format) -> Value {
                let mut map = Map::new();
                lay_out(&mut map, self.names[0], self.parts.0.render(&projection.0, format));
                $(lay_out(&mut map, self.names[$place], self.parts.$place.render(&projection.$place, format));)+
                Value::Object(map)
            }

            fn should_prune(&self, state: &Self::State, at: Timestamp) -> bool {
                self.parts.0.should_prune(&state.0, at) $(&& self.parts.$place.should_prune(&state.$place, at))+
            }

            fn compact(&self, state: &mut Self::State, at: Timestamp) {
                self.parts.0.compact(&mut state.0, at);
                $(self.parts.$place.compact(&mut state.$place, at);)+
            }

            fn clamp(&self, state: &mut Self::State, latest: Timestamp) {
                self.parts.0.clamp(&mut state.0, latest);
                $(self.parts.$place.clamp(&mut state.$place, latest);)+
            }

            fn tallies(&self) -> bool {
                self.parts.0.tallies() $(|| self.parts.$place.tallies())+
            }

            fn tally(&self, projection: &Self::Projection) -> Option<String> {
                let first = self.parts.0.tally(&projection.0);
                first$(.or_else(|| self.parts.$place.tally(&projection.$place)))+
            }

            fn error_bound(&self, projection: &Self::Projection) -> Option<f64> {
                let bounds = [
                    self.parts.0.error_bound(&projection.0),
                    $(self.parts.$place.error_bound(&projection.$place)),+
                ];
                bounds.into_iter().flatten().reduce(f64::max)
            }

            fn caveats(&self, projection: &Self::Projection) -> Caveats {
                let first = self.parts.0.caveats(&projection.0).under(self.names[0]);
                first$(.and(self.parts.$place.caveats(&projection.$place).under(self.names[$place])))+
            }
        }
    };
}

group!(2: B 1);
group!(3: B 1, C 2);
group!(4: B 1, C 2, D 3);
group!(5: B 1, C 2, D 3, E 4);
group!(6: B 1, C 2, D 3, E 4, F 5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Sketch, Sum, Totals};

    #[test]
    fn names_become_sections_and_no_name_none() {
        let group = Group::new(["all", "", "sum"], (Totals, Sketch, Sum));
        let mut state = Default::default();
        group.fold(&mut state, Event::new(Timestamp::default(), &0.0));
        let said = group.render(&group.project(&state, Timestamp::default()), Format::Summary);
        let names: Vec<_> = said.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, ["all", "pct", "sum"]);
        assert_eq!(said["all"]["count"], 1);
        assert_eq!(group.error_bound(&state), Some(0.0));
    }

    #[test]
    #[should_panic(expected = "share a name")]
    fn two_parts_of_one_name() {
        let _ = Group::new(["a", "a"], (Totals, Sketch));
    }
}
