//! Ranks that meet over TCP: no MPI, only the variables that PyTorch's launchers set.
//!
//! Rank 0 listens at MASTER_ADDR:MASTER_PORT and adds up what the others send, in the order of the ranks, so that all
//! get the same bits. It is made for small things and small models: everything goes through rank 0, and on GPUs the
//! tensors of a model go through NCCL instead (`nccl`).
//!
//! Each rank has a second connection to rank 0 that carries a single byte, at its end. Where it breaks without one, the
//! process at the other side is dead, and those that are left end too; rank 0 tells the others. The system asks whether
//! the machine at the other side is still there, so that one that lost its power or network is missed too.

use super::comm::{Comm, exchanged, put_back};
use super::launcher::Meeting;
use super::meet::connections;
use crate::torch::{bytes, bytes_mut, numbers_mut};
use anyhow::{Context, Result, anyhow};
use rustix::net::sockopt;
use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::AddAssign;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tch::kind::Element;
use tch::{Device, Kind, Tensor};

/// How long ranks wait for each other at the start.
const PATIENCE: Duration = Duration::from_secs(300);
/// When the system first asks whether the other machine is there, and then how often it asks, until it takes it for
/// gone: half a minute in all.
const ASKS_AFTER: Duration = Duration::from_secs(15);
const ASKS_EVERY: Duration = Duration::from_secs(5);
const ASKS: u32 = 3;
/// The byte of a rank that leaves in peace; others are exit codes.
const LEAVES: u8 = 0;
/// Bytes that are summed at a time.
const PART: usize = 1 << 24;

/// What to do when the process at the other side has ended: nothing said (none), or the exit code that all end with.
type Ended = Arc<dyn Fn(usize, Option<u8>) + Send + Sync>;

/// One of several processes that have met.
pub struct Tcp {
    rank: usize,
    size: usize,
    /// Rank 0 has one to each of the others, in their order; the others have one, to rank 0.
    links: RefCell<Vec<TcpStream>>,
    /// The same for what is said at the end.
    lifelines: Vec<TcpStream>,
}

impl Tcp {
    /// Meets the others. From then on this process ends when one of them dies.
    ///
    /// # Errors
    /// Bad input: they do not come, or the place to meet cannot be used.
    pub fn join(meeting: &Meeting) -> Result<Self> {
        let size = meeting.size;
        Self::meet(meeting, PATIENCE, Arc::new(move |rank, code| end(rank, size, code)))
    }

    fn meet(meeting: &Meeting, patience: Duration, ended: Ended) -> Result<Self> {
        let Meeting { rank, size, .. } = *meeting;
        let (mut links, mut lifelines) = (vec![], vec![]);
        for [link, lifeline] in connections(meeting, patience)? {
            link.set_nodelay(true)?;
            miss_machine(&lifeline)?;
            links.push(link);
            lifelines.push(lifeline);
        }
        for (at, lifeline) in lifelines.iter().enumerate() {
            let other = if rank == 0 { at + 1 } else { 0 };
            // So that all end, also those that a dead one has not spoken to.
            let told = if rank == 0 { &lifelines[..] } else { &[] };
            let told = told.iter().map(TcpStream::try_clone).collect::<std::io::Result<Vec<_>>>()?;
            let (mut lifeline, ended) = (lifeline.try_clone()?, Arc::clone(&ended));
            thread::spawn(move || {
                let code = last_word(&mut lifeline);
                if code != Some(LEAVES) {
                    told.iter().for_each(|lifeline| say(lifeline, code.unwrap_or(1)));
                    ended(other, code);
                }
            });
        }
        Ok(Self { rank, size, links: RefCell::new(links), lifelines })
    }

