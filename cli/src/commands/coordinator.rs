//! `tritmark coordinator`: takes plans, gives jobs to agents, keeps what they measure.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use tokio::net::TcpListener;
use tritmark_coordinator::{
    Config, Coordinator as Service, CoordinatorError, artefacts::ArtefactsConfig, identity::FOLDER,
    objects::Objects, store::Location,
};

use crate::{
    args::{Coordinator, CoordinatorCommand},
    commands::{identity, interrupt, scorer},
    exit::{Exit, Fault, OrExit as _, Outcome},
    out,
};

pub(crate) async fn exec(args: Coordinator) -> Outcome {
    match args.command {
        CoordinatorCommand::Up {
            listen,
            state,
            store,
            insecure,
            local_files,
            objects,
            files_from,
            keep_files,
            metrics,
            calibrate_hours,
            otlp,
        } => {
            let mut config = Config::new(store_at(&state, store.as_deref())?);
            let authority = state.join(FOLDER);
            config.identity = Some(authority).filter(|folder| folder.exists() && !insecure);
            config.insecure = insecure;
            config.local_files = local_files;
            config.otlp = otlp;
            let every = Duration::from_hours(calibrate_hours.into());
            config.timing.calibrate_every = (calibrate_hours > 0).then_some(every);
            let keep = Duration::from_hours(24 * u64::from(keep_files));
            let keep = (keep_files > 0).then_some(keep);
            config.artefacts = artefacts(&state, objects.as_deref(), files_from, keep)?;
            config.scorer = Some(scorer::here(state.join("scorer"))?);
            up(listen, config, metrics).await
        }
        CoordinatorCommand::Init(args) => identity::init(args).await,
        CoordinatorCommand::Enroll(args) => identity::enroll(args).await,
        CoordinatorCommand::Revoke(args) => identity::revoke(args).await,
        CoordinatorCommand::Identities(args) => identity::identities(args).await,
        CoordinatorCommand::Audit(args) => identity::audit_log(args).await,
    }
}

/// Returns where models, data and bundles are kept: where somebody says, else in the folder. Where
/// nobody says and the folder cannot be used, they are not.
fn artefacts(
    state: &Path,
    place: Option<&str>,
    readable: Vec<PathBuf>,
    keep: Option<Duration>,
) -> Result<Option<ArtefactsConfig>, Fault> {
    let objects = match place {
        Some(place) => Objects::open(place).or_exit(Exit::Usage, || "cannot use --objects")?,
        None => match Objects::folder(&state.join("objects")) {
            Ok(objects) => objects,
            Err(error) if readable.is_empty() => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(
                    error,
                    "no place for files: agents find models and data themselves"
                );
                return Ok(None);
            }
            Err(error) => return Err(error).or_exit(Exit::Usage, || "give --objects URL"),
        },
    };
    Ok(Some(ArtefactsConfig {
        objects,
        staging: state.join("staging"),
        readable,
        keep,
    }))
}

/// Returns where the store is: where somebody says, else in the folder.
pub(super) fn store_at(state: &Path, store: Option<&str>) -> Result<Location, Fault> {
    if let Some(store) = store {
        // The text itself may hold a password and is not repeated.
        return store
            .parse::<Location>()
            .or_exit(Exit::Usage, || "--store is no place for a store");
    }
    std::fs::create_dir_all(state)
        .or_exit(Exit::Usage, || format!("cannot make {}", state.display()))?;
    Ok(state.join("store.sqlite").into())
}

async fn up(listen: SocketAddr, config: Config, metrics: Option<SocketAddr>) -> Outcome {
    // The addresses first: a second coordinator must not touch the store.
    let listener = bind(listen).await?;
    let address = listener.local_addr().context("cannot tell the address")?;
    let metrics = match metrics {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    let scheme = if config.identity.is_some() {
        "https"
    } else {
        "http"
    };
    let store = config.store.clone();
    let coordinator = match Service::open(config).await {
        Err(error @ CoordinatorError::Traces(_)) => {
            return Err(error).or_exit(Exit::Usage, || "cannot use --otlp");
        }
        opened => opened.or_exit(Exit::Internal, || format!("cannot open the store {store}"))?,
    };
    out::line(&format!("{scheme}://{address}"))?;
    if let Some(metrics) = &metrics {
        let address = metrics.local_addr().context("cannot tell the address")?;
        out::line(&format!("metrics http://{address}/metrics"))?;
    }
    let figures = async {
        match metrics {
            Some(listener) => coordinator.serve_metrics(listener).await,
            None => std::future::pending().await,
        }
    };
    let stop = coordinator.stop_token();
    let served = tokio::select! {
        served = coordinator.serve(listener) => served,
        served = figures => served,
        interrupted = interrupt() => {
            interrupted?;
            stop.cancel();
            Ok(())
        }
    };
    coordinator.close().await;
    match served {
        Ok(()) => Ok(Exit::Pass),
        Err(error @ CoordinatorError::Insecure(_)) => Err(Fault::usage(format!(
            "{error}; or make an authority with `tritmark coordinator init` (--insecure)"
        ))),
        Err(error) => Err(error).or_exit(Exit::Internal, || "the coordinator failed"),
    }
}

async fn bind(address: SocketAddr) -> Outcome<TcpListener> {
    TcpListener::bind(address)
        .await
        .or_exit(Exit::Temporary, || format!("cannot listen on {address}"))
}
