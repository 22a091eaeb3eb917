//! One file a command: options in, an exit code out.

mod agent;
mod agents;
mod agree;
mod bench;
mod bundle_file;
mod bundles;
mod cancel;
mod compare;
mod completions;
mod coordinator;
mod data;
mod doctor;
mod export;
mod generate;
pub(crate) mod identity;
mod import;
mod inventory;
mod json;
mod ls;
mod model;
mod pause;
mod plan;
mod preview;
mod report;
mod run;
mod scorer;
mod submit;
mod transfer;
mod verify;
mod watch;
mod worker;

use std::{future::Future, num::NonZeroUsize, process::ExitCode, thread};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::{args::Command, exit::Outcome};

/// Does what was asked.
pub(crate) fn dispatch(command: Command) -> Outcome<ExitCode> {
    let exit = match command {
        Command::Run(args) => block_on(run::exec(args)),
        Command::Coordinator(args) => block_on(coordinator::exec(args)),
        Command::Agent(args) => block_on(agent::exec(args)),
        Command::Login(args) => block_on(identity::login(args)),
        Command::Submit(args) => block_on(submit::exec(args)),
        Command::Watch(args) => block_on(watch::exec(args)),
        Command::Ls(args) => ls::exec(args),
        Command::Cancel(args) => block_on(cancel::exec(args)),
        Command::Pause(args) => block_on(pause::exec(args, true)),
        Command::Resume(args) => block_on(pause::exec(args, false)),
        Command::Agents(args) => block_on(agents::exec(args)),
        Command::Report(args) => report::exec(args),
        Command::Verify(args) => verify::exec(&args),
        Command::Compare(args) => compare::exec(&args),
        Command::Export(args) => export::exec(&args),
        Command::Import(args) => import::exec(&args),
        Command::Doctor(args) => doctor::exec(&args),
        Command::Model(args) => model::exec(args),
        Command::Data(args) => data::exec(args),
        Command::Generate(args) => generate::exec(&args),
        Command::Bench(args) => bench::exec(&args),
        Command::Agree(args) => agree::exec(&args),
        Command::Plan(args) => plan::exec(&args),
        Command::Completions(args) => completions::exec(&args),
        Command::Worker => return Ok(worker::exec()),
        Command::Calibrate { memory_bytes } => return Ok(worker::calibrate(memory_bytes)),
    };
    exit.map(ExitCode::from)
}

/// Runs a command that talks to others. The measuring itself is never done on this runtime.
fn block_on<T>(command: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    tokio::runtime::Runtime::new()
        .context("cannot start the runtime")?
        .block_on(command)
}

/// Waits until the user or the system wants this process to end.
async fn interrupt() -> Outcome<()> {
    let mut terminate =
        signal(SignalKind::terminate()).context("cannot wait for a signal to end")?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot wait for ctrl-c")?,
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// Returns the threads asked for, or one a core.
fn threads(wanted: Option<NonZeroUsize>) -> NonZeroUsize {
    wanted
        .or_else(|| thread::available_parallelism().ok())
        .unwrap_or(NonZeroUsize::MIN)
}
