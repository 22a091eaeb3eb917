//! What would become of a plan: where its jobs would go, and how long such jobs took before.

use tonic::{Response, Status};
use tritmark_proto::{bundle::JobState, job::RunId, wire};

use super::{ControlService, Submission};
use crate::{
    link::internal,
    run::{AgentView, Command, now_unix_ns},
    schedule::preview::{self, Candidate, Estimate, Experience},
    store::StoredJob,
};

/// Earlier jobs that are looked at, in whole runs from the newest.
const EARLIER_JOBS: usize = 20_000;

impl ControlService {
    /// Says what would become of a plan.
    pub(super) async fn preview(
        &self,
        request: wire::SubmitPlanRequest,
    ) -> Result<Response<wire::DryRunResponse>, Status> {
        let Submission {
            plan,
            priority,
            expires,
            ..
        } = self.checked(request, false).await?;
        let views: Vec<AgentView> = self.ask(|reply| Command::Agents { reply }).await?;
        let candidates: Vec<Candidate<'_>> = views
            .iter()
            .map(|view| Candidate {
                agent: &view.agent,
                is_connected: view.is_connected,
                is_draining: view.is_draining,
            })
            .collect();
        let jobs = plan.jobs(RunId::generate());
        let experience = self.experience().await?;
        let places = preview::places(&jobs, &candidates);
        let jobs = jobs
            .into_iter()
            .zip(places)
            .map(|(job, place)| {
                let machine = place.agent.map(|agent| &*agent.machine.id);
                let estimate = experience.estimate(&job, machine).map(
                    |Estimate {
                         median_ns,
                         n_jobs,
                         is_same_machine,
                     }| wire::JobEstimate {
                        median_ns,
                        n_jobs,
                        same_machine: is_same_machine,
                    },
                );
                wire::JobPreview {
                    job: Some(job.into()),
                    agent_id: place.agent.map(|agent| agent.id.clone()),
                    hostname: place.agent.map(|agent| agent.machine.hostname.clone()),
                    n_fitting: place.n_fitting,
                    refusals: place
                        .refusals
                        .into_iter()
                        .map(|(why, n)| match n {
                            1 => format!("1 agent: {why}"),
                            n => format!("{n} agents: {why}"),
                        })
                        .collect(),
                    estimate,
                }
            })
            .collect();
        Ok(Response::new(wire::DryRunResponse {
            name: plan.name().to_owned(),
            priority,
            expires_unix_ns: expires.map(|expires| expires.unix_ns(now_unix_ns())),
            jobs,
        }))
    }

    /// Reads how long earlier jobs took.
    async fn experience(&self) -> Result<Experience, Status> {
        let mut experience = Experience::default();
        let mut n_jobs = 0;
        let runs = self.store.runs().await.map_err(|error| internal(&error))?;
        for run in runs.iter().rev() {
            let jobs = self
                .store
                .jobs(run.id)
                .await
                .map_err(|error| internal(&error))?;
            n_jobs += jobs.len();
            for job in &jobs {
                if let Some((machine_id, took_ns)) = took(job) {
                    experience.add(&job.job, machine_id, took_ns);
                }
            }
            if n_jobs >= EARLIER_JOBS {
                break;
            }
        }
        Ok(experience)
    }
}

/// Returns where a job ran and how long, if it was done at once: of several attempts each did a part.
fn took(job: &StoredJob) -> Option<(&str, u64)> {
    let [attempt] = &job.attempts[..] else {
        return None;
    };
    let took = attempt
        .ended_unix_ns?
        .checked_sub(attempt.started_unix_ns)?;
    let is_done = job.state == JobState::Succeeded;
    let took = u64::try_from(took).ok().filter(|_| is_done)?;
    Some((&attempt.machine_id, took))
}
