//! `tritmark model fetch`: brings a model's files from the hub.

use std::{fs, path::Path};

use serde_json::{Map, json};

use crate::{
    args::ModelFetch,
    commands::transfer::{Transfer, fault},
    exit::{Exit, Fault, Outcome},
    hub::{Hub, Kind, Revision},
    out,
};

/// What is known about the files of a folder.
const RECORD: &str = "fetched.json";

pub(super) fn exec(args: &ModelFetch) -> Outcome {
    let hub = Hub::from_env(|name| std::env::var(name).ok());
    fetch(&hub, args)?;
    Ok(Exit::Pass)
}

fn fetch(hub: &Hub, args: &ModelFetch) -> Outcome<()> {
    let revision = hub
        .revision(Kind::Model, &args.repo, &args.revision)
        .map_err(fault)?;
    let paths = wanted(&revision, &args.file)?;
    let mut files = Map::new();
    for path in paths {
        let mut transfer = Transfer::new(path);
        let fetched = hub
            .fetch(&revision, path, &args.into, &mut |at| transfer.at(at))
            .map_err(fault)?;
        transfer.finish();
        let told = if fetched.was_there { " is there" } else { "" };
        out::line(&format!(
            "{}{told}: {}, SHA-256 {}",
            fetched.path.display(),
            out::bytes(fetched.bytes),
            fetched.sha256
        ))?;
        files.insert(
            path.to_owned(),
            json!({
                "bytes": fetched.bytes,
                "sha256": fetched.sha256,
                "verified": fetched.is_verified,
            }),
        );
    }
    let record = json!({
        "repo": args.repo,
        "revision": args.revision,
        "commit": revision.commit,
        "files": files,
    });
    write_record(&args.into, &record)
}

fn write_record(folder: &Path, record: &serde_json::Value) -> Outcome<()> {
    fs::create_dir_all(folder)?;
    let part = folder.join(format!("{RECORD}.part"));
    fs::write(&part, serde_json::to_string_pretty(record)? + "\n")?;
    fs::rename(&part, folder.join(RECORD))?;
    Ok(())
}

/// Returns the files asked for; where none is, those of a model in Safetensors.
fn wanted<'r>(revision: &'r Revision, asked: &[String]) -> Outcome<Vec<&'r str>> {
    let mut paths = Vec::new();
    for pattern in asked {
        let found = revision.matching(pattern);
        if found.is_empty() {
            return Err(Fault::usage(format!(
                "{} has no file `{pattern}` (there are {})",
                revision.repo,
                revision.files.join(", ")
            )));
        }
        paths.extend(found);
    }
    if !asked.is_empty() {
        return Ok(paths);
    }
    if revision.matching("*.safetensors").is_empty() {
        return Err(Fault::usage(format!(
            "{} has no Safetensors files: name what to fetch by --file (there are {})",
            revision.repo,
            revision.files.join(", ")
        )));
    }
    for pattern in ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"] {
        paths.extend(revision.matching(pattern));
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::testing::{COMMIT, Reply, Server, served};

    fn revision(files: &[&str]) -> Revision {
        Revision {
            kind: Kind::Model,
            repo: "own/model".to_owned(),
            commit: COMMIT.to_owned(),
            files: files.iter().map(|file| (*file).to_owned()).collect(),
        }
    }

    #[test]
    fn a_model_is_what_an_engine_reads_of_it() {
        let files = [
            "README.md",
            "config.json",
            "model.safetensors",
            "onnx/x.json",
        ];
        let revision = revision(&files);
        let found = wanted(&revision, &[]).unwrap();
        assert_eq!(found, ["model.safetensors", "config.json"]);
        let found = wanted(&revision, &["README.md".to_owned()]).unwrap();
        assert_eq!(found, ["README.md"]);
        let fault = wanted(&revision, &["*.gguf".to_owned()]).unwrap_err();
        assert!(
            fault
                .chain()
                .contains("no file `*.gguf` (there are README.md, "),
            "{fault:?}"
        );
    }

    #[test]
    fn of_files_in_other_formats_one_has_to_be_named() {
        let fault = wanted(&revision(&["a-q4.gguf", "a-tq2.gguf"]), &[]).unwrap_err();
        assert_eq!(fault.exit, Exit::Usage);
        assert!(
            fault
                .chain()
                .contains("--file (there are a-q4.gguf, a-tq2.gguf)"),
            "{fault:?}"
        );
    }

    #[test]
    fn what_was_fetched_is_recorded() {
        let server = Server::start(|request| {
            if request.path.starts_with("/api/") {
                let files = r#"{"rfilename":"hello.gguf"}"#;
                let body = format!(r#"{{"sha":"{COMMIT}","siblings":[{files}]}}"#);
                return Reply::new(200, body.as_bytes());
            }
            served(
                request,
                b"hello\n",
                "ce013625030ba8dba906f756967f9e9ca394464a",
            )
        });
        let folder = tempfile::tempdir().unwrap();
        let args = ModelFetch {
            repo: "own/model".to_owned(),
            file: vec!["*.gguf".to_owned()],
            revision: "main".to_owned(),
            into: folder.path().join("m"),
        };
        fetch(&server.hub(None), &args).unwrap();
        let text = fs::read_to_string(args.into.join(RECORD)).unwrap();
        let record: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(record["commit"], COMMIT);
        assert_eq!(record["files"]["hello.gguf"]["bytes"], 6);
        assert_eq!(record["files"]["hello.gguf"]["verified"], true);
    }
}
