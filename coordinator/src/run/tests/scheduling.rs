//! Priorities, expiry, pauses, quarantine and leaving, step by step on both data bases.

use tritmark_proto::{job::JobId, wire};

use super::*;
use crate::store::StoredCalibration;

impl Bench {
    /// Submits another run.
    async fn submit_also(
        &mut self,
        stored: StoredRun,
        jobs: impl FnOnce(RunId) -> Vec<Job>,
    ) -> RunId {
        let id = stored.id;
        self.submit(stored, jobs(id)).await;
        id
    }

    async fn pause(&mut self, run: RunId, is_paused: bool) -> Option<u32> {
        self.ask(|reply| Command::Pause {
            run,
            is_paused,
            reply,
        })
        .await
        .unwrap()
    }

    async fn summary(&mut self, run: RunId) -> wire::RunSummary {
        let watch = self.ask(|reply| Command::Watch { run, reply }).await;
        let first = watch.unwrap().unwrap().snapshot.swap_remove(0);
        match first.kind {
            Some(wire::run_event::Kind::Summary(summary)) => summary,
            other => panic!("{other:?}"),
        }
    }

    async fn view(&mut self, number: u32) -> AgentView {
        let views = self.ask(|reply| Command::Agents { reply }).await;
        let id = agent_id(number);
        views.into_iter().find(|view| view.agent.id == id).unwrap()
    }

    /// An agent that can be asked what its machine can do.
    async fn connect_calibrating(&mut self, agent: StoredAgent, boot_id: &str) -> FakeAgent {
        let (to_agent, mut inbox) = mpsc::channel(8);
        let link = CancellationToken::new();
        let number = agent.id[30..].parse().unwrap();
        let connected = self
            .ask(|reply| Command::Connect {
                agent: Box::new(agent),
                running: None,
                boot_id: Some(boot_id.to_owned()),
                to_agent,
                link: link.clone(),
                reply,
            })
            .await
            .unwrap();
        assert!(matches!(
            inbox.try_recv().unwrap().kind,
            Some(Kind::Registered(_))
        ));
        FakeAgent {
            number,
            connection: connected.connection,
            abandon_running: connected.abandon_running,
            inbox,
            link,
        }
    }

    async fn answer(&mut self, agent: &FakeAgent, calibration: wire::Calibration) {
        self.tell(Command::Calibrated {
            agent_id: agent_id(agent.number),
            connection: agent.connection,
            calibration: Box::new(calibration),
        })
        .await;
    }

    async fn history(&self, machine: &str) -> Vec<StoredCalibration> {
        self.store.calibrations(machine, 10).await.unwrap()
    }

    fn calibrates(&mut self) {
        self.state.timing.calibrate_every = Some(Duration::from_hours(1));
    }
}

fn calibration(number: u64, memory_read_bytes_per_s: f64) -> wire::Calibration {
    wire::Calibration {
        number,
        failure: String::new(),
        kernel: "x86_64-avx2".to_owned(),
        threads: 2,
        memory_read_bytes_per_s,
        int8_ops_per_s: 1e11,
        noise: 0.01,
        aa_ratio: 1.0,
        aa_low: 0.99,
        aa_high: 1.01,
        aa_pairs: 60,
    }
}

/// Returns the number of the calibration an agent is asked for.
fn asked(agent: &mut FakeAgent) -> u64 {
    match agent.next() {
        Some(Kind::Calibrate(wire::Calibrate { number })) => number,
        other => panic!("{other:?} asks for no calibration"),
    }
}

