//! Files of keys: made for their owner alone, and there as a whole or not at all.

use std::{fs, io, path::Path};

use tritmark_proto::private_file;

use super::IdentityError;

/// Makes a folder for its owner alone.
pub(super) fn make_folder(folder: &Path) -> Result<(), IdentityError> {
    private_file::make_folder(folder).map_err(failed("make", folder))
}

/// Writes a file for its owner alone, durably, in one step.
pub(super) fn write(path: &Path, text: &str) -> Result<(), IdentityError> {
    private_file::write(path, text).map_err(failed("write", path))
}

/// Reads a file that holds a private key, unless others can.
pub(super) fn read_secret(path: &Path) -> Result<String, IdentityError> {
    if private_file::is_exposed(path).map_err(failed("read", path))? {
        return Err(IdentityError::Exposed(path.to_owned()));
    }
    read(path)
}

pub(super) fn read(path: &Path) -> Result<String, IdentityError> {
    fs::read_to_string(path).map_err(failed("read", path))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.to_owned();
    move |source| IdentityError::File {
        action,
        path,
        source,
    }
}
