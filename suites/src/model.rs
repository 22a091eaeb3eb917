//! A job's model, opened: engine, tokenizer and what the worker really runs.

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process,
};

use tritmark_engine::{
    engine::{self, Engine, EngineOptions, HeadChoice, NUMERICS_VERSION, hex},
    kernels::{KernelChoice, KernelError},
    kv_cache,
    load::{self, LoadOptions, LoadedModel, VocabSource},
    synth::{self, Format},
    tokenizer::Tokenizer,
};
use tritmark_proto::{
    job::{Adapter, Head, Job, KvType, ModelSource, Numerics, SuiteSpec, Synth},
    record::ModelFacts,
};

use crate::{Context, Sink, SuiteError, bounds};

/// A model that is ready for its first token.
pub(crate) struct Opened {
    pub(crate) engine: Engine,
    /// `None` for models without a vocabulary.
    pub(crate) tokenizer: Option<Tokenizer>,
    /// From opening the files to here.
    pub(crate) load_ns: u64,
    lossy_kernel: bool,
    kv: KvType,
    source: load::ModelSource,
    path: PathBuf,
    loading: LoadOptions,
}

impl Opened {
    /// Opens a job's model; a synthetic one is made first, if it is not in the cache.
    pub(crate) fn open(
        job: &Job,
        context: &Context<'_>,
        sink: &mut dyn Sink,
    ) -> Result<Self, SuiteError> {
        let options = options(job)?;
        let kernel = &options.kernel;
        let cannot = |source| cannot_use(job, source);
        sink.progress("loading", 0, 1).map_err(SuiteError::Sink)?;
        let path = match &job.model.source {
            ModelSource::Path(path) => path.clone(),
            ModelSource::Synth(synth) => cached(synth, &context.cache_dir, sink)?,
            ModelSource::Files(files) => return Err(SuiteError::NotFetched(files.to_string())),
        };
        let adapter = match &job.model.adapter {
            None => None,
            Some(Adapter::Path(folder)) => Some(folder.clone()),
            Some(Adapter::Files(files)) => return Err(SuiteError::NotFetched(files.to_string())),
        };
        let loading = LoadOptions {
            adapter,
            ..LoadOptions::default()
        };
        let start_ns = context.clock.now_ns();
        let mut loaded = load(&path, &loading)?;
        loaded.pack(kernel).map_err(cannot)?;
        let lossy_kernel = !kernel.is_lossless().map_err(cannot)?;
        let tokenizer = match &loaded.vocab {
            VocabSource::None => None,
            vocab => Some(Tokenizer::new(vocab).map_err(SuiteError::Tokenizer)?),
        };
        let engine =
            Engine::new(loaded.config, loaded.weights, &options).map_err(SuiteError::Engine)?;
        let load_ns = context.clock.now_ns() - start_ns;
        sink.progress("loading", 1, 1).map_err(SuiteError::Sink)?;
        Ok(Self {
            engine,
            tokenizer,
            load_ns,
            lossy_kernel,
            kv: job.kv,
            source: loaded.source,
            path,
            loading,
        })
    }

    /// Loads the model once more, as its files have it and not as this engine reads it.
    pub(crate) fn load_again(&self) -> Result<LoadedModel, SuiteError> {
        load(&self.path, &self.loading)
    }

    /// Returns the vocabulary's first token.
    pub(crate) fn bos(&self) -> Option<u32> {
        self.tokenizer.as_ref()?.bos()
    }

    /// Returns what is really run; reads the model's files and evaluates a short prompt.
    pub(crate) fn facts(&mut self, data_hash: Option<String>) -> Result<ModelFacts, SuiteError> {
        let load::ModelSource {
            architecture,
            files: _,
            file_bytes,
            stored_linear_format,
            linear_format,
            adapter,
            head_format,
            n_params,
            n_linear_params,
            weight_bytes,
            linear_weight_bytes,
            bits_per_weight,
            warnings,
        } = self.source.clone();
        let weights_hash = self
            .source
            .weights_hash()
            .map_err(|source| SuiteError::Hash {
                path: self.path.clone(),
                source,
            })?;
        let weight_format = if stored_linear_format == linear_format {
            linear_format
        } else {
            format!("{linear_format} (from {stored_linear_format})")
        };
        let weight_format = match adapter {
            Some(adapter) => format!("{weight_format}, LoRA of {adapter}"),
            None => weight_format,
        };
        let (head_format, screen_bytes) = match self.engine.screen() {
            Some(screen) => (
                format!("{head_format} (screened by int8)"),
                screen.bytes() as u64,
            ),
            None => (head_format, 0),
        };
        let demand = bounds::demand(&self.source, &self.engine);
        Ok(ModelFacts {
            weights_hash,
            architecture,
            weight_format,
            head_format,
            kernel: self.engine.kernel_name().to_owned(),
            lossy_kernel: self.lossy_kernel,
            numerics: match self.engine.numerics() {
                engine::Numerics::Exact => Numerics::Exact,
                engine::Numerics::Fast => Numerics::Fast,
            },
            kv: self.kv,
            numerics_version: NUMERICS_VERSION,
            n_params,
            n_linear_params,
            file_bytes,
            weight_bytes: weight_bytes + screen_bytes,
            linear_weight_bytes,
            demand: Some(demand),
            bits_per_weight,
            logits_fingerprint: hex(&self.engine.fingerprint()),
            data_hash,
            n_items: None,
            warnings,
        })
    }
}

