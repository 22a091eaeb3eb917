//! Scoring in one place what models wrote on many machines.
//!
//! Where a plan says `score_on = "coordinator"`, agents record programs with scores that are pending.
//! When all of a job are there, the job's next attempt is the coordinator's own: a [`Scorer`], which
//! comes in from outside, runs the programs, and what it says are records as any others, fenced and
//! written once. A coordinator that died goes on at the first item without a score.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

use tokio::sync::mpsc;
use tracing::{info, warn};
use tritmark_proto::{
    bundle::{Failure, FailureClass},
    job::{AttemptId, Job},
    machine::Machine,
    record::{Item, Record, RecordBody},
    wire,
};

use crate::{
    run::{Command, now_unix_ns},
    store::{Store, StoreError, StoredAttempt, StoredJob},
};

#[cfg(test)]
mod tests;

/// Scored items on their way to the store.
const SCORED: usize = 64;

/// Beginning of the ids under which scorers stand among the agents; an agent's own id is a UUID.
const SCORER: &str = "scorer:";

/// Runs programs against their tests, on the coordinator's machine.
#[tonic::async_trait]
pub trait Scorer: Send + Sync + Debug {
    /// Returns the machine it scores on.
    fn machine(&self) -> Machine;

    /// Finds out whether programs can be run here at all.
    ///
    /// # Errors
    /// Says why not, in a reader's words.
    async fn check(&self) -> Result<(), String>;

    /// Scores items of a job and sends each on as soon as it is scored. Dropping the future ends it.
    async fn score(
        &self,
        job: &Job,
        items: Vec<Item>,
        scored: mpsc::Sender<Item>,
    ) -> Result<(), Failure>;
}

/// Returns the name under which a machine's scorer stands among the agents.
pub(crate) fn scorer_id(machine: &Machine) -> String {
    format!("{SCORER}{}", machine.id)
}

/// Tells whether an agent is a scorer, which no connection belongs to.
pub(crate) fn is_scorer(agent_id: &str) -> bool {
    agent_id.starts_with(SCORER)
}

/// Tells whether an attempt only scores what another has written.
pub(crate) fn is_scoring(attempt: &StoredAttempt) -> bool {
    is_scorer(&attempt.agent_id)
}

/// Everything one scoring needs.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) scorer: Option<Arc<dyn Scorer>>,
    pub(crate) job: StoredJob,
    pub(crate) attempt: AttemptId,
    /// To the loop, which may have ended.
    pub(crate) commands: mpsc::WeakSender<Command>,
}

/// Why a scoring came to no end.
#[derive(Debug)]
enum Broken {
    /// The job's fault, the scorer's or the machine's.
    Failed(Failure),
    /// The store's. If it no longer wants the attempt, the loop knows.
    Store(StoreError),
}

impl From<StoreError> for Broken {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Task {
    /// Scores what has no score and tells the loop how that ended.
    pub(crate) async fn run(self) {
        let outcome = match self.score().await {
            Ok(n_records) => {
                info!(job = %self.attempt.job, n_records, "scored");
                Ok(n_records)
            }
            Err(Broken::Failed(failure)) => {
                warn!(job = %self.attempt.job, reason = failure.message, "not scored");
                Err(failure)
            }
            Err(Broken::Store(error)) => Err(failure(
                FailureClass::Infrastructure,
                format!("the scores cannot be stored: {error}"),
            )),
        };
        let attempt = self.attempt;
        if let Some(commands) = self.commands.upgrade() {
            // While shutting down there is no loop to tell.
            let _ = commands.send(Command::Scored { attempt, outcome }).await;
        }
    }

