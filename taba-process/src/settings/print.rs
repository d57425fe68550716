//! `--print-config`: the effective settings as a file for `--config`.

use std::io::Write;

use super::{CONFIG, LOG, LoadedSettings, SettingValue};
use crate::exit::Exit;
use crate::log::Log;

impl<C> LoadedSettings<C> {
    /// The settings as a TOML file for `--config`, each with its source as a comment. Unset settings without a
    /// default are comments, and so are secrets, without their values.
    pub fn to_toml(&self) -> String {
        let mut text = format!(
            "# The settings of {} as they count, each with where it comes from. This can be given back with --config.\n",
            self.program
        );
        for value in self.values.iter().filter(|value| value.id != CONFIG) {
            let origin = match (&self.rust_log, value.texts.is_empty() && value.id == LOG) {
                (Some(filter), true) => format!("RUST_LOG counts, which is {filter}"),
                _ => value.origin.to_string(),
            };
            text.push_str(&format!("{}  # {}\n", value.line(), taba_core::printable(&origin)));
        }
        text
    }

    /// Writes [`to_toml`](Self::to_toml) to standard output, and returns the exit code.
    #[must_use = "the process goes on otherwise"]
    pub fn print(&self, log: &Log) -> Exit {
        match std::io::stdout().write_all(self.to_toml().as_bytes()) {
            Ok(()) => Exit::Clean,
            // The reader closed the pipe.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Clean,
            Err(error) => log.fail(Exit::Failed, &error),
        }
    }
}

impl SettingValue {
    fn line(&self) -> String {
        let texts: Option<Vec<&str>> = self.texts.iter().map(|text| text.to_str()).collect();
        match texts.as_deref() {
            Some([]) => format!("# {} is not set", self.id),
            Some(_) if self.is_secret => format!("# {} is set, and not shown", self.id),
            Some(texts) if self.is_list => {
                let texts = texts.iter().map(|text| toml(text).to_string()).collect::<Vec<_>>();
                format!("{} = [{}]", self.id, texts.join(", "))
            }
            Some([text, ..]) => format!("{} = {}", self.id, toml(text)),
            // TOML is UTF-8.
            None => format!("# {} is set, and not UTF-8", self.id),
        }
    }
}

/// A number if it formats back to the same text, else a string.
fn toml(text: &str) -> toml::Value {
    let number = text.parse::<i64>().ok().filter(|number| number.to_string() == text);
    number.map_or_else(|| toml::Value::String(text.to_owned()), toml::Value::Integer)
}
