//! `tritmark agree`: the lossless test of one model file, over this machine's kernels.

use std::time::Instant;

use indicatif::ProgressBar;
use serde_json::json;
use tritmark_engine::load;
use tritmark_suites::agreement::{self, Agreement, Outcome as CellOutcome, Prompts};

use crate::{
    args::Agree,
    exit::{Exit, OrExit as _, Outcome},
    out,
};

pub(crate) fn exec(args: &Agree) -> Outcome {
    let model = load::load(&args.model, &(&args.loading).into()).or_exit(Exit::Usage, || {
        format!("cannot load {}", args.model.display())
    })?;
    let prompts = Prompts {
        n_prompts: args.n_prompts.get(),
        max_len: args.max_len.get(),
        n_gen: args.n_gen,
        seed: args.seed,
    };
    let cells = agreement::matrix(&args.threads, &args.n_batch);
    let start = Instant::now();
    // Draws on a terminal only.
    let bar = ProgressBar::new(0);
    let found = agreement::run(
        &model,
        prompts,
        (args.kv.into(), args.numerics.into()),
        &cells,
        |done, total| {
            bar.set_length(total);
            bar.set_position(done);
            Ok(())
        },
    )
    .or_exit(Exit::Usage, || {
        format!("cannot compare kernels on {}", args.model.display())
    })?;
    bar.finish_and_clear();
    if args.json {
        out::json(&json!({
            "model": args.model,
            "adapter": model.source.adapter,
            "agrees": found.agrees(),
            "agreement": found,
        }))?;
    } else {
        print(&found)?;
        eprintln!("{:.1} s", start.elapsed().as_secs_f64());
    }
    Ok(if found.agrees() {
        Exit::Pass
    } else {
        Exit::GateFailed
    })
}

fn print(found: &Agreement) -> Outcome<()> {
    let rows = found.outcomes.iter().map(row).collect();
    out::table(
        &[
            "kernel",
            "threads",
            "batch",
            "prefix",
            "equal",
            "fingerprint",
            "first difference",
        ],
        rows,
    )?;
    let verdict = if found.agrees() {
        "every cell gives the reference's logits and tokens, bit for bit"
    } else {
        "NOT EQUAL: some cells part from the reference"
    };
    out::line(&format!(
        "\nreference {} (numerics {} {}, keys and values {}): {verdict}",
        found.fingerprint, found.numerics_version, found.numerics, found.kv
    ))
}

fn row(outcome: &CellOutcome) -> Vec<String> {
    let cell = &outcome.cell;
    vec![
        cell.kernel.to_owned(),
        cell.threads.to_string(),
        cell.n_batch.to_string(),
        if cell.reused_prefix {
            "reused"
        } else {
            "fresh"
        }
        .to_owned(),
        format!("{}/{}", outcome.equal, outcome.positions),
        outcome.fingerprint.clone(),
        outcome.parted.map_or_else(
            || "none".to_owned(),
            |parted| {
                format!(
                    "prompt {} position {}: {:.2e}, KL {:.1e}, margin {:.2e}",
                    parted.prompt, parted.position, parted.max_abs, parted.kl, parted.margin
                )
            },
        ),
    ]
}
