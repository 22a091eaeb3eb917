//! A random model's nonsense, ended in every way.

use std::num::NonZeroUsize;

use proptest::prelude::*;

use super::*;
use crate::{
    engine::EngineOptions,
    load::{GgufVocab, VocabSource},
    testing::tiny_model,
    tokenizer::tests::byte_level_vocab,
};

pub(super) fn tokenizer(eos: Option<u32>) -> Tokenizer {
    let vocab = GgufVocab {
        eos_id: eos,
        ..byte_level_vocab()
    };
    Tokenizer::new(&VocabSource::Gguf(Box::new(vocab))).unwrap()
}

fn engine(threads: usize) -> Engine {
    let (config, weights) = tiny_model(3);
    let options = EngineOptions {
        threads: NonZeroUsize::new(threads).unwrap(),
        ..EngineOptions::default()
    };
    Engine::new(config, weights, &options).unwrap()
}

/// Generates after a fixed prompt, and checks that the steps add up to the result.
fn run(tokenizer: &Tokenizer, params: &Params, capacity: usize, threads: usize) -> Generation {
    let mut engine = engine(threads);
    let mut cache = engine.new_cache(capacity);
    let (mut tokens, mut text) = (Vec::new(), String::new());
    let generation = generate(
        &mut engine,
        &mut cache,
        tokenizer,
        &[5, 6, 7],
        params,
        |step| {
            assert_eq!(step.index, tokens.len());
            tokens.push(step.token);
            text += step.text;
            ControlFlow::Continue(())
        },
    )
    .unwrap();
    assert_eq!(tokens, generation.tokens);
    assert!(generation.text.starts_with(&text));
    generation
}

pub(super) fn greedy(max_new: usize) -> Params {
    Params {
        max_new,
        ..Params::default()
    }
}

#[test]
fn generation_ends_at_the_number_of_tokens_or_with_the_context() {
    let tokenizer = tokenizer(None);
    let twenty = run(&tokenizer, &greedy(20), 64, 1);
    assert_eq!(twenty.tokens.len(), 20);
    assert_eq!(twenty.end, End::MaxNew);
    assert_eq!(twenty.text, tokenizer.decode(&twenty.tokens, true));
    assert_eq!(run(&tokenizer, &greedy(20), 64, 2), twenty);

    // Three tokens of prompt and five more; the sixth is generated, but not evaluated.
    let full = run(&tokenizer, &greedy(20), 8, 1);
    assert_eq!(full.tokens, twenty.tokens[..6]);
    assert_eq!(full.end, End::ContextFull);
    assert!(run(&tokenizer, &greedy(0), 8, 1).tokens.is_empty());
}

#[test]
fn generation_ends_before_an_end_token_unless_that_is_ignored() {
    let free = run(&tokenizer(None), &greedy(20), 64, 1);
    let eos = free.tokens[9];
    let first = free.tokens.iter().position(|&id| id == eos).unwrap();
    let ended = run(&tokenizer(Some(eos)), &greedy(20), 64, 1);
    assert_eq!(ended.tokens, free.tokens[..first]);
    assert_eq!(ended.end, End::EndToken(eos));
    let ignoring = Params {
        ignore_eos: true,
        ..greedy(20)
    };
    assert_eq!(
        run(&tokenizer(Some(eos)), &ignoring, 64, 1).tokens,
        free.tokens
    );
}

#[test]
fn generation_ends_at_a_stop_text_that_spans_tokens() {
    let tokenizer = tokenizer(None);
    let free = run(&tokenizer, &greedy(20), 64, 1);
    let stop: String = free.text.chars().skip(8).take(3).collect();
    let at = free.text.find(&stop).unwrap();
    let params = Params {
        stop: vec!["never".to_owned(), stop.clone(), String::new()],
        ..greedy(20)
    };
    let stopped = run(&tokenizer, &params, 64, 1);
    assert_eq!(stopped.text, free.text[..at]);
    assert_eq!(stopped.end, End::Stop(stop));
}

#[test]
fn the_caller_can_end_a_generation_and_draws_are_seeded() {
    let tokenizer = tokenizer(None);
    let mut engine = engine(1);
    let mut cache = engine.new_cache(64);
    let mut draw = |seed, last: usize| {
        cache.truncate(0);
        let params = Params {
            sampling: Sampling::Random {
                temperature: 1.0,
                top_k: 40,
                top_p: 0.9,
                seed,
            },
            ..greedy(20)
        };
        generate(&mut engine, &mut cache, &tokenizer, &[1], &params, |step| {
            if step.index == last {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
        .unwrap()
    };
    let cancelled = draw(1, 4);
    assert_eq!(cancelled.tokens.len(), 5);
    assert_eq!(cancelled.end, End::Cancelled);
    let whole = draw(1, 99);
    assert_eq!(whole.tokens[..5], cancelled.tokens);
    assert_ne!(draw(2, 99).tokens, whole.tokens);
}

#[test]
fn a_prompt_without_tokens_or_without_room_is_refused() {
    let tokenizer = tokenizer(None);
    let mut engine = engine(1);
    let mut cache = engine.new_cache(4);
    let mut with = |prompt: &[u32]| {
        let go_on = |_: &Step<'_>| ControlFlow::Continue(());
        generate(
            &mut engine,
            &mut cache,
            &tokenizer,
            prompt,
            &greedy(1),
            go_on,
        )
        .unwrap_err()
    };
    assert!(matches!(with(&[]), GenerateError::EmptyPrompt));
    assert!(matches!(
        with(&[1; 5]),
        GenerateError::PromptTooLong { len: 5, room: 4 }
    ));
    assert!(matches!(with(&[101]), GenerateError::Forward(_)));
}

proptest! {
    #[test]
    fn a_stop_text_ends_the_text_however_it_is_cut(
        pieces in proptest::collection::vec("[ab€]{0,3}", 0..12),
        stops in proptest::collection::vec("[ab€]{1,4}", 0..3),
    ) {
        let tokenizer = tokenizer(None);
        let whole = pieces.concat();
        let mut text = StopText::new(tokenizer.stream(true), &stops);
        let mut given = String::new();
        let mut stopped = false;
        for piece in &pieces {
            let before = text.text.len();
            let (certain, stop) = text.append(piece, before);
            given += certain;
            if stop.is_some() {
                stopped = true;
                break;
            }
        }
        let first = stops.iter().filter_map(|stop| whole.find(stop)).min();
        prop_assert_eq!(stopped, first.is_some());
        let finished = text.finish();
        prop_assert!(finished.starts_with(&given));
        if stopped {
            prop_assert_eq!(&given, &finished);
        }
        // A later piece may hold an earlier, longer stop text only if none ended before it.
        let shown: Vec<_> = stops.iter().filter(|stop| finished.contains(*stop)).collect();
        prop_assert!(shown.is_empty(), "{finished:?} holds {shown:?}");
        prop_assert!(whole.starts_with(&finished));
    }
}
