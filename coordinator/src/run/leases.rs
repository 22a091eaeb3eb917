//! Which attempts run, until when each must have been heard of, and what that makes of the machines.

use std::collections::{BTreeSet, HashMap};

use tritmark_proto::job::AttemptId;

use crate::schedule::Load;

/// How long an attempt may go on unheard.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    pub(super) until_unix_ns: i64,
    /// As the store has it; it is moved seldom, since a restart lets all agents come back anyway.
    pub(super) stored_until_unix_ns: i64,
    /// Its agent came back without it: it only has to hand in what it spooled.
    pub(super) is_reclaim: bool,
    /// Its agent is not linked to this coordinator: whoever has it renews it.
    pub(super) is_foreign: bool,
    /// Where it runs.
    pub(super) machine_id: String,
    /// Whether it needs the machine to itself.
    pub(super) is_exclusive: bool,
}

impl Lease {
    /// The lease of an attempt that was begun here just now.
    pub(super) fn begun(until_unix_ns: i64, machine_id: String, is_exclusive: bool) -> Self {
        Self {
            until_unix_ns,
            stored_until_unix_ns: until_unix_ns,
            is_reclaim: false,
            is_foreign: false,
            machine_id,
            is_exclusive,
        }
    }
}

/// Every lease, by attempt and by time.
#[derive(Debug, Default)]
pub(super) struct Leases {
    by_attempt: HashMap<AttemptId, Lease>,
    by_time: BTreeSet<(i64, AttemptId)>,
    loads: HashMap<String, Counts>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    n_running: u32,
    n_exclusive: u32,
}

impl Leases {
    pub(super) fn get(&self, attempt: &AttemptId) -> Option<&Lease> {
        self.by_attempt.get(attempt)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&AttemptId, &Lease)> {
        self.by_attempt.iter()
    }

    /// Adds or replaces a lease.
    pub(super) fn insert(&mut self, attempt: AttemptId, lease: Lease) {
        self.remove(&attempt);
        self.by_time.insert((lease.until_unix_ns, attempt));
        let counts = self.loads.entry(lease.machine_id.clone()).or_default();
        counts.n_running += 1;
        counts.n_exclusive += u32::from(lease.is_exclusive);
        self.by_attempt.insert(attempt, lease);
    }

    pub(super) fn remove(&mut self, attempt: &AttemptId) -> Option<Lease> {
        let lease = self.by_attempt.remove(attempt)?;
        self.by_time.remove(&(lease.until_unix_ns, *attempt));
        if let Some(counts) = self.loads.get_mut(&lease.machine_id) {
            counts.n_running -= 1;
            counts.n_exclusive -= u32::from(lease.is_exclusive);
            if counts.n_running == 0 {
                self.loads.remove(&lease.machine_id);
            }
        }
        Some(lease)
    }

    /// Changes a lease, if there is one.
    pub(super) fn change(&mut self, attempt: &AttemptId, change: impl FnOnce(&mut Lease)) {
        if let Some(lease) = self.by_attempt.get_mut(attempt) {
            let before = lease.until_unix_ns;
            change(lease);
            if lease.until_unix_ns != before {
                self.by_time.remove(&(before, *attempt));
                self.by_time.insert((lease.until_unix_ns, *attempt));
            }
        }
    }

    /// Returns the attempts whose leases are over, the earliest first.
    pub(super) fn over(&self, now: i64) -> Vec<AttemptId> {
        self.by_time
            .iter()
            .take_while(|(until, _)| *until <= now)
            .map(|(_, attempt)| *attempt)
            .collect()
    }

    /// Returns when the next lease is over.
    pub(super) fn next(&self) -> Option<i64> {
        self.by_time.first().map(|(until, _)| *until)
    }

    /// Returns what runs on a machine.
    pub(super) fn load(&self, machine_id: &str) -> Load {
        let counts = self.loads.get(machine_id).copied().unwrap_or_default();
        Load {
            n_running: counts.n_running,
            is_exclusive: counts.n_exclusive > 0,
        }
    }
}
