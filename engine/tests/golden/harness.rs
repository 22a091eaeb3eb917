//! Log-likelihoods of continuations, request by request, against lm-evaluation-harness.

use serde_json::Value;
use tritmark_engine::score::{Request, loglikelihoods};

use crate::{
    common,
    models::{engine, kernel_names, tokenizer},
    statistics::quantile,
};

#[test]
fn log_likelihoods_are_the_harnesss() {
    let Some(data) = common::data("the golden log-likelihoods") else {
        return;
    };
    let path = data.join("golden/models/bitnet-tiny-packed");
    let tokenizer = tokenizer(&path);
    let mut engine = engine(&path, kernel_names()[0]);
    let mut cache = engine.new_cache(2048);
    let golden = common::json(&data.join("golden/lm-eval/bitnet-tiny-packed.f32.json.gz"));
    let mut differences = Vec::new();
    for task in [
        "arc_challenge:0shot",
        "arc_easy:0shot",
        "winogrande:0shot",
        "piqa:0shot",
    ] {
        for item in golden["tasks"][task]["items"].as_array().unwrap() {
            let requests = item["requests"].as_array().unwrap();
            let pairs: Vec<_> = requests
                .iter()
                .map(|request| {
                    let text = |key: &str| request[key].as_str().unwrap();
                    // The numbers are those of contexts with a first token.
                    tokenizer
                        .pair(text("context"), text("continuation"), true)
                        .unwrap()
                })
                .collect();
            let ours: Vec<_> = pairs
                .iter()
                .map(|pair| Request {
                    context: &pair.context,
                    continuation: &pair.continuation,
                })
                .collect();
            let scores = loglikelihoods(&mut engine, &mut cache, &ours).unwrap();
            for (request, score) in requests.iter().zip(scores) {
                let expected = request["loglikelihood"].as_f64().unwrap();
                differences.push((score.loglikelihood - expected).abs());
                assert_eq!(
                    request["is_greedy"],
                    Value::Bool(score.is_greedy),
                    "{request}"
                );
            }
        }
    }
    differences.sort_unstable_by(f64::total_cmp);
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|q| quantile(&differences, q));
    let n = differences.len();
    eprintln!("{n} requests: |difference| {p50:.4} / {p99:.4} / {max:.4}");
    assert!(n > 800, "{n} requests");
    assert!(
        p50 <= 0.03 && p99 <= 0.15 && max <= 0.4,
        "{p50} {p99} {max}"
    );
}
