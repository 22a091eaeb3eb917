//! What the canonical solutions return: computed once, in the sandbox, and kept in a folder.

use std::{
    fs, io,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    EvalPlusError, Problem,
    driver::{self, Expected},
};
use crate::sandbox::Sandbox;

/// CPU time for both sets of tests of one problem, on the reference machine.
const CPU: Duration = Duration::from_mins(5);

/// Outputs of the canonical solution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Truth {
    pub(super) base: Expected,
    pub(super) plus: Expected,
}

/// Returns the truth of a problem, from the folder where it is there.
pub(super) fn truth(
    sandbox: &Sandbox,
    cache: Option<&Path>,
    problem: &Problem,
) -> Result<Truth, EvalPlusError> {
    let path = cache.map(|folder| folder.join(format!("{}.json", key(sandbox, problem))));
    if let Some(path) = &path {
        // One that was cut short is made anew.
        let kept = fs::read(path).map(|bytes| serde_json::from_slice(&bytes));
        if let Ok(Ok(truth)) = kept {
            return Ok(truth);
        }
    }
    let truth = compute(sandbox, problem)?;
    if let Some(path) = &path {
        keep(path, &truth).map_err(|source| EvalPlusError::Cache {
            path: path.clone(),
            source,
        })?;
    }
    Ok(truth)
}

/// Outputs belong to a problem, the driver and the interpreter; times belong to this machine.
fn key(sandbox: &Sandbox, problem: &Problem) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [
        &problem.hash,
        include_str!("driver.py"),
        &sandbox.layers().python,
    ] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

fn keep(path: &Path, truth: &Truth) -> io::Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);

    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    // Whole or not at all, also where several threads or processes score the same problem.
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let new = path.with_extension(format!("{}-{count}.new", std::process::id()));
    fs::write(&new, serde_json::to_vec(truth)?)?;
    fs::rename(new, path)
}

fn compute(sandbox: &Sandbox, problem: &Problem) -> Result<Truth, EvalPlusError> {
    let request = json!({
        "mode": "truth",
        "task": problem.task_id,
        "entry_point": problem.entry_point,
        "code": format!("{}{}", problem.prompt, problem.canonical_solution),
    });
    let inputs = [problem.base_input.as_str(), problem.plus_input.as_str()];
    let answers = driver::ask(sandbox, request, &inputs, CPU)?;
    answers.with("base").ok_or_else(|| {
        let stderr = String::from_utf8_lossy(&answers.ran.stderr.bytes);
        EvalPlusError::Truth {
            task_id: problem.task_id.clone(),
            reason: match stderr.trim().lines().last() {
                Some(last) => format!("{}: {last}", answers.ran.exit),
                None => answers.ran.exit.to_string(),
            },
        }
    })
}
