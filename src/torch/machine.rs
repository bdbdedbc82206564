//! What this machine computes with. Where two machines differ in it, the same numbers may be rounded differently.

use super::{capability, named_device, version};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use tch::Device;

/// The machine as a run's results depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    pub libtorch: String,
    /// Threads that share an operation on the CPU.
    pub threads: usize,
    /// As a recipe names it.
    pub device: String,
    /// The models of the GPUs, unless the device is the CPU.
    pub gpus: Vec<String>,
    pub processor: String,
    /// The instructions that libtorch's own kernels use: DEFAULT, AVX2, AVX512, ...
    pub capability: String,
    /// The processor's vector and matrix instructions, among which oneDNN and MKL choose.
    pub features: Vec<String>,
    /// The C library, whose functions the host computes with.
    pub libc: String,
    /// Variables of the environment that choose kernels or threads.
    pub variables: BTreeMap<String, String>,
    /// The operating system, on which no result depends.
    pub system: String,
}

/// What the names of instruction sets begin with, as Linux spells them.
const FEATURES: [&str; 8] = ["avx", "amx", "fma", "f16c", "asimd", "sve", "bf16", "i8mm"];
/// Prefixes of variables that libtorch, its libraries and their threads read. None of them holds a secret.
const VARIABLES: [&str; 9] =
    ["ATEN_", "DNNL_", "ONEDNN_", "MKL_", "OMP_", "GOMP_", "KMP_", "CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE"];

impl Machine {
    /// This one, with a device that a recipe names.
    pub fn here(device: &str) -> Self {
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |names: &[&str]| {
            let named = |line: &&str| names.iter().any(|name| line.starts_with(name));
            cpu.lines().find(named).and_then(|line| Some(line.split_once(':')?.1.trim().to_string()))
        };
        let flags = field(&["flags", "Features"]).unwrap_or_default();
        let vector = |flag: &&str| FEATURES.iter().any(|feature| flag.starts_with(feature));
        let mut features: Vec<String> = flags.split(' ').filter(vector).map(String::from).collect();
        features.sort_unstable();
        let chosen = |name: &str| VARIABLES.iter().any(|prefix| name.starts_with(prefix));
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        };
        let system = rustix::system::uname();
        let part = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
        Self {
            libtorch: version(),
            threads: tch::get_num_threads().max(1) as usize,
            device: device.to_string(),
            gpus: if named_device(device) == Some(Device::Cpu) { vec![] } else { gpus() },
            processor: field(&["model name", "CPU part"]).unwrap_or_else(|| "unknown".into()),
            capability: capability(),
            features,
            libc: super::libc_version(),
            variables: std::env::vars_os().filter_map(text).filter(|(name, _)| chosen(name)).collect(),
            system: [system.sysname(), system.release(), system.machine()].map(part).join(" "),
        }
    }

    /// How another machine differs from this one in what results depend on, each as words.
    pub fn differences(&self, now: &Self) -> Vec<String> {
        let list = |list: &[String]| if list.is_empty() { "none".to_string() } else { list.join(" ") };
        let variables = |machine: &Self| -> Vec<String> {
            machine.variables.iter().map(|(name, value)| format!("{name}={value}")).collect()
        };
        let mut found = Vec::new();
        for (name, was, is) in [
            ("libtorch", self.libtorch.clone(), now.libtorch.clone()),
            ("threads", self.threads.to_string(), now.threads.to_string()),
            ("device", self.device.clone(), now.device.clone()),
            ("GPUs", list(&self.gpus), list(&now.gpus)),
            ("processor", self.processor.clone(), now.processor.clone()),
            ("libtorch's instructions", self.capability.clone(), now.capability.clone()),
            ("C library", self.libc.clone(), now.libc.clone()),
            ("variables", list(&variables(self)), list(&variables(now))),
        ] {
            if was != is {
                found.push(format!("{name} {is} (was {was})"));
            }
        }
        if self.features != now.features {
            let only = |own: &[String], other: &[String]| {
                let missing: Vec<String> = own.iter().filter(|feature| !other.contains(feature)).cloned().collect();
                list(&missing)
            };
            let (more, fewer) = (only(&now.features, &self.features), only(&self.features, &now.features));
            found.push(format!("processor features {more} more, {fewer} fewer"));
        }
        found
    }
}

/// The models of NVIDIA's GPUs, as their driver says.
fn gpus() -> Vec<String> {
    let model = |entry: std::io::Result<fs::DirEntry>| {
        let text = fs::read_to_string(entry.ok()?.path().join("information")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("Model:")).map(|model| model.trim().to_string())
    };
    let mut all: Vec<String> =
        fs::read_dir("/proc/driver/nvidia/gpus").into_iter().flatten().filter_map(model).collect();
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named_and_the_system_does_not_count() {
        let here = Machine::here("cpu");
        assert!(!here.libtorch.is_empty() && here.threads > 0 && !here.capability.is_empty());
        assert!(here.variables.keys().all(|name| !name.contains("KEY")));
        let text = serde_json::to_string(&here).unwrap();
        assert_eq!(serde_json::from_str::<Machine>(&text).unwrap(), here);
        let other = Machine {
            threads: here.threads + 1,
            processor: "Another".into(),
            features: vec!["avx9".into()],
            system: "Another".into(),
            ..here.clone()
        };
        let differences = here.differences(&other).join(", ");
        assert!(differences.starts_with(&format!(
            "threads {} (was {}), processor Another (was ",
            here.threads + 1,
            here.threads
        )));
        assert!(differences.contains("features avx9 more") && here.differences(&here).is_empty(), "{differences}");
    }
}
