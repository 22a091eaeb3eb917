//! What the simulation has found once, told step by step.

use std::{sync::Arc, time::Duration};

use tritmark_coordinator::{
    Timing,
    schedule::Policy,
    simulation::{SimulatedCoordinator, SimulatedLink, SimulatedLinks},
    store::{AttemptState, Store as _, StoredJob, StoredRun, plan_hash},
};
use tritmark_proto::{
    bundle::JobState,
    job::RunId,
    wire::{self, coordinator_message::Kind},
};
use tritmark_testkit::{
    light::{agent_id, machine},
    memory::{Fate, MemoryStore},
    work,
};

const SECOND: i64 = 1_000_000_000;
const NOW: i64 = 1_000_000 * SECOND;
const TIMING: Timing = Timing {
    lease: Duration::from_secs(10),
    heartbeat: Duration::from_secs(1),
    reclaim: Duration::from_secs(1),
    policy: Policy {
        max_attempts: 1,
        retry_delay: Duration::from_secs(1),
        forget_machine_after: Duration::from_mins(1),
    },
    calibrate_every: None,
};

async fn open(store: &Arc<MemoryStore>, now: i64) -> (SimulatedCoordinator, SimulatedLinks) {
    SimulatedCoordinator::open(Arc::clone(store) as _, TIMING, now)
        .await
        .expect("the store opens")
}

/// A store with a run of one job.
async fn one_job() -> (Arc<MemoryStore>, RunId) {
    let store = Arc::new(MemoryStore::default());
    let run = StoredRun {
        id: RunId::generate(),
        name: "one".to_owned(),
        plan_toml: String::new(),
        plan_hash: plan_hash("", ""),
        submitted_unix_ns: NOW,
        ended_unix_ns: None,
        tritmark_version: "0".to_owned(),
        priority: 0,
        expires_unix_ns: None,
        paused_unix_ns: None,
    };
    let id = run.id;
    let (mut coordinator, _links) = open(&store, NOW).await;
    coordinator
        .submit(run, vec![work::job(id, 0)], NOW)
        .await
        .expect("it is stored");
    (store, id)
}

async fn connect<'a>(
    coordinator: &mut SimulatedCoordinator,
    links: &'a SimulatedLinks,
    now: i64,
) -> SimulatedLink<'a> {
    let register = wire::Register {
        agent_id: agent_id(1),
        version: "0".to_owned(),
        machine: Some(machine("m").into()),
        labels: [].into(),
        running: None,
        suites: Vec::new(),
        ..wire::Register::default()
    };
    coordinator
        .connect(links, register, now)
        .await
        .expect("it is welcome")
}

async fn job(store: &MemoryStore, run: RunId) -> StoredJob {
    let mut jobs = store.jobs(run).await.expect("it is there");
    jobs.swap_remove(0)
}

#[tokio::test]
async fn the_answer_to_a_registration_goes_before_an_assignment() {
    let (store, _) = one_job().await;
    let (mut coordinator, links) = open(&store, NOW).await;
    let mut link = connect(&mut coordinator, &links, NOW).await;
    let mut next = || link.next_message().and_then(|message| message.kind);
    assert!(matches!(next(), Some(Kind::Registered(_))));
    assert!(matches!(next(), Some(Kind::Assign(_))));
}

#[tokio::test]
async fn a_clock_set_back_between_two_lives_uses_up_no_try() {
    let (store, run) = one_job().await;
    let (mut coordinator, links) = open(&store, NOW).await;
    let link = connect(&mut coordinator, &links, NOW).await;
    drop((coordinator, link));
    assert_eq!(job(&store, run).await.state, JobState::Running);

    let earlier = NOW - 3600 * SECOND;
    let (mut coordinator, _links) = open(&store, earlier).await;
    let over = earlier + 11 * SECOND;
    coordinator.advance(over).await.expect("it is stored");
    let job = job(&store, run).await;
    assert_eq!(job.state, JobState::Queued, "its only try is not used up");
    assert_eq!(job.attempts[0].state, AttemptState::Lost);
    assert!(!job.attempts[0].counts);
}

#[tokio::test]
async fn an_attempt_whose_beginning_was_stored_and_not_answered_is_not_tried_for_ever() {
    let (store, run) = one_job().await;
    let (mut coordinator, links) = open(&store, NOW).await;
    // The agent is stored first, then the attempt.
    store.plan(1, Fate::LosesAnswer);
    let mut link = connect(&mut coordinator, &links, NOW).await;
    while let Some(message) = link.next_message() {
        assert!(
            !matches!(message.kind, Some(Kind::Assign(_))),
            "{message:?}"
        );
    }
    let mut now = NOW;
    let mut assigned = None;
    while assigned.is_none() {
        now += SECOND;
        assert!(now < NOW + 100 * SECOND, "{:?}", job(&store, run).await);
        let beat = wire::Heartbeat { running: None };
        let beat = wire::AgentMessage {
            kind: Some(wire::agent_message::Kind::Heartbeat(beat)),
        };
        coordinator
            .take(&mut link, beat, now)
            .await
            .expect("it is understood");
        while let Some(message) = link.next_message() {
            if let Some(Kind::Assign(assign)) = message.kind {
                assigned = assign.attempt;
            }
        }
        if job(&store, run).await.state.is_final() {
            // Its only try was lost with the answer.
            break;
        }
    }
    let job = job(&store, run).await;
    assert_eq!(job.attempts[0].state, AttemptState::Lost);
}
