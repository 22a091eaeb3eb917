//! The plan: what shall be run. Parsed from TOML, checked, expanded into jobs.
//!
//! [`EXAMPLE`] shows every key. A plan is checked in two steps: [`Plan::parse`] finds what is wrong
//! with the text alone, [`Plan::check`] what does not fit the files and agents at hand. Every error
//! names the key and the line.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use tritmark_proto::{
    artefact::FileSet,
    job::{Head, Job, KvType, Model, Numerics, RunId, Selector, SuiteSpec},
    machine::Machine,
};

mod check;
mod document;
mod expand;
mod expiry;
mod files;
mod locate;
pub mod names;
#[cfg(test)]
mod tests;
mod validate;

pub use expiry::{Expiry, NoExpiry};

use locate::Locator;

/// A plan with every key, explained.
pub const EXAMPLE: &str = include_str!("plan/example.toml");

/// Longest plan text in bytes.
pub const MAX_PLAN_BYTES: usize = 1 << 20;

/// Most brackets in one another. A plan needs three; the TOML reader takes and drops what it read
/// by recursion, and a few kilobytes of tables in tables are more than a thread's stack holds.
const MAX_NESTING: usize = 8;

/// Highest priority, and with a minus the lowest.
pub const MAX_PRIORITY: i32 = 1000;

/// Most jobs of one plan.
pub const MAX_JOBS: u64 = 10_000;

/// A plan without contradictions in itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    name: String,
    priority: i32,
    expires: Option<Expiry>,
    text: String,
    models: Vec<PlanModel>,
    suites: Vec<PlanSuite>,
    selectors: Vec<PlanSelector>,
}

/// What is wrong with a plan, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}{}: {problem}", if key.is_empty() { String::new() } else { format!(", key `{key}`") })]
pub struct PlanError {
    /// Line of the plan's text, from 1.
    pub line: usize,
    /// Path of the key, e.g. `models[1].baseline`; empty where the text is no TOML.
    pub key: String,
    /// In a reader's words.
    pub problem: String,
}

/// What a plan is checked against.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckContext<'a> {
    /// Whether the agents see this process's files, so that a missing one is an error.
    pub local_files: bool,
    /// Every known agent. Where none is known yet, selectors are not checked.
    pub agents: &'a [KnownAgent],
    /// Why the coordinator cannot score programs; `None` where it can, or where nobody has tried.
    pub unscored: Option<&'a str>,
}

/// An agent as a selector sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownAgent {
    /// Its machine.
    pub machine: Machine,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A model with what it is run with.
#[derive(Clone, Debug, PartialEq)]
struct PlanModel {
    model: Model,
    threads: Vec<NonZeroU32>,
    kernels: Vec<String>,
    how: How,
    /// Byte of the source's key in the text.
    source_at: usize,
    /// Byte of the adapter's, if it has one.
    adapter_at: usize,
}

/// How a model is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct How {
    numerics: Numerics,
    kv: KvType,
    head: Option<Head>,
}

/// A suite: one entry of `specs` for each workload or task.
#[derive(Clone, Debug, PartialEq)]
struct PlanSuite {
    specs: Vec<PlanSpec>,
    /// Positions of the models it is for; all of them if `None`.
    models: Option<Vec<usize>>,
    threads: Option<Vec<NonZeroU32>>,
    kernels: Option<Vec<String>>,
    /// Byte of `score_on`, where that says that the coordinator scores.
    score_on_at: Option<usize>,
}

#[derive(Clone, Debug, PartialEq)]
struct PlanSpec {
    spec: SuiteSpec,
    /// Byte of the task's name; of the suite elsewhere.
    at: usize,
}

#[derive(Clone, Debug, PartialEq)]
struct PlanSelector {
    selector: Selector,
    at: usize,
}

impl Plan {
    /// Reads a plan. `name` stands where the plan gives none; relative paths start from `base_dir`.
    pub fn parse(text: &str, name: &str, base_dir: &Path) -> Result<Self, PlanError> {
        if text.len() > MAX_PLAN_BYTES {
            return Err(PlanError {
                line: 1,
                key: String::new(),
                problem: format!(
                    "the plan has {} bytes, at most {MAX_PLAN_BYTES} are read",
                    text.len()
                ),
            });
        }
        if let Some(line) = locate::line_nested_too_deep(text, MAX_NESTING) {
            return Err(PlanError {
                line,
                key: String::new(),
                problem: format!("more than {MAX_NESTING} brackets lie in one another"),
            });
        }
        let locator = Locator::new(text);
        let document = toml::from_str(text).map_err(|error| unreadable(&locator, text, &error))?;
        validate::plan(document, text, name, base_dir, &locator)
    }

    /// Returns the plan's name, fit to be a folder's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns how much it goes before others: higher first, 0 where nothing is said.
    pub fn priority(&self) -> i32 {
        self.priority
    }

    /// Returns until when it is wanted.
    pub fn expires(&self) -> Option<Expiry> {
        self.expires
    }

    /// Returns the text it was read from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Tells whether the coordinator is to score programs.
    pub fn is_scored_by_coordinator(&self) -> bool {
        self.suites.iter().any(|suite| suite.score_on_at.is_some())
    }

    /// Returns the paths of models, adapters and tasks' data, each once, sorted.
    pub fn paths(&self) -> Vec<PathBuf> {
        files::paths(self)
    }

    /// Puts files in place of paths; the other paths stay.
    #[must_use]
    pub fn with_files(self, registered: &BTreeMap<PathBuf, FileSet>) -> Self {
        files::put(self, registered)
    }

    /// Finds what does not fit the files and agents at hand.
    pub fn check(&self, context: &CheckContext<'_>) -> Result<(), PlanError> {
        check::plan(self, context)
    }

    /// Expands the plan. A model and its baseline stand next to each other in every series; equal
    /// plans give equal jobs.
    pub fn jobs(&self, run: RunId) -> Vec<Job> {
        expand::jobs(self, run)
    }

    fn error(&self, at: usize, problem: impl Into<String>) -> PlanError {
        Locator::new(&self.text).error(at, problem)
    }
}

/// Puts an error of the TOML reader in its place.
fn unreadable(locator: &Locator<'_>, text: &str, error: &toml::de::Error) -> PlanError {
    let place = error.span().unwrap_or(0..text.len());
    let mut unreadable = locator.error_over(place, error.message());
    let missing = error
        .message()
        .strip_prefix("missing field `")
        .and_then(|rest| rest.strip_suffix('`'));
    if let Some(field) = missing {
        // The place of a missing field is its table; the whole text is no table with a path.
        unreadable.key = match field {
            "models" | "suites" => field.to_owned(),
            field => format!("{}.{field}", unreadable.key),
        };
    }
    unreadable
}
