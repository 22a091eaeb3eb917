//! The page of items whose scores differ: what either model said, side by side.
//!
//! It filters by task and by who is right with style sheets alone, so that it runs no script, and
//! needs nothing from outside.

use minijinja::{Environment, Value, context, value::Serde};
use serde::Serialize;
use tritmark_proto::record::{ChoiceAnswer, GeneratedAnswer, Item, ItemScore};

use super::{
    Comparison, Verdict,
    render::{self, side},
    rows,
    side::{Task, counterpart},
};
use crate::{error::ReportError, html::STYLE, labels, score::Figure, units};

const TEMPLATE: &str = include_str!("../../templates/compare.html");
const COMPARE_STYLE: &str = include_str!("../../templates/compare.css");

/// Most items a task shows; a page of more opens slowly, and nobody reads it.
const MAX_ITEMS: usize = 400;

#[derive(Serialize)]
struct Line {
    label: String,
    cells: Vec<String>,
    verdict: &'static str,
    kind: &'static str,
}

#[derive(Serialize)]
struct TaskView {
    title: String,
    /// Differing items, and how many of them are shown.
    n_differ: usize,
    n_shown: usize,
    n_paired: usize,
    items: Vec<ItemView>,
}

#[derive(Serialize)]
struct ItemView {
    index: u32,
    group: Option<String>,
    doc_hash: String,
    prompts: Vec<String>,
    /// `a`, `b`, or `both` where figures disagree about who is right.
    right: &'static str,
    scores: Vec<ScoreView>,
    choices: Vec<ChoiceView>,
    target: Option<String>,
    a: Option<TextView>,
    b: Option<TextView>,
}

