//! What plans say, and what is said about wrong ones.

use std::{collections::BTreeMap, num::NonZeroU32, path::PathBuf};

use tritmark_proto::{
    artefact::{FileSet, NamedFile},
    job::{
        AccuracySpec, Adapter, AgreementSpec, Head, Job, KvType, ModelSource, Numerics, ScoreOn,
    },
};

use super::{
    CheckContext, EXAMPLE, KnownAgent, Machine, Path, Plan, PlanError, RunId, SuiteSpec, expand,
    names, validate,
};

mod made_up;

fn parse(text: &str) -> Result<Plan, PlanError> {
    Plan::parse(text, "file-name", Path::new("/base"))
}

fn message(text: &str) -> String {
    parse(text).expect_err(text).to_string()
}

fn run() -> RunId {
    "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap()
}

fn line_of(job: &Job) -> String {
    let suite = match &job.suite {
        SuiteSpec::Accuracy(spec) => spec.task.clone(),
        suite => suite.name().to_owned(),
    };
    format!("{suite} {} {} t{}", job.model.id, job.kernel, job.threads)
}

const MODELS: &str = r#"
[[models]]
id = "tern"
path = "m/tern.gguf"
baseline = "full"
[[models]]
id = "other"
synth = { shape = "125m", format = "i2_s", seed = 7 }
[[models]]
id = "full"
path = "/abs/full"
"#;

#[test]
fn the_example_is_a_plan() {
    let plan = Plan::parse(EXAMPLE, "x", Path::new("/plans")).unwrap();
    assert_eq!(plan.name(), "example");
    let jobs = plan.jobs(run());
    // 3 models × 2 threads for memory and latency, 2 × 2 for energy, 2 × 4 tasks, 2 agreements.
    assert_eq!(jobs.len(), 6 + 6 + 4 + 8 + 2);
    assert_eq!(jobs[0].selector.memory_min_bytes, Some(1 << 30));
}

#[test]
fn the_plans_that_come_with_the_source_are_plans() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plans");
    let mut n_plans = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "toml") {
            let text = std::fs::read_to_string(&path).unwrap();
            let plan = Plan::parse(&text, "x", &folder)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(!plan.jobs(run()).is_empty());
            n_plans += 1;
        }
    }
    assert!(n_plans > 0, "{} holds no plan", folder.display());
}

#[test]
fn a_model_and_its_baseline_stand_next_to_each_other() {
    let plan = parse(&format!(
        "{MODELS}\n[defaults]\nthreads = [1, 2]\nkernels = [\"scalar\", \"auto\"]\n\
         [suites.latency]\n[suites.accuracy]\ntasks = [\"boolq\"]\ndata = \"d\"\n"
    ))
    .unwrap();
    let lines: Vec<String> = plan.jobs(run()).iter().map(line_of).collect();
    assert_eq!(
        lines,
        [
            "latency full reference t1",
            "latency tern reference t1",
            "latency full auto t1",
            "latency tern auto t1",
            "latency full reference t2",
            "latency tern reference t2",
            "latency full auto t2",
            "latency tern auto t2",
            "latency other reference t1",
            "latency other auto t1",
            "latency other reference t2",
            "latency other auto t2",
            "boolq full reference t2",
            "boolq tern reference t2",
            "boolq other reference t2",
        ]
    );
}

#[test]
fn a_models_numerics_go_before_the_defaults_and_are_exact_where_nothing_is_said() {
    let numerics = |defaults: &str, model: &str| {
        let text = format!(
            "{defaults}\n[[models]]\nid = \"m\"\npath = \"m.gguf\"\n{model}\n[suites.memory]\n"
        );
        parse(&text).unwrap().jobs(run())[0].numerics
    };
    let fast = "numerics = \"fast\"";
    let defaults = format!("[defaults]\n{fast}");
    assert_eq!(numerics("", ""), Numerics::Exact);
    assert_eq!(numerics("", fast), Numerics::Fast);
    assert_eq!(numerics(&defaults, ""), Numerics::Fast);
    assert_eq!(numerics(&defaults, "numerics = \"exact\""), Numerics::Exact);
}

#[test]
fn how_keys_values_and_head_are_computed_is_said_by_models_and_defaults() {
    let how = |defaults: &str, model: &str| {
        let text = format!(
            "[defaults]\n{defaults}\n[[models]]\nid = \"m\"\npath = \"m.gguf\"\n{model}\n[suites.memory]\n"
        );
        let job = parse(&text).unwrap().jobs(run()).remove(0);
        (job.kv, job.head)
    };
    assert_eq!(how("", ""), (KvType::F32, None));
    assert_eq!(how("kv = \"f16\"", ""), (KvType::F16, None));
    assert_eq!(
        how(
            "kv = \"f16\"\nhead = \"full\"",
            "kv = \"f32\"\nhead = \"screened\""
        ),
        (KvType::F32, Some(Head::Screened))
    );
    assert_eq!(how("head = \"full\"", ""), (KvType::F32, Some(Head::Full)));
}

