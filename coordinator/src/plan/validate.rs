//! From the file's keys to a plan that cannot be wrong in itself.

use std::{collections::HashMap, fmt::Display, hash::Hash, num::NonZeroU32, path::Path};

use toml::Spanned;
use tritmark_proto::job::{
    AccuracySpec, EnergySpec, LatencySpec, MemorySpec, Model, ModelSource, Selector, SuiteSpec,
    Synth, Workload,
};

use super::{
    Plan, PlanError, PlanModel, PlanSelector, PlanSpec, PlanSuite,
    document::{self, Document, List},
    expand,
    locate::Locator,
    names,
};

/// Limits of single values: high enough for any machine, low enough to catch a slip.
const MAX_THREADS: u32 = 4096;
const MAX_TOKENS: u32 = 1 << 20;
const MAX_REPETITIONS: u32 = 100_000;
const MAX_SECONDS: f64 = 86_400.0;
const MAX_FEWSHOT: u32 = 1000;
const MAX_NAME: usize = 100;

/// Resolves every key of `document`.
pub(super) fn plan(
    document: Document,
    text: &str,
    fallback_name: &str,
    base_dir: &Path,
    locator: &Locator<'_>,
) -> Result<Plan, PlanError> {
    let Document {
        name,
        defaults,
        models,
        suites,
        select,
    } = document;
    let reader = Reader { locator, base_dir };
    let name = match name {
        Some(name) => {
            reader.name(&name)?;
            name.into_inner()
        }
        None if is_name(fallback_name) => fallback_name.to_owned(),
        None => {
            return Err(PlanError {
                line: 1,
                key: "name".to_owned(),
                problem: format!(
                    "the plan has no name and its file's, `{fallback_name}`, is none: {NAME_RULE}"
                ),
            });
        }
    };
    let models = reader.models(&defaults, models)?;
    let suites = reader.suites(suites, &models)?;
    let selectors = match select {
        Some(select) => reader.selectors(&select, &models, &suites)?,
        None => vec![PlanSelector {
            selector: Selector::default(),
            at: 0,
        }],
    };
    let plan = Plan {
        name,
        text: text.to_owned(),
        models,
        suites,
        selectors,
    };
    let n_jobs = expand::count(&plan);
    if n_jobs > super::MAX_JOBS {
        return Err(PlanError {
            line: 1,
            key: "suites".to_owned(),
            problem: format!(
                "the plan expands to {n_jobs} jobs, at most {} are taken",
                super::MAX_JOBS
            ),
        });
    }
    Ok(plan)
}

const NAME_RULE: &str =
    "a name has 1 to 100 letters, digits, `.`, `_` or `-` and does not begin with `.` or `-`";

fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        && !name.starts_with(['.', '-'])
}

struct Reader<'a> {
    locator: &'a Locator<'a>,
    base_dir: &'a Path,
}

/// What the performance suites share.
struct WorkloadLists<'a> {
    n_prompt: Option<&'a List<u32>>,
    n_gen: Option<&'a List<u32>>,
    n_depth: Option<&'a List<u32>>,
    n_batch: Option<&'a List<u32>>,
}

