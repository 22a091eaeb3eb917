//! A program that a sandbox's stages can be: for tests, whose own `main` is not theirs.
//!
//! Otherwise it runs the program on its stdin in a sandbox, without namespaces if there is an argument,
//! and returns what that returns.

use std::{
    io::{self, Read as _},
    process::ExitCode,
};

use tritmark_suites::sandbox::{
    Exit, Limits, Namespaces, Options, Program, Sandbox, enter_if_asked,
};

fn main() -> ExitCode {
    if let Some(code) = enter_if_asked() {
        return code;
    }
    let mut script = String::new();
    io::stdin()
        .read_to_string(&mut script)
        .expect("a program on stdin");
    let namespaces = match std::env::args().nth(1) {
        Some(_) => Namespaces::Off,
        None => Namespaces::Require,
    };
    let options = Options {
        namespaces,
        cpu_factor: Some(1.0),
        ..Options::default()
    };
    let sandbox = Sandbox::detect(&options).expect("a sandbox");
    let ran = sandbox
        .run(&Program::new(script, Limits::default()))
        .expect("the sandbox holds");
    match ran.exit {
        Exit::Code(code) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
        _ => ExitCode::FAILURE,
    }
}
