//! Reads the folder of an exported run and checks that it holds together.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::Path,
};

use serde::Deserialize;
use tritmark_proto::{
    bundle::{
        AGREEMENT, FORMAT_VERSION, ITEMS, JobOutcome, MANIFEST, MEASUREMENTS, Manifest, SCORES,
        TOKENS,
    },
    machine::Machine,
};

use crate::{
    error::ReportError,
    frame::{self, CellRow, ItemRow, MeasurementRow, ScoreRow, TokenRow},
};

/// Oldest version of the format that is still read: answers are choices and have no scores of their
/// own.
const OLDEST_VERSION: u32 = 1;

/// A run as exported: who did what where, and every raw value.
#[derive(Clone, Debug, PartialEq)]
pub struct Bundle {
    /// Run, machines, jobs.
    pub manifest: Manifest,
    /// Measurements in order of job and sequence.
    pub measurements: Vec<MeasurementRow>,
    /// Items in order of job, attempt and sequence.
    pub items: Vec<ItemRow>,
    /// Tokens in order of job, sequence and position.
    pub tokens: Vec<TokenRow>,
    /// Cells of agreements in order of job and sequence.
    pub cells: Vec<CellRow>,
}

impl Bundle {
    /// Reads a bundle.
    pub fn read(dir: &Path) -> Result<Self, ReportError> {
        let path = dir.join(MANIFEST);
        let manifest = read_manifest(&path)?;
        check_manifest(&path, &manifest)?;
        let attempts: BTreeMap<u32, u32> = manifest
            .jobs
            .iter()
            .map(|outcome| (outcome.job.id.index, outcome.attempt))
            .collect();

        let path = dir.join(MEASUREMENTS);
        let mut measurements = frame::read_measurements(&path)?;
        keep_current(&path, &attempts, &mut measurements, |row| {
            (row.job_index, row.attempt)
        })?;
        measurements.sort_by_key(|row| (row.job_index, row.sequence));
        let path = dir.join(ITEMS);
        let mut items = if manifest.format_version == 1 {
            frame::read_items_of_version_1(&path)?
        } else {
            let mut items = frame::read_items(&path, manifest.format_version)?;
            let scores_path = dir.join(SCORES);
            let scores = frame::read_scores(&scores_path, manifest.format_version)?;
            give_scores(&path, &mut items, &scores_path, scores)?;
            items
        };
        // One attempt goes on where another ended, so that items of both count.
        check_jobs(&path, &attempts, &items, |row| row.job_index)?;
        items.sort_by_key(|row| (row.job_index, row.attempt, row.sequence));
        check_items(&path, &items)?;
        let path = dir.join(TOKENS);
        let mut tokens = frame::read_tokens(&path)?;
        keep_current(&path, &attempts, &mut tokens, |row| {
            (row.job_index, row.attempt)
        })?;
        tokens.sort_by_key(|row| (row.job_index, row.sequence, row.token_index));
        let path = dir.join(AGREEMENT);
        let mut cells = Vec::new();
        if manifest.format_version >= 5 {
            cells = frame::read_cells(&path)?;
            keep_current(&path, &attempts, &mut cells, |row| {
                (row.job_index, row.attempt)
            })?;
            cells.sort_by_key(|row| (row.job_index, row.sequence));
        }
        Ok(Self {
            manifest,
            measurements,
            items,
            tokens,
            cells,
        })
    }

    /// Returns the machine that did a job.
    pub fn machine_of(&self, outcome: &JobOutcome) -> Option<&Machine> {
        let id = outcome.machine_id.as_ref()?;
        self.manifest
            .machines
            .iter()
            .find(|machine| machine.id == *id)
    }
}

/// What every version of the manifest has.
#[derive(Deserialize)]
struct Probe {
    format_version: u32,
}

fn read_manifest(path: &Path) -> Result<Manifest, ReportError> {
    let bytes = fs::read(path).map_err(|source| ReportError::Read {
        path: path.to_owned(),
        source,
    })?;
    let misread = |source| ReportError::ParseManifest {
        path: path.to_owned(),
        source,
    };
    // The version is read on its own: a newer manifest may have any other shape.
    let Probe { format_version } = serde_json::from_slice(&bytes).map_err(misread)?;
    if !(OLDEST_VERSION..=FORMAT_VERSION).contains(&format_version) {
        return Err(ReportError::Version {
            path: path.to_owned(),
            found: format_version,
            supported: FORMAT_VERSION,
        });
    }
    serde_json::from_slice(&bytes).map_err(misread)
}

