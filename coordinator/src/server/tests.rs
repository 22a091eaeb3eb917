//! The services as agents and people meet them: real gRPC over an in-memory pipe.

use std::path::Path;

use futures::StreamExt as _;
use hyper_util::rt::TokioIo;
use polars::prelude::{ParquetReader, SerReader as _};
use tokio::{io::DuplexStream, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Streaming,
    transport::{Channel, Endpoint, Uri},
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use tritmark_proto::{
    bundle::{
        AGREEMENT, EVIDENCE, ITEMS, JobState, MANIFEST, MEASUREMENTS, Manifest, SCORES, TOKENS,
    },
    record::Record,
    wire::{
        self, agent_link_client::AgentLinkClient, agent_message::Kind as FromAgent,
        control_client::ControlClient, coordinator_message::Kind as ToAgentKind, run_event,
    },
};

use super::*;
use crate::testing::{Bed, agent, facts, item, machine, reading, record, tokens};

/// A coordinator and the pipe to it.
struct Bench {
    stop: CancellationToken,
    served: JoinHandle<()>,
    channel: Channel,
}

impl Bench {
    async fn open(folder: &Path) -> Self {
        Self::open_at(folder.join("store.sqlite").into()).await
    }

    async fn open_at(store: Location) -> Self {
        let config = Config::new(store);
        let coordinator = Coordinator::open(config).await.unwrap();
        let stop = coordinator.stop_token();
        let (dial, accept) = mpsc::channel::<DuplexStream>(8);
        let served = tokio::spawn(async move {
            let connections = ReceiverStream::new(accept).map(Ok::<_, std::io::Error>);
            coordinator.serve_connections(connections).await.unwrap();
            coordinator.close().await;
        });
        let connector = tower::service_fn(move |_: Uri| {
            let dial = dial.clone();
            async move {
                let (near, far) = tokio::io::duplex(1 << 16);
                dial.send(far).await.map_err(std::io::Error::other)?;
                Ok::<_, std::io::Error>(TokioIo::new(near))
            }
        });
        let channel =
            Endpoint::from_static("http://coordinator").connect_with_connector_lazy(connector);
        Self {
            stop,
            served,
            channel,
        }
    }

    fn control(&self) -> ControlClient<Channel> {
        ControlClient::new(self.channel.clone())
    }

    async fn close(self) {
        self.stop.cancel();
        self.served.await.unwrap();
    }

    async fn submit(&self, plan_toml: &str) -> Result<wire::SubmitPlanResponse, tonic::Status> {
        let request = wire::SubmitPlanRequest {
            plan_toml: plan_toml.into(),
            plan_name: "a-plan".into(),
            base_dir: "/plans".into(),
            ..wire::SubmitPlanRequest::default()
        };
        Ok(self.control().submit_plan(request).await?.into_inner())
    }

    async fn watch(&self, run_id: &str) -> Streaming<wire::RunEvent> {
        let request = wire::WatchRunRequest {
            run_id: run_id.into(),
        };
        self.control()
            .watch_run(request)
            .await
            .unwrap()
            .into_inner()
    }

    async fn fetch(&self, run_id: &str) -> Vec<(String, Vec<u8>)> {
        let request = wire::FetchResultsRequest {
            run_id: run_id.into(),
        };
        let mut chunks = self
            .control()
            .fetch_results(request)
            .await
            .unwrap()
            .into_inner();
        let mut files: Vec<(String, Vec<u8>)> = Vec::new();
        let mut is_whole = true;
        while let Some(chunk) = chunks.message().await.unwrap() {
            if is_whole {
                files.push((chunk.name.clone(), Vec::new()));
            }
            let (name, bytes) = files.last_mut().unwrap();
            assert_eq!(*name, chunk.name);
            bytes.extend(chunk.data);
            is_whole = chunk.last;
        }
        assert!(is_whole);
        files
    }
}

/// An agent that does as the test says.
struct Scripted {
    say: mpsc::Sender<wire::AgentMessage>,
    heard: Streaming<wire::CoordinatorMessage>,
    assigned_early: Option<wire::Assign>,
}

impl Scripted {
    async fn dial(bench: &Bench, first: FromAgent) -> Result<Self, tonic::Status> {
        let (say, said) = mpsc::channel(16);
        say.send(wire::AgentMessage { kind: Some(first) })
            .await
            .unwrap();
        let heard = AgentLinkClient::new(bench.channel.clone())
            .link(ReceiverStream::new(said))
            .await?
            .into_inner();
        Ok(Self {
            say,
            heard,
            assigned_early: None,
        })
    }

    async fn register(
        bench: &Bench,
        running: Option<wire::AttemptRef>,
    ) -> (Self, wire::Registered) {
        let known = agent(1);
        let register = wire::Register {
            agent_id: known.id,
            version: "0.1.0".into(),
            machine: Some(machine("machine-1").into()),
            labels: [("room".to_owned(), "2".to_owned())].into(),
            running,
            suites: vec!["latency".into(), "accuracy".into()],
            ..wire::Register::default()
        };
        let mut agent = Self::dial(bench, FromAgent::Register(register))
            .await
            .unwrap();
        match agent.hear().await {
            ToAgentKind::Registered(registered) => (agent, registered),
            other => panic!("{other:?} is no answer to a registration"),
        }
    }

    async fn say(&self, kind: FromAgent) {
        self.say
            .send(wire::AgentMessage { kind: Some(kind) })
            .await
            .unwrap();
    }

    async fn hear(&mut self) -> ToAgentKind {
        self.heard.message().await.unwrap().unwrap().kind.unwrap()
    }

    async fn assigned(&mut self) -> wire::Assign {
        if let Some(assign) = self.assigned_early.take() {
            return assign;
        }
        match self.hear().await {
            ToAgentKind::Assign(assign) => assign,
            other => panic!("{other:?} is no assignment"),
        }
    }

    async fn acknowledged(&mut self) -> (u64, bool) {
        loop {
            match self.hear().await {
                ToAgentKind::Ack(ack) => return (ack.stored_below, ack.finished),
                // The next job may come before the last one's end is acknowledged: two tasks say so.
                ToAgentKind::Assign(assign) if self.assigned_early.is_none() => {
                    self.assigned_early = Some(assign);
                }
                other => panic!("{other:?} is no acknowledgement"),
            }
        }
    }

    async fn records(&self, attempt: &wire::AttemptRef, records: Vec<Record>) {
        self.say(FromAgent::Records(wire::RecordBatch {
            attempt: Some(attempt.clone()),
            records: records.into_iter().map(Into::into).collect(),
        }))
        .await;
    }

    async fn finished(&self, attempt: &wire::AttemptRef, n_records: u64) {
        self.say(FromAgent::Finished(wire::JobFinished {
            attempt: Some(attempt.clone()),
            n_records,
            at_unix_ns: 0,
            failure: None,
            signed: None,
        }))
        .await;
    }
}

const PLAN: &str = "[[models]]\nid = \"m\"\npath = \"m.gguf\"\n\
                    [suites.latency]\nn_prompt = [16]\nn_gen = [3]\n\
                    [suites.accuracy]\ntasks = [\"boolq\"]\ndata = \"d\"\n";

fn table(files: &[(String, Vec<u8>)], name: &str) -> polars::frame::DataFrame {
    let (_, bytes) = files.iter().find(|(file, _)| file == name).unwrap();
    ParquetReader::new(std::io::Cursor::new(bytes.clone()))
        .finish()
        .unwrap()
}

#[tokio::test]
async fn a_plan_that_wants_programs_scored_here_needs_a_scorer() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let folder = dir.path().join("humaneval");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("test.jsonl"), "{}").unwrap();
    let plan = |place: &str| {
        format!(
            "[[models]]\nid = \"a\"\npath = \"a\"\n[suites.accuracy]\ndata = \"{}\"\n\
             tasks = [\"humaneval\"]\nscore_on = \"{place}\"\n",
            dir.path().display()
        )
    };
    let refusal = bench.submit(&plan("coordinator")).await.unwrap_err();
    assert_eq!(refusal.code(), Code::InvalidArgument);
    assert_eq!(
        refusal.message(),
        "line 7, key `suites.accuracy.score_on`: the coordinator cannot score programs: it was \
         started without a scorer"
    );
    bench.submit(&plan("agent")).await.unwrap();
    bench.close().await;
}

