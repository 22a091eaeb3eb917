//! A program that a sandbox's stages can be: for tests, whose own `main` is not theirs.

use std::process::ExitCode;

use tritmark_suites::sandbox::enter_if_asked;

fn main() -> ExitCode {
    enter_if_asked().unwrap_or(ExitCode::FAILURE)
}
