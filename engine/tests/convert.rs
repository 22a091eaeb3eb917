//! Model files in other formats: the same trits, scales and logits, or a refusal that names the
//! tensor.
#![expect(clippy::unwrap_used, reason = "what helpers cannot do ends the test")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use half::f16;
use proptest::prelude::*;
use tritmark_engine::{
    convert::{ConvertError, Format, Options, Report, convert},
    engine::{Engine, EngineOptions},
    errors::chain,
    format::gguf::{Gguf, Layout, Metadata, TensorType, Value},
    load::{I2sLayout, LoadOptions, LoadedModel, load},
    quant::{i2_s, tq2_0},
    synth::{self, Shape},
    tokenizer::{Special, Tokenizer},
    verify::{Golden, Verdict, verify},
    weights::{Layer, Matrix, TernaryScale, Weights},
};

const TINY: Shape = Shape {
    name: "tiny",
    hidden_size: 256,
    ffn_size: 512,
    n_layers: 2,
    n_heads: 4,
    n_kv_heads: 2,
    head_dim: 64,
    vocab_size: 32,
    context_length: 64,
    rope_theta: 10_000.0,
};

const TERNARY: [Format; 3] = [Format::I2S, Format::Tq1_0, Format::Tq2_0];

fn synthetic(folder: &Path, format: synth::Format) -> PathBuf {
    let path = folder.join(format!("{}.gguf", format.name()));
    synth::write(&TINY, format, 7, &path, |_, _| {}).unwrap();
    path
}

fn loaded(path: &Path) -> LoadedModel {
    load(path, &LoadOptions::default())
        .unwrap_or_else(|error| panic!("{}: {error:?}", path.display()))
}

fn converted(input: &Path, output: &Path, options: &Options) -> Report {
    convert(input, output, options, |_, _| {}).unwrap_or_else(|error| panic!("{}", chain(&error)))
}

fn refusal(input: &Path, options: &Options) -> String {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.gguf");
    let error = convert(input, &output, options, |_, _| {}).unwrap_err();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    chain(&error)
}

fn fingerprint(path: &Path) -> [u8; 16] {
    let model = loaded(path);
    let options = EngineOptions::default();
    let mut engine = Engine::new(model.config, model.weights, &options).unwrap();
    engine.fingerprint()
}

/// Codes and scales of every linear.
fn linears(weights: &Weights) -> Vec<(Vec<u8>, TernaryScale)> {
    let linears = weights.layers.iter().flat_map(Layer::linears);
    linears
        .map(|linear| {
            let Matrix::Ternary(matrix) = &linear.matrix else {
                panic!("a ternary model");
            };
            (matrix.i2_s_rows(), matrix.scale.clone())
        })
        .collect()
}

/// The bytes of every tensor, by name.
fn tensors(path: &Path) -> Vec<(String, TensorType, Vec<u8>)> {
    let bytes = fs::read(path).unwrap();
    let gguf = Gguf::parse(&bytes).unwrap();
    let tensors = gguf.tensors.iter().map(|info| {
        let bytes = bytes[info.offset as usize..][..info.len as usize].to_vec();
        (info.name.clone(), info.kind, bytes)
    });
    tensors.collect()
}

fn metadata(path: &Path) -> Metadata {
    Gguf::parse(&fs::read(path).unwrap()).unwrap().metadata
}

fn without(metadata: &Metadata, key: &str) -> Vec<(String, Value)> {
    let entries = metadata.iter().filter(|(name, _)| *name != key);
    entries
        .map(|(key, value)| (key.to_owned(), value.clone()))
        .collect()
}

fn data(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("TRITMARK_DATA").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("NOT RUN: {test} needs TRITMARK_DATA");
    }
    folder
}

#[test]
fn every_pair_of_ternary_formats_keeps_trits_scales_and_logits() {
    let folder = tempfile::tempdir().unwrap();
    for from in [
        synth::Format::I2S,
        synth::Format::Tq1_0,
        synth::Format::Tq2_0,
        synth::Format::I2SQ6K,
    ] {
        let input = synthetic(folder.path(), from);
        let model = loaded(&input);
        let expected = fingerprint(&input);
        for format in TERNARY.into_iter().chain([Format::F32, Format::F16]) {
            let output = folder.path().join(format!("to-{}.gguf", format.name()));
            let report = converted(&input, &output, &Options::new(format));
            let read = loaded(&output);
            let what = format!("{} to {}", from.name(), format.name());
            assert_eq!(read.source.stored_linear_format, format.name(), "{what}");
            assert!(linears(&read.weights) == linears(&model.weights), "{what}");
            assert_eq!(fingerprint(&output), expected, "{what}");
            assert_eq!(report.file_bytes, fs::metadata(&output).unwrap().len());
            let file_type = "general.file_type";
            assert_eq!(
                without(&metadata(&output), file_type),
                without(&metadata(&input), file_type),
                "{what}"
            );
            // Through floats and back.
            let back = folder.path().join("back.gguf");
            converted(&output, &back, &Options::new(Format::I2S));
            assert!(
                linears(&loaded(&back).weights) == linears(&model.weights),
                "{what}"
            );
        }
    }
}

