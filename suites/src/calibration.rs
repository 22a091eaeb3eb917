//! What the machine can do just now, in a few seconds: read bandwidth, int8 peak, noise, and whether
//! two series of the same work take the same time.
//!
//! It measures the machine and not a model. A coordinator holds it to the machine's earlier figures.

use std::{
    io::Write,
    num::NonZeroUsize,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use tritmark_engine::{
    engine::{EngineError, EngineOptions},
    probe::Probe,
};

pub use tritmark_proto::calibration::Calibration;

use crate::{bounds, chain};

/// How long memory is read.
const READING: Duration = Duration::from_millis(700);
/// Least readings, however long they take.
const LEAST_READINGS: u32 = 5;

/// Stretches from which peak and noise are taken.
const STRETCHES: usize = 200;

/// Pairs of the two series.
const PAIRS: usize = 60;
/// 99.5 % quantile of Student's t with `PAIRS` - 1 degrees of freedom.
const T_99: f64 = 2.6618;

/// Measures this machine with one thread a CPU; `memory_bytes` is what it has.
pub fn calibrate(memory_bytes: u64) -> Result<Calibration, EngineError> {
    let options = EngineOptions {
        threads: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        ..EngineOptions::default()
    };
    let mut probe = Probe::with_memory(&options, bounds::share_of(memory_bytes))?;
    let kernel = options.kernel.kernel()?.name().to_owned();
    let memory_read_bytes_per_s = bounds::read_bandwidth(&mut probe, LEAST_READINGS, READING);
    let turns = bounds::turns_of_a_stretch(|turns| probe.int8(turns));
    let mut stretch = || {
        let start = Instant::now();
        let done = probe.int8(turns);
        (done, start.elapsed().as_secs_f64())
    };
    let stretches: Vec<(u64, f64)> = (0..STRETCHES).map(|_| stretch()).collect();
    let int8_ops_per_s = stretches
        .iter()
        .map(|(done, seconds)| *done as f64 / seconds)
        .fold(0.0, f64::max);
    let noise = noise(stretches.iter().map(|(_, seconds)| *seconds).collect());
    let logs: Vec<f64> = (0..PAIRS)
        .map(|pair| {
            let (first, second) = (stretch().1, stretch().1);
            // A drift of the clock's frequency favours neither.
            let (a, b) = if pair % 2 == 0 {
                (first, second)
            } else {
                (second, first)
            };
            (a / b).ln()
        })
        .collect();
    let [aa_low, aa_ratio, aa_high] = ratio(&logs);
    Ok(Calibration {
        kernel,
        threads: u32::try_from(options.threads.get()).unwrap_or(u32::MAX),
        memory_read_bytes_per_s,
        int8_ops_per_s,
        noise,
        aa_ratio,
        aa_low,
        aa_high,
        aa_pairs: PAIRS as u32,
    })
}

/// Measures this machine and prints a [`Calibration`] as a line of JSON: what the process does that an
/// agent starts for it.
pub fn calibration_main(memory_bytes: u64, mut output: impl Write) -> ExitCode {
    let said = match calibrate(memory_bytes) {
        Ok(calibration) => serde_json::to_string(&calibration).map_err(|error| error.to_string()),
        Err(error) => Err(chain(&error)),
    };
    let written =
        said.and_then(|line| writeln!(output, "{line}").map_err(|error| error.to_string()));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            // Nobody may be there to read it.
            let _ = writeln!(std::io::stderr(), "{problem}");
            ExitCode::FAILURE
        }
    }
}

fn noise(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    let at = |share: f64| {
        #[expect(clippy::cast_sign_loss, reason = "a share of a length")]
        let position = ((seconds.len() - 1) as f64 * share).round() as usize;
        seconds[position]
    };
    at(0.9) / at(0.5) - 1.0
}

/// Returns the geometric mean of ratios, given as logarithms, between the ends of its 99 % interval.
fn ratio(logs: &[f64]) -> [f64; 3] {
    let n = logs.len() as f64;
    let mean = logs.iter().sum::<f64>() / n;
    let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let half = T_99 * (variance / n).sqrt();
    [(mean - half).exp(), mean.exp(), (mean + half).exp()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_how_much_the_slowest_tenth_takes_longer() {
        let even = vec![2.0; 11];
        assert!(noise(even).abs() < 1e-12);
        let mut seconds = vec![1.0; 8];
        seconds.extend([1.5, 1.5, 9.0]);
        assert!((noise(seconds) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn the_ratio_of_equal_series_is_one_and_that_of_others_is_found() {
        let check = |factor: f64| {
            let logs: Vec<f64> = (0..PAIRS)
                .map(|pair| factor.ln() + if pair % 2 == 0 { 0.01 } else { -0.01 })
                .collect();
            let [low, ratio, high] = ratio(&logs);
            assert!((ratio - factor).abs() < 1e-9, "{ratio}");
            // scipy.stats.t.interval(0.99, 59, 0, 0.01 * sqrt(60 / 59) / sqrt(60)) is ±0.0034653.
            assert!(((high / ratio).ln() - 0.003_465_3).abs() < 1e-6, "{high}");
            assert!(((ratio / low).ln() - 0.003_465_3).abs() < 1e-6, "{low}");
        };
        check(1.0);
        check(1.05);
    }

    #[test]
    fn a_machine_is_measured_in_a_few_seconds() {
        let start = Instant::now();
        let mut output = Vec::new();
        // Little memory, so that the tests beside this one have theirs.
        let code = calibration_main(64 << 20, &mut output);
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS));
        assert!(start.elapsed() < Duration::from_mins(1));
        let found: Calibration = serde_json::from_slice(&output).unwrap();
        assert!(found.memory_read_bytes_per_s > 1e6, "{found:?}");
        assert!(found.int8_ops_per_s > 1e6, "{found:?}");
        assert!(found.noise >= 0.0, "{found:?}");
        assert!(found.aa_low <= found.aa_ratio && found.aa_ratio <= found.aa_high);
        assert_eq!(found.aa_pairs, 60);
    }
}
