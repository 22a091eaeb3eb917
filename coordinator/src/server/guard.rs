//! What every request passes: who asks, may they, how often, and the audit log.

use std::{
    convert::Infallible,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Sleep;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};
use tracing::error;
use tritmark_proto::identity::Role;

use super::{
    door::network,
    limits::{Buckets, Limits},
    peer::Peer,
    policy::{self, Rule},
    record::Recorder,
    tls::Revocations,
};
use crate::{
    identity::{AuditEntry, AuditEvent, now_unix_s},
    run::now_unix_ns,
};

type Answering = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

/// What a call was about, for the audit log: an extension of its response.
#[derive(Clone, Debug)]
pub(crate) struct AuditNote(pub(crate) String);

/// Decides about requests.
#[derive(Debug)]
pub(super) struct Guard {
    request_within: Duration,
    revocations: Arc<Revocations>,
    calls: Mutex<Buckets<String>>,
    strangers: Mutex<Buckets<IpAddr>>,
    recorder: Recorder,
}

impl Guard {
    pub(super) fn new(limits: &Limits, revocations: Arc<Revocations>, recorder: Recorder) -> Self {
        Self {
            request_within: limits.request_within,
            revocations,
            calls: Mutex::new(Buckets::new(limits.calls)),
            strangers: Mutex::new(Buckets::new(limits.enrollments)),
            recorder,
        }
    }

    /// Decides whether a request may go on.
    fn admit(&self, path: &str, peer: &Peer) -> Result<&'static Rule, Status> {
        let now = Instant::now();
        let is_in_rate = match peer.identity() {
            Some(identity) => lock(&self.calls).take(identity.name.clone(), now),
            None => lock(&self.strangers).take(network(peer.address().ip()), now),
        };
        if !is_in_rate {
            return Err(Status::resource_exhausted("too many calls; slow down"));
        }
        let role = peer.identity().map(|identity| identity.role);
        if let Some(identity) = peer.identity()
            && let Some(problem) = self.revocations.problem(identity, now_unix_s())
        {
            peer.cut().cancel();
            return Err(Status::unauthenticated(problem));
        }
        match policy::rule(path) {
            Some(known) if known.who.allows(role) => Ok(known),
            None if role.is_some() => Err(Status::unimplemented("there is no such call")),
            _ => Err(refusal(role)),
        }
    }
}

fn refusal(role: Option<Role>) -> Status {
    match role {
        Some(role) => Status::permission_denied(format!("role {role} may not make this call")),
        None => Status::unauthenticated("a client certificate is needed: enroll first"),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts a guard before the services; without one they are open, as on loopback.
#[derive(Clone, Debug)]
pub(super) struct GuardLayer(pub(super) Option<Arc<Guard>>);

impl<S> Layer<S> for GuardLayer {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded {
            inner,
            guard: self.0.clone(),
        }
    }
}

/// The services behind a guard.
#[derive(Clone, Debug)]
pub(super) struct Guarded<S> {
    inner: S,
    guard: Option<Arc<Guard>>,
}

impl<S> Service<http::Request<Body>> for Guarded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Answering {
        // The clone was not asked whether it is ready; the one that was is used up.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        match self.guard.clone() {
            None => Box::pin(inner.call(request)),
            Some(guard) => Box::pin(async move { Ok(guard.answer(inner, request).await) }),
        }
    }
}

impl Guard {
    async fn answer<S>(&self, mut inner: S, request: http::Request<Body>) -> http::Response<Body>
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    {
        let path = request.uri().path().to_owned();
        let Some(peer) = request.extensions().get::<Peer>().cloned() else {
            error!(path, "a request came over no known connection");
            return Status::internal("the connection is not known").into_http();
        };
        peer.has_asked();
        let rule = match self.admit(&path, &peer) {
            Ok(rule) => rule,
            Err(status) => {
                self.refused(&peer, &path, &status);
                return status.into_http();
            }
        };
        let request = if rule.streams {
            request
        } else {
            request.map(|body| Body::new(InTime::new(body, self.request_within)))
        };
        if !rule.changes {
            let response = infallible(inner.call(request).await);
            self.note_failure(&peer, &path, &response);
            return response;
        }
        let entry = entry(&peer, &path);
        let call = match self.recorder.called(entry.clone()).await {
            Ok(call) => call,
            Err(error) => {
                error!(
                    error = &error as &dyn std::error::Error,
                    path, "a call is refused because it cannot be audited"
                );
                return Status::unavailable("the audit log cannot be written").into_http();
            }
        };
        let response = infallible(inner.call(request).await);
        let detail = match (
            status_of(&response),
            response.extensions().get::<AuditNote>(),
        ) {
            (Some((code, message)), _) => format!("{code:?}: {message}"),
            (None, Some(AuditNote(note))) => format!("done: {note}"),
            (None, None) => "done".to_owned(),
        };
        self.recorder.ended(call, entry, &detail).await;
        self.note_failure(&peer, &path, &response);
        response
    }

    fn refused(&self, peer: &Peer, path: &str, status: &Status) {
        let serial = peer.identity().map(|identity| identity.serial.as_str());
        let reason = format!("{:?}: {}", status.code(), status.message());
        self.recorder
            .refused(peer.name(), serial, Some(peer.address()), path, &reason);
    }

    /// Writes down an answer that says that the caller is not to be trusted or makes no sense.
    fn note_failure(&self, peer: &Peer, path: &str, response: &http::Response<Body>) {
        if let Some((code, message)) = status_of(response)
            && !matches!(code, Code::NotFound | Code::Unavailable | Code::Cancelled)
        {
            self.refused(peer, path, &Status::new(code, message));
        }
    }
}

fn infallible<T>(result: Result<T, Infallible>) -> T {
    match result {
        Ok(value) => value,
        Err(never) => match never {},
    }
}

/// Returns the status of a response that failed before it had a body.
fn status_of(response: &http::Response<Body>) -> Option<(Code, String)> {
    let status = Status::from_header_map(response.headers())?;
    (status.code() != Code::Ok).then(|| (status.code(), status.message().to_owned()))
}

fn entry(peer: &Peer, path: &str) -> AuditEntry {
    AuditEntry {
        at_unix_ns: now_unix_ns(),
        event: AuditEvent::Call,
        peer: peer.name().to_owned(),
        serial: peer.identity().map(|identity| identity.serial.clone()),
        address: Some(peer.address().to_string()),
        what: path.to_owned(),
        detail: String::new(),
    }
}

/// A request's body that has to be there in time.
struct InTime {
    body: Body,
    deadline: Pin<Box<Sleep>>,
}

impl InTime {
    fn new(body: Body, within: Duration) -> Self {
        Self {
            body,
            deadline: Box::pin(tokio::time::sleep(within)),
        }
    }
}

impl HttpBody for InTime {
    type Data = <Body as HttpBody>::Data;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        self.deadline.as_mut().poll(context).map(|()| {
            Some(Err(Status::deadline_exceeded(
                "the request did not come in time",
            )))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