#[derive(Serialize)]
struct ScoreView {
    label: String,
    a: String,
    b: String,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct ChoiceView {
    number: usize,
    is_gold: bool,
    a: String,
    b: String,
    a_picks: bool,
    b_picks: bool,
}

#[derive(Serialize)]
struct TextView {
    text: String,
    end: String,
}

/// Returns the page.
pub(super) fn render(
    comparison: &Comparison,
    a_tasks: &[Task<'_>],
    b_tasks: &[Task<'_>],
) -> Result<String, ReportError> {
    let is_compared = |task: &Task<'_>| comparison.rows.iter().any(|row| row.task == task.name);
    let tasks: Vec<TaskView> = a_tasks
        .iter()
        .filter(|task| is_compared(task))
        .filter_map(|task| {
            let at = counterpart(task, a_tasks, b_tasks)?;
            Some(view(task, &b_tasks[at]))
        })
        .collect();
    let lines: Vec<Line> = comparison.rows.iter().map(line).collect();
    let mut environment = Environment::new();
    // The name's ending turns auto-escaping for HTML on.
    environment.add_template("compare.html", TEMPLATE)?;
    let page = environment.get_template("compare.html")?.render(context! {
        style => Value::from_safe_string(format!("{STYLE}{COMPARE_STYLE}{}", filters(tasks.len()))),
        a_model => comparison.a.model.as_str(),
        b_model => comparison.b.model.as_str(),
        a => side(&comparison.a),
        b => side(&comparison.b),
        margin => units::points_of_error(comparison.margin),
        overall => render::overall(comparison),
        overall_kind => match comparison.overall {
            super::Overall::Pass => "good",
            super::Overall::Worse => "bad",
            _ => "plain",
        },
        lines => Value::from(Serde(lines)),
        notes => Value::from(Serde(render::notes(comparison))),
        tasks => Value::from(Serde(tasks)),
    })?;
    Ok(page)
}

/// Returns the rules that hide what a chosen filter leaves out.
fn filters(n_tasks: usize) -> String {
    use std::fmt::Write as _;
    let mut rules = String::new();
    for task in 0..n_tasks {
        let _ = writeln!(
            rules,
            "body:has(#task-{task}:checked) .task:not(.task-{task}) {{ display: none; }}"
        );
    }
    rules
}

fn line(row: &super::Row) -> Line {
    Line {
        label: row.label.clone(),
        cells: vec![
            units::count(row.n as u64),
            render::value(row, row.a.value, row.a.stderr),
            render::value(row, row.b.value, row.b.stderr),
            render::difference(row),
            render::interval(row),
            format!("{} / {}", row.a_better, row.b_better),
            render::probability(row.p),
            render::probability(row.q),
            render::probability(row.wilcoxon_p),
            render::least(row),
        ],
        verdict: row.verdict.words(),
        kind: match row.verdict {
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::Inconclusive => "missing",
            Verdict::Equivalent | Verdict::NotWorse => "value",
        },
    }
}

fn view(a: &Task<'_>, b: &Task<'_>) -> TaskView {
    let pairs = rows::pair(&a.items, &b.items);
    let differing: Vec<ItemView> = pairs
        .items
        .iter()
        .filter_map(|(left, right)| item(left, right, pairs.by))
        .collect();
    let n_differ = differing.len();
    let items: Vec<ItemView> = differing.into_iter().take(MAX_ITEMS).collect();
    TaskView {
        title: a.title(),
        n_differ,
        n_shown: items.len(),
        n_paired: pairs.items.len(),
        items,
    }
}

/// Returns an item where a score of the two differs.
fn item(a: &Item, b: &Item, by: rows::PairedBy) -> Option<ItemView> {
    let mut only_a = false;
    let mut only_b = false;
    let mut scores = Vec::new();
    for figure in Figure::all_of(a) {
        let Some((left, right)) = figure.score(a).zip(figure.score(b)) else {
            continue;
        };
        if let Some((of_a, of_b)) = left.value.zip(right.value) {
            only_a |= of_a > of_b;
            only_b |= of_b > of_a;
        }
        scores.push(score(&figure, left, right));
    }
    let right = match (only_a, only_b) {
        (false, false) => return None,
        (true, false) => "a",
        (false, true) => "b",
        (true, true) => "both",
    };
    let prompts = if by == rows::PairedBy::DocHash && a.prompt_hash == b.prompt_hash {
        vec![format!("prompt {}", a.prompt_hash)]
    } else {
        vec![
            format!("A's prompt {}", a.prompt_hash),
            format!("B's prompt {}", b.prompt_hash),
        ]
    };
    Some(ItemView {
        index: a.index,
        group: a.group.clone(),
        doc_hash: a.doc_hash.clone(),
        prompts,
        right,
        scores,
        choices: choices(a, b),
        target: a
            .generated()
            .or(b.generated())
            .map(|answer| answer.target.clone()),
        a: a.generated().map(text),
        b: b.generated().map(text),
    })
}

fn score(figure: &Figure, a: &ItemScore, b: &ItemScore) -> ScoreView {
    let show = |score: &ItemScore| match score.value {
        None => "undecided".to_owned(),
        Some(1.0) => "right".to_owned(),
        Some(0.0) => "wrong".to_owned(),
        Some(value) => format!("{value:.3}"),
    };
    let mut notes = Vec::new();
    for (side, score) in [("A", a), ("B", b)] {
        if let Some(extracted) = &score.extracted {
            notes.push(format!("{side} gave “{extracted}”"));
        }
        if let Some(reason) = &score.reason {
            notes.push(format!("{side}: {reason}"));
        }
    }
    ScoreView {
        label: labels::figure(figure.metric(), Some(figure.filter())),
        a: show(a),
        b: show(b),
        notes,
    }
}

fn text(answer: &GeneratedAnswer) -> TextView {
    TextView {
        text: answer.text.clone(),
        end: format!(
            "{}, ended by {}",
            units::plural(u64::from(answer.n_tokens), "token"),
            answer.end
        ),
    }
}

fn choices(a: &Item, b: &Item) -> Vec<ChoiceView> {
    let Some((left, right)) = a.choice().zip(b.choice()) else {
        return Vec::new();
    };
    let n = left.choices.len().max(right.choices.len());
    let show = |answer: &ChoiceAnswer, at: usize| {
        answer.choices.get(at).map_or_else(
            || "–".to_owned(),
            |choice| {
                let greedy = if choice.is_greedy { ", greedy" } else { "" };
                format!(
                    "{:.4} ({}{greedy})",
                    choice.loglikelihood,
                    units::plural(u64::from(choice.n_tokens), "token")
                )
            },
        )
    };
    (0..n)
        .map(|at| ChoiceView {
            number: at,
            is_gold: left.gold as usize == at,
            a: show(left, at),
            b: show(right, at),
            a_picks: left.predicted as usize == at,
            b_picks: right.predicted as usize == at,
        })
        .collect()
}
