//! One connection as a byte stream: who is at its other end, and what cuts it.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Instant,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use super::{
    door::Place,
    limits::{Bucket, Limits, Rate},
};
use crate::identity::Identity;

/// Who is at the other end of a connection; an extension of each of its requests.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    address: SocketAddr,
    identity: Option<Arc<Identity>>,
    has_asked: Arc<AtomicBool>,
    cut: CancellationToken,
}

impl Peer {
    pub(super) fn new(address: SocketAddr, identity: Option<Arc<Identity>>) -> Self {
        Self {
            address,
            identity,
            has_asked: Arc::default(),
            cut: CancellationToken::new(),
        }
    }

    /// Returns who it is, where it has shown a certificate.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.identity.as_deref()
    }

    /// Returns where it is.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns its name for logs.
    pub(super) fn name(&self) -> &str {
        self.identity().map_or("-", |identity| &identity.name)
    }

    /// Takes note that a request has come.
    pub(super) fn has_asked(&self) {
        self.has_asked.store(true, Ordering::Relaxed);
    }

    /// Returns what ends the connection with all its calls.
    pub(super) fn cut(&self) -> &CancellationToken {
        &self.cut
    }
}

/// A connection that can be cut, that has to make a request in time and that sends no faster than
/// it may.
#[derive(Debug)]
pub(super) struct PeerStream<S> {
    stream: S,
    peer: Peer,
    rate: Rate,
    bucket: Bucket,
    /// Until then it does not read.
    pause: Option<Pin<Box<Sleep>>>,
    first_request: Option<Pin<Box<Sleep>>>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Its place among the connections, given up with it.
    _place: Place,
}

impl<S> PeerStream<S> {
    pub(super) fn new(stream: S, peer: Peer, limits: &Limits, place: Place) -> Self {
        // Two seconds' worth may come at once: a batch of records after a break.
        let per_s = limits.bytes_per_s as f64;
        let rate = Rate::new(per_s, 2.0 * per_s);
        Self {
            stream,
            rate,
            bucket: Bucket::new(rate, Instant::now()),
            pause: None,
            first_request: Some(Box::pin(tokio::time::sleep(limits.first_request_within))),
            cut: Box::pin(peer.cut.clone().cancelled_owned()),
            peer,
            _place: place,
        }
    }

    /// Fails where the connection has been cut or made no request in time.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.cut.as_mut().poll(context).is_ready() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if let Some(deadline) = &mut self.first_request {
            if self.peer.has_asked.load(Ordering::Relaxed) {
                self.first_request = None;
            } else if deadline.as_mut().poll(context).is_ready() {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "no request came in time",
                ));
            }
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PeerStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let n = buffer.filled().len() - before;
        let rate = self.rate;
        if let Some(wait) = self.bucket.owe(n as f64, rate, Instant::now()) {
            self.pause = Some(Box::pin(tokio::time::sleep(wait)));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PeerStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S> Connected for PeerStream<S> {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}
