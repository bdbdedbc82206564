//! What `mpirun` and `srun` tell the processes that they start, in variables of the environment.

use std::env;
use std::process::Command;
use std::thread::available_parallelism;

/// How many processes were started together: OpenMPI, MPICH and Intel MPI, Slurm.
const SIZE: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"];
/// Which of all of them this one is.
const RANK: [&str; 3] = ["OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID"];
/// Which of those on this machine this one is.
const LOCAL_RANK: [&str; 3] = ["OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID"];
/// How many of them are on this machine. Slurm writes `2(x3),1`: two on each of three machines, one on another; the
/// most of them, since more than are here do no harm.
const LOCAL_SIZE: [&str; 3] = ["OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "SLURM_STEP_TASKS_PER_NODE"];

/// The processes of a run on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// From 0.
    pub rank: usize,
    pub size: usize,
}

/// How many processes were started together with this one, if there are others.
pub fn processes() -> Option<usize> {
    first(&SIZE, |name| env::var(name).ok()).filter(|size| *size > 1)
}

/// Whether this is the first of them, or alone.
pub fn is_first() -> bool {
    processes().is_none() || first(&RANK, |name| env::var(name).ok()).is_none_or(|rank| rank == 0)
}

/// Makes a program that this process starts one that is not among them.
pub fn apart(command: &mut Command) -> &mut Command {
    SIZE.iter().fold(command, |command, name| command.env_remove(name))
}

/// Those on this machine.
pub fn local() -> Local {
    of(processes().is_some(), |name| env::var(name).ok())
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
}
