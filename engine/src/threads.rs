//! A persistent pool of threads with a static split of work.
//!
//! Each call hands part `i` of a slice to thread `i`; which thread computes what depends on the
//! number of threads alone. A token of a large model is some 150 such calls, so that a waiting
//! thread spins for a bounded time before it parks.
#![expect(
    unsafe_code,
    reason = "threads that outlive a call borrow its data; the call waits for all of them"
)]

use std::{
    any::Any,
    cell::UnsafeCell,
    fmt, io,
    num::NonZeroUsize,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle, Thread},
};

/// Turns of a waiting loop before it parks: some 50–150 µs, a few times the gap between two calls.
const SPINS: u32 = 4096;

/// What the workers run: `call(data, i)` on worker `i`.
#[derive(Clone)]
struct Job {
    data: *const (),
    call: unsafe fn(*const (), usize),
    caller: Thread,
}

struct Shared {
    // Counts jobs; a change tells the workers that `job` is a new one.
    epoch: AtomicU32,
    // Written by the caller while no worker is at work, read by workers after they saw the epoch.
    job: UnsafeCell<Option<Job>>,
    // Workers that have not finished the present job.
    busy: AtomicUsize,
    stop: AtomicBool,
    panicked: AtomicBool,
    // Turns of a waiting loop before it parks.
    spins: u32,
}

// SAFETY: `job` is written only while `busy` is 0 and before the release of `epoch`, and read only
// after its acquisition and before `busy` is lowered; the pointers in it are used under the same rule.
unsafe impl Sync for Shared {}
// SAFETY: as for `Sync`; the pointers belong to no thread.
unsafe impl Send for Shared {}

impl Shared {
    /// One turn of a waiting loop: spins at first, then parks until someone unparks this thread.
    fn pause(&self, spins: &mut u32) {
        if *spins < self.spins {
            *spins += 1;
            std::hint::spin_loop();
        } else {
            thread::park();
        }
    }
}

/// A pool of threads of which the caller is the first.
pub struct ThreadPool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadPool")
            .field("threads", &self.threads())
            .finish_non_exhaustive()
    }
}

impl ThreadPool {
    /// Starts `threads − 1` workers; the calling thread of each [`run`](Self::run) is the other one.
    ///
    /// With `pin`, thread `i` is bound to the `i`-th CPU this process may use, and so is the
    /// thread that calls `new`; with more threads than CPUs the CPUs are used in turn.
    pub fn new(threads: NonZeroUsize, pin: bool) -> io::Result<Self> {
        // Where threads outnumber the CPUs, who spins keeps the one it waits for from running.
        let crowded = thread::available_parallelism().is_ok_and(|cpus| threads > cpus);
        let cpus = if pin { affinity::cpus()? } else { Vec::new() };
        let cpu_of = |index: usize| (!cpus.is_empty()).then(|| cpus[index % cpus.len()]);
        let mut pool = Self {
            shared: Arc::new(Shared {
                epoch: AtomicU32::new(0),
                job: UnsafeCell::new(None),
                busy: AtomicUsize::new(0),
                stop: AtomicBool::new(false),
                panicked: AtomicBool::new(false),
                spins: if crowded { 0 } else { SPINS },
            }),
            workers: Vec::with_capacity(threads.get() - 1),
        };
        for index in 1..threads.get() {
            let shared = Arc::clone(&pool.shared);
            let cpu = cpu_of(index);
            let worker = thread::Builder::new()
                .name(format!("tritmark-{index}"))
                .spawn(move || {
                    // A CPU taken from the process meanwhile only costs speed.
                    let _ = cpu.map(affinity::bind);
                    work(&shared, index);
                })?;
            pool.workers.push(worker);
        }
        if let Some(cpu) = cpu_of(0) {
            affinity::bind(cpu)?;
        }
        Ok(pool)
    }

    /// Returns the number of threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `work(i, &mut parts[i])` on thread `i` for every part, and waits for all.
    ///
    /// # Panics
    /// If there are more parts than threads, or if `work` panics.
    pub fn run<T: Send>(&mut self, parts: &mut [T], work: impl Fn(usize, &mut T) + Sync) {
        assert!(parts.len() <= self.threads(), "a thread for each part");
        if let [part] = parts {
            work(0, part);
            return;
        }
        let Some((first, others)) = parts.split_first_mut() else {
            return;
        };
        let task = Task {
            parts: others.as_mut_ptr(),
            len: others.len(),
            work: &work,
        };
        self.start(&task);
        let own = panic::catch_unwind(AssertUnwindSafe(|| work(0, first)));
        let all = self.wait();
        if let Err(payload) = own {
            panic::resume_unwind(payload);
        }
        assert!(all, "a worker thread panicked");
    }

    /// Hands a task to the workers. [`wait`](Self::wait) must follow before its borrows end.
    fn start<T, F: Fn(usize, &mut T) + Sync>(&self, task: &Task<'_, T, F>) {
        let job = Job {
            data: std::ptr::from_ref(task).cast(),
            call: call::<T, F>,
            caller: thread::current(),
        };
        // SAFETY: no worker reads `job` now, since the last call waited for all of them.
        unsafe { *self.shared.job.get() = Some(job) };
        self.shared
            .busy
            .store(self.workers.len(), Ordering::Relaxed);
        self.shared.epoch.fetch_add(1, Ordering::Release);
        for worker in &self.workers {
            worker.thread().unpark();
        }
    }

    /// Waits until no worker is busy; returns false if one of them panicked.
    fn wait(&self) -> bool {
        let mut spins = 0;
        while self.shared.busy.load(Ordering::Acquire) > 0 {
            self.shared.pause(&mut spins);
        }
        !self.shared.panicked.swap(false, Ordering::Relaxed)
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.epoch.fetch_add(1, Ordering::Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches the panics of its work: joining cannot fail in a way that matters.
            let _: Result<(), Box<dyn Any + Send>> = worker.join();
        }
    }
}

