//! Coordinators tell each other what they have changed, by NOTIFY.
//!
//! A notification is sent with its transaction, so that who hears it finds what it is about. It names
//! its sender, who has no need to hear it.

use futures::{StreamExt as _, stream::BoxStream};
use sqlx::{Postgres, Transaction, postgres::PgListener};
use tracing::warn;
use tritmark_proto::job::{JobId, RunId};
use uuid::Uuid;

use super::PostgresStore;
use crate::store::{Change, StoreError, rows::database};

/// Where notifications go. A data base has its own channels.
pub(super) const CHANNEL: &str = "tritmark";

/// PostgreSQL's limit is 8000 bytes; a coordinator and a run are 74 of them.
const MAX_PAYLOAD: usize = 7_500;

impl PostgresStore {
    /// Returns what the others are told of changes.
    pub(super) fn words(&self, changes: &[Change]) -> Vec<String> {
        let words = changes.iter();
        words
            .flat_map(|change| payloads(self.coordinator, change))
            .collect()
    }

    /// Tells the others once the transaction is committed.
    pub(super) async fn tell(
        &self,
        tx: &mut Transaction<'static, Postgres>,
        changes: &[Change],
    ) -> Result<(), StoreError> {
        let payloads = self.words(changes);
        if payloads.is_empty() {
            return Ok(());
        }
        sqlx::query("SELECT pg_notify($1, payload) FROM UNNEST($2::text[]) AS p(payload)")
            .bind(CHANNEL)
            .bind(&payloads)
            .execute(&mut **tx)
            .await
            .map_err(database("tell the other coordinators"))?;
        Ok(())
    }
}

/// Returns what others say from now on. While the connection is lost, notifications are too.
pub(super) async fn listen(
    store: &PostgresStore,
) -> Result<BoxStream<'static, Change>, StoreError> {
    let listen = database("listen to the other coordinators");
    let mut listener = PgListener::connect_with(&store.pool)
        .await
        .map_err(&listen)?;
    listener.listen(CHANNEL).await.map_err(&listen)?;
    let own = store.coordinator;
    let changes = futures::stream::unfold(listener, move |mut listener| async move {
        loop {
            match listener.try_recv().await {
                Ok(Some(notification)) => match read(notification.payload()) {
                    Some((sender, _)) if sender == own => {}
                    Some((_, change)) => return Some((change, listener)),
                    None => {
                        warn!("a notification of another kind of coordinator");
                        return Some((Change::Missed, listener));
                    }
                },
                // It is connected again.
                Ok(None) => return Some((Change::Missed, listener)),
                Err(sqlx::Error::PoolClosed) => return None,
                Err(error) => {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        "the other coordinators are not heard"
                    );
                    tokio::time::sleep(RETRY).await;
                    // The next call connects again and does not say so.
                    return Some((Change::Missed, listener));
                }
            }
        }
    });
    Ok(changes.boxed())
}

/// Wait before another try to listen.
const RETRY: std::time::Duration = std::time::Duration::from_secs(1);

/// Writes a change down: the sender, a letter, what it is about.
fn payloads(sender: Uuid, change: &Change) -> Vec<String> {
    match change {
        Change::Run(run) => vec![format!("{sender} r {run}")],
        Change::Agent(agent) => vec![format!("{sender} a {agent}")],
        Change::Missed => vec![format!("{sender} m ")],
        Change::Jobs(jobs) => {
            let mut jobs = jobs.clone();
            jobs.sort_unstable();
            let mut payloads: Vec<String> = Vec::new();
            let mut last = None;
            for job in jobs {
                let index = job.index.to_string();
                match payloads.last_mut() {
                    Some(payload)
                        if last == Some(job.run) && payload.len() + index.len() < MAX_PAYLOAD =>
                    {
                        payload.push(',');
                        payload.push_str(&index);
                    }
                    _ => payloads.push(format!("{sender} j {} {index}", job.run)),
                }
                last = Some(job.run);
            }
            payloads
        }
    }
}

/// Reads what [`payloads`] writes.
fn read(payload: &str) -> Option<(Uuid, Change)> {
    let mut parts = payload.splitn(3, ' ');
    let sender = parts.next()?.parse().ok()?;
    let change = match (parts.next()?, parts.next()?) {
        ("r", run) => Change::Run(run.parse().ok()?),
        ("a", agent) => Change::Agent(agent.to_owned()),
        ("m", _) => Change::Missed,
        ("j", jobs) => {
            let (run, indexes) = jobs.split_once(' ')?;
            let run: RunId = run.parse().ok()?;
            let jobs: Option<Vec<JobId>> = indexes
                .split(',')
                .map(|index| {
                    Some(JobId {
                        run,
                        index: index.parse().ok()?,
                    })
                })
                .collect();
            Change::Jobs(jobs?)
        }
        _ => return None,
    };
    Some((sender, change))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_told_is_heard() {
        let sender = Uuid::now_v7();
        let run = RunId::generate();
        for change in [
            Change::Run(run),
            Change::Agent("an agent".into()),
            Change::Missed,
            Change::Jobs(vec![JobId { run, index: 7 }]),
        ] {
            let told = payloads(sender, &change);
            assert_eq!(told.len(), 1);
            assert_eq!(read(&told[0]), Some((sender, change)));
        }
    }

    proptest! {
        #[test]
        fn many_jobs_are_told_in_payloads_that_fit(
            indexes in proptest::collection::btree_set((0..3_usize, any::<u32>()), 1..3000)
        ) {
            let runs = [(); 3].map(|()| RunId::generate());
            let mut jobs: Vec<JobId> = indexes
                .into_iter()
                .map(|(run, index)| JobId { run: runs[run], index })
                .collect();
            jobs.sort_unstable();
            let sender = Uuid::now_v7();
            let mut heard = Vec::new();
            for payload in payloads(sender, &Change::Jobs(jobs.clone())) {
                prop_assert!(payload.len() < 8000);
                match read(&payload) {
                    Some((_, Change::Jobs(some))) => heard.extend(some),
                    other => panic!("{other:?}"),
                }
            }
            prop_assert_eq!(heard, jobs);
        }

        #[test]
        fn anything_at_all_can_be_heard(payload in ".{0,80}") {
            let _ = read(&payload);
        }
    }
}
