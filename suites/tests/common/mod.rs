//! What tests of untrusted programs share.

use std::path::PathBuf;

use tritmark_suites::sandbox::{Options, Sandbox};

/// Returns the program whose `main` lets it be a stage, which `cargo test` builds beside the tests.
pub(crate) fn entry() -> PathBuf {
    if let Some(path) = std::env::var_os("TRITMARK_TEST_ENTRY") {
        return path.into();
    }
    let test = std::env::current_exe().expect("the test has a path");
    let profile = test
        .ancestors()
        .nth(2)
        .expect("tests lie in a folder of the profile's");
    let entry = profile.join("examples/sandbox_entry");
    assert!(
        entry.exists(),
        "{} is missing: cargo build -p tritmark-suites --examples",
        entry.display()
    );
    entry
}

/// Returns a sandbox, or nothing where this machine has none and need not.
pub(crate) fn sandbox(options: Options) -> Option<Sandbox> {
    let options = Options {
        entry: Some(entry()),
        ..options
    };
    match Sandbox::detect(&options) {
        Ok(sandbox) => Some(sandbox),
        Err(error) => {
            assert!(!required(), "{error}");
            eprintln!("NOT RUN: untrusted programs: {error}");
            None
        }
    }
}

/// Tells whether a machine without a sandbox is to fail.
pub(crate) fn required() -> bool {
    std::env::var_os("TRITMARK_REQUIRE_PYTHON").is_some_and(|value| value == "1")
}
