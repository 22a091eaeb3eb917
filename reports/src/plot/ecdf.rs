//! Times between tokens as an empirical distribution: the share of tokens that came at least so
//! fast. Nothing is binned, so a long tail is seen as it is.

use super::{
    Plot,
    canvas::{Anchor, Canvas, TEXT, TITLE_HEIGHT, fit},
    colour, count,
    ticks::{Axis, label},
};
use crate::{
    stats::quantile_of_sorted,
    summary::Role,
    units::{self, Scale},
};

const PLOT_HEIGHT: i32 = 380;
const LEFT: i32 = 104;
const RIGHT: i32 = 28;
const AXIS_HEIGHT: i32 = 100;
const LEGEND_LINE: i32 = 40;
/// Steps a line is drawn in.
const STEPS: usize = 240;
/// Ratio of longest to shortest time from which the axis is logarithmic.
const LOG_FROM: f64 = 3.0;

/// One model's tokens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// Nanoseconds in ascending order, at least one.
    pub(crate) sorted_ns: Vec<f64>,
}

/// Distributions of a model and its baseline.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ecdf {
    pub(crate) title: String,
    pub(crate) lines: Vec<Line>,
}

impl Ecdf {
    fn range(&self) -> (f64, f64) {
        let ends = self
            .lines
            .iter()
            .filter_map(|line| Some((*line.sorted_ns.first()?, *line.sorted_ns.last()?)));
        let (low, high) = ends.fold((f64::INFINITY, 0.0_f64), |(low, high), (from, to)| {
            (low.min(from), high.max(to))
        });
        if low.is_finite() {
            (low.max(1.0), high.max(2.0))
        } else {
            (1.0, 2.0)
        }
    }
}

impl Plot for Ecdf {
    fn title(&self) -> String {
        self.title.clone()
    }

    fn description(&self) -> String {
        let parts: Vec<String> = self.lines.iter().map(caption).collect();
        parts.join("; ")
    }

    fn height(&self) -> u32 {
        let legend = LEGEND_LINE * count(self.lines.len());
        (TITLE_HEIGHT + legend + 20 + PLOT_HEIGHT + AXIS_HEIGHT).cast_unsigned()
    }

    fn draw(&self, canvas: &Canvas<'_>) -> Result<(), String> {
        let mut y = TITLE_HEIGHT;
        for line in &self.lines {
            let middle = y + LEGEND_LINE / 2 - 4;
            let dashed = line.role == Role::Baseline;
            canvas.line(
                vec![(8, middle), (56, middle)],
                colour(line.role),
                6,
                dashed,
            )?;
            let room = f64::from(canvas.width - 80);
            canvas.text(
                68,
                middle,
                &fit(&caption(line), room, TEXT),
                Anchor::Left,
                1.0,
            )?;
            y += LEGEND_LINE;
        }
        let top = y + 20;
        let bottom = top + PLOT_HEIGHT;
        let right = canvas.width - RIGHT;

        let (low, high) = self.range();
        let scale = Scale::fit("ns", low);
        let is_log = high / low >= LOG_FROM;
        let (from, to) = (scale.apply(low), scale.apply(high));
        let axis = if is_log {
            Axis::log(from / 1.08, to * 1.08, LEFT, right)
        } else {
            let margin = 0.04 * (to - from).max(0.02 * to);
            Axis::linear(from - margin, to + margin, LEFT, right)
        };
        let mut last_end = 0.0;
        for tick in axis.ticks() {
            let x = axis.place(tick);
            canvas.rule((x, top), (x, bottom), 0.14)?;
            let text = label(tick);
            let half = super::canvas::width_of(&text, TEXT) / 2.0;
            // A label that would touch the one before is left out; its line stays.
            if f64::from(x) - half > last_end + 10.0 {
                canvas.text(x, bottom + 26, &text, Anchor::Middle, 0.75)?;
                last_end = f64::from(x) + half;
            }
        }
        let mut unit = format!("time between tokens, {}", scale.unit);
        if is_log {
            unit.push_str(" (log scale)");
        }
        canvas.text(LEFT, bottom + 70, &unit, Anchor::Left, 0.75)?;

        let height = |share: f64| bottom - (share * f64::from(PLOT_HEIGHT)).round() as i32;
        for percent in [0, 25, 50, 75, 100] {
            let y = height(f64::from(percent) / 100.0);
            canvas.rule((LEFT, y), (right, y), if percent == 0 { 0.5 } else { 0.14 })?;
            canvas.text(LEFT - 12, y, &format!("{percent}%"), Anchor::Right, 0.75)?;
        }
        for line in &self.lines {
            let points = steps(&line.sorted_ns, |ns, share| {
                (axis.place(scale.apply(ns)), height(share))
            });
            let is_baseline = line.role == Role::Baseline;
            canvas.line(points, colour(line.role), 5, is_baseline)?;
        }
        Ok(())
    }
}

fn caption(line: &Line) -> String {
    let median = quantile_of_sorted(&line.sorted_ns, 0.5).unwrap_or(0.0);
    format!(
        "{}: median {}, n {}",
        line.name,
        units::text("ns", median),
        units::count(line.sorted_ns.len() as u64)
    )
}

/// Returns a line through the distribution: every value where there are few, else evenly spaced
/// shares with both ends.
fn steps(sorted: &[f64], place: impl Fn(f64, f64) -> (i32, i32)) -> Vec<(i32, i32)> {
    let Some((first, last)) = sorted.first().zip(sorted.last()) else {
        return Vec::new();
    };
    let n = sorted.len().min(STEPS);
    let mut points = vec![place(*first, 0.0)];
    points.extend((1..=n).map(|step| {
        let rank = (step * sorted.len()).div_ceil(n);
        let value = sorted.get(rank - 1).unwrap_or(last);
        place(*value, rank as f64 / sorted.len() as f64)
    }));
    points.dedup();
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_rises_from_none_to_all() {
        let sorted: Vec<f64> = (1..=1000).map(f64::from).collect();
        let points = steps(&sorted, |value, share| {
            (value as i32, (share * 1000.0) as i32)
        });
        assert_eq!(points.first(), Some(&(1, 0)));
        assert_eq!(points.last(), Some(&(1000, 1000)));
        assert!(points.is_sorted());
        assert!(points.len() <= STEPS + 1);
    }
}
