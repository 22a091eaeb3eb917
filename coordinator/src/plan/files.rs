//! The files a plan names: models, their adapters, and the folders of tasks' data.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use tritmark_proto::{
    artefact::FileSet,
    job::{AccuracySpec, Adapter, ModelSource, SuiteSpec},
};

use super::{Plan, names};

/// Returns every path once, sorted.
pub(super) fn paths(plan: &Plan) -> Vec<PathBuf> {
    let models = plan.models.iter().filter_map(|model| {
        let ModelSource::Path(path) = &model.model.source else {
            return None;
        };
        Some(path.clone())
    });
    let adapters = plan
        .models
        .iter()
        .filter_map(|model| match &model.model.adapter {
            Some(Adapter::Path(path)) => Some(path.clone()),
            Some(Adapter::Files(_)) | None => None,
        });
    let specs = plan.suites.iter().flat_map(|suite| &suite.specs);
    let data = specs.filter_map(|spec| match &spec.spec {
        SuiteSpec::Accuracy(spec) => data_folder(spec),
        _ => None,
    });
    models
        .chain(adapters)
        .chain(data)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

/// Puts files in place of paths.
pub(super) fn put(mut plan: Plan, registered: &BTreeMap<PathBuf, FileSet>) -> Plan {
    for model in &mut plan.models {
        if let ModelSource::Path(path) = &model.model.source
            && let Some(files) = registered.get(path)
        {
            model.model.source = ModelSource::Files(files.clone());
        }
        if let Some(Adapter::Path(path)) = &model.model.adapter
            && let Some(files) = registered.get(path)
        {
            model.model.adapter = Some(Adapter::Files(files.clone()));
        }
    }
    for spec in plan.suites.iter_mut().flat_map(|suite| &mut suite.specs) {
        if let SuiteSpec::Accuracy(spec) = &mut spec.spec
            && let Some(files) = data_folder(spec).and_then(|folder| registered.get(&folder))
        {
            spec.data = Some(files.clone());
            // It is the submitter's and would mean nothing elsewhere.
            spec.data_dir = PathBuf::new();
        }
    }
    plan
}

/// Returns where a task's data lie; `None` of a task that says nothing sensible, which its worker will
/// refuse.
fn data_folder(spec: &AccuracySpec) -> Option<PathBuf> {
    if spec.data.is_some() {
        return None;
    }
    let folder = match &spec.definition {
        Some(definition) => {
            let table: toml::Table = definition.parse().ok()?;
            let folder = table.get("data").and_then(|data| data.get("folder"));
            folder.or(table.get("name"))?.as_str()?.to_owned()
        }
        None => names::task_named(&spec.task)?.data.0.to_owned(),
    };
    let is_plain = !folder.is_empty() && !folder.starts_with('.') && !folder.contains('/');
    is_plain.then(|| spec.data_dir.join(folder))
}
