//! What the stages of a sandbox are told, and what they say.
//!
//! A stage is told all on its command line. What it says is a line of JSON in the run's status file:
//! a pipe would have to pass through the program's hands, and the program's own output cannot be
//! told from a stage's.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Write as _},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// First argument of a process that is a stage of a sandbox.
pub(super) const ENTRY: &str = "sandbox-stage";

/// What one run is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Request {
    /// Folder of this run alone; has the files `status`, `root` (empty) and `scratch`.
    pub(super) folder: PathBuf,
    /// The process that starts the stage; of no meaning across process namespaces.
    pub(super) parent: u32,
    /// Whether to have user, mount, process, network, IPC and host name namespaces.
    pub(super) namespaces: bool,
    /// Rights that landlock handles, by its version.
    pub(super) landlock: i32,
    /// The interpreter itself.
    pub(super) interpreter: PathBuf,
    /// Links at the root of the file system, and what they lead to.
    pub(super) links: BTreeMap<PathBuf, PathBuf>,
    /// Folders and files that may be read. These and all other paths are free of links.
    pub(super) readable: BTreeSet<PathBuf>,
    /// Files that the kernel loads to run the interpreter.
    pub(super) executable: BTreeSet<PathBuf>,
    /// The interpreter's arguments.
    pub(super) args: Vec<String>,
    /// CPU time, whole seconds.
    pub(super) cpu_s: u64,
    /// Time that may pass.
    pub(super) wall: Duration,
    /// Address space.
    pub(super) memory_bytes: u64,
    /// Length of a file.
    pub(super) file_bytes: u64,
    /// Content of the scratch folder in all.
    pub(super) scratch_bytes: u64,
    /// Open descriptors.
    pub(super) n_files: u64,
}

/// A line of the status file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    /// A layer does not hold; the program was not started.
    Failed {
        /// Which.
        layer: String,
        /// The kernel's reason.
        reason: String,
    },
    /// All layers hold; the interpreter is started next.
    Walled,
    /// The program came to an end.
    Ended {
        /// What it returned.
        code: Option<i32>,
        /// What killed it.
        signal: Option<i32>,
    },
    /// Nothing of the run is left.
    Done {
        /// Why the program was killed from outside.
        killed: Option<Killed>,
        /// User and system time.
        cpu: Duration,
        /// Greatest resident set.
        peak_rss_bytes: u64,
    },
}

/// Why a program was killed from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Killed {
    /// It took too long.
    Wall,
    /// It wrote too much.
    Scratch,
}

/// A layer that does not hold.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) layer: &'static str,
    pub(super) reason: String,
}

impl Fault {
    pub(super) fn new(layer: &'static str, reason: impl Into<String>) -> Self {
        Self {
            layer,
            reason: reason.into(),
        }
    }
}

/// Names the layer and the step that failed.
pub(super) trait InLayer<T> {
    fn layer(self, layer: &'static str, step: &str) -> Result<T, Fault>;
}

impl<T, E: ToString> InLayer<T> for Result<T, E> {
    fn layer(self, layer: &'static str, step: &str) -> Result<T, Fault> {
        self.map_err(|error| Fault::new(layer, format!("{step}: {}", error.to_string())))
    }
}

/// Appends a line to a status file.
pub(super) fn say(status: &mut File, what: &Status) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    status.write_all(&line)
}

/// Returns the lines of a status file.
///
/// # Errors
/// `InvalidData` where one is no status.
pub(super) fn read(text: &str) -> io::Result<Vec<Status>> {
    text.lines()
        .map(|line| serde_json::from_str(line).map_err(io::Error::from))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_said_is_read_again() {
        let all = vec![
            Status::Failed {
                layer: "landlock".to_owned(),
                reason: "two\nlines".to_owned(),
            },
            Status::Walled,
            Status::Ended {
                code: None,
                signal: Some(9),
            },
            Status::Done {
                killed: Some(Killed::Wall),
                cpu: Duration::from_millis(1500),
                peak_rss_bytes: 1 << 20,
            },
        ];
        let mut file = tempfile::tempfile().unwrap();
        for status in &all {
            say(&mut file, status).unwrap();
        }
        let mut text = String::new();
        io::Seek::rewind(&mut file).unwrap();
        io::Read::read_to_string(&mut file, &mut text).unwrap();
        assert_eq!(read(&text).unwrap(), all);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*") {
            let _ = read(&text);
        }
    }
}
