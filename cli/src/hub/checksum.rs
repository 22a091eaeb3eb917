//! The checksums that the hub tells in a file's `ETag`.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use sha1::{Digest as _, Sha1};
use sha2::Sha256;
use tritmark_proto::identity::to_hex;

/// What the hub says about a file's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// Of large files.
    Sha256(String),
    /// Of other files: SHA-1 of git's object.
    GitBlob(String),
}

impl Expected {
    /// Reads an `ETag`; `None` where it is neither.
    pub(super) fn of(etag: &str) -> Option<Self> {
        let hash = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
        if !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let hash = hash.to_ascii_lowercase();
        match hash.len() {
            64 => Some(Self::Sha256(hash)),
            40 => Some(Self::GitBlob(hash)),
            _ => None,
        }
    }

    /// Returns the hash's name and value.
    pub(super) fn named(&self) -> (&'static str, &str) {
        match self {
            Self::Sha256(hash) => ("SHA-256", hash),
            Self::GitBlob(hash) => ("git's hash", hash),
        }
    }
}

/// What a file's bytes come to.
pub(super) struct Found {
    pub(super) bytes: u64,
    pub(super) sha256: String,
    git_blob: String,
}

impl Found {
    /// Reads a whole file.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let (mut sha256, mut git) = (Sha256::new(), Sha1::new());
        git.update(format!("blob {bytes}\0"));
        let mut buffer = vec![0; 1 << 18];
        loop {
            let n = file.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            sha256.update(&buffer[..n]);
            git.update(&buffer[..n]);
        }
        Ok(Self {
            bytes,
            sha256: to_hex(&sha256.finalize()),
            git_blob: to_hex(&git.finalize()),
        })
    }

    /// Returns the hash that is compared with an expected one.
    pub(super) fn like(&self, expected: &Expected) -> &str {
        match expected {
            Expected::Sha256(_) => &self.sha256,
            Expected::GitBlob(_) => &self.git_blob,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_hashes_are_those_of_sha256sum_and_git() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hello");
        std::fs::write(&path, "hello\n").unwrap();
        let found = Found::of(&path).unwrap();
        assert_eq!(found.bytes, 6);
        // `sha256sum` and `git hash-object`.
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        let blob = "ce013625030ba8dba906f756967f9e9ca394464a";
        assert_eq!(found.like(&Expected::of(sha256).unwrap()), sha256);
        assert_eq!(
            found.like(&Expected::of(&format!("W/\"{blob}\"")).unwrap()),
            blob
        );
        assert_eq!(Expected::of("\"3f2-abc\""), None);
        assert_eq!(Expected::of(""), None);
    }
}