#[tokio::test]
async fn a_plan_goes_in_and_its_results_come_out() {
    in_and_out(&Bed::sqlite()).await;
}

#[tokio::test]
async fn a_plan_goes_in_and_its_results_come_out_on_postgres() {
    if let Some(bed) = Bed::postgres().await {
        in_and_out(&bed).await;
    }
}

async fn in_and_out(bed: &Bed) {
    let bench = Bench::open_at(bed.location()).await;
    let (mut agent, registered) = Scripted::register(&bench, None).await;
    assert!(!registered.abandon_running);
    let submitted = bench.submit(PLAN).await.unwrap();
    assert_eq!(submitted.n_jobs, 2);
    let mut events = bench.watch(&submitted.run_id).await;

    let assign = agent.assigned().await;
    let attempt = assign.attempt.unwrap();
    assert_eq!(assign.items_done, 0);
    agent
        .say(FromAgent::Progress(wire::Progress {
            attempt: Some(attempt.clone()),
            done: 1,
            total: 5,
            stage: "repetition".into(),
        }))
        .await;
    let batch = vec![
        record(0, facts(None)),
        record(1, reading(3.5)),
        record(2, tokens()),
    ];
    agent.records(&attempt, batch[..2].to_vec()).await;
    assert_eq!(agent.acknowledged().await, (2, false));
    agent.records(&attempt, batch).await;
    assert_eq!(agent.acknowledged().await, (3, false));
    agent.finished(&attempt, 3).await;
    assert_eq!(agent.acknowledged().await, (3, true));

    let assign = agent.assigned().await;
    let attempt = assign.attempt.unwrap();
    let items = vec![
        record(0, facts(Some(2))),
        record(1, item(0, -1.0)),
        record(2, item(1, -2.0)),
    ];
    agent.records(&attempt, items).await;
    assert_eq!(agent.acknowledged().await, (3, false));
    agent.finished(&attempt, 3).await;
    assert_eq!(agent.acknowledged().await, (3, true));

    let mut seen = Vec::new();
    while let Some(event) = events.message().await.unwrap() {
        seen.push(event.kind.unwrap());
    }
    assert!(matches!(&seen[0], run_event::Kind::Summary(first) if first.n_jobs == 2));
    let has_progress = seen.iter().any(|event| {
        matches!(event, run_event::Kind::Progress(progress) if progress.stage == "repetition")
    });
    assert!(has_progress);
    match seen.last() {
        Some(run_event::Kind::Summary(last)) => {
            assert_eq!((last.n_succeeded, last.n_queued), (2, 0));
            assert!(last.ended_unix_ns.is_some());
        }
        other => panic!("{other:?} is no end"),
    }

    let files = bench.fetch(&submitted.run_id).await;
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            MANIFEST,
            MEASUREMENTS,
            ITEMS,
            SCORES,
            TOKENS,
            AGREEMENT,
            EVIDENCE
        ]
    );
    let manifest: Manifest = serde_json::from_slice(&files[0].1).unwrap();
    assert_eq!(manifest.run.plan_toml, PLAN);
    assert_eq!(manifest.jobs.len(), 2);
    assert!(
        manifest
            .jobs
            .iter()
            .all(|job| job.state == JobState::Succeeded)
    );
    let values = table(&files, MEASUREMENTS);
    assert_eq!(values.height(), 1, "a record sent twice is stored once");
    assert_eq!(
        values.column("value").unwrap().f64().unwrap().get(0),
        Some(3.5)
    );
    assert_eq!(table(&files, ITEMS).height(), 2);
    assert_eq!(table(&files, SCORES).height(), 2);
    assert_eq!(table(&files, TOKENS).height(), 3);

    let mut late = bench.watch(&submitted.run_id).await;
    let mut n_events = 0;
    while let Some(_event) = late.message().await.unwrap() {
        n_events += 1;
    }
    assert_eq!(n_events, 4, "summary, two jobs, summary");
    bench.close().await;
}

