//! Scores programs on this machine for the coordinator of this process.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context as _;
use tokio::sync::mpsc;
use tritmark_agent::scorer::Scorer;
use tritmark_proto::{bundle::Failure, job::Job, machine::Machine, record::Item};

use crate::exit::Outcome;

/// The agent's scorer as a coordinator knows it; the two crates do not know each other.
#[derive(Debug)]
struct Here(Scorer);

/// Returns this machine's scorer; `cache_dir` keeps the outputs of canonical solutions.
pub(crate) fn here(cache_dir: PathBuf) -> Outcome<Arc<dyn tritmark_coordinator::Scorer>> {
    let scorer =
        Scorer::new(cache_dir).context("cannot find this program to start workers with")?;
    Ok(Arc::new(Here(scorer)))
}

#[tonic::async_trait]
impl tritmark_coordinator::Scorer for Here {
    fn machine(&self) -> Machine {
        self.0.machine().clone()
    }

    async fn check(&self) -> Result<(), String> {
        self.0.check().await
    }

    async fn score(
        &self,
        job: &Job,
        items: Vec<Item>,
        scored: mpsc::Sender<Item>,
    ) -> Result<(), Failure> {
        self.0.score(job, items, scored).await
    }
}
