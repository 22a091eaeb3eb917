//! HumanEval+ and MBPP+ by the rules of EvalPlus 0.3.1.
//!
//! A solution is sanitized, run against the original tests and against EvalPlus's further ones, and
//! what it returns is compared with what the canonical solution returns. All of it happens in the
//! [sandbox](crate::sandbox): `driver.py` holds the rules, in the language they are about.
//!
//! Where this departs from EvalPlus, so that a verdict says something of the solution alone:
//! limits of time are CPU time, scaled to the speed of the machine; hashes of texts are the same in
//! every run; `HumanEval/32` can be passed ([`Options::compat`] takes that back). There is no numpy
//! in the sandbox, and nothing that needs a socket, as `asyncio` does.

mod driver;
mod problem;
mod prompt;
mod raw;
mod truth;

use std::{
    io,
    num::NonZeroUsize,
    panic::resume_unwind,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;

pub use problem::{Dataset, Problem};
pub(crate) use problem::{identifier, parsed};
pub use prompt::{Chat, MAX_NEW_TOKENS, Style};

use driver::{Answers, Expected, Scored};

use crate::sandbox::{Exit, Sandbox, SandboxError};

/// Raised whenever a verdict may be another than before by what is written in Rust.
const RULES_VERSION: u32 = 1;

/// Returns a name for the rules of a verdict: equal names give equal verdicts.
pub(crate) fn rules() -> String {
    format!("{RULES_VERSION}-{}", driver::hash())
}

/// CPU time beside a solution's own: the interpreter's start, inputs to read, sanitizing. On the
/// reference machine.
const OVERHEAD: Duration = Duration::from_secs(5);

/// Why there is no verdict. What a solution does is never the reason.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EvalPlusError {
    /// Nothing was run.
    #[error("cannot run a solution")]
    Sandbox(#[source] SandboxError),
    /// The canonical solution does not come to its end.
    #[error("the canonical solution of {task_id} ended with {reason}")]
    Truth {
        /// The problem.
        task_id: String,
        /// How it ended.
        reason: String,
    },
    /// What was computed cannot be kept.
    #[error("cannot write {}", path.display())]
    Cache {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

/// How solutions are scored.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder where outputs of canonical solutions are kept, and their times on this machine.
    pub cache_dir: Option<PathBuf>,
    /// Fail every solution of `HumanEval/32`, as 0.3.1 does by a mistake of its own.
    pub compat: bool,
    /// Go on after the first test that fails.
    pub details: bool,
    /// Keep of a solution only what is Python and what the entry point needs. EvalPlus does so
    /// when a model writes it, not when it is scored: canonical solutions are scored without.
    pub sanitize: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_dir: None,
            compat: false,
            details: false,
            sanitize: true,
        }
    }
}

/// What became of one set of tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Every test passed.
    Pass,
    /// A test failed, an exception or the limit of one test among the reasons.
    Fail,
    /// The tests did not come to their end: the limit of all of them, or the process died.
    Timeout,
}

/// A verdict on one set of tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// In EvalPlus's words.
    pub status: Status,
    /// Positions of the tests that failed; the first alone without [`Options::details`].
    pub failed: Vec<u32>,
    /// How the process ended; a code of 0 unless the solution ended it.
    pub exit: Exit,
    /// CPU time of the process, the driver's included.
    pub cpu: Duration,
}

/// A verdict on a solution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// On the original tests.
    pub base: Outcome,
    /// On the further tests alone.
    pub plus: Outcome,
    /// What was run, sanitized where that was asked for.
    pub solution: String,
}

impl Verdict {
    /// Tells whether it counts for pass@1 of the original set.
    pub fn passes_base(&self) -> bool {
        self.base.status == Status::Pass
    }

    /// Tells whether it counts for pass@1 of the "+" set, which has all tests.
    pub fn passes_plus(&self) -> bool {
        self.passes_base() && self.plus.status == Status::Pass
    }
}

/// A scorer.
#[derive(Clone, Debug)]
pub struct EvalPlus<'a> {
    sandbox: &'a Sandbox,
    options: Options,
}

impl<'a> EvalPlus<'a> {
    /// Makes a scorer.
    pub fn new(sandbox: &'a Sandbox, options: Options) -> Self {
        Self { sandbox, options }
    }

