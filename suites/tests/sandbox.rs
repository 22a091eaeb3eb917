//! Programs that try to get out of the sandbox, or to take the machine with them.
//!
//! Each is run with namespaces and without, as the user who runs the tests and, where that is root,
//! as an ordinary user too. Every one is contained and reported, and the next program runs.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

mod common;

use std::{
    fs,
    io::Write as _,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use tritmark_suites::sandbox::{
    Exit, Limits, Namespaces, Options, Program, Ran, Sandbox, SandboxError,
};

/// The ordinary user that root becomes for a second round.
const NOBODY: u32 = 65534;

/// What a program in a test may use; small, so that limits are soon reached.
const LIMITS: Limits = Limits {
    cpu: Duration::from_secs(2),
    wall: Duration::from_mins(2),
    memory_bytes: 1 << 30,
    file_bytes: 1 << 20,
    scratch_bytes: 4 << 20,
    output_bytes: 64 << 10,
    n_files: 64,
};

/// Says what happens to whatever a program tries; what is refused otherwise than by the system is a
/// mistake of the test.
const PRELUDE: &str = "
import os, sys
def attempt(what):
    try:
        print('DONE', repr(what())[:200])
    except (OSError, MemoryError) as error:
        print('DENIED', type(error).__name__)
    sys.stdout.flush()
";

/// The sandboxes to try here; empty where there is none.
fn sandboxes() -> Vec<Sandbox> {
    let sandboxes: Vec<_> = [Namespaces::Require, Namespaces::Off]
        .into_iter()
        .filter_map(|namespaces| {
            let options = Options {
                namespaces,
                entry: Some(common::entry()),
                ..Options::default()
            };
            match Sandbox::detect(&options) {
                Ok(sandbox) => Some(sandbox),
                Err(error) => {
                    eprintln!(
                        "NOT RUN: untrusted programs with namespaces {namespaces:?}: {error}"
                    );
                    None
                }
            }
        })
        .collect();
    assert!(
        !(sandboxes.is_empty() && common::required()),
        "there is no sandbox here"
    );
    sandboxes
}

fn run(sandbox: &Sandbox, script: &str, args: &[&str]) -> Ran {
    run_within(sandbox, script, args, LIMITS)
}

fn run_within(sandbox: &Sandbox, script: &str, args: &[&str], limits: Limits) -> Ran {
    let script = format!("{PRELUDE}{script}");
    let program = args
        .iter()
        .fold(Program::new(script, limits), |program, arg| {
            program.arg(*arg)
        });
    sandbox.run(&program).expect("the sandbox holds")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a script of attempts, all of which must be denied, `n` in number.
#[track_caller]
fn denied(sandbox: &Sandbox, n: usize, script: &str, args: &[&str]) {
    denied_within(sandbox, n, script, args, LIMITS);
}

#[track_caller]
fn denied_within(sandbox: &Sandbox, n: usize, script: &str, args: &[&str], limits: Limits) {
    let ran = run_within(sandbox, script, args, limits);
    let (out, err) = (text(&ran.stdout.bytes), text(&ran.stderr.bytes));
    assert_eq!(ran.exit, Exit::Code(0), "{out}{err}");
    let all: Vec<&str> = out.lines().collect();
    assert_eq!(all.len(), n, "{out}{err}");
    for line in all {
        assert!(line.starts_with("DENIED"), "{out}{err}");
    }
    goes_on(sandbox);
}

/// The next program runs, whatever the last one did.
#[track_caller]
fn goes_on(sandbox: &Sandbox) {
    let ran = run(sandbox, "print(6 * 7)", &[]);
    assert_eq!(
        (ran.exit, text(&ran.stdout.bytes).as_str()),
        (Exit::Code(0), "42\n")
    );
}

#[test]
fn what_lies_outside_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let secret = folder.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    let parent = std::process::id().to_string();
    for sandbox in sandboxes() {
        denied(
            &sandbox,
            12,
            "
secret, folder, parent = sys.argv[1:]
for path in (secret, '/etc/shadow', '/etc/passwd', '/proc/1/environ', f'/proc/{parent}/environ',
             '/proc/self/mem', '/usr/bin/env', '/root/.bashrc'):
    attempt(lambda: open(path, 'rb').read())
attempt(lambda: os.listdir(folder))
attempt(lambda: os.listdir('/'))
attempt(lambda: os.symlink(secret, 'link') or open('link').read())
attempt(lambda: os.link(secret, 'hard') or open('hard').read())
",
            &[
                secret.to_str().unwrap(),
                folder.path().to_str().unwrap(),
                &parent,
            ],
        );
    }
}

#[test]
fn the_harness_environment_and_descriptors_are_not_passed_on() {
    for sandbox in sandboxes() {
        let ran = run(
            &sandbox,
            "
print(sorted(os.environ))
def open_fds():
    for fd in range(3, 256):
        try:
            os.fstat(fd)
        except OSError:
            continue
        yield fd
print(list(open_fds()), os.getuid() != 0)
",
            &[],
        );
        let out = text(&ran.stdout.bytes);
        assert!(out.ends_with("[] True\n"), "{out}");
        for name in ["CARGO", "USER", "SHELL", "TRITMARK"] {
            assert!(!out.contains(name), "{out}");
        }
    }
}

#[test]
fn nothing_outside_can_be_written() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let kept = folder.path().join("kept");
    fs::write(&kept, "kept").unwrap();
    fs::set_permissions(&kept, fs::Permissions::from_mode(0o666)).unwrap();
    for sandbox in sandboxes() {
        denied(
            &sandbox,
            9,
            "
folder, kept = sys.argv[1:]
attempt(lambda: open(folder + '/new', 'w'))
attempt(lambda: open(kept, 'a').write('x'))
attempt(lambda: os.truncate(kept, 0))
attempt(lambda: os.open(kept, os.O_RDONLY | os.O_TRUNC))
attempt(lambda: os.unlink(kept))
attempt(lambda: os.rename(kept, 'mine'))
attempt(lambda: os.chmod(kept, 0))
attempt(lambda: open('/usr/lib/new', 'w'))
attempt(lambda: open(os.path.join(os.getcwd(), '..', 'status'), 'a'))
",
            &[folder.path().to_str().unwrap(), kept.to_str().unwrap()],
        );
        assert_eq!(fs::read_to_string(&kept).unwrap(), "kept");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

/// By numbers of the system calls, as there are programs that go past the C library.
const CTYPES: &str = "
import ctypes, platform
libc = ctypes.CDLL(None, use_errno=True)
x86 = platform.machine() == 'x86_64'
def call(x86_number, arm_number, *args):
    result = libc.syscall(x86_number if x86 else arm_number, *args)
    if result < 0:
        raise OSError(ctypes.get_errno(), 'refused')
    return result
";

#[test]
fn there_are_no_sockets() {
    for sandbox in sandboxes() {
        denied(
            &sandbox,
            8,
            &format!(
                "{CTYPES}
import socket
attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
attempt(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
attempt(lambda: socket.socketpair())
attempt(lambda: socket.create_connection(('127.0.0.1', 80)))
attempt(lambda: call(41, 198, 2, 1, 0))       # socket
attempt(lambda: call(53, 199, 1, 1, 0, None)) # socketpair
attempt(lambda: call(425, 425, 8, None))      # io_uring_setup
"
            ),
            &[],
        );
    }
}

#[test]
fn there_are_no_other_processes() {
    for sandbox in sandboxes() {
        denied(
            &sandbox,
            14,
            &format!(
                "{CTYPES}
import subprocess, multiprocessing
attempt(lambda: os.fork())
attempt(lambda: [os.fork() for _ in range(10000)])
attempt(lambda: subprocess.run(['/bin/sh', '-c', 'id']))
def shell():
    if os.system('id') != 0:
        raise OSError
attempt(shell)
attempt(lambda: os.posix_spawn('/bin/sh', ['sh', '-c', 'id'], {{}}))
attempt(lambda: multiprocessing.Process(target=print).start())
attempt(lambda: os.execv('/bin/sh', ['sh', '-c', 'echo out']))
attempt(lambda: os.execv('/usr/bin/env', ['env']))
attempt(lambda: call(56, 220, 17, 0, 0, 0, 0))            # clone without CLONE_THREAD
attempt(lambda: call(58 if x86 else 57, 1071, 0))         # vfork; fork has another number
attempt(lambda: call(435, 435, ctypes.create_string_buffer(88), 88)) # clone3
attempt(lambda: call(322, 281, -1, b'/bin/sh', None, None, 0))        # execveat
attempt(lambda: call(272, 97, 0x10000000))                # unshare
attempt(lambda: call(308, 268, 0, 0))                     # setns
"
            ),
            &[],
        );
    }
}

#[test]
fn no_other_process_can_be_touched() {
    let parent = std::process::id().to_string();
    for sandbox in sandboxes() {
        denied(
            &sandbox,
            13,
            &format!(
                "{CTYPES}
import signal
parent = int(sys.argv[1])
attempt(lambda: os.kill(parent, signal.SIGKILL))
attempt(lambda: os.kill(os.getppid(), signal.SIGKILL))
attempt(lambda: os.kill(-1, signal.SIGKILL))
attempt(lambda: os.kill(0, signal.SIGTERM))
attempt(lambda: os.killpg(os.getpgid(0), signal.SIGTERM))
attempt(lambda: call(101, 117, 16, parent, 0, 0))     # ptrace
attempt(lambda: call(310, 270, parent, None, 0, None, 0, 0)) # process_vm_readv
attempt(lambda: call(434, 434, parent, 0))            # pidfd_open
attempt(lambda: call(302, 261, parent, 7, None, ctypes.create_string_buffer(16))) # prlimit64
attempt(lambda: call(165, 40, b'none', b'/tmp', b'tmpfs', 0, None)) # mount
attempt(lambda: call(321, 280, 0, None, 0))           # bpf
attempt(lambda: call(298, 241, None, 0, -1, -1, 0))   # perf_event_open
attempt(lambda: call(250, 219, 0, 0))                 # keyctl
"
            ),
            &[&parent],
        );
    }
}

#[test]
fn too_much_memory_is_refused() {
    // Pages that a host has yet to give to a virtual machine take CPU time.
    let limits = Limits {
        cpu: Duration::from_secs(30),
        memory_bytes: 512 << 20,
        ..LIMITS
    };
    for sandbox in sandboxes() {
        denied_within(
            &sandbox,
            2,
            "
attempt(lambda: bytearray(10 << 30))
def hoard():
    kept = []
    while True:
        kept.append(bytearray(16 << 20))
attempt(hoard)
",
            &[],
            limits,
        );
    }
}

#[test]
fn a_program_that_never_ends_is_ended() {
    for sandbox in sandboxes() {
        let ran = run(&sandbox, "while True: pass", &[]);
        assert_eq!(ran.exit, Exit::CpuLimit, "{ran:?}");
        assert!(ran.cpu >= Duration::from_millis(1500), "{ran:?}");
        let stubborn = "
import signal
for number in range(1, 32):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
while True: pass
";
        assert_eq!(run(&sandbox, stubborn, &[]).exit, Exit::CpuLimit);
        let short = Limits {
            wall: Duration::from_secs(1),
            ..LIMITS
        };
        let sleeper = "
import threading, time
threads = [threading.Thread(target=time.sleep, args=(1000,)) for _ in range(8)]
for thread in threads: thread.start()
time.sleep(1000)
";
        let ran = run_within(&sandbox, sleeper, &[], short);
        assert_eq!(ran.exit, Exit::WallLimit);
        assert!(ran.wall < Duration::from_secs(15), "{ran:?}");
        goes_on(&sandbox);
    }
}

#[test]
fn of_a_gigabyte_of_output_the_beginning_is_kept() {
    const PIECE: u64 = 1 << 20;
    let limits = Limits {
        cpu: Duration::from_secs(30),
        wall: Duration::from_mins(2),
        ..LIMITS
    };
    for sandbox in sandboxes() {
        let script = "
for _ in range(1024):
    sys.stdout.buffer.write(b'o' * (1 << 20))
sys.stderr.buffer.write(b'e' * (1 << 20))
";
        let ran = run_within(&sandbox, script, &[], limits);
        assert_eq!(ran.exit, Exit::Code(0));
        let kept = LIMITS.output_bytes as u64;
        assert_eq!(
            (ran.stdout.bytes.len() as u64, ran.stdout.lost),
            (kept, 1024 * PIECE - kept)
        );
        assert_eq!(
            (ran.stderr.bytes.len() as u64, ran.stderr.lost),
            (kept, PIECE - kept)
        );
        goes_on(&sandbox);
    }
}

#[test]
fn files_are_bounded_and_gone_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    for namespaces in [Namespaces::Require, Namespaces::Off] {
        let options = Options {
            namespaces,
            temp_root: folder.path().to_owned(),
            cpu_factor: Some(1.0),
            ..Options::default()
        };
        let Some(sandbox) = common::sandbox(options) else {
            continue;
        };
        let long = "
def write(name, n):
    with open(name, 'wb') as file:
        file.write(b'x' * n)
attempt(lambda: write('big', 2 << 20))
";
        denied(&sandbox, 1, long, &[]);
        let many = "
import time
for n in range(1000):
    with open(str(n), 'wb') as file:
        file.write(b'x' * (512 << 10))
    time.sleep(0.05)
";
        let ran = run(&sandbox, many, &[]);
        match namespaces {
            // The file system is full.
            Namespaces::Require => assert_eq!(ran.exit, Exit::Code(1), "{ran:?}"),
            _ => assert_eq!(ran.exit, Exit::ScratchLimit, "{ran:?}"),
        }
        let odd = "
os.mkdir('locked')
open('locked/file', 'w').close()
os.mkdir('empty', 0)
os.symlink('/', 'link')
os.symlink('loop', 'loop')
for n in range(200):
    os.mkdir('a-folder-with-a-long-name')
    os.chdir('a-folder-with-a-long-name')
open('\\n\\x01 \\u00e9', 'w').close()
os.umask(0o777)
os.mkdir('last')
";
        let ran = run(&sandbox, odd, &[]);
        // Without a file system of its own so deep a folder is more than is looked through.
        assert!(
            [Exit::Code(0), Exit::ScratchLimit].contains(&ran.exit),
            "{ran:?}"
        );
        let ran = run(&sandbox, "os.unlink('main.py'); os.rmdir(os.getcwd())", &[]);
        assert!(matches!(ran.exit, Exit::Code(0 | 1)), "{ran:?}");
        goes_on(&sandbox);
        let left = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 0, "folders of runs are left");
    }
}

#[test]
fn what_a_program_needs_is_there() {
    for sandbox in sandboxes() {
        let script = "
import sys, collections, datetime, decimal, fractions, functools, hashlib, heapq, itertools, json, math
import random, re, statistics, string, tempfile, threading, typing, time, bisect, copy, operator
thread = threading.Thread(target=lambda: print('thread'))
thread.start(); thread.join()
with tempfile.NamedTemporaryFile('w+') as file:
    file.write('file'); file.seek(0); print(file.read())
print(open('given').read(), sys.stdin.read(), sys.argv[1:], {'a', 'b', 'c', 'd'})
sys.exit(3)
";
        let program = Program::new(script, LIMITS)
            .arg("arg")
            .file("given", "content")
            .stdin("input");
        let ran = sandbox.run(&program).unwrap();
        let out = text(&ran.stdout.bytes);
        assert_eq!(ran.exit, Exit::Code(3), "{}", text(&ran.stderr.bytes));
        assert!(
            out.starts_with("thread\nfile\ncontent input ['arg'] {"),
            "{out}"
        );
        // A set of texts has one order.
        let again = sandbox.run(&program).unwrap();
        assert_eq!(text(&again.stdout.bytes), out);
        let signal = run(&sandbox, "os.kill(os.getpid(), 15)", &[]);
        assert_eq!(signal.exit, Exit::Signal(15));
        let abort = run(&sandbox, "os.abort()", &[]);
        assert_eq!(abort.exit, Exit::Signal(6));
    }
}

#[test]
fn a_program_whose_main_knows_nothing_of_sandboxes_is_no_entry() {
    for entry in ["/bin/true", "/bin/cat", "/nonexistent"] {
        let options = Options {
            entry: Some(entry.into()),
            ..Options::default()
        };
        let error = Sandbox::detect(&options).unwrap_err();
        match error {
            SandboxError::Unavailable(error) => {
                assert!(
                    ["stage", "interpreter"].contains(&error.layer.as_str()),
                    "{error}"
                );
            }
            SandboxError::Io { .. } => assert_eq!(entry, "/nonexistent"),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_name_of_a_file_stays_within_the_folder() {
    for sandbox in sandboxes() {
        for name in ["", "..", "a/b", "/etc/x"] {
            let program = Program::new("", LIMITS).file(name, "");
            assert!(sandbox.run(&program).is_err(), "{name}");
        }
    }
}

#[test]
fn a_layer_that_fails_is_named_and_the_program_does_not_start() {
    let Some(sandbox) = sandboxes().pop() else {
        return;
    };
    drop(sandbox);
    let python = fs::canonicalize("/usr/bin/python3")
        .or_else(|_| fs::canonicalize("/usr/local/bin/python3"));
    let Ok(python) = python else {
        eprintln!("NOT RUN: layers that fail: there is no Python in /usr");
        return;
    };
    let whole = |folder: &Path| {
        json!({
            "folder": folder,
            "parent": std::process::id(),
            "namespaces": false,
            "landlock": 1,
            "interpreter": python,
            "links": {},
            "readable": ["/usr/lib", "/usr/local/lib"],
            "executable": [],
            "args": ["-c", "open('started', 'w')"],
            "cpu_s": 1,
            "wall": {"secs": 20, "nanos": 0},
            "memory_bytes": 1 << 30,
            "file_bytes": 1 << 20,
            "scratch_bytes": 1 << 20,
            "n_files": 64,
        })
    };
    for (key, value, layer) in [
        // A version that no kernel has yet.
        ("landlock", json!(99), "landlock"),
        ("readable", json!(["/nowhere"]), "landlock"),
        ("interpreter", json!("/usr/lib/nothing"), "landlock"),
        ("parent", json!(1), "process group"),
        ("namespaces", json!(true), "mount namespace"),
        ("folder", json!("/nowhere"), ""),
    ] {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::File::create(folder.path().join("status")).unwrap();
        let scratch = folder.path().join("scratch");
        fs::create_dir(&scratch).unwrap();
        fs::set_permissions(&scratch, fs::Permissions::from_mode(0o777)).unwrap();
        let mut request = whole(folder.path());
        request[key] = value;
        let output = Command::new(common::entry())
            .args(["sandbox-stage", "monitor", "-", &request.to_string()])
            .output()
            .unwrap();
        let said = fs::read_to_string(folder.path().join("status")).unwrap();
        if layer.is_empty() {
            assert_eq!(output.status.code(), Some(125));
        } else {
            let first = said.lines().next().unwrap_or_default();
            assert!(
                first.contains(&format!("\"layer\":\"{layer}\"")),
                "{key}: {said}"
            );
        }
        assert!(!said.contains("walled"), "{key}: {said}");
        assert_eq!(
            fs::read_dir(&scratch).unwrap().count(),
            0,
            "{key}: it was started"
        );
    }
}

/// The process ids of all descendants of a process.
fn descendants(pid: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // After the name, which may hold anything, state and parent.
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?;
            Some((pid, parent.parse().ok()?))
        })
        .collect();
    let mut found = vec![pid];
    let mut at = 0;
    while at < found.len() {
        let parent = found[at];
        found.extend(
            parents
                .iter()
                .filter(|(_, p)| *p == parent)
                .map(|(pid, _)| *pid),
        );
        at += 1;
    }
    found.split_off(1)
}

fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_mins(2);
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_program_dies_with_the_harness() {
    for sandbox in sandboxes() {
        dies_with_the_harness(sandbox.layers().namespaces);
    }
}

fn dies_with_the_harness(namespaces: bool) {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let mut harness = Command::new(common::entry())
        .args((!namespaces).then_some("without-namespaces"))
        .env("TMPDIR", folder.path())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    // With a thread, to be told from the probe.
    let script = "
import threading, time
thread = threading.Thread(target=time.sleep, args=(25,))
thread.start()
time.sleep(25)
";
    let mut stdin = harness.stdin.take().unwrap();
    stdin.write_all(script.as_bytes()).unwrap();
    drop(stdin);
    let sleeping = until("the program starts", || {
        let all = descendants(harness.id());
        let is_ours = |pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            stat.contains("python") && stat.contains("Threads:\t2")
        };
        all.iter().any(is_ours).then_some(all)
    });
    harness.kill().unwrap();
    harness.wait().unwrap();
    until("all of its processes end", || {
        let alive = |pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.contains("python") || stat.contains("sandbox") || stat.contains("entry")
        };
        (!sleeping.iter().any(alive)).then_some(())
    });
}

