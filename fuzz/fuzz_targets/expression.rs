//! Any text is parsed or refused, within the parser's limits; what parses also parses in parentheses, equally.
#![no_main]
#![allow(dead_code)]

use libfuzzer_sys::fuzz_target;

#[path = "../../src/task/countdown/expression.rs"]
mod expression;

fuzz_target!(|text: &str| {
    if let Ok(parsed) = expression::parse(text) {
        assert!(text.len() <= expression::MAX_LENGTH);
        assert!((1..=expression::MAX_TERMS).contains(&parsed.numbers.len()));
        match expression::parse(&format!("({text})")) {
            Ok(again) => assert_eq!(again, parsed),
            Err(fault) => assert!(matches!(fault, expression::Fault::TooLong | expression::Fault::TooDeep)),
        }
    }
});
