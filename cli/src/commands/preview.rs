//! What `--dry-run` prints: the jobs, where each would go, and how long such jobs took before.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tritmark_proto::wire;

use crate::{exit::Outcome, out, progress::suite_label};

/// Prints what would become of a plan.
pub(super) fn print(preview: &wire::DryRunResponse, as_json: bool) -> Outcome<()> {
    if as_json {
        return out::json(&as_value(preview));
    }
    let rows = preview
        .jobs
        .iter()
        .map(|preview| {
            let job = preview.job.clone().unwrap_or_default();
            vec![
                job.index.to_string(),
                job.model.map_or_else(String::new, |model| model.id),
                job.kernel,
                job.threads.to_string(),
                suite_label(job.suite.as_ref()),
                preview
                    .hostname
                    .clone()
                    .unwrap_or_else(|| "nobody".to_owned()),
                preview.n_fitting.to_string(),
                estimate(preview.estimate.as_ref()),
            ]
        })
        .collect();
    out::table(
        &[
            "job",
            "model",
            "kernel",
            "threads",
            "suite",
            "would go to",
            "fitting",
            "estimate",
        ],
        rows,
    )?;
    for line in remarks(preview) {
        out::line(&line)?;
    }
    Ok(())
}

fn estimate(estimate: Option<&wire::JobEstimate>) -> String {
    match estimate {
        None => "unknown".to_owned(),
        Some(estimate) => format!(
            "{} ({} earlier{})",
            out::seconds(i64::try_from(estimate.median_ns).unwrap_or(i64::MAX)),
            estimate.n_jobs,
            if estimate.same_machine {
                ""
            } else {
                ", elsewhere"
            },
        ),
    }
}

/// Says why nobody fits, and what it comes to.
fn remarks(preview: &wire::DryRunResponse) -> Vec<String> {
    let mut lines = Vec::new();
    let unplaced = preview.jobs.iter().filter(|job| job.agent_id.is_none());
    let mut reasons: BTreeSet<&str> = BTreeSet::new();
    let mut n_unplaced = 0;
    for job in unplaced {
        n_unplaced += 1;
        reasons.extend(job.refusals.iter().map(String::as_str));
    }
    if n_unplaced > 0 {
        let reasons: Vec<&str> = reasons.into_iter().collect();
        let why = if reasons.is_empty() {
            "no agent has ever registered".to_owned()
        } else {
            reasons.join("; ")
        };
        lines.push(format!("{n_unplaced} jobs fit no agent: {why}"));
    }
    // How long each agent would be busy, by its id.
    let mut busy_ns: BTreeMap<&str, u64> = BTreeMap::new();
    let mut n_known = 0_usize;
    for job in &preview.jobs {
        if let (Some(agent), Some(estimate)) = (&job.agent_id, &job.estimate) {
            let busy = busy_ns.entry(agent).or_default();
            *busy = busy.saturating_add(estimate.median_ns);
            n_known += 1;
        }
    }
    let n_jobs = preview.jobs.len();
    let longest = busy_ns.values().max().copied().unwrap_or(0);
    let longest = out::seconds(i64::try_from(longest).unwrap_or(i64::MAX));
    let n_agents = busy_ns.len();
    lines.push(match n_known {
        0 => {
            format!("{n_jobs} jobs; how long they take is not known: none like them has been done")
        }
        n if n == n_jobs => format!("{n_jobs} jobs; about {longest} on {n_agents} idle agents"),
        n => format!(
            "{n_jobs} jobs; at least {longest} on {n_agents} idle agents for the {n} of which \
             something is known"
        ),
    });
    if let Some(at) = preview.expires_unix_ns {
        lines.push(format!(
            "what is queued still expires at {}",
            out::moment(at)
        ));
    }
    lines
}

fn as_value(preview: &wire::DryRunResponse) -> Value {
    let wire::DryRunResponse {
        name,
        priority,
        expires_unix_ns,
        jobs,
    } = preview;
    let jobs: Vec<Value> = jobs
        .iter()
        .map(|preview| {
            let job = preview.job.clone().unwrap_or_default();
            json!({
                "job_index": job.index,
                "model": job.model.as_ref().map(|model| &model.id),
                "kernel": job.kernel,
                "threads": job.threads,
                "suite": suite_label(job.suite.as_ref()),
                "agent_id": preview.agent_id,
                "hostname": preview.hostname,
                "n_fitting": preview.n_fitting,
                "refusals": preview.refusals,
                "estimate": preview.estimate.as_ref().map(|estimate| json!({
                    "median_ns": estimate.median_ns,
                    "n_jobs": estimate.n_jobs,
                    "same_machine": estimate.same_machine,
                })),
            })
        })
        .collect();
    json!({
        "name": name,
        "priority": priority,
        "expires_unix_ns": expires_unix_ns,
        "jobs": jobs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(agent: Option<&str>, estimate: Option<(u64, bool)>) -> wire::JobPreview {
        wire::JobPreview {
            agent_id: agent.map(str::to_owned),
            estimate: estimate.map(|(seconds, same_machine)| wire::JobEstimate {
                median_ns: seconds * 1_000_000_000,
                n_jobs: 3,
                same_machine,
            }),
            ..wire::JobPreview::default()
        }
    }

    fn remarks_of(jobs: Vec<wire::JobPreview>) -> Vec<String> {
        remarks(&wire::DryRunResponse {
            jobs,
            ..wire::DryRunResponse::default()
        })
    }

    #[test]
    fn an_estimate_names_what_it_rests_on_and_is_unknown_without() {
        assert_eq!(estimate(None), "unknown");
        let text = |preview: wire::JobPreview| estimate(preview.estimate.as_ref());
        assert_eq!(text(job(None, Some((90, true)))), "90.0 s (3 earlier)");
        assert_eq!(
            text(job(None, Some((90, false)))),
            "90.0 s (3 earlier, elsewhere)"
        );
    }

    #[test]
    fn what_a_run_takes_is_what_its_busiest_agent_does() {
        let lines = remarks_of(vec![
            job(Some("a"), Some((10, true))),
            job(Some("a"), Some((5, true))),
            job(Some("b"), Some((7, false))),
        ]);
        assert_eq!(lines, ["3 jobs; about 15.0 s on 2 idle agents"]);
        let lines = remarks_of(vec![job(Some("a"), Some((10, true))), job(Some("a"), None)]);
        assert_eq!(
            lines,
            ["2 jobs; at least 10.0 s on 1 idle agents for the 1 of which something is known"]
        );
        let lines = remarks_of(vec![job(Some("a"), None)]);
        assert_eq!(
            lines,
            ["1 jobs; how long they take is not known: none like them has been done"]
        );
    }

    #[test]
    fn why_nobody_fits_is_said_once() {
        let mut lost = job(None, None);
        lost.refusals = vec!["2 agents: its CPU has no avx2".to_owned()];
        let lines = remarks_of(vec![lost.clone(), lost]);
        assert_eq!(
            lines[0],
            "2 jobs fit no agent: 2 agents: its CPU has no avx2"
        );
        let lines = remarks_of(vec![job(None, None)]);
        assert_eq!(
            lines[0],
            "1 jobs fit no agent: no agent has ever registered"
        );
    }
}
