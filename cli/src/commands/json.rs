//! What the control service answers, as JSON with the names the protocol has.

use serde_json::{Value, json};
use tritmark_proto::wire::{self, failure::Class, run_event::Kind};

use crate::progress::{state_name, suite_label};

/// An event of a run; `kind` tells the three apart.
pub(crate) fn event(event: &wire::RunEvent) -> Value {
    let wire::RunEvent { at_unix_ns, kind } = event;
    let (name, body) = match kind {
        Some(Kind::Summary(run)) => ("summary", summary(run)),
        Some(Kind::Job(info)) => ("job", job(info)),
        Some(Kind::Progress(progress)) => {
            let wire::JobProgress {
                job_index,
                done,
                total,
                stage,
            } = progress;
            (
                "progress",
                json!({ "job_index": job_index, "done": done, "total": total, "stage": stage }),
            )
        }
        None => ("unknown", Value::Null),
    };
    json!({ "at_unix_ns": at_unix_ns, "kind": name, name: body })
}

/// A run.
pub(crate) fn summary(run: &wire::RunSummary) -> Value {
    let wire::RunSummary {
        run_id,
        name,
        submitted_unix_ns,
        ended_unix_ns,
        n_jobs,
        n_queued,
        n_running,
        n_succeeded,
        n_failed,
        n_cancelled,
        n_expired,
        priority,
        expires_unix_ns,
        paused_unix_ns,
    } = run;
    json!({
        "run_id": run_id,
        "name": name,
        "submitted_unix_ns": submitted_unix_ns,
        "ended_unix_ns": ended_unix_ns,
        "n_jobs": n_jobs,
        "n_queued": n_queued,
        "n_running": n_running,
        "n_succeeded": n_succeeded,
        "n_failed": n_failed,
        "n_cancelled": n_cancelled,
        "n_expired": n_expired,
        "priority": priority,
        "expires_unix_ns": expires_unix_ns,
        "paused_unix_ns": paused_unix_ns,
    })
}

/// A job and how far it is.
pub(crate) fn job(info: &wire::JobInfo) -> Value {
    let wire::JobInfo {
        run_id,
        job,
        state: _,
        attempt,
        agent_id,
        machine_id,
        failure,
        started_unix_ns,
        ended_unix_ns,
    } = info;
    let model = job.as_ref().and_then(|job| job.model.as_ref());
    json!({
        "run_id": run_id,
        "job_index": job.as_ref().map(|job| job.index),
        "model": model.map(|model| &model.id),
        "kernel": job.as_ref().map(|job| &job.kernel),
        "threads": job.as_ref().map(|job| job.threads),
        "suite": job.as_ref().map(|job| suite_label(job.suite.as_ref())),
        "state": state_name(info.state()),
        "attempt": attempt,
        "agent_id": agent_id,
        "machine_id": machine_id,
        "failure": failure.as_ref().map(|failure| json!({
            "class": match failure.class() {
                Class::Unspecified => "unknown",
                Class::Transient => "transient",
                Class::Permanent => "permanent",
                Class::Infrastructure => "infrastructure",
                Class::Expired => "expired",
            },
            "message": failure.message,
            "stderr": failure.stderr,
        })),
        "started_unix_ns": started_unix_ns,
        "ended_unix_ns": ended_unix_ns,
    })
}

/// An agent.
pub(crate) fn agent(agent: &wire::AgentInfo) -> Value {
    let wire::AgentInfo {
        agent_id,
        version,
        machine,
        labels,
        connected,
        last_seen_unix_ns,
        running,
        draining,
        quarantine,
        calibrating,
    } = agent;
    // Maps of the protocol have no order; a reader wants one.
    let labels: std::collections::BTreeMap<_, _> = labels.iter().collect();
    json!({
        "agent_id": agent_id,
        "version": version,
        "machine_id": machine.as_ref().map(|machine| &machine.id),
        "hostname": machine.as_ref().map(|machine| &machine.hostname),
        "cpu_model": machine.as_ref().map(|machine| &machine.cpu_model),
        "logical_cores": machine.as_ref().map(|machine| machine.logical_cores),
        "memory_bytes": machine.as_ref().map(|machine| machine.memory_bytes),
        "labels": labels,
        "connected": connected,
        "last_seen_unix_ns": last_seen_unix_ns,
        "running": running.as_ref().map(|at| json!({
            "run_id": at.run_id, "job_index": at.job_index, "attempt": at.attempt,
        })),
        "draining": draining,
        "calibrating": calibrating,
        "quarantine": quarantine.as_ref().map(|why| json!({
            "since_unix_ns": why.since_unix_ns, "reason": why.reason,
        })),
    })
}
