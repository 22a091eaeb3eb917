//! A place where Python that a model wrote can do no harm.
//!
//! A program sees the interpreter's own files, read-only, and a folder of its own that goes with
//! it; it has no network, starts no process, and is stopped at limits of time, memory and output.
//! [`Sandbox::detect`] tries all this on the machine at hand, and without it nothing is run.
//!
//! The restrictions are taken on by a fresh process, which is the harness's own program started
//! anew: its `main` begins with [`enter_if_asked`].
//!
//! | layer | against | needs |
//! | --- | --- | --- |
//! | namespaces | seeing files, processes and networks at all | unprivileged user namespaces; optional |
//! | landlock | reading and writing files | Linux 5.13; 6.2 without namespaces |
//! | seccomp | sockets, processes, tracing, all that is not on a list | x86-64 or AArch64 |
//! | limits | memory, time, files, output | |

#[cfg(target_os = "linux")]
mod interpreter;
#[cfg(target_os = "linux")]
mod launch;
#[cfg(target_os = "linux")]
mod probe;
#[cfg(target_os = "linux")]
mod request;
#[cfg(target_os = "linux")]
mod scratch;
#[cfg(target_os = "linux")]
mod stage;
#[cfg(target_os = "linux")]
mod sys;

use std::{fmt, io, path::PathBuf, process::ExitCode, time::Duration};

use thiserror::Error;

/// Raised whenever a program may do something in the sandbox that it could not before, or the other
/// way round.
pub(crate) const RULES_VERSION: u32 = 1;

/// The sandbox cannot be had, or does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("no sandbox for untrusted programs: {layer}: {reason}")]
pub struct Unavailable {
    /// What is missing: `interpreter`, `landlock`, `seccomp`, `probe` and so on.
    pub layer: String,
    /// Why, in the kernel's words where it is the kernel's.
    pub reason: String,
}

/// Why a program was not run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// A layer does not hold.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The system refuses what has nothing to do with a layer.
    #[error("cannot {step}")]
    Io {
        /// What was to be done.
        step: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

/// Whether a sandbox has namespaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Namespaces {
    /// Where the system lets it.
    #[default]
    Auto,
    /// No sandbox without them.
    Require,
    /// Not, even where it could.
    Off,
}

/// What a sandbox is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// The interpreter; `None` is the first `python3` on the search path that is a program.
    pub python: Option<PathBuf>,
    /// The program whose `main` begins with [`enter_if_asked`]; `None` is this very program.
    pub entry: Option<PathBuf>,
    /// Where the folders of runs are made.
    pub temp_root: PathBuf,
    /// Whether to have namespaces.
    pub namespaces: Namespaces,
    /// CPU time here in terms of the reference machine's; `None` has it measured.
    pub cpu_factor: Option<f64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            python: None,
            entry: None,
            temp_root: std::env::temp_dir(),
            namespaces: Namespaces::Auto,
            cpu_factor: None,
        }
    }
}

/// How much of the machine a program may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// CPU time of a program on the reference machine; more on a slower one, and rounded up to
    /// whole seconds.
    pub cpu: Duration,
    /// Time that may pass, on the reference machine as well.
    pub wall: Duration,
    /// Address space.
    pub memory_bytes: u64,
    /// Longest file.
    pub file_bytes: u64,
    /// All files together.
    pub scratch_bytes: u64,
    /// What is kept of each of the two outputs; the rest is counted.
    pub output_bytes: usize,
    /// Open descriptors.
    pub n_files: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu: Duration::from_secs(5),
            wall: Duration::from_secs(30),
            memory_bytes: 1 << 30,
            file_bytes: 4 << 20,
            scratch_bytes: 16 << 20,
            output_bytes: 1 << 20,
            n_files: 64,
        }
    }
}

/// A program for the interpreter.
#[derive(Clone, Debug)]
pub struct Program {
    args: Vec<String>,
    files: Vec<(String, Vec<u8>)>,
    stdin: Vec<u8>,
    limits: Limits,
}

impl Program {
    /// Makes a program of its text.
    pub fn new(script: impl Into<Vec<u8>>, limits: Limits) -> Self {
        const MAIN: &str = "main.py";
        Self {
            args: vec![MAIN.to_owned()],
            files: vec![(MAIN.to_owned(), script.into())],
            stdin: Vec::new(),
            limits,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Gives it something to read.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Puts a file into its folder, which is its working directory. A name has no `/`.
    #[must_use]
    pub fn file(mut self, name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.push((name.into(), bytes.into()));
        self
    }
}

/// How a program came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It returned.
    Code(i32),
    /// A signal ended it that the sandbox did not send.
    Signal(i32),
    /// It used up its CPU time.
    CpuLimit,
    /// Its time ran out.
    WallLimit,
    /// It wrote more than its folder may hold.
    ScratchLimit,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::CpuLimit => f.write_str("out of CPU time"),
            Self::WallLimit => f.write_str("out of time"),
            Self::ScratchLimit => f.write_str("too many files"),
        }
    }
}

/// What a program wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Its beginning.
    pub bytes: Vec<u8>,
    /// Bytes that followed and were dropped.
    pub lost: u64,
}

/// What became of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// Its end.
    pub exit: Exit,
    /// What it wrote.
    pub stdout: Output,
    /// What it complained of.
    pub stderr: Output,
    /// User and system time, with the sandbox's own few milliseconds. 0 where the sandbox had to be
    /// ended with it.
    pub cpu: Duration,
    /// Time that passed, with the sandbox's own.
    pub wall: Duration,
    /// Greatest resident set.
    pub peak_rss_bytes: u64,
}

