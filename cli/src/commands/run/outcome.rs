//! The few figures of a run that fit a terminal; everything is in the report.

use std::collections::BTreeSet;

use tritmark_reports::summary::{Status, SummaryRow};

use crate::out;

/// Returns the run's main figures as text, `None` where there are none.
pub(super) fn table(rows: &[SummaryRow]) -> Option<String> {
    let parts: Vec<String> = [speed(rows), accuracy(rows), remarks(rows)]
        .into_iter()
        .flatten()
        .collect();
    (!parts.is_empty()).then(|| parts.join("\n\n"))
}

/// What tells one line of the speed table from another.
type SpeedKey = (String, String, u32, Option<u32>, Option<u32>, Option<u32>);

fn speed(rows: &[SummaryRow]) -> Option<String> {
    const METRICS: [&str; 5] = [
        "prefill_tok_per_s",
        "decode_tok_per_s",
        "ttft_ns",
        "tpot_ns",
        "peak_rss_bytes",
    ];
    let key = |row: &SummaryRow| -> SpeedKey {
        (
            row.model.clone(),
            row.kernel.clone(),
            row.threads,
            row.n_prompt,
            row.n_gen,
            row.n_depth,
        )
    };
    let mut keys: Vec<SpeedKey> = Vec::new();
    for row in rows {
        let is_shown = row.metric.as_deref().is_some_and(|m| METRICS.contains(&m));
        if is_shown && row.status == Status::Ok && !keys.contains(&key(row)) {
            keys.push(key(row));
        }
    }
    if keys.is_empty() {
        return None;
    }
    let lines = keys
        .iter()
        .map(|wanted| {
            let (model, kernel, threads, n_prompt, n_gen, n_depth) = wanted;
            let number = |n: &Option<u32>| n.map_or_else(String::new, |n| n.to_string());
            let depth = match n_depth {
                Some(depth) if *depth > 0 => format!(" @ d{depth}"),
                _ => String::new(),
            };
            let mut line = vec![
                model.clone(),
                kernel.clone(),
                threads.to_string(),
                format!("pp{}+tg{}{depth}", number(n_prompt), number(n_gen)),
            ];
            line.extend(METRICS.iter().map(|metric| {
                rows.iter()
                    .find(|row| key(row) == *wanted && row.metric.as_deref() == Some(metric))
                    .and_then(|row| row.value)
                    .map_or_else(String::new, |value| figure(metric, value))
            }));
            line
        })
        .collect();
    Some(out::render(
        &[
            "model", "kernel", "threads", "workload", "prefill", "decode", "TTFT", "TPOT",
            "peak RSS",
        ],
        lines,
    ))
}

#[expect(clippy::cast_sign_loss, reason = "a number of bytes is not negative")]
fn figure(metric: &str, value: f64) -> String {
    match metric {
        "ttft_ns" | "tpot_ns" => format!("{:.2} ms", value / 1e6),
        "peak_rss_bytes" => out::bytes(value as u64),
        _ => format!("{value:.1} tok/s"),
    }
}

fn accuracy(rows: &[SummaryRow]) -> Option<String> {
    let lines: Vec<Vec<String>> = rows
        .iter()
        .filter(|row| row.suite == "accuracy" && row.task.is_some())
        .filter(|row| matches!(row.status, Status::Ok | Status::Incomplete))
        .filter(|row| row.group.is_none() && !row.is_cost_of_accuracy())
        .map(|row| {
            // Perplexities are no shares.
            let metric = row.metric.clone().unwrap_or_default();
            let is_share = !matches!(
                metric.as_str(),
                "word_perplexity" | "byte_perplexity" | "bits_per_byte"
            );
            let shown = |sign: &str, value: Option<f64>| match value {
                None => String::new(),
                Some(value) if is_share => format!("{sign}{:.1} %", value * 100.0),
                Some(value) => format!("{sign}{value:.3}"),
            };
            vec![
                row.model.clone(),
                row.task.clone().unwrap_or_default(),
                metric,
                row.filter.clone().unwrap_or_default(),
                shown("", row.value),
                shown("± ", row.stderr),
                row.n.to_string(),
                row.n_undecided.unwrap_or(0).to_string(),
            ]
        })
        .collect();
    (!lines.is_empty()).then(|| {
        out::render(
            &[
                "model",
                "task",
                "metric",
                "filter",
                "value",
                "stderr",
                "items",
                "undecided",
            ],
            lines,
        )
    })
}

/// What could not be measured and what failed, each reason once.
fn remarks(rows: &[SummaryRow]) -> Option<String> {
    let mut remarks = BTreeSet::new();
    for row in rows {
        let Some(reason) = &row.reason else { continue };
        let what = row.suite.as_str();
        match row.status {
            Status::Ok => {}
            Status::Incomplete => {
                remarks.insert(format!("{} {what}: incomplete: {reason}", row.model));
            }
            Status::Unmeasurable => {
                remarks.insert(format!("{what}: unmeasurable: {reason}"));
            }
            Status::Failed | Status::Cancelled | Status::Unfinished => {
                let status = row.status.name();
                remarks.insert(format!("{} {what}: {status}: {reason}", row.model));
            }
        }
    }
    (!remarks.is_empty()).then(|| remarks.into_iter().collect::<Vec<_>>().join("\n"))
}
