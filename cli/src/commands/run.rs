//! `tritmark run`: a whole fleet of one machine in one process.
//!
//! Coordinator and agent speak real gRPC over loopback, so that a run here takes the path a run on
//! a fleet takes. Whatever is measured is in the store before it counts; this process may be killed
//! at any moment, and `--resume` goes on from there.

mod decide;
mod folder;
mod local;
mod outcome;

use std::path::PathBuf;

use serde_json::json;
use tritmark_agent::inventory;
use tritmark_coordinator::plan::{CheckContext, KnownAgent, Plan};
use tritmark_proto::{job::RunId, wire};
use tritmark_reports::{
    agreement::{self, Verdict},
    bundle::Bundle,
    summary,
};

use crate::{
    args::{Run, Trust},
    client::{Client, PlanFile, Wishes, run_id},
    commands::{json, preview, watch},
    exit::{Exit, Fault, OrExit as _, Outcome},
    out,
};

use decide::{Decision, Intent, KnownRun};
use folder::Folder;
use local::Local;

pub(crate) async fn exec(args: Run) -> Outcome {
    let file = PlanFile::read(&args.plan)?;
    let plan = check(&file)?;
    let root = args
        .out
        .clone()
        .unwrap_or_else(|| PathBuf::from("out").join(plan.name()));
    let folder = Folder::open(&root)?;
    let local = Local::start(&folder, !args.no_cache).await?;
    let done = if args.is_dry {
        dry_run(&args, &file, &local).await
    } else {
        run(&args, &file, &folder, &local).await
    };
    local.stop().await;
    done
}

/// Finds what is wrong with a plan before anything is made or measured.
fn check(file: &PlanFile) -> Outcome<Plan> {
    let what = || format!("{} was refused", file.path.display());
    let plan = Plan::parse(&file.text, &file.name, &file.base_dir).or_exit(Exit::Usage, what)?;
    let here = KnownAgent {
        machine: inventory::inventory("/".as_ref()).machine,
        labels: std::collections::BTreeMap::new(),
    };
    plan.check(&CheckContext {
        local_files: true,
        agents: std::slice::from_ref(&here),
        // The coordinator tries when it gets the plan.
        unscored: None,
    })
    .or_exit(Exit::Usage, what)?;
    Ok(plan)
}

/// Says what the run would be.
async fn dry_run(args: &Run, file: &PlanFile, local: &Local) -> Outcome {
    let mut client = Client::connect_to(local.url(), &Trust::default()).await?;
    let found = local.preview(&mut client, file).await?;
    preview::print(&found, args.json)?;
    Ok(Exit::Pass)
}

async fn run(args: &Run, file: &PlanFile, folder: &Folder, local: &Local) -> Outcome {
    let mut client = Client::connect_to(local.url(), &Trust::default()).await?;
    let known = KnownRun::newest(&client.runs().await?, folder.reported_run()?.as_deref());
    let same = local.newest_run_of(file).await?;
    let intent = Intent {
        resume: args.resume,
        fresh: args.fresh,
    };
    let run = match decide::decide(intent, known, same)? {
        Decision::Begin { cancel } => {
            if let Some(abandoned) = cancel {
                client.cancel(abandoned).await?;
            }
            let submitted = client.submit(file, &Wishes::default()).await?;
            run_id(&submitted.run_id)?
        }
        Decision::Continue(run) => run,
        Decision::Done(run) => {
            let summary = client.run(run).await?;
            return finish(args, folder, &summary);
        }
    };
    let Some(summary) = local.work(&mut client, run, args.json).await? else {
        return Err(interrupted(args, folder));
    };
    report(folder, &mut client, run).await?;
    finish(args, folder, &summary)
}

/// Writes the bundle and the report of a run that has ended.
async fn report(folder: &Folder, client: &mut Client, run: RunId) -> Outcome<()> {
    let incoming = folder.make_room_for_bundle()?;
    client.fetch_bundle(run, &incoming).await?;
    folder.take_bundle(run)?;
    tritmark_reports::write_report(&folder.bundle(), folder.root())
        .or_exit(Exit::Internal, || "cannot write the report")?;
    folder.mark_reported(run)
}

/// Prints what came of a run.
fn finish(args: &Run, folder: &Folder, summary: &wire::RunSummary) -> Outcome {
    let bundle = Bundle::read(&folder.bundle())
        .or_exit(Exit::Internal, || "cannot read the run's bundle")?;
    let rows = summary::rows(&bundle);
    let verdicts = agreement::verdicts(&bundle);
    let report = folder.root().join("report.html");
    if args.json {
        out::json(&json!({
            "run": json::summary(summary),
            "out": folder.root(),
            "report": report,
            "summary": folder.root().join("summary.csv"),
            "agreement": verdicts,
        }))?;
    } else {
        if let Some(table) = outcome::table(&rows) {
            out::line(&table)?;
            out::line("")?;
        }
        for Verdict {
            model, sentences, ..
        } in &verdicts
        {
            out::line(&format!("{model}: {}", sentences.join(" ")))?;
        }
        out::line(&watch::sentence(summary))?;
        out::line(&report.display().to_string())?;
    }
    Ok(watch::exit_of(summary))
}

fn interrupted(args: &Run, folder: &Folder) -> Fault {
    Fault {
        exit: Exit::Incomplete,
        error: anyhow::anyhow!(
            "interrupted; what was measured is kept in {}, and `tritmark run {} --resume` goes on",
            folder.root().display(),
            args.plan.display()
        ),
    }
}
