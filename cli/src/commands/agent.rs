//! `tritmark agent`: measures on this machine for a coordinator.

use tokio_util::sync::CancellationToken;
use tritmark_agent::{AgentConfig, AgentError, DrainError, drain_agent};

use crate::{
    args::{Agent, AgentCommand, AgentDrain, AgentUp, Trust},
    commands::{identity, interrupt},
    exit::{Exit, OrExit as _, Outcome},
};

pub(crate) async fn exec(args: Agent) -> Outcome {
    match args.command {
        AgentCommand::Up(args) => up(args).await,
        AgentCommand::Enroll(args) => identity::agent_enroll(args).await,
        AgentCommand::Drain(args) => drain(&args),
    }
}

fn drain(args: &AgentDrain) -> Outcome {
    let what = || "cannot tell the agent to leave";
    let leaving = match drain_agent(&args.state) {
        Err(error @ DrainError::NotRunning(_)) => {
            return Err(error).or_exit(Exit::NothingSelected, what);
        }
        leaving => leaving.or_exit(Exit::Internal, what)?,
    };
    if !args.no_wait {
        leaving.wait().or_exit(Exit::Internal, what)?;
    }
    Ok(Exit::Pass)
}

async fn up(args: AgentUp) -> Outcome {
    let AgentUp {
        coordinator,
        state,
        labels,
        launcher,
        item_cache_mib,
        no_calibration,
        cache_size,
        only_sent,
        trust: Trust { ca, insecure },
    } = args;
    let mut config = AgentConfig::new(coordinator, state).or_exit(
        Exit::Internal,
        || "cannot find this program to start workers with",
    )?;
    config.labels = labels.into_iter().collect();
    config.item_cache_max_bytes = (item_cache_mib > 0).then_some(u64::from(item_cache_mib) << 20);
    config.calibrates = !no_calibration;
    config.file_cache_max_bytes = cache_size.0;
    config.only_sent_files = only_sent;
    config.ca_file = ca;
    config.insecure = insecure;
    if let Some(launcher) = launcher {
        config.worker = config.worker.through(&launcher);
    }
    let (drain, abort) = (CancellationToken::new(), CancellationToken::new());
    let agent = tritmark_agent::run_until(config, drain.clone(), abort.clone());
    tokio::pin!(agent);
    let ended = loop {
        tokio::select! {
            ended = &mut agent => break ended,
            interrupted = interrupt() => {
                interrupted?;
                if drain.is_cancelled() {
                    abort.cancel();
                } else {
                    eprintln!("leaving when the job in hand is done; once more to end it");
                    drain.cancel();
                }
            }
        }
    };
    match ended {
        Ok(()) => Ok(Exit::Pass),
        Err(error @ AgentError::Endpoint(_)) => {
            Err(error).or_exit(Exit::Usage, || "cannot use the coordinator's address")
        }
        Err(error @ AgentError::Identity(_)) => {
            Err(error).or_exit(Exit::Usage, || "cannot use the agent's credentials")
        }
        Err(error) => Err(error).or_exit(Exit::Temporary, || "the agent cannot work"),
    }
}
