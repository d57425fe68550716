use std::fs;
use std::time::Duration;

use clap::Parser;

use super::*;
use crate::units::parse_time;

/// Beats.
#[derive(Debug, Parser)]
#[command(name = "beat")]
struct Cli {
    #[arg(long, env = "BEAT_CONFIG")]
    config: Option<PathBuf>,
    #[arg(long, env = "BEAT_LOG", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    log: Option<String>,
    /// Time between two beats
    #[arg(long, env = "BEAT_INTERVAL", value_parser = parse_time, default_value = "1s")]
    interval: Duration,
    #[arg(long, env = "BEAT_DRUMS", value_delimiter = ',', default_value = "1,2")]
    drums: Vec<u8>,
    #[arg(long, env = "BEAT_SECRET", hide_env_values = true, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    secret: Option<String>,
    #[arg(long)]
    loud: bool,
}

const PROGRAM: Program = Program {
    prefix: Some("BEAT_"),
    renamed: &[Renamed { from: "interval-ms", to: "interval", unit: "ms" }],
};

fn read(args: &[&str], variables: &[(&str, &str)]) -> Result<LoadedSettings<Cli>, SettingsError> {
    let args = [&["beat"], args].concat().into_iter().map(OsString::from);
    load(&PROGRAM, args, variables.iter().map(|&(name, value)| (name.into(), value.into())))
}

struct File(tempfile::TempDir);

impl File {
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("beat.toml"), text).unwrap();
        Self(dir)
    }

    fn flag(&self) -> String {
        format!("--config={}", self.0.path().join("beat.toml").display())
    }
}

fn error(text: &str) -> String {
    match read(&[&File::new(text).flag()], &[]).unwrap_err() {
        SettingsError::Usage(error) => error.text(false),
        error => taba_core::causes(&error),
    }
}

#[test]
fn lists_are_commas_or_arrays_and_are_replaced() {
    assert_eq!(read(&[], &[]).unwrap().settings.drums, [1, 2]);
    assert_eq!(read(&["--drums=3,4", "--drums=5"], &[]).unwrap().settings.drums, [3, 4, 5]);
    assert_eq!(read(&[], &[("BEAT_DRUMS", "6,7")]).unwrap().settings.drums, [6, 7]);
    for text in ["drums = [8, 9]", "drums = \"8,9\"", "drums = [\"8\", \"9\"]"] {
        let file = File::new(text);
        assert_eq!(read(&[&file.flag()], &[]).unwrap().settings.drums, [8, 9], "{text}");
        assert_eq!(read(&[&file.flag(), "--drums=1"], &[]).unwrap().settings.drums, [1]);
    }
}

#[test]
fn every_mistake_in_the_file_is_named() {
    for (text, words) in [
        ("intervl = \"1s\"", &["intervl in ", "beat.toml", "did you mean interval?"][..]),
        ("elephants = 5", &["elephants in ", "--help"]),
        ("[beat]\ninterval = 5", &["beat in ", "is not a setting"]),
        ("config = \"x\"", &["config in "]),
        ("loud = true", &["loud in "]),
        ("interval = \"5 elephants\"", &["interval in ", "beat.toml", "20ms"]),
        ("interval = 5", &["interval in ", "20ms"]),
        ("interval = [\"5s\", \"6s\"]", &["interval in "]),
        ("interval = { ms = 5 }", &["interval in ", "list of them"]),
        ("interval = 1.5", &["interval in ", "whole number"]),
        ("drums = []", &["drums in ", "is empty"]),
        ("log = \"\"", &["log in ", "is empty"]),
        ("log = \"debug\"\ninterval", &["beat.toml, line 2"]),
        ("interval = \"1s\"\ninterval-ms = 5", &["duplicate"]),
    ] {
        let error = error(text);
        for word in words {
            assert!(error.contains(word), "{text} without {word}: {error}");
        }
    }
    assert!(!error("secret = \"hunter2").contains("hunter2"));
    let missing = read(&[], &[("BEAT_CONFIG", "/nowhere/beat.toml")]).unwrap_err().to_string();
    assert!(missing.contains("/nowhere/beat.toml") && missing.contains("BEAT_CONFIG"), "{missing}");
}

