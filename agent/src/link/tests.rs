//! Whole agents with real workers, and a coordinator that each test plays itself.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle, time::timeout};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, transport::Server};
use tritmark_proto::{
    bundle::{Failure, FailureClass},
    job::{AttemptId, Job, SuiteSpec},
    wire::{
        self, AgentMessage, CoordinatorMessage,
        agent_link_server::{AgentLink, AgentLinkServer},
        agent_message::Kind as Agent,
        coordinator_message::Kind as Coordinator,
    },
};

use crate::{
    AgentConfig, AgentError, run_until,
    testing::{accuracy_job, attempt, fake_worker, latency_job, own_lines},
};

/// Far longer than anything here takes: a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_mins(1);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("this comes soon")
}

type Answers = mpsc::Sender<Result<CoordinatorMessage, Status>>;

/// Hands every stream to the test.
struct Service {
    streams: mpsc::Sender<(Streaming<AgentMessage>, Answers)>,
}

#[tonic::async_trait]
impl AgentLink for Service {
    type LinkStream = ReceiverStream<Result<CoordinatorMessage, Status>>;

    async fn link(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::LinkStream>, Status> {
        let (answers, messages) = mpsc::channel(16);
        self.streams
            .send((request.into_inner(), answers))
            .await
            .map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}

/// A listening coordinator.
struct Listening {
    address: SocketAddr,
    streams: mpsc::Receiver<(Streaming<AgentMessage>, Answers)>,
    server: JoinHandle<()>,
}

impl Listening {
    async fn at(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, streams) = mpsc::channel(4);
        let service = AgentLinkServer::new(Service { streams: sender });
        let server = tokio::spawn(async move {
            Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        Self {
            address,
            streams,
            server,
        }
    }

    async fn any() -> Self {
        Self::at("127.0.0.1:0").await
    }

    /// Waits for an agent that registers, and welcomes it.
    async fn agent(&mut self) -> Linked {
        let (mut messages, answers) = soon(self.streams.recv()).await.unwrap();
        let first = soon(messages.message()).await.unwrap().unwrap();
        let Some(Agent::Register(register)) = first.kind else {
            panic!("an agent registers first: {first:?}");
        };
        let mut linked = Linked {
            register,
            messages,
            answers,
            waited: false,
        };
        linked
            .tell(Coordinator::Registered(wire::Registered {
                coordinator_version: "test".to_owned(),
                heartbeat_seconds: 1,
                abandon_running: false,
            }))
            .await;
        linked
    }

    /// Stops listening, as a killed coordinator does.
    async fn stop(self) {
        self.server.abort();
        let _ = self.server.await;
    }
}

/// A registered agent, as the coordinator sees it. Dropping it breaks the stream.
struct Linked {
    register: wire::Register,
    messages: Streaming<AgentMessage>,
    answers: Answers,
    /// The agent has said that it waits for the machine.
    waited: bool,
}

impl Linked {
    async fn tell(&mut self, kind: Coordinator) {
        let message = CoordinatorMessage { kind: Some(kind) };
        self.answers.send(Ok(message)).await.unwrap();
    }

    async fn assign(&mut self, attempt: AttemptId, job: Job) {
        self.tell(Coordinator::Assign(wire::Assign {
            attempt: Some(attempt.into()),
            job: Some(job.into()),
            items_done: 0,
        }))
        .await;
    }

    async fn acknowledge(&mut self, attempt: AttemptId, stored_below: u64, finished: bool) {
        self.tell(Coordinator::Ack(wire::Ack {
            attempt: Some(attempt.into()),
            stored_below,
            finished,
        }))
        .await;
    }

    /// The next message that is neither heartbeat nor progress; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Agent> {
        loop {
            let message = soon(self.messages.message()).await.ok().flatten()?;
            match message.kind.unwrap() {
                Agent::Heartbeat(_) => {}
                Agent::Progress(progress) => {
                    self.waited |= progress.stage == "waiting for the machine";
                }
                kind => return Some(kind),
            }
        }
    }

    async fn started(&mut self) {
        let next = self.next().await;
        assert!(matches!(next, Some(Agent::Started(_))), "{next:?}");
    }

    /// Waits until the agent waits for the machine.
    async fn waiting(&mut self) {
        while !self.waited {
            let message = soon(self.messages.message()).await.unwrap().unwrap();
            match message.kind.unwrap() {
                Agent::Progress(progress) => {
                    self.waited |= progress.stage == "waiting for the machine";
                }
                Agent::Heartbeat(_) => {}
                kind => panic!("the job must not begin: {kind:?}"),
            }
        }
    }

    /// Receives until the records up to `below` are there; returns all sequences.
    async fn records(&mut self, below: u64) -> Vec<u64> {
        let mut sequences = Vec::new();
        while sequences.last().is_none_or(|last| last + 1 < below) {
            match self.next().await {
                Some(Agent::Records(batch)) => {
                    sequences.extend(batch.records.iter().map(|record| record.sequence));
                }
                Some(Agent::Started(_)) => {}
                other => panic!("records are due: {other:?}"),
            }
        }
        sequences
    }

    /// Receives until the job's end; returns the sequences and how it ended.
    async fn end(&mut self) -> (Vec<u64>, Result<(), Failure>) {
        let mut sequences = Vec::new();
        loop {
            match self.next().await {
                Some(Agent::Records(batch)) => {
                    sequences.extend(batch.records.iter().map(|record| record.sequence));
                }
                Some(Agent::Finished(finished)) => {
                    let failure = finished.failure.map(|f| Failure::try_from(f).unwrap());
                    return (sequences, failure.map_or(Ok(()), Err));
                }
                Some(Agent::Started(_) | Agent::Draining(_)) => {}
                other => panic!("the job has an end: {other:?}"),
            }
        }
    }
}

/// An agent that runs.
struct Running {
    drain: CancellationToken,
    abort: CancellationToken,
    task: JoinHandle<Result<(), AgentError>>,
}

impl Running {
    async fn left(self) {
        soon(self.task).await.unwrap().unwrap();
    }

    /// As if the process were killed.
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

fn agent(folder: &Path, name: &str, address: SocketAddr) -> Running {
    let config = AgentConfig {
        coordinator: format!("http://{address}"),
        state_dir: folder.join(name),
        labels: BTreeMap::from([("name".to_owned(), name.to_owned())]),
        worker: fake_worker(),
        cache_dir: folder.join("cache"),
        sysfs_root: "/".into(),
        lock_path: folder.join("machine.lock"),
        spool_max_bytes: 1 << 20,
        item_cache_max_bytes: None,
        calibrates: true,
        file_cache_max_bytes: 1 << 20,
        only_sent_files: false,
        fetch_patience: PATIENCE,
        ca_file: None,
        insecure: false,
    };
    let (drain, abort) = (CancellationToken::new(), CancellationToken::new());
    let task = tokio::spawn(run_until(config, drain.clone(), abort.clone()));
    Running { drain, abort, task }
}

struct Scene {
    folder: TempDir,
    coordinator: Listening,
}

impl Scene {
    async fn new() -> Self {
        Self {
            folder: TempDir::new().unwrap(),
            coordinator: Listening::any().await,
        }
    }

    fn agent(&self, name: &str) -> Running {
        agent(self.folder.path(), name, self.coordinator.address)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn go(&self, name: &str) {
        std::fs::write(self.path(name), "").unwrap();
    }

    /// Waits for a worker's mark.
    async fn marked(&self, name: &str) {
        let path = self.path(name);
        soon(async {
            while !path.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    /// Replaces `$` by the folder's path.
    fn script(&self, text: &str) -> String {
        text.replace('$', &format!("{}/", self.folder.path().display()))
    }

    fn latency(&self, attempt: AttemptId, script: &str) -> Job {
        latency_job(attempt.job, &self.script(script))
    }
}

#[tokio::test]
async fn an_agent_registers_works_and_leaves() {
    let mut scene = Scene::new().await;
    let running = scene.agent("one");
    let mut linked = scene.coordinator.agent().await;
    let register = linked.register.clone();
    assert_eq!(register.labels["name"], "one");
    assert_eq!(register.suites, SuiteSpec::NAMES);
    assert!(register.running.is_none());
    assert!(register.machine.unwrap().logical_cores >= 1);

    let a = attempt(0, 1, 1);
    let job = scene.latency(a, "record record progress record finish");
    linked.assign(a, job).await;
    assert_eq!(linked.end().await, (vec![0, 1, 2], Ok(())));
    linked.acknowledge(a, 3, true).await;

    running.drain.cancel();
    assert!(matches!(linked.next().await, Some(Agent::Draining(_))));
    running.left().await;
    assert!(linked.next().await.is_none());
}

#[tokio::test]
async fn a_crashed_worker_fails_its_own_job_and_the_agent_goes_on() {
    let mut scene = Scene::new().await;
    let running = scene.agent("one");
    let mut linked = scene.coordinator.agent().await;
    let (a, b) = (attempt(0, 1, 1), attempt(1, 1, 2));
    linked
        .assign(a, scene.latency(a, "record stderr=last-words abort"))
        .await;
    let (sequences, outcome) = linked.end().await;
    let failure = outcome.unwrap_err();
    assert_eq!(sequences, [0]);
    assert_eq!(failure.class, FailureClass::Permanent);
    assert!(failure.message.contains("SIGABRT"), "{}", failure.message);
    assert_eq!(own_lines(&failure.stderr), ["last-words"]);
    linked.acknowledge(a, 1, true).await;
    linked.assign(b, scene.latency(b, "record finish")).await;
    assert_eq!(linked.end().await, (vec![0], Ok(())));
    drop(running);
}

#[tokio::test]
async fn a_cancelled_job_is_killed() {
    let mut scene = Scene::new().await;
    let running = scene.agent("one");
    let mut linked = scene.coordinator.agent().await;
    let a = attempt(0, 1, 1);
    linked.assign(a, scene.latency(a, "record hang")).await;
    linked.records(1).await;
    linked
        .tell(Coordinator::Cancel(wire::CancelJob {
            attempt: Some(a.into()),
            reason: "no longer wanted".to_owned(),
        }))
        .await;
    let failure = linked.end().await.1.unwrap_err();
    assert_eq!(failure.message, "cancelled: no longer wanted");
    drop(running);
}

#[tokio::test]
async fn a_broken_stream_is_dialled_again_and_the_unacknowledged_records_follow() {
    let mut scene = Scene::new().await;
    let running = scene.agent("one");
    let mut linked = scene.coordinator.agent().await;
    let a = attempt(0, 1, 1);
    let script = "record record record record wait=$go record finish";
    linked.assign(a, scene.latency(a, script)).await;
    linked.records(4).await;
    linked.acknowledge(a, 2, false).await;
    // An answer to the assignment said twice proves that the acknowledgement has arrived.
    linked.assign(a, scene.latency(a, script)).await;
    assert_eq!(linked.records(4).await, [2, 3]);
    drop(linked);

    let mut again = scene.coordinator.agent().await;
    assert_eq!(again.register.running, Some(a.into()));
    assert_eq!(again.records(4).await, [2, 3]);
    scene.go("go");
    assert_eq!(again.end().await, (vec![4], Ok(())));
    drop(running);
}

#[tokio::test]
async fn a_worker_goes_on_while_the_coordinator_restarts() {
    let mut scene = Scene::new().await;
    let running = scene.agent("one");
    let mut linked = scene.coordinator.agent().await;
    let a = attempt(0, 1, 1);
    let script = "record wait=$go record record finish mark=$done";
    linked.assign(a, scene.latency(a, script)).await;
    linked.records(1).await;
    linked.acknowledge(a, 1, false).await;
    let address = scene.coordinator.address;
    drop(linked);
    let stopped = std::mem::replace(&mut scene.coordinator, Listening::any().await);
    stopped.stop().await;

    scene.go("go");
    scene.marked("done").await;
    scene.coordinator = Listening::at(&address.to_string()).await;
    let mut again = scene.coordinator.agent().await;
    assert_eq!(again.register.running, Some(a.into()));
    let (sequences, outcome) = again.end().await;
    outcome.unwrap();
    assert!(
        sequences == [1, 2] || sequences == [0, 1, 2],
        "{sequences:?}"
    );
    again.acknowledge(a, 3, true).await;
    running.drain.cancel();
    running.left().await;
}

#[tokio::test]
async fn a_refused_agent_tries_again() {
    let mut scene = Scene::new().await;
    let running = scene.agent("one");
    for _ in 0..2 {
        let (_messages, answers) = soon(scene.coordinator.streams.recv()).await.unwrap();
        let refusal = Status::failed_precondition("not yet");
        answers.send(Err(refusal)).await.unwrap();
    }
    scene.coordinator.agent().await;
    drop(running);
}

#[tokio::test]
async fn a_killed_agent_keeps_its_name_and_reports_what_it_had() {
    let mut scene = Scene::new().await;
    let running = scene.agent("one");
    let mut linked = scene.coordinator.agent().await;
    let a = attempt(0, 1, 1);
    linked
        .assign(a, scene.latency(a, "record record mark=$pid hang"))
        .await;
    linked.records(2).await;
    running.kill().await;
    drop(linked);

    let running = scene.agent("one");
    let mut again = scene.coordinator.agent().await;
    assert_eq!(again.register.running, Some(a.into()));
    let (sequences, outcome) = again.end().await;
    assert_eq!(sequences, [0, 1]);
    let failure = outcome.unwrap_err();
    assert_eq!(failure.class, FailureClass::Infrastructure);
    assert!(
        failure.message.starts_with("the agent was restarted"),
        "{}",
        failure.message
    );
    again.acknowledge(a, 2, true).await;
    // The machine is free again: the worker died with its agent.
    let b = attempt(0, 2, 2);
    again.assign(b, scene.latency(b, "record finish")).await;
    assert_eq!(again.end().await, (vec![0], Ok(())));
    drop(running);
}

#[tokio::test]
async fn a_leaving_agent_finishes_its_job_first() {
    let mut scene = Scene::new().await;
    let running = scene.agent("one");
    let mut linked = scene.coordinator.agent().await;
    let a = attempt(0, 1, 1);
    linked
        .assign(a, scene.latency(a, "wait=$go record finish"))
        .await;
    linked.started().await;
    running.drain.cancel();
    assert!(matches!(linked.next().await, Some(Agent::Draining(_))));
    scene.go("go");
    assert_eq!(linked.end().await, (vec![0], Ok(())));
    assert!(!running.task.is_finished(), "its end is not acknowledged");
    linked.acknowledge(a, 1, true).await;
    running.left().await;
}

#[tokio::test]
async fn an_aborted_agent_kills_its_job_and_says_so() {
    let mut scene = Scene::new().await;
    let running = scene.agent("one");
    let mut linked = scene.coordinator.agent().await;
    let a = attempt(0, 1, 1);
    linked.assign(a, scene.latency(a, "record hang")).await;
    linked.records(1).await;
    running.abort.cancel();
    let failure = linked.end().await.1.unwrap_err();
    assert_eq!(failure.class, FailureClass::Infrastructure);
    assert_eq!(failure.message, "the agent was stopped while the job ran");
    linked.acknowledge(a, 1, true).await;
    running.left().await;
}

#[tokio::test]
async fn an_agent_without_coordinator_leaves_when_told() {
    let scene = Scene::new().await;
    let address = scene.coordinator.address;
    let Scene {
        folder,
        coordinator,
    } = scene;
    coordinator.stop().await;
    let running = agent(folder.path(), "one", address);
    running.drain.cancel();
    running.left().await;
}

#[tokio::test]
async fn two_agents_of_one_machine_measure_one_after_the_other() {
    let mut scene = Scene::new().await;
    let first = scene.agent("first");
    let mut first_linked = scene.coordinator.agent().await;
    let (a, b) = (attempt(0, 1, 1), attempt(1, 1, 2));
    first_linked
        .assign(a, scene.latency(a, "record wait=$go mark=$a finish"))
        .await;
    first_linked.records(1).await;

    let second = scene.agent("second");
    let mut second_linked = scene.coordinator.agent().await;
    assert_ne!(
        second_linked.register.agent_id,
        first_linked.register.agent_id
    );
    let accuracy = accuracy_job(b.job, "finish");
    second_linked.assign(b, accuracy).await;
    second_linked.waiting().await;
    scene.go("go");
    assert_eq!(second_linked.end().await, (vec![], Ok(())));
    assert!(scene.path("a").exists(), "the first job was done before");
    first_linked.end().await.1.unwrap();
    drop((first, second));
}

#[tokio::test]
async fn a_job_that_waits_for_the_machine_can_be_cancelled() {
    let mut scene = Scene::new().await;
    let first = scene.agent("first");
    let mut first_linked = scene.coordinator.agent().await;
    let (a, b) = (attempt(0, 1, 1), attempt(1, 1, 2));
    first_linked
        .assign(a, scene.latency(a, "record hang"))
        .await;
    first_linked.records(1).await;
    let second = scene.agent("second");
    let mut second_linked = scene.coordinator.agent().await;
    second_linked.assign(b, scene.latency(b, "finish")).await;
    second_linked.waiting().await;
    second_linked
        .tell(Coordinator::Cancel(wire::CancelJob {
            attempt: Some(b.into()),
            reason: "enough".to_owned(),
        }))
        .await;
    let failure = second_linked.end().await.1.unwrap_err();
    assert_eq!(failure.message, "cancelled: enough");
    drop((first, second));
}

#[tokio::test]
async fn an_agent_that_its_coordinator_lets_go_finishes_its_job_first() {
    let mut scene = Scene::new().await;
    let running = scene.agent("one");
    let mut linked = scene.coordinator.agent().await;
    let a = attempt(0, 1, 1);
    linked
        .assign(a, scene.latency(a, "record wait=$go finish"))
        .await;
    linked.records(1).await;
    // Twice is no more than once.
    for _ in 0..2 {
        linked.tell(Coordinator::Drain(wire::Drain {})).await;
    }
    let next = linked.next().await;
    assert!(matches!(next, Some(Agent::Draining(_))), "{next:?}");
    scene.go("go");
    assert_eq!(linked.end().await, (vec![], Ok(())));
    linked.acknowledge(a, 1, true).await;
    running.left().await;
}

#[tokio::test]
async fn an_idle_agent_says_that_it_leaves_before_it_does() {
    let mut scene = Scene::new().await;
    let running = scene.agent("one");
    let mut linked = scene.coordinator.agent().await;
    linked.tell(Coordinator::Drain(wire::Drain {})).await;
    let next = linked.next().await;
    assert!(matches!(next, Some(Agent::Draining(_))), "{next:?}");
    assert!(linked.next().await.is_none());
    running.left().await;
}

#[tokio::test]
async fn a_calibration_has_the_machine_to_itself() {
    let mut scene = Scene::new().await;
    let first = scene.agent("first");
    let mut first_linked = scene.coordinator.agent().await;
    let a = attempt(0, 1, 1);
    first_linked
        .assign(a, scene.latency(a, "record wait=$go mark=$a finish"))
        .await;
    first_linked.records(1).await;
    let second = scene.agent("second");
    let mut second_linked = scene.coordinator.agent().await;
    assert!(second_linked.register.calibrates);
    let memory_bytes = second_linked.register.machine.clone().unwrap().memory_bytes;
    // The one asked for last is answered.
    for number in [6, 7] {
        let calibrate = wire::Calibrate { number };
        second_linked.tell(Coordinator::Calibrate(calibrate)).await;
    }
    scene.go("go");
    let Some(Agent::Calibration(calibration)) = second_linked.next().await else {
        panic!("the calibration is due");
    };
    assert!(scene.path("a").exists(), "the job was done before");
    assert_eq!(
        calibration,
        wire::Calibration {
            number: 7,
            failure: String::new(),
            kernel: "fake".to_owned(),
            threads: 3,
            memory_read_bytes_per_s: memory_bytes as f64,
            int8_ops_per_s: 2.0,
            noise: 0.5,
            aa_ratio: 1.0,
            aa_low: 0.9,
            aa_high: 1.1,
            aa_pairs: 4,
        }
    );
    first_linked.end().await.1.unwrap();
    drop((first, second));
}

#[tokio::test]
async fn two_agents_cannot_have_one_state_folder() {
    let mut scene = Scene::new().await;
    let first = scene.agent("one");
    scene.coordinator.agent().await;
    let second = scene.agent("one");
    let refusal = soon(second.task).await.unwrap().unwrap_err();
    assert!(refusal.to_string().contains("another agent"), "{refusal}");
    drop(first);
}
