//! Instruction counts of what Taba does most, against those that the repository keeps: what `scripts/instructions` runs.
//!
//! ```text
//! taba-instructions measure                      under Callgrind: runs the operations, prints their names
//! taba-instructions compare PROFILE NAMES COUNTS compares the profile with the recorded counts
//! taba-instructions accept PROFILE NAMES COUNTS  writes the recorded counts anew
//! ```

mod counts;
mod measure;
mod operations;
mod profile;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::{env, fs};

use counts::{Comparison, Count, Counts};

const USAGE: &str =
    "usage: taba-instructions measure | (compare | accept) PROFILE NAMES COUNTS; run scripts/instructions";

#[expect(clippy::print_stderr, reason = "a tool tells the one who runs it")]
fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        ["measure"] => {
            operations::all();
            Ok(true)
        }
        ["compare", profile, names, counts] => measured(profile, names).and_then(|new| compare(&new, counts)),
        ["accept", profile, names, counts] => measured(profile, names).and_then(|new| accept(&new, counts)),
        _ => Err(USAGE.into()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("taba-instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

fn read(path: &str) -> Result<String, Box<dyn Error>> {
    fs::read_to_string(path).map_err(|error| format!("{path}: {error}").into())
}

/// The counts of a profile, whose parts have these names, each with its allocations.
fn measured(profile: &str, names: &str) -> Result<Counts, Box<dyn Error>> {
    let program = env::current_exe()?;
    let program = program.file_name().map(Path::new).ok_or("the program has no name")?;
    let parts = profile::instructions(&read(profile)?, &program.display().to_string());
    let names = read(names)?;
    let names: Vec<_> = names.lines().filter_map(|line| line.split_once(' ')).collect();
    if names.len() != parts.len() {
        let (ran, wrote) = (names.len(), parts.len());
        return Err(format!(
            "{ran} operations ran, but Callgrind counted in {wrote}: it did not find the function that scripts/instructions names"
        )
        .into());
    }
    let count = |((name, allocations), instructions): ((&str, &str), u64)| {
        Ok((name.to_owned(), Count { instructions, allocations: allocations.parse()? }))
    };
    names.into_iter().zip(parts).map(count).collect()
}

#[expect(clippy::print_stdout, reason = "a tool prints what it found")]
fn compare(new: &Counts, path: &str) -> Result<bool, Box<dyn Error>> {
    let recorded = read(path)?;
    let comparison =
        Comparison::of(&counts::parse(&recorded).map_err(|error| format!("{path}: {error}"))?, new);
    print!("{comparison}");
    let rustc = rustc();
    if !comparison.is_same() && !counts::is_recorded_with(&recorded, &rustc) {
        println!("\nNothing fails for that: {path} was recorded with another rustc, and this is {rustc}.");
        return Ok(true);
    }
    if !comparison.is_same() {
        println!(
            "\nIf this is meant, record the new counts in the same commit: `scripts/instructions --accept`, which writes {path}."
        );
    }
    Ok(comparison.is_same())
}

/// The compiler, as scripts/instructions says.
fn rustc() -> String {
    env::var("TABA_RUSTC_VERSION").unwrap_or_else(|_| "an unknown rustc".to_owned())
}

#[expect(clippy::print_stdout, reason = "a tool prints what it did")]
fn accept(new: &Counts, path: &str) -> Result<bool, Box<dyn Error>> {
    if let Ok(old) = counts::parse(&fs::read_to_string(path).unwrap_or_default()) {
        print!("{}", Comparison::of(&old, new));
    }
    fs::write(path, counts::text(new, &rustc())).map_err(|error| format!("{path}: {error}"))?;
    println!("wrote {path}: {} operations", new.len());
    Ok(true)
}
