//! [`load`]: settings from flags, variables and a file, in this order of precedence, then defaults.
//!
//! The list of settings is the program's clap struct: each argument with a variable (`env = "TABA_AGENT_LINGER"`) is
//! a setting, and a key of the file of `--config` (`linger`; `-` and `_` are the same). clap gets variables and the
//! file as defaults, so one parser checks every value.
//!
//! - An overridden value is not checked; an unknown variable or key is always an error.
//! - An empty variable counts as not set. An empty text or list in the file is an error: leave out the key.
//! - Lists are separated by commas, or are arrays in the file. They are replaced as a whole, never joined.
//! - Every value has an [`Origin`], which every error names.
//! - A setting with `hide_env_values` is a secret: [`LoadedSettings::to_toml`] does not show it.

mod environment;
mod error;
mod file;
mod origin;
mod print;
mod renamed;
mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, CommandFactory, FromArgMatches};
use taba_core::printable;
use tracing_subscriber::EnvFilter;

use crate::filter;

pub use environment::UnknownVariable;
pub use error::SettingsError;
pub use origin::Origin;
pub use renamed::Renamed;
pub use usage::UsageError;

/// The setting with the path of the file.
const CONFIG: &str = "config";
/// The setting with the log filter.
const LOG: &str = "log";

/// Common properties of a program's settings.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Program {
    /// The prefix of its variables, as `TABA_AGENT_`: an unknown variable with it is an error. `None` if other
    /// programs use the prefix.
    pub prefix: Option<&'static str>,
    /// Settings with a former name or unit.
    pub renamed: &'static [Renamed],
}

impl Program {
    /// The beginning of a program's variables, and its settings that had another name before.
    pub const fn new(prefix: Option<&'static str>, renamed: &'static [Renamed]) -> Self {
        Self { prefix, renamed }
    }
}

/// Settings that were read, with their sources.
#[derive(Clone, Debug)]
pub struct LoadedSettings<C> {
    /// The settings.
    pub settings: C,
    program: String,
    values: Vec<SettingValue>,
    rust_log: Option<String>,
}

/// One setting, its value and source.
#[derive(Clone, Debug)]
struct SettingValue {
    id: String,
    texts: Vec<OsString>,
    is_list: bool,
    is_secret: bool,
    origin: Origin,
}

/// Reads the settings of a program. `args` begins with the program; `variables` are the environment.
///
/// # Errors
/// [`SettingsError`], also when help or the version was requested; [`SettingsError::end`] handles both.
pub fn load<C: CommandFactory + FromArgMatches>(
    program: &Program,
    args: impl IntoIterator<Item = OsString>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<LoadedSettings<C>, SettingsError> {
    let args = renamed::args(program, args);
    let variables: BTreeMap<OsString, OsString> =
        variables.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    let declared = C::command();
    let command = without_variables(declared.clone());
    let parse = |command: &Command| parse(command, &args);
    let given = parse(&command).map_err(|error| {
        let error = UsageError::new(error, None);
        // The help lists the variables, which only the declared command knows.
        let help = error.is_help().then(|| parse(&declared).err()).flatten();
        help.map_or(error, UsageError::from)
    })?;
    environment::check(program, &declared, &variables)?;

    let mut settings = Settings { program, list: Vec::new() };
    settings.list(&declared, &given);
    settings.read_variables(&variables)?;
    settings.read_file()?;
    let mut command = settings.as_defaults(command);
    let matches = parse(&command).map_err(UsageError::from)?;
    let cli = C::from_arg_matches(&matches).map_err(|error| UsageError::from(error.format(&mut command)))?;
    let values = settings.values(&matches);
    let rust_log = variables.get(OsStr::new("RUST_LOG")).map(|text| text.to_string_lossy().into_owned());
    Ok(LoadedSettings { settings: cli, program: declared.get_name().to_owned(), values, rust_log })
}

/// What clap makes of arguments. An error quotes them with escapes, so that they forge no line of it.
fn parse(command: &Command, args: &[OsString]) -> Result<ArgMatches, clap::Error> {
    command.clone().try_get_matches_from(args).map_err(|mut error| {
        let quoted = |text: &String| printable(text).into_owned();
        let all: Vec<_> = error.context().map(|(kind, value)| (kind, value.clone())).collect();
        for (kind, value) in all {
            let value = match &value {
                ContextValue::String(text) => ContextValue::String(quoted(text)),
                ContextValue::Strings(texts) => ContextValue::Strings(texts.iter().map(quoted).collect()),
                _ => continue,
            };
            error.insert(kind, value);
        }
        error
    })
}

/// The command for clap's parser: without variables and required flags.
fn without_variables(command: Command) -> Command {
    let arg = |arg: Arg| if is_setting(&arg) { arg.env(None::<&str>).required(false) } else { arg };
    command.mut_args(arg).mut_subcommands(without_variables)
}

/// Whether an argument, as declared, is a setting. (`load` removes the variables.)
pub fn is_setting(arg: &Arg) -> bool {
    arg.get_env().is_some() && arg.get_long().is_some()
}

/// A suggestion for an unknown name: the most similar one, as clap measures it. `names` are pairs of a flag without
/// dashes and its name here.
pub(crate) fn hint<'a>(names: impl IntoIterator<Item = (&'a str, &'a str)>, wrong: &str) -> String {
    let names: BTreeMap<String, &str> =
        names.into_iter().map(|(long, name)| (format!("--{long}"), name)).collect();
    let arg = |flag: &String| Arg::new(flag.clone()).long(flag[2..].to_owned());
    let all = Command::new("taba").no_binary_name(true).disable_help_flag(true).args(names.keys().map(arg));
    let error = all.try_get_matches_from([format!("--{wrong}=")]).err();
    let suggested = error.as_ref().and_then(|error| error.get(ContextKind::SuggestedArg));
    match suggested {
        Some(ContextValue::String(flag)) if names.contains_key(flag) => {
            format!("did you mean {}?", names[flag])
        }
        _ => "see --help for the names".to_owned(),
    }
}

