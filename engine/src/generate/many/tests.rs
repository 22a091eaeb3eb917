//! Many prompts together and each alone.

use super::*;
use crate::{
    config::ModelConfig,
    engine::EngineOptions,
    generate::{
        generate,
        tests::{greedy, tokenizer},
    },
    kernels,
    kernels::KernelChoice,
    kv_cache::KvType,
    sampler::Sampling,
    testing::{TestRng, tiny_config, tiny_model},
};

fn engine(kernel: &'static str, threads: usize, kv: KvType) -> Engine {
    let (_, weights) = tiny_model(3);
    let config = ModelConfig {
        context_length: 128,
        ..tiny_config()
    };
    let options = EngineOptions {
        kernel: KernelChoice::Named(kernel),
        threads: threads.try_into().unwrap(),
        kv,
        ..EngineOptions::default()
    };
    Engine::new(config, weights, &options).unwrap()
}

fn alone(
    engine: &mut Engine,
    tokenizer: &Tokenizer,
    prompt: &Prompt<'_>,
) -> Result<Generation, String> {
    let mut cache = engine.new_cache(128);
    let Prompt { tokens, params } = prompt;
    generate(engine, &mut cache, tokenizer, tokens, params, |_| {
        ControlFlow::Continue(())
    })
    .map_err(|error| error.to_string())
}

/// Prompts of all lengths, of which some share a beginning, and some cannot be evaluated; and what
/// to generate, in every way of choosing and of ending.
fn jobs(tokenizer: &Tokenizer, engine: &mut Engine) -> Vec<(Vec<u32>, Params)> {
    let mut rng = TestRng::new(31);
    let shots = rng.tokens(60, 101);
    (0..40)
        .map(|i| {
            let own = 1 + rng.below(12);
            let own = rng.tokens(own, 101);
            let tokens = match i % 10 {
                0..5 => [&shots[..], &own].concat(),
                // A prompt that another one begins with.
                5 => shots[..50].to_vec(),
                6 if i > 30 => Vec::new(),
                7 if i > 20 => vec![1; 129],
                8 if i > 20 => vec![5, 101],
                9 => [&shots[..], &shots[..], &own[..1]].concat(),
                _ => own,
            };
            let max_new = if i == 39 {
                40
            } else {
                [20, 3, 40, 0, 9, 17][i % 6]
            };
            let mut params = greedy(max_new);
            let random = Sampling::Random {
                temperature: 1.5,
                top_k: if i % 2 == 0 { 40 } else { 0 },
                top_p: 0.9,
                seed: i as u64,
            };
            if i % 3 == 1 {
                params.sampling = random;
            }
            let prompt = Prompt {
                tokens: &tokens,
                params: &params,
            };
            // Each third is stopped by what it would have written.
            if i % 3 == 2
                && let Ok(free) = alone(engine, tokenizer, &prompt)
                && free.text.chars().count() > 4
            {
                params.stop = vec![
                    "never".to_owned(),
                    free.text.chars().skip(2).take(3).collect(),
                ];
            }
            (tokens, params)
        })
        .collect()
}

