//! How much is to be done: prompts, samples, and their lengths.

use rand::{Rng, RngExt};
use std::fmt;
use std::str::FromStr;

/// A number of tokens, or a range from which it is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tokens {
    pub least: usize,
    pub most: usize,
}

/// Longest sequences that are measured.
const LONGEST: usize = 1 << 20;

impl Tokens {
    pub fn exactly(count: usize) -> Self {
        Self { least: count, most: count }
    }

    pub fn draw(self, rng: &mut impl Rng) -> usize {
        rng.random_range(self.least..=self.most)
    }
}

impl FromStr for Tokens {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (least, most) = text.split_once("..").unwrap_or((text, text));
        let number = |text: &str| text.trim().parse().ok().filter(|count| (1..=LONGEST).contains(count));
        match (number(least), number(most)) {
            (Some(least), Some(most)) if least <= most => Ok(Self { least, most }),
            _ => Err("expected a number of tokens, such as 64, or a range, such as 10..256".to_string()),
        }
    }
}

impl fmt::Display for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self { least, most } if least == most => write!(f, "{least}"),
            Self { least, most } => write!(f, "{least}..{most}"),
        }
    }
}

/// The shape of a step.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    pub prompts: usize,
    /// Responses per prompt.
    pub samples: usize,
    pub prompt_tokens: Tokens,
    pub response_tokens: Tokens,
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { prompts, samples, prompt_tokens, response_tokens } = self;
        write!(f, "{prompts} prompts of {prompt_tokens} tokens, {samples} samples each of {response_tokens} tokens")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_a_number_or_a_range() {
        assert_eq!("64".parse(), Ok(Tokens::exactly(64)));
        assert_eq!("10..256".parse(), Ok(Tokens { least: 10, most: 256 }));
        assert_eq!(Tokens { least: 10, most: 256 }.to_string(), "10..256");
        for wrong in ["", "0", "5..4", "1..x", "-3", "99999999999"] {
            assert!(wrong.parse::<Tokens>().unwrap_err().contains("such as 10..256"), "{wrong}");
        }
    }
}
