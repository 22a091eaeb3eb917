//! The check must find what it is there to find.

use std::{num::NonZeroU32, sync::Arc};

use tritmark_coordinator::store::{AttemptEnd, AttemptStart, StoredAgent, StoredRun, plan_hash};
use tritmark_proto::job::RunId;

use super::*;
use crate::{
    light::{agent_id, machine},
    memory::MemoryStore,
};

async fn store_with(n_jobs: u32) -> (Arc<MemoryStore>, RunId) {
    let store = Arc::new(MemoryStore::default());
    let run = StoredRun {
        id: RunId::generate(),
        name: "checked".to_owned(),
        plan_toml: String::new(),
        plan_hash: plan_hash("", ""),
        submitted_unix_ns: 1,
        ended_unix_ns: None,
        tritmark_version: "0".to_owned(),
        priority: 0,
        expires_unix_ns: None,
        paused_unix_ns: None,
    };
    let jobs: Vec<_> = (0..n_jobs).map(|index| work::job(run.id, index)).collect();
    store.add_run(&run, &jobs).await.expect("it is added");
    let agent = StoredAgent {
        id: agent_id(1),
        version: "0".to_owned(),
        machine: machine("m"),
        labels: BTreeMap::new(),
        suites: Vec::new(),
        last_seen_unix_ns: 0,
        quarantine: None,
        drain_unix_ns: None,
    };
    store.put_agent(&agent).await.expect("it is known");
    (store, run.id)
}

async fn begin(store: &MemoryStore, run: RunId, index: u32) -> AttemptId {
    let start = AttemptStart {
        job: JobId { run, index },
        agent_id: agent_id(1),
        machine_id: "m".to_owned(),
        at_unix_ns: 10,
        lease_until_unix_ns: 20,
        exclusive: None,
    };
    store.start_attempt(&start).await.expect("it waits").id
}

async fn succeed(store: &MemoryStore, attempt: AttemptId, n_records: u64) {
    let end = AttemptEnd {
        state: AttemptState::Succeeded,
        job_state: JobState::Succeeded,
        at_unix_ns: 30,
        n_records: Some(n_records),
        failure: None,
        counts: true,
        voids_earlier: false,
        if_lease_over_by_unix_ns: None,
    };
    store.end_attempt(attempt, &end).await.expect("it runs");
}

/// A run of one job that is done.
async fn done() -> (Arc<MemoryStore>, AttemptId, Vec<Record>) {
    let (store, run) = store_with(1).await;
    let attempt = begin(&store, run, 0).await;
    let made = work::records(&work::job(run, 0), 7, 0);
    store.add_records(attempt, &made).await.expect("stored");
    succeed(&store, attempt, made.len() as u64).await;
    (store, attempt, made)
}

async fn problems(store: &MemoryStore, journal: &[Entry]) -> Vec<String> {
    check(store, journal, Expected::default())
        .await
        .expect("it can be read")
        .problems
}

#[track_caller]
fn assert_finds(problems: &[String], what: &str) {
    assert!(
        problems.iter().any(|problem| problem.contains(what)),
        "{problems:?}"
    );
}

#[tokio::test]
async fn a_run_that_is_as_it_must_be_has_no_problem() {
    let (store, attempt, made) = done().await;
    let journal = [
        Entry::Started(attempt),
        Entry::Acknowledged {
            attempt,
            stored_below: made.len() as u64,
            finished: true,
        },
    ];
    let verdict = check(&*store, &journal, Expected::default())
        .await
        .expect("it can be read");
    verdict.assert_right("one job");
    assert_eq!(verdict.n_acknowledged, made.len() as u64);
    assert_eq!((verdict.n_jobs, verdict.n_succeeded), (1, 1));
}

#[tokio::test]
async fn lost_and_unfinished_work_is_found() {
    let (store, run) = store_with(2).await;
    let attempt = begin(&store, run, 0).await;
    let found = problems(&store, &[]).await;
    assert_finds(&found, "has not ended");
    assert_finds(&found, "still runs");
    assert_finds(&found, "is queued");
    let made = work::records(&work::job(run, 0), 7, 0);
    let most = &made[..made.len() - 1];
    store.add_records(attempt, most).await.expect("stored");
    succeed(&store, attempt, most.len() as u64).await;
    assert_finds(&problems(&store, &[]).await, "records");
}

#[tokio::test]
async fn acknowledged_records_that_are_not_there_are_found() {
    let (store, attempt, made) = done().await;
    let acknowledged = |attempt, stored_below| Entry::Acknowledged {
        attempt,
        stored_below,
        finished: false,
    };
    let more = [acknowledged(attempt, made.len() as u64 + 1)];
    assert_finds(&problems(&store, &more).await, "were acknowledged");
    let mut other = attempt;
    other.fence += 1;
    assert_finds(
        &problems(&store, &[acknowledged(other, 0)]).await,
        "unknown",
    );
    let twice = [Entry::Started(attempt), Entry::Started(attempt)];
    assert_finds(&problems(&store, &twice).await, "twice");
}

#[tokio::test]
async fn changed_and_foreign_records_are_found() {
    let (store, run) = store_with(2).await;
    let attempt = begin(&store, run, 0).await;
    let mut made = work::records(&work::job(run, 0), 7, 0);
    made[1].at_unix_ns += 1;
    store.add_records(attempt, &made).await.expect("stored");
    succeed(&store, attempt, made.len() as u64).await;
    let second = begin(&store, run, 1).await;
    let made = work::records(&work::job(run, 1), 7, 0);
    store.add_records(second, &made).await.expect("stored");
    succeed(&store, second, made.len() as u64).await;
    let found = problems(&store, &[]).await;
    assert_finds(&found, "not what its worker made");
    assert_finds(&found, "has records of the worker of attempt");
    assert_eq!(second.attempt, NonZeroU32::MIN);
}
