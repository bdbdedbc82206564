//! All problems, both ways, by several threads: from the cache, else from the teacher, into the cache. What the teacher
//! may cost is between it and its budget, whose end it reports.
//!
//! Problems are taken in their order, and a problem that was taken is finished. So the first pairs that both arms solve
//! are the same ones however the threads are scheduled, and with enough of them no further problem is taken.

use super::interface::{Arm, Refusal, Reply, Request, Teacher};
use super::judge::{Flaw, Trace, judge};
use super::problems::Problem;
use super::prompts::Prompts;
use crate::endpoint::{Budget, Cache, GRACE};
use crate::terminal::Progress;
use anyhow::Result;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// What is to be done, and by whom.
pub struct Job {
    pub problems: Vec<Arc<Problem>>,
    pub teacher: Box<dyn Teacher>,
    pub cache: Cache,
    /// The teacher's, to show what is spent.
    pub budget: Arc<Budget>,
    pub prompts: Prompts,
    /// Numbers of personas, which the problems take in turns.
    pub personas: Vec<usize>,
    /// How often an arm may try a problem.
    pub attempts: u64,
    /// Pairs after which no further problem is taken.
    pub wanted: usize,
    pub threads: usize,
    /// Set by a signal.
    pub stop: Arc<AtomicBool>,
}

/// What both arms made of a problem.
#[derive(Clone, Debug, PartialEq)]
pub struct Solved {
    /// Of the problem in the job.
    pub index: usize,
    pub personas: usize,
    pub dialogue: Result<Trace, Flaw>,
    pub monologue: Result<Trace, Flaw>,
}

impl Solved {
    /// The two traces, if both arms were right.
    pub fn pair(&self) -> Option<(&Trace, &Trace)> {
        Some((self.dialogue.as_ref().ok()?, self.monologue.as_ref().ok()?))
    }
}

/// What came of a job.
pub struct Outcome {
    /// By index.
    pub solved: Vec<Solved>,
    /// Replies that the cache had.
    pub cached: u64,
    /// What ended it early.
    pub ended: Option<Refusal>,
}

/// What the threads share.
struct Shared {
    job: Job,
    next: AtomicUsize,
    /// No further problem is to be taken.
    enough: AtomicBool,
    cached: AtomicU64,
    pairs: AtomicUsize,
}

/// Does a job. A signal ends it with `Refusal::Stopped`, at the latest after a few seconds.
pub fn run(job: Job) -> Outcome {
    let (threads, total) = (job.threads.max(1), job.problems.len());
    let shared = Shared {
        job,
        next: AtomicUsize::new(0),
        enough: AtomicBool::new(false),
        cached: AtomicU64::new(0),
        pairs: AtomicUsize::new(0),
    };
    let shared = Arc::new(shared);
    let (sender, receiver) = channel();
    for _ in 0..threads {
        let (shared, sender) = (Arc::clone(&shared), sender.clone());
        // Not joined: a thread that waits for a server does not delay the end of the program.
        std::thread::spawn(move || shared.work(&sender));
    }
    drop(sender);
    let (mut solved, ended) = collect(&shared, &receiver, Progress::new(total as u64, "problem"));
    solved.sort_unstable_by_key(|solved| solved.index);
    Outcome { solved, cached: shared.cached.load(Ordering::Relaxed), ended }
}