/// The settings of a command while they are read.
struct Settings<'a> {
    program: &'a Program,
    list: Vec<Setting>,
}

struct Setting {
    arg: Arg,
    variable: OsString,
    /// The values by flag, variable or file.
    texts: Vec<OsString>,
    origin: Origin,
}

impl Setting {
    fn id(&self) -> &str {
        self.arg.get_id().as_str()
    }

    fn long(&self) -> &str {
        self.arg.get_long().unwrap_or_default()
    }

    /// Sets values from outside of the command line, if they are valid.
    fn set(&mut self, texts: &[OsString], origin: Origin) -> Result<(), SettingsError> {
        let flag = |text: &OsString| {
            let mut flag = OsString::from(format!("--{}=", self.long()));
            flag.push(text);
            flag
        };
        let alone = Command::new("taba").no_binary_name(true).disable_help_flag(true).arg(self.arg.clone());
        match parse(&alone, &texts.iter().map(flag).collect::<Vec<_>>()) {
            Ok(matches) => {
                self.texts = raw(&matches, self.id());
                self.origin = origin;
                Ok(())
            }
            Err(mut error) => {
                if self.arg.is_hide_env_values_set() {
                    error.insert(ContextKind::InvalidValue, ContextValue::String("(not shown)".to_owned()));
                }
                Err(UsageError::new(error, Some(origin)).into())
            }
        }
    }
}

/// The values of an argument as written; a list is split.
fn raw(matches: &ArgMatches, id: &str) -> Vec<OsString> {
    matches.get_raw(id).into_iter().flatten().map(OsStr::to_owned).collect()
}

