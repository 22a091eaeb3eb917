//! A coordinator: its store, its loop and its gRPC server.
//!
//! On loopback it serves whoever comes. Where it has an authority (`identity`), each connection is
//! TLS: `door` accepts and counts, `tls` checks certificates, `guard` decides about every request by
//! the table in `policy`, `record` writes the logs.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use futures::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::{
    Server,
    server::{Connected, Router},
};
use tower::layer::util::{Identity as NoLayer, Stack};
use tracing::{error, info, warn};
use tritmark_proto::wire::{
    FILE_DESCRIPTOR_SET, agent_link_server::AgentLinkServer, artefacts_server::ArtefactsServer,
    control_server::ControlServer, enrollment_server::EnrollmentServer,
    identities_server::IdentitiesServer,
};

use crate::{
    archive,
    artefacts::{self, ArtefactsConfig, ArtefactsService, ScorerWithData, Shelf},
    control::ControlService,
    identity::{EnrollmentService, IdentitiesService, IdentityError, Office, now_unix_s},
    link::LinkService,
    run::{self, LoopHandle, Timing},
    scoring::Scorer,
    store::{self, Location, Store, StoreError, StoredRun, plan_hash},
    telemetry::{self, Metrics, Traces, TracesError, http},
};

mod door;
mod guard;
mod limits;
mod peer;
mod policy;
mod record;
#[cfg(test)]
mod secure_tests;
#[cfg(test)]
mod tests;
mod tls;

pub(crate) use guard::AuditNote;
pub use limits::{Limits, Rate};
pub(crate) use peer::Peer;
pub use tls::TlsError;

use door::Door;
use guard::{Guard, GuardLayer};
use record::Recorder;
use tls::{Revocations, ServerCertificate};

/// How long the last spans may take to reach their collector at shutdown.
const LAST_SPANS: Duration = Duration::from_secs(3);

/// Largest message from an agent: a batch of records. Agents keep far below.
const MAX_LINK_MESSAGE: usize = 16 << 20;

/// Largest message from a client: a plan.
const MAX_CONTROL_MESSAGE: usize = 4 << 20;

/// Largest message from somebody who enrolls: a certificate request and a key.
const MAX_IDENTITY_MESSAGE: usize = 64 << 10;

/// Largest message from somebody who sends a file: a piece of it.
const MAX_PIECE_MESSAGE: usize = 2 << 20;

/// Largest list of headers of a request.
const MAX_HEADERS: u32 = 16 << 10;

/// How soon a revocation or a new server certificate takes effect.
const WATCH_PERIOD: Duration = Duration::from_secs(1);

