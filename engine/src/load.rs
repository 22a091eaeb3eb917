//! From a model file or folder to [`Weights`].
//!
//! A GGUF file or a Hugging Face folder is mapped, its description read and checked, and every
//! tensor the graph needs is taken from it: as it lies in the file where the run-time layout is
//! the file's, converted otherwise. The files must not change while the model lives (see
//! [`mmap`](crate::mmap)).

mod assemble;
pub(crate) mod describe;
mod error;
mod gguf;
mod hf;
mod lora;
pub(crate) mod open;
mod tensor;
mod vocab;

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{config::ModelConfig, weights::Weights};

pub use error::LoadError;
pub use gguf::vocab as gguf_vocab;
pub use vocab::{FolderVocab, GgufVocab, VocabSource};

/// What a user may say about how a file is to be read.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Which of the byte layouts with the name I2_S a GGUF file has; the file does not say.
    pub i2_s_layout: I2sLayout,
    /// Folder of a LoRA adapter that is put beside the model's linears, as peft writes it.
    pub adapter: Option<PathBuf>,
}

/// Byte layouts under I2_S's one type number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum I2sLayout {
    /// 128 weights in 32 bytes: the official files, and bitnet.cpp's x86 builds by default.
    #[default]
    Blocks128,
    /// 64 weights in 16 bytes: files made by bitnet.cpp's ARM builds since 112f853.
    Blocks64,
    /// One column of four rows in a byte: files made by x86 builds without `ACT_PARALLEL`.
    RowsInFours,
}

/// A model, ready to run.
#[derive(Clone, Debug)]
pub struct LoadedModel {
    /// Shape and constants.
    pub config: ModelConfig,
    /// All weights.
    pub weights: Weights,
    /// What the files are.
    pub source: ModelSource,
    /// What to build the tokenizer from.
    pub vocab: VocabSource,
}

/// What a model's files are, and what they became.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ModelSource {
    /// The file's own word: `bitnet-b1.58`, `BitNetForCausalLM`.
    pub architecture: String,
    /// Every file that was read, in a fixed order.
    pub files: Vec<PathBuf>,
    /// Their sizes' sum, bytes.
    pub file_bytes: u64,
    /// Format of the block linears in the file: `i2_s`, `tq2_0`, `bf16`, `packed`; several are
    /// joined by `+`.
    pub stored_linear_format: String,
    /// Format of the block linears at run time: `i2_s`, `bf16`.
    pub linear_format: String,
    /// What a LoRA adapter adds to the block linears, if there is one: `rank 16 beside 210 linears`.
    pub adapter: Option<String>,
    /// Format of the output head at run time.
    pub head_format: String,
    /// Weights of all kinds; a tied head counts once.
    pub n_params: u64,
    /// Weights of the block linears, biases and adapters excluded.
    pub n_linear_params: u64,
    /// Bytes of all weights at run time, scales included.
    pub weight_bytes: u64,
    /// Bytes of the block linears at run time, scales and adapters included.
    pub linear_weight_bytes: u64,
    /// The same in bits by their own weights.
    pub bits_per_weight: f64,
    /// What a reader of results must know of the files.
    pub warnings: Vec<String>,
}

impl ModelSource {
    /// Returns the blake3 hash of the files: of the one file's bytes, or of several files' names,
    /// sizes and bytes in order. Reads all of them.
    pub fn weights_hash(&self) -> io::Result<String> {
        weights_hash(&self.files)
    }
}

/// Returns the blake3 hash of files as [`ModelSource::weights_hash`] does.
pub fn weights_hash(files: &[PathBuf]) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    for path in files {
        // Read rather than mapped: mapped pages would count as resident memory of the process.
        let file = File::open(path)?;
        if files.len() > 1 {
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            hasher.update(&(name.len() as u64).to_le_bytes());
            hasher.update(name);
            hasher.update(&file.metadata()?.len().to_le_bytes());
        }
        hasher.update_reader(file)?;
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// Loads a GGUF file, or a Hugging Face folder with `config.json` and safetensors.
///
/// The files must not be changed or shortened while the model lives: parts of them stay mapped, an
/// adapter's too.
pub fn load(path: &Path, options: &LoadOptions) -> Result<LoadedModel, LoadError> {
    let mut model = open::open(path, options)?.load()?;
    if let Some(folder) = &options.adapter {
        lora::apply(&mut model, folder)?;
    }
    Ok(model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_one_file_is_its_blake3_and_of_several_depends_on_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
        std::fs::write(&a, "abc").unwrap();
        std::fs::write(&b, "abc").unwrap();
        // blake3's own test of "abc".
        assert_eq!(
            weights_hash(std::slice::from_ref(&a)).unwrap(),
            "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"
        );
        let both = weights_hash(&[a.clone(), b.clone()]).unwrap();
        assert_ne!(both, weights_hash(&[b, a]).unwrap());
    }
}
