//! The loop's decisions, with the time put in by hand.

use tritmark_proto::{
    bundle::{FailureClass, JobState},
    record::Record,
    wire::coordinator_message::Kind,
};

use super::*;
use crate::{
    store::{AttemptState, StoredJob},
    testing::{
        Bed, accuracy, agent, agent_id, agent_on, facts, item, job, latency, on_both, reading,
        record, run,
    },
};

mod scale;
mod scheduling;
mod shared;

const SECOND: i64 = 1_000_000_000;

/// A loop whose clock stands where the test puts it.
struct Bench {
    state: State,
    store: Arc<dyn Store>,
    now: i64,
    run: RunId,
}

/// The agent's end of a link.
struct FakeAgent {
    number: u32,
    connection: u64,
    abandon_running: bool,
    inbox: mpsc::Receiver<wire::CoordinatorMessage>,
    link: CancellationToken,
}

impl FakeAgent {
    fn next(&mut self) -> Option<Kind> {
        self.inbox.try_recv().ok().and_then(|message| message.kind)
    }

    /// Returns the attempt it is told to work on, and where to begin.
    fn assigned(&mut self) -> Option<(AttemptId, u64)> {
        match self.next()? {
            Kind::Assign(assign) => Some((
                assign.attempt.unwrap().try_into().unwrap(),
                assign.items_done,
            )),
            other => panic!("{other:?} is no assignment"),
        }
    }
}

impl Bench {
    async fn open(bed: &Bed, jobs: impl FnOnce(RunId) -> Vec<Job>) -> Self {
        let mut bench = Self::reopen(bed, 1_000 * SECOND).await;
        let run = run("a-run");
        bench.run = run.id;
        let jobs = jobs(run.id);
        bench.submit(run, jobs).await;
        bench
    }

    async fn submit(&mut self, run: StoredRun, jobs: Vec<Job>) {
        self.store.add_run(&run, &jobs).await.unwrap();
        let run = Box::new(Run::submitted(run, jobs));
        self.ask(|reply| Command::Open { run, reply }).await;
    }

    async fn reopen(bed: &Bed, now: i64) -> Self {
        let store = bed.open().await;
        let nobody = Scoring::new(None, mpsc::channel(1).0.downgrade());
        let state = State::load(Arc::clone(&store), Timing::default(), nobody, now)
            .await
            .unwrap();
        let run = store
            .runs()
            .await
            .unwrap()
            .first()
            .map_or(RunId::generate(), |run| run.id);
        Self {
            state,
            store,
            now,
            run,
        }
    }

    async fn tell(&mut self, command: Command) {
        self.state.handle_all(vec![command], self.now).await;
        self.state.advance(self.now).await.unwrap();
    }

