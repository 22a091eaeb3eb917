//! Speeds as bars with their intervals, a group for each number of threads.

use super::{
    Plot,
    canvas::{Anchor, Canvas, TEXT, TITLE_HEIGHT, fit},
    colour, count,
    ticks::{Axis, label},
};
use crate::{summary::Role, units};

const GROUP_LABEL: i32 = 42;
const BAR: i32 = 34;
const BAR_GAP: i32 = 12;
const GROUP_GAP: i32 = 14;
const AXIS_HEIGHT: i32 = 92;
const LEGEND_LINE: i32 = 40;
/// Room for the value beyond the longest bar.
const VALUE_ROOM: i32 = 190;

/// A bar.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) value: f64,
    pub(crate) interval: Option<(f64, f64)>,
}

/// Bars that stand together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BarGroup {
    pub(crate) label: String,
    pub(crate) bars: Vec<Bar>,
}

/// Speeds of a model and its baseline.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SpeedBars {
    pub(crate) title: String,
    pub(crate) unit: String,
    pub(crate) groups: Vec<BarGroup>,
}

impl SpeedBars {
    fn legend(&self) -> Vec<(&str, Role)> {
        let mut legend: Vec<(&str, Role)> = Vec::new();
        for bar in self.groups.iter().flat_map(|group| &group.bars) {
            if !legend.contains(&(bar.name.as_str(), bar.role)) {
                legend.push((&bar.name, bar.role));
            }
        }
        legend
    }
}

impl Plot for SpeedBars {
    fn title(&self) -> String {
        self.title.clone()
    }

    fn description(&self) -> String {
        let mut parts = Vec::new();
        for group in &self.groups {
            for bar in &group.bars {
                let value = units::text(&self.unit, bar.value);
                parts.push(format!("{}, {}: {value}", group.label, bar.name));
            }
        }
        parts.join("; ")
    }

    fn height(&self) -> u32 {
        let legend = LEGEND_LINE * count(self.legend().len());
        let groups: i32 = self
            .groups
            .iter()
            .map(|group| GROUP_LABEL + (BAR + BAR_GAP) * count(group.bars.len()) + GROUP_GAP)
            .sum();
        (TITLE_HEIGHT + legend + groups + AXIS_HEIGHT).cast_unsigned()
    }

    fn draw(&self, canvas: &Canvas<'_>) -> Result<(), String> {
        let mut y = TITLE_HEIGHT;
        for (name, role) in self.legend() {
            let middle = y + LEGEND_LINE / 2 - 4;
            canvas.bar((8, middle - 10), (36, middle + 10), colour(role))?;
            let text = match role {
                Role::Single => name.to_owned(),
                _ => format!("{name} ({})", role.name()),
            };
            let room = f64::from(canvas.width - 60);
            canvas.text(48, middle, &fit(&text, room, TEXT), Anchor::Left, 1.0)?;
            y += LEGEND_LINE;
        }

        let highest = self
            .groups
            .iter()
            .flat_map(|group| &group.bars)
            .map(|bar| {
                bar.interval
                    .map_or(bar.value, |(_, high)| high.max(bar.value))
            })
            .fold(0.0, f64::max);
        let axis = Axis::linear(0.0, highest, 10, canvas.width - VALUE_ROOM);
        let bottom = self.height().cast_signed() - AXIS_HEIGHT;
        for tick in axis.ticks() {
            let x = axis.place(tick);
            canvas.rule((x, y), (x, bottom), 0.14)?;
            canvas.text(x.max(14), bottom + 24, &label(tick), Anchor::Middle, 0.75)?;
        }
        canvas.text(10, bottom + 64, &self.unit, Anchor::Left, 0.75)?;

        for group in &self.groups {
            let room = f64::from(canvas.width - 20);
            let text = fit(&group.label, room, TEXT);
            canvas.text(10, y + GROUP_LABEL / 2, &text, Anchor::Left, 0.75)?;
            y += GROUP_LABEL;
            for bar in &group.bars {
                let end = axis.place(bar.value);
                canvas.bar((10, y), (end.max(12), y + BAR), colour(bar.role))?;
                let mut beyond = end;
                if let Some((low, high)) = bar.interval {
                    canvas.whisker(axis.place(low), axis.place(high), y + BAR / 2)?;
                    beyond = beyond.max(axis.place(high));
                }
                let value = units::text(&self.unit, bar.value);
                canvas.text(beyond + 14, y + BAR / 2, &value, Anchor::Left, 1.0)?;
                y += BAR + BAR_GAP;
            }
            y += GROUP_GAP;
        }
        canvas.rule((10, bottom), (canvas.width - VALUE_ROOM, bottom), 0.5)
    }
}
