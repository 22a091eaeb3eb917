//! The process that does one job: started fresh, listened to, and never left behind.
//!
//! A thread of its own starts the process and stays until it is reaped: the kernel ties
//! `PR_SET_PDEATHSIG` to the *thread* that forked, and a thread of an async runtime may end early.
//! Reading blocks, so an agent that waits for a worker in its timed region does nothing at all.

use std::{
    ffi::OsString,
    io::{self, Read, Write as _},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid},
};
use tokio::sync::oneshot;
use tritmark_proto::{
    bundle::{Failure, FailureClass},
    record::Record,
};
use tritmark_suites::worker::{WorkerFailed, WorkerProgress, WorkerRequest};

mod events;
#[cfg(test)]
mod tests;

use events::{End, Heard};

/// How much of the worker's standard error is kept.
const STDERR_BYTES: usize = 64 << 10;
/// How long a worker may take to end after it has closed its output.
const END_GRACE: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 10_000 });

/// How to start a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
}

impl WorkerCommand {
    /// This very program with the argument `worker`.
    ///
    /// A program that uses this must speak `tritmark_suites::worker` when started so.
    pub fn this_program() -> io::Result<Self> {
        Ok(Self {
            program: std::env::current_exe()?,
            args: vec!["worker".into()],
        })
    }

    /// The command that measures the machine: the same with `calibrate` and the machine's memory
    /// instead of its last argument.
    pub(crate) fn for_calibration(mut self, memory_bytes: u64) -> Self {
        self.args.pop();
        self.args.push("calibrate".into());
        self.args.push(memory_bytes.to_string().into());
        self
    }

    /// The same command, started by another program: the first of the blank-separated words of
    /// `launcher`, with the rest before the command's own (`numactl --membind=0`, an emulator).
    #[must_use]
    pub fn through(self, launcher: &str) -> Self {
        let mut words = launcher.split_whitespace();
        let Some(program) = words.next() else {
            return self;
        };
        let mut args: Vec<OsString> = words.map(Into::into).collect();
        args.push(self.program.into());
        args.extend(self.args);
        Self {
            program: program.into(),
            args,
        }
    }
}

/// What a worker says while it works.
#[derive(Debug)]
pub(crate) enum News {
    /// The process runs.
    Started,
    /// Something was found out.
    Record(Box<Record>),
    /// Something went on.
    Progress(WorkerProgress),
}

/// A started worker; dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Worker {
    leash: Arc<Leash>,
    outcome: oneshot::Receiver<Result<(), Failure>>,
}

impl Worker {
    /// Starts a process for the request.
    ///
    /// `hear` gets the news on another thread and returns false when nobody listens any more.
    /// `keep` is dropped when the process is gone.
    pub(crate) fn start(
        command: WorkerCommand,
        request: WorkerRequest,
        keep: impl Send + 'static,
        hear: impl FnMut(News) -> bool + Send + 'static,
    ) -> Self {
        let leash = Arc::new(Leash::default());
        let (sender, outcome) = oneshot::channel();
        let keeper_leash = Arc::clone(&leash);
        let keeper = move || {
            let outcome = run(&command, &request, &keeper_leash, hear);
            drop(keep);
            // Nobody listens: the agent has given the job up.
            let _ = sender.send(outcome);
        };
        // A thread that cannot be made drops `sender`, which `outcome` reports.
        if let Err(error) = thread::Builder::new()
            .name("worker keeper".to_owned())
            .spawn(keeper)
        {
            tracing::error!(%error, "cannot start a thread");
        }
        Self { leash, outcome }
    }

    /// Kills the process; [`Self::outcome`] follows.
    pub(crate) fn kill(&self) {
        self.leash.kill();
    }

