//! The wish to stop, which signals may set at any time.

use crate::Stopped;
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

    /// # Errors
    /// `Stopped` when it is wanted. Called where nothing is left to save.
    pub fn check(&self) -> Result<()> {
        if self.is_wanted() { Err(Stopped.into()) } else { Ok(()) }
    }
}
