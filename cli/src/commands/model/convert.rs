//! `tritmark model convert` and `tritmark model export`: a model file in another format.

use std::path::Path;

use serde_json::json;
use tritmark_engine::{
    config::Architecture,
    convert::{self, Format, Options},
    inspect,
};

use crate::{
    args::{Convert, Export, Program, Written},
    exit::{Exit, Fault, OrExit as _, Outcome},
    out,
};

use super::bar_of_bytes;

pub(super) fn exec(args: &Convert) -> Outcome {
    let options = Options {
        scale_tensors: args.scale_tensors,
        architecture: args.arch.clone(),
        embedding: args.head.as_deref().map(format).transpose()?,
        without_vocabulary: args.without_vocabulary,
        load: args.written.i2s_layout.into(),
        ..Options::new(format(&args.format)?)
    };
    write(&args.model, &args.written, &options)
}

/// What the programs read: llama.cpp knows `bitnet` alone, and has no I2_S.
pub(super) fn export(args: &Export) -> Outcome {
    let mut options = Options {
        load: args.written.i2s_layout.into(),
        ..Options::new(match args.program {
            Program::LlamaCpp => Format::Tq2_0,
            Program::BitnetCpp => Format::I2S,
        })
    };
    if args.program == Program::LlamaCpp {
        options.scale_tensors = true;
        let found = inspect::inspect(&args.model).or_exit(Exit::Usage, || {
            format!("cannot read {}", args.model.display())
        })?;
        if found.config.map(|config| config.architecture) == Some(Architecture::Bitnet) {
            options.architecture = Some("bitnet".to_owned());
        }
    }
    write(&args.model, &args.written, &options)
}

fn format(name: &str) -> Outcome<Format> {
    Format::from_name(name).ok_or_else(|| {
        Fault::usage(format!(
            "no format is called `{name}` (there are {})",
            Format::ALL.map(Format::name).join(", ")
        ))
    })
}

fn write(input: &Path, written: &Written, options: &Options) -> Outcome {
    let output = &written.output;
    let bar = bar_of_bytes();
    let report = convert::convert(input, output, options, |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })
    .or_exit(Exit::Usage, || {
        format!("cannot convert {}", input.display())
    })?;
    bar.finish_and_clear();
    for warning in &report.warnings {
        eprintln!("warning: {warning}");
    }
    if written.print.json {
        out::json(&json!({ "model": output, "report": report }))?;
    } else {
        out::line(&format!(
            "{} {}, {}: {} tensors converted, {} copied, {} scales beside their blocks",
            output.display(),
            out::bytes(report.file_bytes),
            report.architecture,
            report.n_converted,
            report.n_copied,
            report.n_scale_tensors
        ))?;
    }
    Ok(Exit::Pass)
}