/// Returns how a job's engine computes.
pub(crate) fn options(job: &Job) -> Result<EngineOptions, SuiteError> {
    let kernel: KernelChoice = job
        .kernel
        .parse()
        .map_err(|source| cannot_use(job, source))?;
    Ok(EngineOptions {
        threads: NonZeroUsize::try_from(job.threads).unwrap_or(NonZeroUsize::MIN),
        kernel,
        head: match job.head.unwrap_or_else(|| usual_head(&job.suite)) {
            Head::Full => HeadChoice::Full,
            Head::Screened => HeadChoice::Screened,
        },
        kv: kv(job.kv),
        numerics: numerics(job.numerics),
        ..EngineOptions::default()
    })
}

fn cannot_use(job: &Job, source: KernelError) -> SuiteError {
    SuiteError::Kernel {
        name: job.kernel.clone(),
        source,
    }
}

fn load(path: &Path, options: &LoadOptions) -> Result<LoadedModel, SuiteError> {
    load::load(path, options).map_err(|source| SuiteError::Load {
        path: path.to_owned(),
        source: Box::new(source),
    })
}

/// Returns the engine's word for how keys and values are kept.
pub(crate) fn kv(kv: KvType) -> kv_cache::KvType {
    match kv {
        KvType::F32 => kv_cache::KvType::F32,
        KvType::F16 => kv_cache::KvType::F16,
    }
}

/// Returns the engine's word for how block formats are multiplied.
pub(crate) fn numerics(numerics: Numerics) -> engine::Numerics {
    match numerics {
        Numerics::Exact => engine::Numerics::Exact,
        Numerics::Fast => engine::Numerics::Fast,
    }
}

/// Returns how a suite finds the greatest logits where the plan says nothing.
fn usual_head(suite: &SuiteSpec) -> Head {
    match suite {
        // These need all logits: a screen would be memory for nothing.
        SuiteSpec::Accuracy(_) | SuiteSpec::Agreement(_) => Head::Full,
        _ => Head::Screened,
    }
}

/// Returns the file of a synthetic model, which is made where it is missing.
fn cached(synth: &Synth, folder: &Path, sink: &mut dyn Sink) -> Result<PathBuf, SuiteError> {
    let shape = synth::shape(&synth.shape).ok_or_else(|| SuiteError::SynthShape {
        name: synth.shape.clone(),
    })?;
    let format = Format::from_name(&synth.format).ok_or_else(|| SuiteError::SynthFormat {
        name: synth.format.clone(),
    })?;
    let name = format!("{}-{}-{}.gguf", shape.name, format.name(), synth.seed);
    let path = folder.join(&name);
    let expected = synth::file_bytes(shape, format).map_err(SuiteError::Synth)?;
    if fs::metadata(&path).is_ok_and(|found| found.len() == expected) {
        return Ok(path);
    }
    fs::create_dir_all(folder).map_err(|source| SuiteError::Cache {
        path: folder.to_owned(),
        source,
    })?;
    remove_partial_files(folder, &name);
    let mut told = Ok(());
    let mut steps = 0;
    synth::write(shape, format, synth.seed, &path, |done, total| {
        // A hundred messages at most.
        let step = done * 100 / total.max(1);
        if told.is_ok() && step > steps {
            steps = step;
            told = sink.progress("making the model", step, 100);
        }
    })
    .map_err(SuiteError::Synth)?;
    told.map_err(SuiteError::Sink)?;
    Ok(path)
}

/// Removes what processes that were killed left of a model: files `<name>.<pid>.partial` whose
/// process is gone.
fn remove_partial_files(folder: &Path, name: &str) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let file_name = entry.file_name();
        let pid = file_name
            .to_str()
            .and_then(|found| found.strip_prefix(name)?.strip_prefix('.'))
            .and_then(|rest| rest.strip_suffix(".partial")?.parse::<u32>().ok());
        let is_gone = |pid: u32| {
            pid == process::id()
                || (Path::new("/proc/self").exists()
                    && !Path::new(&format!("/proc/{pid}")).exists())
        };
        if pid.is_some_and(is_gone) {
            // If it cannot be removed, it only takes room.
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tritmark_proto::record::RecordBody;

    use super::*;

    struct Silent;

    impl Sink for Silent {
        fn record(&mut self, _: RecordBody) -> io::Result<()> {
            Ok(())
        }

        fn progress(&mut self, _: &str, _: u64, _: u64) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn names_that_mean_nothing_are_refused_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        let mut synth = Synth {
            shape: "../../etc".to_owned(),
            format: "i2_s".to_owned(),
            seed: 1,
        };
        let error = cached(&synth, &cache, &mut Silent).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("no synthetic model has the shape `../../etc`")
        );
        synth.shape = "125m".to_owned();
        synth.format = "/i2_s".to_owned();
        let error = cached(&synth, &cache, &mut Silent).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("no synthetic model has the format `/i2_s`")
        );
        assert!(!cache.exists());
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        // No process has this number: Linux's are below 2^22.
        let kept = ["m.gguf", "m.gguf.partial", "n.gguf.4294967295.partial"];
        let removed = "m.gguf.4294967295.partial";
        for name in kept.iter().chain([&removed]) {
            fs::write(file(name), "x").unwrap();
        }
        remove_partial_files(folder.path(), "m.gguf");
        assert!(kept.iter().all(|name| file(name).exists()));
        #[cfg(target_os = "linux")]
        assert!(!file(removed).exists());
    }
}
