//! Bootstrap over seeds and problems, which are crossed: every seed's run answered the same problems. A resample draws
//! seeds with replacement and, independently, problems with replacement, each as many as there are, and every drawn
//! seed answers every drawn problem (the pigeonhole bootstrap of Owen, Annals of Applied Statistics 1, 2007). With one
//! seed only problems vary; where only the mean of a run is known, only seeds.

use super::statistics::{mean, percentile_interval};
use crate::rng::{Purpose, stream};
use rand::RngExt;

/// What a problem adds to a run's figure: a numerator and a denominator (1 in a plain mean), or nothing if the problem
/// is missing.
pub type Part = Option<(f64, f64)>;

/// Values by seed and problem, [S, P]; a run of which only the mean is known is a row of one value.
///
/// The value of a seed is the mean of its row. Figures that are quotients of two sums (a rate per word, a mean over the
/// problems that are not missing) add a quotient each, which is taken anew for the problems of every resample.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    rows: Vec<Vec<f64>>,
    quotients: Vec<Quotient>,
}

/// A quotient by seed, times a weight.
#[derive(Clone, Debug, PartialEq)]
struct Quotient {
    weight: f64,
    /// Numerators and denominators, [S, P].
    parts: Vec<Vec<(f64, f64)>>,
}

impl Quotient {
    /// The value of a seed over problems that count so often; not finite if nothing is below the line.
    fn value(&self, seed: usize, problems: &[f64]) -> f64 {
        let (mut above, mut below) = (0.0, 0.0);
        for ((numerator, denominator), times) in self.parts[seed].iter().zip(problems) {
            above += times * numerator;
            below += times * denominator;
        }
        self.weight * above / below
    }
}

impl Grid {
    /// `None` without a row, or if rows differ in length or are empty.
    pub fn new(rows: Vec<Vec<f64>>) -> Option<Self> {
        let problems = rows.first()?.len();
        let whole = problems > 0 && rows.iter().all(|row| row.len() == problems);
        whole.then_some(Self { rows, quotients: vec![] })
    }

    /// The grid of figures that are quotients of two sums over problems. `None` as for `new`, or if a seed has nothing
    /// below the line.
    pub fn of_parts(rows: Vec<Vec<Part>>) -> Option<Self> {
        if rows.iter().flatten().all(|part| matches!(part, Some((_, 1.0)))) {
            return Self::new(rows.iter().map(|row| row.iter().flatten().map(|(value, _)| *value).collect()).collect());
        }
        let nothing = Self::new(rows.iter().map(|row| vec![0.0; row.len()]).collect())?;
        let missing = (0.0, 0.0);
        let parts = rows.iter().map(|row| row.iter().map(|part| part.unwrap_or(missing)).collect()).collect();
        let grid = Self { quotients: vec![Quotient { weight: 1.0, parts }], ..nothing };
        grid.means().iter().all(|mean| mean.is_finite()).then_some(grid)
    }

    pub fn seeds(&self) -> usize {
        self.rows.len()
    }

    pub fn problems(&self) -> usize {
        self.rows[0].len()
    }

    /// The value of each seed, [S].
    pub fn means(&self) -> Vec<f64> {
        let once = vec![1.0; self.problems()];
        let quotients = |seed| self.quotients.iter().map(|quotient| quotient.value(seed, &once)).sum::<f64>();
        self.rows.iter().enumerate().map(|(seed, row)| mean(row) + quotients(seed)).collect()
    }

    pub fn mean(&self) -> f64 {
        mean(&self.means())
    }

    /// Only the value of each seed, [S, 1].
    pub fn by_seed(&self) -> Self {
        Self { rows: self.means().into_iter().map(|mean| vec![mean]).collect(), quotients: vec![] }
    }

    /// `self - other`, seed by seed and problem by problem; `None` if the shapes differ.
    pub fn minus(&self, other: &Self) -> Option<Self> {
        Self::weighted_sum(&[self, other], &[1.0, -1.0])
    }

    /// The sum of several grids of one shape, each times its weight; `None` if the shapes differ.
    pub fn weighted_sum(grids: &[&Self], weights: &[f64]) -> Option<Self> {
        let first = grids.first()?;
        let (seeds, problems) = (first.seeds(), first.problems());
        if grids.iter().any(|grid| (grid.seeds(), grid.problems()) != (seeds, problems)) {
            return None;
        }
        let mut sum = Self { rows: vec![vec![0.0; problems]; seeds], quotients: vec![] };
        for (grid, weight) in grids.iter().zip(weights) {
            for (total, value) in sum.rows.iter_mut().flatten().zip(grid.rows.iter().flatten()) {
                *total += weight * value;
            }
            let weighted = |own: &Quotient| Quotient { weight: weight * own.weight, parts: own.parts.clone() };
            sum.quotients.extend(grid.quotients.iter().map(weighted));
        }
        Some(sum)
    }

