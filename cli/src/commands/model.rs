//! `tritmark model`: looks into model files and makes them.

mod inspect;
mod synth;

use crate::{
    args::{Model, ModelCommand},
    exit::Outcome,
};

pub(crate) fn exec(args: Model) -> Outcome {
    match args.command {
        ModelCommand::Inspect { model, print } => inspect::exec(&model, print.json),
        ModelCommand::Synth {
            shape,
            format,
            seed,
            output,
        } => synth::exec(&shape, &format, seed, &output),
    }
}
