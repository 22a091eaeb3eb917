//! The harness's side of a run: a folder, a process, three pipes, a status file.

use std::{
    fs, io,
    io::{Read, Write as _},
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, geteuid, kill_process, kill_process_group, pidfd_open},
};

use super::{
    Exit, Output, Program, Ran, Sandbox, SandboxError, Unavailable,
    request::{self, ENTRY, Killed, Request, Status},
    scratch::Folder,
    sys,
};

/// How long the monitor may take to end what has reached the wall limit.
const GRACE: Duration = Duration::from_secs(5);

/// The user that root becomes without namespaces.
const NOBODY: u32 = 65534;

pub(super) fn run(sandbox: &Sandbox, program: &Program) -> Result<Ran, SandboxError> {
    let io = |step: &'static str| move |source| SandboxError::Io { step, source };
    let folder = Folder::new(&sandbox.temp_root).map_err(io("make the folder of a run"))?;
    prepare(sandbox, program, folder.path()).map_err(io("fill the folder of a run"))?;
    let request = request(sandbox, program, folder.path());
    let line = serde_json::to_string(&request)
        .map_err(io::Error::from)
        .map_err(io("describe a run"))?;
    let start = Instant::now();
    let mut child = Command::new(&sandbox.entry)
        .args([ENTRY, "monitor", "-", &line])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(io("start a sandbox"))?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let max = program.limits.output_bytes;
    let (outputs, waited) = thread::scope(|scope| {
        scope.spawn(|| {
            if let Some(mut stdin) = stdin {
                // A program need not read what it is given.
                let _ = stdin.write_all(&program.stdin);
            }
        });
        let stdout = scope.spawn(move || keep(stdout, max));
        let stderr = scope.spawn(move || keep(stderr, max));
        let waited = wait(child, request.wall + GRACE);
        let outputs =
            [stdout, stderr].map(|reader| reader.join().expect("a reader does not panic"));
        (outputs, waited)
    });
    let wall = start.elapsed();
    waited.map_err(io("wait for a sandbox"))?;
    let said = fs::read_to_string(folder.path().join("status"))
        .and_then(|text| request::read(&text))
        .map_err(io("read the status of a run"))?;
    folder.remove().map_err(io("remove the folder of a run"))?;
    let [stdout, stderr] = outputs;
    let said = Said::new(said, &stderr)?;
    Ok(Ran {
        exit: said.exit(request.cpu_s),
        stdout,
        stderr,
        cpu: said.cpu,
        wall,
        peak_rss_bytes: said.peak_rss_bytes,
    })
}

fn prepare(sandbox: &Sandbox, program: &Program, folder: &Path) -> io::Result<()> {
    let scratch = folder.join("scratch");
    fs::create_dir(folder.join("root"))?;
    fs::create_dir(&scratch)?;
    fs::File::create(folder.join("status"))?;
    for (name, content) in &program.files {
        let plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
        if !plain {
            return Err(io::Error::other(format!("`{name}` is no name of a file")));
        }
        fs::write(scratch.join(name), content)?;
    }
    if !sandbox.namespaces && geteuid().is_root() {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o711))?;
        for (name, _) in &program.files {
            chown(scratch.join(name), Some(NOBODY), Some(NOBODY))?;
        }
        chown(&scratch, Some(NOBODY), Some(NOBODY))?;
    }
    fs::set_permissions(&scratch, fs::Permissions::from_mode(0o700))
}

