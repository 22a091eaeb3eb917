//! How many jobs a coordinator gets through. Not among the tests; run with
//! `cargo test -p tritmark-coordinator --release --lib scale -- --ignored --nocapture`.

use std::time::Instant as Watch;

use super::{shared::Coordinator, *};
use crate::fixture::{Durability, PostgresFixture, PostgresServer};

/// Jobs, and agents that do nothing but take them: as many as the environment says.
fn sizes(n_jobs: u32) -> (u32, u32) {
    let number = |name: &str, default: u32| {
        std::env::var(name).map_or(default, |text| text.parse().unwrap())
    };
    (
        number("TRITMARK_SCALE_JOBS", n_jobs),
        number("TRITMARK_SCALE_AGENTS", 1_000),
    )
}

async fn measure(name: &str, bed: &Bed, (n_jobs, n_agents): (u32, u32), n_coordinators: usize) {
    let mut coordinators = Vec::new();
    for _ in 0..n_coordinators {
        coordinators.push(Coordinator::start_with(bed, Timing::default()).await);
    }
    let begun = Watch::now();
    let run = coordinators[0]
        .submit(|run| {
            (0..n_jobs)
                .map(|index| job(run, index, "m", None, accuracy()))
                .collect()
        })
        .await;
    let submitted = begun.elapsed();
    let begun = Watch::now();
    let mut agents = tokio::task::JoinSet::new();
    for n in 0..n_agents {
        let coordinator = coordinators[n as usize % n_coordinators].clone();
        agents.spawn(shared::work(
            vec![coordinator],
            agent(n + 1),
            Duration::ZERO,
        ));
    }
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let ended = coordinators[0].store.run(run).await.unwrap().unwrap();
        if ended.ended_unix_ns.is_some() {
            break;
        }
    }
    let took = begun.elapsed();
    println!(
        "{name}: {n_jobs} jobs submitted in {:.2} s; done by {n_agents} agents of {n_coordinators} \
         coordinators in {:.1} s: {:.0} jobs/s",
        submitted.as_secs_f64(),
        took.as_secs_f64(),
        f64::from(n_jobs) / took.as_secs_f64()
    );
    let counts = coordinators[0].store.job_counts(run).await.unwrap();
    assert_eq!(counts.succeeded, n_jobs);
    for coordinator in &coordinators {
        coordinator.stop.cancel();
    }
    while agents.join_next().await.is_some() {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "bench"]
async fn scale_of_postgres() {
    let Some(server) = PostgresServer::start(Durability::Full) else {
        return;
    };
    for n_coordinators in [1, 2] {
        let bed = Bed::Postgres(PostgresFixture::on(&server).await);
        measure("PostgreSQL", &bed, sizes(100_000), n_coordinators).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "bench"]
async fn scale_of_sqlite() {
    measure("SQLite", &Bed::sqlite(), sizes(10_000), 1).await;
}

/// The loop alone, on a store that answers at once: turns with many jobs waiting and many agents.
#[tokio::test]
#[ignore = "bench"]
async fn scale_of_a_turn() {
    let (n_jobs, n_agents) = sizes(100_000);
    let bed = Bed::sqlite();
    let mut bench = Bench::open(&bed, |run| {
        (0..n_jobs)
            .map(|index| job(run, index, "m", None, accuracy()))
            .collect()
    })
    .await;
    let mut agents = Vec::new();
    for n in 0..n_agents {
        agents.push(bench.connect(n + 1, None).await);
    }
    let running: Vec<AttemptId> = agents
        .iter_mut()
        .map(|agent| agent.assigned().unwrap().0)
        .collect();
    let begun = Watch::now();
    for (agent, attempt) in agents.iter().zip(&running) {
        bench.heartbeat(agent, Some(*attempt)).await;
    }
    let per_heartbeat = begun.elapsed() / n_agents;
    let begun = Watch::now();
    for attempt in running.iter().take(200) {
        bench
            .finish(*attempt, 0, Some(FailureClass::Permanent))
            .await
            .unwrap();
    }
    println!(
        "{n_jobs} jobs wait, {n_agents} agents: {per_heartbeat:?} a heartbeat, {:?} an end with the \
         next beginning (two commits)",
        begun.elapsed() / 200
    );
}
