//! [`read`]: the log filter. The program's own setting wins over `RUST_LOG`, which wins over the default.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// Why a log filter is invalid.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// The syntax is invalid.
    #[error(
        "{setting} is {text:?}; write off, error, warn, info, debug or trace, or TARGET=LEVEL,… as in info,taba_agent=debug"
    )]
    Syntax {
        /// Where it was set.
        setting: String,
        /// What it is.
        text: String,
        /// Why it cannot be.
        source: ParseError,
    },
    /// A word alone that is no level would log nothing but the module of that name.
    #[error(
        "{setting} is {text:?}, and {word:?} is no level; write off, error, warn, info, debug or trace, or {word}=LEVEL for one module"
    )]
    Level {
        /// Where it was set.
        setting: String,
        /// What it is.
        text: String,
        /// The word.
        word: String,
    },
}

/// The filter of the setting of ours, if it is given (with where it comes from), else of `RUST_LOG`, else `default`.
///
/// # Errors
/// [`FilterError`], which names the setting.
pub fn read(
    setting: Option<(&str, &str)>,
    rust_log: Option<&str>,
    default: &str,
) -> Result<EnvFilter, FilterError> {
    match (setting, rust_log) {
        (Some((name, text)), _) => parse(name, text, true),
        (None, Some(text)) => parse("RUST_LOG", text, false),
        (None, None) => parse("the default", default, true),
    }
}

fn parse(setting: &str, text: &str, is_ours: bool) -> Result<EnvFilter, FilterError> {
    let (setting, text) = (setting.to_owned(), text.to_owned());
    if is_ours && let Some(word) = text.split(',').map(str::trim).find(|word| is_no_level(word)) {
        let word = word.to_owned();
        return Err(FilterError::Level { setting, text, word });
    }
    EnvFilter::try_new(&text).map_err(|source| FilterError::Syntax { setting, text, source })
}

/// Whether this is one word, and neither a level nor a target with one.
fn is_no_level(word: &str) -> bool {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_word = !word.is_empty() && word.chars().all(char::is_alphanumeric);
    is_word && !LEVELS.contains(&word.to_ascii_lowercase().as_str()) && !("0"..="5").contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_names_its_setting_when_it_is_wrong() {
        let read = |text| parse("--log", text, true);
        for text in
            ["info", "INFO", "off", "taba_agent=debug", "info,taba_agent::lane=trace", "warn,hyper=off"]
        {
            assert_eq!(read(text).map(drop).map_err(|error| error.to_string()), Ok(()), "{text}");
        }
        for text in ["inof", "verbose", "info,debgu", "taba_agent=loud", "==="] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains("--log") && error.contains(text) && error.contains("debug"), "{error}");
        }
        assert!(parse("RUST_LOG", "hyper", false).is_ok(), "others read RUST_LOG too");
    }
}
