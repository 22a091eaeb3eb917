//! Hugging Face folders.
use super::{LoadError, LoadedModel};
use std::path::Path;
pub(super) fn load(folder: &Path) -> Result<LoadedModel, LoadError> {
    Err(LoadError::Open {
        path: folder.to_owned(),
        source: std::io::ErrorKind::Unsupported.into(),
    })
}
