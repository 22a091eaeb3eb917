//! Perplexity of a stretch of WikiText-2 by llama.cpp's protocol.

use std::path::Path;

use tritmark_engine::{
    convert::{Format, Options, convert},
    engine::Engine,
    kernels::{self, KernelChoice},
    score::{Request, Scorer, token_logprobs},
    tokenizer::Special,
};

use crate::{
    common,
    models::{engine, kernel_names, tokenizer},
};

const CHUNK: usize = 512;

/// Returns the text that was scored.
fn text(data: &Path) -> String {
    let wikitext = common::read(&data.join("wikitext2/wiki.test.raw.gz"));
    let text: String = wikitext.chars().take(39_878).collect();
    assert_eq!(text.len(), 39_994);
    text
}

#[test]
fn perplexity_is_the_references_within_a_thousandth() {
    let Some(data) = common::data("the golden perplexities") else {
        return;
    };
    let text = text(&data);
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

/// Returns the sum of `ln p` of all scored tokens.
fn loglikelihood(engine: &mut Engine, chunks: &[Vec<u32>]) -> f64 {
    let requests: Vec<_> = chunks
        .iter()
        .map(|chunk| {
            let (context, continuation) = chunk.split_at(CHUNK / 2 + 1);
            [Request {
                context,
                continuation,
            }]
        })
        .collect();
    let items: Vec<_> = requests.iter().map(<[_; 1]>::as_slice).collect();
    let scores = Scorer::new(engine, 4 * CHUNK).score(&items).unwrap();
    scores
        .iter()
        .flatten()
        .map(|score| score.loglikelihood)
        .sum()
}

/// What the published comparison of lossless formats shows to four digits (arXiv 2502.11880, table
/// 2), to the last bit: one model, converted by this crate, and packed for every way to look up
/// exact sums.
#[test]
fn perplexity_is_bit_equal_in_every_lossless_format() {
    let Some(data) = common::data("the perplexities of converted models") else {
        return;
    };
    let source = data.join("golden/models/bitnet-tiny-packed");
    let text = text(&data);
    let tokenizer = tokenizer(&source);
    let ids = tokenizer.encode(&text, Special::Bos, true).unwrap();
    let mut chunks: Vec<_> = ids.chunks_exact(CHUNK).map(<[u32]>::to_vec).collect();
    for chunk in &mut chunks {
        chunk[0] = tokenizer.bos().unwrap();
    }
    let best = kernel_names()[0];
    let expected = loglikelihood(&mut engine(&source, best), &chunks);
    let scored = (chunks.len() * (CHUNK / 2 - 1)) as f64;
    let golden = common::json(&data.join("golden/ppl/bitnet-tiny-packed.wikitext2-first.json"));
    let golden = golden["ppl"].as_f64().unwrap();
    let perplexity = (-expected / scored).exp();
    assert!(
        (perplexity / golden - 1.0).abs() <= 1e-3,
        "{perplexity}, not {golden}"
    );

    let folder = tempfile::tempdir().unwrap();
    for format in [Format::I2S, Format::Tq1_0, Format::Tq2_0] {
        let path = folder.path().join(format!("{}.gguf", format.name()));
        let options = Options {
            // The scale of a matrix, a bfloat16, is none of f16's.
            scale_tensors: true,
            ..Options::new(format)
        };
        convert(&source, &path, &options, |_, _| {}).unwrap();
        let ways = kernels::names().filter(|name| {
            let lossless = KernelChoice::Named(name).is_lossless() == Ok(true);
            // Trits are packed for tables from any format alike.
            lossless && (*name == best || format == Format::I2S && name.starts_with(best))
        });
        let mut n_ways = 0;
        for kernel in ways {
            let found = loglikelihood(&mut engine(&path, kernel), &chunks);
            let perplexity = (-found / scored).exp();
            eprintln!("{} by {kernel}: perplexity {perplexity}", format.name());
            assert_eq!(
                found.to_bits(),
                expected.to_bits(),
                "{} by {kernel}",
                format.name()
            );
            n_ways += 1;
        }
        assert_eq!(n_ways, if format == Format::I2S { 4 } else { 1 });
    }
}
