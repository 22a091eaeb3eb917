//! Resource limits of the jail.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::super::request::{Fault, InLayer as _, Request};

/// Stack of the main thread, and address space that each further thread takes.
const STACK_BYTES: u64 = 64 << 20;
/// Threads, where they can be counted apart from the user's other ones.
const THREADS: u64 = 64;

/// Sets every limit, none above what this process was given.
pub(super) fn set(request: &Request) -> Result<(), Fault> {
    let same = |value| (value, value);
    let mut limits = vec![
        (Resource::As, same(request.memory_bytes)),
        (Resource::Stack, same(STACK_BYTES)),
        // The first signal can be caught or ignored, the second, a second later, cannot.
        (Resource::Cpu, (request.cpu_s, request.cpu_s + 1)),
        (Resource::Fsize, same(request.file_bytes)),
        (Resource::Nofile, same(request.n_files)),
        (Resource::Core, same(0)),
        (Resource::Memlock, same(0)),
        (Resource::Msgqueue, same(0)),
        (Resource::Rtprio, same(0)),
    ];
    if request.namespaces {
        limits.push((Resource::Nproc, same(THREADS)));
    }
    for (resource, (current, maximum)) in limits {
        let allowed = getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let limit = Rlimit {
            current: Some(current.min(allowed)),
            maximum: Some(maximum.min(allowed)),
        };
        setrlimit(resource, limit).layer("resource limits", &format!("{resource:?}"))?;
    }
    Ok(())
}