#[test]
fn what_was_renamed_is_read_with_its_unit() {
    let interval =
        |args: &[&str], variables: &[(&str, &str)]| read(args, variables).map(|it| it.settings.interval);
    let (five, file) = (Duration::from_millis(5), File::new("interval_ms = 5"));
    assert_eq!(interval(&["--interval-ms", "5"], &[]).unwrap(), five);
    assert_eq!(interval(&["--interval-ms=5", "--loud"], &[]).unwrap(), five);
    assert_eq!(interval(&[], &[("BEAT_INTERVAL_MS", "5")]).unwrap(), five);
    assert_eq!(interval(&[], &[("BEAT_INTERVAL_MS", "5"), ("BEAT_INTERVAL", "6ms")]).unwrap().as_millis(), 6);
    assert_eq!(interval(&[&file.flag()], &[]).unwrap(), five);
    let wrong = taba_core::causes(&interval(&["--interval-ms"], &[]).unwrap_err());
    assert!(wrong.contains("--interval"), "{wrong}");
    assert!(interval(&["--interval-ms", "many"], &[]).unwrap_err().to_string().contains("'many'"));
    assert!(!read(&["--help"], &[]).unwrap_err().to_string().contains("interval-ms"));
}

#[test]
fn variables_that_are_no_settings_are_errors_and_help_tells_their_names() {
    assert!(matches!(read(&[], &[("BEAT_LOUD", "1")]), Err(SettingsError::UnknownVariable(_))));
    let error = read(&[], &[("BEAT_INTERVL", "1s")]).unwrap_err().to_string();
    assert!(error.contains("BEAT_INTERVL") && error.contains("did you mean BEAT_INTERVAL?"), "{error}");
    assert!(read(&[], &[("BEAT_LOUD", ""), ("OTHER_LOUD", "1"), ("BEAT_PORT", "udp://10.0.0.5:1")]).is_ok());
    let help = read(&["--help"], &[("BEAT_INTERVL", "x")]).unwrap_err();
    assert!(matches!(&help, SettingsError::Usage(error) if error.is_help()), "{help}");
    assert!(help.to_string().contains("BEAT_INTERVAL"), "{help}");
}

#[test]
fn what_is_impossible_together_names_where_each_comes_from() {
    let file = File::new("drums = [1]");
    let loaded = read(&[&file.flag(), "--interval=0s"], &[]).unwrap();
    let error = loaded.impossible(&["interval", "drums", "log"], "no time for one drum").to_string();
    assert!(
        error.contains("interval (--interval), drums (drums in ") && error.contains("log (the default)"),
        "{error}"
    );
}

#[test]
fn what_is_printed_tells_where_it_comes_from_and_no_secret() {
    let loaded = read(&["--interval=20ms", "--drums=3,4"], &[("BEAT_SECRET", "hunter2")]).unwrap();
    let text = loaded.to_toml();
    for line in [
        "interval = \"20ms\"  # --interval",
        "drums = [3, 4]  # --drums",
        "# secret is set, and not shown  # the variable BEAT_SECRET",
        "# log is not set  # the default",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
    }
    assert!(!text.contains("hunter2") && !text.contains("loud"), "{text}");
    let text = read(&[], &[("RUST_LOG", "debug")]).unwrap().to_toml();
    assert!(text.contains("# log is not set  # RUST_LOG counts, which is debug\n"), "{text}");
}

#[test]
fn what_is_logged_comes_from_the_setting_then_from_rust_log() {
    let filter = |args: &[&str], variables: &[(&str, &str)]| {
        read(args, variables).and_then(|loaded| loaded.filter("info")).map(|filter| filter.to_string())
    };
    let rust_log = ("RUST_LOG", "warn");
    assert_eq!(filter(&[], &[]).unwrap(), "info");
    assert_eq!(filter(&[], &[("RUST_LOG", "")]).unwrap(), "info");
    assert_eq!(filter(&[], &[rust_log]).unwrap(), "warn");
    assert_eq!(filter(&[], &[rust_log, ("BEAT_LOG", "")]).unwrap(), "warn");
    assert_eq!(filter(&[], &[rust_log, ("BEAT_LOG", "debug")]).unwrap(), "debug");
    assert_eq!(filter(&[&File::new("log = \"error\"").flag()], &[rust_log]).unwrap(), "error");
    let error = filter(&[&File::new("log = \"loud\"").flag()], &[]).unwrap_err().to_string();
    assert!(
        error.contains("log in ") && error.contains("beat.toml") && error.contains("\"loud\""),
        "{error}"
    );
}

#[cfg(feature = "laws")]
#[test]
fn the_laws_hold_for_this_program() {
    let dir = tempfile::tempdir().unwrap();
    crate::laws::settings::<Cli>(&PROGRAM, &["beat"], dir.path(), &["log", "secret"]);
}
