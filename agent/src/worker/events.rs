//! The worker's output, line by line: one JSON event each.

use std::io::{self, BufRead, BufReader, Read};

use tritmark_proto::{record::Record, wire};
use tritmark_suites::worker::{WorkerEvent, WorkerFailed, WorkerFinished, WorkerProgress};

/// Longest line. The longest real one holds the times of some ten thousand tokens.
pub(super) const LINE_BYTES: usize = 16 << 20;
/// How much of a strange line is shown.
const SHOWN_CHARS: usize = 120;

/// One thing a worker said.
pub(super) enum Heard {
    Record(Box<Record>),
    Progress(WorkerProgress),
    /// Something it must not say; what follows is not looked at.
    Broken,
}

/// How a worker's output ended.
#[derive(Debug, PartialEq)]
pub(super) enum End {
    Finished,
    Failed(WorkerFailed),
    /// Without a last event.
    Closed,
    /// With something that is no event, or not the next one.
    Broken(String),
    /// `hear` wanted no more.
    Unheard,
}

/// Reads the output to its end; `hear` returns false to stop.
///
/// After the last event, or a broken one, the rest is read and thrown away, so that the worker does
/// not block.
pub(super) fn read(output: impl Read, mut hear: impl FnMut(Heard) -> bool) -> End {
    let mut output = BufReader::with_capacity(64 << 10, output);
    let end = read_events(&mut output, &mut hear);
    if matches!(end, End::Broken(_)) {
        hear(Heard::Broken);
    }
    let _ = io::copy(&mut output, &mut io::sink());
    end
}

fn read_events(output: &mut impl BufRead, hear: &mut impl FnMut(Heard) -> bool) -> End {
    let mut line = Vec::new();
    let mut number = 0_u64;
    let mut n_records = 0_u64;
    loop {
        line.clear();
        number += 1;
        let limit = LINE_BYTES as u64 + 1;
        match output.by_ref().take(limit).read_until(b'\n', &mut line) {
            Ok(0) => return End::Closed,
            Ok(_) if line.last() == Some(&b'\n') => {}
            Ok(_) if line.len() > LINE_BYTES => {
                return End::Broken(format!("line {number} is longer than {LINE_BYTES} bytes"));
            }
            // Cut off in the middle: the process died while it wrote.
            Ok(_) => return End::Closed,
            Err(error) => {
                return End::Broken(format!("line {number} cannot be read: {error}"));
            }
        }
        let heard = match parse(&line, n_records) {
            Ok(Line::Heard(heard)) => heard,
            Ok(Line::End(end)) => return end,
            Ok(Line::Said) => continue,
            Err(problem) => return End::Broken(format!("line {number} {problem}")),
        };
        n_records += u64::from(matches!(heard, Heard::Record(_)));
        if !hear(heard) {
            return End::Unheard;
        }
    }
}

enum Line {
    Heard(Heard),
    End(End),
    /// For the log alone.
    Said,
}

/// Parses one line, given how many records came before.
fn parse(line: &[u8], n_records: u64) -> Result<Line, String> {
    let event = serde_json::from_slice(line).map_err(|error| {
        let text = String::from_utf8_lossy(line);
        let mut shown: String = text.trim_end().chars().take(SHOWN_CHARS).collect();
        if shown.len() < text.trim_end().len() {
            shown.push('…');
        }
        format!("is no event: {error}: `{}`", shown.escape_debug())
    })?;
    match event {
        WorkerEvent::Record(record) => {
            if record.sequence != n_records {
                let found = record.sequence;
                return Err(format!("has record {found} where {n_records} is due"));
            }
            checked(record).map(|record| Line::Heard(Heard::Record(record)))
        }
        WorkerEvent::Progress(progress) => Ok(Line::Heard(Heard::Progress(progress))),
        WorkerEvent::Warning(text) => {
            tracing::warn!("{text}");
            Ok(Line::Said)
        }
        WorkerEvent::Failed(failed) => Ok(Line::End(End::Failed(failed))),
        WorkerEvent::Finished(WorkerFinished { n_records: claimed }) => {
            if claimed == n_records {
                Ok(Line::End(End::Finished))
            } else {
                Err(format!("claims {claimed} records where {n_records} came"))
            }
        }
    }
}

