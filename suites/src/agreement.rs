//! Agreement: the lossless test of the BitNet papers (arXiv 2410.16144, 2502.11880), on any model.
//!
//! Every cell of a matrix of kernels, threads, batch sizes and cuts evaluates the same prompts and
//! continues each greedily; a cell agrees if all of its logits and tokens are those of the scalar
//! reference, bit for bit. The verdict is equality: there is no tolerance, and no p-value. Where a
//! cell parts, the first position that differs is described by its logits.
//!
//! Prompts are random tokens: a kernel does not know sense from nonsense. Two machines agree if the
//! fingerprints of their references do.

pub(crate) mod job;

use std::{io, num::NonZeroUsize};

use serde::Serialize;
use tritmark_engine::{
    engine::{
        Engine, EngineError, EngineOptions, ForwardError, Logits, NUMERICS_VERSION, Numerics,
        hash_logits,
    },
    kernels::{self, KernelChoice},
    kv_cache::KvType,
    load::LoadedModel,
    sampler,
    verify::statistics,
};
use tritmark_proto::bundle::FailureClass;

pub use tritmark_proto::record::Parted;

/// What is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Prompts {
    /// Prompts.
    pub n_prompts: u32,
    /// Tokens of the longest prompt; the lengths vary from 1 on.
    pub max_len: u32,
    /// Tokens generated behind each.
    pub n_gen: u32,
    /// Begins the sequence of random tokens.
    pub seed: u64,
}

/// One way of computing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cell {
    /// The kernel.
    pub kernel: &'static str,
    /// Threads.
    pub threads: NonZeroUsize,
    /// Tokens of a prompt that are submitted at once.
    pub n_batch: NonZeroUsize,
    /// Whether each prompt is evaluated behind its own first half, kept from an earlier evaluation.
    pub reused_prefix: bool,
}

/// What a cell computed, against the reference.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The cell.
    pub cell: Cell,
    /// Positions whose logits are equal, of all.
    pub equal: u64,
    /// Positions in all: each prompt token's and each generated token's.
    pub positions: u64,
    /// blake3 of all logits and tokens, 128 bits.
    pub fingerprint: String,
    /// The first position that differs.
    pub parted: Option<Parted>,
}

impl Outcome {
    /// Returns whether every bit is the reference's.
    pub fn agrees(&self) -> bool {
        self.parted.is_none() && self.equal == self.positions
    }
}

/// What all cells computed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Agreement {
    /// Version of the engine's arithmetic.
    pub numerics_version: u32,
    /// What was evaluated.
    pub prompts: Prompts,
    /// How keys and values were kept.
    pub kv: &'static str,
    /// How dense matrices in block formats were multiplied; `exact` where there are none.
    pub numerics: &'static str,
    /// blake3 of the reference's logits and tokens, 128 bits: equal on every machine.
    pub fingerprint: String,
    /// The cells.
    pub outcomes: Vec<Outcome>,
}

impl Agreement {
    /// Returns whether every cell agrees.
    pub fn agrees(&self) -> bool {
        self.outcomes.iter().all(Outcome::agrees)
    }
}

/// Why agreement could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum AgreementError {
    /// No engine could be made.
    #[error("cannot run the kernel `{kernel}`")]
    Engine {
        /// Its kernel.
        kernel: &'static str,
        /// Why.
        #[source]
        source: Box<EngineError>,
    },
    /// The longest prompt and what is generated behind it do not fit the model.
    #[error("{n_tokens} tokens do not fit the model's {context_length} positions")]
    NoRoom {
        /// Tokens of both.
        n_tokens: u64,
        /// Positions of the model.
        context_length: usize,
    },
    /// A prompt could not be evaluated.
    #[error("cannot evaluate prompt {prompt}")]
    Forward {
        /// The prompt.
        prompt: u32,
        /// Why.
        #[source]
        source: ForwardError,
    },
    /// A logit is not a number: there is nothing to compare and no token to go on with.
    #[error("the kernel `{kernel}` gives logits that are not numbers to prompt {prompt}")]
    NotANumber {
        /// The kernel.
        kernel: &'static str,
        /// The prompt.
        prompt: u32,
    },
    /// Nobody wants to know how it goes on.
    #[error("cannot say how far it is")]
    Progress(#[source] io::Error),
}

