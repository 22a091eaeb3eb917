//! What agents and coordinators may be sent: any bytes, and messages that were almost right.

use std::num::NonZeroU32;

use proptest::{collection::vec, prelude::*, sample::Index};
use prost::Message as _;
use tritmark_proto::job::{Job, JobId, RunId};

use super::*;
use crate::testing::{accuracy, facts, item, job, latency, machine, reading, record, tokens};

/// Takes messages as far as a link does before anything is stored.
fn take(bytes: &[u8]) {
    if let Ok(wire::AgentMessage { kind: Some(kind) }) = wire::AgentMessage::decode(bytes) {
        match kind {
            FromAgent::Register(register) => {
                if let Ok((agent, _)) = registered(register) {
                    assert!(!agent.machine.id.is_empty());
                }
            }
            FromAgent::Records(batch) => {
                let _ = required_attempt(batch.attempt);
                for wire_record in batch.records {
                    if let Ok(record) = Record::try_from(wire_record) {
                        // What was understood means the same to whoever reads it next. Bytes are
                        // compared, since NaN is not equal to itself.
                        let first = wire::Record::from(record);
                        let bytes = first.encode_to_vec();
                        let second = Record::try_from(first).map(wire::Record::from).unwrap();
                        assert_eq!(second.encode_to_vec(), bytes);
                    }
                }
            }
            FromAgent::Finished(finished) => {
                let _ = required_attempt(finished.attempt);
                let _ = finished.failure.map(Failure::try_from);
            }
            FromAgent::Heartbeat(heartbeat) => {
                let _ = heartbeat.running.map(attempt_id);
            }
            FromAgent::Started(started) => {
                let _ = required_attempt(started.attempt);
            }
            FromAgent::Progress(progress) => {
                let _ = required_attempt(progress.attempt);
            }
            FromAgent::Calibration(calibration) => {
                let _ = crate::health::Calibration::read(calibration);
            }
            FromAgent::Draining(_) => {}
        }
    }
    if let Ok(assign) = wire::Assign::decode(bytes) {
        let _ = assign.attempt.map(AttemptId::try_from);
        if let Some(Ok(job)) = assign.job.map(Job::try_from) {
            let again = wire::Job::from(job.clone());
            assert_eq!(Job::try_from(again).as_ref(), Ok(&job));
        }
    }
}

/// Returns one encoded message of each kind that carries much.
fn messages() -> Vec<Vec<u8>> {
    let run = RunId::generate();
    let attempt = wire::AttemptRef::from(AttemptId {
        job: JobId { run, index: 3 },
        attempt: NonZeroU32::MIN,
        fence: 7,
    });
    let bodies = [facts(Some(2)), reading(1.5), tokens(), item(0, -1.0)];
    let from_agent = [
        FromAgent::Register(wire::Register {
            agent_id: crate::testing::agent_id(1),
            version: "0.1.0".into(),
            machine: Some(machine("m").into()),
            labels: [("room".to_owned(), "2".to_owned())].into(),
            running: Some(attempt.clone()),
            suites: vec!["latency".into()],
            ..wire::Register::default()
        }),
        FromAgent::Records(wire::RecordBatch {
            attempt: Some(attempt.clone()),
            records: (0..)
                .zip(bodies)
                .map(|(n, body)| record(n, body).into())
                .collect(),
        }),
        FromAgent::Finished(wire::JobFinished {
            attempt: Some(attempt.clone()),
            n_records: 4,
            at_unix_ns: 1,
            failure: Some(senseless("record", &std::fmt::Error).into()),
            signed: None,
        }),
    ];
    let assigns = [latency(), accuracy()].map(|suite| {
        wire::Assign {
            attempt: Some(attempt.clone()),
            job: Some(job(run, 3, "m", Some("base"), suite).into()),
            items_done: 1,
        }
        .encode_to_vec()
    });
    from_agent
        .into_iter()
        .map(|kind| wire::AgentMessage { kind: Some(kind) }.encode_to_vec())
        .chain(assigns)
        .collect()
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in vec(any::<u8>(), 0..200)) {
        take(&bytes);
    }

    #[test]
    fn a_damaged_message_is_a_message_or_an_error(
        which in any::<Index>(),
        damage in vec((any::<Index>(), any::<u8>()), 0..6),
        cut in proptest::option::of(any::<Index>()),
    ) {
        let messages = messages();
        let mut bytes = messages[which.index(messages.len())].clone();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        take(&bytes);
    }
}
