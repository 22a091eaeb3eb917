//! `model verify`, `convert` and `export` on the bundled models, as a script sees them.

mod support;

use std::path::PathBuf;

use support::{Lab, repository, write_adapter};

fn bundled(name: &str) -> String {
    repository().join("models").join(name).display().to_string()
}

/// The folder of golden references, or None after saying that the test did not run.
fn golden(test: &str) -> Option<PathBuf> {
    let data = std::env::var_os("TRITMARK_DATA").map(PathBuf::from);
    if data.is_none() {
        eprintln!("NOT RUN: {test} needs TRITMARK_DATA");
    }
    Some(data?.join("golden"))
}

#[test]
fn verify_passes_the_bundled_models_and_prints_each_check() {
    let lab = Lab::new();
    for model in ["bitnet-tiny.i2_s.gguf", "llama-tiny"] {
        let said = lab.run(["model", "verify", &bundled(model)]).expect(0);
        for part in [
            "PASS",
            "logits of a fixed prompt",
            "activation",
            "fingerprint",
        ] {
            assert!(said.stdout.contains(part), "{part} in {}", said.stdout);
        }
    }
    let said = lab
        .run(["model", "verify", &bundled("llama-tiny"), "--json"])
        .expect(0);
    let json: serde_json::Value = serde_json::from_str(&said.stdout).expect("it is JSON");
    assert_eq!(json["report"]["verdict"], "pass");
}

#[test]
fn verify_answers_a_reference_with_0_1_2_or_3() {
    let Some(golden) = golden("verify against references") else {
        return;
    };
    let lab = Lab::new();
    let model = |name: &str| golden.join("models").join(name).display().to_string();
    let reference = |name: &str| golden.join("outputs").join(name).display().to_string();
    let verify = |model: &str, reference: &str| {
        lab.run([
            "model",
            "verify",
            model,
            "--golden",
            reference,
            "--longest",
            "600",
        ])
    };
    let bitnet = reference("bitnet-tiny-packed.f32.json.gz");
    let said = verify(&model("bitnet-tiny.i2_s.gguf"), &bitnet).expect(0);
    assert!(said.stdout.contains("KL, median"), "{}", said.stdout);
    // Another model of the same vocabulary.
    let said = verify(&model("llama-tiny"), &bitnet).expect(1);
    assert!(said.stdout.contains("FAIL"), "{}", said.stdout);
    // A model of another vocabulary, and a reference that is for information.
    let said = verify(&model("qwen2-tiny"), &bitnet).expect(3);
    assert!(
        said.stdout.contains("2048 logits a position"),
        "{}",
        said.stdout
    );
    let bf16 = reference("bitnet-tiny-packed.bf16.json.gz");
    verify(&model("bitnet-tiny-packed"), &bf16).expect(3);
    let said = verify(&model("bitnet-tiny-packed"), "absent.json").expect(2);
    assert!(said.stderr.contains("absent.json"), "{}", said.stderr);
}

#[test]
fn convert_writes_a_file_of_the_same_fingerprint() {
    let lab = Lab::new();
    let input = bundled("bitnet-tiny.i2_s.gguf");
    let fingerprint = |path: &str| {
        let said = lab.run(["model", "verify", path, "--json"]).expect(0);
        let json: serde_json::Value = serde_json::from_str(&said.stdout).expect("it is JSON");
        json["report"]["fingerprint"].clone()
    };
    let expected = fingerprint(&input);
    for format in ["tq2_0", "tq1_0", "f32"] {
        let args = [
            "model", "convert", &input, "-o", "out.gguf", "--format", format,
        ];
        let said = lab.run(args).expect(0);
        assert!(
            said.stdout.contains("28 tensors converted"),
            "{}",
            said.stdout
        );
        assert_eq!(fingerprint("out.gguf"), expected, "{format}");
    }
    let llama = bundled("llama-tiny");
    let refused = [
        "model", "convert", &llama, "-o", "no.gguf", "--format", "i2_s",
    ];
    let said = lab.run(refused).expect(2);
    assert!(said.stderr.contains("not ternary"), "{}", said.stderr);
    assert!(!lab.path("no.gguf").exists());
    let refused = [
        "model", "convert", &llama, "-o", "no.gguf", "--format", "q9",
    ];
    let said = lab.run(refused).expect(2);
    assert!(said.stderr.contains("tq1_0"), "{}", said.stderr);
}

