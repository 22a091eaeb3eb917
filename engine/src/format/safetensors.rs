//! safetensors (huggingface/safetensors, `README.md`, format): a u64 length, that many bytes of
//! JSON naming each tensor's type, shape and range, then the tensors' bytes.
//!
//! Read here rather than by the crate, whose errors do not name the tensor; its element types are
//! used. As there, ranges must follow each other without gaps up to the end of the file.

use std::{collections::BTreeMap, fmt};

use safetensors::Dtype;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};

/// Largest header that is read, bytes; the reference implementation's limit.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// The description of a safetensors file.
#[derive(Clone, Debug, PartialEq)]
pub struct Safetensors {
    /// Free texts under `__metadata__`.
    pub metadata: BTreeMap<String, String>,
    /// Tensors in the order of their ranges, which are within the file.
    pub tensors: Vec<TensorInfo>,
}

/// A tensor of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    /// Unique name.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions, the slowest first.
    pub shape: Vec<u64>,
    /// First byte, from the file's start.
    pub offset: u64,
    /// Bytes; `offset + len` is within the file.
    pub len: u64,
}

/// A fault of a safetensors file's structure.
#[derive(Debug, thiserror::Error)]
pub enum SafetensorsError {
    /// Shorter than the header's length.
    #[error("{file_bytes} bytes are too few for a safetensors file")]
    TooShort {
        /// The file's size.
        file_bytes: u64,
    },
    /// A header beyond the file's end or the limit.
    #[error(
        "the header at offset 8 claims {header_bytes} bytes in a file of {file_bytes} bytes \
         (at most {MAX_HEADER_BYTES} are read)"
    )]
    HeaderLength {
        /// Length in the file.
        header_bytes: u64,
        /// The file's size.
        file_bytes: u64,
    },
    /// JSON that is none, or is not of this format.
    #[error("the header at offset 8 cannot be read")]
    Header(#[source] serde_json::Error),
    /// A size beyond 64 bits.
    #[error("tensor `{tensor}` has the impossible shape {shape:?}")]
    Shape {
        /// Tensor.
        tensor: String,
        /// Dimensions, the slowest first.
        shape: Vec<u64>,
    },
    /// A range whose length is not that of the shape.
    #[error(
        "tensor `{tensor}` of type {dtype} and shape {shape:?} takes {expected} bytes, but its \
         data_offsets are [{start}, {end}]"
    )]
    Length {
        /// Tensor.
        tensor: String,
        /// Element type.
        dtype: Dtype,
        /// Dimensions, the slowest first.
        shape: Vec<u64>,
        /// Bytes of that type and shape.
        expected: u64,
        /// Start in the file's header.
        start: u64,
        /// End in the file's header.
        end: u64,
    },
    /// A range that does not begin where the one before it ends.
    #[error(
        "tensor `{tensor}` begins at offset {start} of the data, where {expected} was expected: \
         tensors overlap or leave a gap"
    )]
    Range {
        /// Tensor.
        tensor: String,
        /// Start in the file's header.
        start: u64,
        /// End of the tensor before it.
        expected: u64,
    },
    /// Tensors that end elsewhere than the file.
    #[error("the tensors end at offset {end} of {data_bytes} bytes of data")]
    End {
        /// End of the last tensor.
        end: u64,
        /// Bytes behind the header.
        data_bytes: u64,
    },
}

impl Safetensors {
    /// Reads the description of a whole safetensors file given as bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, SafetensorsError> {
        let file_bytes = bytes.len() as u64;
        let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
            return Err(SafetensorsError::TooShort { file_bytes });
        };
        let header_bytes = u64::from_le_bytes(*length);
        if header_bytes > MAX_HEADER_BYTES || header_bytes > rest.len() as u64 {
            return Err(SafetensorsError::HeaderLength {
                header_bytes,
                file_bytes,
            });
        }
        let header: Header = serde_json::from_slice(&rest[..header_bytes as usize])
            .map_err(SafetensorsError::Header)?;
        let data_offset = 8 + header_bytes;
        Ok(Self {
            metadata: header.metadata,
            tensors: place(header.tensors, data_offset, file_bytes - data_offset)?,
        })
    }

    /// Returns the tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }
}

fn place(
    entries: BTreeMap<String, Entry>,
    data_offset: u64,
    data_bytes: u64,
) -> Result<Vec<TensorInfo>, SafetensorsError> {
    let mut entries: Vec<(String, Entry)> = entries.into_iter().collect();
    // Empty tensors share their start with the next one.
    entries.sort_by_key(|(_, entry)| entry.data_offsets);
    let mut tensors = Vec::with_capacity(entries.len());
    let mut next = 0;
    for (name, entry) in entries {
        let Entry {
            dtype,
            shape,
            data_offsets: (start, end),
        } = entry;
        let bits = shape
            .iter()
            .try_fold(dtype.bitsize() as u64, |n, &dim| n.checked_mul(dim));
        let Some(len) = bits.filter(|bits| bits % 8 == 0).map(|bits| bits / 8) else {
            return Err(SafetensorsError::Shape {
                tensor: name,
                shape,
            });
        };
        if end.checked_sub(start) != Some(len) {
            return Err(SafetensorsError::Length {
                tensor: name,
                dtype,
                shape,
                expected: len,
                start,
                end,
            });
        }
        if start != next {
            return Err(SafetensorsError::Range {
                tensor: name,
                start,
                expected: next,
            });
        }
        next = end;
        if end > data_bytes {
            return Err(SafetensorsError::End { end, data_bytes });
        }
        tensors.push(TensorInfo {
            name,
            dtype,
            shape,
            offset: data_offset + start,
            len,
        });
    }
    if next != data_bytes {
        return Err(SafetensorsError::End {
            end: next,
            data_bytes,
        });
    }
    Ok(tensors)
}

