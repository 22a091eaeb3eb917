//! Round trips, and files that lie.

use proptest::prelude::*;

use super::*;

fn small() -> Vec<u8> {
    let mut metadata = Metadata::default();
    metadata.set("general.architecture", Value::String("bitnet-b1.58".into()));
    metadata.set("a.u8", Value::U8(1));
    metadata.set("a.bool", Value::Bool(true));
    metadata.set(
        "a.strings",
        Value::Array(Array::String(vec!["x".into(), "yz".into()])),
    );
    metadata.set(
        "a.nested",
        Value::Array(Array::Array(vec![
            Array::I16(vec![1, -2]),
            Array::Bool(vec![true, false]),
        ])),
    );
    let mut layout = Layout::new(metadata);
    layout.add("norm", &[8], TensorType::F32).unwrap();
    layout.add("linear", &[128, 2], TensorType::I2S).unwrap();
    let mut writer = layout.begin(Vec::new()).unwrap();
    writer.write(&[0; 32]).unwrap();
    writer.write(&[0x55; 64]).unwrap();
    writer.write(&[0; 32]).unwrap();
    writer.finish()
}

/// A header with these counts and nothing after it.
fn header(n_tensors: u64, n_keys: u64) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(3_u32.to_le_bytes());
    bytes.extend(n_tensors.to_le_bytes());
    bytes.extend(n_keys.to_le_bytes());
    bytes
}

