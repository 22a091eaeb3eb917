//! Items a second of an accuracy task, and generated tokens a second where answers are written.
//!
//! `cargo bench -p tritmark-suites --bench accuracy -- MODEL DATA TASK [LIMIT] [THREADS] [SHOTS] [BATCH]`
//!
//! The task runs as an agent's worker runs it, in this process. Prints the seconds of opening the
//! model apart from those of the items, the items and tokens a second, and a hash of all that was
//! answered: the same weights and task give the same on every machine.

#![expect(clippy::print_stdout, reason = "a bench prints what it measured")]

use std::{io, num::NonZeroU32, process::ExitCode, time::Instant};

use tritmark_proto::{
    job::{
        AccuracySpec, Job, JobId, KvType, Model, ModelSource, Numerics, RunId, Selector, SuiteSpec,
    },
    record::{Answer, Item, RecordBody},
};
use tritmark_suites::{Context, Sink, clock::SystemClock, run, sandbox};

struct Timed {
    begun: Option<Instant>,
    items: u64,
    tokens: u64,
    answers: blake3::Hasher,
}

impl Sink for Timed {
    fn record(&mut self, body: RecordBody) -> io::Result<()> {
        match body {
            // Sent once the model is open and before the first item.
            RecordBody::Facts(_) => self.begun = Some(Instant::now()),
            RecordBody::Item(item) => self.count(&item)?,
            _ => {}
        }
        Ok(())
    }

    fn progress(&mut self, _: &str, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn warn(&mut self, text: &str) -> io::Result<()> {
        println!("warning: {text}");
        Ok(())
    }
}

impl Timed {
    fn count(&mut self, item: &Item) -> io::Result<()> {
        self.items += 1;
        if let Answer::Generated(generated) = &item.answer {
            self.tokens += u64::from(generated.n_tokens);
        }
        let answer = serde_json::to_vec(&item.answer)?;
        self.answers.update(&answer);
        Ok(())
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| arg != "--bench")
        .collect();
    let [model, data, task, rest @ ..] = &args[..] else {
        println!("NOT RUN: give MODEL DATA TASK [LIMIT] [THREADS] [SHOTS] [BATCH]");
        return ExitCode::SUCCESS;
    };
    let number = |nth: usize| rest.get(nth).map(|text| text.parse::<u32>());
    let (Ok(limit), Ok(threads), Ok(shots), Ok(batch)) = (
        number(0).transpose(),
        number(1).transpose(),
        number(2).transpose(),
        number(3).transpose(),
    ) else {
        println!("LIMIT, THREADS, SHOTS and BATCH are numbers");
        return ExitCode::FAILURE;
    };
    let spec = AccuracySpec {
        limit: limit.and_then(NonZeroU32::new),
        num_fewshot: shots.unwrap_or(0),
        add_bos: true,
        batch: batch.and_then(NonZeroU32::new),
        ..AccuracySpec::new(task, data)
    };
    let job = Job {
        id: JobId {
            run: RunId::generate(),
            index: 0,
        },
        model: Model {
            id: "model".to_owned(),
            source: ModelSource::Path(model.into()),
            adapter: None,
            baseline: None,
        },
        kernel: "auto".to_owned(),
        numerics: Numerics::Exact,
        kv: KvType::F32,
        head: None,
        threads: threads.and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN),
        suite: SuiteSpec::Accuracy(spec),
        selector: Selector::default(),
    };
    let context = Context {
        cache_dir: std::env::temp_dir(),
        sysfs_root: "/".into(),
        items_done: 0,
        origin: None,
        machine_id: None,
        item_cache: None,
        sandbox: sandbox::Options::default(),
        clock: &SystemClock::default(),
    };
    let mut timed = Timed {
        begun: None,
        items: 0,
        tokens: 0,
        answers: blake3::Hasher::new(),
    };
    let started = Instant::now();
    if let Err(error) = run(&job, &context, &mut timed) {
        println!("{error}");
        return ExitCode::FAILURE;
    }
    let ended = Instant::now();
    let begun = timed.begun.unwrap_or(started);
    let seconds = (ended - begun).as_secs_f64();
    println!(
        "opened in {:.2} s; {} items in {seconds:.2} s: {:.1} items/s, {:.0} generated tok/s; answers {}",
        (begun - started).as_secs_f64(),
        timed.items,
        timed.items as f64 / seconds,
        timed.tokens as f64 / seconds,
        &timed.answers.finalize().to_hex()[..16],
    );
    ExitCode::SUCCESS
}
