//! Runs as other programs write them, so that their tools read ours.
//!
//! `docs/compare.md` lists the fields we have no value for, and what stands there.

mod evalplus;
mod lm_eval;
mod questions;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use questions::{Asked, Questions};

use crate::{
    bundle::Bundle,
    comparison::side::{self, SideError, Task},
    error::ReportError,
};

/// A program whose files are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// lm-evaluation-harness: `results_*.json` and `samples_<task>_*.jsonl`.
    LmEval,
    /// `EvalPlus`: `samples.jsonl` and `eval_results.json`.
    EvalPlus,
}

/// Why nothing is exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A model is not there.
    #[error(transparent)]
    Side(#[from] SideError),
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] ReportError),
    /// There is nothing of that kind.
    #[error("run `{run}` has no items of programs with `pass@1`, which is all EvalPlus knows")]
    NoPrograms {
        /// The run's name.
        run: String,
    },
}

/// Writes a model of a bundle, or every model where none is named, into `out`: a folder for each
/// model, with the questions in full that are in `questions`. Returns the files.
///
/// # Errors
///
/// Fails where the model is not there, the bundle has nothing of the kind, or a file cannot be
/// written.
pub fn export(
    bundle: &Bundle,
    model: Option<&str>,
    format: Format,
    questions: &Questions,
    out: &Path,
) -> Result<Vec<PathBuf>, ExportError> {
    let models = match model {
        Some(model) => vec![model.to_owned()],
        None => side::models(bundle),
    };
    if models.is_empty() {
        return Err(SideError::NoItems {
            run: bundle.manifest.run.name.clone(),
        }
        .into());
    }
    let mut written = Vec::new();
    for model in &models {
        let (_, tasks) = side::collect(bundle, Some(model))?;
        let files = match format {
            Format::LmEval => lm_eval::files(bundle, model, &tasks, questions)?,
            Format::EvalPlus => evalplus::files(bundle, &tasks)?,
        };
        let folder = out.join(sanitized(model));
        std::fs::create_dir_all(&folder).map_err(|source| ReportError::Write {
            path: folder.clone(),
            source,
        })?;
        for (name, bytes) in files {
            let path = folder.join(name);
            crate::report::replace(&path, &bytes)?;
            written.push(path);
        }
    }
    if written.is_empty() {
        return Err(ExportError::NoPrograms {
            run: bundle.manifest.run.name.clone(),
        });
    }
    Ok(written)
}

/// Returns a name fit for a path, as lm-evaluation-harness makes it: runs of `"<>:/|\?*[]` become
/// two underscores.
fn sanitized(name: &str) -> String {
    let mut clean = String::new();
    let mut in_run = false;
    for character in name.chars() {
        let is_bad = "\"<>:/|\\?*[]".contains(character);
        if is_bad && !in_run {
            clean.push_str("__");
        } else if !is_bad {
            clean.push(character);
        }
        in_run = is_bad;
    }
    // A folder of its own, whatever the name.
    match clean.as_str() {
        "" | "." | ".." => format!("_{clean}"),
        _ => clean,
    }
}

/// A file's name and what it holds.
type File = (String, Vec<u8>);

fn json(value: &serde_json::Value) -> Result<Vec<u8>, ReportError> {
    serde_json::to_vec_pretty(value).map_err(ReportError::Json)
}

fn json_line(lines: &mut Vec<u8>, value: &serde_json::Value) -> Result<(), ReportError> {
    serde_json::to_writer(&mut *lines, value).map_err(ReportError::Json)?;
    lines.push(b'\n');
    Ok(())
}
