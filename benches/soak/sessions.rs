//! Sessions of ssh, each of which is always there: one that was cut is opened again.

use std::{
    io,
    net::Ipv4Addr,
    process::Child,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    common::pass,
    ground::Stage,
    ledger::{Deed, Ledger},
    talk::Talk,
};

/// How many there are.
pub const SESSIONS: usize = 20;

/// From one line of a session to its next.
const PACE: Duration = Duration::from_millis(200);

/// How much later than the one before each comes back after a cut: a login is work for both its ends.
const STAGGER: Duration = Duration::from_millis(40);

/// How ssh finds out that nothing comes any more, which siding tells it: after 20 s.
const ALIVE: [&str; 6] = [
    "-o",
    "ServerAliveInterval=5",
    "-o",
    "ServerAliveCountMax=4",
    "-o",
    "ConnectTimeout=20",
];

const LOGIN: Deed = session("ssh login");
const LINE: Deed = session("ssh line");

const fn session(name: &'static str) -> Deed {
    Deed {
        name,
        is_request: false,
        is_timed: false,
    }
}

/// ssh, which ends with the value.
struct Ssh(Option<Child>);

impl Drop for Ssh {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // It may have ended on its own.
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Keeps the session of a number until it is over.
pub fn keep(number: usize, stage: &Stage, ledger: &Arc<Ledger>) {
    while !ledger.is_over() {
        pass(PACE + STAGGER * number as u32);
        while ledger.is_out() && !ledger.is_over() {
            pass(PACE);
        }
        let mut began = Instant::now();
        let from = Ipv4Addr::new(127, 0, 2, number as u8 + 1);
        let sshd = stage.sshd.as_ref();
        let (child, mut talk) = Talk::open(sshd, from.into(), stage.doors.ssh, &ALIVE);
        let _ssh = Ssh(child);
        let mut is_there = false;
        for line in 0.. {
            let done: io::Result<()> = talk.echoes(&format!("line {line} of session {number}\n"));
            let deed = if line == 0 { LOGIN } else { LINE };
            // Between two lines it may be cut, too.
            let is_ok = ledger.enter(deed, began, done);
            if is_ok != is_there {
                ledger.sessions_change(is_ok);
                is_there = is_ok;
            }
            if !is_ok {
                break;
            }
            began = Instant::now();
            pass(PACE);
            if ledger.is_over() {
                ledger.sessions_change(false);
                break;
            }
        }
    }
}
