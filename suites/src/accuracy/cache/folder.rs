//! A folder of small files of bounded size, the longest unused of which go first.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    process,
    time::{Duration, SystemTime},
};

/// What a file system takes for the smallest file.
const BLOCK_BYTES: u64 = 4096;

/// Ending of a file that is being written.
const PARTIAL: &str = "partial";

/// After this long nobody is still writing a file of some kilobytes.
const ABANDONED: Duration = Duration::from_mins(10);

/// The folder. Names are hexadecimal; the first two digits are a folder of their own.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    max_bytes: u64,
    /// As far as this process knows: others may write too.
    used_bytes: u64,
}

/// A file as it was found.
struct Found {
    path: PathBuf,
    used_at: SystemTime,
    bytes: u64,
}

impl Folder {
    pub(super) fn open(root: &Path, max_bytes: u64) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        let mut folder = Self {
            root: root.to_owned(),
            max_bytes,
            used_bytes: 0,
        };
        folder.make_room(max_bytes)?;
        Ok(folder)
    }

    /// Returns where a file lies.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(&name[..2]).join(&name[2..])
    }

    /// Reads a file; `None` where there is none.
    pub(super) fn read(&self, name: &str, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(self.path(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(max_bytes + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > max_bytes {
            return Err(io::Error::other(format!("has more than {max_bytes} bytes")));
        }
        Ok(Some(bytes))
    }

    /// Takes note that a file was used. Where that cannot be written down, it only goes earlier.
    pub(super) fn touch(&self, name: &str) {
        let _ = File::open(self.path(name)).and_then(|file| file.set_modified(SystemTime::now()));
    }

    /// Removes a file. Where it stays, it is found damaged again.
    pub(super) fn remove(&self, name: &str) {
        let _ = fs::remove_file(self.path(name));
    }

    /// Writes a file that is there as a whole or not at all. After a failure of power it may hold
    /// anything, which its checksum tells: waiting for the disk at every item would take longer than
    /// many an item.
    pub(super) fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let size = on_disk(bytes.len() as u64);
        if size > self.max_bytes {
            return Ok(());
        }
        if self.used_bytes + size > self.max_bytes {
            // Not one by one, as each time the whole folder is looked through.
            self.make_room((self.max_bytes - size).min(self.max_bytes / 10 * 9))?;
        }
        let path = self.path(name);
        let folder = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder)?;
        let partial = path.with_extension(format!("{}.{PARTIAL}", process::id()));
        let written = fs::write(&partial, bytes).and_then(|()| fs::rename(&partial, &path));
        if written.is_err() {
            let _ = fs::remove_file(&partial);
        }
        written?;
        self.used_bytes += size;
        Ok(())
    }

    /// Removes the longest unused files until the rest takes at most so many bytes, and what killed
    /// processes left. What another process has just removed is gone all the same.
    fn make_room(&mut self, bytes: u64) -> io::Result<()> {
        let mut files = self.files()?;
        files.sort_by_key(|found| found.used_at);
        let mut used = files.iter().map(|found| found.bytes).sum::<u64>();
        for found in files {
            if used <= bytes {
                break;
            }
            match fs::remove_file(&found.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => used -= found.bytes,
            }
        }
        self.used_bytes = used;
        Ok(())
    }

    fn files(&self) -> io::Result<Vec<Found>> {
        let mut files = Vec::new();
        for folder in fs::read_dir(&self.root)? {
            let folder = folder?;
            if !folder.file_type()?.is_dir() {
                continue;
            }
            for entry in fs::read_dir(folder.path())? {
                let entry = entry?;
                let (path, data) = match entry.metadata() {
                    Ok(data) => (entry.path(), data),
                    // Removed meanwhile.
                    Err(_) => continue,
                };
                let used_at = data.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                if path.extension().is_some_and(|ending| ending == PARTIAL) {
                    let age = used_at.elapsed().unwrap_or_default();
                    if age > ABANDONED {
                        let _ = fs::remove_file(&path);
                    }
                    continue;
                }
                files.push(Found {
                    path,
                    used_at,
                    bytes: on_disk(data.len()),
                });
            }
        }
        Ok(files)
    }
}

fn on_disk(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_BYTES).max(1) * BLOCK_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 4] = ["aa01", "aa02", "bb03", "cc04"];

    fn is_there(folder: &Folder) -> Vec<&'static str> {
        let mut names = NAMES.to_vec();
        names.retain(|name| folder.read(name, 10).unwrap().is_some());
        names
    }

    #[test]
    fn the_longest_unused_files_go_first() {
        let root = tempfile::tempdir().unwrap();
        let mut folder = Folder::open(root.path(), 3 * BLOCK_BYTES).unwrap();
        let start = SystemTime::now() - Duration::from_secs(1000);
        for (age, name) in NAMES[..3].iter().enumerate() {
            folder.write(name, name.as_bytes()).unwrap();
            let file = File::open(folder.path(name)).unwrap();
            file.set_modified(start + Duration::from_secs(age as u64))
                .unwrap();
        }
        assert_eq!(is_there(&folder), NAMES[..3]);
        // The oldest is used, so that the second is the longest unused.
        folder.touch(NAMES[0]);
        folder.write(NAMES[3], b"x").unwrap();
        assert_eq!(is_there(&folder), [NAMES[0], NAMES[2], NAMES[3]]);
        assert!(folder.used_bytes <= folder.max_bytes);
        // A smaller bound is kept at once.
        let folder = Folder::open(root.path(), BLOCK_BYTES).unwrap();
        assert_eq!(is_there(&folder).len(), 1);
        assert_eq!(folder.used_bytes, BLOCK_BYTES);
    }

    #[test]
    fn a_file_larger_than_the_folder_is_not_kept() {
        let root = tempfile::tempdir().unwrap();
        let mut folder = Folder::open(root.path(), BLOCK_BYTES).unwrap();
        folder.write(NAMES[0], b"small").unwrap();
        folder.write(NAMES[1], &[0; 5000]).unwrap();
        assert_eq!(is_there(&folder), [NAMES[0]]);
    }

    #[test]
    fn what_a_killed_process_left_is_no_entry_and_goes_in_time() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("aa")).unwrap();
        let [old, new] =
            ["01.7.partial", "02.8.partial"].map(|name| root.path().join("aa").join(name));
        for path in [&old, &new] {
            fs::write(path, b"half of an ent").unwrap();
        }
        let file = File::open(&old).unwrap();
        file.set_modified(SystemTime::now() - 2 * ABANDONED)
            .unwrap();
        let folder = Folder::open(root.path(), 10 * BLOCK_BYTES).unwrap();
        assert_eq!((old.exists(), new.exists()), (false, true));
        assert!(is_there(&folder).is_empty());
        assert_eq!(folder.used_bytes, 0);
    }

    #[test]
    fn two_processes_may_write_and_remove_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4_u32 {
                let root = root.path();
                scope.spawn(move || {
                    let mut folder = Folder::open(root, 5 * BLOCK_BYTES).unwrap();
                    for i in 0..50_u32 {
                        let name = format!("{:02x}{thread:02x}", i % 7);
                        folder.write(&name, name.as_bytes()).unwrap();
                        if let Some(read) = folder.read(&name, 10).unwrap() {
                            assert_eq!(read, name.as_bytes());
                        }
                    }
                });
            }
        });
        let folder = Folder::open(root.path(), 5 * BLOCK_BYTES).unwrap();
        assert!(folder.used_bytes <= 5 * BLOCK_BYTES);
    }
}
