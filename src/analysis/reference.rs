//! Published curves, to lay under our own: a JSON file with `steps`, `curves` (an array of values for each arm, null
//! where there is none) and optionally `metric`, a sentence that says what the values are.

use crate::{OrBadInput, WHOLE, bad, read_text};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::Path;

/// What is known of somebody else's runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reference {
    /// `reward` or `accuracy`, as far as the file says.
    pub measures: Option<&'static str>,
    pub curves: Vec<ReferenceCurve>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReferenceCurve {
    pub arm: String,
    /// (step, value)
    pub points: Vec<(u64, f64)>,
}

#[derive(Deserialize)]
struct File {
    metric: Option<String>,
    steps: Vec<u64>,
    curves: Map<String, Value>,
}

impl Reference {
    /// # Errors
    /// Bad input: a file that cannot be read or has another layout.
    pub fn read(path: &Path) -> Result<Self> {
        let read = || Self::parse(&read_text(path, WHOLE).context("it cannot be read")?);
        read().with_context(|| format!("the reference {}", path.display())).bad_input()
    }

    fn parse(text: &str) -> Result<Self> {
        let file: File = serde_json::from_str(text).context("expected JSON with `steps` and `curves`")?;
        let curve = |(arm, values): (&String, &Value)| {
            let values: Vec<Option<f64>> = serde_json::from_value(values.clone())
                .with_context(|| format!("the curve {arm} is not an array of numbers"))?;
            if values.len() != file.steps.len() {
                return Err(bad!("the curve {arm} has {} values for {} steps", values.len(), file.steps.len()));
            }
            let points = file.steps.iter().zip(values).filter_map(|(step, value)| Some((*step, value?)));
            Ok(ReferenceCurve { arm: arm.clone(), points: points.collect() })
        };
        let curves: Vec<ReferenceCurve> = file.curves.iter().map(curve).collect::<Result<_>>()?;
        if curves.is_empty() {
            return Err(bad!("it has no curves"));
        }
        let sentence = file.metric.unwrap_or_default().to_lowercase();
        let measures = ["reward", "accuracy"].into_iter().find(|word| sentence.contains(word));
        Ok(Self { measures, curves })
    }

    /// The name of a curve in tables and pictures.
    pub fn label(&self, curve: &ReferenceCurve) -> String {
        let measures = self.measures.map_or(String::new(), |word| format!(", {word}"));
        format!("reference: {}{measures}", curve.arm)
    }

    /// What to know before the curves are compared with a metric that measures `figure`.
    pub fn warning(&self, figure: &str) -> Option<String> {
        match self.measures {
            Some(own) if own == figure => None,
            Some(own) => Some(format!("the reference curves are of {own}, ours of {figure}: not the same quantity")),
            None => Some(format!("the reference does not say whether its curves are of {figure}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_says_what_it_measures() {
        let text = r#"{"metric": "mean Reward of a test set", "steps": [10, 20, 30], "other": {},
                       "curves": {"plain": [0.1, null, 0.3], "primed": [0.2, 0.3, 0.4]}}"#;
        let reference = Reference::parse(text).unwrap();
        assert_eq!(reference.curves[0].points, [(10, 0.1), (30, 0.3)]);
        assert_eq!(reference.label(&reference.curves[1]), "reference: primed, reward");
        assert_eq!(reference.warning("reward"), None);
        assert!(reference.warning("accuracy").unwrap().contains("of reward, ours of accuracy"));
        for (text, said) in [
            ("[]", "expected JSON with `steps` and `curves`"),
            (r#"{"steps": [1], "curves": {}}"#, "no curves"),
            (r#"{"steps": [1], "curves": {"a": [1, 2]}}"#, "the curve a has 2 values for 1 steps"),
            (r#"{"steps": [1], "curves": {"a": ["x"]}}"#, "the curve a is not an array of numbers"),
        ] {
            let error = format!("{:#}", Reference::parse(text).unwrap_err());
            assert!(error.contains(said), "{error}");
        }
    }
}
