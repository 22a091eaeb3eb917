//! The kernel's files, or a test's.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A place with the kernel's `sys` and `proc` files. Paths are relative to its root.
pub trait Tree: Sync {
    /// Returns a file's text.
    fn read(&self, path: &Path) -> io::Result<String>;

    /// Returns the names in a folder, sorted.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
}

/// The files under a folder, `/` outside tests.
#[derive(Clone, Debug)]
pub struct SystemTree {
    /// The folder.
    pub root: PathBuf,
}

impl Tree for SystemTree {
    fn read(&self, path: &Path) -> io::Result<String> {
        fs::read_to_string(self.root.join(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names: Vec<String> = fs::read_dir(self.root.join(path))?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<_>>()?;
        names.sort_unstable();
        Ok(names)
    }
}

#[cfg(test)]
pub(crate) mod fake {
    //! Files that change, vanish and refuse to be read.

    use std::{
        collections::BTreeMap,
        sync::{
            Mutex,
            atomic::{AtomicU64, Ordering},
        },
    };

    use super::{Path, Tree, io};

    /// What a fake file does when it is read.
    #[derive(Clone, Debug)]
    pub(crate) enum FakeFile {
        /// Always the same.
        Text(String),
        /// One value after the other; the last one stays.
        Values(Vec<u64>),
        /// Starts at a value, grows at every read and wraps.
        Counter { value: u64, step: u64, range: u64 },
        /// Cannot be read.
        Error(io::ErrorKind),
    }

    #[derive(Default)]
    pub(crate) struct FakeTree {
        files: Mutex<BTreeMap<String, FakeFile>>,
        reads: AtomicU64,
    }

    impl FakeTree {
        pub(crate) fn with(self, path: &str, file: FakeFile) -> Self {
            self.set(path, file);
            self
        }

        pub(crate) fn set(&self, path: &str, file: FakeFile) {
            self.files.lock().unwrap().insert(path.to_owned(), file);
        }

        pub(crate) fn remove(&self, path: &str) {
            self.files.lock().unwrap().remove(path);
        }

        pub(crate) fn reads(&self) -> u64 {
            self.reads.load(Ordering::Relaxed)
        }

        /// Adds a powercap zone with a counter.
        pub(crate) fn zone(self, zone: &str, name: &str, energy: FakeFile) -> Self {
            let folder = format!("sys/class/powercap/{zone}");
            self.with(
                &format!("{folder}/name"),
                FakeFile::Text(format!("{name}\n")),
            )
            .with(&format!("{folder}/energy_uj"), energy)
            .with(
                &format!("{folder}/max_energy_range_uj"),
                FakeFile::Text("1000000\n".to_owned()),
            )
        }
    }

    impl Tree for FakeTree {
        fn read(&self, path: &Path) -> io::Result<String> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            let mut files = self.files.lock().unwrap();
            match files.get_mut(path.to_str().unwrap()) {
                None => Err(io::ErrorKind::NotFound.into()),
                Some(FakeFile::Error(kind)) => Err((*kind).into()),
                Some(FakeFile::Text(text)) => Ok(text.clone()),
                Some(FakeFile::Values(values)) => Ok(if values.len() > 1 {
                    values.remove(0).to_string()
                } else {
                    values[0].to_string()
                }),
                Some(FakeFile::Counter { value, step, range }) => {
                    let text = value.to_string();
                    *value = (*value + *step) % *range;
                    Ok(text)
                }
            }
        }

        fn list(&self, path: &Path) -> io::Result<Vec<String>> {
            let folder = format!("{}/", path.to_str().unwrap());
            let files = self.files.lock().unwrap();
            let mut names: Vec<String> = files
                .keys()
                .filter_map(|file| Some(file.strip_prefix(&folder)?.split('/').next()?.to_owned()))
                .collect();
            names.dedup();
            if names.is_empty() {
                return Err(io::ErrorKind::NotFound.into());
            }
            Ok(names)
        }
    }
}
