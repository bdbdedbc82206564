//! Crates that panic where they should return an error, on data that is damaged: their panics become errors, and
//! nothing is printed about them.
//!
//! Decided: only around calls of such a crate, with none of our code in between, whose panics are mistakes to report.

use anyhow::{Result, anyhow};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    /// Whether a panic of this thread would become an error.
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread is caught by `damaged`: what reports panics has nothing to say then.
pub fn are_expected() -> bool {
    EXPECTED.get()
}

/// Calls `work` of somebody else's; what it was given is damaged if it panics. What it works on is not to be used
/// afterwards.
///
/// # Errors
/// It has panicked; with its message.
pub fn damaged<T>(work: impl FnOnce() -> T) -> Result<T> {
    let before = EXPECTED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    EXPECTED.set(before);
    done.map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let said = text.or(payload.downcast_ref::<&str>().copied()).unwrap_or("no message");
        anyhow!("it is damaged ({})", said.lines().next().unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_message() {
        assert_eq!(damaged(|| 3).unwrap(), 3);
        let (expected, error) = (Cell::new(false), |work: &dyn Fn()| damaged(work).unwrap_err().to_string());
        let plain = || {
            expected.set(are_expected());
            panic!("no room")
        };
        assert_eq!(error(&plain), "it is damaged (no room)");
        assert!(expected.get() && !are_expected());
        assert_eq!(error(&|| panic!("{} of\n{}", 1, 2)), "it is damaged (1 of)");
        assert!(damaged(|| damaged(|| panic!("a")).is_err() && are_expected()).unwrap());
    }
}
