//! What an agent's signature is over: hashes that signer and reader compute alike.
//!
//! All are BLAKE3. Labels of a job are left out, since a map has no order on the wire, and so is
//! its place in a run: the same measurement has the same hash in every run.

use prost::Message as _;

use crate::wire;

/// Hash over an attempt's records in the order of their sequence.
#[derive(Clone, Debug, Default)]
pub struct RecordsHasher {
    hasher: blake3::Hasher,
    n_records: u64,
}

impl RecordsHasher {
    /// Adds the next record, encoded.
    pub fn add(&mut self, encoded: &[u8]) {
        self.hasher.update(&(encoded.len() as u64).to_le_bytes());
        self.hasher.update(encoded);
        self.n_records += 1;
    }

    /// Returns how many records were added, and their hash.
    pub fn finish(&self) -> (u64, [u8; 32]) {
        (self.n_records, *self.hasher.finalize().as_bytes())
    }
}

/// Returns the hash of what a job asks for.
pub fn suite_hash(mut job: wire::Job) -> [u8; 32] {
    job.run_id.clear();
    job.index = 0;
    job.selector = None;
    hash(&job.encode_to_vec())
}

/// Returns the hash of what a machine is.
pub fn environment_hash(machine: &wire::Machine) -> [u8; 32] {
    hash(&machine.encode_to_vec())
}

/// Returns a hash over bytes.
pub fn hash(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash_of(records: &[&[u8]]) -> [u8; 32] {
        let mut hasher = RecordsHasher::default();
        for record in records {
            hasher.add(record);
        }
        hasher.finish().1
    }

    #[test]
    fn the_order_and_the_borders_of_records_matter() {
        let whole = hash_of(&[b"ab", b"c"]);
        for other in [
            hash_of(&[b"c", b"ab"]),
            hash_of(&[b"a", b"bc"]),
            hash_of(&[b"abc"]),
            hash_of(&[b"ab", b"c", b""]),
            hash_of(&[b"ab", b"d"]),
        ] {
            assert_ne!(whole, other);
        }
    }

    #[test]
    fn a_jobs_place_does_not_matter_and_its_content_does() {
        let job = wire::Job {
            run_id: "a".into(),
            index: 3,
            kernel: "auto".into(),
            ..wire::Job::default()
        };
        let moved = wire::Job {
            run_id: "b".into(),
            index: 4,
            selector: Some(wire::Selector::default()),
            ..job.clone()
        };
        assert_eq!(suite_hash(job.clone()), suite_hash(moved));
        let other = wire::Job {
            threads: 2,
            ..job.clone()
        };
        assert_ne!(suite_hash(job), suite_hash(other));
    }
}
