//! Bundles as commands name them: a folder, and a model of it.

use std::path::{Path, PathBuf};

use tritmark_proto::bundle::MANIFEST;
use tritmark_reports::bundle::Bundle;

use crate::exit::{Exit, OrExit as _, Outcome};

/// Returns the bundle of a folder: itself, or what `tritmark run` wrote there.
pub(super) fn folder(named: &Path) -> PathBuf {
    if named.join(MANIFEST).is_file() {
        named.to_owned()
    } else {
        named.join("bundle")
    }
}

/// A bundle and the model that was named with it.
pub(super) struct Named {
    pub(super) bundle: Bundle,
    pub(super) model: Option<String>,
}

/// Reads `RUN` or `RUN#MODEL`. A folder whose own name has a `#` is taken as it stands.
pub(super) fn read(named: &str) -> Outcome<Named> {
    let (run, model) = match named.rsplit_once('#') {
        Some((run, model)) if !Path::new(named).is_dir() => (run, Some(model.to_owned())),
        _ => (named, None),
    };
    let folder = folder(Path::new(run));
    let bundle = Bundle::read(&folder).or_exit(Exit::Usage, || {
        format!("cannot read the bundle {}", folder.display())
    })?;
    Ok(Named { bundle, model })
}
