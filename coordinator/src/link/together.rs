//! Records of many links, stored together.
//!
//! A commit waits for the disk however little is in it. Whoever comes while others are writing waits,
//! and one of those who wait then writes for all of them. Nobody is told that anything is stored before
//! the commit that has it. There is no task: who comes to an idle store writes, at once unless another
//! write has just begun and there are many who may come.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::oneshot, time::Instant};
use tritmark_proto::{job::AttemptId, record::Record};

use crate::{
    pace::Pace,
    store::{Appended, RecordBatch, Store, StoreError},
};

/// Writes at the same time: while one waits for the disk, the next is prepared.
const WRITERS: usize = 2;

/// Batches written together.
const BATCHES: usize = 512;

/// Records written together; a batch with more is written alone.
const RECORDS: usize = 8_192;

/// What became of a batch. Of a write that failed as a whole all hear the same.
type Answer = Result<Appended, Arc<StoreError>>;

/// Stores the records of many links; see the module.
#[derive(Debug)]
pub(super) struct Together {
    store: Arc<dyn Store>,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    n_writers: usize,
    n_links: usize,
    pace: Pace,
}

/// A link is there; see [`Together::join`].
#[derive(Debug)]
pub(super) struct Present(Arc<Together>);

impl Drop for Present {
    fn drop(&mut self) {
        self.0.queue().n_links -= 1;
    }
}

#[derive(Debug)]
struct Waiting {
    batch: RecordBatch,
    turn: oneshot::Sender<Turn>,
}

/// What somebody who waits is told.
#[derive(Debug)]
enum Turn {
    /// Another has written its batch.
    Answer(Answer),
    /// It shall write for all who wait by then.
    Write(Round),
}

/// What is written together.
#[derive(Debug)]
struct Round {
    /// The writer's own batch is the first.
    batches: Vec<RecordBatch>,
    /// Whose the others are.
    others: Vec<oneshot::Sender<Turn>>,
    pen: Pen,
}

/// The right to write. However it is let go of, even unread in a channel, the next has it.
#[derive(Debug)]
struct Pen(Option<Arc<Together>>);

impl Drop for Pen {
    fn drop(&mut self) {
        if let Some(together) = self.0.take() {
            together.pass_on();
        }
    }
}

