//! The people's end: `tritmark.v1.Control`.

use std::{collections::BTreeMap, path::Path, pin::Pin, sync::Arc};

use futures::Stream;
use tokio::sync::{broadcast::error::RecvError, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tritmark_proto::{
    job::RunId,
    wire::{self, control_server::Control, run_event},
};

use crate::{
    archive,
    artefacts::{self, RegisterError, Registered, Shelf},
    link::{internal, shutting_down},
    plan::{CheckContext, Expiry, KnownAgent, MAX_PRIORITY, Plan},
    run::{self, Command, LoopHandle, Watch, job_info, now_unix_ns},
    scoring::Scorer,
    server::AuditNote,
    store::{Quarantine, Store, StoredRun, plan_hash},
};

mod dry_run;

/// Bytes of a bundle's file in one message.
const CHUNK_BYTES: usize = 256 << 10;

/// Messages to a client that may wait.
const TO_CLIENT: usize = 64;

/// Serves people and scripts.
#[derive(Clone, Debug)]
pub(crate) struct ControlService {
    store: Arc<dyn Store>,
    run_loop: LoopHandle,
    local_files: bool,
    scorer: Option<Arc<dyn Scorer>>,
    shelf: Option<Arc<Shelf>>,
    stop: CancellationToken,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl ControlService {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        run_loop: LoopHandle,
        local_files: bool,
        scorer: Option<Arc<dyn Scorer>>,
        shelf: Option<Arc<Shelf>>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            store,
            run_loop,
            local_files,
            scorer,
            shelf,
            stop,
        }
    }

    /// Puts files in place of a plan's paths: those its submitter has sent, and those that lie where
    /// this coordinator may read; the latter are kept for agents if it is `for_agents`.
    async fn with_files(
        &self,
        plan: Plan,
        registered: Vec<wire::RegisteredFiles>,
        for_agents: bool,
    ) -> Result<(Plan, Option<Registered>), Status> {
        let Some(held) = &self.shelf else {
            return if registered.is_empty() {
                Ok((plan, None))
            } else {
                Err(Status::failed_precondition(
                    "this coordinator was started without a place for files",
                ))
            };
        };
        let sent: Result<BTreeMap<_, _>, _> =
            registered.into_iter().map(TryFrom::try_from).collect();
        let sent = sent.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let registered = match held.register(plan.paths(), sent, for_agents).await {
            Ok(registered) => registered,
            Err(RegisterError::Objects(error)) => return Err(artefacts::status_of(&error)),
            Err(error) => return Err(Status::failed_precondition(chain(&error))),
        };
        Ok((plan.with_files(&registered.files), Some(registered)))
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(tokio::sync::oneshot::Sender<T>) -> Command,
    ) -> Result<T, Status> {
        self.run_loop
            .ask(command)
            .await
            .map_err(|_| shutting_down())
    }

    /// Finds a run or says that there is none.
    async fn run(&self, id: &str) -> Result<StoredRun, Status> {
        let run = run_id(id)?;
        self.store
            .run(run)
            .await
            .map_err(|error| internal(&error))?
            .ok_or_else(|| no_run(run))
    }

    /// Reads and checks a submission, or only what one would be: nothing is kept then.
    async fn checked(
        &self,
        request: wire::SubmitPlanRequest,
        is_submitted: bool,
    ) -> Result<Submission, Status> {
        let wire::SubmitPlanRequest {
            plan_toml,
            plan_name,
            base_dir,
            priority,
            expires,
            registered,
        } = request;
        if !Path::new(&base_dir).is_absolute() {
            return Err(Status::invalid_argument(format!(
                "field `base_dir` must be an absolute path, it is `{base_dir}`"
            )));
        }
        let invalid = |error: crate::plan::PlanError| Status::invalid_argument(error.to_string());
        let plan = Plan::parse(&plan_toml, &plan_name, Path::new(&base_dir)).map_err(invalid)?;
        let priority = priority.unwrap_or(plan.priority());
        if !(-MAX_PRIORITY..=MAX_PRIORITY).contains(&priority) {
            return Err(Status::invalid_argument(format!(
                "the priority {priority} is not between -{MAX_PRIORITY} and {MAX_PRIORITY}"
            )));
        }
        let expires: Option<Expiry> = if expires.is_empty() {
            plan.expires()
        } else {
            let read = expires.parse();
            Some(read.map_err(|error: crate::plan::NoExpiry| {
                Status::invalid_argument(format!("field `expires`: {error}"))
            })?)
        };
        // Last of what needs the submission alone: files may have to be read whole.
        let (plan, files) = self.with_files(plan, registered, is_submitted).await?;
        let agents: Vec<KnownAgent> = self
            .ask(|reply| Command::Agents { reply })
            .await?
            .into_iter()
            .map(|view| KnownAgent {
                machine: view.agent.machine,
                labels: view.agent.labels,
            })
            .collect();
        let unscored = if plan.is_scored_by_coordinator() {
            match &self.scorer {
                Some(scorer) => scorer.check().await.err(),
                None => Some("it was started without a scorer".to_owned()),
            }
        } else {
            None
        };
        plan.check(&CheckContext {
            local_files: self.local_files,
            agents: &agents,
            unscored: unscored.as_deref(),
        })
        .map_err(invalid)?;
        Ok(Submission {
            plan,
            base_dir,
            priority,
            expires,
            files,
        })
    }

    async fn pause(&self, run: RunId, is_paused: bool) -> Result<u32, Status> {
        self.ask(|reply| Command::Pause {
            run,
            is_paused,
            reply,
        })
        .await?
        .map_err(|error| internal(&error))?
        .ok_or_else(|| no_run(run))
    }

    async fn follow(&self, run: RunId) -> Result<Watch, Status> {
        self.ask(|reply| Command::Watch { run, reply })
            .await?
            .map_err(|error| internal(&error))?
            .ok_or_else(|| no_run(run))
    }

    /// Sends a run's events until it has ended.
    async fn send_events(
        &self,
        run: RunId,
        mut watch: Watch,
        to_client: &mpsc::Sender<Result<wire::RunEvent, Status>>,
    ) -> Result<(), Status> {
        let send = async |event| {
            to_client
                .send(Ok(event))
                .await
                .map_err(|_| Status::cancelled("the client has left"))
        };
        loop {
            let state = watch.snapshot.first().cloned();
            for event in watch.snapshot.drain(..) {
                send(event).await?;
            }
            let Some(mut events) = watch.events else {
                // It has ended: its summary comes again as the last word.
                if let Some(mut summary) = state {
                    summary.at_unix_ns = now_unix_ns();
                    send(summary).await?;
                }
                return Ok(());
            };
            loop {
                let event = tokio::select! {
                    () = self.stop.cancelled() => return Err(shutting_down()),
                    () = to_client.closed() => return Ok(()),
                    event = events.recv() => event,
                };
                match event {
                    Ok(event) => {
                        let has_ended = matches!(&event.kind,
                            Some(run_event::Kind::Summary(summary))
                                if summary.ended_unix_ns.is_some());
                        send(event).await?;
                        if has_ended {
                            return Ok(());
                        }
                    }
                    // Too slow, or too late: the state as it is now makes up for what was missed.
                    Err(RecvError::Lagged(_) | RecvError::Closed) => break,
                }
            }
            watch = self.follow(run).await?;
        }
    }
}