#[tokio::test]
async fn a_watcher_that_does_not_keep_up_still_sees_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let (mut agent, _) = Scripted::register(&bench, None).await;
    let plan = "[[models]]\nid = \"m\"\npath = \"m\"\n[suites.latency]\n";
    let run_id = bench.submit(plan).await.unwrap().run_id;
    let mut events = bench.watch(&run_id).await;
    let attempt = agent.assigned().await.attempt.unwrap();
    for done in 0..4000 {
        agent
            .say(FromAgent::Progress(wire::Progress {
                attempt: Some(attempt.clone()),
                done,
                total: 4000,
                stage: "repetition ".repeat(200),
            }))
            .await;
    }
    agent.finished(&attempt, 0).await;
    assert_eq!(agent.acknowledged().await, (0, true));
    let mut n_progress = 0;
    let mut last = None;
    while let Some(event) = events.message().await.unwrap() {
        n_progress += u32::from(matches!(event.kind, Some(run_event::Kind::Progress(_))));
        last = event.kind;
    }
    assert!(n_progress < 4000, "the watcher was meant to fall behind");
    assert!(
        matches!(&last, Some(run_event::Kind::Summary(summary)) if summary.n_succeeded == 1),
        "{last:?}"
    );
    bench.close().await;
}

#[tokio::test]
async fn lists_say_who_is_there_and_what_runs() {
    lists(&Bed::sqlite()).await;
}