impl AgreementError {
    /// Returns what may help.
    pub fn class(&self) -> FailureClass {
        match self {
            // Threads may be had when others have ended.
            Self::Engine { source, .. } if matches!(**source, EngineError::Threads { .. }) => {
                FailureClass::Transient
            }
            Self::Progress(_) => FailureClass::Infrastructure,
            Self::Engine { .. }
            | Self::NoRoom { .. }
            | Self::Forward { .. }
            | Self::NotANumber { .. } => FailureClass::Permanent,
        }
    }
}

/// The cells of a matrix: each kernel of this machine with each count of threads, batch size, and
/// with and without a reused prefix.
///
/// Kernels of rounded tables promise no equality and are left out, and so are the scalar ones that
/// look up: tests hold them to the others.
pub fn matrix(threads: &[NonZeroUsize], batches: &[NonZeroUsize]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for kernel in agreeing() {
        for &threads in threads {
            for &n_batch in batches {
                cells.push(Cell {
                    kernel,
                    threads,
                    n_batch,
                    reused_prefix: false,
                });
            }
            cells.push(Cell {
                kernel,
                threads,
                n_batch: *batches.last().unwrap_or(&NonZeroUsize::MIN),
                reused_prefix: true,
            });
        }
    }
    cells
}

/// Returns the names of the kernels that are to agree.
fn agreeing() -> impl Iterator<Item = &'static str> {
    kernels::names().filter(|&name| {
        let lossless = KernelChoice::Named(name).is_lossless() == Ok(true);
        lossless && !name.starts_with("reference-")
    })
}

/// Evaluates the prompts with the scalar reference, one token at a time on one thread, and with
/// every cell; `progress` is called with the prompts done and all of them, and ends it by an error.
pub fn run(
    model: &LoadedModel,
    prompts: Prompts,
    (kv, numerics): (KvType, Numerics),
    cells: &[Cell],
    mut progress: impl FnMut(u64, u64) -> io::Result<()>,
) -> Result<Agreement, AgreementError> {
    let n_tokens = u64::from(prompts.max_len) + u64::from(prompts.n_gen);
    let context_length = model.config.context_length;
    if n_tokens > context_length as u64 {
        return Err(AgreementError::NoRoom {
            n_tokens,
            context_length,
        });
    }
    let total = u64::from(prompts.n_prompts) * (1 + cells.len() as u64);
    let mut done = 0;
    let mut step = || {
        done += 1;
        progress(done, total).map_err(AgreementError::Progress)
    };
    let plain = Cell {
        kernel: "reference",
        threads: NonZeroUsize::MIN,
        n_batch: NonZeroUsize::MIN,
        reused_prefix: false,
    };
    let mut reference = Runner::new(model, prompts, (kv, numerics), plain)?;
    let mut expected = Vec::new();
    for prompt in 0..prompts.n_prompts {
        expected.push(reference.evaluate(prompt)?);
        step()?;
    }
    let mut outcomes = Vec::new();
    for &cell in cells {
        let mut runner = Runner::new(model, prompts, (kv, numerics), cell)?;
        let mut outcome = Outcome {
            cell,
            equal: 0,
            positions: 0,
            fingerprint: String::new(),
            parted: None,
        };
        let mut found = Vec::new();
        for prompt in 0..prompts.n_prompts {
            let trace = runner.evaluate(prompt)?;
            let reference_trace = &expected[prompt as usize];
            let pairs = || trace.positions.iter().zip(&reference_trace.positions);
            outcome.positions += reference_trace.positions.len() as u64;
            outcome.equal += pairs().filter(|(ours, theirs)| ours == theirs).count() as u64;
            if outcome.parted.is_none()
                && let Some(position) = pairs().position(|(ours, theirs)| ours != theirs)
            {
                let theirs = reference.logits_at(prompt, position)?;
                let ours = runner.logits_at(prompt, position)?;
                outcome.parted = Some(parted(prompt, position, &theirs, &ours));
            }
            found.push(trace);
            step()?;
        }
        outcome.fingerprint = fingerprint(&found);
        outcomes.push(outcome);
    }
    Ok(Agreement {
        numerics_version: NUMERICS_VERSION,
        prompts,
        kv: kv.name(),
        numerics: reference.engine.numerics().name(),
        fingerprint: fingerprint(&expected),
        outcomes,
    })
}

/// What one prompt gave: a hash of the logits at each position, and the generated tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Trace {
    positions: Vec<[u8; 16]>,
    tokens: Vec<u32>,
}