/// Gathers what the threads send, until they are done or a signal has come and some time has passed.
fn collect(
    shared: &Shared,
    receiver: &Receiver<Result<Solved, Refusal>>,
    mut progress: Progress,
) -> (Vec<Solved>, Option<Refusal>) {
    let (mut solved, mut ended) = (vec![], None);
    let mut stopped: Option<Instant> = None;
    loop {
        if shared.job.stop.load(Ordering::Relaxed) {
            shared.enough.store(true, Ordering::Relaxed);
            if stopped.get_or_insert_with(Instant::now).elapsed() > GRACE {
                break;
            }
        }
        match receiver.recv_timeout(Duration::from_millis(50)) {
            Ok(Ok(one)) => {
                let spent = shared.job.budget.spent();
                let figures = [
                    ("pairs", shared.pairs.load(Ordering::Relaxed) as u64),
                    ("requests", spent.requests),
                    ("tokens", spent.tokens()),
                ];
                progress.count(figures.map(|(name, value)| format!("{name} {value}")).to_vec());
                solved.push(one);
            }
            Ok(Err(refusal)) => {
                ended.get_or_insert(refusal);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let ended = if stopped.is_some() { Some(Refusal::Stopped) } else { ended };
    (solved, ended)
}

impl Shared {
    /// Takes problems until there are none, or enough are solved, or one cannot be asked about.
    fn work(&self, sender: &Sender<Result<Solved, Refusal>>) {
        let together = self.job.teacher.batch().max(1);
        while !self.enough.load(Ordering::Relaxed) {
            let first = self.next.fetch_add(together, Ordering::Relaxed);
            let end = (first + together).min(self.job.problems.len());
            if first >= end {
                return;
            }
            let sent = match self.solve(&(first..end).collect::<Vec<_>>()) {
                Ok(all) => {
                    let new = all.iter().filter(|solved| solved.pair().is_some()).count();
                    if self.pairs.fetch_add(new, Ordering::Relaxed) + new >= self.job.wanted {
                        self.enough.store(true, Ordering::Relaxed);
                    }
                    all.into_iter().try_for_each(|solved| sender.send(Ok(solved)))
                }
                Err(refusal) => {
                    self.enough.store(true, Ordering::Relaxed);
                    sender.send(Err(refusal))
                }
            };
            if sent.is_err() {
                return;
            }
        }
    }

    /// Solves the problems of these indices both ways.
    fn solve(&self, indices: &[usize]) -> Result<Vec<Solved>, Refusal> {
        let personas = |index: usize| self.job.personas[index % self.job.personas.len()];
        let dialogues: Vec<_> = indices.iter().map(|&i| (i, Arm::Dialogue { personas: personas(i) })).collect();
        let monologues: Vec<_> = indices.iter().map(|&i| (i, Arm::Monologue)).collect();
        let both = self.arm(&dialogues)?.into_iter().zip(self.arm(&monologues)?);
        let solved = indices.iter().zip(both).map(|(&index, (dialogue, monologue))| Solved {
            index,
            personas: personas(index),
            dialogue,
            monologue,
        });
        Ok(solved.collect())
    }

    /// One arm: each problem until it is solved or was tried often enough.
    fn arm(&self, asked: &[(usize, Arm)]) -> Result<Vec<Result<Trace, Flaw>>, Refusal> {
        let mut results: Vec<Result<Trace, Flaw>> = vec![Err(Flaw::Cut); asked.len()];
        for attempt in 0..self.job.attempts.max(1) {
            let open: Vec<usize> = (0..asked.len()).filter(|&at| results[at].is_err()).collect();
            let requests = open.iter().map(|&at| self.request(asked[at], attempt)).collect::<Result<Vec<_>, _>>()?;
            for ((&at, reply), request) in open.iter().zip(self.ask(&requests)?).zip(&requests) {
                results[at] = match reply {
                    Ok(reply) => judge(&request.problem, request.arm, &reply),
                    Err(why) => Err(Flaw::Refused(why)),
                };
            }
        }
        Ok(results)
    }

    fn request(&self, (index, arm): (usize, Arm), attempt: u64) -> Result<Request, Refusal> {
        let problem = Arc::clone(&self.job.problems[index]);
        let prompt = self.job.prompts.render(&problem, arm);
        let prompt = prompt.map_err(|error| Refusal::Unusable(error.to_string()))?;
        Ok(Request { problem, arm, attempt, prompt })
    }

    /// The replies to these requests, in order, or why there is none.
    fn ask(&self, requests: &[Request]) -> Result<Vec<Result<Reply, String>>, Refusal> {
        let Job { teacher, cache, stop, .. } = &self.job;
        let identity = teacher.identity();
        let kept = |request: &Request| cache.get(&request.identity(&identity)).map(Ok);
        let mut replies: Vec<Option<Result<Reply, String>>> = requests.iter().map(kept).collect();
        let missing: Vec<usize> = (0..requests.len()).filter(|&at| replies[at].is_none()).collect();
        self.cached.fetch_add((requests.len() - missing.len()) as u64, Ordering::Relaxed);
        if !missing.is_empty() && stop.load(Ordering::Relaxed) {
            return Err(Refusal::Stopped);
        }
        let asked: Vec<Request> = missing.iter().map(|&at| requests[at].clone()).collect();
        // All replies are kept before anything ends the job.
        let mut ended = None;
        for (&at, reply) in missing.iter().zip(teacher.ask(&asked)) {
            replies[at] = Some(match reply {
                Ok(reply) => {
                    let kept = cache.put(&requests[at].identity(&identity), &reply);
                    kept.map_err(|error| Refusal::Gone(format!("{error:#}")))?;
                    Ok(reply)
                }
                Err(Refusal::Request(why)) => Err(why),
                Err(refusal) => {
                    ended.get_or_insert(refusal);
                    continue;
                }
            });
        }
        match ended {
            Some(refusal) => Err(refusal),
            None => Ok(replies.into_iter().map(|reply| reply.unwrap_or_else(|| Err("no reply".into()))).collect()),
        }
    }
}
