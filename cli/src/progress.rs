//! What a run looks like while it runs: bars on a terminal, plain lines anywhere else. All of it on
//! stderr.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tritmark_proto::wire::{self, run_event::Kind};

/// Plain lines about a job's progress come no faster than this.
const LINE_INTERVAL: Duration = Duration::from_secs(15);

/// Shows the events of one run.
pub(crate) struct Progress {
    jobs: BTreeMap<u32, JobLine>,
    show: Show,
}

struct JobLine {
    label: String,
    state: wire::JobState,
}

enum Show {
    Bars {
        all: MultiProgress,
        overall: ProgressBar,
        running: BTreeMap<u32, ProgressBar>,
    },
    Lines {
        last: BTreeMap<u32, Instant>,
    },
    Nothing,
}

impl Progress {
    /// Returns a view of the run whose jobs are `jobs`; shows nothing where `quiet`.
    pub(crate) fn new(jobs: &[wire::JobInfo], quiet: bool) -> Self {
        let show = if quiet {
            Show::Nothing
        } else if io::stderr().is_terminal() {
            let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
            let overall = all.add(
                ProgressBar::new(jobs.len() as u64)
                    .with_style(style("{bar:30} {pos}/{len} jobs, {elapsed} gone{msg}")),
            );
            overall.enable_steady_tick(Duration::from_millis(500));
            Show::Bars {
                all,
                overall,
                running: BTreeMap::new(),
            }
        } else {
            Show::Lines {
                last: BTreeMap::new(),
            }
        };
        let mut progress = Self {
            jobs: BTreeMap::new(),
            show,
        };
        for job in jobs {
            progress.job(job, true);
        }
        progress
    }

    /// Takes in one event.
    pub(crate) fn event(&mut self, event: &wire::RunEvent) {
        match &event.kind {
            Some(Kind::Job(info)) => self.job(info, false),
            Some(Kind::Progress(progress)) => self.progress(progress),
            Some(Kind::Summary(_)) | None => {}
        }
    }

    /// Says `text` without disturbing the bars.
    pub(crate) fn say(&self, text: &str) {
        match &self.show {
            Show::Bars { all, .. } => {
                // A terminal that went away shows nothing more; the run goes on.
                let _ = all.println(text);
            }
            Show::Lines { .. } => line(text),
            Show::Nothing => {}
        }
    }

    /// Takes the bars off the terminal.
    pub(crate) fn finish(self) {
        if let Show::Bars { all, .. } = self.show {
            // As above.
            let _ = all.clear();
        }
    }

    fn job(&mut self, info: &wire::JobInfo, at_start: bool) {
        let Some(job) = &info.job else { return };
        let index = job.index;
        let state = info.state();
        let label = label(job);
        let before = self.jobs.insert(
            index,
            JobLine {
                label: label.clone(),
                state,
            },
        );
        if before.is_some_and(|before| before.state == state) {
            return;
        }
        let n_jobs = self.jobs.len();
        let n_final = self.jobs.values().filter(|j| is_final(j.state)).count();
        match &mut self.show {
            Show::Bars {
                all,
                overall,
                running,
            } => {
                overall.set_length(n_jobs as u64);
                overall.set_position(n_final as u64);
                if state == wire::JobState::Running {
                    running.entry(index).or_insert_with(|| {
                        let bar = ProgressBar::new_spinner()
                            .with_style(style("{spinner} {prefix} {msg}"))
                            .with_prefix(label.clone());
                        bar.enable_steady_tick(Duration::from_millis(200));
                        all.insert_before(overall, bar)
                    });
                } else if let Some(bar) = running.remove(&index) {
                    bar.finish_and_clear();
                    all.remove(&bar);
                }
            }
            Show::Lines { .. } | Show::Nothing => {}
        }
        if at_start || state == wire::JobState::Queued {
            return;
        }
        let text = match (&info.failure, state) {
            (_, wire::JobState::Running) => match &self.show {
                Show::Bars { .. } => return,
                _ => format!("[{n_final}/{n_jobs}] {label} started on {}", agent(info)),
            },
            (Some(failure), wire::JobState::Failed) if info.attempt > 0 => {
                format!(
                    "[{n_final}/{n_jobs}] {label} failed after attempt {}: {}",
                    info.attempt,
                    first_line(&failure.message)
                )
            }
            (_, wire::JobState::Succeeded) => {
                format!("[{n_final}/{n_jobs}] {label} done{}", took(info))
            }
            _ => format!("[{n_final}/{n_jobs}] {label} {}", job_state(info)),
        };
        self.say(&text);
    }

    fn progress(&mut self, progress: &wire::JobProgress) {
        let wire::JobProgress {
            job_index,
            done,
            total,
            stage,
        } = progress;
        let text = match total {
            0 => stage.clone(),
            _ => format!("{stage} {done}/{total}"),
        };
        match &mut self.show {
            Show::Bars { running, .. } => {
                if let Some(bar) = running.get(job_index) {
                    bar.set_message(text);
                }
            }
            Show::Lines { last } => {
                let now = Instant::now();
                let due = last
                    .get(job_index)
                    .is_none_or(|at| now.duration_since(*at) >= LINE_INTERVAL);
                let first = last.get(job_index).is_none();
                if due {
                    last.insert(*job_index, now);
                    if !first && let Some(job) = self.jobs.get(job_index) {
                        line(&format!("  {}: {text}", job.label));
                    }
                }
            }
            Show::Nothing => {}
        }
    }
}

