//! Wire messages to domain types and back.
//!
//! Every conversion takes its source apart, so that a new field is a compile error here.

mod agreement;
mod artefact;
mod item;
mod record;

use std::{num::NonZeroU32, path::PathBuf, str::FromStr};

use crate::{
    bundle::{Failure, FailureClass, JobState},
    job::{
        AccuracySpec, Adapter, AttemptId, ChatSpec, EnergySpec, Head, Job, JobId, KvType,
        LatencySpec, MemorySpec, Model, ModelSource, Numerics, RunId, ScoreOn, Selector, Shard,
        SuiteSpec, Synth, Workload,
    },
    machine::{Cache, Machine},
    wire,
};

/// A message that is well-formed but says nothing sensible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMessage {
    /// A field that must be there is not.
    #[error("field `{field}` is missing")]
    Missing {
        /// Message and field, e.g. `Job.model`.
        field: &'static str,
    },
    /// A field's value is out of its range.
    #[error("field `{field}` is invalid: {problem}")]
    Invalid {
        /// Message and field.
        field: &'static str,
        /// What is wrong, in a reader's words.
        problem: String,
    },
}

fn required<T>(field: &'static str, value: Option<T>) -> Result<T, InvalidMessage> {
    value.ok_or(InvalidMessage::Missing { field })
}

fn invalid(field: &'static str, problem: impl Into<String>) -> InvalidMessage {
    InvalidMessage::Invalid {
        field,
        problem: problem.into(),
    }
}

fn parsed<T: FromStr<Err: ToString>>(field: &'static str, text: &str) -> Result<T, InvalidMessage> {
    text.parse()
        .map_err(|error: T::Err| invalid(field, error.to_string()))
}

/// Reads how block formats are multiplied; older programs say nothing.
fn numerics(field: &'static str, name: &str) -> Result<Numerics, InvalidMessage> {
    if name.is_empty() {
        return Ok(Numerics::Exact);
    }
    Numerics::from_name(name).ok_or_else(|| invalid(field, format!("unknown numerics `{name}`")))
}

/// Reads how keys and values are kept; older programs say nothing.
fn kv(field: &'static str, name: &str) -> Result<KvType, InvalidMessage> {
    if name.is_empty() {
        return Ok(KvType::F32);
    }
    KvType::from_name(name)
        .ok_or_else(|| invalid(field, format!("unknown type of keys and values `{name}`")))
}

/// Reads how the greatest logits are found, where a plan says so.
fn head(name: &str) -> Result<Option<Head>, InvalidMessage> {
    if name.is_empty() {
        return Ok(None);
    }
    let head = Head::from_name(name);
    head.map(Some)
        .ok_or_else(|| invalid("Job.head", format!("unknown head `{name}`")))
}

fn score_on(name: &str) -> Result<ScoreOn, InvalidMessage> {
    if name.is_empty() {
        return Ok(ScoreOn::Agent);
    }
    ScoreOn::from_name(name)
        .ok_or_else(|| invalid("Accuracy.score_on", format!("unknown place `{name}`")))
}

fn positive(field: &'static str, value: u32) -> Result<NonZeroU32, InvalidMessage> {
    NonZeroU32::new(value).ok_or_else(|| invalid(field, "must be at least 1"))
}

fn seconds(field: &'static str, value: f64) -> Result<f64, InvalidMessage> {
    if value.is_finite() && value >= 0.0 {
        Ok(value)
    } else {
        Err(invalid(field, format!("{value} is no duration")))
    }
}

impl From<Machine> for wire::Machine {
    fn from(machine: Machine) -> Self {
        let Machine {
            id,
            hostname,
            arch,
            cpu_model,
            isa,
            sockets,
            physical_cores,
            logical_cores,
            caches,
            memory_bytes,
            os,
            kernel,
            governor,
            hypervisor,
            transparent_huge_pages,
            firmware,
            microcode,
        } = machine;
        let caches = caches
            .into_iter()
            .map(
                |Cache {
                     level,
                     kind,
                     size_bytes,
                     shared_by,
                     instances,
                 }| wire::Cache {
                    level,
                    kind,
                    size_bytes,
                    shared_by,
                    instances,
                },
            )
            .collect();
        Self {
            id,
            hostname,
            arch,
            cpu_model,
            isa,
            sockets,
            physical_cores,
            logical_cores,
            caches,
            memory_bytes,
            os,
            kernel,
            governor,
            hypervisor,
            transparent_huge_pages,
            firmware,
            microcode,
        }
    }
}

impl TryFrom<wire::Machine> for Machine {
    type Error = InvalidMessage;

