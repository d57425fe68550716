//! The law `bounded` for one State with very many values.

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Reason, TestRunner};

use super::maximal::Maximal;
use super::{Broken, samples};
use crate::backoff::Noise;
use crate::event::Event;
use crate::handler::{Handler, encode_state};
use crate::limits::FUTURE_MICROS_MAX;
use crate::time::Timestamp;

const BOUND: (&str, &str) = ("bounded", "bytes of encode(s) ≤ encoded_bytes_max");
const GROWTH: (&str, &str) = ("bounded", "bytes of encode(s) stop growing, however many values come");

/// Values after which a State that has not grown since half of them is taken to be full.
const VALUES_MIN: usize = 1 << 12;
/// Values after which a State that still grows breaks the law.
const VALUES_MAX: usize = 1 << 18;

/// Values of the strategy: they may be so few that a State of many parts is full only much later, so its growth says nothing.
const GIVEN_MAX: usize = 1 << 16;

/// The law `bounded` for one State with very many values, each of these ways alone:
///
/// - very many different values that the kit makes of the value's type by itself, among them the extremes of numbers, at one time;
/// - 65,536 of what the strategy gives, at one time (as many as above where the kit can make none); and very many times, an hour
///   after each other, of a few of these values;
/// - 4,096 of the longest values that are [valid](crate::Value::is_valid) and may travel, within a day up to the latest time that is
///   believed, and anywhere up to the ends of the range.
///
/// A State that is over its bound breaks the law. So does one that, within it, still grows after 262,144 values: then a bound is
/// only further away. A State grows when, of two halves, the second adds more than a byte for each 64 values and more than an
/// eighth of what the first took: what holds something of every new value, or of one in many, doubles; counts become a byte longer
/// when they become 128 times as large, and what has a place for each of its parts is full before.
///
/// # Errors
/// [`Broken`], with how many values it took.
///
/// # Cost
/// A second or two in a debug build.
pub fn check_bounded<H, S>(handler: &H, values: S) -> Result<(), Broken>
where
    H: Handler,
    S: Strategy<Value = H::Value> + Clone + 'static,
{
    let mut maximal = Maximal::of::<H::Value>();
    for time in [within_a_day as fn(&mut Noise, usize) -> Timestamp, anywhere] {
        fill(handler, VALUES_MIN, time, || Ok(maximal.longest()))?;
    }
    // Where the kit makes no values, all different ones are those that are given.
    let given_max = if maximal.distinct::<H::Value>().is_some() { GIVEN_MAX } else { VALUES_MAX };
    fill(handler, VALUES_MAX, at_once, || Ok(maximal.distinct()))?;
    let mut runner = TestRunner::deterministic();
    let mut given = || values.new_tree(&mut runner).map(|tree| Some(tree.current()));
    fill(handler, given_max, at_once, &mut given)?;
    let few: Vec<_> =
        (0..64).map(|_| given()).collect::<Result<_, _>>().map_err(|reason| unsampled(&reason))?;
    let mut again = few.into_iter().cycle();
    fill(handler, VALUES_MAX, in_hours, || Ok(again.next().flatten()))
}

/// Folds at most so many values, until the State has stopped growing; where there is no value, that is the end.
fn fill<H: Handler>(
    handler: &H,
    values_max: usize,
    time: fn(&mut Noise, usize) -> Timestamp,
    mut value: impl FnMut() -> Result<Option<H::Value>, Reason>,
) -> Result<(), Broken> {
    let (bytes_max, mut noise) = (handler.encoded_bytes_max(), Noise::new(7));
    let (mut state, mut before) = (H::State::default(), 0);
    for count in 1..=values_max {
        let Some(value) = value().map_err(|reason| unsampled(&reason))? else { return Ok(()) };
        handler.fold(&mut state, Event::new(time(&mut noise, count), &value));
        if !count.is_power_of_two() {
            continue;
        }
        let bytes = encode_state(&state).len();
        if bytes > bytes_max {
            let detail = format!("left:  {bytes} bytes after {count} values\nright: {bytes_max} bytes");
            return Err(Broken::new(BOUND, detail));
        }
        let half = count / 2;
        let grows = bytes.saturating_sub(before) > (half / 64).max(before / 8);
        if count >= VALUES_MIN && !grows {
            return Ok(());
        }
        if count == VALUES_MAX {
            let detail = format!(
                "left:  {bytes} bytes after {count} values\nright: {before} bytes after {half} values"
            );
            return Err(Broken::new(GROWTH, detail));
        }
        before = bytes;
    }
    Ok(())
}

/// The strategy gives no value.
fn unsampled(reason: &Reason) -> Broken {
    Broken::new(BOUND, reason.message())
}

const NOW: i64 = samples::NOW_SECS * 1_000_000;

fn at_once(_: &mut Noise, _: usize) -> Timestamp {
    Timestamp::from_micros(NOW)
}

/// And a little more than an hour, so that nothing that repeats comes out even.
fn in_hours(_: &mut Noise, count: usize) -> Timestamp {
    Timestamp::from_micros(NOW + count as i64 * 3_601_000_001)
}

/// A quarter within a minute, ten minutes, an hour and a day each, up to the latest that is believed.
fn within_a_day(noise: &mut Noise, count: usize) -> Timestamp {
    const SPANS: [u64; 4] = [60_000_000, 600_000_000, 3_600_000_000, 86_400_000_000];
    let age = noise.number() % SPANS[count % SPANS.len()];
    Timestamp::from_micros(NOW + FUTURE_MICROS_MAX - age as i64)
}

/// The ends of the range first.
fn anywhere(noise: &mut Noise, count: usize) -> Timestamp {
    match count {
        1 => Timestamp::MIN,
        2 => Timestamp::MAX,
        _ => Timestamp::from_micros(noise.number() as i64),
    }
}
