//! Agents come, go and say that they are there.

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tritmark_proto::{
    bundle::JobState,
    job::AttemptId,
    wire::{self, coordinator_message::Kind as ToAgentKind},
};

use super::{
    Connected, ToAgent, nanoseconds,
    state::{Agent, Connection, State},
};
use crate::store::{AttemptState, StoreError, StoredAgent};

impl State {
    /// Takes an agent in and answers it, before anything else can be said to it.
    pub(super) async fn register(
        &mut self,
        stored: StoredAgent,
        says_running: Option<AttemptId>,
        boot_id: Option<String>,
        to_agent: ToAgent,
        link: CancellationToken,
        now: i64,
    ) -> Result<Connected, StoreError> {
        let agent_id = stored.id.clone();
        let connected = self
            .connect(stored, says_running, boot_id, to_agent.clone(), link, now)
            .await;
        match &connected {
            Ok(connected) => {
                let heartbeat_seconds = self.timing.heartbeat.as_secs().max(1);
                let registered = wire::Registered {
                    coordinator_version: env!("CARGO_PKG_VERSION").to_owned(),
                    heartbeat_seconds: u32::try_from(heartbeat_seconds).unwrap_or(u32::MAX),
                    abandon_running: connected.abandon_running,
                };
                // An agent that has gone already will be missed soon.
                let _ = to_agent.try_send(wire::CoordinatorMessage {
                    kind: Some(ToAgentKind::Registered(registered)),
                });
                self.tell_to_leave(&agent_id);
            }
            Err(_) => self.disconnect(&agent_id, self.last_connection, now).await,
        }
        connected
    }

    /// Takes an agent's new connection; an older one of the same agent is cut.
    async fn connect(
        &mut self,
        mut stored: StoredAgent,
        says_running: Option<AttemptId>,
        boot_id: Option<String>,
        to_agent: ToAgent,
        link: CancellationToken,
        now: i64,
    ) -> Result<Connected, StoreError> {
        let agent_id = stored.id.clone();
        if let Some(before) = self.known_before(&agent_id).await? {
            self.hold_against(&mut stored, before, now).await?;
        }
        self.store.put_agent(&stored).await?;
        self.last_connection += 1;
        let number = self.last_connection;
        let connection = Connection {
            number,
            to_agent,
            link,
        };
        info!(
            agent = agent_id,
            machine = stored.machine.id,
            "an agent has connected"
        );
        let agent = self.know(stored);
        agent.is_draining = false;
        agent.is_calibrating = false;
        agent.is_elsewhere = false;
        if let Some(old) = agent.connection.replace(connection) {
            warn!(
                agent = agent_id,
                "the agent had a connection; the older one is cut"
            );
            old.link.cancel();
        }
        self.freed.insert(agent_id.clone());
        self.plan_calibration(&agent_id, boot_id, now).await?;
        if self.store.is_shared() {
            // It may have been with another coordinator meanwhile.
            let mut jobs = self.store.running_on(&agent_id).await?;
            let known = self.agents.get(&agent_id).and_then(|agent| agent.running);
            jobs.extend(says_running.into_iter().chain(known).map(|it| it.job));
            self.refresh(&jobs, now).await?;
        }
        let running = self.agents.get(&agent_id).and_then(|agent| agent.running);
        if let Some(attempt) = says_running
            && running.is_none()
            && self.revive(&agent_id, attempt, now).await?
        {
            return Ok(Connected {
                connection: number,
                abandon_running: false,
            });
        }
        // What was to be revived may have been read again.
        let running = self.agents.get(&agent_id).and_then(|agent| agent.running);
        match running {
            Some(attempt) if says_running == running => self.renew(attempt, now),
            Some(attempt) => {
                info!(job = %attempt.job, agent = agent_id,
                    "the agent came back without its attempt");
                self.reclaim(attempt, now);
            }
            None => {}
        }
        Ok(Connected {
            connection: number,
            abandon_running: says_running.is_some() && says_running != running,
        })
    }

    /// Returns what an agent was when it was here before.
    async fn known_before(&self, agent_id: &str) -> Result<Option<StoredAgent>, StoreError> {
        if self.store.is_shared() {
            // Other coordinators may have been told of it since.
            let mut stored = self.store.some_agents(&[agent_id.to_owned()]).await?;
            return Ok(stored.pop());
        }
        let known = self.agents.get(agent_id);
        Ok(known.map(|agent| agent.stored.clone()))
    }

