//! Typed keys and values.

use std::collections::HashMap;

use super::{GgufError, header::Reader};

/// Deepest nesting of arrays that is read; real files have one level.
const MAX_NESTING: usize = 4;
/// Bytes of the smallest key and value: a length, a type and a value of one byte.
const MIN_KEY_BYTES: u64 = 8 + 4 + 1;

/// A value of a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Type 0.
    U8(u8),
    /// Type 1.
    I8(i8),
    /// Type 2.
    U16(u16),
    /// Type 3.
    I16(i16),
    /// Type 4.
    U32(u32),
    /// Type 5.
    I32(i32),
    /// Type 6.
    F32(f32),
    /// Type 7.
    Bool(bool),
    /// Type 8.
    String(String),
    /// Type 9.
    Array(Array),
    /// Type 10.
    U64(u64),
    /// Type 11.
    I64(i64),
    /// Type 12.
    F64(f64),
}

/// A value of many elements of one type.
#[derive(Clone, Debug, PartialEq)]
pub enum Array {
    /// Type 0.
    U8(Vec<u8>),
    /// Type 1.
    I8(Vec<i8>),
    /// Type 2.
    U16(Vec<u16>),
    /// Type 3.
    I16(Vec<i16>),
    /// Type 4.
    U32(Vec<u32>),
    /// Type 5.
    I32(Vec<i32>),
    /// Type 6.
    F32(Vec<f32>),
    /// Type 7.
    Bool(Vec<bool>),
    /// Type 8.
    String(Vec<String>),
    /// Type 9.
    Array(Vec<Array>),
    /// Type 10.
    U64(Vec<u64>),
    /// Type 11.
    I64(Vec<i64>),
    /// Type 12.
    F64(Vec<f64>),
}

impl Value {
    /// Returns the type's name and number, as errors give it.
    pub fn type_name(&self) -> String {
        match self {
            Self::Array(array) => format!("an array of {}", TYPE_NAMES[array.type_id() as usize]),
            _ => TYPE_NAMES[self.type_id() as usize].to_owned(),
        }
    }

    /// Returns GGUF's number of the type.
    pub fn type_id(&self) -> u32 {
        match self {
            Self::U8(_) => 0,
            Self::I8(_) => 1,
            Self::U16(_) => 2,
            Self::I16(_) => 3,
            Self::U32(_) => 4,
            Self::I32(_) => 5,
            Self::F32(_) => 6,
            Self::Bool(_) => 7,
            Self::String(_) => 8,
            Self::Array(_) => 9,
            Self::U64(_) => 10,
            Self::I64(_) => 11,
            Self::F64(_) => 12,
        }
    }

    /// Returns any non-negative integer as u64.
    fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::U8(v) => Some(v.into()),
            Self::U16(v) => Some(v.into()),
            Self::U32(v) => Some(v.into()),
            Self::U64(v) => Some(v),
            Self::I8(v) => v.try_into().ok(),
            Self::I16(v) => v.try_into().ok(),
            Self::I32(v) => v.try_into().ok(),
            Self::I64(v) => v.try_into().ok(),
            _ => None,
        }
    }
}

/// Names by number.
const TYPE_NAMES: [&str; 13] = [
    "u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64",
];

impl Array {
    /// Returns GGUF's number of the elements' type.
    pub fn type_id(&self) -> u32 {
        match self {
            Self::U8(_) => 0,
            Self::I8(_) => 1,
            Self::U16(_) => 2,
            Self::I16(_) => 3,
            Self::U32(_) => 4,
            Self::I32(_) => 5,
            Self::F32(_) => 6,
            Self::Bool(_) => 7,
            Self::String(_) => 8,
            Self::Array(_) => 9,
            Self::U64(_) => 10,
            Self::I64(_) => 11,
            Self::F64(_) => 12,
        }
    }

    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(v) => v.len(),
            Self::I8(v) => v.len(),
            Self::U16(v) => v.len(),
            Self::I16(v) => v.len(),
            Self::U32(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::F32(v) => v.len(),
            Self::Bool(v) => v.len(),
            Self::String(v) => v.len(),
            Self::Array(v) => v.len(),
            Self::U64(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::F64(v) => v.len(),
        }
    }

