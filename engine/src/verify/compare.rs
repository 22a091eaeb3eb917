//! A model against a reference program's outputs.

use super::{
    Check, Group, Outcome, VerifyError,
    golden::{Golden, Prompt},
    statistics::{Differences, Limits},
};
use crate::{
    engine::{Engine, Logits},
    kv_cache::KvCache,
    score,
};

/// What is compared with what.
pub(super) struct Comparison<'a> {
    pub(super) golden: &'a Golden,
    pub(super) limits: Limits,
    /// Why the reference's figures are no limit, if they are not.
    pub(super) unlike: Option<String>,
    /// Prompts of more tokens are left out.
    pub(super) longest_prompt: Option<usize>,
}

/// What was seen besides the [`Differences`].
#[derive(Default)]
struct Seen {
    differences: Differences,
    /// Prompts without the reference's tensors.
    without_tensors: usize,
    /// Prompts whose sum of log-probabilities is off by more than it may be, the worst difference
    /// a token, and prompts looked at.
    sums_off: usize,
    worst_sum: f64,
    /// Prompts that were evaluated.
    prompts: usize,
    /// Greedy tokens of which the reference was sure, and the first that is another.
    sure_tokens: usize,
    parted: Option<String>,
    n_parted: usize,
}

impl Comparison<'_> {
    /// Evaluates the reference's prompts and returns what is to be said of them.
    pub(super) fn checks(
        &self,
        engine: &mut Engine,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Vec<Check>, VerifyError> {
        let Self {
            golden,
            unlike,
            longest_prompt,
            ..
        } = self;
        if let Some(reason) = self.other_model(engine) {
            return Ok(vec![skip("the reference's model", reason)]);
        }
        let limit = longest_prompt.unwrap_or(usize::MAX);
        let chosen: Vec<&Prompt> = golden
            .prompts
            .iter()
            .filter(|prompt| prompt.ids.len() <= limit)
            .collect();
        let mut seen = Seen::default();
        progress(0, chosen.len());
        for (nth, prompt) in chosen.iter().enumerate() {
            self.evaluate(engine, prompt, &mut seen)
                .map_err(|source| VerifyError::Forward {
                    prompt: prompt.id.clone(),
                    source,
                })?;
            progress(nth + 1, chosen.len());
        }
        let mut checks = self.judge(&seen);
        let left_out = golden.prompts.len() - chosen.len();
        checks.push(Check::new(
            Group::Golden,
            "prompts",
            Outcome::Info,
            match left_out {
                0 => format!("{} of {}", chosen.len(), golden.model),
                _ => format!("{} of {}, {left_out} left out", chosen.len(), golden.model),
            },
        ));
        if let Some(reason) = unlike {
            // Said with the figures, which decide nothing.
            for check in &mut checks {
                if check.outcome == Outcome::Fail {
                    check.outcome = Outcome::Warn;
                }
            }
            checks.push(skip("the reference's arithmetic", reason.clone()));
        }
        Ok(checks)
    }

    /// Returns why the reference is of another model, if it is.
    fn other_model(&self, engine: &Engine) -> Option<String> {
        let config = engine.config();
        let vocab_size = config.vocab_size;
        if let Some(rows) = self.golden.vocab_size.filter(|&rows| rows != vocab_size) {
            return Some(format!(
                "it has {rows} logits a position, and this model {vocab_size}"
            ));
        }
        self.golden.prompts.iter().find_map(|prompt| {
            let mut ids = prompt.ids.iter().chain(&prompt.greedy_ids);
            if let Some(id) = ids.find(|&&id| id as usize >= vocab_size) {
                return Some(format!(
                    "its prompt `{}` has the token {id}, and this model {vocab_size} tokens",
                    prompt.id
                ));
            }
            (prompt.ids.len() > config.context_length).then(|| {
                format!(
                    "its prompt `{}` has {} tokens, and this model takes {}",
                    prompt.id,
                    prompt.ids.len(),
                    config.context_length
                )
            })
        })
    }

    fn evaluate(
        &self,
        engine: &mut Engine,
        prompt: &Prompt,
        seen: &mut Seen,
    ) -> Result<(), crate::engine::ForwardError> {
        // The last greedy token is not evaluated.
        let steps = prompt.greedy_ids.len();
        let mut cache = engine.new_cache(prompt.ids.len() + steps);
        let logprobs = score::token_logprobs(engine, &mut cache, &prompt.ids)?;
        let mut logits = Vec::new();
        let last = &prompt.ids[prompt.ids.len() - 1..];
        engine.forward(&mut cache, last, Logits::Last, &mut logits)?;

        seen.prompts += 1;
        match (&prompt.last_logits, &prompt.token_logprobs) {
            (Some(theirs), Some(their_logprobs)) => {
                let logits = (&theirs[..], &logits[..]);
                let logprobs = (&their_logprobs[..], &logprobs[..]);
                seen.differences.add(&prompt.id, logits, logprobs);
            }
            _ => seen.without_tensors += 1,
        }
        let off = (logprobs.iter().sum::<f64>() - prompt.sum_logprob).abs();
        let tolerance = self.sum_tolerance(logprobs.len());
        if off.is_nan() || off > tolerance {
            seen.sums_off += 1;
        }
        seen.worst_sum = seen.worst_sum.max(off / logprobs.len().max(1) as f64);
        self.follow(engine, &mut cache, logits, prompt, seen)
    }

    /// The reference's sum has its own roundings, and each token's share may be as far off as the
    /// median of all tokens.
    fn sum_tolerance(&self, n: usize) -> f64 {
        let each = match self.limits {
            Limits::Exact {
                max_logit_difference,
            } => 2.0 * f64::from(max_logit_difference),
            Limits::Statistical { p50, .. } => p50,
        };
        each * n as f64 + 1e-3
    }

    /// Goes on greedily as long as the reference is sure of its choice.
    fn follow(
        &self,
        engine: &mut Engine,
        cache: &mut KvCache,
        mut logits: Vec<f32>,
        prompt: &Prompt,
        seen: &mut Seen,
    ) -> Result<(), crate::engine::ForwardError> {
        let steps = prompt.greedy_ids.iter().zip(&prompt.greedy_margins);
        for (nth, (&theirs, &margin)) in steps.enumerate() {
            if margin <= self.limits.near_tie() {
                break;
            }
            let ours = score::argmax(&logits) as u32;
            if ours != theirs {
                seen.n_parted += 1;
                seen.parted.get_or_insert_with(|| {
                    format!(
                        "`{}` at step {nth}: {ours}, not {theirs} (margin {margin:.2})",
                        prompt.id
                    )
                });
                break;
            }
            seen.sure_tokens += 1;
            if nth + 1 < prompt.greedy_ids.len() && cache.len() < engine.config().context_length {
                engine.forward(cache, &[ours], Logits::Last, &mut logits)?;
            } else {
                break;
            }
        }
        Ok(())
    }

    fn judge(&self, seen: &Seen) -> Vec<Check> {
        let mut checks = Vec::new();
        if seen.prompts == 0 {
            return vec![skip("prompts", "none is short enough".to_owned())];
        }
        if seen.without_tensors < seen.prompts {
            let summary = seen.differences.summary();
            for measure in summary.measures(self.limits) {
                let outcome = match measure.limit {
                    None => Outcome::Info,
                    Some(_) if measure.holds() => Outcome::Pass,
                    Some(_) => Outcome::Fail,
                };
                let mut check =
                    Check::new(Group::Golden, measure.name, outcome, figure(measure.value));
                check.value = Some(measure.value);
                check.limit = measure.limit;
                checks.push(check);
            }
        }
        if seen.without_tensors > 0 {
            checks.push(skip(
                "logits",
                format!(
                    "{} prompts have no tensors in a safetensors file beside the reference",
                    seen.without_tensors
                ),
            ));
        }
        checks.push(Check::that(
            seen.sums_off == 0,
            Group::Golden,
            "log-likelihoods of whole prompts",
            format!(
                "{} of {} off, {} a token at worst",
                seen.sums_off,
                seen.prompts,
                figure(seen.worst_sum)
            ),
        ));
        checks.push(Check::that(
            seen.n_parted == 0,
            Group::Golden,
            "greedy tokens the reference is sure of",
            match &seen.parted {
                None => format!("{} equal", seen.sure_tokens),
                Some(first) => format!("{} prompts part, {first}", seen.n_parted),
            },
        ));
        checks
    }
}

fn skip(name: &str, found: String) -> Check {
    Check::new(Group::Golden, name, Outcome::Skip, found)
}

/// Returns a small figure in as few places as say enough.
fn figure(value: f64) -> String {
    if value == 0.0 || value.fract() == 0.0 && value.abs() < 1e6 {
        format!("{value}")
    } else if value.abs() >= 0.01 {
        format!("{value:.4}")
    } else {
        format!("{value:.1e}")
    }
}
