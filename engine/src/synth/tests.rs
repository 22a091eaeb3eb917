//! The shapes against the paper's table, and files that load.

use std::{collections::BTreeMap, env, fs};

use super::*;
use crate::{
    format::gguf::{Array, Gguf},
    load::{LoadOptions, LoadedModel, VocabSource, load},
    weights::{Matrix, TernaryScale},
};

const TINY: Shape = Shape {
    name: "tiny",
    hidden_size: 256,
    ffn_size: 512,
    n_layers: 2,
    n_heads: 8,
    n_kv_heads: 2,
    head_dim: 32,
    vocab_size: 300,
    context_length: 128,
    rope_theta: 10_000.0,
};

#[test]
fn the_shapes_are_those_of_the_papers_appendix() {
    let Some(data) = env::var_os("TRITMARK_DATA") else {
        eprintln!("NOT RUN: the shapes of the appendix need TRITMARK_DATA");
        return;
    };
    let table = Path::new(&data).join("paper-tables/2410.16144_appendixA_model_configs.csv");
    let table = fs::read_to_string(table).unwrap();
    let mut models: BTreeMap<String, BTreeMap<&str, usize>> = BTreeMap::new();
    for row in table.lines().skip(1) {
        let cells: Vec<&str> = row.split(',').collect();
        let name = cells[5].rsplit(' ').next().unwrap().to_lowercase();
        let value = cells[10].parse().unwrap();
        models.entry(name).or_default().insert(cells[8], value);
    }
    assert_eq!(models.len(), 12);
    for (name, sizes) in &models {
        let shape = shape(name).unwrap_or_else(|| panic!("no shape {name}"));
        let ours = BTreeMap::from([
            ("hidden_size", shape.hidden_size),
            ("intermediate_size", shape.ffn_size),
            ("num_hidden_layers", shape.n_layers),
            ("num_attention_heads", shape.n_heads),
        ]);
        assert_eq!(*sizes, ours, "{name}");
    }
    assert_eq!(shapes().len(), models.len() + 1, "and 2b4t");
}

#[test]
fn every_shape_fits_every_format() {
    for shape in shapes() {
        assert_eq!(shape.n_heads % shape.n_kv_heads, 0);
        assert_eq!(shape.head_dim % 2, 0);
        for format in Format::ALL {
            let bits = file_bytes(shape, format).unwrap() as f64 * 8.0;
            assert!(
                bits > shape.n_linear_params() as f64 * 1.6,
                "{}",
                shape.name
            );
            assert_eq!(Format::from_name(format.name()), Some(format));
        }
    }
    // The official file has a vocabulary of some 7 MB besides.
    let official = 1_187_801_280_u64;
    let ours = file_bytes(shape("2b4t").unwrap(), Format::I2S).unwrap();
    assert!(
        (5_000_000..12_000_000).contains(&(official - ours)),
        "{ours}"
    );
}

fn written(folder: &Path, format: Format, seed: u64) -> LoadedModel {
    let path = folder.join(format!("{}-{seed}.gguf", format.name()));
    let (mut last, mut total) = (0, 0);
    write(&TINY, format, seed, &path, |done, all| {
        assert!(done >= last);
        (last, total) = (done, all);
    })
    .unwrap();
    assert_eq!(last, total);
    assert_eq!(
        fs::metadata(&path).unwrap().len(),
        file_bytes(&TINY, format).unwrap()
    );
    load(&path, &LoadOptions::default()).unwrap()
}

#[test]
fn every_format_loads_without_a_vocabulary() {
    let folder = tempfile::tempdir().unwrap();
    for format in Format::ALL {
        let model = written(folder.path(), format, 7);
        let linears = format.name().trim_end_matches("+q6_k");
        assert_eq!(model.source.stored_linear_format, linears);
        let head = match format {
            Format::F32 => "f32",
            Format::Bf16 => "bf16",
            Format::I2SQ6K => "q6_k",
            _ => "f16",
        };
        assert_eq!(model.source.head_format, head);
        assert_eq!(model.source.n_linear_params, TINY.n_linear_params());
        assert_eq!(model.source.warnings, Vec::<String>::new());
        assert_eq!(model.vocab, VocabSource::None);
        assert_eq!(model.config.head_dim, 32);
        let bits = model.source.bits_per_weight;
        let expected = match format {
            Format::F32 => 32.0,
            Format::F16 | Format::Bf16 => 16.0,
            Format::Q8_0 => 8.5,
            Format::Q5_0 | Format::Q5K => 5.5,
            Format::Q4_0 | Format::Q4K => 4.5,
            Format::Q6K => 6.5625,
            _ => 2.0,
        };
        assert!((bits - expected).abs() < 0.01, "{}: {bits}", format.name());
    }
    let names = fs::read_dir(folder.path()).unwrap();
    assert_eq!(
        names.count(),
        Format::ALL.len(),
        "no temporary file is left"
    );
}

#[test]
fn the_ternary_formats_of_a_seed_agree_and_seeds_differ() {
    let folder = tempfile::tempdir().unwrap();
    let down = |format, seed| {
        let model = written(folder.path(), format, seed);
        let Matrix::Ternary(matrix) = &model.weights.layers[1].down.matrix else {
            panic!("ternary");
        };
        let TernaryScale::Tensor(scale) = matrix.scale else {
            panic!("one scale");
        };
        (matrix.codes.to_vec(), scale.to_bits())
    };
    let reference = down(Format::I2S, 1);
    assert_eq!(down(Format::Tq2_0, 1), reference);
    assert_eq!(down(Format::Tq1_0, 1), reference);
    assert_ne!(down(Format::I2S, 2), reference);
}

