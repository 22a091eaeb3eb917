//! The whole engine against numbers that public programs printed: logits, log-likelihoods, greedy
//! texts and perplexities of `golden` and `models` under `TRITMARK_DATA`, in every file format and
//! on every kernel of this machine.
//!
//! The limits are those of `golden/README.md`. Rounding activations to int8 is discontinuous, so
//! that two correct engines part by some 1e-2 in the logits of a ternary model: its limits are
//! statistical, and they are tight enough to catch a wrong epsilon, a scale that is 1 % off or one
//! negated row. Full-precision models have no such cliff and are held to 1e-4.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod generation;
mod harness;
mod identity;
mod logits;
mod models;
mod perplexity;
mod statistics;
mod trained;
