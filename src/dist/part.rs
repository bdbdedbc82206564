//! A flat tensor, divided among the ranks: each owns one part, next to each other.

use tch::Tensor;

/// Parts begin at multiples of this: a kernel may round elements that do not fill a vector register differently.
const ALIGN: i64 = 64;

/// One rank's part of a tensor [total].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub first: i64,
    pub len: i64,
    pub total: i64,
}

impl Part {
    /// That of a rank of so many. The last ranks may own less, or nothing.
    pub fn of(rank: usize, size: usize, total: i64) -> Self {
        let span = (total as usize).div_ceil(size).next_multiple_of(ALIGN as usize) as i64;
        let first = (rank as i64 * span).min(total);
        Self { first, len: span.min(total - first), total }
    }

    /// The part of a tensor, sharing its memory.
    pub fn cut(self, tensor: &Tensor) -> Tensor {
        tensor.narrow(0, self.first, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_all_of_it_once() {
        for (size, total) in [(1, 7), (2, 64), (2, 65), (3, 1000), (5, 130), (7, 64 * 7), (4, 0)] {
            let parts: Vec<Part> = (0..size).map(|rank| Part::of(rank, size, total)).collect();
            let mut end = 0;
            for part in &parts {
                assert_eq!(part.first, end, "{parts:?}");
                end += part.len;
                assert!(part.first % ALIGN == 0 || part.len == 0, "{parts:?}");
            }
            assert_eq!(end, total);
        }
    }
}