#[tonic::async_trait]
impl Control for ControlService {
    async fn submit_plan(
        &self,
        request: Request<wire::SubmitPlanRequest>,
    ) -> Result<Response<wire::SubmitPlanResponse>, Status> {
        let Submission {
            plan,
            base_dir,
            priority,
            expires,
            files,
        } = self.checked(request.into_inner(), true).await?;
        let plan_toml = plan.text().to_owned();
        let id = RunId::generate();
        let jobs = plan.jobs(id);
        let n_jobs = u32::try_from(jobs.len()).unwrap_or(u32::MAX);
        let submitted_unix_ns = now_unix_ns();
        let run = StoredRun {
            id,
            name: plan.name().to_owned(),
            plan_hash: plan_hash(&plan_toml, &base_dir),
            plan_toml,
            submitted_unix_ns,
            ended_unix_ns: None,
            tritmark_version: env!("CARGO_PKG_VERSION").to_owned(),
            priority,
            expires_unix_ns: expires.map(|expires| expires.unix_ns(submitted_unix_ns)),
            paused_unix_ns: None,
        };
        run::submit(&*self.store, &self.run_loop, run, jobs)
            .await
            .map_err(|_| shutting_down())?
            .map_err(|error| internal(&error))?;
        // From here on the run says what it needs.
        drop(files);
        Ok(noted(
            wire::SubmitPlanResponse {
                run_id: id.to_string(),
                n_jobs,
            },
            format!("run {id} of {n_jobs} jobs"),
        ))
    }

