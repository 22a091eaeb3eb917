//! What was really run: the models, their hashes, formats and kernels.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use tritmark_proto::{
    job::{Adapter, KvType, Model, ModelSource, Numerics},
    record::ModelFacts,
};

use super::machines::Fact;
use crate::{bundle::Bundle, summary::context::Context, units};

/// A model as facts and warnings.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ModelView {
    pub(crate) id: String,
    pub(crate) role: &'static str,
    pub(crate) facts: Vec<Fact>,
    pub(crate) warnings: Vec<String>,
}

/// Returns the models of a run.
pub(super) fn views(bundle: &Bundle) -> Vec<ModelView> {
    let context = Context::new(bundle);
    let mut order: Vec<&str> = Vec::new();
    let mut facts: BTreeMap<&str, Vec<&ModelFacts>> = BTreeMap::new();
    let mut models: BTreeMap<&str, &Model> = BTreeMap::new();
    for outcome in &bundle.manifest.jobs {
        let model = &outcome.job.model;
        if models.insert(&model.id, model).is_none() {
            order.push(&model.id);
        }
        facts.entry(&model.id).or_default().extend(&outcome.facts);
    }
    order.sort_by_key(|id| context.model_rank(id));
    order
        .into_iter()
        .map(|id| {
            let all = &facts[id];
            ModelView {
                id: id.to_owned(),
                role: context.role(id).name(),
                facts: facts_of(models[id], all),
                warnings: warnings_of(all),
            }
        })
        .collect()
}

fn facts_of(model: &Model, all: &[&ModelFacts]) -> Vec<Fact> {
    let source = match &model.source {
        ModelSource::Path(path) => path.display().to_string(),
        ModelSource::Files(files) => files.to_string(),
        ModelSource::Synth(synth) => format!(
            "random weights of shape {}, format {}, seed {}",
            synth.shape, synth.format, synth.seed
        ),
    };
    let mut facts = vec![Fact {
        name: "Source",
        value: source,
    }];
    facts.extend(model.adapter.as_ref().map(|adapter| Fact {
        name: "LoRA adapter",
        value: match adapter {
            Adapter::Path(folder) => folder.display().to_string(),
            Adapter::Files(files) => files.to_string(),
        },
    }));
    let mut add = |name, value: &dyn Fn(&ModelFacts) -> String| {
        let values: BTreeSet<String> = all.iter().map(|facts| value(facts)).collect();
        if !values.is_empty() {
            facts.push(Fact {
                name,
                value: values.into_iter().collect::<Vec<_>>().join(" or "),
            });
        }
    };
    add("Architecture", &|facts| facts.architecture.clone());
    add("Weights", &|facts| {
        let bits = trimmed(facts.bits_per_weight);
        format!("{}, {bits} bits a weight", facts.weight_format)
    });
    // It may depend on the number of threads, so that one run has several.
    add("Output head", &|facts| facts.head_format.clone());
    add("Parameters", &|facts| {
        format!(
            "{}, of them {} in linears",
            units::count(facts.n_params),
            units::count(facts.n_linear_params)
        )
    });
    add("Kernel", &|facts| {
        let remark = if facts.lossy_kernel {
            " (rounds: not bit-identical)"
        } else {
            ""
        };
        format!("{}{remark}", facts.kernel)
    });
    // Only what is not usual.
    if all.iter().any(|facts| facts.numerics != Numerics::Exact) {
        add("Numerics", &|facts| match facts.numerics {
            Numerics::Exact => "exact".to_owned(),
            Numerics::Fast => "fast (inputs of block formats rounded to int8)".to_owned(),
        });
    }
    if all.iter().any(|facts| facts.kv != KvType::F32) {
        add("Keys and values", &|facts| facts.kv.name().to_owned());
    }
    add("Hash of the weights", &|facts| facts.weights_hash.clone());
    add("Numerics version", &|facts| {
        facts.numerics_version.to_string()
    });
    add("Logits fingerprint", &|facts| {
        facts.logits_fingerprint.clone()
    });
    facts
}

fn warnings_of(all: &[&ModelFacts]) -> Vec<String> {
    let mut warnings: BTreeSet<String> = all
        .iter()
        .flat_map(|facts| facts.warnings.iter().cloned())
        .collect();
    let mut fingerprints: BTreeMap<_, BTreeSet<&str>> = BTreeMap::new();
    for facts in all {
        let of_weights = fingerprints
            .entry((
                &facts.weights_hash,
                facts.numerics_version,
                facts.numerics,
                facts.kv,
            ))
            .or_default();
        // A kernel that rounds promises no equality.
        if !facts.lossy_kernel {
            of_weights.insert(&facts.logits_fingerprint);
        }
    }
    if fingerprints.values().any(|found| found.len() > 1) {
        warnings.insert(
            "The same weights gave different logits in different jobs: kernels or machines disagree."
                .to_owned(),
        );
    }
    if fingerprints.len() > 1 {
        warnings.insert(
            "Jobs ran different weights, numerics or types of keys and values under this name."
                .to_owned(),
        );
    }
    warnings.into_iter().collect()
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
