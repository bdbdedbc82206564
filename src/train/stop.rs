//! The wish to stop, which signals may set at any time.

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

    /// Called where nothing is left to save.
    ///
    /// # Errors
    /// `Stopped` when a rank wants it.
    pub fn check(&self, comm: &dyn Comm) -> Result<()> {
        if comm.any(self.is_wanted())? { Err(Stopped.into()) } else { Ok(()) }
    }
}
