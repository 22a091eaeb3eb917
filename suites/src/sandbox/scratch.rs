//! The folder of one run: made private, measured while a program writes to it, and removed whatever
//! the program left there.

use std::{
    ffi::CStr,
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::DirBuilderExt as _,
    },
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, chmodat, openat, renameat, statat, unlinkat},
    io::Errno,
};

/// Folders within folders that a program may make where nothing else bounds them.
const MAX_DEPTH: u32 = 64;
/// Files and folders that a program may make where nothing else bounds them.
const MAX_ENTRIES: u64 = 16384;

/// A folder that goes with its owner.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes a new folder that no other user can enter.
    pub(super) fn new(parent: &Path) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("tritmark-sandbox-{}-{count}", process::id()));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self { path }),
                // Of a process that was killed and had the same id.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it and says so if it cannot.
    pub(super) fn remove(self) -> io::Result<()> {
        remove(&self.path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // After `remove` there is nothing left; on the way out of an error, the error counts.
        let _ = remove(&self.path);
    }
}

fn open_dir(at: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

/// Removes a folder and all in it, be it locked or deeper than a path can name.
///
/// Folders within it are moved up to its top first, so that one descriptor and no recursion is
/// enough. Nothing may write to it any more.
fn remove(path: &Path) -> io::Result<()> {
    let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
    match open_unlocked(CWD, &name) {
        Ok(top) => {
            let mut moved = 0_u64;
            empty(top.as_fd(), top.as_fd(), &mut moved)?;
            let mut next = 0;
            while next < moved {
                let name = std::ffi::CString::new(moved_name(next))?;
                let folder = open_unlocked(top.as_fd(), &name)?;
                empty(folder.as_fd(), top.as_fd(), &mut moved)?;
                unlinkat(&top, &*name, AtFlags::REMOVEDIR)?;
                next += 1;
            }
        }
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    fs::remove_dir(path)
}

fn moved_name(n: u64) -> String {
    // No entry of the top has this form, as the harness made all of them.
    format!(".removed-{n}")
}

fn open_unlocked(at: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    match open_dir(at, name) {
        Err(Errno::ACCESS) => {
            chmodat(at, name, Mode::RWXU, AtFlags::empty())?;
            open_dir(at, name)
        }
        other => other,
    }
}

/// Removes the files of a folder and moves the folders in it to the top.
fn empty(folder: BorrowedFd<'_>, top: BorrowedFd<'_>, moved: &mut u64) -> io::Result<()> {
    rustix::fs::fchmod(folder, Mode::RWXU)?;
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let kind =
            FileType::from_raw_mode(statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode);
        if kind != FileType::Directory {
            unlinkat(folder, name, AtFlags::empty())?;
            continue;
        }
        if name.to_bytes().starts_with(b".removed-") && same(folder, top)? {
            continue;
        }
        // A folder that cannot be written cannot change its parent.
        chmodat(folder, name, Mode::RWXU, AtFlags::empty())?;
        renameat(folder, name, top, moved_name(*moved))?;
        *moved += 1;
    }
    Ok(())
}

fn same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<bool> {
    let (one, other) = (rustix::fs::fstat(one)?, rustix::fs::fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

/// Tells whether a folder holds more than so many bytes, or more than can be looked through.
pub(super) fn exceeds(path: &Path, max_bytes: u64) -> bool {
    let Ok(name) = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()) else {
        return true;
    };
    match open_dir(CWD, &name) {
        Ok(folder) => {
            let mut left = (max_bytes, MAX_ENTRIES);
            !fits(folder.as_fd(), &mut left, MAX_DEPTH)
        }
        // The program may have removed it.
        Err(error) => error != Errno::NOENT,
    }
}

fn fits(folder: BorrowedFd<'_>, left: &mut (u64, u64), depth: u32) -> bool {
    let Ok(entries) = Dir::read_from(folder) else {
        return false;
    };
    for entry in entries {
        let Ok(entry) = entry else { return false };
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(_) => return false,
        };
        let bytes = u64::try_from(stat.st_blocks)
            .unwrap_or(0)
            .saturating_mul(512);
        let (Some(bytes_left), Some(entries_left)) =
            (left.0.checked_sub(bytes), left.1.checked_sub(1))
        else {
            return false;
        };
        *left = (bytes_left, entries_left);
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let opened = match open_dir(folder, name) {
                Ok(opened) => opened,
                Err(Errno::NOENT) => continue,
                // What it hides cannot be measured.
                Err(_) => return false,
            };
            if depth == 0 || !fits(opened.as_fd(), left, depth - 1) {
                return false;
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn whatever_lies_in_a_folder_is_removed_with_it() {
        let parent = tempfile::tempdir().unwrap();
        let kept = parent.path().join("kept");
        fs::write(&kept, "kept").unwrap();
        let folder = Folder::new(parent.path()).unwrap();
        let inside = folder.path().join("scratch");
        fs::create_dir_all(inside.join("a/.removed-0/b")).unwrap();
        fs::write(inside.join("a/.removed-0/b/file"), "x").unwrap();
        symlink(&kept, inside.join("a/link")).unwrap();
        symlink(parent.path(), inside.join("a/up")).unwrap();
        for locked in ["a/.removed-0/b", "a"] {
            fs::set_permissions(inside.join(locked), fs::Permissions::from_mode(0o000)).unwrap();
        }
        let path = folder.path().to_owned();
        folder.remove().unwrap();
        assert!(!path.exists());
        assert_eq!(fs::read_to_string(kept).unwrap(), "kept");
    }

    #[test]
    fn a_folder_deeper_than_any_path_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::new(parent.path()).unwrap();
        let mut at = rustix::fs::open(
            folder.path(),
            OFlags::RDONLY | OFlags::DIRECTORY,
            Mode::empty(),
        )
        .unwrap();
        let name = c"a-name-of-some-length-so-that-paths-get-long-soon";
        for _ in 0..300 {
            rustix::fs::mkdirat(&at, name, Mode::RWXU).unwrap();
            at = open_dir(at.as_fd(), name).unwrap();
        }
        drop(at);
        assert!(exceeds(folder.path(), u64::MAX));
        let path = folder.path().to_owned();
        folder.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn what_a_folder_holds_is_added_up() {
        let parent = tempfile::tempdir().unwrap();
        fs::create_dir(parent.path().join("a")).unwrap();
        fs::write(parent.path().join("a/file"), vec![1; 100_000]).unwrap();
        assert!(!exceeds(parent.path(), 1 << 20));
        assert!(exceeds(parent.path(), 50_000));
        assert!(!exceeds(&parent.path().join("none"), 0));
    }
}
