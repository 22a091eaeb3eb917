//! Readings of the machine: energy counters and resident memory.
//!
//! Every reader takes a [`Tree`], the place where `sys` and `proc` are, so that tests give it one
//! of their own.

pub mod rapl;
pub mod rss;
mod tree;
pub mod window;

#[cfg(test)]
pub(crate) use tree::fake;
pub use tree::{SystemTree, Tree};