#[test]
fn export_names_what_the_program_makes_of_the_file() {
    let lab = Lab::new();
    let input = bundled("bitnet-tiny.i2_s.gguf");
    let args = [
        "model",
        "export",
        &input,
        "-o",
        "out.gguf",
        "--for",
        "llama.cpp",
        "--json",
    ];
    let said = lab.run(args).expect(0);
    let json: serde_json::Value = serde_json::from_str(&said.stdout).expect("it is JSON");
    assert_eq!(json["report"]["architecture"], "bitnet");
    assert!(said.stderr.contains("Silu"), "{}", said.stderr);
    let args = [
        "model",
        "export",
        &input,
        "-o",
        "same.gguf",
        "--for",
        "bitnet.cpp",
    ];
    lab.run(args).expect(0);
    let same = std::fs::read(lab.path("same.gguf")).expect("it was written");
    let input = std::fs::read(input).expect("it is bundled");
    assert_eq!(same.len(), input.len());
}

#[test]
fn a_layout_of_i2_s_can_be_named() {
    let lab = Lab::new();
    let input = bundled("bitnet-tiny.i2_s.gguf");
    let hash = |layout: &str| {
        let args = ["model", "verify", &input, "--json", "--i2s-layout", layout];
        let said = lab.run(args).expect(0);
        let json: serde_json::Value = serde_json::from_str(&said.stdout).expect("it is JSON");
        json["report"]["fingerprint"].to_string()
    };
    let hashes = ["128", "64", "rows4"].map(hash);
    assert!(hashes[0] != hashes[1] && hashes[1] != hashes[2] && hashes[0] != hashes[2]);
    let said = lab
        .run(["model", "inspect", &input, "--i2s-layout", "32"])
        .expect(2);
    assert!(said.stderr.contains("rows4"), "{}", said.stderr);
}

#[test]
fn an_adapter_runs_beside_a_model_and_is_told() {
    let lab = Lab::new();
    let input = bundled("bitnet-tiny.i2_s.gguf");
    let json = |args: &[&str]| -> serde_json::Value {
        let said = lab.run(args.iter().copied()).expect(0);
        serde_json::from_str(&said.stdout).expect("it is JSON")
    };
    let plain = json(&["model", "inspect", &input, "--json"]);
    let hidden_size = plain["config"]["hidden_size"].as_u64().expect("a size") as usize;
    write_adapter(&lab.path("lora"), hidden_size, 0.05);
    let with = json(&["model", "inspect", &input, "--json", "--lora", "lora"]);
    assert_eq!(plain["adapter"], serde_json::Value::Null);
    assert_eq!(with["adapter"], "rank 2 beside 1 linears");
    assert_ne!(with["weights_hash"], plain["weights_hash"]);

    let fingerprint = |args: &[&str]| json(args)["report"]["fingerprint"].clone();
    assert_ne!(
        fingerprint(&["model", "verify", &input, "--json", "--lora", "lora"]),
        fingerprint(&["model", "verify", &input, "--json"])
    );
    let agree = [
        "agree",
        "-m",
        &input,
        "--lora",
        "lora",
        "--n-prompts",
        "2",
        "--max-len",
        "9",
        "-n",
        "2",
        "-t",
        "1,2",
        "-b",
        "1,7",
        "--json",
    ];
    let agreed = json(&agree);
    assert_eq!(agreed["agrees"], true);
    assert_eq!(agreed["adapter"], "rank 2 beside 1 linears");
    let bench = [
        "bench",
        "-m",
        &input,
        "--lora",
        "lora",
        "-p",
        "4",
        "-n",
        "2",
        "-r",
        "1",
        "--no-probe",
        "-t",
        "1",
        "-o",
        "json",
    ];
    let rows = json(&bench);
    assert_eq!(rows[0]["weight_format"], "i2_s+lora", "{rows}");
    let generate = [
        "generate", "-m", &input, "--lora", "lora", "-p", "one", "-n", "3",
    ];
    lab.run(generate).expect(0);

    write_adapter(&lab.path("wide"), hidden_size + 1, 0.0);
    let said = lab
        .run(["model", "inspect", &input, "--lora", "wide"])
        .expect(2);
    assert!(
        said.stderr.contains("q_proj.lora_A.weight"),
        "{}",
        said.stderr
    );
}
