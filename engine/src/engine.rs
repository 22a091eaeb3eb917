//! The façade: a model, a kernel and threads, ready to evaluate tokens.

use std::{fmt::Write as _, io, num::NonZeroUsize, path::Path};

use thiserror::Error;

use crate::{
    config::ModelConfig,
    kernels::{Kernel, KernelChoice, KernelError, rounded},
    kv_cache::{KvCache, KvType},
    load::{self, LoadError, LoadOptions, LoadedModel},
    ops::{Compute, linear, rope::Ropes},
    screen::{Screen, Screening},
    threads::ThreadPool,
    transformer::State,
    validate::{ShapeError, validate},
    weights::{DenseMatrix, Layer, Matrix, Weights},
};

pub use forward::{ForwardError, Logits, Segment};

/// Version of the arithmetic: raised whenever logits change in any bit.
pub const NUMERICS_VERSION: u32 = 1;

/// How the greatest logits are found ([`Engine::top`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeadChoice {
    /// Among all logits.
    #[default]
    Full,
    /// By a [`Screen`]: from half of the bytes of a 16-bit head, for an int8 copy's memory. A head
    /// that cannot be screened is used in full.
    Screened,
}

/// How dense matrices in block formats (`Q8_0`, `Q4_0`, `Q5_0`, `Q4_K`, `Q5_K`, `Q6_K`) are multiplied.
/// Each way has one order of its own, whatever the kernel, the threads and the batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Numerics {
    /// By inputs in f32: weights widen exactly.
    #[default]
    Exact,
    /// By inputs rounded to int8 in blocks of 32, as llama.cpp does: less work, and other logits.
    Fast,
}

impl Numerics {
    /// Returns the name users know it by.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Fast => "fast",
        }
    }

    /// Returns whether a matrix meets inputs rounded to int8.
    pub fn rounds(self, matrix: &DenseMatrix) -> bool {
        self == Self::Fast && rounded::takes(matrix.dtype)
    }
}

/// Numbers that a product multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// Ternary weights, and block formats with [`Numerics::Fast`].
    Int8,
    /// All others.
    F32,
}

/// How an engine shall compute. Only `kv` and `numerics` change a result, and a kernel of rounded
/// tables ([`KernelChoice::is_lossless`]).
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Threads, the caller's included.
    pub threads: NonZeroUsize,
    /// Kernel to use.
    pub kernel: KernelChoice,
    /// Whether thread `i` is bound to the `i`-th CPU the process may use, the caller's too.
    pub pin: bool,
    /// How the greatest logits are found.
    pub head: HeadChoice,
    /// How [`Engine::new_cache`] keeps keys and values.
    pub kv: KvType,
    /// How dense matrices in block formats are multiplied.
    pub numerics: Numerics,
}

impl Default for EngineOptions {
    /// One thread, the best kernel, not bound, the head in full, keys and values in f32, exact.
    fn default() -> Self {
        Self {
            threads: NonZeroUsize::MIN,
            kernel: KernelChoice::Auto,
            pin: false,
            head: HeadChoice::Full,
            kv: KvType::F32,
            numerics: Numerics::Exact,
        }
    }
}

