//! `tritmark bench`: prefill and decode of one model file in this process, in llama-bench's words.
//!
//! A quick look, not a record: a run measures in a fresh process under the machine's lock, keeps
//! every value and says how the machine was set.

mod print;
mod reference;

use std::{
    num::NonZeroUsize,
    path::Path,
    time::{Duration, Instant},
};

use tritmark_engine::{
    engine::{Engine, EngineOptions, Logits},
    kernels::KernelChoice,
    load::{self, LoadedModel},
};

use tritmark_proto::{
    job::Workload,
    roofline::{Bounds, Demand, Roofline},
};
use tritmark_suites::bounds;

use crate::{
    args::Bench,
    exit::{Exit, Fault, OrExit as _, Outcome},
};

/// What is timed once a repetition; the names are llama-bench's.
#[expect(clippy::struct_field_names, reason = "the glossary's words")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Test {
    n_prompt: usize,
    n_gen: usize,
    n_depth: usize,
    n_batch: usize,
}

impl Test {
    /// Positions of the KV cache it needs.
    fn capacity(self) -> usize {
        self.n_depth + self.n_prompt + self.n_gen
    }

    /// Returns what bounds it on a machine; a mixture of prefill and decode has no bound.
    fn bound(self, machine: Bounds, demand: Demand) -> Option<Roofline> {
        match (self.n_prompt, self.n_gen) {
            (_, 0) => machine.prefill(demand),
            (0, _) => {
                let [n_gen, n_depth] = [self.n_gen, self.n_depth].map(|n| n as u32);
                let workload = Workload {
                    n_prompt: 0,
                    n_gen,
                    n_depth,
                    n_batch: 1,
                };
                Some(machine.decode(demand, workload))
            }
            _ => None,
        }
    }
}

/// A test with its times.
#[derive(Clone, Debug)]
struct Row {
    model: String,
    model_file: String,
    weight_bytes: u64,
    n_params: u64,
    format: String,
    bits_per_weight: f64,
    kernel: &'static str,
    head: &'static str,
    kv: &'static str,
    numerics: &'static str,
    threads: usize,
    test: Test,
    samples: Vec<Duration>,
    bound: Option<Roofline>,
}

impl Row {
    /// Tokens per second of each repetition.
    fn tok_per_s(&self) -> Vec<f64> {
        let tokens = (self.test.n_prompt + self.test.n_gen) as f64;
        self.samples
            .iter()
            .map(|sample| tokens / sample.as_secs_f64())
            .collect()
    }

    /// llama-bench's name: `pp512`, `tg128`, ` @ d512` behind it where there is a depth.
    fn test_name(&self) -> String {
        let Test {
            n_prompt,
            n_gen,
            n_depth,
            ..
        } = self.test;
        let name = match (n_prompt, n_gen) {
            (prompt, 0) => format!("pp{prompt}"),
            (0, gen_) => format!("tg{gen_}"),
            (prompt, gen_) => format!("pp{prompt}+tg{gen_}"),
        };
        match n_depth {
            0 => name,
            depth => format!("{name} @ d{depth}"),
        }
    }

    /// The mean speed's share of the machine's bound, and what bounds it.
    fn share(&self) -> Option<(f64, &'static str)> {
        let bound = self.bound?;
        let speeds = self.tok_per_s();
        let mean = speeds.iter().sum::<f64>() / speeds.len() as f64;
        Some((mean / bound.tok_per_s, bound.name()))
    }
}

pub(crate) fn exec(args: &Bench) -> Outcome {
    let kernel: KernelChoice = args.engine.kernel.parse().or_exit(Exit::Usage, || {
        format!("cannot use kernel `{}`", args.engine.kernel)
    })?;
    let tests = tests(args);
    if tests.is_empty() {
        return Err(Fault::usage("nothing to time: -p and -n are both 0"));
    }
    let threads = if args.threads.is_empty() {
        vec![super::threads(None)]
    } else {
        args.threads.clone()
    };
    let mut model = load::load(&args.engine.model, &(&args.engine.loading).into())
        .or_exit(Exit::Usage, || {
            format!("cannot load {}", args.engine.model.display())
        })?;
    let context_length = model.config.context_length;
    if let Some(test) = tests.iter().find(|test| test.capacity() > context_length) {
        return Err(Fault::usage(format!(
            "{} tokens do not fit the model's {context_length} positions",
            test.capacity()
        )));
    }
    // Once, for the engines of all numbers of threads.
    model.pack(&kernel).or_exit(Exit::Usage, || {
        format!("cannot use kernel `{}`", args.engine.kernel)
    })?;
    let shape = reference::Shape::of(&model.config);
    let mut printer = print::Printer::new(args.output);
    for threads in threads {
        let options = EngineOptions {
            threads,
            kernel: kernel.clone(),
            head: args.engine.head.into(),
            kv: args.engine.kv.into(),
            numerics: args.engine.numerics.into(),
            ..EngineOptions::default()
        };
        let mut engine = Engine::from_loaded(model.clone(), &options)
            .or_exit(Exit::Usage, || {
                format!("cannot run {}", args.engine.model.display())
            })?;
        for &test in &tests {
            // Just before, since a shared machine's bounds change from minute to minute.
            let machine = if args.no_probe {
                None
            } else {
                let measured = bounds::measure(&options, Path::new("/"));
                Some(measured.or_exit(Exit::Internal, || {
                    "cannot measure the machine's bounds".to_owned()
                })?)
            };
            let samples = time(&mut engine, test, args)?;
            let demand = bounds::demand(&model.source, &engine);
            let bound = machine.and_then(|machine| test.bound(machine, demand));
            printer.row(&row(args, &model, &engine, test, samples, bound))?;
        }
    }
    printer.finish(shape)?;
    Ok(Exit::Pass)
}

