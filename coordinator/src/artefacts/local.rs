//! Data on this machine, for programs that the coordinator scores.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::mpsc;
use tritmark_proto::{
    artefact::{ContentHash, FileSet},
    bundle::{Failure, FailureClass},
    job::{Job, SuiteSpec},
    machine::Machine,
    record::Item,
};

use super::Shelf;
use crate::{
    objects::{BLOCK_BYTES, ObjectsError},
    scoring::Scorer,
};

/// Gives a scorer the data of jobs whose data are objects.
#[derive(Debug)]
pub(crate) struct ScorerWithData {
    pub(crate) scorer: Arc<dyn Scorer>,
    pub(crate) shelf: Arc<Shelf>,
}

#[tonic::async_trait]
impl Scorer for ScorerWithData {
    fn machine(&self) -> Machine {
        self.scorer.machine()
    }

    async fn check(&self) -> Result<(), String> {
        self.scorer.check().await
    }

    async fn score(
        &self,
        job: &Job,
        items: Vec<Item>,
        scored: mpsc::Sender<Item>,
    ) -> Result<(), Failure> {
        let SuiteSpec::Accuracy(spec) = &job.suite else {
            return self.scorer.score(job, items, scored).await;
        };
        let Some(data) = &spec.data else {
            return self.scorer.score(job, items, scored).await;
        };
        let name = format!("scoring-{}-{}", job.id.run, job.id.index);
        let folder = Folder(self.shelf.staging.folder().join(name));
        let laid_out = self.shelf.lay_out(data, &folder.0).await;
        laid_out.map_err(|message| Failure {
            class: FailureClass::Infrastructure,
            message: format!("the data cannot be had from the objects: {message}"),
            stderr: String::new(),
        })?;
        let mut job = job.clone();
        if let SuiteSpec::Accuracy(spec) = &mut job.suite {
            spec.data = None;
            spec.data_dir.clone_from(&folder.0);
        }
        self.scorer.score(&job, items, scored).await
    }
}

/// A folder that goes when it is dropped.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays is written over by the next scoring of the job.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Shelf {
    /// Writes a set's files below a folder as `<set>/<file>`, each checked by its hash.
    async fn lay_out(&self, set: &FileSet, folder: &Path) -> Result<(), String> {
        let inner = folder.join(set.name().as_str());
        fs::create_dir_all(&inner)
            .map_err(|error| format!("cannot make {}: {error}", inner.display()))?;
        for file in set.files() {
            let path = inner.join(file.name.as_str());
            self.write(file.hash, file.size_bytes, &path)
                .await
                .map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(())
    }

    async fn write(
        &self,
        hash: ContentHash,
        size_bytes: u64,
        path: &Path,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut file = File::create(path)?;
        let mut hasher = blake3::Hasher::new();
        let mut at = 0;
        while at < size_bytes {
            let end = size_bytes.min(at + BLOCK_BYTES);
            let block = self.objects.range(hash, at..end).await?;
            hasher.update(&block);
            file = tokio::task::spawn_blocking(move || {
                file.write_all(&block)?;
                Ok::<_, io::Error>(file)
            })
            .await??;
            at = end;
        }
        if ContentHash::from(hasher.finalize()) != hash {
            return Err(Box::new(ObjectsError::Changed {
                what: path.display().to_string(),
                hash,
            }));
        }
        Ok(())
    }
}
