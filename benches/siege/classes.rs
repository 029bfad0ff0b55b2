//! Who runs before whom. In life an attacker has processors of its own, and here it shares ours: what the table
//! is to show is what siding gives up for an attack, not what the machine does.
//!
//! So attackers run when nobody else wants to (the idle class), and everybody else in a real-time class, where the
//! system permits it: beside an ordinary process that has had its share lately, one of the idle class keeps its
//! processor for up to a tick of 4 ms. Siding and the honest are equals in that class: who has a processor keeps it
//! until it sleeps. Where they take nearly all of one, the system gives the rest of each second to others, in one
//! piece, and p99 is that.

use std::{
    ffi::OsStr,
    process::{self, Command, Stdio},
};

/// What is to be said where it does not.
pub const BESIDE: &str =
    "No permission for a real-time class: times are those of the scheduler, too.";

/// Puts this program, and what it starts from now on, before all attackers. The answer is whether the system
/// permits that.
#[must_use]
pub fn precede() -> bool {
    let mut command = Command::new("chrt");
    command.args(["--rr", "--pid", "1", &process::id().to_string()]);
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// A command by which a program runs behind everybody else; its arguments are to be added.
pub fn behind(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("chrt");
    command.args(["--idle", "0"]).arg(program);
    command
}
