//! Sharing a CPU with other processes.
//!
//! libgomp's threads wait for each other by spinning, for up to about 10 ms, before they sleep. On a machine of our own
//! that is right: work comes in pieces of 50 µs, and waking a sleeping thread takes as long. Next to other processes it
//! is ruinous: a thread spins for one that has lost its core, and occupies the core that the other one needs. The
//! variable GOMP_SPINCOUNT is read once, when libgomp is loaded, so any value is wrong in one of the two cases.
//!
//! Decided: libgomp spins a thousandth as long while it manages more threads than there are cores. So while our threads
//! have to wait for a core, an idle thread of ours keeps a second team of OpenMP threads, which sleep but raise the
//! number of threads above that of the cores; when the neighbours are gone, it ends that team. Results do not change,
//! since the teams that compute stay the same. With another library than libgomp, or another behaviour of libgomp, this
//! has no effect. A user's own OMP_WAIT_POLICY or GOMP_SPINCOUNT takes precedence.
//!
//! Threads also ask the scheduler (Linux 6.12 or later) for short time slices: as much CPU time as before, but a thread
//! that wakes next to a busy neighbour starts at once rather than some milliseconds later.

use std::collections::HashMap;
use std::ffi::{c_uint, c_void};
use std::fs;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

/// Nanoseconds of a time slice: the least that Linux accepts.
const SLICE: u64 = 100_000;
/// How often to look for neighbours.
const LOOK: Duration = Duration::from_millis(500);
/// Share of its time that some thread has waited for a core: more than the first means neighbours, less than the second
/// means none. A quiet machine had 0.01 to 0.03; with one busy process on two cores it was a third.
const CROWDED: f64 = 0.15;
const QUIET: f64 = 0.06;
/// Quiet looks in a row before the neighbours are considered gone.
const PATIENCE: usize = 4;

/// Makes the program a good neighbour. Must be called before the first tensor is made: later threads inherit it.
pub fn share_cpu() {
    ask_for_short_slices();
    let own_choice = ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"].iter().any(|name| std::env::var_os(name).is_some());
    if let (false, Some(parallel)) = (own_choice, gomp_parallel()) {
        // If the thread cannot start, nothing changes.
        let _ = thread::Builder::new().name("neighbours".into()).spawn(move || watch(parallel));
    }
}

/// Looks for neighbours for as long as the process lives.
fn watch(parallel: Parallel) {
    let (mut crowd, mut quiet, mut before) = (None, 0, waited());
    loop {
        thread::sleep(LOOK);
        let now = waited();
        let longest = now.iter().filter_map(|(thread, after)| after.checked_sub(*before.get(thread)?)).max();
        let share = longest.unwrap_or(0) as f64 / LOOK.as_nanos() as f64;
        before = now;
        quiet = if share < QUIET { quiet + 1 } else { 0 };
        if share > CROWDED && crowd.is_none() {
            crowd = Crowd::gather(parallel);
        } else if quiet > PATIENCE {
            crowd = None;
        }
    }
}

/// Nanoseconds that each thread of this process has been ready to run but had no core.
fn waited() -> HashMap<PathBuf, u64> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten().map(|task| task.path());
    let of_task = |task: PathBuf| {
        // Time on a core, time waiting for one, number of slices.
        let figures = fs::read_to_string(task.join("schedstat")).ok()?;
        Some((task, figures.split(' ').nth(1)?.parse().ok()?))
    };
    tasks.filter_map(of_task).collect()
}

/// A team of OpenMP threads that does nothing, until it is dropped.
struct Crowd(#[expect(dead_code, reason = "the team ends when this is dropped")] Sender<()>);

impl Crowd {
    fn gather(parallel: Parallel) -> Option<Self> {
        let cores = rustix::thread::sched_getaffinity(None).ok()?.count() as usize;
        let computing = tch::get_num_threads().max(1) as usize;
        // Together with those that compute, one more than there are cores; the caller is the first of a team.
        let threads = cores.saturating_sub(computing).saturating_add(2) as c_uint;
        let (hold, held): (Sender<()>, Receiver<()>) = channel();
        let idle = move || {
            extern "C" fn nothing(_: *mut c_void) {}
            // SAFETY: GOMP_parallel calls a function without effect on each thread of the team and returns.
            unsafe { parallel(nothing, std::ptr::null_mut(), threads, 0) };
            // Waits until the other end is dropped. libgomp ends a team with the thread it belongs to.
            let _ = held.recv();
        };
        thread::Builder::new().name("crowd".into()).spawn(idle).ok()?;
        Some(Self(hold))
    }
}

/// libgomp's entry to a parallel region: a function, its argument, the number of threads, flags.
type Parallel = unsafe extern "C" fn(extern "C" fn(*mut c_void), *mut c_void, c_uint, c_uint);

fn gomp_parallel() -> Option<Parallel> {
    // SAFETY: a look-up by name among the libraries that are loaded; libgomp has had this function since GCC 4.9.
    unsafe {
        let symbol = libc::dlsym(libc::RTLD_DEFAULT, c"GOMP_parallel".as_ptr());
        (!symbol.is_null()).then(|| std::mem::transmute::<*mut c_void, Parallel>(symbol))
    }
}

/// sched_setattr(2), for which the C library has neither the call nor the struct.
fn ask_for_short_slices() {
    #[repr(C)]
    struct Attributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    // SAFETY: getpriority and sched_setattr are given plain values, and a struct of the size that it declares. An
    // older kernel refuses or ignores it.
    unsafe {
        let attributes = Attributes {
            size: size_of::<Attributes>() as u32,
            policy: libc::sched_getscheduler(0).max(0) as u32,
            flags: 0,
            nice: libc::getpriority(libc::PRIO_PROCESS, 0),
            priority: 0,
            runtime: SLICE,
            deadline: 0,
            period: 0,
        };
        libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    /// Waits until there are `count` threads.
    fn wait_for(threads: impl Fn() -> usize, count: usize) {
        let started = Instant::now();
        while threads() != count {
            assert!(started.elapsed() < Duration::from_secs(60), "{} threads, expected {count}", threads());
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_crowd_exists_until_it_is_dropped() {
        let name = |task: &PathBuf| fs::read_to_string(task.join("comm")).unwrap_or_default();
        // libgomp's threads have the name of the thread that first needed them.
        let crowd = || waited().keys().filter(|task| name(task).trim() == "crowd").count();
        let parallel = gomp_parallel().expect("libtorch loads libgomp");
        assert_eq!(crowd(), 0);
        for _ in 0..2 {
            let held = Crowd::gather(parallel).unwrap();
            let cores = rustix::thread::sched_getaffinity(None).unwrap().count() as usize;
            wait_for(crowd, cores.saturating_sub(tch::get_num_threads() as usize) + 2);
            drop(held);
            wait_for(crowd, 0);
        }
    }
}