impl Together {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            queue: Mutex::default(),
        }
    }

    /// Notes that there is one more link, for as long as what is returned is held.
    pub(super) fn join(self: &Arc<Self>) -> Present {
        self.queue().n_links += 1;
        Present(Arc::clone(self))
    }

    /// Stores records of an attempt; see [`Store::append`]. As each link waits for its answer, no more
    /// is held here than one message of each.
    pub(super) async fn append(
        self: &Arc<Self>,
        attempt: AttemptId,
        records: Vec<Record>,
    ) -> Answer {
        let mut round = match self.line_up(RecordBatch { attempt, records }) {
            Ok(round) => round,
            Err(turn) => match turn.await {
                Ok(Turn::Answer(answer)) => return answer,
                Ok(Turn::Write(round)) => round,
                Err(_) => {
                    return Err(Arc::new(StoreError::GivenUp {
                        operation: "store records",
                    }));
                }
            },
        };
        let until = {
            let queue = self.queue();
            queue.pace.gather_until(queue.n_links, Instant::now())
        };
        if let Some(until) = until {
            tokio::time::sleep_until(until).await;
        }
        self.fill(&mut round);
        self.write(round).await
    }

    /// Takes those who wait into a round that is about to be written.
    fn fill(&self, round: &mut Round) {
        let mut queue = self.queue();
        queue.pace.begin(Instant::now());
        let own: usize = round.batches.iter().map(|batch| batch.records.len()).sum();
        let n = n_together(own, &queue.waiting);
        for Waiting { batch, turn } in queue.waiting.drain(..n) {
            round.batches.push(batch);
            round.others.push(turn);
        }
    }

    /// Returns what to write at once, or where to hear of it.
    fn line_up(self: &Arc<Self>, batch: RecordBatch) -> Result<Round, oneshot::Receiver<Turn>> {
        let mut queue = self.queue();
        if queue.n_writers < WRITERS {
            queue.n_writers += 1;
            return Ok(Round {
                batches: vec![batch],
                others: Vec::new(),
                pen: Pen(Some(Arc::clone(self))),
            });
        }
        let (turn, told) = oneshot::channel();
        queue.waiting.push_back(Waiting { batch, turn });
        Err(told)
    }

    /// Writes a round, answers all but the first, and returns the answer to that one.
    async fn write(&self, round: Round) -> Answer {
        let Round {
            batches,
            others,
            pen,
        } = round;
        let mut answers: Vec<Answer> = match self.store.append(&batches).await {
            Ok(answers) => answers
                .into_iter()
                .map(|answer| answer.map_err(Arc::new))
                .collect(),
            Err(error) => vec![Err(Arc::new(error)); batches.len()],
        };
        // The next need not wait until all have heard.
        drop(pen);
        for (other, answer) in others.into_iter().zip(answers.drain(1..)) {
            // Who has left meanwhile will hear it when it is back.
            let _ = other.send(Turn::Answer(answer));
        }
        answers.swap_remove(0)
    }

    /// Makes the next of those who wait write, if there is any.
    fn pass_on(self: Arc<Self>) {
        let mut pen = Some(self);
        while let Some(together) = pen.take() {
            let first = {
                let mut queue = together.queue();
                let first = queue.waiting.pop_front();
                if first.is_none() {
                    queue.n_writers -= 1;
                }
                first
            };
            let Some(Waiting { batch, turn }) = first else {
                return;
            };
            let round = Round {
                batches: vec![batch],
                others: Vec::new(),
                pen: Pen(Some(together)),
            };
            if let Err(Turn::Write(mut gone)) = turn.send(Turn::Write(round)) {
                // It has left, and its records with it. The turn of the others is still to come.
                pen = gone.pen.0.take();
            }
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing that can panic is done while it is held.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns how many of those who wait are written beside so many records of the writer's own.
fn n_together(own: usize, waiting: &VecDeque<Waiting>) -> usize {
    let mut n_records = own;
    let fitting = waiting.iter().take(BATCHES).take_while(|it| {
        n_records += it.batch.records.len();
        n_records <= RECORDS
    });
    fitting.count()
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;
    use crate::testing::{Bed, job, latency, on_both, reading, record, run, start};

    const N: u32 = 40;

    async fn running(bed: &Bed) -> (Arc<dyn Store>, Vec<AttemptId>) {
        let store = bed.open().await;
        let run = run("a-run");
        let jobs: Vec<_> = (0..N)
            .map(|index| job(run.id, index, "m", None, latency()))
            .collect();
        store.add_run(&run, &jobs).await.unwrap();
        let mut attempts = Vec::new();
        for (n, job) in (1..).zip(&jobs) {
            attempts.push(start(&*store, job.id, n).await);
        }
        (store, attempts)
    }

    fn readings(n: u32) -> Vec<Record> {
        (0..=u64::from(n))
            .map(|sequence| record(sequence, reading(1.0)))
            .collect()
    }

    on_both! {
        async fn each_link_hears_what_became_of_its_own_records(bed: &Bed) {
            let (store, attempts) = running(bed).await;
            let together = Arc::new(Together::new(Arc::clone(&store)));
            let asked = (0..N).zip(&attempts).map(|(n, attempt)| {
                let mut attempt = *attempt;
                let mut records = readings(n);
                match n {
                    7 => attempt.fence += 1_000,
                    8 => records[3].sequence = u64::MAX,
                    _ => {}
                }
                together.append(attempt, records)
            });
            // The last one's records come a second time, by another link.
            let last = together.append(attempts[39], readings(41));
            let (answers, last) = tokio::join!(join_all(asked), last);
            assert!(last.is_ok());
            for (n, answer) in (0..N).zip(answers) {
                let stored = store.records(attempts[n as usize].job).await.unwrap();
                match (n, answer) {
                    (7, Err(error)) => {
                        assert!(matches!(*error, StoreError::Stale { .. }));
                        assert!(stored.is_empty());
                    }
                    (8, Err(error)) => {
                        assert!(matches!(*error, StoreError::OutOfRange { .. }));
                        assert!(stored.is_empty());
                    }
                    (39, Ok(appended)) => {
                        assert!(appended.stored_below >= 40);
                        assert_eq!(stored.len(), 42);
                    }
                    (_, answer) => {
                        let appended = answer.unwrap();
                        assert_eq!(appended.stored_below, u64::from(n) + 1);
                        assert_eq!(appended.n_new, u64::from(n) + 1);
                        assert_eq!(stored.len(), n as usize + 1);
                    }
                }
            }
            assert_eq!(together.queue().n_writers, 0);
        }

        async fn a_link_that_goes_away_leaves_nobody_waiting(bed: &Bed) {
            let (store, attempts) = running(bed).await;
            let together = Arc::new(Together::new(store));
            let (go_away, stay): (Vec<_>, Vec<_>) = (0..N)
                .zip(attempts)
                .partition(|(n, _)| n.is_multiple_of(2));
            let append = |(n, attempt): (u32, AttemptId)| {
                let together = Arc::clone(&together);
                tokio::spawn(async move { together.append(attempt, readings(n)).await })
            };
            // The first of them write, the others wait or are told to write when they are gone.
            let go_away: Vec<_> = go_away.into_iter().map(append).collect();
            let stay: Vec<_> = stay.into_iter().map(append).collect();
            tokio::task::yield_now().await;
            for gone in &go_away {
                gone.abort();
            }
            for staying in stay {
                match staying.await.unwrap() {
                    Ok(appended) => assert!(appended.stored_below > 0),
                    // Whoever wrote for it has gone: the agent sends it again.
                    Err(error) => assert!(matches!(*error, StoreError::GivenUp { .. })),
                }
            }
            for gone in go_away {
                // Some had their answer already.
                let _ = gone.await;
            }
            assert_eq!(together.queue().n_writers, 0);
            assert!(together.queue().waiting.is_empty());
        }
    }
}