#[tokio::test]
async fn lists_say_who_is_there_and_what_runs_on_postgres() {
    if let Some(bed) = Bed::postgres().await {
        lists(&bed).await;
    }
}

async fn lists(bed: &Bed) {
    let bench = Bench::open_at(bed.location()).await;
    let (mut agent, _) = Scripted::register(&bench, None).await;
    let run_id = bench.submit(PLAN).await.unwrap().run_id;
    let attempt = agent.assigned().await.attempt;
    let mut control = bench.control();
    let agents = control
        .list_agents(wire::ListAgentsRequest {})
        .await
        .unwrap()
        .into_inner()
        .agents;
    assert_eq!(agents.len(), 1);
    assert!(agents[0].connected);
    assert_eq!(
        (&agents[0].running, agents[0].labels["room"].as_str()),
        (&attempt, "2")
    );
    let runs = control
        .list_runs(wire::ListRunsRequest {})
        .await
        .unwrap()
        .into_inner()
        .runs;
    assert_eq!((runs[0].n_running, runs[0].n_queued), (1, 1));
    assert_eq!(
        (&runs[0].run_id, runs[0].name.as_str()),
        (&run_id, "a-plan")
    );
    let request = wire::ListJobsRequest {
        run_id: run_id.clone(),
    };
    let jobs = control.list_jobs(request).await.unwrap().into_inner().jobs;
    let states: Vec<&str> = jobs.iter().map(|job| job.state().as_str_name()).collect();
    assert_eq!(states, ["JOB_STATE_RUNNING", "JOB_STATE_QUEUED"]);
    assert_eq!(jobs[0].machine_id.as_deref(), Some("machine-1"));

    let request = wire::CancelRunRequest { run_id };
    let cancelled = control.cancel_run(request).await.unwrap().into_inner();
    assert_eq!(cancelled.n_cancelled, 2);
    assert!(matches!(agent.hear().await, ToAgentKind::Cancel(_)));
    agent
        .records(&attempt.unwrap(), vec![record(0, reading(1.0))])
        .await;
    assert!(matches!(agent.hear().await, ToAgentKind::Cancel(_)));
    assert_eq!(
        agent.acknowledged().await,
        (0, true),
        "what was cancelled may be forgotten"
    );
    bench.close().await;
}