#[test]
fn a_latency_job_measures_the_machine_unless_the_plan_says_otherwise() {
    let probe = |keys: &str| {
        let plan = parse(&format!("{MODELS}\n[suites.latency]\n{keys}\n")).unwrap();
        match &plan.jobs(run())[0].suite {
            SuiteSpec::Latency(spec) => spec.probe,
            suite => panic!("{suite:?}"),
        }
    };
    assert!(probe("") && probe("probe = true"));
    assert!(!probe("probe = false"));
}

#[test]
fn jobs_are_numbered_in_order_and_equal_for_equal_plans() {
    let plan = parse(&format!("{MODELS}\n[suites.memory]\n[suites.latency]\n")).unwrap();
    let jobs = plan.jobs(run());
    for (index, job) in jobs.iter().enumerate() {
        assert_eq!(job.id.index as usize, index);
    }
    assert_eq!(jobs, plan.jobs(run()));
}

#[test]
fn a_suite_may_be_for_some_models_and_have_its_own_threads() {
    let plan = parse(&format!(
        "{MODELS}\n[suites.accuracy]\ntasks = [\"boolq\", \"arc_easy\"]\ndata = \"d\"\n\
         models = [\"tern\"]\nthreads = [1, 4]\nkernels = [\"avx2\"]\n"
    ))
    .unwrap();
    let lines: Vec<String> = plan.jobs(run()).iter().map(line_of).collect();
    assert_eq!(
        lines,
        [
            "boolq tern x86_64-avx2 t1",
            "boolq tern x86_64-avx2 t4",
            "arc_easy tern x86_64-avx2 t1",
            "arc_easy tern x86_64-avx2 t4",
        ]
    );
}

#[test]
fn every_selector_gets_its_own_jobs() {
    let plan = parse(&format!(
        "{MODELS}\n[suites.memory]\n[[select]]\narch = \"x86_64\"\nisa = [\"avx2\"]\n\
         [[select]]\narch = \"aarch64\"\nlabels = {{ room = \"2\" }}\n"
    ))
    .unwrap();
    let jobs = plan.jobs(run());
    assert_eq!(jobs.len(), 6);
    assert_eq!(jobs[0].selector.arch.as_deref(), Some("x86_64"));
    assert_eq!(jobs[3].selector.arch.as_deref(), Some("aarch64"));
    assert_eq!(jobs[3].selector.labels["room"], "2");
}

#[test]
fn paths_start_from_the_plans_folder() {
    let plan = parse(&format!("{MODELS}\n[suites.memory]\n")).unwrap();
    let paths: Vec<_> = plan
        .jobs(run())
        .into_iter()
        .map(|job| job.model.source)
        .collect();
    assert_eq!(paths[0], ModelSource::Path("/abs/full".into()));
    assert_eq!(paths[1], ModelSource::Path("/base/m/tern.gguf".into()));
}

#[test]
fn an_adapter_is_a_folder_beside_whatever_model_and_can_be_files_as_the_model_can() {
    let text = "[[models]]\nid = \"base\"\npath = \"m.gguf\"\n\
                [[models]]\nid = \"tuned\"\npath = \"m.gguf\"\nlora = \"tuned\"\nbaseline = \"base\"\n\
                [[models]]\nid = \"synth\"\nsynth = { shape = \"125m\", format = \"i2_s\", seed = 7 }\n\
                lora = \"/abs/lora\"\n[suites.memory]\n";
    let adapters = |plan: &Plan| -> Vec<Option<Adapter>> {
        let jobs = plan.jobs(run()).into_iter();
        jobs.map(|job| job.model.adapter).collect()
    };
    let path = |path: &str| Some(Adapter::Path(path.into()));
    let plan = parse(text).unwrap();
    let expected = [None, path("/base/tuned"), path("/abs/lora")];
    assert_eq!(adapters(&plan), expected);
    let paths = ["/abs/lora", "/base/m.gguf", "/base/tuned"];
    assert_eq!(plan.paths(), paths.map(PathBuf::from));

    let file = NamedFile {
        name: "adapter_config.json".parse().unwrap(),
        hash: blake3::Hash::from_bytes([7; 32]).into(),
        size_bytes: 2,
    };
    let folder = FileSet::new("tuned".parse().unwrap(), false, vec![file]).unwrap();
    let registered = BTreeMap::from([("/base/tuned".into(), folder.clone())]);
    let sent = plan.with_files(&registered);
    let files = Some(Adapter::Files(folder.clone()));
    assert_eq!(adapters(&sent), [None, files, path("/abs/lora")]);
    let jobs = sent.jobs(run());
    assert_eq!(jobs[1].file_sets().collect::<Vec<_>>(), [&folder]);
    assert_eq!(
        sent.paths(),
        ["/abs/lora", "/base/m.gguf"].map(PathBuf::from)
    );
}

