//! [`JsonLines`]: the protocol of `POST /v2/record`.

use std::collections::BTreeMap;

use serde::Deserialize;
use taba_core::{ClientId, TabName, TabType, Timestamp};

use super::{Decoder, LineError, Observation};

/// The largest number taken as seconds since 1970; larger ones are surely milliseconds.
const SECONDS_MAX: f64 = 1e11;

/// A line, for people.
const EVENT: &str = "an event as {\"tab\":\"bids\",\"value\":1}";

/// One JSON object per line: `{"client":"web-1","tab":"bids_won","labels":{"city":"Zürich"},"type":"CounterGroup",
/// "time":1795730400,"value":3}`. All but `tab` have a default; that of `value` is 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct JsonLines;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    client: Option<String>,
    tab: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(rename = "type")]
    tab_type: Option<String>,
    time: Option<Time>,
    /// Not an `Option`: `null` is no value, and must not become the default.
    #[serde(default = "one")]
    value: serde_json::Value,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "time is a number of seconds since 1970, or a text as 2026-11-27T12:00:00Z")]
enum Time {
    Seconds(f64),
    Text(String),
}

fn one() -> serde_json::Value {
    1.into()
}

impl Decoder for JsonLines {
    fn decode(&self, line: &[u8]) -> Option<Result<Observation, LineError>> {
        Some(read(line))
    }
}

fn read(line: &[u8]) -> Result<Observation, LineError> {
    // serde would read an array as a struct.
    if !line.starts_with(b"{") {
        return Err(LineError::malformed(format!("not {EVENT}: it does not begin with {{")));
    }
    let line: Line = serde_json::from_slice(line).map_err(|error| {
        // serde appends "at line 1", although it is one line.
        let words = error.to_string();
        LineError::malformed(format!("not {EVENT}: {}", words.replace("line 1 ", "")))
    })?;
    let client = line.client.map(|client| ClientId::new(&client)).transpose().map_err(LineError::from)?;
    let of_client = |unread: LineError| unread.of(client.clone());
    let mut tab = TabName::builder(&line.tab);
    for (key, text) in &line.labels {
        tab = tab.label(key, text);
    }
    let tab = tab.build().map_err(LineError::from).map_err(of_client)?;
    let tab_type = line.tab_type.map(|name| TabType::new(&name)).transpose().map_err(LineError::from);
    let tab_type = tab_type.map_err(of_client)?;
    let time = line.time.map(moment).transpose().map_err(of_client)?;
    Ok(Observation { client, tab, tab_type, time, value: line.value })
}

fn moment(time: Time) -> Result<Timestamp, LineError> {
    match time {
        Time::Seconds(seconds) if seconds.abs() < SECONDS_MAX => {
            Ok(Timestamp::from_micros((seconds * 1e6).round() as i64))
        }
        Time::Seconds(seconds) => {
            Err(LineError::value(format!("time {seconds} is too far from now: it is in seconds since 1970")))
        }
        Time::Text(text) => match text.parse::<jiff::Timestamp>() {
            Ok(time) => Ok(Timestamp::from_micros(time.as_microsecond())),
            Err(error) => {
                Err(LineError::value(format!("time {text:?} is not as 2026-11-27T12:00:00Z: {error}")))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use taba_core::ledger::Why;

    use super::*;

    #[test]
    fn a_line_may_say_everything_or_only_the_tab() {
        let all = br#"{"client":"web-1","tab":"bids;to=MEM","labels":{"city":"Z\u00fcrich"},"type":"Gauge","time":1.5,"value":"up"}"#;
        let expected = Observation {
            client: Some(ClientId::new("web-1").unwrap()),
            tab: TabName::from_shown("bids;city=Zürich;to=MEM").unwrap(),
            tab_type: Some(TabType::new("Gauge").unwrap()),
            time: Some(Timestamp::from_micros(1_500_000)),
            value: json!("up"),
        };
        assert_eq!(read(all), Ok(expected));
        assert_eq!(read(br#"{"tab":"a"}"#), Ok(Observation::of(TabName::new("a").unwrap(), 1)));
        let dated = read(br#"{"tab":"a","time":"1970-01-01T01:00:00+00:59"}"#).unwrap();
        assert_eq!(dated.time, Some(Timestamp::from_secs(60)));
    }

    #[test]
    fn what_is_wrong_is_told_with_whose_it_is() {
        let why = |line: &str| read(line.as_bytes()).map_err(|unread| (unread.why, unread.client.is_some()));
        for line in [
            "",
            "x",
            "[]",
            r#"[null,"a",{},null,null,1]"#,
            r#"{"tabb":"a"}"#,
            r#"{"value":1}"#,
            r#"{"tab":"a"} {}"#,
            r#"{"tab":"a","value":1e999}"#,
        ] {
            assert_eq!(why(line), Err((Why::Undecodable, false)), "{line}");
        }
        assert_eq!(why(r#"{"tab":"a b"}"#), Err((Why::BadName, false)));
        assert_eq!(why(r#"{"client":"a b","tab":"a"}"#), Err((Why::BadName, false)));
        for line in [r#""tab":"""#, r#""tab":"a","type":"A/B""#, r#""tab":"a;k=1","labels":{"k":"2"}"#] {
            assert_eq!(why(&format!(r#"{{"client":"c",{line}}}"#)), Err((Why::BadName, true)), "{line}");
        }
        for time in ["1795730400000", "\"noon\"", "-1e300"] {
            let line = format!(r#"{{"client":"c","tab":"a","time":{time}}}"#);
            assert_eq!(why(&line), Err((Why::BadValue, true)), "{line}");
        }
        assert_eq!(read(br#"{"tab":"a","value":null}"#).unwrap().value, json!(null), "not the default");
    }
}