fn row(
    args: &Bench,
    model: &LoadedModel,
    engine: &Engine,
    test: Test,
    samples: Vec<Duration>,
    bound: Option<Roofline>,
) -> Row {
    let path = &args.engine.model;
    Row {
        model: path.file_name().map_or_else(
            || path.display().to_string(),
            |name| name.to_string_lossy().into_owned(),
        ),
        model_file: path.display().to_string(),
        weight_bytes: model.source.weight_bytes,
        n_params: model.source.n_params,
        format: match &model.source.adapter {
            Some(_) => format!("{}+lora", model.source.linear_format),
            None => model.source.linear_format.clone(),
        },
        bits_per_weight: model.source.bits_per_weight,
        kernel: engine.kernel_name(),
        head: match engine.screen() {
            Some(_) => "screened",
            None => "full",
        },
        kv: engine.new_cache(0).dtype().name(),
        numerics: engine.numerics().name(),
        threads: engine.threads(),
        test,
        samples,
        bound,
    }
}

/// Every prompt length, then every generation length, at every depth.
fn tests(args: &Bench) -> Vec<Test> {
    let n_batch = args.n_batch.get() as usize;
    let mut tests = Vec::new();
    for &n_depth in &args.n_depth {
        let test = |n_prompt: u32, n_gen: u32| Test {
            n_prompt: n_prompt as usize,
            n_gen: n_gen as usize,
            n_depth: n_depth as usize,
            n_batch,
        };
        tests.extend(
            args.n_prompt
                .iter()
                .filter(|n| **n > 0)
                .map(|n| test(*n, 0)),
        );
        tests.extend(args.n_gen.iter().filter(|n| **n > 0).map(|n| test(0, *n)));
    }
    tests
}

fn time(engine: &mut Engine, test: Test, args: &Bench) -> Outcome<Vec<Duration>> {
    let capacity = test.capacity();
    let mut cache = engine.new_cache(capacity);
    let vocab_size = engine.config().vocab_size;
    let cannot = || format!("cannot evaluate {capacity} tokens");
    let mut greatest = Vec::new();

    for batch in tokens(test.n_depth, vocab_size).chunks(test.n_batch) {
        engine
            .forward(&mut cache, batch, Logits::None, &mut Vec::new())
            .or_exit(Exit::Usage, cannot)?;
    }
    let prompt = tokens(test.n_prompt, vocab_size);
    let generated = tokens(test.n_gen, vocab_size);
    let mut repetition = |engine: &mut Engine, n_gen: usize| -> Outcome<Duration> {
        cache.truncate(test.n_depth);
        let start = Instant::now();
        let last = prompt.chunks(test.n_batch).count().saturating_sub(1);
        for (index, batch) in prompt.chunks(test.n_batch).enumerate() {
            if index == last {
                engine.top(&mut cache, batch, NonZeroUsize::MIN, &mut greatest)
            } else {
                engine.forward(&mut cache, batch, Logits::None, &mut Vec::new())
            }
            .or_exit(Exit::Usage, cannot)?;
        }
        for token in generated.iter().take(n_gen) {
            let token = std::slice::from_ref(token);
            engine
                .top(&mut cache, token, NonZeroUsize::MIN, &mut greatest)
                .or_exit(Exit::Usage, cannot)?;
        }
        Ok(start.elapsed())
    };
    // llama-bench's warm-up: the full prompt, one generated token.
    if !args.no_warmup {
        repetition(engine, test.n_gen.min(1))?;
    }
    (0..args.repetitions.get())
        .map(|_| repetition(engine, test.n_gen))
        .collect()
}

/// Token ids spread over the vocabulary; speed does not depend on them.
fn tokens(n: usize, vocab_size: usize) -> Vec<u32> {
    (0..n)
        .map(|i| ((i + 1).wrapping_mul(2_654_435_761) % vocab_size) as u32)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row_of(n_prompt: usize, n_gen: usize, n_depth: usize) -> Row {
        Row {
            model: "m.gguf".to_owned(),
            model_file: "m.gguf".to_owned(),
            weight_bytes: 1,
            n_params: 1,
            format: "i2_s".to_owned(),
            bits_per_weight: 2.0,
            kernel: "reference",
            head: "full",
            kv: "f32",
            numerics: "exact",
            bound: None,
            threads: 1,
            test: Test {
                n_prompt,
                n_gen,
                n_depth,
                n_batch: 512,
            },
            samples: vec![Duration::from_millis(500), Duration::from_millis(250)],
        }
    }

    #[test]
    fn a_test_is_named_as_llama_bench_names_it() {
        assert_eq!(row_of(512, 0, 0).test_name(), "pp512");
        assert_eq!(row_of(0, 128, 0).test_name(), "tg128");
        assert_eq!(row_of(512, 128, 0).test_name(), "pp512+tg128");
        assert_eq!(row_of(0, 128, 4096).test_name(), "tg128 @ d4096");
    }

    #[test]
    fn speed_is_tokens_by_seconds_of_each_repetition() {
        assert_eq!(row_of(0, 100, 0).tok_per_s(), [200.0, 400.0]);
    }

    #[test]
    fn made_up_tokens_stay_within_the_vocabulary() {
        assert!(tokens(1000, 7).iter().all(|id| *id < 7));
        assert_eq!(tokens(3, 1), [0, 0, 0]);
    }
}
