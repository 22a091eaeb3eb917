//! A run as a folder that is complete in itself; its format is `tritmark_proto::bundle`.
//!
//! Of every job it holds the attempt that counts: the last that succeeded, else the last. Accuracy
//! items are put together from all attempts, since one goes on where another ended; the first that
//! was stored wins, one with its scores before one that waits for them. What was superseded stays in the store.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use prost::Message as _;
use tracing::warn;
use tritmark_proto::{
    bundle::{EVIDENCE, FORMAT_VERSION, Failure, JobOutcome, JobState, MANIFEST, Manifest, Run},
    job::{Job, RunId, SuiteSpec},
    record::{ModelFacts, Record, RecordBody},
    wire::{self, AttemptEvidence, SignedManifest},
};

use crate::{
    scoring::is_scoring,
    store::{AttemptState, Store, StoreError, StoredAttempt, StoredJob, StoredRun},
};

mod frames;
#[cfg(test)]
mod tests;

use frames::Frames;

/// One file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleFile {
    /// Its name in the folder.
    pub name: &'static str,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// Why a bundle cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store knows no such run.
    #[error("there is no run {0}")]
    NoRun(RunId),
    /// The manifest cannot be written as JSON.
    #[error("cannot make the manifest")]
    Manifest(#[source] serde_json::Error),
    /// A table cannot be made.
    #[error("cannot make the table {name}")]
    Table {
        /// The file's name.
        name: &'static str,
        /// Why.
        #[source]
        source: polars::error::PolarsError,
    },
    /// A stored time is beyond the calendar.
    #[error("{unix_ns} ns since 1970 is no time")]
    Time {
        /// The time.
        unix_ns: i64,
    },
    /// A file cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Writes a run's bundle into `folder`, which is made where it is missing. Each file appears whole
/// or not at all, the manifest last.
pub async fn write(store: &dyn Store, run: RunId, folder: &Path) -> Result<(), BundleError> {
    let run = store.run(run).await?.ok_or(BundleError::NoRun(run))?;
    let failed = |path: PathBuf| {
        move |source| BundleError::Write {
            path: path.display().to_string(),
            source,
        }
    };
    fs::create_dir_all(folder).map_err(failed(folder.to_owned()))?;
    let mut files = files(store, run).await?;
    files.sort_by_key(|file| file.name == MANIFEST);
    for BundleFile { name, bytes } in files {
        let path = folder.join(name);
        let new = folder.join(format!("{name}.new"));
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&new, &path)
        };
        write().map_err(failed(path.clone()))?;
    }
    Ok(())
}

/// Makes the files of a run's bundle, the manifest first. The run may still go on.
pub async fn files(store: &dyn Store, run: StoredRun) -> Result<Vec<BundleFile>, BundleError> {
    let mut outcomes = Vec::new();
    let mut frames = Frames::default();
    let mut machine_ids = Vec::new();
    let mut evidence = Vec::new();
    let mut signatures = signatures(store, run.id).await?;
    for stored in store.jobs(run.id).await? {
        let chosen = chosen_attempt(&stored.attempts);
        let mut facts = None;
        if !stored.attempts.is_empty() {
            let records = store.records(stored.job.id).await?;
            evidence.extend(evidence_of(&stored, chosen, &records, &mut signatures));
            let chosen = chosen.map(|attempt| attempt.id.attempt.get());
            let is_void = |attempt| is_void(&stored, attempt);
            facts = add_records(&mut frames, &stored.job, chosen, is_void, records);
        }
        machine_ids.extend(chosen.map(|attempt| attempt.machine_id.clone()));
        outcomes.push(outcome(stored.job.clone(), &stored, chosen, facts)?);
    }
    machine_ids.sort_unstable();
    machine_ids.dedup();
    let manifest = Manifest {
        format_version: FORMAT_VERSION,
        machines: store.machines(&machine_ids).await?,
        run: Run {
            id: run.id,
            name: run.name,
            plan_toml: run.plan_toml,
            submitted_at: timestamp(run.submitted_unix_ns)?,
            ended_at: run.ended_unix_ns.map(timestamp).transpose()?,
            tritmark_version: run.tritmark_version,
        },
        jobs: outcomes,
    };
    let mut json = serde_json::to_vec_pretty(&manifest).map_err(BundleError::Manifest)?;
    json.push(b'\n');
    let tables = tokio::task::spawn_blocking(move || frames.into_parquet())
        .await
        .unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()));
    let mut files = vec![BundleFile {
        name: MANIFEST,
        bytes: json,
    }];
    for (name, table) in tables {
        let bytes = table.map_err(|source| BundleError::Table { name, source })?;
        files.push(BundleFile { name, bytes });
    }
    files.push(BundleFile {
        name: EVIDENCE,
        bytes: crate::evidence::file(&evidence),
    });
    Ok(files)
}

/// Returns the attempt whose records count: the last that succeeded, else the last. Attempts that
/// only score have no records but items.
fn chosen_attempt(attempts: &[StoredAttempt]) -> Option<&StoredAttempt> {
    let written = || attempts.iter().rev().filter(|attempt| !is_scoring(attempt));
    written()
        .find(|attempt| attempt.state == AttemptState::Succeeded)
        .or_else(|| written().next())
}

