//! The parts of a task, e.g. MMLU's subjects: groups down, models across.

use serde::Serialize;

use super::{Cell, cells::cell};
use crate::{bundle::Bundle, labels, summary::SummaryRow, units::Scale};

/// A table of a task on a machine.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct GroupTable {
    pub(crate) title: String,
    pub(crate) machine: String,
    pub(crate) models: Vec<String>,
    pub(crate) lines: Vec<Line>,
}

/// A group.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) group: String,
    pub(crate) cells: Vec<Cell>,
}

/// Returns a table for each task with groups on each machine, of its first figure.
pub(super) fn tables(bundle: &Bundle, rows: &[SummaryRow]) -> Vec<GroupTable> {
    let mut tables = Vec::new();
    for machine in &bundle.manifest.machines {
        let here: Vec<&SummaryRow> = rows
            .iter()
            .filter(|row| row.machine_id.as_ref() == Some(&machine.id))
            .filter(|row| row.group.is_some() && row.is_main)
            .collect();
        let mut titles: Vec<String> = Vec::new();
        for title in here.iter().map(|row| title(row)) {
            if !titles.contains(&title) {
                titles.push(title);
            }
        }
        for title in titles {
            let of_task: Vec<&SummaryRow> = here
                .iter()
                .copied()
                .filter(|row| self::title(row) == title)
                .collect();
            tables.push(table(title, &machine.hostname, &of_task));
        }
    }
    tables
}

fn title(row: &SummaryRow) -> String {
    let task = row.task.as_deref().unwrap_or_default();
    let metric = row.metric.as_deref().unwrap_or_default();
    let mut title = labels::figure_of_task(task, metric, row.filter.as_deref());
    if let Some(shots) = row.num_fewshot.filter(|shots| *shots > 0) {
        title = format!("{title}, {shots}-shot");
    }
    if let Some(variant) = &row.variant {
        title = format!("{title}, {variant}");
    }
    title
}

fn table(title: String, machine: &str, rows: &[&SummaryRow]) -> GroupTable {
    // Other kernels and threads give the same answers: one column a model is enough.
    let mut models: Vec<&str> = Vec::new();
    let mut groups: Vec<&str> = Vec::new();
    for row in rows {
        if !models.contains(&row.model.as_str()) {
            models.push(&row.model);
        }
        groups.extend(row.group.as_deref());
    }
    groups.sort_unstable();
    groups.dedup();
    let show = |row: &&SummaryRow| {
        let unit = row.unit.as_deref().unwrap_or_default();
        cell(row, Scale::fit(unit, row.value.unwrap_or_default()), true)
    };
    let lines = groups
        .into_iter()
        .map(|group| Line {
            group: group.to_owned(),
            cells: models
                .iter()
                .map(|model| {
                    rows.iter()
                        .find(|row| row.model == *model && row.group.as_deref() == Some(group))
                        .map_or_else(Cell::none, show)
                })
                .collect(),
        })
        .collect();
    GroupTable {
        title,
        machine: machine.to_owned(),
        models: models.into_iter().map(str::to_owned).collect(),
        lines,
    }
}