    fn sum_of<T: Element + Copy + AddAssign>(&self, host: &mut Tensor) -> Result<()> {
        let width = host.kind().elt_size_in_bytes();
        let head = [host.kind() as u64, host.numel() as u64].map(u64::to_le_bytes).concat();
        let mut links = self.links.borrow_mut();
        let lost = |rank: usize| move || format!("rank {rank} of {} is gone", self.size);
        if self.rank > 0 {
            let link = &mut links[0];
            link.write_all(&head).with_context(lost(0))?;
            for part in bytes_mut(host).chunks_mut(PART) {
                link.write_all(part).with_context(lost(0))?;
                link.read_exact(part).with_context(lost(0))?;
            }
            return Ok(());
        }
        for (rank, link) in (1..).zip(links.iter_mut()) {
            let mut other = vec![0; head.len()];
            link.read_exact(&mut other).with_context(lost(rank))?;
            if other != head {
                return Err(anyhow!("rank {rank} of {} does something else than rank 0", self.size));
            }
        }
        let mut theirs = Tensor::empty([(PART / width).min(host.numel()) as i64], (host.kind(), Device::Cpu));
        for part in numbers_mut::<T>(host).chunks_mut(PART / width) {
            for (rank, link) in (1..).zip(links.iter_mut()) {
                link.read_exact(&mut bytes_mut(&mut theirs)[..part.len() * width]).with_context(lost(rank))?;
                part.iter_mut().zip(&*numbers_mut::<T>(&mut theirs)).for_each(|(sum, own)| *sum += *own);
            }
            let sum = Tensor::from_slice(part);
            for (rank, link) in (1..).zip(links.iter_mut()) {
                link.write_all(bytes(&sum)).with_context(lost(rank))?;
            }
        }
        Ok(())
    }
}

impl Comm for Tcp {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn sum(&self, tensor: &mut Tensor) -> Result<()> {
        let mut host = exchanged(tensor);
        match host.kind() {
            Kind::Double => self.sum_of::<f64>(&mut host),
            Kind::Int64 => self.sum_of::<i64>(&mut host),
            _ => self.sum_of::<f32>(&mut host),
        }?;
        put_back(&host, tensor);
        Ok(())
    }

    fn abort(&self, code: u8) -> ! {
        self.lifelines.iter().for_each(|lifeline| say(lifeline, code));
        std::process::exit(code.into())
    }
}

impl Drop for Tcp {
    fn drop(&mut self) {
        let word = if thread::panicking() { 101 } else { LEAVES };
        self.lifelines.iter().for_each(|lifeline| say(lifeline, word));
    }
}

/// Lets a connection that nothing is said on break when the other machine no longer answers.
fn miss_machine(lifeline: &TcpStream) -> Result<()> {
    sockopt::set_socket_keepalive(lifeline, true)?;
    sockopt::set_tcp_keepidle(lifeline, ASKS_AFTER)?;
    sockopt::set_tcp_keepintvl(lifeline, ASKS_EVERY)?;
    Ok(sockopt::set_tcp_keepcnt(lifeline, ASKS)?)
}

/// What the other side says before it leaves; none if it does not.
fn last_word(lifeline: &mut TcpStream) -> Option<u8> {
    let mut word = [0];
    lifeline.read_exact(&mut word).ok().map(|()| word[0])
}

/// Says how this side ends. Whoever is not there any more need not hear it.
fn say(mut lifeline: &TcpStream, word: u8) {
    let _ = lifeline.write_all(&[word]);
}