#[tokio::test]
async fn a_wrong_plan_is_refused_with_key_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let refusal = bench
        .submit("[[models]]\nid = \"m\"\npth = \"x\"\n")
        .await
        .unwrap_err();
    assert_eq!(refusal.code(), Code::InvalidArgument);
    assert!(
        refusal.message().starts_with("line 3, key `models[0].pth`"),
        "{refusal}"
    );
    let (_agent, _) = Scripted::register(&bench, None).await;
    let refusal = bench
        .submit(&format!("{PLAN}[select]\narch = \"aarch64\"\n"))
        .await
        .unwrap_err();
    assert_eq!(
        refusal.message(),
        "line 10, key `select`: none of the 1 known agents is what the selector asks for"
    );
    let unknown = wire::WatchRunRequest {
        run_id: tritmark_proto::job::RunId::generate().to_string(),
    };
    let refusal = bench.control().watch_run(unknown).await.unwrap_err();
    assert_eq!(refusal.code(), Code::NotFound);
    let senseless = wire::ListJobsRequest { run_id: "x".into() };
    let refusal = bench.control().list_jobs(senseless).await.unwrap_err();
    assert_eq!(refusal.code(), Code::InvalidArgument);
    bench.close().await;
}

#[tokio::test]
async fn an_agent_carries_on_with_a_restarted_coordinator() {
    carries_on(&Bed::sqlite()).await;
}

#[tokio::test]
async fn an_agent_carries_on_with_a_restarted_coordinator_on_postgres() {
    if let Some(bed) = Bed::postgres().await {
        carries_on(&bed).await;
    }
}

async fn carries_on(bed: &Bed) {
    let bench = Bench::open_at(bed.location()).await;
    let (mut agent, _) = Scripted::register(&bench, None).await;
    let run_id = bench.submit(PLAN).await.unwrap().run_id;
    let attempt = agent.assigned().await.attempt.unwrap();
    agent.records(&attempt, vec![record(0, facts(None))]).await;
    assert_eq!(agent.acknowledged().await, (1, false));
    let mut events = bench.watch(&run_id).await;
    events.message().await.unwrap();
    bench.close().await;
    loop {
        match events.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the run has not ended"),
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable);
                break;
            }
        }
    }
    assert!(agent.heard.message().await.is_err());

    let bench = Bench::open_at(bed.location()).await;
    let (mut agent, registered) = Scripted::register(&bench, Some(attempt.clone())).await;
    assert!(!registered.abandon_running);
    agent
        .records(
            &attempt,
            vec![record(0, facts(None)), record(1, reading(2.0))],
        )
        .await;
    assert_eq!(agent.acknowledged().await, (2, false));
    agent.finished(&attempt, 2).await;
    assert_eq!(agent.acknowledged().await, (2, true));
    let next = agent.assigned().await.attempt.unwrap();
    assert!(next.fence > attempt.fence);
    bench.close().await;
}

#[tokio::test]
async fn records_that_make_no_sense_fail_their_job_and_not_the_link() {
    makes_no_sense(&Bed::sqlite()).await;
}

#[tokio::test]
async fn records_that_make_no_sense_fail_their_job_and_not_the_link_on_postgres() {
    if let Some(bed) = Bed::postgres().await {
        makes_no_sense(&bed).await;
    }
}