    /// The mean over drawn seeds and problems; `None` if the drawn problems leave nothing below a line.
    fn drawn_mean(&self, draw: &Draw, which: usize) -> Option<f64> {
        let (seeds, problems) = (&draw.seeds[which], &draw.problems);
        let drawn = || seeds.iter().enumerate().filter(|(_, count)| **count > 0.0);
        let row = |(seed, count): (usize, &f64)| {
            let sum: f64 = self.rows[seed].iter().zip(problems).map(|(value, times)| value * times).sum();
            count * sum
        };
        let total = drawn().map(row).sum::<f64>() / (self.seeds() * self.problems()) as f64;
        let quotients = |(seed, count): (usize, &f64)| {
            count * self.quotients.iter().map(|quotient| quotient.value(seed, problems)).sum::<f64>()
        };
        let mean = total + drawn().map(quotients).sum::<f64>() / self.seeds() as f64;
        mean.is_finite().then_some(mean)
    }
}

/// How often each seed (of one arm or two) and each problem is drawn.
pub struct Draw {
    pub seeds: [Vec<f64>; 2],
    pub problems: Vec<f64>,
}

/// Bootstrap with a number of resamples. Every call draws the same resamples for the same shape, so that its intervals
/// do not depend on what else is computed.
pub struct Bootstrap {
    pub resamples: usize,
    /// The draws of the problems, [resamples, P], for the number of problems that runs have.
    problems: Vec<Vec<f64>>,
}

impl Bootstrap {
    /// `problems`: of an evaluation, or 1 where only means are known.
    pub fn new(resamples: usize, problems: usize) -> Self {
        Self { resamples, problems: (0..resamples).map(|resample| counts(problems, resample, 0)).collect() }
    }

    /// The resamples of `seeds` (of two arms) and `problems`.
    pub fn draws(&self, seeds: [usize; 2], problems: usize) -> impl Iterator<Item = Draw> {
        (0..self.resamples).map(move |resample| {
            let known = &self.problems[resample];
            Draw {
                seeds: [counts(seeds[0], resample, 1), counts(seeds[1], resample, 2)],
                problems: if known.len() == problems { known.clone() } else { counts(problems, resample, 0) },
            }
        })
    }

    /// The percentile interval of the mean of a grid; `None` if there is nothing to draw from, one seed and one value.
    pub fn mean(&self, grid: &Grid) -> Option<[f64; 2]> {
        if grid.seeds() * grid.problems() < 2 {
            return None;
        }
        let draws = self.draws([grid.seeds(), 0], grid.problems());
        percentile_interval(draws.filter_map(|draw| grid.drawn_mean(&draw, 0)).collect())
    }

    /// The percentile interval of `second - first`, two arms whose seeds are not paired and whose problems are the same
    /// (or known by their means alone).
    pub fn difference(&self, first: &Grid, second: &Grid) -> Option<[f64; 2]> {
        let problems = first.problems();
        if problems != second.problems() || problems * first.seeds().min(second.seeds()) < 2 {
            return None;
        }
        let draws = self.draws([first.seeds(), second.seeds()], problems);
        let difference = |draw: Draw| Some(second.drawn_mean(&draw, 1)? - first.drawn_mean(&draw, 0)?);
        percentile_interval(draws.filter_map(difference).collect())
    }
}

