//! HTTP with the peers that there are in the world, none of them ours: nginx, Node.js and Python as
//! origins, curl, wget, Python and Chromium as users, each with a real tunnel between them.
//!
//! What they have in common with the raw sockets of the other tests is only HTTP; what they differ in
//! is why this is here: when they close, what they send unasked, how they split what they write.
//!
//! A test whose program is not installed says so and passes, unless SIDING_REQUIRE_TOOLS=1.

#[path = "../common/mod.rs"]
mod common;

mod chromium;
mod curl;
mod load;
mod node;
mod pauses;
mod python;
mod wget;

use std::time::Duration;

use common::{Process, Tunnel};

/// For one run of a program on a busy machine.
const SESSION: Duration = Duration::from_secs(60);

/// Ends the client in order, and returns what it then says its pool has done.
fn pool_report(tunnel: &mut Tunnel) -> String {
    let client: &mut Process = &mut tunnel.client;
    client.terminate();
    assert!(client.wait().success());
    client.log().wait_for_end();
    let lines = client.log().lines();
    let report = lines.iter().rfind(|line| line.contains(" pool: "));
    report.expect("it was asked at least once").clone()
}

/// The number before `what` in a report of the pool; what never happened is not in it.
fn counted(report: &str, what: &str) -> u64 {
    let before = report.split(", ").flat_map(|part| part.split("; "));
    let count = before.filter_map(|part| part.strip_suffix(what)?.trim().parse::<u64>().ok());
    count.sum()
}
