//! Checkpoints: folders that are either complete or absent.
//!
//! `RUN/step_000040/` holds `model/` and `critic/` (Hugging Face folders), `optimizer.safetensors`, `state.json`,
//! `recipe.toml` and, written last, `COMPLETE`. A folder is filled under a temporary name, synced to disk, and renamed.
//! `RUN/lock` keeps a second process out.

mod files;
mod folder;
mod lock;

pub use files::{load_tensors, save_critic, save_model, save_tensors};
pub use folder::{export, is_complete, latest, list, prune, step_dir, sweep, write_file, write_folder, write_unmarked};
pub use lock::Lock;
