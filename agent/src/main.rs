//! The agent as a program of its own, small enough for a small board.

use std::{error::Error, io, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand, builder::FalseyValueParser};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use tritmark_agent::{
    AgentConfig, AgentError, DrainError, Size, StateError, default_state_dir, drain_agent,
    run_until,
};
use tritmark_suites::{calibration::calibration_main, chain, sandbox, worker::worker_main};

/// One machine of the fleet: takes jobs from a coordinator and measures.
///
/// The first SIGTERM or Ctrl-C lets the job in hand finish, the second stops it.
#[derive(Debug, Parser)]
#[command(version, subcommand_negates_reqs = true)]
struct Args {
    /// Where the coordinator listens, e.g. <https://fleet.example.org:7411>.
    #[arg(
        long,
        value_name = "URL",
        env = "TRITMARK_COORDINATOR",
        required = true
    )]
    coordinator: Option<String>,
    /// Folder of the agent's id and of records that are not acknowledged yet.
    #[arg(long, value_name = "DIR", env = "TRITMARK_STATE")]
    state: Option<PathBuf>,
    /// What a plan's selector may ask for; may be given several times.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// MiB of items that are kept between runs, for plans with `cache = true`; 0 keeps none.
    #[arg(
        long,
        value_name = "MIB",
        env = "TRITMARK_ITEM_CACHE_MIB",
        default_value_t = 1024
    )]
    item_cache_mib: u32,
    /// Room for models and data that the coordinator sends; what was not used for longest goes first.
    #[arg(
        long,
        value_name = "SIZE",
        env = "TRITMARK_CACHE_SIZE",
        default_value = "200GiB"
    )]
    cache_size: Size,
    /// Refuse jobs that name paths of this machine: open only what the coordinator sent.
    #[arg(long, env = "TRITMARK_ONLY_SENT", value_parser = clap::builder::FalseyValueParser::new())]
    only_sent: bool,
    /// PEM file of certificates to trust instead of the system's.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Allow plain text to another machine.
    #[arg(long)]
    insecure: bool,
    /// Do not measure for a few seconds what the machine can do when the coordinator asks.
    #[arg(long, env = "TRITMARK_NO_CALIBRATION", value_parser = FalseyValueParser::new())]
    no_calibration: bool,
    /// Command that starts the processes of jobs, e.g. `numactl --membind=0`.
    #[arg(long, value_name = "COMMAND", env = "TRITMARK_LAUNCHER")]
    launcher: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Do one job: a request on stdin, events on stdout. The agent starts this.
    #[command(hide = true)]
    Worker,
    /// Measure what the machine can do. The agent starts this.
    #[command(hide = true)]
    Calibrate {
        /// Bytes of memory the machine has.
        memory_bytes: u64,
    },
    /// Tell the agent of a state folder to finish its job and leave, and wait until it has.
    Drain {
        /// The agent's state folder.
        #[arg(long, value_name = "DIR", env = "TRITMARK_STATE")]
        state: Option<PathBuf>,
        /// Do not wait.
        #[arg(long)]
        no_wait: bool,
    },
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

fn main() -> ExitCode {
    if let Some(code) = sandbox::enter_if_asked() {
        return code;
    }
    let args = Args::parse();
    let done = match args.command {
        Some(Command::Worker) => return worker_main(io::stdin().lock(), io::stdout().lock()),
        Some(Command::Calibrate { memory_bytes }) => {
            return calibration_main(memory_bytes, io::stdout().lock());
        }
        Some(Command::Drain { state, no_wait }) => drain(state, no_wait),
        None => agent(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tritmark-agent: {}", chain(error.as_ref()));
            exit_code(error.as_ref())
        }
    }
}

/// 2: the set-up is wrong; 4: there is no agent to tell to leave; 75: another agent is in the way, later may help; 70: anything else.
fn exit_code(error: &(dyn Error + 'static)) -> ExitCode {
    if let Some(DrainError::NotRunning(_)) = error.downcast_ref() {
        return ExitCode::from(4);
    }
    ExitCode::from(match error.downcast_ref() {
        Some(AgentError::Endpoint(_)) => 2,
        Some(AgentError::State(StateError::InUse(_))) => 75,
        _ => 70,
    })
}

fn drain(state: Option<PathBuf>, no_wait: bool) -> Result<(), Box<dyn Error>> {
    let state = state
        .or_else(default_state_dir)
        .ok_or("there is no home folder: give --state DIR")?;
    let leaving = drain_agent(&state)?;
    if !no_wait {
        leaving.wait()?;
    }
    Ok(())
}

fn agent(args: Args) -> Result<(), Box<dyn Error>> {
    let Args {
        coordinator,
        state,
        labels,
        item_cache_mib,
        no_calibration,
        cache_size,
        only_sent,
        ca,
        insecure,
        launcher,
        command: _,
    } = args;
    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")),
        )
        .with_writer(io::stderr)
        .init();
    let coordinator = coordinator.ok_or("the coordinator is not given")?;
    let state = state
        .or_else(default_state_dir)
        .ok_or("there is no home folder: give --state DIR")?;
    let mut config = AgentConfig::new(coordinator, state)?;
    config.labels = labels.into_iter().collect();
    config.item_cache_max_bytes = (item_cache_mib > 0).then_some(u64::from(item_cache_mib) << 20);
    config.calibrates = !no_calibration;
    config.file_cache_max_bytes = cache_size.0;
    config.only_sent_files = only_sent;
    config.ca_file = ca;
    config.insecure = insecure;
    if let Some(launcher) = launcher {
        config.worker = config.worker.through(&launcher);
    }
    // One thread: while a job is measured, the agent has next to nothing to do.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (drain, abort) = (CancellationToken::new(), CancellationToken::new());
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let agent = run_until(config, drain.clone(), abort.clone());
        tokio::pin!(agent);
        loop {
            tokio::select! {
                result = &mut agent => return Ok(result?),
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if drain.is_cancelled() {
                abort.cancel();
            } else {
                drain.cancel();
            }
        }
    })
}