async fn makes_no_sense(bed: &Bed) {
    let bench = Bench::open_at(bed.location()).await;
    let (mut agent, _) = Scripted::register(&bench, None).await;
    let run_id = bench.submit(PLAN).await.unwrap().run_id;
    let attempt = agent.assigned().await.attempt.unwrap();
    agent
        .say(FromAgent::Records(wire::RecordBatch {
            attempt: Some(attempt.clone()),
            records: vec![wire::Record::default()],
        }))
        .await;
    assert!(matches!(agent.hear().await, ToAgentKind::Cancel(_)));
    assert_eq!(agent.acknowledged().await, (0, true));
    agent.assigned().await;
    let request = wire::ListJobsRequest { run_id };
    let jobs = bench
        .control()
        .list_jobs(request)
        .await
        .unwrap()
        .into_inner()
        .jobs;
    assert_eq!(jobs[0].state(), wire::JobState::Failed);
    let message = jobs[0].failure.clone().unwrap().message;
    assert!(
        message.starts_with("the agent sent a record that makes no sense"),
        "{message}"
    );
    bench.close().await;
}

#[tokio::test]
async fn a_link_that_does_not_begin_with_a_registration_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let senseless = wire::Register {
        agent_id: "no uuid".into(),
        ..wire::Register::default()
    };
    let cases = [
        (
            FromAgent::Draining(wire::Draining {}),
            Code::FailedPrecondition,
        ),
        (FromAgent::Register(senseless), Code::InvalidArgument),
    ];
    for (first, code) in cases {
        let mut agent = Scripted::dial(&bench, first).await.unwrap();
        let refusal = agent.heard.message().await.unwrap_err();
        assert_eq!(refusal.code(), code, "{refusal}");
    }
    bench.close().await;
}

#[tokio::test]
async fn other_machines_are_refused_unless_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::open(Config::new(dir.path().join("s.sqlite")))
        .await
        .unwrap();
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let refusal = coordinator.serve(listener).await.unwrap_err();
    assert!(
        matches!(refusal, CoordinatorError::Insecure(_)),
        "{refusal}"
    );
    coordinator.close().await;
}

#[tokio::test]
async fn health_and_reflection_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let request = tonic_health::pb::HealthCheckRequest {
        service: "tritmark.v1.Control".into(),
    };
    let answer = tonic_health::pb::health_client::HealthClient::new(bench.channel.clone())
        .check(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        answer.status(),
        tonic_health::pb::health_check_response::ServingStatus::Serving
    );

    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = ServerReflectionClient::new(bench.channel.clone())
        .server_reflection_info(futures::stream::iter([request]))
        .await
        .unwrap()
        .into_inner();
    let answer = answers
        .message()
        .await
        .unwrap()
        .unwrap()
        .message_response
        .unwrap();
    let MessageResponse::ListServicesResponse(services) = answer else {
        panic!("{answer:?} is no list of services");
    };
    let names: Vec<&str> = services
        .service
        .iter()
        .map(|service| service.name.as_str())
        .collect();
    assert!(names.contains(&"tritmark.v1.AgentLink") && names.contains(&"tritmark.v1.Control"));
    drop(answers);
    bench.close().await;
}

#[tokio::test]
async fn an_open_run_is_found_again_by_its_plan() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let run_id = bench.submit(PLAN).await.unwrap().run_id;
    bench.close().await;
    let config = Config::new(dir.path().join("store.sqlite"));
    let coordinator = Coordinator::open(config).await.unwrap();
    let found = coordinator
        .newest_run_of(PLAN, "/plans")
        .await
        .unwrap()
        .unwrap();
    assert_eq!((found.id.to_string(), found.ended_unix_ns), (run_id, None));
    assert!(
        coordinator
            .newest_run_of(PLAN, "/elsewhere")
            .await
            .unwrap()
            .is_none()
    );
    coordinator.close().await;
}
