//! Made-up bundles for tests: plausible figures from a seed, written as a coordinator writes them.

pub(crate) mod tables;

use std::{num::NonZeroU32, path::Path};

use tritmark_proto::{
    bundle::{FORMAT_VERSION, Failure, FailureClass, JobOutcome, JobState, Manifest, Run},
    job::{
        AccuracySpec, AgreementSpec, EnergySpec, Job, JobId, KvType, LatencySpec, MemorySpec,
        Model, ModelSource, Numerics, RunId, ScoreOn, Selector, SuiteSpec, Workload,
    },
    machine::{Cache, Machine},
    record::{
        AgreementCell, Answer, Choice, ChoiceAnswer, Grade, Item, ItemScore, Metric, ModelFacts,
        Outcome, Parted, Phase, Reading,
    },
    roofline::{Arithmetic, Bounds, Demand},
};

use crate::{
    bundle::Bundle,
    frame::{CellRow, ItemRow, MeasurementRow, TokenRow},
};

/// Token shape of every performance job.
pub(crate) const WORKLOAD: Workload = Workload {
    n_prompt: 128,
    n_gen: 64,
    n_depth: 0,
    n_batch: 512,
};

/// Fingerprint of every agreement's reference.
pub(crate) const REFERENCE: &str = "a24a995b51b5793df48034d01671e101";

/// A model of the made-up world.
#[derive(Clone, Copy)]
pub(crate) struct Sketch {
    pub(crate) id: &'static str,
    pub(crate) baseline: Option<&'static str>,
    pub(crate) format: &'static str,
    pub(crate) bits: f64,
    /// Linear parameters.
    pub(crate) params: u64,
    /// Decode speed at one thread.
    pub(crate) tok_per_s: f64,
    /// Share of right answers.
    pub(crate) skill: f64,
}

pub(crate) const TERNARY_2B: Sketch = Sketch {
    id: "bitnet-b1.58-2b-4t",
    baseline: Some("llama-2b-bf16"),
    format: "i2_s",
    bits: 2.0,
    params: 2_084_044_800,
    tok_per_s: 11.2,
    skill: 0.62,
};
pub(crate) const DENSE_2B: Sketch = Sketch {
    id: "llama-2b-bf16",
    baseline: None,
    format: "bf16",
    bits: 16.0,
    params: 2_084_044_800,
    tok_per_s: 3.1,
    skill: 0.64,
};
pub(crate) const TERNARY_125M: Sketch = Sketch {
    id: "synth-125m-i2_s",
    baseline: Some("synth-125m-f16"),
    format: "i2_s",
    bits: 2.0,
    params: 103_809_024,
    tok_per_s: 168.0,
    skill: 0.3,
};
pub(crate) const DENSE_125M: Sketch = Sketch {
    id: "synth-125m-f16",
    baseline: None,
    format: "f16",
    bits: 16.0,
    params: 103_809_024,
    tok_per_s: 51.0,
    skill: 0.31,
};

/// The four tasks.
pub(crate) const TASKS: [&str; 4] = ["arc_challenge", "arc_easy", "boolq", "winogrande"];

/// A machine called `hostname`.
pub(crate) fn machine(hostname: &str) -> Machine {
    Machine {
        id: format!("id-of-{hostname}"),
        hostname: hostname.to_owned(),
        arch: "x86_64".to_owned(),
        cpu_model: "AMD EPYC 7763 64-Core Processor".to_owned(),
        isa: ["avx", "avx2", "f16c", "fma"].map(str::to_owned).to_vec(),
        sockets: 1,
        physical_cores: 2,
        logical_cores: 2,
        caches: vec![
            Cache {
                level: 1,
                kind: "data".to_owned(),
                size_bytes: 32 << 10,
                shared_by: 1,
                instances: 2,
            },
            Cache {
                level: 2,
                kind: "unified".to_owned(),
                size_bytes: 512 << 10,
                shared_by: 1,
                instances: 2,
            },
            Cache {
                level: 3,
                kind: "unified".to_owned(),
                size_bytes: 32 << 20,
                shared_by: 2,
                instances: 1,
            },
        ],
        memory_bytes: 16_765_304_832,
        os: "Debian GNU/Linux 13 (trixie)".to_owned(),
        kernel: "Linux 6.12.9".to_owned(),
        governor: None,
        hypervisor: Some("kvm".to_owned()),
        transparent_huge_pages: Some("madvise".to_owned()),
        firmware: None,
        microcode: None,
    }
}

