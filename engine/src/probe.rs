//! What the machine itself can do, for the same kernel and threads as an engine: how fast it reads
//! memory, and how fast it multiplies. Speeds can then be given as shares of these bounds.
//!
//! Here is the work only; who wants a rate takes the time, several times, and keeps the best.

use std::hint::black_box;

use crate::{
    engine::{EngineError, EngineOptions},
    kernels::Kernel,
    threads::ThreadPool,
    weights::AlignedBytes,
};

/// Bytes to read: far more than any cache in use.
const MEMORY: usize = 512 << 20;

/// A kernel and threads, and memory to read.
#[derive(Debug)]
pub struct Probe {
    kernel: Box<dyn Kernel>,
    pool: ThreadPool,
    memory: AlignedBytes,
}

impl Probe {
    /// Starts threads as an engine with these options would.
    pub fn new(options: &EngineOptions) -> Result<Self, EngineError> {
        Self::with_memory(options, MEMORY)
    }

    /// The same with so many bytes to read, for machines that have little.
    pub fn with_memory(options: &EngineOptions, bytes: usize) -> Result<Self, EngineError> {
        let threads = options.threads;
        let kernel = options.kernel.kernel()?;
        let pool = ThreadPool::new(threads, options.pin)
            .map_err(|source| EngineError::Threads { threads, source })?;
        let mut memory = AlignedBytes::zeroed(bytes);
        // Pages that were never written would all be one and the same.
        memory.as_mut_slice().fill(1);
        Ok(Self {
            kernel,
            pool,
            memory,
        })
    }

    /// Reads all of the memory once, each thread one stretch of it, and returns its size in bytes.
    pub fn read(&mut self) -> u64 {
        let per_part = self.memory.len().div_ceil(self.pool.threads());
        let per_part = per_part.next_multiple_of(64);
        let mut parts: Vec<_> = self.memory.chunks(per_part).collect();
        let kernel = &*self.kernel;
        self.pool.run(&mut parts, |_, part| {
            black_box(kernel.read(part));
        });
        self.memory.len() as u64
    }

    /// Multiplies int8 values as a ternary product does, out of registers alone, for some turns in
    /// every thread; returns the multiply-adds done.
    pub fn int8(&mut self, turns: u64) -> u64 {
        self.in_every_thread(|kernel| kernel.int8_peak(turns))
    }

    /// Multiplies f32 values as a dense product does, in the same way.
    pub fn f32(&mut self, turns: u64) -> u64 {
        self.in_every_thread(|kernel| kernel.f32_peak(turns))
    }

    fn in_every_thread(&mut self, work: impl Fn(&dyn Kernel) -> u64 + Sync) -> u64 {
        let mut parts = vec![0; self.pool.threads()];
        let kernel = &*self.kernel;
        self.pool.run(&mut parts, |_, done| *done = work(kernel));
        parts.into_iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::kernels::{self, KernelChoice};

    #[test]
    fn every_kernel_reads_all_bytes_and_counts_its_work() {
        for kernel in kernels::available() {
            for threads in [1, 3] {
                let options = EngineOptions {
                    threads: NonZeroUsize::new(threads).unwrap(),
                    kernel: KernelChoice::Named(kernel.name()),
                    ..EngineOptions::default()
                };
                let mut probe = Probe::with_memory(&options, 100_000).unwrap();
                assert_eq!(probe.read(), 100_000);
                let once = probe.int8(1);
                assert!(once >= 16 * threads as u64);
                assert_eq!(probe.int8(1_000), 1_000 * once);
                let once = probe.f32(1);
                assert!(once >= 16 * threads as u64);
                assert_eq!(probe.f32(1_000), 1_000 * once);
            }
            // The sum is that of the little-endian words.
            let bytes: Vec<u8> = (0..4_096_u32).map(|i| ((i * 31) >> 3) as u8).collect();
            let words = bytes.as_chunks::<8>().0.iter();
            let sum = words.fold(0_u64, |sum, word| {
                sum.wrapping_add(u64::from_ne_bytes(*word))
            });
            assert_eq!(kernel.read(&bytes), sum, "{}", kernel.name());
        }
    }
}
