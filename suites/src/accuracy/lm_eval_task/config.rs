//! A task's keys, with the files it includes.

use super::{
    ImportError,
    yaml::{self, Yaml},
};

/// Files that include each other in a row.
const MAX_DEPTH: usize = 16;
/// Files that are read for one task.
const MAX_FILES: usize = 64;

/// Keys that change neither what is asked nor how it is scored.
const WITHOUT_EFFECT: [&str; 7] = [
    "tag",
    "task_alias",
    "should_decontaminate",
    "doc_to_decontamination_query",
    "group_alias",
    "training_split_alias",
    "recipe",
];

/// A task's keys; each is taken once, so that what is left was not understood.
pub(super) struct Config {
    entries: Vec<(String, Yaml)>,
}

impl Config {
    /// Reads a task and what it includes: an own key comes before an included one.
    pub(super) fn load(
        text: &str,
        include: &mut dyn FnMut(&str) -> Result<String, String>,
    ) -> Result<Self, ImportError> {
        let mut reader = Reader {
            include,
            files: Vec::new(),
            n_files: 0,
        };
        let mut entries = reader.read(text)?;
        entries
            .retain(|(key, value)| *value != Yaml::Null && !WITHOUT_EFFECT.contains(&key.as_str()));
        let config = Self { entries };
        if config.has("group") || matches!(config.get("task"), Some(Yaml::List(_))) {
            let problem = "names a group of tasks: import its tasks one by one";
            let key = if config.has("group") { "group" } else { "task" };
            return Err(ImportError::key(key, problem));
        }
        let mut hooks = Vec::new();
        for (key, value) in &config.entries {
            find_hooks(key, value, &mut hooks);
        }
        if hooks.is_empty() {
            Ok(config)
        } else {
            Err(ImportError::Hooks { hooks })
        }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub(super) fn get(&self, key: &str) -> Option<&Yaml> {
        let found = self.entries.iter().find(|(known, _)| known == key);
        found.map(|(_, value)| value)
    }

    /// Takes a key out; `None` where it is not there, or null.
    pub(super) fn take(&mut self, key: &str) -> Option<Yaml> {
        let at = self.entries.iter().position(|(known, _)| known == key)?;
        Some(self.entries.remove(at).1)
    }

    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>, ImportError> {
        self.take(key).map(|value| text(key, value)).transpose()
    }

    /// Fails where a key was not taken.
    pub(super) fn finish(self) -> Result<(), ImportError> {
        match self.entries.into_iter().next() {
            None => Ok(()),
            Some((key, _)) => Err(ImportError::key(key, "is not supported")),
        }
    }
}

struct Reader<'i> {
    include: &'i mut dyn FnMut(&str) -> Result<String, String>,
    /// Those that are being read, the one that includes before the included one.
    files: Vec<String>,
    n_files: usize,
}

impl Reader<'_> {
    fn read(&mut self, text: &str) -> Result<Vec<(String, Yaml)>, ImportError> {
        let mut own = yaml::parse(text).map_err(|source| ImportError::Yaml {
            file: self.files.last().cloned(),
            source,
        })?;
        let Some(at) = own.iter().position(|(key, _)| key == "include") else {
            return Ok(own);
        };
        let names = match own.remove(at).1 {
            Yaml::List(names) => names,
            Yaml::Null => Vec::new(),
            name => vec![name],
        };
        let mut merged: Vec<(String, Yaml)> = Vec::new();
        for name in names {
            let name = self::text("include", name)?;
            let mut included = self.included(&name)?;
            // It names the tasks of the included file.
            included.retain(|(key, _)| key != "task_list");
            update(&mut merged, included);
        }
        update(&mut merged, own);
        Ok(merged)
    }

    fn included(&mut self, name: &str) -> Result<Vec<(String, Yaml)>, ImportError> {
        // A name is relative to the file that it stands in.
        let folder = self.files.last().and_then(|file| file.rsplit_once('/'));
        let name = match folder {
            Some((folder, _)) if !name.starts_with('/') => format!("{folder}/{name}"),
            _ => name.to_owned(),
        };
        let cannot = |problem: String| ImportError::Include {
            name: name.clone(),
            problem,
        };
        if self.files.contains(&name) {
            return Err(cannot("includes itself".to_owned()));
        }
        self.n_files += 1;
        if self.n_files > MAX_FILES || self.files.len() == MAX_DEPTH {
            return Err(cannot("comes after too many others".to_owned()));
        }
        let text = (self.include)(&name).map_err(&cannot)?;
        self.files.push(name);
        let entries = self.read(&text);
        self.files.pop();
        entries
    }
}

