//! `tritmark ls`: what a coordinator holds and what this build knows.

use serde_json::{Value, json};
use tritmark_proto::wire;

use crate::{
    args::{Ls, LsJobs, LsRemote, LsWhat},
    client::{Client, run_id},
    commands::{block_on, inventory, json},
    exit::{Exit, Outcome},
    out,
    progress::{job_state, suite_label},
};

pub(crate) fn exec(args: Ls) -> Outcome {
    match args.what {
        LsWhat::Runs(args) => block_on(runs(args)),
        LsWhat::Agents(args) => block_on(agents(args)),
        LsWhat::Jobs(args) => block_on(jobs(args)),
        LsWhat::Suites(args) => inventory::suites(args.json),
        LsWhat::Kernels(args) => inventory::kernels(args.json),
        LsWhat::Shapes(args) => inventory::shapes(args.json),
    }
}

async fn runs(args: LsRemote) -> Outcome {
    let mut client = Client::connect(&args.target).await?;
    let runs = client.runs().await?;
    if args.print.json {
        out::json(&Value::Array(runs.iter().map(json::summary).collect()))?;
        return Ok(Exit::Pass);
    }
    let rows = runs
        .iter()
        .map(|run| {
            vec![
                run.run_id.clone(),
                run.name.clone(),
                out::moment(run.submitted_unix_ns),
                match (run.ended_unix_ns, run.paused_unix_ns) {
                    (Some(ended), _) => out::seconds(ended - run.submitted_unix_ns),
                    (None, Some(_)) => "paused".to_owned(),
                    (None, None) => "running".to_owned(),
                },
                format!("{}/{}", run.n_succeeded, run.n_jobs),
                run.n_failed.to_string(),
                run.n_expired.to_string(),
                run.priority.to_string(),
            ]
        })
        .collect();
    out::table(
        &[
            "run",
            "name",
            "submitted",
            "took",
            "done",
            "failed",
            "expired",
            "priority",
        ],
        rows,
    )?;
    Ok(Exit::Pass)
}

async fn agents(args: LsRemote) -> Outcome {
    let mut client = Client::connect(&args.target).await?;
    let agents = client.agents().await?;
    if args.print.json {
        out::json(&Value::Array(agents.iter().map(json::agent).collect()))?;
        return Ok(Exit::Pass);
    }
    let rows = agents
        .iter()
        .map(|agent| {
            let machine = agent.machine.clone().unwrap_or_default();
            let mut labels: Vec<_> = agent
                .labels
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            labels.sort();
            vec![
                agent.agent_id.clone(),
                machine.hostname,
                machine.cpu_model,
                machine.logical_cores.to_string(),
                out::bytes(machine.memory_bytes),
                labels.join(","),
                agent_state(agent),
            ]
        })
        .collect();
    out::table(
        &["agent", "host", "cpu", "cores", "memory", "labels", "state"],
        rows,
    )?;
    Ok(Exit::Pass)
}

/// Says what an agent does, and what keeps it from doing more.
fn agent_state(agent: &wire::AgentInfo) -> String {
    let mut parts = vec![match (&agent.running, agent.connected) {
        (Some(at), true) => format!("job {}", at.job_index),
        (None, true) if agent.calibrating => "calibrating".to_owned(),
        (None, true) => "idle".to_owned(),
        (_, false) => format!("away since {}", out::moment(agent.last_seen_unix_ns)),
    }];
    if agent.draining {
        parts.push("leaving".to_owned());
    }
    if let Some(why) = &agent.quarantine {
        parts.push(format!("quarantined: {}", why.reason));
    }
    parts.join(", ")
}

async fn jobs(args: LsJobs) -> Outcome {
    let run = run_id(&args.run)?;
    let mut client = Client::connect(&args.list.target).await?;
    let jobs = client.jobs(run).await?;
    if args.list.print.json {
        out::json(&Value::Array(jobs.iter().map(json::job).collect()))?;
        return Ok(Exit::Pass);
    }
    let rows = jobs
        .iter()
        .map(|info| {
            let job = info.job.clone().unwrap_or_default();
            vec![
                job.index.to_string(),
                job.model.map_or_else(String::new, |model| model.id),
                job.kernel,
                job.threads.to_string(),
                suite_label(job.suite.as_ref()),
                job_state(info).to_owned(),
                info.attempt.to_string(),
                info.failure.as_ref().map_or_else(String::new, |failure| {
                    failure
                        .message
                        .lines()
                        .next()
                        .unwrap_or_default()
                        .to_owned()
                }),
            ]
        })
        .collect();
    out::table(
        &[
            "job", "model", "kernel", "threads", "suite", "state", "attempt", "failure",
        ],
        rows,
    )?;
    Ok(Exit::Pass)
}

/// Prints a list of names with a remark each, or as JSON.
pub(crate) fn names(head: [&str; 2], rows: &[(String, String)], as_json: bool) -> Outcome {
    if as_json {
        let rows = rows
            .iter()
            .map(|(name, remark)| json!({ head[0]: name, head[1]: remark }))
            .collect();
        out::json(&Value::Array(rows))?;
    } else {
        let rows = rows
            .iter()
            .map(|(name, remark)| vec![name.clone(), remark.clone()])
            .collect();
        out::table(&head, rows)?;
    }
    Ok(Exit::Pass)
}
