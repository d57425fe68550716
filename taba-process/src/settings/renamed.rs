//! [`Renamed`]: former names of flags, variables and keys, which still work.

use std::ffi::{OsStr, OsString};

use super::Program;

/// A setting with a former name, whose value perhaps had no unit. The old flag, variable and key still work; the help
/// does not show them.
///
/// # Examples
/// `--commit-interval-ms 200` is read as `--commit-interval 200ms`:
/// ```
/// use taba_process::settings::Renamed;
///
/// const OLD: Renamed = Renamed { from: "commit-interval-ms", to: "commit-interval", unit: "ms" };
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renamed {
    /// The former flag, without its dashes.
    pub from: &'static str,
    /// The current flag, without its dashes.
    pub to: &'static str,
    /// The unit of a bare number.
    pub unit: &'static str,
}

impl Renamed {
    /// The former variable.
    pub(crate) fn variable(&self, program: &Program) -> Option<String> {
        Some(format!("{}{}", program.prefix?, self.from.replace('-', "_").to_uppercase()))
    }

    /// A former value in the current format.
    pub(super) fn value(&self, text: &OsStr) -> OsString {
        let mut value = text.to_owned();
        // Values that are no numbers were and are errors.
        if !text.is_empty() && text.as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            value.push(self.unit);
        }
        value
    }
}

/// The command line with current flags.
pub(super) fn args(program: &Program, args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let (mut out, mut args) = (Vec::new(), args.into_iter());
    while let Some(arg) = args.next() {
        if arg == "--" {
            out.push(arg);
            out.extend(args);
            return out;
        }
        let flag = arg.to_str().and_then(|arg| arg.strip_prefix("--"));
        let (name, value) = match flag.map(|flag| flag.split_once('=').unwrap_or((flag, ""))) {
            Some((name, value)) => (name, flag.is_some_and(|flag| flag.contains('=')).then_some(value)),
            None => ("", None),
        };
        let Some(renamed) = program.renamed.iter().find(|renamed| renamed.from == name) else {
            out.push(arg);
            continue;
        };
        let value = value.map(OsString::from).or_else(|| args.next());
        let mut flag = OsString::from(format!("--{}", renamed.to));
        if let Some(value) = value {
            flag.push("=");
            flag.push(renamed.value(&value));
        }
        out.push(flag);
    }
    out
}
