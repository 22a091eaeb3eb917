//! What the agent knows and decides; no network, no clock, no task.
//!
//! The desk holds the attempts that the coordinator has not acknowledged, at most one of which a
//! worker is busy with. [`crate::link`] carries messages to and from it and does what it asks for.

use std::{collections::VecDeque, path::PathBuf, sync::Arc};

use tritmark_proto::{
    bundle::{Failure, FailureClass},
    evidence::suite_hash,
    job::{AttemptId, Job},
    wire::{self, agent_message, coordinator_message},
};
use tritmark_suites::chain;

use crate::{
    runner::{Assignment, News, Said},
    signing::Signer,
    spool::{Flush, Flushed, Spool, SpoolError},
    worker::infrastructure,
};

mod held;
#[cfg(test)]
mod tests;

use held::Held;

/// Stage of [`wire::Progress`] while another job has the machine.
pub(crate) const WAITING: &str = "waiting for the machine";

/// Who the agent is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) agent_id: String,
    pub(crate) version: String,
    pub(crate) machine: wire::Machine,
    pub(crate) labels: std::collections::HashMap<String, String>,
    pub(crate) suites: Vec<String>,
    /// Signs what was measured.
    pub(crate) signer: Option<Arc<Signer>>,
    /// Which start of the machine this is, if the coordinator may ask what that can do.
    pub(crate) boot_id: Option<String>,
}

/// What the desk wants done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Start a worker.
    Start(Box<Assignment>),
    /// Kill the worker of this attempt; its end is awaited.
    Stop(AttemptId),
    /// Take no further job, and leave when the one in hand is done.
    Leave,
    /// Measure what the machine can do; whatever is being measured is not wanted any more.
    Calibrate(u64),
}

/// Why a job is stopped, and what is said of it at the end.
#[derive(Debug)]
enum Stop {
    /// From outside; a worker that has just finished has finished.
    Asked(Failure),
    /// Records are lost: whatever the worker says, the job failed.
    Broken(Failure),
}

/// The worker there is.
#[derive(Debug)]
struct Busy {
    attempt: AttemptId,
    stop: Option<Stop>,
}

/// The agent's state.
#[derive(Debug)]
pub(crate) struct Desk {
    identity: Identity,
    spool: Spool,
    /// Attempts not acknowledged, oldest first.
    held: VecDeque<Held>,
    /// The worker there is; its attempt may be given up already.
    busy: Option<Busy>,
    /// Waits for a given-up worker to end.
    next: Option<Box<Assignment>>,
    /// The attempt named in the last `Register`.
    announced: Option<AttemptId>,
    progress: Option<wire::Progress>,
    /// What the machine can do, to be said.
    calibration: Option<wire::Calibration>,
    is_draining: bool,
    is_draining_said: bool,
}

