//! What a coordinator and an agent take from the decode they measure.
//!
//! ```text
//! cargo bench -p tritmark --bench overhead -- [SECONDS] [THREADS] [SHAPE]
//! ```
//!
//! A real coordinator, whose `/metrics` are read and whose traces go to a collector, and a real agent
//! measure one decode after the other on this machine, all on the same CPUs: 128 tokens of a random
//! ternary model of SHAPE, `2b4t` unless said, with THREADS, as many as there are CPUs unless said. Two
//! things are printed:
//!
//! * the CPU time of both processes, as a share of one core, over half of SECONDS in which they are left
//!   alone. The worker, which decodes, is a process of its own and not in it;
//! * what the time of a token is while they run, over what it is while both are stopped by SIGSTOP, so
//!   that no heartbeat, record, progress or trace is sent: windows in the order run, stopped, stopped,
//!   run, the ratio of each four by itself, with a 95 % interval over them. What they had to do while
//!   they were stopped they do when they go on, so that it counts.

#![expect(clippy::print_stdout, reason = "a bench prints what it measured")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use support::{Lab, Running, coordinator_up_with, wait_until};
use tonic::{Request, Response, Status};
use tritmark_coordinator::store;
use tritmark_proto::record::RecordBody;
use tritmark_reports::stats::{equivalence, mean, mean_interval};

/// How long they run, or do not, at once: an agent is heard of every 5 s, so that each pair of windows
/// holds about one heartbeat.
const WINDOW: Duration = Duration::from_millis(2500);
/// How often the coordinator is asked for its metrics.
const SCRAPE: Duration = Duration::from_secs(5);
/// Tokens a window must have to count: those without were between jobs.
const LEAST_TOKENS: usize = 20;
/// A difference that would matter, as a share.
const MARGIN: f64 = 0.01;
/// Tokens of one generation.
const N_GEN: u32 = 128;
/// Jobs follow each other as in any plan: model opened, decode, records, traces.
const REPETITIONS: u32 = 12;

/// A window: whether both ran, from when to when.
#[derive(Clone, Copy, Debug)]
struct Window {
    runs: bool,
    from_unix_ns: u64,
    to_unix_ns: u64,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| arg != "--bench")
        .collect();
    let number = |nth: usize| args.get(nth).map(|text| text.parse::<u32>()).transpose();
    let (Ok(seconds), Ok(threads)) = (number(0), number(1)) else {
        println!("SECONDS and THREADS are numbers");
        return ExitCode::FAILURE;
    };
    let n_cpus = thread::available_parallelism().map_or(1, |n| n.get() as u32);
    measure(
        Duration::from_secs(seconds.unwrap_or(300).into()),
        threads.unwrap_or(n_cpus),
        args.get(2).map_or("2b4t", String::as_str),
    );
    ExitCode::SUCCESS
}

