//! Perplexity of a stretch of WikiText-2 by llama.cpp's protocol.

use tritmark_engine::{score::token_logprobs, tokenizer::Special};

use crate::{
    common,
    models::{engine, kernel_names, tokenizer},
};

const CHUNK: usize = 512;

#[test]
fn perplexity_is_the_references_within_a_thousandth() {
    let Some(data) = common::data("the golden perplexities") else {
        return;
    };
    let wikitext = common::read(&data.join("wikitext2/wiki.test.raw.gz"));
    let text: String = wikitext.chars().take(39_878).collect();
    assert_eq!(text.len(), 39_994);
    for (file, reference) in [
        ("bitnet-tiny-packed", "bitnet-tiny-packed"),
        ("bitnet-tiny-bf16", "bitnet-tiny-bf16"),
        ("bitnet-tiny.i2_s.gguf", "bitnet-tiny-packed"),
        ("bitnet-tiny.tq2_0.gguf", "bitnet-tiny-packed"),
        ("bitnet-tiny.tq1_0.gguf", "bitnet-tiny-packed"),
        ("llama-tiny", "llama-tiny"),
    ] {
        let golden =
            common::json(&data.join(format!("golden/ppl/{reference}.wikitext2-first.json")));
        let path = data.join("golden/models").join(file);
        let tokenizer = tokenizer(&path);
        let bos = tokenizer.bos().unwrap();
        let ids = tokenizer.encode(&text, Special::Bos, true).unwrap();
        assert_eq!(golden["n_tokens"], ids.len(), "{file}");
        let mut engine = engine(&path, kernel_names()[0]);
        let mut cache = engine.new_cache(CHUNK);

        // The first half of a chunk is context; each later token is scored but the first of those.
        let (mut sum, mut scored) = (0.0, 0);
        let running = golden["running_ppl"].as_array().unwrap();
        for (chunk, golden) in ids.chunks_exact(CHUNK).zip(running) {
            let mut chunk = chunk.to_vec();
            chunk[0] = bos;
            // Entry t is of token t + 1, scored from position t.
            let logprobs = token_logprobs(&mut engine, &mut cache, &chunk).unwrap();
            sum -= logprobs[CHUNK / 2..].iter().sum::<f64>();
            scored += logprobs[CHUNK / 2..].len();
            let perplexity = (sum / scored as f64).exp();
            let golden = golden.as_f64().unwrap();
            assert!(
                (perplexity / golden - 1.0).abs() < 2e-3,
                "{file} after {scored} tokens: {perplexity}, not {golden}"
            );
        }
        assert_eq!(golden["scored_tokens"], scored, "{file}");
        let perplexity = (sum / scored as f64).exp();
        let expected = golden["ppl"].as_f64().unwrap();
        eprintln!("{file}: perplexity {perplexity:.3}, reference {expected:.3}");
        assert!(
            (perplexity / expected - 1.0).abs() <= 1e-3,
            "{file}: {perplexity}, not {expected}"
        );
    }
}