    /// Waits until the process is gone. Cancel-safe.
    pub(crate) async fn outcome(&mut self) -> Result<(), Failure> {
        (&mut self.outcome).await.unwrap_or_else(|_| {
            Err(infrastructure(
                "the thread that keeps the worker could not run",
            ))
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.leash.kill();
    }
}

/// The only way to a worker's process group: never one that is reaped, whose number may be another's.
#[derive(Debug, Default)]
struct Leash(Mutex<Leashed>);

#[derive(Debug, Default)]
enum Leashed {
    #[default]
    NotStarted,
    /// Killed before it was started.
    Unwanted,
    Running(Pid),
    Gone,
}

impl Leash {
    fn kill(&self) {
        let mut leashed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *leashed {
            Leashed::NotStarted => *leashed = Leashed::Unwanted,
            Leashed::Running(group) => {
                // ESRCH: everything in it has just ended.
                let _ = kill_process_group(group, Signal::KILL);
            }
            Leashed::Unwanted | Leashed::Gone => {}
        }
    }

    /// Takes the process, and kills it if that was asked for before.
    fn started(&self, pid: Pid) {
        let mut leashed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_unwanted = matches!(*leashed, Leashed::Unwanted);
        *leashed = Leashed::Running(pid);
        drop(leashed);
        if is_unwanted {
            self.kill();
        }
    }

    fn gone(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Leashed::Gone;
    }
}

/// Runs the process from start to reaping.
fn run(
    command: &WorkerCommand,
    request: &WorkerRequest,
    leash: &Leash,
    mut hear: impl FnMut(News) -> bool + Send,
) -> Result<(), Failure> {
    let mut line = serde_json::to_vec(request)
        .map_err(|error| infrastructure(format!("cannot write the worker's request: {error}")))?;
    line.push(b'\n');
    let mut child = spawn(command).map_err(|error| {
        let program = command.program.display();
        infrastructure(format!("cannot start the worker {program}: {error}"))
    })?;
    let pid = Pid::from_child(&child);
    leash.started(pid);
    hear(News::Started);

    let stdin = child.stdin.take().expect("stdin is piped");
    let stdout = child.stdout.take().expect("stdout is piped");
    let stderr = child.stderr.take().expect("stderr is piped");
    let (end, is_late, stderr) = thread::scope(|scope| {
        // A worker that reads nothing must not block this thread; one that is gone is seen below.
        scope.spawn(move || {
            let mut stdin = stdin;
            let _ = stdin.write_all(&line);
        });
        let stderr = scope.spawn(move || last_bytes(stderr, STDERR_BYTES));
        let (alive, ended) = mpsc::channel::<()>();
        let events = scope.spawn(move || {
            let end = events::read(stdout, |heard| match heard {
                Heard::Record(record) => hear(News::Record(record)),
                Heard::Progress(progress) => hear(News::Progress(progress)),
                Heard::Broken => {
                    leash.kill();
                    true
                }
            });
            if matches!(end, End::Unheard) {
                leash.kill();
            }
            let is_late = ended.recv_timeout(END_GRACE) == Err(mpsc::RecvTimeoutError::Timeout);
            if is_late {
                leash.kill();
            }
            (end, is_late)
        });
        wait_without_reaping(pid);
        drop(alive);
        // Whatever it has left behind holds its pipes open.
        leash.kill();
        let (end, is_late) = events.join().expect("the reader of events does not panic");
        let stderr = stderr.join().expect("the reader of stderr does not panic");
        (end, is_late, stderr)
    });
    leash.gone();
    let status = child
        .wait()
        .map_err(|error| infrastructure(format!("cannot wait for the worker: {error}")))?;
    verdict(end, is_late, status).map_err(|(class, message)| Failure {
        class,
        message,
        stderr,
    })
}

fn spawn(command: &WorkerCommand) -> io::Result<Child> {
    let mut child = Command::new(&command.program);
    child
        .args(&command.args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    die_with_the_agent(&mut child);
    child.spawn()
}

/// Has the kernel kill the worker when this thread ends, however the agent ends.
#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "std has no safe way to run code between fork and exec"
)]
fn die_with_the_agent(command: &mut Command) {
    let agent = rustix::process::getpid();
    let before_exec = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The agent may have died before the line above; nobody will kill this process then.
        if rustix::process::getppid() == Some(agent) {
            Ok(())
        } else {
            Err(Errno::SRCH.into())
        }
    };
    // SAFETY: between fork and exec only async-signal-safe code may run: the closure makes two plain
    // system calls and allocates nothing.
    unsafe {
        command.pre_exec(before_exec);
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with_the_agent(_command: &mut Command) {}

/// Waits until the process has ended but keeps its number taken.
fn wait_without_reaping(pid: Pid) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while matches!(waitid(WaitId::Pid(pid), options), Err(Errno::INTR)) {}
}

/// Reads everything, keeps the last `limit` bytes as text.
fn last_bytes(mut stream: impl Read, limit: usize) -> String {
    let mut kept: Vec<u8> = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                kept.extend(&buffer[..n]);
                if kept.len() > 2 * limit {
                    kept.drain(..kept.len() - limit);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    let start = kept.len().saturating_sub(limit);
    let text = String::from_utf8_lossy(&kept[start..]);
    // A byte that is no text has become three.
    let mut start = text.len().saturating_sub(limit);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].to_owned()
}

/// Decides how the job ended from what was said and how the process ended.
fn verdict(end: End, is_late: bool, status: ExitStatus) -> Result<(), (FailureClass, String)> {
    match end {
        End::Failed(WorkerFailed { class, message }) => Err((class, message)),
        End::Broken(problem) => Err((
            FailureClass::Permanent,
            format!("the worker does not keep its protocol: {problem}"),
        )),
        End::Unheard => Err((
            FailureClass::Infrastructure,
            "the agent stopped listening to the worker".to_owned(),
        )),
        End::Finished | End::Closed if is_late => Err((
            FailureClass::Permanent,
            format!("the worker closed its output but did not end within {END_GRACE:?}"),
        )),
        End::Finished if status.success() => Ok(()),
        End::Finished => {
            let (class, ending) = ending(status);
            Err((
                class,
                format!("the worker finished the job but then {ending}"),
            ))
        }
        End::Closed => {
            let (class, ending) = ending(status);
            Err((
                class,
                format!("the worker {ending} before the job was done"),
            ))
        }
    }
}

/// Returns whether trying again may help, and what happened.
fn ending(status: ExitStatus) -> (FailureClass, String) {
    let Some(signal) = status.signal() else {
        let code = status.code().unwrap_or(-1);
        return (FailureClass::Permanent, format!("exited with code {code}"));
    };
    // A crash will come again; someone else's kill (the kernel's for memory, too) perhaps not.
    let (name, class) = match signal {
        1 => ("SIGHUP", FailureClass::Transient),
        2 => ("SIGINT", FailureClass::Transient),
        3 => ("SIGQUIT", FailureClass::Transient),
        4 => ("SIGILL", FailureClass::Permanent),
        5 => ("SIGTRAP", FailureClass::Permanent),
        6 => ("SIGABRT", FailureClass::Permanent),
        8 => ("SIGFPE", FailureClass::Permanent),
        9 => ("SIGKILL", FailureClass::Transient),
        11 => ("SIGSEGV", FailureClass::Permanent),
        13 => ("SIGPIPE", FailureClass::Transient),
        15 => ("SIGTERM", FailureClass::Transient),
        signal if signal == Signal::BUS.as_raw() => ("SIGBUS", FailureClass::Permanent),
        signal if signal == Signal::XCPU.as_raw() => ("SIGXCPU", FailureClass::Transient),
        _ => ("a signal", FailureClass::Permanent),
    };
    (class, format!("was killed by {name} ({signal})"))
}

pub(crate) fn infrastructure(message: impl Into<String>) -> Failure {
    Failure {
        class: FailureClass::Infrastructure,
        message: message.into(),
        stderr: String::new(),
    }
}