fn check_manifest(path: &Path, manifest: &Manifest) -> Result<(), ReportError> {
    let contradiction = |what: String| {
        Err(ReportError::Contradiction {
            path: path.to_owned(),
            what,
        })
    };
    let mut machines = BTreeSet::new();
    for machine in &manifest.machines {
        if !machines.insert(machine.id.as_str()) {
            return contradiction(format!("machine `{}` is there twice", machine.id));
        }
    }
    let mut jobs = BTreeSet::new();
    for outcome in &manifest.jobs {
        let index = outcome.job.id.index;
        if !jobs.insert(index) {
            return contradiction(format!("job {index} is there twice"));
        }
        if outcome.job.id.run != manifest.run.id {
            return contradiction(format!("job {index} is of another run"));
        }
        if let Some(id) = &outcome.machine_id
            && !machines.contains(id.as_str())
        {
            return contradiction(format!("job {index} ran on an unknown machine `{id}`"));
        }
    }
    Ok(())
}

/// Drops rows of superseded attempts and refuses rows of jobs that are not in the manifest.
fn keep_current<T>(
    path: &Path,
    attempts: &BTreeMap<u32, u32>,
    rows: &mut Vec<T>,
    key: impl Fn(&T) -> (u32, u32),
) -> Result<(), ReportError> {
    check_jobs(path, attempts, rows, |row| key(row).0)?;
    rows.retain(|row| {
        let (job_index, attempt) = key(row);
        attempts.get(&job_index) == Some(&attempt)
    });
    Ok(())
}

/// Refuses rows of jobs that are not in the manifest.
fn check_jobs<T>(
    path: &Path,
    attempts: &BTreeMap<u32, u32>,
    rows: &[T],
    job_index: impl Fn(&T) -> u32,
) -> Result<(), ReportError> {
    for (row, value) in rows.iter().enumerate() {
        let job_index = job_index(value);
        if !attempts.contains_key(&job_index) {
            return Err(ReportError::BadValue {
                path: path.to_owned(),
                column: "job_index",
                row,
                what: format!("job {job_index} is not in the manifest"),
            });
        }
    }
    Ok(())
}

/// Gives each item its scores.
fn give_scores(
    items_path: &Path,
    items: &mut [ItemRow],
    scores_path: &Path,
    scores: Vec<ScoreRow>,
) -> Result<(), ReportError> {
    let places: HashMap<(u32, u32, u64), usize> = items
        .iter()
        .enumerate()
        .map(|(at, row)| ((row.job_index, row.attempt, row.sequence), at))
        .collect();
    for (row, score) in scores.into_iter().enumerate() {
        let bad = |column, what: String| ReportError::BadValue {
            path: scores_path.to_owned(),
            column,
            row,
            what,
        };
        let ScoreRow {
            job_index,
            attempt,
            sequence,
            task,
            item_index,
            score,
        } = score;
        let Some(at) = places.get(&(job_index, attempt, sequence)) else {
            let what =
                format!("job {job_index}, attempt {attempt} has no item at sequence {sequence}");
            return Err(bad("sequence", what));
        };
        let item = &mut items[*at].item;
        if item.index != item_index || item.task != task {
            let what = format!(
                "item {item_index} of `{task}` where the items have item {} of `{}`",
                item.index, item.task
            );
            return Err(bad("item_index", what));
        }
        if item.score(&score.metric, &score.filter).is_some() {
            let what = format!(
                "item {item_index} has `{}` with filter `{}` twice",
                score.metric, score.filter
            );
            return Err(bad("metric", what));
        }
        item.scores.push(score);
    }
    match items.iter().position(|row| row.item.scores.is_empty()) {
        None => Ok(()),
        Some(row) => Err(ReportError::BadValue {
            path: items_path.to_owned(),
            column: "item_index",
            row,
            what: format!(
                "item {} of job {} has no score in `{SCORES}`",
                items[row].item.index, items[row].job_index
            ),
        }),
    }
}

/// Refuses an item that a job has twice.
fn check_items(path: &Path, items: &[ItemRow]) -> Result<(), ReportError> {
    let mut seen = BTreeSet::new();
    for (
        row,
        ItemRow {
            job_index, item, ..
        },
    ) in items.iter().enumerate()
    {
        if !seen.insert((*job_index, item.index)) {
            return Err(ReportError::BadValue {
                path: path.to_owned(),
                column: "item_index",
                row,
                what: format!("job {job_index} has item {} twice", item.index),
            });
        }
    }
    Ok(())
}

pub(crate) mod write;

#[cfg(test)]
mod tests;
