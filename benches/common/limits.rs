//! What this process and its children may hold.

use std::fs;

use crate::common;

/// Raises the limit of descriptors as far as it goes without further rights.
pub fn raise() {
    common::raise_descriptor_limit(descriptors());
}

/// Descriptors that a process may hold at most.
pub fn descriptors() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").expect("Linux has /proc");
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .expect("there is such a limit");
    let hard = line.split_whitespace().nth(1);
    // "unlimited" is never said of descriptors, which have a limit of the system.
    hard.and_then(|word| word.parse().ok())
        .expect("a number of descriptors")
}