    fn try_from(machine: wire::Machine) -> Result<Self, Self::Error> {
        let wire::Machine {
            id,
            hostname,
            arch,
            cpu_model,
            isa,
            sockets,
            physical_cores,
            logical_cores,
            caches,
            memory_bytes,
            os,
            kernel,
            governor,
            hypervisor,
            transparent_huge_pages,
            firmware,
            microcode,
        } = machine;
        if id.is_empty() {
            return Err(invalid("Machine.id", "is empty"));
        }
        let caches = caches
            .into_iter()
            .map(
                |wire::Cache {
                     level,
                     kind,
                     size_bytes,
                     shared_by,
                     instances,
                 }| Cache {
                    level,
                    kind,
                    size_bytes,
                    shared_by,
                    instances,
                },
            )
            .collect();
        Ok(Self {
            id,
            hostname,
            arch,
            cpu_model,
            isa,
            sockets,
            physical_cores,
            logical_cores,
            caches,
            memory_bytes,
            os,
            kernel,
            governor,
            hypervisor,
            transparent_huge_pages,
            firmware,
            microcode,
        })
    }
}

impl From<Workload> for wire::Workload {
    fn from(
        Workload {
            n_prompt,
            n_gen,
            n_depth,
            n_batch,
        }: Workload,
    ) -> Self {
        Self {
            n_prompt,
            n_gen,
            n_depth,
            n_batch,
        }
    }
}

impl From<wire::Workload> for Workload {
    fn from(
        wire::Workload {
            n_prompt,
            n_gen,
            n_depth,
            n_batch,
        }: wire::Workload,
    ) -> Self {
        Self {
            n_prompt,
            n_gen,
            n_depth,
            n_batch,
        }
    }
}

impl From<Job> for wire::Job {
    fn from(
        Job {
            id,
            model,
            kernel,
            numerics,
            kv,
            head,
            threads,
            suite,
            selector,
        }: Job,
    ) -> Self {
        Self {
            run_id: id.run.to_string(),
            index: id.index,
            model: Some(model.into()),
            kernel,
            numerics: numerics.name().to_owned(),
            kv: kv.name().to_owned(),
            head: head.map_or_else(String::new, |head| head.name().to_owned()),
            threads: threads.get(),
            suite: Some(suite.into()),
            selector: Some(selector.into()),
        }
    }
}

impl TryFrom<wire::Job> for Job {
    type Error = InvalidMessage;

    fn try_from(job: wire::Job) -> Result<Self, Self::Error> {
        let wire::Job {
            run_id,
            index,
            model,
            kernel,
            threads,
            suite,
            selector,
            numerics: how,
            kv: kept,
            head: found,
        } = job;
        Ok(Self {
            id: JobId {
                run: parsed("Job.run_id", &run_id)?,
                index,
            },
            model: required("Job.model", model)?.try_into()?,
            kernel,
            numerics: numerics("Job.numerics", &how)?,
            kv: kv("Job.kv", &kept)?,
            head: head(&found)?,
            threads: positive("Job.threads", threads)?,
            suite: required("Job.suite", suite)?.try_into()?,
            selector: selector.unwrap_or_default().into(),
        })
    }
}

impl From<Synth> for wire::Synth {
    fn from(
        Synth {
            shape,
            format,
            seed,
        }: Synth,
    ) -> Self {
        Self {
            shape,
            format,
            seed,
        }
    }
}

impl From<wire::Synth> for Synth {
    fn from(
        wire::Synth {
            shape,
            format,
            seed,
        }: wire::Synth,
    ) -> Self {
        Self {
            shape,
            format,
            seed,
        }
    }
}

impl From<Model> for wire::Model {
    fn from(
        Model {
            id,
            source,
            adapter,
            baseline,
        }: Model,
    ) -> Self {
        use wire::{
            adapted::{Adapter as Beside, Base},
            model::Source,
        };
        // A path that is not UTF-8 cannot come from a plan, which is text.
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let base = match source {
            ModelSource::Path(path) => Base::Path(text(path)),
            ModelSource::Synth(synth) => Base::Synth(synth.into()),
            ModelSource::Files(files) => Base::Files(files.into()),
        };
        let source = match (adapter, base) {
            (None, Base::Path(path)) => Source::Path(path),
            (None, Base::Synth(synth)) => Source::Synth(synth),
            (None, Base::Files(files)) => Source::Files(files),
            (Some(adapter), base) => Source::Adapted(wire::Adapted {
                base: Some(base),
                adapter: Some(match adapter {
                    Adapter::Path(path) => Beside::AdapterPath(text(path)),
                    Adapter::Files(files) => Beside::AdapterFiles(files.into()),
                }),
            }),
        };
        Self {
            id,
            source: Some(source),
            baseline,
        }
    }
}

impl TryFrom<wire::Model> for Model {
    type Error = InvalidMessage;

