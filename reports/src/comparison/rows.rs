//! The figures of one task, tested.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Add,
};

use serde::Serialize;
use tritmark_proto::record::{Answer, ChoiceAnswer, Item};

use super::{ALPHA, Verdict, side::Task};
use crate::{
    compare::{self, SEED},
    labels,
    score::{self, Figure, Rolling},
    stats::{self, Interval, Likelihood},
};

/// How items found their counterparts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PairedBy {
    /// The same line of a data set, by its hash.
    DocHash,
    /// The same program's tests, by their name.
    Program,
    /// The same position in the task, since hashes of the two are of different kinds.
    Position,
}

/// A side's value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Value {
    /// Mean of the paired items' scores, or what their texts give together.
    pub value: f64,
    /// Its standard error; `None` of perplexities and of a single item.
    pub stderr: Option<f64>,
}

/// One figure of one task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Task.
    pub task: String,
    /// Solved examples before each question.
    pub num_fewshot: u32,
    /// What else the task was asked with.
    pub variant: Option<String>,
    /// Metric.
    pub metric: String,
    /// What answers went through before.
    pub filter: String,
    /// Task and figure in a reader's words.
    pub label: String,
    /// `1` of shares, `ppl`, `bit/B`.
    pub unit: &'static str,
    /// Whether more is better.
    pub higher_is_better: bool,
    /// How items were paired.
    pub paired_by: PairedBy,
    /// Paired items that are decided for both.
    pub n: usize,
    /// Paired items that are undecided for one or both.
    pub n_undecided: usize,
    /// A's items without a counterpart.
    pub n_only_a: usize,
    /// B's items without a counterpart.
    pub n_only_b: usize,
    /// Paired items whose prompts were not the same; `None` where their hashes are of different
    /// kinds.
    pub different_prompts: Option<usize>,
    /// A's value.
    pub a: Value,
    /// B's value.
    pub b: Value,
    /// B less A.
    pub difference: f64,
    /// Its standard error from the items' differences; where items have groups, clustered by them.
    pub stderr: Option<f64>,
    /// Groups the error is clustered by.
    pub n_groups: Option<usize>,
    /// Lower end of the difference's 95 % bootstrap interval.
    pub ci95_low: Option<f64>,
    /// Upper end.
    pub ci95_high: Option<f64>,
    /// Items where only A is right, or has the higher score.
    pub a_better: usize,
    /// Items where only B is right, or has the higher score.
    pub b_better: usize,
    /// P value of "no difference".
    pub p: Option<f64>,
    /// The test it comes from.
    pub test: Option<&'static str>,
    /// The p value adjusted for all rows together.
    pub q: Option<f64>,
    /// Wilcoxon's p value on the margins of log-likelihood between the right choice and the best
    /// other one.
    pub wilcoxon_p: Option<f64>,
    /// Smallest difference such items find four times in five.
    pub min_detectable: Option<f64>,
    /// P value of "B is worse by the margin or more".
    pub non_inferiority_p: Option<f64>,
    /// P value of "the difference is the margin or more, to either side".
    pub equivalence_p: Option<f64>,
    /// What it says of B.
    pub verdict: Verdict,
    /// Why the figure is not of all items.
    pub incomplete: Option<String>,
    /// What else a reader must know.
    pub notes: Vec<String>,
}

impl Row {
    /// Returns the verdict the row's numbers give. The margin comes first: a difference that is no
    /// chance but lies within it is none that was asked about.
    pub(super) fn judged(&self) -> Verdict {
        let is_small = |p: Option<f64>| p.is_some_and(|p| p < ALPHA);
        let is_up = (self.difference > 0.0) == self.higher_is_better;
        if is_small(self.equivalence_p) {
            Verdict::Equivalent
        } else if is_small(self.q) && self.difference != 0.0 {
            if is_up {
                Verdict::Better
            } else {
                Verdict::Worse
            }
        } else if is_small(self.non_inferiority_p) {
            Verdict::NotWorse
        } else {
            Verdict::Inconclusive
        }
    }
}

/// Two sides' items, put together.
pub(super) struct Pairs<'a> {
    pub(super) items: Vec<(&'a Item, &'a Item)>,
    pub(super) by: PairedBy,
}

