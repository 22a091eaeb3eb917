use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    trace::v1::{Span, status::StatusCode},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use tritmark_proto::bundle::JobState;

use super::*;
use crate::{
    Config, Coordinator,
    store::{AttemptEnd, AttemptState, StoreError},
    testing::{facts, job, latency, reading, record, run, start, store},
};

/// A collector that keeps what it is sent.
#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Kept {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let spans = request.into_inner().resource_spans;
        let spans = spans.into_iter().flat_map(|of| of.scope_spans);
        let mut kept = self.0.lock().unwrap();
        kept.extend(spans.flat_map(|of| of.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn collector() -> (String, Kept) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let kept = Kept::default();
    let service = TraceServiceServer::new(kept.clone());
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    (address, kept)
}

fn end(state: AttemptState, job_state: JobState, at_unix_ns: i64) -> AttemptEnd {
    AttemptEnd {
        state,
        job_state,
        at_unix_ns,
        n_records: (state == AttemptState::Succeeded).then_some(2),
        failure: None,
        counts: true,
        voids_earlier: false,
        if_lease_over_by_unix_ns: None,
    }
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|pair| pair.key == key)?;
    Some(match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    })
}

#[tokio::test]
async fn a_jobs_whole_way_is_one_trace() {
    let folder = tempfile::tempdir().unwrap();
    let (address, kept) = collector().await;
    let (traces, task) = Traces::start(&address).unwrap();
    let (observed, metrics) = observe(Arc::new(store(folder.path()).await), Some(traces));

    let run = run("a");
    let jobs = [
        job(run.id, 0, "m", None, latency()),
        job(run.id, 1, "n", None, latency()),
    ];
    observed.add_run(&run, &jobs).await.unwrap();
    let lost = start(&*observed, jobs[0].id, 1).await;
    let ended = end(AttemptState::Lost, JobState::Queued, 5_000);
    observed.end_attempt(lost, &ended).await.unwrap();
    let second = start(&*observed, jobs[0].id, 2).await;
    let records = [record(0, facts(None)), record(1, reading(1.0))];
    observed.add_records(second, &records).await.unwrap();
    let measured = records[1].at_unix_ns;
    let ended = end(
        AttemptState::Succeeded,
        JobState::Succeeded,
        measured + 1_000,
    );
    observed.end_attempt(second, &ended).await.unwrap();
    // A message too late.
    let late = observed.add_records(lost, &records).await.unwrap_err();
    assert!(matches!(late, StoreError::Stale { .. }), "{late}");
    observed.cancel_run(run.id, measured + 2_000).await.unwrap();
    drop(observed);
    task.await.unwrap();

    let spans = kept.0.lock().unwrap().clone();
    let of = |model: &str| {
        let is_it = |span: &&Span| {
            span.name == "job" && attribute(span, "tritmark.model").as_deref() == Some(model)
        };
        spans.iter().find(is_it).unwrap()
    };
    let root = of("m");
    assert_eq!(root.start_time_unix_nano, 1_000);
    assert_eq!(attribute(root, "tritmark.state").unwrap(), "succeeded");
    assert_eq!(attribute(root, "tritmark.run.name").unwrap(), "a");
    assert!(root.parent_span_id.is_empty());
    let cancelled = of("n");
    assert_eq!(attribute(cancelled, "tritmark.state").unwrap(), "cancelled");
    assert_ne!(cancelled.trace_id, root.trace_id);

    let trace: Vec<&Span> = spans
        .iter()
        .filter(|span| span.trace_id == root.trace_id)
        .collect();
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for span in &trace {
        *names.entry(&span.name).or_default() += 1;
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
        let ids = trace.iter().filter(|other| other.span_id == span.span_id);
        assert_eq!(ids.count(), 1, "{}", span.name);
    }
    let expected = [
        ("attempt", 2),
        ("hand over", 1),
        ("job", 1),
        ("load", 1),
        ("measure", 1),
        ("queue", 2),
    ];
    assert_eq!(names, BTreeMap::from(expected));
    let attempts: Vec<&&Span> = trace.iter().filter(|span| span.name == "attempt").collect();
    for attempt in &attempts {
        assert_eq!(attempt.parent_span_id, root.span_id);
        let code = attempt.status.as_ref().unwrap().code;
        let is_lost = attribute(attempt, "tritmark.state").unwrap() == "lost";
        assert_eq!(code == i32::from(StatusCode::Error), is_lost);
    }
    let hand_over = trace.iter().find(|span| span.name == "hand over").unwrap();
    assert!(
        attempts
            .iter()
            .any(|attempt| attempt.span_id == hand_over.parent_span_id)
    );
    assert_eq!(
        hand_over.end_time_unix_nano - hand_over.start_time_unix_nano,
        1_000
    );

    let text = metrics.text().unwrap();
    for line in [
        "tritmark_runs_submitted_total 1",
        "tritmark_jobs_submitted_total 2",
        "tritmark_attempts_started_total 2",
        "tritmark_attempts_ended_total{state=\"lost\"} 1",
        "tritmark_jobs_ended_total{state=\"succeeded\"} 1",
        "tritmark_jobs_ended_total{state=\"cancelled\"} 1",
        "tritmark_records_total 2",
        "tritmark_stale_messages_total 1",
        "tritmark_job_queue_seconds_count 2",
        "tritmark_spans_lost_total 0",
        "tritmark_store_operation_seconds_count{operation=\"add_records\"} 2",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    assert!(!text.contains("tritmark_store_errors_total{"), "{text}");
    assert!(text.ends_with("# EOF\n"));
}

#[tokio::test]
async fn a_trace_goes_on_with_the_next_coordinator() {
    let folder = tempfile::tempdir().unwrap();
    let inner: Arc<dyn Store> = Arc::new(store(folder.path()).await);
    let (address, kept) = collector().await;
    let run = run("a");
    let job = job(run.id, 0, "m", None, latency());
    let (traces, task) = Traces::start(&address).unwrap();
    let (first, _) = observe(Arc::clone(&inner), Some(traces));
    first
        .add_run(&run, std::slice::from_ref(&job))
        .await
        .unwrap();
    let attempt = start(&*first, job.id, 1).await;
    drop(first);
    task.await.unwrap();

    let (traces, task) = Traces::start(&address).unwrap();
    let (second, _) = observe(inner, Some(traces));
    let ended = end(AttemptState::Failed, JobState::Failed, 9_000);
    second.end_attempt(attempt, &ended).await.unwrap();
    drop(second);
    task.await.unwrap();
    let spans = kept.0.lock().unwrap().clone();
    let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["queue", "attempt", "job"]);
    assert_eq!(spans[1].start_time_unix_nano, 2_000);
    assert_eq!(spans[1].parent_span_id, spans[2].span_id);
    assert_eq!(spans[0].parent_span_id, spans[2].span_id);
    assert!(spans.iter().all(|span| span.trace_id == spans[0].trace_id));
}

