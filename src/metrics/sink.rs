//! The seam between records and files.

use super::record::Record;

/// Where records go. Neither call fails: what cannot be written now is tried again with the next record.
pub trait Sink {
    fn write(&mut self, record: &Record);

    /// Waits until the disk holds everything that could be written.
    fn flush(&mut self);
}