/// Puts items together by the hash of their line; where no two have one in common, programs by their
/// task's name, anything else by group and position in it.
pub(super) fn pair<'a>(a: &[&'a Item], b: &[&'a Item]) -> Pairs<'a> {
    let by_hash = compare::pair_items(a, b);
    if !by_hash.items.is_empty() {
        return Pairs {
            items: by_hash.items,
            by: PairedBy::DocHash,
        };
    }
    if let Some(items) = matched(program_names(a), program_names(b).as_ref()) {
        return Pairs {
            items,
            by: PairedBy::Program,
        };
    }
    Pairs {
        items: matched(Some(places(a)), Some(&places(b))).unwrap_or_default(),
        by: PairedBy::Position,
    }
}

type Keyed<'a, K> = Vec<(K, &'a Item)>;

fn matched<'a, K: std::hash::Hash + Eq>(
    a: Option<Keyed<'a, K>>,
    b: Option<&Keyed<'a, K>>,
) -> Option<Vec<(&'a Item, &'a Item)>> {
    let of_b: HashMap<&K, &Item> = b?.iter().map(|(key, item)| (key, *item)).collect();
    let pairs: Vec<(&Item, &Item)> = a?
        .into_iter()
        .filter_map(|(key, item)| Some((item, *of_b.get(&key)?)))
        .collect();
    (!pairs.is_empty()).then_some(pairs)
}

/// Returns the names of programs' tests; `None` where an item is no program or a name is there
/// twice.
fn program_names<'a>(items: &[&'a Item]) -> Option<Keyed<'a, &'a str>> {
    let mut seen = std::collections::HashSet::new();
    items
        .iter()
        .map(|item| match &item.answer {
            Answer::Generated(answer)
                if item.scores.iter().any(|score| score.metric == "pass@1")
                    && seen.insert(answer.target.as_str()) =>
            {
                Some((answer.target.as_str(), *item))
            }
            _ => None,
        })
        .collect()
}

/// Numbers the items of each group in their order; items without group have their own position.
fn places<'a>(items: &[&'a Item]) -> Keyed<'a, (Option<&'a str>, u32)> {
    let mut counts: HashMap<&str, u32> = HashMap::new();
    items
        .iter()
        .map(|item| match item.group.as_deref() {
            None => ((None, item.index), *item),
            Some(group) => {
                let count = counts.entry(group).or_default();
                *count += 1;
                ((Some(group), *count - 1), *item)
            }
        })
        .collect()
}

/// Returns a row for each figure both sides have, in A's order.
pub(super) fn of_task(a: &Task<'_>, b: &Task<'_>, margin: f64) -> Vec<Row> {
    let pairs = pair(&a.items, &b.items);
    let mut figures: Vec<Figure> = Vec::new();
    for (left, right) in &pairs.items {
        let of_b = Figure::all_of(right);
        for figure in Figure::all_of(left) {
            if !figures.contains(&figure) && of_b.contains(&figure) {
                figures.push(figure);
            }
        }
    }
    figures
        .iter()
        .filter_map(|figure| {
            let mut row = match figure {
                Figure::Rolling(rolling) => texts(*rolling, &pairs.items, margin)?,
                Figure::Score { .. } => scores(figure, &pairs.items, margin)?,
            };
            describe(&mut row, figure, a, b, &pairs);
            Some(row)
        })
        .collect()
}

/// Fills in what does not depend on the figure's values.
fn describe(row: &mut Row, figure: &Figure, a: &Task<'_>, b: &Task<'_>, pairs: &Pairs<'_>) {
    row.task.clone_from(&a.name);
    row.num_fewshot = a.num_fewshot;
    row.variant.clone_from(&a.variant);
    figure.metric().clone_into(&mut row.metric);
    figure.filter().clone_into(&mut row.filter);
    row.label = labels::figure_of_task(&a.name, figure.metric(), Some(figure.filter()));
    if a.num_fewshot > 0 {
        row.label = format!("{}, {}-shot", row.label, a.num_fewshot);
    }
    if let Some(variant) = &a.variant {
        row.label = format!("{}, {variant}", row.label);
    }
    row.unit = figure.unit();
    row.higher_is_better = figure.higher_is_better();
    row.paired_by = pairs.by;
    row.n_only_a = a.items.len() - pairs.items.len();
    row.n_only_b = b.items.len() - pairs.items.len();
    row.different_prompts = (pairs.by == PairedBy::DocHash).then(|| {
        let differ = |(left, right): &&(&Item, &Item)| left.prompt_hash != right.prompt_hash;
        pairs.items.iter().filter(differ).count()
    });
    let missing = |side: &str, task: &Task<'_>| {
        let expected = task.n_expected?;
        let found = task.items.len() as u64;
        (found != expected).then(|| format!("{side} has {found} of {expected} items"))
    };
    let lacks: Vec<String> = [missing("A", a), missing("B", b)]
        .into_iter()
        .flatten()
        .collect();
    row.incomplete = (!lacks.is_empty()).then(|| lacks.join(", "));
    if a.num_fewshot != b.num_fewshot {
        row.notes.push(format!(
            "A was asked with {} examples, B with {}",
            a.num_fewshot, b.num_fewshot
        ));
    }
    if a.variant != b.variant {
        let plain =
            |variant: &Option<String>| variant.clone().unwrap_or_else(|| "plain".to_owned());
        row.notes.push(format!(
            "A was asked as {}, B as {}",
            plain(&a.variant),
            plain(&b.variant)
        ));
    }
    if pairs.by == PairedBy::Position {
        row.notes.push(
            "paired by position: the data sets' hashes are of different kinds, so that equal lines \
             are taken on trust"
                .to_owned(),
        );
    }
    if row.n_only_a + row.n_only_b > 0 {
        row.notes.push(format!(
            "without counterpart: {} items of A, {} of B",
            row.n_only_a, row.n_only_b
        ));
    }
}

