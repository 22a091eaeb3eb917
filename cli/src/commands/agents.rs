//! `tritmark agents`: what a person says of a fleet's agents.

use serde_json::json;
use tritmark_proto::wire;

use crate::{
    args::{Agents, AgentsCommand, AgentsOne},
    client::Client,
    exit::{Exit, Outcome},
    out,
};

pub(crate) async fn exec(args: Agents) -> Outcome {
    match args.command {
        AgentsCommand::Drain(args) => drain(args).await,
        AgentsCommand::Release(args) => release(args).await,
    }
}

async fn drain(args: AgentsOne) -> Outcome {
    let mut client = Client::connect(&args.target).await?;
    let wire::DrainAgentResponse { agent_id, running } = client.drain_agent(&args.agent).await?;
    if args.print.json {
        let running = running.map(
            |at| json!({ "run_id": at.run_id, "job_index": at.job_index, "attempt": at.attempt }),
        );
        out::json(&json!({ "agent_id": agent_id, "running": running }))?;
    } else {
        out::line(&match running {
            Some(at) => format!(
                "agent {agent_id} leaves after job {} of run {}",
                at.job_index, at.run_id
            ),
            None => format!("agent {agent_id} leaves"),
        })?;
    }
    Ok(Exit::Pass)
}

async fn release(args: AgentsOne) -> Outcome {
    let mut client = Client::connect(&args.target).await?;
    let wire::ReleaseAgentResponse { agent_id, was } = client.release_agent(&args.agent).await?;
    let was = was.unwrap_or_default();
    if args.print.json {
        out::json(&json!({
            "agent_id": agent_id,
            "since_unix_ns": was.since_unix_ns,
            "reason": was.reason,
        }))?;
    } else {
        out::line(&format!(
            "agent {agent_id} is released; it was in quarantine since {}: {}",
            out::moment(was.since_unix_ns),
            was.reason
        ))?;
    }
    Ok(Exit::Pass)
}