on_both! {
async fn a_higher_priority_goes_first_and_equal_ones_by_age(bed: &Bed) {
    let mut bench = Bench::open(bed, one_job).await;
    let first = bench.run;
    let with = |name: &str, priority| StoredRun {
        priority,
        ..run(name)
    };
    let high = bench.submit_also(with("high", 5), one_job).await;
    let low = bench.submit_also(with("low", -1), one_job).await;
    let higher = bench.submit_also(with("higher", 5), one_job).await;
    let mut agent = bench.connect(1, None).await;
    let mut order = Vec::new();
    while let Some((attempt, _)) = agent.assigned() {
        order.push(attempt.job.run);
        bench.finish(attempt, 0, None).await.unwrap();
    }
    assert_eq!(order, [high, higher, first, low]);
    let run = bench.store.run(low).await.unwrap().unwrap();
    assert_eq!(run.priority, -1);
}

async fn what_nobody_began_in_time_expires_and_what_is_in_hand_is_finished(bed: &Bed) {
    let mut bench = Bench::reopen(bed, 1_000 * SECOND).await;
    let stored = StoredRun {
        expires_unix_ns: Some(bench.now + 10 * SECOND),
        ..run("short")
    };
    let id = bench.submit_also(stored, two_jobs).await;
    bench.run = id;
    let mut agent = bench.connect(1, None).await;
    let (held, _) = agent.assigned().unwrap();
    let deadline = bench.state.next_deadline(bench.now).unwrap();
    assert!(deadline <= bench.now + 10 * SECOND, "it wakes up for it");
    bench.pass(9).await;
    assert_eq!(bench.job(1).await.state, JobState::Queued);
    bench.pass(1).await;
    let expired = bench.job(1).await;
    assert_eq!(expired.state, JobState::Failed);
    let failure = expired.failure.unwrap();
    assert_eq!(failure.class, FailureClass::Expired);
    assert!(expired.attempts.is_empty(), "nobody has tried it");
    assert_eq!(bench.job(0).await.state, JobState::Running);
    let summary = bench.summary(id).await;
    assert_eq!((summary.n_failed, summary.n_expired, summary.n_running), (1, 1, 1));
    // It does not turn for ever for what has expired.
    assert!(bench.state.next_deadline(bench.now).unwrap() > bench.now);

    bench.finish(held, 0, None).await.unwrap();
    let summary = bench.summary(id).await;
    assert_eq!((summary.n_succeeded, summary.n_expired), (1, 1));
    assert!(summary.ended_unix_ns.is_some());
    let counts = bench.store.job_counts(id).await.unwrap();
    assert_eq!((counts.failed, counts.expired, counts.total()), (1, 1, 2));
    assert!(agent.next().is_none());
}

async fn a_job_that_failed_after_the_expiry_is_not_tried_again(bed: &Bed) {
    let mut bench = Bench::reopen(bed, 1_000 * SECOND).await;
    let stored = StoredRun {
        expires_unix_ns: Some(bench.now + 10 * SECOND),
        ..run("short")
    };
    bench.run = bench.submit_also(stored, one_job).await;
    let mut agent = bench.connect(1, None).await;
    let (held, _) = agent.assigned().unwrap();
    bench.pass(20).await;
    bench.finish(held, 0, Some(FailureClass::Transient)).await.unwrap();
    let job = bench.job(0).await;
    assert_eq!(job.state, JobState::Failed);
    assert_eq!(job.why_not().unwrap().class, FailureClass::Expired);
    assert_eq!(job.attempts.len(), 1);
    assert!(agent.next().is_none());
}

async fn an_expiry_is_kept_over_a_restart(bed: &Bed) {
    let mut bench = Bench::reopen(bed, 1_000 * SECOND).await;
    let stored = StoredRun {
        expires_unix_ns: Some(bench.now + 10 * SECOND),
        ..run("short")
    };
    let id = bench.submit_also(stored, two_jobs).await;
    let now = bench.now;
    drop(bench);
    let mut bench = Bench::reopen(bed, now + 11 * SECOND).await;
    bench.pass(0).await;
    let counts = bench.store.job_counts(id).await.unwrap();
    assert_eq!((counts.failed, counts.expired), (2, 2));
    let run = bench.store.run(id).await.unwrap().unwrap();
    assert_eq!(run.ended_unix_ns, Some(bench.now));
}

async fn of_a_paused_run_nothing_begins_and_what_is_in_hand_is_finished(bed: &Bed) {
    let mut bench = Bench::open(bed, two_jobs).await;
    let id = bench.run;
    let mut agent = bench.connect(1, None).await;
    let (held, _) = agent.assigned().unwrap();
    assert_eq!(bench.pause(id, true).await, Some(1));
    bench.finish(held, 0, None).await.unwrap();
    assert!(agent.next().is_none());
    assert!(bench.summary(id).await.paused_unix_ns.is_some());

    // It is paused still after a restart, and for whoever asks the store.
    let now = bench.now;
    drop(bench);
    let mut bench = Bench::reopen(bed, now + SECOND).await;
    let mut agent = bench.connect(1, None).await;
    assert!(agent.next().is_none());
    let start = crate::store::AttemptStart {
        job: JobId { run: id, index: 1 },
        agent_id: agent_id(1),
        machine_id: "machine-1".to_owned(),
        at_unix_ns: now,
        lease_until_unix_ns: now + SECOND,
        exclusive: None,
    };
    let refusal = bench.store.start_attempt(&start).await.unwrap_err();
    assert!(matches!(refusal, StoreError::NotQueued { .. }), "{refusal}");

    assert_eq!(bench.pause(id, false).await, Some(1));
    let (second, _) = agent.assigned().unwrap();
    assert_eq!(second.job.index, 1);
    bench.finish(second, 0, None).await.unwrap();
    assert_eq!(bench.summary(id).await.paused_unix_ns, None);
    // An ended run is left alone, an unknown one is none.
    assert_eq!(bench.pause(id, true).await, Some(0));
    assert_eq!(bench.store.run(id).await.unwrap().unwrap().paused_unix_ns, None);
    assert_eq!(bench.pause(RunId::generate(), true).await, None);
}

async fn a_paused_run_lets_others_pass_and_still_expires(bed: &Bed) {
    let mut bench = Bench::open(bed, one_job).await;
    let first = bench.run;
    let paused = StoredRun {
        priority: 9,
        expires_unix_ns: Some(bench.now + 5 * SECOND),
        ..run("paused")
    };
    let paused = bench.submit_also(paused, one_job).await;
    bench.pause(paused, true).await;
    let mut agent = bench.connect(1, None).await;
    let (attempt, _) = agent.assigned().unwrap();
    assert_eq!(attempt.job.run, first);
    bench.pass(5).await;
    assert_eq!(bench.summary(paused).await.n_expired, 1);
}

async fn an_agent_that_is_told_to_leave_finishes_its_job_and_takes_no_other(bed: &Bed) {
    let mut bench = Bench::open(bed, two_jobs).await;
    let mut agent = bench.connect(1, None).await;
    let (held, _) = agent.assigned().unwrap();
    // By its machine's name.
    let asked = bench
        .ask(|reply| Command::DrainAgent {
            agent: "machine-1.example".to_owned(),
            reply,
        })
        .await
        .unwrap()
        .unwrap();
    assert_eq!(asked, (agent_id(1), Some(held)));
    assert!(matches!(agent.next(), Some(Kind::Drain(_))));

    // Its link breaks before it has answered: it is told again, and given nothing.
    bench.disconnect(&agent).await;
    let mut agent = bench.connect(1, Some(held)).await;
    assert!(matches!(agent.next(), Some(Kind::Drain(_))));
    assert!(bench.view(1).await.is_draining);
    bench
        .tell(Command::Draining {
            agent_id: agent_id(1),
            connection: agent.connection,
        })
        .await;
    bench.finish(held, 0, None).await.unwrap();
    assert!(agent.next().is_none());
    bench.disconnect(&agent).await;

    // Its next start is free of it, over a restart too.
    let now = bench.now;
    drop(bench);
    let mut bench = Bench::reopen(bed, now + SECOND).await;
    let mut agent = bench.connect(1, None).await;
    assert!(agent.assigned().is_some());
}

async fn an_agent_that_is_away_or_unknown_cannot_be_told_to_leave(bed: &Bed) {
    let mut bench = Bench::open(bed, one_job).await;
    let agent = bench.connect(1, None).await;
    bench.disconnect(&agent).await;
    bench.connect_as(agent_on(2, "machine-1"), 2, None).await;
    let drain = async |bench: &mut Bench, name: &str| {
        let agent = name.to_owned();
        let asked = bench.ask(|reply| Command::DrainAgent { agent, reply }).await;
        asked.unwrap().unwrap_err()
    };
    let why = drain(&mut bench, &agent_id(1)).await;
    assert_eq!(why, format!("agent {} is not connected", agent_id(1)));
    let why = drain(&mut bench, "nobody").await;
    assert_eq!(why, "there is no agent `nobody`");
    let why = drain(&mut bench, "machine-1.example").await;
    assert!(why.starts_with("several agents are on `machine-1.example`"), "{why}");
}

async fn an_agent_is_calibrated_before_its_first_job_and_every_so_often(bed: &Bed) {
    let mut bench = Bench::open(bed, two_jobs).await;
    bench.calibrates();
    let mut one = bench.connect_calibrating(agent(1), "boot-1").await;
    let number = asked(&mut one);
    assert!(one.next().is_none(), "no job beside it");
    assert!(bench.view(1).await.is_calibrating);
    // Nor one for another agent on the machine; who cannot be asked works at once elsewhere.
    let mut beside = bench.connect_as(agent_on(2, "machine-1"), 2, None).await;
    assert!(beside.next().is_none());
    bench.answer(&one, calibration(number + 1, 1e10)).await;
    assert!(bench.history("machine-1").await.is_empty(), "nobody asked for that");
    bench.answer(&one, calibration(number, 1e10)).await;
    let history = bench.history("machine-1").await;
    assert_eq!(history.len(), 1);
    assert!(history[0].counts && history[0].boot_id == "boot-1");
    let (held, _) = one.assigned().or_else(|| beside.assigned()).unwrap();
    bench.finish(held, 0, None).await.unwrap();
    let second = one.assigned().or_else(|| beside.assigned()).unwrap().0;
    bench.finish(second, 0, None).await.unwrap();

    // After a broken link it is not asked again, after a start of the machine it is.
    bench.disconnect(&one).await;
    let mut one = bench.connect_calibrating(agent(1), "boot-1").await;
    assert!(one.next().is_none());
    bench.disconnect(&one).await;
    let mut one = bench.connect_calibrating(agent(1), "boot-2").await;
    let number = asked(&mut one);
    bench.answer(&one, calibration(number, 1.01e10)).await;
    assert!(one.next().is_none());
    assert_eq!(bench.state.next_deadline(bench.now), Some(bench.now + 3_600 * SECOND));
    bench.pass(3_600).await;
    asked(&mut one);
}

async fn who_fails_takes_no_performance_jobs_until_released(bed: &Bed) {
    let jobs = |run| {
        vec![
            job(run, 0, "m", None, latency()),
            job(run, 1, "m", None, accuracy()),
        ]
    };
    let mut bench = Bench::open(bed, jobs).await;
    bench.pause(bench.run, true).await;
    bench.calibrates();
    let mut one = bench.connect_calibrating(agent(1), "boot-1").await;
    let number = asked(&mut one);
    bench.answer(&one, calibration(number, 1e10)).await;
    bench.pass(3_600).await;
    let number = asked(&mut one);
    bench.answer(&one, calibration(number, 0.8e10)).await;
    let why = bench.view(1).await.agent.quarantine.unwrap();
    assert!(why.reason.contains("memory read bandwidth is 8.0 GB/s, 80 %"), "{}", why.reason);
    assert_eq!(why.since_unix_ns, bench.now);
    assert!(!bench.history("machine-1").await[0].counts);

    // It stays so over a restart and a new connection. Accuracy does not depend on time.
    let now = bench.now;
    let id = bench.run;
    drop(bench);
    let mut bench = Bench::reopen(bed, now + SECOND).await;
    bench.calibrates();
    let mut one = bench.connect_calibrating(agent(1), "boot-1").await;
    bench.pause(id, false).await;
    let (held, _) = one.assigned().unwrap();
    assert_eq!(held.job.index, 1);
    bench.records(held, &[record(0, facts(Some(1))), record(1, item(0, -1.0))]).await;
    bench.finish(held, 2, None).await.unwrap();
    assert!(one.next().is_none());
    assert_eq!(bench.view(1).await.agent.quarantine, Some(why.clone()));

    let released = bench
        .ask(|reply| Command::ReleaseAgent {
            agent: agent_id(1),
            reply,
        })
        .await
        .unwrap()
        .unwrap();
    assert_eq!(released, (agent_id(1), why));
    let (held, _) = one.assigned().unwrap();
    assert_eq!(held.job.index, 0);
    // As the machine is, it shall be: what it failed with is now usual.
    let counting: Vec<bool> = bench
        .history("machine-1")
        .await
        .iter()
        .map(|it| it.counts)
        .collect();
    assert_eq!(counting, [true, false]);
    let again = bench
        .ask(|reply| Command::ReleaseAgent {
            agent: agent_id(1),
            reply,
        })
        .await
        .unwrap();
    assert_eq!(again, Err(format!("agent {} is in no quarantine", agent_id(1))));
}

async fn a_machine_that_changed_is_quarantined_and_its_comparisons_move(bed: &Bed) {
    let comparison = |run| {
        vec![
            job(run, 0, "full", None, latency()),
            job(run, 1, "tern", Some("full"), latency()),
        ]
    };
    let mut bench = Bench::open(bed, comparison).await;
    bench.calibrates();
    let mut one = bench.connect(1, None).await;
    let (held, _) = one.assigned().unwrap();
    bench.disconnect(&one).await;
    let mut changed = agent(1);
    changed.machine.kernel = "Linux 7".to_owned();
    let mut one = bench.connect_as(changed, 1, Some(held)).await;
    let why = bench.view(1).await.agent.quarantine.unwrap();
    assert_eq!(why.reason, "the machine has changed: kernel was Linux 6, is Linux 7");
    bench.finish(held, 0, None).await.unwrap();
    assert!(one.next().is_none());
    let mut two = bench.connect(2, None).await;
    let (moved, _) = two.assigned().unwrap();
    assert_eq!(moved.job.index, 1);
}

async fn without_calibration_nobody_is_quarantined(bed: &Bed) {
    let mut bench = Bench::open(bed, one_job).await;
    let one = bench.connect_calibrating(agent(1), "boot-1").await;
    bench.disconnect(&one).await;
    let mut changed = agent(1);
    changed.machine.kernel = "Linux 7".to_owned();
    let mut one = bench.connect_calibrating(changed, "boot-2").await;
    assert_eq!(bench.view(1).await.agent.quarantine, None);
    assert!(one.assigned().is_none() || one.next().is_none());
}

async fn a_calibration_that_could_not_be_done_quarantines(bed: &Bed) {
    let mut bench = Bench::open(bed, one_job).await;
    bench.calibrates();
    let mut one = bench.connect_calibrating(agent(1), "boot-1").await;
    let failed = wire::Calibration {
        number: asked(&mut one),
        failure: "it did not end within 60 s".to_owned(),
        ..wire::Calibration::default()
    };
    bench.answer(&one, failed).await;
    let why = bench.view(1).await.agent.quarantine.unwrap();
    assert_eq!(why.reason, "the calibration failed: it did not end within 60 s");
    assert!(one.next().is_none());
}
}

