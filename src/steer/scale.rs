//! What a strength is a multiple of. The paper's is a bare number, of which nobody knows how far it moves the residual
//! stream; here every strength is shown with its unit, and with the length of what is added beside the stream's own.

use super::direction::Direction;
use crate::bad;
use anyhow::Result;
use serde::Serialize;

/// The unit of strengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// The direction as its source has it.
    Raw,
    /// The direction times the largest activation of its feature.
    Activation,
    /// The direction made as long as the residual stream is on average over the prompts' tokens.
    Norm,
}

impl Unit {
    pub const ALL: [Self; 3] = [Self::Raw, Self::Activation, Self::Norm];

    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Activation => "activation",
            Self::Norm => "norm",
        }
    }

    /// What a strength of 1 adds.
    pub fn words(self) -> &'static str {
        match self {
            Self::Raw => "the direction as it is",
            Self::Activation => "the direction times its feature's largest activation",
            Self::Norm => "the direction at the mean norm of the residual stream",
        }
    }

    /// Strengths that are tried where none are given; 10 times the norm of the stream would leave nothing of it.
    pub fn strengths(self) -> &'static [f64] {
        match self {
            Self::Raw | Self::Activation => &[-10.0, -5.0, 0.0, 5.0, 10.0],
            Self::Norm => &[-1.0, -0.5, 0.0, 0.5, 1.0],
        }
    }
}

/// From strengths in a unit to factors of a direction.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Scale {
    pub unit: Unit,
    /// The factor of the direction at a strength of 1.
    pub factor: f64,
    /// The length of the direction.
    pub direction_norm: f64,
    /// The mean length of the residual stream after the layer.
    pub residual_norm: f64,
}

impl Scale {
    /// # Errors
    /// Bad input: a direction of no known activation, where strengths are multiples of that.
    pub fn new(unit: Unit, direction: &Direction, residual_norm: f64) -> Result<Self> {
        let direction_norm = direction.norm();
        let factor = match unit {
            Unit::Raw => 1.0,
            Unit::Norm => residual_norm / direction_norm,
            Unit::Activation => direction.max_activation.ok_or_else(|| {
                bad!(
                    "the largest activation of {} is not known, so no strength can be a multiple of it; give it with \
                     --max-activation, or strengths in another unit with --unit",
                    direction.name
                )
            })?,
        };
        Ok(Self { unit, factor, direction_norm, residual_norm })
    }

    /// The length of what a strength adds.
    pub fn added(&self, strength: f64) -> f64 {
        strength.abs() * self.factor * self.direction_norm
    }

    /// `added` as a share of the residual stream's own length.
    pub fn share(&self, strength: f64) -> f64 {
        self.added(strength) / self.residual_norm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strength_is_a_multiple_of_its_unit() {
        let direction = |most| Direction::from_vector("d", vec![3.0, 4.0], most).unwrap();
        let scale = |unit, most| Scale::new(unit, &direction(most), 20.0);
        for (unit, most, factor, added) in
            [(Unit::Raw, None, 1.0, 10.0), (Unit::Activation, Some(6.0), 6.0, 60.0), (Unit::Norm, None, 4.0, 40.0)]
        {
            let scale = scale(unit, most).unwrap();
            assert_eq!((scale.factor, scale.added(-2.0), scale.share(2.0)), (factor, added, added / 20.0));
        }
        let error = scale(Unit::Activation, None).unwrap_err().to_string();
        assert!(error.starts_with("the largest activation of d is not known"), "{error}");
    }
}
