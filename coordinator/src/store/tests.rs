//! What a store promises, held against both data bases.

use proptest::prelude::*;
use tritmark_proto::{bundle::FailureClass, job::SuiteSpec, record::RecordBody};

use super::*;
use crate::testing::{
    Bed, accuracy, agent, cell, facts, item, job, latency, on_both, reading, record, run, skipped,
    start, tokens,
};

mod migrations;

async fn with_job(store: &dyn Store, suite: SuiteSpec) -> JobId {
    let run = run("a-run");
    let job = job(run.id, 0, "m", None, suite);
    store
        .add_run(&run, std::slice::from_ref(&job))
        .await
        .unwrap();
    job.id
}

fn end(state: AttemptState, job_state: JobState) -> AttemptEnd {
    AttemptEnd {
        state,
        job_state,
        at_unix_ns: 4_000,
        n_records: Some(0),
        failure: None,
        counts: true,
        voids_earlier: false,
        if_lease_over_by_unix_ns: None,
    }
}

fn readings(sequences: impl IntoIterator<Item = u64>) -> Vec<Record> {
    sequences
        .into_iter()
        .map(|sequence| record(sequence, reading(sequence as f64)))
        .collect()
}

/// The stored records of a job, in their order.
async fn stored(store: &dyn Store, job: JobId) -> Vec<Record> {
    let records = store.records(job).await.unwrap();
    records.into_iter().map(|(_, record)| record).collect()
}

