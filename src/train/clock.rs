//! Where the time of a step goes.

use super::batch::Batch;
use crate::metrics::Record;
use crate::torch::{device_memory, resident_bytes, wait_for};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::time::Instant;
use tch::Device;

/// Wall-clock seconds of the stages of a step, also of one that is interrupted and goes on in another process.
#[derive(Deserialize, Serialize)]
pub struct Clock {
    /// A device that works on while the host does something else.
    #[serde(skip)]
    device: Option<Device>,
    #[serde(skip, default = "Instant::now")]
    lap: Instant,
    stages: Vec<(Cow<'static, str>, f64)>,
}

impl Default for Clock {
    fn default() -> Self {
        Self::start()
    }
}

impl Clock {
    pub fn start() -> Self {
        Self { device: None, lap: Instant::now(), stages: Vec::new() }
    }

    /// The same, for stages that end when this device has done its work.
    pub fn on(self, device: Device) -> Self {
        Self { device: Some(device), ..self }
    }

    /// Ends a stage, which took the time since the previous one ended.
    pub fn lap(&mut self, stage: &'static str) {
        self.device.into_iter().for_each(wait_for);
        let now = Instant::now();
        let seconds = (now - self.lap).as_secs_f64();
        self.lap = now;
        match self.stages.iter_mut().find(|(known, _)| known == stage) {
            Some((_, spent)) => *spent += seconds,
            None => self.stages.push((stage.into(), seconds)),
        }
    }

    /// The seconds of a stage, if it has ended.
    pub fn seconds(&self, stage: &str) -> Option<f64> {
        self.stages.iter().find(|(known, _)| known == stage).map(|(_, seconds)| *seconds)
    }

    /// The seconds of all stages.
    pub fn total(&self) -> f64 {
        self.stages.iter().map(|(_, seconds)| seconds).sum()
    }

    /// Writes the stages' seconds as `timing_s/`.
    pub fn record_stages(&self, record: &mut Record) {
        for (stage, seconds) in &self.stages {
            record.set(format!("timing_s/{stage}"), *seconds);
        }
    }

    /// Writes the stages' seconds, their milliseconds per token, and the step's throughput per rank and memory.
    pub fn record(&self, batch: &Batch, record: &mut Record) {
        self.record_stages(record);
        let seconds = self.total() + self.lap.elapsed().as_secs_f64();
        let ranks = batch.tokens_of_ranks();
        let tokens: f64 = ranks.iter().sum();
        let response_tokens = batch.sequences.iter().map(|s| s.response.len()).sum::<usize>() as f64;
        for (stage, spent) in &self.stages {
            // Generation is measured per token it writes, the other stages per token they read.
            let tokens = if stage == "gen" { response_tokens } else { tokens };
            record.set(format!("timing_per_token_ms/{stage}"), 1e3 * spent / tokens.max(1.0));
        }
        record.set("global_seqlen/min", ranks.iter().copied().fold(f64::INFINITY, f64::min));
        record.set("global_seqlen/max", ranks.iter().copied().fold(0.0, f64::max));
        record.set("global_seqlen/mean", tokens / ranks.len() as f64);
        record.set("timing_s/step", seconds);
        record.set("perf/time_per_step", seconds);
        record.set("perf/total_num_tokens", tokens);
        record.set("perf/throughput", tokens / seconds / ranks.len() as f64);
        let gb = |bytes: f64| bytes / f64::from(1 << 30);
        if let Some(bytes) = resident_bytes() {
            record.set("perf/cpu_memory_used_gb", gb(bytes as f64));
        }
        if let Some(memory) = device_memory(batch.device) {
            record.set("perf/max_memory_allocated_gb", gb(memory.most_held as f64));
            record.set("perf/max_memory_reserved_gb", gb(memory.most_taken as f64));
        }
    }
}
