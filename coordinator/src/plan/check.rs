//! What of a plan does not fit the files and agents at hand.

use tritmark_proto::job::{Adapter, ModelSource, SuiteSpec};

use super::{CheckContext, Plan, PlanError, names};

pub(super) fn plan(plan: &Plan, context: &CheckContext<'_>) -> Result<(), PlanError> {
    if context.local_files {
        models(plan)?;
    }
    data(plan, context)?;
    scoring(plan, context)?;
    if !context.agents.is_empty() {
        selectors(plan, context)?;
    }
    Ok(())
}

fn models(plan: &Plan) -> Result<(), PlanError> {
    for model in &plan.models {
        if let ModelSource::Path(path) = &model.model.source
            && let Err(error) = std::fs::metadata(path)
        {
            return Err(plan.error(
                model.source_at,
                format!("cannot read the model at {}: {error}", path.display()),
            ));
        }
        if let Some(Adapter::Path(path)) = &model.model.adapter {
            // Without it the worker would know of no adapter.
            let config = path.join("adapter_config.json");
            std::fs::metadata(&config).map_err(|error| {
                let problem = format!("cannot read the adapter's {}: {error}", config.display());
                plan.error(model.adapter_at, problem)
            })?;
        }
    }
    Ok(())
}

/// Finds data that is missing where it is needed: on the agents, whose files these are or are not, and
/// here where programs are scored.
fn data(plan: &Plan, context: &CheckContext<'_>) -> Result<(), PlanError> {
    for spec in plan.suites.iter().flat_map(|suite| &suite.specs) {
        let SuiteSpec::Accuracy(accuracy) = &spec.spec else {
            continue;
        };
        if !context.local_files && !spec.spec.is_scored_by_coordinator() {
            continue;
        }
        // Where a task of the plan's own has its items is known to the worker.
        let Some(task) = names::task_named(&accuracy.task) else {
            continue;
        };
        if accuracy.definition.is_some() || accuracy.data.is_some() {
            continue;
        }
        let (folder, name) = task.data;
        let file = accuracy
            .data_dir
            .join(folder)
            .join(format!("{name}{}", task.ending));
        let compressed = accuracy
            .data_dir
            .join(folder)
            .join(format!("{name}{}.gz", task.ending));
        if !file.is_file() && !compressed.is_file() {
            return Err(plan.error(
                spec.at,
                format!(
                    "the task `{}` has neither {1} nor {1}.gz",
                    accuracy.task,
                    file.display()
                ),
            ));
        }
    }
    Ok(())
}

fn scoring(plan: &Plan, context: &CheckContext<'_>) -> Result<(), PlanError> {
    let at = plan.suites.iter().find_map(|suite| suite.score_on_at);
    match (at, context.unscored) {
        (Some(at), Some(reason)) => Err(plan.error(
            at,
            format!("the coordinator cannot score programs: {reason}"),
        )),
        _ => Ok(()),
    }
}

fn selectors(plan: &Plan, context: &CheckContext<'_>) -> Result<(), PlanError> {
    for selector in &plan.selectors {
        let is_matched = context
            .agents
            .iter()
            .any(|agent| selector.selector.matches(&agent.machine, &agent.labels));
        if !is_matched {
            return Err(plan.error(
                selector.at,
                format!(
                    "none of the {} known agents is what the selector asks for",
                    context.agents.len()
                ),
            ));
        }
    }
    Ok(())
}
