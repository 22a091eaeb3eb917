//! The first 24 bytes, and the bounds-checked reader that all parts use.

use super::{GgufError, MAGIC};

/// Magic, version and counts.
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) n_tensors: u64,
    pub(super) n_keys: u64,
}

pub(super) fn read(reader: &mut Reader<'_>) -> Result<Header, GgufError> {
    let magic = reader.peek(4);
    if magic != MAGIC {
        return Err(GgufError::Magic {
            found: magic.to_vec(),
        });
    }
    reader.take(4, || "the magic".into())?;
    let version = reader.u32(|| "the version".into())?;
    match version {
        2 | 3 => {}
        _ if matches!(version.swap_bytes(), 1..=3) => {
            return Err(GgufError::BigEndian {
                version: version.swap_bytes(),
            });
        }
        _ => return Err(GgufError::Version { version }),
    }
    Ok(Header {
        version,
        n_tensors: reader.u64(|| "the number of tensors".into())?,
        n_keys: reader.u64(|| "the number of keys".into())?,
    })
}

/// A position in the file's bytes. `what` names, in errors, the thing being read.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    pub(super) fn position(&self) -> u64 {
        self.position as u64
    }

    pub(super) fn left(&self) -> u64 {
        (self.bytes.len() - self.position) as u64
    }

    /// Returns up to `len` of the next bytes without moving.
    fn peek(&self, len: usize) -> &'a [u8] {
        let rest = &self.bytes[self.position..];
        &rest[..len.min(rest.len())]
    }

    pub(super) fn take(
        &mut self,
        len: u64,
        what: impl FnOnce() -> String,
    ) -> Result<&'a [u8], GgufError> {
        if len > self.left() {
            return Err(GgufError::Truncated {
                what: what(),
                offset: self.position(),
                needed: len,
                left: self.left(),
            });
        }
        let start = self.position;
        // Not above the slice's length, which is a usize.
        self.position += len as usize;
        Ok(&self.bytes[start..self.position])
    }

    /// Returns the next `N` bytes.
    pub(super) fn array<const N: usize>(
        &mut self,
        what: impl FnOnce() -> String,
    ) -> Result<[u8; N], GgufError> {
        let bytes = self.take(N as u64, what)?;
        Ok(bytes.try_into().expect("take returns what was asked for"))
    }

    pub(super) fn u32(&mut self, what: impl FnOnce() -> String) -> Result<u32, GgufError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: impl FnOnce() -> String) -> Result<u64, GgufError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// Reads a u64 length and as many bytes of UTF-8.
    pub(super) fn string(&mut self, what: impl Fn() -> String) -> Result<&'a str, GgufError> {
        let len = self.u64(|| format!("the length of {}", what()))?;
        let bytes = self.take(len, &what)?;
        std::str::from_utf8(bytes).map_err(|_| GgufError::Utf8 {
            what: what(),
            offset: self.position() - len,
        })
    }

    /// Checks that `count` items of at least `min_bytes` each can follow.
    pub(super) fn check_count(
        &self,
        count: u64,
        min_bytes: u64,
        what: impl FnOnce() -> String,
    ) -> Result<(), GgufError> {
        if count
            .checked_mul(min_bytes)
            .is_some_and(|bytes| bytes <= self.left())
        {
            return Ok(());
        }
        Err(GgufError::Count {
            what: what(),
            count,
            offset: self.position(),
            left: self.left(),
        })
    }
}