    fn try_from(
        wire::Model {
            id,
            source,
            baseline,
        }: wire::Model,
    ) -> Result<Self, Self::Error> {
        use wire::{
            adapted::{Adapter as Beside, Base},
            model::Source,
        };
        let (base, adapter) = match required("Model.source", source)? {
            Source::Path(path) => (Base::Path(path), None),
            Source::Synth(synth) => (Base::Synth(synth), None),
            Source::Files(files) => (Base::Files(files), None),
            Source::Adapted(wire::Adapted { base, adapter }) => {
                let adapter = match required("Adapted.adapter", adapter)? {
                    Beside::AdapterPath(path) => Adapter::Path(path.into()),
                    Beside::AdapterFiles(files) => Adapter::Files(files.try_into()?),
                };
                (required("Adapted.base", base)?, Some(adapter))
            }
        };
        let source = match base {
            Base::Path(path) => ModelSource::Path(path.into()),
            Base::Synth(synth) => ModelSource::Synth(synth.into()),
            Base::Files(files) => ModelSource::Files(files.try_into()?),
        };
        Ok(Self {
            id,
            source,
            adapter,
            baseline,
        })
    }
}

impl From<Selector> for wire::Selector {
    fn from(selector: Selector) -> Self {
        let Selector {
            arch,
            isa,
            memory_min_bytes,
            machine_id,
            labels,
        } = selector;
        Self {
            arch,
            isa,
            memory_min_bytes,
            machine_id,
            labels: labels.into_iter().collect(),
        }
    }
}

impl From<wire::Selector> for Selector {
    fn from(selector: wire::Selector) -> Self {
        let wire::Selector {
            arch,
            isa,
            memory_min_bytes,
            machine_id,
            labels,
        } = selector;
        Self {
            arch,
            isa,
            memory_min_bytes,
            machine_id,
            labels: labels.into_iter().collect(),
        }
    }
}

