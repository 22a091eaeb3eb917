//! Logits and log-probabilities of the prompts.

use tritmark_engine::{engine::EngineOptions, kv_cache::KvType, verify::statistics::Differences};

use crate::{
    common,
    models::{
        BITNET_CPP, MODELS, Model, Outputs, all_logits, engine, engine_with, kernel_names, options,
        prompts,
    },
    statistics::{Limits, check, check_but, max_abs, token_logprobs},
};

/// Tokens of the longest prompt that the slower kernels evaluate: the results are bit-equal, so
/// that the best kernel's answer for the others is theirs.
const SLOW_KERNEL_TOKENS: usize = 110;

#[test]
fn logits_and_log_probabilities_are_the_references_on_every_kernel() {
    let Some(data) = common::data("the golden logits") else {
        return;
    };
    let kernels = kernel_names();
    for Model {
        file,
        reference,
        limits,
    } in MODELS
    {
        let path = data.join("golden/models").join(file);
        let outputs = Outputs::read(&data, reference);
        let prompts = prompts(&data, reference);
        let mut best = Vec::new();
        for (rank, kernel) in kernels.iter().enumerate() {
            let mut engine = engine(&path, kernel);
            assert_eq!(engine.kernel_name(), *kernel);
            let vocab_size = engine.config().vocab_size;
            let mut differences = Differences::default();
            for (index, prompt) in prompts.iter().enumerate() {
                if rank > 0 && prompt.ids.len() > SLOW_KERNEL_TOKENS {
                    continue;
                }
                let logits = all_logits(&mut engine, &prompt.ids);
                if rank > 0 {
                    assert!(logits == best[index], "{file} {kernel} {}", prompt.name);
                    continue;
                }
                let get = |what| outputs.get(&format!("{}.{what}", prompt.name));
                let logprobs = token_logprobs(&logits, &prompt.ids);
                let sum: f64 = logprobs.iter().sum();
                let reference_sum = prompt.sum_logprob;
                let tolerance = 0.005 * logprobs.len() as f64 + 1e-3;
                assert!(
                    (sum - reference_sum).abs() <= tolerance,
                    "{file} {}: {sum} {reference_sum}",
                    prompt.name
                );
                differences.add(
                    &prompt.name,
                    (
                        &get("last_logits").unwrap(),
                        &logits[logits.len() - vocab_size..],
                    ),
                    (&get("token_logprobs").unwrap(), &logprobs),
                );
                best.push(logits);
            }
            if rank == 0 {
                check(&differences, limits, &format!("{file} {kernel}"));
            }
        }
    }
}

#[test]
fn keys_and_values_in_f16_stay_within_their_own_limits() {
    let Some(data) = common::data("the golden logits, keys and values in f16") else {
        return;
    };
    for (file, others, limits) in [
        // 29 of 30 were the same with the engine whose distances are published.
        ("bitnet-tiny-packed", 1, Limits::ternary(KvType::F16)),
        ("llama-tiny", 0, Limits::dense(KvType::F16)),
        ("qwen2-tiny", 0, Limits::dense(KvType::F16)),
        ("gemma3-tiny", 0, Limits::dense(KvType::F16)),
    ] {
        let outputs = Outputs::read(&data, &format!("{file}.f32"));
        let options = EngineOptions {
            kv: KvType::F16,
            ..options(kernel_names()[0])
        };
        let mut engine = engine_with(&data.join("golden/models").join(file), &options);
        let vocab_size = engine.config().vocab_size;
        let mut differences = Differences::default();
        for prompt in &prompts(&data, &format!("{file}.f32")) {
            let logits = all_logits(&mut engine, &prompt.ids);
            let get = |what| outputs.get(&format!("{}.{what}", prompt.name)).unwrap();
            differences.add(
                &prompt.name,
                (&get("last_logits"), &logits[logits.len() - vocab_size..]),
                (
                    &get("token_logprobs"),
                    &token_logprobs(&logits, &prompt.ids),
                ),
            );
        }
        let what = format!("{file}, keys and values in f16");
        check_but(&differences, limits, &what, others);
    }
}

#[test]
fn logits_of_every_position_are_the_references() {
    let Some(data) = common::data("the golden logits of every position") else {
        return;
    };
    let outputs = Outputs::read(&data, "bitnet-tiny-packed.f32");
    let prompts = prompts(&data, "bitnet-tiny-packed.f32");
    let path = data.join("golden/models/bitnet-tiny-packed");
    for kernel in kernel_names() {
        let mut engine = engine(&path, kernel);
        let vocab_size = engine.config().vocab_size;
        let mut differences = Differences::default();
        let mut positions = 0;
        for prompt in &prompts {
            let Some(reference) = outputs.get(&format!("{}.all_logits", prompt.name)) else {
                continue;
            };
            let logits = all_logits(&mut engine, &prompt.ids);
            let rows = reference
                .chunks_exact(vocab_size)
                .zip(logits.chunks_exact(vocab_size));
            for (position, row) in rows.enumerate() {
                differences.add(&format!("{} {position}", prompt.name), row, (&[], &[]));
                positions += 1;
            }
        }
        assert_eq!(positions, 1 + 6 + 15 + 9);
        let limits = MODELS[0].limits;
        check(&differences, limits, &format!("every position on {kernel}"));
    }
}

#[test]
fn the_files_of_bitnet_cpp_give_bitnet_cpps_logits() {
    let Some(data) = common::data("the comparison with bitnet.cpp") else {
        return;
    };
    let prompts = prompts(&data, "bitnet-tiny-packed.f32");
    for Model {
        file,
        reference,
        limits,
    } in BITNET_CPP
    {
        let outputs = Outputs::read(&data, reference);
        let mut engine = engine(&data.join("golden/models").join(file), kernel_names()[0]);
        let vocab_size = engine.config().vocab_size;
        let mut differences = Differences::default();
        let mut compared = 0;
        for prompt in &prompts {
            let get = |what| outputs.get(&format!("{}.{what}", prompt.name));
            let Some(last) = get("last_logits") else {
                assert!(prompt.ids.len() > 600, "{reference} lacks {}", prompt.name);
                continue;
            };
            let logits = all_logits(&mut engine, &prompt.ids);
            let logprobs = token_logprobs(&logits, &prompt.ids);
            differences.add(
                &prompt.name,
                (&last, &logits[logits.len() - vocab_size..]),
                (&get("token_logprobs").unwrap(), &logprobs),
            );
            compared += 1;
        }
        assert!(compared >= 16, "{compared} prompts");
        check(&differences, limits, reference);
    }
}

#[test]
fn the_ternary_files_differ_only_in_the_rounding_of_their_scales() {
    let Some(data) = common::data("the comparison of file formats") else {
        return;
    };
    let folder = data.join("golden/models");
    let prompts = prompts(&data, "bitnet-tiny-packed.f32");
    let logits = |file: &str, ids: &[u32]| {
        all_logits(&mut engine(&folder.join(file), kernel_names()[0]), ids)
    };
    // Blocks of 256 with one scale each are the same weights in both files.
    let ids = &prompts[3].ids;
    let [two_bits, five_in_a_byte] =
        ["bitnet-tiny.tq2_0.gguf", "bitnet-tiny.tq1_0.gguf"].map(|file| logits(file, ids));
    assert!(two_bits == five_in_a_byte);
    // One more rounding of the scale, or of the embedding, is within what flips activations.
    let packed = logits("bitnet-tiny-packed", ids);
    let i2_s = logits("bitnet-tiny.i2_s.gguf", ids);
    assert!(max_abs(&packed, &i2_s) < 0.15);
}