/// A bundle in the making.
pub(crate) struct Fixture {
    pub(crate) bundle: Bundle,
    random: u64,
}

impl Fixture {
    /// A ternary model and its baseline in every suite, on one machine.
    pub(crate) fn one_pair() -> Self {
        let mut fixture = Self::new("pair", vec![machine("m")]);
        for model in [TERNARY_125M, DENSE_125M] {
            fixture.latency(model, 0, 1);
            fixture.memory(model, 0, 1);
            fixture.energy(model, 0, 1);
            fixture.accuracy(model, 0, "arc_easy", 80);
        }
        fixture
    }

    pub(crate) fn new(name: &str, machines: Vec<Machine>) -> Self {
        Self {
            bundle: Bundle {
                manifest: Manifest {
                    format_version: FORMAT_VERSION,
                    run: Run {
                        id: run_id(),
                        name: name.to_owned(),
                        plan_toml: format!(
                            "name = \"{name}\"\nthreads = [1, 2]\n\n[[model]]\nid = \"bitnet-b1.58-2b-4t\"\n"
                        ),
                        submitted_at: "2026-03-02T09:30:00Z".parse().expect("a time"),
                        ended_at: Some("2026-03-02T09:52:41Z".parse().expect("a time")),
                        tritmark_version: "0.1.0".to_owned(),
                    },
                    machines,
                    jobs: Vec::new(),
                },
                measurements: Vec::new(),
                items: Vec::new(),
                tokens: Vec::new(),
                cells: Vec::new(),
            },
            random: 0x5EED,
        }
    }

    /// Four models in two pairs, two thread counts, four tasks, one machine, one failed job.
    pub(crate) fn full() -> Self {
        let mut fixture = Self::new("two-pairs", vec![machine("bench-01")]);
        let models = [TERNARY_2B, DENSE_2B, TERNARY_125M, DENSE_125M];
        for model in models {
            for threads in [1, 2] {
                fixture.latency(model, 0, threads);
                fixture.memory(model, 0, threads);
                fixture.energy(model, 0, threads);
            }
            for task in TASKS {
                fixture.accuracy(model, 0, task, 120);
            }
        }
        fixture.failed(DENSE_2B, Some(0), 2, "killed by signal 9 (out of memory)");
        fixture
    }

    /// One pair on two machines.
    pub(crate) fn two_machines() -> Self {
        let mut fixture = Self::new("fleet", vec![machine("bench-01"), machine("board-07")]);
        fixture.bundle.manifest.machines[1].arch = "aarch64".to_owned();
        fixture.bundle.manifest.machines[1].cpu_model = "Cortex-A76".to_owned();
        fixture.bundle.manifest.machines[1].hypervisor = None;
        fixture.bundle.manifest.machines[1].governor = Some("performance".to_owned());
        for machine in [0, 1] {
            for model in [TERNARY_125M, DENSE_125M] {
                fixture.latency(model, machine, 2);
                fixture.memory(model, machine, 2);
                fixture.energy(model, machine, 2);
            }
        }
        for model in [TERNARY_125M, DENSE_125M] {
            fixture.accuracy(model, 0, "arc_easy", 200);
        }
        fixture
    }

    /// One model alone, without accuracy.
    pub(crate) fn lonely() -> Self {
        let mut fixture = Self::new("lonely", vec![machine("laptop")]);
        let model = Sketch {
            baseline: None,
            ..TERNARY_2B
        };
        fixture.latency(model, 0, 2);
        fixture.memory(model, 0, 2);
        fixture
    }

    /// Nothing succeeded.
    pub(crate) fn failures() -> Self {
        let mut fixture = Self::new("unlucky", vec![machine("laptop")]);
        for model in [TERNARY_2B, DENSE_2B] {
            fixture.failed(
                model,
                Some(0),
                2,
                "cannot open `models/2b.gguf`: no such file",
            );
        }
        fixture.failed(TERNARY_2B, None, 1, "no agent has `avx512vnni`");
        fixture
    }