/// Why no engine could be made.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The model's files cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The kernel cannot be had.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The weights do not fit the config.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The threads could not be started or bound.
    #[error("cannot start {threads} threads")]
    Threads {
        /// Threads asked for.
        threads: NonZeroUsize,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

/// A model that can be evaluated.
///
/// Equal weights, tokens and [`Numerics`] give bit-equal logits, whatever the lossless kernel, the
/// threads, the cuts between calls of [`forward`](Self::forward), and whatever other sequences are
/// evaluated beside ([`forward_many`](Self::forward_many)).
#[derive(Debug)]
pub struct Engine {
    config: ModelConfig,
    weights: Weights,
    kernel_name: &'static str,
    compute: Compute,
    ropes: Ropes,
    state: State,
    kv: KvType,
    screen: Option<Screen>,
    screening: Screening,
    // (vocab_size), where the greatest are sought among all
    logits: Vec<f32>,
}

impl Engine {
    /// Loads a GGUF file or a Hugging Face folder as its own metadata says.
    pub fn open(path: &Path, options: &EngineOptions) -> Result<Self, EngineError> {
        // Before a gigabyte is read for nothing.
        options.kernel.kernel()?;
        Self::from_loaded(load::load(path, &LoadOptions::default())?, options)
    }

    /// Makes an engine of a loaded model.
    pub fn from_loaded(model: LoadedModel, options: &EngineOptions) -> Result<Self, EngineError> {
        let LoadedModel {
            config, weights, ..
        } = model;
        Self::new(config, weights, options)
    }

    /// Makes an engine of a config and weights in memory, which are packed as the kernel reads them.
    pub fn new(
        config: ModelConfig,
        mut weights: Weights,
        options: &EngineOptions,
    ) -> Result<Self, EngineError> {
        validate(&config, &weights)?;
        let kernel = options.kernel.kernel()?;
        let kernel_name = options.kernel.full_name()?;
        let lookup = options.kernel.lookup()?;
        weights.pack(lookup.map(|lookup| lookup.packing));
        let threads = options.threads;
        let mut pool = ThreadPool::new(threads, options.pin)
            .map_err(|source| EngineError::Threads { threads, source })?;
        let screen = match options.head {
            HeadChoice::Full => None,
            HeadChoice::Screened => Screen::new(weights.head(), &*kernel, &mut pool),
        };
        Ok(Self {
            ropes: Ropes::new(&config),
            config,
            weights,
            kernel_name,
            compute: Compute::new(kernel, lookup, options.numerics, pool),
            state: State::default(),
            kv: options.kv,
            screen,
            screening: Screening::default(),
            logits: Vec::new(),
        })
    }

    /// Puts another kernel into its place, one with a fault in it.
    #[cfg(test)]
    pub(crate) fn change_kernel(
        &mut self,
        change: impl FnOnce(Box<dyn Kernel>) -> Box<dyn Kernel>,
    ) {
        let name = self.compute.kernel.name();
        let choice = KernelChoice::Named(name);
        let kernel = choice.kernel().expect("the kernel in use is there");
        self.compute.kernel = change(kernel);
    }

    /// Returns the model's shape and constants.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Returns the model's weights.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Returns the kernel in use.
    pub(crate) fn kernel(&self) -> &dyn Kernel {
        &*self.compute.kernel
    }

    /// Returns the name of the kernel in use.
    pub fn kernel_name(&self) -> &'static str {
        self.kernel_name
    }

    /// Returns how the model is computed: [`Numerics::Exact`] if it has nothing to round inputs for.
    pub fn numerics(&self) -> Numerics {
        let numerics = self.compute.numerics;
        let Weights { layers, .. } = &self.weights;
        let mut linears = layers.iter().flat_map(Layer::linears);
        let any = linears.any(|linear| linear::rounds(numerics, linear))
            || numerics.rounds(self.weights.head());
        if any { numerics } else { Numerics::Exact }
    }

    /// Returns what the block linears multiply, adapters apart; `None` where some differ from others.
    pub fn arithmetic(&self) -> Option<Arithmetic> {
        let numerics = self.compute.numerics;
        let linears = self.weights.layers.iter().flat_map(Layer::linears);
        let mut kinds = linears.map(|linear| match &linear.matrix {
            Matrix::Dense(matrix) if !numerics.rounds(matrix) => Arithmetic::F32,
            _ => Arithmetic::Int8,
        });
        let first = kinds.next()?;
        kinds.all(|kind| kind == first).then_some(first)
    }

    /// Returns the bytes of the head that every token reads to find its greatest logit.
    pub fn head_read_bytes(&self) -> usize {
        match &self.screen {
            Some(screen) => screen.streamed_bytes(),
            None => self.weights.head().data.len(),
        }
    }

    /// Returns the number of threads in use.
    pub fn threads(&self) -> usize {
        self.compute.pool.threads()
    }

    /// Makes an empty cache for sequences of up to `capacity` tokens.
    pub fn new_cache(&self, capacity: usize) -> KvCache {
        KvCache::new(&self.config, self.kv, capacity)
    }

    /// Returns the screen of the head, if there is one.
    pub fn screen(&self) -> Option<&Screen> {
        self.screen.as_ref()
    }

    /// Returns a hash of the logits of a fixed short prompt: equal for equal weights and
    /// arithmetic, on every machine.
    ///
    /// # Panics
    /// Never: the prompt is within the vocabulary and the cache.
    pub fn fingerprint(&mut self) -> [u8; 16] {
        const PROMPT: [usize; 8] = [1, 2, 3, 5, 100, 1009, 10_007, 100_003];
        let vocab_size = self.config.vocab_size;
        let prompt = PROMPT.map(|id| (id % vocab_size) as u32);
        let mut cache = self.new_cache(prompt.len());
        let mut logits = Vec::new();
        self.forward(&mut cache, &prompt, Logits::All, &mut logits)
            .expect("the prompt is within the vocabulary and the cache");
        hash_logits(&logits)
    }
}

/// Returns the first 128 bits of the blake3 hash of logits, as little-endian f32.
pub fn hash_logits(logits: &[f32]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for logit in logits {
        hasher.update(&logit.to_le_bytes());
    }
    let mut hash = [0; 16];
    hasher.finalize_xof().fill(&mut hash);
    hash
}

/// Returns bytes as two hexadecimal digits each: a fingerprint as it is told and stored.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

mod forward;

#[cfg(test)]
mod bench;
#[cfg(test)]
mod naive;
#[cfg(test)]
mod tests;
