//! Tasks of lm-evaluation-harness as definitions of ours.
//!
//! [`convert`] reads the YAML of a task (0.4; `docs/task_guide.md` there) that asks for a choice, an
//! answer or a rolling likelihood and needs no Python of its own. What it cannot say in a definition
//! it refuses, by the name of the key: a task that is almost the same has other scores.
//!
//! Two things are not in the YAML. Whether a text names a field or is a template depends on the data
//! there; see its part `prompt`. And data sets of the hub are asked for by the hub's own Parquet copies of
//! them (`refs/convert/parquet`), whose paths follow from configuration and split.

mod config;
mod prompt;
mod score;
mod write;
mod yaml;

use thiserror::Error;

use super::{
    definition::{Data, Definition, DefinitionError, Fewshot, Hub, Kind, Sampler},
    task::Task,
};
use config::{Config, count, finish, flag, list, map, wrong};
use yaml::Yaml;

pub use yaml::YamlError;

/// A task, converted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// The definition, which [`Task::parse`] takes.
    pub toml: String,
    /// What a reader should look at, a sentence each.
    pub warnings: Vec<String>,
}

/// Why a task cannot be converted.
#[derive(Debug, Error)]
pub enum ImportError {
    /// A file cannot be read as YAML.
    #[error("{}: not YAML that is understood", file.as_deref().unwrap_or("the task"))]
    Yaml {
        /// The included file; none is the task's own.
        file: Option<String>,
        /// Where and why.
        #[source]
        source: YamlError,
    },
    /// An included file cannot be had.
    #[error("included file `{name}`: {problem}")]
    Include {
        /// Relative to the task's folder.
        name: String,
        /// Why.
        problem: String,
    },
    /// Parts of the task are Python.
    #[error("{}", hooks.iter().map(|(key, name)| format!("`{key}` is the Python hook {name}")).collect::<Vec<_>>().join("; "))]
    Hooks {
        /// Key and function of each.
        hooks: Vec<(String, String)>,
    },
    /// A key says what a definition cannot.
    #[error("`{key}` {problem}")]
    Key {
        /// Path to it.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The definition that came out does not hold.
    #[error("the definition that comes of it does not hold")]
    Definition(#[source] DefinitionError),
}

impl ImportError {
    fn key(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Key {
            key: key.into(),
            problem: problem.into(),
        }
    }
}

/// Makes a definition of a task's YAML. `include` returns the text of a file that it includes, by
/// its path relative to the task's folder.
pub fn convert(
    yaml: &str,
    include: &mut dyn FnMut(&str) -> Result<String, String>,
) -> Result<Converted, ImportError> {
    let mut config = Config::load(yaml, include)?;
    let mut warnings = Vec::new();
    let name = match config.text("task")? {
        Some(task) => plain_name(&task, &mut warnings),
        None => return Err(ImportError::key("task", "is missing")),
    };
    let kind = match config.text("output_type")?.as_deref() {
        Some("multiple_choice") => Kind::MultipleChoice,
        None | Some("generate_until") => Kind::GenerateUntil,
        Some("loglikelihood_rolling") => Kind::LoglikelihoodRolling,
        Some(other) => {
            let problem = format!("is `{other}`, which is not supported");
            return Err(ImportError::key("output_type", problem));
        }
    };
    if let Some(repeats) = config.take("repeats").filter(|n| *n != Yaml::Int(1)) {
        return Err(wrong("repeats", "1", &repeats));
    }
    if flag("unsafe_code", config.take("unsafe_code"))? {
        return Err(ImportError::key("unsafe_code", "is not supported"));
    }
    let (version, stated) = version(config.take("metadata"));
    let (mut data, mut fewshot, head) = data(kind, &mut config, &mut warnings)?;
    let delimiter = config.text("fewshot_delimiter")?;
    let between = delimiter.as_deref().unwrap_or("\n\n");
    let generation = (kind == Kind::GenerateUntil)
        .then(|| score::generation(&mut config, between))
        .transpose()?;
    if generation.is_none() && config.take("generation_kwargs").is_some() {
        warnings.push("`generation_kwargs` means nothing to this task".to_owned());
    }
    // That of `fewshot_config` comes first.
    fewshot.delimiter = fewshot
        .delimiter
        .or(delimiter)
        .filter(|text| text != "\n\n");
    if kind == Kind::LoglikelihoodRolling {
        if fewshot.count > 0 || !fewshot.samples.is_empty() {
            warnings.push("examples mean nothing to `loglikelihood_rolling`".to_owned());
        }
        fewshot = Fewshot {
            fixed: true,
            ..Fewshot::default()
        };
        data.examples.clear();
    }
    let prompt = prompt::prompt(kind, &mut config, &mut warnings)?;
    let filters = score::filters(kind, &mut config)?;
    let (metrics, exact_match) = score::metrics(kind, &mut config)?;
    config.finish()?;
    let definition = Definition {
        name,
        version,
        kind,
        data,
        prompt,
        fewshot,
        generation,
        filters,
        metrics,
        exact_match,
    };
    let first = format!(
        "{}, converted from lm-evaluation-harness{stated}.",
        definition.name
    );
    let head: Vec<String> = [first].into_iter().chain(head).collect();
    let toml = write::toml(&definition, &head);
    let parsed = Task::parse(&toml).map_err(ImportError::Definition)?;
    debug_assert_eq!(parsed.definition, definition, "what was written is read");
    Ok(Converted { toml, warnings })
}

/// Names of tasks are plain here.
fn plain_name(task: &str, warnings: &mut Vec<String>) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let name: String = task
        .chars()
        .map(|c| if is_plain(c) { c } else { '_' })
        .collect();
    if name != task {
        warnings.push(format!("the task's name `{task}` has become `{name}`"));
    }
    name
}

/// Returns the whole part of the task's version, and how it is stated.
fn version(metadata: Option<Yaml>) -> (u32, String) {
    let Some(Yaml::Map(entries)) = metadata else {
        return (0, String::new());
    };
    let stated = match entries.into_iter().find(|(key, _)| key == "version") {
        Some((_, Yaml::Int(n))) => n.to_string(),
        Some((_, Yaml::Float(x))) => format!("{x:?}"),
        Some((_, Yaml::Text(text))) => text,
        _ => return (0, String::new()),
    };
    let whole: String = stated.chars().take_while(char::is_ascii_digit).collect();
    (whole.parse().unwrap_or(0), format!(", version {stated}"))
}

/// Reads where items and examples come from. Returns comments about it too.
fn data(
    kind: Kind,
    config: &mut Config,
    warnings: &mut Vec<String>,
) -> Result<(Data, Fewshot, Vec<String>), ImportError> {
    let training = split("training_split", config)?;
    let validation = split("validation_split", config)?;
    let test = split("test_split", config)?;
    let named = split("fewshot_split", config)?;
    let fixed_at_none = config.get("num_fewshot") == Some(&Yaml::Int(0));
    let asked = config.take("num_fewshot");
    let mut fewshot = Fewshot {
        count: asked.map_or(Ok(0), |n| count("num_fewshot", &n))?,
        // There a plain 0 cannot be changed from outside.
        fixed: fixed_at_none,
        ..Fewshot::default()
    };
    let named = examples(kind, config, named, &mut fewshot)?;
    let items = test.clone().or_else(|| validation.clone());
    let items = items.ok_or_else(|| {
        ImportError::key("test_split", "is missing, and so is `validation_split`")
    })?;
    if fewshot.samples.is_empty() || named.is_some() {
        fewshot.samples.clear();
        // One more is drawn where the reference harness hands the item over, to take it out.
        fewshot.draws_one_more = named == test;
    }
    let mut data = Data {
        items: vec![items.clone()],
        ..Data::default()
    };
    if fewshot.samples.is_empty() {
        data.examples = vec![named.or(training).or(validation).unwrap_or(items)];
    }
    let head = hub(config, &mut data, warnings)?;
    Ok((data, fewshot, head))
}

fn split(key: &str, config: &mut Config) -> Result<Option<String>, ImportError> {
    let name = config.text(key)?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    match name {
        Some(name) if name.is_empty() || !name.chars().all(is_plain) => {
            let problem = format!("is `{name}`, which is no plain name of a file");
            Err(ImportError::key(key, problem))
        }
        name => Ok(name),
    }
}

/// Reads `fewshot_config`; returns the split that examples are drawn from, where one is named.
fn examples(
    kind: Kind,
    config: &mut Config,
    named: Option<String>,
    fewshot: &mut Fewshot,
) -> Result<Option<String>, ImportError> {
    const KEY: &str = "fewshot_config";
    let Some(value) = config.take(KEY) else {
        return Ok(named);
    };
    let mut given = map(KEY, value)?;
    fewshot.sampler = match given.text("sampler")?.as_deref() {
        None | Some("default") => Sampler::Random,
        Some("first_n") => Sampler::FirstN,
        Some(other) => {
            let problem = format!("is `{other}`, which is not supported");
            return Err(ImportError::key("fewshot_config.sampler", problem));
        }
    };
    let named = split("split", &mut given)?.or(named);
    fewshot.delimiter = given.text("fewshot_delimiter")?;
    // Examples may only be asked as the items are.
    for key in [
        "doc_to_text",
        "doc_to_target",
        "doc_to_choice",
        "target_delimiter",
    ] {
        if given.has(key) && given.get(key) == config.get(key) {
            given.take(key);
        }
    }
    if let Some(samples) = given.take("samples") {
        for (i, sample) in list("fewshot_config.samples", samples)?
            .into_iter()
            .enumerate()
        {
            let path = format!("fewshot_config.samples[{i}]");
            match toml_value(&path, sample)? {
                toml::Value::Table(sample) => fewshot.samples.push(sample),
                _ => return Err(ImportError::key(path, "is no mapping")),
            }
        }
        if fewshot.samples.is_empty() {
            return Err(ImportError::key("fewshot_config.samples", "is empty"));
        }
        let n = u32::try_from(fewshot.samples.len()).unwrap_or(u32::MAX);
        if named.is_none() && fewshot.count > n && kind != Kind::LoglikelihoodRolling {
            let problem = format!("is {}, but there are {n} samples", fewshot.count);
            return Err(ImportError::key("num_fewshot", problem));
        }
    }
    finish(KEY, given)?;
    Ok(named)
}

fn toml_value(path: &str, value: Yaml) -> Result<toml::Value, ImportError> {
    Ok(match value {
        Yaml::Bool(flag) => flag.into(),
        Yaml::Int(n) => n.into(),
        Yaml::Float(x) => x.into(),
        Yaml::Text(text) => text.into(),
        Yaml::List(entries) => {
            let entries = entries.into_iter().map(|entry| toml_value(path, entry));
            entries.collect::<Result<Vec<_>, _>>()?.into()
        }
        Yaml::Map(entries) => {
            let entries = entries
                .into_iter()
                .map(|(key, entry)| Ok((key, toml_value(path, entry)?)));
            toml::Value::Table(entries.collect::<Result<_, ImportError>>()?)
        }
        // What is missing is not what is null (`is none`, `is defined`).
        Yaml::Null | Yaml::Hook(_) => return Err(ImportError::key(path, "holds a null")),
    })
}

/// Reads the data set's place on the hub.
fn hub(
    config: &mut Config,
    data: &mut Data,
    warnings: &mut Vec<String>,
) -> Result<Vec<String>, ImportError> {
    let path = config.text("dataset_path")?;
    let name = match config.take("dataset_name") {
        Some(Yaml::Int(n)) => Some(n.to_string()),
        Some(value) => Some(config::text("dataset_name", value)?),
        None => None,
    };
    let is_bare = match config.take("dataset_kwargs") {
        None => true,
        Some(value) => {
            let mut given = map("dataset_kwargs", value)?;
            given.take("trust_remote_code");
            finish("dataset_kwargs", given).is_ok()
        }
    };
    let plain = |text: &str| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        !text.is_empty() && text.chars().all(is_plain) && !text.starts_with('.')
    };
    let is_repo = |path: &str| {
        path.split_once('/')
            .is_some_and(|(owner, name)| plain(owner) && plain(name))
    };
    let folder = name.as_deref().unwrap_or("default");
    if let Some(repo) = path.as_deref().filter(|path| is_bare && is_repo(path))
        && plain(folder)
    {
        let splits = data.items.iter().chain(&data.examples);
        let files =
            splits.map(|split| (split.clone(), vec![format!("{folder}/{split}/*.parquet")]));
        data.hub = Some(Hub {
            repo: repo.to_owned(),
            revision: "refs/convert/parquet".to_owned(),
            files: files.collect(),
        });
        return Ok(Vec::new());
    }
    let files: Vec<String> = data
        .items
        .iter()
        .chain(&data.examples)
        .map(|split| format!("{split}.jsonl"))
        .collect();
    warnings.push(format!(
        "the data cannot be fetched by their name: {} must be put there",
        files.join(" and ")
    ));
    let stated = [path, name].into_iter().flatten();
    Ok(vec![format!(
        "Data set: {}",
        stated.collect::<Vec<_>>().join(", ")
    )])
}

#[cfg(test)]
mod tests;
