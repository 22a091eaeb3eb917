//! What the tests of this crate build their cases from.

use std::{collections::BTreeMap, num::NonZeroU32, path::Path, sync::Arc};

use tritmark_proto::{
    job::{
        AccuracySpec, AgreementSpec, AttemptId, Job, JobId, KvType, LatencySpec, Model,
        ModelSource, Numerics, RunId, ScoreOn, Selector, SuiteSpec, Workload,
    },
    machine::Machine,
    record::{
        AgreementCell, Answer, Choice, ChoiceAnswer, Grade, Item, Measurement, Metric, ModelFacts,
        Outcome, Parted, Phase, Reading, Record, RecordBody, TokenTimes,
    },
};

use crate::{
    fixture::PostgresFixture,
    store::{self, AttemptStart, Location, SqliteStore, Store, StoredAgent, StoredRun, plan_hash},
};

pub(crate) const WORKLOAD: Workload = Workload {
    n_prompt: 16,
    n_gen: 3,
    n_depth: 0,
    n_batch: 512,
};

pub(crate) fn machine(id: &str) -> Machine {
    Machine {
        id: id.into(),
        hostname: format!("{id}.example"),
        arch: "x86_64".into(),
        cpu_model: "A CPU".into(),
        isa: vec!["avx2".into(), "fma".into()],
        sockets: 1,
        physical_cores: 2,
        logical_cores: 4,
        caches: Vec::new(),
        memory_bytes: 8 << 30,
        os: "Debian 12".into(),
        kernel: "Linux 6".into(),
        governor: None,
        hypervisor: Some("kvm".into()),
        transparent_huge_pages: None,
        firmware: None,
        microcode: None,
    }
}

/// Agent `n`, on its own machine.
pub(crate) fn agent(n: u32) -> StoredAgent {
    agent_on(n, &format!("machine-{n}"))
}

pub(crate) fn agent_on(n: u32, machine_id: &str) -> StoredAgent {
    StoredAgent {
        id: agent_id(n),
        version: "0.1.0".into(),
        machine: machine(machine_id),
        labels: BTreeMap::new(),
        suites: Vec::new(),
        last_seen_unix_ns: 0,
        quarantine: None,
        drain_unix_ns: None,
    }
}

pub(crate) fn agent_id(n: u32) -> String {
    format!("00000000-0000-7000-8000-{n:012}")
}

pub(crate) fn latency() -> SuiteSpec {
    SuiteSpec::Latency(LatencySpec {
        workload: WORKLOAD,
        warm_ups: 0,
        repetitions: NonZeroU32::MIN,
        probe: false,
    })
}

pub(crate) fn accuracy() -> SuiteSpec {
    SuiteSpec::Accuracy(AccuracySpec {
        task: "boolq".into(),
        data_dir: "/data".into(),
        limit: None,
        num_fewshot: 0,
        add_bos: false,
        definition: None,
        chat: None,
        max_new: None,
        batch: None,
        shard: None,
        evalplus_compat: false,
        score_on: ScoreOn::Agent,
        cache: false,
        data: None,
    })
}

pub(crate) fn job(
    run: RunId,
    index: u32,
    model: &str,
    baseline: Option<&str>,
    suite: SuiteSpec,
) -> Job {
    Job {
        id: JobId { run, index },
        model: Model {
            id: model.into(),
            source: ModelSource::Path(format!("/models/{model}").into()),
            adapter: None,
            baseline: baseline.map(Into::into),
        },
        kernel: "auto".into(),
        numerics: Numerics::Exact,
        kv: KvType::F32,
        head: None,
        threads: NonZeroU32::MIN,
        suite,
        selector: Selector::default(),
    }
}

pub(crate) fn run(name: &str) -> StoredRun {
    let plan_toml = format!("# {name}\n");
    StoredRun {
        id: RunId::generate(),
        name: name.into(),
        plan_hash: plan_hash(&plan_toml, "/"),
        plan_toml,
        submitted_unix_ns: 1_000,
        ended_unix_ns: None,
        tritmark_version: "0.1.0".into(),
        priority: 0,
        expires_unix_ns: None,
        paused_unix_ns: None,
    }
}

pub(crate) fn record(sequence: u64, body: RecordBody) -> Record {
    Record {
        sequence,
        at_unix_ns: 1_700_000_000_000_000_000 + sequence.cast_signed(),
        body,
    }
}

pub(crate) fn facts(n_items: Option<u64>) -> RecordBody {
    RecordBody::Facts(ModelFacts {
        weights_hash: "w".into(),
        architecture: "bitnet".into(),
        weight_format: "i2_s".into(),
        head_format: "f16".into(),
        kernel: "x86_64-avx2".into(),
        lossy_kernel: false,
        numerics: Numerics::Exact,
        kv: KvType::F32,
        numerics_version: 1,
        n_params: 10,
        n_linear_params: 8,
        file_bytes: 4,
        weight_bytes: 4,
        linear_weight_bytes: 2,
        demand: None,
        bits_per_weight: 2.0,
        logits_fingerprint: "f".into(),
        data_hash: n_items.map(|_| "d".into()),
        n_items,
        warnings: Vec::new(),
    })
}

