//! How much a coordinator bears: simulated agents over real gRPC, jobs that measure nothing.
//!
//! ```text
//! cargo run --release -p tritmark-testkit --example fleet_load -- --store STORE [--agents 10,100,1000]
//! ```
//!
//! `STORE` is a folder for SQLite files, or `postgres` for a private server whose commits are durable;
//! each line of the table runs on an empty store. The coordinator is a process of its own, this very
//! program; all agents are in another, each with a connection of its own. For each number of agents
//! there are two lines. `work 0`: agents ask for the next job at once, so that jobs/s is what the
//! coordinator can do, and an agent waits for its turn. `work w`: jobs last w on average, between half
//! of it and half as much again, so that the fleet asks for `--rate` jobs/s, and the wait is the
//! coordinator's own.
//!
//! What the columns are:
//! * jobs/s: jobs whose end an agent has seen acknowledged, by the time from the first submission to the
//!   last acknowledgement. Submitting is in it.
//! * p50, p99: of the dispatch, from when an agent has put the end of a job on its stream, after all of
//!   its records, until the next job's assignment has arrived there. The records' commit, the end's,
//!   the beginning's, and both ways are in it. Every job but each agent's first is counted; while there
//!   are any, a job is queued all this time.
//! * RSS: the highest of the coordinator's process, all its jobs submitted at once.
//! * CPU: milliseconds of a core for each job, of the coordinator, of all agents together, and of
//!   PostgreSQL. They share the machine.
//! * commits and WAL for each job, where the store is PostgreSQL.

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use clap::Parser;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use tritmark_coordinator::{
    Coordinator,
    fixture::{Durability, PostgresFixture, PostgresServer},
};
use tritmark_testkit::{
    check::{Expected, check},
    fleet::{self, AnyError},
    journal::Journal,
    light::{Behaviour, LightAgent},
};

/// A plan has at most so many jobs.
const JOBS_A_RUN: u32 = 10_000;

/// Longest that a line may take.
const LIMIT: Duration = Duration::from_hours(1);

#[derive(Parser)]
struct Args {
    /// Folder for SQLite files, or `postgres`
    #[arg(long)]
    store: String,
    #[arg(long, value_delimiter = ',', default_value = "10,30,100,300,1000")]
    agents: Vec<u32>,
    #[arg(long, default_value_t = 100_000)]
    jobs: u32,
    /// Jobs a second that are asked for where jobs last some time; 0 leaves these lines out
    #[arg(long, default_value_t = 1600)]
    rate: u32,
    /// Leaves out the lines in which jobs last no time
    #[arg(long)]
    paced_only: bool,
    /// CPUs of the coordinator, as for taskset
    #[arg(long)]
    cpus: Option<String>,
    /// Compares the store with the agents' journals at the end
    #[arg(long)]
    check: bool,
    /// Serves as the coordinator
    #[arg(long, hide = true)]
    serve: Option<SocketAddr>,
}

fn main() -> Result<(), AnyError> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    match args.serve {
        Some(address) => runtime.block_on(serve(address, &args.store)),
        None => runtime.block_on(measure(&args)),
    }
}

async fn serve(address: SocketAddr, store: &str) -> Result<(), AnyError> {
    let listener = TcpListener::bind(address).await?;
    let config = fleet::coordinator_config(store)?;
    Ok(Coordinator::open(config).await?.serve(listener).await?)
}

async fn measure(args: &Args) -> Result<(), AnyError> {
    say(&format!(
        "{:>6} {:>7} {:>7} {:>7} {:>8} {:>8} {:>7} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8} {:>8}",
        "agents",
        "work ms",
        "jobs",
        "jobs/s",
        "p50 ms",
        "p99 ms",
        "RSS MB",
        "coord. ms",
        "agents ms",
        "PostgreSQL",
        "store MB",
        "commits",
        "WAL kB",
        "problems"
    ))?;
    let server = if args.store == "postgres" {
        let server = PostgresServer::start(Durability::Full).ok_or("there is no PostgreSQL")?;
        Some(server)
    } else {
        None
    };
    let mut line = 0;
    for &agents in &args.agents {
        let full = (!args.paced_only).then_some(Duration::ZERO);
        let paced = (args.rate > 0)
            .then(|| Duration::from_secs_f64(f64::from(agents) / f64::from(args.rate)));
        // Few agents are no faster than the way there and back.
        let paced = paced.filter(|work| *work > Duration::from_millis(50));
        for work in [full, paced].into_iter().flatten() {
            line += 1;
            let (store, database) = store_of(&args.store, server.as_ref(), line).await?;
            let row = one(args, &store, server.as_ref(), agents, work).await?;
            say(&row)?;
            drop(database);
        }
    }
    Ok(())
}

