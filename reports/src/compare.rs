//! A model beside its full-precision baseline: same machine, same threads, same work.
//!
//! Machines are never compared with each other, nor grades of evidence. A ratio's interval comes
//! from resampling both sides; with one process a side it holds within these process runs and says
//! nothing of the next start, so it carries that label.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Add,
};

use tritmark_proto::{bundle::Manifest, record::Item};

use crate::{
    score::{self, Figure, Rolling},
    stats::{self, Difference, Interval, Likelihood},
};

/// Seed of every bootstrap, so that a bundle has one report.
pub const SEED: u64 = 0x7472_6974;

/// A model and the one it is compared with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// Names the other.
    pub candidate: String,
    /// Is named.
    pub baseline: String,
}

/// Returns the pairs of a run in the plan's order.
pub fn pairs(manifest: &Manifest) -> Vec<Pair> {
    let mut seen = BTreeSet::new();
    manifest
        .jobs
        .iter()
        .filter_map(|outcome| {
            let model = &outcome.job.model;
            Some(Pair {
                candidate: model.id.clone(),
                baseline: model.baseline.clone()?,
            })
        })
        .filter(|pair| seen.insert(pair.clone()))
        .collect()
}

/// Values of one metric, a list a process.
pub type Clusters = Vec<Vec<f64>>;

/// A ratio of medians.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// Candidate / baseline.
    pub value: f64,
    /// 95 % bootstrap interval.
    pub interval: Option<Interval>,
}

/// Returns median(candidate) / median(baseline), or `None` where a side is empty or the baseline's
/// median is not positive.
pub fn ratio(candidate: &Clusters, baseline: &Clusters) -> Option<Ratio> {
    let above = stats::median(&candidate.concat())?;
    let below = stats::median(&baseline.concat())?;
    (below > 0.0).then(|| Ratio {
        value: above / below,
        interval: stats::ratio_interval(candidate, baseline, SEED),
    })
}

/// Says what an interval over these processes holds for.
pub fn interval_scope(processes: usize) -> String {
    match processes {
        0 | 1 => "within one process run".to_owned(),
        n => format!("across {n} process runs"),
    }
}

/// Says what a ratio's interval holds for.
pub fn ratio_scope(candidate: usize, baseline: usize) -> String {
    if candidate.min(baseline) <= 1 {
        "within one process run of each".to_owned()
    } else {
        format!("across {candidate} and {baseline} process runs")
    }
}

/// Two models' scores of one task.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreComparison {
    /// Difference over the items decided for both.
    pub difference: Difference,
    /// P value of the exact two-sided `McNemar` test; `None` where scores lie between 0 and 1.
    pub mcnemar_p: Option<f64>,
    /// Smallest difference found with 80 % power.
    pub min_detectable: Option<f64>,
    /// Items both answered that are not decided for one or both.
    pub n_undecided: usize,
    /// Items whose prompts were not the same.
    pub different_prompts: usize,
}

/// Two models' items of one task, put together.
#[derive(Clone, Debug, Default)]
pub struct Paired<'a> {
    /// (candidate, baseline).
    pub items: Vec<(&'a Item, &'a Item)>,
    /// How many of them had other prompts.
    pub different_prompts: usize,
}

