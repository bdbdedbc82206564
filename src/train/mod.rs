//! Training: `ppo` is the loop on one screen, `run` what surrounds it.
//!
//! prompts -> generate -> grade -> estimate -> advantages -> update -> record -> evaluation -> checkpoint -> stop.

pub mod batch;
pub mod evaluate;
pub mod experience;
mod identities;
pub mod learner;
pub mod ppo;
mod record;
pub mod run;
pub mod sft;
pub mod text;
pub mod update;
