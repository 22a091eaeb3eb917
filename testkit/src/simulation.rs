//! The protocol of agents and coordinator in the order that a seed chooses.
//!
//! Both sides are the real ones ([`SimulatedCoordinator`], [`SimulatedAgent`]), without network,
//! clock and processes. A seed draws a fleet, a run, and then step after step what happens next: a
//! message arrives, time passes, a worker finds something out, a connection breaks and takes what was
//! under way with it, or is half open; an agent is killed, or its machine loses power and what was not
//! flushed; the store fails, fails after it has done its work, or the coordinator dies in the middle;
//! the clock is set. Then the faults end, and the run must end, too; [`check`] says whether anything
//! was lost. Equal seeds do the same, step by step.

#![expect(
    clippy::large_futures,
    reason = "they hold a whole coordinator, and live one at a time"
)]

use std::{path::Path, sync::Arc, time::Duration};

use tritmark_agent::simulation::SimulatedAgent;
use tritmark_coordinator::{
    Timing,
    schedule::Policy,
    simulation::SimulatedCoordinator,
    store::{StoredRun, plan_hash},
};
use tritmark_proto::job::RunId;
use uuid::Uuid;

use crate::{
    check::{Expected, Verdict, check},
    journal::Journal,
    memory::{Fate, MemoryStore},
    random::{Random, hash},
    work,
};

mod actor;
mod life;

use actor::Actor;

const SECOND: i64 = 1_000_000_000;
/// Steps after which a run without faults must have ended.
const CALM_STEPS: u32 = 20_000;

/// Short, so that leases end in the middle of everything.
const TIMING: Timing = Timing {
    lease: Duration::from_secs(4),
    heartbeat: Duration::from_secs(1),
    reclaim: Duration::from_secs(1),
    policy: Policy {
        // A job must not fail because of faults alone.
        max_attempts: 1000,
        retry_delay: Duration::from_millis(100),
        forget_machine_after: Duration::from_secs(20),
    },
    calibrate_every: None,
};

/// How a seed went.
#[derive(Debug)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// Steps until everything had ended.
    pub n_steps: u32,
    /// Times the coordinator was started.
    pub n_lives: u32,
    /// Faults of all kinds.
    pub n_faults: u32,
    /// What the check found.
    pub verdict: Verdict,
    /// What happened, where that was asked for.
    pub trace: Vec<String>,
}

/// Faults beyond those every network and machine has.
#[expect(clippy::struct_excessive_bools, reason = "each fault is there or not")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mode {
    /// Messages of one connection arrive twice or in another order.
    unruly: bool,
    /// A person cancels the run.
    cancels: bool,
    /// The coordinator's clock is set when it starts.
    sets_clock: bool,
    /// The store fails, also after it has done its work.
    store_fails: bool,
}

struct World {
    random: Random,
    mode: Mode,
    store: Arc<MemoryStore>,
    actors: Vec<Actor>,
    run: RunId,
    /// The time there really is.
    now: i64,
    /// What the coordinator's clock is off.
    clock_step: i64,
    n_steps: u32,
    chaos_steps: u32,
    n_faults: u32,
    n_lives: u32,
    keeps_trace: bool,
    trace: Vec<String>,
}

impl World {
    fn is_calm(&self) -> bool {
        self.n_steps >= self.chaos_steps
    }

    fn coordinator_now(&self) -> i64 {
        self.now + self.clock_step
    }

    fn say(&mut self, what: impl FnOnce() -> String) {
        if self.keeps_trace {
            let seconds = self.now as f64 / SECOND as f64;
            self.trace
                .push(format!("{:>5} {seconds:>11.3} s  {}", self.n_steps, what()));
        }
    }

    fn fault(&mut self, what: impl FnOnce() -> String) {
        self.n_faults += 1;
        self.say(what);
    }
}

/// Runs a seed; `folder` is empty and takes the agents' spools.
///
/// # Panics
/// If the folder cannot be written to.
pub async fn simulate(seed: u64, folder: &Path, keeps_trace: bool) -> Outcome {
    let mut random = Random::new(hash(&[seed]));
    let mode = Mode {
        unruly: random.chance(250),
        cancels: random.chance(50),
        sets_clock: random.chance(250),
        store_fails: random.chance(400),
    };
    let n_agents = 1 + random.below(4) as u32;
    let journal = Journal::default();
    let actors = (0..n_agents)
        .map(|number| {
            // Two agents share a machine now and then.
            let machine = if number > 0 && random.chance(200) {
                number - 1
            } else {
                number
            };
            Actor::new(number, machine, folder, journal.clone(), random.fork())
        })
        .collect();
    let run = RunId(Uuid::from_u128(u128::from(seed)));
    let mut world = World {
        mode,
        store: Arc::new(MemoryStore::default()),
        actors,
        run,
        now: 1_000_000 * SECOND,
        clock_step: 0,
        n_steps: 0,
        chaos_steps: 100 + random.below(500) as u32,
        n_faults: 0,
        n_lives: 0,
        keeps_trace,
        trace: Vec::new(),
        random,
    };
    let n_jobs = 1 + world.random.below(9) as u32;
    submit(&mut world, n_jobs).await;
    let mut has_ended = false;
    while !has_ended && world.n_steps < world.chaos_steps + CALM_STEPS {
        has_ended = life::live(&mut world).await;
    }
    let expected = Expected {
        clock_stepped: mode.sets_clock,
        unsuccessful: mode.cancels,
        overtaken: mode.unruly,
    };
    let mut verdict = check(&*world.store, &journal.entries(), expected)
        .await
        .expect("a store in memory can be read");
    if !has_ended {
        verdict
            .problems
            .push("without faults it does not come to an end".to_owned());
    }
    Outcome {
        seed,
        n_steps: world.n_steps,
        n_lives: world.n_lives,
        n_faults: world.n_faults,
        verdict,
        trace: world.trace,
    }
}

async fn submit(world: &mut World, n_jobs: u32) {
    let now = world.coordinator_now();
    let store: Arc<MemoryStore> = Arc::clone(&world.store);
    let (mut coordinator, _links) = SimulatedCoordinator::open(store, TIMING, now)
        .await
        .expect("an empty store opens");
    let run = StoredRun {
        id: world.run,
        name: "simulated".to_owned(),
        plan_toml: String::new(),
        plan_hash: plan_hash("", ""),
        submitted_unix_ns: now,
        ended_unix_ns: None,
        tritmark_version: "0".to_owned(),
        priority: 0,
        expires_unix_ns: None,
        paused_unix_ns: None,
    };
    let jobs = (0..n_jobs).map(|index| work::job(run.id, index)).collect();
    coordinator
        .submit(run, jobs, now)
        .await
        .expect("an empty store takes a run");
}

/// Starts an agent on what it left behind.
fn open(actor: &Actor, now: i64) -> SimulatedAgent {
    SimulatedAgent::open(
        &actor.agent_id,
        actor.machine.clone().into(),
        &actor.folder,
        actor.spool_max_bytes,
        now,
    )
    .expect("the folder is there")
}

/// Draws what the store will do wrong.
fn plan_fate(world: &mut World) {
    let n = world.random.below(12) as u32;
    let fate = match world
        .random
        .below(if world.mode.store_fails { 4 } else { 2 })
    {
        0 => Fate::DiesBefore,
        1 => Fate::DiesAfter,
        2 => Fate::Fails,
        _ => Fate::LosesAnswer,
    };
    world.store.plan(n, fate);
    world.fault(|| format!("the store's operation {n} from now: {fate:?}"));
}