/// How often the server's certificate is looked at, whether it has to be made anew: in periods.
const RENEWAL_PERIODS: u32 = 3600;

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
    /// Where models, data and bundles are kept; without it agents find models and data themselves.
    pub artefacts: Option<ArtefactsConfig>,
    /// Folder of the authority: with one, TLS and certificates are asked of everybody.
    pub identity: Option<PathBuf>,
    /// What one peer may ask for, where there is an authority.
    pub limits: Limits,
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
            artefacts: None,
            identity: None,
            limits: Limits::default(),
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
    /// The authority or its store cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// TLS cannot be served.
    #[error(transparent)]
    Tls(#[from] TlsError),
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
    /// Files that come in part cannot be kept.
    #[error("cannot use the folder for files that come in part")]
    Staging(#[source] std::io::Error),
    /// Reflection cannot be set up.
    #[error("cannot describe the services")]
    Reflection(#[source] tonic_reflection::server::Error),
}

/// A coordinator with its store open and its loop running.
#[derive(Debug)]
pub struct Coordinator {
    config: Config,
    store: Arc<dyn Store>,
    office: Option<Arc<Office>>,
    shelf: Option<Arc<Shelf>>,
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
        let office = match &config.identity {
            Some(folder) => {
                let shared = config.store.shared();
                Some(Arc::new(Office::open(folder, shared).await?))
            }
            None => None,
        };
        let store = store::open(&config.store).await?;
        let (store, metrics) = telemetry::observe(store, traces);
        let stop = CancellationToken::new();
        let shelf = config.artefacts.clone().map(Shelf::open).transpose();
        let shelf = shelf.map_err(CoordinatorError::Staging)?.map(Arc::new);
        let scorer = match (config.scorer.clone(), &shelf) {
            (Some(scorer), Some(shelf)) => Some(Arc::new(ScorerWithData {
                scorer,
                shelf: Arc::clone(shelf),
            }) as Arc<dyn Scorer>),
            (scorer, _) => scorer,
        };
        let (run_loop, loop_task) =
            run::start(Arc::clone(&store), config.timing, scorer, stop.clone()).await?;
        if let Some(shelf) = &shelf {
            let keeping = archive::keep_ended(Arc::clone(&store), shelf.objects.clone());
            tokio::spawn(stop.clone().run_until_cancelled_owned(keeping));
            if let Some(keep) = config.artefacts.as_ref().and_then(|config| config.keep) {
                let collecting =
                    artefacts::collect::collect(Arc::clone(&store), Arc::clone(shelf), keep);
                tokio::spawn(stop.clone().run_until_cancelled_owned(collecting));
            }
        }
        Ok(Self {
            config,
            store,
            office,
            shelf,
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
    /// [`CoordinatorError::Insecure`] if others can reach the address, there is no authority, and
    /// nobody asked for that.
    pub async fn serve(&self, listener: TcpListener) -> Result<(), CoordinatorError> {
        let address = listener.local_addr().map_err(CoordinatorError::Address)?;
        if let Some(office) = &self.office {
            info!(%address, "serving with TLS");
            return self.serve_secured(listener, office).await;
        }
        if !address.ip().is_loopback() {
            if !self.config.insecure {
                return Err(CoordinatorError::Insecure(address));
            }
            warn!(%address, "serving other machines without TLS: whoever reaches this address may read and write");
        }
        info!(%address, "serving");
        self.serve_connections(TcpListenerStream::new(listener))
            .await
    }

    /// Serves connections that come from anywhere, e.g. from [`tokio::io::duplex`]; whoever is at
    /// their other end may do everything.
    pub async fn serve_connections<S, C, E>(&self, connections: S) -> Result<(), CoordinatorError>
    where
        S: Stream<Item = Result<C, E>>,
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let server = Server::builder()
            .tcp_keepalive(Some(TCP_KEEPALIVE))
            .tcp_nodelay(true);
        self.serve_router(self.router(server, None).await?, connections)
            .await
    }

    /// Serves whom the office knows.
    async fn serve_secured(
        &self,
        listener: TcpListener,
        office: &Arc<Office>,
    ) -> Result<(), CoordinatorError> {
        let limits = self.config.limits;
        let recorder = Recorder::new(Arc::clone(office.store()), limits.logged_refusals);
        let revocations = Arc::new(Revocations::default());
        revocations.replace(office.store().revoked(now_unix_s()).await?);
        office.renew_server_certificate(now_unix_s())?;
        let certificate = Arc::new(ServerCertificate::open(office.server_file())?);
        let acceptor = tls::acceptor(office, Arc::clone(&certificate), Arc::clone(&revocations))?;
        let door = Door::new(limits, recorder.clone());
        let guard = Guard::new(&limits, Arc::clone(&revocations), recorder);
        let builder = Server::builder()
            .http2_keepalive_interval(Some(limits.keepalive))
            .http2_keepalive_timeout(Some(limits.keepalive_within))
            .http2_max_header_list_size(MAX_HEADERS)
            .max_concurrent_streams(limits.streams);
        let router = self.router(builder, Some(Arc::new(guard))).await?;
        let connections = door.accept(listener, acceptor, self.stop.clone());
        tokio::select! {
            served = self.serve_router(router, ReceiverStream::new(connections)) => served,
            never = watch(office, &door, &revocations, &certificate) => match never {},
        }
    }

    /// Puts the services together, those of identities where there is an authority.
    async fn router(
        &self,
        server: Server,
        guard: Option<Arc<Guard>>,
    ) -> Result<Router<Stack<GuardLayer, NoLayer>>, CoordinatorError> {
        let office = self.office.as_ref().filter(|_| guard.is_some());
        let link = AgentLinkServer::new(LinkService::new(
            Arc::clone(&self.store),
            self.run_loop.clone(),
            self.stop.clone(),
            &self.config.timing,
            office.map(|office| Arc::clone(office.store())),
        ))
        .max_decoding_message_size(MAX_LINK_MESSAGE);
        let control = ControlServer::new(ControlService::new(
            Arc::clone(&self.store),
            self.run_loop.clone(),
            self.config.local_files,
            self.config.scorer.clone(),
            self.shelf.clone(),
            self.stop.clone(),
        ))
        .max_decoding_message_size(MAX_CONTROL_MESSAGE)
        .max_encoding_message_size(MAX_ANSWER);
        let artefacts =
            ArtefactsServer::new(ArtefactsService::new(self.shelf.clone(), self.stop.clone()))
                .max_decoding_message_size(MAX_PIECE_MESSAGE);
        let enrollment = office.map(|office| {
            EnrollmentServer::new(EnrollmentService(Arc::clone(office)))
                .max_decoding_message_size(MAX_IDENTITY_MESSAGE)
        });
        let identities = office.map(|office| {
            IdentitiesServer::new(IdentitiesService(Arc::clone(office)))
                .max_decoding_message_size(MAX_IDENTITY_MESSAGE)
                .max_encoding_message_size(MAX_ANSWER)
        });
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<AgentLinkServer<LinkService>>().await;
        health.set_serving::<ControlServer<ControlService>>().await;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .map_err(CoordinatorError::Reflection)?;
        Ok(server
            .layer(GuardLayer(guard))
            .add_service(health_service)
            .add_service(reflection)
            .add_service(link)
            .add_service(control)
            .add_service(artefacts)
            .add_optional_service(enrollment)
            .add_optional_service(identities))
    }

    async fn serve_router<S, C, E>(
        &self,
        router: Router<Stack<GuardLayer, NoLayer>>,
        connections: S,
    ) -> Result<(), CoordinatorError>
    where
        S: Stream<Item = Result<C, E>>,
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let serving =
            router.serve_with_incoming_shutdown(connections, self.stop.clone().cancelled_owned());
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

/// Lets what changes beside the server take effect: revocations, a new server certificate, time.
///
/// What cannot be read is said, and what was read before stays in force.
async fn watch(
    office: &Office,
    door: &Door,
    revocations: &Revocations,
    certificate: &ServerCertificate,
) -> std::convert::Infallible {
    let mut periods = tokio::time::interval(WATCH_PERIOD);
    periods.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for n in (0..RENEWAL_PERIODS).cycle() {
        periods.tick().await;
        match office.store().revoked(now_unix_s()).await {
            Ok(serials) => revocations.replace(serials),
            Err(error) => error!(
                error = &error as &dyn std::error::Error,
                "revocations cannot be read"
            ),
        }
        door.cut_unwelcome(revocations, now_unix_s());
        if n == 0 {
            match office.renew_server_certificate(now_unix_s()) {
                Ok(true) => info!("the server has a new certificate"),
                Ok(false) => {}
                Err(error) => error!(
                    error = &error as &dyn std::error::Error,
                    "the server's certificate cannot be renewed"
                ),
            }
        }
        match certificate.reload() {
            Ok(true) => info!("the server's certificate was read again"),
            Ok(false) => {}
            // A file that is being replaced is whole a moment later.
            Err(error) => warn!(
                error = &error as &dyn std::error::Error,
                "the server's certificate cannot be read; the old one stays in use"
            ),
        }
    }
    unreachable!("a cycle of a range that is not empty does not end")
}
