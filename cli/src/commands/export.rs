//! `tritmark export`: a run in another program's files.

use tritmark_reports::{
    comparison::SideError,
    export::{self, ExportError, Format, Questions},
};

mod questions;

use super::bundles;
use crate::{
    args::{ExportRun, ForeignFormat},
    exit::{Exit, Fault, Outcome},
    out,
};

pub(crate) fn exec(args: &ExportRun) -> Outcome {
    let named = bundles::read(&args.run)?;
    let format = match args.format {
        ForeignFormat::LmEval => Format::LmEval,
        ForeignFormat::EvalPlus => Format::EvalPlus,
    };
    let questions = match format {
        Format::LmEval => questions::of(&named.bundle, args.data.as_deref()),
        Format::EvalPlus => Questions::default(),
    };
    let model = named.model.as_deref();
    let written = export::export(&named.bundle, model, format, &questions, &args.out);
    for path in written.map_err(refused)? {
        out::line(&path.display().to_string())?;
    }
    Ok(Exit::Pass)
}

fn refused(error: ExportError) -> Fault {
    let exit = match &error {
        ExportError::NoPrograms { .. } | ExportError::Side(SideError::NoItems { .. }) => {
            Exit::NothingSelected
        }
        ExportError::Side(_) | ExportError::Write(_) => Exit::Usage,
    };
    Fault {
        exit,
        error: error.into(),
    }
}
