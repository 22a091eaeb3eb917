//! The `tritmark` command: arguments in, one command done, an exit code out.

mod args;
mod client;
mod commands;
mod exit;
mod hub;
mod out;
mod progress;

use std::{io::Write as _, process::ExitCode};

use clap::Parser as _;
use tritmark_suites::sandbox;

use crate::{args::Cli, exit::Exit};

fn main() -> ExitCode {
    if let Some(code) = sandbox::enter_if_asked() {
        return code;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing is left to do for a reader that went away.
            let _ = error.print();
            let asked_for = !error.use_stderr();
            return if asked_for { Exit::Pass } else { Exit::Usage }.into();
        }
    };
    start_log(cli.log.as_deref());
    match commands::dispatch(cli.command) {
        Ok(code) => code,
        Err(fault) if fault.is_broken_pipe() => Exit::Pass.into(),
        Err(fault) => {
            // As above.
            let _ = writeln!(std::io::stderr(), "error: {}", fault.chain());
            fault.exit.into()
        }
    }
}

/// Sends the log to stderr; without a filter only what a user has to know.
fn start_log(filter: Option<&str>) {
    let filter = tracing_subscriber::EnvFilter::new(filter.unwrap_or("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}
