//! How different the perspectives of a trace are: in personality and in expertise.

use super::super::interface::Perspective;

/// For each trait of `TRAITS`, its two items of the BFI-10 (Rammstedt and John 2007), counted from 0: the one that is
/// keyed in reverse first.
const ITEMS: [[usize; 2]; 5] = [[0, 5], [6, 1], [2, 7], [3, 8], [4, 9]];

/// The scores of the traits of `TRAITS`, 1 to 5, from answers to the items, 1 to 5: the mean of the trait's two items,
/// where x of the reversed one counts as 6 - x.
pub fn traits(bfi: &[u8; 10]) -> [f64; 5] {
    ITEMS.map(|[reversed, plain]| (6.0 - f64::from(bfi[reversed]) + f64::from(bfi[plain])) / 2.0)
}

/// The standard deviation of each trait over the perspectives of a trace: that of a population, since these voices are
/// all there are, so that one voice has no diversity (0). `None` if there is no voice or one without answers: what is
/// missing is not zero.
pub fn trait_diversity(perspectives: &[Perspective]) -> Option<[f64; 5]> {
    let scores: Vec<[f64; 5]> =
        perspectives.iter().map(|voice| voice.bfi.as_ref().map(traits)).collect::<Option<_>>()?;
    let n = scores.len() as f64;
    (n > 0.0).then(|| {
        std::array::from_fn(|which| {
            let mean = scores.iter().map(|own| own[which]).sum::<f64>() / n;
            (scores.iter().map(|own| (own[which] - mean).powi(2)).sum::<f64>() / n).sqrt()
        })
    })
}

/// The mean cosine distance of the embeddings of a trace's perspectives to their centroid, which is the mean of the
/// embeddings scaled to length 1. Between 0 (one voice, or voices with the same expertise) and 1. `None` without
/// embeddings, if they differ in size, or where an angle is not defined: a vector or the centroid is zero, or not
/// finite.
pub fn expertise_diversity(embeddings: &[Vec<f32>]) -> Option<f64> {
    let size = embeddings.first()?.len();
    let units =
        embeddings.iter().map(|embedding| unit(embedding.iter().map(|x| f64::from(*x)))).collect::<Option<Vec<_>>>();
    let units = units.filter(|units| units.iter().all(|unit| unit.len() == size))?;
    let centroid = unit((0..size).map(|at| units.iter().map(|unit| unit[at]).sum()))?;
    let cosine = |unit: &Vec<f64>| unit.iter().zip(&centroid).map(|(a, b)| a * b).sum::<f64>();
    let distances: f64 = units.iter().map(|unit| (1.0 - cosine(unit)).max(0.0)).sum();
    Some(distances / units.len() as f64)
}

/// A vector scaled to length 1, unless it is (nearly) zero or not finite.
fn unit(vector: impl Iterator<Item = f64>) -> Option<Vec<f64>> {
    let vector: Vec<f64> = vector.collect();
    let length = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
    (length.is_finite() && length > 1e-12).then(|| vector.iter().map(|x| x / length).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voice(bfi: [u8; 10]) -> Perspective {
        Perspective { bfi: Some(bfi), expertise: None }
    }

    #[test]
    fn traits_are_the_means_of_their_items() {
        // Items 1, 7, 3, 4 and 5 are reversed: agreeing with all of them and with nothing else is 1 in each trait.
        let mut bfi = [1; 10];
        for item in [1, 3, 4, 5, 7] {
            bfi[item - 1] = 5;
        }
        assert_eq!(traits(&bfi), [1.0; 5]);
        assert_eq!(traits(&bfi.map(|x| 6 - x)), [5.0; 5]);
        assert_eq!(traits(&[3; 10]), [3.0; 5]);
        // E = (6 - 2 + 4) / 2, A = (5 + 6 - 1) / 2, C = (6 - 5 + 1) / 2, N = (6 - 4 + 2) / 2, O = (6 - 3 + 5) / 2.
        assert_eq!(traits(&[2, 5, 5, 4, 3, 4, 1, 1, 2, 5]), [4.0, 5.0, 1.0, 2.0, 4.0]);
    }

    #[test]
    fn diversity_is_the_deviation_over_voices() {
        let (a, b) = (voice([3; 10]), voice([2, 5, 5, 4, 3, 4, 1, 1, 2, 5]));
        assert_eq!(trait_diversity(&[a.clone(), b.clone()]), Some([0.5, 1.0, 1.0, 0.5, 0.5]));
        assert_eq!(trait_diversity(std::slice::from_ref(&b)), Some([0.0; 5]));
        assert_eq!((trait_diversity(&[]), trait_diversity(&[Perspective::default()])), (None, None));
        assert_eq!(trait_diversity(&[a, Perspective::default()]), None);
    }

    #[test]
    fn expertise_is_as_diverse_as_its_angles() {
        // Two vectors at a right angle are at 45 degrees to their centroid, whatever their lengths.
        let distance = expertise_diversity(&[vec![2.0, 0.0], vec![0.0, 0.5]]).unwrap();
        assert!((distance - (1.0 - 0.5f64.sqrt())).abs() < 1e-12);
        assert_eq!(expertise_diversity(&[vec![0.3, 0.4]]), Some(0.0));
        let same = expertise_diversity(&[vec![0.3, 0.4], vec![0.6, 0.8]]).unwrap();
        assert!(same.abs() < 1e-12);
        for bad in [
            vec![],
            vec![vec![]],
            vec![vec![1.0], vec![1.0, 2.0]],
            vec![vec![0.0, 0.0]],
            vec![vec![1.0, 0.0], vec![-1.0, 0.0]],
            vec![vec![f32::NAN, 1.0]],
        ] {
            assert_eq!(expertise_diversity(&bad), None, "{bad:?}");
        }
    }
}