on_both! {
async fn the_same_batch_twice_is_stored_once(bed: &Bed) {
    let store = bed.open().await;
    let job = with_job(&*store, latency()).await;
    let attempt = start(&*store, job, 1).await;
    let batch = readings(0..5);
    let first = store.add_records(attempt, &batch).await.unwrap();
    assert_eq!((first.stored_below, first.n_new), (5, 5));
    let second = store.add_records(attempt, &batch).await.unwrap();
    assert_eq!(
        (second.stored_below, second.n_new, second.n_conflicts),
        (5, 0, 0)
    );
    assert_eq!(stored(&*store, job).await, batch);
}

async fn a_batch_with_gaps_is_stored_whole_and_counted_as_far_as_it_has_none(bed: &Bed) {
    let store = bed.open().await;
    let job = with_job(&*store, latency()).await;
    let attempt = start(&*store, job, 1).await;
    let all = readings(0..12);
    let some = |sequences: &[usize]| -> Vec<Record> {
        sequences.iter().map(|&n| all[n].clone()).collect()
    };
    let mut other = all[9].clone();
    other.at_unix_ns += 1;
    for (batch, below, n_new, n_conflicts) in [
        (vec![], 0, 0, 0),
        // Twice in one batch, and out of order.
        (some(&[7, 5, 7]), 0, 2, 0),
        (some(&[9, 1, 0, 2, 3]), 4, 5, 0),
        // One that is there otherwise, and what closes the first gap.
        ([some(&[4, 5]), vec![other]].concat(), 6, 1, 1),
        (some(&[8, 6]), 10, 2, 0),
        (some(&[2, 11]), 10, 1, 0),
        (some(&[10]), 12, 1, 0),
        (some(&[0, 11]), 12, 0, 0),
    ] {
        let appended = store.add_records(attempt, &batch).await.unwrap();
        assert_eq!(
            (appended.stored_below, appended.n_new, appended.n_conflicts),
            (below, n_new, n_conflicts),
            "{:?}",
            batch.iter().map(|it| it.sequence).collect::<Vec<_>>()
        );
    }
    let stored = store.records(job).await.unwrap();
    assert_eq!(stored.into_iter().map(|(_, it)| it).collect::<Vec<_>>(), all);
}

async fn jobs_to_do_are_counted_by_their_runs(bed: &Bed) {
    let store = bed.open().await;
    let runs = [run("one"), run("two"), run("three")];
    for (n, run) in (1..).zip(&runs) {
        let jobs: Vec<_> = (0..n)
            .map(|index| job(run.id, index, "m", None, latency()))
            .collect();
        store.add_run(run, &jobs).await.unwrap();
    }
    let [one, two, three] = runs.map(|run| run.id);
    start(&*store, JobId { run: two, index: 1 }, 1).await;
    let done = start(&*store, JobId { run: three, index: 0 }, 2).await;
    let end = end(AttemptState::Succeeded, JobState::Succeeded);
    store.end_attempt(done, &end).await.unwrap();
    store.cancel_run(one, 9).await.unwrap();
    let to_do = store.jobs_to_do().await.unwrap();
    assert_eq!(to_do.into_iter().collect::<Vec<_>>(), [(two, 2), (three, 2)]);
}

async fn overlapping_batches_out_of_order_leave_neither_gap_nor_double(bed: &Bed) {
    let store = bed.open().await;
    let job = with_job(&*store, latency()).await;
    let attempt = start(&*store, job, 1).await;
    let mut below = Vec::new();
    for batch in [4..7, 0..2, 1..3, 6..9, 2..6] {
        let appended = store.add_records(attempt, &readings(batch)).await.unwrap();
        below.push(appended.stored_below);
    }
    assert_eq!(below, [0, 2, 3, 3, 9]);
    let sequences: Vec<u64> = store
        .records(job)
        .await
        .unwrap()
        .iter()
        .map(|(_, record)| record.sequence)
        .collect();
    assert_eq!(sequences, (0..9).collect::<Vec<_>>());
}

async fn of_two_different_records_with_one_sequence_the_first_is_kept(bed: &Bed) {
    let store = bed.open().await;
    let job = with_job(&*store, latency()).await;
    let attempt = start(&*store, job, 1).await;
    store
        .add_records(attempt, &[record(0, reading(1.0))])
        .await
        .unwrap();
    let again = store
        .add_records(attempt, &[record(0, reading(2.0))])
        .await
        .unwrap();
    assert_eq!((again.n_new, again.n_conflicts), (0, 1));
    assert_eq!(
        store.records(job).await.unwrap(),
        [(1, record(0, reading(1.0)))]
    );
}

async fn everything_that_was_acknowledged_is_there_after_reopening(bed: &Bed) {
    let first = bed.open().await;
    let job = with_job(&*first, latency()).await;
    let attempt = start(&*first, job, 1).await;
    let bodies = [
        facts(None),
        reading(1.5),
        skipped("no counter"),
        tokens(),
        item(0, -2.25),
    ];
    let batch: Vec<Record> = (0..).zip(bodies).map(|(n, body)| record(n, body)).collect();
    first.add_records(attempt, &batch[..3]).await.unwrap();
    drop(first);

    let second = bed.open().await;
    let jobs = second.jobs(job.run).await.unwrap();
    assert_eq!(jobs[0].state, JobState::Running);
    assert_eq!(jobs[0].attempts[0].id, attempt);
    assert_eq!(jobs[0].attempts[0].lease_until_unix_ns, 3_000);
    let appended = second.add_records(attempt, &batch).await.unwrap();
    assert_eq!((appended.stored_below, appended.n_new), (5, 2));
    assert_eq!(stored(&*second, job).await, batch);
}

async fn a_stale_fence_is_refused(bed: &Bed) {
    let store = bed.open().await;
    let job = with_job(&*store, latency()).await;
    let old = start(&*store, job, 1).await;
    store
        .end_attempt(old, &end(AttemptState::Lost, JobState::Queued))
        .await
        .unwrap();
    let new = start(&*store, job, 2).await;
    assert_eq!(new.attempt.get(), 2);
    assert!(new.fence > old.fence);

    let forged = AttemptId {
        fence: old.fence,
        ..new
    };
    for (attempt, why) in [(old, "is lost"), (forged, "is of another fence")] {
        let refusal = store
            .add_records(attempt, &readings(0..1))
            .await
            .unwrap_err();
        assert!(matches!(refusal, StoreError::Stale { .. }));
        assert!(refusal.to_string().ends_with(why), "{refusal}");
        let ended = end(AttemptState::Succeeded, JobState::Succeeded);
        let refusal = store.end_attempt(attempt, &ended).await.unwrap_err();
        assert!(matches!(refusal, StoreError::Stale { .. }), "{refusal}");
    }
    assert_eq!(store.records(job).await.unwrap(), []);
}

async fn a_lost_attempt_is_taken_up_again_only_before_another_has_begun(bed: &Bed) {
    let store = bed.open().await;
    let job = with_job(&*store, latency()).await;
    let first = start(&*store, job, 1).await;
    let refusal = store.revive_attempt(first, 1, 9_000).await.unwrap_err();
    assert!(matches!(refusal, StoreError::Stale { .. }), "{refusal}");
    let lost = end(AttemptState::Lost, JobState::Queued);
    store.end_attempt(first, &lost).await.unwrap();
    store.revive_attempt(first, 1, 9_000).await.unwrap();
    let stored = store.jobs(job.run).await.unwrap().swap_remove(0);
    assert_eq!(stored.state, JobState::Running);
    assert_eq!(stored.attempts[0].lease_until_unix_ns, 9_000);
    assert_eq!(stored.attempts[0].ended_unix_ns, None);
    store.add_records(first, &readings(0..1)).await.unwrap();

    store.end_attempt(first, &lost).await.unwrap();
    let second = start(&*store, job, 2).await;
    let refusal = store.revive_attempt(first, 1, 9_000).await.unwrap_err();
    assert!(matches!(refusal, StoreError::NotQueued { .. }), "{refusal}");
    store.end_attempt(second, &lost).await.unwrap();
    let refusal = store.revive_attempt(first, 1, 9_000).await.unwrap_err();
    assert!(matches!(refusal, StoreError::NotQueued { .. }), "{refusal}");
}

async fn fences_grow_over_all_jobs_and_reopenings(bed: &Bed) {
    let mut last = 0;
    for _ in 0..3 {
        let store = bed.open().await;
        let job = with_job(&*store, latency()).await;
        let fence = start(&*store, job, 1).await.fence;
        assert!(fence > last);
        last = fence;
    }
}

async fn only_a_queued_job_can_be_begun(bed: &Bed) {
    let store = bed.open().await;
    let job = with_job(&*store, latency()).await;
    start(&*store, job, 1).await;
    let again = AttemptStart {
        job,
        agent_id: agent(1).id,
        machine_id: agent(1).machine.id,
        at_unix_ns: 0,
        lease_until_unix_ns: 0,
        exclusive: None,
    };
    let refusal = store.start_attempt(&again).await.unwrap_err();
    assert!(matches!(refusal, StoreError::NotQueued { .. }), "{refusal}");
}

async fn records_of_an_ended_attempt_are_known_as_finished(bed: &Bed) {
    let store = bed.open().await;
    let job = with_job(&*store, latency()).await;
    let attempt = start(&*store, job, 1).await;
    store.add_records(attempt, &readings(0..3)).await.unwrap();
    store
        .end_attempt(attempt, &end(AttemptState::Succeeded, JobState::Succeeded))
        .await
        .unwrap();
    let again = store.add_records(attempt, &readings(0..4)).await.unwrap();
    let expected = Appended {
        stored_below: 3,
        finished: true,
        ..Appended::default()
    };
    assert_eq!(again, expected);
    assert_eq!(store.records(job).await.unwrap().len(), 3);
}

async fn items_count_as_far_as_they_have_no_gap_over_all_attempts(bed: &Bed) {
    let store = bed.open().await;
    let job = with_job(&*store, accuracy()).await;
    assert_eq!(store.items_done(job).await.unwrap(), 0);
    let first = start(&*store, job, 1).await;
    let batch = [
        record(0, facts(Some(9))),
        record(1, item(0, -1.0)),
        record(2, item(1, -1.0)),
    ];
    store.add_records(first, &batch).await.unwrap();
    store
        .add_records(first, &[record(4, item(3, -1.0))])
        .await
        .unwrap();
    assert_eq!(store.items_done(job).await.unwrap(), 2);
    store
        .end_attempt(first, &end(AttemptState::Lost, JobState::Queued))
        .await
        .unwrap();
    let second = start(&*store, job, 2).await;
    let batch = [record(0, facts(Some(9))), record(1, item(2, -1.0))];
    store.add_records(second, &batch).await.unwrap();
    assert_eq!(store.items_done(job).await.unwrap(), 4);
    assert_eq!(store.facts(job).await.unwrap().len(), 2);

    let void = AttemptEnd {
        voids_earlier: true,
        ..end(AttemptState::Failed, JobState::Queued)
    };
    store.end_attempt(second, &void).await.unwrap();
    assert_eq!(store.items_done(job).await.unwrap(), 0);
    let jobs = store.jobs(job.run).await.unwrap();
    let voids: Vec<bool> = jobs[0]
        .attempts
        .iter()
        .map(|attempt| attempt.is_void)
        .collect();
    assert_eq!(voids, [true, false]);
}

async fn a_run_ends_with_its_last_job(bed: &Bed) {
    let store = bed.open().await;
    let run = run("two");
    let jobs = [0, 1].map(|index| job(run.id, index, "m", None, latency()));
    store.add_run(&run, &jobs).await.unwrap();
    for (job, ended) in jobs.iter().zip([None, Some(4_000)]) {
        let attempt = start(&*store, job.id, 1).await;
        let failed = AttemptEnd {
            failure: Some(Failure {
                class: FailureClass::Permanent,
                message: "no".into(),
                stderr: "trace".into(),
            }),
            ..end(AttemptState::Failed, JobState::Failed)
        };
        store.end_attempt(attempt, &failed).await.unwrap();
        assert_eq!(
            store.run(run.id).await.unwrap().unwrap().ended_unix_ns,
            ended
        );
        let stored = store.jobs(run.id).await.unwrap();
        assert_eq!(
            stored[job.id.index as usize].attempts[0].failure,
            failed.failure
        );
    }
    let counts = store.job_counts(run.id).await.unwrap();
    assert_eq!((counts.failed, counts.total()), (2, 2));
}

async fn a_cancelled_run_refuses_its_attempts(bed: &Bed) {
    let store = bed.open().await;
    let job = with_job(&*store, latency()).await;
    let attempt = start(&*store, job, 1).await;
    store.cancel_run(job.run, 9).await.unwrap();
    let jobs = store.jobs(job.run).await.unwrap();
    assert_eq!(jobs[0].state, JobState::Cancelled);
    assert_eq!(jobs[0].attempts[0].state, AttemptState::Cancelled);
    assert_eq!(
        store.run(job.run).await.unwrap().unwrap().ended_unix_ns,
        Some(9)
    );
    let refusal = store
        .add_records(attempt, &readings(0..1))
        .await
        .unwrap_err();
    assert!(refusal.to_string().ends_with("is cancelled"), "{refusal}");
}

async fn the_newest_run_of_a_plan_is_found_by_its_contents(bed: &Bed) {
    let store = bed.open().await;
    let (older, other) = (run("same"), run("other"));
    let newer = StoredRun {
        submitted_unix_ns: 2_000,
        ..run("same")
    };
    for run in [&newer, &older, &other] {
        store.add_run(run, &[]).await.unwrap();
    }
    let found = store.newest_run_of(&older.plan_hash).await.unwrap();
    assert_eq!(found, Some(newer));
    assert_eq!(store.newest_run_of("none").await.unwrap(), None);
    assert_ne!(plan_hash("ab", "c"), plan_hash("a", "bc"));
    assert_eq!(store.runs().await.unwrap().len(), 3);
}

async fn an_agent_that_registers_again_replaces_itself(bed: &Bed) {
    let store = bed.open().await;
    let mut known = agent(1);
    store.put_agent(&known).await.unwrap();
    known.labels.insert("room".into(), "2".into());
    known.machine.memory_bytes *= 2;
    known.suites.push("latency".into());
    store.put_agent(&known).await.unwrap();
    assert_eq!(store.agents().await.unwrap(), [known.clone()]);
    let ids = [known.machine.id.clone(), "unknown".into()];
    assert_eq!(store.machines(&ids).await.unwrap(), [known.machine]);
}

async fn a_sequence_beyond_the_store_is_refused(bed: &Bed) {
    let store = bed.open().await;
    let job = with_job(&*store, latency()).await;
    let attempt = start(&*store, job, 1).await;
    let hostile = Record {
        sequence: u64::MAX,
        at_unix_ns: i64::MIN,
        body: reading(1.0),
    };
    let refusal = store.add_records(attempt, &[hostile]).await.unwrap_err();
    assert!(
        matches!(refusal, StoreError::OutOfRange { .. }),
        "{refusal}"
    );
}
}

