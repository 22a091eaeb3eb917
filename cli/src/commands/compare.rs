//! `tritmark compare`: two models' answers to the same items.

use std::fs;

use tritmark_reports::comparison::{self, Comparison, Options, Overall, SideError};

use super::bundles::{self, Named};
use crate::{
    args::{Compare, ComparisonFormat},
    exit::{Exit, OrExit as _, Outcome},
    out,
};

pub(crate) fn exec(args: &Compare) -> Outcome {
    let (a, b) = (bundles::read(&args.a)?, bundles::read(&args.b)?);
    let (a, b) = (side(&a), side(&b));
    let options = Options {
        margin: args.margin / 100.0,
        tasks: args.tasks.clone(),
    };
    let comparison = comparison::compare(a, b, &options).map_err(refused)?;
    if let Some(path) = &args.html {
        let page = comparison::page(a, b, &comparison)?;
        fs::write(path, page)
            .or_exit(Exit::Usage, || format!("cannot write {}", path.display()))?;
    }
    let text = match args.format {
        ComparisonFormat::Text => comparison.text(),
        ComparisonFormat::Md => comparison.markdown(),
        ComparisonFormat::Json => comparison.json()?,
        ComparisonFormat::Csv => String::from_utf8_lossy(&comparison.csv()?).into_owned(),
    };
    out::line(text.trim_end())?;
    Ok(exit(&comparison))
}

fn side(named: &Named) -> (&tritmark_reports::bundle::Bundle, Option<&str>) {
    (&named.bundle, named.model.as_deref())
}

fn refused(error: SideError) -> crate::exit::Fault {
    let exit = match error {
        SideError::NoModel { .. } | SideError::Several { .. } => Exit::Usage,
        SideError::NoItems { .. } => Exit::NothingSelected,
    };
    crate::exit::Fault {
        exit,
        error: error.into(),
    }
}

fn exit(comparison: &Comparison) -> Exit {
    match comparison.overall {
        Overall::Worse => Exit::GateFailed,
        Overall::Inconclusive => Exit::Inconclusive,
        Overall::Nothing => Exit::NothingSelected,
        Overall::Pass if comparison.is_incomplete() => Exit::Incomplete,
        Overall::Pass => Exit::Pass,
    }
}
