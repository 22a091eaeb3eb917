//! A coordinator: its store, its loop and its gRPC server.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Server, server::Connected};
use tracing::{info, warn};
use tritmark_proto::wire::{
    FILE_DESCRIPTOR_SET, agent_link_server::AgentLinkServer, control_server::ControlServer,
};

use crate::{
    control::ControlService,
    link::LinkService,
    run::{self, LoopHandle, Timing},
    scoring::Scorer,
    store::{self, Location, Store, StoreError, StoredRun, plan_hash},
    telemetry::{self, Metrics, Traces, TracesError, http},
};

#[cfg(test)]
mod tests;

/// How long the last spans may take to reach their collector at shutdown.
const LAST_SPANS: Duration = Duration::from_secs(3);

/// Largest message from an agent: a batch of records. Agents keep far below.
const MAX_LINK_MESSAGE: usize = 16 << 20;

/// Largest message from a client: a plan.
const MAX_CONTROL_MESSAGE: usize = 4 << 20;

/// Largest message to a client: a long list of jobs.
const MAX_ANSWER: usize = 64 << 20;

/// Finds agents behind a dead network; their leases do the rest.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// How long open calls may take to end at shutdown.
const DRAIN: Duration = Duration::from_secs(5);

/// What a coordinator is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the store is.
    pub store: Location,
    /// Whether it may be reached from other machines without TLS.
    pub insecure: bool,
    /// Whether the agents see this machine's files, so that a plan naming a missing one is refused.
    pub local_files: bool,
    /// Times and limits.
    pub timing: Timing,
    /// Collector of traces, an `http://` URL for OTLP over gRPC.
    pub otlp: Option<String>,
    /// Scores programs of plans that want it done here; without it such plans are refused.
    pub scorer: Option<Arc<dyn Scorer>>,
}

impl Config {
    /// Returns the defaults for a store: this machine only.
    pub fn new(store: impl Into<Location>) -> Self {
        Self {
            store: store.into(),
            insecure: false,
            local_files: false,
            timing: Timing::default(),
            otlp: None,
            scorer: None,
        }
    }
}

