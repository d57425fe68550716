//! Quantiles of real data against exact ones: delays (negative, zero, positive) and distances of 100,000 flights.

use std::path::Path;

use taba_core::{Event, Events, Format, Handler, Timestamp};
use taba_handlers::{PERCENTILES, PercentileCounter, PercentileGroup, Sketch};

struct Flights {
    times: Vec<Timestamp>,
    delays: Vec<f64>,
    distances: Vec<f64>,
}

fn flights() -> Flights {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/data/flights-sample.csv.zst");
    let file = std::fs::File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let unpacked = ruzstd::decoding::StreamingDecoder::new(std::io::BufReader::new(file));
    let unpacked = unpacked.expect("the sample is a zstd stream");
    let mut flights = Flights { times: Vec::new(), delays: Vec::new(), distances: Vec::new() };
    for row in csv::Reader::from_reader(unpacked).deserialize() {
        let (time, _origin, _destination, delay, distance): (i64, String, String, f64, f64) =
            row.expect("a flight");
        flights.times.push(Timestamp::from_secs(time));
        flights.delays.push(delay);
        flights.distances.push(distance);
    }
    assert_eq!(flights.times.len(), 100_000);
    flights
}

/// The smallest value whose rank is at least `per_mille` thousandths of the count.
fn exact(sorted: &[f64], per_mille: u32) -> f64 {
    let rank = (sorted.len() * per_mille as usize).div_ceil(1000).max(1);
    sorted[rank - 1]
}

#[expect(clippy::print_stdout, reason = "the figure is for whoever runs it with --nocapture")]
fn assert_within(bound: f64, what: &str, values: &[f64], estimate: impl Fn(u32) -> f64, per_mille: &[u32]) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let mut worst = 0_f64;
    for &per_mille in per_mille {
        let (value, found) = (exact(&sorted, per_mille), estimate(per_mille));
        let error = (found - value).abs();
        assert!(error <= bound * value.abs(), "{what}: {found} for {value} at {per_mille}/1000");
        worst = worst.max(if value == 0.0 { 0.0 } else { error / value.abs() });
    }
    println!("{what}: every quantile within {:.2} %", worst * 100.0);
}

#[test]
fn every_quantile_of_real_flights_is_within_one_percent() {
    let flights = flights();
    let all: Vec<u32> = (0..=1000).collect();
    for (what, values) in [("delay", &flights.delays), ("distance", &flights.distances)] {
        let mut state = Default::default();
        Sketch.fold_all(&mut state, Events::new(&flights.times, values));
        assert_eq!(state.count(), 100_000);
        let bound = state.error_bound().unwrap();
        assert!(bound <= 1.0 / 92.0, "{bound}");
        assert_within(bound, what, values, |per_mille| state.quantile(per_mille).unwrap(), &all);
    }
    let has = |test: fn(&f64) -> bool| flights.delays.iter().any(test);
    assert!(has(|v| *v < 0.0) && has(|v| *v == 0.0) && has(|v| *v > 0.0), "delays are of every sign");
}

#[test]
fn what_is_rendered_is_within_one_percent_whoever_folded_it() {
    let flights = flights();
    let handler = PercentileCounter::new();
    // A hundred Clients, aggregated: percentiles of the whole, not averages of percentiles.
    let mut whole = Default::default();
    for client in 0..100 {
        let mut state = Default::default();
        for i in (client..flights.delays.len()).step_by(100) {
            handler.fold(&mut state, Event::new(flights.times[i], &flights.delays[i]));
        }
        handler.aggregate(&mut whole, &handler.project(&state, flights.times[99_999]));
    }
    let said = handler.render(&whole, Format::Summary);
    let place = |per_mille| PERCENTILES.iter().position(|p| *p == per_mille).unwrap();
    let estimate = |per_mille| said["pct"][place(per_mille)].as_f64().unwrap();
    let bound = handler.error_bound(&whole).unwrap();
    assert!(bound > 0.0 && bound <= 1.0 / 92.0, "delays are minutes: {bound}");
    assert_within(bound, "delay of a hundred clients", &flights.delays, estimate, &PERCENTILES);
    assert_eq!(said["total"].as_f64().unwrap(), flights.delays.iter().sum::<f64>());
}

#[test]
fn percentiles_of_a_window_are_of_exactly_its_events() {
    let flights = flights();
    let handler = PercentileGroup::new();
    let mut state = Default::default();
    handler.fold_all(&mut state, Events::new(&flights.times, &flights.distances));
    let at = flights.times[70_000];
    let mut until = Default::default();
    let known = flights.times.partition_point(|time| *time <= at);
    let known = Events::new(&flights.times, &flights.distances).slice(0..known);
    handler.fold_all(&mut until, known);

    let said = handler.render(&handler.project(&until, at), Format::Summary);
    let bucket = |time: &Timestamp| time.as_micros().div_euclid(10_800_000_000);
    let day: Vec<f64> = known
        .iter()
        .filter(|event| bucket(&event.time) >= bucket(&at) - 8)
        .map(|event| *event.value)
        .collect();
    assert!(day.len() > 300, "{}", day.len());
    assert_eq!(said["1d"]["count"], day.len());
    let place = |per_mille| PERCENTILES.iter().position(|p| *p == per_mille).unwrap();
    let estimate = |per_mille| said["1d"]["pct"][place(per_mille)].as_f64().unwrap();
    assert_within(1.0 / 92.0, "distance of a day", &day, estimate, &PERCENTILES);
}
