//! What the system says of processes and of itself, for any bench.

#![allow(
    dead_code,
    reason = "each bench is a crate of its own and uses its own part of this"
)]

use std::{
    fs, thread,
    time::{Duration, Instant},
};

/// A run of a bench: what there was to say of the machine before it.
pub struct Run {
    start: Instant,
    load: String,
}

/// Words of /proc/PID/stat behind the name.
const PARENT: usize = 1;
const USER_TICKS: usize = 11;
const SYSTEM_TICKS: usize = 12;

impl Run {
    /// Begins now.
    pub fn begin() -> Run {
        // The average of the last minute, where the system tells.
        let all = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let last_minute = all.split(' ').next().filter(|load| !load.is_empty());
        Run {
            start: Instant::now(),
            load: last_minute.unwrap_or("unknown").to_owned(),
        }
    }

    /// Prints what figures have to be read with.
    pub fn conclude(&self) {
        println!(
            "{} cores, load before it {}; took {:.0} s.",
            thread::available_parallelism().map_or(1, usize::from),
            self.load,
            self.start.elapsed().as_secs_f64()
        );
    }
}

/// Processor time of a process with the threads that it has, as exactly as the kernel knows it.
pub fn cpu(process: u32) -> Duration {
    match scheduled(process, 0) {
        0 => cpu_in_all(process),
        nanoseconds => Duration::from_nanos(nanoseconds),
    }
}

/// Processor time of a process with the threads that it has had, too, in hundredths of a second.
pub fn cpu_in_all(process: u32) -> Duration {
    let ticks = [USER_TICKS, SYSTEM_TICKS].map(|word| stat(process, word).unwrap_or(0));
    Duration::from_millis(10 * ticks.iter().sum::<u64>())
}

/// How long a process has waited for a processor while it had something to do, its threads together.
pub fn waited(process: u32) -> Duration {
    Duration::from_nanos(scheduled(process, 1))
}

/// Who has started a process, while it runs.
pub fn parent(process: u32) -> Option<u32> {
    stat(process, PARENT)?.try_into().ok()
}

/// A word of the schedstat of each of its threads, in nanoseconds: all of them together.
fn scheduled(process: u32, word: usize) -> u64 {
    let threads = fs::read_dir(format!("/proc/{process}/task"));
    let of_thread = |thread: fs::DirEntry| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').nth(word)?.parse::<u64>().ok()
    };
    let threads = threads.into_iter().flatten().flatten();
    threads.filter_map(of_thread).sum()
}

/// A word of /proc/PID/stat, counted from behind the name, which may hold anything.
fn stat(process: u32, word: usize) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    text.rsplit_once(") ")?.1.split(' ').nth(word)?.parse().ok()
}
