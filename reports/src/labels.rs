//! What columns are called where people read them.

/// Returns a metric's name for a reader; an unknown one keeps its own.
pub(crate) fn metric(name: &str) -> &str {
    match name {
        "load_ns" => "Load time",
        "prefill_tok_per_s" => "Prefill speed",
        "decode_tok_per_s" => "Decode speed",
        "ttft_ns" => "Time to first token (TTFT)",
        "tpot_ns" => "Time per output token (TPOT)",
        "itl_ns" => "Time between tokens (ITL)",
        "weight_bytes" => "All weights",
        "linear_weight_bytes" => "Weights of the linears",
        "file_bytes" => "Model files",
        "kv_bytes" => "KV cache",
        "peak_rss_bytes" => "Peak memory (RSS)",
        "energy_j" => "Energy",
        "energy_net_j" => "Energy less idle",
        "energy_per_token_j" => "Energy per token",
        "energy_net_per_token_j" => "Energy per token less idle",
        "idle_w" => "Idle draw",
        "energy_estimate_j" => "Estimated energy of a sequence",
        "energy_estimate_per_token_j" => "Estimated energy per token",
        "items_per_s" => "Items per second",
        "acc" => "Accuracy",
        "acc_norm" => "Accuracy, length-normalised",
        other => other,
    }
}

/// Returns a suite's heading.
pub(crate) fn suite(name: &str) -> &str {
    match name {
        "latency" => "Speed",
        "memory" => "Memory",
        "energy" => "Energy",
        "accuracy" => "Accuracy",
        other => other,
    }
}

/// Tells whether more is better, or `None` of a metric that is neither.
pub(crate) fn higher_is_better(name: &str) -> Option<bool> {
    match name {
        "acc" | "acc_norm" => Some(true),
        _ => name
            .parse::<tritmark_proto::record::Metric>()
            .ok()
            .map(tritmark_proto::record::Metric::higher_is_better),
    }
}