fn measure(length: Duration, threads: u32, shape: &str) {
    let lab = Lab::new();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime can be made");
    let n_traces = Arc::new(AtomicU64::new(0));
    let collector = runtime.block_on(collect(Arc::clone(&n_traces)));
    let metrics = free_address();
    let (coordinator, url) = coordinator_up_with(
        &lab,
        &lab.path("coordinator"),
        "127.0.0.1:0",
        &[
            "--metrics",
            &metrics.to_string(),
            "--otlp",
            &format!("http://{collector}"),
        ],
    );
    let agent = lab.start(
        "agent.log",
        ["agent", "up", "--coordinator", &url, "--state", "agent"],
    );
    // More jobs than there is time for.
    let plan = lab.plan("overhead.toml", &plan(threads, shape));
    let plan = plan.display().to_string();
    let run = lab
        .run(["submit", &plan, "--coordinator", &url])
        .expect(0)
        .stdout;
    wait_until(Duration::from_mins(5), "the first job runs", || {
        let jobs = lab.run(["ls", "jobs", run.trim(), "--coordinator", &url, "--json"]);
        jobs.stdout.contains("\"succeeded\"")
    });
    let both = [&coordinator, &agent];
    let is_stopped = Arc::new(AtomicBool::new(false));
    let is_over = Arc::new(AtomicBool::new(false));
    let scraper = {
        let (is_stopped, is_over) = (Arc::clone(&is_stopped), Arc::clone(&is_over));
        thread::spawn(move || scrape(metrics, &is_stopped, &is_over))
    };

    let shares = cpu_shares(both, length / 2);
    for (name, share) in ["coordinator", "agent"].into_iter().zip(shares) {
        println!(
            "{name}: {:.3} % of a core while it is measured",
            share * 1e2
        );
    }
    println!("together: {:.3} %", shares.iter().sum::<f64>() * 1e2);

    let windows = windows(both, length, &is_stopped);
    is_over.store(true, Ordering::Relaxed);
    let n_scrapes = scraper.join().expect("it does not panic");
    println!(
        "{n_scrapes} answers of /metrics, {} exports of traces",
        n_traces.load(Ordering::Relaxed)
    );
    lab.run(["cancel", run.trim(), "--coordinator", &url])
        .expect(0);
    drop((agent, coordinator));
    let path = lab.path("coordinator/store.sqlite").display().to_string();
    let tokens = runtime.block_on(tokens(&path, run.trim()));
    say(&windows, &tokens, threads, shape);
}

fn plan(threads: u32, shape: &str) -> String {
    let models: Vec<String> = (1..=200)
        .map(|n| {
            format!("[[models]]\nid = \"m{n}\"\nsynth = {{ shape = \"{shape}\", format = \"i2_s\", seed = 1 }}")
        })
        .collect();
    let models = models.join("\n");
    format!(
        "name = \"overhead\"\n{models}\n[suites.latency]\nn_prompt = [8]\nn_gen = [{N_GEN}]\n\
         threads = [{threads}]\nwarm_ups = 1\nrepetitions = {REPETITIONS}\nprobe = false\n"
    )
}

/// Stands in for a collector of traces.
#[derive(Debug)]
struct Collector(Arc<AtomicU64>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        _: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn collect(n_traces: Arc<AtomicU64>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("there is a free port");
    let address = listener.local_addr().expect("it has an address");
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(Collector(n_traces)))
            .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener)),
    );
    address
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    listener.local_addr().expect("it has an address")
}

/// Reads the metrics now and then, as a monitoring system does; returns how often.
fn scrape(metrics: SocketAddr, is_stopped: &AtomicBool, is_over: &AtomicBool) -> u32 {
    let mut n = 0;
    let mut last = Instant::now();
    while !is_over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(100));
        if is_stopped.load(Ordering::Relaxed) || last.elapsed() < SCRAPE {
            continue;
        }
        last = Instant::now();
        let Ok(mut stream) = TcpStream::connect_timeout(&metrics, Duration::from_secs(1)) else {
            continue;
        };
        // Stopped meanwhile, it answers later than anybody waits.
        let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
        let request = "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        let mut answer = Vec::new();
        if stream.write_all(request.as_bytes()).is_ok()
            && stream.read_to_end(&mut answer).is_ok()
            && answer.starts_with(b"HTTP/1.1 200")
        {
            n += 1;
        }
    }
    n
}

/// CPU time over time, of each process.
fn cpu_shares<const N: usize>(processes: [&Running; N], length: Duration) -> [f64; N] {
    let start = Instant::now();
    let before = processes.map(cpu_ns);
    thread::sleep(length);
    let elapsed_ns = start.elapsed().as_nanos() as f64;
    let mut shares = processes.map(|process| cpu_ns(process) as f64);
    for (share, before) in shares.iter_mut().zip(before) {
        *share = (*share - before as f64) / elapsed_ns;
    }
    shares
}

