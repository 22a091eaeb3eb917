//! `/metrics` for a scraper, `/livez` and `/readyz` for whoever starts and restarts processes.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Metrics;
use crate::{
    run::{Command, LoopHandle},
    store::{JobCounts, Store, StoreError},
};

/// The media type of OpenMetrics 1.0.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) run_loop: LoopHandle,
}

/// Serves until `stop` is cancelled. There is nothing here that changes anything, and no name of a
/// run, model or agent.
pub(crate) async fn serve(
    listener: TcpListener,
    service: Service,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(service);
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

async fn metrics(State(service): State<Service>) -> Response {
    match service.scrape().await {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(problem) => (StatusCode::SERVICE_UNAVAILABLE, problem).into_response(),
    }
}

/// Ready is who can read the store and whose loop answers.
async fn ready(State(service): State<Service>) -> Response {
    match service.alive().await {
        Ok(()) => "ok\n".into_response(),
        Err(problem) => (StatusCode::SERVICE_UNAVAILABLE, problem).into_response(),
    }
}

impl Service {
    async fn scrape(&self) -> Result<String, String> {
        self.look().await?;
        self.metrics.text().map_err(|error| error.to_string())
    }

    /// Asks the loop and the store for the least.
    async fn alive(&self) -> Result<(), String> {
        self.run_loop
            .ask(|reply| Command::Agents { reply })
            .await
            .map_err(|stopped| stopped.to_string())?;
        let read = self.store.open_runs().await;
        read.map(drop).map_err(|error| error.to_string())
    }

    /// Counts what there is.
    async fn look(&self) -> Result<(), String> {
        let agents = self
            .run_loop
            .ask(|reply| Command::Agents { reply })
            .await
            .map_err(|stopped| stopped.to_string())?;
        let n = |is: fn(bool, bool) -> bool| {
            agents
                .iter()
                .filter(|view| is(view.is_connected, view.running.is_some()))
                .count()
        };
        self.metrics.set_agents(
            n(|there, busy| there && !busy),
            n(|there, busy| there && busy),
            n(|there, _| !there),
        );
        let jobs = self.open_jobs().await.map_err(|error| error.to_string())?;
        self.metrics.set_jobs(jobs);
        Ok(())
    }

    async fn open_jobs(&self) -> Result<JobCounts, StoreError> {
        let mut sum = JobCounts::default();
        for run in self.store.open_runs().await? {
            let counts = self.store.job_counts(run.id).await?;
            sum.queued += counts.queued;
            sum.running += counts.running;
            sum.succeeded += counts.succeeded;
            sum.failed += counts.failed;
            sum.cancelled += counts.cancelled;
        }
        Ok(sum)
    }
}
