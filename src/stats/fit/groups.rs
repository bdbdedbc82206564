//! A partition of rows into groups: the levels of a fixed effect, or clusters.

use std::collections::HashMap;
use std::hash::Hash;

/// The group of each row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups {
    /// By row, from 0 to `count`, [n].
    pub codes: Vec<usize>,
    pub count: usize,
}

impl Groups {
    /// Rows with equal keys are in one group; groups are numbered in the order in which they appear.
    pub fn of<K: Hash + Eq>(keys: impl IntoIterator<Item = K>) -> Self {
        let mut known = HashMap::new();
        let code = |key| {
            let next = known.len();
            *known.entry(key).or_insert(next)
        };
        let codes = keys.into_iter().map(code).collect();
        Self { codes, count: known.len() }
    }

    /// The groups of rows that are together in both.
    pub fn crossed(&self, other: &Self) -> Self {
        Self::of(self.codes.iter().zip(&other.codes))
    }

    /// The groups of some of the rows, without those that became empty.
    pub fn of_rows(&self, rows: &[usize]) -> Self {
        Self::of(rows.iter().map(|row| self.codes[*row]))
    }

    /// Whether each of these groups is inside one of the other's.
    pub fn nested_in(&self, other: &Self) -> bool {
        self.crossed(other).count == self.count
    }

    /// How many rows each group has.
    pub fn sizes(&self) -> Vec<usize> {
        let mut sizes = vec![0; self.count];
        self.codes.iter().for_each(|code| sizes[*code] += 1);
        sizes
    }

    /// How many sets of groups, of these and of the other's, have no row in common: the connected components of the
    /// graph whose nodes are groups and whose edges are rows.
    pub fn components(&self, other: &Self) -> usize {
        fn root(parents: &mut [usize], mut node: usize) -> usize {
            while parents[node] != node {
                parents[node] = parents[parents[node]];
                node = parents[node];
            }
            node
        }
        let mut parents: Vec<usize> = (0..self.count + other.count).collect();
        let mut left = parents.len();
        for (own, theirs) in self.codes.iter().zip(&other.codes) {
            let (own, theirs) = (root(&mut parents, *own), root(&mut parents, self.count + theirs));
            if own != theirs {
                parents[own] = theirs;
                left -= 1;
            }
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_crossed_nested_and_connected() {
        let task = Groups::of(["a", "a", "b", "b", "c"]);
        let arm = Groups::of([1, 2, 1, 2, 3]);
        assert_eq!((task.codes.clone(), task.count, task.sizes()), (vec![0, 0, 1, 1, 2], 3, vec![2, 2, 1]));
        assert_eq!((task.crossed(&arm).count, task.components(&arm)), (5, 2));
        let family = Groups::of([0, 0, 1, 1, 1]);
        assert!(task.nested_in(&family) && !family.nested_in(&task) && task.nested_in(&task));
        assert_eq!(task.of_rows(&[4, 2, 3]), Groups { codes: vec![0, 1, 1], count: 2 });
        assert_eq!(Groups::of(Vec::<u8>::new()).components(&Groups::of(Vec::<u8>::new())), 0);
    }
}