fn blank() -> Row {
    Row {
        task: String::new(),
        num_fewshot: 0,
        variant: None,
        metric: String::new(),
        filter: String::new(),
        label: String::new(),
        unit: "1",
        higher_is_better: true,
        paired_by: PairedBy::DocHash,
        n: 0,
        n_undecided: 0,
        n_only_a: 0,
        n_only_b: 0,
        different_prompts: None,
        a: Value {
            value: 0.0,
            stderr: None,
        },
        b: Value {
            value: 0.0,
            stderr: None,
        },
        difference: 0.0,
        stderr: None,
        n_groups: None,
        ci95_low: None,
        ci95_high: None,
        a_better: 0,
        b_better: 0,
        p: None,
        test: None,
        q: None,
        wilcoxon_p: None,
        min_detectable: None,
        non_inferiority_p: None,
        equivalence_p: None,
        verdict: Verdict::Inconclusive,
        incomplete: None,
        notes: Vec::new(),
    }
}

fn scores(figure: &Figure, pairs: &[(&Item, &Item)], margin: f64) -> Option<Row> {
    let scored: Vec<(&Item, &Item)> = pairs
        .iter()
        .copied()
        .filter(|(a, b)| figure.score(a).is_some() && figure.score(b).is_some())
        .collect();
    let decided: Vec<(&Item, &Item, f64, f64)> = scored
        .iter()
        .filter_map(|(a, b)| Some((*a, *b, figure.value(a)?, figure.value(b)?)))
        .collect();
    // (candidate, baseline): B less A.
    let values: Vec<(f64, f64)> = decided.iter().map(|(.., a, b)| (*b, *a)).collect();
    let mut row = blank();
    row.n = decided.len();
    row.n_undecided = scored.len() - decided.len();
    if row.n_undecided > 0 {
        row.notes.push(format!(
            "{} items are undecided and left out",
            row.n_undecided
        ));
    }
    let difference = stats::paired_difference(&values)?;
    let differences: Vec<f64> = values.iter().map(|(b, a)| b - a).collect();
    let side = |values: Vec<f64>| Value {
        value: values.iter().sum::<f64>() / values.len() as f64,
        stderr: stats::standard_error(&values),
    };
    row.a = side(values.iter().map(|(_, a)| *a).collect());
    row.b = side(values.iter().map(|(b, _)| *b).collect());
    row.difference = difference.value;
    row.b_better = difference.only_candidate as usize;
    row.a_better = difference.only_baseline as usize;

    let clusters = clusters(decided.iter().map(|(a, ..)| *a));
    let clustered = clusters
        .as_ref()
        .and_then(|clusters| stats::clustered_stderr(&differences, clusters));
    row.stderr = clustered.map_or(difference.stderr, |(stderr, _)| Some(stderr));
    row.n_groups = clustered.map(|(_, groups)| groups);
    set_interval(&mut row, stats::mean_interval(&differences, SEED));
    if difference.is_binary {
        row.p = Some(stats::exact_mcnemar(
            difference.only_candidate,
            difference.only_baseline,
        ));
        row.test = Some("exact McNemar");
    } else {
        row.p = stats::signed_rank(&differences).map(|test| test.p);
        row.test = row.p.map(|_| "Wilcoxon on scores");
    }
    let margins: Vec<f64> = decided
        .iter()
        .filter_map(|(a, b, ..)| Some(choice_margin(figure, b)? - choice_margin(figure, a)?))
        .filter(|difference| difference.is_finite())
        .collect();
    row.wilcoxon_p = stats::signed_rank(&margins).map(|test| test.p);
    row.min_detectable = stats::min_detectable(&difference);
    let within = stats::equivalence(&differences, clusters.as_deref(), margin);
    row.non_inferiority_p = within.map(|within| within.worse_p);
    row.equivalence_p = within.map(|within| within.p());
    Some(row)
}

