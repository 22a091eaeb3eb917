//! `tritmark model`: looks into model files, checks them and makes them.

mod convert;
mod fetch;
mod inspect;
mod synth;
mod verify;

use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    args::{Model, ModelCommand},
    exit::Outcome,
};

pub(crate) fn exec(args: Model) -> Outcome {
    match args.command {
        ModelCommand::Inspect {
            model,
            loading,
            print,
        } => inspect::exec(&model, &(&loading).into(), print.json),
        ModelCommand::Fetch(args) => fetch::exec(&args),
        ModelCommand::Convert(args) => convert::exec(&args),
        ModelCommand::Export(args) => convert::export(&args),
        ModelCommand::Verify(args) => verify::exec(&args),
        ModelCommand::Synth {
            shape,
            format,
            seed,
            vocabulary,
            output,
        } => synth::exec(&shape, &format, seed, vocabulary.as_deref(), &output),
    }
}

/// Returns a bar for the bytes of a file, hidden by itself where stderr is no terminal.
fn bar_of_bytes() -> ProgressBar {
    ProgressBar::new(0).with_style(
        ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes}")
            .expect("the template is a constant of this file"),
    )
}
