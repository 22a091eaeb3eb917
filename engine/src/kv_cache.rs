//! Keys and values of past positions, in f32 or f16.

use std::ops::Range;

use half::f16;
use thiserror::Error;

use crate::config::ModelConfig;

/// How keys and values are kept.
///
/// Either gives the same bits on every kernel; the two differ from each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvType {
    /// As they were computed.
    #[default]
    F32,
    /// Rounded to the nearest f16, half to even: what llama.cpp and bitnet.cpp keep, in half of the
    /// bytes.
    F16,
}

impl KvType {
    /// Returns the type's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        }
    }

    /// Returns the bytes of a value.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => size_of::<f32>(),
            Self::F16 => size_of::<f16>(),
        }
    }
}

/// Values of one head, `(n_keys, head_dim)`.
#[derive(Clone, Copy, Debug)]
pub enum KvSlice<'a> {
    /// See [`KvType::F32`].
    F32(&'a [f32]),
    /// See [`KvType::F16`].
    F16(&'a [f16]),
}

impl KvSlice<'_> {
    /// Returns the number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16(values) => values.len(),
        }
    }

    /// Returns whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Values of one head, `(capacity, head_dim)`, for writing.
#[derive(Debug)]
pub(crate) enum KvSliceMut<'a> {
    F32(&'a mut [f32]),
    F16(&'a mut [f16]),
}

impl KvSliceMut<'_> {
    /// Writes values from `at` on.
    pub(crate) fn write(&mut self, at: usize, values: &[f32]) {
        match self {
            Self::F32(out) => out[at..][..values.len()].copy_from_slice(values),
            Self::F16(out) => {
                for (out, &value) in out[at..].iter_mut().zip(values) {
                    *out = f16::from_f32(value);
                }
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Store {
    F32(Vec<f32>),
    F16(Vec<f16>),
}

impl Store {
    fn zeroed(dtype: KvType, len: usize) -> Self {
        match dtype {
            KvType::F32 => Self::F32(vec![0.0; len]),
            KvType::F16 => Self::F16(bytemuck::zeroed_vec(len)),
        }
    }

    fn dtype(&self) -> KvType {
        match self {
            Self::F32(_) => KvType::F32,
            Self::F16(_) => KvType::F16,
        }
    }

    fn get(&self, range: Range<usize>) -> KvSlice<'_> {
        match self {
            Self::F32(values) => KvSlice::F32(&values[range]),
            Self::F16(values) => KvSlice::F16(&values[range]),
        }
    }

    fn copy(&mut self, to: usize, from: &Self, range: Range<usize>) {
        match (self, from) {
            (Self::F32(to_values), Self::F32(from)) => {
                to_values[to..][..range.len()].copy_from_slice(&from[range]);
            }
            (Self::F16(to_values), Self::F16(from)) => {
                to_values[to..][..range.len()].copy_from_slice(&from[range]);
            }
            _ => unreachable!("caches of two types have been told apart"),
        }
    }

    fn chunks_mut(&mut self, range: Range<usize>, len: usize) -> Vec<KvSliceMut<'_>> {
        match self {
            Self::F32(values) => values[range]
                .chunks_exact_mut(len)
                .map(KvSliceMut::F32)
                .collect(),
            Self::F16(values) => values[range]
                .chunks_exact_mut(len)
                .map(KvSliceMut::F16)
                .collect(),
        }
    }
}

/// Keys and values of one sequence.
///
/// Both are `(n_layers, n_kv_heads, capacity, head_dim)`, so that attention streams one head.
#[derive(Clone, Debug)]
pub struct KvCache {
    n_layers: usize,
    n_kv_heads: usize,
    head_dim: usize,
    capacity: usize,
    len: usize,
    keys: Store,
    values: Store,
}

/// Why positions cannot be added to a cache.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CacheError {
    /// More positions than the cache was made for.
    #[error("the key/value cache holds {capacity} positions, and {needed} are needed")]
    Full {
        /// Positions held and to be added.
        needed: usize,
        /// Positions it can hold.
        capacity: usize,
    },
    /// The cache was made for a model of another shape.
    #[error("the key/value cache belongs to a model of another shape")]
    OtherShape,
    /// The two caches keep values differently.
    #[error("keys and values of a cache in {from} cannot be copied to one in {to}")]
    OtherType {
        /// How they are kept.
        from: &'static str,
        /// How they would have to be kept.
        to: &'static str,
    },
}

impl KvCache {
    /// Makes an empty cache for up to `capacity` positions.
    ///
    /// The memory is zeroed lazily by the system: what was never written is not resident.
    pub fn new(config: &ModelConfig, dtype: KvType, capacity: usize) -> Self {
        let ModelConfig {
            n_layers,
            n_kv_heads,
            head_dim,
            ..
        } = *config;
        let len = n_layers * n_kv_heads * capacity * head_dim;
        Self {
            n_layers,
            n_kv_heads,
            head_dim,
            capacity,
            len: 0,
            keys: Store::zeroed(dtype, len),
            values: Store::zeroed(dtype, len),
        }
    }

    /// Returns the positions held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether no position is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the positions that can be held.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Returns the bytes reserved for keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes_of(self.capacity)
    }

    /// Returns the bytes that the positions held take.
    pub fn bytes_used(&self) -> usize {
        self.bytes_of(self.len)
    }

    fn bytes_of(&self, positions: usize) -> usize {
        let values = self.n_layers * self.n_kv_heads * self.head_dim * positions;
        2 * self.dtype().bytes() * values
    }

    /// Returns how keys and values are kept.
    pub fn dtype(&self) -> KvType {
        self.keys.dtype()
    }

    /// Forgets all positions from `len` on; does nothing if fewer are held.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Replaces what is held by the first `len` positions of another sequence, or by all if there
    /// are fewer: what both begin with is then evaluated once.
    pub fn copy_prefix(&mut self, from: &Self, len: usize) -> Result<(), CacheError> {
        if self.shape() != from.shape() {
            return Err(CacheError::OtherShape);
        }
        if self.dtype() != from.dtype() {
            return Err(CacheError::OtherType {
                from: from.dtype().name(),
                to: self.dtype().name(),
            });
        }
        let len = len.min(from.len);
        if len > self.capacity {
            return Err(CacheError::Full {
                needed: len,
                capacity: self.capacity,
            });
        }
        for head in 0..self.n_layers * self.n_kv_heads {
            let to = head * self.capacity * self.head_dim;
            let start = head * from.capacity * self.head_dim;
            let range = start..start + len * self.head_dim;
            self.keys.copy(to, &from.keys, range.clone());
            self.values.copy(to, &from.values, range);
        }
        self.len = len;
        Ok(())
    }

    fn shape(&self) -> (usize, usize, usize) {
        (self.n_layers, self.n_kv_heads, self.head_dim)
    }

    /// Checks that `n` more positions of this model fit.
    pub(crate) fn check(&self, config: &ModelConfig, n: usize) -> Result<(), CacheError> {
        if (config.n_layers, config.n_kv_heads, config.head_dim) != self.shape() {
            return Err(CacheError::OtherShape);
        }
        let needed = self.len + n;
        if needed > self.capacity {
            return Err(CacheError::Full {
                needed,
                capacity: self.capacity,
            });
        }
        Ok(())
    }

    /// Counts `n` positions, written in every layer, as held.
    pub(crate) fn advance(&mut self, n: usize) {
        self.len += n;
        debug_assert!(self.len <= self.capacity);
    }

    /// Returns keys and values of a layer, each head `(capacity, head_dim)`, in order of heads.
    pub(crate) fn heads_mut(&mut self, layer: usize) -> Vec<(KvSliceMut<'_>, KvSliceMut<'_>)> {
        let head = self.capacity * self.head_dim;
        let layer_len = self.n_kv_heads * head;
        let range = layer * layer_len..(layer + 1) * layer_len;
        let keys = self.keys.chunks_mut(range.clone(), head);
        keys.into_iter()
            .zip(self.values.chunks_mut(range, head))
            .collect()
    }

    /// Returns keys and values, each `(positions, head_dim)`, of a layer's head.
    pub(crate) fn head(
        &self,
        layer: usize,
        head: usize,
        positions: Range<usize>,
    ) -> (KvSlice<'_>, KvSlice<'_>) {
        let first = (layer * self.n_kv_heads + head) * self.capacity;
        let [start, end] = [positions.start, positions.end].map(|at| (first + at) * self.head_dim);
        let range = start..end;
        (self.keys.get(range.clone()), self.values.get(range))
    }
}
