//! What a side of a tunnel costs: processor time and memory of its process and of all that it started
//! (sshd has a process for each session).

use std::{collections::HashMap, fs, time::Duration};

use crate::{common::Process, machine};

/// One side of a tunnel, running. It ends with the value.
pub struct Side(Process);

/// Both sides, or none of them where nothing lies between user and origin.
pub struct Sides {
    /// The private side; the second of two chained proxies.
    pub agent: Option<Side>,
    /// The public side; the first of two chained proxies. Declared after the agent, which so ends
    /// first: a server has its sessions end by themselves.
    pub server: Option<Side>,
}

impl Side {
    /// A side that begins with this process.
    pub fn new(process: Process) -> Side {
        Side(process)
    }

    /// Processor time used so far, user and system. No thread of any peer ends while it is measured,
    /// or its time would be lost.
    pub fn cpu(&self) -> Duration {
        self.processes().into_iter().map(machine::cpu).sum()
    }

    /// The most memory that was resident at a time, in bytes.
    pub fn resident_max(&self) -> u64 {
        self.sum_of("status", "VmHWM:")
    }

    /// Memory that is resident, in bytes.
    pub fn resident(&self) -> u64 {
        self.sum_of("status", "VmRSS:")
    }

    /// Memory that is its alone, in bytes: what would be free again if it ended.
    pub fn private(&self) -> u64 {
        self.sum_of("smaps_rollup", "Private_")
    }

    /// Descriptors that it holds.
    pub fn descriptors(&self) -> usize {
        let of_process = |process| fs::read_dir(format!("/proc/{process}/fd"));
        let held = self.processes().into_iter().flat_map(of_process);
        held.map(Iterator::count).sum()
    }

    /// Sums the fields, given in kB, that begin so in a file of each process.
    fn sum_of(&self, file: &str, field: &str) -> u64 {
        let of_process = |process: u32| {
            // One that has just ended has none.
            let text = fs::read_to_string(format!("/proc/{process}/{file}")).unwrap_or_default();
            let lines = text.lines().filter(|line| line.starts_with(field));
            lines
                .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
                .sum::<u64>()
        };
        self.processes().into_iter().map(of_process).sum::<u64>() * 1024
    }

    /// Its process and all below.
    fn processes(&self) -> Vec<u32> {
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        let entries = fs::read_dir("/proc").expect("Linux has /proc");
        for process in entries.flatten().filter_map(|entry| {
            let name = entry.file_name();
            name.to_str()?.parse::<u32>().ok()
        }) {
            if let Some(parent) = machine::parent(process) {
                children.entry(parent).or_default().push(process);
            }
        }
        let mut all = vec![self.0.pid()];
        let mut seen = 0;
        while let Some(process) = all.get(seen) {
            all.extend(children.get(process).into_iter().flatten().copied());
            seen += 1;
        }
        all
    }
}

impl Sides {
    /// Where there is nothing between user and origin.
    pub fn none() -> Sides {
        Sides {
            agent: None,
            server: None,
        }
    }

    /// Processor time of both.
    pub fn cpu(&self) -> Duration {
        self.both().map(Side::cpu).sum()
    }

    fn both(&self) -> impl Iterator<Item = &Side> {
        self.server.iter().chain(&self.agent)
    }
}
