//! Priorities, expiry, pauses, quarantine and leaving over real gRPC, with simulated agents.
//!
//! On SQLite files, and on a private PostgreSQL where there is one.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tritmark_coordinator::{Coordinator, fixture::PostgresFixture};
use tritmark_proto::wire::{self, control_client::ControlClient};
use tritmark_testkit::{
    fleet::{self, plan},
    journal::Journal,
    light::{Behaviour, LightAgent, agent_id},
};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_mins(1);

const QUICK: Behaviour = Behaviour {
    work: Duration::from_millis(1),
    varies: false,
    one_by_one: false,
    fails_per_mille: 0,
    doubles_per_mille: 0,
};

/// A coordinator that can be started anew on its store.
struct Bed {
    store: String,
    _folder: TempDir,
    _database: Option<PostgresFixture>,
    running: Option<(CancellationToken, JoinHandle<()>)>,
    address: SocketAddr,
}

impl Bed {
    async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store.sqlite");
        Self::on(store.to_string_lossy().into_owned(), folder, None).await
    }

    /// `None` where there is no PostgreSQL, which is said on stderr.
    async fn postgres() -> Option<Self> {
        let database = PostgresFixture::start().await?;
        let folder = tempfile::tempdir().unwrap();
        Some(Self::on(database.url().to_owned(), folder, Some(database)).await)
    }

    async fn on(store: String, folder: TempDir, database: Option<PostgresFixture>) -> Self {
        let mut bed = Self {
            store,
            _folder: folder,
            _database: database,
            running: None,
            address: (Ipv4Addr::LOCALHOST, 0).into(),
        };
        bed.start().await;
        bed
    }

    async fn start(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let mut config = fleet::coordinator_config(&self.store).unwrap();
        config.timing.calibrate_every = Some(Duration::from_hours(1));
        config.timing.reclaim = Duration::from_millis(200);
        let coordinator = Coordinator::open(config).await.unwrap();
        let stop = coordinator.stop_token();
        let serving = tokio::spawn(async move {
            coordinator.serve(listener).await.unwrap();
            coordinator.close().await;
        });
        self.running = Some((stop, serving));
    }

    async fn stop(&mut self) {
        let (stop, serving) = self.running.take().unwrap();
        stop.cancel();
        serving.await.unwrap();
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap()
    }

    async fn control(&self) -> ControlClient<Channel> {
        ControlClient::new(self.endpoint().connect().await.unwrap())
    }

    /// Submits ten jobs, seven of which measure latency.
    async fn submit(&self, name: &str, priority: i32, expires: &str) -> String {
        let request = wire::SubmitPlanRequest {
            plan_toml: plan(name, 10),
            plan_name: name.to_owned(),
            base_dir: "/".to_owned(),
            priority: Some(priority),
            expires: expires.to_owned(),
            registered: Vec::new(),
        };
        let submitted = self.control().await.submit_plan(request).await.unwrap();
        submitted.into_inner().run_id
    }

    async fn run(&self, id: &str) -> wire::RunSummary {
        let mut control = self.control().await;
        let runs = control.list_runs(wire::ListRunsRequest {}).await.unwrap();
        let mut runs = runs.into_inner().runs.into_iter();
        runs.find(|run| run.run_id == id).unwrap()
    }

    async fn jobs(&self, run_id: &str) -> Vec<wire::JobInfo> {
        let run_id = run_id.to_owned();
        let request = wire::ListJobsRequest { run_id };
        let jobs = self.control().await.list_jobs(request).await.unwrap();
        jobs.into_inner().jobs
    }

    /// Waits until a run is as it shall be.
    async fn wait(&self, id: &str, is_so: impl Fn(&wire::RunSummary) -> bool) -> wire::RunSummary {
        let since = Instant::now();
        loop {
            let run = self.run(id).await;
            if is_so(&run) {
                return run;
            }
            assert!(since.elapsed() < PATIENCE, "{run:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn agent(&self, number: u32) -> Option<wire::AgentInfo> {
        let mut control = self.control().await;
        let agents = control.list_agents(wire::ListAgentsRequest {});
        let mut agents = agents.await.unwrap().into_inner().agents.into_iter();
        agents.find(|agent| agent.agent_id == agent_id(number))
    }

    async fn wait_for_agent(&self, number: u32, is_so: impl Fn(&wire::AgentInfo) -> bool) {
        let since = Instant::now();
        loop {
            let agent = self.agent(number).await;
            if agent.as_ref().is_some_and(&is_so) {
                return;
            }
            assert!(since.elapsed() < PATIENCE, "{agent:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Lets an agent work until it is stopped or told to leave.
    fn work(&self, mut agent: LightAgent) -> Working {
        let stop = CancellationToken::new();
        let (endpoint, stopped) = (self.endpoint(), stop.clone());
        let task = tokio::spawn(async move {
            agent.run(&endpoint, &stopped).await;
            agent
        });
        Working { stop, task }
    }
}

struct Working {
    stop: CancellationToken,
    task: JoinHandle<LightAgent>,
}

impl Working {
    async fn stop(self) -> LightAgent {
        self.stop.cancel();
        self.task.await.unwrap()
    }
}

fn light(number: u32, behaviour: Behaviour) -> LightAgent {
    LightAgent::new(number, behaviour, Journal::default())
}

fn calibration(memory_read_bytes_per_s: f64) -> wire::Calibration {
    wire::Calibration {
        kernel: "simulated".to_owned(),
        threads: 1,
        memory_read_bytes_per_s,
        int8_ops_per_s: 1e11,
        noise: 0.01,
        aa_ratio: 1.0,
        aa_low: 0.99,
        aa_high: 1.01,
        aa_pairs: 60,
        ..wire::Calibration::default()
    }
}

fn has_ended(run: &wire::RunSummary) -> bool {
    run.ended_unix_ns.is_some()
}

/// Makes of a function a test on each data base.
macro_rules! on_both {
    ($($name:ident)*) => {
        mod on_sqlite {
            $(#[tokio::test] async fn $name() {
                super::$name(super::Bed::sqlite().await).await;
            })*
        }

        mod on_postgres {
            $(#[tokio::test] async fn $name() {
                if let Some(bed) = super::Bed::postgres().await {
                    super::$name(bed).await;
                }
            })*
        }
    };
}

on_both! {
    the_run_with_the_higher_priority_is_done_first
    what_nobody_began_in_time_expires
    a_paused_run_waits_and_goes_on
    a_slower_machine_is_quarantined_until_it_is_released
    an_agent_that_is_told_to_leave_ends_after_its_job
    a_dry_run_knows_who_fits_and_how_long_such_jobs_took
}

async fn the_run_with_the_higher_priority_is_done_first(mut bed: Bed) {
    let low = bed.submit("low", -3, "").await;
    let high = bed.submit("high", 3, "").await;
    let working = bed.work(light(1, QUICK));
    bed.wait(&low, has_ended).await;
    let spans = |jobs: Vec<wire::JobInfo>| {
        let first = jobs.iter().filter_map(|job| job.started_unix_ns).min();
        let last = jobs.iter().filter_map(|job| job.started_unix_ns).max();
        (first.unwrap(), last.unwrap())
    };
    let (first_low, _) = spans(bed.jobs(&low).await);
    let (_, last_high) = spans(bed.jobs(&high).await);
    assert!(last_high < first_low, "{last_high} {first_low}");
    assert_eq!(bed.run(&high).await.priority, 3);
    working.stop().await;
    bed.stop().await;
}

async fn what_nobody_began_in_time_expires(mut bed: Bed) {
    let id = bed.submit("late", 0, "1s").await;
    let run = bed.wait(&id, has_ended).await;
    assert_eq!((run.n_failed, run.n_expired, run.n_succeeded), (10, 10, 0));
    for job in bed.jobs(&id).await {
        assert_eq!(job.state(), wire::JobState::Failed);
        let failure = job.failure.unwrap();
        assert_eq!(failure.class(), wire::failure::Class::Expired);
        assert_eq!(job.attempt, 0);
    }
    // Who comes later gets nothing of it.
    let next = bed.submit("next", 0, "").await;
    let working = bed.work(light(1, QUICK));
    assert_eq!(bed.wait(&next, has_ended).await.n_succeeded, 10);
    assert_eq!(bed.run(&id).await.n_expired, 10);
    working.stop().await;
    bed.stop().await;
}

async fn a_paused_run_waits_and_goes_on(mut bed: Bed) {
    let paused = bed.submit("paused", 9, "").await;
    let run_id = paused.clone();
    let request = wire::PauseRunRequest { run_id };
    let answer = bed.control().await.pause_run(request).await.unwrap();
    assert_eq!(answer.into_inner().n_queued, 10);
    bed.stop().await;
    bed.start().await;
    let other = bed.submit("other", 0, "").await;
    let working = bed.work(light(1, QUICK));
    assert_eq!(bed.wait(&other, has_ended).await.n_succeeded, 10);
    let run = bed.run(&paused).await;
    assert_eq!(run.n_queued, 10, "{run:?}");
    assert!(run.paused_unix_ns.is_some());
    let run_id = paused.clone();
    let request = wire::ResumeRunRequest { run_id };
    bed.control().await.resume_run(request).await.unwrap();
    assert_eq!(bed.wait(&paused, has_ended).await.n_succeeded, 10);
    working.stop().await;
    bed.stop().await;
}

async fn a_slower_machine_is_quarantined_until_it_is_released(mut bed: Bed) {
    let mut agent = light(1, QUICK);
    agent.calibrates_as(calibration(2e10));
    let working = bed.work(agent);
    let first = bed.submit("first", 0, "").await;
    assert_eq!(bed.wait(&first, has_ended).await.n_succeeded, 10);
    assert_eq!(bed.agent(1).await.unwrap().quarantine, None);

    // After a start of its machine, memory is half as fast.
    let mut agent = working.stop().await;
    agent.reboot("second");
    agent.calibrates_as(calibration(1e10));
    let working = bed.work(agent);
    bed.wait_for_agent(1, |agent| agent.quarantine.is_some())
        .await;
    let second = bed.submit("second", 0, "").await;
    let run = bed.wait(&second, |run| run.n_succeeded == 3).await;
    assert_eq!(run.n_queued, 7, "accuracy does not depend on time: {run:?}");

    bed.stop().await;
    bed.start().await;
    bed.wait_for_agent(1, |agent| agent.connected).await;
    let why = bed.agent(1).await.unwrap().quarantine.unwrap();
    assert!(
        why.reason.contains("10.0 GB/s, 50 % of the usual 20.0"),
        "{}",
        why.reason
    );
    assert_eq!(bed.run(&second).await.n_queued, 7);

    let agent = agent_id(1);
    let request = wire::ReleaseAgentRequest { agent };
    let released = bed.control().await.release_agent(request).await.unwrap();
    assert_eq!(released.into_inner().was, Some(why));
    assert_eq!(bed.wait(&second, has_ended).await.n_succeeded, 10);

    // Another kernel is another machine.
    let mut agent = working.stop().await;
    agent.on_machine(|machine| "Linux 7".clone_into(&mut machine.kernel));
    let working = bed.work(agent);
    bed.wait_for_agent(1, |agent| agent.quarantine.is_some())
        .await;
    let why = bed.agent(1).await.unwrap().quarantine.unwrap();
    assert!(why.reason.contains("is Linux 7"), "{}", why.reason);
    working.stop().await;
    bed.stop().await;
}

async fn an_agent_that_is_told_to_leave_ends_after_its_job(mut bed: Bed) {
    let slow = Behaviour {
        work: Duration::from_millis(400),
        ..QUICK
    };
    let working = bed.work(light(1, slow));
    let id = bed.submit("drained", 0, "").await;
    bed.wait(&id, |run| run.n_running == 1).await;
    let request = wire::DrainAgentRequest {
        agent: "machine-1".to_owned(),
    };
    let answer = bed
        .control()
        .await
        .drain_agent(request.clone())
        .await
        .unwrap();
    assert!(
        answer.into_inner().running.is_some(),
        "it has a job in hand"
    );
    // It ends by itself.
    let agent = tokio::time::timeout(PATIENCE, working.task)
        .await
        .unwrap()
        .unwrap();
    let run = bed.wait(&id, |run| run.n_running == 0).await;
    assert_eq!(
        (run.n_succeeded, run.n_queued, run.n_failed),
        (1, 9, 0),
        "{run:?}"
    );
    bed.wait_for_agent(1, |agent| !agent.connected).await;
    let refusal = bed.control().await.drain_agent(request).await.unwrap_err();
    assert!(refusal.message().contains("is not connected"), "{refusal}");
    // Its next start is free of it.
    let working = bed.work(agent);
    bed.wait(&id, |run| run.n_succeeded > 1).await;
    working.stop().await;
    bed.stop().await;
}

async fn a_dry_run_knows_who_fits_and_how_long_such_jobs_took(mut bed: Bed) {
    let ask = async |bed: &Bed| {
        let request = wire::SubmitPlanRequest {
            plan_toml: plan("asked", 10),
            plan_name: "asked".to_owned(),
            base_dir: "/".to_owned(),
            ..wire::SubmitPlanRequest::default()
        };
        bed.control()
            .await
            .dry_run(request)
            .await
            .unwrap()
            .into_inner()
    };
    let before = ask(&bed).await;
    assert_eq!(before.jobs.len(), 10);
    assert!(
        before
            .jobs
            .iter()
            .all(|job| job.agent_id.is_none() && job.estimate.is_none())
    );

    let working = bed.work(light(1, QUICK));
    let done = bed.submit("done", 0, "").await;
    bed.wait(&done, has_ended).await;
    let known = ask(&bed).await;
    for job in &known.jobs {
        assert_eq!(job.hostname.as_deref(), Some("machine-1"));
        let estimate = job.estimate.as_ref().unwrap();
        assert!(
            estimate.same_machine && estimate.n_jobs == 1,
            "{estimate:?}"
        );
    }
    let took: BTreeMap<u32, i64> = bed
        .jobs(&done)
        .await
        .iter()
        .map(|job| {
            let took = job.ended_unix_ns.unwrap() - job.started_unix_ns.unwrap();
            (job.job.as_ref().unwrap().index, took)
        })
        .collect();
    let first = &known.jobs[0];
    assert_eq!(
        first.estimate.as_ref().unwrap().median_ns,
        took[&0].cast_unsigned()
    );
    assert_eq!(
        bed.control()
            .await
            .list_runs(wire::ListRunsRequest {})
            .await
            .unwrap()
            .into_inner()
            .runs
            .len(),
        1
    );
    working.stop().await;
    bed.wait_for_agent(1, |agent| !agent.connected).await;
    let away = ask(&bed).await;
    assert_eq!(away.jobs[0].refusals, ["1 agent: away"]);
    assert!(!away.jobs[0].estimate.as_ref().unwrap().same_machine);
    bed.stop().await;
}
