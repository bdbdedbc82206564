//! How far two judges of the same traces agree: intraclass correlations of their counts.

use super::interface::{COGNITIVE, CONVERSATIONAL, Judgement, ROLES};
use crate::stats::mean;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, FisherSnedecor};

/// An intraclass correlation with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Icc {
    /// From -1 to 1.
    pub value: f64,
    /// None if the judges differ by the same amount everywhere: the correlation is 1, and nothing is left to err.
    pub low: Option<f64>,
    pub high: Option<f64>,
}

/// The agreement of two judges about a category.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Agreement {
    /// As in `conversational/conflict`; `conversational/mean` is the mean over the categories that have a correlation.
    pub name: String,
    /// None where it is not defined; `why` says why.
    pub icc: Option<Icc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The traces that both judged.
    pub n: usize,
    /// Of a group, how many categories are behind the mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub categories: Option<usize>,
}

/// ICC(3,1) of two judges: two-way mixed effects, single rater, consistency (Shrout and Fleiss 1979, "Intraclass
/// correlations", equations of case 3; also called ICC(C,1), McGraw and Wong 1996). With k = 2 raters it is
/// (MSB - MSE) / (MSB + MSE), where MSB and MSE are half the variances of the sums and of the differences of their
/// values. The interval comes from F = MSB / MSE with n - 1 and n - 1 degrees of freedom.
///
/// # Errors
/// In a sentence, why it is not defined: fewer than two traces, or no variance in either judge's values.
pub fn icc(first: &[f64], second: &[f64]) -> Result<Icc, String> {
    let n = first.len().min(second.len());
    if n < 2 {
        return Err("it takes two traces that both judged".into());
    }
    let pairs = || first.iter().zip(second);
    let between = variance(pairs().map(|(a, b)| a + b)) / 2.0;
    let residual = variance(pairs().map(|(a, b)| a - b)) / 2.0;
    let value = (between - residual) / (between + residual);
    if between + residual == 0.0 || !value.is_finite() {
        return Err("each judge gives all traces the same count: there is no variance to share".into());
    }
    let freedom = (n - 1) as f64;
    // F quantiles at 0.975; the degrees of freedom are equal, so one serves both ends.
    let bound = FisherSnedecor::new(freedom, freedom).map(|f| f.inverse_cdf(0.975)).ok();
    let end = |f: f64| Some((f - 1.0) / (f + 1.0)).filter(|end| end.is_finite());
    let f = between / residual;
    let low = bound.and_then(|bound| end(f / bound));
    let high = bound.and_then(|bound| end(f * bound));
    Ok(Icc { value, low, high })
}

/// The sample variance.
fn variance(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.collect();
    let centre = mean(&values);
    values.iter().map(|value| (value - centre).powi(2)).sum::<f64>() / (values.len() - 1) as f64
}

