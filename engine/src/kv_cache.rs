//! Keys and values of past positions, in f32.

use thiserror::Error;

use crate::config::ModelConfig;

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
    keys: Vec<f32>,
    values: Vec<f32>,
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
}

impl KvCache {
    /// Makes an empty cache for up to `capacity` positions.
    ///
    /// The memory is zeroed lazily by the system: what was never written is not resident.
    pub fn new(config: &ModelConfig, capacity: usize) -> Self {
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
            keys: vec![0.0; len],
            values: vec![0.0; len],
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
        size_of_val(&*self.keys) + size_of_val(&*self.values)
    }

    /// Returns the bytes that the positions held take.
    pub fn bytes_used(&self) -> usize {
        2 * size_of::<f32>() * self.n_layers * self.n_kv_heads * self.head_dim * self.len
    }

    /// Forgets all positions from `len` on; does nothing if fewer are held.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Checks that `n` more positions of this model fit.
    pub(crate) fn check(&self, config: &ModelConfig, n: usize) -> Result<(), CacheError> {
        let shape = (config.n_layers, config.n_kv_heads, config.head_dim);
        if shape != (self.n_layers, self.n_kv_heads, self.head_dim) {
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
    pub(crate) fn heads_mut(
        &mut self,
        layer: usize,
    ) -> impl Iterator<Item = (&mut [f32], &mut [f32])> {
        let head = self.capacity * self.head_dim;
        let layer_len = self.n_kv_heads * head;
        let range = layer * layer_len..(layer + 1) * layer_len;
        self.keys[range.clone()]
            .chunks_exact_mut(head)
            .zip(self.values[range].chunks_exact_mut(head))
    }

    /// Returns keys and values, each `(n_keys, head_dim)`, of a layer's head.
    pub(crate) fn head(&self, layer: usize, head: usize, n_keys: usize) -> (&[f32], &[f32]) {
        let first = (layer * self.n_kv_heads + head) * self.capacity * self.head_dim;
        let range = first..first + n_keys * self.head_dim;
        (&self.keys[range.clone()], &self.values[range])
    }
}