    type WatchRunStream = Answers<wire::RunEvent>;

    async fn watch_run(
        &self,
        request: Request<wire::WatchRunRequest>,
    ) -> Result<Response<Self::WatchRunStream>, Status> {
        let run = run_id(&request.into_inner().run_id)?;
        let watch = self.follow(run).await?;
        let (to_client, out) = mpsc::channel(TO_CLIENT);
        let service = self.clone();
        tokio::spawn(async move {
            if let Err(status) = service.send_events(run, watch, &to_client).await {
                // The client may have gone already.
                let _ = to_client.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(out))))
    }

    async fn list_runs(
        &self,
        _: Request<wire::ListRunsRequest>,
    ) -> Result<Response<wire::ListRunsResponse>, Status> {
        let mut runs = Vec::new();
        for run in self.store.runs().await.map_err(|error| internal(&error))? {
            let counts = self
                .store
                .job_counts(run.id)
                .await
                .map_err(|error| internal(&error))?;
            runs.push(run::summary(&run, counts));
        }
        Ok(Response::new(wire::ListRunsResponse { runs }))
    }

    async fn list_agents(
        &self,
        _: Request<wire::ListAgentsRequest>,
    ) -> Result<Response<wire::ListAgentsResponse>, Status> {
        let agents = self
            .ask(|reply| Command::Agents { reply })
            .await?
            .into_iter()
            .map(|view| wire::AgentInfo {
                agent_id: view.agent.id,
                version: view.agent.version,
                machine: Some(view.agent.machine.into()),
                labels: view.agent.labels.into_iter().collect(),
                connected: view.is_connected,
                last_seen_unix_ns: view.agent.last_seen_unix_ns,
                running: view.running.map(Into::into),
                draining: view.is_draining,
                quarantine: view.agent.quarantine.map(quarantine),
                calibrating: view.is_calibrating,
            })
            .collect();
        Ok(Response::new(wire::ListAgentsResponse { agents }))
    }

    async fn list_jobs(
        &self,
        request: Request<wire::ListJobsRequest>,
    ) -> Result<Response<wire::ListJobsResponse>, Status> {
        let run = self.run(&request.into_inner().run_id).await?;
        let jobs = self
            .store
            .jobs(run.id)
            .await
            .map_err(|error| internal(&error))?
            .iter()
            .map(job_info)
            .collect();
        Ok(Response::new(wire::ListJobsResponse { jobs }))
    }

    async fn cancel_run(
        &self,
        request: Request<wire::CancelRunRequest>,
    ) -> Result<Response<wire::CancelRunResponse>, Status> {
        let run = run_id(&request.into_inner().run_id)?;
        let n_cancelled = self
            .ask(|reply| Command::Cancel { run, reply })
            .await?
            .map_err(|error| internal(&error))?
            .ok_or_else(|| no_run(run))?;
        Ok(noted(
            wire::CancelRunResponse { n_cancelled },
            format!("run {run}, {n_cancelled} jobs"),
        ))
    }

    async fn dry_run(
        &self,
        request: Request<wire::SubmitPlanRequest>,
    ) -> Result<Response<wire::DryRunResponse>, Status> {
        self.preview(request.into_inner()).await
    }

