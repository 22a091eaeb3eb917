//! One life of a coordinator: from its start on the store to its death, or to the end of everything.

use std::{collections::VecDeque, sync::Arc};

use tritmark_coordinator::{
    simulation::{SimulatedCoordinator, SimulatedLink, SimulatedLinks},
    store::Store as _,
};
use tritmark_proto::{job::AttemptId, wire};

use super::{SECOND, TIMING, World, open, plan_fate};
use crate::{journal::Entry, memory::MemoryStore, random::Random};

/// Messages that may wait for a stream, as the agent has it.
const OUTGOING: usize = 16;

/// The coordinator is dead.
struct Died;

/// A connection; either end may be gone without the other's knowing.
struct Connection<'a> {
    actor: usize,
    /// `None` once the coordinator has closed it.
    link: Option<SimulatedLink<'a>>,
    /// Whether the agent has it open.
    is_open: bool,
    /// Whether the coordinator hears of the agent's end once `up` is empty.
    says_end: bool,
    /// Under way, with when they arrive.
    up: VecDeque<(i64, wire::AgentMessage)>,
    down: VecDeque<(i64, wire::CoordinatorMessage)>,
}

struct Life<'a, 'w> {
    world: &'w mut World,
    coordinator: SimulatedCoordinator,
    links: &'a SimulatedLinks,
    connections: Vec<Connection<'a>>,
    last_beat: i64,
}

/// Lives until the coordinator dies; true once the run has ended and every agent knows it.
pub(super) async fn live(world: &mut World) -> bool {
    world.n_lives += 1;
    if world.mode.sets_clock && world.n_lives > 1 {
        world.clock_step = world.random.below(7200).cast_signed() * SECOND - 3600 * SECOND;
        let step = world.clock_step / SECOND;
        world.say(|| format!("the coordinator's clock is off by {step} s"));
    }
    if world.is_calm() {
        world.store.calm();
    }
    let store: Arc<MemoryStore> = Arc::clone(&world.store);
    let now = world.coordinator_now();
    let opened = tokio::select! {
        biased;
        () = store.died() => return false,
        opened = SimulatedCoordinator::open(Arc::clone(&store) as _, TIMING, now) => opened,
    };
    let Ok((coordinator, links)) = opened else {
        world.say(|| "the coordinator cannot open its store".to_owned());
        world.n_steps += 1;
        return false;
    };
    world.say(|| "the coordinator has started".to_owned());
    let last_beat = world.now;
    let mut life = Life {
        world,
        coordinator,
        links: &links,
        connections: Vec::new(),
        last_beat,
    };
    loop {
        match life.step().await {
            Ok(false) => {}
            Ok(true) => return true,
            Err(Died) => {
                life.world.fault(|| "the coordinator dies".to_owned());
                return false;
            }
        }
    }
}

impl Life<'_, '_> {
    /// Something happens; true once everything has ended.
    async fn step(&mut self) -> Result<bool, Died> {
        self.world.n_steps += 1;
        if self.world.is_calm() {
            if self.world.n_steps == self.world.chaos_steps {
                self.world.store.calm();
                self.world.say(|| "no more faults".to_owned());
            }
            if self.world.n_steps > self.world.chaos_steps + super::CALM_STEPS {
                return Err(Died);
            }
        }
        self.pass_time();
        let now = self.world.coordinator_now();
        if self
            .coordinator
            .next_deadline(now)
            .is_some_and(|due| due <= now)
        {
            let store = Arc::clone(&self.world.store);
            // An error is the store's; the loop tries again.
            let _ = or_died(&store, self.coordinator.advance(now)).await?;
            self.collect().await?;
        }
        if !self.world.is_calm() && self.world.random.chance(60) {
            self.fault().await?;
        }
        let actor = self.world.random.below(self.world.actors.len() as u64) as usize;
        self.act(actor).await?;
        self.arrive().await?;
        if self.world.is_calm() {
            return Ok(self.has_ended().await);
        }
        Ok(false)
    }

