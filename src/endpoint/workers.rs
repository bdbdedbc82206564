//! Several threads for what mostly waits.

use super::refusal::Refusal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long a signal lets requests under way come to an end, so that their replies are kept.
pub const GRACE: Duration = Duration::from_secs(5);

/// What `work` makes of each of the indices below `count`, by so many threads; none where it did not come to that. The
/// first refusal ends the work, and so does a signal, `GRACE` later at the latest; it is returned too.
pub fn each<T: Send + 'static>(
    count: usize,
    threads: usize,
    stop: &AtomicBool,
    work: impl Fn(usize) -> Result<T, Refusal> + Send + Sync + 'static,
) -> (Vec<Option<T>>, Option<Refusal>) {
    let shared = Arc::new((AtomicUsize::new(0), AtomicBool::new(false), work));
    let (sender, receiver) = channel();
    for _ in 0..threads.clamp(1, count.max(1)) {
        let (shared, sender) = (Arc::clone(&shared), sender.clone());
        // Not joined: a thread that waits for a server does not delay the end of the program.
        std::thread::spawn(move || {
            let (next, ended, work) = &*shared;
            while !ended.load(Ordering::Relaxed) {
                let at = next.fetch_add(1, Ordering::Relaxed);
                if at >= count {
                    return;
                }
                let outcome = work(at);
                if outcome.is_err() {
                    ended.store(true, Ordering::Relaxed);
                }
                if sender.send((at, outcome)).is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);
    let mut done: Vec<Option<T>> = (0..count).map(|_| None).collect();
    let (mut refusal, mut stopped) = (None, None::<Instant>);
    loop {
        if stop.load(Ordering::Relaxed) {
            shared.1.store(true, Ordering::Relaxed);
            if stopped.get_or_insert_with(Instant::now).elapsed() > GRACE {
                break;
            }
        }
        match receiver.recv_timeout(Duration::from_millis(50)) {
            Ok((at, Ok(outcome))) => done[at] = Some(outcome),
            Ok((_, Err(why))) => {
                refusal.get_or_insert(why);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let refusal = if stopped.is_some() { Some(Refusal::Stopped) } else { refusal };
    (done, refusal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_done_in_order_until_something_ends_it() {
        let stop = AtomicBool::new(false);
        assert_eq!(each(5, 3, &stop, Ok), ((0..5).map(Some).collect(), None));
        assert_eq!(each(0, 3, &stop, Ok), (vec![], None));
        let (done, ended) = each(100, 1, &stop, |at| if at < 3 { Ok(at) } else { Err(Refusal::Budget("b".into())) });
        assert_eq!((done.iter().flatten().count(), ended), (3, Some(Refusal::Budget("b".into()))));
        stop.store(true, Ordering::Relaxed);
        let started = Instant::now();
        let (done, ended) = each(1000, 2, &stop, |at| {
            std::thread::sleep(Duration::from_millis(20));
            Ok(at)
        });
        assert!(done.iter().flatten().count() < 100 && started.elapsed() < GRACE);
        assert_eq!(ended, Some(Refusal::Stopped));
    }
}