pub(crate) fn reading(value: f64) -> RecordBody {
    RecordBody::Measurement(Measurement {
        suite: "latency".into(),
        metric: Metric::DecodeTokPerS,
        workload: Some(WORKLOAD),
        phase: Some(Phase::Decode),
        repetition: Some(0),
        outcome: Outcome::Reading(Reading {
            value,
            grade: Grade::Counted,
            source: "clock:monotonic".into(),
        }),
    })
}

pub(crate) fn skipped(reason: &str) -> RecordBody {
    RecordBody::Measurement(Measurement {
        suite: "energy".into(),
        metric: Metric::EnergyJ,
        workload: None,
        phase: None,
        repetition: None,
        outcome: Outcome::Skipped {
            reason: reason.into(),
        },
    })
}

pub(crate) fn tokens() -> RecordBody {
    RecordBody::Tokens(TokenTimes {
        workload: WORKLOAD,
        repetition: 0,
        token_ids: vec![7, 8, 9],
        elapsed_ns: vec![300, 20, 10],
    })
}

pub(crate) fn item(index: u32, loglikelihood: f64) -> RecordBody {
    let answer = ChoiceAnswer {
        gold: 1,
        choices: vec![
            Choice {
                loglikelihood,
                is_greedy: false,
                n_tokens: 1,
                n_chars: 2,
            },
            Choice {
                loglikelihood: -0.5,
                is_greedy: true,
                n_tokens: 2,
                n_chars: 3,
            },
        ],
        predicted: 1,
        predicted_norm: None,
    };
    let scores = answer.scores();
    RecordBody::Item(Item {
        task: "boolq".into(),
        group: None,
        index,
        doc_hash: format!("doc-{index}"),
        prompt_hash: format!("prompt-{index}"),
        answer: Answer::Choice(answer),
        scores,
        elapsed_ns: Some(5),
        energy: Vec::new(),
        from_cache: None,
        scored_on: None,
    })
}

/// A cell of an agreement of 95 positions, 90 of them equal where it parts.
pub(crate) fn cell(parted: Option<Parted>) -> RecordBody {
    let reference = "00112233445566778899aabbccddeeff";
    let (equal, fingerprint) = match parted {
        None => (95, reference),
        Some(_) => (90, "ffeeddccbbaa99887766554433221100"),
    };
    RecordBody::Cell(AgreementCell {
        kernel: "x86_64-avx2".into(),
        threads: NonZeroU32::new(2).unwrap(),
        n_batch: NonZeroU32::new(32).unwrap(),
        reused_prefix: true,
        equal,
        positions: 95,
        fingerprint: fingerprint.into(),
        reference: reference.into(),
        parted,
    })
}

pub(crate) fn parted() -> Parted {
    Parted {
        prompt: 3,
        position: 4,
        max_abs: 0.1,
        kl: 0.001,
        margin: 0.5,
        expected: 7,
        found: 9,
    }
}

pub(crate) fn agreement() -> SuiteSpec {
    let one = || vec![NonZeroU32::MIN];
    SuiteSpec::Agreement(AgreementSpec {
        n_prompts: NonZeroU32::MIN,
        max_len: NonZeroU32::MIN,
        n_gen: 1,
        seed: 1,
        threads: one(),
        n_batch: one(),
    })
}

pub(crate) async fn store(folder: &Path) -> SqliteStore {
    SqliteStore::open(&folder.join("store.sqlite"))
        .await
        .unwrap()
}

/// What a test's stores lie on.
pub(crate) enum Bed {
    Sqlite(tempfile::TempDir),
    Postgres(PostgresFixture),
}

impl Bed {
    pub(crate) fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    /// An empty data base; `None` where there is no PostgreSQL, which is said on stderr.
    pub(crate) async fn postgres() -> Option<Self> {
        PostgresFixture::start().await.map(Self::Postgres)
    }

    pub(crate) fn location(&self) -> Location {
        match self {
            Self::Sqlite(folder) => folder.path().join("store.sqlite").into(),
            Self::Postgres(fixture) => fixture.url().parse().unwrap(),
        }
    }

    /// Opens the store; of SQLite's only one at a time.
    pub(crate) async fn open(&self) -> Arc<dyn Store> {
        store::open(&self.location()).await.unwrap()
    }
}

/// Makes of each function two tests, one on each data base.
macro_rules! on_both {
    ($($(#[$attribute:meta])* async fn $name:ident($bed:ident: &Bed) $body:block)*) => {
        $($(#[$attribute])* async fn $name($bed: &$crate::testing::Bed) $body)*

        mod on_sqlite {
            $(#[tokio::test] async fn $name() {
                super::$name(&$crate::testing::Bed::sqlite()).await;
            })*
        }

        mod on_postgres {
            $(#[tokio::test] async fn $name() {
                if let Some(bed) = $crate::testing::Bed::postgres().await {
                    super::$name(&bed).await;
                }
            })*
        }
    };
}
pub(crate) use on_both;

/// Begins the next attempt of a job by agent `n`, which is made known first.
pub(crate) async fn start(store: &dyn Store, job: JobId, n: u32) -> AttemptId {
    let agent = agent(n);
    store.put_agent(&agent).await.unwrap();
    let attempt = store
        .start_attempt(&AttemptStart {
            job,
            agent_id: agent.id,
            machine_id: agent.machine.id,
            at_unix_ns: 2_000,
            lease_until_unix_ns: 3_000,
            exclusive: None,
        })
        .await
        .unwrap();
    attempt.id
}
