//! Which charts a report has, and what they show.

use std::collections::BTreeMap;

use serde::Serialize;
use tritmark_proto::{
    bundle::{JobOutcome, JobState},
    job::Workload,
};

use crate::{
    bundle::Bundle,
    compare,
    error::ReportError,
    labels,
    plot::{AccuracyDots, Bar, BarGroup, Dot, Ecdf, Lane, Line, Plot, SpeedBars, Svg},
    summary::{ITL, Role, SummaryRow, context::Context},
    units,
};

/// Where a chart belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Section {
    /// Speeds.
    Speed,
    /// Accuracy.
    Accuracy,
    /// Times between tokens.
    Tokens,
}

/// A chart and where it belongs.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    pub(crate) section: Section,
    pub(crate) svg: Svg,
}

/// Returns every chart of a report.
pub(crate) fn charts(bundle: &Bundle, rows: &[SummaryRow]) -> Result<Vec<Chart>, ReportError> {
    let mut charts = Vec::new();
    let several_machines = bundle.manifest.machines.len() > 1;
    let mut add = |section, name: &str, plot: &dyn Plot| {
        let file_name = format!("{:02}-{}.svg", charts.len() + 1, slug(name));
        let svg = Svg::draw(plot, file_name)?;
        charts.push(Chart { section, svg });
        Ok::<(), ReportError>(())
    };
    for machine in &bundle.manifest.machines {
        let here: Vec<&SummaryRow> = rows
            .iter()
            .filter(|row| row.machine_id.as_ref() == Some(&machine.id))
            .collect();
        let place = if several_machines {
            format!(" on {}", machine.hostname)
        } else {
            String::new()
        };
        for family in families(bundle) {
            let of_family: Vec<&SummaryRow> = here
                .iter()
                .copied()
                .filter(|row| family.contains(&row.model.as_str()))
                .collect();
            for metric in ["decode_tok_per_s", "prefill_tok_per_s"] {
                for (workload, groups) in bar_groups(metric, &of_family) {
                    let name = labels::metric(metric);
                    let shape = workload.map(units::workload).unwrap_or_default();
                    let plot = SpeedBars {
                        title: format!("{name}, {shape}{place}"),
                        unit: "tok/s".to_owned(),
                        groups,
                    };
                    add(Section::Speed, &format!("{name} {}", family[0]), &plot)?;
                }
            }
            let lanes = lanes(&of_family);
            if !lanes.is_empty() {
                let plot = AccuracyDots {
                    title: format!("Accuracy{place}"),
                    lanes,
                };
                add(Section::Accuracy, &format!("accuracy {}", family[0]), &plot)?;
            }
            for (threads, workload, lines) in token_lines(bundle, &machine.id, &family, &of_family)
            {
                let threads = units::threads(threads);
                let plot = Ecdf {
                    title: format!(
                        "Time between tokens, {threads}, {}{place}",
                        units::workload(workload)
                    ),
                    lines,
                };
                let name = format!("token times {} {threads}", family[0]);
                add(Section::Tokens, &name, &plot)?;
            }
        }
    }
    Ok(charts)
}

/// Returns the models that share a chart: a candidate and its baseline, or one alone.
fn families(bundle: &Bundle) -> Vec<Vec<&str>> {
    let context = Context::new(bundle);
    let mut models: Vec<&str> = Vec::new();
    for outcome in &bundle.manifest.jobs {
        let id = outcome.job.model.id.as_str();
        if !models.contains(&id) {
            models.push(id);
        }
    }
    models.sort_by_key(|id| context.model_rank(id));
    let pairs = compare::pairs(&bundle.manifest);
    let mut families: Vec<Vec<&str>> = Vec::new();
    for model in &models {
        let named: Vec<&str> = pairs
            .iter()
            .filter(|pair| pair.candidate == *model)
            .filter_map(|pair| models.iter().copied().find(|other| *other == pair.baseline))
            .collect();
        let is_baseline = pairs.iter().any(|pair| pair.baseline == *model);
        for baseline in &named {
            families.push(vec![model, baseline]);
        }
        if named.is_empty() && !is_baseline {
            families.push(vec![model]);
        }
    }
    families
}

/// Returns groups of bars by token shape, a group a thread count.
fn bar_groups(metric: &str, rows: &[&SummaryRow]) -> BTreeMap<Option<Workload>, Vec<BarGroup>> {
    let mut shapes: BTreeMap<Option<Workload>, BTreeMap<u32, Vec<Bar>>> = BTreeMap::new();
    let several_kernels = |row: &SummaryRow| {
        rows.iter()
            .filter(|other| other.is_value_of(metric) && other.model == row.model)
            .any(|other| other.kernel != row.kernel)
    };
    for row in rows.iter().filter(|row| row.is_value_of(metric)) {
        let Some(value) = row.value else { continue };
        let name = if several_kernels(row) {
            format!("{}, {}", row.model, row.kernel)
        } else {
            row.model.clone()
        };
        shapes
            .entry(row.workload())
            .or_default()
            .entry(row.threads)
            .or_default()
            .push(Bar {
                name,
                role: row.role,
                value,
                interval: row.ci95_low.zip(row.ci95_high),
            });
    }
    shapes
        .into_iter()
        .map(|(shape, by_threads)| {
            let groups = by_threads
                .into_iter()
                .map(|(threads, bars)| BarGroup {
                    label: units::threads(threads),
                    bars,
                })
                .collect();
            (shape, groups)
        })
        .collect()
}

