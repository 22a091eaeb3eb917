//! A client of a coordinator's control service: used by every command that talks to one, and by
//! `run`, which talks to its own over loopback.

use std::{
    fs,
    io::Write,
    path::{Component, Path, PathBuf},
};

use anyhow::Context as _;
use tonic::{Code, Status, Streaming, transport::Channel};
use tritmark_agent::identity::Credentials;
use tritmark_proto::{
    bundle,
    job::RunId,
    wire::{self, artefacts_client::ArtefactsClient, control_client::ControlClient},
};

use crate::{
    args::{Target, Trust},
    commands::identity::credentials,
    exit::{Exit, Fault, OrExit as _, Outcome},
};

/// Largest message a coordinator may send: a long list of jobs or one chunk of a file.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// Speaks to one coordinator.
#[derive(Clone)]
pub(crate) struct Client {
    control: ControlClient<Channel>,
    artefacts: ArtefactsClient<Channel>,
}

impl Client {
    /// Connects to the coordinator that was named.
    pub(crate) async fn connect(target: &Target) -> Outcome<Self> {
        let Target {
            coordinator,
            identity,
            trust,
        } = target;
        let credentials = credentials(coordinator, identity.as_deref())?;
        Self::dial(coordinator, trust, credentials.as_ref()).await
    }

    /// Connects to the coordinator at `url`, on the terms agents connect on.
    pub(crate) async fn connect_to(url: &str, trust: &Trust) -> Outcome<Self> {
        Self::dial(url, trust, None).await
    }