#[tokio::test]
async fn a_collector_that_is_away_costs_spans_alone() {
    let folder = tempfile::tempdir().unwrap();
    // Nobody listens there any more.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let (traces, task) = Traces::start(&address).unwrap();
    let lost = traces.lost();
    let (observed, _) = observe(Arc::new(store(folder.path()).await), Some(traces));
    let run = run("a");
    let job = job(run.id, 0, "m", None, latency());
    observed
        .add_run(&run, std::slice::from_ref(&job))
        .await
        .unwrap();
    let attempt = start(&*observed, job.id, 1).await;
    let ended = end(AttemptState::Failed, JobState::Failed, 9_000);
    observed.end_attempt(attempt, &ended).await.unwrap();
    drop(observed);
    task.await.unwrap();
    assert_eq!(lost.load(std::sync::atomic::Ordering::Relaxed), 3);
}

#[tokio::test]
async fn only_plain_addresses_are_taken() {
    for address in ["https://collector:4317", "collector", "", "http//a b"] {
        let refused = Traces::start(address).unwrap_err();
        assert!(
            refused.to_string().contains("http://HOST:PORT"),
            "{refused}"
        );
    }
}

/// Returns status line with headers, and body.
async fn get(address: std::net::SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[tokio::test]
async fn figures_are_served_while_the_coordinator_lives() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::new(folder.path().join("store.sqlite"));
    let coordinator = Arc::new(Coordinator::open(config).await.unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn({
        let coordinator = Arc::clone(&coordinator);
        async move { coordinator.serve_metrics(listener).await }
    });
    let run = run("a");
    let jobs = [job(run.id, 0, "m", None, latency())];
    coordinator.store().add_run(&run, &jobs).await.unwrap();

    let (head, body) = get(address, "/metrics").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("application/openmetrics-text; version=1.0.0"));
    assert!(body.contains("tritmark_jobs{state=\"queued\"} 1"), "{body}");
    assert!(body.contains("tritmark_agents{state=\"idle\"} 0"), "{body}");
    assert!(
        body.contains("# TYPE tritmark_process_cpu_seconds counter"),
        "{body}"
    );
    assert!(
        body.contains("tritmark_process_resident_memory_bytes "),
        "{body}"
    );
    assert!(body.contains(concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"")));
    for path in ["/livez", "/readyz"] {
        assert_eq!(get(address, path).await.1, "ok\n");
    }
    assert!(get(address, "/else").await.0.starts_with("HTTP/1.1 404"));

    coordinator.stop_token().cancel();
    tokio::time::timeout(Duration::from_secs(10), serving)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}
