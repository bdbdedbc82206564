//! A user's template renders a problem or is refused, with a bounded amount of work and text.

use ppo_train::BadInput;
use ppo_train::text::{PromptTemplate, opens_think};
use serde_json::json;

pub fn run(data: &[u8]) {
    super::text(data, |text| {
        let variables = json!({"numbers": [5, 7, 12], "target": 59, "claim": "It is {{ so }}."});
        let rendered = PromptTemplate::of_source("t", text).and_then(|template| template.render(&variables));
        match rendered {
            Ok(prompt) => {
                let _ = opens_think(&prompt);
            }
            Err(error) => {
                assert!(error.is::<BadInput>());
                super::refused(error, text.len());
            }
        }
    });
}