fn update(entries: &mut Vec<(String, Yaml)>, with: Vec<(String, Yaml)>) {
    for (key, value) in with {
        match entries.iter_mut().find(|(known, _)| *known == key) {
            Some((_, old)) => *old = value,
            None => entries.push((key, value)),
        }
    }
}

fn find_hooks(path: &str, value: &Yaml, hooks: &mut Vec<(String, String)>) {
    match value {
        Yaml::Hook(name) => hooks.push((path.to_owned(), name.clone())),
        Yaml::List(entries) => {
            for (i, entry) in entries.iter().enumerate() {
                find_hooks(&format!("{path}[{i}]"), entry, hooks);
            }
        }
        Yaml::Map(entries) => {
            for (key, entry) in entries {
                find_hooks(&format!("{path}.{key}"), entry, hooks);
            }
        }
        _ => {}
    }
}

/// Reads a text.
pub(super) fn text(key: &str, value: Yaml) -> Result<String, ImportError> {
    match value {
        Yaml::Text(text) => Ok(text),
        other => Err(wrong(key, "a text", &other)),
    }
}

/// Reads a whole number from 0.
pub(super) fn count(key: &str, value: &Yaml) -> Result<u32, ImportError> {
    match value {
        Yaml::Int(n) => u32::try_from(*n).ok(),
        _ => None,
    }
    .ok_or_else(|| wrong(key, "a whole number", value))
}

/// Reads true or false; nothing is false.
pub(super) fn flag(key: &str, value: Option<Yaml>) -> Result<bool, ImportError> {
    match value {
        None => Ok(false),
        Some(Yaml::Bool(flag)) => Ok(flag),
        Some(other) => Err(wrong(key, "true or false", &other)),
    }
}

/// Reads a list.
pub(super) fn list(key: &str, value: Yaml) -> Result<Vec<Yaml>, ImportError> {
    match value {
        Yaml::List(entries) => Ok(entries),
        other => Err(wrong(key, "a list", &other)),
    }
}

/// Reads a mapping, without the keys that are null.
pub(super) fn map(key: &str, value: Yaml) -> Result<Config, ImportError> {
    match value {
        Yaml::Map(mut entries) => {
            entries.retain(|(_, value)| *value != Yaml::Null);
            Ok(Config { entries })
        }
        other => Err(wrong(key, "a mapping", &other)),
    }
}

/// Fails where a key of a mapping that stands under `path` was not taken.
pub(super) fn finish(path: &str, config: Config) -> Result<(), ImportError> {
    match config.entries.into_iter().next() {
        None => Ok(()),
        Some((key, _)) => Err(ImportError::key(
            format!("{path}.{key}"),
            "is not supported",
        )),
    }
}

/// Says that a key is not what is needed.
pub(super) fn wrong(key: &str, needed: &str, found: &Yaml) -> ImportError {
    let found = match found {
        Yaml::Null => "nothing".to_owned(),
        Yaml::Bool(flag) => format!("the truth value {flag}"),
        Yaml::Int(n) => n.to_string(),
        Yaml::Float(x) => x.to_string(),
        Yaml::Text(text) => format!("the text `{}`", text.chars().take(60).collect::<String>()),
        Yaml::List(_) => "a list".to_owned(),
        Yaml::Map(_) => "a mapping".to_owned(),
        Yaml::Hook(name) => format!("the Python hook {name}"),
    };
    ImportError::key(key, format!("is {found}, where {needed} is needed"))
}
