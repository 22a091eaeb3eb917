//! A worker for tests: it does what the model's id says, one word a step.
//!
//! `record`, `progress`, `finish`, `fail`, `garbage`, `panic`, `abort`, `exit=3`, `hang`,
//! `stderr=text`, `close` (the output), `wait=path` (for the file to appear), `mark=path` (makes it).

use std::{
    io::{self, Write as _},
    os::fd::{FromRawFd as _, OwnedFd},
    path::Path,
    thread,
    time::Duration,
};

use tritmark_proto::{
    bundle::FailureClass,
    record::{Grade, Measurement, Metric, Outcome, Reading, Record, RecordBody},
};
use tritmark_suites::{
    calibration::Calibration,
    worker::{WorkerEvent, WorkerFailed, WorkerFinished, WorkerProgress, WorkerRequest},
};

/// What it says of a machine whose memory, in bytes, it is told.
fn calibration() -> Calibration {
    let memory_bytes = std::env::args().nth(2).expect("the machine's memory");
    Calibration {
        kernel: "fake".to_owned(),
        threads: 3,
        memory_read_bytes_per_s: memory_bytes.parse().expect("a number of bytes"),
        int8_ops_per_s: 2.0,
        noise: 0.5,
        aa_ratio: 1.0,
        aa_low: 0.9,
        aa_high: 1.1,
        aa_pairs: 4,
    }
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some("calibrate") {
        let mut line = serde_json::to_string(&calibration()).expect("JSON");
        line.push('\n');
        return put(line.as_bytes());
    }
    let mut line = String::new();
    io::stdin()
        .read_line(&mut line)
        .expect("a request on stdin");
    let request: WorkerRequest = serde_json::from_str(&line).expect("a request");
    let mut sequence = 0;
    for step in request.job.model.id.split_whitespace() {
        let (verb, object) = step.split_once('=').unwrap_or((step, ""));
        match verb {
            "record" => {
                say(&WorkerEvent::Record(record(sequence)));
                sequence += 1;
            }
            "progress" => say(&WorkerEvent::Progress(WorkerProgress {
                stage: "repetition".to_owned(),
                done: sequence,
                total: 0,
            })),
            "finish" => say(&WorkerEvent::Finished(WorkerFinished {
                n_records: sequence,
            })),
            "fail" => say(&WorkerEvent::Failed(WorkerFailed {
                class: FailureClass::Permanent,
                message: "asked to fail".to_owned(),
            })),
            "garbage" => put(b"this is no event\n"),
            "panic" => panic!("asked to panic"),
            "abort" => std::process::abort(),
            "exit" => std::process::exit(object.parse().expect("an exit code")),
            "stderr" => eprintln!("{object}"),
            "flood" => {
                for _ in 0..object.parse().expect("a count") {
                    eprintln!("{}", "x".repeat(99));
                }
            }
            "close" => close_stdout(),
            "hang" => thread::sleep(Duration::from_hours(1)),
            "mark" => std::fs::write(object, std::process::id().to_string()).expect("a mark"),
            "wait" => {
                while !Path::new(object).exists() {
                    thread::sleep(Duration::from_millis(5));
                }
            }
            _ => panic!("unknown step `{step}`"),
        }
    }
}

fn record(sequence: u64) -> Record {
    Record {
        sequence,
        at_unix_ns: 1_700_000_000_000_000_000 + sequence.cast_signed(),
        body: RecordBody::Measurement(Measurement {
            suite: "latency".to_owned(),
            metric: Metric::DecodeTokPerS,
            workload: None,
            phase: None,
            repetition: Some(sequence as u32),
            outcome: Outcome::Reading(Reading {
                value: 10.0 + sequence as f64,
                grade: Grade::Counted,
                source: "clock:monotonic".to_owned(),
            }),
        }),
    }
}

#[expect(unsafe_code, reason = "std has no other way to close its own output")]
fn close_stdout() {
    // SAFETY: nothing in this process writes to stdout after this, and it is closed once.
    drop(unsafe { OwnedFd::from_raw_fd(1) });
}

fn say(event: &WorkerEvent) {
    let mut line = serde_json::to_vec(event).expect("an event");
    line.push(b'\n');
    put(&line);
}

fn put(line: &[u8]) {
    let mut stdout = io::stdout();
    stdout.write_all(line).expect("the agent listens");
    stdout.flush().expect("the agent listens");
}