#[tokio::test]
async fn what_a_person_asks_of_one_coordinator_another_does() {
    let Some(bed) = Bed::postgres().await else {
        return;
    };
    let mut one = Bench::open(&bed, two_jobs).await;
    let mut two = Bench::reopen(&bed, one.now).await;
    let id = one.run;
    // The first has not heard, and the store refuses.
    assert_eq!(two.pause(id, true).await, Some(2));
    let here = StoredAgent {
        last_seen_unix_ns: one.now,
        ..agent(1)
    };
    let mut linked = one.connect_as(here, 1, None).await;
    assert!(linked.next().is_none());
    assert_eq!(one.job(0).await.state, JobState::Queued);
    one.tell(Command::Changed(Change::Run(id))).await;
    assert!(one.summary(id).await.paused_unix_ns.is_some());
    two.pause(id, false).await;
    one.pass(1).await;
    one.tell(Command::Changed(Change::Run(id))).await;
    let (held, _) = linked.assigned().unwrap();

    let changed = || Command::Changed(Change::Agent(agent_id(1)));
    two.tell(changed()).await;
    let asked = two
        .ask(|reply| Command::DrainAgent {
            agent: agent_id(1),
            reply,
        })
        .await
        .unwrap();
    assert_eq!(asked.unwrap().0, agent_id(1));
    one.tell(changed()).await;
    assert!(matches!(linked.next(), Some(Kind::Drain(_))));
    one.tell(Command::Draining {
        agent_id: agent_id(1),
        connection: linked.connection,
    })
    .await;
    one.finish(held, 0, None).await.unwrap();
    assert!(linked.next().is_none());
    let stored = one.store.agents().await.unwrap().swap_remove(0);
    assert_eq!(stored.drain_unix_ns, None);

    let why = Quarantine {
        since_unix_ns: 5,
        reason: "int8 peak is low".to_owned(),
    };
    one.store.quarantine(&agent_id(1), &why).await.unwrap();
    // Unheard, it is found when everything is compared.
    let now = one.now;
    one.state.reconcile(now).await.unwrap();
    two.state.reconcile(now).await.unwrap();
    assert_eq!(one.view(1).await.agent.quarantine, Some(why.clone()));
    let released = two
        .ask(|reply| Command::ReleaseAgent {
            agent: agent_id(1),
            reply,
        })
        .await
        .unwrap();
    assert_eq!(released, Ok((agent_id(1), why)));
    one.tell(changed()).await;
    assert_eq!(one.view(1).await.agent.quarantine, None);
}
