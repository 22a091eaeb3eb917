//! Bundles as commands name them: a folder, and a model of it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tritmark_proto::bundle::MANIFEST;
use tritmark_reports::bundle::Bundle;

use crate::{
    args::Target,
    client::{Client, run_id},
    exit::{Exit, OrExit as _, Outcome},
};

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

/// A folder that is removed with its contents.
pub(super) struct Fetched(PathBuf);

impl Fetched {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Fetched {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, folder = %self.0.display(), "a folder stays");
        }
    }
}

/// Fetches a run's bundle into a folder that goes with what is returned.
pub(super) async fn fetch(run: &str, target: &Target) -> Outcome<Fetched> {
    let run = run_id(run)?;
    let mut client = Client::connect(target).await?;
    let name = format!("tritmark-{run}-{}", std::process::id());
    let folder = Fetched(std::env::temp_dir().join(name));
    client.fetch_bundle(run, &folder.0).await?;
    Ok(folder)
}
