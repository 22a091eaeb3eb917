//! `tritmark completions`: a script for the shell, made from the arguments.

use clap::CommandFactory as _;

use crate::{
    args::{Cli, Completions},
    exit::{Exit, Outcome},
    out,
};

pub(crate) fn exec(args: &Completions) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tritmark", &mut script);
    out::piece(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Pass)
}