/// How often each of `n` things is drawn in n draws with replacement.
pub(super) fn counts(n: usize, resample: usize, what: u64) -> Vec<f64> {
    let mut rng = stream(0, Purpose::Resample, resample as u64, what);
    let mut counts = vec![0.0; n];
    for _ in 0..n {
        counts[rng.random_range(0..n)] += 1.0;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(rows: &[&[f64]]) -> Grid {
        Grid::new(rows.iter().map(|row| row.to_vec()).collect()).unwrap()
    }

    #[test]
    fn an_interval_has_the_width_that_theory_gives() {
        // Problems alone: the standard error of a mean of n Bernoulli values is sqrt(p (1 - p) / n).
        let ones: Vec<f64> = (0..400).map(|i| f64::from(u8::from(i % 4 == 0))).collect();
        let [low, high] = Bootstrap::new(4000, 400).mean(&grid(&[&ones])).unwrap();
        let error = (0.25f64 * 0.75 / 400.0).sqrt();
        assert!((low - (0.25 - 1.96 * error)).abs() < 0.004 && (high - (0.25 + 1.96 * error)).abs() < 0.004);
        // Seeds alone: of two seeds, both, each, or only one is drawn.
        let seeds = grid(&[&[0.2], &[0.4]]);
        assert_eq!(Bootstrap::new(400, 1).mean(&seeds).unwrap(), [0.2, 0.4]);
        assert_eq!(Bootstrap::new(400, 1).mean(&grid(&[&[0.2]])), None);
    }

    #[test]
    fn a_resample_is_the_mean_over_drawn_seeds_and_problems() {
        let values = grid(&[&[0.0, 1.0, 2.0], &[10.0, 11.0, 12.0]]);
        for draw in Bootstrap::new(50, 3).draws([2, 2], 3) {
            let mut all = Vec::new();
            for (row, seeds) in values.rows.iter().zip(&draw.seeds[0]) {
                for (value, problems) in row.iter().zip(&draw.problems) {
                    all.extend(vec![*value; (seeds * problems) as usize]);
                }
            }
            assert_eq!(all.len(), 6);
            assert!((values.drawn_mean(&draw, 0).unwrap() - all.iter().sum::<f64>() / 6.0).abs() < 1e-12);
        }
    }

    #[test]
    fn a_quotient_is_taken_anew_for_the_problems_of_a_resample() {
        // Two seeds, three problems, of which the first seed lacks one and the second has a denominator of 0.
        let parts = vec![
            vec![Some((1.0, 2.0)), None, Some((3.0, 4.0))],
            vec![Some((0.0, 0.0)), Some((5.0, 1.0)), Some((0.5, 1.0))],
        ];
        let values = Grid::of_parts(parts.clone()).unwrap();
        assert_eq!(values.means(), [4.0 / 6.0, 5.5 / 2.0]);
        let plain = grid(&[&[1.0, 2.0, 6.0], &[0.0, 1.0, 2.0]]);
        let difference = values.minus(&plain).unwrap();
        assert_eq!(difference.means(), [4.0 / 6.0 - 3.0, 5.5 / 2.0 - 1.0]);
        assert_eq!(difference.by_seed().means(), difference.means());
        let (mut left_out, mut kept) = (0, 0);
        for draw in Bootstrap::new(200, 3).draws([2, 2], 3) {
            let (mut total, mut whole) = (0.0, true);
            for seed in [0, 1] {
                for _ in 0..draw.seeds[0][seed] as usize {
                    let (mut above, mut below, mut sum) = (0.0, 0.0, 0.0);
                    for problem in [0, 1, 2] {
                        for _ in 0..draw.problems[problem] as usize {
                            let (numerator, denominator) = parts[seed][problem].unwrap_or_default();
                            above += numerator;
                            below += denominator;
                            sum += plain.rows[seed][problem];
                        }
                    }
                    whole &= below > 0.0;
                    total += (above / below - sum / 3.0) / 2.0;
                }
            }
            match difference.drawn_mean(&draw, 0) {
                None => left_out += 1,
                Some(mean) => {
                    kept += 1;
                    assert!((mean - total).abs() < 1e-12);
                }
            }
            assert_eq!(difference.drawn_mean(&draw, 0).is_some(), whole);
        }
        assert!(left_out > 0 && kept > 100, "{left_out} {kept}");
        // Denominators of 1 make a plain mean, and no denominator no grid.
        assert_eq!(Grid::of_parts(vec![vec![Some((2.0, 1.0)), Some((4.0, 1.0))]]).unwrap(), grid(&[&[2.0, 4.0]]));
        assert_eq!(Grid::of_parts(vec![vec![None, None], vec![Some((1.0, 1.0)); 2]]), None);
        assert_eq!(Grid::of_parts(vec![]), None);
    }

    #[test]
    fn pairing_takes_out_what_seeds_and_problems_share() {
        let noise: Vec<f64> = (0..100).map(|i| f64::from(i * 7919 % 101) / 101.0).collect();
        let plus = |by: f64| -> Vec<f64> { noise.iter().map(|x| x + by).collect() };
        let (first, second) = (grid(&[&plus(0.0), &plus(0.1)]), grid(&[&plus(0.1), &plus(0.2)]));
        let bootstrap = Bootstrap::new(500, 100);
        let paired = bootstrap.mean(&second.minus(&first).unwrap()).unwrap();
        assert!((paired[0] - 0.1).abs() < 1e-9 && (paired[1] - 0.1).abs() < 1e-9, "{paired:?}");
        let apart = bootstrap.difference(&first, &second).unwrap();
        assert!(apart[0] < 0.05 && apart[1] > 0.15, "{apart:?}");
        assert_eq!(bootstrap.difference(&first, &grid(&[&[0.1]])), None);
    }

    #[test]
    fn a_weighted_sum_is_taken_cell_by_cell() {
        let (a, b) = (grid(&[&[1.0, 2.0]]), grid(&[&[3.0, 5.0]]));
        assert_eq!(Grid::weighted_sum(&[&a, &b], &[0.5, 2.0]).unwrap(), grid(&[&[6.5, 11.0]]));
        assert_eq!(Grid::weighted_sum(&[&a, &grid(&[&[1.0]])], &[1.0, 1.0]), None);
        assert_eq!(Grid::new(vec![vec![1.0], vec![]]), None);
    }
}
