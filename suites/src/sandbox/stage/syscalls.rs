//! The system calls a program may make; all others do not exist for it (`ENOSYS`).
//!
//! A list of what is allowed, so that what a newer kernel brings is denied. `clone` is there for
//! threads alone; `clone3`, whose flags no filter can see, is not, and the C library falls back.

use std::collections::BTreeMap;

use rustix::process::getpid;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::super::request::{Fault, InLayer as _};

const LAYER: &str = "seccomp";

/// Calls with all their arguments, on every architecture.
const ALLOWED: &[libc::c_long] = &[
    // Descriptors.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_ftruncate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sendfile,
    libc::SYS_copy_file_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    // Paths; landlock says which.
    libc::SYS_openat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_chdir,
    libc::SYS_fchdir,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_symlinkat,
    libc::SYS_umask,
    // Memory.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    // Threads and signals.
    libc::SYS_futex,
    libc::SYS_set_tid_address,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getcpu,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_setitimer,
    libc::SYS_getitimer,
    libc::SYS_restart_syscall,
    // Time and the process itself.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_times,
    libc::SYS_getrusage,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getppid,
    libc::SYS_getpgid,
    libc::SYS_getsid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getgroups,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getrandom,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // The interpreter is started with the filter in force; landlock leaves nothing else to start.
    libc::SYS_execve,
];

/// Older forms of the same, which only this architecture has.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[libc::c_long] = &[
    libc::SYS_arch_prctl,
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_getdents,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_symlink,
    libc::SYS_pipe,
    libc::SYS_dup2,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_getrlimit,
    libc::SYS_getpgrp,
    libc::SYS_time,
    libc::SYS_alarm,
    libc::SYS_pause,
];
/// An older form of `renameat2`, which `libc` does not name here.
#[cfg(target_arch = "aarch64")]
const ALLOWED_HERE: &[libc::c_long] = &[38];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ALLOWED_HERE: &[libc::c_long] = &[];

/// Installs the filter in this thread, the only one.
pub(super) fn filter() -> Result<(), Fault> {
    let own_pid = u64::from(getpid().as_raw_pid().cast_unsigned());
    let program = compile(own_pid)?;
    seccompiler::apply_filter(&program).layer(LAYER, "cannot install the filter")
}

fn compile(own_pid: u64) -> Result<BpfProgram, Fault> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)
        .ok()
        .filter(|_| !ALLOWED_HERE.is_empty())
        .ok_or_else(|| Fault::new(LAYER, "there is no list of calls for this architecture"))?;
    let denied = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    SeccompFilter::new(rules(own_pid)?, denied, SeccompAction::Allow, arch)
        .and_then(TryInto::try_into)
        .layer(LAYER, "cannot compile the filter")
}

fn rules(own_pid: u64) -> Result<BTreeMap<i64, Vec<SeccompRule>>, Fault> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED
        .iter()
        .chain(ALLOWED_HERE)
        .map(|&call| (call, Vec::new()))
        .collect();
    let thread = u64::from(libc::CLONE_THREAD.cast_unsigned());
    let only = [
        (
            libc::SYS_clone,
            0,
            SeccompCmpOp::MaskedEq(thread),
            vec![thread],
        ),
        // Signals to itself, by no other name.
        (libc::SYS_kill, 0, SeccompCmpOp::Eq, vec![own_pid]),
        (libc::SYS_tgkill, 0, SeccompCmpOp::Eq, vec![own_pid]),
        // Its own limits, which only go down.
        (libc::SYS_prlimit64, 0, SeccompCmpOp::Eq, vec![0, own_pid]),
        // The names of threads and of memory areas.
        (
            libc::SYS_prctl,
            0,
            SeccompCmpOp::Eq,
            [libc::PR_SET_NAME, libc::PR_GET_NAME, libc::PR_SET_VMA]
                .map(as_argument)
                .to_vec(),
        ),
        // No asynchronous signals to whoever was named the owner.
        (
            libc::SYS_fcntl,
            1,
            SeccompCmpOp::Eq,
            [
                libc::F_DUPFD,
                libc::F_DUPFD_CLOEXEC,
                libc::F_GETFD,
                libc::F_SETFD,
                libc::F_GETFL,
                libc::F_SETFL,
            ]
            .map(as_argument)
            .to_vec(),
        ),
        // Whether it is a terminal, close on exec, non-blocking.
        (
            libc::SYS_ioctl,
            1,
            SeccompCmpOp::Eq,
            [
                libc::TCGETS,
                libc::TIOCGWINSZ,
                libc::FIOCLEX,
                libc::FIONCLEX,
                libc::FIONBIO,
                libc::FIONREAD,
            ]
            .map(|request| request & u64::from(u32::MAX))
            .to_vec(),
        ),
    ];
    for (call, argument, operator, values) in only {
        let alternatives = values.into_iter().map(|value| {
            SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator.clone(), value)
                .and_then(|condition| SeccompRule::new(vec![condition]))
                .layer(LAYER, "cannot make a rule")
        });
        rules.insert(call, alternatives.collect::<Result<_, _>>()?);
    }
    Ok(rules)
}

fn as_argument(value: libc::c_int) -> u64 {
    u64::from(value.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_leads_out_is_on_the_list() {
        let rules = rules(1).unwrap();
        let forbidden = [
            libc::SYS_socket,
            libc::SYS_socketpair,
            libc::SYS_connect,
            libc::SYS_bind,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_pivot_root,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_clone3,
            libc::SYS_execveat,
            libc::SYS_bpf,
            libc::SYS_kexec_load,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_io_uring_setup,
            libc::SYS_perf_event_open,
            libc::SYS_userfaultfd,
            libc::SYS_pidfd_open,
            libc::SYS_pidfd_send_signal,
            libc::SYS_pidfd_getfd,
            libc::SYS_tkill,
            libc::SYS_setsid,
            libc::SYS_setpgid,
            libc::SYS_truncate,
            libc::SYS_memfd_create,
            libc::SYS_open_by_handle_at,
            libc::SYS_init_module,
            libc::SYS_reboot,
        ];
        for call in forbidden {
            assert!(!rules.contains_key(&call), "{call}");
        }
        #[cfg(target_arch = "x86_64")]
        for call in [libc::SYS_fork, libc::SYS_vfork] {
            assert!(!rules.contains_key(&call), "{call}");
        }
        assert!(rules.len() > 90);
        compile(1).unwrap();
    }
}
