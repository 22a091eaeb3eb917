//! Runs programs against their tests in the sandbox, and never outside it.

use std::num::{NonZeroU32, NonZeroUsize};

use tritmark_proto::{
    job::AccuracySpec,
    record::{ItemScore, NO_FILTER},
};

use super::{
    definition::Metric,
    task::{ProgramQuestion, Task},
};
use crate::{
    Context, SuiteError,
    evalplus::{self, EvalPlus, Outcome, Status, Verdict},
    humaneval,
    sandbox::{Layers, Sandbox},
};

/// Filters of the two scores of a program that `EvalPlus` tests.
const BASE: &str = "base";
const PLUS: &str = "plus";

/// Scores programs.
#[derive(Debug)]
pub(super) struct Judge {
    task: String,
    sandbox: Sandbox,
    options: evalplus::Options,
    /// Programs that run at a time.
    threads: NonZeroUsize,
    /// The machine this is.
    pub(super) machine_id: Option<String>,
}

/// A program and what it is for.
pub(super) struct Program<'p> {
    /// The item's position.
    pub(super) index: u32,
    pub(super) question: &'p ProgramQuestion,
    /// The model's answer, as it is.
    pub(super) text: &'p str,
}

impl Judge {
    /// Finds the machine's sandbox and tries it.
    pub(super) fn new(
        task: &Task,
        spec: &AccuracySpec,
        threads: NonZeroU32,
        context: &Context<'_>,
    ) -> Result<Self, SuiteError> {
        Ok(Self {
            task: task.name().to_owned(),
            sandbox: Sandbox::detect(&context.sandbox).map_err(SuiteError::Sandbox)?,
            options: evalplus::Options {
                cache_dir: Some(context.cache_dir.join("evalplus")),
                compat: spec.evalplus_compat,
                ..evalplus::Options::default()
            },
            threads: NonZeroUsize::try_from(threads).unwrap_or(NonZeroUsize::MIN),
            machine_id: context.machine_id.clone(),
        })
    }

    /// Returns what the sandbox consists of.
    pub(super) fn layers(&self) -> Layers {
        self.sandbox.layers()
    }

    /// Tests all programs, several at a time; scores are in their order.
    pub(super) fn scores(
        &self,
        programs: &[Program<'_>],
    ) -> Result<Vec<Vec<ItemScore>>, SuiteError> {
        let solutions: Vec<_> = programs
            .iter()
            .filter_map(|program| match program.question {
                ProgramQuestion::EvalPlus { problem, style, .. } => {
                    let solution = problem.solution(*style, program.text);
                    Some(((**problem).clone(), solution))
                }
                ProgramQuestion::HumanEval { .. } => None,
            })
            .collect();
        let mut verdicts = EvalPlus::new(&self.sandbox, self.options.clone())
            .score_all(&solutions, self.threads)
            .into_iter();
        programs
            .iter()
            .map(|program| {
                let failed = |source| SuiteError::ItemProgram {
                    task: self.task.clone(),
                    index: program.index,
                    source: Box::new(source),
                };
                match program.question {
                    ProgramQuestion::EvalPlus { .. } => {
                        let verdict = verdicts.next().ok_or(SuiteError::NoSandbox)?;
                        Ok(by_evalplus(&verdict.map_err(failed)?))
                    }
                    ProgramQuestion::HumanEval { problem, .. } => {
                        let completion = problem.completion(program.text);
                        let outcome =
                            humaneval::score(&self.sandbox, problem, completion).map_err(failed)?;
                        let passes = outcome.status == Status::Pass;
                        let text = problem.program(completion);
                        Ok(vec![score(NO_FILTER, passes, &text, &[&outcome])])
                    }
                }
            })
            .collect()
    }
}

/// Returns the scores a program will have, still to be made.
pub(super) fn pending(question: &ProgramQuestion) -> Vec<ItemScore> {
    let filters: &[&str] = match question {
        ProgramQuestion::HumanEval { .. } => &[NO_FILTER],
        ProgramQuestion::EvalPlus { .. } => &[BASE, PLUS],
    };
    filters
        .iter()
        .map(|filter| ItemScore::pending(Metric::PassAt1.name(), filter))
        .collect()
}

fn by_evalplus(verdict: &Verdict) -> Vec<ItemScore> {
    let Verdict {
        base,
        plus,
        solution,
    } = verdict;
    vec![
        score(BASE, verdict.passes_base(), solution, &[base]),
        score(PLUS, verdict.passes_plus(), solution, &[base, plus]),
    ]
}

fn score(filter: &str, passes: bool, program: &str, outcomes: &[&Outcome]) -> ItemScore {
    let reason = outcomes
        .iter()
        .find(|outcome| outcome.status != Status::Pass)
        .map(|outcome| match (outcome.status, outcome.failed.first()) {
            (Status::Timeout, _) => format!("did not come to its end: {:?}", outcome.exit),
            (_, Some(test)) => format!("fails test {test}"),
            (_, None) => format!("fails: {:?}", outcome.exit),
        });
    ItemScore {
        metric: Metric::PassAt1.name().to_owned(),
        filter: filter.to_owned(),
        value: Some(f64::from(u8::from(passes))),
        extracted: Some(program.to_owned()),
        reason,
        pending: false,
    }
}