#[test]
fn the_files_name_stands_in_for_a_missing_one() {
    let text = format!("{MODELS}\n[suites.memory]\n");
    assert_eq!(parse(&text).unwrap().name(), "file-name");
    let error = Plan::parse(&text, "../up", Path::new("/")).unwrap_err();
    assert_eq!((error.line, error.key.as_str()), (1, "name"));
}

#[test]
fn lists_of_numbers_are_multiplied() {
    let plan = parse(
        "[[models]]\nid = \"a\"\npath = \"a\"\n\
         [suites.latency]\nn_prompt = [64, 128]\nn_gen = [0, 8]\nn_depth = [0, 512]\n",
    )
    .unwrap();
    let shapes: Vec<_> = plan
        .jobs(run())
        .iter()
        .map(|job| match &job.suite {
            SuiteSpec::Latency(spec) => (
                spec.workload.n_prompt,
                spec.workload.n_gen,
                spec.workload.n_depth,
            ),
            suite => panic!("{suite:?} is not latency"),
        })
        .collect();
    assert_eq!(shapes.len(), 8);
    assert_eq!(shapes[..3], [(64, 0, 0), (64, 0, 512), (64, 8, 0)]);
}

#[test]
fn agreement_is_one_job_a_model_and_selector_with_its_threads_and_batches_in_it() {
    let plan = parse(&format!(
        "{MODELS}\n[defaults]\nthreads = [1, 8]\nkernels = [\"scalar\", \"avx2\"]\nkv = \"f16\"\n\
         [suites.agreement]\nn_prompts = 6\nthreads = [2, 4, 1]\nn_batch = [1, 32]\n\
         [[select]]\nmachine_id = \"a\"\n[[select]]\nmachine_id = \"b\"\n"
    ))
    .unwrap();
    let jobs = plan.jobs(run());
    assert_eq!(jobs.len(), 6);
    assert_eq!(expand::count(&plan), 6);
    let machines = jobs.iter().map(|job| job.selector.machine_id.as_deref());
    let expected = ["a", "a", "a", "b", "b", "b"].map(Some);
    assert_eq!(machines.collect::<Vec<_>>(), expected);
    for job in &jobs {
        let SuiteSpec::Agreement(spec) = &job.suite else {
            panic!("{job:?}");
        };
        assert_eq!((&*job.kernel, job.threads.get()), ("auto", 4));
        assert_eq!(job.kv, KvType::F16);
        let numbers = |list: &[NonZeroU32]| list.iter().map(|n| n.get()).collect::<Vec<_>>();
        assert_eq!(numbers(&spec.threads), [2, 4, 1]);
        assert_eq!(numbers(&spec.n_batch), [1, 32]);
        let AgreementSpec {
            n_prompts,
            max_len,
            n_gen,
            seed,
            ..
        } = spec;
        assert_eq!(
            (n_prompts.get(), max_len.get(), *n_gen, *seed),
            (6, 64, 16, 1)
        );
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn every_mistake_is_named_with_its_key_and_line() {
    let ok = "[[models]]\nid = \"a\"\npath = \"a\"\n";
    let many: Vec<String> = (1..=65).map(|n| n.to_string()).collect();
    let cases: &[(&str, &str)] = &[
        ("name = ", "line 1"),
        (
            "name = 3\n",
            "line 1, key `name`: invalid type: integer `3`, expected a string",
        ),
        (
            &format!("{ok}[suites.memory]\n[suites.speed]\nx = 1\n"),
            "line 5, key `suites.speed`: unknown field `speed`, expected one of `memory`, `latency`, \
             `energy`, `accuracy`, `agreement`",
        ),
        (
            &format!("{ok}thread = [1]\n[suites.memory]\n"),
            "line 4, key `models[0].thread`: unknown field `thread`, expected one of `id`, `path`, \
             `synth`, `lora`, `baseline`, `threads`, `kernels`, `numerics`, \
             `kv`, `head`",
        ),
        (
            &format!("{ok}[suites.latency]\nn_prompt = [128, -1]\n"),
            "line 5, key `suites.latency.n_prompt[1]`: invalid value: integer `-1`, expected u32",
        ),
        (
            &format!("{ok}[suites.latency]\nn_prompt = 128\n"),
            "line 5, key `suites.latency.n_prompt`: invalid type: integer `128`, expected a sequence",
        ),
        (
            &format!("{ok}[suites.latency]\nrepetitions = 0\n"),
            "line 5, key `suites.latency.repetitions`: 0 is not within 1 to 100000",
        ),
        (
            &format!("{ok}[suites.latency]\nn_gen = []\n"),
            "line 5, key `suites.latency.n_gen`: the list is empty",
        ),
        (
            &format!("{ok}[suites.latency]\nn_gen = [8, 8]\n"),
            "line 5, key `suites.latency.n_gen[1]`: `8` is in the list twice",
        ),
        (
            &format!("{ok}[suites.latency]\nn_prompt = [0, 1]\nn_gen = [0]\n"),
            "line 6, key `suites.latency.n_gen`: a workload of neither prompt nor generated tokens \
             measures nothing",
        ),
        (
            &format!("{ok}[suites.energy]\nidle_seconds = -1.0\n"),
            "line 5, key `suites.energy.idle_seconds`: -1 is not within 0 to 86400 seconds",
        ),
        (
            &format!("{ok}[suites.energy]\nidle_seconds = nan\n"),
            "line 5, key `suites.energy.idle_seconds`: NaN is not within 0 to 86400 seconds",
        ),
        (
            &format!("{ok}{ok}[suites.memory]\n"),
            "line 5, key `models[1].id`: the id `a` is taken by line 2",
        ),
        (
            &format!("{ok}baseline = \"b\"\n[suites.memory]\n"),
            "line 4, key `models[0].baseline`: no model has the id `b`",
        ),
        (
            &format!("{ok}baseline = \"a\"\n[suites.memory]\n"),
            "line 4, key `models[0].baseline`: a model is not its own baseline",
        ),
        (
            "[[models]]\nid = \"a\"\npath = \"a\"\nbaseline = \"b\"\n[[models]]\nid = \"b\"\n\
             path = \"b\"\nbaseline = \"a\"\n[suites.memory]\n",
            "line 4, key `models[0].baseline`: the baseline `b` has a baseline itself",
        ),
        (
            "[[models]]\nid = \"a\"\n[suites.memory]\n",
            "line 2, key `models[0].id`: the model `a` has neither `path` nor `synth`",
        ),
        (
            &format!(
                "{ok}synth = {{ shape = \"1b\", format = \"f16\", seed = 1 }}\n[suites.memory]\n"
            ),
            "line 4, key `models[0].synth`: a model has either `path` or `synth`, not both",
        ),
        (
            "[[models]]\nid = \"a\"\nsynth = { shape = \"1c\", format = \"f16\", seed = 1 }\n\
             [suites.memory]\n",
            "line 3, key `models[0].synth.shape`: unknown shape `1c`, there are 125m, 350m, 700m, \
             1b, 1.5b, 2b4t, 2.5b, 3.8b, 7b, 13b, 30b, 70b, 100b",
        ),
        (
            "[[models]]\nid = \"a\"\nsynth = { shape = \"1b\", format = \"q9\", seed = 1 }\n\
             [suites.memory]\n",
            "line 3, key `models[0].synth.format`: unknown format `q9`, there are i2_s, \
             i2_s+q6_k, tq2_0, tq1_0, f32, f16, bf16, q8_0, q4_0, q5_0, q4_k, q5_k, q6_k",
        ),
        (
            "[[models]]\nid = \"a\"\nsynth = { shape = \"1b\", format = \"f16\" }\n[suites.memory]\n",
            "line 3, key `models[0].synth.seed`: missing field `seed`",
        ),
        (
            "[[models]]\npath = \"a\"\n[suites.memory]\n",
            "line 1, key `models[0].id`: missing field `id`",
        ),
        (
            "[[models]]\nid = \"a b\"\npath = \"a\"\n[suites.memory]\n",
            "line 2, key `models[0].id`: `a b` is no name: a name has 1 to 100 letters, digits, \
             `.`, `_` or `-` and does not begin with `.` or `-`",
        ),
        (
            "[suites.memory]\n",
            "line 1, key `models`: missing field `models`",
        ),
        (
            "models = []\n[suites.memory]\n",
            "line 1, key `models`: the list is empty",
        ),
        (ok, "line 1, key `suites`: missing field `suites`"),
        (
            &format!("{ok}[suites]\n"),
            "line 4, key `suites`: the plan has no suite, there are memory, latency, energy, \
             accuracy and agreement",
        ),
        (
            &format!("{ok}kernels = [\"avx\"]\n[suites.memory]\n"),
            "line 4, key `models[0].kernels[0]`: unknown kernel `avx`, there are auto, reference, \
             x86_64-avx2, x86_64-avxvnni, x86_64-avx512vnni, aarch64-neon, aarch64-dotprod, \
             aarch64-i8mm, x86_64-avx2-tl1, x86_64-avx2-tl1-int8, x86_64-avx2-tl2, \
             x86_64-avx2-tl2-int8, x86_64-avx2-tmac, x86_64-avx2-tmac-int8, reference-tl1, \
             reference-tl1-int8, reference-tl2, reference-tl2-int8, reference-tmac, \
             reference-tmac-int8",
        ),
        (
            &format!("{ok}kernels = [\"avx2\", \"x86_64-avx2\"]\n[suites.memory]\n"),
            "line 4, key `models[0].kernels[1]`: `x86_64-avx2` is in the list twice",
        ),
        (
            &format!("{ok}numerics = \"quick\"\n[suites.memory]\n"),
            "line 4, key `models[0].numerics`: unknown numerics `quick`, there are exact, fast",
        ),
        (
            &format!("{ok}kv = \"q8_0\"\n[suites.memory]\n"),
            "line 4, key `models[0].kv`: unknown kv `q8_0`, there are f32, f16",
        ),
        (
            &format!("{ok}head = \"half\"\n[suites.memory]\n"),
            "line 4, key `models[0].head`: unknown head `half`, there are full, screened",
        ),
        (
            &format!("{ok}lora = \"\"\n[suites.memory]\n"),
            "line 4, key `models[0].lora`: the path is empty",
        ),
        (
            &format!("{ok}threads = [0]\n[suites.memory]\n"),
            "line 4, key `models[0].threads[0]`: 0 is not within 1 to 4096",
        ),
        (
            &format!("{ok}[suites.accuracy]\ntasks = [\"boolq\",\n\"mmlu2\"]\ndata = \"d\"\n"),
            "line 6, key `suites.accuracy.tasks[1]`: unknown task `mmlu2`, there are arc_challenge, \
             arc_easy, boolq, commonsense_qa, gsm8k, gsm8k_cot, hellaswag, humaneval, \
             humaneval_plus, math500, mbpp_plus, mmlu, openbookqa, piqa, truthfulqa_mc2, wikitext2, \
             winogrande",
        ),
        (
            &format!("{ok}[suites.accuracy]\ntasks = [\"boolq\"]\n"),
            "line 4, key `suites.accuracy.data`: missing field `data`",
        ),
        (
            &format!("{ok}[suites.agreement]\nkernels = [\"auto\"]\n"),
            "line 5, key `suites.agreement.kernels`: unknown field `kernels`, expected one of \
             `n_prompts`, `max_len`, `n_gen`, `seed`, `threads`, `n_batch`, `models`",
        ),
        (
            &format!("{ok}[suites.agreement]\nn_prompts = 10001\n"),
            "line 5, key `suites.agreement.n_prompts`: 10001 is not within 1 to 10000",
        ),
        (
            &format!("{ok}[suites.agreement]\nmax_len = 0\n"),
            "line 5, key `suites.agreement.max_len`: 0 is not within 1 to 4096",
        ),
        (
            &format!("{ok}[suites.agreement]\nn_gen = 5000\n"),
            "line 5, key `suites.agreement.n_gen`: 5000 is not within 0 to 4096",
        ),
        (
            &format!("{ok}[suites.agreement]\nthreads = [1, 0]\n"),
            "line 5, key `suites.agreement.threads[1]`: 0 is not within 1 to 4096",
        ),
        (
            &format!("{ok}[suites.agreement]\nn_batch = [7, 7]\n"),
            "line 5, key `suites.agreement.n_batch[1]`: `7` is in the list twice",
        ),
        (
            &format!("{ok}[suites.agreement]\nn_batch = [{}]\n", many.join(", ")),
            "line 5, key `suites.agreement.n_batch`: 65 numbers, at most 64 are taken",
        ),
        (
            &format!("{ok}[suites.agreement]\nmodels = [\"z\"]\n"),
            "line 5, key `suites.agreement.models[0]`: no model has the id `z`",
        ),
        (
            &format!("{ok}[suites.memory]\nmodels = [\"z\"]\n"),
            "line 5, key `suites.memory.models[0]`: no model has the id `z`",
        ),
        (
            &format!("{ok}[suites.memory]\n[select]\narch = \"x86\"\n"),
            "line 6, key `select.arch`: unknown architecture `x86`, there are x86_64, aarch64",
        ),
        (
            &format!("{ok}[suites.memory]\n[select]\nisa = [\"avx2\"]\narch = \"aarch64\"\n"),
            "line 6, key `select.isa[0]`: no aarch64 machine has `avx2`, it is a feature of x86_64",
        ),
        (
            &format!("{ok}[suites.memory]\n[select]\nisa = [\"avx2\", \"neon\"]\n"),
            "line 6, key `select.isa[1]`: no x86_64 machine has `neon`, it is a feature of aarch64",
        ),
        (
            &format!("{ok}[suites.memory]\n[[select]]\nisa = [\"avx3\"]\n"),
            "line 6, key `select[0].isa[0]`: unknown CPU feature `avx3`",
        ),
        (
            &format!("{ok}kernels = [\"avx2\"]\n[suites.memory]\n[select]\narch = \"aarch64\"\n"),
            "line 7, key `select.arch`: no aarch64 machine runs the kernel `x86_64-avx2` that the \
             plan asks for",
        ),
        (
            &format!("{ok}[suites.memory]\n[select]\nmemory_min = \"8 Gib\"\n"),
            "line 6, key `select.memory_min`: `8 Gib` is no amount of memory, write e.g. \"8 GiB\"",
        ),
        (
            &format!("{ok}[suites.memory]\n[[select]]\n[[select]]\n"),
            "line 6, key `select[1]`: the plan has this selector twice, so every job would run twice",
        ),
        (
            &format!("{ok}[suites.memory]\n[select]\nroom = 3\n"),
            "line 6, key `select.room`: unknown field `room`, expected one of `arch`, `isa`, \
             `memory_min`, `machine_id`, `labels`",
        ),
    ];
    for (text, expected) in cases {
        let found = message(text);
        if *expected == "line 1" {
            assert!(found.starts_with("line 1"), "{text}\n{found}");
        } else {
            assert_eq!(found, *expected, "{text}");
        }
    }
}

/// Tables in tables, each with a key of many parts.
fn nested(depth: usize) -> String {
    let dotted = vec!["a"; 75].join(".");
    format!(
        "{}1{}",
        format!("{{{dotted}=").repeat(depth),
        "}".repeat(depth)
    )
}

#[test]
fn a_plan_nested_deeper_than_a_stack_is_refused() {
    let text = format!(
        "name = \"[[[[[[[[[\" # {{{{{{{{{{{{{{{{{{\na = {}\n",
        nested(80)
    );
    assert_eq!(
        message(&text),
        "line 2: more than 8 brackets lie in one another"
    );
}

#[test]
fn a_plan_of_long_keys_is_refused_in_little_room() {
    let value = nested(8);
    let n = super::MAX_PLAN_BYTES / (value.len() + 16);
    let lines: Vec<String> = (0..n).map(|i| format!("k{i} = {value}\n")).collect();
    let text = lines.concat();
    let error = parse(&text).unwrap_err();
    assert_eq!((error.line, error.key.as_str()), (1, "k0"));
}

#[test]
fn a_plan_of_too_many_jobs_is_refused_without_making_them() {
    let list = |n: u32| {
        let numbers: Vec<String> = (1..=n).map(|n| n.to_string()).collect();
        format!("[{}]", numbers.join(", "))
    };
    let lists = list(9000);
    let text = format!(
        "[[models]]\nid = \"a\"\npath = \"a\"\n[suites.latency]\nn_prompt = {lists}\n\
         n_gen = {lists}\nn_depth = {lists}\nn_batch = {lists}\n"
    );
    assert_eq!(
        message(&text),
        "line 4, key `suites.latency`: the lists multiply to 6561000000000000 workloads, at most \
         10000 are taken"
    );
    let text = format!(
        "[[models]]\nid = \"a\"\npath = \"a\"\nthreads = {}\n[suites.latency]\nn_prompt = {}\n",
        list(500),
        list(500)
    );
    assert_eq!(
        message(&text),
        "line 1, key `suites`: the plan expands to 250000 jobs, at most 10000 are taken"
    );
}

fn machine(arch: &str) -> Machine {
    Machine {
        id: "m".into(),
        hostname: "h".into(),
        arch: arch.into(),
        cpu_model: String::new(),
        isa: vec!["avx2".into()],
        sockets: 1,
        physical_cores: 1,
        logical_cores: 1,
        caches: Vec::new(),
        memory_bytes: 1 << 30,
        os: String::new(),
        kernel: String::new(),
        governor: None,
        hypervisor: None,
        transparent_huge_pages: None,
        firmware: None,
        microcode: None,
    }
}

#[test]
fn a_missing_model_or_data_file_is_named_before_anything_runs() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[[models]]\nid = \"a\"\npath = \"a.gguf\"\nlora = \"l\"\n[suites.accuracy]\n\
                data = \"d\"\ntasks = [\"arc_easy\", \"boolq\"]\n";
    let plan = Plan::parse(text, "p", dir.path()).unwrap();
    let local = CheckContext {
        local_files: true,
        agents: &[],
        unscored: None,
    };
    assert_eq!(plan.check(&CheckContext::default()), Ok(()));
    let error = plan.check(&local).unwrap_err();
    assert_eq!((error.line, error.key.as_str()), (3, "models[0].path"));
    assert!(error.problem.contains("a.gguf: No such file"), "{error}");

    std::fs::write(dir.path().join("a.gguf"), "x").unwrap();
    let error = plan.check(&local).unwrap_err();
    assert_eq!((error.line, error.key.as_str()), (4, "models[0].lora"));
    assert!(
        error
            .problem
            .contains("l/adapter_config.json: No such file"),
        "{error}"
    );

    std::fs::create_dir(dir.path().join("l")).unwrap();
    std::fs::write(dir.path().join("l/adapter_config.json"), "{}").unwrap();
    std::fs::create_dir_all(dir.path().join("d/arc_easy")).unwrap();
    std::fs::write(dir.path().join("d/arc_easy/test.jsonl.gz"), "x").unwrap();
    let error = plan.check(&local).unwrap_err();
    assert_eq!(
        (error.line, error.key.as_str()),
        (7, "suites.accuracy.tasks[1]")
    );
    assert!(
        error.problem.contains("boolq/validation.jsonl nor"),
        "{error}"
    );

    std::fs::create_dir_all(dir.path().join("d/boolq")).unwrap();
    std::fs::write(dir.path().join("d/boolq/validation.jsonl"), "x").unwrap();
    assert_eq!(plan.check(&local), Ok(()));
}

#[test]
fn programs_are_scored_where_the_plan_says() {
    let plan = |tasks: &str, keys: &str| {
        parse(&format!(
            "[[models]]\nid = \"a\"\npath = \"a\"\n[suites.accuracy]\ndata = \"d\"\n\
             tasks = [{tasks}]\n{keys}\n"
        ))
    };
    let places = |tasks: &str, keys: &str| -> Vec<(ScoreOn, bool)> {
        let jobs = plan(tasks, keys).unwrap().jobs(run());
        let specs = jobs.iter().map(accuracy_of);
        specs.map(|spec| (spec.score_on, spec.cache)).collect()
    };
    let (agent, coordinator) = (ScoreOn::Agent, ScoreOn::Coordinator);
    let tasks = "\"humaneval\", \"gsm8k\", \"mbpp_plus\"";
    assert_eq!(places(tasks, ""), [(agent, false); 3]);
    assert_eq!(places(tasks, "score_on = \"agent\""), [(agent, false); 3]);
    // Other answers than programs are scored with them, wherever that is.
    assert_eq!(
        places(tasks, "score_on = \"coordinator\"\ncache = true"),
        [(coordinator, true), (agent, true), (coordinator, true)]
    );
    let error = plan("\"gsm8k\"", "score_on = \"coordinator\"").unwrap_err();
    assert_eq!(error.key, "suites.accuracy.score_on");
    assert!(
        error.problem.contains("has programs for answers"),
        "{error}"
    );
    let error = plan(tasks, "score_on = \"moon\"").unwrap_err();
    assert!(error.problem.contains("moon"), "{error}");
}

#[test]
fn a_coordinator_without_sandbox_or_data_scores_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[[models]]\nid = \"a\"\npath = \"a\"\n[suites.accuracy]\ndata = \"d\"\n\
                tasks = [\"humaneval\"]\nscore_on = \"coordinator\"\n";
    let plan = Plan::parse(text, "p", dir.path()).unwrap();
    assert!(plan.is_scored_by_coordinator());
    // The data is needed here, whosever files the models are.
    let error = plan.check(&CheckContext::default()).unwrap_err();
    assert_eq!(error.key, "suites.accuracy.tasks[0]");
    std::fs::create_dir_all(dir.path().join("d/humaneval")).unwrap();
    std::fs::write(dir.path().join("d/humaneval/test.jsonl"), "x").unwrap();
    assert_eq!(plan.check(&CheckContext::default()), Ok(()));
    let unscored = CheckContext {
        unscored: Some("no landlock"),
        ..CheckContext::default()
    };
    assert_eq!(
        plan.check(&unscored).unwrap_err().to_string(),
        "line 7, key `suites.accuracy.score_on`: the coordinator cannot score programs: no landlock"
    );
}

