//! How costs grow: a [`Deployment`] of some [`Size`], what 1,000 State updates and some queries cost it, and the exponent of that
//! over the size. 0 is constant, 1 is linear.

mod deployment;
mod plot;

pub use self::deployment::Deployment;
pub use self::plot::{Line, plot};

use crate::slope;

/// How large a deployment is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Clients, each with all Tabs.
    pub clients: usize,
    /// Tabs of each Client.
    pub tabs: usize,
    /// Labels in the name of each Tab.
    pub labels: usize,
    /// VBuckets of the store.
    pub vbuckets: usize,
    /// Redis processes of the store.
    pub redis: usize,
    /// Agents, which share the Clients.
    pub agents: usize,
}

/// One thing that is measured at every size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measure {
    /// What is done: 1,000 State updates, or one query.
    pub work: &'static str,
    /// What of it is measured, with the unit.
    pub quantity: &'static str,
}

impl Measure {
    /// The quantity that depends on the machine, and on who else uses it.
    pub const CPU: &'static str = "CPU ms";

    /// Whether the figure is the same on every machine.
    pub fn is_count(self) -> bool {
        !self.quantity.contains("CPU")
    }
}

/// What was measured, in the order of its measuring: the same for every size.
pub type Costs = Vec<(Measure, f64)>;

/// The exponent `b` of `y = a * x^b` that fits best: the least squares of the logarithms. Less than 1 counts as 1, since what hardly
/// costs anything does not grow.
pub fn exponent(points: &[(f64, f64)]) -> f64 {
    slope(&points.iter().map(|(x, y)| (x.ln(), y.max(1.0).ln())).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponents_of_powers_are_found() {
        let of = |power: f64| exponent(&[1.0_f64, 10.0, 100.0, 1_000.0].map(|x| (x, 7.0 * x.powf(power))));
        for power in [0.0, 0.5, 1.0, 2.0] {
            assert!((of(power) - power).abs() < 1e-9, "{power}: {}", of(power));
        }
    }

    #[test]
    fn what_costs_less_than_one_does_not_grow() {
        assert_eq!(exponent(&[(1.0, 0.0), (10.0, 0.2), (100.0, 1.0)]), 0.0);
    }
}
