//! Attempts begin, are taken up again, and go on.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{Postgres, Transaction};
use tritmark_proto::job::{AttemptId, JobId, RunId};
use uuid::Uuid;

use super::{PostgresStore, attempt_columns, columns, job_of};
use crate::store::{
    AttemptStart, AttemptState, Change, Exclusive, StoreError, StoredAttempt,
    rows::{self, Columns as _, database, stale},
};

/// What is answered to each start that is refused, by its position.
type Refused = BTreeMap<usize, StoreError>;

const LINKED_ELSEWHERE: &str = "its agent is not linked to this coordinator";
const BUSY: &str = "its machine is busy";
const PINNED_ELSEWHERE: &str = "its comparison is measured on another machine";

/// Begins attempts; see the trait.
pub(super) async fn start_attempts(
    store: &PostgresStore,
    starts: &[AttemptStart],
) -> Result<Vec<Result<StoredAttempt, StoreError>>, StoreError> {
    let mut tx = store.begin().await?;
    let mut refused = Refused::new();
    check_places(&mut tx, store.coordinator, starts, &mut refused).await?;
    claim(&mut tx, starts, &mut refused).await?;
    pin(&mut tx, starts, &mut refused).await?;
    let mut begun = insert(&mut tx, starts, &refused).await?;
    store
        .tell(&mut tx, &[Change::Jobs(begun.keys().copied().collect())])
        .await?;
    tx.commit().await.map_err(database("start attempts"))?;
    Ok(starts
        .iter()
        .enumerate()
        .map(|(position, start)| match refused.remove(&position) {
            Some(error) => Err(error),
            None => begun
                .remove(&start.job)
                .map(|id| start.begun(id))
                .ok_or(StoreError::NotQueued { job: start.job }),
        })
        .collect())
}

/// The starts that nobody has refused yet, with their positions.
fn left<'a>(
    starts: &'a [AttemptStart],
    refused: &Refused,
) -> impl Iterator<Item = (usize, &'a AttemptStart)> {
    let refused: BTreeSet<usize> = refused.keys().copied().collect();
    starts
        .iter()
        .enumerate()
        .filter(move |(position, _)| !refused.contains(position))
}

/// Refuses agents that are linked to another coordinator, and machines on which another coordinator's
/// agent has something running that does not allow for it.
async fn check_places(
    tx: &mut Transaction<'static, Postgres>,
    coordinator: Uuid,
    starts: &[AttemptStart],
    refused: &mut Refused,
) -> Result<(), StoreError> {
    let check = database("look for free agents");
    let machines: BTreeSet<&str> = starts.iter().map(|start| &*start.machine_id).collect();
    let machines: Vec<&str> = machines.into_iter().collect();
    let agents: BTreeSet<&str> = starts.iter().map(|start| &*start.agent_id).collect();
    let agents: Vec<&str> = agents.into_iter().collect();
    // Held until the end: what the next statements see stays so.
    sqlx::query("SELECT id FROM machines WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE")
        .bind(&machines)
        .execute(&mut **tx)
        .await
        .map_err(&check)?;
    let linked = sqlx::query(
        "SELECT id FROM agents WHERE id = ANY($1) AND coordinator = $2 ORDER BY id FOR SHARE",
    )
    .bind(&agents)
    .bind(coordinator)
    .fetch_all(&mut **tx)
    .await
    .map_err(&check)?;
    let linked: BTreeSet<&str> = linked
        .iter()
        .map(|row| row.text("id"))
        .collect::<Result<_, _>>()?;
    let running = sqlx::query(
        // Machine by machine: with all of them at once, every attempt that runs would be compared
        // with each.
        "SELECT machine, exclusive FROM UNNEST($1::text[]) AS asked(machine) CROSS JOIN LATERAL \
         (SELECT bool_or(exclusive) AS exclusive FROM attempts WHERE state = 'running' \
         AND attempts.machine = asked.machine) AS load WHERE exclusive IS NOT NULL",
    )
    .bind(&machines)
    .fetch_all(&mut **tx)
    .await
    .map_err(&check)?;
    // What runs on a machine, and whether that needs it to itself.
    let mut loads: BTreeMap<&str, bool> = running
        .iter()
        .map(|row| Ok((row.text("machine")?, row.flag("exclusive")?)))
        .collect::<Result<_, StoreError>>()?;
    for (position, start) in starts.iter().enumerate() {
        let is_exclusive = start.exclusive.is_some();
        let load = loads.get(&*start.machine_id).copied();
        let why = if !linked.contains(&*start.agent_id) {
            LINKED_ELSEWHERE
        } else if load == Some(true) || (is_exclusive && load.is_some()) {
            BUSY
        } else {
            loads.insert(&start.machine_id, is_exclusive);
            continue;
        };
        refused.insert(
            position,
            StoreError::Taken {
                job: start.job,
                why,
            },
        );
    }
    Ok(())
}

