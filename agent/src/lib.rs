//! One machine of the fleet: takes jobs, runs each in a fresh process, keeps what was measured.
//!
//! [`run`] is the whole agent. It dials the coordinator and holds one stream (`link`); what it
//! knows and decides is in `desk`; each job is a child process (`worker`) that has the machine
//! by [`lock`], with files of models and data from `artefacts`; what it finds out lies in the [`spool`] until the coordinator has stored it.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tritmark_proto::{identity::Token, job::SuiteSpec};
use tritmark_suites::{accuracy::cache::ItemCache, chain};

mod artefacts;
mod backoff;
mod calibrate;
mod desk;
mod drain;
mod endpoint;
pub mod identity;
pub mod inventory;
mod link;
pub mod lock;
mod runner;
pub mod scorer;
mod signing;
pub mod simulation;
pub mod spool;
mod state;
#[cfg(test)]
mod testing;
mod worker;

pub use artefacts::{NoSize, Size};
pub use drain::{DrainError, Leaving, drain_agent};
pub use endpoint::{EndpointError, endpoint};
pub use state::StateError;
pub use worker::WorkerCommand;

use artefacts::{Cache, Fetcher};
use desk::{Desk, Identity};
use endpoint::Dialer;
use identity::{Credentials, IdentityError};
use link::Agent;
use lock::MachineLock;
use runner::{Place, Runner};
use signing::Signer;
use spool::{Spool, SpoolError};
use state::State;

/// News from the worker on their way to the agent.
const SAID: usize = 256;
/// A day of samples of a busy machine.
const SPOOL_MAX_BYTES: u64 = 1 << 30;
/// Some hundred thousand items.
pub const ITEM_CACHE_MAX_BYTES: u64 = 1 << 30;

/// Files of models and data: some large models.
pub const FILE_CACHE_MAX_BYTES: u64 = 200 << 30;

/// How often it is looked whether the certificate has to be renewed, and tried again.
const RENEWAL_PERIOD: Duration = Duration::from_mins(10);
/// How long the coordinator may take to renew it.
const RENEW_WITHIN: Duration = Duration::from_secs(30);

/// How an agent is set up.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// `https://host:port`, or `http://` to this machine.
    pub coordinator: String,
    /// Folder of the agent's id and of what is not acknowledged; one agent a folder.
    pub state_dir: PathBuf,
    /// What selectors of a plan may ask for.
    pub labels: BTreeMap<String, String>,
    /// How a worker is started.
    pub worker: WorkerCommand,
    /// Folder of models made on this machine.
    pub cache_dir: PathBuf,
    /// Bytes that items kept between runs may take, in `items` of the state folder; `None` keeps
    /// none, whatever plans ask for.
    pub item_cache_max_bytes: Option<u64>,
    /// Bytes that models and data from the coordinator may take, in `files` of the state folder.
    pub file_cache_max_bytes: u64,
    /// Whether jobs that name paths of this machine are refused.
    pub only_sent_files: bool,
    /// How long it is tried to fetch a file of which no byte comes.
    pub fetch_patience: Duration,
    /// Root of `/proc`, `/sys` and `/etc`; `/` outside tests.
    pub sysfs_root: PathBuf,
    /// The lock all agents of the machine share.
    pub lock_path: PathBuf,
    /// Bytes that may wait for the coordinator.
    pub spool_max_bytes: u64,
    /// Whether the coordinator may ask what the machine can do. The worker's program must then know the
    /// argument `calibrate`; see [`tritmark_suites::calibration`].
    pub calibrates: bool,
    /// PEM file of certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Allows plain text to another machine.
    pub insecure: bool,
}

impl AgentConfig {
    /// The usual set-up: workers are this very program, started with the argument `worker`.
    pub fn new(coordinator: impl Into<String>, state_dir: impl Into<PathBuf>) -> io::Result<Self> {
        let state_dir = state_dir.into();
        Ok(Self {
            coordinator: coordinator.into(),
            cache_dir: state_dir.join("cache"),
            state_dir,
            labels: BTreeMap::new(),
            worker: WorkerCommand::this_program()?,
            sysfs_root: PathBuf::from("/"),
            lock_path: lock::default_path(),
            spool_max_bytes: SPOOL_MAX_BYTES,
            item_cache_max_bytes: Some(ITEM_CACHE_MAX_BYTES),
            calibrates: false,
            file_cache_max_bytes: FILE_CACHE_MAX_BYTES,
            only_sent_files: false,
            fetch_patience: artefacts::PATIENCE,
            ca_file: None,
            insecure: false,
        })
    }
}

/// Returns where an agent keeps its state unless told otherwise: the folder systemd gives a service,
/// else `tritmark` in the user's state folder (XDG).
pub fn default_state_dir() -> Option<PathBuf> {
    let folder = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    folder("STATE_DIRECTORY")
        .or_else(|| Some(folder("XDG_STATE_HOME")?.join("tritmark")))
        .or_else(|| Some(folder("HOME")?.join(".local/state/tritmark")))
}