impl Settings<'_> {
    /// Lists the settings of a command and of the chosen subcommand, and those that flags set.
    fn list(&mut self, command: &Command, given: &ArgMatches) {
        for arg in command.get_arguments().filter(|arg| is_setting(arg)) {
            let id = arg.get_id().as_str();
            let is_flag = given.value_source(id) == Some(ValueSource::CommandLine);
            let flag = || Origin::Flag(format!("--{}", arg.get_long().unwrap_or_default()));
            self.list.push(Setting {
                arg: arg.clone().env(None::<&str>).required(false),
                variable: arg.get_env().unwrap_or_default().to_owned(),
                texts: if is_flag { raw(given, id) } else { Vec::new() },
                origin: if is_flag { flag() } else { Origin::Default },
            });
        }
        if let Some((name, given)) = given.subcommand()
            && let Some(command) = command.find_subcommand(name)
        {
            self.list(command, given);
        }
    }

    fn read_variables(&mut self, variables: &BTreeMap<OsString, OsString>) -> Result<(), SettingsError> {
        let (program, is_open) = (self.program, |setting: &&mut Setting| setting.origin == Origin::Default);
        for setting in self.list.iter_mut().filter(is_open) {
            let own = variables.get(&setting.variable).map(|text| (setting.variable.clone(), text.clone()));
            let (to, renamed) = (setting.long().to_owned(), program.renamed.iter());
            let mut old = renamed.filter(|renamed| renamed.to == to).filter_map(|renamed| {
                let name = OsString::from(renamed.variable(program)?);
                let text = renamed.value(variables.get(&name)?);
                Some((name, text))
            });
            if let Some((name, text)) = own.or_else(|| old.next()) {
                setting.set(&[text], Origin::Variable(name.to_string_lossy().into_owned()))?;
            }
        }
        Ok(())
    }

    fn read_file(&mut self) -> Result<(), SettingsError> {
        let named = self.list.iter().find(|setting| setting.id() == CONFIG);
        let Some((path, origin)) = named.and_then(|config| Some((config.texts.first()?, &config.origin)))
        else {
            return Ok(());
        };
        let path = PathBuf::from(path);
        let mut before = BTreeSet::new();
        let entries = file::read(&path, origin)?;
        let names = self.list.iter().filter(|setting| setting.id() != CONFIG);
        let names: Vec<_> =
            names.map(|setting| (setting.long().to_owned(), setting.id().to_owned())).collect();
        for file::FileSetting { key, texts } in entries {
            let mut long = key.replace('_', "-");
            let renamed = self.program.renamed.iter().find(|renamed| renamed.from == long);
            if let Some(renamed) = renamed {
                renamed.to.clone_into(&mut long);
            }
            let known = self.list.iter_mut().find(|setting| setting.long() == long && setting.id() != CONFIG);
            let Some(setting) = known else {
                let hint = hint(names.iter().map(|(long, id)| (long.as_str(), id.as_str())), &long);
                return Err(SettingsError::UnknownKey { path, key, hint });
            };
            let Some(mut texts) = texts else { return Err(SettingsError::KindOfValue { path, key }) };
            if let Some(renamed) = renamed {
                texts.iter_mut().for_each(|text| *text = renamed.value(text));
            }
            if !before.insert(long) {
                return Err(SettingsError::Twice { path, key });
            }
            if texts.iter().all(|text| text.is_empty()) {
                return Err(SettingsError::Empty { path, key });
            }
            if setting.origin == Origin::Default {
                setting.set(&texts, Origin::File { path: path.clone(), key })?;
            }
        }
        Ok(())
    }

    /// The command, with variables and the file as its defaults.
    fn as_defaults(&self, command: Command) -> Command {
        let found = |arg: &Arg| {
            let mut set = self.list.iter().filter(|setting| !setting.texts.is_empty());
            set.find(|setting| setting.id() == arg.get_id().as_str())
        };
        let arg = |arg: Arg| match found(&arg) {
            Some(setting) => arg.default_values(setting.texts.clone()),
            None => arg,
        };
        command.mut_args(arg).mut_subcommands(|command| self.as_defaults(command))
    }

    /// The final values of all settings.
    fn values(self, matches: &ArgMatches) -> Vec<SettingValue> {
        let mut levels = vec![matches];
        while let Some((_, deeper)) = levels[levels.len() - 1].subcommand() {
            levels.push(deeper);
        }
        let texts = |id: &str| {
            let known = |matches: &&&ArgMatches| matches.try_contains_id(id).is_ok();
            levels.iter().find(known).map(|matches| raw(matches, id)).unwrap_or_default()
        };
        let value = |setting: Setting| SettingValue {
            texts: texts(setting.id()),
            id: setting.id().to_owned(),
            is_list: setting.arg.get_value_delimiter().is_some(),
            is_secret: setting.arg.is_hide_env_values_set(),
            origin: setting.origin,
        };
        self.list.into_iter().map(value).collect()
    }
}

impl<C> LoadedSettings<C> {
    /// The source of a setting's value; its name with `-` or `_`.
    pub fn origin(&self, name: &str) -> Option<&Origin> {
        Some(&self.value(name)?.origin)
    }

    /// A setting's value as written, and its source; a list with commas.
    #[cfg(feature = "laws")]
    pub(crate) fn shown(&self, name: &str) -> Option<(String, Origin)> {
        let value = self.value(name)?;
        let texts: Vec<_> = value.texts.iter().map(|text| text.to_string_lossy()).collect();
        Some((texts.join(","), value.origin.clone()))
    }

    fn value(&self, name: &str) -> Option<&SettingValue> {
        let id = name.replace('-', "_");
        self.values.iter().find(|value| value.id == id)
    }

    /// The log filter: the setting `log`, else `RUST_LOG`, else `default`.
    ///
    /// # Errors
    /// [`SettingsError::Filter`], which names the source of the invalid filter.
    pub fn filter(&self, default: &str) -> Result<EnvFilter, SettingsError> {
        let log = self.value(LOG);
        let text = log.and_then(|log| Some((log.origin.to_string(), log.texts.first()?.to_string_lossy())));
        let setting = text.as_ref().map(|(origin, text)| (origin.as_str(), &**text));
        Ok(filter::read(setting, self.rust_log.as_deref(), default)?)
    }

    /// The error of valid values that are out of range or do not fit together, with their sources.
    pub fn impossible<E>(&self, names: &[&str], source: E) -> SettingsError
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let origin = |name: &&str| match self.origin(name) {
            Some(origin) => format!("{name} ({origin})"),
            None => (*name).to_owned(),
        };
        let origins = names.iter().map(origin).collect::<Vec<_>>().join(", ");
        SettingsError::Impossible { origins, source: source.into() }
    }
}

#[cfg(test)]
mod tests;
