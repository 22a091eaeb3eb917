//! `tritmark model`: looks into model files, checks them and makes them.

mod convert;
mod inspect;
mod synth;
mod verify;

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
        ModelCommand::Convert(args) => convert::exec(&args),
        ModelCommand::Export(args) => convert::export(&args),
        ModelCommand::Verify(args) => verify::exec(&args),
        ModelCommand::Synth {
            shape,
            format,
            seed,
            output,
        } => synth::exec(&shape, &format, seed, &output),
    }
}