#[test]
fn a_round_through_all_formats_gives_the_files_own_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = vec![synthetic(folder.path(), synth::Format::I2S)];
    if let Some(data) = data("the round of the golden model") {
        files.push(data.join("golden/models/bitnet-tiny.i2_s.gguf"));
    }
    files.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/bitnet-tiny.i2_s.gguf"));
    for first in files {
        let mut input = first.clone();
        for (nth, format) in [Format::Tq2_0, Format::Tq1_0, Format::I2S]
            .into_iter()
            .enumerate()
        {
            let output = folder.path().join(format!("round-{nth}.gguf"));
            converted(&input, &output, &Options::new(format));
            input = output;
        }
        assert!(tensors(&input) == tensors(&first), "{}", first.display());
        assert_eq!(metadata(&input), metadata(&first));
    }
}

/// Rewrites a tensor of a file.
fn with_tensor(path: &Path, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut change = Some(change);
    let mut parts = tensors(path);
    let bytes = fs::read(path).unwrap();
    let gguf = Gguf::parse(&bytes).unwrap();
    let mut layout = Layout::new(gguf.metadata.clone());
    for info in &gguf.tensors {
        layout.add(&info.name, &info.dims, info.kind).unwrap();
    }
    let mut writer = layout.begin(Vec::new()).unwrap();
    for (tensor, _, bytes) in &mut parts {
        if tensor == name {
            change.take().unwrap()(bytes);
        }
        writer.write(bytes).unwrap();
    }
    fs::write(path, writer.finish()).unwrap();
}

const GATE: &str = "blk.1.ffn_gate.weight";

#[test]
fn a_scale_that_no_f16_holds_is_refused_or_kept_beside_its_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let input = synthetic(folder.path(), synth::Format::I2S);
    with_tensor(&input, GATE, |bytes| {
        let at = bytes.len() - 32;
        bytes[at..at + 4].copy_from_slice(&0.1_f32.to_le_bytes());
    });
    for format in [Format::Tq1_0, Format::Tq2_0] {
        let said = refusal(&input, &Options::new(format));
        assert!(
            said.contains(GATE)
                && said.contains("1e-1 is no f16")
                && said.contains("--scale-tensors"),
            "{said}"
        );
        let options = Options {
            scale_tensors: true,
            ..Options::new(format)
        };
        let output = folder.path().join("beside.gguf");
        let report = converted(&input, &output, &options);
        assert_eq!(report.n_scale_tensors, 1);
        let scale = tensors(&output)
            .into_iter()
            .find(|(name, _, _)| name == "blk.1.ffn_gate.scale");
        assert_eq!(scale.unwrap().2, 0.1_f32.to_le_bytes());
        assert_eq!(fingerprint(&output), fingerprint(&input));
        let back = folder.path().join("back.gguf");
        converted(&output, &back, &Options::new(Format::I2S));
        assert!(tensors(&back) == tensors(&input));
    }
    let said = refusal(&input, &Options::new(Format::F16));
    assert!(
        said.contains(GATE) && said.contains("it holds the scale 1e-1"),
        "{said}"
    );
    // The other scales are f16s, which bf16 holds no better.
    let said = refusal(&input, &Options::new(Format::Bf16));
    assert!(said.contains("blk.0.attn_q.weight"), "{said}");
}

#[test]
fn blocks_with_scales_of_their_own_stay_in_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let input = synthetic(folder.path(), synth::Format::Tq2_0);
    with_tensor(&input, GATE, |bytes| {
        tq2_0::pack_block(&[1; 256], f16::from_f32(9.0), &mut bytes[3 * 66..][..66]);
    });
    let output = folder.path().join("blocks.gguf");
    converted(&input, &output, &Options::new(Format::Tq1_0));
    assert_eq!(fingerprint(&output), fingerprint(&input));
    for format in [Format::I2S, Format::F32] {
        let said = refusal(&input, &Options::new(format));
        assert!(
            said.contains(GATE) && said.contains("9e0 in row 3, block 0"),
            "{said}"
        );
    }
}

