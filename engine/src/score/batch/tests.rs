//! Items of every make-up, scored together and alone.

use super::*;
use crate::{
    config::ModelConfig,
    engine::EngineOptions,
    kv_cache::KvType,
    score::loglikelihoods,
    testing::{TestRng, tiny_config, tiny_model},
};

type Pairs = Vec<(Vec<u32>, Vec<u32>)>;

/// Items as tasks have them: few-shot examples before some, choices of one token and of many, one
/// continuation behind two contexts, no choice at all, and requests beyond the model's context.
fn items(n: usize) -> Vec<Pairs> {
    let mut rng = TestRng::new(21);
    let shots = [rng.tokens(70, 101), rng.tokens(40, 101)];
    (0..n)
        .map(|i| {
            let own = 3 + rng.below(30);
            let mut context = match i % 9 {
                0..4 => shots[0].clone(),
                4..7 => shots[1].clone(),
                _ => Vec::new(),
            };
            context.extend(rng.tokens(own, 101));
            let n_choices = [4, 4, 2, 1, 0][i % 5];
            let mut pairs: Pairs = (0..n_choices)
                .map(|choice| {
                    let len = if i % 2 == 0 { 1 } else { 1 + (choice * 3) % 8 };
                    (context.clone(), rng.tokens(len, 101))
                })
                .collect();
            match (i % 7, pairs.len()) {
                (3, 2) => {
                    pairs[1].0.push(5);
                    pairs[1].1 = pairs[0].1.clone();
                }
                // The same request twice, and a choice that begins with another one.
                (4, 4) => {
                    pairs[1] = pairs[0].clone();
                    pairs[3].1 = [&pairs[2].1[..], &[3, 4]].concat();
                }
                // The first two have more in common than all of them.
                (2 | 6, 4) => {
                    for (choice, begin) in [&[7, 8, 9, 10], &[7, 8, 9, 11], &[7, 12, 9, 10]]
                        .into_iter()
                        .enumerate()
                    {
                        pairs[choice].1 = begin.to_vec();
                    }
                }
                (5, 1..) => pairs[0].0 = rng.tokens(150, 101),
                _ => {}
            }
            pairs
        })
        .collect()
}

fn requests(items: &[Pairs]) -> Vec<Vec<Request<'_>>> {
    items
        .iter()
        .map(|pairs| {
            pairs
                .iter()
                .map(|(context, continuation)| Request {
                    context,
                    continuation,
                })
                .collect()
        })
        .collect()
}

fn engine(kv: KvType, threads: usize) -> Engine {
    let (_, weights) = tiny_model(9);
    let config = ModelConfig {
        context_length: 128,
        ..tiny_config()
    };
    let options = EngineOptions {
        kv,
        threads: threads.try_into().unwrap(),
        ..EngineOptions::default()
    };
    Engine::new(config, weights, &options).unwrap()
}

#[test]
fn scores_are_bit_equal_together_and_alone() {
    let items = items(64);
    let requests = requests(&items);
    for (kv, threads) in [(KvType::F32, 1), (KvType::F16, 2)] {
        let mut engine = engine(kv, threads);
        let mut cache = engine.new_cache(128);
        let expected: Vec<_> = requests
            .iter()
            .map(|item| loglikelihoods(&mut engine, &mut cache, item).unwrap())
            .collect();
        for batch in [1, 5, 64] {
            for max_tokens in [1, 300, 4096] {
                let mut scorer = Scorer::new(&mut engine, max_tokens);
                let mut found = Vec::new();
                for batch in requests.chunks(batch) {
                    let batch: Vec<_> = batch.iter().map(Vec::as_slice).collect();
                    found.extend(scorer.score(&batch).unwrap());
                    assert_eq!(scorer.caches.used_positions, 0);
                    assert!(scorer.caches.free_positions <= max_tokens);
                }
                assert!(
                    found == expected,
                    "{kv:?}, {batch} items, {max_tokens} tokens"
                );
            }
        }
    }
}

#[test]
fn few_shot_prefixes_are_shared_where_that_saves() {
    let scored = |tokens: &[u32]| Scored {
        tokens: tokens.to_vec(),
        first_scored: tokens.len() - 2,
    };
    let mut rng = TestRng::new(5);
    let (long, short) = (rng.tokens(200, 101), rng.tokens(40, 101));
    let item = |shots: &[u32], own: &[u32]| Item::new(vec![scored(&[shots, own].concat())]);
    let items = [
        item(&long, &[1, 2, 3]),
        item(&long, &[2, 2, 3]),
        item(&long, &[2, 3, 3]),
        item(&long[..50], &[100; 9]),
        item(&short, &[4, 5, 6]),
        item(&short[..35], &[100; 9]),
        item(&[], &[9; 9]),
        item(&[], &[9; 9]),
    ];
    assert_eq!(trunks(&items), [200, 200, 200, 0, 35, 35, 0, 0]);
}

#[test]
fn an_impossible_request_is_counted_through_all_items() {
    let mut engine = engine(KvType::F32, 1);
    let mut scorer = Scorer::new(&mut engine, 100);
    let good = Request {
        context: &[1],
        continuation: &[2],
    };
    let bad = Request {
        context: &[],
        ..good
    };
    let error = scorer
        .score(&[&[good, good], &[], &[good, bad]])
        .unwrap_err();
    assert_eq!(error, ScoreError::Empty { index: 3 });
    let outside = Request {
        context: &[101],
        ..good
    };
    assert!(matches!(
        scorer.score(&[&[good], &[outside]]),
        Err(ScoreError::Forward(ForwardError::TokenOutOfRange {
            token: 101,
            ..
        }))
    ));
    assert_eq!(scorer.score(&[&[good]]).unwrap()[0][0].n_tokens, 1);
}