    pub(crate) fn latency(&mut self, model: Sketch, machine: usize, threads: u32) {
        let job = self.succeeded(
            model,
            machine,
            threads,
            SuiteSpec::Latency(LatencySpec {
                workload: WORKLOAD,
                warm_ups: 1,
                repetitions: NonZeroU32::new(10).expect("ten"),
                probe: false,
            }),
        );
        let speed = model.tok_per_s * f64::from(threads).powf(0.85) * (1.0 - 0.4 * machine as f64);
        let load = 2e8 * (1.0 + 0.05 * self.noise());
        self.push(job, "latency", Metric::LoadNs, None, None, counted(load));
        for repetition in 0..10 {
            let mut total = 0.0;
            let mut token_rows = Vec::new();
            let sequence = self.next_sequence(job);
            let prefill = speed * 5.0 * (1.0 + 0.01 * self.noise());
            let ttft = 1e9 * f64::from(WORKLOAD.n_prompt) / prefill + 1e9 / speed;
            for token_index in 0..WORKLOAD.n_gen {
                let mut elapsed = 1e9 / speed * (1.0 + 0.02 * self.noise());
                if self.uniform() < 0.02 {
                    elapsed *= 1.6;
                }
                if token_index == 0 {
                    elapsed = ttft;
                } else {
                    total += elapsed;
                }
                token_rows.push(TokenRow {
                    job_index: job,
                    attempt: 1,
                    sequence,
                    workload: WORKLOAD,
                    repetition,
                    token_index,
                    token_id: 1000 + token_index,
                    elapsed_ns: whole(elapsed),
                });
            }
            let tpot = total / f64::from(WORKLOAD.n_gen - 1);
            self.bundle.tokens.extend(token_rows);
            for (metric, phase, value) in [
                (Metric::PrefillTokPerS, Some(Phase::Prefill), prefill),
                (Metric::DecodeTokPerS, Some(Phase::Decode), 1e9 / tpot),
                (Metric::TtftNs, None, ttft),
                (Metric::TpotNs, Some(Phase::Decode), tpot),
            ] {
                self.push(
                    job,
                    "latency",
                    metric,
                    phase,
                    Some(repetition),
                    counted(value),
                );
            }
        }
    }

    /// Has every latency job so far measure the machine's bounds, and says what a token of its model asks for.
    pub(crate) fn probed(&mut self, bounds: Bounds) {
        let jobs = self.bundle.manifest.jobs.iter_mut();
        let mut probed = Vec::new();
        for outcome in jobs.filter(|outcome| outcome.job.suite.name() == "latency") {
            let facts = outcome.facts.as_mut().expect("it has run");
            facts.demand = Some(Demand {
                token_bytes: facts.weight_bytes,
                position_bytes: 0,
                linear_ops: facts.n_linear_params,
                arithmetic: Some(if facts.bits_per_weight < 3.0 {
                    Arithmetic::Int8
                } else {
                    Arithmetic::F32
                }),
            });
            probed.push(outcome.job.id.index);
        }
        let Bounds {
            memory_read_bytes_per_s,
            int8_ops_per_s,
            f32_ops_per_s,
        } = bounds;
        for job in probed {
            for (metric, value) in [
                (Metric::MemoryReadBytesPerS, memory_read_bytes_per_s),
                (Metric::Int8OpsPerS, int8_ops_per_s),
                (Metric::F32OpsPerS, f32_ops_per_s),
            ] {
                self.push(job, "latency", metric, None, None, counted(value));
            }
        }
    }

    pub(crate) fn memory(&mut self, model: Sketch, machine: usize, threads: u32) {
        let job = self.succeeded(
            model,
            machine,
            threads,
            SuiteSpec::Memory(MemorySpec { workload: WORKLOAD }),
        );
        let facts = facts(model);
        let peak = facts.weight_bytes as f64 + 9e7 + 1e6 * self.noise();
        for (metric, outcome) in [
            (Metric::WeightBytes, computed(facts.weight_bytes as f64)),
            (
                Metric::LinearWeightBytes,
                computed(facts.linear_weight_bytes as f64),
            ),
            (Metric::FileBytes, computed(facts.file_bytes as f64)),
            (Metric::KvBytes, computed(7_864_320.0)),
            (Metric::PeakRssBytes, counted(peak.round())),
        ] {
            self.push(job, "memory", metric, None, None, outcome);
        }
    }

