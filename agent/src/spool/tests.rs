//! What survives, and what damage does.

use proptest::prelude::*;
use tempfile::TempDir;

use crate::testing::{attempt, record};

use super::*;

fn wire_record(sequence: u64) -> wire::Record {
    record(sequence).into()
}

fn end(n_records: u64) -> wire::JobFinished {
    wire::JobFinished {
        attempt: Some(attempt(0, 1, 7).into()),
        n_records,
        at_unix_ns: 5,
        failure: None,
        signed: None,
    }
}

fn flush(spool: &mut AttemptSpool) {
    if let Some(flush) = spool.flush() {
        spool.flushed(&flush.run().unwrap());
    }
}

/// A spool folder with one attempt of `n` durable records.
fn with_records(n: u64) -> (TempDir, Spool, AttemptSpool) {
    let folder = TempDir::new().unwrap();
    let spool = Spool::open(folder.path(), 1 << 20).unwrap();
    let mut attempt_spool = spool.create(attempt(0, 1, 7)).unwrap();
    for sequence in 0..n {
        attempt_spool.append(&wire_record(sequence)).unwrap();
    }
    flush(&mut attempt_spool);
    (folder, spool, attempt_spool)
}

fn recover_one(folder: &Path) -> (AttemptId, AttemptSpool) {
    let (mut found, errors) = Spool::open(folder, 1 << 20).unwrap().recover();
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(found.len(), 1);
    found.pop().unwrap()
}

#[test]
fn a_restarted_agent_finds_every_record_and_the_end() {
    let (folder, _spool, mut written) = with_records(5);
    written.acknowledge(2).unwrap();
    written.finish(end(5)).unwrap();
    flush(&mut written);
    drop(written);
    let (id, found) = recover_one(folder.path());
    assert_eq!(id, attempt(0, 1, 7));
    assert_eq!((found.n_records(), found.durable_below()), (5, 5));
    assert_eq!(found.stored_below(), 2);
    assert_eq!(found.finished(), Some(&end(5)));
    assert_eq!(found.cut_bytes(), 0);
    let records = found.batch(2, 100, 1 << 20).unwrap();
    assert_eq!(records, (2..5).map(wire_record).collect::<Vec<_>>());
}

#[test]
fn a_record_is_given_out_only_when_it_is_durable() {
    let (_folder, _spool, mut spool) = with_records(2);
    spool.append(&wire_record(2)).unwrap();
    assert_eq!(spool.durable_below(), 2);
    assert_eq!(spool.batch(0, 100, 1 << 20).unwrap().len(), 2);
    let flush = spool.flush().unwrap();
    spool.append(&wire_record(3)).unwrap();
    spool.flushed(&flush.run().unwrap());
    assert_eq!(
        spool.durable_below(),
        3,
        "what came after the flush began is not in it"
    );
    assert!(!spool.is_durable());
}

#[test]
fn a_batch_keeps_to_its_limits_but_is_never_empty() {
    let (_folder, _spool, spool) = with_records(10);
    assert_eq!(spool.batch(0, 4, 1 << 20).unwrap().len(), 4);
    assert_eq!(spool.batch(8, 4, 1 << 20).unwrap().len(), 2);
    assert_eq!(spool.batch(3, 4, 1).unwrap(), [wire_record(3)]);
    assert!(spool.batch(10, 4, 1).unwrap().is_empty());
}

#[test]
fn a_removed_attempt_is_gone_and_its_room_free() {
    let (folder, spool, attempt_spool) = with_records(3);
    assert!(spool.used_bytes.load(Ordering::Relaxed) > 0);
    attempt_spool.remove().unwrap();
    assert_eq!(spool.used_bytes.load(Ordering::Relaxed), 0);
    let (found, errors) = Spool::open(folder.path(), 1 << 20).unwrap().recover();
    assert!(found.is_empty() && errors.is_empty());
}

#[test]
fn a_full_spool_says_so_but_still_takes_the_end() {
    let folder = TempDir::new().unwrap();
    let spool = Spool::open(folder.path(), 1000).unwrap();
    let mut attempt_spool = spool.create(attempt(0, 1, 7)).unwrap();
    let error = (0..1000)
        .find_map(|sequence| attempt_spool.append(&wire_record(sequence)).err())
        .unwrap();
    assert!(
        error.to_string().starts_with("the spool is full"),
        "{error}"
    );
    let n_records = attempt_spool.n_records();
    assert!(n_records > 3);
    attempt_spool.finish(end(n_records)).unwrap();
    drop(attempt_spool);
    assert_eq!(
        recover_one(folder.path()).1.finished(),
        Some(&end(n_records))
    );
}

#[test]
fn the_limit_counts_what_an_earlier_agent_left() {
    let (folder, _spool, written) = with_records(5);
    drop(written);
    let spool = Spool::open(folder.path(), 100).unwrap();
    let (found, _) = spool.recover();
    assert_eq!(found.len(), 1);
    let mut next = spool.create(attempt(1, 1, 8)).unwrap();
    let error = next.append(&wire_record(0)).unwrap_err();
    assert!(
        matches!(error, SpoolError::Full { max_bytes: 100, .. }),
        "{error}"
    );
}