/// Ends this process because of another.
fn end(rank: usize, size: usize, code: Option<u8>) {
    if code.is_none() {
        let _ = writeln!(std::io::stderr(), "error: rank {rank} of {size} has died, which ends all of them");
    }
    std::process::exit(code.unwrap_or(1).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dist::meet::free_place;
    use crate::dist::{Part, agree, lowest, offer};
    use crate::torch::to_host;
    use std::net::Shutdown;
    use std::sync::mpsc::channel;
    use std::sync::{Barrier, Mutex};

    fn quiet() -> Ended {
        Arc::new(|_, _| {})
    }

    /// What each of `size` ranks makes of `work`, in threads.
    fn together<T: Send>(size: usize, ended: &Ended, work: impl Fn(Tcp) -> T + Sync) -> Vec<T> {
        let place = &free_place();
        thread::scope(|scope| {
            let rank = |rank: usize| {
                let (ended, work) = (Arc::clone(ended), &work);
                let meeting = Meeting { rank, size, place: place.clone() };
                scope.spawn(move || work(Tcp::meet(&meeting, Duration::from_secs(20), ended).unwrap()))
            };
            // The first to come need not be rank 0.
            let mut ranks: Vec<_> = (0..size).rev().map(rank).collect();
            ranks.reverse();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        })
    }

    #[test]
    fn a_machine_that_no_longer_answers_is_missed() {
        let both = together(2, &quiet(), |tcp| {
            let lifeline = &tcp.lifelines[0];
            let asks = (sockopt::tcp_keepidle(lifeline).unwrap(), sockopt::tcp_keepintvl(lifeline).unwrap());
            (sockopt::socket_keepalive(lifeline).unwrap(), asks, sockopt::tcp_keepcnt(lifeline).unwrap())
        });
        assert!(both.iter().all(|one| *one == (true, (ASKS_AFTER, ASKS_EVERY), ASKS)), "{both:?}");
    }

    #[test]
    fn all_ranks_get_the_same_sums() {
        let long = (PART / 4 + 1000) as i64;
        let sums = together(3, &quiet(), |comm| {
            let own = comm.rank() as f64 + 1.0;
            let mut all = vec![];
            for (length, kind) in [(5, Kind::Float), (long, Kind::Float), (3, Kind::Double), (4, Kind::BFloat16)] {
                let mut tensor = (Tensor::arange(length, (Kind::Float, Device::Cpu)) * own).to_kind(kind);
                comm.sum(&mut tensor).unwrap();
                assert_eq!(tensor.kind(), kind);
                all.push(to_host(&tensor));
            }
            let mut empty = Tensor::zeros([0], (Kind::Float, Device::Cpu));
            comm.sum(&mut empty).unwrap();
            assert!(comm.any(comm.rank() == 2).unwrap() && !comm.any(false).unwrap());
            assert_eq!(lowest(&comm, comm.rank() > 0).unwrap(), Some(1));
            assert!(agree(&comm, &[7, -1]).unwrap() && !agree(&comm, &[comm.rank() as i64]).unwrap());
            let part = Part::of(comm.rank(), 3, 300);
            let whole = Tensor::arange(300, (Kind::Float, Device::Cpu));
            let mut found = vec![];
            let held = [("numbers".to_string(), part.cut(&whole), Some(part))];
            let take = |piece: &Tensor| {
                found.extend(to_host(piece));
                Ok(())
            };
            offer(&comm, &held, |offer| offer.take(take)).unwrap();
            assert_eq!(found, if comm.is_first() { to_host(&whole) } else { vec![] });
            all
        });
        assert!(sums[1] == sums[0] && sums[2] == sums[0]);
        let [short, long_sum, ..] = sums[0].as_slice() else { panic!("four sums") };
        assert_eq!(short, &[0.0, 6.0, 12.0, 18.0, 24.0]);
        assert_eq!(long_sum[long as usize - 1], 6.0 * (long - 1) as f32);
    }

    #[test]
    fn ranks_that_do_different_things_are_told_so() {
        let errors = together(2, &quiet(), |comm| {
            let mut tensor = Tensor::zeros([2 + comm.rank() as i64], (Kind::Float, Device::Cpu));
            comm.sum(&mut tensor).err().map(|error| format!("{error:#}"))
        });
        assert!(errors[0].as_ref().unwrap().contains("rank 1 of 2 does something else"), "{errors:?}");
        assert!(errors[1].as_ref().unwrap().contains("rank 0 of 2 is gone"), "{errors:?}");
    }

    /// Rank 2 dies, or ends all with a code: rank 0 hears it, and rank 1 from rank 0.
    #[test]
    fn the_end_of_one_is_heard_by_all() {
        for (last, told) in [(None, 1), (Some(75), 75)] {
            let (heard, words) = channel();
            let heard = Mutex::new(heard);
            let ended: Ended = Arc::new(move |rank, code| {
                let _ = heard.lock().unwrap().send((rank, code));
            });
            let (words, all_heard) = (Mutex::new(words), Barrier::new(3));
            together(3, &ended, |comm| {
                match (comm.rank(), last) {
                    (2, Some(code)) => comm.lifelines.iter().for_each(|lifeline| say(lifeline, code)),
                    (2, None) => comm.lifelines[0].shutdown(Shutdown::Both).unwrap(),
                    (0, _) => {
                        let mut heard = Vec::new();
                        while !(heard.contains(&(2, last)) && heard.contains(&(0, Some(told)))) {
                            heard.push(words.lock().unwrap().recv_timeout(Duration::from_secs(20)).unwrap());
                        }
                    }
                    _ => {}
                }
                all_heard.wait();
            });
        }
    }

    #[test]
    fn those_who_leave_in_peace_disturb_nobody() {
        let (heard, words) = channel();
        let heard = Mutex::new(heard);
        let ended: Ended = Arc::new(move |rank, code| {
            let _ = heard.lock().unwrap().send((rank, code));
        });
        together(3, &ended, |comm| comm.wait().unwrap());
        drop(ended);
        // The last of those who listen have gone, or say nothing for a while.
        assert!(words.recv_timeout(Duration::from_millis(500)).is_err());
    }
}
