//! Any text is parsed or refused, within the parser's limits; what parses also parses in parentheses, equally.

use ppo_train::task::countdown::expression::{Fault, MAX_LENGTH, MAX_TERMS, parse};

pub fn run(data: &[u8]) {
    super::text(data, |text| match parse(text) {
        Err(fault) => super::refused(fault, 0),
        Ok(parsed) => {
            assert!(text.len() <= MAX_LENGTH);
            assert!((1..=MAX_TERMS).contains(&parsed.numbers.len()));
            match parse(&format!("({text})")) {
                Ok(again) => assert_eq!(again, parsed),
                Err(fault) => assert!(matches!(fault, Fault::TooLong | Fault::TooDeep)),
            }
        }
    });
}
