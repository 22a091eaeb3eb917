//! The programs of a simulated fleet, so that they can be killed: a coordinator that can be hurried, a
//! real agent whose workers measure nothing, and the check afterwards.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, Write as _},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    thread,
    time::Duration,
};

use clap::{Parser, Subcommand};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{
    EnvFilter, Layer as _, filter::LevelFilter, layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};
use tritmark_agent::AgentConfig;
use tritmark_coordinator::{Coordinator, Timing, schedule::Policy, step_clock};
use tritmark_suites::worker::{WorkerEvent, WorkerFinished, WorkerRequest};
use tritmark_testkit::{
    check::{Expected, check},
    fleet::{self, AnyError, WORK_MS},
    journal::{self, JournalLayer},
    random::Random,
    work,
};

#[derive(Parser)]
#[command(about = "Simulated fleets, for tests of Tritmark itself")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves agents until it is killed; prints its address
    Coordinator {
        #[arg(long)]
        listen: SocketAddr,
        /// A path or a URL
        #[arg(long)]
        store: String,
        #[arg(long, default_value_t = 3000)]
        lease_ms: u64,
        #[arg(long, default_value_t = 500)]
        reclaim_ms: u64,
        #[arg(long, default_value_t = 5000)]
        forget_ms: u64,
        #[arg(long, default_value_t = 1000)]
        max_attempts: u32,
        /// How far its wall clock is off
        #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
        clock_step_s: i64,
        #[arg(long)]
        insecure: bool,
    },
    /// A real agent on a machine of its own
    Agent {
        #[arg(long)]
        coordinator: String,
        #[arg(long)]
        state: PathBuf,
        #[arg(long)]
        machine: String,
        #[arg(long)]
        journal: PathBuf,
        #[arg(long, default_value_t = 1 << 30)]
        spool_max_bytes: u64,
        #[arg(long)]
        insecure: bool,
    },
    /// What the agent starts
    Worker,
    /// Submits a run of so many jobs and prints its id
    Submit {
        #[arg(long)]
        coordinator: String,
        #[arg(long)]
        jobs: u32,
    },
    /// Waits until no run is open
    Wait {
        #[arg(long)]
        coordinator: String,
        #[arg(long, default_value_t = 600)]
        seconds: u64,
    },
    /// Compares the store with the agents' journals
    Check {
        #[arg(long)]
        store: String,
        #[arg(long)]
        journals: PathBuf,
        /// The coordinator's clock was set
        #[arg(long)]
        clock_stepped: bool,
    },
}

fn main() -> ExitCode {
    let Args { command } = Args::parse();
    let done = match command {
        Command::Worker => worker().map_err(Into::into),
        other => serve(other),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            let _ = writeln!(io::stderr(), "error: {text}");
            ExitCode::FAILURE
        }
    }
}

fn serve(command: Command) -> Result<(), AnyError> {
    let log = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")));
    let journal = match &command {
        Command::Agent { journal, .. } => Some(JournalLayer::open(journal)?),
        _ => None,
    };
    tracing_subscriber::registry()
        .with(journal.map(|journal| journal.with_filter(LevelFilter::DEBUG)))
        .with(log)
        .init();
    // Agents have one thread, as in the field.
    let mut runtime = match command {
        Command::Agent { .. } => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = runtime.enable_all().build()?;
    runtime.block_on(run(command))
}

async fn run(command: Command) -> Result<(), AnyError> {
    match command {
        Command::Worker => unreachable!("it has no runtime"),
        Command::Coordinator {
            listen,
            store,
            lease_ms,
            reclaim_ms,
            forget_ms,
            max_attempts,
            clock_step_s,
            insecure,
        } => {
            step_clock(clock_step_s.saturating_mul(1_000_000_000));
            let timing = Timing {
                lease: Duration::from_millis(lease_ms),
                heartbeat: Duration::from_secs(1),
                reclaim: Duration::from_millis(reclaim_ms),
                policy: Policy {
                    max_attempts,
                    retry_delay: Duration::from_millis(50),
                    forget_machine_after: Duration::from_millis(forget_ms),
                },
                calibrate_every: None,
            };
            coordinator(listen, &store, timing, insecure).await
        }
        Command::Agent {
            coordinator,
            state,
            machine,
            journal: _,
            spool_max_bytes,
            insecure,
        } => {
            let root = fleet::machine_root(&state, &machine)?;
            let mut config = AgentConfig::new(coordinator, &state)?;
            config.sysfs_root = root;
            config.lock_path = state.join("machine.lock");
            config.labels = BTreeMap::new();
            config.spool_max_bytes = spool_max_bytes;
            config.insecure = insecure;
            Ok(tritmark_agent::run(config, CancellationToken::new()).await?)
        }
        Command::Submit { coordinator, jobs } => {
            let run = fleet::submit(&coordinator, "submitted", jobs).await?;
            say(&run)
        }
        Command::Wait {
            coordinator,
            seconds,
        } => {
            let limit = Duration::from_secs(seconds);
            fleet::wait_for_all(&coordinator, limit).await?;
            Ok(())
        }
        Command::Check {
            store,
            journals,
            clock_stepped,
        } => {
            let store = fleet::open_store(&store).await?;
            let expected = Expected {
                clock_stepped,
                ..Expected::default()
            };
            let verdict = check(&*store, &journal::read_folder(&journals)?, expected).await?;
            say(&format!(
                "{} jobs, {} succeeded, {} attempts, {} records, {} acknowledged, {} problems",
                verdict.n_jobs,
                verdict.n_succeeded,
                verdict.n_attempts,
                verdict.n_records,
                verdict.n_acknowledged,
                verdict.problems.len()
            ))?;
            for problem in &verdict.problems {
                say(problem)?;
            }
            if verdict.problems.is_empty() {
                Ok(())
            } else {
                Err("something was lost or done twice".into())
            }
        }
    }
}

async fn coordinator(
    listen: SocketAddr,
    store: &str,
    timing: Timing,
    insecure: bool,
) -> Result<(), AnyError> {
    let listener = TcpListener::bind(listen).await?;
    let mut config = fleet::coordinator_config(store)?;
    config.insecure = insecure;
    config.timing = timing;
    let coordinator = Coordinator::open(config).await?;
    say(&format!("http://{}", listener.local_addr()?))?;
    Ok(coordinator.serve(listener).await?)
}

/// Measures nothing, and says so in the way real workers do.
fn worker() -> io::Result<()> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    let request: WorkerRequest = serde_json::from_str(&line)?;
    let nonce = Random::new(u64::from(std::process::id()) ^ (now_ns() << 20)).next_u64();
    let records = work::records(&request.job, nonce, request.items_done);
    let work_ms: u64 = std::env::var(WORK_MS)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let pause = Duration::from_millis(work_ms) / (records.len() as u32 + 1);
    let n_records = records.len() as u64;
    for record in records {
        thread::sleep(pause);
        put(&WorkerEvent::Record(record))?;
    }
    thread::sleep(pause);
    put(&WorkerEvent::Finished(WorkerFinished { n_records }))
}

fn put(event: &WorkerEvent) -> io::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    let mut stdout = io::stdout();
    stdout.write_all(&line)?;
    stdout.flush()
}

fn say(line: &str) -> Result<(), AnyError> {
    let mut stdout = io::stdout();
    writeln!(stdout, "{line}")?;
    Ok(stdout.flush()?)
}

fn now_ns() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64)
}
