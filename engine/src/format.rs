//! Readers and writers of model files: bytes in, names, types and ranges out. Nothing here knows
//! what a tensor is for.

pub mod gguf;
pub mod hf;
pub mod safetensors;
