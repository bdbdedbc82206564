//! Whether the warm starts of a comparison hold the same problems with the same answers, as the runs' records say.

use super::origin::Origin;
use serde::Serialize;

/// Which problems the warm starts hold.
#[derive(Debug, Default, Serialize)]
pub struct WarmStarts {
    /// Whether all of them hold the same problems with the same answers; none if that is not known of all, or if there
    /// are not two.
    pub same_problems: Option<bool>,
    /// Each set of problems, in the order of the runs.
    pub problems: Vec<Problems>,
    /// Arms without a warm start.
    pub without: Vec<String>,
    /// Runs with a warm start of which nothing is recorded.
    pub unknown: Vec<String>,
}

/// A set of problems with their answers.
#[derive(Debug, Serialize)]
pub struct Problems {
    pub sha256: String,
    /// The arms that have a warm start on them.
    pub arms: Vec<String>,
}

impl WarmStarts {
    /// Those of all runs. `arm`, `name`: the names of a run's arm and of a run.
    pub fn of(origins: &[Option<Origin>], arm: impl Fn(usize) -> String, name: impl Fn(usize) -> String) -> Self {
        let mut found = Self::default();
        let mut known = 0;
        for (run, origin) in origins.iter().enumerate() {
            match origin {
                Some(Origin { has_warm_start: false, .. }) => add(&mut found.without, arm(run)),
                Some(Origin { problems: Some(sha256), .. }) => {
                    known += 1;
                    match found.problems.iter_mut().find(|own| own.sha256 == *sha256) {
                        Some(own) => add(&mut own.arms, arm(run)),
                        None => found.problems.push(Problems { sha256: sha256.clone(), arms: vec![arm(run)] }),
                    }
                }
                _ => found.unknown.push(name(run)),
            }
        }
        found.same_problems = match found.problems.len() {
            0 => None,
            1 => (known > 1 && found.unknown.is_empty()).then_some(true),
            _ => Some(false),
        };
        found
    }

    /// What to know about them, in sentences; nothing if there are not two.
    pub fn sentences(&self) -> Vec<String> {
        let Self { same_problems, problems, without, unknown } = self;
        let mut all = Vec::new();
        if *same_problems == Some(false) {
            let own: Vec<String> = problems.iter().map(|p| format!("{} in {}", p.sha256, p.arms.join(", "))).collect();
            all.push(format!(
                "the warm starts do not hold the same problems with the same answers; their problems_sha256: {}",
                own.join("; ")
            ));
        }
        if let (Some(true), [only]) = (same_problems, &problems[..]) {
            all.push(format!(
                "the warm starts of {} hold the same problems with the same answers (problems_sha256 {})",
                only.arms.join(", "),
                only.sha256
            ));
        }
        if !unknown.is_empty() && unknown.len() + problems.len() > 1 {
            all.push(format!(
                "nothing shows which problems the warm starts of {} hold: neither start/warm_start.json nor \
                 traces.json in their folders says so",
                unknown.join(", ")
            ));
        }
        if !without.is_empty() && unknown.len() + problems.len() > 0 {
            all.push(format!("without a warm start: {}", without.join(", ")));
        }
        all
    }
}

/// Adds a name that is not there yet.
fn add(names: &mut Vec<String>, name: String) {
    if !names.contains(&name) {
        names.push(name);
    }
}