/// A store of its own for a line, and what keeps it alive.
async fn store_of(
    store: &str,
    server: Option<&PostgresServer>,
    line: u32,
) -> io::Result<(String, Option<PostgresFixture>)> {
    if let Some(server) = server {
        let database = PostgresFixture::on(server).await;
        return Ok((database.url().to_owned(), Some(database)));
    }
    let folder = PathBuf::from(store).join(format!("line-{line}"));
    std::fs::create_dir_all(&folder)?;
    let path = folder.join("store.sqlite").to_string_lossy().into_owned();
    Ok((path, None))
}

/// Asks a data base for a number.
async fn ask(url: &str, question: &str) -> Option<f64> {
    let asked = tokio::process::Command::new("psql")
        .args([url, "-Atc", question])
        .output()
        .await
        .ok()?;
    String::from_utf8(asked.stdout).ok()?.trim().parse().ok()
}

/// What has been used so far.
struct Used {
    coordinator: f64,
    agents: f64,
    postgres: f64,
    commits: f64,
    wal_bytes: f64,
}

impl Used {
    async fn so_far(
        coordinator: &Served,
        store: &str,
        server: Option<&PostgresServer>,
    ) -> Result<Self, AnyError> {
        let commits = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
        let (commits, wal_bytes, postgres) = match server {
            Some(server) => (
                ask(store, commits).await.unwrap_or(f64::NAN),
                ask(store, "SELECT wal_bytes FROM pg_stat_wal")
                    .await
                    .unwrap_or(f64::NAN),
                server.cpu_seconds()?,
            ),
            None => (f64::NAN, f64::NAN, f64::NAN),
        };
        Ok(Self {
            coordinator: cpu_seconds(coordinator.child.id())?,
            agents: cpu_seconds(std::process::id())?,
            postgres,
            commits,
            wal_bytes,
        })
    }
}

