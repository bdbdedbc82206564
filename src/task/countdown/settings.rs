//! The keys of [task] for Countdown.

use super::problem::MAX_NUMBER;
use super::{COUNTS, CountdownTask};
use crate::BadInput;
use crate::recipe::{Countdown, Reward, Sources};
use crate::task::splits::check_files;
use crate::task::{Settings, Task};
use anyhow::Result;
use std::path::Path;

impl Countdown {
    /// A bound on the number of distinct problems: every choice of numbers with every target, solvable or not.
    fn distinct(&self) -> f64 {
        let targets = (self.targets[1] - self.targets[0] + 1) as f64;
        // n numbers up to m in any order: m + n - 1 over n.
        let choices = |n: usize| (0..n).fold(1.0, |all, i| all * (self.max_number + i as i64) as f64 / (i + 1) as f64);
        let mut counts = self.numbers.clone();
        counts.sort_unstable();
        counts.dedup();
        counts.into_iter().map(choices).sum::<f64>() * targets
    }
}

impl Settings for Countdown {
    fn sizes(&self) -> [usize; 3] {
        [self.train, self.validation, self.test]
    }

    fn describe(&self) -> String {
        if let (Some(train), Some(validation), Some(test)) = (&self.train_file, &self.validation_file, &self.test_file)
        {
            return format!("from {}, {} and {}", train.display(), validation.display(), test.display());
        }
        let counts: Vec<String> = self.numbers.iter().map(usize::to_string).collect();
        let ([low, high], counts) = (self.targets, counts.join(" or "));
        let (seed, largest) = (self.seed, self.max_number);
        format!("generated from seed {seed}: {counts} numbers up to {largest}, targets {low} to {high}")
    }

    fn check(&self, at: &Sources) -> Result<(), BadInput> {
        let files = [
            ("task.train_file", &self.train_file),
            ("task.validation_file", &self.validation_file),
            ("task.test_file", &self.test_file),
        ];
        let missing: Vec<&str> = files.iter().filter(|(_, file)| file.is_none()).map(|(key, _)| *key).collect();
        let named: Vec<(&str, &Path)> = files.iter().filter_map(|(key, file)| Some((*key, file.as_deref()?))).collect();
        if let Some((key, _)) = named.first() {
            at.ensure(
                missing.is_empty(),
                key,
                format_args!("either all three splits come from files or none do\nalso set {}", missing.join(" and ")),
            )?;
        }
        check_files(&named, at)?;
        let (numbers, [low, high]) = (&self.numbers, self.targets);
        at.ensure(!numbers.is_empty(), "task.numbers", "`task.numbers` is empty\nfor example [3, 4]")?;
        for n in numbers {
            at.ensure(
                COUNTS.contains(n),
                "task.numbers",
                format_args!(
                    "a problem of {n} numbers cannot be generated, expected counts from {} to {}",
                    COUNTS.start(),
                    COUNTS.end()
                ),
            )?;
        }
        let largest = self.max_number;
        at.ensure(
            largest <= MAX_NUMBER,
            "task.max_number",
            format_args!("`task.max_number` is {largest}, expected 1 to {MAX_NUMBER}"),
        )?;
        at.ensure(
            0 <= low && low <= high && high <= MAX_NUMBER,
            "task.targets",
            format_args!(
                "`task.targets` is [{low}, {high}], expected [lowest, highest] from 0 to {MAX_NUMBER}, in this order"
            ),
        )?;
        // Six ones make at most 3 * 3 = 9; for larger numbers, nothing exceeds the product of all.
        let most = numbers.iter().copied().max().unwrap_or(2);
        let reach = if largest == 1 { 9.0 } else { (largest as f64).powi(most as i32) };
        at.ensure(
            low as f64 <= reach,
            "task.targets",
            format_args!("no {most} numbers up to {largest} make {low}; the largest they can make is {reach}"),
        )?;
        let (asked, there) = (self.sizes().into_iter().map(|size| size as f64).sum::<f64>(), self.distinct());
        at.ensure(
            !named.is_empty() || asked <= there,
            "task.train",
            format_args!(
                "the splits have {asked} problems, but there are not more than {there:.0} of such numbers and targets\n\
                 ask for fewer, or widen task.max_number or task.targets"
            ),
        )
    }

    fn has_solver(&self) -> bool {
        true
    }

    fn build(&self, reward: &Reward) -> Result<Box<dyn Task>> {
        Ok(Box::new(CountdownTask::new(self, reward)?))
    }

    /// The training problems are drawn last, so that the first one is the same if no other follows. Files are read
    /// whole: whether they hold what is asked for is part of a plan.
    fn first(&self, reward: &Reward) -> Result<Box<dyn Task>> {
        let train = if self.train_file.is_some() { self.train } else { 1 };
        Self { train, ..self.clone() }.build(reward)
    }
}