fn together(
    engine: &mut Engine,
    tokenizer: &Tokenizer,
    prompts: &[Prompt<'_>],
    batch: usize,
) -> Vec<Result<Generation, String>> {
    let mut results = vec![None; prompts.len()];
    let batch = NonZeroUsize::new(batch).unwrap();
    generate_many(engine, tokenizer, prompts, batch, |index, result| {
        let result = result.map_err(|error| error.to_string());
        assert!(
            results[index].replace(result).is_none(),
            "prompt {index} ended twice"
        );
        ControlFlow::Continue(())
    })
    .unwrap();
    results
        .into_iter()
        .map(|result| result.expect("every prompt ends"))
        .collect()
}

#[test]
fn generations_are_the_same_together_and_alone() {
    // A token that these models choose now and then.
    let eos = 5;
    let tokenizer = tokenizer(Some(eos));
    let first = kernels::tested()[0].name();
    let mut reference = engine(first, 1, KvType::F32);
    let jobs = jobs(&tokenizer, &mut reference);
    let prompts: Vec<_> = jobs
        .iter()
        .map(|(tokens, params)| Prompt { tokens, params })
        .collect();
    for kv in [KvType::F32, KvType::F16] {
        let mut reference = engine(first, 1, kv);
        let expected: Vec<_> = prompts
            .iter()
            .map(|prompt| alone(&mut reference, &tokenizer, prompt))
            .collect();
        let ends = |is: fn(&End) -> bool| {
            let mut results = expected.iter().flatten();
            results.any(|generation| is(&generation.end))
        };
        assert!(ends(|end| *end == End::MaxNew));
        assert!(ends(|end| *end == End::ContextFull));
        assert!(ends(|end| *end == End::EndToken(5)));
        assert!(ends(|end| matches!(end, End::Stop(_))));
        assert!(expected.iter().filter(|result| result.is_err()).count() >= 4);
        for kernel in kernels::tested() {
            for (threads, batch) in [(1, 1), (1, 3), (2, 16), (1, 64)] {
                if kernel.name() == "reference" && batch != 16 {
                    continue;
                }
                let mut engine = engine(kernel.name(), threads, kv);
                let found = together(&mut engine, &tokenizer, &prompts, batch);
                assert!(
                    found == expected,
                    "{kv:?}, {}, {batch} at a time",
                    kernel.name()
                );
            }
        }
    }
}

#[test]
fn what_prompts_begin_with_is_evaluated_once() {
    let tokenizer = tokenizer(None);
    let mut engine = engine(kernels::tested()[0].name(), 1, KvType::F32);
    let params = greedy(2);
    let shots = TestRng::new(7).tokens(80, 101);
    let prompts: Vec<_> = (0..6).map(|i| [&shots[..], &[i; 3]].concat()).collect();
    let mut batch = Batch {
        tokenizer: &tokenizer,
        slots: Vec::new(),
        max_slots: 4,
    };
    let evaluated = |batch: &Batch<'_, '_>| -> Vec<usize> {
        let jobs = batch.slots.iter().filter_map(|slot| slot.job.as_ref());
        jobs.map(|job| job.input.len()).collect()
    };
    let prompt = |index: usize| Prompt {
        tokens: &prompts[index],
        params: &params,
    };
    assert!(batch.admit(&engine, 0, &prompt(0)).unwrap());
    // The others wait for it.
    assert!(!batch.admit(&engine, 1, &prompt(1)).unwrap());
    assert_eq!(evaluated(&batch), [83]);
    assert!(batch.step(&mut engine).unwrap().is_empty());
    for index in 1..4 {
        assert!(batch.admit(&engine, index, &prompt(index)).unwrap());
    }
    assert!(!batch.admit(&engine, 4, &prompt(4)).unwrap());
    assert_eq!(evaluated(&batch), [1, 3, 3, 3]);
    let ended = batch.step(&mut engine).unwrap();
    assert_eq!(ended.len(), 1);
    assert!(batch.admit(&engine, 4, &prompt(4)).unwrap());
    assert_eq!(evaluated(&batch), [3, 1, 1, 1]);
}

#[test]
fn the_caller_can_end_all() {
    let tokenizer = tokenizer(None);
    let mut engine = engine(kernels::tested()[0].name(), 1, KvType::F32);
    let params = greedy(3);
    let prompt = Prompt {
        tokens: &[1, 2],
        params: &params,
    };
    let mut ended = 0;
    generate_many(
        &mut engine,
        &tokenizer,
        &[prompt; 5],
        NonZeroUsize::MIN,
        |_, _| {
            ended += 1;
            if ended == 2 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        },
    )
    .unwrap();
    assert_eq!(ended, 2);
}
