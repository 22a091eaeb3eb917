//! Who has come in: the accepted connections, counted by address and by identity, and the TLS
//! handshakes that lead to them.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::{
    limits::Limits,
    peer::{Peer, PeerStream},
    record::Recorder,
    tls::Revocations,
};
use crate::identity::Identity;

/// Connections that are ready but not yet served.
const READY: usize = 64;

/// How long nothing is accepted after the system refused to: it has run out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A connection whose handshake is done.
pub(super) type Secured = PeerStream<TlsStream<TcpStream>>;

/// Lets connections in.
#[derive(Debug)]
pub(super) struct Door {
    limits: Limits,
    open: Mutex<Open>,
    recorder: Recorder,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    n: usize,
    by_address: HashMap<IpAddr, usize>,
    by_name: HashMap<String, usize>,
    known: HashMap<u64, Known>,
}

#[derive(Debug)]
struct Known {
    identity: Arc<Identity>,
    cut: CancellationToken,
}

/// A connection's place; dropped with it.
#[derive(Debug)]
pub(super) struct Place {
    door: Arc<Door>,
    id: u64,
    address: IpAddr,
    name: Option<String>,
}

impl Door {
    pub(super) fn new(limits: Limits, recorder: Recorder) -> Arc<Self> {
        Arc::new(Self {
            limits,
            open: Mutex::default(),
            recorder,
        })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // Counters are whole after every statement.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(self: &Arc<Self>, address: SocketAddr) -> Result<Place, &'static str> {
        let network = network(address.ip());
        let mut open = self.open();
        if open.n >= self.limits.connections {
            return Err("too many connections");
        }
        let of_address = open.by_address.entry(network).or_default();
        if *of_address >= self.limits.connections_per_address {
            return Err("too many connections from one address");
        }
        *of_address += 1;
        open.n += 1;
        open.next += 1;
        Ok(Place {
            door: Arc::clone(self),
            id: open.next,
            address: network,
            name: None,
        })
    }

    /// Cuts the connections of everybody who is no longer welcome.
    pub(super) fn cut_unwelcome(&self, revocations: &Revocations, now_unix_s: i64) {
        let unwelcome: Vec<_> = self
            .open()
            .known
            .values()
            .filter_map(|known| {
                let reason = revocations.problem(&known.identity, now_unix_s)?;
                Some((Arc::clone(&known.identity), known.cut.clone(), reason))
            })
            .collect();
        for (identity, cut, reason) in unwelcome {
            if !cut.is_cancelled() {
                cut.cancel();
                self.recorder.refused(
                    &identity.name,
                    Some(&identity.serial),
                    None,
                    "open connection",
                    reason,
                );
            }
        }
    }

    /// Accepts connections until stopped; those whose handshake succeeds come out of the channel.
    pub(super) fn accept(
        self: &Arc<Self>,
        listener: TcpListener,
        acceptor: TlsAcceptor,
        stop: CancellationToken,
    ) -> mpsc::Receiver<io::Result<Secured>> {
        let (ready, secured) = mpsc::channel(READY);
        let door = Arc::clone(self);
        let handshakes = Arc::new(Semaphore::new(self.limits.handshakes));
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = stop.cancelled() => return,
                    accepted = listener.accept() => accepted,
                };
                let (stream, address) = match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        error!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                };
                let place = match door.enter(address) {
                    Ok(place) => place,
                    Err(reason) => {
                        door.refused(address, "connection", reason);
                        continue;
                    }
                };
                let Ok(permit) = Arc::clone(&handshakes).try_acquire_owned() else {
                    door.refused(address, "connection", "too many handshakes at once");
                    continue;
                };
                let (door, acceptor, ready) = (Arc::clone(&door), acceptor.clone(), ready.clone());
                tokio::spawn(async move {
                    match door.handshake(stream, address, &acceptor, place).await {
                        Ok(secured) => {
                            drop(permit);
                            // The server has been stopped otherwise.
                            let _ = ready.send(Ok(secured)).await;
                        }
                        Err(reason) => door.refused(address, "TLS handshake", &reason),
                    }
                });
            }
        });
        secured
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        acceptor: &TlsAcceptor,
        place: Place,
    ) -> Result<Secured, String> {
        // What cannot be set makes calls slower, no more.
        let _ = stream.set_nodelay(true);
        let secured = tokio::time::timeout(self.limits.handshake_within, acceptor.accept(stream))
            .await
            .map_err(|_| "not done in time".to_owned())?
            .map_err(|error| error.to_string())?;
        let certificate = secured.get_ref().1.peer_certificates();
        let identity = certificate
            .and_then(|chain| chain.first())
            .map(|certificate| Identity::of_certificate(certificate))
            .transpose()
            .map_err(|error| error.to_string())?
            .map(Arc::new);
        let peer = Peer::new(address, identity.clone());
        let place = match identity {
            Some(identity) => place.identify(identity, peer.cut().clone())?,
            None => place,
        };
        Ok(PeerStream::new(secured, peer, &self.limits, place))
    }

    fn refused(&self, address: SocketAddr, what: &str, reason: &str) {
        self.recorder
            .refused("-", None, Some(address), what, reason);
    }
}

impl Place {
    /// Counts the connection to its identity.
    fn identify(
        mut self,
        identity: Arc<Identity>,
        cut: CancellationToken,
    ) -> Result<Self, &'static str> {
        let mut open = self.door.open();
        let of_name = open.by_name.entry(identity.name.clone()).or_default();
        if *of_name >= self.door.limits.connections_per_identity {
            return Err("too many connections of one identity");
        }
        *of_name += 1;
        let name = identity.name.clone();
        open.known.insert(self.id, Known { identity, cut });
        drop(open);
        self.name = Some(name);
        Ok(self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.door.open();
        let Open {
            next: _,
            n,
            by_address,
            by_name,
            known,
        } = &mut *open;
        *n -= 1;
        leave(by_address, &self.address);
        if let Some(name) = &self.name {
            leave(by_name, name);
            known.remove(&self.id);
        }
    }
}

fn leave<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// Returns what counts as one place: an IPv6 host has a whole /64 of addresses.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}
