//! `tritmark generate`: continues a text; the text on stdout as it comes, a timing line on stderr.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use tritmark_engine::{
    chat::{ChatTemplate, Message, Role},
    engine::{Engine, EngineOptions},
    generate::{self, Params},
    kernels::KernelChoice,
    load::{self, VocabSource},
    sampler::Sampling,
    tokenizer::{Special, Tokenizer},
};

use crate::{
    args::Generate,
    commands::threads,
    exit::{Exit, Fault, OrExit as _, Outcome},
    out,
};

pub(crate) fn exec(args: &Generate) -> Outcome {
    let kernel: KernelChoice = args
        .engine
        .kernel
        .parse()
        .or_exit(Exit::Usage, || "cannot use the kernel")?;
    let sampling = sampling(args)?;
    let path = &args.engine.model;
    let cannot_load = || format!("cannot load {}", path.display());

    let start = Instant::now();
    let model =
        load::load(path, &(&args.engine.loading).into()).or_exit(Exit::Usage, cannot_load)?;
    if model.vocab == VocabSource::None {
        return Err(Fault::usage(format!(
            "{} has no vocabulary",
            path.display()
        )));
    }
    let tokenizer = Tokenizer::new(&model.vocab).or_exit(Exit::Usage, cannot_load)?;
    let options = EngineOptions {
        threads: threads(args.threads),
        kernel,
        head: args.engine.head.into(),
        kv: args.engine.kv.into(),
        numerics: args.engine.numerics.into(),
        ..EngineOptions::default()
    };
    let mut engine = Engine::from_loaded(model, &options).or_exit(Exit::Usage, cannot_load)?;
    let load = start.elapsed();

    let prompt = prompt(args, &tokenizer)?;
    let capacity = (prompt.len() + args.n_gen.get()).min(engine.config().context_length);
    let mut cache = engine.new_cache(capacity);
    let params = Params {
        max_new: args.n_gen.get(),
        sampling,
        stop: args.stop.clone(),
        ignore_eos: false,
    };
    let mut times = Vec::with_capacity(params.max_new);
    let mut printed = 0;
    let mut unprinted = None;
    let start = Instant::now();
    let generation = generate::generate(
        &mut engine,
        &mut cache,
        &tokenizer,
        &prompt,
        &params,
        |step| {
            times.push(start.elapsed());
            printed += step.text.len();
            match out::piece(step.text) {
                Ok(()) => ControlFlow::Continue(()),
                Err(fault) => {
                    unprinted = Some(fault);
                    ControlFlow::Break(())
                }
            }
        },
    )
    .or_exit(Exit::Usage, || {
        format!("cannot generate with {}", path.display())
    })?;
    if let Some(fault) = unprinted {
        return Err(fault);
    }
    out::piece(generation.text.get(printed..).unwrap_or_default())?;
    out::line("")?;
    eprintln!(
        "{}, {} threads, {}",
        timing(load, prompt.len(), &times),
        engine.threads(),
        engine.kernel_name()
    );
    Ok(Exit::Pass)
}

fn sampling(args: &Generate) -> Outcome<Sampling> {
    let is_temperature = args.temp.is_finite() && args.temp >= 0.0;
    if !is_temperature {
        return Err(Fault::usage(format!(
            "--temp is {}, not 0 or more",
            args.temp
        )));
    }
    if !(args.top_p > 0.0 && args.top_p <= 1.0) {
        return Err(Fault::usage(format!(
            "--top-p is {}, not above 0 and up to 1",
            args.top_p
        )));
    }
    if args.temp == 0.0 {
        return Ok(Sampling::Greedy);
    }
    Ok(Sampling::Random {
        temperature: args.temp,
        top_k: args.top_k,
        top_p: args.top_p,
        seed: args.seed,
    })
}

fn prompt(args: &Generate, tokenizer: &Tokenizer) -> Outcome<Vec<u32>> {
    let encode = |text: &str, special| {
        tokenizer
            .encode(text, special, true)
            .or_exit(Exit::Usage, || "cannot tokenize the prompt")
    };
    if !args.chat {
        let ids = encode(&args.prompt, Special::Default)?;
        // Of an empty text the model may still say what comes first.
        return match (ids.is_empty(), tokenizer.prefix_id()) {
            (true, Some(first)) => Ok(vec![first]),
            _ => Ok(ids),
        };
    }
    let template = ChatTemplate::of(tokenizer)
        .or_exit(Exit::Usage, || "cannot use the model's chat template")?
        .ok_or_else(|| Fault::usage("the model has no chat template"))?;
    let messages: Vec<Message> = args
        .system
        .iter()
        .map(|text| Message::new(Role::System, text.clone()))
        .chain([Message::new(Role::User, args.prompt.clone())])
        .collect();
    let text = template
        .render(&messages, true)
        .or_exit(Exit::Usage, || "cannot use the model's chat template")?;
    encode(&text, Special::Bos)
}

/// Says how long loading took, and how fast prompt and answer were; `times` are those of the
/// tokens, since the prompt was handed over.
fn timing(load: Duration, n_prompt: usize, times: &[Duration]) -> String {
    let mut parts = vec![format!("load {:.2} s", load.as_secs_f64())];
    if let Some(first) = times.first() {
        let speed = n_prompt as f64 / first.as_secs_f64();
        parts.push(format!("prefill {n_prompt} tokens at {speed:.1} tok/s"));
    }
    if let [first, .., last] = times {
        let n = times.len() - 1;
        let speed = n as f64 / last.saturating_sub(*first).as_secs_f64();
        parts.push(format!("decode {n} tokens at {speed:.1} tok/s"));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decode_is_timed_from_the_first_token_on() {
        let times = [100, 150, 200].map(Duration::from_millis);
        assert_eq!(
            timing(Duration::from_millis(1500), 20, &times),
            "load 1.50 s, prefill 20 tokens at 200.0 tok/s, decode 2 tokens at 20.0 tok/s"
        );
    }

    #[test]
    fn one_token_has_no_decode_speed() {
        let line = timing(Duration::ZERO, 4, &[Duration::from_secs(2)]);
        assert_eq!(line, "load 0.00 s, prefill 4 tokens at 2.0 tok/s");
        assert_eq!(timing(Duration::ZERO, 4, &[]), "load 0.00 s");
    }
}