    async fn dial(url: &str, trust: &Trust, credentials: Option<&Credentials>) -> Outcome<Self> {
        let Trust { ca, insecure } = trust;
        let endpoint = tritmark_agent::endpoint(url, ca.as_ref(), *insecure, credentials)
            .or_exit(Exit::Usage, || "cannot use the coordinator's address")?;
        let channel = endpoint.connect().await.or_exit(Exit::Temporary, || {
            format!("cannot reach the coordinator at {url}")
        })?;
        Ok(Self {
            artefacts: ArtefactsClient::new(channel.clone()),
            control: ControlClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES),
        })
    }

    /// Returns what takes files.
    pub(crate) fn artefacts(&mut self) -> &mut ArtefactsClient<Channel> {
        &mut self.artefacts
    }

    /// Hands over the plan file at `path`.
    pub(crate) async fn submit(
        &mut self,
        plan: &PlanFile,
        wishes: &Wishes,
    ) -> Outcome<wire::SubmitPlanResponse> {
        self.submit_with(plan, wishes, Vec::new()).await
    }

    /// Hands over the plan file at `path`, with files that were sent before in place of its paths.
    pub(crate) async fn submit_with(
        &mut self,
        plan: &PlanFile,
        wishes: &Wishes,
        registered: Vec<wire::RegisteredFiles>,
    ) -> Outcome<wire::SubmitPlanResponse> {
        let request = wire::SubmitPlanRequest {
            registered,
            ..request(plan, wishes)
        };
        match self.control.submit_plan(request).await {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => Err(fault(
                &status,
                &format!("{} was refused", plan.path.display()),
            )),
        }
    }

    /// Asks what would become of a plan.
    pub(crate) async fn dry_run(
        &mut self,
        plan: &PlanFile,
        wishes: &Wishes,
    ) -> Outcome<wire::DryRunResponse> {
        match self.control.dry_run(request(plan, wishes)).await {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => Err(fault(
                &status,
                &format!("{} was refused", plan.path.display()),
            )),
        }
    }

    /// Pauses a run or lets it go on; returns how many of its jobs are queued.
    pub(crate) async fn pause(&mut self, run: RunId, is_paused: bool) -> Outcome<u32> {
        let run_id = run.to_string();
        if is_paused {
            let response = self.control.pause_run(wire::PauseRunRequest { run_id });
            let response = response.await;
            Ok(response
                .map_err(|status| fault(&status, &format!("cannot pause run {run}")))?
                .into_inner()
                .n_queued)
        } else {
            let response = self.control.resume_run(wire::ResumeRunRequest { run_id });
            let response = response.await;
            Ok(response
                .map_err(|status| fault(&status, &format!("cannot resume run {run}")))?
                .into_inner()
                .n_queued)
        }
    }

    /// Tells an agent to leave.
    pub(crate) async fn drain_agent(&mut self, agent: &str) -> Outcome<wire::DrainAgentResponse> {
        let request = wire::DrainAgentRequest {
            agent: agent.to_owned(),
        };
        let response = self.control.drain_agent(request).await;
        Ok(response
            .map_err(|status| fault(&status, "cannot let the agent leave"))?
            .into_inner())
    }

    /// Takes an agent out of quarantine.
    pub(crate) async fn release_agent(
        &mut self,
        agent: &str,
    ) -> Outcome<wire::ReleaseAgentResponse> {
        let request = wire::ReleaseAgentRequest {
            agent: agent.to_owned(),
        };
        let response = self.control.release_agent(request).await;
        Ok(response
            .map_err(|status| fault(&status, "cannot release the agent"))?
            .into_inner())
    }

    /// Returns the events of a run: its state first, then everything until it has ended.
    pub(crate) async fn watch(&mut self, run: RunId) -> Outcome<Streaming<wire::RunEvent>> {
        let request = wire::WatchRunRequest {
            run_id: run.to_string(),
        };
        self.control
            .watch_run(request)
            .await
            .map(tonic::Response::into_inner)
            .map_err(|status| fault(&status, &format!("cannot watch run {run}")))
    }

    /// Returns all runs, in the coordinator's order.
    pub(crate) async fn runs(&mut self) -> Outcome<Vec<wire::RunSummary>> {
        let response = self.control.list_runs(wire::ListRunsRequest {}).await;
        Ok(response
            .map_err(|status| fault(&status, "cannot list runs"))?
            .into_inner()
            .runs)
    }

    /// Returns the state of one run.
    pub(crate) async fn run(&mut self, run: RunId) -> Outcome<wire::RunSummary> {
        let id = run.to_string();
        let runs = self.runs().await?;
        runs.into_iter()
            .find(|summary| summary.run_id == id)
            .ok_or_else(|| Fault::usage(format!("the coordinator knows no run {run}")))
    }

    /// Returns all agents ever seen.
    pub(crate) async fn agents(&mut self) -> Outcome<Vec<wire::AgentInfo>> {
        let response = self.control.list_agents(wire::ListAgentsRequest {}).await;
        Ok(response
            .map_err(|status| fault(&status, "cannot list agents"))?
            .into_inner()
            .agents)
    }

    /// Returns the jobs of a run.
    pub(crate) async fn jobs(&mut self, run: RunId) -> Outcome<Vec<wire::JobInfo>> {
        let request = wire::ListJobsRequest {
            run_id: run.to_string(),
        };
        let response = self.control.list_jobs(request).await;
        Ok(response
            .map_err(|status| fault(&status, &format!("cannot list the jobs of run {run}")))?
            .into_inner()
            .jobs)
    }

    /// Cancels a run and returns the number of jobs that were.
    pub(crate) async fn cancel(&mut self, run: RunId) -> Outcome<u32> {
        let request = wire::CancelRunRequest {
            run_id: run.to_string(),
        };
        let response = self.control.cancel_run(request).await;
        Ok(response
            .map_err(|status| fault(&status, &format!("cannot cancel run {run}")))?
            .into_inner()
            .n_cancelled)
    }

    /// Writes the bundle of `run` into the folder `into`, which must not hold one already.
    pub(crate) async fn fetch_bundle(&mut self, run: RunId, into: &Path) -> Outcome<()> {
        fs::create_dir_all(into).with_context(|| format!("cannot make {}", into.display()))?;
        let request = wire::FetchResultsRequest {
            run_id: run.to_string(),
        };
        let what = format!("cannot fetch the results of run {run}");
        let mut chunks = self
            .control
            .fetch_results(request)
            .await
            .map_err(|status| fault(&status, &what))?
            .into_inner();
        let mut open: Option<(String, fs::File)> = None;
        while let Some(chunk) = chunks
            .message()
            .await
            .map_err(|status| fault(&status, &what))?
        {
            let wire::FileChunk { name, data, last } = chunk;
            let mut file = match open.take() {
                Some((open_name, file)) if open_name == name => file,
                Some((open_name, _)) => {
                    return Err(anyhow::anyhow!(
                        "the coordinator began {name} before the end of {open_name}"
                    )
                    .into());
                }
                None => {
                    // These and no others are taken from a coordinator.
                    if !bundle::FILES.contains(&name.as_str()) {
                        return Err(anyhow::anyhow!(
                            "the coordinator sent `{name}`, which is no file of a bundle"
                        )
                        .into());
                    }
                    fs::File::create_new(into.join(&name))
                        .with_context(|| format!("cannot create {}", into.join(&name).display()))?
                }
            };
            file.write_all(&data)
                .with_context(|| format!("cannot write {}", into.join(&name).display()))?;
            if last {
                file.sync_all()
                    .with_context(|| format!("cannot write {}", into.join(&name).display()))?;
            } else {
                open = Some((name, file));
            }
        }
        match open {
            None if into.join(bundle::MANIFEST).is_file() => Ok(()),
            None => Err(anyhow::anyhow!("the coordinator sent no {}", bundle::MANIFEST).into()),
            Some((name, _)) => Err(Fault::temporary(format!(
                "{name} ended before it was whole"
            ))),
        }
    }
}

