//! The desk alone: messages in, messages and wishes out.

use tempfile::TempDir;
use tritmark_proto::{job::Job, record::Record};

use crate::testing::{attempt, latency_job, record};

use super::*;

const NOW: i64 = 1_700_000_000_000_000_000;

fn identity() -> Identity {
    Identity {
        agent_id: "a".to_owned(),
        version: "0".to_owned(),
        machine: wire::Machine::default(),
        labels: std::collections::HashMap::new(),
        suites: vec!["latency".to_owned()],
        signer: None,
        boot_id: None,
    }
}

fn desk_in(folder: &TempDir) -> Desk {
    Desk::new(
        identity(),
        Spool::open(folder.path(), 1 << 20).unwrap(),
        NOW,
    )
}

/// A desk that has registered with a coordinator.
fn a_desk() -> (TempDir, Desk) {
    let folder = TempDir::new().unwrap();
    let mut desk = desk_in(&folder);
    desk.register();
    assert_eq!(desk.registered(&wire::Registered::default()), []);
    (folder, desk)
}

fn job_of(attempt: AttemptId) -> Job {
    latency_job(attempt.job, "script")
}

fn assign(desk: &mut Desk, attempt: AttemptId) -> Vec<Action> {
    let assign = wire::Assign {
        attempt: Some(attempt.into()),
        job: Some(job_of(attempt).into()),
        items_done: 0,
    };
    tell(desk, coordinator_message::Kind::Assign(assign))
}

fn tell(desk: &mut Desk, kind: coordinator_message::Kind) -> Vec<Action> {
    desk.on_message(wire::CoordinatorMessage { kind: Some(kind) }, NOW)
}

fn acknowledge(
    desk: &mut Desk,
    attempt: AttemptId,
    stored_below: u64,
    finished: bool,
) -> Vec<Action> {
    let ack = wire::Ack {
        attempt: Some(attempt.into()),
        stored_below,
        finished,
    };
    tell(desk, coordinator_message::Kind::Ack(ack))
}

fn cancel(desk: &mut Desk, attempt: AttemptId) -> Vec<Action> {
    let cancel = wire::CancelJob {
        attempt: Some(attempt.into()),
        reason: "a person asked for it".to_owned(),
    };
    tell(desk, coordinator_message::Kind::Cancel(cancel))
}

fn say(desk: &mut Desk, attempt: AttemptId, news: News) -> Vec<Action> {
    desk.on_worker(Said { attempt, news }, NOW)
}

fn records(desk: &mut Desk, attempt: AttemptId, sequences: std::ops::Range<u64>) {
    for sequence in sequences {
        assert_eq!(
            say(desk, attempt, News::Record(Box::new(record(sequence)))),
            []
        );
    }
}

fn flush(desk: &mut Desk) {
    while let Some((attempt, flush)) = desk.flush() {
        assert_eq!(desk.on_flushed(attempt, &flush.run()), []);
    }
}

/// What a message says, in short.
#[derive(Debug, PartialEq)]
enum Sent {
    Started(AttemptId),
    Records(AttemptId, Vec<u64>),
    Finished(AttemptId, u64, Option<(FailureClass, String)>),
    Draining,
}

/// Makes everything durable and returns everything the desk then sends.
fn sent(desk: &mut Desk) -> Vec<Sent> {
    flush(desk);
    let mut sent = Vec::new();
    while desk.has_message() {
        let Some(message) = desk.next_message() else {
            continue;
        };
        let id = |attempt: Option<wire::AttemptRef>| AttemptId::try_from(attempt.unwrap()).unwrap();
        sent.push(match message.kind.unwrap() {
            agent_message::Kind::Started(started) => Sent::Started(id(started.attempt)),
            agent_message::Kind::Records(batch) => {
                let sequences = batch.records.iter().map(|record| record.sequence).collect();
                for wire in batch.records {
                    let sequence = wire.sequence;
                    assert_eq!(Record::try_from(wire).unwrap(), record(sequence));
                }
                Sent::Records(id(batch.attempt), sequences)
            }
            agent_message::Kind::Finished(finished) => {
                let failure = finished.failure.map(|failure| {
                    let failure = Failure::try_from(failure).unwrap();
                    (failure.class, failure.message)
                });
                Sent::Finished(id(finished.attempt), finished.n_records, failure)
            }
            agent_message::Kind::Draining(_) => Sent::Draining,
            other => panic!("not due: {other:?}"),
        });
    }
    sent
}