    fn pass_time(&mut self) {
        let world = &mut *self.world;
        let most = if !world.is_calm() && world.random.chance(20) {
            6 * SECOND
        } else {
            SECOND / 20
        };
        world.now += world.random.below(most.cast_unsigned()).cast_signed();
        if world.now - self.last_beat < SECOND {
            return;
        }
        self.last_beat = world.now;
        for connection in self.connections.iter_mut().filter(|open| open.is_open) {
            if let Some(agent) = &world.actors[connection.actor].agent
                && connection.up.len() < OUTGOING
            {
                let due = world.now;
                connection.up.push_back((due, agent.heartbeat()));
            }
        }
    }

    /// An agent does one thing.
    async fn act(&mut self, actor: usize) -> Result<(), Died> {
        let world = &mut *self.world;
        let is_calm = world.is_calm();
        let now = world.now;
        let what = world.random.below(10);
        let this = &mut world.actors[actor];
        if this.agent.is_none() {
            if is_calm || what < 3 {
                this.agent = Some(open(this, now));
                let number = this.number;
                world.say(|| format!("agent {number} starts"));
            }
            return Ok(());
        }
        let place = self
            .connections
            .iter()
            .position(|connection| connection.actor == actor && connection.is_open);
        let Some(place) = place else {
            if is_calm || what < 4 {
                return self.connect(actor).await;
            }
            world.actors[actor].work(!is_calm, now);
            return Ok(());
        };
        match what {
            0..=3 => this.work(!is_calm, now),
            4..=5 => {
                if let Some(agent) = &mut this.agent
                    && agent.needs_flush()
                {
                    if !is_calm && this.random.chance(20) {
                        agent.fail_flush();
                        let number = this.number;
                        world.fault(|| format!("agent {number} cannot flush"));
                    } else {
                        agent.flush();
                    }
                }
            }
            _ => self.send(place),
        }
        Ok(())
    }

    /// The agent puts its next message on the way.
    fn send(&mut self, place: usize) {
        let world = &mut *self.world;
        let connection = &mut self.connections[place];
        if connection.up.len() >= OUTGOING {
            return;
        }
        let actor = &mut world.actors[connection.actor];
        if let Some(message) = actor
            .agent
            .as_mut()
            .and_then(tritmark_agent::simulation::SimulatedAgent::next_message)
        {
            let due = due(&mut world.random, world.now, connection.up.back());
            put(world, &mut connection.up, due, message);
        }
    }

    async fn connect(&mut self, actor: usize) -> Result<(), Died> {
        let store = Arc::clone(&self.world.store);
        let this = &mut self.world.actors[actor];
        let number = this.number;
        let Some(agent) = &mut this.agent else {
            return Ok(());
        };
        let Some(wire::agent_message::Kind::Register(register)) = agent.register().kind else {
            return Ok(());
        };
        self.world.say(|| {
            let running = register.running.as_ref().map(|running| running.fence);
            format!("agent {number} registers with fence {running:?}")
        });
        let now = self.world.coordinator_now();
        let connected = self.coordinator.connect(self.links, register, now);
        match or_died(&store, connected).await? {
            Ok(link) => self.connections.push(Connection {
                actor,
                link: Some(link),
                is_open: true,
                says_end: true,
                up: VecDeque::new(),
                down: VecDeque::new(),
            }),
            Err(status) => self
                .world
                .say(|| format!("agent {number} is refused: {status}")),
        }
        self.collect().await
    }

