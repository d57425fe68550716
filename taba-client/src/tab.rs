//! [`TabSpec`]: what a Client knows about a Tab: its name, its type, and the Rust type of its values.

use std::any::TypeId;
use std::fmt;

use taba_core::{AnyHandler, TabName, TabType, Value, ValueMismatch};

use crate::column::Column;

/// What a Client knows about a Tab: its name, its type, and the Rust type of its values.
#[derive(Clone)]
pub struct TabSpec {
    name: TabName,
    tab_type: TabType,
    value: TypeId,
    column: fn() -> Column,
    fits: fn(&dyn AnyHandler) -> Result<(), ValueMismatch>,
}

impl TabSpec {
    /// A Tab whose events carry values of type `V`.
    pub fn new<V: Value>(name: TabName, tab_type: TabType) -> Self {
        Self { name, tab_type, value: TypeId::of::<V>(), column: Column::of::<V>, fits: fits::<V> }
    }

    /// The name.
    pub fn name(&self) -> &TabName {
        &self.name
    }

    /// The name under which its Handler is registered.
    pub fn tab_type(&self) -> &TabType {
        &self.tab_type
    }

    /// Whether both are one Tab of one type, with values of one Rust type.
    pub fn agrees(&self, other: &Self) -> bool {
        (&self.name, &self.tab_type, self.value) == (&other.name, &other.tab_type, other.value)
    }

    /// Whether the Handler folds the values of this Tab.
    ///
    /// # Errors
    /// [`ValueMismatch`] when it folds another type.
    pub fn fits(&self, handler: &dyn AnyHandler) -> Result<(), ValueMismatch> {
        (self.fits)(handler)
    }

    pub(crate) fn column(&self) -> Column {
        (self.column)()
    }
}

impl fmt::Debug for TabSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TabSpec({}: {})", self.name, self.tab_type)
    }
}

/// Folding no events shows whether events could be folded.
fn fits<V: Value>(handler: &dyn AnyHandler) -> Result<(), ValueMismatch> {
    handler.fold_values(&mut handler.empty_state(), &[], &Vec::<V>::new())
}
