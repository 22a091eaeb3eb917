//! Whether a model file gives the numbers it should: a gate before any speed of it is reported.
//!
//! With a reference ([`Golden`]) the logits, log-likelihoods and greedy texts of its prompts are
//! held to [`Limits`]. Without one, or besides, the model is checked for what needs no reference:
//! numbers that are not finite or all zero, an activation that its family does not have, a
//! vocabulary or a chat template that other programs read otherwise, and kernels that disagree.

mod compare;
#[cfg(test)]
mod faults;
pub mod golden;
mod numbers;
pub mod statistics;
mod vocabulary;

use serde::Serialize;

use crate::{
    engine::{Engine, EngineError, EngineOptions, ForwardError, HeadChoice, NUMERICS_VERSION, hex},
    kernels::{self, KernelChoice},
    load::LoadedModel,
};

pub use golden::{Golden, GoldenError};
pub use statistics::Limits;

/// How to verify.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Kernel, threads, and how keys and values are kept.
    pub engine: EngineOptions,
    /// Prompts of more tokens are left out.
    pub longest_prompt: Option<usize>,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// All checks in one word.
    pub verdict: Verdict,
    /// The file's own word for its architecture.
    pub architecture: String,
    /// The kernel that was compared with the reference.
    pub kernel: &'static str,
    /// How keys and values were kept.
    pub kv: &'static str,
    /// How dense matrices in block formats were multiplied; `exact` where there are none.
    pub numerics: &'static str,
    /// Version of the engine's arithmetic.
    pub numerics_version: u32,
    /// Hash of the logits of a fixed prompt: equal for equal weights on every machine.
    pub fingerprint: String,
    /// Every check, in groups.
    pub checks: Vec<Check>,
}

/// All checks in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// No check failed.
    Pass,
    /// A check failed.
    Fail,
    /// A reference was given, and cannot judge this model.
    Inconclusive,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// What it is about.
    pub group: Group,
    /// What was looked at.
    pub name: String,
    /// What came of it.
    pub outcome: Outcome,
    /// What was found, in words or figures.
    pub found: String,
    /// The figure, where it is one.
    pub value: Option<f64>,
    /// The most it may be, where there is a limit.
    pub limit: Option<f64>,
}

/// What a check is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// A reference program's outputs.
    Golden,
    /// The weights and the logits themselves.
    Numbers,
    /// Graph and configuration.
    Graph,
    /// Tokenizer and chat template.
    Vocabulary,
    /// The kernels of this machine, against each other.
    Kernels,
}

impl Group {
    /// Returns the group's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Golden => "golden",
            Self::Numbers => "numbers",
            Self::Graph => "graph",
            Self::Vocabulary => "vocabulary",
            Self::Kernels => "kernels",
        }
    }
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As it should be.
    Pass,
    /// For information.
    Info,
    /// To be looked at; the verdict stands.
    Warn,
    /// Not as it should be.
    Fail,
    /// Could not be made.
    Skip,
}

impl Outcome {
    /// Returns the outcome's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Info => "info",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
            Self::Skip => "skip",
        }
    }
}

impl Check {
    fn new(
        group: Group,
        name: impl Into<String>,
        outcome: Outcome,
        found: impl Into<String>,
    ) -> Self {
        Self {
            group,
            name: name.into(),
            outcome,
            found: found.into(),
            value: None,
            limit: None,
        }
    }

    /// A check whose outcome is that of a condition.
    fn that(holds: bool, group: Group, name: &str, found: impl Into<String>) -> Self {
        let outcome = if holds { Outcome::Pass } else { Outcome::Fail };
        Self::new(group, name, outcome, found)
    }
}

/// Why a model could not be verified at all.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The model makes no engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A prompt could not be evaluated.
    #[error("cannot evaluate prompt `{prompt}`")]
    Forward {
        /// The prompt.
        prompt: String,
        /// Why.
        #[source]
        source: ForwardError,
    },
}

/// Verifies a model. `progress` is told the prompts that were evaluated and all of them.
pub fn verify(
    model: &LoadedModel,
    golden: Option<&Golden>,
    options: &Options,
    progress: impl FnMut(usize, usize),
) -> Result<Report, VerifyError> {
    let engine = |kernel: KernelChoice| {
        let options = EngineOptions {
            kernel,
            // All logits are asked for: a screen would be made for nothing.
            head: HeadChoice::Full,
            ..options.engine.clone()
        };
        Engine::new(model.config.clone(), model.weights.clone(), &options)
    };
    let mut main = engine(options.engine.kernel.clone())?;
    let kernel = main.kernel_name();
    let fingerprint = main.fingerprint();

    let mut checks = numbers::checks(model, &mut main);
    checks.extend(vocabulary::checks(model));
    for other in kernels::available() {
        let other = other.name();
        if other != kernel {
            let theirs = engine(KernelChoice::Named(other))?.fingerprint();
            checks.push(Check::that(
                theirs == fingerprint,
                Group::Kernels,
                &format!("{kernel} = {other}"),
                hex(&theirs),
            ));
        }
    }
    if let Some(golden) = golden {
        let comparison = compare::Comparison {
            golden,
            limits: limits(model, options),
            unlike: unlike(model, golden),
            longest_prompt: options.longest_prompt,
        };
        checks.extend(comparison.checks(&mut main, progress)?);
    }
    Ok(Report {
        verdict: verdict(&checks),
        architecture: model.source.architecture.clone(),
        kernel,
        kv: options.engine.kv.name(),
        numerics: main.numerics().name(),
        numerics_version: NUMERICS_VERSION,
        fingerprint: hex(&fingerprint),
        checks,
    })
}

/// Returns the limits that the model's kind asks for.
fn limits(model: &LoadedModel, options: &Options) -> Limits {
    if numbers::ternary(&model.weights).next().is_some() {
        Limits::ternary(options.engine.kv)
    } else {
        Limits::dense(options.engine.kv)
    }
}

/// Returns why a reference's figures are no limit for this model, if they are not.
fn unlike(model: &LoadedModel, golden: &Golden) -> Option<String> {
    if golden.mode != "f32" {
        return Some(format!(
            "the reference computed in {}: its figures are for information",
            golden.mode
        ));
    }
    let rounded = numbers::block_formats(&model.weights);
    if rounded.is_empty() {
        return None;
    }
    Some(format!(
        "weights are rounded to {}, those of the reference are not",
        rounded.join(", ")
    ))
}

fn verdict(checks: &[Check]) -> Verdict {
    let any = |outcome, group: Option<Group>| {
        checks
            .iter()
            .any(|check| check.outcome == outcome && group.is_none_or(|group| group == check.group))
    };
    if any(Outcome::Fail, None) {
        Verdict::Fail
    } else if any(Outcome::Skip, Some(Group::Golden)) {
        Verdict::Inconclusive
    } else {
        Verdict::Pass
    }
}

#[cfg(test)]
mod tests;
