//! Several coordinators over one PostgreSQL data base.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::FutureExt as _;
use tokio::task::JoinSet;
use tritmark_proto::job::JobId;

use super::*;

/// Leases short enough to wait for.
fn quick() -> Timing {
    Timing {
        lease: Duration::from_secs(4),
        reclaim: Duration::from_millis(300),
        ..Timing::default()
    }
}

/// One of several coordinators.
#[derive(Clone)]
pub(super) struct Coordinator {
    pub(super) store: Arc<dyn Store>,
    pub(super) handle: LoopHandle,
    pub(super) stop: CancellationToken,
}

impl Coordinator {
    async fn start(bed: &Bed) -> Self {
        Self::start_with(bed, quick()).await
    }

    pub(super) async fn start_with(bed: &Bed, timing: Timing) -> Self {
        let store = bed.open().await;
        let stop = CancellationToken::new();
        let (handle, _) = start(Arc::clone(&store), timing, None, stop.clone())
            .await
            .unwrap();
        Self {
            store,
            handle,
            stop,
        }
    }

    pub(super) async fn submit(&self, jobs: impl FnOnce(RunId) -> Vec<Job>) -> RunId {
        let run = run("a-run");
        let (id, jobs) = (run.id, jobs(run.id));
        submit(&*self.store, &self.handle, run, jobs)
            .await
            .unwrap()
            .unwrap();
        id
    }

    async fn watch(&self, run: RunId) -> Watch {
        let watch = self
            .handle
            .ask(|reply| Command::Watch { run, reply })
            .await
            .unwrap();
        watch.unwrap().unwrap()
    }

    /// Waits until a run has ended.
    async fn ended(&self, run: RunId) {
        let Some(mut events) = self.watch(run).await.events else {
            return;
        };
        // Lagging is no end.
        while !matches!(
            events.recv().await,
            Err(broadcast::error::RecvError::Closed)
        ) {}
    }
}

/// Works for the first coordinator that lives, until there is none; keeps its attempt when it goes
/// to another.
pub(super) async fn work(coordinators: Vec<Coordinator>, agent: StoredAgent, pause: Duration) {
    let mut working_on: Option<AttemptId> = None;
    for coordinator in &coordinators {
        // That its coordinator is gone sends it to the next.
        let _ = serve(coordinator, &agent, &mut working_on, pause).await;
    }
}

async fn serve(
    coordinator: &Coordinator,
    agent: &StoredAgent,
    working_on: &mut Option<AttemptId>,
    pause: Duration,
) -> Result<(), Stopped> {
    let (to_agent, mut inbox) = mpsc::channel(8);
    let link = CancellationToken::new();
    let running = *working_on;
    let connected = coordinator
        .handle
        .ask(|reply| Command::Connect {
            agent: Box::new(agent.clone()),
            running,
            boot_id: None,
            to_agent,
            link: link.clone(),
            reply,
        })
        .await?
        .map_err(|_| Stopped)?;
    if connected.abandon_running {
        *working_on = None;
    }
    loop {
        if let Some(attempt) = *working_on {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = coordinator.stop.cancelled() => return Err(Stopped),
            }
            let batch = [
                record(0, facts(None)),
                record(1, item(attempt.job.index, -1.0)),
            ];
            let stored = coordinator.store.add_records(attempt, &batch).await;
            if stored.is_ok() {
                coordinator
                    .handle
                    .tell(Command::Appended { attempt })
                    .await?;
                let finished = coordinator
                    .handle
                    .ask(|reply| Command::Finished {
                        attempt,
                        n_records: 2,
                        failure: None,
                        reply,
                    })
                    .await?;
                assert!(
                    matches!(
                        finished,
                        Ok(Finished::Stored { .. }) | Err(StoreError::Stale { .. })
                    ),
                    "{finished:?}"
                );
            }
            *working_on = None;
        }
        let message = tokio::select! {
            message = inbox.recv() => message.ok_or(Stopped)?,
            () = coordinator.stop.cancelled() => return Err(Stopped),
        };
        if let Some(Kind::Assign(assign)) = message.kind {
            *working_on = Some(assign.attempt.unwrap().try_into().unwrap());
        }
    }
}