async fn one(
    args: &Args,
    store: &str,
    server: Option<&PostgresServer>,
    n_agents: u32,
    work: Duration,
) -> Result<String, AnyError> {
    let mut coordinator = Served::start(args, store).await?;
    let url = format!("http://{}", coordinator.address);
    let stop = CancellationToken::new();
    let journal = Journal::default();
    let mut tasks = start_agents(&url, n_agents, work, &stop, &journal)?;
    // Everybody is there before there is anything to do.
    let until = Instant::now() + Duration::from_mins(2);
    while fleet::agents(&url).await? < n_agents {
        if Instant::now() > until {
            return Err("the agents do not come".into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let before = Used::so_far(&coordinator, store, server).await?;
    let start = Instant::now();
    let mut left = args.jobs;
    let mut n_run = 0;
    while left > 0 {
        let n = left.min(JOBS_A_RUN);
        n_run += 1;
        fleet::submit(&url, &format!("load-{n_run}"), n).await?;
        left -= n;
    }
    // The agents know best, and asking them costs the coordinator nothing.
    while journal.n_finished() < args.jobs.into() {
        if start.elapsed() > LIMIT {
            return Err("the jobs are not done in time".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = start.elapsed();
    let after = Used::so_far(&coordinator, store, server).await?;
    let peak_mb = coordinator.peak_rss_bytes()? as f64 / 1e6;
    fleet::wait_for_all(&url, LIMIT).await?;
    stop.cancel();
    let mut dispatches: Vec<Duration> = Vec::new();
    while let Some(of_agent) = tasks.join_next().await {
        dispatches.extend(of_agent?);
    }
    dispatches.sort_unstable();
    let at = |share: f64| {
        #[expect(clippy::cast_sign_loss, reason = "a share is not negative")]
        let place = (dispatches.len() as f64 * share) as usize;
        dispatches
            .get(place.min(dispatches.len().saturating_sub(1)))
            .map_or(f64::NAN, |wait| wait.as_secs_f64() * 1e3)
    };
    coordinator.end();
    let bytes = match fleet::store_bytes(store) {
        None => ask(store, "SELECT pg_database_size(current_database())").await,
        Some(bytes) => Some(bytes as f64),
    };
    let store_mb = bytes.map_or(f64::NAN, |bytes| bytes / 1e6);
    let problems = if args.check {
        let store = fleet::open_store(store).await?;
        let verdict = check(&*store, &journal.entries(), Expected::default()).await?;
        verdict.problems.len().to_string()
    } else {
        "-".to_owned()
    };
    let n_jobs = f64::from(args.jobs);
    let ms = |before: f64, after: f64| (after - before) * 1e3 / n_jobs;
    Ok(format!(
        "{n_agents:>6} {:>7} {:>7} {:>7.0} {:>8.1} {:>8.1} {peak_mb:>7.0} {:>9.3} {:>9.3} {:>10.3} {store_mb:>8.0} {:>8.3} {:>8.2} {problems:>8}",
        work.as_millis(),
        args.jobs,
        n_jobs / took.as_secs_f64(),
        at(0.5),
        at(0.99),
        ms(before.coordinator, after.coordinator),
        ms(before.agents, after.agents),
        ms(before.postgres, after.postgres),
        (after.commits - before.commits) / n_jobs,
        (after.wal_bytes - before.wal_bytes) / 1e3 / n_jobs,
    ))
}

/// Starts agents; each gives its dispatches when it is stopped.
fn start_agents(
    url: &str,
    n_agents: u32,
    work: Duration,
    stop: &CancellationToken,
    journal: &Journal,
) -> Result<JoinSet<Vec<Duration>>, AnyError> {
    let endpoint = Endpoint::from_shared(url.to_owned())?;
    let behaviour = Behaviour {
        work,
        varies: true,
        one_by_one: false,
        fails_per_mille: 0,
        doubles_per_mille: 0,
    };
    let mut tasks = JoinSet::new();
    for number in 0..n_agents {
        let (endpoint, stop, journal) = (endpoint.clone(), stop.clone(), journal.clone());
        tasks.spawn(async move {
            let mut agent = LightAgent::new(number, behaviour, journal);
            agent.run(&endpoint, &stop).await;
            agent.dispatches().to_vec()
        });
    }
    Ok(tasks)
}

/// The coordinator's process.
struct Served {
    child: Child,
    address: SocketAddr,
}

impl Served {
    async fn start(args: &Args, store: &str) -> Result<Self, AnyError> {
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let program = std::env::current_exe()?;
        let mut command = match &args.cpus {
            Some(cpus) => {
                let mut command = Command::new("taskset");
                command.args(["-c", cpus]).arg(program);
                command
            }
            None => Command::new(program),
        };
        let child = command
            .args(["--serve", &address.to_string(), "--store", store])
            .stdin(Stdio::null())
            .spawn()?;
        let served = Self { child, address };
        let until = Instant::now() + Duration::from_secs(30);
        let url = format!("http://{address}");
        while fleet::runs(&url).await.is_err() {
            if Instant::now() > until {
                return Err("the coordinator does not come".into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(served)
    }

    /// The process's highest resident memory.
    fn peak_rss_bytes(&self) -> Result<u64, AnyError> {
        let status = proc(self.child.id(), "status")?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .ok_or("no VmHWM")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.end();
    }
}

fn proc(pid: u32, file: &str) -> io::Result<String> {
    std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join(file))
}

/// CPU time of all threads of a process so far.
fn cpu_seconds(pid: u32) -> Result<f64, AnyError> {
    let stat = proc(pid, "stat")?;
    let (_, fields) = stat.rsplit_once(')').ok_or("no stat")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    // USER_HZ, which has been 100 on Linux for ever.
    Ok(ticks as f64 / 100.0)
}

fn say(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}
