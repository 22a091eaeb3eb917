//! `tritmark data`: brings the data of accuracy tasks here.
//!
//! A task's definition says which files of the hub its splits are; they are written as JSON Lines
//! into the task's folder. `fetched.json` beside them says where each came from, at which commit and
//! with which checksum.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};
use tritmark_suites::accuracy::{
    Task,
    definition::{Definition, Format},
};

use super::transfer::{Transfer, fault};
use crate::{
    args::{Data, DataCommand, DataFetch},
    exit::{Exit, Fault, OrExit as _, Outcome},
    hub::{Hub, Kind, Written, write_rows},
    out,
};

/// What is known about the files of a folder.
const RECORD: &str = "fetched.json";
/// Where the hub's files lie until they are rewritten.
const BELOW: &str = ".hub";

pub(super) fn exec(args: Data) -> Outcome {
    let DataCommand::Fetch(args) = args.command;
    if args.from.is_empty() {
        let hub = Hub::from_env(|name| std::env::var(name).ok());
        for name in &args.tasks {
            from_hub(&hub, &args, &definition(name)?)?;
        }
    } else {
        let [name] = &args.tasks[..] else {
            return Err(Fault::usage("`--from` is for one task at a time"));
        };
        from_files(&args, &definition(name)?)?;
    }
    Ok(Exit::Pass)
}

/// Returns a built-in task's definition, or that of a file.
fn definition(name: &str) -> Outcome<Definition> {
    let is_file = Path::new(name).extension().is_some_and(|end| end == "toml");
    let task = if is_file {
        let text =
            fs::read_to_string(name).or_exit(Exit::Usage, || format!("cannot read {name}"))?;
        Task::parse(&text).or_exit(Exit::Usage, || format!("cannot read {name}"))?
    } else {
        Task::named(name).or_exit(Exit::Usage, || "cannot fetch data")?
    };
    let definition = task.definition;
    if definition.data.format != Format::JsonLines {
        let problem = "is read from a plain text, which has to be put there by hand";
        return Err(Fault::usage(format!("{}: {problem}", definition.name)));
    }
    Ok(definition)
}