impl Desk {
    /// Takes over what an earlier agent left in the spool.
    ///
    /// Attempts without an end get one: their worker died with that agent.
    pub(crate) fn new(identity: Identity, spool: Spool, now_unix_ns: i64) -> Self {
        let (found, errors) = spool.recover();
        for error in errors {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "spool file left alone"
            );
        }
        let held = found
            .into_iter()
            .map(|(attempt, spool)| {
                let n_records = spool.n_records();
                let cut_bytes = spool.cut_bytes();
                let mut held = Held::recovered(attempt, spool);
                if !held.is_finished() {
                    let torn = match cut_bytes {
                        0 => String::new(),
                        cut_bytes => format!(" and {cut_bytes} bytes that were not whole"),
                    };
                    let message = format!(
                        "the agent was restarted while the job ran; it had {n_records} records{torn}"
                    );
                    held.finish(now_unix_ns, Err(infrastructure(message)));
                }
                held
            })
            .collect();
        Self {
            identity,
            spool,
            held,
            busy: None,
            next: None,
            announced: None,
            progress: None,
            calibration: None,
            is_draining: false,
            is_draining_said: false,
        }
    }

    /// Begins a connection: everything not acknowledged will be sent again.
    pub(crate) fn register(&mut self) -> wire::AgentMessage {
        for held in &mut self.held {
            held.rewind();
        }
        self.is_draining_said = false;
        // It is asked again.
        self.calibration = None;
        self.announced = self.running();
        let Identity {
            agent_id,
            version,
            machine,
            labels,
            suites,
            signer: _,
            boot_id,
        } = self.identity.clone();
        message(agent_message::Kind::Register(wire::Register {
            agent_id,
            version,
            machine: Some(machine),
            labels,
            running: self.announced.map(Into::into),
            suites,
            calibrates: boot_id.is_some(),
            boot_id: boot_id.unwrap_or_default(),
        }))
    }

    /// The attempt the coordinator must not give to another: the one a worker is busy with, else
    /// one whose records it still lacks.
    fn running(&self) -> Option<AttemptId> {
        let busy = self.busy.as_ref().map(|busy| busy.attempt);
        let next = self.next.as_ref().map(|next| next.attempt);
        busy.filter(|attempt| self.position(*attempt).is_some())
            .or(next)
            .or_else(|| self.held.front().map(|held| held.attempt))
    }

    /// Returns what says that the agent is alive.
    pub(crate) fn heartbeat(&self) -> wire::AgentMessage {
        message(agent_message::Kind::Heartbeat(wire::Heartbeat {
            running: self.running().map(Into::into),
        }))
    }

    /// Takes the coordinator's answer to [`Self::register`].
    pub(crate) fn registered(&mut self, registered: &wire::Registered) -> Vec<Action> {
        match self.announced {
            Some(attempt) if registered.abandon_running => {
                tracing::warn!(job = %attempt.job, attempt = attempt.attempt, "the coordinator no longer wants the attempt");
                self.give_up(attempt)
            }
            _ => Vec::new(),
        }
    }

    /// Takes a message of the coordinator. What it says of unknown or older attempts is ignored.
    pub(crate) fn on_message(
        &mut self,
        message: wire::CoordinatorMessage,
        now_unix_ns: i64,
    ) -> Vec<Action> {
        match message.kind {
            Some(coordinator_message::Kind::Assign(assign)) => self.assign(assign, now_unix_ns),
            Some(coordinator_message::Kind::Ack(ack)) => self.acknowledge(ack),
            Some(coordinator_message::Kind::Cancel(cancel)) => self.cancel(cancel, now_unix_ns),
            Some(coordinator_message::Kind::Drain(wire::Drain {})) => vec![Action::Leave],
            Some(coordinator_message::Kind::Calibrate(wire::Calibrate { number })) => {
                vec![Action::Calibrate(number)]
            }
            Some(coordinator_message::Kind::Registered(_)) | None => {
                tracing::warn!("a message that is not due or not known");
                Vec::new()
            }
        }
    }

    fn assign(&mut self, assign: wire::Assign, now_unix_ns: i64) -> Vec<Action> {
        let wire::Assign {
            attempt,
            job,
            items_done,
        } = assign;
        let Some(attempt) = attempt_id(attempt, "Assign") else {
            return Vec::new();
        };
        if let Some(position) = self.position(attempt) {
            // Said twice. Where the end was sent already, the coordinator has not got it.
            self.held[position].rewind();
            return Vec::new();
        }
        if self.held.iter().any(|held| is_newer(held.attempt, attempt)) {
            tracing::warn!(job = %attempt.job, fence = attempt.fence, "an old attempt is refused");
            return Vec::new();
        }
        let mut actions = Vec::new();
        let outdated: Vec<_> = self
            .held
            .iter()
            .map(|held| held.attempt)
            .filter(|held| is_newer(attempt, *held))
            .collect();
        for attempt in outdated {
            actions.extend(self.give_up(attempt));
        }
        let asked = job.clone().map(suite_hash);
        let job = match job.map(Job::try_from) {
            Some(Ok(job)) if job.id == attempt.job => Ok(job),
            Some(Ok(job)) => Err(permanent(format!(
                "the attempt is of job {}, but the job is {}",
                attempt.job, job.id
            ))),
            Some(Err(error)) => Err(permanent(format!(
                "this agent ({}) cannot read the job: {error}",
                self.identity.version
            ))),
            None => Err(permanent("the job is missing from its assignment")),
        };
        let job = job.and_then(|job| match self.refusal() {
            Some(reason) => Err(infrastructure(reason)),
            None => Ok(job),
        });
        let (mut held, failure) = match self.spool.create(attempt) {
            Ok(spool) => (Held::new(attempt, Some(spool)), None),
            Err(error) => {
                let failure = infrastructure(chain(&error));
                (Held::new(attempt, None), Some(failure))
            }
        };
        held.asked(asked);
        self.held.push_back(held);
        match (job, failure) {
            (Ok(job), None) => {
                let assignment = Box::new(Assignment {
                    attempt,
                    job,
                    items_done,
                });
                if self.busy.is_some() {
                    self.next = Some(assignment);
                } else {
                    actions.push(self.start(assignment));
                }
            }
            (Err(failure), _) | (Ok(_), Some(failure)) => {
                tracing::warn!(job = %attempt.job, reason = failure.message, "an assignment is refused");
                self.finish(attempt, now_unix_ns, Err(failure));
            }
        }
        actions
    }

    /// Says why no job can be taken now.
    fn refusal(&self) -> Option<String> {
        if self.is_draining {
            return Some("the agent is leaving and takes no job".to_owned());
        }
        let working = self.next.as_ref().map(|next| next.attempt).or_else(|| {
            // One that is being stopped will have ended soon: the job waits for that.
            let busy = self.busy.as_ref().filter(|busy| busy.stop.is_none())?;
            self.position(busy.attempt).map(|_| busy.attempt)
        })?;
        Some(format!("the agent still has job {}", working.job))
    }

    fn start(&mut self, assignment: Box<Assignment>) -> Action {
        debug_assert!(self.busy.is_none(), "one worker at a time");
        self.busy = Some(Busy {
            attempt: assignment.attempt,
            stop: None,
        });
        Action::Start(assignment)
    }

    fn acknowledge(&mut self, ack: wire::Ack) -> Vec<Action> {
        let wire::Ack {
            attempt,
            stored_below,
            finished,
        } = ack;
        let Some(attempt) = attempt_id(attempt, "Ack") else {
            return Vec::new();
        };
        let Some(position) = self.position(attempt) else {
            return Vec::new();
        };
        tracing::debug!(job = %attempt.job, attempt = attempt.attempt, fence = attempt.fence,
            stored_below, finished, "acknowledged");
        self.held[position].acknowledge(stored_below);
        if finished {
            self.give_up(attempt)
        } else {
            Vec::new()
        }
    }

    fn cancel(&mut self, cancel: wire::CancelJob, now_unix_ns: i64) -> Vec<Action> {
        let wire::CancelJob { attempt, reason } = cancel;
        let Some(attempt) = attempt_id(attempt, "CancelJob") else {
            return Vec::new();
        };
        // Says nothing of the job: a coordinator that takes the attempt up again, since the agent was
        // only thought to be lost, must not give it up for good.
        let failure = infrastructure(format!("cancelled: {reason}"));
        self.stop(attempt, failure, now_unix_ns)
    }

    /// Ends an attempt that has not ended yet.
    fn stop(&mut self, attempt: AttemptId, failure: Failure, now_unix_ns: i64) -> Vec<Action> {
        if self
            .next
            .as_ref()
            .is_some_and(|next| next.attempt == attempt)
        {
            self.next = None;
            self.finish(attempt, now_unix_ns, Err(failure));
            return Vec::new();
        }
        match &mut self.busy {
            Some(busy) if busy.attempt == attempt => {
                busy.stop.get_or_insert(Stop::Asked(failure));
                vec![Action::Stop(attempt)]
            }
            _ => Vec::new(),
        }
    }

    /// Forgets an attempt, whatever its state.
    fn give_up(&mut self, attempt: AttemptId) -> Vec<Action> {
        if self
            .next
            .as_ref()
            .is_some_and(|next| next.attempt == attempt)
        {
            self.next = None;
        }
        if let Some(held) = self
            .position(attempt)
            .and_then(|position| self.held.remove(position))
        {
            held.forget();
        }
        self.progress
            .take_if(|progress| progress.attempt == Some(wire::AttemptRef::from(attempt)));
        match &self.busy {
            Some(busy) if busy.attempt == attempt => vec![Action::Stop(attempt)],
            _ => Vec::new(),
        }
    }

    /// Takes what a worker says.
    pub(crate) fn on_worker(&mut self, said: Said, now_unix_ns: i64) -> Vec<Action> {
        let Said { attempt, news } = said;
        match news {
            News::Waiting => self.set_progress(attempt, WAITING.to_owned(), 0, 0),
            News::Started => {
                if let Some(held) = self.held_mut(attempt) {
                    held.started(now_unix_ns);
                }
            }
            News::Progress(progress) => {
                self.set_progress(attempt, progress.stage, progress.done, progress.total);
            }
            News::Record(record) => {
                let is_broken = matches!(
                    self.busy.as_ref().and_then(|busy| busy.stop.as_ref()),
                    Some(Stop::Broken(_))
                );
                if let Some(held) = self.held_mut(attempt)
                    && !is_broken
                    && let Err(error) = held.append(&(*record).into())
                {
                    return self.broken(attempt, &error);
                }
            }
            News::Ended(outcome) => return self.ended(attempt, outcome, now_unix_ns),
        }
        Vec::new()
    }

    fn set_progress(&mut self, attempt: AttemptId, stage: String, done: u64, total: u64) {
        if self.position(attempt).is_some() {
            self.progress = Some(wire::Progress {
                attempt: Some(attempt.into()),
                done,
                total,
                stage,
            });
        }
    }

    /// Fails the job because its records cannot be kept.
    fn broken(&mut self, attempt: AttemptId, error: &SpoolError) -> Vec<Action> {
        let failure = match error {
            SpoolError::TooLarge { .. } => permanent(chain(error)),
            _ => infrastructure(chain(error)),
        };
        match &mut self.busy {
            Some(busy) if busy.attempt == attempt => {
                busy.stop = Some(Stop::Broken(failure));
                vec![Action::Stop(attempt)]
            }
            _ => Vec::new(),
        }
    }

    fn ended(
        &mut self,
        attempt: AttemptId,
        outcome: Result<(), Failure>,
        now_unix_ns: i64,
    ) -> Vec<Action> {
        let Some(Busy { stop, .. }) = self.busy.take_if(|busy| busy.attempt == attempt) else {
            return Vec::new();
        };
        let outcome = match (stop, outcome) {
            (None, outcome) | (Some(Stop::Asked(_)), outcome @ Ok(())) => outcome,
            (Some(Stop::Asked(asked) | Stop::Broken(asked)), outcome) => Err(Failure {
                stderr: outcome
                    .err()
                    .map_or_else(String::new, |failure| failure.stderr),
                ..asked
            }),
        };
        self.finish(attempt, now_unix_ns, outcome);
        self.next
            .take()
            .map(|next| self.start(next))
            .into_iter()
            .collect()
    }

    fn finish(&mut self, attempt: AttemptId, now_unix_ns: i64, outcome: Result<(), Failure>) {
        if let Some(held) = self.held_mut(attempt) {
            held.finish(now_unix_ns, outcome);
        }
    }

    /// Returns what would make everything held durable, and how many records wait for that.
    pub(crate) fn flush(&self) -> Option<(AttemptId, Flush)> {
        self.held
            .iter()
            .find_map(|held| Some((held.attempt, held.flush()?)))
    }

    /// Returns each spool file, and the length up to which it was flushed.
    pub(crate) fn flushed_lengths(&self) -> impl Iterator<Item = (AttemptId, (PathBuf, u64))> {
        self.held
            .iter()
            .filter_map(|held| Some((held.attempt, held.flushed_length()?)))
    }

    /// Tells how many records wait to be made durable, and whether the end of a job does.
    pub(crate) fn undurable(&self) -> (u64, bool) {
        self.held
            .iter()
            .map(Held::undurable)
            .fold((0, false), |(n, is_end), (held_n, held_is_end)| {
                (n + held_n, is_end || held_is_end)
            })
    }

    /// Takes note of a flush.
    pub(crate) fn on_flushed(
        &mut self,
        attempt: AttemptId,
        flushed: &Result<Flushed, SpoolError>,
    ) -> Vec<Action> {
        match flushed {
            Ok(flushed) => {
                if let Some(held) = self.held_mut(attempt) {
                    held.flushed(flushed);
                }
                Vec::new()
            }
            Err(error) => {
                if let Some(held) = self.held_mut(attempt) {
                    held.lose_undurable(error);
                }
                self.broken(attempt, error)
            }
        }
    }

    /// Tells whether [`Self::next_message`] has one.
    pub(crate) fn has_message(&self) -> bool {
        (self.is_draining && !self.is_draining_said)
            || self.calibration.is_some()
            || self.held.iter().any(Held::has_message)
    }

    /// Returns the next message that must not be lost.
    ///
    /// Nothing of a record is sent before it is durable, nothing of an end before the records.
    pub(crate) fn next_message(&mut self) -> Option<wire::AgentMessage> {
        if self.is_draining && !self.is_draining_said {
            self.is_draining_said = true;
            return Some(message(agent_message::Kind::Draining(wire::Draining {})));
        }
        if let Some(calibration) = self.calibration.take() {
            return Some(message(agent_message::Kind::Calibration(calibration)));
        }
        let held = self.held.iter_mut().find(|held| held.has_message())?;
        let attempt = held.attempt;
        match held.next_message() {
            Ok(Some(agent_message::Kind::Finished(mut finished))) => {
                if let Some(signer) = &self.identity.signer {
                    finished.signed = held.evidence(&finished).map_or_else(
                        |error| {
                            tracing::error!(error = &error as &dyn std::error::Error, job = %attempt.job, "not signed");
                            None
                        },
                        |evidence| Some(signer.sign(evidence)),
                    );
                }
                Some(message(agent_message::Kind::Finished(finished)))
            }
            Ok(kind) => kind.map(message),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, job = %attempt.job, "records are lost");
                held.lose_unsent(&error);
                None
            }
        }
    }

    /// Tells whether there is progress to report.
    pub(crate) fn has_progress(&self) -> bool {
        self.progress.is_some()
    }

    /// Returns the latest progress.
    pub(crate) fn take_progress(&mut self) -> Option<wire::AgentMessage> {
        self.progress
            .take()
            .map(|progress| message(agent_message::Kind::Progress(progress)))
    }

    /// Takes what the machine can do.
    pub(crate) fn calibrated(&mut self, calibration: wire::Calibration) {
        self.calibration = Some(calibration);
    }

    /// Takes no further job.
    pub(crate) fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Stops the job in hand.
    pub(crate) fn abort(&mut self, now_unix_ns: i64) -> Vec<Action> {
        self.is_draining = true;
        let failure = || infrastructure("the agent was stopped while the job ran");
        let attempts = [
            self.next.as_ref().map(|next| next.attempt),
            self.busy.as_ref().map(|busy| busy.attempt),
        ];
        attempts
            .into_iter()
            .flatten()
            .flat_map(|attempt| self.stop(attempt, failure(), now_unix_ns))
            .collect()
    }

    /// Tells whether no worker runs or is to run.
    pub(crate) fn is_idle(&self) -> bool {
        self.busy.is_none() && self.next.is_none()
    }

    /// Tells whether the coordinator has everything.
    pub(crate) fn is_clear(&self) -> bool {
        self.is_idle() && self.held.is_empty()
    }

    fn position(&self, attempt: AttemptId) -> Option<usize> {
        self.held.iter().position(|held| held.attempt == attempt)
    }

    fn held_mut(&mut self, attempt: AttemptId) -> Option<&mut Held> {
        self.held.iter_mut().find(|held| held.attempt == attempt)
    }
}

/// Tells whether `a` supersedes `b`.
fn is_newer(a: AttemptId, b: AttemptId) -> bool {
    a.job == b.job && (a.fence, a.attempt) > (b.fence, b.attempt)
}

fn message(kind: agent_message::Kind) -> wire::AgentMessage {
    wire::AgentMessage { kind: Some(kind) }
}

fn attempt_id(attempt: Option<wire::AttemptRef>, message: &str) -> Option<AttemptId> {
    match attempt.map(AttemptId::try_from) {
        Some(Ok(attempt)) => Some(attempt),
        Some(Err(error)) => {
            tracing::warn!(%error, message, "a message is ignored");
            None
        }
        None => {
            tracing::warn!(message, "a message without an attempt is ignored");
            None
        }
    }
}

fn permanent(message: impl Into<String>) -> Failure {
    Failure {
        class: FailureClass::Permanent,
        message: message.into(),
        stderr: String::new(),
    }
}
