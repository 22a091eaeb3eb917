//! What bounds the speed of a model on this machine: how fast memory is read and how fast int8 and f32
//! are multiplied, with an engine's kernel and threads, and what one token of the model asks for.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use tritmark_engine::{
    engine::{Arithmetic, Engine, EngineError, EngineOptions},
    load::ModelSource,
    probe::Probe,
};
use tritmark_proto::{
    machine::total_memory_bytes,
    roofline::{self, Bounds, Demand},
};

use crate::meter::{SystemTree, Tree};

/// Bytes that are read: far more than any cache, unless the machine has little memory.
const MEMORY: usize = 512 << 20;

/// How long memory is read.
const READING: Duration = Duration::from_millis(300);
/// Least readings, however long they take.
const LEAST_READINGS: u32 = 3;

/// About how long one stretch of multiplying takes.
const STRETCH: Duration = Duration::from_millis(5);
/// Tries of a number of turns; one alone may have waited for a CPU that did something else.
const TRIES: u32 = 3;
/// Stretches of which the best counts.
const STRETCHES: u32 = 20;

/// Measures the machine's bounds, each several times in well under a second; the best counts. `root` is
/// where `sys` and `proc` lie, which say how much memory may be taken meanwhile.
pub fn measure(options: &EngineOptions, root: &Path) -> Result<Bounds, EngineError> {
    let tree = SystemTree {
        root: root.to_owned(),
    };
    let mut probe = Probe::with_memory(options, share_of(memory_bytes(&tree)))?;
    Ok(Bounds {
        int8_ops_per_s: peak(|turns| probe.int8(turns)),
        f32_ops_per_s: peak(|turns| probe.f32(turns)),
        memory_read_bytes_per_s: read_bandwidth(&mut probe, LEAST_READINGS, READING),
    })
}

/// Returns how much of a machine's memory is read.
pub(crate) fn share_of(memory_bytes: u64) -> usize {
    let share = usize::try_from(memory_bytes / 8).unwrap_or(MEMORY);
    share.clamp(1 << 20, MEMORY)
}

/// Returns the memory of the machine, or of the control group if that may have less; 0 where the
/// machine does not say.
fn memory_bytes(tree: &dyn Tree) -> u64 {
    let text = tree.read(Path::new("proc/meminfo")).unwrap_or_default();
    // Version 2 of control groups; "max" where there is no limit.
    let limit = tree.read(Path::new("sys/fs/cgroup/memory.max"));
    let limit = limit.ok().and_then(|text| text.trim().parse().ok());
    total_memory_bytes(&text).min(limit.unwrap_or(u64::MAX))
}

/// Reads all of the probe's memory at least so often and so long; the best reading counts.
pub(crate) fn read_bandwidth(probe: &mut Probe, least: u32, time: Duration) -> f64 {
    let begun = Instant::now();
    let mut best: f64 = 0.0;
    let mut n_readings = 0;
    while n_readings < least || begun.elapsed() < time {
        best = best.max(rate(|| probe.read()));
        n_readings += 1;
    }
    best
}

fn peak(mut work: impl FnMut(u64) -> u64) -> f64 {
    let turns = turns_of_a_stretch(&mut work);
    let stretches = (0..STRETCHES).map(|_| rate(|| work(turns)));
    stretches.fold(0.0, f64::max)
}

fn rate(work: impl FnOnce() -> u64) -> f64 {
    let start = Instant::now();
    let done = work();
    done as f64 / start.elapsed().as_secs_f64()
}

/// Finds how many turns take about 5 ms; the CPU gets up to speed meanwhile.
pub(crate) fn turns_of_a_stretch(mut work: impl FnMut(u64) -> u64) -> u64 {
    let mut turns = 1000;
    loop {
        let tries = (0..TRIES).map(|_| {
            let start = Instant::now();
            work(turns);
            start.elapsed()
        });
        let took = tries.min().unwrap_or_default();
        if took >= STRETCH || turns >= 1 << 40 {
            let share = STRETCH.as_secs_f64() / took.as_secs_f64();
            #[expect(clippy::cast_sign_loss, reason = "a product of positive numbers")]
            return ((turns as f64 * share) as u64).max(1);
        }
        turns *= 2;
    }
}

/// Returns what one token of a model asks for.
pub fn demand(source: &ModelSource, engine: &Engine) -> Demand {
    Demand {
        token_bytes: source.linear_weight_bytes + engine.head_read_bytes() as u64,
        position_bytes: engine.new_cache(1).bytes() as u64,
        linear_ops: source.n_linear_params,
        arithmetic: engine.arithmetic().map(|arithmetic| match arithmetic {
            Arithmetic::Int8 => roofline::Arithmetic::Int8,
            Arithmetic::F32 => roofline::Arithmetic::F32,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::fake::{FakeFile, FakeTree};

    #[test]
    fn an_eighth_of_what_may_be_used_is_read_and_512_mib_at_most() {
        let check = |files: &[(&str, &str)], expected: usize| {
            let tree = files
                .iter()
                .fold(FakeTree::default(), |tree, (path, text)| {
                    tree.with(path, FakeFile::Text((*text).to_owned()))
                });
            assert_eq!(share_of(memory_bytes(&tree)), expected, "{files:?}");
        };
        let total = ("proc/meminfo", "MemTotal:  8388608 kB\nMemFree: 1 kB\n");
        let limit = "sys/fs/cgroup/memory.max";
        check(&[total], 512 << 20);
        check(&[total, (limit, "max\n")], 512 << 20);
        check(&[total, (limit, "268435456\n")], 32 << 20);
        check(&[("proc/meminfo", "MemTotal:  1048576 kB\n")], 128 << 20);
        check(&[], 1 << 20);
    }

    #[test]
    fn every_bound_is_measured_in_little_time_where_little_memory_is_known() {
        let start = Instant::now();
        let root = tempfile::tempdir().unwrap();
        let bounds = measure(&EngineOptions::default(), root.path()).unwrap();
        assert!(start.elapsed() < Duration::from_secs(20));
        let Bounds {
            memory_read_bytes_per_s,
            int8_ops_per_s,
            f32_ops_per_s,
        } = bounds;
        for rate in [memory_read_bytes_per_s, int8_ops_per_s, f32_ops_per_s] {
            assert!(rate > 1e6, "{bounds:?}");
        }
    }
}
