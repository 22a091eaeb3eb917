//! What was asked and what was refused, in the log and in the audit log.
//!
//! Refusals are what an attacker can make many of: so many a second are written down, the others
//! are counted, and the audit log gets them from a task of its own.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use tokio::sync::mpsc;
use tracing::{error, warn};

use super::limits::{Bucket, Rate};
use crate::{
    identity::{AuditEntry, AuditEvent, IdentityError, IdentityStore},
    run::now_unix_ns,
};

/// Refusals that may wait for the audit log.
const WAITING: usize = 256;

/// Longest text of a peer's that goes into the logs.
const MAX_DETAIL: usize = 512;

/// Writes logs.
#[derive(Clone, Debug)]
pub(super) struct Recorder {
    store: Arc<dyn IdentityStore>,
    refusals: mpsc::Sender<AuditEntry>,
    rate: Rate,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    bucket: Bucket,
    n_unsaid: u64,
}

impl Recorder {
    pub(super) fn new(store: Arc<dyn IdentityStore>, rate: Rate) -> Self {
        let (refusals, mut waiting) = mpsc::channel::<AuditEntry>(WAITING);
        let keeper = Arc::clone(&store);
        tokio::spawn(async move {
            while let Some(entry) = waiting.recv().await {
                if let Err(error) = keeper.audit(&entry).await {
                    error!(
                        error = &error as &dyn std::error::Error,
                        "a refusal is not kept"
                    );
                }
            }
        });
        Self {
            store,
            refusals,
            rate,
            state: Arc::new(Mutex::new(State {
                bucket: Bucket::new(rate, Instant::now()),
                n_unsaid: 0,
            })),
        }
    }

    /// Writes down that something was refused.
    pub(super) fn refused(
        &self,
        peer: &str,
        serial: Option<&str>,
        address: Option<SocketAddr>,
        what: &str,
        reason: &str,
    ) {
        let n_unsaid = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if !state.bucket.take(self.rate, Instant::now()) {
                state.n_unsaid += 1;
                return;
            }
            std::mem::take(&mut state.n_unsaid)
        };
        let (what, mut detail) = (short(what), short(reason));
        if n_unsaid > 0 {
            detail =
                format!("{detail} (and {n_unsaid} refusals before that were not written down)");
        }
        let address = address.map(|address| address.to_string());
        warn!(peer, serial, address, what, reason = detail, "refused");
        let entry = AuditEntry {
            at_unix_ns: now_unix_ns(),
            event: AuditEvent::Denied,
            peer: peer.to_owned(),
            serial: serial.map(str::to_owned),
            address,
            what,
            detail,
        };
        if self.refusals.try_send(entry).is_err() {
            error!("the audit log is behind: a refusal is not kept");
        }
    }

    /// Writes down a call that may change something, before it does.
    pub(super) async fn called(&self, mut entry: AuditEntry) -> Result<i64, IdentityError> {
        entry.event = AuditEvent::Call;
        self.store.audit(&entry).await
    }

    /// Writes down how such a call ended.
    pub(super) async fn ended(&self, call: i64, mut entry: AuditEntry, detail: &str) {
        entry.event = AuditEvent::Outcome { call };
        entry.at_unix_ns = now_unix_ns();
        entry.detail = short(detail);
        if let Err(error) = self.store.audit(&entry).await {
            error!(
                error = &error as &dyn std::error::Error,
                call, "how a call ended is not kept"
            );
        }
    }
}

/// Returns a text without control characters, and not too long.
fn short(text: &str) -> String {
    text.chars()
        .take(MAX_DETAIL)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}