/// Checks what must hold of any run that has ended well. Returns how many attempts there were.
async fn check(store: &dyn Store, run: RunId) -> usize {
    let mut fences = BTreeSet::new();
    let mut machines: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let jobs = store.jobs(run).await.unwrap();
    for job in &jobs {
        assert_eq!(job.state, JobState::Succeeded, "{}", job.job.id);
        let succeeded = job
            .attempts
            .iter()
            .filter(|attempt| attempt.state == AttemptState::Succeeded);
        assert_eq!(succeeded.count(), 1, "{job:?}");
        for pair in job.attempts.windows(2) {
            assert!(pair[0].ended_unix_ns.unwrap() <= pair[1].started_unix_ns);
            assert!(pair[0].id.fence < pair[1].id.fence);
        }
        for attempt in &job.attempts {
            assert!(fences.insert(attempt.id.fence), "a fence is given once");
            if job.job.suite.is_exclusive() {
                machines
                    .entry(job.job.model.id.clone())
                    .or_default()
                    .insert(attempt.machine_id.clone());
            }
        }
    }
    for (model, machines) in machines {
        assert_eq!(machines.len(), 1, "{model} is measured on one machine");
    }
    // Nothing that needs a machine to itself runs beside anything else.
    let mut by_machine: BTreeMap<&str, Vec<(i64, i64, bool)>> = BTreeMap::new();
    for job in &jobs {
        for attempt in &job.attempts {
            by_machine.entry(&attempt.machine_id).or_default().push((
                attempt.started_unix_ns,
                attempt.ended_unix_ns.unwrap(),
                job.job.suite.is_exclusive(),
            ));
        }
    }
    for times in by_machine.values() {
        for (n, one) in times.iter().enumerate() {
            for other in &times[n + 1..] {
                let overlap = one.0 < other.1 && other.0 < one.1;
                assert!(!overlap || !(one.2 || other.2), "{one:?} beside {other:?}");
            }
        }
    }
    assert!(
        store
            .run(run)
            .await
            .unwrap()
            .unwrap()
            .ended_unix_ns
            .is_some()
    );
    fences.len()
}

