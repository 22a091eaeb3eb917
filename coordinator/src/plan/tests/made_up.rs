//! Plans that are made up: they come back from their text, and what is no plan is refused.

use proptest::{collection::vec, option, prelude::*, sample::select, sample::subsequence};

use super::*;
use crate::plan::document::{
    Accuracy, Agreement, Defaults, Document, Energy, Latency, List, Memory, Model, Selector,
    Selectors, Suites, Synth,
};

fn list<T: Clone + std::fmt::Debug + 'static>(values: Vec<T>) -> impl Strategy<Value = List<T>> {
    let n = values.len();
    subsequence(values, 1..=n)
        .prop_shuffle()
        .prop_map(|values| spanned(values.into_iter().map(spanned).collect()))
}
fn spanned<T>(value: T) -> toml::Spanned<T> {
    toml::Spanned::new(0..0, value)
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn a_model(index: usize) -> impl Strategy<Value = Model> {
    let source = prop_oneof![
        "[a-z/.\" \\\\é]{1,20}".prop_map(|path| (Some(spanned(path)), None)),
        (
            select(&names::SHAPES[..]),
            select(&names::FORMATS[..]),
            0..=i64::MAX as u64
        )
            .prop_map(|(shape, format, seed)| {
                let synth = Synth {
                    shape: spanned(shape.to_owned()),
                    format: spanned(format.to_owned()),
                    seed,
                };
                (None, Some(spanned(synth)))
            }),
    ];
    (
        source,
        option::of(list(vec![1_u32, 2, 4, 64])),
        option::of(list(strings(&["auto", "reference", "x86_64-avx2"]))),
        option::of(select(vec!["exact".to_owned(), "fast".to_owned()])),
        option::of(select(vec!["f32".to_owned(), "f16".to_owned()])),
        option::of(select(vec!["full".to_owned(), "screened".to_owned()])),
        option::of("[a-z/.]{1,20}"),
        any::<bool>(),
    )
        .prop_map(
            move |((path, synth), threads, kernels, numerics, kv, head, lora, has_baseline)| {
                Model {
                    id: spanned(format!("m{index}")),
                    path,
                    synth,
                    lora: lora.map(spanned),
                    baseline: (index > 0 && has_baseline).then(|| spanned("m0".to_owned())),
                    threads,
                    kernels,
                    numerics: numerics.map(spanned),
                    kv: kv.map(spanned),
                    head: head.map(spanned),
                }
            },
        )
}

fn an_energy() -> impl Strategy<Value = Energy> {
    (option::of(0.0..100.0), option::of(list(vec![1_u32, 3]))).prop_map(|(idle, threads)| Energy {
        idle_seconds: idle.map(spanned),
        threads,
        ..Energy::default()
    })
}

fn an_agreement() -> impl Strategy<Value = Agreement> {
    (
        option::of(1_u32..=10_000),
        option::of(list(vec![1_u32, 2, 8])),
        option::of(0..=i64::MAX as u64),
    )
        .prop_map(|(n_prompts, threads, seed)| Agreement {
            n_prompts: n_prompts.map(spanned),
            seed,
            threads,
            ..Agreement::default()
        })
}

fn a_document() -> impl Strategy<Value = Document> {
    let models = (1_usize..4).prop_flat_map(|n| (0..n).map(a_model).collect::<Vec<_>>());
    let latency = (
        option::of(list(vec![1_u32, 128, 512])),
        option::of(list(vec![0_u32, 64])),
        option::of(0_u32..9),
        option::of(1_u32..9),
        option::of(any::<bool>()),
    )
        .prop_map(|(n_prompt, n_gen, warm_ups, repetitions, probe)| Latency {
            n_prompt,
            n_gen,
            warm_ups: warm_ups.map(spanned),
            repetitions: repetitions.map(spanned),
            probe,
            ..Latency::default()
        });
    let energy = an_energy();
    let accuracy = (
        list(strings(&["arc_easy", "boolq", "winogrande"])),
        "[a-z/ ]{1,9}",
        option::of(1_u32..),
        any::<bool>(),
    )
        .prop_map(|(tasks, data, limit, add_bos)| Accuracy {
            tasks: Some(tasks),
            data: spanned(data),
            limit: limit.map(spanned),
            add_bos: Some(add_bos),
            models: Some(spanned(vec![spanned("m0".to_owned())])),
            task_files: None,
            preset: None,
            num_fewshot: None,
            chat: None,
            system: None,
            fewshot_as_multiturn: None,
            max_new: None,
            batch: None,
            shards: None,
            evalplus_compat: None,
            score_on: None,
            cache: None,
            threads: None,
            kernels: None,
        });
    let agreement = an_agreement();
    let suites = (
        option::of(latency),
        option::of(energy),
        option::of(accuracy),
        option::of(agreement),
    )
        .prop_map(|(latency, energy, accuracy, agreement)| Suites {
            memory: Some(spanned(Memory::default())),
            latency: latency.map(spanned),
            energy: energy.map(spanned),
            accuracy: accuracy.map(spanned),
            agreement: agreement.map(spanned),
        });
    let selector = (
        option::of(list(strings(&["avx2", "fma"]))),
        option::of("[1-9] GiB"),
        option::of(prop::collection::btree_map(
            "[a-z \"]{1,5}",
            "[a-zé\n]{0,5}",
            0..3,
        )),
    )
        .prop_map(|(isa, memory_min, labels)| Selector {
            isa,
            memory_min: memory_min.map(spanned),
            labels,
            ..Selector::default()
        });
    let selectors = option::of(vec(selector, 1..3).prop_map(|mut selectors| {
        selectors.dedup();
        for (index, selector) in selectors.iter_mut().enumerate() {
            selector.machine_id = Some(spanned(format!("machine-{index}")));
        }
        spanned(Selectors(selectors.into_iter().map(spanned).collect()))
    }));
    (
        option::of("[a-z][a-z0-9._-]{0,20}"),
        option::of(-1000_i64..=1000),
        option::of("[1-9][0-9]{0,2}[smhd]"),
        models,
        suites,
        selectors,
    )
        .prop_map(
            |(name, priority, expires, models, suites, select)| Document {
                name: name.map(spanned),
                priority: priority.map(spanned),
                expires: expires.map(spanned),
                defaults: Defaults::default(),
                models: spanned(models.into_iter().map(spanned).collect()),
                suites: spanned(suites),
                select,
            },
        )
}

proptest! {
    #[test]
    fn a_valid_plan_comes_back_from_its_text(document in a_document()) {
        let text = toml::to_string(&document).unwrap();
        let read: Document = toml::from_str(&text).unwrap();
        prop_assert_eq!(&read, &document);
        let plan = parse(&text).map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
        prop_assert_eq!(plan.jobs(run()).len() as u64, expand::count(&plan));
        let again = toml::to_string_pretty(&read).unwrap();
        prop_assert_eq!(parse(&again).unwrap().jobs(run()), plan.jobs(run()));
    }

    #[test]
    fn any_text_gives_a_plan_or_an_error(text in any::<String>()) {
        let _ = parse(&text);
    }

    #[test]
    fn a_damaged_plan_gives_a_plan_or_an_error_on_one_of_its_lines(
        at in 0..EXAMPLE.len(),
        cut in 0..40_usize,
        put in "[\\[\\]={}\",.a-z0-9\n#-]{0,6}",
    ) {
        let start = EXAMPLE.floor_char_boundary(at);
        let end = EXAMPLE.ceil_char_boundary((at + cut).min(EXAMPLE.len()));
        let text = format!("{}{put}{}", &EXAMPLE[..start], &EXAMPLE[end..]);
        if let Err(error) = parse(&text) {
            prop_assert!((1..=text.lines().count() + 1).contains(&error.line));
        }
    }
}