fn reconnect(desk: &mut Desk) -> Option<AttemptId> {
    let register = desk.register();
    desk.registered(&wire::Registered::default());
    let Some(agent_message::Kind::Register(register)) = register.kind else {
        panic!("a connection begins with Register");
    };
    register.running.map(|running| running.try_into().unwrap())
}

fn failed(id: AttemptId, n: u64, class: FailureClass, message: &str) -> Sent {
    Sent::Finished(id, n, Some((class, message.to_owned())))
}

#[test]
fn a_job_is_started_reported_and_forgotten_when_acknowledged() {
    let (folder, mut desk) = a_desk();
    let a = attempt(0, 1, 1);
    let actions = assign(&mut desk, a);
    let expected = Assignment {
        attempt: a,
        job: job_of(a),
        items_done: 0,
    };
    assert_eq!(actions, [Action::Start(Box::new(expected))]);
    say(&mut desk, a, News::Started);
    records(&mut desk, a, 0..3);
    assert_eq!(
        sent(&mut desk),
        [Sent::Started(a), Sent::Records(a, vec![0, 1, 2])]
    );
    records(&mut desk, a, 3..4);
    say(&mut desk, a, News::Ended(Ok(())));
    assert_eq!(
        sent(&mut desk),
        [Sent::Records(a, vec![3]), Sent::Finished(a, 4, None)]
    );
    assert!(!desk.is_clear());
    acknowledge(&mut desk, a, 4, true);
    assert!(desk.is_clear());
    assert!(desk_in(&folder).is_clear(), "nothing is left on disk");
}

#[test]
fn nothing_is_sent_before_it_is_durable() {
    let (_folder, mut desk) = a_desk();
    let a = attempt(0, 1, 1);
    assign(&mut desk, a);
    records(&mut desk, a, 0..2);
    assert!(!desk.has_message());
    assert_eq!(desk.undurable(), (2, false));
    flush(&mut desk);
    assert_eq!(sent(&mut desk), [Sent::Records(a, vec![0, 1])]);
    say(&mut desk, a, News::Ended(Ok(())));
    assert!(!desk.has_message());
    assert_eq!(desk.undurable(), (0, true));
    assert_eq!(sent(&mut desk), [Sent::Finished(a, 2, None)]);
}

#[test]
fn after_a_reconnect_exactly_the_unacknowledged_records_are_sent_again() {
    let (_folder, mut desk) = a_desk();
    let a = attempt(0, 1, 1);
    assign(&mut desk, a);
    say(&mut desk, a, News::Started);
    records(&mut desk, a, 0..5);
    sent(&mut desk);
    acknowledge(&mut desk, a, 3, false);
    assert_eq!(sent(&mut desk), []);
    assert_eq!(reconnect(&mut desk), Some(a));
    records(&mut desk, a, 5..6);
    assert_eq!(
        sent(&mut desk),
        [Sent::Started(a), Sent::Records(a, vec![3, 4, 5])]
    );
    say(&mut desk, a, News::Ended(Ok(())));
    assert_eq!(sent(&mut desk), [Sent::Finished(a, 6, None)]);
    acknowledge(&mut desk, a, 6, false);
    assert_eq!(reconnect(&mut desk), Some(a), "its end is not acknowledged");
    assert_eq!(
        sent(&mut desk),
        [Sent::Started(a), Sent::Finished(a, 6, None)]
    );
}

