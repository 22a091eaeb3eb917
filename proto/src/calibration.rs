//! What a machine can do, as an agent measures it and a coordinator keeps it.

use serde::{Deserialize, Serialize};

use crate::wire;

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// The kernel that read and multiplied.
    pub kernel: String,
    /// Its threads: one a CPU.
    pub threads: u32,
    /// Bytes a second, the best of several readings.
    pub memory_read_bytes_per_s: f64,
    /// Multiply-adds a second, out of registers, the best of many stretches.
    pub int8_ops_per_s: f64,
    /// The 90th percentile of the stretches' times over their median, less one.
    pub noise: f64,
    /// Geometric mean of the ratios of two interleaved series of the same stretches.
    pub aa_ratio: f64,
    /// Lower end of its 99 % interval.
    pub aa_low: f64,
    /// Upper end.
    pub aa_high: f64,
    /// Pairs it rests on.
    pub aa_pairs: u32,
}

impl Calibration {
    /// Reads what an agent says.
    ///
    /// # Errors
    /// Says why it measured nothing, or what makes no sense.
    pub fn read(said: wire::Calibration) -> Result<Self, String> {
        let wire::Calibration {
            number: _,
            failure,
            kernel,
            threads,
            memory_read_bytes_per_s,
            int8_ops_per_s,
            noise,
            aa_ratio,
            aa_low,
            aa_high,
            aa_pairs,
        } = said;
        if !failure.is_empty() {
            return Err(failure);
        }
        let positive = [
            ("memory_read_bytes_per_s", memory_read_bytes_per_s),
            ("int8_ops_per_s", int8_ops_per_s),
            ("aa_ratio", aa_ratio),
            ("aa_low", aa_low),
            ("aa_high", aa_high),
        ];
        for (name, value) in positive {
            if !value.is_finite() || value <= 0.0 {
                return Err(format!("{name} {value} makes no sense"));
            }
        }
        if !noise.is_finite() || noise < 0.0 || !(aa_low..=aa_high).contains(&aa_ratio) {
            return Err(format!(
                "noise {noise} or the interval {aa_low} to {aa_high} around {aa_ratio} makes no sense"
            ));
        }
        Ok(Self {
            kernel,
            threads,
            memory_read_bytes_per_s,
            int8_ops_per_s,
            noise,
            aa_ratio,
            aa_low,
            aa_high,
            aa_pairs,
        })
    }

    /// Returns the answer to request `number`.
    pub fn into_answer(self, number: u64) -> wire::Calibration {
        let Self {
            kernel,
            threads,
            memory_read_bytes_per_s,
            int8_ops_per_s,
            noise,
            aa_ratio,
            aa_low,
            aa_high,
            aa_pairs,
        } = self;
        wire::Calibration {
            number,
            failure: String::new(),
            kernel,
            threads,
            memory_read_bytes_per_s,
            int8_ops_per_s,
            noise,
            aa_ratio,
            aa_low,
            aa_high,
            aa_pairs,
        }
    }
}