/// What a sandbox consists of, for people and records.
#[derive(Clone, Debug, PartialEq)]
pub struct Layers {
    /// Whether the program is in namespaces of its own.
    pub namespaces: bool,
    /// Version of landlock that is fully enforced.
    pub landlock: i32,
    /// As in `3.11.7`.
    pub python: String,
    /// CPU time here in terms of the reference machine's, at least 1.
    pub cpu_factor: f64,
}

impl fmt::Display for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            namespaces,
            landlock,
            python,
            cpu_factor,
        } = self;
        if *namespaces {
            f.write_str("namespaces, ")?;
        }
        write!(
            f,
            "landlock {landlock}, seccomp, limits (CPU time ×{cpu_factor:.2}); Python {python}"
        )
    }
}

/// A way to run untrusted programs that was found to hold.
#[derive(Clone, Debug)]
pub struct Sandbox {
    #[cfg(target_os = "linux")]
    interpreter: interpreter::Interpreter,
    #[cfg(target_os = "linux")]
    entry: PathBuf,
    #[cfg(target_os = "linux")]
    temp_root: PathBuf,
    namespaces: bool,
    landlock: i32,
    cpu_factor: f64,
}

/// Becomes a stage of a sandbox if this process was started as one.
///
/// To be called first in `main`, before any thread is started: where it returns an exit code, the
/// process ends with it.
pub fn enter_if_asked() -> Option<ExitCode> {
    #[cfg(target_os = "linux")]
    {
        if is_stage() {
            let args = std::env::args_os().skip(2);
            return Some(stage::main(args.filter_map(|arg| arg.into_string().ok())));
        }
    }
    None
}

/// Tells whether this process was started as a stage.
#[cfg(target_os = "linux")]
fn is_stage() -> bool {
    let asked = std::env::args_os().nth(1);
    asked.is_some_and(|arg| arg == request::ENTRY)
}

#[cfg(target_os = "linux")]
impl Sandbox {
    /// Finds the strongest sandbox of this machine and tries it: a program is run that attempts
    /// what must not be possible.
    pub fn detect(options: &Options) -> Result<Self, SandboxError> {
        /// Truncation of files is covered from here on.
        const LANDLOCK_ALONE: i32 = 3;

        // A stage that came here would start the next, without end.
        if is_stage() {
            return Err(Unavailable {
                layer: "stage".to_owned(),
                reason: "`main` of this program does not begin with `enter_if_asked`".to_owned(),
            }
            .into());
        }
        let interpreter = interpreter::Interpreter::find(options.python.as_deref())?;
        let entry = match &options.entry {
            Some(path) => path.clone(),
            None => std::env::current_exe().map_err(|source| SandboxError::Io {
                step: "find this program",
                source,
            })?,
        };
        let landlock = stage::supported_landlock();
        if landlock == 0 {
            return Err(Unavailable {
                layer: "landlock".to_owned(),
                reason: "this kernel has none (Linux 5.13 or newer, with landlock among its \
                         security modules)"
                    .to_owned(),
            }
            .into());
        }
        if landlock < LANDLOCK_ALONE && options.namespaces == Namespaces::Off {
            return Err(Unavailable {
                layer: "landlock".to_owned(),
                reason: format!(
                    "version {landlock} does not cover the truncation of files; without \
                     namespaces it takes version {LANDLOCK_ALONE} (Linux 6.2)"
                ),
            }
            .into());
        }
        let mut sandbox = Self {
            interpreter,
            entry,
            temp_root: options.temp_root.clone(),
            namespaces: options.namespaces != Namespaces::Off,
            landlock,
            cpu_factor: options.cpu_factor.unwrap_or(1.0).max(1.0),
        };
        match probe::probe(&sandbox) {
            Ok(()) => {}
            Err(SandboxError::Unavailable(first)) if options.namespaces == Namespaces::Auto => {
                if landlock < LANDLOCK_ALONE {
                    return Err(first.into());
                }
                sandbox.namespaces = false;
                probe::probe(&sandbox)?;
            }
            Err(error) => return Err(error),
        }
        if options.cpu_factor.is_none() {
            sandbox.cpu_factor = probe::calibrate(&sandbox)?;
        }
        Ok(sandbox)
    }

    /// Runs a program to its end or to a limit.
    pub fn run(&self, program: &Program) -> Result<Ran, SandboxError> {
        launch::run(self, program)
    }

    /// Returns what the sandbox consists of.
    pub fn layers(&self) -> Layers {
        Layers {
            namespaces: self.namespaces,
            landlock: self.landlock,
            python: self.interpreter.version.clone(),
            cpu_factor: self.cpu_factor,
        }
    }

    fn scaled(&self, limits: Limits) -> Limits {
        Limits {
            cpu: limits.cpu.mul_f64(self.cpu_factor),
            wall: limits.wall.mul_f64(self.cpu_factor),
            ..limits
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl Sandbox {
    /// Says that there is none.
    pub fn detect(_: &Options) -> Result<Self, SandboxError> {
        Err(not_here().into())
    }

    /// Runs nothing.
    pub fn run(&self, _: &Program) -> Result<Ran, SandboxError> {
        Err(not_here().into())
    }

    /// Returns what the sandbox consists of.
    pub fn layers(&self) -> Layers {
        Layers {
            namespaces: self.namespaces,
            landlock: self.landlock,
            python: String::new(),
            cpu_factor: self.cpu_factor,
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn not_here() -> Unavailable {
    Unavailable {
        layer: "system".to_owned(),
        reason: "untrusted programs are run on Linux alone".to_owned(),
    }
}