/// Takes the jobs that are queued; one that somebody else is taking just now is theirs.
async fn claim(
    tx: &mut Transaction<'static, Postgres>,
    starts: &[AttemptStart],
    refused: &mut Refused,
) -> Result<(), StoreError> {
    let (runs, jobs) = columns(left(starts, refused).map(|(_, start)| start.job));
    let taken = sqlx::query(
        "WITH free AS (SELECT jobs.run, jobs.job FROM jobs \
         JOIN UNNEST($1::uuid[], $2::bigint[]) AS wanted(run, job) USING (run, job) \
         WHERE state = 'queued' AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.id = jobs.run \
         AND paused_unix_ns IS NOT NULL) ORDER BY run, job FOR NO KEY UPDATE OF jobs SKIP LOCKED) \
         UPDATE jobs SET state = 'running' FROM free \
         WHERE jobs.run = free.run AND jobs.job = free.job RETURNING jobs.run, jobs.job",
    )
    .bind(&runs)
    .bind(&jobs)
    .fetch_all(&mut **tx)
    .await
    .map_err(database("claim jobs"))?;
    let mut taken: BTreeSet<JobId> = taken.iter().map(job_of).collect::<Result<_, _>>()?;
    for (position, start) in left(starts, refused).collect::<Vec<_>>() {
        // Asked for twice, it is given once.
        if !taken.remove(&start.job) {
            refused.insert(position, StoreError::NotQueued { job: start.job });
        }
    }
    Ok(())
}