    pub(crate) fn energy(&mut self, model: Sketch, machine: usize, threads: u32) {
        let job = self.succeeded(
            model,
            machine,
            threads,
            SuiteSpec::Energy(EnergySpec {
                workload: WORKLOAD,
                repetitions: NonZeroU32::new(5).expect("five"),
                idle_seconds: 1.0,
                window_seconds: 1.0,
            }),
        );
        for phase in [Phase::Prefill, Phase::Decode] {
            for metric in [Metric::EnergyJ, Metric::EnergyPerTokenJ] {
                let outcome = Outcome::Skipped {
                    reason: "no powercap domain: /sys/class/powercap is empty".to_owned(),
                };
                self.push(job, "energy", metric, Some(phase), None, outcome);
            }
        }
        let estimate = model.params as f64 * 512.0 * if model.bits < 3.0 { 7e-15 } else { 5e-13 };
        for (metric, value) in [
            (Metric::EnergyEstimateJ, estimate),
            (Metric::EnergyEstimatePerTokenJ, estimate / 512.0),
        ] {
            let outcome = Outcome::Reading(Reading {
                value,
                grade: Grade::Estimated,
                source: "aoe:7nm".to_owned(),
            });
            self.push(job, "energy", metric, None, None, outcome);
        }
    }

    pub(crate) fn accuracy(&mut self, model: Sketch, machine: usize, task: &str, n: u32) {
        let job = self.succeeded(
            model,
            machine,
            2,
            SuiteSpec::Accuracy(AccuracySpec {
                task: task.to_owned(),
                data_dir: "data".into(),
                limit: NonZeroU32::new(n),
                num_fewshot: 0,
                add_bos: true,
                definition: None,
                chat: None,
                max_new: None,
                batch: None,
                shard: None,
                evalplus_compat: false,
                score_on: ScoreOn::Agent,
                cache: false,
                data: None,
            }),
        );
        let outcome = self.bundle.manifest.jobs.last_mut().expect("a job");
        let facts = outcome.facts.as_mut().expect("facts");
        facts.data_hash = Some(format!("{task:0<64}"));
        facts.n_items = Some(u64::from(n));
        let has_norm = task.starts_with("arc");
        let n_choices = if has_norm { 4 } else { 2 };
        for index in 0..n {
            let gold = index % n_choices;
            let answer = |random: f64| {
                if random < model.skill {
                    gold
                } else {
                    (gold + 1) % n_choices
                }
            };
            // Items have a difficulty both models feel.
            let difficulty = f64::from(index * 7919 % n) / f64::from(n);
            let predicted = answer(0.8 * difficulty + 0.2 * self.uniform());
            let predicted_norm = has_norm.then(|| answer(0.8 * difficulty + 0.2 * self.uniform()));
            let answer = ChoiceAnswer {
                gold,
                choices: (0..n_choices)
                    .map(|choice| Choice {
                        loglikelihood: -2.0 - f64::from(choice != predicted),
                        is_greedy: choice == predicted,
                        n_tokens: 2,
                        n_chars: 7 + choice,
                    })
                    .collect(),
                predicted,
                predicted_norm,
            };
            let scores = answer.scores();
            self.item(job, task, index, Answer::Choice(answer), scores);
        }
        self.push(
            job,
            "accuracy",
            Metric::ItemsPerS,
            None,
            None,
            counted(41.5),
        );
    }

    /// A job of eight cells that all agree with [`REFERENCE`].
    pub(crate) fn agreement(&mut self, model: Sketch, machine: usize) {
        let [two, seven, twenty, all] = [2, 7, 20, 32].map(|n| NonZeroU32::new(n).expect("not 0"));
        let spec = AgreementSpec {
            n_prompts: twenty,
            max_len: NonZeroU32::new(64).expect("not 0"),
            n_gen: 16,
            seed: 1,
            threads: vec![two],
            n_batch: vec![NonZeroU32::MIN, seven, all],
        };
        let job_index = self.succeeded(model, machine, 2, SuiteSpec::Agreement(spec));
        let ways = [
            (NonZeroU32::MIN, false),
            (seven, false),
            (all, false),
            (all, true),
        ];
        for kernel in ["x86_64-avx2", "reference"] {
            for (n_batch, reused_prefix) in ways {
                let sequence = self.next_sequence(job_index);
                self.bundle.cells.push(CellRow {
                    job_index,
                    attempt: 1,
                    sequence,
                    cell: AgreementCell {
                        kernel: kernel.to_owned(),
                        threads: two,
                        n_batch,
                        reused_prefix,
                        equal: 950,
                        positions: 950,
                        fingerprint: REFERENCE.to_owned(),
                        reference: REFERENCE.to_owned(),
                        parted: None,
                    },
                });
            }
        }
    }

