//! One attempt until the coordinator has all of it.

use std::path::PathBuf;

use prost::Message as _;
use tritmark_proto::{
    bundle::Failure,
    evidence::RecordsHasher,
    job::AttemptId,
    wire::{self, agent_message::Kind},
};
use tritmark_suites::chain;

use crate::{
    signing::Evidence,
    spool::{AttemptSpool, Flush, Flushed, SpoolError},
    worker::infrastructure,
};

/// Most records in one message.
pub(super) const BATCH_RECORDS: usize = 256;
/// Most bytes of records in one message, unless one alone is larger.
const BATCH_BYTES: u64 = 1 << 20;

#[derive(Debug)]
pub(super) struct Held {
    pub(super) attempt: AttemptId,
    /// `None` where not even the file could be made.
    spool: Option<AttemptSpool>,
    /// How the job ended, where the spool could not take it.
    unspooled_end: Option<wire::JobFinished>,
    started_at_unix_ns: Option<i64>,
    is_started_sent: bool,
    sent_below: u64,
    is_end_sent: bool,
    /// Hash of the job; unknown after a restart.
    asked: Option<[u8; 32]>,
}

impl Held {
    pub(super) fn new(attempt: AttemptId, spool: Option<AttemptSpool>) -> Self {
        Self {
            attempt,
            spool,
            unspooled_end: None,
            started_at_unix_ns: None,
            is_started_sent: false,
            sent_below: 0,
            is_end_sent: false,
            asked: None,
        }
    }

    pub(super) fn recovered(attempt: AttemptId, spool: AttemptSpool) -> Self {
        let mut held = Self::new(attempt, Some(spool));
        held.rewind();
        held
    }

    /// Will send everything not acknowledged once more.
    pub(super) fn rewind(&mut self) {
        self.is_started_sent = false;
        self.sent_below = self.spool.as_ref().map_or(0, AttemptSpool::stored_below);
        self.is_end_sent = false;
    }

    pub(super) fn started(&mut self, at_unix_ns: i64) {
        self.started_at_unix_ns = Some(at_unix_ns);
    }

    pub(super) fn append(&mut self, record: &wire::Record) -> Result<(), SpoolError> {
        match &mut self.spool {
            Some(spool) => spool.append(record),
            None => unreachable!("no worker is started without a spool file"),
        }
    }

    /// Takes down how the job ended. Where the disk fails, the failure is kept in memory.
    pub(super) fn finish(&mut self, at_unix_ns: i64, outcome: Result<(), Failure>) {
        let finished = |n_records, failure: Option<Failure>| wire::JobFinished {
            attempt: Some(self.attempt.into()),
            n_records,
            at_unix_ns,
            failure: failure.map(Into::into),
            // When it is sent: until then records may be lost.
            signed: None,
        };
        if self.is_finished() {
            return;
        }
        let failure = outcome.err();
        let Some(spool) = &mut self.spool else {
            self.unspooled_end = Some(finished(0, failure));
            return;
        };
        if let Err(error) = spool.finish(finished(spool.n_records(), failure.clone())) {
            let failure = failure.unwrap_or_else(|| infrastructure(chain(&error)));
            self.unspooled_end = Some(finished(spool.durable_below(), Some(failure)));
        }
    }

    fn end(&self) -> Option<&wire::JobFinished> {
        self.unspooled_end
            .as_ref()
            .or_else(|| self.spool.as_ref()?.finished())
    }

    pub(super) fn is_finished(&self) -> bool {
        self.end().is_some()
    }

