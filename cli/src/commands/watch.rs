//! `tritmark watch`: follows a run until it has ended.

use tonic::Streaming;
use tritmark_proto::{
    job::RunId,
    wire::{self, run_event::Kind},
};

use crate::{
    args::Watch,
    client::{Client, fault, run_id},
    commands::json,
    exit::{Exit, Fault, Outcome},
    out,
    progress::Progress,
};

pub(crate) async fn exec(args: Watch) -> Outcome {
    let run = run_id(&args.run)?;
    let mut client = Client::connect(&args.target).await?;
    let summary = if args.json {
        follow_as_json(&mut client, run).await?
    } else {
        let summary = follow(&mut client, run, false).await?;
        out::line(&sentence(&summary))?;
        summary
    };
    Ok(exit_of(&summary))
}

/// Shows a run until it has ended and returns its last state.
pub(crate) async fn follow(
    client: &mut Client,
    run: RunId,
    quiet: bool,
) -> Outcome<wire::RunSummary> {
    // The stream is opened before the jobs are listed, so that no change falls between the two.
    let events = client.watch(run).await?;
    let mut progress = Progress::new(&client.jobs(run).await?, quiet);
    let last = until_ended(events, run, |event| {
        progress.event(event);
        Ok(())
    })
    .await?;
    progress.finish();
    ended(last)
}

async fn follow_as_json(client: &mut Client, run: RunId) -> Outcome<wire::RunSummary> {
    let events = client.watch(run).await?;
    ended(until_ended(events, run, |event| out::json_line(&json::event(event))).await?)
}

/// Hands every event to `each` until the run or the stream has ended; returns the run's end.
async fn until_ended(
    mut events: Streaming<wire::RunEvent>,
    run: RunId,
    mut each: impl FnMut(&wire::RunEvent) -> Outcome<()>,
) -> Outcome<Option<wire::RunSummary>> {
    while let Some(event) = events
        .message()
        .await
        .map_err(|status| fault(&status, &format!("cannot watch run {run}")))?
    {
        each(&event)?;
        if let Some(Kind::Summary(summary)) = event.kind
            && summary.ended_unix_ns.is_some()
        {
            return Ok(Some(summary));
        }
    }
    Ok(None)
}

fn ended(end: Option<wire::RunSummary>) -> Outcome<wire::RunSummary> {
    end.ok_or_else(|| Fault::temporary("the coordinator went away before the run had ended"))
}

/// Returns the exit code that a run's last state leads to.
pub(crate) fn exit_of(summary: &wire::RunSummary) -> Exit {
    if summary.n_jobs > 0 && summary.n_succeeded == summary.n_jobs {
        Exit::Pass
    } else {
        Exit::Incomplete
    }
}

/// Says in a sentence how a run ended.
pub(crate) fn sentence(summary: &wire::RunSummary) -> String {
    let wire::RunSummary {
        run_id,
        name,
        submitted_unix_ns,
        ended_unix_ns,
        n_jobs,
        n_queued: _,
        n_running: _,
        n_succeeded,
        n_failed,
        n_cancelled,
        n_expired,
        priority: _,
        expires_unix_ns: _,
        paused_unix_ns: _,
    } = summary;
    let n_failed = &n_failed.saturating_sub(*n_expired);
    let mut parts = vec![format!("{name}: {n_succeeded} of {n_jobs} jobs done")];
    for (n, word) in [
        (n_failed, "failed"),
        (n_expired, "expired"),
        (n_cancelled, "cancelled"),
    ] {
        if *n > 0 {
            parts.push(format!("{n} {word}"));
        }
    }
    let took = ended_unix_ns.map_or_else(String::new, |ended| {
        format!(" in {}", out::seconds(ended - submitted_unix_ns))
    });
    format!("{}{took} (run {run_id})", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(n_succeeded: u32, n_failed: u32, n_cancelled: u32) -> wire::RunSummary {
        wire::RunSummary {
            run_id: "r".to_owned(),
            name: "quickstart".to_owned(),
            submitted_unix_ns: 0,
            ended_unix_ns: Some(12_300_000_000),
            n_jobs: n_succeeded + n_failed + n_cancelled,
            n_succeeded,
            n_failed,
            n_cancelled,
            ..Default::default()
        }
    }

    #[test]
    fn a_run_with_a_failed_or_cancelled_job_is_incomplete() {
        assert_eq!(exit_of(&summary(3, 0, 0)), Exit::Pass);
        assert_eq!(exit_of(&summary(2, 1, 0)), Exit::Incomplete);
        assert_eq!(exit_of(&summary(2, 0, 1)), Exit::Incomplete);
        assert_eq!(exit_of(&summary(0, 0, 0)), Exit::Incomplete);
    }

    #[test]
    fn the_sentence_names_only_what_happened() {
        assert_eq!(
            sentence(&summary(2, 1, 0)),
            "quickstart: 2 of 3 jobs done, 1 failed in 12.3 s (run r)"
        );
        let expired = wire::RunSummary {
            n_expired: 1,
            ..summary(2, 2, 0)
        };
        assert_eq!(
            sentence(&expired),
            "quickstart: 2 of 4 jobs done, 1 failed, 1 expired in 12.3 s (run r)"
        );
    }
}