    /// Scores a whole program, such as [`Problem::solution`] makes of an answer.
    pub fn score(&self, problem: &Problem, solution: &str) -> Result<Verdict, EvalPlusError> {
        let cache = self.options.cache_dir.as_deref();
        let truth = truth::truth(self.sandbox, cache, problem)?;
        let raw = self.options.sanitize;
        let (base, sanitized) =
            self.test(problem, solution, raw, &problem.base_input, &truth.base)?;
        // Sanitizing is done once, unless it did not come to an end.
        let (again, solution) = match sanitized {
            Some(sanitized) => (false, sanitized),
            None => (raw, solution.to_owned()),
        };
        let (plus, _) = self.test(problem, &solution, again, &problem.plus_input, &truth.plus)?;
        Ok(Verdict {
            base,
            plus,
            solution,
        })
    }

    /// Scores many, so many at a time; verdicts are in the order of the solutions.
    pub fn score_all(
        &self,
        solutions: &[(Problem, String)],
        threads: NonZeroUsize,
    ) -> Vec<Result<Verdict, EvalPlusError>> {
        let next = AtomicUsize::new(0);
        let share = || {
            let mut verdicts = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some((problem, solution)) = solutions.get(at) else {
                    return verdicts;
                };
                verdicts.push((at, self.score(problem, solution)));
            }
        };
        let mut verdicts: Vec<_> = thread::scope(|scope| {
            let n = threads.get().min(solutions.len());
            let scorers: Vec<_> = (0..n).map(|_| scope.spawn(share)).collect();
            scorers
                .into_iter()
                .flat_map(|scorer| scorer.join().unwrap_or_else(|panic| resume_unwind(panic)))
                .collect()
        });
        verdicts.sort_by_key(|(at, _)| *at);
        verdicts.into_iter().map(|(_, verdict)| verdict).collect()
    }

    /// Returns what is left of a program when it is sanitized; the program itself where that does
    /// not come to an end.
    pub fn sanitize(&self, solution: &str, entry_point: &str) -> Result<String, EvalPlusError> {
        let request = json!({ "mode": "sanitize", "entry_point": entry_point, "code": solution });
        let answers = driver::ask(self.sandbox, request, &[], OVERHEAD)?;
        Ok(code_of(&answers).unwrap_or_else(|| solution.to_owned()))
    }

    fn test(
        &self,
        problem: &Problem,
        solution: &str,
        sanitize: bool,
        inputs: &str,
        expected: &Expected,
    ) -> Result<(Outcome, Option<String>), EvalPlusError> {
        let Options {
            cache_dir: _,
            compat,
            details,
            sanitize: _,
        } = self.options;
        let request = json!({
            "mode": "score",
            "task": problem.task_id,
            "entry_point": problem.entry_point,
            "code": solution,
            "atol": problem.atol,
            "details": details,
            "compat": compat,
            "sanitize": sanitize,
            "scale": self.sandbox.layers().cpu_factor,
        });
        let expected_line = json!(expected).to_string();
        let cpu = OVERHEAD + task_limit(expected, details);
        let answers = driver::ask(self.sandbox, request, &[inputs, &expected_line], cpu)?;
        Ok((outcome(&answers), code_of(&answers)))
    }
}

/// Returns the limit of all tests, which the driver keeps too: at least a second for each, at most a
/// minute, and a second more or two.
fn task_limit(expected: &Expected, details: bool) -> Duration {
    let limits = expected
        .times
        .iter()
        .map(|seconds| (4.0 * seconds).max(1.0));
    let whole: f64 = limits.sum::<f64>().min(60.0);
    Duration::from_secs_f64(whole + if details { 2.0 } else { 1.0 })
}

/// Reads a verdict; where there is none, the process died before it could give one.
fn outcome(answers: &Answers) -> Outcome {
    let Scored { status, passed } = answers.with("status").unwrap_or(Scored {
        status: Status::Timeout,
        passed: Vec::new(),
    });
    let failed = (0..)
        .zip(passed)
        .filter_map(|(at, passed)| (!passed).then_some(at))
        .collect();
    Outcome {
        status,
        failed,
        exit: answers.ran.exit,
        cpu: answers.ran.cpu,
    }
}

fn code_of(answers: &Answers) -> Option<String> {
    let line: Value = answers.with("code")?;
    line["code"].as_str().map(str::to_owned)
}

/// Runs a program that has its tests in it.
pub(crate) fn check(
    sandbox: &Sandbox,
    code: &str,
    limit: Duration,
) -> Result<Outcome, EvalPlusError> {
    let scaled = limit.as_secs_f64() * sandbox.layers().cpu_factor;
    let request = json!({ "mode": "check", "code": code, "limit": scaled });
    let answers = driver::ask(sandbox, request, &[], limit + OVERHEAD)?;
    Ok(outcome(&answers))
}