/// Refuses what the coordinator would refuse, here where the job can still be failed for it.
fn checked(record: Record) -> Result<Box<Record>, String> {
    let sequence = record.sequence;
    Record::try_from(wire::Record::from(record))
        .map(Box::new)
        .map_err(|error| format!("has record {sequence} that says nothing sensible: {error}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tritmark_proto::{
        bundle::FailureClass,
        record::{Measurement, Metric, Outcome, RecordBody},
    };

    use super::*;

    fn record(sequence: u64) -> WorkerEvent {
        WorkerEvent::Record(Record {
            sequence,
            at_unix_ns: 1,
            body: RecordBody::Measurement(Measurement {
                suite: "energy".to_owned(),
                metric: Metric::EnergyJ,
                workload: None,
                phase: None,
                repetition: Some(0),
                outcome: Outcome::Skipped {
                    reason: "no counter".to_owned(),
                },
            }),
        })
    }

    fn lines(events: &[WorkerEvent]) -> Vec<u8> {
        let mut text = Vec::new();
        for event in events {
            serde_json::to_writer(&mut text, event).unwrap();
            text.push(b'\n');
        }
        text
    }

    /// Returns the sequences heard and the end.
    fn heard(text: &[u8]) -> (Vec<u64>, End) {
        let mut sequences = Vec::new();
        let end = read(text, |heard| {
            if let Heard::Record(record) = heard {
                sequences.push(record.sequence);
            }
            true
        });
        (sequences, end)
    }

    #[test]
    fn records_come_in_order_and_the_last_event_ends_them() {
        let finished = WorkerEvent::Finished(WorkerFinished { n_records: 2 });
        let text = lines(&[record(0), record(1), finished]);
        assert_eq!(heard(&text), (vec![0, 1], End::Finished));
    }

    #[test]
    fn a_failure_is_passed_on() {
        let failed = WorkerFailed {
            class: FailureClass::Transient,
            message: "no memory".to_owned(),
        };
        let text = lines(&[record(0), WorkerEvent::Failed(failed.clone())]);
        assert_eq!(heard(&text), (vec![0], End::Failed(failed)));
    }

    #[test]
    fn a_gap_a_repeat_and_a_wrong_count_break_the_protocol() {
        let finished = WorkerEvent::Finished(WorkerFinished { n_records: 2 });
        for (events, problem) in [
            (
                vec![record(0), record(2)],
                "line 2 has record 2 where 1 is due",
            ),
            (
                vec![record(0), record(0)],
                "line 2 has record 0 where 1 is due",
            ),
            (
                vec![record(0), finished],
                "line 2 claims 2 records where 1 came",
            ),
        ] {
            let end = heard(&lines(&events)).1;
            assert_eq!(end, End::Broken(problem.to_owned()));
        }
    }

    #[test]
    fn a_strange_line_is_shown_shortened() {
        let mut text = lines(&[record(0)]);
        text.extend(b"thread 'main' panicked\n");
        let End::Broken(problem) = heard(&text).1 else {
            panic!("a strange line is no event");
        };
        assert!(problem.starts_with("line 2 is no event"), "{problem}");
        assert!(problem.contains("thread \\'main\\'"), "{problem}");
        let long = [b"x".repeat(100_000), b"\n".to_vec()].concat();
        let End::Broken(problem) = heard(&long).1 else {
            panic!("a long strange line is no event");
        };
        assert!(problem.len() < 400, "{problem}");
    }

    #[test]
    fn a_line_without_end_is_given_up_at_the_limit() {
        let endless = io::repeat(b'x').take(3 * LINE_BYTES as u64);
        let end = read(endless, |_| true);
        let expected = format!("line 1 is longer than {LINE_BYTES} bytes");
        assert_eq!(end, End::Broken(expected));
    }

    #[test]
    fn a_value_that_is_no_number_is_refused() {
        let mut text = String::from_utf8(lines(&[record(0)])).unwrap();
        text = text.replace(
            r#"{"skipped":{"reason":"no counter"}}"#,
            r#"{"reading":{"value":1e999,"grade":"counted","source":"x"}}"#,
        );
        assert!(matches!(heard(text.as_bytes()).1, End::Broken(_)), "{text}");
    }

    #[test]
    fn an_output_cut_off_anywhere_gives_the_whole_records_before_the_cut() {
        let finished = WorkerEvent::Finished(WorkerFinished { n_records: 3 });
        let text = lines(&[record(0), record(1), record(2), finished]);
        for cut in 0..text.len() {
            let (sequences, end) = heard(&text[..cut]);
            let whole = text[..cut].split(|&byte| byte == b'\n').count() as u64 - 1;
            assert_eq!(sequences, (0..whole).collect::<Vec<_>>());
            assert_eq!(end, End::Closed);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            heard(&bytes);
        }

        #[test]
        fn a_flipped_byte_never_gives_a_record_out_of_order(at in 0_usize..400, byte: u8) {
            let mut text = lines(&[record(0), record(1), record(2)]);
            let at = at % text.len();
            text[at] = byte;
            let (sequences, _) = heard(&text);
            prop_assert!(sequences.iter().enumerate().all(|(i, &s)| i as u64 == s));
        }
    }
}