#[test]
fn a_selector_that_no_known_agent_meets_is_refused() {
    let text =
        "[[models]]\nid = \"a\"\npath = \"a\"\n[suites.memory]\n[select]\narch = \"x86_64\"\n";
    let plan = parse(text).unwrap();
    let agent = |arch| KnownAgent {
        machine: machine(arch),
        labels: BTreeMap::new(),
    };
    let check = |agents: &[KnownAgent]| {
        plan.check(&CheckContext {
            local_files: false,
            agents,
            unscored: None,
        })
    };
    assert_eq!(check(&[agent("aarch64"), agent("x86_64")]), Ok(()));
    assert_eq!(
        check(&[agent("aarch64")]).unwrap_err().to_string(),
        "line 5, key `select`: none of the 1 known agents is what the selector asks for"
    );
}

#[test]
fn amounts_of_memory_are_read_with_their_unit() {
    let cases = [
        ("8 GiB", Some(8 << 30)),
        ("1.5 GB", Some(1_500_000_000)),
        ("512MiB", Some(512 << 20)),
        ("1 B", Some(1)),
        ("8", None),
        ("GiB", None),
        ("-1 GiB", None),
        ("1e9 B", None),
        ("1..5 GB", None),
        ("inf TiB", None),
        ("99999999999999999999 TiB", None),
        ("8 GiB!", None),
    ];
    for (text, expected) in cases {
        assert_eq!(validate::selectors::bytes(text), expected, "{text}");
    }
}

