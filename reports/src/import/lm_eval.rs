//! lm-evaluation-harness's `results_*.json` and `samples_<task>_*.jsonl`.

mod sample;

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tritmark_proto::{job::ChatSpec, record::Item};

use super::{
    Document, ImportError, Imported, files, read,
    run::{ForeignModel, ForeignTask, bundle},
};

/// Imports one run of lm-evaluation-harness: its folder, or the files of it. The samples are what
/// counts; `results_*.json`, where it is there, says what model and settings they are of.
///
/// # Errors
///
/// Fails where a file cannot be read or holds something else, where there are no samples, and where
/// a folder holds several runs and none was named.
pub fn lm_eval(paths: &[PathBuf]) -> Result<Imported, ImportError> {
    let files = files(paths)?;
    let of = |prefix: &str, ending: &str| -> Vec<PathBuf> {
        files
            .iter()
            .filter(|path| {
                let name = path.file_name().map(|name| name.to_string_lossy());
                name.is_some_and(|name| name.starts_with(prefix) && name.ends_with(ending))
            })
            .cloned()
            .collect()
    };
    let samples = of("samples_", ".jsonl");
    let results = of("results_", ".json");
    if samples.is_empty() {
        return Err(ImportError::Files {
            what: "there is no `samples_*.jsonl`: lm-eval writes it with `--log_samples`"
                .to_owned(),
        });
    }
    if results.len() > 1 {
        let names: Vec<String> = results
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        return Err(ImportError::Files {
            what: format!(
                "these are several runs, name the files of one: {}",
                names.join(", ")
            ),
        });
    }
    let mut digest = Sha256::new();
    let settings = match results.first() {
        Some(path) => {
            let bytes = read(path)?;
            digest.update(&bytes);
            Settings::read(&Document::whole(path, &bytes)?)?
        }
        None => Settings::unknown(&samples[0]),
    };
    let mut warnings = BTreeSet::new();
    if results.is_empty() {
        warnings.insert("no `results_*.json`: model and settings are not known".to_owned());
    }
    let mut stamps: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut tasks: BTreeMap<String, Vec<(String, Vec<Item>)>> = BTreeMap::new();
    for path in &samples {
        let (task, _) = task_and_time(path);
        if let Some(other) = stamps.insert(task.clone(), path.clone()) {
            return Err(ImportError::Files {
                what: format!(
                    "`{}` and `{}` are of the same task: name the files of one run",
                    other.display(),
                    path.display()
                ),
            });
        }
        let bytes = read(path)?;
        digest.update(&bytes);
        let items = sample::items(path, &bytes, &task, &mut warnings)?;
        // Subjects become groups of their whole again.
        let (whole, group) = settings.whole_of(&task);
        let group = group.unwrap_or_default();
        tasks.entry(whole).or_default().push((group, items));
    }
    let tasks: Vec<ForeignTask> = tasks
        .into_iter()
        .map(|(name, parts)| settings.task(name, parts))
        .collect();
    Ok(Imported {
        bundle: bundle("lm-eval", settings.at, &settings.model, tasks, digest),
        warnings: warnings.into_iter().collect(),
    })
}

/// Returns task and time of `samples_<task>_<time>.jsonl`.
fn task_and_time(path: &Path) -> (String, String) {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let middle = name.strip_prefix("samples_").unwrap_or(&name);
    let middle = middle.strip_suffix(".jsonl").unwrap_or(middle);
    // The time begins with a year and has no underscores.
    match middle.rsplit_once('_') {
        Some((task, time)) if time.len() >= 10 && time.as_bytes()[0].is_ascii_digit() => {
            (task.to_owned(), time.to_owned())
        }
        _ => (middle.to_owned(), String::new()),
    }
}

/// What `results_*.json` says of the run.
struct Settings {
    model: ForeignModel,
    at: Timestamp,
    chat: Option<ChatSpec>,
    limit: Option<NonZeroU32>,
    n_shot: BTreeMap<String, u32>,
    effective: BTreeMap<String, u64>,
    groups: BTreeSet<String>,
}

impl Settings {
    fn unknown(sample: &Path) -> Self {
        let folder = sample.parent().and_then(Path::file_name);
        Self {
            model: ForeignModel {
                id: folder.map_or_else(
                    || "unknown".to_owned(),
                    |folder| folder.to_string_lossy().into_owned(),
                ),
                weights_hash: String::new(),
                dtype: "unknown".to_owned(),
                n_params: 0,
            },
            at: Timestamp::UNIX_EPOCH,
            chat: None,
            limit: None,
            n_shot: BTreeMap::new(),
            effective: BTreeMap::new(),
            groups: BTreeSet::new(),
        }
    }

