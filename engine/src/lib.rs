//! A complete ternary inference engine: tokens in, logits out.
//!
//! Knows nothing of benchmarks, networks, clocks or printing. The straight path is
//! [`load`](load::load) (a model file becomes [`Weights`](weights::Weights)) and the forward pass.

pub mod chat;
pub mod config;
pub mod convert;
pub mod engine;
pub mod errors;
pub mod format;
pub mod generate;
pub mod inspect;
pub mod kernels;
pub mod kv_cache;
pub mod load;
pub mod lookup;
pub mod mmap;
pub mod probe;
pub mod quant;
pub mod sampler;
pub mod score;
pub mod screen;
pub mod synth;
pub mod testing;
pub mod threads;
pub mod tokenizer;
pub mod validate;
pub mod verify;
pub mod weights;

mod ops;
mod pages;
mod transformer;
mod whole_file;