#[test]
fn what_is_not_ternary_or_does_not_fit_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let dense = synthetic(folder.path(), synth::Format::Bf16);
    let said = refusal(&dense, &Options::new(Format::I2S));
    assert!(
        said.contains("tensor `blk.0.attn_q.weight`") && said.contains("bf16, and not ternary"),
        "{said}"
    );
    let floats = synthetic(folder.path(), synth::Format::F32);
    for format in [Format::F16, Format::Bf16] {
        let said = refusal(&floats, &Options::new(format));
        assert!(said.contains("it is f32, and holds"), "{said}");
    }
    let q4 = synthetic(folder.path(), synth::Format::Q4_0);
    assert!(refusal(&q4, &Options::new(Format::Tq2_0)).contains("it is q4_0"));

    let wide = folder.path().join("wide.gguf");
    let shape = Shape {
        hidden_size: 128,
        n_heads: 2,
        n_kv_heads: 1,
        ..TINY
    };
    synth::write(&shape, synth::Format::I2S, 1, &wide, |_, _| {}).unwrap();
    let said = refusal(&wide, &Options::new(Format::Tq2_0));
    assert!(
        said.contains("blk.0.attn_q.weight") && said.contains("not a multiple of 256"),
        "{said}"
    );
    let i2_s = synthetic(folder.path(), synth::Format::I2S);
    let other_name = Options {
        architecture: Some("qwen2".to_owned()),
        ..Options::new(Format::I2S)
    };
    assert!(refusal(&i2_s, &other_name).contains("bitnet-b1.58, bitnet-25, bitnet, not `qwen2`"));
    let error = convert(&i2_s, &i2_s, &Options::new(Format::Tq2_0), |_, _| {}).unwrap_err();
    assert!(matches!(error, ConvertError::Write { .. }));
    let missing = folder.path().join("missing.gguf");
    assert!(refusal(&missing, &Options::new(Format::I2S)).contains("missing.gguf"));
}

#[test]
fn dense_floats_widen_to_the_same_logits() {
    let folder = tempfile::tempdir().unwrap();
    for (from, to) in [
        (synth::Format::Bf16, Format::F32),
        (synth::Format::F16, Format::F32),
        (synth::Format::Bf16, Format::Bf16),
    ] {
        let input = synthetic(folder.path(), from);
        let output = folder.path().join("wide.gguf");
        let options = Options {
            embedding: Some(Format::F32),
            ..Options::new(to)
        };
        converted(&input, &output, &options);
        let read = loaded(&output);
        assert_eq!(
            (&*read.source.linear_format, &*read.source.head_format),
            (to.name(), "f32")
        );
        assert_eq!(fingerprint(&output), fingerprint(&input));
    }
}

#[test]
fn another_layout_becomes_the_usual_one() {
    let folder = tempfile::tempdir().unwrap();
    let input = synthetic(folder.path(), synth::Format::I2S);
    // The same bytes, read as the other layouts have them, are other models.
    for layout in [I2sLayout::Blocks64, I2sLayout::RowsInFours] {
        let options = Options {
            load: LoadOptions {
                i2_s_layout: layout,
                ..LoadOptions::default()
            },
            ..Options::new(Format::I2S)
        };
        let output = folder.path().join("usual.gguf");
        converted(&input, &output, &options);
        let meant = load(&input, &options.load).unwrap();
        let usual = loaded(&output);
        assert!(
            linears(&usual.weights) == linears(&meant.weights),
            "{layout:?}"
        );
        assert!(
            linears(&usual.weights) != linears(&loaded(&input).weights),
            "{layout:?}"
        );
        assert!(
            linears(&usual.weights)
                .iter()
                .all(|(codes, _)| i2_s::find_invalid(codes).is_none())
        );
    }
}

#[test]
fn another_name_renames_its_keys_and_says_what_it_means() {
    let folder = tempfile::tempdir().unwrap();
    let input = synthetic(folder.path(), synth::Format::I2S);
    let output = folder.path().join("bitnet.gguf");
    let options = Options {
        architecture: Some("bitnet".to_owned()),
        ..Options::new(Format::I2S)
    };
    let report = converted(&input, &output, &options);
    assert_eq!(report.architecture, "bitnet");
    assert!(report.warnings[0].contains("Silu"), "{:?}", report.warnings);
    let keys = metadata(&output);
    assert!(keys.get("bitnet.block_count").is_some());
    assert!(keys.iter().all(|(key, _)| !key.starts_with("bitnet-b1.58")));
    assert_eq!(report.n_converted, 0);
    assert!(tensors(&output) == tensors(&input));
    let same = Options {
        architecture: Some("bitnet-25".to_owned()),
        ..Options::new(Format::I2S)
    };
    let report = converted(&input, &output, &same);
    assert_eq!(report.warnings, Vec::<String>::new());
    assert_eq!(fingerprint(&output), fingerprint(&input));
}