/// Evaluates prompts in one cell's way.
struct Runner {
    engine: Engine,
    cell: Cell,
    prompts: Prompts,
}

impl Runner {
    fn new(
        model: &LoadedModel,
        prompts: Prompts,
        (kv, numerics): (KvType, Numerics),
        cell: Cell,
    ) -> Result<Self, AgreementError> {
        let Cell {
            kernel, threads, ..
        } = cell;
        let options = EngineOptions {
            threads,
            kernel: KernelChoice::Named(kernel),
            kv,
            numerics,
            ..EngineOptions::default()
        };
        let engine = Engine::from_loaded(model.clone(), &options)
            .map_err(Box::new)
            .map_err(|source| AgreementError::Engine { kernel, source })?;
        Ok(Self {
            engine,
            cell,
            prompts,
        })
    }

    fn evaluate(&mut self, prompt: u32) -> Result<Trace, AgreementError> {
        let mut trace = Trace {
            positions: Vec::new(),
            tokens: Vec::new(),
        };
        let tokens = self.walk(prompt, |logits| trace.positions.push(hash_logits(logits)))?;
        trace.tokens = tokens;
        Ok(trace)
    }

    /// Returns the logits of one position, by evaluating the prompt again.
    fn logits_at(&mut self, prompt: u32, position: usize) -> Result<Vec<f32>, AgreementError> {
        let (mut at, mut found) = (0, Vec::new());
        self.walk(prompt, |logits| {
            if at == position {
                found = logits.to_vec();
            }
            at += 1;
        })?;
        Ok(found)
    }

    /// Evaluates a prompt and what follows it greedily; `each` sees the logits of every position.
    fn walk(
        &mut self,
        prompt: u32,
        mut each: impl FnMut(&[f32]),
    ) -> Result<Vec<u32>, AgreementError> {
        let Self {
            engine,
            cell,
            prompts,
        } = self;
        let vocab_size = engine.config().vocab_size;
        let ids = random_prompt(*prompts, prompt, vocab_size);
        let mut cache = engine.new_cache(ids.len() + prompts.n_gen as usize);
        let mut logits = Vec::new();
        let mut generated = Vec::new();
        let cannot = |source| AgreementError::Forward { prompt, source };
        let kernel = cell.kernel;
        let no_number = AgreementError::NotANumber { kernel, prompt };
        let mut are_numbers = true;
        let mut each = |logits: &[f32]| {
            are_numbers &= !logits.iter().any(|logit| logit.is_nan());
            each(logits);
        };
        let mut last = Vec::new();
        if cell.reused_prefix {
            // The half is evaluated as part of another text, which is then forgotten.
            let half = ids.len() / 2;
            let mut other = ids.clone();
            other.truncate(half);
            other.push(ids[0]);
            engine
                .forward(&mut cache, &other, Logits::All, &mut logits)
                .map_err(cannot)?;
            logits[..half * vocab_size]
                .chunks_exact(vocab_size)
                .for_each(&mut each);
            cache.truncate(half);
        }
        for batch in ids[cache.len()..].chunks(cell.n_batch.get()) {
            engine
                .forward(&mut cache, batch, Logits::All, &mut logits)
                .map_err(cannot)?;
            logits.chunks_exact(vocab_size).for_each(&mut each);
            last.clear();
            last.extend_from_slice(&logits[logits.len() - vocab_size..]);
        }
        for _ in 0..prompts.n_gen {
            let Ok(token) = sampler::greedy(&last) else {
                return Err(no_number);
            };
            generated.push(token);
            engine
                .forward(&mut cache, &[token], Logits::Last, &mut last)
                .map_err(cannot)?;
            each(&last);
        }
        if !are_numbers {
            return Err(no_number);
        }
        Ok(generated)
    }
}

/// Returns the tokens of a prompt: its length grows with its number, its tokens are `SplitMix64`'s.
fn random_prompt(prompts: Prompts, prompt: u32, vocab_size: usize) -> Vec<u32> {
    let len = 1 + prompt * 7 % prompts.max_len.max(1);
    let mut state = prompts.seed ^ (u64::from(prompt) << 32);
    (0..len)
        .map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let word = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((word ^ (word >> 31)) % vocab_size as u64) as u32
        })
        .collect()
}