impl From<SuiteSpec> for wire::Suite {
    fn from(suite: SuiteSpec) -> Self {
        use wire::suite::Kind;
        let kind = match suite {
            SuiteSpec::Latency(LatencySpec {
                workload,
                warm_ups,
                repetitions,
                probe,
            }) => Kind::Latency(wire::Latency {
                workload: Some(workload.into()),
                warm_ups,
                repetitions: repetitions.get(),
                probe,
            }),
            SuiteSpec::Memory(MemorySpec { workload }) => Kind::Memory(wire::Memory {
                workload: Some(workload.into()),
            }),
            SuiteSpec::Energy(EnergySpec {
                workload,
                repetitions,
                idle_seconds,
                window_seconds,
            }) => Kind::Energy(wire::Energy {
                workload: Some(workload.into()),
                repetitions: repetitions.get(),
                idle_seconds,
                window_seconds,
            }),
            SuiteSpec::Accuracy(AccuracySpec {
                task,
                data_dir,
                limit,
                num_fewshot,
                add_bos,
                definition,
                chat,
                max_new,
                batch,
                shard,
                evalplus_compat,
                score_on,
                cache,
                data,
            }) => Kind::Accuracy(wire::Accuracy {
                task,
                data_dir: data_dir.to_string_lossy().into_owned(),
                limit: limit.map(NonZeroU32::get),
                num_fewshot,
                add_bos,
                definition,
                chat: chat.map(
                    |ChatSpec {
                         system,
                         fewshot_as_multiturn,
                     }| wire::AccuracyChat {
                        system,
                        fewshot_as_multiturn,
                    },
                ),
                max_new: max_new.map(NonZeroU32::get),
                batch: batch.map(NonZeroU32::get),
                shard: shard.map(|Shard { index, count }| wire::Shard {
                    index,
                    count: count.get(),
                }),
                evalplus_compat,
                score_on: score_on.name().to_owned(),
                cache,
                data: data.map(Into::into),
            }),
            SuiteSpec::Agreement(spec) => Kind::Agreement(spec.into()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<wire::Suite> for SuiteSpec {
    type Error = InvalidMessage;

    fn try_from(suite: wire::Suite) -> Result<Self, Self::Error> {
        use wire::suite::Kind;
        Ok(match required("Suite.kind", suite.kind)? {
            Kind::Latency(wire::Latency {
                workload,
                warm_ups,
                repetitions,
                probe,
            }) => Self::Latency(LatencySpec {
                workload: required("Latency.workload", workload)?.into(),
                warm_ups,
                repetitions: positive("Latency.repetitions", repetitions)?,
                probe,
            }),
            Kind::Memory(wire::Memory { workload }) => Self::Memory(MemorySpec {
                workload: required("Memory.workload", workload)?.into(),
            }),
            Kind::Energy(wire::Energy {
                workload,
                repetitions,
                idle_seconds,
                window_seconds,
            }) => Self::Energy(EnergySpec {
                workload: required("Energy.workload", workload)?.into(),
                repetitions: positive("Energy.repetitions", repetitions)?,
                idle_seconds: seconds("Energy.idle_seconds", idle_seconds)?,
                window_seconds: seconds("Energy.window_seconds", window_seconds)?,
            }),
            Kind::Accuracy(wire::Accuracy {
                task,
                data_dir,
                limit,
                num_fewshot,
                add_bos,
                definition,
                chat,
                max_new,
                batch,
                shard,
                evalplus_compat,
                score_on: place,
                cache,
                data,
            }) => Self::Accuracy(AccuracySpec {
                task,
                data_dir: data_dir.into(),
                limit: limit
                    .map(|limit| positive("Accuracy.limit", limit))
                    .transpose()?,
                num_fewshot,
                add_bos,
                definition,
                chat: chat.map(
                    |wire::AccuracyChat {
                         system,
                         fewshot_as_multiturn,
                     }| ChatSpec {
                        system,
                        fewshot_as_multiturn,
                    },
                ),
                max_new: max_new
                    .map(|tokens| positive("Accuracy.max_new", tokens))
                    .transpose()?,
                batch: batch
                    .map(|items| positive("Accuracy.batch", items))
                    .transpose()?,
                shard: shard.map(shard_of).transpose()?,
                evalplus_compat,
                score_on: score_on(&place)?,
                cache,
                data: data.map(TryInto::try_into).transpose()?,
            }),
            Kind::Agreement(spec) => Self::Agreement(spec.try_into()?),
        })
    }
}

fn shard_of(wire::Shard { index, count }: wire::Shard) -> Result<Shard, InvalidMessage> {
    let count = positive("Shard.count", count)?;
    if index >= count.get() {
        let problem = format!("{index} is no shard of {count}");
        return Err(invalid("Shard.index", problem));
    }
    Ok(Shard { index, count })
}

impl From<AttemptId> for wire::AttemptRef {
    fn from(
        AttemptId {
            job,
            attempt,
            fence,
        }: AttemptId,
    ) -> Self {
        Self {
            run_id: job.run.to_string(),
            job_index: job.index,
            attempt: attempt.get(),
            fence,
        }
    }
}

impl TryFrom<wire::AttemptRef> for AttemptId {
    type Error = InvalidMessage;

    fn try_from(attempt: wire::AttemptRef) -> Result<Self, Self::Error> {
        let wire::AttemptRef {
            run_id,
            job_index,
            attempt,
            fence,
        } = attempt;
        let run: RunId = parsed("AttemptRef.run_id", &run_id)?;
        Ok(Self {
            job: JobId {
                run,
                index: job_index,
            },
            attempt: positive("AttemptRef.attempt", attempt)?,
            fence,
        })
    }
}

impl From<Failure> for wire::Failure {
    fn from(
        Failure {
            class,
            message,
            stderr,
        }: Failure,
    ) -> Self {
        let class = match class {
            FailureClass::Transient => wire::failure::Class::Transient,
            FailureClass::Permanent => wire::failure::Class::Permanent,
            FailureClass::Infrastructure => wire::failure::Class::Infrastructure,
            FailureClass::Expired => wire::failure::Class::Expired,
        };
        Self {
            class: class.into(),
            message,
            stderr,
        }
    }
}

impl TryFrom<wire::Failure> for Failure {
    type Error = InvalidMessage;

    fn try_from(failure: wire::Failure) -> Result<Self, Self::Error> {
        let class = match failure.class() {
            wire::failure::Class::Transient => FailureClass::Transient,
            wire::failure::Class::Permanent => FailureClass::Permanent,
            wire::failure::Class::Infrastructure => FailureClass::Infrastructure,
            wire::failure::Class::Expired => FailureClass::Expired,
            wire::failure::Class::Unspecified => {
                return Err(invalid("Failure.class", "is not given"));
            }
        };
        let wire::Failure {
            class: _,
            message,
            stderr,
        } = failure;
        Ok(Self {
            class,
            message,
            stderr,
        })
    }
}

impl From<JobState> for wire::JobState {
    fn from(state: JobState) -> Self {
        match state {
            JobState::Queued => Self::Queued,
            JobState::Running => Self::Running,
            JobState::Succeeded => Self::Succeeded,
            JobState::Failed => Self::Failed,
            JobState::Cancelled => Self::Cancelled,
        }
    }
}

impl TryFrom<wire::JobState> for JobState {
    type Error = InvalidMessage;

    fn try_from(state: wire::JobState) -> Result<Self, Self::Error> {
        match state {
            wire::JobState::Queued => Ok(Self::Queued),
            wire::JobState::Running => Ok(Self::Running),
            wire::JobState::Succeeded => Ok(Self::Succeeded),
            wire::JobState::Failed => Ok(Self::Failed),
            wire::JobState::Cancelled => Ok(Self::Cancelled),
            wire::JobState::Unspecified => Err(invalid("JobState", "is not given")),
        }
    }
}