    /// What is due arrives.
    async fn arrive(&mut self) -> Result<(), Died> {
        let store = Arc::clone(&self.world.store);
        let mut place = 0;
        while place < self.connections.len() {
            let (real, now) = (self.world.now, self.world.coordinator_now());
            let connection = &mut self.connections[place];
            if let Some(link) = &mut connection.link {
                if connection.up.front().is_some_and(|(due, _)| *due <= real) {
                    let (_, message) = connection.up.pop_front().expect("it is there");
                    let number = connection.actor;
                    self.world
                        .say(|| format!("agent {number} → {}", sent(&message)));
                    let taken = or_died(&store, self.coordinator.take(link, message, now)).await?;
                    if let Err(status) = taken {
                        self.world
                            .say(|| format!("the link of agent {number} ends: {status}"));
                        let link = connection.link.take().expect("it is there");
                        or_died(&store, self.coordinator.disconnect(link, now)).await?;
                    }
                    self.collect().await?;
                } else if !connection.is_open && connection.says_end && connection.up.is_empty() {
                    let link = connection.link.take().expect("it is there");
                    or_died(&store, self.coordinator.disconnect(link, now)).await?;
                    self.collect().await?;
                }
            }
            let world = &mut *self.world;
            let connection = &mut self.connections[place];
            if connection.is_open {
                if connection.down.front().is_some_and(|(due, _)| *due <= real) {
                    let (_, message) = connection.down.pop_front().expect("it is there");
                    let number = connection.actor;
                    world.say(|| format!("agent {number} ← {}", heard(&message)));
                    let actor = &mut world.actors[number];
                    if let Some(entry) = acknowledged(&message) {
                        actor.journal.note(entry);
                    }
                    if let Some(agent) = &mut actor.agent {
                        agent.take(message, real);
                    }
                } else if connection.link.is_none() && connection.down.is_empty() {
                    connection.is_open = false;
                }
            }
            let is_over = connection.link.is_none() && !connection.is_open;
            if is_over {
                self.connections.remove(place);
            } else {
                place += 1;
            }
        }
        Ok(())
    }

    /// Puts on the way what the coordinator has said, and ends what it has cut.
    async fn collect(&mut self) -> Result<(), Died> {
        let store = Arc::clone(&self.world.store);
        for place in 0..self.connections.len() {
            let world = &mut *self.world;
            let connection = &mut self.connections[place];
            let Some(link) = &mut connection.link else {
                continue;
            };
            while let Some(message) = link.next_message() {
                let due = due(&mut world.random, world.now, connection.down.back());
                let is_first = matches!(
                    message.kind,
                    Some(wire::coordinator_message::Kind::Registered(_))
                );
                if is_first {
                    connection.down.push_back((due, message));
                } else {
                    put(world, &mut connection.down, due, message);
                }
            }
            if link.is_cut() {
                let now = world.coordinator_now();
                let link = connection.link.take().expect("it is there");
                or_died(&store, self.coordinator.disconnect(link, now)).await?;
            }
        }
        Ok(())
    }

    async fn fault(&mut self) -> Result<(), Died> {
        let world = &mut *self.world;
        let actor = world.random.below(world.actors.len() as u64) as usize;
        let number = world.actors[actor].number;
        match world.random.below(8) {
            0 | 1 => {
                world.fault(|| format!("the connections of agent {number} break"));
                self.part(actor);
            }
            2 => {
                world.fault(|| format!("agent {number} is killed"));
                world.actors[actor].kill();
                self.part(actor);
            }
            3 => {
                world.fault(|| format!("the machine of agent {number} loses power"));
                world.actors[actor].cut_power();
                self.part(actor);
            }
            4 => return Err(Died),
            5 => {
                if world.mode.cancels && world.random.chance(200) {
                    let (run, now) = (world.run, world.coordinator_now());
                    world.fault(|| "the run is cancelled".to_owned());
                    let store = Arc::clone(&world.store);
                    let _ = or_died(&store, self.coordinator.cancel(run, now)).await?;
                    self.collect().await?;
                }
            }
            _ => plan_fate(world),
        }
        Ok(())
    }

    /// Breaks an agent's connections: what is under way arrives up to some point; the agent knows, and
    /// the coordinator hears of it afterwards or never.
    fn part(&mut self, actor: usize) {
        let random = &mut self.world.random;
        for connection in &mut self.connections {
            if connection.actor == actor && connection.is_open {
                let kept = random.below(connection.up.len() as u64 + 1) as usize;
                connection.up.truncate(kept);
                connection.down.clear();
                connection.is_open = false;
                connection.says_end = random.chance(600);
            }
        }
    }