/// What is wanted of a submission besides what its plan says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wishes {
    /// Instead of the plan's.
    pub(crate) priority: Option<i32>,
    /// Instead of the plan's.
    pub(crate) expires: Option<String>,
}

fn request(plan: &PlanFile, wishes: &Wishes) -> wire::SubmitPlanRequest {
    wire::SubmitPlanRequest {
        plan_toml: plan.text.clone(),
        plan_name: plan.name.clone(),
        base_dir: plan.base_dir.to_string_lossy().into_owned(),
        priority: wishes.priority,
        expires: wishes.expires.clone().unwrap_or_default(),
        registered: Vec::new(),
    }
}

/// A plan file as it is handed over.
#[derive(Clone, Debug)]
pub(crate) struct PlanFile {
    /// Where it was read.
    pub(crate) path: PathBuf,
    /// What it says.
    pub(crate) text: String,
    /// File name without its ending.
    pub(crate) name: String,
    /// Absolute folder that its relative paths start from: the one it lies in.
    pub(crate) base_dir: PathBuf,
}

impl PlanFile {
    /// Reads the plan at `path`.
    pub(crate) fn read(path: &Path) -> Outcome<Self> {
        let what = || format!("cannot read plan {}", path.display());
        let text = fs::read_to_string(path).or_exit(Exit::Usage, what)?;
        let absolute = fs::canonicalize(path).or_exit(Exit::Usage, what)?;
        let name = absolute
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned())
            .unwrap_or_default();
        let base_dir = absolute
            .parent()
            .map_or_else(|| PathBuf::from("/"), Path::to_path_buf);
        Ok(Self {
            path: path.to_owned(),
            text,
            name,
            base_dir,
        })
    }
}

/// Parses a run's id as it was typed.
pub(crate) fn run_id(text: &str) -> Outcome<RunId> {
    text.parse()
        .or_exit(Exit::Usage, || format!("`{text}` is not the id of a run"))
}

/// Turns what a coordinator answered into an exit code.
pub(crate) fn fault(status: &Status, what: &str) -> Fault {
    let exit = match status.code() {
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::OutOfRange => Exit::Usage,
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Aborted => {
            Exit::Temporary
        }
        _ => Exit::Internal,
    };
    Fault {
        exit,
        error: anyhow::anyhow!("{}", status.message()).context(what.to_owned()),
    }
}

/// Tells whether `name` is one plain file or folder name.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!(components.next(), Some(Component::Normal(_))) && components.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_a_coordinator_decides_the_exit_code() {
        for (code, exit) in [
            (Code::InvalidArgument, Exit::Usage),
            (Code::NotFound, Exit::Usage),
            (Code::PermissionDenied, Exit::Usage),
            (Code::Unavailable, Exit::Temporary),
            (Code::Internal, Exit::Internal),
            (Code::DataLoss, Exit::Internal),
        ] {
            let fault = fault(&Status::new(code, "line 3: unknown key"), "refused");
            assert_eq!(fault.exit, exit, "{code:?}");
            assert_eq!(fault.chain(), "refused: line 3: unknown key");
        }
    }

    #[test]
    fn a_plain_name_leads_nowhere_else() {
        assert!(is_plain_name("quickstart"));
        for name in ["", "..", ".", "a/b", "/etc", "../x"] {
            assert!(!is_plain_name(name), "{name}");
        }
    }
}
