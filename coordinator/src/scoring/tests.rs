//! A loop with a scorer that does as the test says.

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
};

use tokio::{sync::broadcast, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tritmark_proto::{
    bundle::JobState,
    job::{AccuracySpec, RunId, ScoreOn, SuiteSpec},
    record::{Answer, GeneratedAnswer, ItemScore},
    wire::{coordinator_message::Kind as ToAgent, run_event},
};

use super::*;
use crate::{
    bundle,
    run::{self, LoopHandle, Timing, submit},
    store::{AttemptState, SqliteStore},
    testing::{agent, agent_id, facts, job, machine, record, run as a_run, store},
};

/// Finds every odd item right, and then does as it is told.
#[derive(Debug)]
struct Scripted {
    then: Then,
    /// Items it was asked for, call by call.
    asked: Mutex<Vec<Vec<u32>>>,
}

#[derive(Debug)]
enum Then {
    Done,
    /// Comes to no end after so many items.
    HangAfter(usize),
    Fail(FailureClass),
    /// Gives back another text.
    Forge,
}

fn scripted(then: Then) -> Arc<Scripted> {
    Arc::new(Scripted {
        then,
        asked: Mutex::default(),
    })
}

impl Scripted {
    fn asked(&self) -> Vec<Vec<u32>> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.clone()
    }
}

#[tonic::async_trait]
impl Scorer for Scripted {
    fn machine(&self) -> Machine {
        machine("scorers-machine")
    }

    async fn check(&self) -> Result<(), String> {
        Ok(())
    }

    async fn score(
        &self,
        _: &Job,
        items: Vec<Item>,
        scored: mpsc::Sender<Item>,
    ) -> Result<(), Failure> {
        let indexes = items.iter().map(|item| item.index).collect();
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(indexes);
        if let Then::Fail(class) = self.then {
            return Err(failure(class, "there is no sandbox"));
        }
        for (n, mut item) in items.into_iter().enumerate() {
            if matches!(self.then, Then::HangAfter(after) if after == n) {
                std::future::pending::<()>().await;
            }
            let value = f64::from(item.index % 2);
            item.scores = vec![ItemScore::plain("pass@1", value)];
            item.scored_on = Some("scorers-machine".to_owned());
            if let (Then::Forge, Answer::Generated(answer)) = (&self.then, &mut item.answer) {
                answer.text.push_str("# forged\n");
            }
            scored.send(item).await.expect("the store takes scores");
        }
        Ok(())
    }
}

fn program(index: u32, is_pending: bool) -> RecordBody {
    RecordBody::Item(Item {
        task: "humaneval".to_owned(),
        group: None,
        index,
        doc_hash: format!("doc-{index}"),
        prompt_hash: format!("prompt-{index}"),
        answer: Answer::Generated(GeneratedAnswer {
            text: format!("    return {index}\n"),
            target: format!("HumanEval/{index}"),
            n_prompt_tokens: 9,
            n_tokens: 4,
            end: "stop".to_owned(),
        }),
        scores: vec![if is_pending {
            ItemScore::pending("pass@1", "none")
        } else {
            ItemScore::plain("pass@1", 1.0)
        }],
        elapsed_ns: Some(5),
        energy: Vec::new(),
        from_cache: None,
        scored_on: None,
    })
}

/// A loop on a store, and one run with one job.
struct Bench {
    store: Arc<SqliteStore>,
    handle: LoopHandle,
    task: JoinHandle<()>,
    stop: CancellationToken,
    run: RunId,
}

impl Bench {
    async fn open(folder: &Path, run: RunId, scorer: Option<Arc<Scripted>>) -> Self {
        let store = Arc::new(store(folder).await);
        let stop = CancellationToken::new();
        let scorer = scorer.map(|scorer| scorer as Arc<dyn Scorer>);
        let shared = Arc::clone(&store) as Arc<dyn Store>;
        let (handle, task) = run::start(shared, Timing::default(), scorer, stop.clone())
            .await
            .unwrap();
        Self {
            store,
            handle,
            task,
            stop,
            run,
        }
    }

