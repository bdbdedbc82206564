//! What `mpirun` and `srun`, or launchers of PyTorch, tell the processes that they start, in variables of the
//! environment.

use crate::bad;
use anyhow::Result;
use std::env;
use std::process::Command;
use std::thread::available_parallelism;

/// How many processes were started together: OpenMPI, MPICH and Intel MPI, Slurm.
const SIZE: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"];
/// Which of all of them this one is.
const RANK: [&str; 3] = ["OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID"];
/// Which of those on this machine this one is; of PyTorch's launchers at last.
const LOCAL_RANK: [&str; 4] = ["OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "LOCAL_RANK", "SLURM_LOCALID"];
/// How many of them are on this machine. Slurm writes `2(x3),1`: two on each of three machines, one on another; the
/// most of them, since more than are here do no harm.
const LOCAL_SIZE: [&str; 4] =
    ["OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "LOCAL_WORLD_SIZE", "SLURM_STEP_TASKS_PER_NODE"];

/// The processes of a run on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// From 0.
    pub rank: usize,
    pub size: usize,
}

/// Where processes meet that have no MPI: at rank 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meeting {
    pub rank: usize,
    pub size: usize,
    /// Host and port.
    pub place: String,
}

/// How many processes `mpirun` or `srun` has started together with this one, if there are others.
pub fn processes() -> Option<usize> {
    first(&SIZE, |name| env::var(name).ok()).filter(|size| *size > 1)
}

/// The place to meet that the environment names, if there are other processes: RANK, WORLD_SIZE, MASTER_ADDR and
/// MASTER_PORT, all of them.
///
/// # Errors
/// Bad input: their values make no sense together.
pub fn meeting() -> Result<Option<Meeting>> {
    meeting_of(|name| env::var(name).ok())
}

/// Whether this is the first of them, or alone.
pub fn is_first() -> bool {
    processes().is_none() || first(&RANK, |name| env::var(name).ok()).is_none_or(|rank| rank == 0)
}

/// Makes a program that this process starts one that is not among them.
pub fn apart(command: &mut Command) -> &mut Command {
    SIZE.iter().chain([&"WORLD_SIZE"]).fold(command, |command, name| command.env_remove(name))
}

/// Those on this machine.
pub fn local() -> Local {
    let together = processes().is_some() || matches!(meeting(), Ok(Some(_)));
    of(together, |name| env::var(name).ok())
}

impl Meeting {
    /// Whether only processes of this machine find the place.
    pub fn is_local(&self) -> bool {
        ["localhost:", "127.", "[::1]:"].iter().any(|start| self.place.starts_with(start))
    }
}

impl Local {
    /// The threads of this process if all on this machine get as many, or none to say if it is alone. A launcher that
    /// binds processes to cores has given each its own.
    pub fn threads(self) -> Option<usize> {
        let bound = available_parallelism().map_or(1, usize::from);
        (self.size > 1).then(|| bound.min(cores() / self.size).max(1))
    }
}

/// The cores of this machine, whichever of them this process may use.
fn cores() -> usize {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let found = stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count();
    if found == 0 { available_parallelism().map_or(1, usize::from) } else { found }
}

fn of(together: bool, variable: impl Fn(&str) -> Option<String>) -> Local {
    if !together {
        return Local { rank: 0, size: 1 };
    }
    let counts = LOCAL_SIZE.iter().find_map(|name| variable(name)).unwrap_or_default();
    let size = counts.split(',').filter_map(leading).max().unwrap_or(1).max(1);
    Local { rank: first(&LOCAL_RANK, &variable).unwrap_or(0), size }
}

fn meeting_of(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Meeting>> {
    // Others use some of these variables for themselves.
    let all = ["WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"].map(&variable);
    let [Some(size), Some(rank), Some(host), Some(port)] = all else { return Ok(None) };
    match (size.parse::<u32>(), rank.parse::<u32>(), port.parse::<u16>()) {
        (Ok(0 | 1), ..) => Ok(None),
        (Ok(size), Ok(rank), Ok(port)) if rank < size && port > 0 => {
            let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host };
            Ok(Some(Meeting { rank: rank as usize, size: size as usize, place: format!("{host}:{port}") }))
        }
        _ => Err(bad!(
            "RANK={rank}, WORLD_SIZE={size} and MASTER_PORT={port} in the environment: expected a rank from 0 to the \
             size - 1, and a port from 1 to 65535; without others, unset them"
        )),
    }
}

/// The number that the first of some variables begins with.
fn first(names: &[&str], variable: impl Fn(&str) -> Option<String>) -> Option<usize> {
    leading(&names.iter().find_map(|name| variable(name))?)
}

fn leading(text: &str) -> Option<usize> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processes_of_a_machine_are_read_from_the_launchers_variables() {
        let local = |variables: &[(&str, &str)]| {
            let variable = |name: &str| variables.iter().find(|(own, _)| *own == name).map(|(_, v)| v.to_string());
            (first(&SIZE, variable), of(true, variable))
        };
        let ompi = [
            ("OMPI_COMM_WORLD_SIZE", "8"),
            ("OMPI_COMM_WORLD_LOCAL_RANK", "3"),
            ("OMPI_COMM_WORLD_LOCAL_SIZE", "4"),
            ("SLURM_STEP_NUM_TASKS", "1"),
        ];
        assert_eq!(local(&ompi), (Some(8), Local { rank: 3, size: 4 }));
        let slurm = [("SLURM_STEP_NUM_TASKS", "7"), ("SLURM_LOCALID", "1"), ("SLURM_STEP_TASKS_PER_NODE", "1,2(x3)")];
        assert_eq!(local(&slurm), (Some(7), Local { rank: 1, size: 2 }));
        // A batch script has the number of its job's tasks, but is alone.
        assert_eq!(local(&[("SLURM_NTASKS", "4")]).0, None);
        assert_eq!(of(false, |_| Some("3".into())), Local { rank: 0, size: 1 });
        assert_eq!(Local { rank: 0, size: 1 }.threads(), None);
        assert_eq!(Local { rank: 0, size: 1 << 20 }.threads(), Some(1));
    }

    #[test]
    fn the_place_to_meet_is_named_by_all_four_variables() {
        let meeting = |values: [&str; 4]| {
            let names = ["RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"];
            let variable = |name: &str| {
                let value = values[names.iter().position(|own| *own == name).unwrap()];
                (!value.is_empty()).then(|| value.to_string())
            };
            meeting_of(variable).map_err(|error| error.to_string())
        };
        let found = meeting(["2", "4", "node7", "29500"]).unwrap().unwrap();
        assert_eq!(found, Meeting { rank: 2, size: 4, place: "node7:29500".into() });
        assert!(!found.is_local() && meeting(["0", "2", "::1", "9"]).unwrap().unwrap().is_local());
        for alone in
            [["0", "1", "node7", "29500"], ["", "4", "node7", "29500"], ["2", "4", "", "29500"], ["", "", "", ""]]
        {
            assert_eq!(meeting(alone), Ok(None), "{alone:?}");
        }
        for wrong in [["4", "4", "node7", "29500"], ["-1", "4", "node7", "29500"], ["2", "4", "node7", "0"]] {
            assert!(meeting(wrong).unwrap_err().contains("expected a rank from 0"), "{wrong:?}");
        }
    }
}
