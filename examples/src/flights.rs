//! Real US flights of 2001 as events: reading them, and what the answers must be.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// One flight.
#[derive(Clone, Debug, Deserialize)]
pub struct Flight {
    /// Scheduled departure, in seconds since the Unix epoch.
    pub time: i64,
    /// Airport of departure: the Client.
    pub origin: String,
    /// Airport of arrival: a label.
    pub destination: String,
    /// Arrival delay in minutes, negative when early.
    pub delay: i32,
    /// Miles.
    pub distance: u32,
}

/// The sample that is shipped with the repository: every 30th of three million flights.
pub fn sample_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/flights-sample.csv.zst")
}

/// Reads flights from a CSV file, packed with zstd when its name ends in `.zst`.
///
/// # Errors
/// When the file cannot be opened or unpacked. A row that is no flight is an error of its own in the sequence.
pub fn read(path: &Path) -> io::Result<impl Iterator<Item = csv::Result<Flight>>> {
    let file = BufReader::with_capacity(1 << 16, File::open(path)?);
    let text: Box<dyn Read> = if path.extension().is_some_and(|extension| extension == "zst") {
        Box::new(ruzstd::decoding::StreamingDecoder::new(file).map_err(io::Error::other)?)
    } else {
        Box::new(file)
    };
    Ok(csv::Reader::from_reader(text).into_deserialize())
}

/// What one Tab of one Client has seen, kept the long way round: every value.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    values: Vec<i32>,
}

impl Seen {
    /// Every value, in any order.
    pub fn values(&self) -> &[i32] {
        &self.values
    }

    /// How many events.
    pub fn count(&self) -> u64 {
        self.values.len() as u64
    }

    /// Their sum.
    pub fn total(&self) -> i64 {
        self.values.iter().map(|value| i64::from(*value)).sum()
    }

    /// The value of rank `ceil(q * n)`, counted from one, of at least one value.
    pub fn quantile(&mut self, q: f64) -> i32 {
        self.values.sort_unstable();
        let rank = (q * self.values.len() as f64).ceil().max(1.0) as usize;
        self.values[rank - 1]
    }

    /// Takes another's values.
    pub fn extend(&mut self, other: &Self) {
        self.values.extend_from_slice(&other.values);
    }
}

/// The answers, computed from the file and nothing else: (Client, Tab) to what was seen.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// By Client, then by Tab.
    pub seen: BTreeMap<(String, String), Seen>,
}

impl Truth {
    /// Takes one flight.
    pub fn add(&mut self, flight: &Flight) {
        for (tab, value) in events_of(flight) {
            self.seen.entry((flight.origin.clone(), tab)).or_default().values.push(value);
        }
    }

    /// How many events there are in all.
    pub fn events(&self) -> u64 {
        self.seen.values().map(Seen::count).sum()
    }

    /// What all Clients together saw of the Tabs with this base name.
    pub fn over_clients(&self, base: &str) -> Seen {
        let mut all = Seen::default();
        let of_base = self.seen.iter().filter(|((_, tab), _)| tab.split(';').next() == Some(base));
        of_base.for_each(|(_, seen)| all.extend(seen));
        all
    }
}

/// The events of a flight: Tab and value.
pub fn events_of(flight: &Flight) -> [(String, i32); 3] {
    [
        ("departures".to_owned(), 1),
        (format!("delay;to={}", flight.destination), flight.delay),
        ("distance".to_owned(), i32::try_from(flight.distance).unwrap_or(i32::MAX)),
    ]
}