fn from_hub(hub: &Hub, args: &DataFetch, definition: &Definition) -> Outcome<()> {
    let name = &definition.name;
    let place = definition.data.hub.as_ref().ok_or_else(|| {
        Fault::usage(format!(
            "{name}: its definition names no data set of the hub (`data.hub`); use --from FILE"
        ))
    })?;
    let wanted = args.revision.as_deref().unwrap_or(&place.revision);
    let revision = hub
        .revision(Kind::Dataset, &place.repo, wanted)
        .map_err(fault)?;
    let folder = args.into.join(definition.folder());
    fs::create_dir_all(&folder)
        .or_exit(Exit::Usage, || format!("cannot write {}", folder.display()))?;
    for (split, patterns) in &place.files {
        let file = format!("{split}{}", definition.data.format.ending());
        let mut paths = Vec::new();
        for pattern in patterns {
            let found = revision.matching(pattern);
            if found.is_empty() {
                return Err(Fault::usage(format!(
                    "{name}: {} has no file `{pattern}` at {wanted}",
                    place.repo
                )));
            }
            paths.extend(found.into_iter().map(str::to_owned));
        }
        let known = read_record(&folder).remove(&file);
        if known
            .is_some_and(|known| is_there(&folder.join(&file), &known, &revision.commit, &paths))
        {
            out::line(&format!("{} is there", folder.join(&file).display()))?;
            continue;
        }
        let mut sources = Vec::new();
        let mut from = Vec::new();
        for path in &paths {
            let mut transfer = Transfer::new(path);
            let fetched = hub
                .fetch(&revision, path, &folder.join(BELOW), &mut |at| {
                    transfer.at(at);
                })
                .map_err(fault)?;
            transfer.finish();
            from.push(json!({
                "path": path,
                "bytes": fetched.bytes,
                "sha256": fetched.sha256,
                "verified": fetched.is_verified,
            }));
            sources.push(fetched.path);
        }
        let origin = json!({
            "repo": place.repo,
            "revision": wanted,
            "commit": revision.commit,
            "from": from,
        });
        finish(&folder, &file, &sources, origin)?;
    }
    match fs::remove_dir_all(folder.join(BELOW)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn from_files(args: &DataFetch, definition: &Definition) -> Outcome<()> {
    let folder = args.into.join(definition.folder());
    fs::create_dir_all(&folder)
        .or_exit(Exit::Usage, || format!("cannot write {}", folder.display()))?;
    let data = &definition.data;
    let mut splits: BTreeMap<&str, Vec<PathBuf>> = BTreeMap::new();
    for given in &args.from {
        let (split, path) = match given.split_once('=') {
            Some((split, path)) => (split, path),
            None => (data.items[0].as_str(), given.as_str()),
        };
        let known: Vec<&String> = data.items.iter().chain(&data.examples).collect();
        if !known.iter().any(|known| *known == split) {
            return Err(Fault::usage(format!(
                "{} has no split `{split}` (there are {})",
                definition.name,
                known
                    .iter()
                    .map(|name| name.as_str())
                    .collect::<Vec<_>>()
                    .join(", ")
            )));
        }
        splits.entry(split).or_default().push(path.into());
    }
    for (split, sources) in splits {
        let file = format!("{split}{}", data.format.ending());
        let origin = json!({ "from": sources });
        finish(&folder, &file, &sources, origin)?;
    }
    Ok(())
}

/// Writes one split, and what is known about it.
fn finish(folder: &Path, file: &str, sources: &[PathBuf], mut origin: Value) -> Outcome<()> {
    let target = folder.join(file);
    let Written {
        rows,
        bytes,
        sha256,
    } = write_rows(sources, &target)
        .or_exit(Exit::Usage, || format!("cannot write {}", target.display()))?;
    origin["rows"] = rows.into();
    origin["bytes"] = bytes.into();
    origin["sha256"] = sha256.into();
    let mut record = read_record(folder);
    record.insert(file.to_owned(), origin);
    write_record(folder, &record)?;
    out::line(&format!(
        "{}: {rows} rows, {}",
        target.display(),
        out::bytes(bytes)
    ))
}

fn read_record(folder: &Path) -> Map<String, Value> {
    // What cannot be read is fetched again.
    let text = fs::read_to_string(folder.join(RECORD)).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

fn write_record(folder: &Path, record: &Map<String, Value>) -> Outcome<()> {
    let part = folder.join(format!("{RECORD}.part"));
    fs::write(&part, serde_json::to_string_pretty(record)? + "\n")?;
    fs::rename(&part, folder.join(RECORD))?;
    Ok(())
}

/// Tells whether a file is what its record says, and of this commit.
fn is_there(path: &Path, known: &Value, commit: &str, paths: &[String]) -> bool {
    let from = known["from"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let same = known["commit"] == commit
        && from.len() == paths.len()
        && from
            .iter()
            .zip(paths)
            .all(|(from, path)| from["path"] == *path);
    same && crate::hub::sha256(path).is_ok_and(|sha256| known["sha256"] == sha256)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::testing::{COMMIT, Reply, Server, served};

    const TASK: &str = r#"
name = "own"
version = 1
kind = "multiple_choice"
metrics = ["acc"]
[data]
items = ["test"]
[data.hub]
repo = "own/set"
revision = "refs/convert/parquet"
files = { test = ["main/test/*.jsonl"] }
[prompt]
question = "{{ q }}"
choices = "c"
gold = "g"
"#;

    fn args(into: &Path) -> DataFetch {
        DataFetch {
            tasks: vec!["own".to_owned()],
            into: into.to_owned(),
            from: Vec::new(),
            revision: None,
        }
    }

    #[test]
    fn a_task_is_fetched_once_and_its_origin_recorded() {
        let server = Server::start(|request| {
            if request.path.starts_with("/api/") {
                let file = |name| format!(r#"{{"rfilename":"main/test/{name}"}}"#);
                let files = [file("1.jsonl"), file("0.jsonl")].join(",");
                let body = format!(r#"{{"sha":"{COMMIT}","siblings":[{files}]}}"#);
                return Reply::new(200, body.as_bytes());
            }
            // `git hash-object` of each.
            if request.path.ends_with("0.jsonl") {
                served(request, b"{\"q\":0}\n", "no-hash")
            } else {
                served(request, b"{\"q\":1}\n", "no-hash")
            }
        });
        let hub = server.hub(None);
        let folder = tempfile::tempdir().unwrap();
        let definition = Definition::parse(TASK).unwrap();
        from_hub(&hub, &args(folder.path()), &definition).unwrap();
        let own = folder.path().join("own");
        let text = fs::read_to_string(own.join("test.jsonl")).unwrap();
        assert_eq!(text, "{\"q\":0}\n{\"q\":1}\n");
        let record = &read_record(&own)["test.jsonl"];
        assert_eq!(record["commit"], COMMIT);
        assert_eq!(record["rows"], 2);
        assert_eq!(record["from"][1]["path"], "main/test/1.jsonl");
        assert!(!own.join(BELOW).exists());
        let n_asked = server.seen("GET").len();
        from_hub(&hub, &args(folder.path()), &definition).unwrap();
        assert_eq!(server.seen("GET").len(), n_asked + 1);
        // A file that was changed is fetched again.
        fs::write(own.join("test.jsonl"), "{}\n").unwrap();
        from_hub(&hub, &args(folder.path()), &definition).unwrap();
        assert_eq!(fs::read_to_string(own.join("test.jsonl")).unwrap(), text);
    }

    #[test]
    fn a_local_file_becomes_a_split() {
        let folder = tempfile::tempdir().unwrap();
        let mine = folder.path().join("mine.jsonl");
        fs::write(&mine, "{\"q\": 1}\n").unwrap();
        let mut args = args(folder.path());
        args.from = vec![mine.display().to_string()];
        let definition = Definition::parse(TASK).unwrap();
        from_files(&args, &definition).unwrap();
        let text = fs::read_to_string(folder.path().join("own/test.jsonl")).unwrap();
        assert_eq!(text, "{\"q\": 1}\n");
        args.from = vec![format!("train={}", mine.display())];
        let fault = from_files(&args, &definition).unwrap_err();
        assert_eq!(fault.exit, Exit::Usage);
        assert!(
            fault.chain().contains("no split `train` (there are test)"),
            "{fault:?}"
        );
    }
}
