//! A hook, as small as one can be: counts the steps in a file of the run folder.

use crate::train::hook::{Hook, Moment};
use anyhow::Result;

pub struct CountSteps {
    pub wanted: bool,
}

impl Hook for CountSteps {
    fn after_step(&mut self, moment: &mut Moment) -> Result<()> {
        if self.wanted {
            std::fs::write(moment.folder.path().join("steps"), moment.state.step.to_string())?;
        }
        Ok(())
    }
}
