//! `tritmark submit`: hands a plan to a coordinator.

use serde_json::json;

mod upload;

use crate::{
    args::Submit,
    client::{Client, PlanFile, Wishes, run_id},
    commands::{json, preview, watch},
    exit::{Exit, Outcome},
    out,
};

pub(crate) async fn exec(args: Submit) -> Outcome {
    let plan = PlanFile::read(&args.plan)?;
    let mut client = Client::connect(&args.target).await?;
    let wishes = Wishes {
        priority: args.priority,
        expires: args.expires,
    };
    if args.dry_run {
        let found = client.dry_run(&plan, &wishes).await?;
        preview::print(&found, args.print.json)?;
        return Ok(Exit::Pass);
    }
    let registered = if args.upload {
        upload::files(&mut client, &plan).await?
    } else {
        Vec::new()
    };
    let submitted = client.submit_with(&plan, &wishes, registered).await?;
    if !args.watch {
        if args.print.json {
            out::json(&json!({ "run_id": submitted.run_id, "n_jobs": submitted.n_jobs }))?;
        } else {
            out::line(&submitted.run_id)?;
        }
        return Ok(Exit::Pass);
    }
    let run = run_id(&submitted.run_id)?;
    let summary = watch::follow(&mut client, run, false).await?;
    if args.print.json {
        out::json(&json::summary(&summary))?;
    } else {
        out::line(&watch::sentence(&summary))?;
    }
    Ok(watch::exit_of(&summary))
}
