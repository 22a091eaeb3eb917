//! Read-only maps of model files: the one place outside the kernels with unsafe code.
//!
//! A mapped file must not be changed or shortened while a model made from it lives: the weights
//! are read straight from the file, a change would change them, and reading past a new, earlier
//! end stops the process with SIGBUS. Replace a model by renaming a new file over it, as
//! [`synth`](crate::synth) does; the map keeps the old one.
#![expect(
    unsafe_code,
    reason = "a file map is unsafe because other programs may change the file"
)]

use std::{fs::File, io, path::Path, sync::Arc};

use memmap2::{Mmap, UncheckedAdvice};

/// Maps a whole regular file for reading. The file must not change while the map lives.
///
/// Folders, pipes and devices are refused before they are opened: opening a pipe would wait for
/// its other end.
pub fn map(path: &Path) -> io::Result<Arc<Mmap>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    let file = File::open(path)?;
    // SAFETY: the map is read-only, and that the file does not change meanwhile is asked of the
    // user in this module's and the loader's documentation; every reader takes plain bytes for
    // which each value is valid.
    let map = unsafe { Mmap::map(&file) }?;
    Ok(Arc::new(map))
}

/// Lets the system take back the pages of a part of a map. They are read from the file again when
/// they are touched.
///
/// # Panics
/// If the part is not within the map.
pub(crate) fn release(map: &Mmap, offset: usize, len: usize) {
    assert!(offset <= map.len() && len <= map.len() - offset);
    // SAFETY: the map is of a file and read-only, so that dropped pages come back with the same
    // bytes; the range was checked.
    let released = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, offset, len) };
    // A system that cannot do it keeps them, which costs memory only.
    let _: io::Result<()> = released;
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_is_mapped_whole_and_a_folder_is_refused() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"trits").unwrap();
        file.flush().unwrap();
        assert_eq!(&map(file.path()).unwrap()[..], b"trits");

        let folder = tempfile::tempdir().unwrap();
        let error = map(folder.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn released_pages_come_back() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = (0..100_000_u32).map(|i| (i / 7) as u8).collect();
        file.write_all(&bytes).unwrap();
        file.flush().unwrap();
        let map = map(file.path()).unwrap();
        assert_eq!(map[..], bytes[..]);
        release(&map, 5_000, 90_000);
        assert_eq!(map[..], bytes[..]);
    }

    #[test]
    fn an_empty_file_is_an_empty_map() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(map(file.path()).unwrap().is_empty());
    }
}
