//! What bounds a speed: reading the weights, or multiplying them.

use std::time::Instant;

use tritmark_engine::{
    engine::{Engine, EngineError, EngineOptions},
    load::ModelSource,
    probe::Probe,
};

use super::Test;

/// Times each bound is measured; the best counts.
const ROUNDS: usize = 4;
/// Turns of one measurement of the int8 peak: some 50 ms.
const TURNS: u64 = 12_000_000;

/// What this machine can do with one kernel and so many threads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Machine {
    read_bytes_per_s: f64,
    int8_per_s: f64,
}

/// A speed no engine could exceed that reads what ours reads, or multiplies as ours does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bound {
    pub(super) tok_per_s: f64,
    /// `read` or `int8`.
    pub(super) what: &'static str,
}

impl Machine {
    /// Measures both bounds.
    pub(super) fn measure(options: &EngineOptions) -> Result<Self, EngineError> {
        let mut probe = Probe::new(options)?;
        let mut best = |work: &mut dyn FnMut(&mut Probe) -> u64| {
            (0..ROUNDS)
                .map(|_| {
                    let start = Instant::now();
                    let done = work(&mut probe);
                    done as f64 / start.elapsed().as_secs_f64()
                })
                .fold(0.0, f64::max)
        };
        let int8_per_s = best(&mut |probe| probe.int8(TURNS));
        let read_bytes_per_s = best(&mut Probe::read);
        Ok(Self {
            read_bytes_per_s,
            int8_per_s,
        })
    }

    /// Returns the bound of a test: decode by the bytes of a token, prefill of a ternary model by
    /// its products. Prefill in floats and a mixture of both have none.
    pub(super) fn bound(self, source: &ModelSource, engine: &Engine, test: Test) -> Option<Bound> {
        let Test {
            n_prompt,
            n_gen,
            n_depth,
            ..
        } = test;
        if n_prompt == 0 {
            let head = match engine.screen() {
                Some(screen) => screen.streamed_bytes(),
                None => engine.weights().head().data.len(),
            };
            let depth = (n_depth + n_gen / 2) as f64;
            let kv = engine.new_cache(1).bytes() as f64 * depth;
            let bytes = source.linear_weight_bytes as f64 + head as f64 + kv;
            return Some(Bound {
                tok_per_s: self.read_bytes_per_s / bytes,
                what: "read",
            });
        }
        let ternary = source.linear_format == "i2_s";
        (n_gen == 0 && ternary).then(|| Bound {
            tok_per_s: self.int8_per_s / source.n_linear_params as f64,
            what: "int8",
        })
    }
}