    /// Submits a job of three programs and has an agent write them.
    async fn written(folder: &Path, scorer: Option<Arc<Scripted>>, pending: bool) -> Self {
        let run = a_run("a-run");
        let bench = Self::open(folder, run.id, scorer).await;
        let suite = SuiteSpec::Accuracy(AccuracySpec {
            score_on: ScoreOn::Coordinator,
            ..AccuracySpec::new("humaneval", "/data")
        });
        let jobs = vec![job(run.id, 0, "m", None, suite)];
        let submitted = submit(&*bench.store, &bench.handle, run, jobs).await;
        submitted.unwrap().unwrap();
        let (to_agent, mut inbox) = mpsc::channel(8);
        let connect = |reply| Command::Connect {
            agent: Box::new(agent(1)),
            running: None,
            boot_id: None,
            to_agent,
            link: CancellationToken::new(),
            reply,
        };
        bench.handle.ask(connect).await.unwrap().unwrap();
        let registered = inbox.recv().await.unwrap().kind.unwrap();
        assert!(matches!(registered, ToAgent::Registered(_)));
        let Some(ToAgent::Assign(assign)) = inbox.recv().await.unwrap().kind else {
            panic!("the job is not given out");
        };
        let attempt: AttemptId = assign.attempt.unwrap().try_into().unwrap();
        let mut records = vec![record(0, facts(Some(3)))];
        records.extend((0..3).map(|i| record(u64::from(i) + 1, program(i, pending))));
        bench.store.add_records(attempt, &records).await.unwrap();
        let mut events = bench.events().await;
        let finish = |reply| Command::Finished {
            attempt,
            n_records: 4,
            failure: None,
            reply,
        };
        bench.handle.ask(finish).await.unwrap().unwrap();
        assert!(inbox.try_recv().is_err(), "no agent gets it again");
        // Written is not done.
        let first = loop {
            if let Some(run_event::Kind::Job(job)) = events.recv().await.unwrap().kind {
                break job;
            }
        };
        assert_eq!(first.state(), wire::JobState::Queued);
        bench
    }

    async fn events(&self) -> broadcast::Receiver<wire::RunEvent> {
        let run = self.run;
        let watch = self.handle.ask(|reply| Command::Watch { run, reply }).await;
        let watch = watch.unwrap().unwrap().unwrap();
        watch.events.unwrap_or_else(|| broadcast::channel(1).1)
    }

    /// Waits until the run has ended and returns its job.
    async fn ended(&self) -> StoredJob {
        let mut events = self.events().await;
        // The sender goes with the run.
        while !matches!(
            events.recv().await,
            Err(broadcast::error::RecvError::Closed)
        ) {}
        self.store.jobs(self.run).await.unwrap().swap_remove(0)
    }