    /// Returns whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Keys and values, in the file's order and by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
    index: HashMap<String, usize>,
}

impl Metadata {
    /// Returns the value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.index.get(key).map(|&at| &self.entries[at].1)
    }

    /// Returns keys and values in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries
            .iter()
            .map(|(key, value)| (key.as_str(), value))
    }

    /// Sets a key; a new one goes to the end.
    pub fn set(&mut self, key: impl Into<String>, value: Value) {
        let key = key.into();
        if let Some(&at) = self.index.get(&key) {
            self.entries[at].1 = value;
            return;
        }
        self.index.insert(key.clone(), self.entries.len());
        self.entries.push((key, value));
    }

    /// Returns a key's non-negative integer of any width.
    pub fn u64(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.typed(key, "a non-negative integer", Value::as_u64)
    }

    /// Returns a key's float of either width.
    pub fn f32(&self, key: &str) -> Result<Option<f32>, GgufError> {
        self.typed(key, "a float", |value| match *value {
            Value::F32(v) => Some(v),
            Value::F64(v) => Some(v as f32),
            _ => None,
        })
    }

    /// Returns a key's bool.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "a bool", |value| match *value {
            Value::Bool(v) => Some(v),
            _ => None,
        })
    }

    /// Returns a key's string.
    pub fn string(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.typed(key, "a string", |value| match value {
            Value::String(v) => Some(v.as_str()),
            _ => None,
        })
    }

    /// Returns a key's array.
    pub fn array(&self, key: &str) -> Result<Option<&Array>, GgufError> {
        self.typed(key, "an array", |value| match value {
            Value::Array(v) => Some(v),
            _ => None,
        })
    }

    /// Returns a key's array of strings.
    pub fn strings(&self, key: &str) -> Result<Option<&[String]>, GgufError> {
        self.typed(key, "an array of strings", |value| match value {
            Value::Array(Array::String(v)) => Some(v.as_slice()),
            _ => None,
        })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match convert(value) {
            Some(converted) => Ok(Some(converted)),
            None => Err(GgufError::KeyType {
                key: key.to_owned(),
                expected,
                found: value.type_name(),
            }),
        }
    }
}

pub(super) fn read(reader: &mut Reader<'_>, n_keys: u64) -> Result<Metadata, GgufError> {
    reader.check_count(n_keys, MIN_KEY_BYTES, || "metadata keys".into())?;
    let mut metadata = Metadata::default();
    for nth in 0..n_keys {
        let key = reader.string(|| format!("the name of metadata key {nth}"))?;
        if metadata.get(key).is_some() {
            return Err(GgufError::DuplicateKey {
                key: key.to_owned(),
            });
        }
        let id = value_type(reader, key)?;
        let value = read_value(reader, key, id)?;
        metadata.set(key, value);
    }
    Ok(metadata)
}

fn value_type(reader: &mut Reader<'_>, key: &str) -> Result<u32, GgufError> {
    let offset = reader.position();
    let id = reader.u32(|| format!("the type of key `{key}`"))?;
    if (id as usize) < TYPE_NAMES.len() {
        Ok(id)
    } else {
        Err(GgufError::ValueType {
            key: key.to_owned(),
            id,
            offset,
        })
    }
}

