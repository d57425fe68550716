//! [`settings()`]: checks every setting in a program's clap struct, so that new settings are checked automatically.

use std::ffi::OsString;
use std::path::Path;

use clap::{Arg, Command, CommandFactory, FromArgMatches};

use crate::settings::{self, LoadedSettings, Origin, Program, SettingsError};

/// Test values: every setting accepts two of them, unless its possible values are listed.
const GOOD: [&str; 9] =
    ["64", "128", "20ms", "30ms", "127.0.0.1:1", "localhost:2", "http://a:1", "http://b:2", "redis://c:3"];
/// A value that only free-text settings accept.
const BAD: &str = "5 elephants";

/// Checks each setting of a program, by flag, variable and file: a good value is used; a bad or empty one is an error
/// that names its source (an empty variable counts as not set); flags win over variables, variables over the file,
/// the file over the default; and the output of [`LoadedSettings::to_toml`] is read back as the same settings.
///
/// `args` is the command line without settings, with its program; `directory` is an empty directory for files.
/// `takes_any_text` lists the settings that accept any text, so that a new one without a check is noticed.
///
/// # Panics
/// When a check fails.
pub fn settings<C: CommandFactory + FromArgMatches>(
    program: &Program,
    args: &[&str],
    directory: &Path,
    takes_any_text: &[&str],
) {
    let (root, mut declared) = (C::command(), Vec::new());
    let mut commands = vec![&root];
    commands.extend(args[1..].iter().scan(&root, |command, name| {
        *command = command.find_subcommand(name)?;
        Some(*command)
    }));
    for command in commands {
        declared.extend(command.get_arguments().filter(|arg| settings::is_setting(arg)).cloned());
    }
    assert!(declared.iter().any(|arg| arg.get_id() == "log"), "every program has --log");
    let mut free = Vec::new();
    for arg in declared.iter().filter(|arg| arg.get_id() != "config") {
        let case = Case::<C>::new(program, args, directory, arg);
        case.each_source_counts_and_wins_over_the_next();
        case.empty_is_not_set_or_an_error();
        if is_good(arg, BAD) {
            free.push(case.id);
        } else {
            case.a_bad_value_is_an_error_that_names_its_source();
        }
    }
    assert_eq!(free, takes_any_text, "these settings take any text");
    what_is_printed_is_read_back::<C>(program, args, directory, &declared);
}

struct Case<'a, C> {
    program: &'a Program,
    args: &'a [&'a str],
    directory: &'a Path,
    id: &'a str,
    flag: String,
    variable: String,
    is_secret: bool,
    /// Two valid values.
    good: [String; 2],
    _cli: std::marker::PhantomData<C>,
}

/// The value of one source, if any.
#[derive(Clone, Copy, Default)]
struct Says<'a> {
    flag: Option<&'a str>,
    variable: Option<&'a str>,
    file: Option<&'a str>,
}

