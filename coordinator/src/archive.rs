//! Bundles of ended runs among the objects.
//!
//! A run that has ended does not change: its bundle is made once, its files are kept under the hashes
//! of their contents, and `runs/<id>.json` names them. Whoever asks for the results later gets those
//! bytes, checked. Where the objects cannot be used, the bundle is made from the store as ever.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use tritmark_proto::{artefact::ContentHash, bundle::FILES, job::RunId};

use crate::{
    bundle::{self, BundleError, BundleFile},
    objects::{Objects, ObjectsError},
    store::{Store, StoredRun},
};

#[cfg(test)]
mod tests;

/// How often it is looked whether a run has ended.
const PERIOD: Duration = Duration::from_secs(5);

/// Version of `runs/<id>.json`.
const VERSION: u32 = 1;

/// What a run's bundle consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    version: u32,
    run: RunId,
    files: Vec<KeptFile>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct KeptFile {
    name: String,
    hash: ContentHash,
    size_bytes: u64,
}

/// Why a bundle cannot be kept or had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Objects(#[from] ObjectsError),
    #[error("the description of run {run} among the objects makes no sense")]
    Description {
        run: RunId,
        #[source]
        source: serde_json::Error,
    },
    #[error("a description of a run among the objects makes no sense")]
    Unknown {
        #[source]
        source: serde_json::Error,
    },
    #[error("the description of run {run} among the objects is of version {version}, a newer one")]
    Newer { run: RunId, version: u32 },
    #[error("the description of run {run} names `{name}`, which is no file of a bundle")]
    Name { run: RunId, name: String },
}

/// Returns the files of a run's bundle: as they were kept, if it has ended, which is done now if it
/// was not yet; else made from the store.
pub(crate) async fn files(
    store: &dyn Store,
    objects: Option<&Objects>,
    run: StoredRun,
) -> Result<Vec<BundleFile>, BundleError> {
    let Some(objects) = objects.filter(|_| run.ended_unix_ns.is_some()) else {
        return bundle::files(store, run).await;
    };
    let id = run.id;
    match kept(objects, id).await {
        Ok(Some(files)) => return Ok(files),
        Ok(None) => {}
        Err(error) => warn!(
            error = &error as &dyn std::error::Error,
            run = %id,
            "the kept bundle cannot be had; it is made anew"
        ),
    }
    let files = bundle::files(store, run).await?;
    if let Err(error) = keep(objects, id, &files).await {
        warn!(
            error = &error as &dyn std::error::Error,
            run = %id,
            "the bundle is not kept among the objects"
        );
    }
    Ok(files)
}

/// Keeps the bundle of every run that ends from now on. What ended while no coordinator ran is kept
/// when it is asked for.
pub(crate) async fn keep_ended(store: Arc<dyn Store>, objects: Objects) {
    let mut open = BTreeSet::new();
    loop {
        match store.open_runs().await {
            Ok(runs) => {
                let now: BTreeSet<RunId> = runs.into_iter().map(|run| run.id).collect();
                for ended in open.difference(&now) {
                    keep_run(&*store, &objects, *ended).await;
                }
                open = now;
            }
            Err(error) => warn!(
                error = &error as &dyn std::error::Error,
                "cannot tell which runs have ended"
            ),
        }
        tokio::time::sleep(PERIOD).await;
    }
}

async fn keep_run(store: &dyn Store, objects: &Objects, run: RunId) {
    match store.run(run).await {
        Ok(Some(stored)) => match files(store, Some(objects), stored).await {
            Ok(_) => info!(%run, "the bundle is among the objects"),
            Err(error) => warn!(
                error = &error as &dyn std::error::Error,
                %run,
                "the bundle cannot be made"
            ),
        },
        Ok(None) => {}
        Err(error) => warn!(
            error = &error as &dyn std::error::Error,
            %run,
            "the run cannot be read"
        ),
    }
}

/// Puts a bundle's files among the objects, and then what names them.
async fn keep(objects: &Objects, run: RunId, files: &[BundleFile]) -> Result<(), ArchiveError> {
    let mut kept = Kept {
        version: VERSION,
        run,
        files: Vec::with_capacity(files.len()),
    };
    for BundleFile { name, bytes } in files {
        kept.files.push(KeptFile {
            name: (*name).to_owned(),
            hash: objects.put(Bytes::copy_from_slice(bytes)).await?,
            size_bytes: bytes.len() as u64,
        });
    }
    let mut text = serde_json::to_vec_pretty(&kept)
        .map_err(|source| ArchiveError::Description { run, source })?;
    text.push(b'\n');
    Ok(objects.put_run_text(run, text).await?)
}

/// Returns the objects that are files of bundles.
///
/// # Errors
/// Besides those of the place for objects: a description cannot be read, or is a newer coordinator's,
/// so that it cannot be told what belongs to it.
pub(crate) async fn all_kept(objects: &Objects) -> Result<BTreeSet<ContentHash>, ArchiveError> {
    let mut all = BTreeSet::new();
    for text in objects.run_texts().await? {
        let kept: Kept =
            serde_json::from_slice(&text).map_err(|source| ArchiveError::Unknown { source })?;
        if kept.version > VERSION {
            return Err(ArchiveError::Newer {
                run: kept.run,
                version: kept.version,
            });
        }
        all.extend(kept.files.into_iter().map(|file| file.hash));
    }
    Ok(all)
}

/// Returns a bundle's files as they were kept.
async fn kept(objects: &Objects, run: RunId) -> Result<Option<Vec<BundleFile>>, ArchiveError> {
    let Some(text) = objects.run_text(run).await? else {
        return Ok(None);
    };
    let kept: Kept = serde_json::from_slice(&text)
        .map_err(|source| ArchiveError::Description { run, source })?;
    if kept.version > VERSION {
        // A newer coordinator's: it may hold more than this one knows of.
        return Ok(None);
    }
    let mut files = Vec::with_capacity(kept.files.len());
    for KeptFile { name, hash, .. } in kept.files {
        let known = FILES.iter().find(|known| **known == name);
        let name = *known.ok_or(ArchiveError::Name { run, name })?;
        let bytes = objects.read(hash).await?.into();
        files.push(BundleFile { name, bytes });
    }
    Ok(Some(files))
}
