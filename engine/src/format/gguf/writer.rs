//! Writes GGUF version 3: the description first, then tensor by tensor in bounded memory.

use std::io::{self, Write};

use super::{Array, DEFAULT_ALIGNMENT, GgufError, MAGIC, Metadata, TensorInfo, TensorType, Value};

/// What a file is going to hold.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// Keys and values; `general.alignment` is not set here, the default is used.
    pub metadata: Metadata,
    tensors: Vec<TensorInfo>,
    data_bytes: u64,
}

impl Layout {
    /// Returns a layout without tensors.
    pub fn new(metadata: Metadata) -> Self {
        Self {
            metadata,
            ..Self::default()
        }
    }

    /// Adds a tensor after those added so far. `dims` has the fastest dimension first.
    pub fn add(
        &mut self,
        name: impl Into<String>,
        dims: &[u64],
        kind: TensorType,
    ) -> Result<(), GgufError> {
        let name = name.into();
        let len = kind.tensor_bytes(&name, dims)?;
        let offset = self.data_bytes;
        let end = offset
            .checked_add(len)
            .and_then(|end| end.checked_next_multiple_of(DEFAULT_ALIGNMENT));
        let Some(end) = end else {
            return Err(GgufError::Shape {
                tensor: name,
                dims: dims.to_vec(),
            });
        };
        self.data_bytes = end;
        self.tensors.push(TensorInfo {
            name,
            dims: dims.to_vec(),
            kind,
            offset,
            len,
        });
        Ok(())
    }

    /// Returns the tensors in the order in which their bytes are to be written.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// Returns the bytes of all tensors, padding included.
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Writes everything before the tensors' bytes and returns what takes those.
    pub fn begin<W: Write>(&self, mut out: W) -> io::Result<TensorWriter<'_, W>> {
        let description = self.description();
        out.write_all(&description)?;
        Ok(TensorWriter {
            out,
            tensors: &self.tensors,
            nth: 0,
            written: 0,
        })
    }

    fn description(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(3_u32.to_le_bytes());
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.metadata.iter().count() as u64).to_le_bytes());
        for (key, value) in self.metadata.iter() {
            put_string(&mut bytes, key);
            bytes.extend(value.type_id().to_le_bytes());
            put_value(&mut bytes, value);
        }
        for tensor in &self.tensors {
            put_string(&mut bytes, &tensor.name);
            bytes.extend((tensor.dims.len() as u32).to_le_bytes());
            for dim in &tensor.dims {
                bytes.extend(dim.to_le_bytes());
            }
            bytes.extend(tensor.kind.id().to_le_bytes());
            bytes.extend(tensor.offset.to_le_bytes());
        }
        let padded = bytes.len().next_multiple_of(DEFAULT_ALIGNMENT as usize);
        bytes.resize(padded, 0);
        bytes
    }
}

/// Takes the tensors' bytes in the layout's order and pads after each.
#[derive(Debug)]
pub struct TensorWriter<'a, W> {
    out: W,
    tensors: &'a [TensorInfo],
    nth: usize,
    written: u64,
}

impl<W: Write> TensorWriter<'_, W> {
    /// Writes the next bytes of the current tensor; with its last byte the next tensor begins.
    ///
    /// # Panics
    /// If the bytes go beyond the tensor or no tensor is left: the caller's mistake.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let tensor = self
            .tensors
            .get(self.nth)
            .expect("every tensor is written once");
        self.written += bytes.len() as u64;
        assert!(
            self.written <= tensor.len,
            "tensor `{}` has {} bytes",
            tensor.name,
            tensor.len
        );
        self.out.write_all(bytes)?;
        if self.written == tensor.len {
            let padding = tensor.len.next_multiple_of(DEFAULT_ALIGNMENT) - tensor.len;
            self.out
                .write_all(&[0; DEFAULT_ALIGNMENT as usize][..padding as usize])?;
            self.nth += 1;
            self.written = 0;
        }
        Ok(())
    }

    /// Returns the output after the last tensor.
    ///
    /// # Panics
    /// If a tensor was not written whole.
    pub fn finish(self) -> W {
        assert_eq!(self.nth, self.tensors.len(), "every tensor is written");
        self.out
    }
}

fn put_string(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

fn put_value(bytes: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(v) => bytes.extend(v.to_le_bytes()),
        Value::I8(v) => bytes.extend(v.to_le_bytes()),
        Value::U16(v) => bytes.extend(v.to_le_bytes()),
        Value::I16(v) => bytes.extend(v.to_le_bytes()),
        Value::U32(v) => bytes.extend(v.to_le_bytes()),
        Value::I32(v) => bytes.extend(v.to_le_bytes()),
        Value::F32(v) => bytes.extend(v.to_le_bytes()),
        Value::Bool(v) => bytes.push((*v).into()),
        Value::String(v) => put_string(bytes, v),
        Value::Array(v) => put_array(bytes, v),
        Value::U64(v) => bytes.extend(v.to_le_bytes()),
        Value::I64(v) => bytes.extend(v.to_le_bytes()),
        Value::F64(v) => bytes.extend(v.to_le_bytes()),
    }
}

fn put_array(bytes: &mut Vec<u8>, array: &Array) {
    bytes.extend(array.type_id().to_le_bytes());
    bytes.extend((array.len() as u64).to_le_bytes());
    match array {
        Array::U8(v) => bytes.extend(v),
        Array::I8(v) => bytes.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        Array::U16(v) => bytes.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        Array::I16(v) => bytes.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        Array::U32(v) => bytes.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        Array::I32(v) => bytes.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        Array::F32(v) => bytes.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        Array::Bool(v) => bytes.extend(v.iter().map(|&x| u8::from(x))),
        Array::String(v) => v.iter().for_each(|text| put_string(bytes, text)),
        Array::Array(v) => v.iter().for_each(|inner| put_array(bytes, inner)),
        Array::U64(v) => bytes.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        Array::I64(v) => bytes.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        Array::F64(v) => bytes.extend(v.iter().flat_map(|x| x.to_le_bytes())),
    }
}
