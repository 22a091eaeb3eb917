//! What a target is built with, and what of it is missing.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use crate::dist::variable;

/// What to build a target with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tools {
    /// For cargo and the build scripts.
    pub(crate) environment: Vec<(String, String)>,
    /// For the compiler.
    pub(crate) rust_flags: Vec<String>,
}

/// What this machine has, as far as it matters.
pub(crate) trait Machine {
    /// The platform this was built for.
    fn host(&self) -> &str;
    /// Whether the standard library of a target is there.
    fn has_std(&self, target: &str) -> bool;
    /// Whether a program is there.
    fn has_program(&self, name: &str) -> bool;
    /// An environment variable.
    fn variable(&self, name: &str) -> Option<String>;
}

/// Finds what a target is built with.
///
/// # Errors
/// A line for each thing that is missing, with how to get it.
pub(crate) fn find(target: &str) -> Result<Tools, Vec<String>> {
    find_on(&Here::new(), target)
}

fn find_on(machine: &impl Machine, target: &str) -> Result<Tools, Vec<String>> {
    let mut missing = Vec::new();
    if !machine.has_std(target) {
        missing.push(format!(
            "  {target}: no standard library; run `rustup target add {target}`"
        ));
    }
    let mut tools = Tools::default();
    if target != machine.host() {
        let underscored = target.replace('-', "_");
        let names = [format!("CC_{target}"), format!("CC_{underscored}")];
        let is_given = names.iter().any(|name| machine.variable(name).is_some());
        let known = compilers(target);
        let found = known.iter().find(|(name, _)| machine.has_program(name));
        match found {
            _ if is_given => {}
            Some((name, archiver)) => {
                tools
                    .environment
                    .push((names[1].clone(), (*name).to_owned()));
                let archiver = archiver.filter(|archiver| machine.has_program(archiver));
                if let Some(archiver) = archiver {
                    let name = format!("AR_{underscored}");
                    tools.environment.push((name, archiver.to_owned()));
                }
            }
            None => missing.push(format!(
                "  {target}: no C compiler; install one of {}, or name one in {}",
                known
                    .iter()
                    .map(|(name, _)| *name)
                    .collect::<Vec<_>>()
                    .join(", "),
                names[1]
            )),
        }
        let linker = variable("CARGO_TARGET", target, "LINKER");
        if machine.variable(&linker).is_none() {
            if target.contains("-musl") {
                // It comes with the compiler, as do the start files and the C library.
                tools.rust_flags.push("-Clinker=rust-lld".to_owned());
            } else if let Some((name, _)) = found {
                tools.environment.push((linker, (*name).to_owned()));
            } else {
                missing.push(format!("  {target}: no linker; name one in {linker}"));
            }
        }
    }
    if missing.is_empty() {
        Ok(tools)
    } else {
        Err(missing)
    }
}

/// C compilers of a target, the best first, each with its archiver.
fn compilers(target: &str) -> &'static [(&'static str, Option<&'static str>)] {
    match target {
        "x86_64-unknown-linux-musl" => &[
            ("x86_64-linux-musl-gcc", Some("x86_64-linux-musl-ar")),
            ("musl-gcc", Some("ar")),
        ],
        "aarch64-unknown-linux-musl" => {
            &[("aarch64-linux-musl-gcc", Some("aarch64-linux-musl-ar"))]
        }
        "aarch64-unknown-linux-gnu" => &[("aarch64-linux-gnu-gcc", Some("aarch64-linux-gnu-ar"))],
        _ => &[("cc", Some("ar"))],
    }
}

/// The machine this runs on.
struct Here {
    host: String,
    sysroot: PathBuf,
}

impl Here {
    fn new() -> Self {
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let ask = |args: &[&str]| {
            let output = Command::new(&rustc).args(args).output();
            output.map_or_else(
                |_| String::new(),
                |output| String::from_utf8_lossy(&output.stdout).into_owned(),
            )
        };
        let version = ask(&["-vV"]);
        let host = version.lines().find_map(|line| line.strip_prefix("host: "));
        Self {
            host: host.unwrap_or_default().to_owned(),
            sysroot: ask(&["--print", "sysroot"]).trim().into(),
        }
    }
}

impl Machine for Here {
    fn host(&self) -> &str {
        &self.host
    }

    fn has_std(&self, target: &str) -> bool {
        let rustlib = self.sysroot.join("lib/rustlib");
        rustlib.join(target).join("lib").is_dir()
    }

    fn has_program(&self, name: &str) -> bool {
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path).any(|folder| folder.join(Path::new(name)).is_file())
    }

    fn variable(&self, name: &str) -> Option<String> {
        env::var(name).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake {
        targets: &'static [&'static str],
        programs: &'static [&'static str],
        variables: &'static [(&'static str, &'static str)],
    }

    impl Machine for Fake {
        fn host(&self) -> &'static str {
            "x86_64-unknown-linux-gnu"
        }

        fn has_std(&self, target: &str) -> bool {
            self.targets.contains(&target)
        }

        fn has_program(&self, name: &str) -> bool {
            self.programs.contains(&name)
        }

        fn variable(&self, name: &str) -> Option<String> {
            let mut variables = self.variables.iter();
            let found = variables.find(|(known, _)| *known == name)?;
            Some(found.1.to_owned())
        }
    }

    const X86: &str = "x86_64-unknown-linux-musl";
    const ARM: &str = "aarch64-unknown-linux-musl";

    #[test]
    fn everything_that_is_missing_is_said_with_how_to_get_it() {
        let bare = Fake {
            targets: &[],
            programs: &[],
            variables: &[],
        };
        let missing = find_on(&bare, ARM).unwrap_err().join("\n");
        for said in [
            "rustup target add aarch64-unknown-linux-musl",
            "aarch64-linux-musl-gcc",
            "CC_aarch64_unknown_linux_musl",
        ] {
            assert!(missing.contains(said), "{missing}");
        }
    }

    #[test]
    fn what_is_there_is_used() {
        let machine = Fake {
            targets: &[X86],
            programs: &["musl-gcc", "ar"],
            variables: &[],
        };
        let tools = find_on(&machine, X86).unwrap();
        let environment = [
            ("CC_x86_64_unknown_linux_musl", "musl-gcc"),
            ("AR_x86_64_unknown_linux_musl", "ar"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(tools.environment, environment);
        assert_eq!(tools.rust_flags, ["-Clinker=rust-lld"]);
    }

    #[test]
    fn what_is_named_by_hand_is_left_alone() {
        let machine = Fake {
            targets: &[ARM],
            programs: &[],
            variables: &[
                ("CC_aarch64_unknown_linux_musl", "clang"),
                ("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER", "lld"),
            ],
        };
        assert_eq!(find_on(&machine, ARM), Ok(Tools::default()));
    }

    #[test]
    fn this_machines_own_target_needs_nothing_more() {
        let machine = Fake {
            targets: &["x86_64-unknown-linux-gnu"],
            programs: &[],
            variables: &[],
        };
        let tools = find_on(&machine, "x86_64-unknown-linux-gnu");
        assert_eq!(tools, Ok(Tools::default()));
    }
}