/// Accuracy jobs with a latency job of one of four models now and then.
fn mixed(run: RunId, n_jobs: u32) -> Vec<Job> {
    (0..n_jobs)
        .map(|index| {
            if index % 5 == 0 {
                job(run, index, &format!("m{}", index / 5 % 4), None, latency())
            } else {
                job(run, index, "m", None, accuracy())
            }
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coordinators_that_race_for_jobs_do_each_of_them_once() {
    let Some(bed) = Bed::postgres().await else {
        return;
    };
    let coordinators = [
        Coordinator::start(&bed).await,
        Coordinator::start(&bed).await,
    ];
    let run = coordinators[0].submit(|run| mixed(run, 150)).await;
    let mut agents = JoinSet::new();
    for n in 0..12_u32 {
        // Each machine has an agent of either coordinator.
        let agent = agent_on(n + 1, &format!("machine-{}", n / 2));
        let coordinator = coordinators[n as usize % 2].clone();
        agents.spawn(work(vec![coordinator], agent, Duration::ZERO));
    }
    let both = futures::future::join(coordinators[0].ended(run), coordinators[1].ended(run));
    tokio::time::timeout(Duration::from_mins(2), both)
        .await
        .expect("both see the end");
    let n_attempts = check(&*coordinators[1].store, run).await;
    assert_eq!(n_attempts, 150, "no job was begun twice");
    for coordinator in &coordinators {
        coordinator.stop.cancel();
    }
    while let Some(worked) = agents.join_next().await {
        worked.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_of_a_coordinator_that_dies_go_on_with_another() {
    let Some(bed) = Bed::postgres().await else {
        return;
    };
    let first = Coordinator::start(&bed).await;
    let second = Coordinator::start(&bed).await;
    let run = first.submit(|run| mixed(run, 60)).await;
    let mut agents = JoinSet::new();
    for n in 0..6_u32 {
        let coordinators = if n % 2 == 0 {
            vec![first.clone(), second.clone()]
        } else {
            vec![second.clone()]
        };
        agents.spawn(work(coordinators, agent(n + 1), Duration::from_millis(50)));
    }
    let mut events = second.watch(run).await.events.unwrap();
    let mut n_seen = 0;
    while n_seen < 30 {
        if events.recv().await.is_ok() {
            n_seen += 1;
        }
    }
    first.stop.cancel();
    tokio::time::timeout(Duration::from_mins(2), second.ended(run))
        .await
        .expect("the other goes on to the end");
    check(&*second.store, run).await;
    second.stop.cancel();
    while let Some(worked) = agents.join_next().await {
        worked.unwrap();
    }
}

#[tokio::test]
async fn a_run_of_one_coordinator_is_seen_and_cancelled_at_another() {
    let Some(bed) = Bed::postgres().await else {
        return;
    };
    let first = Coordinator::start(&bed).await;
    let second = Coordinator::start(&bed).await;
    let run = first.submit(two_jobs).await;
    let mut events = second.watch(run).await.events.unwrap();
    let (to_agent, mut inbox) = mpsc::channel(8);
    first
        .handle
        .ask(|reply| Command::Connect {
            agent: Box::new(agent(1)),
            running: None,
            boot_id: None,
            to_agent,
            link: CancellationToken::new(),
            reply,
        })
        .await
        .unwrap()
        .unwrap();
    let registered = inbox.recv().await.unwrap().kind.unwrap();
    assert!(matches!(registered, Kind::Registered(_)));
    let assigned = inbox.recv().await.unwrap().kind.unwrap();
    assert!(matches!(assigned, Kind::Assign(_)));
    let Some(wire::run_event::Kind::Job(seen)) = events.recv().await.unwrap().kind else {
        panic!("a job has begun");
    };
    assert_eq!(seen.state(), wire::JobState::Running);
    assert_eq!(seen.agent_id, Some(agent_id(1)));
    let cancelled = second
        .handle
        .ask(|reply| Command::Cancel { run, reply })
        .await
        .unwrap();
    assert_eq!(cancelled.unwrap(), Some(2));
    let told = inbox.recv().await.unwrap().kind.unwrap();
    assert!(matches!(told, Kind::Cancel(_)), "{told:?}");
    first.ended(run).await;
    for coordinator in [first, second] {
        coordinator.stop.cancel();
    }
}

/// Lets a loop without a clock hear what the other has told.
async fn hear(bench: &mut Bench, changes: &mut futures::stream::BoxStream<'static, Change>) {
    let mut commands = Vec::new();
    while let Ok(Some(change)) =
        tokio::time::timeout(Duration::from_millis(500), changes.next()).await
    {
        commands.push(Command::Changed(change));
        while let Some(Some(change)) = changes.next().now_or_never() {
            commands.push(Command::Changed(change));
        }
    }
    bench.state.handle_all(commands, bench.now).await;
    bench.state.advance(bench.now).await.unwrap();
}

#[tokio::test]
async fn any_coordinator_ends_the_lease_of_an_agent_that_nobody_hears() {
    let Some(bed) = Bed::postgres().await else {
        return;
    };
    let mut first = Bench::open(&bed, one_accuracy_job).await;
    let mut heard = first.store.changes().await.unwrap();
    let mut second = Bench::reopen(&bed, first.now).await;
    let mut agent = first.connect(1, None).await;
    let (old, _) = agent.assigned().unwrap();
    second.state.reconcile(second.now).await.unwrap();
    let mut other = second.connect(2, None).await;
    // The first renews the lease; the second does not know until it asks.
    first.pass(50).await;
    first.heartbeat(&agent, Some(old)).await;
    second.pass(76).await;
    assert_eq!(other.assigned(), None, "the lease was renewed");
    second.pass(40).await;
    second.pass(10).await;
    second.pass(2).await;
    let (new, _) = other.assigned().expect("lease and grace are over");
    assert_eq!(new.attempt.get(), 2);
    assert!(new.fence > old.fence);
    hear(&mut first, &mut heard).await;
    assert!(matches!(agent.next(), Some(Kind::Cancel(_))));
    let refusal = first.finish(old, 0, None).await.unwrap_err();
    assert!(matches!(refusal, StoreError::Stale { .. }), "{refusal}");
}

#[tokio::test]
async fn an_agent_that_goes_to_another_coordinator_takes_its_attempt_along() {
    let Some(bed) = Bed::postgres().await else {
        return;
    };
    let mut first = Bench::open(&bed, two_jobs).await;
    let mut heard = first.store.changes().await.unwrap();
    let mut second = Bench::reopen(&bed, first.now).await;
    let mut agent = first.connect(1, None).await;
    let (attempt, _) = agent.assigned().unwrap();
    let mut moved = second.connect(1, Some(attempt)).await;
    assert!(!moved.abandon_running, "the second has read of it");
    hear(&mut first, &mut heard).await;
    assert!(agent.link.is_cancelled(), "the older link is cut");
    second.finish(attempt, 0, None).await.unwrap();
    let (next, _) = moved.assigned().unwrap();
    assert_eq!(
        next.job,
        JobId {
            index: 1,
            ..attempt.job
        }
    );
    hear(&mut first, &mut heard).await;
    assert_eq!(
        agent.next().map(|_| ()),
        None,
        "only its own coordinator gives it jobs"
    );
    let agents = first.ask(|reply| Command::Agents { reply }).await;
    assert_eq!(agents[0].running, Some(next));
}

#[tokio::test]
async fn what_was_not_heard_is_found() {
    let Some(bed) = Bed::postgres().await else {
        return;
    };
    let mut first = Bench::open(&bed, two_jobs).await;
    let mut second = Bench::reopen(&bed, first.now).await;
    let mut agent = first.connect(1, None).await;
    let (attempt, _) = agent.assigned().unwrap();
    let later = first
        .store
        .newest_run_of(&run("a-run").plan_hash)
        .await
        .unwrap();
    assert_eq!(later.unwrap().id, first.run);
    second.state.reconcile(second.now).await.unwrap();
    let watched = first.run;
    let watch = second
        .ask(|reply| Command::Watch {
            run: watched,
            reply,
        })
        .await
        .unwrap()
        .unwrap();
    let mut events = watch.events.unwrap();
    first.finish(attempt, 0, None).await.unwrap();
    second.state.reconcile(second.now).await.unwrap();
    let Some(wire::run_event::Kind::Job(seen)) = events.try_recv().unwrap().kind else {
        panic!("a job has ended");
    };
    assert_eq!(seen.state(), wire::JobState::Succeeded);
}