impl<'a, C: CommandFactory + FromArgMatches> Case<'a, C> {
    fn new(program: &'a Program, args: &'a [&'a str], directory: &'a Path, arg: &'a Arg) -> Self {
        let id = arg.get_id().as_str();
        let flag = format!("--{}", arg.get_long().expect("settings have flags"));
        assert_eq!(flag, format!("--{}", id.replace('_', "-")), "flag and key have one name");
        let variable =
            arg.get_env().and_then(|name| name.to_str()).expect("settings have variables").to_owned();
        if let Some(prefix) = program.prefix {
            assert_eq!(variable, format!("{prefix}{}", id.to_uppercase()), "flag and variable have one name");
        }
        let good = good(arg);
        let is_secret = arg.is_hide_env_values_set();
        Self { program, args, directory, id, flag, variable, is_secret, good, _cli: std::marker::PhantomData }
    }

    fn load(&self, says: Says<'_>) -> Result<LoadedSettings<C>, SettingsError> {
        let mut args: Vec<OsString> = self.args.iter().map(OsString::from).collect();
        let mut variables = Vec::new();
        if let Some(text) = says.file {
            let path = self.directory.join("taba.toml");
            let text = toml::Value::String(text.to_owned());
            std::fs::write(&path, format!("{} = {text}\n", self.id)).expect("the directory can be written");
            args.push(format!("--config={}", path.display()).into());
        }
        if let Some(text) = says.variable {
            variables.push((self.variable.clone().into(), text.into()));
        }
        if let Some(text) = says.flag {
            args.push(format!("{}={text}", self.flag).into());
        }
        settings::load(self.program, args, variables)
    }

    /// Loads; returns the effective value and its source.
    fn counts(&self, says: Says<'_>) -> (String, Origin) {
        let loaded = self.load(says).unwrap_or_else(|error| panic!("{}: {error}", self.id));
        let value = loaded.shown(self.id);
        value.unwrap_or_else(|| panic!("{} is in the list", self.id))
    }

    fn each_source_counts_and_wins_over_the_next(&self) {
        let [a, b] = self.good.each_ref().map(|text| Some(text.as_str()));
        let (nothing, text) = (Says::default(), self.good[0].as_str());
        let (from_flag, from_variable) =
            (Origin::Flag(self.flag.clone()), Origin::Variable(self.variable.clone()));
        assert_eq!(self.counts(nothing).1, Origin::Default, "{}", self.id);
        for variable in [None, b] {
            for file in [None, b] {
                assert_eq!(
                    self.counts(Says { flag: a, variable, file }),
                    (text.to_owned(), from_flag.clone())
                );
            }
        }
        for file in [None, b] {
            assert_eq!(
                self.counts(Says { variable: a, file, ..nothing }),
                (text.to_owned(), from_variable.clone())
            );
        }
        let (found, origin) = self.counts(Says { file: a, ..nothing });
        assert!(found == text && matches!(&origin, Origin::File { key, .. } if key == self.id), "{origin}");
        // An overridden value is not checked.
        assert_eq!(self.counts(Says { flag: a, variable: Some(BAD), file: Some(BAD) }).0, text);
        assert_eq!(self.counts(Says { variable: a, file: Some(BAD), ..nothing }).0, text);
    }

    fn error(&self, says: Says<'_>) -> String {
        match self.load(says) {
            Ok(_) => panic!("{} takes a wrong value", self.id),
            Err(SettingsError::Usage(error)) => {
                assert!(!error.is_help());
                error.text(false)
            }
            Err(error) => taba_core::causes(&error),
        }
    }

    fn a_bad_value_is_an_error_that_names_its_source(&self) {
        let bad = Some(BAD);
        let (nothing, file) = (Says::default(), format!("{} in ", self.id));
        // A secret is shown only in an error of its own flag.
        let shown = if self.is_secret { "(not shown)" } else { BAD };
        for (says, words) in [
            (Says { flag: bad, ..nothing }, [self.flag.as_str(), BAD]),
            (Says { variable: bad, ..nothing }, [self.variable.as_str(), shown]),
            (Says { file: bad, ..nothing }, [file.as_str(), "taba.toml"]),
        ] {
            let error = self.error(says);
            for word in words {
                assert!(error.contains(word), "{} without {word}: {error}", self.id);
            }
        }
    }

    fn empty_is_not_set_or_an_error(&self) {
        let (nothing, empty, b) = (Says::default(), Some(""), Some(self.good[1].as_str()));
        assert_eq!(self.counts(Says { variable: empty, ..nothing }), self.counts(nothing), "{}", self.id);
        let under = self.counts(Says { variable: empty, file: b, ..nothing });
        assert!(under.0 == self.good[1] && matches!(under.1, Origin::File { .. }), "{}", self.id);
        let error = self.error(Says { flag: empty, ..nothing });
        assert!(error.contains(&self.flag), "{}: {error}", self.id);
        let error = self.error(Says { file: empty, ..nothing });
        assert!(error.contains(&format!("{} in ", self.id)) && error.contains("taba.toml"), "{error}");
    }
}

fn is_good(arg: &Arg, text: &str) -> bool {
    let long = arg.get_long().expect("settings have flags");
    let alone = Command::new("alone").no_binary_name(true).arg(arg.clone().env(None::<&str>));
    alone.try_get_matches_from([format!("--{long}={text}")]).is_ok()
}

/// Two values that a setting accepts.
fn good(arg: &Arg) -> [String; 2] {
    let listed = arg.get_possible_values();
    let listed = listed.iter().map(|value| value.get_name().to_owned());
    let mut good = listed.chain(GOOD.map(str::to_owned)).filter(|text| is_good(arg, text));
    let (a, b) = (good.next(), good.next());
    a.zip(b).map(|(a, b)| [a, b]).unwrap_or_else(|| panic!("GOOD has no two values for {}", arg.get_id()))
}

fn what_is_printed_is_read_back<C: CommandFactory + FromArgMatches>(
    program: &Program,
    args: &[&str],
    directory: &Path,
    declared: &[Arg],
) {
    let settings = declared.iter().filter(|arg| arg.get_id() != "config" && !arg.is_hide_env_values_set());
    let flag =
        |arg: &Arg| format!("--{}={}", arg.get_long().expect("settings have flags"), good(arg)[1]).into();
    let base: Vec<OsString> = args.iter().map(OsString::from).collect();
    let load = |more: Vec<OsString>| {
        let loaded: Result<LoadedSettings<C>, _> =
            settings::load(program, base.iter().cloned().chain(more), []);
        loaded.unwrap_or_else(|error| panic!("{error}"))
    };
    for flags in [Vec::new(), settings.clone().map(flag).collect()] {
        let printed = load(flags);
        let path = directory.join("printed.toml");
        std::fs::write(&path, printed.to_toml()).expect("the directory can be written");
        let again = load(vec![format!("--config={}", path.display()).into()]);
        for arg in settings.clone() {
            let id = arg.get_id().as_str();
            let text = |loaded: &LoadedSettings<C>| loaded.shown(id).map(|(text, _)| text);
            assert_eq!(text(&again), text(&printed), "{id}");
        }
    }
}