#[test]
fn duplicate_acknowledgements_change_nothing() {
    let (_folder, mut desk) = a_desk();
    let a = attempt(0, 1, 1);
    assign(&mut desk, a);
    records(&mut desk, a, 0..4);
    sent(&mut desk);
    for below in [3, 3, 3] {
        assert_eq!(acknowledge(&mut desk, a, below, false), []);
    }
    reconnect(&mut desk);
    assert_eq!(sent(&mut desk), [Sent::Records(a, vec![3])]);
    say(&mut desk, a, News::Ended(Ok(())));
    sent(&mut desk);
    acknowledge(&mut desk, a, 4, true);
    assert_eq!(acknowledge(&mut desk, a, 4, true), []);
    assert!(desk.is_clear());
}

#[test]
fn a_coordinator_that_has_lost_records_gets_them_again() {
    let (folder, mut desk) = a_desk();
    let a = attempt(0, 1, 1);
    assign(&mut desk, a);
    records(&mut desk, a, 0..4);
    sent(&mut desk);
    acknowledge(&mut desk, a, 4, false);
    say(&mut desk, a, News::Ended(Ok(())));
    assert_eq!(sent(&mut desk), [Sent::Finished(a, 4, None)]);
    acknowledge(&mut desk, a, 2, false);
    let again = [Sent::Records(a, vec![2, 3]), Sent::Finished(a, 4, None)];
    assert_eq!(sent(&mut desk), again);
    drop(desk);
    let mut desk = desk_in(&folder);
    reconnect(&mut desk);
    assert_eq!(sent(&mut desk), again);
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_is_cut_to_what_is_durable() {
    let (_folder, mut desk) = a_desk();
    let a = attempt(0, 1, 1);
    assign(&mut desk, a);
    records(&mut desk, a, 0..2);
    flush(&mut desk);
    records(&mut desk, a, 2..4);
    acknowledge(&mut desk, a, u64::MAX, false);
    assert_eq!(sent(&mut desk), [Sent::Records(a, vec![2, 3])]);
}

#[test]
fn an_assignment_said_twice_starts_one_worker() {
    let (_folder, mut desk) = a_desk();
    let a = attempt(0, 1, 1);
    assert_eq!(assign(&mut desk, a).len(), 1);
    assert_eq!(assign(&mut desk, a), []);
    say(&mut desk, a, News::Ended(Ok(())));
    assert_eq!(sent(&mut desk), [Sent::Finished(a, 0, None)]);
    assert_eq!(assign(&mut desk, a), []);
    assert_eq!(
        sent(&mut desk),
        [Sent::Finished(a, 0, None)],
        "the coordinator has not got it"
    );
}

#[test]
fn an_old_fence_is_refused() {
    let (_folder, mut desk) = a_desk();
    let new = attempt(0, 2, 8);
    assign(&mut desk, new);
    let old = attempt(0, 1, 7);
    assert_eq!(assign(&mut desk, old), []);
    assert_eq!(cancel(&mut desk, old), []);
    assert_eq!(acknowledge(&mut desk, old, 9, true), []);
    records(&mut desk, new, 0..1);
    assert_eq!(sent(&mut desk), [Sent::Records(new, vec![0])]);
}

#[test]
fn a_newer_attempt_at_the_same_job_replaces_the_old_one() {
    let (_folder, mut desk) = a_desk();
    let (old, new) = (attempt(0, 1, 7), attempt(0, 2, 8));
    assign(&mut desk, old);
    records(&mut desk, old, 0..2);
    assert_eq!(assign(&mut desk, new), [Action::Stop(old)]);
    records(&mut desk, old, 2..3);
    let actions = say(&mut desk, old, News::Ended(Ok(())));
    assert!(
        matches!(&actions[..], [Action::Start(next)] if next.attempt == new),
        "{actions:?}"
    );
    records(&mut desk, new, 0..1);
    assert_eq!(
        sent(&mut desk),
        [Sent::Records(new, vec![0])],
        "of the old one nothing is sent"
    );
}

#[test]
fn a_second_job_is_refused_while_one_runs() {
    let (_folder, mut desk) = a_desk();
    let (a, b) = (attempt(0, 1, 1), attempt(1, 1, 2));
    assign(&mut desk, a);
    assert_eq!(assign(&mut desk, b), []);
    let message = format!("the agent still has job {}", a.job);
    assert_eq!(
        sent(&mut desk),
        [failed(b, 0, FailureClass::Infrastructure, &message)]
    );
    assert!(!desk.is_idle());
}

#[test]
fn a_cancelled_job_ends_as_cancelled_with_the_workers_stderr() {
    let (_folder, mut desk) = a_desk();
    let a = attempt(0, 1, 1);
    assign(&mut desk, a);
    records(&mut desk, a, 0..1);
    assert_eq!(cancel(&mut desk, a), [Action::Stop(a)]);
    let killed = Failure {
        class: FailureClass::Transient,
        message: "the worker was killed".to_owned(),
        stderr: "its words".to_owned(),
    };
    say(&mut desk, a, News::Ended(Err(killed)));
    flush(&mut desk);
    desk.next_message();
    let Some(agent_message::Kind::Finished(finished)) = desk.next_message().unwrap().kind else {
        panic!("the end follows the records");
    };
    assert_eq!(finished.n_records, 1);
    let failure = finished.failure.unwrap();
    assert_eq!(failure.class(), wire::failure::Class::Infrastructure);
    assert_eq!(failure.message, "cancelled: a person asked for it");
    assert_eq!(failure.stderr, "its words");
}

#[test]
fn a_job_that_finished_before_its_cancellation_has_finished() {
    let (_folder, mut desk) = a_desk();
    let a = attempt(0, 1, 1);
    assign(&mut desk, a);
    cancel(&mut desk, a);
    records(&mut desk, a, 0..1);
    say(&mut desk, a, News::Ended(Ok(())));
    assert_eq!(
        sent(&mut desk),
        [Sent::Records(a, vec![0]), Sent::Finished(a, 1, None)]
    );
}

#[test]
fn an_abandoned_attempt_is_stopped_and_nothing_more_is_said_of_it() {
    let (folder, mut desk) = a_desk();
    let a = attempt(0, 1, 1);
    assign(&mut desk, a);
    records(&mut desk, a, 0..2);
    desk.register();
    let registered = wire::Registered {
        abandon_running: true,
        ..wire::Registered::default()
    };
    assert_eq!(desk.registered(&registered), [Action::Stop(a)]);
    assert!(!desk.is_idle());
    records(&mut desk, a, 2..3);
    say(&mut desk, a, News::Ended(Ok(())));
    assert!(desk.is_clear());
    assert_eq!(sent(&mut desk), []);
    assert!(desk_in(&folder).is_clear());
}

#[test]
fn a_coordinator_that_has_seen_the_end_of_a_running_job_stops_it() {
    let (_folder, mut desk) = a_desk();
    let a = attempt(0, 1, 1);
    assign(&mut desk, a);
    assert_eq!(acknowledge(&mut desk, a, 0, true), [Action::Stop(a)]);
    say(&mut desk, a, News::Ended(Ok(())));
    assert!(desk.is_clear());
}

#[test]
fn a_restarted_agent_sends_what_it_had_and_says_that_it_was_restarted() {
    let (folder, mut desk) = a_desk();
    let a = attempt(0, 1, 1);
    assign(&mut desk, a);
    records(&mut desk, a, 0..4);
    sent(&mut desk);
    acknowledge(&mut desk, a, 2, false);
    flush(&mut desk);
    drop(desk);
    let mut desk = desk_in(&folder);
    assert_eq!(reconnect(&mut desk), Some(a));
    let message = "the agent was restarted while the job ran; it had 4 records";
    let end = failed(a, 4, FailureClass::Infrastructure, message);
    assert_eq!(sent(&mut desk), [Sent::Records(a, vec![2, 3]), end]);
    acknowledge(&mut desk, a, 4, true);
    assert!(desk.is_clear());
}

#[test]
fn a_restarted_agent_sends_the_true_end_where_it_was_written() {
    let (folder, mut desk) = a_desk();
    let a = attempt(0, 1, 1);
    assign(&mut desk, a);
    records(&mut desk, a, 0..2);
    say(&mut desk, a, News::Ended(Ok(())));
    flush(&mut desk);
    drop(desk);
    let mut desk = desk_in(&folder);
    reconnect(&mut desk);
    assert_eq!(
        sent(&mut desk),
        [Sent::Records(a, vec![0, 1]), Sent::Finished(a, 2, None)]
    );
}

#[test]
fn a_full_spool_fails_the_job_with_the_records_that_fit() {
    let folder = TempDir::new().unwrap();
    let spool = Spool::open(folder.path(), 500).unwrap();
    let mut desk = Desk::new(identity(), spool, NOW);
    desk.register();
    let a = attempt(0, 1, 1);
    assign(&mut desk, a);
    let mut stops = 0;
    for sequence in 0..20 {
        stops += say(&mut desk, a, News::Record(Box::new(record(sequence)))).len();
    }
    assert_eq!(stops, 1, "the worker is stopped once");
    say(&mut desk, a, News::Ended(Ok(())));
    let sent = sent(&mut desk);
    let [
        Sent::Records(_, sequences),
        Sent::Finished(_, n, Some((class, message))),
    ] = &sent[..]
    else {
        panic!("{sent:?}");
    };
    assert_eq!(*n, sequences.len() as u64);
    assert_eq!(*class, FailureClass::Infrastructure);
    assert!(message.starts_with("the spool is full"), "{message}");
}

#[test]
fn a_failing_disk_fails_the_job_with_the_records_that_are_durable() {
    let (_folder, mut desk) = a_desk();
    let a = attempt(0, 1, 1);
    assign(&mut desk, a);
    records(&mut desk, a, 0..2);
    flush(&mut desk);
    records(&mut desk, a, 2..4);
    let error = || SpoolError::Io {
        action: "write",
        path: "spool".into(),
        source: std::io::Error::other("the disk is gone"),
    };
    assert_eq!(desk.on_flushed(a, &Err(error())), [Action::Stop(a)]);
    assert_eq!(desk.undurable(), (0, false), "nothing is tried again");
    say(&mut desk, a, News::Ended(Ok(())));
    let message = "cannot write the spool file spool: the disk is gone";
    let end = failed(a, 2, FailureClass::Infrastructure, message);
    assert_eq!(sent(&mut desk), [Sent::Records(a, vec![0, 1]), end]);
    acknowledge(&mut desk, a, 2, true);
    assert!(desk.is_clear());
}

#[test]
fn a_disk_that_fails_at_the_very_end_does_not_let_the_job_succeed() {
    let (_folder, mut desk) = a_desk();
    let a = attempt(0, 1, 1);
    assign(&mut desk, a);
    records(&mut desk, a, 0..2);
    say(&mut desk, a, News::Ended(Ok(())));
    let error = SpoolError::Io {
        action: "write",
        path: "spool".into(),
        source: std::io::Error::other("the disk is gone"),
    };
    desk.on_flushed(a, &Err(error));
    let message = "cannot write the spool file spool: the disk is gone";
    assert_eq!(
        sent(&mut desk),
        [failed(a, 0, FailureClass::Infrastructure, message)]
    );
}

#[test]
fn a_job_of_an_unknown_suite_is_refused_for_good() {
    let (_folder, mut desk) = a_desk();
    let a = attempt(0, 1, 1);
    let mut job = wire::Job::from(job_of(a));
    job.suite = Some(wire::Suite { kind: None });
    let assign = wire::Assign {
        attempt: Some(a.into()),
        job: Some(job),
        items_done: 0,
    };
    assert_eq!(
        tell(&mut desk, coordinator_message::Kind::Assign(assign)),
        []
    );
    let sent = sent(&mut desk);
    let [Sent::Finished(_, 0, Some((FailureClass::Permanent, message)))] = &sent[..] else {
        panic!("{sent:?}");
    };
    assert!(message.contains("cannot read the job"), "{message}");
}

#[test]
fn messages_without_a_sensible_attempt_are_ignored() {
    let (_folder, mut desk) = a_desk();
    for attempt in [None, Some(wire::AttemptRef::default())] {
        for kind in [
            coordinator_message::Kind::Assign(wire::Assign {
                attempt: attempt.clone(),
                job: None,
                items_done: 0,
            }),
            coordinator_message::Kind::Ack(wire::Ack {
                attempt: attempt.clone(),
                stored_below: 1,
                finished: true,
            }),
            coordinator_message::Kind::Cancel(wire::CancelJob {
                attempt: attempt.clone(),
                reason: String::new(),
            }),
        ] {
            assert_eq!(tell(&mut desk, kind), []);
        }
    }
    assert_eq!(
        desk.on_message(wire::CoordinatorMessage { kind: None }, NOW),
        []
    );
    assert!(desk.is_clear());
}

#[test]
fn a_leaving_agent_says_so_and_takes_no_job() {
    let (_folder, mut desk) = a_desk();
    let (a, b) = (attempt(0, 1, 1), attempt(1, 1, 2));
    assign(&mut desk, a);
    desk.drain();
    assert_eq!(sent(&mut desk), [Sent::Draining]);
    assign(&mut desk, b);
    let message = "the agent is leaving and takes no job";
    assert_eq!(
        sent(&mut desk),
        [failed(b, 0, FailureClass::Infrastructure, message)]
    );
    reconnect(&mut desk);
    assert_eq!(
        sent(&mut desk)[0],
        Sent::Draining,
        "a new coordinator must know"
    );
    say(&mut desk, a, News::Ended(Ok(())));
    assert!(desk.is_idle());
}

#[test]
fn an_aborted_job_fails_as_the_agents_fault() {
    let (_folder, mut desk) = a_desk();
    let a = attempt(0, 1, 1);
    assign(&mut desk, a);
    assert_eq!(desk.abort(NOW), [Action::Stop(a)]);
    let killed = infrastructure("killed");
    say(&mut desk, a, News::Ended(Err(killed)));
    let message = "the agent was stopped while the job ran";
    let end = failed(a, 0, FailureClass::Infrastructure, message);
    assert_eq!(sent(&mut desk), [Sent::Draining, end]);
}

#[test]
fn only_the_latest_progress_is_kept() {
    let (_folder, mut desk) = a_desk();
    let a = attempt(0, 1, 1);
    assign(&mut desk, a);
    say(&mut desk, a, News::Waiting);
    let Some(agent_message::Kind::Progress(progress)) = desk.take_progress().unwrap().kind else {
        panic!("progress is progress");
    };
    assert_eq!(progress.stage, "waiting for the machine");
    for done in 0..3 {
        let progress = tritmark_suites::worker::WorkerProgress {
            stage: "items".to_owned(),
            done,
            total: 3,
        };
        say(&mut desk, a, News::Progress(progress));
    }
    let Some(agent_message::Kind::Progress(progress)) = desk.take_progress().unwrap().kind else {
        panic!("progress is progress");
    };
    assert_eq!((progress.done, progress.total), (2, 3));
    assert!(!desk.has_progress());
}

#[test]
fn a_heartbeat_names_the_attempt_in_hand() {
    let (_folder, mut desk) = a_desk();
    let running = |desk: &Desk| match desk.heartbeat().kind {
        Some(agent_message::Kind::Heartbeat(heartbeat)) => heartbeat.running,
        other => panic!("{other:?}"),
    };
    assert_eq!(running(&desk), None);
    let a = attempt(0, 1, 1);
    assign(&mut desk, a);
    assert_eq!(running(&desk), Some(a.into()));
}

#[test]
fn many_records_go_in_several_messages() {
    let (_folder, mut desk) = a_desk();
    let a = attempt(0, 1, 1);
    assign(&mut desk, a);
    records(&mut desk, a, 0..600);
    let lengths: Vec<_> = sent(&mut desk)
        .into_iter()
        .map(|sent| match sent {
            Sent::Records(_, sequences) => sequences.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(lengths, [256, 256, 88]);
}
