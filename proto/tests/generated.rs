//! The committed code under `src/gen` is what the `.proto` files say.
//!
//! `TRITMARK_REGENERATE=1 cargo test -p tritmark-proto --test generated` writes it anew.

use std::{env, fs, path::Path};

const PROTOS: [&str; 8] = [
    "tritmark/v1/machine.proto",
    "tritmark/v1/job.proto",
    "tritmark/v1/record.proto",
    "tritmark/v1/agent.proto",
    "tritmark/v1/control.proto",
    "tritmark/v1/identity.proto",
    "tritmark/v1/signature.proto",
    "tritmark/v1/artefact.proto",
];

#[test]
fn the_generated_code_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let compile = |with_comments: bool| {
        let mut compiler =
            protox::Compiler::new([root]).expect("the crate's folder is an include path");
        compiler
            .include_imports(true)
            .include_source_info(with_comments);
        compiler.open_files(PROTOS).expect("the protocol compiles");
        compiler
    };
    let out = tempfile::tempdir().unwrap();
    tonic_prost_build::configure()
        .out_dir(out.path())
        .compile_fds(compile(true).file_descriptor_set())
        .unwrap();
    let code = fs::read(out.path().join("tritmark.v1.rs")).unwrap();
    let descriptors = compile(false).encode_file_descriptor_set();

    let generated = root.join("src/gen");
    for (name, fresh) in [("tritmark.v1.rs", code), ("tritmark.v1.bin", descriptors)] {
        let path = generated.join(name);
        if env::var_os("TRITMARK_REGENERATE").is_some() {
            fs::create_dir_all(&generated).unwrap();
            fs::write(&path, &fresh).unwrap();
        }
        assert!(
            fs::read(&path).unwrap_or_default() == fresh,
            "{} is stale: run `TRITMARK_REGENERATE=1 cargo test -p tritmark-proto --test generated`",
            path.display()
        );
    }
}
