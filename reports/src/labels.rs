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
        "decode_read_share" => "Decode, of the read bandwidth",
        "prefill_int8_share" => "Prefill, of the int8 peak",
        "prefill_f32_share" => "Prefill, of the f32 peak",
        "memory_read_bytes_per_s" => "Read bandwidth",
        "int8_ops_per_s" => "int8 peak",
        "f32_ops_per_s" => "f32 peak",
        "items_per_s" => "Items per second",
        "energy_per_item_j" => "Energy per item",
        "acc" => "Accuracy",
        "acc_norm" => "Accuracy, length-normalised",
        "acc_bytes" => "Accuracy, normalised by bytes",
        "mc1" => "MC1",
        "mc2" => "MC2",
        "exact_match" => "Exact match",
        "pass@1" => "pass@1",
        "prompt_level_strict_acc" => "Prompts followed, strict",
        "prompt_level_loose_acc" => "Prompts followed, loose",
        "inst_level_strict_acc" => "Instructions followed, strict",
        "inst_level_loose_acc" => "Instructions followed, loose",
        "word_perplexity" => "Perplexity per word",
        "byte_perplexity" => "Perplexity per byte",
        "bits_per_byte" => "Bits per byte",
        other => other,
    }
}

/// Returns a figure's name for a reader, in the words of the field: `Exact match, strict`.
pub(crate) fn figure(name: &str, filter: Option<&str>) -> String {
    let metric = metric(name);
    let filter = match filter {
        None | Some("none" | "" | "get-answer" | "remove_whitespace") => return metric.to_owned(),
        Some("strict-match") => "strict",
        Some("flexible-extract") => "flexible",
        Some("base") => "base tests",
        Some("plus") => "base and extra tests",
        Some(other) => other,
    };
    format!("{metric}, {filter}")
}

/// Returns what stands behind a task's name where its figures stand together; empty of plain
/// accuracy, which needs no word.
pub(crate) fn figure_of_task(task: &str, name: &str, filter: Option<&str>) -> String {
    match (name, filter) {
        ("acc", None | Some("none")) => task.to_owned(),
        ("acc_norm", None | Some("none")) => format!("{task}, length-normalised"),
        // Abbreviations keep their letters.
        _ => {
            let figure = figure(name, filter);
            let mut letters = figure.chars();
            let second = letters.clone().nth(1);
            let figure = match letters.next() {
                Some(first) if second.is_some_and(char::is_lowercase) => {
                    first.to_lowercase().chain(letters).collect()
                }
                _ => figure,
            };
            format!("{task}, {figure}")
        }
    }
}

/// Returns a suite's heading.
pub(crate) fn suite(name: &str) -> &str {
    match name {
        "latency" => "Speed",
        "memory" => "Memory",
        "energy" => "Energy",
        "accuracy" => "Accuracy",
        "agreement" => "Agreement",
        other => other,
    }
}

/// Tells whether more is better, or `None` of a metric that is neither.
pub(crate) fn higher_is_better(name: &str) -> Option<bool> {
    match name {
        "word_perplexity" | "byte_perplexity" | "bits_per_byte" => Some(false),
        _ => name
            .parse::<tritmark_proto::record::Metric>()
            .ok()
            .map(tritmark_proto::record::Metric::higher_is_better),
    }
}
