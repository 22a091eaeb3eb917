//! `generate`, `bench` and `model` on the bundled models.

mod support;

use support::{Lab, repository};

fn model(name: &str) -> String {
    repository().join("models").join(name).display().to_string()
}

#[test]
fn generate_streams_text_to_stdout_and_timing_to_stderr() {
    let said = Lab::new()
        .run([
            "generate",
            "-m",
            &model("bitnet-tiny.i2_s.gguf"),
            "-p",
            "The",
            "-n",
            "12",
            "-t",
            "1",
        ])
        .expect(0);
    assert!(!said.stdout.trim().is_empty());
    for part in ["load", "prefill", "decode", "tok/s", "1 threads"] {
        assert!(said.stderr.contains(part), "{part} in {}", said.stderr);
    }
    assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);
}

#[test]
fn generate_says_the_same_with_every_kernel_and_number_of_threads() {
    let lab = Lab::new();
    let text = |kernel: &str, threads: &str| {
        let model = model("bitnet-tiny.i2_s.gguf");
        let args = [
            "generate",
            "-m",
            &model,
            "-p",
            "Natalia sold",
            "-n",
            "24",
            "--kernel",
            kernel,
            "-t",
            threads,
        ];
        lab.run(args).expect(0).stdout
    };
    let reference = text("reference", "1");
    assert_eq!(text("auto", "1"), reference);
    assert_eq!(text("auto", "2"), reference);
}

#[test]
fn a_seed_decides_what_is_drawn() {
    let lab = Lab::new();
    let text = |seed: &str| {
        let model = model("llama-tiny");
        let args = [
            "generate", "-m", &model, "-p", "The", "-n", "24", "--temp", "1.5", "--seed", seed,
        ];
        lab.run(args).expect(0).stdout
    };
    assert_eq!(text("1"), text("1"));
    assert_ne!(text("1"), text("2"));
}

#[test]
fn a_stop_text_ends_the_generation_and_is_not_printed() {
    let lab = Lab::new();
    let model = model("bitnet-tiny.i2_s.gguf");
    let whole = ["generate", "-m", &model, "-p", "The", "-n", "24"];
    let whole = lab.run(whole).expect(0).stdout;
    let stop: String = whole.trim_end().chars().skip(5).take(3).collect();
    let cut = [
        "generate", "-m", &model, "-p", "The", "-n", "24", "--stop", &stop,
    ];
    let cut = lab.run(cut).expect(0).stdout;
    let at = whole.find(&stop).expect("it is there");
    assert_eq!(cut.trim_end_matches('\n'), &whole[..at]);
}

#[test]
fn the_chat_template_of_the_model_is_used() {
    Lab::new()
        .run([
            "generate",
            "-m",
            &model("bitnet-tiny.i2_s.gguf"),
            "-p",
            "Hello",
            "-n",
            "4",
            "--chat",
            "--system",
            "Be brief.",
        ])
        .expect(0);
}

#[test]
fn bench_prints_a_row_for_each_test_and_number_of_threads() {
    let lab = Lab::new();
    let model = model("bitnet-tiny.i2_s.gguf");
    let bench = |output: &str| {
        let args = [
            "bench", "-m", &model, "-p", "16", "-n", "8", "-t", "1,2", "-r", "2", "-o", output,
        ];
        lab.run(args).expect(0).stdout
    };
    let markdown = bench("md");
    assert_eq!(markdown.lines().count(), 2 + 4, "{markdown}");
    for test in ["| pp16 |", "| tg8 |"] {
        assert_eq!(markdown.matches(test).count(), 2, "{markdown}");
    }
    let rows: serde_json::Value = serde_json::from_str(&bench("json")).expect("it is JSON");
    let rows = rows.as_array().expect("it is a list");
    assert_eq!(rows.len(), 4);
    for row in rows {
        assert_eq!(row["samples_ns"].as_array().map(Vec::len), Some(2));
        assert!(row["avg_ts"].as_f64().is_some_and(|speed| speed > 0.0));
    }
    assert_eq!(bench("csv").lines().count(), 1 + 4);
    assert_eq!(bench("jsonl").lines().count(), 4);
    let sql = bench("sql");
    assert!(sql.starts_with("CREATE TABLE IF NOT EXISTS tritmark_bench ("));
    assert_eq!(sql.matches("INSERT INTO tritmark_bench (").count(), 4);
}

#[test]
fn bench_refuses_more_tokens_than_the_model_has_positions() {
    let said = Lab::new()
        .run([
            "bench",
            "-m",
            &model("bitnet-tiny.i2_s.gguf"),
            "-p",
            "4096",
            "-n",
            "0",
        ])
        .expect(2);
    assert!(said.stderr.contains("2048"), "{}", said.stderr);
}

#[test]
fn a_synthetic_model_is_made_and_can_be_looked_into() {
    let lab = Lab::new();
    let path = lab.path("synth.gguf").display().to_string();
    let made = [
        "model", "synth", "--shape", "125m", "--format", "i2_s", "--seed", "7", "-o", &path,
    ];
    lab.run(made).expect(0);
    let said = lab.run(["model", "inspect", &path, "--json"]).expect(0);
    let json: serde_json::Value = serde_json::from_str(&said.stdout).expect("it is JSON");
    assert_eq!(json["config"]["n_layers"], 11);
    assert_eq!(json["config"]["hidden_size"], 768);
    assert_eq!(json["linear_format"], "i2_s");

    // A vocabulary of other size than the shape's.
    let mute = [
        "model",
        "synth",
        "--shape",
        "125m",
        "--vocabulary",
        &path,
        "-o",
        &path,
    ];
    let said = lab.run(mute).expect(2);
    assert!(
        said.stderr.contains("tokenizer.ggml.tokens"),
        "{}",
        said.stderr
    );
    let none = [
        "model",
        "synth",
        "--shape",
        "125m",
        "--vocabulary",
        "none.gguf",
        "-o",
        &path,
    ];
    let said = lab.run(none).expect(2);
    assert!(said.stderr.contains("none.gguf"), "{}", said.stderr);

    let refused = ["model", "synth", "--shape", "9t", "-o", &path];
    let said = lab.run(refused).expect(2);
    assert!(said.stderr.contains("2b4t"), "{}", said.stderr);
}
