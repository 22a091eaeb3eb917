//! Files that are wrong in one place: the loader names the place, and never panics.
#![expect(clippy::unwrap_used, reason = "what helpers cannot do ends the test")]

use std::{fs, path::Path};

use half::f16;
use proptest::prelude::*;
use tritmark_engine::{
    errors::chain,
    format::gguf::{Gguf, Layout, Metadata, TensorType, Value},
    load::{I2sLayout, LoadError, LoadOptions, LoadedModel, load},
    quant::{i2_s, tq2_0},
    synth::{self, Format, Shape},
    weights::{Matrix, TernaryMatrix, TernaryScale},
};

const TINY: Shape = Shape {
    name: "tiny",
    hidden_size: 256,
    ffn_size: 256,
    n_layers: 1,
    n_heads: 4,
    n_kv_heads: 2,
    head_dim: 64,
    vocab_size: 8,
    context_length: 64,
    rope_theta: 10_000.0,
};

/// A tensor of a file in memory.
struct Part {
    name: String,
    dims: Vec<u64>,
    kind: TensorType,
    bytes: Vec<u8>,
}

/// A GGUF file in memory, open to changes.
struct File {
    metadata: Metadata,
    parts: Vec<Part>,
}

impl File {
    fn tiny(format: Format) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        synth::write(&TINY, format, 5, &path, |_, _| {}).unwrap();
        let bytes = fs::read(path).unwrap();
        let gguf = Gguf::parse(&bytes).unwrap();
        let parts = gguf.tensors.iter().map(|tensor| Part {
            name: tensor.name.clone(),
            dims: tensor.dims.clone(),
            kind: tensor.kind,
            bytes: bytes[tensor.offset as usize..][..tensor.len as usize].to_vec(),
        });
        Self {
            parts: parts.collect(),
            metadata: gguf.metadata,
        }
    }

    fn part(&mut self, name: &str) -> &mut Part {
        self.parts
            .iter_mut()
            .find(|part| part.name == name)
            .unwrap()
    }

    fn add_f32(&mut self, name: &str, values: &[f32]) {
        self.parts.push(Part {
            name: name.into(),
            dims: vec![values.len() as u64],
            kind: TensorType::F32,
            bytes: values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        });
    }

    fn bytes(&self) -> Vec<u8> {
        let mut layout = Layout::new(self.metadata.clone());
        for part in &self.parts {
            layout.add(&part.name, &part.dims, part.kind).unwrap();
        }
        let mut writer = layout.begin(Vec::new()).unwrap();
        for part in &self.parts {
            writer.write(&part.bytes).unwrap();
        }
        writer.finish()
    }

    fn load_as(&self, options: &LoadOptions) -> Result<LoadedModel, LoadError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        fs::write(&path, self.bytes()).unwrap();
        load(&path, options)
    }

    fn load(&self) -> Result<LoadedModel, LoadError> {
        self.load_as(&LoadOptions::default())
    }

    /// The error's text with its sources'.
    fn error(&self) -> String {
        chain(&self.load().unwrap_err())
    }
}

fn gate(model: &LoadedModel) -> &TernaryMatrix {
    let Matrix::Ternary(matrix) = &model.weights.layers[0].gate.matrix else {
        panic!("ternary");
    };
    matrix
}

const GATE: &str = "blk.0.ffn_gate.weight";

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.gguf");
    let bytes = File::tiny(Format::I2S).bytes();
    fs::write(&path, &bytes).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let description = Gguf::parse(&bytes).unwrap().data_offset as usize;
    let in_data = (description..bytes.len()).step_by(997);
    for len in in_data.rev().chain((0..description).rev()) {
        file.set_len(len as u64).unwrap();
        assert!(
            load(&path, &LoadOptions::default()).is_err(),
            "cut at {len}"
        );
    }
}

#[test]
fn a_tensor_that_disagrees_with_the_configuration_is_named_with_both_shapes() {
    let mut file = File::tiny(Format::F32);
    file.metadata
        .set("llama.feed_forward_length", Value::U32(512));
    let error = file.error();
    assert!(
        error.contains("tensor `blk.0.ffn_gate.weight`")
            && error.contains("has the shape [256, 256]")
            && error.contains("asks for [512, 256]"),
        "{error}"
    );
    file.metadata.set("llama.vocab_size", Value::U32(9));
    assert!(
        file.error()
            .contains("key `llama.vocab_size` is 9: tensor `token_embd.weight` has 8 rows")
    );
}

