//! `tritmark import`: another program's results as a bundle, its tasks as definitions.

use tritmark_reports::import::{self, ImportError, Imported};

use super::bundle_file;
use crate::{
    args::{Import, ImportFiles, ImportRun},
    exit::{Exit, OrExit as _, Outcome},
    out,
};

mod lm_eval_task;

pub(crate) fn exec(args: &ImportRun) -> Outcome {
    match &args.what {
        Import::LmEval(files) => bundle(files, import::lm_eval(&files.paths)),
        Import::EvalPlus(files) => bundle(files, import::evalplus(&files.paths)),
        Import::Bundle { file, out } => {
            bundle_file::read(file, out)?;
            out::line(&out.display().to_string())?;
            Ok(Exit::Pass)
        }
        Import::LmEvalTask { task, out } => lm_eval_task::exec(task, out.as_deref()),
    }
}

fn bundle(files: &ImportFiles, imported: Result<Imported, ImportError>) -> Outcome {
    let imported = imported.or_exit(Exit::Usage, || "cannot import these files")?;
    for warning in &imported.warnings {
        tracing::warn!("{warning}");
    }
    imported.bundle.write(&files.out).or_exit(Exit::Usage, || {
        format!("cannot write {}", files.out.display())
    })?;
    out::line(&files.out.display().to_string())?;
    Ok(Exit::Pass)
}
