//! What is done with the repository itself: `cargo xtask dist` makes the archives of a release.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod dist;
mod elf;
mod pack;
mod tools;

#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build static programs for each target and pack them, with checksums.
    ///
    /// Equal sources, compilers and C compilers give equal archives, byte for byte.
    Dist(dist::Dist),
}

fn main() -> ExitCode {
    let Args {
        command: Command::Dist(args),
    } = Args::parse();
    match dist::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            eprintln!("xtask: {text}");
            ExitCode::FAILURE
        }
    }
}