/// The agreement of two judges of the same traces, in the same order, about each category that both see, about the
/// number of perspectives, and in the mean about each group of categories.
pub fn agreement(first: &[Option<&Judgement>], second: &[Option<&Judgement>]) -> Vec<Agreement> {
    let mut all = vec![];
    let mut group = |name: &str, categories: &[&str], of: &dyn Fn(&Judgement, usize) -> Option<f64>| {
        let own: Vec<Agreement> = categories
            .iter()
            .enumerate()
            .filter_map(|(which, category)| {
                let both = first.iter().zip(second).filter_map(|(a, b)| Some((of((*a)?, which)?, of((*b)?, which)?)));
                let (a, b): (Vec<f64>, Vec<f64>) = both.unzip();
                let (icc, why) = icc(&a, &b).map_or_else(|why| (None, Some(why)), |icc| (Some(icc), None));
                let name = if category.is_empty() { name.into() } else { format!("{name}/{category}") };
                (!a.is_empty()).then_some(Agreement { name, icc, why, n: a.len(), categories: None })
            })
            .collect();
        let values: Vec<f64> = own.iter().filter_map(|own| own.icc).map(|icc| icc.value).collect();
        let (several, n) = (own.len() > 1, own.iter().map(|own| own.n).max().unwrap_or(0));
        all.extend(own);
        if several {
            let icc = (!values.is_empty()).then(|| Icc { value: mean(&values), low: None, high: None });
            let why = icc.is_none().then(|| "it is defined for none of the categories".to_string());
            all.push(Agreement { name: format!("{name}/mean"), icc, why, n, categories: Some(values.len()) });
        }
    };
    group("conversational", &CONVERSATIONAL, &|j, which| j.conversational.map(|counts| f64::from(counts[which])));
    group("cognitive", &COGNITIVE, &|j, which| j.cognitive.map(|counts| f64::from(counts[which])));
    group("roles", &ROLES, &|j, which| j.roles.map(|counts| f64::from(counts[which])));
    group("perspectives", &[""], &|j, _| j.perspectives.as_ref().map(|voices| voices.len() as f64));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn correlations_are_those_of_pingouin() {
        let golden: Value = serde_json::from_str(include_str!("../../tests/golden/icc.json")).unwrap();
        let cases = golden.as_array().unwrap();
        assert!(cases.len() >= 10);
        for case in cases {
            let numbers = |key: &str| -> Vec<f64> {
                case[key].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
            };
            let found = icc(&numbers("first"), &numbers("second"));
            let close = |found: Option<f64>, key: &str| match (found, case[key].as_f64()) {
                (Some(found), Some(expected)) => assert!((found - expected).abs() < 1e-9, "{key} {found} for {case}"),
                (found, expected) => assert_eq!(found, expected, "{key} for {case}"),
            };
            let found = found.ok();
            close(found.map(|icc| icc.value), "icc");
            close(found.and_then(|icc| icc.low), "low");
            close(found.and_then(|icc| icc.high), "high");
        }
    }

    /// By the sums of squares of an analysis of variance, as the paper writes them.
    #[test]
    fn the_mean_squares_are_those_of_an_analysis_of_variance() {
        let (a, b) = ([9.0, 6.0, 8.0, 7.0, 10.0, 6.0], [2.0, 1.0, 4.0, 1.0, 5.0, 2.0]);
        let (n, k) = (6.0, 2.0);
        let grand = a.iter().chain(&b).sum::<f64>() / (n * k);
        let total: f64 = a.iter().chain(&b).map(|x| (x - grand).powi(2)).sum();
        let rows: f64 = a.iter().zip(&b).map(|(x, y)| k * ((x + y) / k - grand).powi(2)).sum();
        let columns: f64 = [a, b].iter().map(|judge| n * (judge.iter().sum::<f64>() / n - grand).powi(2)).sum();
        let between = rows / (n - 1.0);
        let residual = (total - rows - columns) / ((n - 1.0) * (k - 1.0));
        let expected = (between - residual) / (between + (k - 1.0) * residual);
        assert!((icc(&a, &b).unwrap().value - expected).abs() < 1e-12);
    }

    fn judgement(conflict: u32, voices: usize) -> Judgement {
        Judgement {
            conversational: Some([0, 1, conflict, conflict]),
            perspectives: Some(vec![Default::default(); voices]),
            ..Default::default()
        }
    }

    #[test]
    fn judges_agree_by_category() {
        let first = [judgement(0, 1), judgement(2, 2), judgement(4, 4), judgement(1, 1)];
        let second = [judgement(1, 1), judgement(3, 2), judgement(5, 3), judgement(9, 2)];
        let a: Vec<Option<&Judgement>> = first.iter().map(Some).collect();
        let mut b: Vec<Option<&Judgement>> = second.iter().map(Some).collect();
        b[3] = None;
        let found = agreement(&a, &b);
        let names: Vec<&str> = found.iter().map(|own| own.name.as_str()).collect();
        let categories = CONVERSATIONAL.map(|name| format!("conversational/{name}"));
        assert_eq!(names[..4], categories);
        assert_eq!(names[4..], ["conversational/mean", "perspectives"]);
        // Conflict is one more in every trace that both judged, question answering is constant.
        assert_eq!(found[2].icc, Some(Icc { value: 1.0, low: None, high: None }));
        assert_eq!((found[2].n, found[0].n, found[4].n), (3, 3, 3));
        assert_eq!((found[0].categories, found[4].categories), (None, Some(2)));
        assert!(found[0].icc.is_none() && found[0].why.as_ref().unwrap().contains("no variance"));
        assert_eq!(found[4].icc.unwrap().value, 1.0);
        let json = serde_json::to_string(&found).unwrap();
        assert!(!json.contains("NaN") && json.contains("\"icc\":null"), "{json}");
        // Nothing in common: nothing is said, or that it takes two.
        assert!(agreement(&[None, a[0]], &[b[0], None]).is_empty());
        assert!(agreement(&a[..1], &b[..1]).iter().all(|own| own.icc.is_none() && own.why.is_some()));
    }
}