#[test]
fn keys_and_tensors_that_are_missing_are_named() {
    let mut file = File::tiny(Format::I2S);
    file.parts.retain(|part| part.name != GATE);
    assert!(
        file.error()
            .ends_with("has no tensor `blk.0.ffn_gate.weight`")
    );
    file.parts
        .retain(|part| part.name != "blk.0.attn_sub_norm.weight");
    assert!(
        file.error()
            .ends_with("has no tensor `blk.0.attn_sub_norm.weight`")
    );
    file.metadata = Metadata::default();
    assert!(
        file.error()
            .ends_with("key `general.architecture` is missing")
    );
    file.metadata
        .set("general.architecture", Value::String("mamba".into()));
    assert!(
        file.error()
            .contains("key `general.architecture` is `mamba`, which is not supported")
    );
    file.metadata
        .set("general.architecture", Value::String("qwen2".into()));
    assert!(
        file.error()
            .ends_with("key `qwen2.embedding_length` is missing")
    );
}

#[test]
fn sizes_without_sense_are_refused_before_anything_is_allocated() {
    let keys = [
        "block_count",
        "embedding_length",
        "attention.head_count",
        "attention.head_count_kv",
        "feed_forward_length",
        "context_length",
    ];
    for key in keys {
        for size in [0, u64::from(u32::MAX), u64::MAX] {
            let mut file = File::tiny(Format::I2S);
            let key = format!("bitnet-b1.58.{key}");
            file.metadata.set(key.clone(), Value::U64(size));
            let error = file.error();
            assert!(
                error.contains(&key) || error.contains("tensor"),
                "{key} {size}: {error}"
            );
        }
    }
}

