//! The output folder of `tritmark run`.
//!
//! ```text
//! out/<plan>/report.html summary.csv summary.md samples.parquet charts/   of the newest run
//!            bundle/       its raw values
//!            earlier/<run> the same files of the runs before it
//!            state/        store.sqlite (every value of every run), agent/, lock, reported
//! ```
//!
//! The store is never replaced. Everything else can be made again from it.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use tritmark_proto::{
    bundle::{MANIFEST, Manifest},
    job::RunId,
};

use crate::exit::{Exit, Fault, OrExit as _, Outcome};

/// What a report consists of beside its bundle, which is moved last.
const REPORT_FILES: [&str; 6] = [
    "report.html",
    "summary.csv",
    "summary.md",
    "samples.parquet",
    "agreement.csv",
    "charts",
];

/// An output folder, held by this process alone.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    _lock: File,
}

impl Folder {
    /// Opens the folder at `root`, which is made where it is missing.
    pub(super) fn open(root: &Path) -> Outcome<Self> {
        let state = root.join("state");
        fs::create_dir_all(&state)
            .or_exit(Exit::Usage, || format!("cannot make {}", state.display()))?;
        let root = fs::canonicalize(root)
            .or_exit(Exit::Usage, || format!("cannot open {}", root.display()))?;
        let path = root.join("state/lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .or_exit(Exit::Usage, || format!("cannot open {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { root, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Fault::temporary(format!(
                "another tritmark is at work in {}",
                root.display()
            ))),
            Err(TryLockError::Error(error)) => {
                Err(error).or_exit(Exit::Internal, || format!("cannot lock {}", path.display()))
            }
        }
    }

    /// The folder itself.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The bundle of the newest run that has ended.
    pub(super) fn bundle(&self) -> PathBuf {
        self.root.join("bundle")
    }

    /// The store of all runs.
    pub(super) fn store(&self) -> PathBuf {
        self.root.join("state/store.sqlite")
    }

    /// The agent's folder.
    pub(super) fn agent(&self) -> PathBuf {
        self.root.join("state/agent")
    }

    /// Returns the id of the run whose report lies here.
    pub(super) fn reported_run(&self) -> Outcome<Option<String>> {
        let path = self.root.join("state/reported");
        match fs::read_to_string(&path) {
            Ok(text) if self.root.join("report.html").is_file() => Ok(Some(text.trim().to_owned())),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                Err(error).or_exit(Exit::Internal, || format!("cannot read {}", path.display()))
            }
        }
    }

    /// Notes that the report of `run` is whole.
    pub(super) fn mark_reported(&self, run: RunId) -> Outcome<()> {
        let path = self.root.join("state/reported");
        let new = self.root.join("state/reported.new");
        fs::write(&new, format!("{run}\n"))
            .and_then(|()| fs::rename(&new, &path))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(())
    }

    /// Returns an empty folder for a bundle to come.
    pub(super) fn make_room_for_bundle(&self) -> Outcome<PathBuf> {
        let incoming = self.root.join("bundle.new");
        remove(&incoming)?;
        Ok(incoming)
    }

    /// Puts the bundle that has come in its place; an earlier run's files go to `earlier/`.
    ///
    /// Whenever this is cut short, doing it again ends in the same state.
    pub(super) fn take_bundle(&self, run: RunId) -> Outcome<()> {
        let bundle = self.bundle();
        if bundle.exists() {
            match manifest_run(&bundle) {
                Some(earlier) if earlier != run => self.set_aside(earlier)?,
                _ => remove(&bundle)?,
            }
        }
        let incoming = self.root.join("bundle.new");
        fs::rename(&incoming, &bundle)
            .with_context(|| format!("cannot move {}", incoming.display()))?;
        Ok(())
    }

    fn set_aside(&self, earlier: RunId) -> Outcome<()> {
        let aside = self.root.join("earlier").join(earlier.to_string());
        fs::create_dir_all(&aside).with_context(|| format!("cannot make {}", aside.display()))?;
        for name in REPORT_FILES.into_iter().chain(["bundle"]) {
            let from = self.root.join(name);
            if from.exists() {
                let to = aside.join(name);
                remove(&to)?;
                fs::rename(&from, &to)
                    .with_context(|| format!("cannot move {}", from.display()))?;
            }
        }
        Ok(())
    }
}

/// Returns the run a bundle is of; `None` where its manifest cannot be read.
fn manifest_run(bundle: &Path) -> Option<RunId> {
    let text = fs::read(bundle.join(MANIFEST)).ok()?;
    let manifest: Manifest = serde_json::from_slice(&text).ok()?;
    Some(manifest.run.id)
}

fn remove(path: &Path) -> Outcome<()> {
    let removed = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))?
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(run: RunId) -> String {
        serde_json::json!({
            "format_version": 1,
            "run": {
                "id": run, "name": "p", "plan_toml": "",
                "submitted_at": "2026-01-01T00:00:00Z", "ended_at": null,
                "tritmark_version": "0.1.0",
            },
            "machines": [],
            "jobs": [],
        })
        .to_string()
    }

    fn bundle_comes(folder: &Folder, run: RunId) {
        let incoming = folder.make_room_for_bundle().unwrap();
        fs::create_dir(&incoming).unwrap();
        fs::write(incoming.join(MANIFEST), manifest(run)).unwrap();
        folder.take_bundle(run).unwrap();
        fs::write(folder.root().join("report.html"), run.to_string()).unwrap();
        folder.mark_reported(run).unwrap();
    }

    #[test]
    fn a_second_process_is_told_to_wait() {
        let dir = tempfile::tempdir().unwrap();
        let first = Folder::open(dir.path()).unwrap();
        let fault = Folder::open(dir.path()).expect_err("it is held");
        assert_eq!(fault.exit, Exit::Temporary);
        drop(first);
        assert!(Folder::open(dir.path()).is_ok());
    }

    #[test]
    fn an_earlier_run_is_moved_aside_and_the_same_run_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let (first, second) = (RunId::generate(), RunId::generate());
        bundle_comes(&folder, first);
        bundle_comes(&folder, second);
        bundle_comes(&folder, second);
        let aside = folder.root().join("earlier").join(first.to_string());
        assert_eq!(manifest_run(&aside.join("bundle")), Some(first));
        assert_eq!(
            fs::read_to_string(aside.join("report.html")).unwrap(),
            first.to_string()
        );
        assert_eq!(manifest_run(&folder.bundle()), Some(second));
        assert_eq!(folder.reported_run().unwrap(), Some(second.to_string()));
        let earlier = fs::read_dir(folder.root().join("earlier")).unwrap().count();
        assert_eq!(earlier, 1);
    }

    #[test]
    fn a_report_counts_only_with_its_page() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        assert_eq!(folder.reported_run().unwrap(), None);
        folder.mark_reported(RunId::generate()).unwrap();
        assert_eq!(folder.reported_run().unwrap(), None);
    }
}
