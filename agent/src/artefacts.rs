//! Models, adapters and data that jobs name by their contents: fetched from the coordinator, kept in a cache.
//!
//! [`Fetcher::prepare`] makes a job one that names files of this machine: what is missing comes over
//! `tritmark.v1.Artefacts` (`fetch`), lies in the cache under its hash (`cache`), and is linked under
//! its name into a folder of the attempt's own, which goes with the job.

use std::{sync::Arc, time::Duration};

use tritmark_proto::{
    artefact::FileSet,
    bundle::Failure,
    job::{Adapter, AttemptId, Job, ModelSource, SuiteSpec},
};
use tritmark_suites::chain;

mod cache;
mod fetch;
mod size;
#[cfg(test)]
mod tests;

pub(crate) use cache::{Cache, InUse};
pub use size::{NoSize, Size};

use cache::CacheError;
use fetch::Source;

use crate::{endpoint::Dialer, worker::infrastructure};

/// Stage of a job's progress while its files come.
pub(crate) const FETCHING: &str = "fetching files";

/// How long it is tried to fetch a file of which no byte comes.
pub(crate) const PATIENCE: Duration = Duration::from_mins(10);

/// Gets jobs their files.
#[derive(Clone, Debug)]
pub(crate) struct Fetcher {
    cache: Arc<Cache>,
    dialer: Arc<Dialer>,
    patience: Duration,
    refuses_paths: bool,
}

impl Fetcher {
    pub(crate) fn new(cache: Cache, dialer: Arc<Dialer>, patience: Duration) -> Self {
        Self {
            cache: Arc::new(cache),
            dialer,
            patience,
            refuses_paths: false,
        }
    }

    /// Refuses jobs that name paths of this machine, where that is wanted.
    #[must_use]
    pub(crate) fn refusing_paths(self, refuses_paths: bool) -> Self {
        Self {
            refuses_paths,
            ..self
        }
    }

    /// Tells whether a job names files that are not in the cache.
    pub(crate) fn lacks_files(&self, job: &Job) -> bool {
        let mut files = job.file_sets().flat_map(FileSet::files);
        files.any(|file| !self.cache.has(file))
    }

    /// Fetches what a job's files lack, and returns the job with paths in place of the files. They
    /// stay where they are as long as the second value lives. A job without files comes back as it is.
    ///
    /// # Errors
    /// Always of the infrastructure: another attempt, another agent or more room may help.
    pub(crate) async fn prepare(
        &self,
        attempt: AttemptId,
        mut job: Job,
        progress: impl Fn(u64, u64),
    ) -> Result<(Job, Option<InUse>), Failure> {
        if self.refuses_paths && names_a_path(&job) {
            let message = "this agent opens only files that the coordinator sent (--only-sent), and \
                           the job names a path";
            return Err(infrastructure(message));
        }
        if job.file_sets().next().is_none() {
            return Ok((job, None));
        }
        let cannot = |error: CacheError| infrastructure(chain(&error));
        let sets_of_job: Vec<FileSet> = job.file_sets().cloned().collect();
        let in_use = self.cache.reserve(attempt, &sets_of_job).map_err(cannot)?;
        let total: u64 = sets_of_job.iter().map(FileSet::size_bytes).sum();
        let mut source = Source::new(&self.dialer, self.patience);
        let mut done = 0;
        for file in sets_of_job.iter().flat_map(FileSet::files) {
            if !self.cache.has(file) {
                let told = |of_file| progress(done + of_file, total);
                let fetched = source.fetch(&self.cache, file, told).await;
                fetched.map_err(|error| {
                    infrastructure(format!("cannot fetch {}: {}", file.name, chain(&error)))
                })?;
            }
            done += file.size_bytes;
            progress(done, total);
        }
        if let ModelSource::Files(files) = &job.model.source {
            let folder = in_use.link("model", files).map_err(cannot)?;
            job.model.source = ModelSource::Path(match files.single() {
                Some(file) => folder.join(file.name.as_str()),
                None => folder,
            });
        }
        if let Some(Adapter::Files(files)) = &job.model.adapter {
            let folder = in_use.link("adapter", files).map_err(cannot)?;
            job.model.adapter = Some(Adapter::Path(folder));
        }
        if let SuiteSpec::Accuracy(spec) = &mut job.suite
            && let Some(files) = spec.data.take()
        {
            let folder = in_use.link("data", &files).map_err(cannot)?;
            // The task looks for a folder of its own in this one.
            spec.data_dir = folder.parent().map(Into::into).unwrap_or_default();
        }
        Ok((job, Some(in_use)))
    }
}

/// Tells whether a job makes a worker open what somebody else has named.
fn names_a_path(job: &Job) -> bool {
    let names_model = matches!(job.model.source, ModelSource::Path(_));
    let names_adapter = matches!(job.model.adapter, Some(Adapter::Path(_)));
    let names_data = matches!(&job.suite, SuiteSpec::Accuracy(spec) if spec.data.is_none());
    names_model || names_adapter || names_data
}