fn accuracy_of(job: &Job) -> &AccuracySpec {
    match &job.suite {
        SuiteSpec::Accuracy(spec) => spec,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_preset_says_how_each_task_is_asked_and_the_plan_may_say_otherwise() {
    let model = "[[models]]\nid = \"a\"\npath = \"a.gguf\"\n";
    let jobs = |keys: &str| {
        let text = format!(
            "{model}[suites.accuracy]\ndata = \"d\"\ntasks = [\"arc_easy\", \"gsm8k\", \"mmlu\"]\n{keys}"
        );
        Plan::parse(&text, "p", Path::new("/")).unwrap().jobs(run())
    };
    let asked = |keys: &str| -> Vec<(u32, bool, bool)> {
        let jobs = jobs(keys);
        let specs = jobs.iter().map(accuracy_of);
        specs
            .map(|spec| (spec.num_fewshot, spec.add_bos, spec.chat.is_some()))
            .collect()
    };
    assert_eq!(
        asked(""),
        [(0, true, false), (5, true, false), (0, true, false)]
    );
    assert_eq!(
        asked("preset = \"bitnet-2b4t\"\n"),
        [(0, true, false), (4, true, true), (5, true, false)]
    );
    assert_eq!(
        asked("preset = \"bitnet-2b4t\"\nnum_fewshot = 2\nadd_bos = false\nchat = false\n"),
        [(2, false, false); 3]
    );
    let sharded = jobs("shards = 3\nmax_new = 7\n");
    assert_eq!(sharded.len(), 9);
    let shards = sharded.iter().map(|job| accuracy_of(job).shard);
    let indices: Vec<u32> = shards.map(|shard| shard.unwrap().index).collect();
    assert_eq!(indices, [0, 1, 2, 0, 1, 2, 0, 1, 2]);
    for job in &sharded {
        let spec = accuracy_of(job);
        assert_eq!(spec.max_new.is_some(), spec.task == "gsm8k");
    }
}

#[test]
fn a_task_of_the_plan_s_own_travels_with_its_jobs() {
    let dir = tempfile::tempdir().unwrap();
    let own = "name = \"capitals\"\nkind = \"generate_until\"\n[fewshot]\ncount = 3\n";
    std::fs::write(dir.path().join("own.toml"), own).unwrap();
    std::fs::write(dir.path().join("taken.toml"), "name = \"mmlu\"\n").unwrap();
    let parse = |keys: &str| {
        let text = format!(
            "[[models]]\nid = \"a\"\npath = \"a.gguf\"\n[suites.accuracy]\ndata = \"d\"\n{keys}"
        );
        Plan::parse(&text, "p", dir.path())
    };
    let plan = parse("task_files = [\"own.toml\"]\npreset = \"bitnet-2b4t\"\n").unwrap();
    let jobs = plan.jobs(run());
    let spec = accuracy_of(&jobs[0]);
    assert_eq!((spec.task.as_str(), spec.num_fewshot), ("capitals", 3));
    assert_eq!(spec.definition.as_deref(), Some(own));
    assert!(spec.chat.is_some());

    let refused = |keys: &str, expected: &str| {
        let error = parse(keys).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    refused("", "the suite has no task");
    refused("task_files = [\"none.toml\"]\n", "none.toml: No such file");
    refused(
        "task_files = [\"taken.toml\"]\n",
        "is the name of a built-in task",
    );
    refused(
        "task_files = [\"own.toml\", \"own.toml\"]\n",
        "is in the plan twice",
    );
    refused(
        "tasks = [\"mmlu\"]\npreset = \"paper\"\n",
        "unknown preset `paper`",
    );
}

#[test]
fn a_plan_says_what_goes_first_and_until_when_it_is_wanted() {
    let rest = format!("{MODELS}\n[suites.latency]\n");
    let plan = parse(&rest).unwrap();
    assert_eq!((plan.priority(), plan.expires()), (0, None));
    let plan = parse(&format!("priority = -7\nexpires = \"36h\"\n{rest}")).unwrap();
    assert_eq!(plan.priority(), -7);
    assert_eq!(plan.expires(), Some(super::Expiry::After(36 * 3600)));
    let refusal = |keys: &str| parse(&format!("{keys}\n{rest}")).unwrap_err().to_string();
    assert_eq!(
        refusal("priority = 1001"),
        "line 1, key `priority`: the priority 1001 is not between -1000 and 1000"
    );
    let why = refusal("\nexpires = \"soon\"");
    assert!(
        why.starts_with("line 2, key `expires`: `soon` is neither"),
        "{why}"
    );
}
