//! Sparse autoencoders over the residual stream: reading and writing their folders, encoding traces, training small
//! ones, and what activates a feature.
//!
//! Shapes: N tokens, H hidden, F features.

mod autoencoder;
mod buffer;
mod contexts;
mod controls;
mod coverage;
mod files;
mod layouts;
mod lists;
mod moments;
mod settings;
mod stream;
mod student;
mod train;
mod write;

pub use autoencoder::{Activation, Sae, Scaling};
pub use contexts::{Context, Contexts, page};
pub use controls::{matched, read_figures};
pub use coverage::{Diversity, diversity};
pub use files::{Hook, read};
pub use lists::Lists;
pub use moments::{FeatureFigures, Moments};
pub use settings::{Settings, Shape};
pub use stream::{Columns, Residuals, Text, texts};
pub use train::{Fit, Trained, train};
pub use write::write;
