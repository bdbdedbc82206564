//! What a run may cost: requests that are sent, retries included, and tokens that the server counts.

use super::refusal::Refusal;
use std::sync::atomic::{AtomicU64, Ordering};

/// Limits and what is spent of them; shared by all threads.
#[derive(Default)]
pub struct Budget {
    /// Most requests (none: no limit).
    pub max_requests: Option<u64>,
    /// Most tokens, prompts and completions together (none: no limit). Requests under way when it is reached are
    /// finished, so it may be exceeded by what they take.
    pub max_tokens: Option<u64>,
    requests: AtomicU64,
    prompt_tokens: AtomicU64,
    completion_tokens: AtomicU64,
}

/// What was spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    pub requests: u64,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
}

impl Budget {
    pub fn new(max_requests: Option<u64>, max_tokens: Option<u64>) -> Self {
        Self { max_requests, max_tokens, ..Self::default() }
    }

    /// Counts one more request.
    ///
    /// # Errors
    /// `Refusal::Budget` if there is none left.
    pub fn take(&self) -> Result<(), Refusal> {
        let spent = self.spent();
        let tokens = spent.prompt_tokens + spent.completion_tokens;
        if let Some(most) = self.max_tokens.filter(|most| tokens >= *most) {
            return Err(Refusal::Budget(format!("the budget of {most} tokens is spent ({tokens})")));
        }
        let most = self.max_requests.unwrap_or(u64::MAX);
        let more = |sent: u64| (sent < most).then(|| sent + 1);
        match self.requests.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(()),
            Err(_) => Err(Refusal::Budget(format!("the budget of {most} requests is spent"))),
        }
    }

    /// Counts the tokens of a request and its reply.
    pub fn pay(&self, prompt_tokens: u64, completion_tokens: u64) {
        self.prompt_tokens.fetch_add(prompt_tokens, Ordering::Relaxed);
        self.completion_tokens.fetch_add(completion_tokens, Ordering::Relaxed);
    }

    pub fn spent(&self) -> Spent {
        Spent {
            requests: self.requests.load(Ordering::Relaxed),
            prompt_tokens: self.prompt_tokens.load(Ordering::Relaxed),
            completion_tokens: self.completion_tokens.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_ends_with_its_requests_or_its_tokens() {
        let budget = Budget::new(Some(2), Some(10));
        assert_eq!((budget.take(), budget.take()), (Ok(()), Ok(())));
        let message = budget.take().unwrap_err().to_string();
        assert_eq!(message, "the budget of 2 requests is spent");
        budget.pay(4, 7);
        assert_eq!(budget.take().unwrap_err().to_string(), "the budget of 10 tokens is spent (11)");
        assert_eq!(budget.spent(), Spent { requests: 2, prompt_tokens: 4, completion_tokens: 7 });
        let unlimited = Budget::default();
        assert!((0..100).all(|_| unlimited.take().is_ok()));
    }
}
