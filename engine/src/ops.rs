//! The steps of a decoder layer, each over a whole micro-batch and all threads.

pub(crate) mod attention;
pub(crate) mod linear;
pub(crate) mod norm;
pub(crate) mod rope;

use crate::{kernels::Kernel, threads::ThreadPool};

/// What computes: the kernel and the threads.
#[derive(Debug)]
pub(crate) struct Compute {
    pub(crate) kernel: Box<dyn Kernel>,
    pub(crate) pool: ThreadPool,
}