/// The parts of threads 1 and up, and what to do with them.
struct Task<'a, T, F> {
    parts: *mut T,
    len: usize,
    work: &'a F,
}

/// Runs worker `index` of a task.
///
/// # Safety
/// `data` is a live `Task<T, F>`, and no other thread calls this with the same index.
unsafe fn call<T, F: Fn(usize, &mut T) + Sync>(data: *const (), index: usize) {
    // SAFETY: the caller promises a live task of these types.
    let task = unsafe { &*data.cast::<Task<'_, T, F>>() };
    if index - 1 < task.len {
        // SAFETY: within the slice the task was made of.
        let part = unsafe { task.parts.add(index - 1) };
        // SAFETY: each index is run once, so that this is the only reference to the part.
        (task.work)(index, unsafe { &mut *part });
    }
}

/// The life of a worker.
fn work(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        let mut spins = 0;
        let epoch = loop {
            let epoch = shared.epoch.load(Ordering::Acquire);
            if epoch != seen {
                break epoch;
            }
            shared.pause(&mut spins);
        };
        seen = epoch;
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        // SAFETY: the epoch was acquired, and the caller writes no job before `busy` is 0 again.
        let job = unsafe { (*shared.job.get()).clone() };
        let Some(Job { data, call, caller }) = job else {
            continue;
        };
        // SAFETY: the caller waits for this worker, so the task lives; each worker has its own index.
        let run = AssertUnwindSafe(|| unsafe { call(data, index) });
        if panic::catch_unwind(run).is_err() {
            shared.panicked.store(true, Ordering::Relaxed);
        }
        if shared.busy.fetch_sub(1, Ordering::Release) == 1 {
            caller.unpark();
        }
    }
}

#[cfg(target_os = "linux")]
mod affinity {
    //! Binding threads to CPUs (`sched_setaffinity(2)`).

    use std::io;

    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    /// Returns the CPUs the calling thread may use.
    pub(super) fn cpus() -> io::Result<Vec<usize>> {
        let set = sched_getaffinity(None)?;
        Ok((0..CpuSet::MAX_CPU)
            .filter(|&cpu| set.is_set(cpu))
            .collect())
    }

    /// Binds the calling thread to one CPU.
    pub(super) fn bind(cpu: usize) -> io::Result<()> {
        let mut set = CpuSet::new();
        set.set(cpu);
        Ok(sched_setaffinity(None, &set)?)
    }
}

#[cfg(not(target_os = "linux"))]
mod affinity {
    //! Other systems have no such call, or take it as a hint at best.

    use std::io;

    /// Reports that threads cannot be bound here.
    pub(super) fn cpus() -> io::Result<Vec<usize>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Never called, since `cpus` fails.
    pub(super) fn bind(_: usize) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Returns the ends of `parts` stretches of `0..len`, each but the last a multiple of `grain`.
pub fn ends(len: usize, parts: usize, grain: usize) -> impl Iterator<Item = usize> + Clone {
    let grains = len.div_ceil(grain);
    (1..=parts).map(move |i| (grains * i / parts * grain).min(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(threads: usize) -> ThreadPool {
        ThreadPool::new(NonZeroUsize::new(threads).unwrap(), false).unwrap()
    }

    #[test]
    fn every_part_is_worked_on_by_its_own_thread() {
        for threads in 1..=5 {
            let mut pool = pool(threads);
            for n_parts in 0..=threads {
                let mut parts = vec![0; n_parts];
                for _ in 0..100 {
                    pool.run(&mut parts, |i, part| *part += i + 1);
                }
                let expected: Vec<_> = (1..=n_parts).map(|i| i * 100).collect();
                assert_eq!(parts, expected);
            }
        }
    }

    #[test]
    fn a_parked_worker_is_woken() {
        let mut pool = pool(2);
        let mut parts = [0, 0];
        // A worker parks after SPINS turns; this many of our own are a multiple of that.
        for _ in 0..50 * SPINS {
            std::hint::spin_loop();
        }
        pool.run(&mut parts, |_, part| *part = 7);
        assert_eq!(parts, [7, 7]);
    }

    #[test]
    fn a_panic_in_a_worker_reaches_the_caller_and_the_pool_lives_on() {
        let mut pool = pool(3);
        for bad in 0..3 {
            let run = AssertUnwindSafe(|| {
                pool.run(&mut [0, 1, 2], |_, part| {
                    assert!(*part != bad, "part {part}");
                });
            });
            assert!(panic::catch_unwind(run).is_err());
            let mut parts = [0, 0, 0];
            pool.run(&mut parts, |i, part| *part = i);
            assert_eq!(parts, [0, 1, 2]);
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn pinned_threads_work() {
        // In a thread of its own, since it stays bound to one CPU.
        thread::spawn(|| {
            let mut pool = ThreadPool::new(NonZeroUsize::new(3).unwrap(), true).unwrap();
            let mut parts = [0, 0, 0];
            pool.run(&mut parts, |_, part| {
                *part = affinity::cpus().unwrap().len();
            });
            assert_eq!(parts, [1, 1, 1]);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn ends_cover_the_whole_and_keep_to_the_grain() {
        for (len, parts, grain) in [(100, 3, 16), (5, 8, 4), (0, 2, 16), (64, 4, 16)] {
            let ends: Vec<_> = ends(len, parts, grain).collect();
            assert_eq!(ends.len(), parts);
            assert_eq!(ends.last(), Some(&len));
            assert!(ends.is_sorted());
            assert!(ends.iter().all(|end| end % grain == 0 || *end == len));
        }
    }
}
