//! Settings from environment variables. An unknown variable with the program's prefix is an error, since it has no
//! effect; an empty one counts as not set; those that Kubernetes and Docker inject for a Service or container with
//! the program's name are ignored.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use clap::Command;

use super::{Program, hint};

/// An unknown variable with the prefix of the settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the environment sets {name}, which is not a setting and should be unset; {hint}")]
#[non_exhaustive]
pub struct UnknownVariable {
    /// The variable.
    pub name: String,
    /// A suggestion.
    pub hint: String,
}

/// Checks that each variable with the program's prefix is a setting of `command` or a subcommand, or was injected
/// ([`is_injected`]). `variables` has no empty ones.
///
/// # Errors
/// The first unknown variable.
pub(crate) fn check(
    program: &Program,
    command: &Command,
    variables: &BTreeMap<OsString, OsString>,
) -> Result<(), UnknownVariable> {
    let Some(prefix) = program.prefix else { return Ok(()) };
    let mut known: BTreeSet<String> =
        program.renamed.iter().filter_map(|old| old.variable(program)).collect();
    add_variables(command, &mut known);
    for (name, value) in variables {
        let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
        let Some(rest) = name.strip_prefix(prefix) else { continue };
        if !known.contains(&*name) && !is_injected(rest, &value) {
            let long = |name: &str| name.to_lowercase().replace('_', "-");
            let names: Vec<_> = known.iter().map(|name| (long(name), name.as_str())).collect();
            let hint = hint(names.iter().map(|(long, name)| (long.as_str(), *name)), &long(&name));
            return Err(UnknownVariable { name: name.into_owned(), hint });
        }
    }
    Ok(())
}

fn add_variables(command: &Command, known: &mut BTreeSet<String>) {
    known.extend(command.get_arguments().filter_map(|arg| Some(arg.get_env()?.to_str()?.to_owned())));
    command.get_subcommands().for_each(|command| add_variables(command, known));
}

/// Whether a variable was injected by Kubernetes or Docker: `rest` is its name after that of the Service or
/// container.
///
/// Kubernetes, for each Service: `SERVICE_HOST`, `SERVICE_PORT`, `SERVICE_PORT_<NAME>`, `PORT`, and
/// `PORT_<N>_<PROTOCOL>` with `_PROTO`, `_PORT` and `_ADDR`. Docker links: those with `PORT`, then `NAME` and
/// `ENV_<NAME>`. A Service may have a longer name than the program (`taba-server-headless`, `taba-server_1`). If the
/// name could be a mistyped setting, the value decides.
///
/// Source: Kubernetes, *Service*, "Environment variables"; Docker, *Legacy container links*, "Environment variables".
pub(super) fn is_injected(rest: &str, value: &str) -> bool {
    let words: Vec<&str> = rest.split('_').collect();
    (0..words.len()).any(|at| is_service_variable(&words[at..], value))
        || (rest == "NAME" && value.starts_with('/'))
        || rest.starts_with("ENV_")
}

fn is_service_variable(words: &[&str], value: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    match words {
        ["SERVICE", "HOST"] => true,
        ["SERVICE", "PORT", ..] => is_number(value),
        ["PORT"] => is_url,
        ["PORT", number, "TCP" | "UDP" | "SCTP", rest @ ..] => {
            is_number(number) && (matches!(rest, ["PROTO" | "PORT" | "ADDR"]) || (rest.is_empty() && is_url))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_injected_is_told_from_what_is_misspelt() {
        let injected = [
            ("SERVICE_HOST", "10.0.0.5"),
            ("SERVICE_PORT", "8300"),
            ("SERVICE_PORT_HTTP", "8300"),
            ("SERVICE_PORT_HTTP_ADMIN", "8301"),
            ("PORT", "tcp://10.0.0.5:8300"),
            ("PORT_8300_TCP", "tcp://10.0.0.5:8300"),
            ("PORT_8300_TCP_PROTO", "tcp"),
            ("PORT_8300_TCP_PORT", "8300"),
            ("PORT_8300_TCP_ADDR", "10.0.0.5"),
            ("PORT_53_UDP_ADDR", "fd00::5"),
            ("HEADLESS_SERVICE_HOST", "10.0.0.6"),
            ("1_PORT_8300_TCP_ADDR", "172.17.0.5"),
            ("NAME", "/web/taba-server"),
            ("ENV_PATH", "/bin"),
        ];
        for (rest, value) in injected {
            assert!(is_injected(rest, value), "{rest}={value}");
        }
        let misspelt = [
            ("PORT", "8300"),
            ("LISTN", "127.0.0.1:8300"),
            ("SERVICE_PORT", "http"),
            ("SERVERS", "tcp://a"),
            ("NAME", "web"),
            ("PORT_MAX", "9"),
            ("HOST", "10.0.0.5"),
            ("", "x"),
        ];
        for (rest, value) in misspelt {
            assert!(!is_injected(rest, value), "{rest}={value}");
        }
    }
}
