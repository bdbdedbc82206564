//! How processes that know nothing but a place find each other: rank 0 listens there, the others call, twice each.

use super::launcher::Meeting;
use crate::bad;
use anyhow::{Context, Result};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

/// Time between two looks for each other.
const PAUSE: Duration = Duration::from_millis(50);
/// How long somebody who has connected may take to say who they are.
const HELLO: Duration = Duration::from_secs(10);
/// What a connection begins with, before the rank, the number of ranks, and whether it is the second one.
const MAGIC: [u8; 8] = *b"ppotrain";

/// Two connections to each of the others for rank 0, in their order, and two to rank 0 for the others.
///
/// # Errors
/// Bad input: they do not come in time, or the place cannot be used.
pub fn connections(meeting: &Meeting, patience: Duration) -> Result<Vec<[TcpStream; 2]>> {
    let until = Instant::now() + patience;
    match meeting.rank {
        0 => welcome(meeting, until),
        _ => Ok(vec![[call(meeting, until, false)?, call(meeting, until, true)?]]),
    }
}

/// Rank 0's connections to all others, in their order.
fn welcome(meeting: &Meeting, until: Instant) -> Result<Vec<[TcpStream; 2]>> {
    let place = &meeting.place;
    let listener = listen(meeting).map_err(|error| {
        bad!(
            "rank 0 cannot listen at {place} (MASTER_ADDR and MASTER_PORT): {error}\nexpected a free port; torchrun \
             keeps its own, so start the processes with mpirun or srun, or give them these variables yourself"
        )
    })?;
    listener.set_nonblocking(true)?;
    let mut found: Vec<[Option<TcpStream>; 2]> = (1..meeting.size).map(|_| [None, None]).collect();
    while found.iter().flatten().any(Option::is_none) {
        match listener.accept() {
            Ok((stream, _)) => {
                // Whoever else has found the port is sent away.
                if let Some((rank, second)) = greeted(&stream, meeting.size) {
                    found[rank - 1][usize::from(second)] = Some(stream);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if Instant::now() > until {
                    let missing = (1..).zip(&found).filter(|(_, pair)| pair.iter().any(Option::is_none));
                    let missing: Vec<String> = missing.map(|(rank, _)| rank.to_string()).collect();
                    let size = meeting.size;
                    return Err(bad!(
                        "of {size} processes these ranks have not come to {place}: {}",
                        missing.join(", ")
                    ));
                }
                thread::sleep(PAUSE);
            }
            Err(error) => return Err(error).with_context(|| format!("cannot listen at {place}")),
        }
    }
    Ok(found.into_iter().filter_map(|[link, lifeline]| Some([link?, lifeline?])).collect())
}

/// On all interfaces, since a machine may know its own name by another address than the others do; but where the place
/// is this machine alone, nobody else may come.
fn listen(meeting: &Meeting) -> std::io::Result<TcpListener> {
    let all: Vec<_> = meeting.place.to_socket_addrs()?.collect();
    match all.iter().find(|address| address.ip().is_loopback()) {
        Some(own) if meeting.is_local() => TcpListener::bind(own),
        _ => {
            let port = all.first().map_or(0, |address| address.port());
            TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)))
        }
    }
}

/// Whose connection it is, and whether it is that rank's second one.
fn greeted(mut stream: &TcpStream, size: usize) -> Option<(usize, bool)> {
    let mut hello = [0; MAGIC.len() + 9];
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(HELLO)).ok()?;
    stream.read_exact(&mut hello).ok()?;
    stream.set_read_timeout(None).ok()?;
    let number = |at: usize| u32::from_le_bytes(hello[at..at + 4].try_into().unwrap_or_default()) as usize;
    let (rank, theirs) = (number(MAGIC.len()), number(MAGIC.len() + 4));
    (hello.starts_with(&MAGIC) && theirs == size && (1..size).contains(&rank))
        .then(|| (rank, hello[MAGIC.len() + 8] == 1))
}

/// A connection to rank 0.
fn call(meeting: &Meeting, until: Instant, second: bool) -> Result<TcpStream> {
    let Meeting { rank, size, place } = meeting;
    let mut stream = loop {
        match TcpStream::connect(place) {
            // Where nobody listens yet, a port of this machine may answer itself.
            Ok(stream) if stream.local_addr()? != stream.peer_addr()? => break stream,
            Err(error) if Instant::now() > until => {
                return Err(bad!(
                    "rank {rank} of {size} finds no rank 0 at {place} (MASTER_ADDR, MASTER_PORT): {error}"
                ));
            }
            _ => thread::sleep(PAUSE),
        }
    };
    let numbers = [*rank, *size].map(|number| (number as u32).to_le_bytes()).concat();
    let hello = [&MAGIC[..], &numbers, &[second.into()]].concat();
    stream.write_all(&hello).with_context(|| format!("rank 0 at {place} does not answer"))?;
    Ok(stream)
}

/// A place of this machine where nobody listens.
#[cfg(test)]
pub fn free_place() -> String {
    let address = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    address.expect("this machine has no free port").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_come_is_named() {
        let meet = |rank, place: String| {
            let meeting = Meeting { rank, size: 3, place };
            connections(&meeting, Duration::from_millis(200)).err().unwrap().to_string()
        };
        assert!(meet(0, free_place()).contains("these ranks have not come to 127.0.0.1:"));
        assert!(meet(0, free_place()).ends_with("1, 2"));
        assert!(meet(2, free_place()).contains("rank 2 of 3 finds no rank 0 at 127.0.0.1:"));
        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let message = meet(0, taken.local_addr().unwrap().to_string());
        assert!(message.contains("rank 0 cannot listen at 127.0.0.1:") && message.contains("torchrun"), "{message}");
    }

    #[test]
    fn strangers_are_sent_away() {
        let place = free_place();
        let until = Instant::now() + Duration::from_secs(20);
        let meeting = |rank| Meeting { rank, size: 2, place: place.clone() };
        thread::scope(|scope| {
            let first = scope.spawn(|| welcome(&meeting(0), until).unwrap().len());
            let mut stranger = loop {
                match TcpStream::connect(&place) {
                    Ok(stream) => break stream,
                    Err(_) => thread::sleep(PAUSE),
                }
            };
            stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            let _both = [false, true].map(|second| call(&meeting(1), until, second).unwrap());
            assert_eq!(first.join().unwrap(), 1);
        });
    }
}