#[test]
fn a_code_that_no_trit_has_and_a_scale_that_is_no_number_are_refused() {
    let mut file = File::tiny(Format::I2S);
    file.part(GATE).bytes[100] = 0b0111_0000;
    let error = file.error();
    assert!(
        error.contains(GATE) && error.contains("code 3") && error.contains("byte 100"),
        "{error}"
    );

    let mut file = File::tiny(Format::I2S);
    let codes = 256 * 256 / 4;
    file.part(GATE).bytes[codes..codes + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(file.error().contains("has a scale that is not finite"));

    let mut file = File::tiny(Format::I2S);
    file.part("output_norm.weight").bytes[..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    assert!(file.error().contains("is not finite at element 0"));
}

#[test]
fn what_a_reader_must_know_becomes_a_warning() {
    let mut file = File::tiny(Format::I2S);
    file.part(GATE).bytes[..256 * 256 / 4].fill(0b0101_0101);
    file.add_f32("blk.0.attn_q_norm.weight", &[1.0; 64]);
    let warnings = file.load().unwrap().source.warnings;
    assert_eq!(warnings[0], "tensor `blk.0.ffn_gate.weight` is all zeros");
    assert!(
        warnings[1].contains("`blk.0.attn_q_norm.weight`"),
        "{warnings:?}"
    );
}

#[test]
fn a_separate_scale_multiplies() {
    let mut file = File::tiny(Format::I2S);
    let scale = |file: &File| gate(&file.load().unwrap()).scale.clone();
    let TernaryScale::Tensor(before) = scale(&file) else {
        panic!("one scale");
    };
    file.add_f32("blk.0.ffn_gate.scale", &[2.0]);
    assert_eq!(scale(&file), TernaryScale::Tensor(2.0 * before));
    file.add_f32("blk.0.ffn_gate_scale", &[0.25]);
    assert_eq!(scale(&file), TernaryScale::Tensor(0.5 * before));
}

#[test]
fn blocks_of_different_scales_keep_them_unless_they_are_zeros() {
    let mut file = File::tiny(Format::Tq2_0);
    let block = |trit: i8, scale: f32| {
        let mut bytes = vec![0; tq2_0::BLOCK_BYTES];
        tq2_0::pack_block(&[trit; 256], f16::from_f32(scale), &mut bytes);
        bytes
    };
    let uniform: Vec<u8> = block(0, 9.0)
        .into_iter()
        .chain(block(1, 0.5).repeat(255))
        .collect();
    file.part(GATE).bytes = uniform;
    assert_eq!(gate(&file.load().unwrap()).scale, TernaryScale::Tensor(0.5));

    let mixed: Vec<u8> = block(-1, 9.0)
        .into_iter()
        .chain(block(1, 0.5).repeat(255))
        .collect();
    file.part(GATE).bytes = mixed;
    let mut expected = vec![0.5; 256];
    expected[0] = 9.0;
    let model = file.load().unwrap();
    assert_eq!(gate(&model).scale, TernaryScale::Blocks(expected));
}

#[test]
fn floats_of_a_ternary_model_are_taken_as_they_are_or_quantised() {
    let floats = |values: &dyn Fn(usize) -> f32| {
        let mut file = File::tiny(Format::I2S);
        let part = file.part(GATE);
        part.kind = TensorType::F32;
        part.bytes = (0..256 * 256)
            .flat_map(|i| values(i).to_le_bytes())
            .collect();
        let model = file.load().unwrap();
        assert_eq!(model.source.stored_linear_format, "f32+i2_s");
        let mut row = vec![0; 256];
        i2_s::unpack_row(&gate(&model).i2_s_rows()[..64], &mut row);
        (gate(&model).scale.clone(), row[..3].to_vec())
    };
    // Exactly -s, 0, s.
    let (scale, row) = floats(&|i| [0.25, 0.0, -0.25][i % 256 % 3]);
    assert_eq!((scale, row), (TernaryScale::Tensor(0.25), vec![1, 0, -1]));
    // Anything else: the mean magnitude is (3 + 1) / 2 over pairs.
    let (scale, row) = floats(&|i| [3.0, -1.0][i % 2]);
    assert_eq!((scale, row), (TernaryScale::Tensor(2.0), vec![1, 0, 1]));
}

#[test]
fn other_i2_s_layouts_are_read_only_when_asked_for() {
    let mut file = File::tiny(Format::I2S);
    let codes = &mut file.part(GATE).bytes[..256 * 256 / 4];
    codes.fill(0b0101_0101);
    codes[16] = 0b1001_0101; // the second block of 64: weight 64
    let row = |layout| {
        let options = LoadOptions {
            i2_s_layout: layout,
            ..LoadOptions::default()
        };
        let mut row = vec![0; 256];
        i2_s::unpack_row(
            &gate(&file.load_as(&options).unwrap()).i2_s_rows()[..64],
            &mut row,
        );
        row.iter().position(|&trit| trit != 0)
    };
    assert_eq!(row(I2sLayout::Blocks128), Some(16));
    assert_eq!(row(I2sLayout::Blocks64), Some(64));
    // Column 16 of the first of four rows.
    assert_eq!(row(I2sLayout::RowsInFours), Some(16));
    // The second of four rows shares the byte there, and is a row of its own elsewhere.
    let codes = &mut file.part(GATE).bytes[..256 * 256 / 4];
    codes[16] = 0b0110_0101;
    let first = |layout| {
        let options = LoadOptions {
            i2_s_layout: layout,
            ..LoadOptions::default()
        };
        let mut row = vec![0; 256];
        let rows = gate(&file.load_as(&options).unwrap()).i2_s_rows();
        let nth = rows.chunks(64).position(|codes| !i2_s::is_all_zero(codes));
        i2_s::unpack_row(&rows[64 * nth.unwrap()..][..64], &mut row);
        (nth, row.iter().position(|&trit| trit != 0))
    };
    assert_eq!(first(I2sLayout::Blocks128), (Some(0), Some(48)));
    assert_eq!(first(I2sLayout::Blocks64), (Some(0), Some(80)));
    assert_eq!(first(I2sLayout::RowsInFours), (Some(1), Some(16)));
}

#[test]
fn types_whose_numbers_two_programs_gave_away_are_refused_by_both_names() {
    let bytes = File::tiny(Format::I2S).bytes();
    // The type of a tensor stands behind its name and its two dimensions.
    let name = bytes
        .windows(GATE.len())
        .position(|window| window == GATE.as_bytes())
        .unwrap();
    let at = name + GATE.len() + 4 + 2 * 8;
    assert_eq!(bytes[at..at + 4], 36_u32.to_le_bytes());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    for (id, words) in [
        (37_u32, "type 37 (bitnet.cpp's i8_s)"),
        (38, "bitnet.cpp's tl1"),
        (39, "bitnet.cpp's tl2 or llama.cpp's mxfp4"),
        (40, "llama.cpp's nvfp4"),
        (41, "llama.cpp's q1_0"),
        (42, "llama.cpp's q2_0"),
        (135, "iq_bn"),
        (9_999, "type 9999,"),
    ] {
        let mut bytes = bytes.clone();
        bytes[at..at + 4].copy_from_slice(&id.to_le_bytes());
        fs::write(&path, bytes).unwrap();
        let error = chain(&load(&path, &LoadOptions::default()).unwrap_err());
        assert!(
            error.contains(words) && error.contains(GATE),
            "{id}: {error}"
        );
    }
}

#[test]
fn paths_that_are_no_model_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let error = |path: &Path| chain(&load(path, &LoadOptions::default()).unwrap_err());
    assert!(error(&folder.path().join("nothing")).starts_with("cannot open"));
    assert!(error(folder.path()).contains("config.json"));
    let text = folder.path().join("text");
    fs::write(&text, "hello").unwrap();
    assert!(error(&text).contains("not a GGUF file: it begins with [68, 65, 6c, 6c]"));
}

#[test]
fn a_sharded_folder_is_read_through_its_index() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    let config = r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 4,
        "intermediate_size": 4, "num_hidden_layers": 0, "num_attention_heads": 2, "vocab_size": 2,
        "tie_word_embeddings": true}"#;
    let layers = "model.layers.0.";
    let vectors = ["input_layernorm", "post_attention_layernorm"].map(|name| (name, 4));
    let linears = [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
    ];
    let linears = linears
        .iter()
        .chain(&["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]);
    let mut second: Vec<(String, Vec<usize>)> = vectors
        .iter()
        .map(|(name, len)| (format!("{layers}{name}.weight"), vec![*len]))
        .chain(linears.map(|name| (format!("{layers}{name}.weight"), vec![4, 4])))
        .collect();
    second.push(("model.norm.weight".into(), vec![4]));
    let first = vec![("model.embed_tokens.weight".to_owned(), vec![2, 4])];
    let mut weight_map = serde_json::Map::new();
    for (file, tensors) in [("a.safetensors", &first), ("b.safetensors", &second)] {
        let bytes = [0; 64];
        let views = tensors.iter().map(|(name, shape)| {
            let len = shape.iter().product::<usize>() * 4;
            let view = safetensors::tensor::TensorView::new(
                safetensors::Dtype::F32,
                shape.clone(),
                &bytes[..len],
            );
            (name.clone(), view.unwrap())
        });
        write(file, &safetensors::serialize(views, None).unwrap());
        for (name, _) in tensors {
            weight_map.insert(name.clone(), file.into());
        }
    }
    write(
        "config.json",
        config
            .replace("\"num_hidden_layers\": 0", "\"num_hidden_layers\": 1")
            .as_bytes(),
    );
    let index = |map: &serde_json::Map<String, serde_json::Value>| {
        serde_json::json!({ "weight_map": map }).to_string()
    };
    write(
        "model.safetensors.index.json",
        index(&weight_map).as_bytes(),
    );
    let model = load(folder.path(), &LoadOptions::default()).unwrap();
    assert_eq!(model.source.files.len(), 4);
    assert_eq!(model.source.n_linear_params, 7 * 16);
    assert_eq!(model.source.linear_format, "f32");

    // A tensor that is not in the file the index names.
    weight_map.insert("model.norm.weight".into(), "a.safetensors".into());
    write(
        "model.safetensors.index.json",
        index(&weight_map).as_bytes(),
    );
    let error = chain(&load(folder.path(), &LoadOptions::default()).unwrap_err());
    assert!(
        error.contains("a.safetensors has no tensor `model.norm.weight`"),
        "{error}"
    );
    // A file outside the folder.
    weight_map.insert("model.norm.weight".into(), "../b.safetensors".into());
    write(
        "model.safetensors.index.json",
        index(&weight_map).as_bytes(),
    );
    let error = chain(&load(folder.path(), &LoadOptions::default()).unwrap_err());
    assert!(
        error.contains("must be the name of a file in the same folder"),
        "{error}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn flipped_bits_in_the_description_never_panic(
        flips in proptest::collection::vec((0_usize..1 << 14, 0_u32..8), 1..4)
    ) {
        let mut bytes = File::tiny(Format::Tq1_0).bytes();
        let description = Gguf::parse(&bytes).unwrap().data_offset as usize;
        for (at, bit) in flips {
            bytes[at % description] ^= 1 << bit;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flipped.gguf");
        fs::write(&path, bytes).unwrap();
        let _ = load(&path, &LoadOptions::default());
    }
}