    async fn close(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    /// Returns whether each item of the bundle is right; `None` of one that is pending.
    async fn verdicts(&self) -> Vec<(u32, Option<f64>, bool)> {
        let records = self
            .store
            .records(self.store.jobs(self.run).await.unwrap()[0].job.id);
        let mut items: Vec<Item> = records
            .await
            .unwrap()
            .into_iter()
            .filter_map(|(_, record)| match record.body {
                RecordBody::Item(item) => Some(item),
                _ => None,
            })
            .collect();
        items.sort_by_key(|item| (item.index, item.is_pending()));
        items.dedup_by_key(|item| item.index);
        let verdict = |item: &Item| (item.index, item.scores[0].value, item.is_pending());
        items.iter().map(verdict).collect()
    }
}

#[tokio::test]
async fn a_job_has_succeeded_when_it_is_scored() {
    let dir = tempfile::tempdir().unwrap();
    let scorer = scripted(Then::Done);
    let bench = Bench::written(dir.path(), Some(Arc::clone(&scorer)), true).await;
    let job = bench.ended().await;
    assert_eq!(job.state, JobState::Succeeded);
    let by: Vec<&str> = job.attempts.iter().map(|a| a.agent_id.as_str()).collect();
    assert_eq!(by, [&agent_id(1), "scorer:scorers-machine"]);
    assert_eq!(scorer.asked(), [[0, 1, 2]]);
    assert_eq!(
        bench.verdicts().await,
        [
            (0, Some(0.0), false),
            (1, Some(1.0), false),
            (2, Some(0.0), false)
        ]
    );
    // Of the bundle's jobs, the attempt that wrote counts; no scorer is among the agents.
    let run = bench.store.run(bench.run).await.unwrap().unwrap();
    let files = bundle::files(&*bench.store, run).await.unwrap();
    let manifest: tritmark_proto::bundle::Manifest =
        serde_json::from_slice(&files[0].bytes).unwrap();
    let outcome = &manifest.jobs[0];
    assert_eq!((outcome.attempt, outcome.failure.as_ref()), (1, None));
    assert_eq!(outcome.machine_id.as_deref(), Some("machine-1"));
    assert!(outcome.facts.is_some());
    let agents = bench.handle.ask(|reply| Command::Agents { reply }).await;
    assert_eq!(agents.unwrap().len(), 1);
    bench.close().await;
}

#[tokio::test]
async fn a_coordinator_that_died_goes_on_at_the_first_item_without_a_score() {
    let dir = tempfile::tempdir().unwrap();
    let hanging = scripted(Then::HangAfter(1));
    let bench = Bench::written(dir.path(), Some(hanging), true).await;
    let run = bench.run;
    let stored = || async {
        let verdicts = bench.verdicts().await;
        verdicts.iter().filter(|(_, _, pending)| !pending).count()
    };
    let mut events = bench.events().await;
    while stored().await == 0 {
        events.recv().await.unwrap();
    }
    bench.close().await;

    let scorer = scripted(Then::Done);
    let bench = Bench::open(dir.path(), run, Some(Arc::clone(&scorer))).await;
    let job = bench.ended().await;
    assert_eq!(job.state, JobState::Succeeded);
    assert_eq!(scorer.asked(), [[1, 2]]);
    let states: Vec<AttemptState> = job.attempts.iter().map(|a| a.state).collect();
    let expected = [
        AttemptState::Succeeded,
        AttemptState::Lost,
        AttemptState::Succeeded,
    ];
    assert_eq!(states, expected);
    assert!(!job.attempts[1].counts);
    assert_eq!(
        bench.verdicts().await,
        [
            (0, Some(0.0), false),
            (1, Some(1.0), false),
            (2, Some(0.0), false)
        ]
    );
    bench.close().await;
}

/// Scores with a scorer that cannot and returns why the job failed.
async fn failed(scorer: Option<Arc<Scripted>>, pending: bool) -> String {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::written(dir.path(), scorer, pending).await;
    let job = bench.ended().await;
    assert_eq!(job.state, JobState::Failed);
    let n_pending = bench.verdicts().await.iter().filter(|v| v.2).count();
    assert_eq!(n_pending, if pending { 3 } else { 0 }, "nothing is guessed");
    let run = bench.store.run(bench.run).await.unwrap().unwrap();
    let files = bundle::files(&*bench.store, run).await.unwrap();
    let manifest: tritmark_proto::bundle::Manifest =
        serde_json::from_slice(&files[0].bytes).unwrap();
    let failure = manifest.jobs[0].failure.clone().unwrap();
    bench.close().await;
    failure.message
}

#[tokio::test]
async fn a_scorer_that_cannot_fails_the_job_with_its_reason() {
    let scorer = scripted(Then::Fail(FailureClass::Permanent));
    assert_eq!(failed(Some(scorer), true).await, "there is no sandbox");
}

#[tokio::test]
async fn without_a_scorer_the_job_fails() {
    let reason = failed(None, true).await;
    assert!(reason.contains("without a scorer"), "{reason}");
}

#[tokio::test]
async fn an_answer_that_the_scorer_changed_is_refused() {
    let reason = failed(Some(scripted(Then::Forge)), true).await;
    assert!(reason.contains("item 0 with another answer"), "{reason}");
}

#[tokio::test]
async fn what_an_agent_has_scored_itself_is_refused() {
    let scorer = scripted(Then::Done);
    let reason = failed(Some(Arc::clone(&scorer)), false).await;
    assert!(
        reason.contains("was scored on machine machine-1"),
        "{reason}"
    );
    assert!(scorer.asked().is_empty());
}

#[tokio::test]
async fn a_run_may_be_cancelled_while_it_is_scored() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::written(dir.path(), Some(scripted(Then::HangAfter(0))), true).await;
    let mut events = bench.events().await;
    while bench.store.jobs(bench.run).await.unwrap()[0].attempts.len() < 2 {
        events.recv().await.unwrap();
    }
    let run = bench.run;
    let cancel = |reply| Command::Cancel { run, reply };
    assert_eq!(bench.handle.ask(cancel).await.unwrap().unwrap(), Some(1));
    let job = bench.ended().await;
    assert_eq!(job.state, JobState::Cancelled);
    assert_eq!(job.attempts[1].state, AttemptState::Cancelled);
    bench.close().await;
}