/// One tensor description.
fn describe(bytes: &mut Vec<u8>, name: &str, dims: &[u64], id: u32, offset: u64) {
    bytes.extend((name.len() as u64).to_le_bytes());
    bytes.extend(name.as_bytes());
    bytes.extend((dims.len() as u32).to_le_bytes());
    for dim in dims {
        bytes.extend(dim.to_le_bytes());
    }
    bytes.extend(id.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
}

#[test]
fn a_written_file_reads_back() {
    let bytes = small();
    let gguf = Gguf::parse(&bytes).unwrap();
    assert_eq!(gguf.version, 3);
    assert_eq!(gguf.metadata.u64("a.u8").unwrap(), Some(1));
    assert_eq!(gguf.metadata.bool("a.bool").unwrap(), Some(true));
    assert_eq!(
        gguf.metadata.strings("a.strings").unwrap().unwrap(),
        ["x", "yz"]
    );
    let linear = gguf.tensor("linear").unwrap();
    assert_eq!(linear.dims, [128, 2]);
    assert_eq!(linear.len, 64 + 32);
    assert_eq!(bytes[linear.offset as usize], 0x55);
    assert_eq!(linear.offset % 32, 0);
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let bytes = small();
    for len in 0..bytes.len() {
        assert!(Gguf::parse(&bytes[..len]).is_err(), "cut at {len}");
    }
}

#[test]
fn hostile_counts_are_refused_before_anything_is_allocated() {
    let refused = |bytes: &[u8]| Gguf::parse(bytes).unwrap_err().to_string();
    assert!(refused(&header(0, u64::MAX)).contains("18446744073709551615 metadata keys"));
    assert!(refused(&header(u64::MAX, 0)).contains("18446744073709551615 tensors"));

    let mut long_key = header(0, 1);
    long_key.extend(u64::MAX.to_le_bytes());
    long_key.extend([0; 64]);
    assert!(refused(&long_key).contains("the name of metadata key 0"));

    for element in [0_u32, 4, 7, 8, 9, 12] {
        let mut array = header(0, 1);
        array.extend(1_u64.to_le_bytes());
        array.extend(b"k");
        array.extend(9_u32.to_le_bytes());
        array.extend(element.to_le_bytes());
        array.extend((u64::MAX / 2).to_le_bytes());
        array.extend([0; 64]);
        assert!(refused(&array).contains("key `k`"), "element {element}");
    }
}

#[test]
fn arrays_nested_too_deep_are_refused() {
    let mut bytes = header(0, 1);
    bytes.extend(1_u64.to_le_bytes());
    bytes.extend(b"k");
    bytes.extend(9_u32.to_le_bytes());
    for _ in 0..1000 {
        bytes.extend(9_u32.to_le_bytes());
        bytes.extend(1_u64.to_le_bytes());
    }
    assert_eq!(
        Gguf::parse(&bytes),
        Err(GgufError::Nesting {
            key: "k".into(),
            limit: 4
        })
    );
}

/// Name, dimensions, type and offset of a tensor.
type Info<'a> = (&'a str, &'a [u64], u32, u64);

/// Parses a file of these tensors and 256 bytes of data.
fn tensors(infos: &[Info<'_>]) -> String {
    let mut bytes = header(infos.len() as u64, 0);
    for &(name, dims, id, offset) in infos {
        describe(&mut bytes, name, dims, id, offset);
    }
    let data = bytes.len().next_multiple_of(32);
    bytes.resize(data + 256, 0);
    match Gguf::parse(&bytes) {
        Ok(_) => "fine".into(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn tensors_that_lie_are_named() {
    let cases: [(&[Info<'_>], &str); 14] = [
        (&[("w", &[32], 0, 0), ("v", &[32], 0, 128)], "fine"),
        (
            &[("w", &[33], 0, 0), ("v", &[8], 0, 128)],
            "tensors `w` and `v` overlap",
        ),
        (
            &[("w", &[8], 0, 0), ("v", &[8], 0, 0)],
            "tensors `w` and `v` overlap",
        ),
        (
            &[("w", &[8], 0, 0), ("w", &[8], 0, 32)],
            "tensor `w` occurs twice",
        ),
        (&[("w", &[65], 0, 0)], "tensor `w` takes 260 bytes"),
        (
            &[("w", &[8], 0, u64::MAX - 31)],
            "tensor `w` takes 32 bytes",
        ),
        (&[("w", &[8], 0, 4)], "not aligned to 32 bytes"),
        (&[("w", &[0], 0, 0)], "impossible shape [0]"),
        (&[("w", &[u64::MAX, 2], 0, 0)], "impossible shape"),
        (&[("w", &[u64::MAX], 0, 0)], "impossible shape"),
        (&[("w", &[], 0, 0)], "has 0 dimensions"),
        (&[("w", &[1, 1, 1, 1, 1], 0, 0)], "has 5 dimensions"),
        (
            &[("w", &[100], 36, 0)],
            "the number of weights is not a multiple of 128",
        ),
        (
            &[("w", &[128, 2], 35, 0)],
            "cannot be tq2_0: the row is not a multiple of 256",
        ),
    ];
    for (infos, expected) in cases {
        let found = tensors(infos);
        assert!(found.contains(expected), "{found} <> {expected}");
    }
}

#[test]
fn an_unknown_type_is_named_with_what_it_may_be() {
    assert_eq!(
        tensors(&[("blk.0.attn_q.weight", &[256], 39, 0)]),
        "tensor `blk.0.attn_q.weight` has type 39 (bitnet.cpp's tl2 or llama.cpp's mxfp4), which \
         is not supported (supported: f32, f16, q4_0, q5_0, q8_0, q4_k, q5_k, q6_k, bf16, tq1_0, \
         tq2_0, i2_s)"
    );
}

#[test]
fn other_versions_and_byte_orders_are_told_apart() {
    let mut bytes = header(0, 0);
    bytes[4..8].copy_from_slice(&1_u32.to_le_bytes());
    assert_eq!(Gguf::parse(&bytes), Err(GgufError::Version { version: 1 }));
    bytes[4..8].copy_from_slice(&3_u32.to_be_bytes());
    assert_eq!(
        Gguf::parse(&bytes),
        Err(GgufError::BigEndian { version: 3 })
    );
    bytes[0] = b'g';
    assert!(matches!(Gguf::parse(&bytes), Err(GgufError::Magic { .. })));
}

#[test]
fn an_alignment_that_is_no_power_of_two_is_refused() {
    for alignment in [0, 3, u32::MAX] {
        let mut metadata = Metadata::default();
        metadata.set("general.alignment", Value::U32(alignment));
        let bytes = Layout::new(metadata).begin(Vec::new()).unwrap().finish();
        assert_eq!(
            Gguf::parse(&bytes),
            Err(GgufError::Alignment {
                alignment: alignment.into()
            })
        );
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        any::<bool>().prop_map(Value::Bool),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        (-1e9_f32..1e9).prop_map(Value::F32),
        (-1e9_f64..1e9).prop_map(Value::F64),
        ".{0,20}".prop_map(Value::String),
        any_array().prop_map(Value::Array),
    ]
}

fn any_array() -> impl Strategy<Value = Array> {
    let leaf = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..9).prop_map(Array::U8),
        proptest::collection::vec(any::<i8>(), 0..9).prop_map(Array::I8),
        proptest::collection::vec(any::<u16>(), 0..9).prop_map(Array::U16),
        proptest::collection::vec(any::<i16>(), 0..9).prop_map(Array::I16),
        proptest::collection::vec(any::<u32>(), 0..9).prop_map(Array::U32),
        proptest::collection::vec(any::<i32>(), 0..9).prop_map(Array::I32),
        proptest::collection::vec(-1e9_f32..1e9, 0..9).prop_map(Array::F32),
        proptest::collection::vec(any::<bool>(), 0..9).prop_map(Array::Bool),
        proptest::collection::vec(".{0,9}", 0..9).prop_map(Array::String),
        proptest::collection::vec(any::<u64>(), 0..9).prop_map(Array::U64),
        proptest::collection::vec(any::<i64>(), 0..9).prop_map(Array::I64),
        proptest::collection::vec(-1e9_f64..1e9, 0..9).prop_map(Array::F64),
    ];
    leaf.prop_recursive(3, 16, 3, |inner| {
        proptest::collection::vec(inner, 0..3).prop_map(Array::Array)
    })
}

proptest! {
    #[test]
    fn any_metadata_reads_back(entries in proptest::collection::vec(("[a-z.]{1,12}", any_value()), 0..12)) {
        let mut metadata = Metadata::default();
        for (key, value) in entries {
            metadata.set(key, value);
        }
        let bytes = Layout::new(metadata.clone()).begin(Vec::new()).unwrap().finish();
        let read = Gguf::parse(&bytes).unwrap();
        prop_assert_eq!(read.metadata, metadata);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Gguf::parse(&bytes).is_err());
        let mut with_header = header(2, 3);
        with_header.extend(&bytes);
        let _ = Gguf::parse(&with_header);
    }

    #[test]
    fn flipped_bits_never_panic(flips in proptest::collection::vec((0_usize..1 << 14, 0_u32..8), 1..8)) {
        let mut bytes = small();
        for (at, bit) in flips {
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
        }
        if let Ok(gguf) = Gguf::parse(&bytes) {
            for tensor in gguf.tensors {
                prop_assert!(tensor.offset + tensor.len <= bytes.len() as u64);
            }
        }
    }
}
