//! `tritmark cancel`: ends a run; what it measured stays.

use crate::{
    args::Cancel,
    client::{Client, run_id},
    exit::{Exit, Outcome},
    out,
};

pub(crate) async fn exec(args: Cancel) -> Outcome {
    let run = run_id(&args.run)?;
    let mut client = Client::connect(&args.target).await?;
    let n_cancelled = client.cancel(run).await?;
    out::line(&format!("{n_cancelled} jobs cancelled"))?;
    Ok(Exit::Pass)
}
