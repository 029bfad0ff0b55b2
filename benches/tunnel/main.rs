//! siding beside others: the real binary and whichever of its peers are installed, in a set of
//! scenarios, as one table.
//!
//! Users and origins are threads of this program; each tunnel is two processes (or what its program
//! makes of that). Every byte is compared, and one that is wrong ends the run. The peers take turns, so
//! that whatever else the machine does happens to all of them, and a figure is the median of its rounds.
//!
//! ```text
//! cargo bench --bench tunnel -- down1 load4 --peers siding,haproxy-tcp --rounds 3 --quick
//! ```

#![expect(
    clippy::disallowed_types,
    reason = "counts bytes by the gigabyte on several threads, and runs on no router"
)]

mod bulk;
#[path = "../../tests/common/mod.rs"]
mod common;
mod cost;
mod exchange;
mod figures;
mod footprint;
mod hold;
#[path = "../common/limits.rs"]
mod limits;
#[path = "../common/machine.rs"]
mod machine;
mod measure;
mod options;
mod payload;
mod peers;
mod ping;
mod report;
mod scenarios;
mod service;
mod targets;

use std::{env, io, process::ExitCode};

use machine::Run;
use options::Options;
use report::Results;

fn main() -> ExitCode {
    hold::hold_if_told();
    // Without it (`cargo test --benches`) the question is only whether the bench works.
    let is_bench = env::args().any(|argument| argument == "--bench");
    let options = match is_bench {
        true => Options::parse(env::args().skip(1)),
        false => Ok(Options::check()),
    };
    match options {
        Ok(options) => run(&options, is_bench),
        Err((message, code)) => {
            println!("{message}");
            ExitCode::from(code)
        }
    }
}

fn run(options: &Options, is_bench: bool) -> ExitCode {
    limits::raise();
    let this = Run::begin();
    let mut results = Results::new(&options.peers);
    // What could not be measured is not tried again in another round.
    let mut missing: Vec<(&str, usize, String)> = Vec::new();
    for scenario in &options.scenarios {
        for round in 1..=options.rounds {
            for (index, peer) in options.peers.iter().enumerate() {
                let is_missing = |(name, peer, _): &(&str, usize, String)| {
                    (*name, *peer) == (scenario.name, index)
                };
                if !measure::applies(scenario, peer) || missing.iter().any(is_missing) {
                    continue;
                }
                eprintln!("{}, round {round}: {}", scenario.name, peer.name);
                match measure::measure(scenario, peer, &options.scale) {
                    Ok(figures) => results.add(scenario, index, &figures),
                    Err(error) => {
                        let line = format!("{}, {}: {error}", scenario.name, peer.name);
                        eprintln!("{line}");
                        if error.kind() == io::ErrorKind::InvalidData {
                            println!("WRONG BYTES: {line}");
                            return ExitCode::FAILURE;
                        }
                        missing.push((scenario.name, index, line));
                    }
                }
            }
        }
    }
    if is_bench {
        results.print(options.rounds);
        println!();
        targets::print(&results);
        println!();
    }
    for (.., line) in &missing {
        println!("Not measured: {line}");
    }
    this.conclude();
    // What others cannot do is theirs; siding has to do all of it.
    match missing
        .iter()
        .any(|&(_, index, _)| options.peers[index].class() == peers::Class::Siding)
    {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}
