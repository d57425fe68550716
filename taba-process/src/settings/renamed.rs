//! [`Renamed`]: flags, variables and keys of before, which go on to work.

use std::ffi::{OsStr, OsString};

use super::Program;

/// A setting that had another name, and perhaps no unit in its value. The old flag, variable and key are still read; the
/// help does not show them.
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
    /// The flag of before, without its dashes.
    pub from: &'static str,
    /// The flag of today, without its dashes.
    pub to: &'static str,
    /// The unit that a bare number had.
    pub unit: &'static str,
}

impl Renamed {
    /// The variable of before.
    pub(crate) fn variable(&self, program: &Program) -> Option<String> {
        Some(format!("{}{}", program.prefix?, self.from.replace('-', "_").to_uppercase()))
    }

    /// A value of before as it is written today.
    pub(super) fn value(&self, text: &OsStr) -> OsString {
        let mut value = text.to_owned();
        // Anything but a number was an error before, and still is one.
        if !text.is_empty() && text.as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            value.push(self.unit);
        }
        value
    }
}

/// The command line with the flags of today.
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
