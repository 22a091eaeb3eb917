//! From the file's keys to a plan that cannot be wrong in itself.

use std::{
    collections::{HashMap, HashSet},
    fmt::Display,
    hash::Hash,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use toml::Spanned;
use tritmark_proto::job::{Adapter, Head, KvType, Model, ModelSource, Numerics, Selector, Synth};

use super::{
    Expiry, How, MAX_JOBS, MAX_PRIORITY, Plan, PlanError, PlanModel, PlanSelector,
    document::{self, Document, List},
    expand,
    locate::Locator,
    names,
};

mod accuracy;
mod agreement;
pub(super) mod selectors;
mod suites;

/// Limits of single values: high enough for any machine, low enough to catch a slip.
const MAX_THREADS: u32 = 4096;
const MAX_TOKENS: u32 = 1 << 20;
const MAX_REPETITIONS: u32 = 100_000;
const MAX_SECONDS: f64 = 86_400.0;
const MAX_FEWSHOT: u32 = 1000;
const MAX_BATCH: u32 = 4096;
const MAX_TASK_BYTES: u64 = 1 << 20;
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
        priority,
        expires,
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
    let priority = reader.priority(priority.as_ref())?;
    let expires = reader.expires(expires.as_ref())?;
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
        priority,
        expires,
        text: text.to_owned(),
        models,
        suites,
        selectors,
    };
    let n_jobs = expand::count(&plan);
    if n_jobs > MAX_JOBS {
        return Err(PlanError {
            line: 1,
            key: "suites".to_owned(),
            problem: format!("the plan expands to {n_jobs} jobs, at most {MAX_JOBS} are taken"),
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

impl Reader<'_> {
    fn error<T>(&self, place: &Spanned<T>, problem: impl Into<String>) -> PlanError {
        self.locator.error(place.span().start, problem)
    }

    fn priority(&self, priority: Option<&Spanned<i64>>) -> Result<i32, PlanError> {
        let Some(place) = priority else {
            return Ok(0);
        };
        i32::try_from(*place.get_ref())
            .ok()
            .filter(|priority| (-MAX_PRIORITY..=MAX_PRIORITY).contains(priority))
            .ok_or_else(|| {
                self.error(
                    place,
                    format!(
                        "the priority {} is not between -{MAX_PRIORITY} and {MAX_PRIORITY}",
                        place.get_ref()
                    ),
                )
            })
    }

    fn expires(&self, expires: Option<&Spanned<String>>) -> Result<Option<Expiry>, PlanError> {
        expires
            .map(|place| {
                let read = place.get_ref().parse();
                read.map_err(|error: super::NoExpiry| self.error(place, error.to_string()))
            })
            .transpose()
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
        let defaults = self.how(
            How::default(),
            defaults.numerics.as_ref(),
            defaults.kv.as_ref(),
            defaults.head.as_ref(),
        )?;
        models
            .iter()
            .map(|model| {
                self.model(
                    model,
                    &baselines,
                    default_threads.as_deref(),
                    default_kernels.as_deref(),
                    defaults,
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
        defaults: How,
    ) -> Result<PlanModel, PlanError> {
        let document::Model {
            id,
            path,
            synth,
            lora,
            baseline,
            threads,
            kernels,
            numerics,
            kv,
            head,
        } = model.get_ref();
        let (source, source_at) = match (path, synth) {
            (Some(path), None) => (ModelSource::Path(self.path(path)?), path.span().start),
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
        let adapter = lora.as_ref().map(|lora| self.path(lora)).transpose()?;
        let one = || vec![NonZeroU32::MIN];
        let auto = || vec![names::AUTO_KERNEL.to_owned()];
        Ok(PlanModel {
            model: Model {
                id: id.get_ref().clone(),
                source,
                adapter: adapter.map(Adapter::Path),
                baseline: baseline.as_ref().map(|id| id.get_ref().clone()),
            },
            threads: self
                .threads(threads.as_ref())?
                .unwrap_or_else(|| default_threads.map_or_else(one, <[_]>::to_vec)),
            kernels: self
                .kernels(kernels.as_ref())?
                .unwrap_or_else(|| default_kernels.map_or_else(auto, <[_]>::to_vec)),
            how: self.how(defaults, numerics.as_ref(), kv.as_ref(), head.as_ref())?,
            source_at,
            adapter_at: lora.as_ref().map_or(source_at, |lora| lora.span().start),
        })
    }

    /// Reads a path, which starts from the plan's folder unless it is absolute.
    fn path(&self, path: &Spanned<String>) -> Result<PathBuf, PlanError> {
        if path.get_ref().is_empty() {
            return Err(self.error(path, "the path is empty"));
        }
        Ok(self.base_dir.join(path.get_ref()))
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

    /// Returns how a model is computed: as its keys say, and elsewhere as the defaults do.
    fn how(
        &self,
        defaults: How,
        numerics: Option<&Spanned<String>>,
        kv: Option<&Spanned<String>>,
        head: Option<&Spanned<String>>,
    ) -> Result<How, PlanError> {
        let mut how = defaults;
        if let Some(name) = numerics {
            self.known("numerics", name, &Numerics::ALL.map(Numerics::name))?;
            how.numerics = Numerics::from_name(name.get_ref()).unwrap_or(how.numerics);
        }
        if let Some(name) = kv {
            self.known("kv", name, &KvType::ALL.map(KvType::name))?;
            how.kv = KvType::from_name(name.get_ref()).unwrap_or(how.kv);
        }
        if let Some(name) = head {
            self.known("head", name, &Head::ALL.map(Head::name))?;
            how.head = Head::from_name(name.get_ref()).or(how.head);
        }
        Ok(how)
    }

    /// Refuses an empty list and one that names something twice.
    fn distinct<T, U>(&self, list: &Spanned<U>, values: &[Spanned<T>]) -> Result<(), PlanError>
    where
        T: Eq + Hash + Display,
    {
        if values.is_empty() {
            return Err(self.error(list, "the list is empty"));
        }
        let mut seen = HashSet::new();
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
}
