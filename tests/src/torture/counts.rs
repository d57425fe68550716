//! [`Counts`]: the counters of a process that begins at 0 with each run, summed up over its runs.

use std::collections::BTreeMap;

/// Counters, by name: those of the runs that ended, and what the present run showed last.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    ended: BTreeMap<&'static str, u64>,
    present: BTreeMap<&'static str, u64>,
}

impl Counts {
    /// Counters of these names, at 0.
    pub fn new(names: &[&'static str]) -> Self {
        let zeros: BTreeMap<_, _> = names.iter().map(|name| (*name, 0)).collect();
        Self { ended: zeros.clone(), present: zeros }
    }

    /// Takes what the present run shows.
    pub fn look(&mut self, read: impl Fn(&str) -> Option<u64>) {
        for (name, count) in &mut self.present {
            *count = read(name).unwrap_or(*count);
        }
    }

    /// The present run has ended.
    pub fn begin_again(&mut self) {
        for (name, count) in &mut self.present {
            *self.ended.entry(name).or_default() += std::mem::take(count);
        }
    }

    /// One of them, over all runs.
    ///
    /// # Panics
    /// When there is no such counter.
    pub fn of(&self, name: &str) -> u64 {
        self.ended[name] + self.present[name]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_summed_up() {
        let mut counts = Counts::new(&["a"]);
        counts.look(|_| Some(3));
        counts.look(|_| Some(5));
        counts.begin_again();
        counts.look(|_| None);
        counts.look(|_| Some(2));
        assert_eq!(counts.of("a"), 7);
    }
}