    /// Gives an agent its lost attempt back, if nobody has begun another meanwhile: what it measured
    /// is as good as ever.
    async fn revive(
        &mut self,
        agent_id: &str,
        attempt: AttemptId,
        now: i64,
    ) -> Result<bool, StoreError> {
        let is_wanted = self.job(attempt.job).is_some_and(|job| {
            job.stored.state == JobState::Queued
                && job.stored.attempts.last().is_some_and(|last| {
                    last.id == attempt
                        && last.state == AttemptState::Lost
                        && last.agent_id == agent_id
                })
        });
        if !is_wanted {
            return Ok(false);
        }
        let until = now.saturating_add(nanoseconds(self.timing.lease));
        match self.store.revive_attempt(attempt, now, until).await {
            // Another coordinator was faster.
            Err(StoreError::NotQueued { .. } | StoreError::Stale { .. }) => {
                self.refresh(&[attempt.job], now).await?;
                return Ok(false);
            }
            revived => revived?,
        }
        info!(job = %attempt.job, attempt = attempt.attempt, agent = agent_id, "taken up again");
        self.change_job(attempt.job, 0, |job| {
            job.state = JobState::Running;
            if let Some(last) = job.attempts.last_mut() {
                last.state = AttemptState::Running;
                last.ended_unix_ns = None;
                last.failure = None;
                last.counts = true;
                last.lease_until_unix_ns = until;
            }
        });
        if let Some(entry) = self.job(attempt.job)
            && let Some(last) = entry.stored.attempts.last()
        {
            let (last, is_exclusive) = (last.clone(), entry.stored.job.suite.is_exclusive());
            self.lease_of_store(&last, is_exclusive);
        }
        self.tell_watchers(attempt.job, now);
        Ok(true)
    }

    /// Returns an agent if `connection` is its present one.
    pub(super) fn connected(&mut self, agent_id: &str, connection: u64) -> Option<&mut Agent> {
        self.agents.get_mut(agent_id).filter(|agent| {
            agent
                .connection
                .as_ref()
                .is_some_and(|present| present.number == connection)
        })
    }

    /// Notes that a connection is over. The attempt stays the agent's until the lease ends.
    pub(super) async fn disconnect(&mut self, agent_id: &str, connection: u64, now: i64) {
        let Some(agent) = self.connected(agent_id, connection) else {
            return;
        };
        info!(agent = agent_id, "an agent has left");
        agent.connection = None;
        agent.is_calibrating = false;
        agent.stored.last_seen_unix_ns = now;
        self.calibrations.forget(agent_id);
        let forgotten = self
            .agents
            .get(agent_id)
            .map(|agent| self.forgotten_at(agent));
        self.forgotten_due_unix_ns = forgotten
            .into_iter()
            .chain(self.forgotten_due_unix_ns)
            .min();
        if let Err(failed) = self.store.unlink_agent(agent_id, now).await {
            // The others see by its silence that it has left.
            warn!(
                error = &failed as &dyn std::error::Error,
                agent = agent_id,
                "it cannot be noted that the agent has left"
            );
        }
    }

    pub(super) fn heartbeat(
        &mut self,
        agent_id: &str,
        connection: u64,
        says_running: Option<AttemptId>,
        now: i64,
    ) {
        let Some(agent) = self.connected(agent_id, connection) else {
            return;
        };
        agent.stored.last_seen_unix_ns = now;
        let running = agent.running;
        let Some(attempt) = says_running else {
            return;
        };
        if running == says_running {
            self.renew(attempt, now);
            return;
        }
        // One that has ended properly is only waiting for its acknowledgement.
        let is_unwanted = self.attempt(attempt).is_some_and(|stored| {
            matches!(stored.state, AttemptState::Lost | AttemptState::Cancelled)
        });
        if is_unwanted {
            self.cancel_at_agent(agent_id, attempt, "the attempt is superseded");
        }
    }

    /// Tells an agent to drop an attempt. If it cannot be told now, it will be when it next says
    /// that it works on it.
    /// It ends the old worker before it begins a new one.
    pub(super) fn cancel_at_agent(&self, agent_id: &str, attempt: AttemptId, reason: &str) {
        let Some(connection) = self
            .agents
            .get(agent_id)
            .and_then(|agent| agent.connection.as_ref())
        else {
            return;
        };
        let message = wire::CoordinatorMessage {
            kind: Some(ToAgentKind::Cancel(wire::CancelJob {
                attempt: Some(attempt.into()),
                reason: reason.to_owned(),
            })),
        };
        if connection.to_agent.try_send(message).is_err() {
            warn!(agent = agent_id, job = %attempt.job, "the agent cannot be told to cancel now");
        }
    }

    /// Gives an attempt a whole lease.
    pub(super) fn renew(&mut self, attempt: AttemptId, now: i64) {
        self.prolong(
            attempt,
            now.saturating_add(nanoseconds(self.timing.lease)),
            false,
        );
    }

    /// Gives an attempt that its agent has not brought back time to hand in what was spooled.
    pub(super) fn reclaim(&mut self, attempt: AttemptId, now: i64) {
        self.prolong(
            attempt,
            now.saturating_add(nanoseconds(self.timing.reclaim)),
            true,
        );
    }

    fn prolong(&mut self, attempt: AttemptId, until: i64, is_reclaim: bool) {
        let mut was_foreign = false;
        self.leases.change(&attempt, |lease| {
            was_foreign = std::mem::take(&mut lease.is_foreign);
            lease.until_unix_ns = until;
            lease.is_reclaim = is_reclaim;
        });
        if was_foreign {
            // Other coordinators must hear of it before the lease they know of is over.
            self.leases_due_unix_ns = 0;
        }
    }
}
