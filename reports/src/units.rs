//! Numbers for eyes: scaled units, three significant digits. The only place that rounds.

/// Separates thousands, and numbers from their units.
const THIN_SPACE: char = '\u{202f}';
const MINUS: char = '\u{2212}';

/// A unit fit to be read, and how many of the stored unit it holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scale {
    /// Stored units in one shown unit.
    per: f64,
    /// The shown unit; empty of a plain number.
    pub(crate) unit: &'static str,
}

const TIMES: [(f64, &str); 4] = [(1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns")];
const BYTES: [(f64, &str); 4] = [
    (1_073_741_824.0, "GiB"),
    (1_048_576.0, "MiB"),
    (1024.0, "KiB"),
    (1.0, "B"),
];
const ENERGIES: [(f64, &str); 5] = [
    (1.0, "J"),
    (1e-3, "mJ"),
    (1e-6, "µJ"),
    (1e-9, "nJ"),
    (1e-12, "pJ"),
];
const TOKEN_ENERGIES: [(f64, &str); 5] = [
    (1.0, "J/tok"),
    (1e-3, "mJ/tok"),
    (1e-6, "µJ/tok"),
    (1e-9, "nJ/tok"),
    (1e-12, "pJ/tok"),
];

impl Scale {
    /// Returns the largest unit in which `value` is at least 1.
    pub(crate) fn fit(unit: &str, value: f64) -> Self {
        let steps: &[(f64, &'static str)] = match unit {
            "ns" => &TIMES,
            "B" => &BYTES,
            "J" => &ENERGIES,
            "J/tok" => &TOKEN_ENERGIES,
            "W" => &[(1.0, "W")],
            "tok/s" => &[(1.0, "tok/s")],
            "items/s" => &[(1.0, "items/s")],
            "1" => &[(0.01, "%")],
            "bit/B" => &[(1.0, "bit/B")],
            _ => &[(1.0, "")],
        };
        let smallest = *steps.last().expect("every unit has a step");
        let (per, unit) = steps
            .iter()
            .copied()
            .find(|(per, _)| value.abs() >= *per)
            .unwrap_or(smallest);
        Self { per, unit }
    }

    /// Returns the number without its unit.
    pub(crate) fn number(self, value: f64) -> String {
        let scaled = value / self.per;
        if self.unit == "%" {
            return fixed(scaled, 1);
        }
        significant(scaled)
    }

    /// Returns the value in the shown unit.
    pub(crate) fn apply(self, value: f64) -> f64 {
        value / self.per
    }

    /// Returns number and unit.
    pub(crate) fn text(self, value: f64) -> String {
        let number = self.number(value);
        if self.unit.is_empty() {
            return number;
        }
        format!("{number}{THIN_SPACE}{}", self.unit)
    }
}

/// Returns number and unit, scaled for itself.
pub(crate) fn text(unit: &str, value: f64) -> String {
    Scale::fit(unit, value).text(value)
}

/// Returns a signed number and its unit, scaled for itself: `+1.20 bit/B`.
pub(crate) fn signed(unit: &str, value: f64) -> String {
    let text = text(unit, value);
    if value > 0.0 {
        return format!("+{text}");
    }
    text
}

/// Returns a ratio: `2.31×`.
pub(crate) fn ratio(value: f64) -> String {
    format!("{}×", significant(value))
}

/// Returns a signed difference of shares in points: `−1.2`.
pub(crate) fn points(share: f64) -> String {
    let text = fixed(100.0 * share, 1);
    if share > 0.0 && text != "0.0" {
        return format!("+{text}");
    }
    text
}

/// Returns an unsigned standard error of a share in points: `0.9`.
pub(crate) fn points_of_error(share: f64) -> String {
    fixed(100.0 * share, 1)
}

/// Returns a probability: `0.032`, `< 0.001`.
pub(crate) fn probability(p: f64) -> String {
    if p < 0.001 {
        return format!("<{THIN_SPACE}0.001");
    }
    fixed(p, 3)
}

/// Returns a count with its thousands apart.
pub(crate) fn count(n: u64) -> String {
    group_thousands(&n.to_string())
}

/// Returns every digit of a stored value with its unit, for titles.
pub(crate) fn exact(unit: &str, value: f64) -> String {
    match unit {
        "1" => format!("{value}"),
        _ => format!("{value} {unit}"),
    }
}

/// Returns a number of tokens as llama-bench names it, e.g. `pp128 tg64 @ d512`.
pub(crate) fn workload(workload: tritmark_proto::job::Workload) -> String {
    let tritmark_proto::job::Workload {
        n_prompt,
        n_gen,
        n_depth,
        n_batch: _,
    } = workload;
    let mut parts = Vec::new();
    if n_prompt > 0 {
        parts.push(format!("pp{n_prompt}"));
    }
    if n_gen > 0 {
        parts.push(format!("tg{n_gen}"));
    }
    if n_depth > 0 {
        parts.push(format!("@ d{n_depth}"));
    }
    parts.join(" ")
}

/// Returns `1 thread`, `2 threads`.
pub(crate) fn threads(threads: u32) -> String {
    plural(u64::from(threads), "thread")
}

/// Returns `1 job`, `2 jobs`.
pub(crate) fn plural(n: u64, noun: &str) -> String {
    let ending = if n == 1 { "" } else { "s" };
    format!("{} {noun}{ending}", count(n))
}

fn significant(value: f64) -> String {
    let magnitude = if value == 0.0 {
        0
    } else {
        value.abs().log10().floor() as i32
    };
    fixed(value, usize::try_from(2 - magnitude).unwrap_or(0).min(4))
}

fn fixed(value: f64, decimals: usize) -> String {
    let digits = format!("{:.decimals$}", value.abs());
    let is_zero = digits.chars().all(|digit| matches!(digit, '0' | '.'));
    let text = group_thousands(&digits);
    if value < 0.0 && !is_zero {
        return format!("{MINUS}{text}");
    }
    text
}

fn group_thousands(digits: &str) -> String {
    let (whole, fraction) = digits
        .split_once('.')
        .map_or((digits, None), |(whole, fraction)| (whole, Some(fraction)));
    let mut text = String::new();
    for (position, digit) in whole.chars().enumerate() {
        if position > 0 && whole.len() > 4 && (whole.len() - position).is_multiple_of(3) {
            text.push(THIN_SPACE);
        }
        text.push(digit);
    }
    if let Some(fraction) = fraction {
        text.push('.');
        text.push_str(fraction);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_in_a_unit_that_fits() {
        for (unit, value, expected) in [
            ("ns", 89_285_714.0, "89.3\u{202f}ms"),
            ("ns", 1_234_000_000.0, "1.23\u{202f}s"),
            ("ns", 12.0, "12.0\u{202f}ns"),
            ("B", 1_288_490_188.8, "1.20\u{202f}GiB"),
            ("B", 512.0, "512\u{202f}B"),
            ("B", 0.0, "0.00\u{202f}B"),
            ("J", 0.0278, "27.8\u{202f}mJ"),
            ("J/tok", 5.4e-5, "54.0\u{202f}µJ/tok"),
            ("tok/s", 12_345.6, "12\u{202f}346\u{202f}tok/s"),
            ("1", 0.4991, "49.9\u{202f}%"),
            ("furlongs", 3.0, "3.00"),
        ] {
            assert_eq!(text(unit, value), expected, "{value} {unit}");
        }
    }

    #[test]
    fn differences_carry_their_sign() {
        assert_eq!(points(-0.0123), "−1.2");
        assert_eq!(points(0.0123), "+1.2");
        assert_eq!(points(0.0), "0.0");
        assert_eq!(points(-0.000_01), "0.0");
    }

    #[test]
    fn ratios_and_probabilities_keep_three_digits() {
        assert_eq!(ratio(2.314), "2.31×");
        assert_eq!(ratio(71.43), "71.4×");
        assert_eq!(ratio(0.0271), "0.0271×");
        assert_eq!(probability(0.000_2), "<\u{202f}0.001");
        assert_eq!(probability(0.0321), "0.032");
    }

    #[test]
    fn token_shapes_are_named_as_llama_bench_does() {
        let shape = |n_prompt, n_gen, n_depth| {
            workload(tritmark_proto::job::Workload {
                n_prompt,
                n_gen,
                n_depth,
                n_batch: 512,
            })
        };
        assert_eq!(shape(512, 128, 0), "pp512 tg128");
        assert_eq!(shape(0, 128, 4096), "tg128 @ d4096");
    }
}
