//! From the sources to `dist/`: an archive a target, and `SHA256SUMS`.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use clap::Args;
use sha2::{Digest as _, Sha256};

use crate::{
    elf::{self, NotStatic},
    pack::{self, Entry},
    tools::{self, Tools},
};

/// Programs of a release.
const PROGRAMS: [&str; 2] = ["tritmark", "tritmark-agent"];

/// What comes with them.
const FILES: [&str; 4] = ["CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT", "README.md"];

/// `cargo xtask dist`.
#[derive(Debug, Args)]
pub(crate) struct Dist {
    /// Target to build for; may be given more than once.
    #[arg(
        long = "target",
        value_name = "TRIPLE",
        default_values = ["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"]
    )]
    targets: Vec<String>,
    /// Program to build and pack; may be given more than once.
    #[arg(long = "bin", value_name = "NAME", default_values = PROGRAMS)]
    programs: Vec<String>,
    /// Profile to build with.
    #[arg(long, value_name = "NAME", default_value = "dist")]
    profile: String,
    /// Folder to write to.
    #[arg(long, value_name = "DIR", default_value = "dist")]
    out: PathBuf,
    /// Pack programs that are linked dynamically, too: for a target of this system.
    #[arg(long)]
    allow_dynamic: bool,
}

/// Why there is no release.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DistError {
    #[error("not everything is there to build with:\n{}", .0.join("\n"))]
    Tools(Vec<String>),
    #[error("cannot {action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot start {program}")]
    Start {
        program: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("{program} failed for {what}")]
    Failed { program: &'static str, what: String },
    #[error("{} is not fit for {target}", path.display())]
    Program {
        path: PathBuf,
        target: String,
        #[source]
        source: NotStatic,
    },
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DistError {
    let path = path.to_owned();
    move |source| DistError::Io {
        action,
        path,
        source,
    }
}

pub(crate) fn run(args: &Dist) -> Result<(), DistError> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let root = fs::canonicalize(&root).map_err(failed("find", &root))?;
    // Everything that is missing is said at once, and before anything is built.
    let found = args.targets.iter().map(|target| tools::find(target));
    let (tools, missing): (Vec<_>, Vec<_>) = found.partition(Result::is_ok);
    let missing: Vec<String> = missing
        .into_iter()
        .filter_map(Result::err)
        .flatten()
        .collect();
    if !missing.is_empty() {
        return Err(DistError::Tools(missing));
    }
    let made_at_unix_s = made_at(&root)?;
    fs::create_dir_all(&args.out).map_err(failed("make", &args.out))?;
    let mut sums = Vec::new();
    for (target, tools) in args.targets.iter().zip(tools.into_iter().flatten()) {
        let built = build(args, &root, target, &tools, made_at_unix_s)?;
        let name = format!("tritmark-{}-{target}", env!("CARGO_PKG_VERSION"));
        let archive = pack_target(args, &root, target, &name, &built, made_at_unix_s)?;
        let path = args.out.join(format!("{name}.tar.gz"));
        fs::write(&path, &archive).map_err(failed("write", &path))?;
        eprintln!("{} ({} bytes)", path.display(), archive.len());
        sums.push((format!("{name}.tar.gz"), archive));
    }
    let path = args.out.join("SHA256SUMS");
    fs::write(&path, checksums(sums)).map_err(failed("write", &path))
}