    pub(super) fn acknowledge(&mut self, below: u64) {
        let Some(spool) = &mut self.spool else { return };
        let stored_before = spool.stored_below();
        if let Err(error) = spool.acknowledge(below) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "an acknowledgement is not kept"
            );
        }
        let stored_below = spool.stored_below();
        if stored_below < stored_before {
            tracing::warn!(job = %self.attempt.job, stored_before, stored_below, "the coordinator has lost records");
            self.sent_below = stored_below;
            self.is_end_sent = false;
        }
        self.sent_below = self.sent_below.max(stored_below);
    }

    pub(super) fn flush(&self) -> Option<Flush> {
        self.spool.as_ref()?.flush()
    }

    pub(super) fn flushed_length(&self) -> Option<(PathBuf, u64)> {
        let (path, length) = self.spool.as_ref()?.flushed_length();
        Some((path.to_owned(), length))
    }

    /// Returns how many records are not durable yet, and whether the end is not.
    pub(super) fn undurable(&self) -> (u64, bool) {
        self.spool
            .as_ref()
            .map_or((0, false), AttemptSpool::undurable)
    }

    pub(super) fn flushed(&mut self, flushed: &Flushed) {
        if let Some(spool) = &mut self.spool {
            spool.flushed(flushed);
        }
    }

    /// What was not made durable never will be: the job ends with what was.
    pub(super) fn lose_undurable(&mut self, error: &SpoolError) {
        let below = self.spool.as_ref().map_or(0, AttemptSpool::durable_below);
        if self.is_finished() {
            self.end_at(below, error);
        }
        if let Some(spool) = &mut self.spool {
            spool.freeze();
        }
    }

    /// What was not sent cannot be read again.
    pub(super) fn lose_unsent(&mut self, error: &SpoolError) {
        self.end_at(self.sent_below, error);
        if let Some(spool) = &mut self.spool {
            spool.freeze();
        }
    }

    fn end_at(&mut self, n_records: u64, error: &SpoolError) {
        let at_unix_ns = self.end().map_or(0, |end| end.at_unix_ns);
        let stderr = self
            .end()
            .and_then(|end| end.failure.as_ref())
            .map_or_else(String::new, |failure| failure.stderr.clone());
        let failure = Failure {
            stderr,
            ..infrastructure(chain(error))
        };
        self.unspooled_end = Some(wire::JobFinished {
            attempt: Some(self.attempt.into()),
            n_records,
            at_unix_ns,
            failure: Some(failure.into()),
            signed: None,
        });
    }

    pub(super) fn has_message(&self) -> bool {
        self.has_start() || self.has_records() || self.has_end()
    }

    fn has_start(&self) -> bool {
        self.started_at_unix_ns.is_some() && !self.is_started_sent
    }

    fn has_records(&self) -> bool {
        self.sent_below < self.sendable_below()
    }

    /// Where the records end that are durable and belong to the attempt.
    fn sendable_below(&self) -> u64 {
        let durable = self.spool.as_ref().map_or(0, AttemptSpool::durable_below);
        match &self.unspooled_end {
            Some(end) => durable.min(end.n_records),
            None => durable,
        }
    }

    fn has_end(&self) -> bool {
        let is_durable = self.unspooled_end.is_some()
            || self.spool.as_ref().is_some_and(AttemptSpool::is_durable);
        !self.is_end_sent
            && is_durable
            && self
                .end()
                .is_some_and(|end| end.n_records <= self.sent_below)
    }

    pub(super) fn next_message(&mut self) -> Result<Option<Kind>, SpoolError> {
        let attempt = Some(self.attempt.into());
        if let Some(at_unix_ns) = self.started_at_unix_ns
            && self.has_start()
        {
            self.is_started_sent = true;
            let started = wire::JobStarted {
                attempt,
                at_unix_ns,
            };
            return Ok(Some(Kind::Started(started)));
        }
        if let Some(spool) = &self.spool
            && self.has_records()
        {
            let most = (self.sendable_below() - self.sent_below) as usize;
            let records = spool.batch(self.sent_below, most.min(BATCH_RECORDS), BATCH_BYTES)?;
            self.sent_below += records.len() as u64;
            return Ok(Some(Kind::Records(wire::RecordBatch { attempt, records })));
        }
        if self.has_end() {
            self.is_end_sent = true;
            return Ok(self.end().cloned().map(Kind::Finished));
        }
        Ok(None)
    }

    /// Takes note of what was asked for.
    pub(super) fn asked(&mut self, suite_hash: Option<[u8; 32]>) {
        self.asked = suite_hash;
    }

    /// Reads the records of an ended attempt once more, as they are kept, for the signature.
    pub(super) fn evidence(&self, end: &wire::JobFinished) -> Result<Evidence, SpoolError> {
        let mut hasher = RecordsHasher::default();
        let mut weights_hash = String::new();
        let mut next = 0;
        while let Some(spool) = &self.spool
            && next < end.n_records
        {
            let most = (end.n_records - next) as usize;
            let records = spool.batch(next, most.min(BATCH_RECORDS), BATCH_BYTES)?;
            if records.is_empty() {
                break;
            }
            for record in &records {
                hasher.add(&record.encode_to_vec());
                if let Some(wire::record::Body::Facts(facts)) = &record.body
                    && weights_hash.is_empty()
                {
                    weights_hash.clone_from(&facts.weights_hash);
                }
            }
            next += records.len() as u64;
        }
        let (n_records, records_hash) = hasher.finish();
        Ok(Evidence {
            attempt: self.attempt,
            n_records,
            records_hash,
            weights_hash,
            suite_hash: self.asked,
            succeeded: end.failure.is_none(),
        })
    }

    /// Removes what is kept on disk.
    pub(super) fn forget(self) {
        if let Some(spool) = self.spool
            && let Err(error) = spool.remove()
        {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a spool file stays"
            );
        }
    }
}
