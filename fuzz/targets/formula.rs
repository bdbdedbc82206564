//! Formulas of models, mediations and clusters: what is read is written so that it is read again; what is not read has
//! its fault within the text, and a message that shows it.

use ppo_train::regression::parse::{cross, model, path};
use ppo_train::regression::{Fault, MAX_LENGTH};
use std::fmt::Display;

pub fn run(data: &[u8]) {
    super::text(data, |text| {
        all(text, model);
        all(text, path);
        all(text, cross);
    });
}

fn all<T: Display>(text: &str, read: fn(&str) -> Result<T, Fault>) {
    match read(text) {
        Ok(formula) => {
            let written = formula.to_string();
            match read(&written) {
                Ok(again) => assert_eq!(again.to_string(), written),
                // Products are written out, which may take more room than a formula has.
                Err(fault) => assert!(written.len() > MAX_LENGTH, "{written}: {fault}"),
            }
        }
        Err(fault) => {
            assert!(fault.span.start <= fault.span.end && fault.span.end <= text.len(), "{:?}", fault.span);
            super::refused(&fault, text.len());
            // The text is shown in full, each character in a few bytes.
            super::refused(fault.shown("--model", text), 8 * text.len());
        }
    }
}
