//! `tritmark import lm-eval-task`: a task of lm-evaluation-harness as a definition of ours.

use std::{fs, path::Path};

use tritmark_suites::accuracy::lm_eval_task::{Converted, convert};

use crate::{
    exit::{Exit, OrExit as _, Outcome},
    out,
};

/// Converts `input` and what it includes, and writes the definition to `output`, or prints it where
/// there is none.
pub(super) fn exec(input: &Path, output: Option<&Path>) -> Outcome {
    let cannot = || format!("cannot convert {}", input.display());
    let text = fs::read_to_string(input).or_exit(Exit::Usage, cannot)?;
    let folder = input.parent().unwrap_or(Path::new(""));
    let mut include =
        |name: &str| fs::read_to_string(folder.join(name)).map_err(|error| error.to_string());
    let Converted { toml, warnings } = convert(&text, &mut include).or_exit(Exit::Usage, cannot)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    match output {
        Some(path) => fs::write(path, toml).or_exit(Exit::Internal, || {
            format!("cannot write {}", path.display())
        })?,
        None => out::piece(&toml)?,
    }
    Ok(Exit::Pass)
}
