//! `tritmark plan`: the reference of every key, and a check without a run.

use std::path::Path;

use serde_json::{Value, json};
use tritmark_coordinator::plan::{self, CheckContext, Plan as Parsed};
use tritmark_proto::{
    job::{Job, RunId},
    wire,
};

use crate::{
    args::Plan,
    client::PlanFile,
    exit::{Exit, OrExit as _, Outcome},
    out,
    progress::suite_label,
};

pub(crate) fn exec(args: &Plan) -> Outcome {
    match &args.check {
        Some(path) => check(path, args.json)?,
        None => out::piece(plan::EXAMPLE)?,
    }
    Ok(Exit::Pass)
}

fn check(path: &Path, as_json: bool) -> Outcome<()> {
    let file = PlanFile::read(path)?;
    let what = || format!("{} was refused", path.display());
    let plan = Parsed::parse(&file.text, &file.name, &file.base_dir).or_exit(Exit::Usage, what)?;
    let context = CheckContext {
        local_files: true,
        agents: &[],
        unscored: None,
    };
    plan.check(&context).or_exit(Exit::Usage, what)?;
    let jobs = plan.jobs(RunId::generate());
    if as_json {
        let jobs: Vec<Value> = jobs
            .iter()
            .map(|job| {
                json!({
                    "job_index": job.id.index,
                    "model": job.model.id,
                    "kernel": job.kernel,
                    "threads": job.threads,
                    "suite": suite(job),
                })
            })
            .collect();
        return out::json(&json!({ "name": plan.name(), "jobs": jobs }));
    }
    let rows = jobs
        .iter()
        .map(|job| {
            vec![
                job.id.index.to_string(),
                job.model.id.clone(),
                job.kernel.clone(),
                job.threads.to_string(),
                suite(job),
            ]
        })
        .collect();
    out::table(&["job", "model", "kernel", "threads", "suite"], rows)
}

fn suite(job: &Job) -> String {
    suite_label(wire::Job::from(job.clone()).suite.as_ref())
}