/// Puts the items together that both answered, in the candidate's order.
///
/// Items are the same where their `doc_hash` is; of equal lines in a data set the first goes with
/// the first.
pub fn pair_items<'a>(candidate: &[&'a Item], baseline: &[&'a Item]) -> Paired<'a> {
    let answered: HashMap<(&str, usize), &Item> = numbered(baseline).into_iter().collect();
    let mut paired = Paired::default();
    for (key, item) in numbered(candidate) {
        if let Some(other) = answered.get(&key) {
            paired.items.push((item, other));
            paired.different_prompts += usize::from(item.prompt_hash != other.prompt_hash);
        }
    }
    paired
}

/// Compares a score of two models over the items both answered, or returns `None` where none of them
/// is decided for both.
pub fn scores(figure: &Figure, candidate: &[&Item], baseline: &[&Item]) -> Option<ScoreComparison> {
    let paired = pair_items(candidate, baseline);
    let scored = paired
        .items
        .iter()
        .filter(|(item, other)| figure.score(item).is_some() && figure.score(other).is_some());
    let values: Vec<Option<(f64, f64)>> = scored
        .map(|(item, other)| figure.value(item).zip(figure.value(other)))
        .collect();
    let decided: Vec<(f64, f64)> = values.iter().copied().flatten().collect();
    let difference = stats::paired_difference(&decided)?;
    Some(ScoreComparison {
        difference,
        mcnemar_p: difference
            .is_binary
            .then(|| stats::exact_mcnemar(difference.only_candidate, difference.only_baseline)),
        min_detectable: stats::min_detectable(&difference),
        n_undecided: values.len() - decided.len(),
        different_prompts: paired.different_prompts,
    })
}

/// How likely two models find the same texts.
#[derive(Clone, Debug, PartialEq)]
pub struct RollingComparison {
    /// The candidate's value over the baseline's.
    pub ratio: f64,
    /// Texts both were asked for.
    pub n: usize,
    /// Texts whose prompts were not the same.
    pub different_prompts: usize,
}

/// Compares how likely two models find the texts both were asked for, or returns `None` where there
/// are none.
pub fn rolling(
    figure: Rolling,
    candidate: &[&Item],
    baseline: &[&Item],
) -> Option<RollingComparison> {
    let paired = pair_items(candidate, baseline);
    let both: Option<Vec<(Likelihood, Likelihood)>> = paired
        .items
        .iter()
        .map(|(item, other)| score::likelihood(item).zip(score::likelihood(other)))
        .collect();
    let both = both?;
    let sum = |side: fn(&(Likelihood, Likelihood)) -> Likelihood| {
        both.iter().map(side).fold(Likelihood::default(), Add::add)
    };
    let (above, below) = figure
        .of(sum(|pair| pair.0))
        .zip(figure.of(sum(|pair| pair.1)))?;
    (below > 0.0).then(|| RollingComparison {
        ratio: above / below,
        n: both.len(),
        different_prompts: paired.different_prompts,
    })
}

/// Numbers items of equal hash.
fn numbered<'a>(items: &[&'a Item]) -> Vec<((&'a str, usize), &'a Item)> {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    items
        .iter()
        .map(|item| {
            let count = seen.entry(item.doc_hash.as_str()).or_default();
            let key = (item.doc_hash.as_str(), *count);
            *count += 1;
            (key, *item)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use tritmark_proto::record::{Answer, Choice, ChoiceAnswer, RollingAnswer};

    use super::*;

    fn item(doc: &str, predicted: u32) -> Item {
        let choice = Choice {
            loglikelihood: -1.0,
            is_greedy: false,
            n_tokens: 1,
            n_chars: 3,
        };
        let answer = ChoiceAnswer {
            gold: 1,
            choices: vec![choice; 3],
            predicted,
            predicted_norm: Some(2),
        };
        Item {
            task: "arc_easy".to_owned(),
            group: None,
            index: 0,
            doc_hash: doc.to_owned(),
            prompt_hash: format!("prompt of {doc}"),
            scores: answer.scores(),
            answer: Answer::Choice(answer),
            elapsed_ns: Some(5),
            energy: Vec::new(),
            from_cache: None,
            scored_on: None,
        }
    }

    #[test]
    fn a_ratio_is_that_of_the_medians() {
        let candidate = vec![vec![10.0, 11.0, 12.0, 30.0]];
        let baseline = vec![vec![5.0, 4.0, 6.0]];
        let found = ratio(&candidate, &baseline).unwrap();
        assert!((found.value - 2.3).abs() < 1e-15);
        let interval = found.interval.unwrap();
        assert!(interval.low <= found.value && found.value <= interval.high);
    }

    #[test]
    fn single_values_have_a_ratio_and_no_interval() {
        let found = ratio(&vec![vec![300.0]], &vec![vec![1200.0]]).unwrap();
        assert_eq!((found.value, found.interval), (0.25, None));
    }

    #[test]
    fn nothing_is_divided_by_zero_or_by_nothing() {
        assert_eq!(ratio(&vec![vec![1.0]], &vec![vec![0.0]]), None);
        assert_eq!(ratio(&vec![vec![1.0]], &vec![]), None);
    }

    #[test]
    fn only_items_both_answered_are_compared() {
        let candidate = [item("a", 1), item("b", 0), item("c", 1)];
        let baseline = [item("b", 1), item("c", 1), item("d", 1)];
        let found = scores(
            &Figure::plain("acc"),
            &candidate.iter().collect::<Vec<_>>(),
            &baseline.iter().collect::<Vec<_>>(),
        )
        .unwrap();
        assert_eq!(found.difference.n, 2);
        assert!((found.difference.value + 0.5).abs() < 1e-15);
        assert_eq!(found.difference.only_baseline, 1);
        assert_eq!(found.different_prompts, 0);
    }

    #[test]
    fn equal_lines_of_a_data_set_are_paired_in_order() {
        let candidate = [item("a", 1), item("a", 0)];
        let baseline = [item("a", 1), item("a", 1)];
        let found = scores(
            &Figure::plain("acc"),
            &candidate.iter().collect::<Vec<_>>(),
            &baseline.iter().collect::<Vec<_>>(),
        )
        .unwrap();
        assert_eq!(found.difference.n, 2);
        assert_eq!(found.difference.only_baseline, 1);
    }

    #[test]
    fn a_task_without_acc_norm_has_no_such_comparison() {
        let mut without = item("a", 1);
        without.scores.truncate(1);
        let norm = Figure::plain("acc_norm");
        assert_eq!(scores(&norm, &[&without], &[&item("a", 1)]), None);
    }

    #[test]
    fn other_prompts_are_counted() {
        let mut other = item("a", 1);
        other.prompt_hash = "with BOS".to_owned();
        let found = scores(&Figure::plain("acc"), &[&other], &[&item("a", 1)]).unwrap();
        assert_eq!(found.different_prompts, 1);
    }

    #[test]
    fn what_is_undecided_is_neither_right_nor_wrong() {
        let mut undecided = item("b", 1);
        undecided.scores[0].value = None;
        let candidate = [item("a", 1), undecided];
        let baseline = [item("a", 0), item("b", 1)];
        let found = scores(
            &Figure::plain("acc"),
            &candidate.iter().collect::<Vec<_>>(),
            &baseline.iter().collect::<Vec<_>>(),
        )
        .unwrap();
        assert_eq!((found.difference.n, found.n_undecided), (1, 1));
        assert!((found.difference.value - 1.0).abs() < 1e-15);
    }

    #[test]
    fn scores_between_0_and_1_have_a_difference_and_no_mcnemar() {
        let with = |value| {
            let mut item = item("a", 1);
            item.scores = vec![tritmark_proto::record::ItemScore::plain("mc2", value)];
            item
        };
        let found = scores(&Figure::plain("mc2"), &[&with(0.75)], &[&with(0.5)]).unwrap();
        assert!((found.difference.value - 0.25).abs() < 1e-15);
        assert_eq!(found.mcnemar_p, None);
    }

    #[test]
    fn perplexities_are_compared_over_the_texts_of_both() {
        let text = |doc: &str, loglikelihood| {
            let mut item = item(doc, 1);
            item.answer = Answer::Rolling(RollingAnswer {
                loglikelihood,
                n_tokens: 5,
                n_words: 4,
                n_bytes: 20,
            });
            item
        };
        let candidate = [text("a", -8.0), text("b", -12.0), text("c", -1.0)];
        let baseline = [text("b", -10.0), text("a", -6.0)];
        let compare = |figure| {
            let candidate: Vec<&Item> = candidate.iter().collect();
            let baseline: Vec<&Item> = baseline.iter().collect();
            rolling(figure, &candidate, &baseline).unwrap()
        };
        let words = compare(Rolling::WordPerplexity);
        assert_eq!(words.n, 2);
        assert!((words.ratio - 0.5_f64.exp()).abs() < 1e-12);
        assert!((compare(Rolling::BitsPerByte).ratio - 20.0 / 16.0).abs() < 1e-12);
    }
}
