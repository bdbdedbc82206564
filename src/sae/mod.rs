//! Sparse autoencoders over the residual stream: reading and writing their folders, encoding traces, training small
//! ones, and what activates a feature.
//!
//! Shapes: N tokens, H hidden, F features.

mod autoencoder;
mod contexts;
mod coverage;
mod files;
mod lists;
mod moments;
mod stream;
mod train;

pub use autoencoder::{Activation, Sae, Scaling};
pub use contexts::{Context, Contexts, page};
pub use coverage::{Diversity, diversity};
pub use files::{Hook, read, write};
pub use lists::Lists;
pub use moments::{FeatureFigures, Moments};
pub use stream::{Residuals, Text, texts};
pub use train::{Fit, Settings, Shape, Trained, train};