    async fn ask<T>(&mut self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> T {
        let (reply, answer) = oneshot::channel();
        self.tell(command(reply)).await;
        answer.await.unwrap()
    }

    async fn pass(&mut self, seconds: i64) {
        self.now += seconds * SECOND;
        self.state.advance(self.now).await.unwrap();
    }

    async fn connect(&mut self, number: u32, running: Option<AttemptId>) -> FakeAgent {
        self.connect_as(agent(number), number, running).await
    }

    async fn connect_as(
        &mut self,
        agent: StoredAgent,
        number: u32,
        running: Option<AttemptId>,
    ) -> FakeAgent {
        let (to_agent, mut inbox) = mpsc::channel(8);
        let link = CancellationToken::new();
        let connected = self
            .ask(|reply| Command::Connect {
                agent: Box::new(agent),
                running,
                boot_id: None,
                to_agent,
                link: link.clone(),
                reply,
            })
            .await
            .unwrap();
        // The very first word, though the loop may have assigned a job in the same breath.
        let first = inbox.try_recv().unwrap().kind;
        assert!(matches!(first, Some(Kind::Registered(_))), "{first:?}");
        FakeAgent {
            number,
            connection: connected.connection,
            abandon_running: connected.abandon_running,
            inbox,
            link,
        }
    }

    async fn disconnect(&mut self, agent: &FakeAgent) {
        self.tell(Command::Disconnect {
            agent_id: agent_id(agent.number),
            connection: agent.connection,
        })
        .await;
    }

    async fn heartbeat(&mut self, agent: &FakeAgent, running: Option<AttemptId>) {
        self.tell(Command::Heartbeat {
            agent_id: agent_id(agent.number),
            connection: agent.connection,
            running,
        })
        .await;
    }

    async fn records(&mut self, attempt: AttemptId, records: &[Record]) {
        self.store.add_records(attempt, records).await.unwrap();
        self.tell(Command::Appended { attempt }).await;
    }

    async fn finish(
        &mut self,
        attempt: AttemptId,
        n_records: u64,
        class: Option<FailureClass>,
    ) -> Result<Finished, StoreError> {
        let failure = class.map(|class| Failure {
            class,
            message: "it broke".into(),
            stderr: "trace".into(),
        });
        self.ask(|reply| Command::Finished {
            attempt,
            n_records,
            failure,
            reply,
        })
        .await
    }

    /// Returns a job as it is stored.
    async fn job(&self, index: usize) -> StoredJob {
        self.store.jobs(self.run).await.unwrap().swap_remove(index)
    }
}

fn one_job(run: RunId) -> Vec<Job> {
    vec![job(run, 0, "m", None, latency())]
}

fn two_jobs(run: RunId) -> Vec<Job> {
    vec![
        job(run, 0, "m", None, latency()),
        job(run, 1, "m", None, latency()),
    ]
}

fn one_accuracy_job(run: RunId) -> Vec<Job> {
    vec![job(run, 0, "m", None, accuracy())]
}

on_both! {
async fn an_agent_gets_the_next_job_when_it_has_finished_one(bed: &Bed) {
    let mut bench = Bench::open(bed, two_jobs).await;
    let mut agent = bench.connect(1, None).await;
    let (first, _) = agent.assigned().unwrap();
    assert!(agent.next().is_none(), "one job at a time");
    bench.records(first, &[record(0, reading(1.0))]).await;
    let finished = bench.finish(first, 1, None).await.unwrap();
    assert_eq!(finished, Finished::Stored { stored_below: 1 });
    assert_eq!(bench.job(0).await.state, JobState::Succeeded);
    let (second, _) = agent.assigned().unwrap();
    assert_eq!(second.job.index, 1);
    bench.finish(second, 0, None).await.unwrap();
    let run = bench.store.run(bench.run).await.unwrap().unwrap();
    assert_eq!(run.ended_unix_ns, Some(bench.now));
}

async fn a_lost_agent_gives_its_job_back(bed: &Bed) {
    let mut bench = Bench::open(bed, one_job).await;
    let mut first = bench.connect(1, None).await;
    let (old, _) = first.assigned().unwrap();
    bench.disconnect(&first).await;
    let mut second = bench.connect(2, None).await;
    bench.pass(59).await;
    assert_eq!(second.assigned(), None, "the lease goes on");
    bench.pass(1).await;
    bench.pass(1).await;
    assert_eq!(
        second.assigned(),
        None,
        "the comparison stays with its machine"
    );
    bench.pass(600).await;
    let (new, _) = second.assigned().unwrap();
    assert_eq!(new.attempt.get(), 2);
    let refusal = bench.finish(old, 0, None).await.unwrap_err();
    assert!(matches!(refusal, StoreError::Stale { .. }), "{refusal}");
    let back = bench.connect(1, Some(old)).await;
    assert!(back.abandon_running);
}

async fn an_agent_that_comes_back_late_carries_on_if_nobody_else_has_begun(bed: &Bed) {
    let mut bench = Bench::open(bed, one_job).await;
    let mut agent = bench.connect(1, None).await;
    let (attempt, _) = agent.assigned().unwrap();
    bench.records(attempt, &[record(0, reading(1.0))]).await;
    bench.disconnect(&agent).await;
    bench.pass(61).await;
    assert_eq!(bench.job(0).await.attempts[0].state, AttemptState::Lost);
    let agent = bench.connect(1, Some(attempt)).await;
    assert!(!agent.abandon_running);
    assert_eq!(bench.job(0).await.state, JobState::Running);
    bench.records(attempt, &[record(1, reading(2.0))]).await;
    bench.finish(attempt, 2, None).await.unwrap();
    let stored = bench.job(0).await;
    assert_eq!(
        (stored.state, stored.attempts.len()),
        (JobState::Succeeded, 1)
    );
    assert_eq!(stored.attempts[0].failure, None);
}

async fn an_agent_that_comes_back_in_time_carries_on(bed: &Bed) {
    let mut bench = Bench::open(bed, one_job).await;
    let mut agent = bench.connect(1, None).await;
    let (attempt, _) = agent.assigned().unwrap();
    bench.disconnect(&agent).await;
    bench.pass(50).await;
    let agent = bench.connect(1, Some(attempt)).await;
    assert!(!agent.abandon_running);
    bench.pass(50).await;
    bench.heartbeat(&agent, Some(attempt)).await;
    bench.pass(50).await;
    bench.finish(attempt, 0, None).await.unwrap();
    assert_eq!(bench.job(0).await.attempts.len(), 1);
    assert_eq!(bench.job(0).await.state, JobState::Succeeded);
}

async fn an_agent_that_comes_back_without_its_attempt_loses_it_once_its_spool_is_in(bed: &Bed) {
    let mut bench = Bench::open(bed, one_job).await;
    let mut agent = bench.connect(1, None).await;
    let (old, _) = agent.assigned().unwrap();
    let mut agent = bench.connect(1, None).await;
    assert_eq!(agent.assigned(), None, "the spool comes first");
    bench.pass(1).await;
    bench.records(old, &[record(0, reading(1.0))]).await;
    bench.pass(1).await;
    assert_eq!(
        bench.job(0).await.state,
        JobState::Running,
        "records are a sign of life"
    );
    bench.pass(1).await;
    bench.pass(1).await;
    let stored = bench.job(0).await;
    assert_eq!(stored.attempts[0].state, AttemptState::Lost);
    assert!(matches!(agent.next(), Some(Kind::Cancel(_))));
    bench.pass(1).await;
    let (new, _) = agent.assigned().unwrap();
    assert_eq!(new.attempt.get(), 2);
}

async fn an_agent_that_comes_back_with_a_spooled_end_has_done_its_job(bed: &Bed) {
    let mut bench = Bench::open(bed, one_job).await;
    let mut agent = bench.connect(1, None).await;
    let (attempt, _) = agent.assigned().unwrap();
    bench.connect(1, None).await;
    bench.records(attempt, &[record(0, reading(1.0))]).await;
    bench.finish(attempt, 1, None).await.unwrap();
    bench.pass(100).await;
    let stored = bench.job(0).await;
    assert_eq!(
        (stored.state, stored.attempts.len()),
        (JobState::Succeeded, 1)
    );
}

async fn a_restarted_coordinator_lets_an_agent_carry_on(bed: &Bed) {
    let mut before = Bench::open(bed, one_job).await;
    let (attempt, _) = before.connect(1, None).await.assigned().unwrap();
    before.records(attempt, &[record(0, reading(1.0))]).await;
    let now = before.now + 10_000 * SECOND;
    drop(before);

    let mut after = Bench::reopen(bed, now).await;
    after.pass(59).await;
    let agent = after.connect(1, Some(attempt)).await;
    assert!(!agent.abandon_running);
    after.records(attempt, &[record(1, reading(2.0))]).await;
    let finished = after.finish(attempt, 2, None).await.unwrap();
    assert_eq!(finished, Finished::Stored { stored_below: 2 });
    assert_eq!(after.job(0).await.attempts.len(), 1);
}

async fn stopping_everything_again_and_again_uses_up_no_tries(bed: &Bed) {
    let mut bench = Bench::open(bed, one_accuracy_job).await;
    for round in 1..=5 {
        let mut agent = bench.connect(1, None).await;
        bench.pass(3).await;
        let attempt = loop {
            match agent.next() {
                Some(Kind::Assign(assign)) => {
                    break AttemptId::try_from(assign.attempt.unwrap()).unwrap();
                }
                Some(_) => {}
                None => panic!("no job in round {round}"),
            }
        };
        assert_eq!(attempt.attempt.get(), round);
        let now = bench.now + SECOND;
        drop(bench);
        bench = Bench::reopen(bed, now).await;
    }
    let stored = bench.job(0).await;
    assert!(stored.attempts[..4].iter().all(|attempt| !attempt.counts));
}

async fn an_agent_that_is_told_to_leave_uses_up_no_try(bed: &Bed) {
    let mut bench = Bench::open(bed, one_job).await;
    for _ in 0..4 {
        let mut agent = bench.connect(1, None).await;
        let (attempt, _) = agent.assigned().unwrap();
        bench
            .tell(Command::Draining {
                agent_id: agent_id(1),
                connection: agent.connection,
            })
            .await;
        bench
            .finish(attempt, 0, Some(FailureClass::Infrastructure))
            .await
            .unwrap();
        bench.disconnect(&agent).await;
    }
    assert_eq!(bench.job(0).await.state, JobState::Queued);
}

async fn a_job_that_fails_three_times_is_given_up(bed: &Bed) {
    let mut bench = Bench::open(bed, one_job).await;
    let mut agent = bench.connect(1, None).await;
    for (tries, class) in [
        (1, FailureClass::Transient),
        (2, FailureClass::Infrastructure),
        (3, FailureClass::Transient),
    ] {
        assert_eq!(bench.job(0).await.state, JobState::Running);
        let (attempt, _) = agent.assigned().unwrap();
        assert_eq!(attempt.attempt.get(), tries);
        bench.finish(attempt, 0, Some(class)).await.unwrap();
        assert_eq!(agent.assigned(), None, "not at once");
        bench.pass(4).await;
    }
    let stored = bench.job(0).await;
    assert_eq!((stored.state, stored.attempts.len()), (JobState::Failed, 3));
    assert_eq!(stored.attempts[2].failure.as_ref().unwrap().stderr, "trace");
}

async fn a_permanent_failure_is_final_at_once(bed: &Bed) {
    let mut bench = Bench::open(bed, one_job).await;
    let mut agent = bench.connect(1, None).await;
    let (attempt, _) = agent.assigned().unwrap();
    bench
        .finish(attempt, 0, Some(FailureClass::Permanent))
        .await
        .unwrap();
    assert_eq!(bench.job(0).await.state, JobState::Failed);
    bench.pass(100).await;
    assert_eq!(agent.assigned(), None);
}

async fn accuracy_goes_on_after_the_items_that_are_stored(bed: &Bed) {
    let mut bench = Bench::open(bed, one_accuracy_job).await;
    let mut first = bench.connect(1, None).await;
    let (old, items_done) = first.assigned().unwrap();
    assert_eq!(items_done, 0);
    let stored = [
        record(0, facts(Some(3))),
        record(1, item(0, -1.0)),
        record(2, item(1, -1.0)),
    ];
    bench.records(old, &stored).await;
    bench
        .finish(old, 3, Some(FailureClass::Infrastructure))
        .await
        .unwrap();
    bench.disconnect(&first).await;
    let mut second = bench.connect(2, None).await;
    bench.pass(1).await;
    let (new, items_done) = second.assigned().unwrap();
    assert_eq!(items_done, 2, "accuracy may move to another machine");
    bench
        .records(new, &[record(0, facts(Some(3))), record(1, item(2, -1.0))])
        .await;
    bench.finish(new, 2, None).await.unwrap();
    assert_eq!(bench.job(0).await.state, JobState::Succeeded);
}

async fn an_accuracy_job_with_missing_items_has_not_succeeded(bed: &Bed) {
    let mut bench = Bench::open(bed, one_accuracy_job).await;
    let (attempt, _) = bench.connect(1, None).await.assigned().unwrap();
    bench
        .records(
            attempt,
            &[record(0, facts(Some(2))), record(1, item(1, -1.0))],
        )
        .await;
    bench.finish(attempt, 2, None).await.unwrap();
    let stored = bench.job(0).await;
    assert_eq!(stored.state, JobState::Queued);
    assert_eq!(
        stored.attempts[0].failure.as_ref().unwrap().message,
        "the attempt says it has succeeded, but 0 of 2 items are stored"
    );
}

async fn items_of_other_weights_are_not_put_together(bed: &Bed) {
    let mut bench = Bench::open(bed, one_accuracy_job).await;
    let mut agent = bench.connect(1, None).await;
    let (first, _) = agent.assigned().unwrap();
    bench
        .records(
            first,
            &[record(0, facts(Some(2))), record(1, item(0, -1.0))],
        )
        .await;
    bench
        .finish(first, 2, Some(FailureClass::Transient))
        .await
        .unwrap();
    bench.pass(1).await;
    let (second, items_done) = agent.assigned().unwrap();
    assert_eq!(items_done, 1);
    let mut other = facts(Some(2));
    if let tritmark_proto::record::RecordBody::Facts(facts) = &mut other {
        facts.weights_hash = "changed".into();
    }
    let rest = [record(0, other.clone()), record(1, item(1, -1.0))];
    bench.records(second, &rest).await;
    bench.finish(second, 2, None).await.unwrap();
    assert_eq!(bench.job(0).await.state, JobState::Queued);
    bench.pass(2).await;
    let (third, items_done) = agent.assigned().unwrap();
    assert_eq!(items_done, 0, "all items start anew");
    let all = [record(0, other), record(1, item(0, -1.0))];
    bench.records(third, &all).await;
    bench.finish(third, 2, None).await.unwrap();
    assert_eq!(bench.job(0).await.state, JobState::Succeeded);
}

async fn two_agents_on_one_machine_measure_one_after_the_other(bed: &Bed) {
    let mut bench = Bench::open(bed, |run| {
        vec![
            job(run, 0, "a", None, latency()),
            job(run, 1, "b", None, latency()),
        ]
    })
    .await;
    let mut first = bench.connect_as(agent_on(1, "m"), 1, None).await;
    let mut second = bench.connect_as(agent_on(2, "m"), 2, None).await;
    let (attempt, _) = first.assigned().unwrap();
    assert_eq!(second.assigned(), None);
    bench.finish(attempt, 0, None).await.unwrap();
    assert!(first.assigned().is_some() != second.assigned().is_some());
}

async fn missing_records_keep_an_attempt_from_ending(bed: &Bed) {
    let mut bench = Bench::open(bed, one_job).await;
    let (attempt, _) = bench.connect(1, None).await.assigned().unwrap();
    bench
        .records(attempt, &[record(0, reading(1.0)), record(2, reading(1.0))])
        .await;
    let finished = bench.finish(attempt, 3, None).await.unwrap();
    assert_eq!(finished, Finished::Incomplete { stored_below: 1 });
    assert_eq!(bench.job(0).await.state, JobState::Running);
    bench.records(attempt, &[record(1, reading(1.0))]).await;
    let finished = bench.finish(attempt, 3, None).await.unwrap();
    assert_eq!(finished, Finished::Stored { stored_below: 3 });
    let again = bench.finish(attempt, 3, None).await.unwrap();
    assert_eq!(
        again,
        Finished::Stored { stored_below: 3 },
        "the agent may not have heard"
    );
}

async fn a_second_connection_of_one_agent_replaces_the_first(bed: &Bed) {
    let mut bench = Bench::open(bed, one_job).await;
    let mut old = bench.connect(1, None).await;
    let (attempt, _) = old.assigned().unwrap();
    let new = bench.connect(1, Some(attempt)).await;
    assert!(old.link.is_cancelled());
    bench.disconnect(&old).await;
    let agents = bench.ask(|reply| Command::Agents { reply }).await;
    assert!(
        agents[0].is_connected,
        "the old connection's end is not the new one's"
    );
    assert_eq!(agents[0].running, Some(attempt));
    assert!(!new.link.is_cancelled());
}

async fn a_draining_agent_gets_nothing_more(bed: &Bed) {
    let mut bench = Bench::open(bed, two_jobs).await;
    let mut agent = bench.connect(1, None).await;
    let (attempt, _) = agent.assigned().unwrap();
    bench
        .tell(Command::Draining {
            agent_id: agent_id(1),
            connection: agent.connection,
        })
        .await;
    bench.finish(attempt, 0, None).await.unwrap();
    assert_eq!(agent.assigned(), None);
}

async fn cancelling_a_run_stops_its_attempt_and_frees_the_agent(bed: &Bed) {
    let mut bench = Bench::open(bed, two_jobs).await;
    let mut agent = bench.connect(1, None).await;
    let (attempt, _) = agent.assigned().unwrap();
    let run_id = bench.run;
    let cancelled = bench
        .ask(|reply| Command::Cancel { run: run_id, reply })
        .await;
    assert_eq!(cancelled.unwrap(), Some(2));
    assert!(matches!(agent.next(), Some(Kind::Cancel(_))));
    let unknown = RunId::generate();
    let cancelled = bench
        .ask(|reply| Command::Cancel {
            run: unknown,
            reply,
        })
        .await;
    assert_eq!(cancelled.unwrap(), None);

    let next = run("next");
    let jobs = vec![job(next.id, 0, "m", None, latency())];
    bench.submit(next, jobs).await;
    assert!(agent.assigned().is_some());
    bench.finish(attempt, 0, None).await.unwrap_err();
}

async fn a_watcher_sees_every_state_up_to_the_end(bed: &Bed) {
    use wire::run_event::Kind as Event;
    let mut bench = Bench::open(bed, one_job).await;
    let run = bench.run;
    let watch = bench
        .ask(|reply| Command::Watch { run, reply })
        .await
        .unwrap()
        .unwrap();
    assert_eq!(watch.snapshot.len(), 2);
    let mut events = watch.events.unwrap();
    let (attempt, _) = bench.connect(1, None).await.assigned().unwrap();
    bench.finish(attempt, 0, None).await.unwrap();
    let mut seen = Vec::new();
    while let Ok(event) = events.recv().await {
        seen.push(match event.kind.unwrap() {
            Event::Job(job) => format!("job {}", job.state().as_str_name()),
            Event::Summary(summary) => format!("ended {}", summary.ended_unix_ns.is_some()),
            Event::Progress(_) => "progress".to_owned(),
        });
    }
    assert_eq!(
        seen,
        [
            "job JOB_STATE_RUNNING",
            "job JOB_STATE_SUCCEEDED",
            "ended true"
        ]
    );
    let late = bench
        .ask(|reply| Command::Watch { run, reply })
        .await
        .unwrap()
        .unwrap();
    assert!(late.events.is_none());
}

async fn the_loop_wakes_for_leases_retries_and_nothing_else(bed: &Bed) {
    let mut bench = Bench::open(bed, one_job).await;
    assert_eq!(bench.state.next_deadline(bench.now), None);
    let (attempt, _) = bench.connect(1, None).await.assigned().unwrap();
    assert_eq!(
        bench.state.next_deadline(bench.now),
        Some(bench.now + 60 * SECOND)
    );
    bench
        .finish(attempt, 0, Some(FailureClass::Transient))
        .await
        .unwrap();
    assert_eq!(
        bench.state.next_deadline(bench.now),
        Some(bench.now + SECOND)
    );
}
}
