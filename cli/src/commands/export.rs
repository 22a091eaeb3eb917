//! `tritmark export`: a run in another program's files, or in one.

use std::path::Path;

use tritmark_reports::{
    comparison::SideError,
    export::{self, ExportError, Format, Questions},
};

mod questions;

use super::{block_on, bundle_file, bundles};
use crate::{
    args::{ExportRun, ForeignFormat},
    exit::{Exit, Fault, Outcome},
    out,
};

pub(crate) fn exec(args: &ExportRun) -> Outcome {
    if let ForeignFormat::Bundle = args.format {
        return one_file(args);
    }
    let named = bundles::read(&args.run)?;
    let format = match args.format {
        ForeignFormat::LmEval => Format::LmEval,
        ForeignFormat::EvalPlus | ForeignFormat::Bundle => Format::EvalPlus,
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

/// Writes everything of a run into one file.
fn one_file(args: &ExportRun) -> Outcome {
    let source = Path::new(&args.run);
    let (folder, fetched) = if source.is_dir() {
        (bundles::folder(source), None)
    } else {
        let fetched = block_on(bundles::fetch(&args.run, &args.target))?;
        (fetched.path().to_owned(), Some(fetched))
    };
    bundle_file::write(&folder, &args.out)?;
    drop(fetched);
    out::line(&args.out.display().to_string())?;
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
