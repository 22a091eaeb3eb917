//! Programs: generated, run against their tests in the sandbox, and never outside it.

use tritmark_proto::record::{Answer, ItemScore, NO_FILTER};

use super::{Answered, Asker, Take, item};
use crate::{
    SuiteError,
    accuracy::{
        data::Prompt,
        definition::Metric,
        task::{ProgramQuestion, Question},
    },
    clock::Clock,
    evalplus::{self, EvalPlus, Outcome, Status, Verdict},
    humaneval,
};

/// A generated program and what it is for.
struct Written<'p> {
    prompt: &'p Prompt,
    question: &'p ProgramQuestion,
    answer: tritmark_proto::record::GeneratedAnswer,
    elapsed_ns: u64,
}

impl Asker<'_> {
    pub(super) fn programs(
        &mut self,
        prompts: &[Prompt],
        clock: &dyn Clock,
        take: Take<'_>,
    ) -> Result<(), SuiteError> {
        let mut written = Vec::new();
        self.generate(prompts, clock, &mut |prompt, answer, elapsed_ns| {
            if let Question::Program(question) = &prompt.question {
                written.push(Written {
                    prompt,
                    question,
                    answer,
                    elapsed_ns,
                });
            }
            Ok(())
        })?;
        for (written, scores) in written.iter().zip(self.tested(&written)?) {
            take(item(
                self.task,
                written.prompt,
                Answered {
                    answer: Answer::Generated(written.answer.clone()),
                    scores,
                    elapsed_ns: written.elapsed_ns,
                },
            ))?;
        }
        Ok(())
    }

    /// Tests all programs, as many at a time as the engine has threads.
    fn tested(&self, written: &[Written<'_>]) -> Result<Vec<Vec<ItemScore>>, SuiteError> {
        let sandbox = self.sandbox.as_ref().ok_or(SuiteError::NoSandbox)?;
        let options = evalplus::Options {
            cache_dir: Some(self.truth_dir.clone()),
            compat: self.spec.evalplus_compat,
            ..evalplus::Options::default()
        };
        let threads = std::num::NonZeroUsize::new(self.engine.threads());
        let threads = threads.unwrap_or(std::num::NonZeroUsize::MIN);
        let solutions: Vec<_> = written
            .iter()
            .filter_map(|written| match written.question {
                ProgramQuestion::EvalPlus { problem, style, .. } => {
                    let solution = problem.solution(*style, &written.answer.text);
                    Some(((**problem).clone(), solution))
                }
                ProgramQuestion::HumanEval { .. } => None,
            })
            .collect();
        let mut verdicts = EvalPlus::new(sandbox, options)
            .score_all(&solutions, threads)
            .into_iter();
        written
            .iter()
            .map(|written| {
                let failed = |source| SuiteError::ItemProgram {
                    task: self.task.name().to_owned(),
                    index: written.prompt.index,
                    source: Box::new(source),
                };
                match written.question {
                    ProgramQuestion::EvalPlus { .. } => {
                        let verdict = verdicts.next().ok_or(SuiteError::NoSandbox)?;
                        Ok(by_evalplus(&verdict.map_err(failed)?))
                    }
                    ProgramQuestion::HumanEval { problem, .. } => {
                        let completion = problem.completion(&written.answer.text);
                        let outcome =
                            humaneval::score(sandbox, problem, completion).map_err(failed)?;
                        let passes = outcome.status == Status::Pass;
                        let program = problem.program(completion);
                        Ok(vec![score(NO_FILTER, passes, &program, &[&outcome])])
                    }
                }
            })
            .collect()
    }
}

/// Names of the two scores of a program that `EvalPlus` tests.
fn by_evalplus(verdict: &Verdict) -> Vec<ItemScore> {
    let Verdict {
        base,
        plus,
        solution,
    } = verdict;
    vec![
        score("base", verdict.passes_base(), solution, &[base]),
        score("plus", verdict.passes_plus(), solution, &[base, plus]),
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
    }
}
