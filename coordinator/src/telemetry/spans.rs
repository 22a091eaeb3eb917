//! The way of a job as spans of one trace.
//!
//! ```text
//! job            submitted ─────────────────────────────────────────────► final
//!   queue        submitted ──► begun            lost ──► begun
//!   attempt 1                  begun ─────────► lost
//!   attempt 2                                            begun ────────► ended
//!     load                                               begun ─► facts
//!     measure                                                     facts ─► last record
//!     hand over                                                   last record ─► ended
//! ```
//!
//! Ids are hashes of the job's name, so that a coordinator that takes over goes on with the same
//! trace. `load` and `measure` are by the agent's clock, the others by the coordinator's.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::{Span, Status, span::SpanKind, status::StatusCode},
};
use tritmark_proto::{
    bundle::JobState,
    job::{AttemptId, JobId},
};

use crate::store::{AttemptEnd, AttemptState};

/// What is told of a job besides its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct JobNames {
    pub(super) run_name: String,
    pub(super) model: String,
    pub(super) suite: &'static str,
}

/// An attempt that runs, or did until now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Course {
    pub(super) id: AttemptId,
    pub(super) agent: String,
    pub(super) machine: String,
    pub(super) started_unix_ns: i64,
    /// When its model was loaded, and its latest record found out.
    pub(super) measured_unix_ns: Option<(i64, i64)>,
}

/// Returns the span of the time a job waited for an attempt.
pub(super) fn queue(attempt: AttemptId, since: i64, until: i64) -> Span {
    Span {
        parent_span_id: id(attempt.job, "job", 0),
        ..span(attempt, "queue", since, until)
    }
}

/// Returns the spans of an attempt that has ended.
pub(super) fn attempt(course: &Course, end: &AttemptEnd) -> Vec<Span> {
    let of_attempt = id(course.id.job, "attempt", course.id.attempt.get());
    let mut attributes = vec![
        text("tritmark.agent", &course.agent),
        text("tritmark.machine", &course.machine),
        number("tritmark.attempt", i64::from(course.id.attempt.get())),
        number(
            "tritmark.fence",
            i64::try_from(course.id.fence).unwrap_or(i64::MAX),
        ),
        text("tritmark.state", end.state.name()),
    ];
    if let Some(n_records) = end.n_records {
        let n = i64::try_from(n_records).unwrap_or(i64::MAX);
        attributes.push(number("tritmark.records", n));
    }
    let problem = match (&end.failure, end.state) {
        (Some(failure), _) => Some(failure.message.clone()),
        (None, AttemptState::Lost) => Some("its agent was not heard of".to_owned()),
        (None, _) => None,
    };
    let mut spans = vec![Span {
        parent_span_id: id(course.id.job, "job", 0),
        attributes,
        status: Some(status(problem)),
        kind: SpanKind::Client.into(),
        ..span(course.id, "attempt", course.started_unix_ns, end.at_unix_ns)
    }];
    if let Some((loaded, last)) = course.measured_unix_ns {
        let parts = [
            ("load", course.started_unix_ns, loaded),
            ("measure", loaded, last),
            ("hand over", last, end.at_unix_ns),
        ];
        spans.extend(parts.map(|(name, from, until)| Span {
            parent_span_id: of_attempt.clone(),
            ..span(course.id, name, from, until)
        }));
    }
    spans
}

/// Returns the span of a job that is over.
pub(super) fn job(
    job: JobId,
    names: &JobNames,
    submitted_unix_ns: i64,
    state: JobState,
    at_unix_ns: i64,
) -> Span {
    let problem = match state {
        JobState::Failed => Some("given up".to_owned()),
        _ => None,
    };
    Span {
        trace_id: trace_id(job),
        span_id: id(job, "job", 0),
        name: "job".to_owned(),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: time(submitted_unix_ns),
        end_time_unix_nano: time(at_unix_ns.max(submitted_unix_ns)),
        attributes: vec![
            text("tritmark.run", &job.run.to_string()),
            text("tritmark.run.name", &names.run_name),
            number("tritmark.job", i64::from(job.index)),
            text("tritmark.model", &names.model),
            text("tritmark.suite", names.suite),
            text("tritmark.state", state.name()),
        ],
        status: Some(status(problem)),
        ..Span::default()
    }
}

/// A span of an attempt; one that would end before it begins, by two clocks, has no length.
fn span(attempt: AttemptId, name: &str, from: i64, until: i64) -> Span {
    Span {
        trace_id: trace_id(attempt.job),
        span_id: id(attempt.job, name, attempt.attempt.get()),
        name: name.to_owned(),
        kind: SpanKind::Internal.into(),
        start_time_unix_nano: time(from),
        end_time_unix_nano: time(until.max(from)),
        ..Span::default()
    }
}

fn trace_id(job: JobId) -> Vec<u8> {
    hash(job, "trace", 0)[..16].to_vec()
}

fn id(job: JobId, name: &str, attempt: u32) -> Vec<u8> {
    hash(job, name, attempt)[..8].to_vec()
}

fn hash(job: JobId, name: &str, attempt: u32) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("tritmark trace v1");
    hasher.update(job.run.0.as_bytes());
    hasher.update(&job.index.to_le_bytes());
    hasher.update(&attempt.to_le_bytes());
    hasher.update(name.as_bytes());
    *hasher.finalize().as_bytes()
}

fn time(unix_ns: i64) -> u64 {
    u64::try_from(unix_ns).unwrap_or(0)
}

fn status(problem: Option<String>) -> Status {
    let code = match problem {
        Some(_) => StatusCode::Error,
        None => StatusCode::Ok,
    };
    Status {
        message: problem.unwrap_or_default(),
        code: code.into(),
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}
