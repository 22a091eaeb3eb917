//! Agents are told to leave: they finish what they have in hand and take nothing more.
//!
//! What a person asked for is in the store until the agent has answered, so that it holds over a broken
//! link, a restart, and from one coordinator to another. A later start of the agent is free of it.

use tracing::{error, info};
use tritmark_proto::{
    job::AttemptId,
    wire::{self, coordinator_message::Kind as ToAgentKind},
};

use super::{shared::is_heard_elsewhere, state::State};
use crate::store::{StoreError, StoredAgent};

impl State {
    /// Tells an agent to leave. Returns which, and what it does first, or why it cannot be told.
    pub(super) async fn drain_agent(
        &mut self,
        name: &str,
        now: i64,
    ) -> Result<Result<(String, Option<AttemptId>), String>, StoreError> {
        let id = match self.agent_named(name) {
            Ok(id) => id,
            Err(problem) => return Ok(Err(problem)),
        };
        let Some(agent) = self.agents.get_mut(&id) else {
            return Ok(Err(format!("there is no agent `{name}`")));
        };
        if agent.connection.is_none() && !is_heard_elsewhere(agent, now) {
            return Ok(Err(format!("agent {id} is not connected")));
        }
        self.store.ask_drain(&id, Some(now)).await?;
        agent.stored.drain_unix_ns = Some(now);
        let running = agent.running;
        self.tell_to_leave(&id);
        Ok(Ok((id, running)))
    }

    /// Passes on to an agent that is linked here what it was asked for.
    pub(super) fn tell_to_leave(&mut self, agent_id: &str) {
        let Some(agent) = self.agents.get_mut(agent_id) else {
            return;
        };
        let Some(connection) = agent
            .connection
            .as_ref()
            .filter(|_| agent.stored.drain_unix_ns.is_some())
        else {
            return;
        };
        info!(agent = agent_id, "told to leave");
        agent.is_draining = true;
        // One that does not read its messages is told when it is back.
        let _ = connection.to_agent.try_send(wire::CoordinatorMessage {
            kind: Some(ToAgentKind::Drain(wire::Drain {})),
        });
    }

    /// Takes note that an agent leaves, whoever told it to.
    pub(super) async fn draining(&mut self, agent_id: &str, connection: u64) {
        let Some(agent) = self.connected(agent_id, connection) else {
            return;
        };
        info!(agent = agent_id, "the agent takes no further job");
        agent.is_draining = true;
        if agent.stored.drain_unix_ns.is_none() {
            return;
        }
        match self.store.ask_drain(agent_id, None).await {
            Ok(()) => {
                if let Some(agent) = self.agents.get_mut(agent_id) {
                    agent.stored.drain_unix_ns = None;
                }
            }
            // Its next start is told once more.
            Err(failed) => error!(
                error = &failed as &dyn std::error::Error,
                agent = agent_id,
                "it cannot be noted that the agent leaves"
            ),
        }
    }

    /// Takes in what another coordinator was asked for about an agent that is linked here.
    pub(super) fn adopt_word(&mut self, stored: &StoredAgent) {
        let Some(agent) = self.agents.get_mut(&stored.id) else {
            return;
        };
        agent.stored.quarantine.clone_from(&stored.quarantine);
        let is_new = agent.stored.drain_unix_ns.is_none() && stored.drain_unix_ns.is_some();
        agent.stored.drain_unix_ns = stored.drain_unix_ns;
        self.may_assign = true;
        if is_new {
            self.tell_to_leave(&stored.id);
        }
    }
}
