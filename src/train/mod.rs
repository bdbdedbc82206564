//! Training: `ppo` is the loop on one screen.
//!
//! prompts -> generate -> grade -> estimate -> advantages -> update -> record -> evaluation -> checkpoint -> stop.

pub mod batch;
pub mod clock;
pub mod evaluate;
pub mod experience;
pub mod hook;
mod identities;
pub mod learner;
pub mod ppo;
mod record;
pub mod sft;
pub mod stop;
pub mod update;
