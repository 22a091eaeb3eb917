//! Multiple choice: each choice is scored as the continuation of its context.

use tritmark_engine::score::{Request, Score, ScoreError, Scorer};
use tritmark_proto::record::{Answer, Choice, ChoiceAnswer, ItemScore};

use super::{Answered, Asker, MAX_TOKENS, item};
use crate::{
    SuiteError,
    accuracy::{
        data::Prompt,
        definition::Metric,
        energy::Ended,
        outbox::Outbox,
        task::{ChoiceQuestion, Question, Task},
    },
};

impl Asker<'_> {
    pub(super) fn choices(
        &mut self,
        prompts: &[Prompt],
        out: &mut Outbox<'_>,
    ) -> Result<(), SuiteError> {
        let start_ns = out.now_ns();
        let mut pairs = Vec::with_capacity(prompts.len());
        for prompt in prompts {
            pairs.push(
                prompt
                    .pairs(&self.tokenizer, self.spec.add_bos)
                    .map_err(self.tokens_error(prompt.index))?,
            );
        }
        let requests: Vec<Vec<Request<'_>>> = pairs
            .iter()
            .map(|pairs| {
                let requests = pairs.iter().map(|pair| Request {
                    context: &pair.context,
                    continuation: &pair.continuation,
                });
                requests.collect()
            })
            .collect();
        let items: Vec<&[Request<'_>]> = requests.iter().map(Vec::as_slice).collect();
        let scores = Scorer::new(&mut self.engine, MAX_TOKENS)
            .score(&items)
            .map_err(|source| self.score_error(prompts, &requests, source))?;
        let elapsed_ns = (out.now_ns() - start_ns) / prompts.len().max(1) as u64;
        out.end(prompts.iter().map(|prompt| Ended {
            index: prompt.index,
            elapsed_ns,
        }))?;
        for (prompt, scores) in prompts.iter().zip(scores) {
            let Question::Choice(question) = &prompt.question else {
                continue;
            };
            for score in &scores {
                self.finite(prompt.index, score.loglikelihood)?;
            }
            let (answer, scores) = judge(self.task, question, &scores);
            let answered = Answered {
                answer: Answer::Choice(answer),
                scores,
                elapsed_ns,
            };
            out.take(item(self.task, prompt, answered))?;
        }
        Ok(())
    }

    /// Names the item a request belongs to; requests are counted through all of them.
    fn score_error(
        &self,
        prompts: &[Prompt],
        requests: &[Vec<Request<'_>>],
        source: ScoreError,
    ) -> SuiteError {
        let at = match &source {
            ScoreError::Empty { index } | ScoreError::TooLong { index, .. } => *index,
            ScoreError::Forward(_) => 0,
        };
        let mut before = 0;
        let found = prompts.iter().zip(requests).find(|(_, requests)| {
            before += requests.len();
            at < before
        });
        SuiteError::ItemScore {
            task: self.task.name().to_owned(),
            index: found.map_or(0, |(prompt, _)| prompt.index),
            source,
        }
    }
}

fn judge(
    task: &Task,
    question: &ChoiceQuestion,
    scores: &[Score],
) -> (ChoiceAnswer, Vec<ItemScore>) {
    let metrics = &task.definition.metrics;
    let choices: Vec<Choice> = scores
        .iter()
        .zip(&question.requests)
        .map(|(score, request)| Choice {
            loglikelihood: score.loglikelihood,
            is_greedy: score.is_greedy,
            n_tokens: score.n_tokens,
            n_chars: request.n_chars,
        })
        .collect();
    let predicted = first_max(choices.iter().map(|choice| choice.loglikelihood));
    let predicted_norm = metrics.contains(&Metric::AccNorm).then(|| {
        let per_char = |choice: &Choice| choice.loglikelihood / f64::from(choice.n_chars);
        first_max(choices.iter().map(per_char))
    });
    let is_right = |choice: u32| f64::from(u8::from(question.right[choice as usize]));
    let scores = metrics
        .iter()
        .filter_map(|metric| {
            let value = match metric {
                Metric::Acc => is_right(predicted),
                Metric::AccNorm => is_right(predicted_norm?),
                Metric::Mc2 => mc2(&choices, &question.right),
                _ => return None,
            };
            Some(ItemScore::plain(metric.name(), value))
        })
        .collect();
    let answer = ChoiceAnswer {
        gold: question.gold() as u32,
        choices,
        predicted,
        predicted_norm,
    };
    (answer, scores)
}

/// Returns the share of the choices' probability that lies on right ones. The greatest
/// log-likelihood is subtracted first, so that no probability of a long answer is 0.
fn mc2(choices: &[Choice], right: &[bool]) -> f64 {
    let greatest = choices
        .iter()
        .map(|choice| choice.loglikelihood)
        .fold(f64::NEG_INFINITY, f64::max);
    let (mut of_right, mut of_all) = (0.0, 0.0);
    for (choice, right) in choices.iter().zip(right) {
        let p = (choice.loglikelihood - greatest).exp();
        of_all += p;
        of_right += if *right { p } else { 0.0 };
    }
    of_right / of_all
}

/// Returns the position of the largest value, the first of equals.
fn first_max(values: impl Iterator<Item = f64>) -> u32 {
    let mut best = (0, f64::NEG_INFINITY);
    for (i, value) in values.enumerate() {
        if value > best.1 {
            best = (i as u32, value);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(loglikelihood: f64) -> Choice {
        Choice {
            loglikelihood,
            is_greedy: false,
            n_tokens: 1,
            n_chars: 1,
        }
    }

    #[test]
    fn of_equal_choices_the_first_is_taken() {
        assert_eq!(first_max([-2.0, -1.0, -1.0].into_iter()), 1);
    }

    #[test]
    fn mc2_is_the_share_of_right_choices_even_where_probabilities_underflow() {
        let at = |base: f64| [choice(base), choice(base + 3.0_f64.ln()), choice(base)];
        for base in [-1.0, -2000.0] {
            let share = mc2(&at(base), &[true, false, true]);
            assert!((share - 0.4).abs() < 1e-12, "{share}");
        }
    }
}
