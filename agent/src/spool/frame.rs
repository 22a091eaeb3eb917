//! The bytes of a spool file: a header of 8 bytes, then frames.
//!
//! A frame is `kind: u8, length: u32, checksum: u64, payload`, numbers little-endian. The checksum
//! is the head of a keyed blake3 over the frame's offset, kind, length and payload; the key comes
//! from the attempt, so that neither a frame of another attempt nor one from another place is
//! taken for good.

use prost::Message as _;
use tritmark_proto::{job::AttemptId, wire};

/// Version of the format.
pub(super) const VERSION: u32 = 1;
/// `TRIS`, then [`VERSION`].
pub(super) const HEADER: [u8; 8] = *b"TRIS\x01\0\0\0";
/// Bytes of a frame before its payload.
pub(super) const HEAD_BYTES: usize = 13;
/// Longest payload, so that a record fits into a gRPC message of 4 MiB.
pub const MAX_PAYLOAD_BYTES: usize = 3 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Record = 1,
    StoredBelow = 2,
    Finished = 3,
}

/// What a whole frame says.
#[derive(Debug)]
pub(super) enum Content {
    Record(wire::Record),
    StoredBelow(u64),
    Finished(wire::JobFinished),
}

/// Returns the version of a file that starts with `header`; `None` where it is no spool file.
pub(super) fn version(header: &[u8]) -> Option<u32> {
    let version = header.strip_prefix(b"TRIS")?;
    Some(u32::from_le_bytes(version.try_into().ok()?))
}

pub(super) fn key(attempt: AttemptId) -> [u8; 32] {
    let attempt = wire::AttemptRef::from(attempt).encode_to_vec();
    blake3::derive_key("tritmark agent spool v1", &attempt)
}

pub(super) fn encode(key: &[u8; 32], offset: u64, kind: Kind, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("payloads are far below 4 GiB");
    let mut bytes = Vec::with_capacity(HEAD_BYTES + payload.len());
    bytes.push(kind as u8);
    bytes.extend(length.to_le_bytes());
    let checksum = checksum(key, offset, &bytes, payload);
    bytes.extend(checksum);
    bytes.extend(payload);
    bytes
}

/// Returns the payload's length; `None` where no frame starts so.
pub(super) fn payload_length(head: &[u8; HEAD_BYTES]) -> Option<usize> {
    let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
    (length <= MAX_PAYLOAD_BYTES).then_some(length)
}

/// Returns what the frame says; `None` where it is damaged.
pub(super) fn decode(
    key: &[u8; 32],
    offset: u64,
    head: &[u8; HEAD_BYTES],
    payload: &[u8],
) -> Option<Content> {
    let (kind_and_length, found) = head.split_at(5);
    if checksum(key, offset, kind_and_length, payload) != found {
        return None;
    }
    match kind_and_length[0] {
        kind if kind == Kind::Record as u8 => {
            wire::Record::decode(payload).ok().map(Content::Record)
        }
        kind if kind == Kind::StoredBelow as u8 => {
            let below = u64::from_le_bytes(payload.try_into().ok()?);
            Some(Content::StoredBelow(below))
        }
        kind if kind == Kind::Finished as u8 => {
            let finished = wire::JobFinished::decode(payload).ok()?;
            Some(Content::Finished(finished))
        }
        _ => None,
    }
}

fn checksum(key: &[u8; 32], offset: u64, kind_and_length: &[u8], payload: &[u8]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&offset.to_le_bytes());
    hasher.update(kind_and_length);
    hasher.update(payload);
    let mut checksum = [0; 8];
    hasher.finalize_xof().fill(&mut checksum);
    checksum
}
