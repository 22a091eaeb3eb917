//! Coordinator and agent of this process, joined by gRPC over loopback.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tritmark_agent::AgentConfig;
use tritmark_coordinator::{Config, Coordinator, CoordinatorError};
use tritmark_proto::{job::RunId, wire};

use crate::{
    client::{Client, PlanFile, Wishes},
    commands::{interrupt, scorer, watch},
    exit::{Exit, Fault, OrExit as _, Outcome},
};

use super::folder::Folder;

/// A coordinator that serves on loopback, and the agent that will work for it.
pub(super) struct Local {
    coordinator: Arc<Coordinator>,
    serving: JoinHandle<Result<(), CoordinatorError>>,
    url: String,
    agent: AgentConfig,
}

impl Local {
    /// Opens the folder's store and serves it on a free port. Nothing is measured yet.
    pub(super) async fn start(folder: &Folder, keeps_items: bool) -> Outcome<Self> {
        let mut config = Config::new(folder.store());
        config.local_files = true;
        config.scorer = Some(scorer::here(folder.agent().join("cache"))?);
        let coordinator = Coordinator::open(config)
            .await
            .or_exit(Exit::Internal, || {
                format!("cannot open the store in {}", folder.root().display())
            })?;
        let coordinator = Arc::new(coordinator);
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .context("cannot listen on loopback")?;
        let url = format!(
            "http://{}",
            listener.local_addr().context("cannot listen on loopback")?
        );
        let serving = tokio::spawn({
            let coordinator = Arc::clone(&coordinator);
            async move { coordinator.serve(listener).await }
        });
        let mut agent = AgentConfig::new(url.clone(), folder.agent())
            .context("cannot find this program to start workers with")?;
        if !keeps_items {
            agent.item_cache_max_bytes = None;
        }
        Ok(Self {
            coordinator,
            serving,
            url,
            agent,
        })
    }

    /// Where the coordinator is.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Returns the newest run of this very plan.
    pub(super) async fn newest_run_of(&self, plan: &PlanFile) -> Outcome<Option<RunId>> {
        let base_dir = plan.base_dir.to_string_lossy();
        let newest = self
            .coordinator
            .newest_run_of(&plan.text, &base_dir)
            .await
            .or_exit(Exit::Internal, || "cannot read the store")?;
        Ok(newest.map(|run| run.id))
    }

    /// Starts the agent and follows `run` until it has ended: then returns its last state, or
    /// `None` where the user interrupted it first.
    ///
    /// The first interrupt lets the job in hand come to its end, the second ends it.
    pub(super) async fn work(
        &self,
        client: &mut Client,
        run: RunId,
        quiet: bool,
    ) -> Outcome<Option<wire::RunSummary>> {
        let (drain, abort) = (CancellationToken::new(), CancellationToken::new());
        let mut agent = tokio::spawn(tritmark_agent::run_until(
            self.agent.clone(),
            drain.clone(),
            abort.clone(),
        ));
        let ended = {
            let follow = watch::follow(client, run, quiet);
            tokio::pin!(follow);
            loop {
                tokio::select! {
                    summary = &mut follow => break Some(summary),
                    left = &mut agent => {
                        left.context("the agent ended by a fault of its own")?
                            .or_exit(Exit::Internal, || "the agent cannot work")?;
                        break None;
                    }
                    interrupted = interrupt() => {
                        interrupted?;
                        if drain.is_cancelled() {
                            abort.cancel();
                        } else {
                            eprintln!(
                                "interrupted: waiting for the job in hand; once more to end it"
                            );
                            drain.cancel();
                        }
                    }
                }
            }
        };
        let Some(summary) = ended else {
            return Ok(None);
        };
        drain.cancel();
        agent
            .await
            .context("the agent ended by a fault of its own")?
            .or_exit(Exit::Internal, || "the agent cannot work")?;
        let summary = summary?;
        if summary.ended_unix_ns.is_none() {
            return Err(Fault::temporary("the run has not ended"));
        }
        Ok(Some(summary))
    }

    /// Says what would become of a plan. The agent comes to be known, and takes nothing.
    pub(super) async fn preview(
        &self,
        client: &mut Client,
        plan: &PlanFile,
    ) -> Outcome<wire::DryRunResponse> {
        let drain = CancellationToken::new();
        let mut agent = tokio::spawn(tritmark_agent::run(self.agent.clone(), drain.clone()));
        while !client.agents().await?.iter().any(|agent| agent.connected) {
            tokio::select! {
                left = &mut agent => {
                    left.context("the agent ended by a fault of its own")?
                        .or_exit(Exit::Internal, || "the agent cannot work")?;
                    return Err(Fault::temporary("the agent has left"));
                }
                () = tokio::time::sleep(Duration::from_millis(10)) => {}
            }
        }
        let preview = client.dry_run(plan, &Wishes::default()).await;
        drain.cancel();
        agent
            .await
            .context("the agent ended by a fault of its own")?
            .or_exit(Exit::Internal, || "the agent cannot work")?;
        preview
    }

    /// Stops serving and waits for the last write.
    pub(super) async fn stop(self) {
        let Self {
            coordinator,
            serving,
            ..
        } = self;
        coordinator.stop_token().cancel();
        match serving.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!("the coordinator's server failed: {error}"),
            Err(error) => tracing::error!("the coordinator's server failed: {error}"),
        }
        if let Some(coordinator) = Arc::into_inner(coordinator) {
            coordinator.close().await;
        }
    }
}