/// As root, all tests of this file once more as an ordinary user.
#[test]
fn all_of_this_holds_for_an_ordinary_user() {
    const AGAIN: &str = "TRITMARK_TEST_AS_NOBODY";
    if std::env::var_os(AGAIN).is_some() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("the user is an ordinary one already; NOT RUN: the same as root");
        return;
    }
    // Where the tests are built, nobody may be able to go.
    let folder = tempfile::tempdir().unwrap();
    let copy = |from: &Path, name: &str| -> PathBuf {
        let to = folder.path().join(name);
        fs::copy(from, &to).unwrap();
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).unwrap();
        to
    };
    let test = copy(&std::env::current_exe().unwrap(), "test");
    let entry = copy(&common::entry(), "entry");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let scratch = folder.path().join("tmp");
    fs::create_dir(&scratch).unwrap();
    fs::set_permissions(&scratch, fs::Permissions::from_mode(0o777)).unwrap();
    let output = Command::new(test)
        .arg("--nocapture")
        .current_dir("/")
        .env(AGAIN, "1")
        .env("TRITMARK_TEST_ENTRY", entry)
        .env("TMPDIR", scratch)
        .uid(NOBODY)
        .gid(NOBODY)
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            eprintln!("NOT RUN: the sandbox as an ordinary user: {error}");
            return;
        }
    };
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    for line in err.lines().filter(|line| line.contains("NOT RUN")) {
        eprintln!("as an ordinary user: {line}");
    }
    println!(
        "as an ordinary user: {}",
        out.trim().lines().last().unwrap_or_default()
    );
}
