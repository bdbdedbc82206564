//! What asking may cost: requests that are sent, retries included, and tokens of what was sent and came back.
//!
//! Decided: a budget is that of a folder of answers, not of a process, so that a command which a person or a queue
//! starts again spends what is left of it and no more. `spent.jsonl` in that folder has a line for each request,
//! written before it is sent, and one for each reply that came, of use or not. Processes that work at the same time
//! know what was spent when they began, and what they spend themselves.

use super::refusal::Refusal;
use crate::files::append_line;
use crate::terminal::{self, counted};
use crate::{WHOLE, bad, read_text};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The file of what was spent, in the folder of answers.
const FILE: &str = "spent.jsonl";

/// Limits of what is spent (none: no limit).
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Most requests.
    pub requests: Option<u64>,
    /// Tokens, prompts and replies together, after which no request is sent. Requests under way are finished, so it may
    /// be exceeded by what they take.
    pub tokens: Option<u64>,
    /// What the user sets the two with.
    pub names: [&'static str; 2],
}

/// What was spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Spent {
    pub requests: u64,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    /// Whether some of the tokens are an estimate.
    pub estimated: bool,
}

impl Spent {
    /// Those of prompts and replies.
    pub fn tokens(&self) -> u64 {
        self.prompt_tokens.saturating_add(self.completion_tokens)
    }

    /// What stands before a number of tokens: "about " if it is an estimate.
    pub fn about(&self) -> &'static str {
        if self.estimated { "about " } else { "" }
    }

    fn add(&mut self, more: Spent) {
        self.requests = self.requests.saturating_add(more.requests);
        self.prompt_tokens = self.prompt_tokens.saturating_add(more.prompt_tokens);
        self.completion_tokens = self.completion_tokens.saturating_add(more.completion_tokens);
        self.estimated |= more.estimated;
    }
}

/// What the lines of a file say was spent, and the numbers of the lines that say nothing.
pub fn spent_in(text: &str) -> (Spent, Vec<usize>) {
    let (mut all, mut unread) = (Spent::default(), vec![]);
    for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()) {
        match serde_json::from_str(line) {
            Ok(more) => all.add(more),
            Err(_) => unread.push(number),
        }
    }
    (all, unread)
}

/// Limits and what is spent of them; shared by all threads.
pub struct Budget {
    account: Arc<Account>,
    /// What was spent through this one.
    own: Mutex<Spent>,
}

/// What several budgets are spent from.
struct Account {
    limits: Limits,
    file: PathBuf,
    /// By earlier processes too.
    spent: Mutex<Spent>,
}

impl Budget {
    /// The budget of the answers in `folder`, which need not be there before something is spent. What was spent on them
    /// by earlier processes is gone.
    ///
    /// # Errors
    /// Bad input: what was spent cannot be read.
    pub fn of(folder: &Path, limits: Limits) -> Result<Self> {
        let file = folder.join(FILE);
        let read = || read_text(&file, WHOLE).map_err(|error| bad!("{} cannot be read: {error}", file.display()));
        let text = if file.exists() { read()? } else { String::new() };
        let (spent, unread) = spent_in(&text);
        if let Some(first) = unread.first() {
            let (file, lines) = (file.display(), counted(unread.len(), "line"));
            terminal::warn(&format!("warning: {file}: {lines} cannot be read and not counted, the first is {first}"));
        }
        let account = Account { limits, file, spent: Mutex::new(spent) };
        Ok(Self { account: Arc::new(account), own: Mutex::default() })
    }

    /// Another one with the same limits and the same money, for somebody whose own expenses are of interest.
    pub fn beside(&self) -> Self {
        Self { account: Arc::clone(&self.account), own: Mutex::default() }
    }

    /// Counts one more request.
    ///
    /// # Errors
    /// `Refusal::Budget` if there is nothing left, `Refusal::Gone` if it cannot be written down.
    pub fn take(&self) -> Result<(), Refusal> {
        let request = Spent { requests: 1, ..Spent::default() };
        {
            let mut spent = lock(&self.account.spent);
            self.account.limits.allow(&spent)?;
            spent.add(request);
        }
        lock(&self.own).add(request);
        self.write(request)
    }

    /// Counts the tokens of a request and its reply. The first estimate is reported.
    ///
    /// # Errors
    /// `Refusal::Gone`: they cannot be written down.
    pub fn pay(&self, tokens: Spent) -> Result<(), Refusal> {
        lock(&self.account.spent).add(tokens);
        let is_first = {
            let mut own = lock(&self.own);
            let before = own.estimated;
            own.add(tokens);
            own.estimated && !before
        };
        if is_first {
            terminal::warn(
                "warning: the server does not say, or not rightly, how many tokens it took: they are estimated, one \
                 for every four bytes sent and received",
            );
        }
        self.write(tokens)
    }

