//! Sets of files.

use super::{invalid, required};
use crate::{
    InvalidMessage,
    artefact::{ContentHash, FileSet, NamedFile},
    wire,
};

impl From<NamedFile> for wire::NamedFile {
    fn from(
        NamedFile {
            name,
            hash,
            size_bytes,
        }: NamedFile,
    ) -> Self {
        Self {
            name: name.into(),
            hash: hash.as_bytes().to_vec(),
            size_bytes,
        }
    }
}

impl TryFrom<wire::NamedFile> for NamedFile {
    type Error = InvalidMessage;

    fn try_from(file: wire::NamedFile) -> Result<Self, Self::Error> {
        let wire::NamedFile {
            name,
            hash,
            size_bytes,
        } = file;
        Ok(Self {
            name: name
                .try_into()
                .map_err(|error| invalid("NamedFile.name", format!("{error}")))?,
            hash: ContentHash::try_from(&hash[..])
                .map_err(|error| invalid("NamedFile.hash", error.to_string()))?,
            size_bytes,
        })
    }
}

impl From<FileSet> for wire::FileSet {
    fn from(set: FileSet) -> Self {
        Self {
            name: set.name().as_str().to_owned(),
            single: set.single().is_some(),
            files: set.files().iter().cloned().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::FileSet> for FileSet {
    type Error = InvalidMessage;

    fn try_from(set: wire::FileSet) -> Result<Self, Self::Error> {
        let wire::FileSet {
            name,
            single,
            files,
        } = set;
        let name = name
            .try_into()
            .map_err(|error| invalid("FileSet.name", format!("{error}")))?;
        let files: Result<_, _> = files.into_iter().map(NamedFile::try_from).collect();
        Self::new(name, single, files?).map_err(|error| invalid("FileSet.files", error.to_string()))
    }
}

/// Reads what stands for a plan's path.
impl TryFrom<wire::RegisteredFiles> for (std::path::PathBuf, FileSet) {
    type Error = InvalidMessage;

    fn try_from(registered: wire::RegisteredFiles) -> Result<Self, Self::Error> {
        let wire::RegisteredFiles { path, files } = registered;
        let path = std::path::PathBuf::from(path);
        if !path.is_absolute() {
            let problem = format!("`{}` is not absolute", path.display());
            return Err(invalid("RegisteredFiles.path", problem));
        }
        Ok((path, required("RegisteredFiles.files", files)?.try_into()?))
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::job::{Adapter, Job, Model, ModelSource, SuiteSpec};

    fn names() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z.]{0,4}",
            Just("../x".to_owned()),
            Just("/etc/passwd".to_owned()),
            Just("a/b".to_owned()),
            any::<String>(),
        ]
    }

    prop_compose! {
        fn wire_file()(
            name in names(),
            hash in prop_oneof![
                4 => proptest::collection::vec(any::<u8>(), 32),
                1 => proptest::collection::vec(any::<u8>(), 0..40),
            ],
            size_bytes in prop_oneof![Just(0), Just(5), any::<u64>()],
        ) -> wire::NamedFile {
            wire::NamedFile { name, hash, size_bytes }
        }
    }

    prop_compose! {
        fn wire_set()(
            name in names(),
            single in any::<bool>(),
            mut files in proptest::collection::vec(wire_file(), 0..4),
            sorted in any::<bool>(),
        ) -> wire::FileSet {
            if sorted {
                files.sort_by(|a, b| a.name.cmp(&b.name));
            }
            wire::FileSet { name, single, files }
        }
    }

    /// Models of every source, with and without an adapter.
    fn wire_model() -> impl Strategy<Value = wire::Model> {
        use wire::{
            adapted::{Adapter, Base},
            model::Source,
        };
        let synth = ("[a-z0-9]{1,4}", "[a-z0-9_]{1,4}", any::<u64>());
        let base = prop_oneof![
            "[a-z/]{1,9}".prop_map(Base::Path),
            synth.prop_map(|(shape, format, seed)| {
                Base::Synth(wire::Synth {
                    shape,
                    format,
                    seed,
                })
            }),
            wire_set().prop_map(Base::Files),
        ];
        let adapter = prop_oneof![
            "[a-z/]{1,9}".prop_map(Adapter::AdapterPath),
            wire_set().prop_map(Adapter::AdapterFiles),
        ];
        let ids = (".{0,3}", proptest::option::of(".{0,3}"));
        (base, proptest::option::of(adapter), ids).prop_map(|(base, adapter, (id, baseline))| {
            let source = match (adapter, base) {
                (None, Base::Path(path)) => Source::Path(path),
                (None, Base::Synth(synth)) => Source::Synth(synth),
                (None, Base::Files(files)) => Source::Files(files),
                (adapter, base) => Source::Adapted(wire::Adapted {
                    base: Some(base),
                    adapter,
                }),
            };
            wire::Model {
                id,
                source: Some(source),
                baseline,
            }
        })
    }

    fn check(set: &FileSet) {
        for file in set.files() {
            let path = Path::new("/cache")
                .join(set.name().as_str())
                .join(file.name.as_str());
            assert!(
                path.starts_with("/cache") && path.components().count() == 4,
                "{path:?}"
            );
        }
        assert!(!set.files().is_empty());
    }

    proptest! {
        #[test]
        fn a_set_from_anywhere_is_refused_or_stays_in_its_folder(wire in wire_set()) {
            if let Ok(set) = FileSet::try_from(wire.clone()) {
                check(&set);
                prop_assert_eq!(wire::FileSet::from(set), wire);
            }
        }

        #[test]
        fn a_job_with_files_from_anywhere_is_refused_or_stays_in_its_folders(
            model in wire_set(),
            adapter in wire_set(),
            data in wire_set(),
        ) {
            let accuracy = wire::Accuracy {
                task: "boolq".to_owned(),
                data: Some(data),
                ..wire::Accuracy::default()
            };
            let job = wire::Job {
                run_id: "018f6b1e-0000-7000-8000-000000000001".to_owned(),
                model: Some(wire::Model {
                    id: "m".to_owned(),
                    source: Some(wire::model::Source::Adapted(wire::Adapted {
                        base: Some(wire::adapted::Base::Files(model)),
                        adapter: Some(wire::adapted::Adapter::AdapterFiles(adapter)),
                    })),
                    baseline: None,
                }),
                threads: 1,
                suite: Some(wire::Suite { kind: Some(wire::suite::Kind::Accuracy(accuracy)) }),
                ..wire::Job::default()
            };
            if let Ok(Job { model, suite: SuiteSpec::Accuracy(spec), .. }) = Job::try_from(job) {
                let ModelSource::Files(files) = &model.source else {
                    panic!("{model:?}");
                };
                check(files);
                let Some(Adapter::Files(files)) = &model.adapter else {
                    panic!("{model:?}");
                };
                check(files);
                check(spec.data.as_ref().expect("it was given"));
            }
        }

        #[test]
        fn a_model_comes_back_with_its_adapter_by_wire_and_json(wire in wire_model()) {
            if let Ok(model) = Model::try_from(wire.clone()) {
                let json = serde_json::to_string(&model).expect("a model is plain data");
                prop_assert_eq!(&serde_json::from_str::<Model>(&json).expect("it was one"), &model);
                prop_assert_eq!(wire::Model::from(model), wire);
            }
        }

        #[test]
        fn any_bytes_are_a_set_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Ok(set)) = wire::FileSet::decode(&bytes[..]).map(FileSet::try_from) {
                check(&set);
            }
        }
    }

    #[test]
    fn a_model_that_was_stored_before_there_were_adapters_has_none() {
        let stored = r#"{"id": "m", "source": {"path": "m.gguf"}, "baseline": null}"#;
        let model: Model = serde_json::from_str(stored).unwrap();
        assert_eq!(model.adapter, None);
        let adapted = wire::Model {
            id: "m".to_owned(),
            source: Some(wire::model::Source::Adapted(wire::Adapted::default())),
            baseline: None,
        };
        let refused = Model::try_from(adapted).unwrap_err().to_string();
        assert!(refused.contains("Adapted.adapter"), "{refused}");
    }

    #[test]
    fn what_stands_for_a_path_stands_for_an_absolute_one() {
        let files = wire::FileSet {
            name: "m".to_owned(),
            single: true,
            files: vec![wire::NamedFile {
                name: "m.gguf".to_owned(),
                hash: vec![7; 32],
                size_bytes: 3,
            }],
        };
        let registered = |path: &str, files| wire::RegisteredFiles {
            path: path.to_owned(),
            files,
        };
        let (path, set): (PathBuf, FileSet) = registered("/m.gguf", Some(files.clone()))
            .try_into()
            .unwrap();
        assert_eq!((path, set.size_bytes()), (PathBuf::from("/m.gguf"), 3));
        for (path, files, problem) in [
            ("m.gguf", Some(files), "RegisteredFiles.path"),
            ("/m.gguf", None, "RegisteredFiles.files"),
        ] {
            let refused: Result<(PathBuf, FileSet), _> = registered(path, files).try_into();
            assert!(refused.unwrap_err().to_string().contains(problem));
        }
    }
}
