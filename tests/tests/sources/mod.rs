//! The sources of the libraries, for tests that look at them.

use std::fs;
use std::path::{Path, PathBuf};

use syn::Attribute;

/// Every file of `taba-*/src`, parsed, but for files of tests.
pub(crate) fn library_files() -> Vec<(PathBuf, syn::File)> {
    let family = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for entry in fs::read_dir(&family).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("taba-") && path.join("src").is_dir() {
            collect(&path.join("src"), &mut files);
        }
    }
    files
}

fn collect(path: &Path, files: &mut Vec<(PathBuf, syn::File)>) {
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "tests" {
                collect(&path, files);
            }
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            let file = syn::parse_file(&fs::read_to_string(&path).unwrap()).unwrap();
            files.push((path, file));
        }
    }
}

/// Whether an item is compiled for tests only.
pub(crate) fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Path>()
                .is_ok_and(|what| what.is_ident("test") || what.is_ident("doctest"))
    })
}
