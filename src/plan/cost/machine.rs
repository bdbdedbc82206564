//! What a machine does per second: peaks, and the shares of them that are reached.

use crate::BadInput;
use crate::recipe::{self, Precision};
use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_inline_default::serde_inline_default;
use std::path::Path;

/// A kind of machine with some GPUs, or with a CPU alone. The peaks are those of data sheets; shares and what the host
/// does are fitted to the steps of a 3B model on one H200 (docs/clusters.md), and for other machines assumptions.
#[serde_inline_default]
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    pub name: String,
    /// Whether processes have a GPU each; otherwise each has a machine.
    #[serde_inline_default(true)]
    pub gpu: bool,
    /// Processes on a machine.
    #[serde_inline_default(8)]
    #[schemars(range(min = 1, max = 1024))]
    pub per_node: usize,
    /// Memory of a device in GB.
    #[schemars(range(min = 0.1, max = 1e6))]
    pub memory_gb: f64,
    /// Products in bfloat16, 10^12 operations per second, without sparsity.
    #[schemars(range(min = 1e-3, max = 1e6))]
    pub bfloat16_tflops: f64,
    /// The same in float32.
    #[schemars(range(min = 1e-3, max = 1e6))]
    pub float32_tflops: f64,
    /// Share of that which products reach.
    #[serde_inline_default(0.5)]
    #[schemars(range(min = 0.01, max = 1.0))]
    pub products_share: f64,
    /// A device's memory, GB per second.
    #[schemars(range(min = 0.1, max = 1e6))]
    pub memory_gb_s: f64,
    /// Share of that which is reached.
    #[serde_inline_default(0.7)]
    #[schemars(range(min = 0.01, max = 1.0))]
    pub memory_share: f64,
    /// Microseconds that starting a kernel takes.
    #[serde_inline_default(6.0)]
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub launch_us: f64,
    /// Between the devices of a machine, each way, GB per second and device.
    #[schemars(range(min = 0.001, max = 1e6))]
    pub link_gb_s: f64,
    /// Between machines, each way, Gb per second and machine.
    #[serde_inline_default(400.0)]
    #[schemars(range(min = 0.01, max = 1e6))]
    pub network_gbit_s: f64,
    /// Share of both that is reached.
    #[serde_inline_default(0.7)]
    #[schemars(range(min = 0.01, max = 1.0))]
    pub link_share: f64,
    /// Between a device and its host, each way, GB per second.
    #[serde_inline_default(25.0)]
    #[schemars(range(min = 0.01, max = 1e6))]
    pub host_gb_s: f64,
    /// A device's share of the host's memory, GB per second.
    #[serde_inline_default(40.0)]
    #[schemars(range(min = 0.01, max = 1e6))]
    pub host_memory_gb_s: f64,
    /// What MPI sums or shares in the host's memory, GB per second and process.
    #[serde_inline_default(1.5)]
    #[schemars(range(min = 0.001, max = 1e6))]
    pub mpi_gb_s: f64,
}

/// Machines by name, as files of them would be written, and what the driver calls their cards.
pub(super) const KNOWN: [(&str, &str, &[&str]); 3] = [
    (
        "h100",
        "name = 'H100 80 GB SXM'\nmemory_gb = 80\nbfloat16_tflops = 989\nfloat32_tflops = 67\nmemory_gb_s = 3350\n\
         link_gb_s = 450\nhost_gb_s = 50\nhost_memory_gb_s = 100\nproducts_share = 0.6\n",
        &["NVIDIA H100 80GB HBM3"],
    ),
    (
        "a100",
        "name = 'A100 80 GB SXM'\nmemory_gb = 80\nbfloat16_tflops = 312\nfloat32_tflops = 19.5\nmemory_gb_s = 2039\n\
         link_gb_s = 300\nnetwork_gbit_s = 200\n",
        &["NVIDIA A100-SXM4-80GB", "NVIDIA A100-SXM4-40GB", "NVIDIA A100 80GB PCIe"],
    ),
    (
        "h200",
        "name = 'H200 141 GB SXM'\nmemory_gb = 141\nbfloat16_tflops = 989\nfloat32_tflops = 67\nmemory_gb_s = 4800\n\
         link_gb_s = 450\nhost_gb_s = 50\nhost_memory_gb_s = 100\nproducts_share = 0.6\n",
        &["NVIDIA H200"],
    ),
];

impl Machine {
    /// One that has a name here.
    pub(super) fn known(name: &str) -> Result<Self> {
        let (_, text, _) = KNOWN.iter().find(|(known, ..)| *known == name).context("no such machine")?;
        Ok(toml::from_str(text)?)
    }

    /// The one whose card the driver calls by this name.
    pub(super) fn of_card(card: &str) -> Option<Self> {
        let (_, text, _) = KNOWN.iter().find(|(.., cards)| cards.contains(&card))?;
        toml::from_str(text).ok()
    }

    /// Operations of products per second.
    pub fn products(&self, precision: Precision) -> f64 {
        let peak = match precision {
            Precision::Bfloat16 => self.bfloat16_tflops,
            Precision::Float32 => self.float32_tflops,
        };
        peak * 1e12 * self.products_share
    }

    /// Bytes of memory traffic per second.
    pub fn traffic(&self) -> f64 {
        self.memory_gb_s * 1e9 * self.memory_share
    }

    /// Bytes per second that each of so many processes sends, and receives: a ring goes through all machines, and is as
    /// fast as its slowest link.
    pub fn link(&self, processes: usize) -> f64 {
        let network = self.network_gbit_s / 8.0;
        let slowest = if processes > self.per_node { self.link_gb_s.min(network) } else { self.link_gb_s };
        slowest * 1e9 * self.link_share
    }

    /// The same over MPI, through the hosts' memory.
    pub fn mpi(&self, processes: usize) -> f64 {
        let network = self.network_gbit_s / 8.0 * self.link_share;
        (if processes > self.per_node { self.mpi_gb_s.min(network) } else { self.mpi_gb_s }) * 1e9
    }

    /// Bytes per second between a device and its host.
    pub fn host_link(&self) -> f64 {
        self.host_gb_s * 1e9
    }

    /// Bytes of traffic per second in the host's memory, for each process.
    pub fn host_traffic(&self) -> f64 {
        self.host_memory_gb_s * 1e9
    }
}

pub(super) fn read(name: &str) -> Result<Machine, BadInput> {
    let path = Path::new(name);
    if !path.exists() && !name.contains(['.', '/']) {
        let names = KNOWN.map(|(known, ..)| known).join(", ");
        return Err(BadInput(format!(
            "{name:?} is not a machine\nexpected {names}, here, or a TOML file of a machine"
        )));
    }
    Ok(recipe::read_keys(path, "machine file")?.0)
}
