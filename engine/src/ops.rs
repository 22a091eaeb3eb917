//! The steps of a decoder layer, each over a whole micro-batch and all threads.

mod adapter;
pub(crate) mod attention;
pub(crate) mod linear;
pub(crate) mod norm;
pub(crate) mod rope;

use crate::{
    engine::Numerics,
    kernels::{Kernel, Tables},
    lookup::Lookup,
    threads::ThreadPool,
};

/// What computes: the kernel and the threads.
#[derive(Debug)]
pub(crate) struct Compute {
    pub(crate) kernel: Box<dyn Kernel>,
    /// How the kernel looks up ternary products; the weights are packed for it.
    pub(crate) lookup: Option<Lookup>,
    /// How dense matrices in block formats are multiplied.
    pub(crate) numerics: Numerics,
    /// Scratch.
    pub(crate) tables: Tables,
    /// Scratch.
    branches: adapter::Scratch,
    pub(crate) pool: ThreadPool,
}

impl Compute {
    /// Returns a kernel that multiplies, or looks up if it is said how.
    pub(crate) fn new(
        kernel: Box<dyn Kernel>,
        lookup: Option<Lookup>,
        numerics: Numerics,
        pool: ThreadPool,
    ) -> Self {
        Self {
            kernel,
            lookup,
            numerics,
            tables: Tables::default(),
            branches: adapter::Scratch::default(),
            pool,
        }
    }
}
