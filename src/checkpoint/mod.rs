//! Checkpoints: folders that are either complete or absent.
//!
//! `RUN/step_000040/` holds `model/` and `critic/` (Hugging Face folders), `optimizer.safetensors`, `state.json`,
//! `recipe.toml` and, written last, `COMPLETE` with the checksums of all of them. A folder is filled under a temporary
//! name, synced to disk, and renamed.
//! `RUN/lock` keeps a second process out.

mod export;
mod files;
mod folder;
mod lock;
mod run_folder;
mod sums;
mod verify;

pub use crate::files::write_file;
pub use export::{export_critic, export_model};
pub use files::{
    load_parts, load_tensors, read_tensors, save_critic, save_model, save_parts, save_tensors, write_text,
};
pub use folder::{is_complete, is_of_room, link_folder, place, tolerate, write_folder};
pub use lock::Lock;
pub use run_folder::{Checkpoint, RECORD, RunFolder};
pub use sums::{Sum, Sums};
pub use verify::{Verdict, ensure_whole, verify};