/// One tensor of the JSON.
#[derive(Deserialize)]
struct Entry {
    dtype: Dtype,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// The JSON, each name once.
#[derive(Default)]
struct Header {
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, Entry>,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeaderVisitor;

        impl<'de> Visitor<'de> for HeaderVisitor {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Header, M::Error> {
                let mut header = Header::default();
                while let Some(name) = map.next_key::<String>()? {
                    let in_tensor = |error| M::Error::custom(format!("tensor `{name}`: {error}"));
                    if name == "__metadata__" {
                        header.metadata = map.next_value().map_err(in_tensor)?;
                        continue;
                    }
                    let entry = map.next_value().map_err(in_tensor)?;
                    if header.tensors.contains_key(&name) {
                        return Err(M::Error::custom(format!("tensor `{name}` occurs twice")));
                    }
                    header.tensors.insert(name, entry);
                }
                Ok(header)
            }
        }

        deserializer.deserialize_map(HeaderVisitor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use safetensors::tensor::TensorView;

    use super::*;

    fn file(header: &str, data_bytes: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data_bytes, 0);
        bytes
    }

    fn small() -> Vec<u8> {
        let [a, b] = [[1_u8; 24], [2_u8; 24]];
        let tensors = [
            ("a", TensorView::new(Dtype::F32, vec![2, 3], &a).unwrap()),
            ("b", TensorView::new(Dtype::BF16, vec![12], &b).unwrap()),
        ];
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        safetensors::serialize(tensors, Some(metadata)).unwrap()
    }

    /// The error of a header before 16 bytes of data, with its source.
    fn error(header: &str) -> String {
        let error = Safetensors::parse(&file(header, 16)).unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}: {}", source.unwrap_or_default())
    }

    #[test]
    fn the_reference_implementations_file_is_read() {
        let bytes = small();
        let file = Safetensors::parse(&bytes).unwrap();
        assert_eq!(file.metadata["format"], "pt");
        let b = file.tensor("b").unwrap();
        assert_eq!(
            (b.dtype, b.shape.as_slice(), b.len),
            (Dtype::BF16, &[12][..], 24)
        );
        assert_eq!(bytes[b.offset as usize..][..24], [2; 24]);
    }

    #[test]
    fn a_file_cut_anywhere_is_an_error() {
        let bytes = small();
        for len in 0..bytes.len() {
            assert!(Safetensors::parse(&bytes[..len]).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn tensors_that_lie_are_named() {
        let cases = [
            (
                r#"{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,12]}}"#,
                "tensor `w` of type F32 and shape [4] takes 16 bytes",
            ),
            (
                r#"{"w":{"dtype":"F32","shape":[4],"data_offsets":[16,0]}}"#,
                "data_offsets are [16, 0]",
            ),
            (
                r#"{"w":{"dtype":"U8","shape":[9],"data_offsets":[0,9]},"v":{"dtype":"U8","shape":[8],"data_offsets":[8,16]}}"#,
                "tensor `v` begins at offset 8 of the data, where 9 was expected",
            ),
            (
                r#"{"w":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}"#,
                "the tensors end at offset 8 of 16",
            ),
            (
                r#"{"w":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,18446744073709551615]}}"#,
                "tensor `w` has the impossible shape",
            ),
            (
                r#"{"w":{"dtype":"U8","shape":[2305843009213693951],"data_offsets":[0,2305843009213693951]}}"#,
                "the tensors end at offset 2305843009213693951 of 16",
            ),
            (
                r#"{"w":{"dtype":"F99","shape":[8],"data_offsets":[0,8]}}"#,
                "tensor `w`: unknown variant `F99`",
            ),
            (
                r#"{"w":{"dtype":"U8","shape":[-8],"data_offsets":[0,8]}}"#,
                "tensor `w`: invalid value: integer `-8`",
            ),
            (
                r#"{"w":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"w":{"dtype":"U8","shape":[8],"data_offsets":[8,16]}}"#,
                "tensor `w` occurs twice",
            ),
            ("[]", "an object of tensors"),
            ("{", "EOF"),
        ];
        for (header, expected) in cases {
            let found = error(header);
            assert!(found.contains(expected), "{found} <> {expected}");
        }
    }

    #[test]
    fn a_header_longer_than_the_file_is_refused() {
        for length in [u64::MAX, 1 << 40, 100] {
            let mut bytes = length.to_le_bytes().to_vec();
            bytes.extend([b' '; 50]);
            assert!(matches!(
                Safetensors::parse(&bytes),
                Err(SafetensorsError::HeaderLength { .. })
            ));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Safetensors::parse(&bytes);
            let mut with_length = (bytes.len() as u64 / 2).to_le_bytes().to_vec();
            with_length.extend(&bytes);
            let _ = Safetensors::parse(&with_length);
        }

        #[test]
        fn flipped_bits_never_panic(flips in proptest::collection::vec((0_usize..1 << 14, 0_u32..8), 1..8)) {
            let mut bytes = small();
            for (at, bit) in flips {
                let at = at % bytes.len();
                bytes[at] ^= 1 << bit;
            }
            if let Ok(file) = Safetensors::parse(&bytes) {
                for tensor in file.tensors {
                    prop_assert!(tensor.offset + tensor.len <= bytes.len() as u64);
                }
            }
        }
    }
}
