//! A file that appears whole or not at all.

use std::{
    fs::{self, File},
    io,
    path::Path,
    process,
};

/// Writes a file under a temporary name beside it, `NAME.PID.partial`, and renames it when `write`
/// is done and its bytes are on the disk.
///
/// After a failure neither is there; a file that had the name before is then as it was.
pub(crate) fn write_whole<T, E: From<io::Error>>(
    path: &Path,
    write: impl FnOnce(&File) -> Result<T, E>,
) -> Result<T, E> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.partial", process::id()));
    let temporary = path.with_file_name(name);
    let written = try_write(&temporary, path, write);
    if written.is_err() {
        // Nothing more can be done if this fails too.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn try_write<T, E: From<io::Error>>(
    temporary: &Path,
    path: &Path,
    write: impl FnOnce(&File) -> Result<T, E>,
) -> Result<T, E> {
    let file = File::create_new(temporary)?;
    let value = write(&file)?;
    file.sync_all()?;
    fs::rename(temporary, path)?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    fn fails(mut file: &File) -> io::Result<()> {
        file.write_all(b"half")?;
        Err(io::Error::other("the disk is full"))
    }

    #[test]
    fn what_is_written_is_all_that_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        let written: io::Result<usize> = write_whole(&path, |mut file| {
            let temporary = format!("m.gguf.{}.partial", process::id());
            assert_eq!(names(folder.path()), [temporary]);
            file.write(b"all")
        });
        assert_eq!(written.unwrap(), 3);
        assert_eq!(names(folder.path()), ["m.gguf"]);
        assert_eq!(fs::read(&path).unwrap(), b"all");
    }

    #[test]
    fn a_failure_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let error = write_whole(&folder.path().join("m.gguf"), fails).unwrap_err();
        assert_eq!(error.to_string(), "the disk is full");
        assert_eq!(names(folder.path()), [""; 0]);
        // A folder stands where the file is to be.
        let taken = folder.path().join("taken");
        fs::create_dir(&taken).unwrap();
        write_whole(&taken, |mut file| file.write_all(b"all")).unwrap_err();
        assert_eq!(names(folder.path()), ["taken"]);
    }

    #[test]
    fn a_failure_leaves_a_file_that_was_there_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        fs::write(&path, "old").unwrap();
        write_whole(&path, fails).unwrap_err();
        assert_eq!(names(folder.path()), ["m.gguf"]);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        write_whole(&path, |mut file| file.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }
}
