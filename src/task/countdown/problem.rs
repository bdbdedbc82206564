//! A problem of the game, and how large one may be.

/// Most numbers of a problem.
pub const MAX_NUMBERS: usize = 8;
/// Largest number and largest target.
pub const MAX_NUMBER: i64 = 1_000_000;

/// Numbers in the order they are shown, and what to make of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Problem {
    pub nums: Vec<i64>,
    pub target: i64,
}

impl Problem {
    /// The same for all orders of the same numbers.
    pub fn canonical(&self) -> Self {
        let mut nums = self.nums.clone();
        nums.sort_unstable();
        Self { nums, target: self.target }
    }
}