/// Why a coordinator cannot work.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    /// Its store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Anybody could read and write here.
    #[error(
        "refusing to listen on {0} without TLS: it can be reached from other machines; \
         ask for insecure connections if the network is trusted"
    )]
    Insecure(SocketAddr),
    /// The address cannot be known.
    #[error("cannot tell the listener's address")]
    Address(#[source] std::io::Error),
    /// The server fails.
    #[error("the gRPC server failed")]
    Serve(#[source] tonic::transport::Error),
    /// Traces cannot be sent there.
    #[error(transparent)]
    Traces(#[from] TracesError),
    /// The figures cannot be served.
    #[error("cannot serve metrics")]
    Metrics(#[source] std::io::Error),
    /// Reflection cannot be set up.
    #[error("cannot describe the services")]
    Reflection(#[source] tonic_reflection::server::Error),
}

/// A coordinator with its store open and its loop running.
#[derive(Debug)]
pub struct Coordinator {
    config: Config,
    store: Arc<dyn Store>,
    run_loop: LoopHandle,
    loop_task: JoinHandle<()>,
    stop: CancellationToken,
    metrics: Arc<Metrics>,
    traces_task: Option<JoinHandle<()>>,
}

impl Coordinator {
    /// Opens the store and takes up what is open in it.
    pub async fn open(config: Config) -> Result<Self, CoordinatorError> {
        let (traces, traces_task) = match &config.otlp {
            Some(address) => {
                let (traces, task) = Traces::start(address)?;
                (Some(traces), Some(task))
            }
            None => (None, None),
        };
        let store = store::open(&config.store).await?;
        let (store, metrics) = telemetry::observe(store, traces);
        let stop = CancellationToken::new();
        let (run_loop, loop_task) = run::start(
            Arc::clone(&store),
            config.timing,
            config.scorer.clone(),
            stop.clone(),
        )
        .await?;
        Ok(Self {
            config,
            store,
            run_loop,
            loop_task,
            stop,
            metrics,
            traces_task,
        })
    }

    /// Returns the store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Returns the token that ends everything when it is cancelled: no new calls, streams closed,
    /// attempts left to go on when a coordinator opens this store again.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Returns the newest run of this very plan, whether it has ended or can be gone on with: an
    /// open one goes on by itself once its agents are back.
    pub async fn newest_run_of(
        &self,
        plan_toml: &str,
        base_dir: &str,
    ) -> Result<Option<StoredRun>, CoordinatorError> {
        let hash = plan_hash(plan_toml, base_dir);
        Ok(self.store.newest_run_of(&hash).await?)
    }

    /// Serves agents and people until the stop token is cancelled.
    ///
    /// # Errors
    /// [`CoordinatorError::Insecure`] if others can reach the address and nobody asked for that.
    pub async fn serve(&self, listener: TcpListener) -> Result<(), CoordinatorError> {
        let address = listener.local_addr().map_err(CoordinatorError::Address)?;
        if !address.ip().is_loopback() {
            if !self.config.insecure {
                return Err(CoordinatorError::Insecure(address));
            }
            warn!(%address, "serving other machines without TLS");
        }
        info!(%address, "serving");
        self.serve_connections(TcpListenerStream::new(listener))
            .await
    }

    /// Serves connections that come from anywhere, e.g. from [`tokio::io::duplex`].
    pub async fn serve_connections<S, C, E>(&self, connections: S) -> Result<(), CoordinatorError>
    where
        S: Stream<Item = Result<C, E>>,
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let link = AgentLinkServer::new(LinkService::new(
            Arc::clone(&self.store),
            self.run_loop.clone(),
            self.stop.clone(),
        ))
        .max_decoding_message_size(MAX_LINK_MESSAGE);
        let control = ControlServer::new(ControlService::new(
            Arc::clone(&self.store),
            self.run_loop.clone(),
            self.config.local_files,
            self.config.scorer.clone(),
            self.stop.clone(),
        ))
        .max_decoding_message_size(MAX_CONTROL_MESSAGE)
        .max_encoding_message_size(MAX_ANSWER);
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<AgentLinkServer<LinkService>>().await;
        health.set_serving::<ControlServer<ControlService>>().await;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .map_err(CoordinatorError::Reflection)?;
        let serving = Server::builder()
            .tcp_keepalive(Some(TCP_KEEPALIVE))
            .tcp_nodelay(true)
            .add_service(health_service)
            .add_service(reflection)
            .add_service(link)
            .add_service(control)
            .serve_with_incoming_shutdown(connections, self.stop.clone().cancelled_owned());
        let overdue = async {
            self.stop.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            served = serving => served.map_err(CoordinatorError::Serve),
            () = overdue => {
                warn!("some calls did not end in time");
                Ok(())
            }
        }
    }

    /// Serves `/metrics`, `/livez` and `/readyz` over HTTP until the stop token is cancelled.
    pub async fn serve_metrics(&self, listener: TcpListener) -> Result<(), CoordinatorError> {
        let service = http::Service {
            metrics: Arc::clone(&self.metrics),
            store: Arc::clone(&self.store),
            run_loop: self.run_loop.clone(),
        };
        http::serve(listener, service, self.stop.clone())
            .await
            .map_err(CoordinatorError::Metrics)
    }

    /// Stops everything and waits for the loop's last write.
    pub async fn close(self) {
        self.stop.cancel();
        // A loop that panicked has said so.
        let _ = self.loop_task.await;
        // The last one who has spans to send.
        drop(self.store);
        if let Some(task) = self.traces_task {
            let _ = tokio::time::timeout(LAST_SPANS, task).await;
        }
    }
}