#[test]
fn every_format_of_a_linear_has_values_of_one_size_around_zero() {
    let folder = tempfile::tempdir().unwrap();
    for format in Format::ALL {
        let model = written(folder.path(), format, 5);
        let Matrix::Dense(matrix) = &model.weights.layers[0].gate.matrix else {
            assert!(format.is_ternary());
            continue;
        };
        let mut row = vec![0.0; matrix.cols];
        let (mut sum, mut squares) = (0.0, 0.0);
        for nth in 0..matrix.rows {
            crate::kernels::widen(matrix, nth, &mut row);
            sum += row.iter().map(|&x| f64::from(x)).sum::<f64>();
            squares += row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
        }
        let n = (matrix.rows * matrix.cols) as f64;
        // 512 rows of 256: values of 1/16.
        let deviation = (squares / n).sqrt() * 16.0;
        assert!((deviation - 1.0).abs() < 0.02, "{format:?}: {deviation}");
        assert!((sum / n).abs() * 16.0 < 0.02, "{format:?}: {}", sum / n);
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    for format in Format::ALL {
        let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
        write(&TINY, format, 3, &a, |_, _| {}).unwrap();
        write(&TINY, format, 3, &b, |_, _| {}).unwrap();
        assert!(
            fs::read(a).unwrap() == fs::read(b).unwrap(),
            "{}",
            format.name()
        );
    }
}

#[test]
fn a_shape_that_a_format_cannot_hold_is_refused_before_writing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let narrow = Shape {
        hidden_size: 128,
        ..TINY
    };
    let error = write(&narrow, Format::Tq2_0, 1, &path, |_, _| {}).unwrap_err();
    assert_eq!(error.to_string(), "shape `tiny` cannot be written as tq2_0");
    assert!(fs::read_dir(folder.path()).unwrap().next().is_none());
}

/// Bound: the disk, and the 16 bits drawn for each byte; about 1 s of drawing for 2B4T.
#[test]
#[ignore = "bench"]
fn the_2b4t_shape_is_written_in_seconds() {
    let folder = tempfile::tempdir().unwrap();
    for format in [Format::I2S, Format::Q4_0] {
        let path = folder.path().join(format.name());
        let start = std::time::Instant::now();
        write(shape("2b4t").unwrap(), format, 1, &path, |_, _| {}).unwrap();
        let wrote = start.elapsed();
        let start = std::time::Instant::now();
        let model = load(&path, &LoadOptions::default()).unwrap();
        let loaded = start.elapsed();
        let bytes = model.source.file_bytes;
        eprintln!(
            "{}: {bytes} bytes, written in {wrote:?}, loaded in {loaded:?}",
            format.name()
        );
    }
}

#[test]
fn a_vocabulary_is_taken_from_another_file_if_it_fits() {
    let strings = |strings: Vec<String>| Value::Array(Array::String(strings));
    let vocabulary = |n_tokens: usize| {
        let mut metadata = Metadata::default();
        metadata.set("general.name", Value::String("another".into()));
        metadata.set("tokenizer.ggml.model", Value::String("gpt2".into()));
        metadata.set("tokenizer.ggml.pre", Value::String("llama-bpe".into()));
        let tokens = (0..n_tokens).map(|n| format!("t{n}")).collect();
        metadata.set("tokenizer.ggml.tokens", strings(tokens));
        metadata.set("tokenizer.ggml.merges", strings(Vec::new()));
        metadata.set("tokenizer.ggml.eos_token_id", Value::U32(9));
        metadata
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spoken.gguf");
    let make = |metadata| write_with_vocabulary(&TINY, Format::I2S, 7, &metadata, &path, |_, _| {});
    let without = vocabulary(TINY.vocab_size - 1);
    let said = make(without).unwrap_err().to_string();
    assert!(said.contains("299") && said.contains("300"), "{said}");
    let said = make(Metadata::default()).unwrap_err().to_string();
    assert!(said.contains("has no tokens"), "{said}");
    assert!(!path.exists());

    make(vocabulary(TINY.vocab_size)).unwrap();
    let model = load(&path, &LoadOptions::default()).unwrap();
    let VocabSource::Gguf(vocab) = &model.vocab else {
        panic!("a vocabulary: {:?}", model.vocab);
    };
    assert_eq!(vocab.tokens[299], "t299");
    assert_eq!(vocab.eos_id, Some(9));
    let mute = folder.path().join("mute.gguf");
    write(&TINY, Format::I2S, 7, &mute, |_, _| {}).unwrap();
    let [spoken, mute] = [path, mute].map(|path| fs::read(path).unwrap());
    let tensors = |bytes: &[u8]| Gguf::parse(bytes).unwrap().tensors.len();
    assert_eq!(tensors(&spoken), tensors(&mute));
    let name = |bytes: &[u8]| {
        Gguf::parse(bytes)
            .unwrap()
            .metadata
            .get("general.name")
            .cloned()
    };
    assert_eq!(name(&spoken), name(&mute));
    let weights = |bytes: &[u8]| {
        let offset = Gguf::parse(bytes).unwrap().data_offset as usize;
        bytes[offset..].to_vec()
    };
    assert_eq!(weights(&spoken), weights(&mute));
}