/// Reads a value of a type that [`value_type`] let through.
fn read_value(reader: &mut Reader<'_>, key: &str, id: u32) -> Result<Value, GgufError> {
    let what = || format!("the value of key `{key}`");
    Ok(match id {
        0 => Value::U8(u8::from_le_bytes(reader.array(what)?)),
        1 => Value::I8(i8::from_le_bytes(reader.array(what)?)),
        2 => Value::U16(u16::from_le_bytes(reader.array(what)?)),
        3 => Value::I16(i16::from_le_bytes(reader.array(what)?)),
        4 => Value::U32(u32::from_le_bytes(reader.array(what)?)),
        5 => Value::I32(i32::from_le_bytes(reader.array(what)?)),
        6 => Value::F32(f32::from_le_bytes(reader.array(what)?)),
        7 => {
            let offset = reader.position();
            let [byte] = reader.array(what)?;
            Value::Bool(as_bool(byte, key, offset)?)
        }
        8 => Value::String(reader.string(what)?.to_owned()),
        9 => Value::Array(read_array(reader, key, 1)?),
        10 => Value::U64(u64::from_le_bytes(reader.array(what)?)),
        11 => Value::I64(i64::from_le_bytes(reader.array(what)?)),
        _ => Value::F64(f64::from_le_bytes(reader.array(what)?)),
    })
}

fn as_bool(byte: u8, key: &str, offset: u64) -> Result<bool, GgufError> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        value => Err(GgufError::Bool {
            key: key.to_owned(),
            value,
            offset,
        }),
    }
}

fn read_array(reader: &mut Reader<'_>, key: &str, depth: usize) -> Result<Array, GgufError> {
    if depth > MAX_NESTING {
        return Err(GgufError::Nesting {
            key: key.to_owned(),
            limit: MAX_NESTING,
        });
    }
    let id = value_type(reader, key)?;
    let count = reader.u64(|| format!("the length of key `{key}`"))?;
    Ok(match id {
        0 => Array::U8(numbers(reader, key, count, u8::from_le_bytes)?),
        1 => Array::I8(numbers(reader, key, count, i8::from_le_bytes)?),
        2 => Array::U16(numbers(reader, key, count, u16::from_le_bytes)?),
        3 => Array::I16(numbers(reader, key, count, i16::from_le_bytes)?),
        4 => Array::U32(numbers(reader, key, count, u32::from_le_bytes)?),
        5 => Array::I32(numbers(reader, key, count, i32::from_le_bytes)?),
        6 => Array::F32(numbers(reader, key, count, f32::from_le_bytes)?),
        7 => {
            let offset = reader.position();
            let bytes = reader.take(count, || format!("the elements of key `{key}`"))?;
            let bools = bytes.iter().zip(offset..);
            Array::Bool(
                bools
                    .map(|(&byte, at)| as_bool(byte, key, at))
                    .collect::<Result<_, _>>()?,
            )
        }
        8 => {
            // At least a length each, so that the vector stays within three times the file.
            reader.check_count(count, 8, || format!("strings of key `{key}`"))?;
            let mut strings = Vec::with_capacity(count as usize);
            for nth in 0..count {
                strings.push(
                    reader
                        .string(|| format!("element {nth} of key `{key}`"))?
                        .to_owned(),
                );
            }
            Array::String(strings)
        }
        9 => {
            reader.check_count(count, 12, || format!("arrays of key `{key}`"))?;
            let mut arrays = Vec::with_capacity(count as usize);
            for _ in 0..count {
                arrays.push(read_array(reader, key, depth + 1)?);
            }
            Array::Array(arrays)
        }
        10 => Array::U64(numbers(reader, key, count, u64::from_le_bytes)?),
        11 => Array::I64(numbers(reader, key, count, i64::from_le_bytes)?),
        _ => Array::F64(numbers(reader, key, count, f64::from_le_bytes)?),
    })
}

fn numbers<T, const N: usize>(
    reader: &mut Reader<'_>,
    key: &str,
    count: u64,
    convert: fn([u8; N]) -> T,
) -> Result<Vec<T>, GgufError> {
    reader.check_count(count, N as u64, || format!("elements of key `{key}`"))?;
    let bytes = reader.take(count * N as u64, || format!("the elements of key `{key}`"))?;
    let (elements, _) = bytes.as_chunks::<N>();
    Ok(elements.iter().copied().map(convert).collect())
}
