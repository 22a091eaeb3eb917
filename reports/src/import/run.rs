//! Puts imported tasks together into a bundle.

use std::num::NonZeroU32;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use tritmark_proto::{
    bundle::{FORMAT_VERSION, JobOutcome, JobState, Manifest, Run},
    job::{
        AccuracySpec, ChatSpec, Job, JobId, KvType, Model, ModelSource, Numerics, RunId, ScoreOn,
        Selector, SuiteSpec,
    },
    record::{Item, ModelFacts},
};

use crate::{bundle::Bundle, frame::ItemRow};

/// A model as another program names it.
pub(super) struct ForeignModel {
    pub(super) id: String,
    /// Hash of its revision, empty where it is not known.
    pub(super) weights_hash: String,
    pub(super) dtype: String,
    pub(super) n_params: u64,
}

/// A task as another program asked it.
pub(super) struct ForeignTask {
    pub(super) name: String,
    pub(super) num_fewshot: u32,
    pub(super) chat: Option<ChatSpec>,
    pub(super) limit: Option<NonZeroU32>,
    /// In the order of their positions.
    pub(super) items: Vec<Item>,
    pub(super) n_items: u64,
    pub(super) data_hash: Option<String>,
}

/// Returns the bundle of a run of `program`. Its id follows from `digest`, so that the same files
/// give the same bundle.
pub(super) fn bundle(
    program: &str,
    at: Timestamp,
    model: &ForeignModel,
    tasks: Vec<ForeignTask>,
    digest: Sha256,
) -> Bundle {
    let id = run_id(digest);
    let mut jobs = Vec::new();
    let mut items = Vec::new();
    for (index, task) in (0..).zip(tasks) {
        let ForeignTask {
            name,
            num_fewshot,
            chat,
            limit,
            items: of_task,
            n_items,
            data_hash,
        } = task;
        items.extend((1..).zip(of_task).map(|(sequence, item)| ItemRow {
            job_index: index,
            attempt: 1,
            sequence,
            item,
        }));
        jobs.push(JobOutcome {
            job: Job {
                id: JobId { run: id, index },
                model: Model {
                    id: model.id.clone(),
                    source: ModelSource::Path(model.id.clone().into()),
                    adapter: None,
                    baseline: None,
                },
                kernel: program.to_owned(),
                numerics: Numerics::Exact,
                kv: KvType::F32,
                head: None,
                threads: NonZeroU32::MIN,
                suite: SuiteSpec::Accuracy(AccuracySpec {
                    task: name,
                    data_dir: "".into(),
                    limit,
                    num_fewshot,
                    add_bos: false,
                    definition: None,
                    chat,
                    max_new: None,
                    batch: None,
                    shard: None,
                    evalplus_compat: false,
                    score_on: ScoreOn::Agent,
                    cache: false,
                    data: None,
                }),
                selector: Selector::default(),
            },
            state: JobState::Succeeded,
            attempt: 1,
            machine_id: None,
            facts: Some(facts(program, model, n_items, data_hash)),
            failure: None,
            started_at: None,
            ended_at: None,
        });
    }
    Bundle {
        manifest: Manifest {
            format_version: FORMAT_VERSION,
            run: Run {
                id,
                name: format!("{} by {program}", model.id),
                plan_toml: format!("# imported from {program}\n"),
                submitted_at: at,
                ended_at: None,
                tritmark_version: env!("CARGO_PKG_VERSION").to_owned(),
            },
            machines: Vec::new(),
            jobs,
        },
        measurements: Vec::new(),
        items,
        tokens: Vec::new(),
        cells: Vec::new(),
    }
}

fn facts(
    program: &str,
    model: &ForeignModel,
    n_items: u64,
    data_hash: Option<String>,
) -> ModelFacts {
    // Of what is not known: sixteen bits keep it from being taken for ternary.
    let bits_per_weight = match model.dtype.as_str() {
        dtype if dtype.contains("float32") => 32.0,
        _ => 16.0,
    };
    ModelFacts {
        weights_hash: model.weights_hash.clone(),
        architecture: String::new(),
        weight_format: model.dtype.clone(),
        head_format: model.dtype.clone(),
        kernel: program.to_owned(),
        lossy_kernel: false,
        numerics: Numerics::Exact,
        kv: KvType::F32,
        numerics_version: 0,
        n_params: model.n_params,
        n_linear_params: 0,
        file_bytes: 0,
        weight_bytes: 0,
        linear_weight_bytes: 0,
        demand: None,
        bits_per_weight,
        logits_fingerprint: String::new(),
        data_hash,
        n_items: Some(n_items),
        warnings: vec![format!(
            "imported from {program}: format, sizes and machine are not known"
        )],
    }
}

/// Returns an id that follows from what was read: the first 16 bytes of the hash as a UUID of
/// version 8.
fn run_id(digest: Sha256) -> RunId {
    use std::fmt::Write as _;
    let mut bytes: [u8; 16] = [0; 16];
    bytes.copy_from_slice(&digest.finalize()[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::new();
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text.parse().expect("a UUID was written")
}
