//! What somebody sees who writes `handler_laws!` and has not the feature `laws`.

use std::path::Path;
use std::process::Command;

/// The file of the macros alone is handed to the compiler: to build this crate once more without the feature takes half a minute.
#[test]
fn without_the_feature_laws_the_macros_say_what_to_write() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let lib = std::fs::read_to_string(sources.join("lib.rs")).unwrap();
    assert!(
        lib.contains("#[cfg(not(feature = \"laws\"))]\nmod no_laws;"),
        "the macros stand in without the feature"
    );

    let room = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let program = format!(
        "#[path = {:?}]\nmod no_laws;\n\
         crate::handler_laws!(visits, visits(), visit_values(), older = [VisitsV1]);\n\
         crate::store_laws!(mine, Fixture);\n",
        sources.join("no_laws.rs")
    );
    std::fs::write(room.join("without_laws.rs"), program).unwrap();
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut check = Command::new(rustc);
    check.current_dir(room).args([
        "without_laws.rs",
        "--edition=2024",
        "--crate-type=lib",
        "--emit=metadata",
    ]);
    let seen = check.output().unwrap();
    let said = String::from_utf8_lossy(&seen.stderr);
    assert!(!seen.status.success());
    for name in ["handler_laws!", "store_laws!"] {
        let hint = format!(
            "error: {name} needs the feature `laws` of taba-core: under [dev-dependencies], taba-core = {{ path = \"…\", \
             features = [\"laws\"] }}"
        );
        assert!(said.contains(&hint), "{said}");
    }
    assert_eq!(
        said.matches("error: ").count(),
        3,
        "nothing else is said, but that it could not compile: {said}"
    );
}
