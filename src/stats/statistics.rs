//! Means, quantiles, exact tests, and areas.

/// Most seeds whose sign-flip test is enumerated: 2^20 sums.
const MOST_FLIPS: usize = 20;

/// The mean; NaN if there are no values.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The quantile at `p` (0 to 1) of values in ascending order, of which there is at least one: the straight line between
/// neighbouring order statistics at position (n - 1) p, definition 7 of Hyndman and Fan, "Sample quantiles in
/// statistical packages", 1996 (numpy's default).
pub fn quantile(sorted: &[f64], p: f64) -> f64 {
    let at = (sorted.len() - 1) as f64 * p;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    below + (above - below) * at.fract()
}

/// The interval between the 2.5 % and the 97.5 % quantile of a bootstrap's values: the percentile interval of Efron and
/// Tibshirani, "An introduction to the bootstrap", 1993, section 13.3. `None` without values, or if one is not finite.
pub fn percentile_interval(mut values: Vec<f64>) -> Option<[f64; 2]> {
    values.sort_by(f64::total_cmp);
    let finite = values.iter().all(|value| value.is_finite());
    (finite && !values.is_empty()).then(|| [0.025, 0.975].map(|p| quantile(&values, p)))
}

/// McNemar's exact test: the two-sided p-value of `first` and `second` discordant pairs under equal chances,
/// min(1, 2 P(X <= min(first, second))) with X ~ Binomial(first + second, 1/2) (McNemar 1947, in its exact form:
/// Fagerland, Lydersen and Laake 2013).
pub fn mcnemar(first: u64, second: u64) -> f64 {
    let pairs = first + second;
    let (mut log_choose, mut tail) = (0.0, 0.0);
    for k in 0..=first.min(second) {
        if k > 0 {
            log_choose += ((pairs - k + 1) as f64).ln() - (k as f64).ln();
        }
        tail += (log_choose - pairs as f64 * std::f64::consts::LN_2).exp();
    }
    f64::min(1.0, 2.0 * tail)
}

/// The exact sign-flip test (Fisher's randomisation test for paired samples, "The design of experiments", 1935, chapter
/// III): the share of the 2^n ways to choose the signs of `differences` whose sum is at least as far from 0 as theirs.
/// Its least value is 2^(1 - n). `None` without differences, with more than 20, or if one is not finite.
pub fn sign_flip(differences: &[f64]) -> Option<f64> {
    let n = differences.len();
    if n == 0 || n > MOST_FLIPS || differences.iter().any(|difference| !difference.is_finite()) {
        return None;
    }
    let sum = |signs: u32| -> f64 {
        let signed = |(i, d): (usize, &f64)| if signs >> i & 1 == 1 { -d } else { *d };
        differences.iter().enumerate().map(signed).sum()
    };
    // Sums that are equal on paper may differ in their last digits.
    let bound = sum(0).abs() - 1e-12 * differences.iter().map(|d| d.abs()).sum::<f64>();
    let far = (0..1u32 << n).filter(|signs| sum(*signs).abs() >= bound).count();
    Some(far as f64 / f64::from(1u32 << n))
}

/// The probability that a value of `first` is above one of `second`, ties counting half: the area under the ROC curve,
/// which is the Mann-Whitney statistic divided by the number of pairs (Hanley and McNeil 1982). Values are finite.
/// `None` if a sample is empty.
pub fn auc(first: &[f64], second: &[f64]) -> Option<f64> {
    let mut sorted = second.to_vec();
    sorted.sort_by(f64::total_cmp);
    // Twice the number of values below, where those that are equal count half.
    let below = |value: &f64| {
        sorted.partition_point(|other| other < value) as u64 + sorted.partition_point(|other| other <= value) as u64
    };
    let twice: u64 = first.iter().map(below).sum();
    let pairs = first.len() as f64 * second.len() as f64;
    (pairs > 0.0).then(|| twice as f64 / 2.0 / pairs)
}

