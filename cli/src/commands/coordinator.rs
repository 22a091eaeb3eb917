//! `tritmark coordinator up`: takes plans, gives jobs to agents, keeps what they measure.

use std::{net::SocketAddr, path::Path};

use anyhow::Context as _;
use tokio::net::TcpListener;
use tritmark_coordinator::{Config, Coordinator as Service, CoordinatorError};

use crate::{
    args::{Coordinator, CoordinatorCommand},
    commands::interrupt,
    exit::{Exit, Fault, OrExit as _, Outcome},
    out,
};

pub(crate) async fn exec(args: Coordinator) -> Outcome {
    match args.command {
        CoordinatorCommand::Up {
            listen,
            state,
            insecure,
            local_files,
        } => up(listen, &state, insecure, local_files).await,
    }
}

async fn up(listen: SocketAddr, state: &Path, insecure: bool, local_files: bool) -> Outcome {
    std::fs::create_dir_all(state)
        .or_exit(Exit::Usage, || format!("cannot make {}", state.display()))?;
    let mut config = Config::new(state.join("store.sqlite"));
    config.insecure = insecure;
    config.local_files = local_files;
    // The address first: a second coordinator must not touch the store.
    let listener = TcpListener::bind(listen)
        .await
        .or_exit(Exit::Temporary, || format!("cannot listen on {listen}"))?;
    let address = listener.local_addr().context("cannot tell the address")?;
    let coordinator = Service::open(config).await.or_exit(Exit::Internal, || {
        format!("cannot open the store in {}", state.display())
    })?;
    out::line(&format!("http://{address}"))?;
    let stop = coordinator.stop_token();
    let served = tokio::select! {
        served = coordinator.serve(listener) => served,
        interrupted = interrupt() => {
            interrupted?;
            stop.cancel();
            Ok(())
        }
    };
    coordinator.close().await;
    match served {
        Ok(()) => Ok(Exit::Pass),
        Err(error @ CoordinatorError::Insecure(_)) => {
            Err(Fault::usage(format!("{error} (--insecure)")))
        }
        Err(error) => Err(error).or_exit(Exit::Internal, || "the coordinator failed"),
    }
}
