//! `tritmark model verify`: whether a model file gives the numbers it should.

use indicatif::ProgressBar;
use serde_json::json;
use tritmark_engine::{
    engine::EngineOptions,
    kernels::KernelChoice,
    load,
    verify::{self, Check, Golden, Options, Report, Verdict},
};

use crate::{
    args::Verify,
    commands::threads,
    exit::{Exit, OrExit as _, Outcome},
    out,
};

pub(super) fn exec(args: &Verify) -> Outcome {
    let path = &args.model;
    let kernel: KernelChoice = args
        .kernel
        .parse()
        .or_exit(Exit::Usage, || "cannot choose a kernel")?;
    let golden = match &args.golden {
        Some(path) => Some(Golden::read(path).or_exit(Exit::Usage, || {
            format!("cannot use the reference {}", path.display())
        })?),
        None => None,
    };
    let model = load::load(path, &(&args.loading).into())
        .or_exit(Exit::Usage, || format!("cannot load {}", path.display()))?;
    let options = Options {
        engine: EngineOptions {
            threads: threads(args.threads),
            kernel,
            kv: args.kv.into(),
            numerics: args.numerics.into(),
            ..EngineOptions::default()
        },
        longest_prompt: args.longest.map(Into::into),
    };
    // Draws on a terminal only.
    let bar = ProgressBar::new(0);
    let report = verify::verify(&model, golden.as_ref(), &options, |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    })
    .or_exit(Exit::Usage, || format!("cannot verify {}", path.display()))?;
    bar.finish_and_clear();
    if args.print.json {
        out::json(&json!({
            "model": path,
            "adapter": model.source.adapter,
            "golden": args.golden,
            "report": report,
        }))?;
    } else {
        print(&report)?;
    }
    Ok(match report.verdict {
        Verdict::Pass => Exit::Pass,
        Verdict::Fail => Exit::GateFailed,
        Verdict::Inconclusive => Exit::Inconclusive,
    })
}

fn print(report: &Report) -> Outcome<()> {
    let rows = report.checks.iter().map(row).collect();
    out::table(&["about", "check", "", "found", "limit"], rows)?;
    let verdict = match report.verdict {
        Verdict::Pass => "PASS: no check failed",
        Verdict::Fail => "FAIL: the numbers of this file and build are not what they should be",
        Verdict::Inconclusive => "INCONCLUSIVE: the reference cannot judge this model",
    };
    out::line(&format!(
        "\n{verdict}\n{} on {}, keys and values in {}, numerics {} {}, fingerprint {}",
        report.architecture,
        report.kernel,
        report.kv,
        report.numerics_version,
        report.numerics,
        report.fingerprint
    ))
}

fn row(check: &Check) -> Vec<String> {
    vec![
        check.group.name().to_owned(),
        check.name.clone(),
        check.outcome.name().to_owned(),
        check.found.clone(),
        check.limit.map_or_else(String::new, |limit| {
            if limit == 0.0 || limit >= 1e-3 {
                limit.to_string()
            } else {
                format!("{limit:.0e}")
            }
        }),
    ]
}
