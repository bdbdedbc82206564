//! A request to stop, which a signal may make at any time.

use crate::Stopped;
use crate::dist::Comm;
use anyhow::Result;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that is set once.
#[derive(Clone, Default)]
pub struct Stop(pub Arc<AtomicBool>);

impl Stop {
    pub fn is_wanted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Called when there is nothing to save.
    ///
    /// # Errors
    /// `Stopped` if any rank wants to stop.
    pub fn check(&self, comm: &dyn Comm) -> Result<()> {
        if comm.any(self.is_wanted())? { Err(Stopped::RUN.into()) } else { Ok(()) }
    }
}