fn request(sandbox: &Sandbox, program: &Program, folder: &Path) -> Request {
    let interpreter = sandbox.interpreter.clone();
    let limits = sandbox.scaled(program.limits);
    Request {
        folder: folder.to_owned(),
        parent: std::process::id(),
        namespaces: sandbox.namespaces,
        landlock: sandbox.landlock,
        interpreter: interpreter.path,
        links: interpreter.links,
        readable: interpreter.readable,
        executable: interpreter.executable,
        args: ["-s", "-S", "-B"]
            .map(str::to_owned)
            .into_iter()
            .chain(program.args.iter().cloned())
            .collect(),
        // Whole seconds, rounded up, and a kernel reads 0 as 1.
        cpu_s: limits.cpu.as_secs() + u64::from(limits.cpu.subsec_nanos() > 0),
        wall: limits.wall,
        memory_bytes: limits.memory_bytes,
        file_bytes: limits.file_bytes,
        scratch_bytes: limits.scratch_bytes,
        n_files: limits.n_files,
    }
}

/// Reads to the end and keeps the beginning.
fn keep(source: Option<impl Read>, max: usize) -> Output {
    let mut output = Output::default();
    let Some(mut source) = source else {
        return output;
    };
    let mut buffer = vec![0; 64 << 10];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return output,
            Ok(n) => {
                let kept = n.min(max - output.bytes.len());
                output.bytes.extend_from_slice(&buffer[..kept]);
                output.lost += (n - kept) as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A pipe that breaks has come to its end.
            Err(_) => return output,
        }
    }
}

/// Waits for the monitor, and ends it and its group where it does not.
fn wait(child: Child, at_most: Duration) -> io::Result<()> {
    let pid = Pid::from_child(&child);
    let deadline = Instant::now() + at_most;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) if left.is_zero() => {
                // The group is there once the monitor has made it.
                let _ = kill_process_group(pid, Signal::KILL);
                let _ = kill_process(pid, Signal::KILL);
                break;
            }
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => break,
            Err(error) => return Err(error.into()),
        }
    }
    sys::wait(child).map(drop)
}

/// What a status file comes to.
struct Said {
    ended: Option<(Option<i32>, Option<i32>)>,
    killed: Option<Killed>,
    cpu: Duration,
    peak_rss_bytes: u64,
}

impl Said {
    fn new(statuses: Vec<Status>, stderr: &Output) -> Result<Self, SandboxError> {
        let mut walled = false;
        let mut said = Self {
            ended: None,
            // Where the monitor did not come to say so, it was ended for taking too long.
            killed: Some(Killed::Wall),
            cpu: Duration::ZERO,
            peak_rss_bytes: 0,
        };
        for status in statuses {
            match status {
                Status::Failed { layer, reason } => {
                    return Err(Unavailable { layer, reason }.into());
                }
                Status::Walled => walled = true,
                Status::Ended { code, signal } => said.ended = Some((code, signal)),
                Status::Done {
                    killed,
                    cpu,
                    peak_rss_bytes,
                } => {
                    said.killed = killed;
                    said.cpu = cpu;
                    said.peak_rss_bytes = peak_rss_bytes;
                }
            }
        }
        if walled {
            Ok(said)
        } else {
            let stderr = String::from_utf8_lossy(&stderr.bytes);
            Err(Unavailable {
                layer: "stage".to_owned(),
                reason: format!(
                    "the first process ended before it said why; {}",
                    match stderr.trim() {
                        "" => "does its `main` begin with `enter_if_asked`?",
                        text => text,
                    }
                ),
            }
            .into())
        }
    }

    fn exit(&self, cpu_s: u64) -> Exit {
        const SIGKILL: i32 = 9;
        const SIGXCPU: i32 = 24;
        match (self.killed, self.ended) {
            (Some(Killed::Wall), _) => Exit::WallLimit,
            (Some(Killed::Scratch), _) => Exit::ScratchLimit,
            (None, Some((_, Some(SIGXCPU)))) => Exit::CpuLimit,
            (None, Some((_, Some(SIGKILL)))) if self.cpu.as_secs() >= cpu_s => Exit::CpuLimit,
            (None, Some((_, Some(signal)))) => Exit::Signal(signal),
            (None, Some((code, None))) => Exit::Code(code.unwrap_or(0)),
            // Process 1 was killed with all others by something that is neither program nor harness.
            (None, None) => Exit::Signal(SIGKILL),
        }
    }
}
