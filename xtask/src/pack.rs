//! Archives that depend on their contents alone.

use std::io::{self, Write as _};

use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

/// A file of an archive.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Path below the archive's folder.
    pub(crate) name: String,
    pub(crate) contents: Vec<u8>,
    pub(crate) is_program: bool,
}

/// Packs files into one folder of a `tar.gz`: sorted, nobody's, all of one time.
pub(crate) fn archive(
    folder: &str,
    mut entries: Vec<Entry>,
    made_at_unix_s: u64,
) -> io::Result<Vec<u8>> {
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    // Neither a name nor a time in the head, and no word of the system.
    let gz = GzBuilder::new()
        .mtime(0)
        .operating_system(255)
        .write(Vec::new(), Compression::best());
    let mut tar = Builder::new(gz);
    for Entry {
        name,
        contents,
        is_program,
    } in &entries
    {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(if *is_program { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(made_at_unix_s);
        header.set_size(contents.len() as u64);
        tar.append_data(&mut header, format!("{folder}/{name}"), &contents[..])?;
    }
    let mut gz = tar.into_inner()?;
    gz.flush()?;
    gz.finish()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;

    fn entries() -> Vec<Entry> {
        [
            ("tritmark", true),
            ("README.md", false),
            ("systemd/a.service", false),
        ]
        .map(|(name, is_program)| Entry {
            name: name.to_owned(),
            contents: name.repeat(100).into_bytes(),
            is_program,
        })
        .to_vec()
    }

    #[test]
    fn an_archive_holds_what_went_in() {
        let packed = archive("t-1", entries(), 1_700_000_000).unwrap();
        let mut tar = tar::Archive::new(GzDecoder::new(&packed[..]));
        let mut found = Vec::new();
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            let header = entry.header();
            assert_eq!(header.mtime().unwrap(), 1_700_000_000);
            assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
            found.push((name, header.mode().unwrap(), text.len()));
        }
        assert_eq!(
            found,
            [
                ("t-1/README.md".to_owned(), 0o644, 900),
                ("t-1/systemd/a.service".to_owned(), 0o644, 1700),
                ("t-1/tritmark".to_owned(), 0o755, 800),
            ]
        );
    }

    #[test]
    fn equal_contents_give_equal_archives_in_whatever_order_they_come() {
        let one = archive("t-1", entries(), 7).unwrap();
        let mut others = entries();
        others.reverse();
        assert!(one == archive("t-1", others, 7).unwrap());
        let mut changed = entries();
        changed[0].contents[0] ^= 1;
        assert!(one != archive("t-1", changed, 7).unwrap());
    }
}
