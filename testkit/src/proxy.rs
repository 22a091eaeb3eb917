//! A network that does as a test says: a TCP proxy that delays, throttles, stalls, swallows, cuts
//! and resets, each direction by itself.
//!
//! What it cannot do in user space, dropping single packets, `.ci/netns` has the kernel do.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::random::Random;

pub mod script;

/// Bytes read at once.
const CHUNK_BYTES: usize = 16 << 10;
/// Chunks on their way; what is beyond stays in the sender's buffers.
const CHUNKS: usize = 64;

/// What happens to bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// How long each byte is under way.
    pub delay: Duration,
    /// Up to so much longer; order is kept.
    pub jitter: Duration,
    /// Bytes a second; 0: as many as come.
    pub bytes_per_s: u64,
    /// Nothing is read: the sender's buffers fill.
    pub stalls: bool,
    /// Everything is read and nothing passed on: the sender hears of no fault.
    pub swallows: bool,
}

/// What happens to connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// From who dials to who listens.
    pub up: Way,
    /// Back.
    pub down: Way,
    /// New connections are closed at once.
    pub refuses: bool,
}

impl Network {
    /// Both directions alike.
    pub fn both(way: Way) -> Self {
        Self {
            up: way,
            down: way,
            refuses: false,
        }
    }
}

/// How connections end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Properly, after what was under way is lost.
    Close,
    /// With a reset.
    Reset,
}

/// A proxy in front of one address.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    network: watch::Sender<Network>,
    /// Cancelled to end the connections there are; new ones get a new one.
    connections: Arc<Mutex<Ending>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Ending {
    token: CancellationToken,
    how: Arc<Mutex<End>>,
}

impl Ending {
    fn new() -> Self {
        Self {
            token: CancellationToken::new(),
            how: Arc::new(Mutex::new(End::Close)),
        }
    }
}

impl Proxy {
    /// Listens on a free port of this machine.
    pub async fn start(target: SocketAddr, seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        Self::on(listener, target, seed)
    }

    /// Takes connections of a listener to the target.
    pub fn on(listener: TcpListener, target: SocketAddr, seed: u64) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (network, rules) = watch::channel(Network::default());
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let connections = Arc::new(Mutex::new(Ending::new()));
        let accepting = accept(
            listener,
            target,
            rules,
            Arc::clone(&connections),
            tasks.clone(),
            Random::new(seed),
        );
        let stopped = stop.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = accepting => {}
            }
        });
        Ok(Self {
            address,
            network,
            connections,
            stop,
            tasks,
        })
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the network, for connections there are, too.
    pub fn set(&self, network: Network) {
        self.network.send_replace(network);
    }

    /// Ends the connections there are.
    pub fn end(&self, how: End) {
        let mut connections = lock(&self.connections);
        *lock(&connections.how) = how;
        connections.token.cancel();
        *connections = Ending::new();
    }

    /// Ends everything.
    pub async fn close(self) {
        self.end(End::Close);
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.end(End::Close);
        self.stop.cancel();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    rules: watch::Receiver<Network>,
    connections: Arc<Mutex<Ending>>,
    tasks: TaskTracker,
    mut random: Random,
) {
    loop {
        let Ok((near, _)) = listener.accept().await else {
            // Of too many open files, most likely.
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        if rules.borrow().refuses {
            continue;
        }
        let (token, how) = {
            let ending = lock(&connections);
            (ending.token.clone(), Arc::clone(&ending.how))
        };
        let rules = rules.clone();
        let random = (random.fork(), random.fork());
        // A target that refuses ends the connection, too.
        tasks.spawn(async move { carry(near, target, rules, random, &token, &how).await });
    }
}

/// Carries one connection until it has ended.
async fn carry(
    near: TcpStream,
    target: SocketAddr,
    rules: watch::Receiver<Network>,
    random: (Random, Random),
    token: &CancellationToken,
    how: &Mutex<End>,
) -> io::Result<()> {
    let far = tokio::select! {
        far = TcpStream::connect(target) => far?,
        () = token.cancelled() => return Ok(()),
    };
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let up = pass(
        near_read,
        far_write,
        rules.clone(),
        |network| network.up,
        random.0,
        (token, how),
    );
    let down = pass(
        far_read,
        near_write,
        rules,
        |network| network.down,
        random.1,
        (token, how),
    );
    // Each direction ends by itself, as TCP has it.
    tokio::join!(up, down);
    Ok(())
}

/// Passes on what one side says until it ends.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut rules: watch::Receiver<Network>,
    way: fn(&Network) -> Way,
    mut random: Random,
    (token, how): (&CancellationToken, &Mutex<End>),
) {
    let (under_way, mut arriving) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS);
    let mut reading_rules = rules.clone();
    let read = async move {
        let mut last = Instant::now();
        loop {
            while way(&reading_rules.borrow_and_update()).stalls {
                if reading_rules.changed().await.is_err() {
                    return;
                }
            }
            let mut chunk = vec![0; CHUNK_BYTES];
            let n = tokio::select! {
                read = from.read(&mut chunk) => match read {
                    Ok(n @ 1..) => n,
                    Ok(0) | Err(_) => return,
                },
                changed = reading_rules.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            };
            chunk.truncate(n);
            let Way {
                delay,
                jitter,
                swallows,
                ..
            } = way(&reading_rules.borrow());
            if swallows {
                continue;
            }
            last = last.max(Instant::now() + delay + random.up_to(jitter));
            if under_way.send((last, chunk)).await.is_err() {
                return;
            }
        }
    };
    let write = async {
        while let Some((due, chunk)) = arriving.recv().await {
            sleep_until(due).await;
            if to.write_all(&chunk).await.is_err() {
                return;
            }
            let rate = way(&rules.borrow_and_update()).bytes_per_s;
            if rate > 0 {
                sleep(Duration::from_secs_f64(chunk.len() as f64 / rate as f64)).await;
            }
        }
        let _ = to.shutdown().await;
    };
    let passing = async {
        // What has been read is still written after the end of reading.
        tokio::join!(read, write);
    };
    let is_reset = tokio::select! {
        () = passing => false,
        () = token.cancelled() => *lock(how) == End::Reset,
    };
    if is_reset {
        let _ = to.as_ref().set_zero_linger();
        // Else its end would be a proper one.
        to.forget();
    }
}

#[cfg(test)]
mod tests;