    /// Lets a cell of a job part from its reference.
    pub(crate) fn part(&mut self, job_index: u32, cell: usize) {
        let cells = self.bundle.cells.iter_mut();
        let mut of_job = cells.filter(|row| row.job_index == job_index);
        let cell = &mut of_job.nth(cell).expect("the job has it").cell;
        cell.equal = 910;
        cell.fingerprint = "ffeeddccbbaa99887766554433221100".to_owned();
        cell.parted = Some(Parted {
            prompt: 3,
            position: 41,
            max_abs: 0.0012,
            kl: 3.4e-6,
            margin: 0.25,
            expected: 17,
            found: 17,
        });
    }

    /// Gives a job's machine another reference, which its cells agree with.
    pub(crate) fn another_reference(&mut self, job_index: u32, reference: &str) {
        for row in &mut self.bundle.cells {
            if row.job_index == job_index {
                reference.clone_into(&mut row.cell.reference);
                reference.clone_into(&mut row.cell.fingerprint);
            }
        }
    }

    /// Adds an item to a job; its hashes follow from task and index.
    pub(crate) fn item(
        &mut self,
        job_index: u32,
        task: &str,
        index: u32,
        answer: Answer,
        scores: Vec<ItemScore>,
    ) -> &mut Item {
        let sequence = self.next_sequence(job_index);
        self.bundle.items.push(ItemRow {
            job_index,
            attempt: 1,
            sequence,
            item: Item {
                task: task.to_owned(),
                group: None,
                index,
                doc_hash: format!("{task}-{index}"),
                prompt_hash: format!("prompt-{task}-{index}"),
                answer,
                scores,
                elapsed_ns: Some(1_500_000),
                energy: Vec::new(),
                from_cache: None,
                scored_on: None,
            },
        });
        &mut self.bundle.items.last_mut().expect("an item").item
    }

    /// Returns the accuracy parameters of a job.
    pub(crate) fn accuracy_spec(&mut self, job_index: u32) -> &mut AccuracySpec {
        let outcome = &mut self.bundle.manifest.jobs[job_index as usize];
        match &mut outcome.job.suite {
            SuiteSpec::Accuracy(spec) => spec,
            _ => panic!("job {job_index} is no accuracy job"),
        }
    }

    pub(crate) fn failed(
        &mut self,
        model: Sketch,
        machine: Option<usize>,
        threads: u32,
        message: &str,
    ) {
        let suite = SuiteSpec::Latency(LatencySpec {
            workload: WORKLOAD,
            warm_ups: 1,
            repetitions: NonZeroU32::new(3).expect("three"),
            probe: false,
        });
        self.succeeded(model, machine.unwrap_or(0), threads, suite);
        let outcome = self.bundle.manifest.jobs.last_mut().expect("a job");
        outcome.state = JobState::Failed;
        outcome.facts = None;
        if machine.is_none() {
            outcome.machine_id = None;
            outcome.started_at = None;
        }
        outcome.failure = Some(Failure {
            class: FailureClass::Permanent,
            message: message.to_owned(),
            stderr: format!("thread 'main' said:\n{message}\n"),
        });
    }

    /// Adds a job and returns its index.
    pub(crate) fn succeeded(
        &mut self,
        model: Sketch,
        machine: usize,
        threads: u32,
        suite: SuiteSpec,
    ) -> u32 {
        let index = self.bundle.manifest.jobs.len() as u32;
        let machine_id = self
            .bundle
            .manifest
            .machines
            .get(machine)
            .map(|machine| machine.id.clone());
        self.bundle.manifest.jobs.push(JobOutcome {
            job: Job {
                id: JobId {
                    run: self.bundle.manifest.run.id,
                    index,
                },
                model: Model {
                    id: model.id.to_owned(),
                    source: ModelSource::Path(format!("models/{}.gguf", model.id).into()),
                    adapter: None,
                    baseline: model.baseline.map(str::to_owned),
                },
                kernel: "auto".to_owned(),
                numerics: Numerics::Exact,
                kv: KvType::F32,
                head: None,
                threads: NonZeroU32::new(threads).expect("threads"),
                suite,
                selector: Selector::default(),
            },
            state: JobState::Succeeded,
            attempt: 1,
            machine_id,
            facts: Some(facts(model)),
            failure: None,
            started_at: Some("2026-03-02T09:30:05Z".parse().expect("a time")),
            ended_at: Some("2026-03-02T09:31:05Z".parse().expect("a time")),
        });
        index
    }

