//! Where an axis is marked: few round values.

/// A straight or logarithmic axis from values to units of the drawing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    is_log: bool,
    left: i32,
    right: i32,
}

impl Axis {
    /// Returns a straight axis.
    pub(super) fn linear(low: f64, high: f64, left: i32, right: i32) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        Self {
            low,
            high,
            is_log: false,
            left,
            right,
        }
    }

    /// Returns a logarithmic axis; both ends are positive.
    pub(super) fn log(low: f64, high: f64, left: i32, right: i32) -> Self {
        Self {
            is_log: true,
            ..Self::linear(low, high, left, right)
        }
    }

    /// Returns a value's place, inside the axis.
    pub(super) fn place(self, value: f64) -> i32 {
        let share = if self.is_log {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.left + (share.clamp(0.0, 1.0) * f64::from(self.right - self.left)).round() as i32
    }

    /// Returns three to seven round values on the axis.
    pub(super) fn ticks(self) -> Vec<f64> {
        if self.is_log {
            for steps in [
                &[1.0][..],
                &[1.0, 3.0],
                &[1.0, 2.0, 5.0],
                &[1.0, 2.0, 3.0, 5.0, 7.0],
            ] {
                let ticks = self.decades(steps);
                if (3..=7).contains(&ticks.len()) {
                    return ticks;
                }
            }
        }
        self.round_values()
    }

    fn decades(self, steps: &[f64]) -> Vec<f64> {
        let first = self.low.log10().floor() as i32;
        let last = self.high.log10().ceil() as i32;
        (first..=last)
            .flat_map(|exponent| steps.iter().map(move |step| step * 10.0_f64.powi(exponent)))
            .filter(|tick| (self.low..=self.high).contains(tick))
            .collect()
    }

    fn round_values(self) -> Vec<f64> {
        let rough = (self.high - self.low) / 5.0;
        let power = 10.0_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .map(|step| step * power)
            .find(|step| *step >= rough * 0.999)
            .unwrap_or(10.0 * power);
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        (first..=last).map(|tick| tick as f64 * step).collect()
    }
}

/// Returns a tick's label without needless digits.
pub(super) fn label(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let text = format!("{value:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ticks_are_round() {
        let linear = Axis::linear(0.0, 23.0, 0, 100);
        assert_eq!(linear.ticks(), [0.0, 5.0, 10.0, 15.0, 20.0]);
        let log = Axis::log(0.8, 120.0, 0, 100);
        assert_eq!(log.ticks(), [1.0, 10.0, 100.0]);
        let narrow = Axis::log(80.0, 110.0, 0, 100);
        assert_eq!(narrow.ticks(), [80.0, 90.0, 100.0, 110.0]);
        assert_eq!(label(0.5), "0.5");
        assert_eq!(label(100.0), "100");
    }

    proptest! {
        #[test]
        fn ticks_are_few_and_on_the_axis(
            low in 1e-6..1e6_f64, span in 1.001..1e4_f64, is_log: bool,
        ) {
            let high = low * span;
            let axis = if is_log { Axis::log(low, high, 0, 900) } else { Axis::linear(low, high, 0, 900) };
            let ticks = axis.ticks();
            prop_assert!((1..=12).contains(&ticks.len()), "{:?}", ticks);
            for tick in ticks {
                prop_assert!(tick >= low * 0.999_999 && tick <= high * 1.000_001);
                prop_assert!((0..=900).contains(&axis.place(tick)));
            }
        }
    }
}
