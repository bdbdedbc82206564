//! TensorBoard event files, using the message types and the record framing of tensorboard-rs.
//!
//! Its own file writer is not used: its thread panics on a full disk, its `flush` does not wait, and texts and
//! histograms are unimplemented. Records are framed in memory (`RecordWriter` over a `Vec`) and appended by `LogFile`.
//!
//! A run has two folders, because TensorBoard keeps one count of steps for each: `sft` and `ppo` (PPO steps and
//! evaluations). Every file begins with a session start, which makes TensorBoard discard that step and later ones from
//! older files of the folder; files are named so that they are read in the order they were begun. The first file has
//! one too, at step 0: one of TensorBoard's two readers treats the first one as the beginning, not as a restart.

use super::log_file::LogFile;
use super::record::{Record, Stage};
use super::sink::Sink;
use protobuf::{Message, RepeatedField};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};
use tensorboard_proto::event::{Event, SessionLog, SessionLog_SessionStatus};
use tensorboard_proto::summary::{Summary, Summary_Value, SummaryMetadata, SummaryMetadata_PluginData};
use tensorboard_proto::tensor::TensorProto;
use tensorboard_proto::tensor_shape::{TensorShapeProto, TensorShapeProto_Dim};
use tensorboard_proto::types::DataType;
use tensorboard_rs::record_writer::RecordWriter;
use tensorboard_rs::summary;

/// What the name of every event file begins with, before the ten digits of its time.
const PREFIX: &str = "events.out.tfevents.";
/// Buckets of a histogram, equally wide between the least and the greatest value.
const BUCKETS: usize = 30;

pub(super) struct EventFile {
    log: LogFile,
    /// The stages whose records it contains.
    stages: &'static [Stage],
}

impl EventFile {
    /// A new event file in `dir`, created at its first record. `undone`: the first step to discard from older files, if
    /// there is any.
    pub fn new(dir: &Path, stages: &'static [Stage], undone: Option<u64>, warn: fn(&str)) -> Self {
        let newest = newest_time(dir);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = newest.map_or(now.as_secs(), |newest| now.as_secs().max(newest + 1));
        let name = format!("{PREFIX}{time:010}.{}.ppo-train", std::process::id());
        let mut file = Self { log: LogFile::new(dir.join(name), 0, warn), stages };

        let mut version = Event::new();
        version.set_wall_time(now.as_secs_f64());
        version.set_file_version("brain.Event:2".into());
        file.log.queue(framed(&version));
        if let Some(step) = if newest.is_some() { undone } else { Some(0) } {
            let mut session = SessionLog::new();
            session.set_status(SessionLog_SessionStatus::START);
            let mut start = Event::new();
            start.set_wall_time(now.as_secs_f64());
            start.set_step(step as i64);
            start.set_session_log(session);
            file.log.queue(framed(&start));
        }
        file
    }
}

impl Sink for EventFile {
    /// A record is one event.
    fn write(&mut self, record: &Record) {
        if !self.stages.contains(&record.stage) {
            return;
        }
        let mut values = Vec::new();
        for (name, value) in record.scalars() {
            values.extend(summary::scalar(name, value as f32).take_value());
        }
        for (tag, numbers) in record.histograms() {
            values.extend(histogram(tag, numbers).into_iter().flat_map(|mut summary| summary.take_value()));
        }
        values.extend(record.texts().map(|(tag, text)| text_value(tag, text)));

        let mut summary = Summary::new();
        summary.set_value(RepeatedField::from_vec(values));
        let mut event = Event::new();
        event.set_wall_time(record.time);
        event.set_step(record.step as i64);
        event.set_summary(summary);
        self.log.append(framed(&event));
    }

    fn flush(&mut self) {
        self.log.flush();
    }
}

/// The time in the name of the newest event file of a folder.
fn newest_time(dir: &Path) -> Option<u64> {
    let names = std::fs::read_dir(dir).ok()?.flatten().map(|entry| entry.file_name());
    names.filter_map(|name| name.to_str()?.strip_prefix(PREFIX)?.get(..10)?.parse().ok()).max()
}

/// Length, its checksum, the message, its checksum.
fn framed(event: &Event) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Neither can fail: all fields are ours and the target is memory. An empty frame is skipped by readers.
    let message = event.write_to_bytes().unwrap_or_default();
    let _ = RecordWriter::new(&mut bytes).write(&message);
    bytes
}

/// A histogram of the finite values; none if there are no such values.
fn histogram(tag: &str, values: &[f64]) -> Option<Summary> {
    let values: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    let min = values.iter().copied().reduce(f64::min)?;
    let max = values.iter().copied().reduce(f64::max)?;
    let width = (max - min) / BUCKETS as f64;
    let mut counts = vec![0.0; if width > 0.0 { BUCKETS } else { 1 }];
    let last = counts.len() - 1;
    for value in &values {
        // If the width is 0, the quotient is NaN, which casts to 0.
        counts[(((value - min) / width) as usize).min(last)] += 1.0;
    }
    let mut limits: Vec<f64> = (1..counts.len()).map(|i| min + width * i as f64).collect();
    limits.push(max);
    let sum = values.iter().sum();
    let squares = values.iter().map(|value| value * value).sum();
    Some(summary::histogram_raw(tag, min, max, values.len() as f64, sum, squares, &limits, &counts))
}

/// A text for TensorBoard's text page. The page renders markdown and drops unknown tags such as `<think>`, so every
/// line is indented: a code block, shown as it is.
fn text_value(tag: &str, text: &str) -> Summary_Value {
    let block: Vec<String> = text.lines().map(|line| format!("    {line}")).collect();

    let mut dimension = TensorShapeProto_Dim::new();
    dimension.set_size(1);
    let mut shape = TensorShapeProto::new();
    shape.set_dim(RepeatedField::from_vec(vec![dimension]));
    let mut tensor = TensorProto::new();
    tensor.set_dtype(DataType::DT_STRING);
    tensor.set_tensor_shape(shape);
    tensor.set_string_val(RepeatedField::from_vec(vec![block.join("\n").into_bytes()]));

    let mut plugin = SummaryMetadata_PluginData::new();
    plugin.set_plugin_name("text".into());
    let mut metadata = SummaryMetadata::new();
    metadata.set_plugin_data(plugin);

    let mut value = Summary_Value::new();
    value.set_tag(tag.into());
    value.set_metadata(metadata);
    value.set_tensor(tensor);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_every_finite_value_once() {
        for values in [vec![0.0, 0.1, 1.0, 1.0, f64::NAN], vec![3.0; 4], vec![-1e300, 0.5, 2.0, 1e300]] {
            let mut summary = histogram("x", &values).unwrap();
            let histogram = summary.take_value().pop().unwrap().take_histo();
            assert_eq!(histogram.get_bucket().iter().sum::<f64>(), 4.0, "{values:?}");
            assert_eq!(histogram.get_bucket().len(), histogram.get_bucket_limit().len());
        }
        assert!(histogram("x", &[f64::NAN]).is_none());
    }
}