fn set_interval(row: &mut Row, interval: Option<Interval>) {
    row.ci95_low = interval.map(|interval| interval.low);
    row.ci95_high = interval.map(|interval| interval.high);
}

/// Numbers the groups of items; `None` where an item has none or all have one.
fn clusters<'a>(items: impl Iterator<Item = &'a Item>) -> Option<Vec<usize>> {
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    let clusters: Option<Vec<usize>> = items
        .map(|item| {
            let next = numbers.len();
            Some(*numbers.entry(item.group.as_deref()?).or_insert(next))
        })
        .collect();
    clusters.filter(|_| numbers.len() > 1)
}

/// Returns by how much the right choice is likelier than the best other one, in natural log, per
/// character where the metric is normalised; `None` of metrics that do not ask for the likeliest.
fn choice_margin(figure: &Figure, item: &Item) -> Option<f64> {
    let Answer::Choice(ChoiceAnswer { gold, choices, .. }) = &item.answer else {
        return None;
    };
    if figure.filter() != tritmark_proto::record::NO_FILTER {
        return None;
    }
    let scale = |n_chars: u32| match figure.metric() {
        "acc" => Some(1.0),
        "acc_norm" => Some(f64::from(n_chars)),
        _ => None,
    };
    let of = |choice: &tritmark_proto::record::Choice| {
        Some(choice.loglikelihood / scale(choice.n_chars)?)
    };
    let gold = *gold as usize;
    let right = of(choices.get(gold)?)?;
    let mut best = f64::NEG_INFINITY;
    for (at, choice) in choices.iter().enumerate() {
        if at != gold {
            best = best.max(of(choice)?);
        }
    }
    best.is_finite().then_some(right - best)
}

fn texts(rolling: Rolling, pairs: &[(&Item, &Item)], margin: f64) -> Option<Row> {
    let both: Vec<(Likelihood, Likelihood)> = pairs
        .iter()
        .filter_map(|(a, b)| score::likelihood(a).zip(score::likelihood(b)))
        .collect();
    let value = |pick: fn(&(Likelihood, Likelihood)) -> Likelihood, drawn: &[usize]| {
        let sum = drawn
            .iter()
            .map(|at| pick(&both[*at]))
            .fold(Likelihood::default(), Add::add);
        rolling.of(sum).filter(|value| value.is_finite())
    };
    let all: Vec<usize> = (0..both.len()).collect();
    let a = value(|pair| pair.0, &all)?;
    let b = value(|pair| pair.1, &all)?;
    let bits: Vec<f64> = both
        .iter()
        .filter_map(|(a, b)| Some(b.bits_per_byte()? - a.bits_per_byte()?))
        .collect();
    let mut row = blank();
    row.n = both.len();
    row.a.value = a;
    row.b.value = b;
    row.difference = b - a;
    row.a_better = bits.iter().filter(|bits| **bits > 0.0).count();
    row.b_better = bits.iter().filter(|bits| **bits < 0.0).count();
    let resampled = stats::Resampled::new(both.len(), SEED, |drawn| {
        Some(value(|pair| pair.1, drawn)? - value(|pair| pair.0, drawn)?)
    });
    set_interval(
        &mut row,
        resampled.as_ref().and_then(stats::Resampled::interval),
    );
    row.p = stats::signed_rank(&bits).map(|test| test.p);
    row.test = row.p.map(|_| "Wilcoxon on bits per byte");
    row.wilcoxon_p = row.p;
    if let Some(resampled) = resampled {
        // Less is better: worse by the margin is more by it.
        let worse_p = resampled.p_at_least(margin * a);
        row.non_inferiority_p = Some(worse_p);
        row.equivalence_p = Some(worse_p.max(resampled.p_at_most(-margin * a)));
        row.notes.push(
            "the margin is a share of A's value, tested by the bootstrap over texts".to_owned(),
        );
    }
    Some(row)
}
