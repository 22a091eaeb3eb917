//! Thousands of orders in which the protocol's messages and faults can come.
//!
//! `cargo test` replays some hundred; `TRITMARK_SIMULATION_SEEDS=0..10000` says which, and one failing
//! seed is replayed by `TRITMARK_SIMULATION_SEEDS=n..n+1`, with all that happened.

use std::{ops::Range, time::Instant};

use tritmark_testkit::simulation::{Outcome, simulate};

const SEEDS: &str = "TRITMARK_SIMULATION_SEEDS";
/// Steps printed of a seed that failed.
const N_TRACED: usize = 200;

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var(SEEDS) else {
        return 0..300;
    };
    let range = text
        .split_once("..")
        .and_then(|(from, to)| Some(from.trim().parse().ok()?..to.trim().parse().ok()?));
    range.unwrap_or_else(|| panic!("{SEEDS} is a range such as 0..10000, not `{text}`"))
}

fn run(seed: u64, keeps_trace: bool) -> Outcome {
    // Memory, where the machine has a folder of it: these are thousands of small files.
    let memory = std::path::Path::new("/dev/shm");
    let folder = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    let folder = folder.expect("a folder");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    runtime.block_on(simulate(seed, folder.path(), keeps_trace))
}

#[test]
fn every_order_of_messages_and_faults_loses_nothing() {
    let seeds = seeds();
    let start = Instant::now();
    let next = std::sync::atomic::AtomicU64::new(seeds.start);
    let n_threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..n_threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut outcomes = Vec::new();
                    loop {
                        let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        if seed >= seeds.end {
                            return outcomes;
                        }
                        outcomes.push(run(seed, false));
                    }
                })
            })
            .collect();
        let joined = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
        joined
            .flat_map(|outcomes| outcomes.expect("no simulation panics"))
            .collect()
    });
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    println!(
        "{} seeds in {:.1} s: {} steps, {} faults, {} lives of coordinators, {} jobs, {} attempts, \
         {} records, {} acknowledged",
        outcomes.len(),
        start.elapsed().as_secs_f64(),
        sum(|outcome| outcome.n_steps.into()),
        sum(|outcome| outcome.n_faults.into()),
        sum(|outcome| outcome.n_lives.into()),
        sum(|outcome| outcome.verdict.n_jobs),
        sum(|outcome| outcome.verdict.n_attempts),
        sum(|outcome| outcome.verdict.n_records),
        sum(|outcome| outcome.verdict.n_acknowledged),
    );
    let mut failed: Vec<&Outcome> = outcomes
        .iter()
        .filter(|outcome| !outcome.verdict.problems.is_empty())
        .collect();
    failed.sort_by_key(|outcome| outcome.n_steps);
    for outcome in &failed {
        let seed = outcome.seed;
        println!(
            "seed {seed} failed; replay with {SEEDS}={seed}..{} cargo test -p tritmark-testkit \
             --test simulation -- --nocapture: {:?}",
            seed + 1,
            outcome.verdict.problems
        );
    }
    if let Some(shortest) = failed.first() {
        let again = run(shortest.seed, true);
        let trace: Vec<String> = again
            .trace
            .into_iter()
            .filter(|line| !line.contains("heartbeat of"))
            .collect();
        let trace = &trace[trace.len().saturating_sub(N_TRACED)..];
        panic!(
            "{} of {} seeds failed; what happened with seed {}:\n{}\n{:?}",
            failed.len(),
            outcomes.len(),
            shortest.seed,
            trace.join("\n"),
            again.verdict.problems
        );
    }
}

#[test]
fn a_seed_repeats_every_step() {
    for seed in [3, 11] {
        let (one, other) = (run(seed, true), run(seed, true));
        assert!(one.n_faults > 0);
        assert_eq!(one.trace, other.trace, "seed {seed}");
        assert_eq!(one.verdict, other.verdict, "seed {seed}");
    }
}
