//! Whether a machine is still what it was: pure, over what agents say of it. `run/health.rs` acts.
//!
//! A calibration is held to the machine's own earlier ones, never to another machine's.

use tritmark_proto::machine::Machine;

pub use tritmark_proto::calibration::Calibration;

#[cfg(test)]
mod tests;

/// How many earlier calibrations a new one is held to.
const HISTORY: usize = 10;

/// From where on a machine is another than it was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Least share of the median of earlier read bandwidths and int8 peaks.
    pub least_speed: f64,
    /// Noise that is never too much.
    pub noise: f64,
    /// Noise that is too much, beyond that: so many times the median of earlier ones.
    pub noise_times: f64,
    /// Noise that is too much for a calibration that nothing earlier can be held against: what a machine
    /// is held to later must not be a measurement that something disturbed.
    pub first_noise: f64,
    /// How far two series of the same work may be apart, if their interval says that they are.
    pub aa: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            least_speed: 0.9,
            noise: 0.1,
            noise_times: 3.0,
            first_noise: 0.3,
            aa: 0.02,
        }
    }
}

/// Returns what is wrong with a calibration, held to earlier ones of the machine, the newest first.
/// Those with another kernel or number of threads say nothing of it.
pub fn judge(now: &Calibration, earlier: &[Calibration], limits: &Limits) -> Result<(), String> {
    let comparable: Vec<&Calibration> = earlier
        .iter()
        .filter(|it| it.kernel == now.kernel && it.threads == now.threads)
        .take(HISTORY)
        .collect();
    let median_of =
        |value: fn(&Calibration) -> f64| median(comparable.iter().map(|it| value(it)).collect());
    let n = comparable.len();
    let mut wrong = Vec::new();
    let mut speed = |what: &str, unit: f64, unit_name: &str, value: fn(&Calibration) -> f64| {
        if let Some(usual) = median_of(value)
            && value(now) < limits.least_speed * usual
        {
            wrong.push(format!(
                "{what} is {:.1} {unit_name}, {:.0} % of the usual {:.1} (median of {n})",
                value(now) / unit,
                100.0 * value(now) / usual,
                usual / unit,
            ));
        }
    };
    speed("memory read bandwidth", 1e9, "GB/s", |it| {
        it.memory_read_bytes_per_s
    });
    speed("int8 peak", 1e9, "Gop/s", |it| it.int8_ops_per_s);
    match median_of(|it| it.noise) {
        Some(usual) if now.noise > limits.noise.max(limits.noise_times * usual) => {
            wrong.push(format!(
                "noise is {:.1} %, usually {:.1} % (median of {n})",
                100.0 * now.noise,
                100.0 * usual,
            ));
        }
        None if now.noise > limits.first_noise => wrong.push(format!(
            "noise is {:.1} %, more than {:.0} %, and there is no earlier calibration to say that it is \
             usual",
            100.0 * now.noise,
            100.0 * limits.first_noise,
        )),
        _ => {}
    }
    let is_apart = now.aa_low > 1.0 || now.aa_high < 1.0;
    if is_apart && (now.aa_ratio - 1.0).abs() > limits.aa {
        wrong.push(format!(
            "two series of the same work differ: ratio {:.3} (99 % interval {:.3} to {:.3}, {} pairs)",
            now.aa_ratio, now.aa_low, now.aa_high, now.aa_pairs,
        ));
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(wrong.join("; "))
    }
}

/// Returns in what a machine is another than it was; what either does not tell is no change.
pub fn changes(before: &Machine, after: &Machine) -> Vec<String> {
    let mut changes = Vec::new();
    let mut compare = |what: &str, before: String, after: String| {
        if before != after && !before.is_empty() && !after.is_empty() {
            changes.push(format!("{what} was {before}, is {after}"));
        }
    };
    let optional = |text: &Option<String>| text.clone().unwrap_or_default();
    compare("CPU", before.cpu_model.clone(), after.cpu_model.clone());
    compare(
        "cores",
        format!("{} of {}", before.physical_cores, before.logical_cores),
        format!("{} of {}", after.physical_cores, after.logical_cores),
    );
    // What the kernel keeps for itself varies a little from start to start.
    let (less, more) = (
        before.memory_bytes.min(after.memory_bytes),
        before.memory_bytes.max(after.memory_bytes),
    );
    if more - less > more / 100 {
        compare(
            "memory",
            format!("{} bytes", before.memory_bytes),
            format!("{} bytes", after.memory_bytes),
        );
    }
    compare("kernel", before.kernel.clone(), after.kernel.clone());
    compare(
        "firmware",
        optional(&before.firmware),
        optional(&after.firmware),
    );
    compare(
        "microcode",
        optional(&before.microcode),
        optional(&after.microcode),
    );
    compare(
        "hypervisor",
        optional(&before.hypervisor),
        optional(&after.hypervisor),
    );
    changes
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[upper]),
        _ => Some(f64::midpoint(values[upper - 1], values[upper])),
    }
}