    async fn has_ended(&self) -> bool {
        let store = &self.world.store;
        let run = store.run(self.world.run).await;
        let has_ended = matches!(run, Ok(Some(run)) if run.ended_unix_ns.is_some());
        has_ended
            && self.world.actors.iter().all(|actor| {
                actor
                    .agent
                    .as_ref()
                    .is_some_and(tritmark_agent::simulation::SimulatedAgent::is_clear)
            })
    }
}

/// Awaits what the coordinator does, unless it dies in it.
async fn or_died<T>(store: &MemoryStore, does: impl Future<Output = T>) -> Result<T, Died> {
    tokio::select! {
        biased;
        () = store.died() => Err(Died),
        done = does => Ok(done),
    }
}

/// When a message arrives: after those before it.
fn due<T>(random: &mut Random, now: i64, last: Option<&(i64, T)>) -> i64 {
    let due = now + random.below(SECOND.cast_unsigned() / 4).cast_signed();
    last.map_or(due, |(last, _)| due.max(*last))
}

/// Puts a message on the way; an unruly network doubles it or lets it overtake.
fn put<T: Clone>(world: &mut World, way: &mut VecDeque<(i64, T)>, due: i64, message: T) {
    if world.mode.unruly && !world.is_calm() {
        if world.random.chance(50) {
            way.push_back((due, message.clone()));
        }
        if world.random.chance(50) && way.len() > 1 {
            let place = way.len() - 1;
            way.insert(place, (due, message));
            return;
        }
    }
    way.push_back((due, message));
}

fn acknowledged(message: &wire::CoordinatorMessage) -> Option<Entry> {
    match &message.kind {
        Some(wire::coordinator_message::Kind::Ack(ack)) => Some(Entry::Acknowledged {
            attempt: AttemptId::try_from(ack.attempt.clone()?).ok()?,
            stored_below: ack.stored_below,
            finished: ack.finished,
        }),
        _ => None,
    }
}

fn fence(attempt: Option<&wire::AttemptRef>) -> String {
    attempt.map_or_else(
        || "nothing".to_owned(),
        |attempt| format!("job {} fence {}", attempt.job_index, attempt.fence),
    )
}

fn sent(message: &wire::AgentMessage) -> String {
    use wire::agent_message::Kind;
    match &message.kind {
        Some(Kind::Heartbeat(beat)) => format!("heartbeat of {}", fence(beat.running.as_ref())),
        Some(Kind::Started(started)) => format!("started {}", fence(started.attempt.as_ref())),
        Some(Kind::Records(batch)) => format!(
            "records {:?} of {}",
            batch
                .records
                .iter()
                .map(|record| record.sequence)
                .collect::<Vec<_>>(),
            fence(batch.attempt.as_ref())
        ),
        Some(Kind::Finished(end)) => format!(
            "end after {} of {}: {:?}",
            end.n_records,
            fence(end.attempt.as_ref()),
            end.failure.as_ref().map(|failure| &failure.message)
        ),
        other => format!("{other:?}"),
    }
}

fn heard(message: &wire::CoordinatorMessage) -> String {
    use wire::coordinator_message::Kind;
    match &message.kind {
        Some(Kind::Registered(registered)) => {
            format!("registered, abandon: {}", registered.abandon_running)
        }
        Some(Kind::Assign(assign)) => format!(
            "assign {} from item {}",
            fence(assign.attempt.as_ref()),
            assign.items_done
        ),
        Some(Kind::Ack(ack)) => format!(
            "ack below {} finished {} of {}",
            ack.stored_below,
            ack.finished,
            fence(ack.attempt.as_ref())
        ),
        Some(Kind::Cancel(cancel)) => {
            format!(
                "cancel {}: {}",
                fence(cancel.attempt.as_ref()),
                cancel.reason
            )
        }
        Some(Kind::Drain(_)) => "leave".to_owned(),
        Some(Kind::Calibrate(calibrate)) => format!("calibrate {}", calibrate.number),
        None => "nothing".to_owned(),
    }
}
