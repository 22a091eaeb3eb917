use tritmark_proto::wire;

use super::*;
use crate::testing::machine;

fn usual() -> Calibration {
    Calibration {
        kernel: "x86_64-avx2".to_owned(),
        threads: 4,
        memory_read_bytes_per_s: 40e9,
        int8_ops_per_s: 900e9,
        noise: 0.02,
        aa_ratio: 1.001,
        aa_low: 0.995,
        aa_high: 1.007,
        aa_pairs: 40,
    }
}

#[test]
fn what_is_as_usual_passes_and_the_first_is_held_to_its_noise_alone() {
    let history = vec![usual(); 3];
    let limits = Limits::default();
    assert_eq!(judge(&usual(), &history, &limits), Ok(()));
    let slow = Calibration {
        memory_read_bytes_per_s: 1e9,
        noise: 0.29,
        ..usual()
    };
    assert_eq!(judge(&slow, &[], &limits), Ok(()));
    let disturbed = Calibration {
        noise: 0.31,
        ..usual()
    };
    let why = judge(&disturbed, &[], &limits).unwrap_err();
    assert!(
        why.starts_with("noise is 31.0 %, more than 30 %, and there is no earlier"),
        "{why}"
    );
    // Where it is usual, it is not too much.
    assert_eq!(judge(&disturbed, &vec![slow.clone(); 3], &limits), Ok(()));
    // Measured with something else, it is another figure.
    let other = Calibration {
        threads: 8,
        ..usual()
    };
    assert_eq!(judge(&slow, &vec![other; 3], &limits), Ok(()));
}

#[test]
fn each_limit_is_held_and_named() {
    let history = vec![usual(); 3];
    let check = |change: fn(&mut Calibration), part: Option<&str>| {
        let mut now = usual();
        change(&mut now);
        let verdict = judge(&now, &history, &Limits::default());
        match (part, verdict) {
            (None, verdict) => assert_eq!(verdict, Ok(())),
            (Some(part), Err(why)) => assert!(why.contains(part), "{why}"),
            (Some(part), Ok(())) => panic!("passes in spite of {part}"),
        }
    };
    check(|it| it.memory_read_bytes_per_s = 36.1e9, None);
    check(
        |it| it.memory_read_bytes_per_s = 35.9e9,
        Some("memory read bandwidth is 35.9 GB/s, 90 % of the usual 40.0 (median of 3)"),
    );
    check(|it| it.int8_ops_per_s = 811e9, None);
    check(
        |it| it.int8_ops_per_s = 450e9,
        Some("int8 peak is 450.0 Gop/s, 50 %"),
    );
    check(|it| it.noise = 0.099, None);
    check(
        |it| it.noise = 0.101,
        Some("noise is 10.1 %, usually 2.0 %"),
    );
    // Far from 1, but the interval does not say so; or it does, but it is little.
    check(|it| (it.aa_ratio, it.aa_high) = (1.05, 1.2), None);
    check(
        |it| (it.aa_ratio, it.aa_low, it.aa_high) = (1.01, 1.005, 1.02),
        None,
    );
    check(
        |it| (it.aa_ratio, it.aa_low, it.aa_high) = (1.03, 1.02, 1.04),
        Some("ratio 1.030 (99 % interval 1.020 to 1.040, 40 pairs)"),
    );
}

#[test]
fn noise_of_a_noisy_machine_is_held_to_its_own() {
    let noisy = Calibration {
        noise: 0.2,
        ..usual()
    };
    let history = vec![noisy.clone(); 2];
    let limits = Limits::default();
    let with = |noise| Calibration { noise, ..usual() };
    assert_eq!(judge(&with(0.59), &history, &limits), Ok(()));
    assert!(judge(&with(0.61), &history, &limits).is_err());
}

#[test]
fn every_fact_of_a_machine_that_changed_is_named() {
    let before = Machine {
        firmware: Some("Acme 1.0".to_owned()),
        ..machine("m")
    };
    assert_eq!(changes(&before, &before), Vec::<String>::new());
    let after = Machine {
        cpu_model: "Another CPU".to_owned(),
        memory_bytes: before.memory_bytes / 2,
        kernel: "Linux 7".to_owned(),
        firmware: Some("Acme 1.1".to_owned()),
        // Not told before.
        microcode: Some("0x2b".to_owned()),
        // Set by whoever measures.
        governor: Some("performance".to_owned()),
        ..before.clone()
    };
    assert_eq!(
        changes(&before, &after),
        [
            "CPU was A CPU, is Another CPU",
            "memory was 8589934592 bytes, is 4294967296 bytes",
            "kernel was Linux 6, is Linux 7",
            "firmware was Acme 1.0, is Acme 1.1",
        ]
    );
    let a_little = Machine {
        memory_bytes: before.memory_bytes - 4096,
        ..before.clone()
    };
    assert_eq!(changes(&before, &a_little), Vec::<String>::new());
}

#[test]
fn what_makes_no_sense_is_no_calibration() {
    let said = wire::Calibration {
        number: 1,
        kernel: "k".to_owned(),
        threads: 1,
        memory_read_bytes_per_s: 1.0,
        int8_ops_per_s: 1.0,
        noise: 0.0,
        aa_ratio: 1.0,
        aa_low: 0.9,
        aa_high: 1.1,
        aa_pairs: 3,
        failure: String::new(),
    };
    assert!(Calibration::read(said.clone()).is_ok());
    let check = |change: fn(&mut wire::Calibration), part: &str| {
        let mut said = said.clone();
        change(&mut said);
        let why = Calibration::read(said).unwrap_err();
        assert!(why.contains(part), "{why}");
    };
    check(|it| it.failure = "no memory".to_owned(), "no memory");
    check(|it| it.int8_ops_per_s = f64::NAN, "int8_ops_per_s NaN");
    check(|it| it.noise = -1.0, "noise -1");
    check(|it| it.aa_low = 1.05, "1.05 to 1.1 around 1");
}
