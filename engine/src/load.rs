//! From a model file or folder to [`Weights`](crate::weights::Weights).

mod vocab;

pub use vocab::{FolderVocab, GgufVocab, VocabSource};