    /// Returns how many records the attempt has.
    async fn score(&self) -> Result<u64, Broken> {
        let scorer = self.scorer.as_ref().ok_or_else(|| {
            let message = "this coordinator was started without a scorer for programs";
            Broken::Failed(failure(FailureClass::Permanent, message))
        })?;
        let job = &self.job.job;
        let records = self.store.records(job.id).await?;
        let unscored = unscored(&self.job, records).map_err(Broken::Failed)?;
        let n_unscored = unscored.len() as u64;
        if n_unscored == 0 {
            return Ok(0);
        }
        let (to_us, mut arriving) = mpsc::channel(SCORED);
        let items = unscored.values().cloned().collect();
        let scoring = scorer.score(job, items, to_us);
        let mut left = unscored;
        let store = async {
            let (mut n_records, mut items) = (0, Vec::new());
            while arriving.recv_many(&mut items, SCORED).await > 0 {
                let mut records = Vec::with_capacity(items.len());
                for item in items.drain(..) {
                    records.push(Record {
                        sequence: n_records,
                        at_unix_ns: now_unix_ns(),
                        body: RecordBody::Item(accepted(&mut left, item).map_err(Broken::Failed)?),
                    });
                    n_records += 1;
                }
                self.store.add_records(self.attempt, &records).await?;
                self.tell_progress(n_records, n_unscored);
            }
            Ok::<_, Broken>(n_records)
        };
        tokio::pin!(scoring, store);
        // What is scored is stored whatever comes after; what cannot be stored ends the scoring.
        let (outcome, n_records) = tokio::select! {
            outcome = &mut scoring => (outcome, store.await?),
            stored = &mut store => (scoring.await, stored?),
        };
        outcome.map_err(Broken::Failed)?;
        if n_records < n_unscored {
            let message = format!("the scorer scored {n_records} of {n_unscored} items");
            return Err(Broken::Failed(failure(FailureClass::Transient, message)));
        }
        Ok(n_records)
    }

    fn tell_progress(&self, done: u64, total: u64) {
        let progress = wire::JobProgress {
            job_index: self.attempt.job.index,
            done,
            total,
            stage: "scoring".to_owned(),
        };
        if let Some(commands) = self.commands.upgrade() {
            let attempt = self.attempt;
            // Only for show.
            let _ = commands.try_send(Command::Progress { attempt, progress });
        }
    }
}

/// Returns the items of a job that nobody has scored yet, by position.
///
/// # Errors
/// An item that its agent has scored: then the machine would decide, which the plan does not want.
fn unscored(
    stored: &StoredJob,
    records: Vec<(u32, Record)>,
) -> Result<BTreeMap<u32, Item>, Failure> {
    let by_count = |count: u32| {
        let mut attempts = stored.attempts.iter();
        attempts.find(move |attempt| attempt.id.attempt.get() == count)
    };
    let mut items: BTreeMap<u32, Item> = BTreeMap::new();
    for (count, record) in records {
        let (Some(attempt), RecordBody::Item(item)) = (by_count(count), record.body) else {
            continue;
        };
        if attempt.is_void {
            continue;
        }
        if !is_scoring(attempt) && !item.is_pending() {
            let message = format!(
                "item {} was scored on machine {}, but the coordinator is to score it: the agent \
                 there is of a version that does not know `score_on`",
                item.index, attempt.machine_id
            );
            return Err(failure(FailureClass::Permanent, message));
        }
        // The first of those that agents have sent counts, as in a bundle; a score always does.
        let is_scored = |known: &Item| !known.is_pending();
        if !item.is_pending() || !items.contains_key(&item.index) {
            let known = items.insert(item.index, item.clone());
            if let Some(known) = known.filter(is_scored) {
                items.insert(item.index, known);
            }
        }
    }
    items.retain(|_, item| item.is_pending());
    Ok(items)
}

/// Takes an item as the scorer gives it back: one that was asked for, once, with its scores and as it
/// was in all else.
fn accepted(left: &mut BTreeMap<u32, Item>, item: Item) -> Result<Item, Failure> {
    let senseless = |problem: &str| {
        let message = format!("the scorer gave back item {} {problem}", item.index);
        failure(FailureClass::Permanent, message)
    };
    let asked = left
        .remove(&item.index)
        .ok_or_else(|| senseless("which nobody asked for, or twice"))?;
    if item.is_pending() || item.scores.is_empty() {
        return Err(senseless("without a score"));
    }
    let is_same = Item {
        scores: asked.scores.clone(),
        scored_on: asked.scored_on.clone(),
        ..item.clone()
    } == asked;
    if !is_same {
        return Err(senseless("with another answer"));
    }
    Ok(item)
}

fn failure(class: FailureClass, message: impl Into<String>) -> Failure {
    Failure {
        class,
        message: message.into(),
        stderr: String::new(),
    }
}