impl Reader<'_> {
    fn error<T>(&self, place: &Spanned<T>, problem: impl Into<String>) -> PlanError {
        self.locator.error(place.span().start, problem)
    }

    fn name(&self, name: &Spanned<String>) -> Result<(), PlanError> {
        if is_name(name.get_ref()) {
            Ok(())
        } else {
            let shown: String = name.get_ref().chars().take(40).collect();
            Err(self.error(name, format!("`{shown}` is no name: {NAME_RULE}")))
        }
    }

    fn models(
        &self,
        defaults: &document::Defaults,
        models: List<document::Model>,
    ) -> Result<Vec<PlanModel>, PlanError> {
        if models.get_ref().is_empty() {
            return Err(self.error(&models, "the list is empty"));
        }
        let models = models.into_inner();
        let mut lines = HashMap::new();
        for model in &models {
            let id = &model.get_ref().id;
            self.name(id)?;
            let line = self.locator.line(id.span().start);
            if let Some(first) = lines.insert(id.get_ref().clone(), line) {
                return Err(self.error(
                    id,
                    format!("the id `{}` is taken by line {first}", id.get_ref()),
                ));
            }
        }
        let baselines: HashMap<&str, bool> = models
            .iter()
            .map(|model| {
                let model = model.get_ref();
                (model.id.get_ref().as_str(), model.baseline.is_some())
            })
            .collect();
        let default_threads = self.threads(defaults.threads.as_ref())?;
        let default_kernels = self.kernels(defaults.kernels.as_ref())?;
        models
            .iter()
            .map(|model| {
                self.model(
                    model,
                    &baselines,
                    default_threads.as_deref(),
                    default_kernels.as_deref(),
                )
            })
            .collect()
    }

    fn model(
        &self,
        model: &Spanned<document::Model>,
        has_baseline: &HashMap<&str, bool>,
        default_threads: Option<&[NonZeroU32]>,
        default_kernels: Option<&[String]>,
    ) -> Result<PlanModel, PlanError> {
        let document::Model {
            id,
            path,
            synth,
            baseline,
            threads,
            kernels,
        } = model.get_ref();
        let (source, source_at) = match (path, synth) {
            (Some(path), None) if path.get_ref().is_empty() => {
                return Err(self.error(path, "the path is empty"));
            }
            (Some(path), None) => (
                ModelSource::Path(self.base_dir.join(path.get_ref())),
                path.span().start,
            ),
            (None, Some(synth)) => (self.synth(synth.get_ref())?, synth.span().start),
            (Some(_), Some(synth)) => {
                return Err(self.error(synth, "a model has either `path` or `synth`, not both"));
            }
            (None, None) => {
                return Err(self.error(
                    id,
                    format!(
                        "the model `{}` has neither `path` nor `synth`",
                        id.get_ref()
                    ),
                ));
            }
        };
        if let Some(baseline) = baseline {
            let name = baseline.get_ref();
            match has_baseline.get(name.as_str()) {
                _ if name == id.get_ref() => {
                    return Err(self.error(baseline, "a model is not its own baseline"));
                }
                None => {
                    return Err(self.error(baseline, format!("no model has the id `{name}`")));
                }
                Some(true) => {
                    return Err(self.error(
                        baseline,
                        format!("the baseline `{name}` has a baseline itself"),
                    ));
                }
                Some(false) => {}
            }
        }
        let one = || vec![NonZeroU32::MIN];
        let auto = || vec![names::AUTO_KERNEL.to_owned()];
        Ok(PlanModel {
            model: Model {
                id: id.get_ref().clone(),
                source,
                baseline: baseline.as_ref().map(|id| id.get_ref().clone()),
            },
            threads: self
                .threads(threads.as_ref())?
                .unwrap_or_else(|| default_threads.map_or_else(one, <[_]>::to_vec)),
            kernels: self
                .kernels(kernels.as_ref())?
                .unwrap_or_else(|| default_kernels.map_or_else(auto, <[_]>::to_vec)),
            source_at,
        })
    }

    fn synth(&self, synth: &document::Synth) -> Result<ModelSource, PlanError> {
        let document::Synth {
            shape,
            format,
            seed,
        } = synth;
        self.known("shape", shape, &names::SHAPES)?;
        self.known("format", format, &names::FORMATS)?;
        Ok(ModelSource::Synth(Synth {
            shape: shape.get_ref().clone(),
            format: format.get_ref().clone(),
            seed: *seed,
        }))
    }

    fn known(&self, kind: &str, name: &Spanned<String>, all: &[&str]) -> Result<(), PlanError> {
        if all.contains(&name.get_ref().as_str()) {
            Ok(())
        } else {
            Err(self.error(
                name,
                format!(
                    "unknown {kind} `{}`, there are {}",
                    name.get_ref(),
                    all.join(", ")
                ),
            ))
        }
    }

    fn threads(&self, threads: Option<&List<u32>>) -> Result<Option<Vec<NonZeroU32>>, PlanError> {
        let Some(threads) = threads else {
            return Ok(None);
        };
        let threads = self.numbers(threads, 1, MAX_THREADS)?;
        Ok(Some(
            threads.into_iter().filter_map(NonZeroU32::new).collect(),
        ))
    }

    fn kernels(&self, kernels: Option<&List<String>>) -> Result<Option<Vec<String>>, PlanError> {
        let Some(kernels) = kernels else {
            return Ok(None);
        };
        let mut full = Vec::new();
        for kernel in kernels.get_ref() {
            let Some(name) = names::kernel(kernel.get_ref()) else {
                let all: Vec<&str> = [names::AUTO_KERNEL]
                    .into_iter()
                    .chain(names::KERNELS.map(|(name, _)| name))
                    .collect();
                return Err(self.error(
                    kernel,
                    format!(
                        "unknown kernel `{}`, there are {}",
                        kernel.get_ref(),
                        all.join(", ")
                    ),
                ));
            };
            full.push(Spanned::new(kernel.span(), name.to_owned()));
        }
        self.distinct(kernels, &full)?;
        Ok(Some(full.into_iter().map(Spanned::into_inner).collect()))
    }

    /// Refuses an empty list and one that names something twice.
    fn distinct<T, U>(&self, list: &Spanned<U>, values: &[Spanned<T>]) -> Result<(), PlanError>
    where
        T: Eq + Hash + Display,
    {
        if values.is_empty() {
            return Err(self.error(list, "the list is empty"));
        }
        let mut seen = std::collections::HashSet::new();
        for value in values {
            if !seen.insert(value.get_ref()) {
                return Err(
                    self.error(value, format!("`{}` is in the list twice", value.get_ref()))
                );
            }
        }
        Ok(())
    }

    fn numbers(&self, list: &List<u32>, min: u32, max: u32) -> Result<Vec<u32>, PlanError> {
        self.distinct(list, list.get_ref())?;
        list.get_ref()
            .iter()
            .map(|value| self.number(value, min, max))
            .collect()
    }

    fn number(&self, value: &Spanned<u32>, min: u32, max: u32) -> Result<u32, PlanError> {
        let number = *value.get_ref();
        if (min..=max).contains(&number) {
            Ok(number)
        } else {
            Err(self.error(value, format!("{number} is not within {min} to {max}")))
        }
    }

    fn positive(
        &self,
        value: Option<&Spanned<u32>>,
        default: NonZeroU32,
        max: u32,
    ) -> Result<NonZeroU32, PlanError> {
        let Some(value) = value else {
            return Ok(default);
        };
        let number = self.number(value, 1, max)?;
        Ok(NonZeroU32::new(number).unwrap_or(default))
    }

    fn seconds(&self, value: Option<&Spanned<f64>>, default: f64) -> Result<f64, PlanError> {
        let Some(value) = value else {
            return Ok(default);
        };
        let seconds = *value.get_ref();
        if (0.0..=MAX_SECONDS).contains(&seconds) {
            Ok(seconds)
        } else {
            Err(self.error(
                value,
                format!("{seconds} is not within 0 to {MAX_SECONDS} seconds"),
            ))
        }
    }

    /// Multiplies the lists of one suite; the order of nesting is prompt, gen, depth, batch.
    fn workloads(
        &self,
        suite_at: usize,
        lists: &WorkloadLists<'_>,
    ) -> Result<Vec<(Workload, usize)>, PlanError> {
        let read = |list: Option<&List<u32>>, min, default: u32| match list {
            Some(list) => self.numbers(list, min, MAX_TOKENS),
            None => Ok(vec![default]),
        };
        let n_prompts = read(lists.n_prompt, 0, 512)?;
        let n_gens = read(lists.n_gen, 0, 128)?;
        let n_depths = read(lists.n_depth, 0, 0)?;
        let n_batches = read(lists.n_batch, 1, 512)?;
        let n = [&n_prompts, &n_gens, &n_depths, &n_batches]
            .into_iter()
            .fold(1_u64, |n, list| n.saturating_mul(list.len() as u64));
        if n > super::MAX_JOBS {
            return Err(self.locator.error(
                suite_at,
                format!(
                    "the lists multiply to {n} workloads, at most {} are taken",
                    super::MAX_JOBS
                ),
            ));
        }
        let mut workloads = Vec::new();
        for &n_prompt in &n_prompts {
            for &n_gen in &n_gens {
                if n_prompt == 0 && n_gen == 0 {
                    return Err(self.locator.error(
                        lists
                            .n_gen
                            .or(lists.n_prompt)
                            .map_or(suite_at, |list| list.span().start),
                        "a workload of neither prompt nor generated tokens measures nothing",
                    ));
                }
                for &n_depth in &n_depths {
                    for &n_batch in &n_batches {
                        let workload = Workload {
                            n_prompt,
                            n_gen,
                            n_depth,
                            n_batch,
                        };
                        workloads.push((workload, suite_at));
                    }
                }
            }
        }
        Ok(workloads)
    }

    /// Reads the suites in the order they run: memory, latency, energy, accuracy.
    fn suites(
        &self,
        suites: Spanned<document::Suites>,
        models: &[PlanModel],
    ) -> Result<Vec<PlanSuite>, PlanError> {
        let at = suites.span().start;
        let document::Suites {
            memory,
            latency,
            energy,
            accuracy,
        } = suites.into_inner();
        let mut all = Vec::new();
        if let Some(suite) = memory {
            all.push(self.memory(&suite, models)?);
        }
        if let Some(suite) = latency {
            all.push(self.latency(&suite, models)?);
        }
        if let Some(suite) = energy {
            all.push(self.energy(&suite, models)?);
        }
        if let Some(suite) = accuracy {
            all.push(self.accuracy(&suite, models)?);
        }
        if all.is_empty() {
            return Err(self.locator.error(
                at,
                "the plan has no suite, there are memory, latency, energy and accuracy",
            ));
        }
        Ok(all)
    }

    fn memory(
        &self,
        suite: &Spanned<document::Memory>,
        models: &[PlanModel],
    ) -> Result<PlanSuite, PlanError> {
        let at = suite.span().start;
        let document::Memory {
            n_prompt,
            n_gen,
            n_depth,
            n_batch,
            models: wanted,
            threads,
            kernels,
        } = suite.get_ref();
        let lists = WorkloadLists {
            n_prompt: n_prompt.as_ref(),
            n_gen: n_gen.as_ref(),
            n_depth: n_depth.as_ref(),
            n_batch: n_batch.as_ref(),
        };
        let specs = self
            .workloads(at, &lists)?
            .into_iter()
            .map(|(workload, at)| PlanSpec {
                spec: SuiteSpec::Memory(MemorySpec { workload }),
                at,
            })
            .collect();
        self.suite(
            specs,
            models,
            wanted.as_ref(),
            threads.as_ref(),
            kernels.as_ref(),
        )
    }

    fn latency(
        &self,
        suite: &Spanned<document::Latency>,
        models: &[PlanModel],
    ) -> Result<PlanSuite, PlanError> {
        let at = suite.span().start;
        let document::Latency {
            n_prompt,
            n_gen,
            n_depth,
            n_batch,
            warm_ups,
            repetitions,
            models: wanted,
            threads,
            kernels,
        } = suite.get_ref();
        let warm_ups = match warm_ups {
            Some(warm_ups) => self.number(warm_ups, 0, MAX_REPETITIONS)?,
            None => 1,
        };
        let repetitions = self.positive(
            repetitions.as_ref(),
            const { NonZeroU32::new(5).expect("5 is not 0") },
            MAX_REPETITIONS,
        )?;
        let lists = WorkloadLists {
            n_prompt: n_prompt.as_ref(),
            n_gen: n_gen.as_ref(),
            n_depth: n_depth.as_ref(),
            n_batch: n_batch.as_ref(),
        };
        let specs = self
            .workloads(at, &lists)?
            .into_iter()
            .map(|(workload, at)| PlanSpec {
                spec: SuiteSpec::Latency(LatencySpec {
                    workload,
                    warm_ups,
                    repetitions,
                }),
                at,
            })
            .collect();
        self.suite(
            specs,
            models,
            wanted.as_ref(),
            threads.as_ref(),
            kernels.as_ref(),
        )
    }

    fn energy(
        &self,
        suite: &Spanned<document::Energy>,
        models: &[PlanModel],
    ) -> Result<PlanSuite, PlanError> {
        let at = suite.span().start;
        let document::Energy {
            n_prompt,
            n_gen,
            n_depth,
            n_batch,
            repetitions,
            idle_seconds,
            window_seconds,
            models: wanted,
            threads,
            kernels,
        } = suite.get_ref();
        let repetitions = self.positive(
            repetitions.as_ref(),
            const { NonZeroU32::new(3).expect("3 is not 0") },
            MAX_REPETITIONS,
        )?;
        let idle_seconds = self.seconds(idle_seconds.as_ref(), 5.0)?;
        let window_seconds = self.seconds(window_seconds.as_ref(), 2.0)?;
        let lists = WorkloadLists {
            n_prompt: n_prompt.as_ref(),
            n_gen: n_gen.as_ref(),
            n_depth: n_depth.as_ref(),
            n_batch: n_batch.as_ref(),
        };
        let specs = self
            .workloads(at, &lists)?
            .into_iter()
            .map(|(workload, at)| PlanSpec {
                spec: SuiteSpec::Energy(EnergySpec {
                    workload,
                    repetitions,
                    idle_seconds,
                    window_seconds,
                }),
                at,
            })
            .collect();
        self.suite(
            specs,
            models,
            wanted.as_ref(),
            threads.as_ref(),
            kernels.as_ref(),
        )
    }

    fn accuracy(
        &self,
        suite: &Spanned<document::Accuracy>,
        models: &[PlanModel],
    ) -> Result<PlanSuite, PlanError> {
        let document::Accuracy {
            tasks,
            data,
            limit,
            num_fewshot,
            add_bos,
            models: wanted,
            threads,
            kernels,
        } = suite.get_ref();
        let all = names::TASKS.map(|(name, _)| name);
        self.distinct(tasks, tasks.get_ref())?;
        for task in tasks.get_ref() {
            self.known("task", task, &all)?;
        }
        if data.get_ref().is_empty() {
            return Err(self.error(data, "the path is empty"));
        }
        let limit = match limit {
            Some(limit) => NonZeroU32::new(self.number(limit, 1, u32::MAX)?),
            None => None,
        };
        let num_fewshot = match num_fewshot {
            Some(num_fewshot) => self.number(num_fewshot, 0, MAX_FEWSHOT)?,
            None => 0,
        };
        let data_dir = self.base_dir.join(data.get_ref());
        let specs = tasks
            .get_ref()
            .iter()
            .map(|task| PlanSpec {
                spec: SuiteSpec::Accuracy(AccuracySpec {
                    task: task.get_ref().clone(),
                    data_dir: data_dir.clone(),
                    limit,
                    num_fewshot,
                    add_bos: *add_bos,
                }),
                at: task.span().start,
            })
            .collect();
        self.suite(
            specs,
            models,
            wanted.as_ref(),
            threads.as_ref(),
            kernels.as_ref(),
        )
    }

    fn suite(
        &self,
        specs: Vec<PlanSpec>,
        models: &[PlanModel],
        wanted: Option<&List<String>>,
        threads: Option<&List<u32>>,
        kernels: Option<&List<String>>,
    ) -> Result<PlanSuite, PlanError> {
        let models = match wanted {
            Some(wanted) => {
                self.distinct(wanted, wanted.get_ref())?;
                let mut positions = Vec::new();
                for id in wanted.get_ref() {
                    let position = models
                        .iter()
                        .position(|model| model.model.id == *id.get_ref())
                        .ok_or_else(|| {
                            self.error(id, format!("no model has the id `{}`", id.get_ref()))
                        })?;
                    positions.push(position);
                }
                Some(positions)
            }
            None => None,
        };
        Ok(PlanSuite {
            specs,
            models,
            threads: self.threads(threads)?,
            kernels: self.kernels(kernels)?,
        })
    }

    fn selectors(
        &self,
        select: &Spanned<document::Selectors>,
        models: &[PlanModel],
        suites: &[PlanSuite],
    ) -> Result<Vec<PlanSelector>, PlanError> {
        let selectors = &select.get_ref().0;
        if selectors.is_empty() {
            return Err(self.error(select, "the list is empty"));
        }
        let mut read: Vec<PlanSelector> = Vec::new();
        for selector in selectors {
            let at = match selector.span() {
                place if place.is_empty() => select.span().start,
                place => place.start,
            };
            let resolved = self.selector(selector.get_ref(), at, models, suites)?;
            if read.iter().any(|other| other.selector == resolved) {
                return Err(self.locator.error(
                    at,
                    "the plan has this selector twice, so every job would run twice",
                ));
            }
            read.push(PlanSelector {
                selector: resolved,
                at,
            });
        }
        Ok(read)
    }

    fn selector(
        &self,
        selector: &document::Selector,
        at: usize,
        models: &[PlanModel],
        suites: &[PlanSuite],
    ) -> Result<Selector, PlanError> {
        let document::Selector {
            arch,
            isa,
            memory_min,
            machine_id,
            labels,
        } = selector;
        let mut arch_at = at;
        let mut only_arch: Option<String> = None;
        if let Some(arch) = arch {
            self.known("architecture", arch, &names::ARCHS)?;
            arch_at = arch.span().start;
            only_arch = Some(arch.get_ref().clone());
        }
        if let Some(isa) = isa {
            self.distinct(isa, isa.get_ref())?;
            for feature in isa.get_ref() {
                let name = feature.get_ref();
                let Some(of) = names::isa_arch(name) else {
                    return Err(self.error(feature, format!("unknown CPU feature `{name}`")));
                };
                match &only_arch {
                    Some(arch) if arch != of => {
                        return Err(self.error(
                            feature,
                            format!("no {arch} machine has `{name}`, it is a feature of {of}"),
                        ));
                    }
                    Some(_) => {}
                    None => only_arch = Some(of.to_owned()),
                }
            }
        }
        if let Some(arch) = &only_arch {
            let mut kernels = models.iter().flat_map(|model| &model.kernels).chain(
                suites
                    .iter()
                    .filter_map(|suite| suite.kernels.as_ref())
                    .flatten(),
            );
            if let Some(kernel) = kernels
                .find(|kernel| names::kernel_arch(kernel).is_some_and(|needed| needed != arch))
            {
                return Err(self.locator.error(
                    arch_at,
                    format!("no {arch} machine runs the kernel `{kernel}` that the plan asks for"),
                ));
            }
        }
        if let Some(id) = machine_id.as_ref().filter(|id| id.get_ref().is_empty()) {
            return Err(self.error(id, "the id is empty"));
        }
        let memory_min_bytes = match memory_min {
            Some(memory) => Some(bytes(memory.get_ref()).ok_or_else(|| {
                self.error(
                    memory,
                    format!(
                        "`{}` is no amount of memory, write e.g. \"8 GiB\"",
                        memory.get_ref()
                    ),
                )
            })?),
            None => None,
        };
        Ok(Selector {
            arch: arch.as_ref().map(|arch| arch.get_ref().clone()),
            isa: isa
                .iter()
                .flat_map(|isa| isa.get_ref())
                .map(|name| name.get_ref().clone())
                .collect(),
            memory_min_bytes,
            machine_id: machine_id.as_ref().map(|id| id.get_ref().clone()),
            labels: labels.clone().unwrap_or_default(),
        })
    }
}

/// Reads `8 GiB`, `1.5 GB`, `512MiB` or `1024 B`, rounded up to whole bytes.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic())?);
    let number = number.trim();
    let is_decimal = !number.is_empty()
        && number
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number: f64 = is_decimal.then(|| number.parse().ok()).flatten()?;
    let factor: u64 = match unit {
        "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    let bytes = (number * factor as f64).ceil();
    // 2^63 is beyond any machine and exact in f64.
    #[expect(clippy::cast_sign_loss, reason = "the range excludes negative values")]
    (0.0..9_223_372_036_854_775_808.0)
        .contains(&bytes)
        .then_some(bytes as u64)
}
