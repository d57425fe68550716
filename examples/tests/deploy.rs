//! `deploy/`: what its files set are settings of the programs, and count.

#![expect(clippy::unwrap_used, reason = "tests may unwrap")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn read(name: &str) -> String {
    fs::read_to_string(deploy().join(name)).unwrap()
}

/// Runs a program with nothing of ours in its environment.
fn run(program: &str, args: &[String], variables: &[(String, String)]) -> (Option<i32>, String, String) {
    let mut command = Command::new(taba_tests::binary(program));
    let ours = std::env::vars_os().map(|(name, _)| name);
    ours.filter(|name| name.to_string_lossy().starts_with("TABA_")).for_each(|name| {
        command.env_remove(name);
    });
    let output = command.args(args).envs(variables.iter().cloned()).output().unwrap();
    let Output { status, stdout, stderr } = output;
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// The values of a key of a systemd unit.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    let value =
        |line: &'a str| line.split_once('=').filter(|(found, _)| *found == key).map(|(_, value)| value);
    unit.lines().filter_map(value).collect()
}

#[test]
fn the_units_run_their_programs_with_settings_that_exist() {
    for (program, file) in [("taba-server", "server.toml"), ("taba-agent", "agent.toml")] {
        let unit = read(&format!("systemd/{program}.service"));
        let [start] = values(&unit, "ExecStart")[..] else { panic!("one ExecStart in {unit}") };
        let words: Vec<&str> = start.split_whitespace().collect();
        assert_eq!(words[0], format!("/usr/local/bin/{program}"));
        let mut args: Vec<String> =
            words[1..].iter().map(|word| word.replace("/etc/taba", deploy().to_str().unwrap())).collect();
        args.push("--print-config".to_owned());
        let (code, printed, error) = run(program, &args, &[]);
        assert_eq!(code, Some(0), "{error}");
        // Each line of the file counts.
        let text = read(file);
        for key in text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(" ="))
        {
            let origin = format!("# {} in {}/{file}", key.0, deploy().display());
            assert!(
                printed.lines().any(|line| line.starts_with(key.0) && line.ends_with(&origin)),
                "{origin}: {printed}"
            );
        }
        // What is started again for nothing is not started again.
        args.push("--vbuckets=100".to_owned());
        let (code, _, error) = run(program, &args, &[]);
        let not_again = values(&unit, "RestartPreventExitStatus");
        assert_eq!(not_again, [code.unwrap().to_string()], "{error}");
        assert!(text.contains(&format!("/var/lib/{}\"", values(&unit, "StateDirectory")[0])));
    }
}

#[test]
fn the_images_run_their_programs_with_settings_that_exist() {
    let file = read("container/Containerfile").replace("\\\n", " ");
    assert!(file.lines().any(|line| line == "STOPSIGNAL SIGTERM"));
    let user = file.lines().find_map(|line| line.strip_prefix("USER ")).unwrap();
    assert!(!user.starts_with('0') && !user.starts_with("root"));
    for stage in ["server", "agent"] {
        let program = format!("taba-{stage}");
        let (_, lines) = file.split_once(&format!("AS {stage}\n")).unwrap();
        let lines: Vec<&str> = lines.lines().take_while(|line| !line.starts_with("FROM ")).collect();
        assert!(lines.contains(&format!("ENTRYPOINT [\"/usr/local/bin/{program}\"]").as_str()));
        let variables =
            lines.iter().filter_map(|line| line.strip_prefix("ENV ")).flat_map(str::split_whitespace);
        let variables: Vec<(String, String)> =
            variables.map(|pair| pair.split_once('=').unwrap()).map(|(a, b)| (a.into(), b.into())).collect();
        assert!(variables.len() > 1);
        let (code, printed, error) = run(&program, &["--print-config".to_owned()], &variables);
        assert_eq!(code, Some(0), "{error}");
        for (name, value) in &variables {
            let line = format!("\"{value}\"  # the variable {name}");
            assert!(printed.lines().any(|found| found.ends_with(&line)), "{line}: {printed}");
        }
        let port = lines.iter().find_map(|line| line.strip_prefix("EXPOSE ")).unwrap();
        assert!(printed.contains(&format!("listen = \"0.0.0.0:{port}\"")), "{printed}");
    }
}