    fn read(document: &Document<'_>) -> Result<Self, ImportError> {
        let config = document.get("config");
        let of_config = |key: &str| config.and_then(|config| config.get(key));
        let text = |key: &str| of_config(key).and_then(Value::as_str).map(str::to_owned);
        let chat_template = document.get("chat_template").is_some();
        let system = document.text("system_instruction")?.map(str::to_owned);
        let chat = chat_template.then(|| ChatSpec {
            system,
            fewshot_as_multiturn: document
                .get("fewshot_as_multiturn")
                .and_then(Value::as_bool)
                .unwrap_or_default(),
        });
        let mut n_shot = BTreeMap::new();
        for (task, value) in object(document, "n-shot")? {
            let number = value.as_u64().and_then(|value| u32::try_from(value).ok());
            let number =
                number.ok_or_else(|| document.bad(format!("n-shot.{task}"), "no number"))?;
            n_shot.insert(task.clone(), number);
        }
        let mut effective = BTreeMap::new();
        for (task, value) in object(document, "n-samples")? {
            let number = value.get("effective").and_then(Value::as_u64);
            let key = format!("n-samples.{task}.effective");
            let number = number.ok_or_else(|| document.bad(key, "no number"))?;
            effective.insert(task.clone(), number);
        }
        // A task may stand here with no subtasks; then it is none's whole.
        let groups = object(document, "group_subtasks")?
            .into_iter()
            .filter(|(_, subtasks)| subtasks.as_array().is_some_and(|list| !list.is_empty()))
            .map(|(group, _)| group.clone())
            .collect();
        let seconds = document.get("date").and_then(Value::as_f64);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "dates lie far below 2^63 seconds"
        )]
        let at = seconds
            .and_then(|seconds| Timestamp::from_second(seconds as i64).ok())
            .unwrap_or(Timestamp::UNIX_EPOCH);
        let limit = of_config("limit")
            .and_then(Value::as_f64)
            .filter(|limit| *limit >= 1.0 && *limit <= f64::from(u32::MAX));
        #[expect(clippy::cast_sign_loss, reason = "it is at least 1")]
        let limit = limit.and_then(|limit| NonZeroU32::new(limit as u32));
        let id = document
            .text("model_name")?
            .map(str::to_owned)
            .or_else(|| text("model_args"))
            .or_else(|| text("model"))
            .unwrap_or_else(|| "unknown".to_owned());
        Ok(Self {
            model: ForeignModel {
                id,
                weights_hash: text("model_sha").unwrap_or_default(),
                dtype: text("model_dtype").unwrap_or_else(|| "unknown".to_owned()),
                n_params: of_config("model_num_parameters")
                    .and_then(Value::as_u64)
                    .unwrap_or_default(),
            },
            at,
            chat,
            limit,
            n_shot,
            effective,
            groups,
        })
    }

    /// Returns the whole a task is a part of, and its name there: the shortest group whose name it
    /// begins with.
    fn whole_of(&self, task: &str) -> (String, Option<String>) {
        let part = |group: &String| {
            let rest = task.strip_prefix(group.as_str())?.strip_prefix('_')?;
            Some((group.clone(), Some(rest.to_owned())))
        };
        let found = self.groups.iter().filter_map(part);
        found
            .min_by_key(|(group, _)| group.len())
            .unwrap_or_else(|| (task.to_owned(), None))
    }

    fn task(&self, name: String, mut parts: Vec<(String, Vec<Item>)>) -> ForeignTask {
        parts.sort_by(|left, right| left.0.cmp(&right.0));
        let full_name = |group: &str| match group {
            "" => name.clone(),
            group => format!("{name}_{group}"),
        };
        let n_items = parts
            .iter()
            .map(|(group, items)| {
                let known = self.effective.get(&full_name(group)).copied();
                known.unwrap_or(items.len() as u64)
            })
            .sum();
        let num_fewshot = parts
            .iter()
            .find_map(|(group, _)| self.n_shot.get(&full_name(group)).copied())
            .unwrap_or_default();
        let mut items: Vec<Item> = Vec::new();
        for (group, of_part) in parts {
            let is_part = !group.is_empty();
            for mut item in of_part {
                item.task.clone_from(&name);
                if is_part {
                    // Positions go on from part to part.
                    item.group = Some(group.clone());
                    item.index = items.len() as u32;
                }
                items.push(item);
            }
        }
        ForeignTask {
            name,
            num_fewshot,
            chat: self.chat.clone(),
            limit: self.limit,
            items,
            n_items,
            data_hash: None,
        }
    }
}

/// Returns the entries of an object; none where it is missing.
fn object<'a>(
    document: &'a Document<'_>,
    key: &str,
) -> Result<Vec<(&'a String, &'a Value)>, ImportError> {
    match document.get(key) {
        None => Ok(Vec::new()),
        Some(value) => value
            .as_object()
            .map(|object| object.iter().collect())
            .ok_or_else(|| document.bad(key, "no object")),
    }
}