/// Why an agent cannot begin to work. Once it works, it goes on until told to leave.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The coordinator's address cannot be used.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The credentials cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The state folder cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The spool cannot be used.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// It could not be told to leave.
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
    /// The folder of models and data cannot be used.
    #[error("cannot keep files of models and data")]
    Cache(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Runs an agent until `drain` is cancelled and the job in hand is done.
///
/// See [`run_until`] for leaving at once.
pub async fn run(config: AgentConfig, drain: CancellationToken) -> Result<(), AgentError> {
    run_until(config, drain, CancellationToken::new()).await
}

/// Runs an agent until `drain` is cancelled and the job in hand is done, or `abort` is cancelled.
///
/// An aborted job fails as the agent's fault, which the coordinator is told if it can be reached.
/// Dropping the future kills the worker; the next start from the same state folder reports what was
/// found out until then.
pub async fn run_until(
    config: AgentConfig,
    drain: CancellationToken,
    abort: CancellationToken,
) -> Result<(), AgentError> {
    let AgentConfig {
        coordinator,
        state_dir,
        labels,
        worker,
        cache_dir,
        item_cache_max_bytes,
        file_cache_max_bytes,
        only_sent_files,
        fetch_patience,
        sysfs_root,
        lock_path,
        spool_max_bytes,
        calibrates,
        ca_file,
        insecure,
    } = config;
    // Who tells the agent to leave does not tell its caller, who may still abort.
    let leave = drain.child_token();
    let told_to_leave = drain::listen(leave.clone()).map_err(AgentError::Signals)?;
    let identity_dir = state_dir.join(identity::FOLDER);
    let dialer = Dialer::new(coordinator, ca_file, insecure, identity_dir.clone())?;
    let dialer = Arc::new(dialer);
    let state = State::open(&state_dir)?;
    let spool = Spool::open(&state.folder, spool_max_bytes)?;
    let mut identity = who(&state, &sysfs_root, labels);
    identity.signer = Some(Arc::new(Signer::open(
        &state.folder,
        &worker.program,
        &identity.machine,
        &identity.agent_id,
        &identity.version,
    )?));
    if calibrates {
        identity.boot_id = Some(inventory::boot_id(&sysfs_root));
    }
    let machine_id = identity.machine.id.clone();
    let memory_bytes = identity.machine.memory_bytes;
    let desk = Desk::new(identity, spool, link::now_unix_ns());
    let (said, hears) = mpsc::channel(SAID);
    let lock = MachineLock::new(lock_path);
    let cache = Cache::open(state.folder.join("files"), file_cache_max_bytes)
        .map_err(|source| AgentError::Cache(Box::new(source)))?;
    let place = Place {
        fetcher: Fetcher::new(cache, Arc::clone(&dialer), fetch_patience)
            .refusing_paths(only_sent_files),
        cache_dir,
        sysfs_root,
        machine_id,
        memory_bytes,
        item_cache: item_cache_max_bytes.map(|max_bytes| ItemCache {
            folder: state.folder.join("items"),
            max_bytes,
        }),
    };
    let runner = Runner::new(lock, worker, place, said);
    let agent = Agent::new(desk, runner, hears, leave, abort);
    tokio::select! {
        () = agent.run(&dialer) => {}
        never = told_to_leave => match never {},
        never = renewals(&dialer, &identity_dir) => match never {},
    }
    // Held until here, so that no second agent works on the same folder.
    drop(state);
    Ok(())
}

/// Gets an agent its certificate with a token; the credentials lie in its state folder from then on.
///
/// The agent must not be running.
pub async fn enroll_agent(
    coordinator: &str,
    token: &Token,
    name: &str,
    state_dir: &Path,
) -> Result<Credentials, AgentError> {
    let state = State::open(state_dir)?;
    let keys = identity::AgentKeys {
        agent_id: state.agent_id,
        signing: &identity::signing_key(&state.folder)?,
    };
    let folder = state.folder.join(identity::FOLDER);
    Ok(identity::enroll(coordinator, token, name, Some(keys), &folder).await?)
}

/// Renews the credentials whenever that is due; open streams go on with the old ones.
async fn renewals(dialer: &Dialer, folder: &Path) -> std::convert::Infallible {
    loop {
        if let Ok(Some(credentials)) = Credentials::load(folder)
            && credentials.is_due(identity::now_unix_s())
        {
            let renewed = async {
                let channel = dialer
                    .endpoint()
                    .timeout(RENEW_WITHIN)
                    .connect()
                    .await
                    .map_err(|error| chain(&error))?;
                identity::renew(channel, folder)
                    .await
                    .map_err(|error| chain(&error))
            };
            match renewed.await {
                Ok(Credentials { about, .. }) => {
                    tracing::info!(until_unix_s = about.not_after_unix_s, "certificate renewed");
                }
                Err(error) => tracing::warn!(error, "the certificate is not renewed yet"),
            }
        }
        tokio::time::sleep(RENEWAL_PERIOD).await;
    }
}

fn who(state: &State, sysfs_root: &Path, labels: BTreeMap<String, String>) -> Identity {
    let inventory::Inventory { machine, notes } = inventory::inventory(sysfs_root);
    for note in notes {
        tracing::warn!(machine = machine.id, "{note}");
    }
    Identity {
        agent_id: state.agent_id.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        machine: machine.into(),
        labels: labels.into_iter().collect(),
        suites: SuiteSpec::NAMES.map(str::to_owned).to_vec(),
        signer: None,
        boot_id: None,
    }
}
