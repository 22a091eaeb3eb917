//! A model beside its full-precision baseline: same machine, same threads, same work.
//!
//! Machines are never compared with each other, nor grades of evidence. A ratio's interval comes
//! from resampling both sides; with one process a side it holds within these process runs and says
//! nothing of the next start, so it carries that label.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tritmark_proto::{bundle::Manifest, record::Item};

use crate::stats::{self, Difference, Interval};

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

/// How a task is scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Score {
    /// Highest log-likelihood.
    Acc,
    /// Highest log-likelihood per character.
    AccNorm,
}

impl Score {
    /// Returns the metric's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Acc => "acc",
            Self::AccNorm => "acc_norm",
        }
    }

    /// Tells whether the answer is right; `None` where the task has no such score.
    pub fn is_right(self, item: &Item) -> Option<bool> {
        match self {
            Self::Acc => Some(item.predicted == item.gold),
            Self::AccNorm => item.predicted_norm.map(|predicted| predicted == item.gold),
        }
    }
}

/// Two models' answers to one task.
#[derive(Clone, Debug, PartialEq)]
pub struct AccuracyComparison {
    /// Difference over the items both answered.
    pub difference: Difference,
    /// P value of the exact two-sided `McNemar` test.
    pub mcnemar_p: f64,
    /// Smallest difference found with 80 % power.
    pub min_detectable: f64,
    /// Items whose prompts were not the same.
    pub different_prompts: usize,
}

/// Compares two models over the items both answered, or returns `None` where there are none.
///
/// Items are the same where their `doc_hash` is; of equal lines in a data set the first goes with
/// the first.
pub fn accuracy(
    score: Score,
    candidate: &[&Item],
    baseline: &[&Item],
) -> Option<AccuracyComparison> {
    let mut answered: HashMap<(&str, usize), &Item> = HashMap::new();
    for (key, item) in numbered(baseline) {
        answered.insert(key, item);
    }
    let mut answers = Vec::new();
    let mut different_prompts = 0;
    for (key, item) in numbered(candidate) {
        let Some(other) = answered.get(&key) else {
            continue;
        };
        let Some(answer) = score.is_right(item).zip(score.is_right(other)) else {
            continue;
        };
        answers.push(answer);
        different_prompts += usize::from(item.prompt_hash != other.prompt_hash);
    }
    let difference = stats::paired_difference(&answers)?;
    let Difference {
        n,
        only_candidate,
        only_baseline,
        ..
    } = difference;
    Some(AccuracyComparison {
        difference,
        mcnemar_p: stats::exact_mcnemar(only_candidate, only_baseline),
        min_detectable: stats::min_detectable(n, only_candidate + only_baseline)?,
        different_prompts,
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
    use tritmark_proto::record::Choice;

    use super::*;

    fn item(doc: &str, predicted: u32) -> Item {
        let choice = Choice {
            loglikelihood: -1.0,
            is_greedy: false,
            n_tokens: 1,
            n_chars: 3,
        };
        Item {
            task: "arc_easy".to_owned(),
            index: 0,
            doc_hash: doc.to_owned(),
            prompt_hash: format!("prompt of {doc}"),
            gold: 1,
            choices: vec![choice; 3],
            predicted,
            predicted_norm: Some(2),
            elapsed_ns: 5,
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
        let found = accuracy(
            Score::Acc,
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
        let found = accuracy(
            Score::Acc,
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
        without.predicted_norm = None;
        assert_eq!(
            accuracy(Score::AccNorm, &[&without], &[&item("a", 1)]),
            None
        );
    }

    #[test]
    fn other_prompts_are_counted() {
        let mut other = item("a", 1);
        other.prompt_hash = "with BOS".to_owned();
        let found = accuracy(Score::Acc, &[&other], &[&item("a", 1)]).unwrap();
        assert_eq!(found.different_prompts, 1);
    }
}
