//! [`LaneShare`]: which part of its Lanes a Server is given: all of them, or fewer for a while after it was away or slow.

use std::time::Duration;

use taba_core::Noise;

/// The smallest share.
const SHARE_MIN: f64 = 1.0 / 16.0;
/// A Server is given all of its Lanes again no sooner than this after it has come back.
const RETURN_TIME_MIN: Duration = Duration::from_secs(1);
/// A Server is given all of its Lanes again this long after it has come back or was slow, at the latest.
pub const RETURN_TIME_MAX: Duration = Duration::from_secs(10);

/// Which part of its Lanes a Server is given. It grows with time up to 1, and stays there.
///
/// Which Lanes are in the part depends on nothing but the Server and the VBucket, so that each Lane comes back once, and
/// all Agents bring back the same ones first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LaneShare {
    /// What it was at `since`.
    level: f64,
    since: Duration,
    /// How long it takes from 0 to 1.
    rise: Duration,
}

impl LaneShare {
    /// All Lanes.
    pub(super) const FULL: Self = Self { level: 1.0, since: Duration::ZERO, rise: RETURN_TIME_MAX };

    /// Of a Server that is back after it was away for so long: it takes as long again until it has all of its Lanes, but
    /// at least 1 s and at most [`RETURN_TIME_MAX`].
    pub(super) fn returned(now: Duration, away: Duration) -> Self {
        let rise = away.clamp(RETURN_TIME_MIN, RETURN_TIME_MAX);
        Self { level: SHARE_MIN, since: now, rise }
    }

    /// Of a Server that answers slowly: half of what it was, growing again.
    pub(super) fn halved(self, now: Duration) -> Self {
        let level = (self.level(now) / 2.0).max(SHARE_MIN);
        Self { level, since: now, rise: RETURN_TIME_MAX }
    }

    /// From 1/16 to 1.
    pub(super) fn level(self, now: Duration) -> f64 {
        let grown = now.saturating_sub(self.since).as_secs_f64() / self.rise.as_secs_f64();
        (self.level + grown).min(1.0)
    }
}

/// At which share a Lane of this VBucket is given to this Server: a number from 0 to 1, 1 excluded, as good as random.
/// `server` is a hash of its URL.
pub(super) fn threshold(server: u64, vbucket: u16) -> f64 {
    Noise::new(server ^ u64::from(vbucket)).fraction()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_share_grows_steadily_to_all_within_the_stated_time() {
        for (away, time) in [(0, 1), (3, 3), (3600, 10)] {
            let share = LaneShare::returned(secs(100), secs(away));
            assert_eq!(share.level(secs(100)), SHARE_MIN);
            let half = share.level(secs(100) + secs(time) / 2);
            assert!((half - (0.5 + SHARE_MIN)).abs() < 1e-9, "{half}");
            assert_eq!(share.level(secs(100 + time)), 1.0);
        }
        assert_eq!(LaneShare::FULL.level(Duration::ZERO), 1.0);
    }

    #[test]
    fn slow_answers_halve_it_and_it_never_is_nothing() {
        let mut share = LaneShare::FULL;
        for level in [0.5, 0.25, 0.125, SHARE_MIN, SHARE_MIN] {
            share = share.halved(secs(5));
            assert_eq!(share.level(secs(5)), level);
        }
        assert_eq!(share.level(secs(5) + RETURN_TIME_MAX), 1.0);
    }

    #[test]
    fn a_growing_share_adds_lanes_evenly_and_takes_none_away() {
        let within = |level: f64| (0..1024).filter(|vbucket| threshold(99, *vbucket) < level).count();
        for (level, lanes) in [(SHARE_MIN, 64_usize), (0.25, 256), (0.5, 512), (0.75, 768)] {
            assert!(within(level).abs_diff(lanes) < 60, "{level}: {}", within(level));
        }
        assert_eq!(within(1.0), 1024);
    }
}
