//! Quantiles of the time between tokens.

use serde::Serialize;

use super::{Cell, cells::common_scale};
use crate::{
    bundle::Bundle,
    stats::MIN_FOR_P99,
    summary::{ITL, SummaryRow},
    units::{self, Scale},
};

/// The models of one machine.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TokenTable {
    pub(crate) machine: String,
    /// Unit of all cells, or empty where each has its own.
    pub(crate) unit: String,
    pub(crate) lines: Vec<Line>,
}

/// One model as it ran.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) model: String,
    pub(crate) role: &'static str,
    pub(crate) kernel: String,
    pub(crate) threads: String,
    pub(crate) workload: String,
    pub(crate) n: String,
    /// 5 %, median, 95 %, 99 %.
    pub(crate) cells: Vec<Cell>,
}

/// Returns a table for each machine that generated tokens.
pub(super) fn tables(bundle: &Bundle, rows: &[SummaryRow]) -> Vec<TokenTable> {
    bundle
        .manifest
        .machines
        .iter()
        .filter_map(|machine| {
            let here: Vec<&SummaryRow> = rows
                .iter()
                .filter(|row| row.machine_id.as_ref() == Some(&machine.id) && row.is_value_of(ITL))
                .collect();
            let scale = common_scale(here.iter().copied());
            (!here.is_empty()).then(|| TokenTable {
                machine: machine.hostname.clone(),
                unit: scale.map_or_else(String::new, |scale| scale.unit.to_owned()),
                lines: here.iter().map(|row| line(row, scale)).collect(),
            })
        })
        .collect()
}

fn line(row: &SummaryRow, scale: Option<Scale>) -> Line {
    let show = |value: Option<f64>| match value {
        None => Cell::none(),
        Some(value) => Cell {
            text: match scale {
                Some(scale) => scale.number(value),
                None => units::text("ns", value),
            },
            title: units::exact("ns", value),
            kind: "value",
            ..Cell::default()
        },
    };
    let p99 = match row.p99 {
        Some(value) => show(Some(value)),
        None => Cell {
            text: "n too small".to_owned(),
            title: format!(
                "a 99 % quantile takes {MIN_FOR_P99} tokens, there are {}",
                row.n
            ),
            kind: "missing",
            ..Cell::default()
        },
    };
    Line {
        model: row.model.clone(),
        role: row.role.name(),
        kernel: row.kernel.clone(),
        threads: units::count(u64::from(row.threads)),
        workload: row.workload().map(units::workload).unwrap_or_default(),
        n: units::count(row.n as u64),
        cells: vec![show(row.p5), show(row.median), show(row.p95), p99],
    }
}