    async fn pause_run(
        &self,
        request: Request<wire::PauseRunRequest>,
    ) -> Result<Response<wire::PauseRunResponse>, Status> {
        let run = run_id(&request.into_inner().run_id)?;
        let n_queued = self.pause(run, true).await?;
        Ok(noted(
            wire::PauseRunResponse { n_queued },
            format!("run {run}, {n_queued} jobs queued"),
        ))
    }

    async fn resume_run(
        &self,
        request: Request<wire::ResumeRunRequest>,
    ) -> Result<Response<wire::ResumeRunResponse>, Status> {
        let run = run_id(&request.into_inner().run_id)?;
        let n_queued = self.pause(run, false).await?;
        Ok(noted(
            wire::ResumeRunResponse { n_queued },
            format!("run {run}, {n_queued} jobs queued"),
        ))
    }

    async fn drain_agent(
        &self,
        request: Request<wire::DrainAgentRequest>,
    ) -> Result<Response<wire::DrainAgentResponse>, Status> {
        let wire::DrainAgentRequest { agent } = request.into_inner();
        let (agent_id, running) = self
            .ask(|reply| Command::DrainAgent { agent, reply })
            .await?
            .map_err(|error| internal(&error))?
            .map_err(Status::failed_precondition)?;
        let note = format!("agent {agent_id}");
        let running = running.map(Into::into);
        Ok(noted(wire::DrainAgentResponse { agent_id, running }, note))
    }

    async fn release_agent(
        &self,
        request: Request<wire::ReleaseAgentRequest>,
    ) -> Result<Response<wire::ReleaseAgentResponse>, Status> {
        let wire::ReleaseAgentRequest { agent } = request.into_inner();
        let (agent_id, was) = self
            .ask(|reply| Command::ReleaseAgent { agent, reply })
            .await?
            .map_err(|error| internal(&error))?
            .map_err(Status::failed_precondition)?;
        let note = format!("agent {agent_id}, quarantined as {}", was.reason);
        let was = Some(quarantine(was));
        Ok(noted(wire::ReleaseAgentResponse { agent_id, was }, note))
    }

    type FetchResultsStream = Answers<wire::FileChunk>;

    async fn fetch_results(
        &self,
        request: Request<wire::FetchResultsRequest>,
    ) -> Result<Response<Self::FetchResultsStream>, Status> {
        let run = self.run(&request.into_inner().run_id).await?;
        let objects = self.shelf.as_ref().map(|held| &held.objects);
        let files = archive::files(&*self.store, objects, run)
            .await
            .map_err(|error| Status::internal(error.to_string()))?;
        let (to_client, out) = mpsc::channel(TO_CLIENT);
        tokio::spawn(async move {
            for file in files {
                let n_chunks = file.bytes.len().div_ceil(CHUNK_BYTES).max(1);
                for chunk in 0..n_chunks {
                    let from = chunk * CHUNK_BYTES;
                    let to = file.bytes.len().min(from + CHUNK_BYTES);
                    let chunk = wire::FileChunk {
                        name: file.name.to_owned(),
                        data: file.bytes[from..to].to_vec(),
                        last: chunk + 1 == n_chunks,
                    };
                    if to_client.send(Ok(chunk)).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(out))))
    }
}

/// A plan as it was submitted, with what was said besides.
struct Submission {
    plan: Plan,
    base_dir: String,
    priority: i32,
    expires: Option<Expiry>,
    /// What was found for its paths, kept until its run is stored.
    files: Option<Registered>,
}

fn quarantine(why: Quarantine) -> wire::Quarantine {
    let Quarantine {
        since_unix_ns,
        reason,
    } = why;
    wire::Quarantine {
        since_unix_ns,
        reason,
    }
}

/// Returns an error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Returns an answer with what the audit log shall say of the call.
fn noted<T>(message: T, note: String) -> Response<T> {
    let mut response = Response::new(message);
    response.extensions_mut().insert(AuditNote(note));
    response
}

fn run_id(text: &str) -> Result<RunId, Status> {
    text.parse()
        .map_err(|_| Status::invalid_argument(format!("`{text}` is no run id")))
}

fn no_run(run: RunId) -> Status {
    Status::not_found(format!("there is no run {run}"))
}