    /// What was spent through this budget.
    pub fn spent(&self) -> Spent {
        *lock(&self.own)
    }

    /// What was spent on the answers of the folder in all.
    pub fn in_all(&self) -> Spent {
        *lock(&self.account.spent)
    }

    fn write(&self, spent: Spent) -> Result<(), Refusal> {
        let written = append_line(&self.account.file, &json!(spent).to_string());
        written.map_err(|error| Refusal::Gone(format!("{error:#}")))
    }
}

fn lock(spent: &Mutex<Spent>) -> MutexGuard<'_, Spent> {
    spent.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Limits {
    /// Whether one more request may be sent after so much was spent.
    fn allow(&self, spent: &Spent) -> Result<(), Refusal> {
        let [requests, tokens] = self.names;
        for (what, taken, most, name) in
            [("request", spent.requests, self.requests, requests), ("token", spent.tokens(), self.tokens, tokens)]
        {
            if let Some(most) = most.filter(|most| taken >= *most) {
                let [most, sent, took] = [(most, what), (spent.requests, "request"), (spent.tokens(), "token")]
                    .map(|(number, thing)| counted(number as usize, thing));
                let about = spent.about();
                return Err(Refusal::Budget(format!(
                    "the budget of {most} is spent: {sent} and {about}{took} so far, earlier runs with the same \
                     answers included; to go on, set {name} to more than {taken}"
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 2] = ["--requests", "--tokens"];

    fn budget(folder: &Path, requests: Option<u64>, tokens: Option<u64>) -> Budget {
        Budget::of(folder, Limits { requests, tokens, names: NAMES }).unwrap()
    }

    fn tokens(prompt_tokens: u64, completion_tokens: u64) -> Spent {
        Spent { prompt_tokens, completion_tokens, ..Spent::default() }
    }

    #[test]
    fn a_budget_ends_with_its_requests_or_its_tokens_whoever_spent_them() {
        let dir = tempfile::tempdir().unwrap();
        let first = budget(dir.path(), Some(2), Some(10));
        let second = first.beside();
        assert_eq!((first.take(), first.pay(tokens(4, 3)), second.take()), (Ok(()), Ok(()), Ok(())));
        let said = |budget: &Budget| budget.take().unwrap_err().to_string();
        let expected = "the budget of 2 requests is spent: 2 requests and 7 tokens so far, earlier runs with the same \
                        answers included; to go on, set --requests to more than 2";
        assert_eq!((said(&first).as_str(), said(&second).as_str()), (expected, expected));
        // So does the next process, which has a larger one of requests.
        let next = budget(dir.path(), Some(9), Some(8));
        assert_eq!((next.take(), next.pay(tokens(0, 2))), (Ok(()), Ok(())));
        assert!(said(&next).starts_with("the budget of 8 tokens is spent: 3 requests and 9 tokens so far"));
        assert!(said(&next).ends_with("set --tokens to more than 9"));
        assert_eq!(next.spent(), Spent { requests: 1, ..tokens(0, 2) });
        assert_eq!(next.in_all(), Spent { requests: 3, ..tokens(4, 5) });
        let unlimited = budget(dir.path(), None, None);
        assert!((0..9).all(|_| unlimited.take().is_ok()) && unlimited.in_all().requests == 12);
    }

    #[test]
    fn estimates_stay_estimates() {
        let dir = tempfile::tempdir().unwrap();
        let one = budget(dir.path(), None, None);
        one.pay(Spent { estimated: true, ..tokens(5, 6) }).unwrap();
        let next = budget(dir.path(), None, Some(11));
        assert!((next.in_all().estimated, next.spent().estimated) == (true, false));
        let said = next.take().unwrap_err().to_string();
        assert!(said.starts_with("the budget of 11 tokens is spent: 0 requests and about 11 tokens so far"), "{said}");
    }

    #[test]
    fn what_a_crash_or_a_server_leaves_in_the_file_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let most = Spent { requests: 1, ..tokens(u64::MAX, u64::MAX) };
        let line = json!(most);
        let text = format!("{line}\n\n{{\"requests\": 1, \"prom\n{{}}\n{line}\n");
        std::fs::write(dir.path().join(FILE), &text).unwrap();
        let expected = Spent { requests: 2, ..most };
        assert_eq!(spent_in(&text), (expected, vec![3, 4]));
        let budget = budget(dir.path(), Some(3), None);
        assert_eq!((budget.in_all(), budget.in_all().tokens()), (expected, u64::MAX));
        assert_eq!(budget.take(), Ok(()));
        // A budget that cannot be written down is not spent.
        std::fs::remove_file(dir.path().join(FILE)).unwrap();
        std::fs::create_dir(dir.path().join(FILE)).unwrap();
        assert!(matches!(budget.beside().pay(tokens(1, 1)), Err(Refusal::Gone(why)) if why.contains(FILE)));
    }
}
