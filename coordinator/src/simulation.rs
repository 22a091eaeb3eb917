//! A coordinator without network, clock and tasks, for simulations of the protocol.
//!
//! It is the coordinator's own code: the links' and the loop's, with whatever store it is given.
//! Whoever drives it says what arrives, in which order, and what time it is; equal calls have equal
//! effects. A crash is dropping it, at any await of the store.

use std::{pin::pin, sync::Arc};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tritmark_proto::{
    job::{Job, RunId},
    wire,
};

use crate::{
    link::{Link, LinkService, TO_AGENT},
    run::{Command, LoopHandle, Scoring, State, Timing, submit},
    store::{Store, StoreError, StoredRun},
};

/// A coordinator at work.
#[derive(Debug)]
pub struct SimulatedCoordinator {
    store: Arc<dyn Store>,
    state: State,
    run_loop: LoopHandle,
    commands: mpsc::Receiver<Command>,
}

/// Where the agents of a simulated coordinator connect.
#[derive(Debug)]
pub struct SimulatedLinks {
    service: LinkService,
}

/// An agent's connection, as the coordinator sees it.
#[derive(Debug)]
pub struct SimulatedLink<'a> {
    link: Link<'a>,
    from_coordinator: mpsc::Receiver<wire::CoordinatorMessage>,
}

impl SimulatedCoordinator {
    /// Opens what is in the store, as a coordinator does when it starts.
    pub async fn open(
        store: Arc<dyn Store>,
        timing: Timing,
        now_unix_ns: i64,
    ) -> Result<(Self, SimulatedLinks), StoreError> {
        let (run_loop, commands) = LoopHandle::new();
        let nobody = Scoring::new(None, run_loop.commands().downgrade());
        let state = State::load(Arc::clone(&store), timing, nobody, now_unix_ns).await?;
        let service = LinkService::new(
            Arc::clone(&store),
            run_loop.clone(),
            CancellationToken::new(),
            &timing,
            None,
        );
        let coordinator = Self {
            store,
            state,
            run_loop,
            commands,
        };
        Ok((coordinator, SimulatedLinks { service }))
    }

    /// Takes a run.
    ///
    /// # Panics
    /// Never: the loop is this one.
    pub async fn submit(
        &mut self,
        run: StoredRun,
        jobs: Vec<Job>,
        now_unix_ns: i64,
    ) -> Result<(), StoreError> {
        let run_loop = self.run_loop.clone();
        let store = Arc::clone(&self.store);
        let asked = submit(&*store, &run_loop, run, jobs);
        self.serve(asked, now_unix_ns)
            .await
            .expect("the loop is here")
    }

    /// Cancels a run; see the loop's answer.
    ///
    /// # Panics
    /// Never: the loop is this one.
    pub async fn cancel(
        &mut self,
        run: RunId,
        now_unix_ns: i64,
    ) -> Result<Option<u32>, StoreError> {
        let run_loop = self.run_loop.clone();
        let asked = run_loop.ask(|reply| Command::Cancel { run, reply });
        self.serve(asked, now_unix_ns)
            .await
            .expect("the loop is here")
    }

    /// Takes an agent's registration; the answer is the connection's first message.
    ///
    /// # Errors
    /// What the agent would be refused with.
    pub async fn connect<'a>(
        &mut self,
        links: &'a SimulatedLinks,
        register: wire::Register,
        now_unix_ns: i64,
    ) -> Result<SimulatedLink<'a>, Box<Status>> {
        let (to_agent, from_coordinator) = mpsc::channel(TO_AGENT);
        let registered = links.service.register(register, to_agent, None);
        let link = self.serve(registered, now_unix_ns).await?;
        Ok(SimulatedLink {
            link,
            from_coordinator,
        })
    }

    /// Takes a message of a registered agent.
    ///
    /// # Errors
    /// Why the coordinator ends the connection.
    pub async fn take(
        &mut self,
        link: &mut SimulatedLink<'_>,
        message: wire::AgentMessage,
        now_unix_ns: i64,
    ) -> Result<(), Box<Status>> {
        let Some(kind) = message.kind else {
            return Ok(());
        };
        Ok(self.serve(link.link.take(kind), now_unix_ns).await?)
    }

    /// Notes that a connection is over.
    pub async fn disconnect(&mut self, link: SimulatedLink<'_>, now_unix_ns: i64) {
        self.command(link.link.gone(), now_unix_ns).await;
    }

    /// Does what time asks for.
    ///
    /// # Errors
    /// What the store cannot do; it is tried again the next time.
    pub async fn advance(&mut self, now_unix_ns: i64) -> Result<(), StoreError> {
        self.state.advance(now_unix_ns).await
    }

    /// Returns when [`Self::advance`] has something to do.
    pub fn next_deadline(&self, now_unix_ns: i64) -> Option<i64> {
        self.state.next_deadline(now_unix_ns)
    }

    /// Awaits a task of the network's side while the loop does what it is asked.
    async fn serve<T>(&mut self, task: impl Future<Output = T>, now_unix_ns: i64) -> T {
        let mut task = pin!(task);
        let output = loop {
            tokio::select! {
                biased;
                command = self.commands.recv() => {
                    if let Some(command) = command {
                        self.command(command, now_unix_ns).await;
                    }
                }
                output = &mut task => break output,
            }
        };
        while let Ok(command) = self.commands.try_recv() {
            self.command(command, now_unix_ns).await;
        }
        output
    }

    async fn command(&mut self, command: Command, now_unix_ns: i64) {
        self.state.handle_all(vec![command], now_unix_ns).await;
        // As in the loop: what could not be written was not done, and is tried again.
        let _ = self.state.advance(now_unix_ns).await;
    }
}

impl SimulatedLink<'_> {
    /// Returns the next message to the agent.
    pub fn next_message(&mut self) -> Option<wire::CoordinatorMessage> {
        self.from_coordinator.try_recv().ok()
    }

    /// Tells whether the coordinator has replaced or given up the connection.
    pub fn is_cut(&self) -> bool {
        self.link.is_cut()
    }
}