    pub(crate) fn push(
        &mut self,
        job_index: u32,
        suite: &str,
        metric: Metric,
        phase: Option<Phase>,
        repetition: Option<u32>,
        outcome: Outcome,
    ) {
        let sequence = self.next_sequence(job_index);
        self.bundle.measurements.push(MeasurementRow {
            job_index,
            attempt: 1,
            sequence,
            suite: suite.to_owned(),
            metric: metric.name().to_owned(),
            unit: metric.unit().to_owned(),
            phase,
            workload: (metric != Metric::LoadNs && suite != "accuracy").then_some(WORKLOAD),
            repetition,
            outcome,
        });
    }

    /// Writes the bundle into `dir`.
    pub(crate) fn write(&self, dir: &Path) {
        self.bundle.write(dir).expect("a bundle");
    }

    fn next_sequence(&self, job: u32) -> u64 {
        let measurements = self
            .bundle
            .measurements
            .iter()
            .filter(|row| row.job_index == job)
            .map(|row| row.sequence);
        let items = self
            .bundle
            .items
            .iter()
            .rev()
            .take_while(|row| row.job_index == job)
            .map(|row| row.sequence);
        let tokens = self
            .bundle
            .tokens
            .iter()
            .rev()
            .take_while(|row| row.job_index == job)
            .map(|row| row.sequence);
        let cells = self
            .bundle
            .cells
            .iter()
            .rev()
            .take_while(|row| row.job_index == job)
            .map(|row| row.sequence);
        let all = measurements.chain(items).chain(tokens).chain(cells);
        all.max().unwrap_or(0) + 1
    }

    /// Returns a number in 0..1.
    fn uniform(&mut self) -> f64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as f64 / f64::from(1_u32 << 31)
    }

    /// Returns a number around 0 of standard deviation near 1.
    fn noise(&mut self) -> f64 {
        let sum: f64 = (0..12).map(|_| self.uniform()).sum();
        sum - 6.0
    }
}

fn run_id() -> RunId {
    "019560f4-7d80-7000-8000-000000000001"
        .parse()
        .expect("an id")
}

/// Returns a number without its fraction.
#[expect(clippy::cast_sign_loss, reason = "made-up values are positive")]
fn whole(value: f64) -> u64 {
    value as u64
}

fn counted(value: f64) -> Outcome {
    Outcome::Reading(Reading {
        value,
        grade: Grade::Counted,
        source: "clock:monotonic".to_owned(),
    })
}

fn computed(value: f64) -> Outcome {
    Outcome::Reading(Reading {
        value,
        grade: Grade::Computed,
        source: "model".to_owned(),
    })
}

pub(crate) fn facts(model: Sketch) -> ModelFacts {
    let linear = whole(model.params as f64 * model.bits / 8.0);
    let head = model.params / 8;
    ModelFacts {
        weights_hash: format!(
            "{:0<64}",
            model.id.replace(|c: char| !c.is_ascii_hexdigit(), "")
        ),
        architecture: if model.bits < 3.0 {
            "bitnet-b1.58"
        } else {
            "llama"
        }
        .to_owned(),
        weight_format: model.format.to_owned(),
        head_format: "f16".to_owned(),
        kernel: format!("x86_64-{}-avx2", model.format),
        lossy_kernel: false,
        numerics: Numerics::Exact,
        kv: KvType::F32,
        numerics_version: 1,
        n_params: model.params + head,
        n_linear_params: model.params,
        file_bytes: linear + 2 * head + 4096,
        weight_bytes: linear + 2 * head,
        linear_weight_bytes: linear,
        demand: None,
        bits_per_weight: model.bits,
        logits_fingerprint: "00112233445566778899aabbccddeeff".to_owned(),
        data_hash: None,
        n_items: None,
        warnings: if model.id.starts_with("synth") {
            vec!["random weights: answers mean nothing".to_owned()]
        } else {
            Vec::new()
        },
    }
}