/// CPU time of all threads that a process has. The runtimes' live as long as it does.
fn cpu_ns(process: &Running) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{}/task", process.0.id()));
    threads
        .expect("the process runs")
        .filter_map(|thread| {
            let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        })
        .sum()
}

/// Lets both run and stops them, in turns.
fn windows(both: [&Running; 2], length: Duration, is_stopped: &AtomicBool) -> Vec<Window> {
    let mut windows = Vec::new();
    let start = Instant::now();
    while start.elapsed() < length {
        for runs in [true, false, false, true] {
            is_stopped.store(!runs, Ordering::Relaxed);
            let signal = if runs { "-CONT" } else { "-STOP" };
            let ids = both.map(|process| process.0.id().to_string());
            let done = Command::new("kill").arg(signal).args(ids).status();
            assert!(done.is_ok_and(|status| status.success()), "kill {signal}");
            let from_unix_ns = now_unix_ns();
            thread::sleep(WINDOW);
            windows.push(Window {
                runs,
                from_unix_ns,
                to_unix_ns: now_unix_ns(),
            });
        }
    }
    windows
}

fn now_unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}

/// When each token of the run was there, and how long it took, in order.
async fn tokens(path: &str, run: &str) -> Vec<(u64, u64)> {
    let store = store::open(&path.parse().expect("a path is a store"))
        .await
        .expect("the store can be read");
    let run = run.parse().expect("it is a run");
    let mut tokens = Vec::new();
    for job in store.jobs(run).await.expect("the jobs can be read") {
        let records = store.records(job.job.id).await;
        for (_, stored) in records.expect("the records can be read") {
            let RecordBody::Tokens(times) = stored.body else {
                continue;
            };
            // Written down when the last token was there; the first has the prompt in it.
            let mut at = stored.at_unix_ns.cast_unsigned();
            for elapsed in times.elapsed_ns.iter().skip(1).rev() {
                tokens.push((at, *elapsed));
                at -= elapsed;
            }
        }
    }
    tokens.sort_unstable();
    tokens
}

fn say(windows: &[Window], tokens: &[(u64, u64)], threads: u32, shape: &str) {
    let in_window = |window: &Window| {
        let from = tokens.partition_point(|(at, elapsed)| at - elapsed < window.from_unix_ns);
        let to = tokens.partition_point(|(at, _)| *at <= window.to_unix_ns);
        let times: Vec<f64> = tokens[from.min(to)..to]
            .iter()
            .map(|(_, elapsed)| *elapsed as f64)
            .collect();
        (times.len() >= LEAST_TOKENS)
            .then(|| mean(&times))
            .flatten()
    };
    let ratios: Vec<f64> = windows
        .chunks_exact(4)
        .filter_map(|four| {
            let sum = |runs: bool| -> Option<f64> {
                let of = four.iter().filter(|window| window.runs == runs);
                of.map(in_window).sum()
            };
            Some((sum(true)? / sum(false)?).ln())
        })
        .collect();
    let per_s = tokens.len() as f64
        / tokens
            .iter()
            .map(|(_, elapsed)| *elapsed as f64 * 1e-9)
            .sum::<f64>();
    println!(
        "decode, {shape} i2_s, {threads} threads: {per_s:.1} tok/s, {} tokens, {} of {} fours of windows",
        tokens.len(),
        ratios.len(),
        windows.len() / 4
    );
    let (Some(centre), Some(interval)) = (mean(&ratios), mean_interval(&ratios, 1)) else {
        println!("too few windows for an interval");
        return;
    };
    println!(
        "time of a token, run / stopped: {:.5} [{:.5}, {:.5}] (95 %)",
        centre.exp(),
        interval.low.exp(),
        interval.high.exp()
    );
    let within = equivalence(&ratios, None, MARGIN.ln_1p());
    if let Some(within) = within {
        println!(
            "p of a difference of {:.0} % or more, either way: {:.2e}",
            MARGIN * 1e2,
            within.p()
        );
    }
}