fn fingerprint(traces: &[Trace]) -> String {
    let mut hasher = blake3::Hasher::new();
    for Trace { positions, tokens } in traces {
        hasher.update(positions.as_flattened());
        for token in tokens {
            hasher.update(&token.to_le_bytes());
        }
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

fn parted(prompt: u32, position: usize, theirs: &[f32], ours: &[f32]) -> Parted {
    let differences = theirs.iter().zip(ours).map(|(a, b)| (a - b).abs());
    let mut two = Vec::new();
    sampler::greatest(theirs, 2, &mut two);
    let margin = match two[..] {
        [(_, first), (_, second), ..] => first - second,
        _ => f32::INFINITY,
    };
    let most_likely = |logits: &[f32]| sampler::greedy(logits).unwrap_or(u32::MAX);
    // What is beyond all numbers, as of logits that are infinite, is as large as a number can be.
    let finite = |size: f32| size.min(f32::MAX);
    let kl = statistics::kl(theirs, ours);
    Parted {
        prompt,
        position: position as u32,
        max_abs: finite(differences.fold(0.0, f32::max)),
        // Of nearly equal ones rounding may leave less than 0.
        kl: if kl.is_nan() {
            f64::MAX
        } else {
            kl.clamp(0.0, f64::MAX)
        },
        margin: finite(margin),
        expected: most_likely(theirs),
        found: most_likely(ours),
    }
}

#[cfg(test)]
mod tests {
    use tritmark_engine::{
        load::{ModelSource, VocabSource},
        testing::tiny_models,
        weights::{Matrix, TernaryScale},
    };

    use super::*;

    const PROMPTS: Prompts = Prompts {
        n_prompts: 6,
        max_len: 23,
        n_gen: 5,
        seed: 1,
    };

    const EXACT: (KvType, Numerics) = (KvType::F32, Numerics::Exact);

    fn models() -> Vec<LoadedModel> {
        tiny_models(4)
            .into_iter()
            .map(|(_, config, weights)| LoadedModel {
                config,
                weights,
                source: ModelSource::default(),
                vocab: VocabSource::None,
            })
            .collect()
    }

    fn numbers(numbers: &[usize]) -> Vec<NonZeroUsize> {
        numbers
            .iter()
            .copied()
            .filter_map(NonZeroUsize::new)
            .collect()
    }

    #[test]
    fn every_cell_agrees_with_the_reference() {
        let cells = matrix(&numbers(&[1, 2]), &numbers(&[1, 7, 32]));
        assert_eq!(cells.len(), agreeing().count() * 2 * 4);
        assert!(kernels::available().iter().all(|kernel| {
            let mut of_kernel = cells.iter().filter(|cell| cell.kernel == kernel.name());
            of_kernel.next().is_some()
        }));
        assert!(!cells.iter().any(|cell| cell.kernel.ends_with("-int8")));
        for model in models() {
            let mut steps = 0;
            let agreement = run(&model, PROMPTS, EXACT, &cells, |done, total| {
                steps += 1;
                assert!(done == steps && done <= total);
                Ok(())
            })
            .unwrap();
            assert_eq!(steps, 6 * (1 + cells.len() as u64));
            assert!(agreement.agrees(), "{agreement:?}");
            for outcome in &agreement.outcomes {
                assert_eq!(outcome.fingerprint, agreement.fingerprint);
                assert_eq!(outcome.equal, outcome.positions);
                // Lengths 1, 8, 15, 22, 6, 13 and five tokens behind each.
                assert_eq!(outcome.positions, 65 + 6 * 5);
            }
        }
    }

    #[test]
    fn fast_cells_agree_with_the_fast_reference() {
        let cells = matrix(&numbers(&[2]), &numbers(&[1, 32]));
        let fast = (KvType::F32, Numerics::Fast);
        for model in models() {
            let agreement = run(&model, PROMPTS, fast, &cells, |_, _| Ok(())).unwrap();
            assert!(agreement.agrees(), "{agreement:?}");
            let exact = run(&model, PROMPTS, EXACT, &[], |_, _| Ok(())).unwrap();
            assert_eq!(exact.numerics, "exact");
            let same = agreement.fingerprint == exact.fingerprint;
            assert_eq!(same, agreement.numerics == "exact");
            assert_eq!(same, model.weights.head().dtype.is_float());
        }
    }

    #[test]
    fn a_cell_that_computes_otherwise_is_described_where_it_parts() {
        let cells = matrix(&numbers(&[1]), &numbers(&[32]));
        let model = models().swap_remove(0);
        let mut other = model.clone();
        let Matrix::Ternary(matrix) = &mut other.weights.layers[0].down.matrix else {
            panic!("the first model is ternary");
        };
        let TernaryScale::Tensor(scale) = &mut matrix.scale else {
            panic!("one scale");
        };
        *scale *= 1.01;
        // The comparison is of one model with itself: here the cells are given another one.
        let expected = Runner::new(&model, PROMPTS, EXACT, cells[0])
            .unwrap()
            .logits_at(1, 3)
            .unwrap();
        let found = Runner::new(&other, PROMPTS, EXACT, cells[0])
            .unwrap()
            .logits_at(1, 3)
            .unwrap();
        let parted = parted(1, 3, &expected, &found);
        assert!(parted.max_abs > 0.0 && parted.kl > 0.0 && parted.margin >= 0.0);
        let same = super::parted(1, 3, &expected, &expected);
        assert!(same.max_abs == 0.0 && same.kl < 1e-12);
        assert_eq!(same.expected, same.found);
        let one = run(&model, PROMPTS, EXACT, &cells, |_, _| Ok(())).unwrap();
        let two = run(&other, PROMPTS, EXACT, &cells, |_, _| Ok(())).unwrap();
        assert_ne!(one.fingerprint, two.fingerprint);
    }

    #[test]
    fn prompts_that_do_not_fit_and_logits_that_are_no_numbers_are_refused_by_name() {
        let cells = matrix(&numbers(&[1]), &numbers(&[32]));
        let mut model = models().swap_remove(0);
        let long = Prompts {
            max_len: model.config.context_length as u32,
            ..PROMPTS
        };
        let error = run(&model, long, EXACT, &cells, |_, _| Ok(())).unwrap_err();
        assert!(matches!(error, AgreementError::NoRoom { .. }), "{error}");
        assert_eq!(error.class(), FailureClass::Permanent);

        let stop = |_, _| Err(io::Error::from(io::ErrorKind::BrokenPipe));
        let error = run(&model, PROMPTS, EXACT, &cells, stop).unwrap_err();
        assert_eq!(error.class(), FailureClass::Infrastructure);

        let Matrix::Ternary(matrix) = &mut model.weights.layers[0].down.matrix else {
            panic!("the first model is ternary");
        };
        matrix.scale = TernaryScale::Tensor(f32::NAN);
        for n_gen in [0, 5] {
            let prompts = Prompts { n_gen, ..PROMPTS };
            let error = run(&model, prompts, EXACT, &cells, |_, _| Ok(())).unwrap_err();
            assert_eq!(
                error.to_string(),
                "the kernel `reference` gives logits that are not numbers to prompt 0"
            );
        }
    }

    #[test]
    fn what_is_infinite_is_told_as_a_number() {
        let infinite = parted(0, 0, &[f32::INFINITY, 0.0], &[0.0, f32::NEG_INFINITY]);
        let told = [infinite.max_abs, infinite.margin].map(f32::to_bits);
        assert_eq!(told, [f32::MAX.to_bits(); 2]);
        assert!(infinite.kl.is_finite(), "{infinite:?}");
        let alone = parted(0, 0, &[1.0], &[2.0]);
        assert_eq!(alone.margin.to_bits(), f32::MAX.to_bits());
    }

    #[test]
    fn the_fingerprint_is_one_constant_on_every_machine() {
        // Made with the scalar reference; a change of the arithmetic changes it.
        let model = models().swap_remove(0);
        let agreement = run(&model, PROMPTS, EXACT, &[], |_, _| Ok(())).unwrap();
        assert_eq!(agreement.fingerprint, FINGERPRINT);
        let narrow = run(
            &model,
            PROMPTS,
            (KvType::F16, Numerics::Exact),
            &[],
            |_, _| Ok(()),
        )
        .unwrap();
        assert_ne!(narrow.fingerprint, FINGERPRINT);
        assert_eq!((agreement.kv, narrow.kv), ("f32", "f16"));
    }

    const FINGERPRINT: &str = "a24a995b51b5793df48034d01671e101";

    #[test]
    fn divergence_is_that_of_the_distributions() {
        // p = (1/2, 1/2), q = (1/4, 3/4): KL = ln(2) / 2 + ln(2/3) / 2.
        let p = [0.0, 0.0];
        let q = [0.0, 3.0_f32.ln()];
        let expected = 0.5 * (2.0_f64.ln() + (2.0_f64 / 3.0).ln());
        assert!((parted(0, 0, &p, &q).kl - expected).abs() < 1e-6);
    }
}