/// Notes where comparisons are measured, and gives back the jobs of those that another coordinator has
/// begun elsewhere.
async fn pin(
    tx: &mut Transaction<'static, Postgres>,
    starts: &[AttemptStart],
    refused: &mut Refused,
) -> Result<(), StoreError> {
    let pin = database("note where comparisons are measured");
    // By comparison: the machine it shall be on, and where it is believed to be.
    let mut wanted: BTreeMap<(RunId, &str), (&str, Option<&str>)> = BTreeMap::new();
    for (_, start) in left(starts, refused) {
        if let Some(Exclusive {
            comparison,
            pinned_to,
        }) = &start.exclusive
        {
            wanted
                .entry((start.job.run, comparison))
                .or_insert((&start.machine_id, pinned_to.as_deref()));
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let (runs, comparisons): (Vec<Uuid>, Vec<&str>) = wanted
        .keys()
        .map(|(run, comparison)| (run.0, *comparison))
        .unzip();
    let machines: Vec<&str> = wanted.values().map(|(machine, _)| *machine).collect();
    let believed: Vec<Option<&str>> = wanted.values().map(|(_, believed)| *believed).collect();
    if believed.iter().any(Option::is_none) {
        sqlx::query(
            "INSERT INTO pins (run, comparison, machine) SELECT run, comparison, machine \
             FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::text[]) \
             AS w(run, comparison, machine, believed) WHERE believed IS NULL \
             ORDER BY run, comparison ON CONFLICT DO NOTHING",
        )
        .bind(&runs)
        .bind(&comparisons)
        .bind(&machines)
        .bind(&believed)
        .execute(&mut **tx)
        .await
        .map_err(&pin)?;
    }
    // A pin that stands already is only looked at.
    let moved = sqlx::query(
        "WITH w AS (SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::text[]) \
         AS w(run, comparison, machine, believed)), moved AS (UPDATE pins SET machine = w.machine \
         FROM w WHERE pins.run = w.run AND pins.comparison = w.comparison \
         AND pins.machine <> w.machine AND pins.machine = w.believed \
         RETURNING pins.run, pins.comparison) SELECT run, comparison FROM moved UNION ALL \
         SELECT pins.run, pins.comparison FROM pins JOIN w USING (run, comparison, machine)",
    )
    .bind(&runs)
    .bind(&comparisons)
    .bind(&machines)
    .bind(&believed)
    .fetch_all(&mut **tx)
    .await
    .map_err(&pin)?;
    let here: BTreeSet<(RunId, &str)> = moved
        .iter()
        .map(|row| Ok((row.run("run")?, row.text("comparison")?)))
        .collect::<Result<_, StoreError>>()?;
    let mut given_back = Vec::new();
    for (position, start) in left(starts, refused).collect::<Vec<_>>() {
        let Some(exclusive) = &start.exclusive else {
            continue;
        };
        let key = (start.job.run, &*exclusive.comparison);
        let is_here = here.contains(&key) && wanted[&key].0 == start.machine_id;
        if !is_here {
            given_back.push(start.job);
            refused.insert(
                position,
                StoreError::Taken {
                    job: start.job,
                    why: PINNED_ELSEWHERE,
                },
            );
        }
    }
    if given_back.is_empty() {
        return Ok(());
    }
    let (runs, jobs) = columns(given_back);
    sqlx::query(
        "UPDATE jobs SET state = 'queued' WHERE (run, job) IN \
         (SELECT * FROM UNNEST($1::uuid[], $2::bigint[]))",
    )
    .bind(&runs)
    .bind(&jobs)
    .execute(&mut **tx)
    .await
    .map_err(&pin)?;
    Ok(())
}

/// Adds the attempts of the jobs that were claimed.
async fn insert(
    tx: &mut Transaction<'static, Postgres>,
    starts: &[AttemptStart],
    refused: &Refused,
) -> Result<BTreeMap<JobId, AttemptId>, StoreError> {
    let claimed: Vec<&AttemptStart> = left(starts, refused).map(|(_, start)| start).collect();
    if claimed.is_empty() {
        return Ok(BTreeMap::new());
    }
    let (runs, jobs) = columns(claimed.iter().map(|start| start.job));
    let agents: Vec<&str> = claimed.iter().map(|start| &*start.agent_id).collect();
    let machines: Vec<&str> = claimed.iter().map(|start| &*start.machine_id).collect();
    let exclusive: Vec<bool> = claimed
        .iter()
        .map(|start| start.exclusive.is_some())
        .collect();
    let starts: Vec<i64> = claimed.iter().map(|start| start.at_unix_ns).collect();
    let leases: Vec<i64> = claimed
        .iter()
        .map(|start| start.lease_until_unix_ns)
        .collect();
    let begun = sqlx::query(
        "WITH s AS (SELECT * FROM UNNEST($1::uuid[], $2::bigint[], $3::text[], $4::text[], \
         $5::boolean[], $6::bigint[], $7::bigint[]) \
         AS s(run, job, agent, machine, exclusive, started, lease)), \
         begun AS (INSERT INTO attempts (run, job, attempt, fence, agent, machine, exclusive, state, \
         started_unix_ns, lease_until_unix_ns) SELECT run, job, (SELECT coalesce(max(attempt), 0) + 1 \
         FROM attempts WHERE attempts.run = s.run AND attempts.job = s.job), nextval('fence'), \
         agent, machine, exclusive, 'running', started, lease FROM s \
         RETURNING run, job, attempt, fence, agent, started_unix_ns), \
         noted AS (INSERT INTO events (at_unix_ns, run, job, attempt, kind, detail) \
         SELECT started_unix_ns, run, job, attempt, 'started', agent FROM begun) \
         SELECT run, job, attempt, fence FROM begun",
    )
    .bind(&runs)
    .bind(&jobs)
    .bind(&agents)
    .bind(&machines)
    .bind(&exclusive)
    .bind(&starts)
    .bind(&leases)
    .fetch_all(&mut **tx)
    .await
    .map_err(database("start attempts"))?;
    begun
        .iter()
        .map(|row| {
            let job = job_of(row)?;
            let id = rows::attempt_id(job, row.number("attempt")?, row.number("fence")?)?;
            Ok((job, id))
        })
        .collect()
}

/// Takes a lost attempt up again; see the trait.
pub(super) async fn revive_attempt(
    store: &PostgresStore,
    attempt: AttemptId,
    at_unix_ns: i64,
    lease_until_unix_ns: i64,
) -> Result<(), StoreError> {
    let revive = database("take an attempt up again");
    let mut tx = store.begin().await?;
    let (run, job) = (attempt.job.run.0, i64::from(attempt.job.index));
    let row = sqlx::query(
        "SELECT attempts.state, stored_below, fence, lease_until_unix_ns FROM attempts \
         JOIN jobs USING (run, job) WHERE run = $1 AND job = $2 AND attempt = $3 \
         FOR NO KEY UPDATE",
    )
    .bind(run)
    .bind(job)
    .bind(i64::from(attempt.attempt.get()))
    .fetch_optional(&mut *tx)
    .await
    .map_err(&revive)?
    .ok_or_else(|| stale(attempt, "unknown"))?;
    if rows::standing(attempt, &row)?.state != AttemptState::Lost {
        return Err(stale(attempt, "not lost"));
    }
    let n_revived = sqlx::query(
        "UPDATE jobs SET state = 'running' WHERE run = $1 AND job = $2 AND state = 'queued' \
         AND $3 = (SELECT max(attempt) FROM attempts WHERE run = $1 AND job = $2)",
    )
    .bind(run)
    .bind(job)
    .bind(i64::from(attempt.attempt.get()))
    .execute(&mut *tx)
    .await
    .map_err(&revive)?
    .rows_affected();
    if n_revived == 0 {
        return Err(StoreError::NotQueued { job: attempt.job });
    }
    sqlx::query(
        "WITH revived AS (UPDATE attempts SET state = 'running', ended_unix_ns = NULL, \
         failure = NULL, counts = TRUE, lease_until_unix_ns = $4 \
         WHERE run = $1 AND job = $2 AND attempt = $3 RETURNING run, job, attempt) \
         INSERT INTO events (at_unix_ns, run, job, attempt, kind) \
         SELECT $5, run, job, attempt, 'revived' FROM revived",
    )
    .bind(run)
    .bind(job)
    .bind(i64::from(attempt.attempt.get()))
    .bind(lease_until_unix_ns)
    .bind(at_unix_ns)
    .execute(&mut *tx)
    .await
    .map_err(&revive)?;
    store
        .tell(&mut tx, &[Change::Jobs(vec![attempt.job])])
        .await?;
    tx.commit().await.map_err(&revive)
}

/// Moves leases; see the trait.
pub(super) async fn renew_leases(
    store: &PostgresStore,
    leases: &[(AttemptId, i64)],
) -> Result<Vec<AttemptId>, StoreError> {
    if leases.is_empty() {
        return Ok(Vec::new());
    }
    let renew = database("renew leases");
    let mut leases = leases.to_vec();
    leases.sort_unstable();
    let (runs, jobs, attempts) = attempt_columns(leases.iter().map(|(attempt, _)| *attempt));
    let fences: Vec<i64> = leases
        .iter()
        .map(|(attempt, _)| rows::to_i64("fence", attempt.fence))
        .collect::<Result<_, _>>()?;
    let until: Vec<i64> = leases.iter().map(|(_, until)| *until).collect();
    let renewed = sqlx::query(
        "UPDATE attempts SET lease_until_unix_ns = l.until FROM UNNEST($1::uuid[], $2::bigint[], \
         $3::bigint[], $4::bigint[], $5::bigint[]) AS l(run, job, attempt, fence, until) \
         WHERE attempts.run = l.run AND attempts.job = l.job AND attempts.attempt = l.attempt \
         AND attempts.fence = l.fence AND state = 'running' RETURNING attempts.fence",
    )
    .bind(&runs)
    .bind(&jobs)
    .bind(&attempts)
    .bind(&fences)
    .bind(&until)
    .fetch_all(&store.pool)
    .await
    .map_err(&renew)?;
    let renewed: BTreeSet<i64> = renewed
        .iter()
        .map(|row| row.number("fence"))
        .collect::<Result<_, _>>()?;
    Ok(leases
        .iter()
        .map(|(attempt, _)| *attempt)
        .filter(|attempt| !renewed.contains(&attempt.fence.cast_signed()))
        .collect())
}
