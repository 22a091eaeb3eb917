//! The Python interpreter that untrusted programs run in, and the files it needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde::Deserialize;

use super::Unavailable;

/// Oldest Python that the driver of the tests is written for.
const OLDEST: (u32, u32) = (3, 8);

/// Folders of libraries, and the loader's index of them.
const LIBRARIES: [&str; 6] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/etc/ld.so.cache",
    "/etc/ld-musl-x86_64.path",
];

/// The programs that the kernel loads to start another.
const LOADERS: [&str; 4] = [
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/ld-linux-aarch64.so.1",
    "/lib/ld-musl-x86_64.so.1",
    "/lib/ld-musl-aarch64.so.1",
];

/// A Python interpreter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interpreter {
    /// The program itself, no link to it.
    pub(super) path: PathBuf,
    /// As in `3.11.7`.
    pub(super) version: String,
    /// What it reads, without links.
    pub(super) readable: BTreeSet<PathBuf>,
    /// What the kernel loads to run it, without links.
    pub(super) executable: BTreeSet<PathBuf>,
    /// Links at the root of the file system, and what they lead to.
    pub(super) links: BTreeMap<PathBuf, PathBuf>,
}

/// What an interpreter says of itself.
#[derive(Deserialize)]
struct Said {
    version: (u32, u32, u32),
    paths: Vec<PathBuf>,
}

const QUESTION: &str = "
import json, sys, sysconfig
paths = [sysconfig.get_config_var('LIBDIR')] + sys.path
print(json.dumps({'version': sys.version_info[:3], 'paths': [p for p in paths if p]}))
";

impl Interpreter {
    /// Finds the interpreter: the one named, or the first `python3` that is a program.
    pub(super) fn find(named: Option<&Path>) -> Result<Self, Unavailable> {
        let path = match named {
            Some(path) => program(path)
                .map_err(|error| unavailable(format!("{}: {error}", path.display())))?,
            None => search().ok_or_else(|| {
                unavailable("there is no python3 on the search path; install Python 3.8 or newer")
            })?,
        };
        let Said { version, paths } =
            ask(&path).map_err(|error| unavailable(format!("{}: {error}", path.display())))?;
        let (major, minor, micro) = version;
        if (major, minor) < OLDEST {
            let (old_major, old_minor) = OLDEST;
            return Err(unavailable(format!(
                "{} is Python {major}.{minor}, older than {old_major}.{old_minor}",
                path.display()
            )));
        }
        let libraries = LIBRARIES.iter().map(PathBuf::from);
        let readable = paths.into_iter().chain(libraries);
        let mut links = BTreeMap::new();
        for path in ["/lib", "/lib64"].map(PathBuf::from) {
            if let (true, Ok(target)) = (path.is_symlink(), fs::canonicalize(&path)) {
                links.insert(path, target);
            }
        }
        Ok(Self {
            path,
            version: format!("{major}.{minor}.{micro}"),
            readable: readable
                .filter_map(|path| fs::canonicalize(path).ok())
                .collect(),
            executable: LOADERS
                .iter()
                .filter_map(|path| fs::canonicalize(path).ok())
                .collect(),
            links,
        })
    }
}

fn unavailable(reason: impl Into<String>) -> Unavailable {
    Unavailable {
        layer: "interpreter".to_owned(),
        reason: reason.into(),
    }
}

fn search() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/bin", "/usr/bin"].map(PathBuf::from))
        .find_map(|folder| program(&folder.join("python3")).ok())
}

/// Returns where the program is; version managers put scripts in an interpreter's place.
fn program(path: &Path) -> io::Result<PathBuf> {
    let path = fs::canonicalize(path)?;
    let mut magic = [0; 4];
    fs::File::open(&path)?.read_exact(&mut magic)?;
    if magic == *b"\x7fELF" {
        Ok(path)
    } else {
        Err(io::Error::other("is no program but a script"))
    }
}

fn ask(path: &Path) -> io::Result<Said> {
    let output = Command::new(path)
        .args(["-I", "-S", "-B", "-c", QUESTION])
        .env_clear()
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!(
            "ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        )));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_in_the_interpreters_place_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let shim = folder.path().join("python3");
        fs::write(&shim, "#!/bin/sh\nexec python3 \"$@\"\n").unwrap();
        let refused = Interpreter::find(Some(&shim)).unwrap_err();
        assert!(refused.reason.contains("script"), "{refused}");
        let absent = Interpreter::find(Some(&folder.path().join("none"))).unwrap_err();
        assert_eq!(absent.layer, "interpreter");
    }
}
