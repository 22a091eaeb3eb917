//! Accuracy as dots with one standard error to either side, a lane for each task.

use super::{
    Plot,
    canvas::{Anchor, Canvas, TEXT, TITLE_HEIGHT, fit},
    colour, count,
    ticks::{Axis, label},
};
use crate::{summary::Role, units};

const LANE_LABEL: i32 = 42;
const DOT_LINE: i32 = 40;
const LANE_GAP: i32 = 14;
const AXIS_HEIGHT: i32 = 92;
const LEGEND_LINE: i32 = 40;
/// Room for the value at the right.
const VALUE_ROOM: i32 = 220;
/// Narrowest range of shares an axis shows, so that noise does not look like a difference.
const MIN_SPAN: f64 = 0.1;

/// One model's share of right answers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Dot {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) share: f64,
    pub(crate) stderr: Option<f64>,
}

/// One task.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lane {
    pub(crate) label: String,
    pub(crate) dots: Vec<Dot>,
}

/// Accuracy of a model and its baseline.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AccuracyDots {
    pub(crate) title: String,
    pub(crate) lanes: Vec<Lane>,
}

impl AccuracyDots {
    fn dots(&self) -> impl Iterator<Item = &Dot> {
        self.lanes.iter().flat_map(|lane| &lane.dots)
    }

    fn legend(&self) -> Vec<(&str, Role)> {
        let mut legend: Vec<(&str, Role)> = Vec::new();
        for dot in self.dots() {
            if !legend.contains(&(dot.name.as_str(), dot.role)) {
                legend.push((&dot.name, dot.role));
            }
        }
        legend
    }

    fn range(&self) -> (f64, f64) {
        let ends = self.dots().map(|dot| {
            let error = dot.stderr.unwrap_or(0.0);
            (dot.share - error, dot.share + error)
        });
        let (low, high) = ends.fold((1.0_f64, 0.0_f64), |(low, high), (from, to)| {
            (low.min(from), high.max(to))
        });
        let missing = (MIN_SPAN - (high - low)).max(0.04) / 2.0;
        ((low - missing).max(0.0), (high + missing).min(1.0))
    }
}

impl Plot for AccuracyDots {
    fn title(&self) -> String {
        self.title.clone()
    }

    fn description(&self) -> String {
        let mut parts = Vec::new();
        for lane in &self.lanes {
            for dot in &lane.dots {
                parts.push(format!("{}, {}: {}", lane.label, dot.name, value(dot)));
            }
        }
        parts.join("; ")
    }

    fn height(&self) -> u32 {
        let legend = LEGEND_LINE * count(self.legend().len());
        let lanes: i32 = self
            .lanes
            .iter()
            .map(|lane| LANE_LABEL + DOT_LINE * count(lane.dots.len()) + LANE_GAP)
            .sum();
        (TITLE_HEIGHT + legend + lanes + AXIS_HEIGHT).cast_unsigned()
    }

    fn draw(&self, canvas: &Canvas<'_>) -> Result<(), String> {
        let mut y = TITLE_HEIGHT;
        for (name, role) in self.legend() {
            let middle = y + LEGEND_LINE / 2 - 4;
            canvas.dot((22, middle), colour(role), role == Role::Baseline)?;
            let text = match role {
                Role::Single => name.to_owned(),
                _ => format!("{name} ({})", role.name()),
            };
            let room = f64::from(canvas.width - 60);
            canvas.text(48, middle, &fit(&text, room, TEXT), Anchor::Left, 1.0)?;
            y += LEGEND_LINE;
        }

        let (low, high) = self.range();
        let right = canvas.width - VALUE_ROOM;
        let axis = Axis::linear(100.0 * low, 100.0 * high, 24, right);
        let bottom = self.height().cast_signed() - AXIS_HEIGHT;
        for tick in axis.ticks() {
            let x = axis.place(tick);
            canvas.rule((x, y), (x, bottom), 0.14)?;
            canvas.text(x, bottom + 24, &label(tick), Anchor::Middle, 0.75)?;
        }
        canvas.text(
            10,
            bottom + 64,
            "% of items right, ± standard error",
            Anchor::Left,
            0.75,
        )?;

        for lane in &self.lanes {
            let room = f64::from(canvas.width - 20);
            let text = fit(&lane.label, room, TEXT);
            canvas.text(10, y + LANE_LABEL / 2, &text, Anchor::Left, 0.75)?;
            y += LANE_LABEL;
            for dot in &lane.dots {
                let middle = y + DOT_LINE / 2;
                if let Some(error) = dot.stderr {
                    let from = axis.place(100.0 * (dot.share - error));
                    let to = axis.place(100.0 * (dot.share + error));
                    canvas.whisker(from, to, middle)?;
                }
                let at = (axis.place(100.0 * dot.share), middle);
                canvas.dot(at, colour(dot.role), dot.role == Role::Baseline)?;
                canvas.text(canvas.width - 8, middle, &value(dot), Anchor::Right, 1.0)?;
                y += DOT_LINE;
            }
            y += LANE_GAP;
        }
        canvas.rule((10, bottom), (right, bottom), 0.5)
    }
}

fn value(dot: &Dot) -> String {
    let share = units::points_of_error(dot.share);
    match dot.stderr {
        Some(error) => format!("{share} ± {} %", units::points_of_error(error)),
        None => format!("{share} %"),
    }
}
