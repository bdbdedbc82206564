//! How many operations per second a device multiplies matrices with at its best: what MFU is a share of.

use super::machine::Machine;
use crate::model::ModelConfig;
use crate::plan::Plan;
use crate::recipe::Precision;
use crate::torch::{self, Fault};
use anyhow::Result;
use std::time::Duration;
use tch::{Device, Kind};

/// Operations of a layer's product that is measured on a CPU, as far as its rows can be chosen: some milliseconds.
const OPERATIONS: i64 = 2_000_000_000;
/// Rows of a product that is measured on a CPU: fewer are too few for its speed, more do not add to it.
const CPU_ROWS: [i64; 2] = [64, 4096];
/// The same on a GPU, which has other things in its memory: halved until they fit, down to the second.
const GPU_ROWS: [i64; 2] = [8192, 512];
/// Rows and columns of the square product on a CPU.
const CPU_SQUARE: i64 = 1024;

/// The fastest product of three, in operations per second, each measured for so long: the up and the down projection of
/// a layer, and a square one.
///
/// # Errors
/// There is no memory for products, even of few rows.
pub fn measured_peak(config: &ModelConfig, kind: Kind, device: Device, time: Duration) -> Result<f64> {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let measured = |rows, square: i64| {
        let shapes = [[rows, hidden, inner], [rows, inner, hidden], [square; 3]];
        torch::catching(|| Ok(torch::products(&shapes, kind, device, time)))
    };
    match device {
        Device::Cpu => measured((OPERATIONS / (2 * hidden * inner)).clamp(CPU_ROWS[0], CPU_ROWS[1]), CPU_SQUARE),
        _ => halved_until_it_fits(GPU_ROWS, |rows| measured(rows, rows)),
    }
}

/// What is `measured` with so many rows, or half as many while memory runs out, down to the `least`.
fn halved_until_it_fits([most, least]: [i64; 2], measured: impl Fn(i64) -> Result<f64>) -> Result<f64> {
    let mut rows = most;
    loop {
        match measured(rows) {
            Err(error) if Fault::memory(&error).is_some() && rows / 2 >= least => rows /= 2,
            done => return done,
        }
    }
}

impl Plan {
    /// Operations per second of this process's device at its best: `machine.peak_tflops`, the peak of a GPU that is
    /// known, or what is measured within a fraction of a second.
    ///
    /// # Errors
    /// Bad input: a device that this machine does not have. There is no memory to measure it.
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
            None => measured_peak(&self.config, self.kind(), device, Duration::from_millis(20))?,
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

    #[test]
    fn without_memory_fewer_rows_are_measured() {
        let fits = |most: i64| {
            move |rows| match rows <= most {
                true => Ok(rows as f64),
                false => Err(Fault::said("CUDA out of memory. Tried to allocate 2.00 GiB.").into()),
            }
        };
        assert_eq!(halved_until_it_fits([64, 4], fits(20)).unwrap(), 16.0);
        assert_eq!(halved_until_it_fits([64, 4], fits(4)).unwrap(), 4.0);
        assert!(Fault::memory(&halved_until_it_fits([64, 4], fits(3)).unwrap_err()).is_some());
        let other = halved_until_it_fits([64, 4], |rows| anyhow::bail!("not for {rows} rows"));
        assert_eq!(other.unwrap_err().to_string(), "not for 64 rows");
    }
}