/// Returns a lane for each task; one row a model and task, kernels and threads apart.
fn lanes(rows: &[&SummaryRow]) -> Vec<Lane> {
    let mut lanes: Vec<Lane> = Vec::new();
    for row in rows.iter().filter(|row| row.is_main_share()) {
        let (Some(task), Some(share)) = (&row.task, row.value) else {
            continue;
        };
        let metric = row.metric.as_deref().unwrap_or_default();
        let mut label = labels::figure_of_task(task, metric, row.filter.as_deref());
        if let Some(shots) = row.num_fewshot.filter(|shots| *shots > 0) {
            label = format!("{label}, {shots}-shot");
        }
        if row.add_bos == Some(false) {
            label.push_str(", no BOS");
        }
        if let Some(variant) = &row.variant {
            label = format!("{label}, {variant}");
        }
        label = format!("{label} · n {}", units::count(row.n as u64));
        let dot = Dot {
            name: row.model.clone(),
            role: row.role,
            share,
            stderr: row.stderr,
        };
        match lanes.iter_mut().find(|lane| lane.label == label) {
            Some(lane) if lane.dots.iter().any(|known| known.name == dot.name) => {}
            Some(lane) => lane.dots.push(dot),
            None => lanes.push(Lane {
                label,
                dots: vec![dot],
            }),
        }
    }
    lanes
}

/// Returns the sorted times between tokens of each model, by threads and token shape.
fn token_lines(
    bundle: &Bundle,
    machine_id: &str,
    family: &[&str],
    rows: &[&SummaryRow],
) -> Vec<(u32, Workload, Vec<Line>)> {
    let jobs: std::collections::HashMap<u32, &JobOutcome> = bundle
        .manifest
        .jobs
        .iter()
        .map(|outcome| (outcome.job.id.index, outcome))
        .collect();
    let mut times: BTreeMap<(u32, Workload, usize, &str), Vec<f64>> = BTreeMap::new();
    for token in bundle.tokens.iter().filter(|token| token.token_index > 0) {
        let Some(outcome) = jobs.get(&token.job_index) else {
            continue;
        };
        let rank = family
            .iter()
            .position(|model| *model == outcome.job.model.id);
        let (Some(rank), Some(facts)) = (rank, &outcome.facts) else {
            continue;
        };
        let is_here = outcome.machine_id.as_deref() == Some(machine_id);
        if !is_here || outcome.state != JobState::Succeeded {
            continue;
        }
        times
            .entry((
                outcome.job.threads.get(),
                token.workload,
                rank,
                &facts.kernel,
            ))
            .or_default()
            .push(token.elapsed_ns as f64);
    }
    let mut charts: Vec<(u32, Workload, Vec<Line>)> = Vec::new();
    let kernels = |model: &str| {
        let mut kernels: Vec<&str> = rows
            .iter()
            .filter(|row| row.model == model && row.is_value_of(ITL))
            .map(|row| row.kernel.as_str())
            .collect();
        kernels.sort_unstable();
        kernels.dedup();
        kernels.len()
    };
    for ((threads, workload, rank, kernel), mut sorted_ns) in times {
        sorted_ns.sort_by(f64::total_cmp);
        let model = family[rank];
        let role = rows
            .iter()
            .find(|row| row.model == model)
            .map_or(Role::Single, |row| row.role);
        let name = if kernels(model) > 1 {
            format!("{model}, {kernel}")
        } else {
            model.to_owned()
        };
        let line = Line {
            name,
            role,
            sorted_ns,
        };
        match charts
            .iter_mut()
            .find(|(known, shape, _)| *known == threads && *shape == workload)
        {
            Some((_, _, lines)) => lines.push(line),
            None => charts.push((threads, workload, vec![line])),
        }
    }
    charts
}

/// Returns a name fit for a file: letters, digits and dashes, at most 60.
fn slug(name: &str) -> String {
    let mut slug = String::new();
    for character in name.chars() {
        if character.is_ascii_alphanumeric() {
            slug.push(character.to_ascii_lowercase());
        } else if !slug.ends_with('-') && !slug.is_empty() {
            slug.push('-');
        }
        if slug.len() >= 60 {
            break;
        }
    }
    slug.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_hold_no_surprises() {
        assert_eq!(
            slug("Decode speed ../../etc/passwd"),
            "decode-speed-etc-passwd"
        );
        assert_eq!(slug("<script>"), "script");
        assert_eq!(slug(&"x".repeat(500)).len(), 60);
    }
}
