//! Files that no run has named for long are taken away.
//!
//! What an open run names stays, as does what a run names that was submitted recently, and every file of
//! a bundle. An object that is written again is new: who sends a file starts its time anew.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tracing::{info, warn};
use tritmark_proto::artefact::{ContentHash, FileSet};

use super::Shelf;
use crate::{
    archive::{self, ArchiveError},
    objects::ObjectsError,
    run::now_unix_ns,
    store::{Store, StoreError},
};

#[cfg(test)]
mod tests;

/// How often it is looked for what may go.
const PERIOD: Duration = Duration::from_hours(6);

/// Wait before it is tried again beside somebody who is submitting a plan.
const AGAIN: Duration = Duration::from_mins(1);

/// Why it cannot be told what may go.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CollectError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Objects(#[from] ObjectsError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

/// Takes files away, again and again, that no run has named for so long.
pub(crate) async fn collect(store: Arc<dyn Store>, shelf: Arc<Shelf>, keep: Duration) {
    loop {
        let wait = match pass(&*store, &shelf, keep).await {
            Ok(Some(n_removed)) => {
                if n_removed > 0 {
                    info!(n_removed, "files that no run has named for long are gone");
                }
                PERIOD
            }
            Ok(None) => AGAIN,
            Err(error) => {
                // Nothing is taken away that somebody may need.
                warn!(
                    error = &error as &dyn std::error::Error,
                    "it cannot be told which files may go"
                );
                PERIOD
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// Takes away what may go now. Returns the number of files; `None` if a plan is being submitted, which
/// may name any of them.
///
/// Another coordinator over the same objects may take a plan between this one's look at the store and the
/// removal: a job that then finds its file missing fails, and says so, until it is sent again.
async fn pass(
    store: &dyn Store,
    shelf: &Shelf,
    keep: Duration,
) -> Result<Option<usize>, CollectError> {
    let keep_ns = i64::try_from(keep.as_nanos()).unwrap_or(i64::MAX);
    let since_unix_ns = now_unix_ns().saturating_sub(keep_ns);
    let objects = &shelf.objects;
    let old = objects
        .written_before(since_unix_ns.div_euclid(1_000_000_000))
        .await?;
    // The usual case costs one listing.
    if old.is_empty() {
        return Ok(Some(0));
    }
    let Ok(_alone) = shelf.naming.try_write() else {
        return Ok(None);
    };
    let mut needed = archive::all_kept(objects).await?;
    needed.extend(named(store, since_unix_ns).await?);
    let mut n_removed = 0;
    for hash in old {
        if !needed.contains(&hash) {
            objects.remove(hash).await?;
            n_removed += 1;
        }
    }
    Ok(Some(n_removed))
}

/// Returns the files that runs name which are open or were submitted since then.
async fn named(store: &dyn Store, since_unix_ns: i64) -> Result<BTreeSet<ContentHash>, StoreError> {
    let mut named = BTreeSet::new();
    for run in store.runs().await? {
        if run.ended_unix_ns.is_some() && run.submitted_unix_ns < since_unix_ns {
            continue;
        }
        for job in store.jobs(run.id).await? {
            let files = job.job.file_sets().flat_map(FileSet::files);
            named.extend(files.map(|file| file.hash));
        }
    }
    Ok(named)
}