#[test]
fn folders_become_files_with_the_same_logits_and_tokens() {
    let Some(data) = data("folders as GGUF files") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let text = "Natalia sold 48 clips to 1024 of her friends' dogs — café!\n  It's 2,000,000.";
    for (name, formats, permuted) in [
        (
            "bitnet-tiny-packed",
            &[Format::I2S, Format::Tq1_0, Format::Tq2_0, Format::F32][..],
            false,
        ),
        ("bitnet-tiny-bf16", &[Format::I2S, Format::Bf16], false),
        ("llama158-tiny", &[Format::I2S], true),
        ("llama-tiny", &[Format::Bf16, Format::F32], true),
        ("qwen2-tiny", &[Format::Bf16], false),
        ("gemma3-tiny", &[Format::Bf16], false),
    ] {
        let input = data.join("golden/models").join(name);
        let gemma = name == "gemma3-tiny";
        if gemma {
            let said = refusal(&input, &Options::new(Format::Bf16));
            assert!(said.contains("--without-vocabulary"), "{said}");
        }
        for &format in formats {
            let options = Options {
                without_vocabulary: gemma,
                ..Options::new(format)
            };
            let output = folder.path().join(format!("{name}-{}.gguf", format.name()));
            converted(&input, &output, &options);
            let what = format!("{name} to {}", format.name());
            let (from, to) = (loaded(&input), loaded(&output));
            assert_eq!(to.source.warnings, Vec::<String>::new(), "{what}");
            assert_eq!(to.source.stored_linear_format, format.name(), "{what}");
            if permuted {
                // q and k are summed in another order; the reference is the judge.
                let golden = data.join(format!("golden/outputs/{name}.f32.json.gz"));
                let golden = Golden::read(&golden).unwrap();
                let verify_options = tritmark_engine::verify::Options {
                    longest_prompt: Some(600),
                    ..Default::default()
                };
                let report = verify(&to, Some(&golden), &verify_options, |_, _| {}).unwrap();
                assert_eq!(report.verdict, Verdict::Pass, "{what}: {report:#?}");
            } else {
                assert_eq!(fingerprint(&output), fingerprint(&input), "{what}");
            }
            if gemma {
                continue;
            }
            let [from, to] = [from, to].map(|model| Tokenizer::new(&model.vocab).unwrap());
            for special in [Special::None, Special::Default] {
                assert_eq!(
                    to.encode(text, special, true).unwrap(),
                    from.encode(text, special, true).unwrap(),
                    "{what}"
                );
            }
            assert_eq!((to.bos(), to.eos()), (from.bos(), from.eos()), "{what}");
            assert_eq!(to.chat_template(), from.chat_template(), "{what}");
        }
    }
    let said = refusal(
        &data.join("golden/models/llama158-tiny"),
        &Options::new(Format::F32),
    );
    assert!(said.contains("no word for ternary floats"), "{said}");
}

#[test]
fn files_with_separate_scales_keep_their_values() {
    let Some(data) = data("files with separate scales") else {
        return;
    };
    let input = data.join("models/bitllama/bitllama-tinystories-3m-tq2_0.gguf");
    let folder = tempfile::tempdir().unwrap();
    for format in [Format::I2S, Format::Tq1_0, Format::F32] {
        let output = folder.path().join("bitllama.gguf");
        let options = Options {
            scale_tensors: true,
            ..Options::new(format)
        };
        converted(&input, &output, &options);
        assert_eq!(
            fingerprint(&output),
            fingerprint(&input),
            "{}",
            format.name()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn flipped_bits_never_panic_and_leave_nothing_behind(
        flips in proptest::collection::vec((0_usize..1 << 20, 0_u32..8), 1..4),
        to in 0_usize..6,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let input = synthetic(folder.path(), synth::Format::Tq1_0);
        let mut bytes = fs::read(&input).unwrap();
        let description = Gguf::parse(&bytes).unwrap().data_offset as usize;
        for (at, bit) in flips {
            bytes[at % (description + 64)] ^= 1 << bit;
        }
        fs::write(&input, bytes).unwrap();
        let output = folder.path().join("out.gguf");
        let done = convert(&input, &output, &Options::new(Format::ALL[to]), |_, _| {}).is_ok();
        prop_assert_eq!(output.exists(), done);
        prop_assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1 + usize::from(done));
    }
}
