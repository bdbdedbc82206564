//! Training: `ppo` is the loop on one screen.
//!
//! prompts -> rollouts -> estimates -> experience -> updates -> record -> hooks (evaluation, checkpoint, ...).

pub mod batch;
mod choices;
pub mod clock;
pub mod descent;
pub mod estimates;
pub mod evaluate;
mod exchange;
pub mod experience;
pub mod hook;
mod identities;
pub mod interrupted;
mod layout;
pub mod learner;
pub mod not_finite;
pub mod operations;
pub mod ppo;
pub mod pulse;
pub mod rollouts;
pub mod sft;
pub mod stop;
pub mod trainer;
pub mod update;
pub mod watch;
