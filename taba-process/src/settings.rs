//! [`load`]: settings from flags, variables and a file, in this order of precedence; then come the defaults.
//!
//! The list of settings is the clap struct of the program: each of its arguments that declares a variable
//! (`env = "TABA_AGENT_LINGER"`) is a setting, and also a key of the file of `--config` (`linger`; `-` and `_` are the
//! same). clap sees variables and the file as defaults, so that one parser checks every value, wherever it comes from.
//!
//! - A value that is overridden is not checked; a variable or a key that is no setting always is an error.
//! - An empty variable is not set. An empty text or list in the file is an error: leave the key out instead.
//! - Lists are separated by commas, or are arrays in the file. They are replaced as a whole, never joined.
//! - Every value has an [`Origin`], and every error names it.
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
use tracing_subscriber::EnvFilter;

use crate::filter;

pub use environment::UnknownVariable;
pub use error::SettingsError;
pub use origin::Origin;
pub use renamed::Renamed;
pub use usage::UsageError;

/// The setting that names the file of the others.
const CONFIG: &str = "config";
/// The setting that says what is logged.
const LOG: &str = "log";

/// What the settings of a program have in common.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// What its variables begin with, as in `TABA_AGENT_`: a variable that does and is no setting is an error. `None` where
    /// variables of other programs begin alike.
    pub prefix: Option<&'static str>,
    /// Settings that had another name or unit before.
    pub renamed: &'static [Renamed],
}

/// Settings as they were read.
#[derive(Clone, Debug)]
pub struct LoadedSettings<C> {
    /// The settings.
    pub settings: C,
    program: String,
    values: Vec<SettingValue>,
    rust_log: Option<String>,
}

/// One setting: what it is, and why.
#[derive(Clone, Debug)]
struct SettingValue {
    id: String,
    texts: Vec<OsString>,
    is_list: bool,
    is_secret: bool,
    origin: Origin,
}

/// Reads the settings of a program. `args` begins with its name; `variables` are those of the environment.
///
/// # Errors
/// [`SettingsError`], also when help or the version was asked for; [`SettingsError::end`] does what is usual.
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
    let parse = |command: &Command| command.clone().try_get_matches_from(&args);
    let given = parse(&command).map_err(|error| {
        let error = UsageError::new(error, None);
        // The help tells the variables, which only the command as it was declared knows.
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

/// The command as clap should read it: no variables, and no setting that must be a flag.
fn without_variables(command: Command) -> Command {
    let arg = |arg: Arg| if is_setting(&arg) { arg.env(None::<&str>).required(false) } else { arg };
    command.mut_args(arg).mut_subcommands(without_variables)
}

/// Whether an argument is a setting. (As it was declared: `load` takes the variables away.)
pub fn is_setting(arg: &Arg) -> bool {
    arg.get_env().is_some() && arg.get_long().is_some()
}

/// What to say to a name that is none: the one that looks most like it, by the measure that clap has for flags. `names`
/// are pairs of a flag without dashes and what it is called here.
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
    /// What was found, by flag, variable or file.
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

    /// Takes values from outside of the command line, if they can be read.
    fn set(&mut self, texts: &[OsString], origin: Origin) -> Result<(), SettingsError> {
        let flag = |text: &OsString| {
            let mut flag = OsString::from(format!("--{}=", self.long()));
            flag.push(text);
            flag
        };
        let alone = Command::new("taba").no_binary_name(true).disable_help_flag(true).arg(self.arg.clone());
        match alone.try_get_matches_from(texts.iter().map(flag)) {
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

/// The values of an argument as they were written; a list is split.
fn raw(matches: &ArgMatches, id: &str) -> Vec<OsString> {
    matches.get_raw(id).into_iter().flatten().map(OsStr::to_owned).collect()
}

impl Settings<'_> {
    /// Lists the settings of a command and of the subcommand that was chosen, and those that flags set.
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

    /// The command, with what variables and the file say as its defaults.
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

    /// What all settings are in the end.
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
    /// Where the value of a setting comes from; its name with `-` or `_`.
    pub fn origin(&self, name: &str) -> Option<&Origin> {
        Some(&self.value(name)?.origin)
    }

    /// What a setting is, as it was written, and where that comes from; a list with commas.
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

    /// What is logged: the setting `log`, else `RUST_LOG`, else `default`.
    ///
    /// # Errors
    /// [`SettingsError::Filter`], which names where the wrong filter comes from.
    pub fn filter(&self, default: &str) -> Result<EnvFilter, SettingsError> {
        let log = self.value(LOG);
        let text = log.and_then(|log| Some((log.origin.to_string(), log.texts.first()?.to_string_lossy())));
        let setting = text.as_ref().map(|(origin, text)| (origin.as_str(), &**text));
        Ok(filter::read(setting, self.rust_log.as_deref(), default)?)
    }

    /// The error of settings that can be read, but are not possible: with where each of them comes from.
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
