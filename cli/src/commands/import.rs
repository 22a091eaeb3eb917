//! `tritmark import`: another program's results as a bundle.

use tritmark_reports::import;

use crate::{
    args::{ForeignFormat, ImportRun},
    exit::{Exit, OrExit as _, Outcome},
    out,
};

pub(crate) fn exec(args: &ImportRun) -> Outcome {
    let imported = match args.format {
        ForeignFormat::LmEval => import::lm_eval(&args.paths),
        ForeignFormat::EvalPlus => import::evalplus(&args.paths),
    }
    .or_exit(Exit::Usage, || "cannot import these files")?;
    for warning in &imported.warnings {
        tracing::warn!("{warning}");
    }
    imported.bundle.write(&args.out).or_exit(Exit::Usage, || {
        format!("cannot write {}", args.out.display())
    })?;
    out::line(&args.out.display().to_string())?;
    Ok(Exit::Pass)
}