#[test]
fn a_record_too_large_for_the_link_is_refused() {
    let (_folder, _spool, mut spool) = with_records(0);
    let mut large = wire_record(0);
    if let Some(wire::record::Body::Measurement(measurement)) = &mut large.body {
        measurement.suite = "x".repeat(MAX_PAYLOAD_BYTES + 1);
    }
    let error = spool.append(&large).unwrap_err();
    assert!(
        matches!(error, SpoolError::TooLarge { sequence: 0, .. }),
        "{error}"
    );
    assert_eq!(spool.n_records(), 0);
    spool.append(&wire_record(0)).unwrap();
}

#[test]
fn an_attempt_goes_on_after_a_torn_end() {
    let (folder, _spool, spool) = with_records(3);
    let path = spool.path.clone();
    let length = spool.length;
    drop(spool);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(length - 1).unwrap();
    let (_, mut found) = recover_one(folder.path());
    assert_eq!(found.n_records(), 2);
    assert!(found.cut_bytes() > 0);
    found.append(&wire_record(2)).unwrap();
    found.finish(end(3)).unwrap();
    drop(found);
    let (_, again) = recover_one(folder.path());
    assert_eq!(again.batch(0, 9, 1 << 20).unwrap().len(), 3);
    assert_eq!(again.finished(), Some(&end(3)));
}

#[test]
fn a_file_of_a_newer_agent_is_left_alone_and_named() {
    let (folder, _spool, spool) = with_records(3);
    let path = spool.path.clone();
    drop(spool);
    let mut bytes = fs::read(&path).unwrap();
    bytes[4] = 2;
    fs::write(&path, &bytes).unwrap();
    let (found, errors) = Spool::open(folder.path(), 1 << 20).unwrap().recover();
    assert!(found.is_empty());
    assert!(
        matches!(errors[..], [SpoolError::Version { version: 2, .. }]),
        "{errors:?}"
    );
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_file_under_another_attempts_name_gives_no_record() {
    let (folder, _spool, spool) = with_records(3);
    let other = folder.path().join(FOLDER).join(file_name(attempt(0, 2, 8)));
    fs::rename(&spool.path, other).unwrap();
    let (id, found) = recover_one(folder.path());
    assert_eq!(id, attempt(0, 2, 8));
    assert_eq!(found.n_records(), 0);
}

#[test]
fn names_of_other_files_are_no_attempts() {
    let name = file_name(attempt(3, 2, 9));
    assert_eq!(attempt_of(&name), Some(attempt(3, 2, 9)));
    for other in [
        "",
        "x.spool",
        ".spool",
        &format!("{name}~"),
        &name.replace(".3.", ".03."),
    ] {
        assert_eq!(attempt_of(other), None, "{other}");
    }
}

/// Reads a damaged file: a prefix of the true records, then maybe the true end, nothing else.
fn check_damaged(bytes: &[u8], n: u64) -> Result<u64, TestCaseError> {
    let folder = TempDir::new().unwrap();
    let spool = Spool::open(folder.path(), 1 << 20).unwrap();
    let path = spool.folder.join(file_name(attempt(0, 1, 7)));
    fs::write(&path, bytes).unwrap();
    let (found, _errors) = spool.recover();
    let Some((_, found)) = found.first() else {
        return Ok(0);
    };
    let n_found = found.n_records();
    prop_assert!(n_found <= n);
    let expected: Vec<_> = (0..n_found).map(wire_record).collect();
    prop_assert_eq!(found.batch(0, 1000, 1 << 30).unwrap_or_default(), expected);
    prop_assert!(found.stored_below() <= n_found);
    if let Some(finished) = found.finished() {
        prop_assert_eq!(finished, &end(n));
        prop_assert_eq!(n_found, n);
    }
    Ok(n_found)
}

fn whole_file() -> Vec<u8> {
    let (_folder, _spool, mut spool) = with_records(6);
    spool.acknowledge(3).unwrap();
    spool.finish(end(6)).unwrap();
    fs::read(&spool.path).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_file_cut_anywhere_gives_a_prefix(cut in 0_usize..1000) {
        let bytes = whole_file();
        let cut = cut % (bytes.len() + 1);
        let n = check_damaged(&bytes[..cut], 6)?;
        if cut == bytes.len() {
            prop_assert_eq!(n, 6);
        }
    }

    #[test]
    fn a_flipped_bit_never_gives_a_wrong_record(at in 0_usize..1000, bit in 0_u8..8) {
        let mut bytes = whole_file();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        check_damaged(&bytes, 6)?;
    }

    #[test]
    fn garbage_after_the_records_is_cut_off(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
        let (_folder, _spool, spool) = with_records(6);
        let mut bytes = fs::read(&spool.path).unwrap();
        bytes.extend(tail);
        prop_assert_eq!(check_damaged(&bytes, 6)?, 6);
    }

    #[test]
    fn a_file_of_garbage_gives_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert_eq!(check_damaged(&bytes, 0)?, 0);
    }
}