/// Returns the time everything in a release bears: `SOURCE_DATE_EPOCH`, else that of the commit.
fn made_at(root: &Path) -> Result<u64, DistError> {
    if let Some(given) = std::env::var("SOURCE_DATE_EPOCH")
        .ok()
        .and_then(|text| text.parse().ok())
    {
        return Ok(given);
    }
    let output = Command::new("git")
        .args(["log", "-1", "--format=%ct"])
        .current_dir(root)
        .output();
    let output = output.map_err(|source| DistError::Start {
        program: "git",
        source,
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map_err(|_| DistError::Failed {
        program: "git",
        what: "the time of the commit (or set SOURCE_DATE_EPOCH)".to_owned(),
    })
}

/// Builds the programs and returns the folder they lie in.
fn build(
    args: &Dist,
    root: &Path,
    target: &str,
    tools: &Tools,
    made_at_unix_s: u64,
) -> Result<PathBuf, DistError> {
    let target_dir =
        std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    // Where it was built is no part of a program.
    let mut flags = vec![format!("--remap-path-prefix={}=/tritmark", root.display())];
    if let Some(home) = home {
        flags.push(format!("--remap-path-prefix={}=/cargo", home.display()));
    }
    flags.extend(tools.rust_flags.iter().cloned());
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(root)
        .args(["build", "--locked", "--profile", &args.profile])
        .args(["--target", target])
        .arg("--target-dir")
        .arg(&target_dir)
        // Set for the target alone: build scripts run here.
        .env(
            variable("CARGO_TARGET", target, "RUSTFLAGS"),
            flags.join(" "),
        )
        .env("SOURCE_DATE_EPOCH", made_at_unix_s.to_string())
        .env("CARGO_INCREMENTAL", "0")
        .envs(tools.environment.iter().cloned());
    let profile = args.profile.to_uppercase().replace('-', "_");
    for (name, value) in [("STRIP", "symbols"), ("DEBUG", "0")] {
        command.env(format!("CARGO_PROFILE_{profile}_{name}"), value);
    }
    for program in &args.programs {
        command.args(["--package", program, "--bin", program]);
    }
    let status = command.status().map_err(|source| DistError::Start {
        program: "cargo",
        source,
    })?;
    if !status.success() {
        return Err(DistError::Failed {
            program: "cargo",
            what: target.to_owned(),
        });
    }
    let folder = match args.profile.as_str() {
        "dev" => "debug",
        other => other,
    };
    Ok(target_dir.join(target).join(folder))
}

/// Returns the name of one of cargo's variables for a target.
pub(crate) fn variable(prefix: &str, target: &str, suffix: &str) -> String {
    let target = target.to_uppercase().replace('-', "_");
    format!("{prefix}_{target}_{suffix}")
}

fn pack_target(
    args: &Dist,
    root: &Path,
    target: &str,
    name: &str,
    built: &Path,
    made_at_unix_s: u64,
) -> Result<Vec<u8>, DistError> {
    let mut entries = Vec::new();
    for program in &args.programs {
        let path = built.join(program);
        let contents = fs::read(&path).map_err(failed("read", &path))?;
        let machine = elf::machine_of(target);
        let checked = elf::check(&contents, machine, args.allow_dynamic);
        checked.map_err(|source| DistError::Program {
            path,
            target: target.to_owned(),
            source,
        })?;
        entries.push(Entry {
            name: program.clone(),
            contents,
            is_program: true,
        });
    }
    let systemd = root.join("deploy/systemd");
    let units = fs::read_dir(&systemd).map_err(failed("list", &systemd))?;
    let units = units.flatten().map(|unit| {
        let name = unit.file_name().to_string_lossy().into_owned();
        (format!("systemd/{name}"), unit.path())
    });
    let files = FILES.map(|name| (name.to_owned(), root.join(name)));
    for (name, path) in files.into_iter().chain(units) {
        entries.push(Entry {
            name,
            contents: fs::read(&path).map_err(failed("read", &path))?,
            is_program: false,
        });
    }
    pack::archive(name, entries, made_at_unix_s).map_err(failed("pack", built))
}

/// Returns what `sha256sum --check` reads.
fn checksums(mut files: Vec<(String, Vec<u8>)>) -> String {
    files.sort();
    let mut text = String::new();
    for (name, contents) in files {
        for byte in Sha256::digest(contents) {
            let _ = write!(text, "{byte:02x}");
        }
        let _ = writeln!(text, "  {name}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_sorted_and_as_sha256sum_writes_them() {
        let files = vec![
            ("b".to_owned(), b"abc".to_vec()),
            ("a".to_owned(), Vec::new()),
        ];
        // The two sums are FIPS 180-4's examples.
        assert_eq!(
            checksums(files),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  a\n\
             ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  b\n"
        );
    }

    #[test]
    fn variables_are_named_as_cargo_reads_them() {
        assert_eq!(
            variable("CARGO_TARGET", "aarch64-unknown-linux-musl", "LINKER"),
            "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER"
        );
    }
}