/// The weights w with which values y at the steps x give their mean height, sum(w y): the area under the straight lines
/// between them (trapezoidal rule), divided by the range of steps. A single step has the weight 1.
pub fn area_weights(steps: &[u64]) -> Vec<f64> {
    let (Some(first), Some(last)) = (steps.first(), steps.last()) else { return vec![] };
    if first == last {
        return vec![1.0];
    }
    let mut weights = vec![0.0; steps.len()];
    for (i, pair) in steps.windows(2).enumerate() {
        let half = (pair[1] - pair[0]) as f64 / (2 * (last - first)) as f64;
        weights[i] += half;
        weights[i + 1] += half;
    }
    weights
}

/// The first of the points (step, value), in the order of steps, whose value is at least `threshold`. Nothing is
/// interpolated, and a later value may be lower again.
pub fn first_at_least(points: &[(u64, f64)], threshold: f64) -> Option<u64> {
    points.iter().find(|(_, value)| *value >= threshold).map(|(step, _)| *step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn numbers(value: &Value) -> Vec<f64> {
        value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
    }

    fn assert_close(got: f64, expected: &Value, case: &Value) {
        let expected = expected.as_f64().unwrap();
        assert!((got - expected).abs() <= 1e-10 * expected.abs().max(1e-300), "{got} for {case}");
    }

    #[test]
    fn the_statistics_are_those_of_scipy() {
        let golden: Value = serde_json::from_str(include_str!("../../tests/golden/stats.json")).unwrap();
        let cases = |name: &str| golden[name].as_array().unwrap().clone();
        for case in cases("mcnemar") {
            let [first, second] = ["first", "second"].map(|key| case[key].as_u64().unwrap());
            assert_close(mcnemar(first, second), &case["p"], &case);
        }
        for case in cases("sign_flip") {
            assert_close(sign_flip(&numbers(&case["differences"])).unwrap(), &case["p"], &case);
        }
        for case in cases("quantile") {
            let mut values = numbers(&case["values"]);
            values.sort_by(f64::total_cmp);
            assert_close(quantile(&values, case["at"].as_f64().unwrap()), &case["value"], &case);
        }
        for case in cases("area") {
            let steps: Vec<u64> = numbers(&case["steps"]).iter().map(|step| *step as u64).collect();
            let products = area_weights(&steps).into_iter().zip(numbers(&case["values"])).map(|(w, y)| w * y);
            assert_close(products.sum(), &case["height"], &case);
        }
        for case in cases("auc") {
            let [first, second] = ["first", "second"].map(|key| numbers(&case[key]));
            assert_close(auc(&first, &second).unwrap(), &case["auc"], &case);
        }
        assert!(["mcnemar", "sign_flip", "quantile", "area", "auc"].iter().all(|name| cases(name).len() >= 4));
    }

    #[test]
    fn edges() {
        assert_eq!((mcnemar(0, 0), mcnemar(5, 5), mcnemar(0, 1)), (1.0, 1.0, 1.0));
        assert_eq!((sign_flip(&[]), sign_flip(&[0.2]), sign_flip(&[0.0, 0.0])), (None, Some(1.0), Some(1.0)));
        assert_eq!(sign_flip(&[1.0; 21]), None);
        assert_eq!((sign_flip(&[0.1, f64::NAN]), percentile_interval(vec![0.1, f64::NAN])), (None, None));
        assert_eq!((percentile_interval(vec![]), auc(&[], &[1.0]), auc(&[1.0], &[])), (None, None, None));
        assert_eq!((area_weights(&[]), area_weights(&[7])), (vec![], vec![1.0]));
        let points = [(0, 0.1), (10, 0.3), (20, 0.25), (30, 0.4)];
        assert_eq!([0.0, 0.3, 0.35, 0.5].map(|t| first_at_least(&points, t)), [Some(0), Some(10), Some(30), None]);
    }
}
