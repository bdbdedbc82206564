//! What can be known about hooks before a run begins, and is not said by the recipe alone: whether the prompts of a
//! judge render, whether its key is there, whether the problems of another task can be asked.
//!
//! `ppo-train plan` shows all of it; a run that lacks something does not begin. What is certain to fail hours later is
//! an error now.

use super::judges::asked;
use super::transfer;
use crate::endpoint::{Settings, USUAL_KEY};
use crate::judge::Prompts;
use crate::plan::Plan;
use crate::recipe::Judge;
use anyhow::{Context, Result};

/// What a run lacks, in sentences for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lack {
    /// Without this it cannot do what it is asked for.
    pub errors: Vec<String>,
    /// This may be meant so.
    pub warnings: Vec<String>,
}

/// Checks the hooks of a plan.
///
/// # Errors
/// Bad input: prompts, a body or problems that cannot be used.
pub fn check(plan: &Plan) -> Result<Lack> {
    let hooks = &plan.recipe.hooks;
    let mut lack = Lack::default();
    for (name, judge) in hooks.judges() {
        let prompts = match judge {
            Judge::Endpoint(endpoint) => {
                key(name, &asked(endpoint)?, &mut lack);
                endpoint.prompts.as_deref()
            }
            Judge::Local(local) => local.prompts.as_deref(),
            Judge::Lexical => None,
        };
        Prompts::new(prompts).with_context(|| format!("{name}.prompts"))?;
    }
    if let Some(settings) = &hooks.transfer {
        transfer::check(plan, settings)?;
    }
    Ok(lack)
}

/// Whether the key that the endpoint of a judge may want is in the environment.
fn key(judge: &str, settings: &Settings, lack: &mut Lack) {
    match settings.key() {
        Ok(None) if !settings.is_here() => {
            let what = format!("the environment variable {USUAL_KEY} is not set: {} gets no key", settings.url);
            lack.warnings.push(what);
        }
        Ok(_) => {}
        Err(why) => lack.errors.push(format!("{judge}.key_env: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_named_must_be_there() {
        let of = |url: &str, name: &str| {
            let mut lack = Lack::default();
            let settings = Settings { key_env: name.into(), ..Settings::new(url, "tiny") };
            key("hooks.persona.judge", &settings, &mut lack);
            (lack.errors.len(), lack.warnings.len())
        };
        assert_eq!(of("https://example.org/v1", "PPO_TRAIN_TEST_NO_SUCH_KEY"), (1, 0));
        if std::env::var_os(USUAL_KEY).is_none() {
            assert_eq!(of("https://example.org/v1", USUAL_KEY), (0, 1));
            assert_eq!(of("http://localhost:8000/v1", USUAL_KEY), (0, 0));
            assert_eq!(of("http://127.0.0.1:8000/v1", USUAL_KEY), (0, 0));
        }
    }
}