/// Returns a job in a reader's words: model, kernel and how it is computed where they are asked for, threads,
/// suite.
pub(crate) fn label(job: &wire::Job) -> String {
    let model = job.model.as_ref().map_or("?", |model| model.id.as_str());
    let kernel = match job.kernel.as_str() {
        "auto" => String::new(),
        kernel => format!(" {kernel}"),
    };
    let numerics = match job.numerics.as_str() {
        "" | "exact" => String::new(),
        numerics => format!(" {numerics}"),
    };
    let kv = match job.kv.as_str() {
        "" | "f32" => String::new(),
        kv => format!(" kv {kv}"),
    };
    let head = match job.head.as_str() {
        "" => String::new(),
        head => format!(" {head} head"),
    };
    format!(
        "{model}{kernel}{numerics}{kv}{head} t{} {}",
        job.threads,
        suite_label(job.suite.as_ref())
    )
}

/// Returns a suite with what tells it from others of its kind.
pub(crate) fn suite_label(suite: Option<&wire::Suite>) -> String {
    use wire::suite::Kind;
    let shape = |workload: Option<&wire::Workload>| {
        workload.map_or_else(String::new, |w| {
            let depth = match w.n_depth {
                0 => String::new(),
                depth => format!(" @ d{depth}"),
            };
            format!(" pp{}+tg{}{depth}", w.n_prompt, w.n_gen)
        })
    };
    match suite.and_then(|suite| suite.kind.as_ref()) {
        Some(Kind::Latency(latency)) => format!("latency{}", shape(latency.workload.as_ref())),
        Some(Kind::Memory(memory)) => format!("memory{}", shape(memory.workload.as_ref())),
        Some(Kind::Energy(energy)) => format!("energy{}", shape(energy.workload.as_ref())),
        Some(Kind::Accuracy(accuracy)) => {
            let shots = match accuracy.num_fewshot {
                0 => String::new(),
                n => format!(" {n}-shot"),
            };
            format!("accuracy {}{shots}", accuracy.task)
        }
        Some(Kind::Agreement(agreement)) => format!(
            "agreement of {} prompts up to {}+{} tokens",
            agreement.n_prompts, agreement.max_len, agreement.n_gen
        ),
        None => "?".to_owned(),
    }
}

/// Returns the word for how a job stands; one that nobody began in time has its own.
pub(crate) fn job_state(info: &wire::JobInfo) -> &'static str {
    let class = info.failure.as_ref().map(wire::Failure::class);
    match (info.state(), class) {
        (wire::JobState::Failed, Some(wire::failure::Class::Expired)) => "expired",
        (state, _) => state_name(state),
    }
}

/// Returns the word for a job's state.
pub(crate) fn state_name(state: wire::JobState) -> &'static str {
    match state {
        wire::JobState::Unspecified => "unknown",
        wire::JobState::Queued => "queued",
        wire::JobState::Running => "running",
        wire::JobState::Succeeded => "succeeded",
        wire::JobState::Failed => "failed",
        wire::JobState::Cancelled => "cancelled",
    }
}

fn is_final(state: wire::JobState) -> bool {
    matches!(
        state,
        wire::JobState::Succeeded | wire::JobState::Failed | wire::JobState::Cancelled
    )
}

fn agent(info: &wire::JobInfo) -> &str {
    info.machine_id
        .as_deref()
        .or(info.agent_id.as_deref())
        .unwrap_or("an agent")
}

fn took(info: &wire::JobInfo) -> String {
    match (info.started_unix_ns, info.ended_unix_ns) {
        (Some(start), Some(end)) if end >= start => {
            format!(" in {:.1} s", (end - start) as f64 / 1e9)
        }
        _ => String::new(),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn line(text: &str) {
    // Nobody may be reading; the run goes on.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is a constant of this file")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_named_by_what_tells_it_from_others() {
        let job = wire::Job {
            model: Some(wire::Model {
                id: "bitnet-tiny".to_owned(),
                ..Default::default()
            }),
            kernel: "scalar".to_owned(),
            threads: 2,
            suite: Some(wire::Suite {
                kind: Some(wire::suite::Kind::Latency(wire::Latency {
                    workload: Some(wire::Workload {
                        n_prompt: 512,
                        n_gen: 128,
                        n_depth: 64,
                        n_batch: 512,
                    }),
                    ..Default::default()
                })),
            }),
            ..Default::default()
        };
        assert_eq!(
            label(&job),
            "bitnet-tiny scalar t2 latency pp512+tg128 @ d64"
        );
    }

    #[test]
    fn an_automatic_kernel_needs_no_mention() {
        let job = wire::Job {
            kernel: "auto".to_owned(),
            threads: 1,
            suite: Some(wire::Suite {
                kind: Some(wire::suite::Kind::Accuracy(wire::Accuracy {
                    task: "boolq".to_owned(),
                    num_fewshot: 5,
                    ..Default::default()
                })),
            }),
            ..Default::default()
        };
        assert_eq!(label(&job), "? t1 accuracy boolq 5-shot");
    }
}