/// Returns the signatures of a run's attempts by job and attempt.
async fn signatures(
    store: &dyn Store,
    run: RunId,
) -> Result<BTreeMap<(u32, u32), SignedManifest>, BundleError> {
    let mut signatures = BTreeMap::new();
    for (job, attempt, bytes) in store.signatures(run).await? {
        match SignedManifest::decode(bytes.as_slice()) {
            Ok(signed) => {
                signatures.insert((job, attempt), signed);
            }
            // As good as none: whoever checks the bundle is told so.
            Err(error) => warn!(%run, job, attempt, %error, "a signature cannot be read"),
        }
    }
    Ok(signatures)
}

fn is_void(stored: &StoredJob, count: u32) -> bool {
    stored
        .attempts
        .iter()
        .any(|attempt| attempt.id.attempt.get() == count && attempt.is_void)
}

/// Returns the records of the attempts that the tables are made of, with their signatures.
fn evidence_of(
    stored: &StoredJob,
    chosen: Option<&StoredAttempt>,
    records: &[(u32, Record)],
    signatures: &mut BTreeMap<(u32, u32), SignedManifest>,
) -> Vec<AttemptEvidence> {
    let job_index = stored.job.id.index;
    let chosen = chosen.map(|attempt| attempt.id.attempt.get());
    let is_united = matches!(stored.job.suite, SuiteSpec::Accuracy(_));
    let mut evidence: Vec<AttemptEvidence> = Vec::new();
    for (attempt, record) in records {
        let is_part = is_united && !is_void(stored, *attempt);
        if Some(*attempt) != chosen && !is_part {
            continue;
        }
        // By attempt, as the store returns them.
        if evidence.last().is_none_or(|last| last.attempt != *attempt) {
            evidence.push(AttemptEvidence {
                job_index,
                attempt: *attempt,
                signed: signatures.remove(&(job_index, *attempt)),
                records: Vec::new(),
            });
        }
        let encoded = wire::Record::from(record.clone()).encode_to_vec();
        if let Some(last) = evidence.last_mut() {
            last.records.push(encoded);
        }
    }
    evidence
}

/// The tables of a bundle, made once more from its evidence.
#[derive(Debug, Default)]
pub(crate) struct Tables(Frames);

impl Tables {
    /// Adds a job's records; returns what the attempt that counts says it ran.
    pub(crate) fn add(
        &mut self,
        outcome: &JobOutcome,
        records: Vec<(u32, Record)>,
    ) -> Option<ModelFacts> {
        let chosen = Some(outcome.attempt);
        // Void attempts are not in the evidence.
        add_records(&mut self.0, &outcome.job, chosen, |_| false, records)
    }

    /// Returns the files.
    pub(crate) fn into_parquet(
        self,
    ) -> [(&'static str, polars::prelude::PolarsResult<Vec<u8>>); 5] {
        self.0.into_parquet()
    }
}

/// Adds a job's records to the tables. Returns what the chosen attempt says it ran.
fn add_records(
    frames: &mut Frames,
    job: &Job,
    chosen: Option<u32>,
    is_void: impl Fn(u32) -> bool,
    records: Vec<(u32, Record)>,
) -> Option<ModelFacts> {
    let index = job.id.index;
    let is_united = matches!(job.suite, SuiteSpec::Accuracy(_));
    let mut facts = None;
    let mut items = Vec::new();
    for (attempt, record) in records {
        let Record {
            sequence,
            at_unix_ns,
            body,
        } = record;
        let place = frames::Place {
            job_index: index,
            attempt,
            sequence,
            at_unix_ns,
        };
        match body {
            RecordBody::Item(item) if is_united && !is_void(attempt) => items.push((place, item)),
            _ if Some(attempt) != chosen => {}
            RecordBody::Item(item) => items.push((place, item)),
            RecordBody::Measurement(measurement) => frames.measurement(place, measurement),
            RecordBody::Tokens(tokens) => frames.tokens(place, &tokens),
            RecordBody::Cell(cell) => frames.cell(place, cell),
            RecordBody::Facts(said) => {
                facts.get_or_insert(said);
            }
        }
    }
    // Stable, so that the first stored of equals stays first; a score goes before none.
    items.sort_by_key(|(_, item)| (item.index, item.is_pending()));
    if is_united {
        items.dedup_by_key(|(_, item)| item.index);
    }
    for (place, item) in items {
        frames.item(place, item);
    }
    facts
}

fn outcome(
    job: Job,
    stored: &StoredJob,
    chosen: Option<&StoredAttempt>,
    facts: Option<ModelFacts>,
) -> Result<JobOutcome, BundleError> {
    Ok(JobOutcome {
        job,
        state: stored.state,
        attempt: chosen.map_or(0, |attempt| attempt.id.attempt.get()),
        machine_id: chosen.map(|attempt| attempt.machine_id.clone()),
        facts,
        failure: why_not(stored, chosen),
        started_at: chosen
            .map(|attempt| timestamp(attempt.started_unix_ns))
            .transpose()?,
        ended_at: chosen
            .and_then(|attempt| attempt.ended_unix_ns)
            .map(timestamp)
            .transpose()?,
    })
}

/// Returns why a job failed: what it wrote could not be had, or not be scored.
fn why_not(stored: &StoredJob, chosen: Option<&StoredAttempt>) -> Option<Failure> {
    if stored.failure.is_some() {
        return stored.failure.clone();
    }
    let scoring = stored.attempts.last().filter(|last| is_scoring(last));
    scoring
        .filter(|_| stored.state != JobState::Succeeded)
        .or(chosen)
        .and_then(|attempt| attempt.failure.clone())
}

fn timestamp(unix_ns: i64) -> Result<Timestamp, BundleError> {
    Timestamp::from_nanosecond(i128::from(unix_ns)).map_err(|_| BundleError::Time { unix_ns })
}
