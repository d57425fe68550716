//! A TOML file as a list of keys and texts.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use super::{Origin, SettingsError};

/// A key of the file, with its value or list elements.
pub(super) struct FileSetting {
    pub(super) key: String,
    /// `None` for an unsupported kind of value.
    pub(super) texts: Option<Vec<OsString>>,
}

/// Reads the file; `origin` is the setting that names it.
pub(super) fn read(path: &Path, origin: &Origin) -> Result<Vec<FileSetting>, SettingsError> {
    let text = fs::read_to_string(path).map_err(|source| SettingsError::Read {
        path: path.to_owned(),
        origin: origin.clone(),
        source,
    })?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| SettingsError::Toml {
        path: path.to_owned(),
        line: 1 + error
            .span()
            .map_or(0, |span| text.bytes().take(span.start).filter(|&byte| byte == b'\n').count()),
        message: error.message().replace('\n', " "),
    })?;
    let entry = |(key, value): (String, toml::Value)| {
        let texts = match &value {
            toml::Value::Array(values) => values.iter().map(plain).collect(),
            value => plain(value).map(|text| vec![text]),
        };
        FileSetting { key, texts }
    };
    Ok(table.into_iter().map(entry).collect())
}

fn plain(value: &toml::Value) -> Option<OsString> {
    match value {
        toml::Value::String(text) => Some(text.into()),
        toml::Value::Integer(number) => Some(number.to_string().into()),
        toml::Value::Boolean(yes) => Some(yes.to_string().into()),
        toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => {
            None
        }
    }
}
