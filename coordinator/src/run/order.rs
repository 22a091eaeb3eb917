//! What goes before what among runs, what is paused, and what expires.

use std::{cmp::Reverse, collections::BTreeSet};

use tracing::info;
use tritmark_proto::{
    bundle::JobState,
    job::{JobId, RunId},
};

use super::{lists::Run, state::State, watch};
use crate::store::{StoreError, StoredRun, expiry};

/// Runs of which jobs may begin, those first that go first: by priority, then by age.
#[derive(Debug, Default)]
pub(super) struct Order(BTreeSet<(Reverse<i32>, RunId)>);

impl Order {
    /// Takes in how a run stands.
    pub(super) fn note(&mut self, run: &StoredRun) {
        let place = (Reverse(run.priority), run.id);
        if run.paused_unix_ns.is_none() {
            self.0.insert(place);
        } else {
            self.0.remove(&place);
        }
    }

    pub(super) fn forget(&mut self, run: &StoredRun) {
        self.0.remove(&(Reverse(run.priority), run.id));
    }
}

impl State {
    /// Returns the runs of which jobs may begin, in their order.
    pub(super) fn begun_from(&self) -> impl Iterator<Item = &Run> {
        let ids = self.order.0.iter();
        ids.filter_map(|(_, id)| self.runs.get(id))
    }

    /// Pauses a run, or lets it go on. Returns how many jobs are queued, `None` of no such run.
    pub(super) async fn pause(
        &mut self,
        run: RunId,
        is_paused: bool,
        now: i64,
    ) -> Result<Option<u32>, StoreError> {
        if !self.runs.contains_key(&run) {
            let stored = self.open_if_new(run).await?;
            if !self.runs.contains_key(&run) {
                return Ok(stored.map(|_| 0));
            }
        }
        let since = is_paused.then_some(now);
        self.store.pause_run(run, since, now).await?;
        let Some(open) = self.runs.get(&run) else {
            return Ok(None);
        };
        let n_queued = open.counts.queued;
        if open.stored.paused_unix_ns.is_some() != is_paused {
            let stored = StoredRun {
                paused_unix_ns: since,
                ..open.stored.clone()
            };
            self.adopt_run(stored, now);
        }
        Ok(Some(n_queued))
    }

    /// Takes in what of an open run may have changed, and tells the watchers.
    pub(super) fn adopt_run(&mut self, stored: StoredRun, now: i64) {
        let Some(run) = self.runs.get_mut(&stored.id) else {
            return;
        };
        if run.stored.paused_unix_ns == stored.paused_unix_ns {
            return;
        }
        info!(run = %stored.id, paused = stored.paused_unix_ns.is_some(), "a run waits or goes on");
        self.order.note(&stored);
        run.stored = stored;
        let summary = watch::summary(&run.stored, run.counts);
        // Nobody watching is no fault.
        let _ = run.events.send(watch::summary_event(summary, now));
        self.may_assign = true;
    }

    /// Gives up what nobody has begun in time. What agents have in hand goes on.
    pub(super) async fn expire(&mut self, now: i64) -> Result<(), StoreError> {
        let due: Vec<(RunId, Vec<(u32, u32)>)> = self
            .runs
            .iter()
            .filter(|(_, run)| run.expires_at().is_some_and(|at| at <= now))
            .map(|(id, run)| (*id, run.unbegun()))
            .collect();
        for (run, jobs) in due {
            let expired = self.store.expire_jobs(run, &jobs, now).await?;
            info!(run = %run, jobs = expired.len(), "expired");
            for index in &expired {
                let job = JobId { run, index: *index };
                self.change_job(job, 0, |job| {
                    job.state = JobState::Failed;
                    job.failure = Some(expiry());
                });
                self.tell_watchers(job, now);
            }
            // Another coordinator was faster with these.
            let old: Vec<JobId> = jobs
                .iter()
                .map(|(index, _)| JobId { run, index: *index })
                .filter(|job| !expired.contains(&job.index))
                .collect();
            self.refresh(&old, now).await?;
            self.close_if_ended(run, now);
        }
        Ok(())
    }

    /// Returns when the next job is given up that nobody begins until then.
    pub(super) fn next_expiry(&self) -> Option<i64> {
        self.runs.values().filter_map(Run::expires_at).min()
    }
}
