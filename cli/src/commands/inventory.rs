//! What this build knows: suites, tasks, kernels, shapes.

use tritmark_engine::{
    kernels::{self, KernelChoice},
    synth::{self, Shape},
};
use tritmark_proto::job::SuiteSpec;
use tritmark_suites::accuracy::Task;

use super::ls::names;
use crate::exit::Outcome;

pub(super) fn suites(as_json: bool) -> Outcome {
    let suites = SuiteSpec::NAMES.map(|name| {
        let remark = match name {
            "latency" => "load time, prefill, decode, TTFT, TPOT".to_owned(),
            "memory" => "weight, file and KV bytes, peak RSS".to_owned(),
            "energy" => "RAPL counters, and the papers' arithmetic estimate".to_owned(),
            "agreement" => {
                "whether kernels, threads, batches and reused prefixes give equal bits".to_owned()
            }
            _ => format!("tasks: {}", Task::names().join(", ")),
        };
        (name.to_owned(), remark)
    });
    names(["suite", "measures"], &suites, as_json)
}

pub(super) fn kernels(as_json: bool) -> Outcome {
    let kernels: Vec<_> = kernels::names()
        .enumerate()
        .map(|(rank, name)| {
            let remark = if rank == 0 {
                "auto takes this one"
            } else if KernelChoice::Named(name).is_lossless() == Ok(false) {
                "rounds its tables: not bit-identical"
            } else {
                ""
            };
            (name.to_owned(), remark.to_owned())
        })
        .collect();
    names(["kernel", "remark"], &kernels, as_json)
}

pub(super) fn shapes(as_json: bool) -> Outcome {
    let shapes: Vec<_> = synth::shapes()
        .iter()
        .map(|shape| (shape.name.to_owned(), in_words(shape)))
        .collect();
    names(["shape", "dimensions"], &shapes, as_json)
}

fn in_words(shape: &Shape) -> String {
    format!(
        "hidden {}, FFN {}, {} layers, {} heads of {} ({} key/value), {:.3} G weights",
        shape.hidden_size,
        shape.ffn_size,
        shape.n_layers,
        shape.n_heads,
        shape.head_dim,
        shape.n_kv_heads,
        shape.n_linear_params() as f64 / 1e9,
    )
}
