//! How many operations per second a device multiplies matrices with at its best: what MFU is a share of.

use super::machine::Machine;
use crate::model::ModelConfig;
use crate::plan::Plan;
use crate::recipe::Precision;
use crate::torch;
use anyhow::Result;
use std::time::Duration;
use tch::{Device, Kind};

/// Operations of a layer's product that is measured on a CPU, as far as its rows can be chosen: some milliseconds.
const OPERATIONS: i64 = 2_000_000_000;
/// Rows of a product that is measured: fewer do not fill a device, more take no better.
const CPU_ROWS: [i64; 2] = [256, 4096];
const GPU_ROWS: i64 = 8192;
/// Rows and columns of the square product on a CPU.
const CPU_SQUARE: i64 = 1024;

/// The fastest product of three, in operations per second, each measured for so long: the up and the down projection of
/// a layer, and a square one.
pub fn measured_peak(config: &ModelConfig, kind: Kind, device: Device, time: Duration) -> f64 {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let (rows, square) = match device {
        Device::Cpu => ((OPERATIONS / (2 * hidden * inner)).clamp(CPU_ROWS[0], CPU_ROWS[1]), CPU_SQUARE),
        _ => (GPU_ROWS, GPU_ROWS),
    };
    torch::products(&[[rows, hidden, inner], [rows, inner, hidden], [square; 3]], kind, device, time)
}

impl Plan {
    /// Operations per second of this process's device at its best: `machine.peak_tflops`, the peak of a GPU that is
    /// known, or what is measured within a fraction of a second.
    ///
    /// # Errors
    /// Bad input: a device that this machine does not have.
    pub fn peak_rate(&self) -> Result<f64> {
        let machine = &self.recipe.machine;
        if let Some(tflops) = machine.peak_tflops {
            return Ok(tflops * 1e12);
        }
        let device = self.device()?;
        let cards = torch::Machine::here(&machine.device).gpus;
        // Of several kinds it is not known which one this is.
        let same = device != Device::Cpu && cards.windows(2).all(|pair| pair[0] == pair[1]);
        let known = cards.first().filter(|_| same).and_then(|card| Machine::of_card(card));
        Ok(match known {
            Some(known) => data_sheet(&known, machine.precision, machine.tf32),
            None => measured_peak(&self.config, self.kind(), device, Duration::from_millis(20)),
        })
    }
}

/// The peak of a data sheet, without sparsity; TF32 has half the rate of bfloat16.
fn data_sheet(known: &Machine, precision: Precision, tf32: bool) -> f64 {
    1e12 * match precision {
        Precision::Bfloat16 => known.bfloat16_tflops,
        Precision::Float32 if tf32 => known.bfloat16_tflops / 2.0,
        Precision::Float32 => known.float32_tflops,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::Bench;

    #[test]
    fn the_peak_is_the_key_or_the_card_s_or_measured() {
        let peak = |card: &str, precision, tf32| Machine::of_card(card).map(|card| data_sheet(&card, precision, tf32));
        assert_eq!(peak("NVIDIA H100 80GB HBM3", Precision::Bfloat16, false), Some(989e12));
        assert_eq!(peak("NVIDIA A100-SXM4-80GB", Precision::Float32, true), Some(156e12));
        assert_eq!(peak("NVIDIA H200", Precision::Float32, false), Some(67e12));
        for other in ["NVIDIA H100 PCIe", "NVIDIA H100 NVL", "NVIDIA H200 NVL", "NVIDIA GeForce RTX 3090"] {
            assert_eq!(peak(other, Precision::Bfloat16, false), None, "{other}");
        }
        let bench = Bench::new();
        let load = |more: &[&str]| bench.load(bench.good(), &[&["machine.device=cpu"], more].concat()).unwrap();
        assert_eq!(load(&["machine.peak_tflops=0.25"]).peak_rate().unwrap(), 0.25e12);
        let measured = load(&["machine.precision=float32"]).peak_rate().unwrap();
        assert!(measured > 1e8 && measured < 1e16, "{measured}");
    }
}