#[tokio::test]
async fn two_coordinators_cannot_have_one_store() {
    let bed = Bed::sqlite();
    let first = bed.open().await;
    let refusal = open(&bed.location()).await.unwrap_err();
    assert!(matches!(refusal, StoreError::InUse { .. }), "{refusal}");
    drop(first);
    bed.open().await;
}

fn any_body() -> impl Strategy<Value = RecordBody> {
    prop_oneof![
        any::<f64>()
            .prop_filter("a reading is finite", |value| value.is_finite())
            .prop_map(reading),
        ".{1,40}".prop_map(|reason| skipped(&reason)),
        (any::<u32>(), -1e300..0.0).prop_map(|(index, value)| item(index, value)),
        Just(tokens()),
        Just(facts(Some(3))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn any_order_of_any_batches_stores_each_record_once(
        bodies in proptest::collection::vec(any_body(), 1..20),
        cuts in proptest::collection::vec((0..20_usize, 1..8_usize), 0..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let beds = [Some(Bed::sqlite()), Bed::postgres().await];
            for bed in beds.into_iter().flatten() {
                stores_each_record_once(&bed, &bodies, &cuts).await;
            }
        });
    }
}

async fn stores_each_record_once(bed: &Bed, bodies: &[RecordBody], cuts: &[(usize, usize)]) {
    let store = bed.open().await;
    let job = with_job(&*store, accuracy()).await;
    let attempt = start(&*store, job, 1).await;
    let all: Vec<Record> = (0..)
        .zip(bodies)
        .map(|(n, body)| record(n, body.clone()))
        .collect();
    for &(from, n) in cuts {
        let from = from.min(all.len());
        let to = (from + n).min(all.len());
        store.add_records(attempt, &all[from..to]).await.unwrap();
    }
    let last = store.add_records(attempt, &all).await.unwrap();
    assert_eq!((last.stored_below, last.n_conflicts), (all.len() as u64, 0));
    assert_eq!(stored(&*store, job).await, all);
}
