//! `tritmark pause` and `tritmark resume`: a run waits, or goes on.

use crate::{
    args::Cancel,
    client::{Client, run_id},
    exit::{Exit, Outcome},
    out,
};

pub(crate) async fn exec(args: Cancel, is_paused: bool) -> Outcome {
    let run = run_id(&args.run)?;
    let mut client = Client::connect(&args.target).await?;
    let n_queued = client.pause(run, is_paused).await?;
    let what = if is_paused { "wait" } else { "may begin" };
    out::line(&format!("{n_queued} queued jobs {what}"))?;
    Ok(Exit::Pass)
}
