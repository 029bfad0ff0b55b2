//! Both roles, as released, on a simulated network: one thread, virtual time, one seed.
//!
//! `world` is the network, `net` what a reactor sees of it, `machine` one process, and `sim` all of them
//! together with the actors outside: users and origins (`tcp`; `exchange`, `http`, `origin`), which use the world
//! directly and check every byte. `calm` and `storm` are what is played.
//!
//! Without chance, the same gives figures: `lab` is that world, `table` what is kept of them.
//!
//! `SIDING_SIM_SEED=n` runs that seed alone, with the log; `SIDING_SIM_SEEDS=n` runs so many, from
//! `SIDING_SIM_FIRST=n` on. Every thousand seeds it is printed what they have seen, and it is an error if
//! that is not everything.

mod allocations;
mod calm;
mod clocks;
mod exchange;
mod heap;
mod http;
mod lab;
mod machine;
mod message;
mod net;
mod oracles;
mod origin;
mod rates;
mod rng;
mod scale;
mod sim;
mod storm;
mod strangers;
mod table;
mod tally;
mod tcp;
mod world;

use std::{
    any::Any,
    cell::Cell,
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::Duration,
};

use crate::{
    sim::{Scenario, Sim},
    tally::Tally,
};

#[test]
fn tcp_streams_arrive_whole_and_end_as_they_were_ended() {
    each_seed(0, &calm::TCP_STREAMS);
}

#[test]
fn each_request_is_answered_once_with_its_own_bytes() {
    each_seed(1_000_000, &calm::POOLED_EXCHANGES);
}

#[test]
fn a_silent_connection_owns_no_heap() {
    each_seed(3_000_000, &calm::SILENCE);
}

#[test]
fn whoever_lives_through_a_storm_is_told_the_truth_and_afterwards_all_is_well() {
    each_seed(2_000_000, &storm::STORM);
    if env::var_os("SIDING_SIM_SEED").is_none() {
        for seed in FOUND {
            run(seed, &storm::STORM);
        }
    }
}

#[test]
fn a_seed_tells_the_same_story_twice() {
    for (seed, scenario) in [
        (3, &calm::TCP_STREAMS),
        (1_000_003, &calm::POOLED_EXCHANGES),
        (2_000_003, &storm::STORM),
    ] {
        assert_eq!(run(seed, scenario), run(seed, scenario), "seed {seed}");
    }
}

/// What a seed answers, which is the same whenever it runs.
#[derive(Debug, PartialEq, Eq)]
struct Story {
    steps: u64,
    time: Duration,
    digest: u64,
    tally: Tally,
}

/// Runs the seeds of a scenario: each has a million of its own.
fn each_seed(first: u64, scenario: &Scenario) {
    let number = |name| {
        let text = env::var(name).ok()?;
        Some(
            text.parse::<u64>()
                .unwrap_or_else(|_| panic!("{name}: a number expected")),
        )
    };
    // Of a seed beyond the scenario's own million the same `SIDING_SIM_FIRST` tells whose it is.
    let first = first + number("SIDING_SIM_FIRST").unwrap_or(0);
    if let Some(seed) = number("SIDING_SIM_SEED") {
        if seed / 1_000_000 == first / 1_000_000 {
            // The filter of the scenario may name several, and each comes here.
            let _ = log::set_logger(&Trace);
            log::set_max_level(log::LevelFilter::Trace);
            run(seed, scenario);
        }
        return;
    }
    let mut tally = Tally::default();
    for (ran, seed) in (first..first + number("SIDING_SIM_SEEDS").unwrap_or(SEEDS)).enumerate() {
        tally.merge(&run(seed, scenario).tally);
        if (ran + 1) % SEEDS_FOR_EVERYTHING == 0 {
            println!("up to seed {seed}:\n{tally}");
            let mut missing = tally.missing();
            missing.retain(|what| !NEVER.contains(what));
            assert!(missing.is_empty(), "never seen: {missing:#?}");
        }
    }
}

/// What a single seed says, of siding and of the world around it.
struct Trace;

impl log::Log for Trace {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        let mut ours = ["siding", "sim"].iter();
        ours.any(|crate_name| metadata.target().starts_with(crate_name))
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            println!("[{}] {}", record.level(), record.args());
        }
    }

    fn flush(&self) {}
}

fn run(seed: u64, scenario: &Scenario) -> Story {
    let place = Rc::new(Cell::new((0, Duration::ZERO)));
    let within = AssertUnwindSafe(|| {
        let mut sim = Sim::new(seed, scenario, Rc::clone(&place));
        (scenario.play)(&mut sim);
        let world = sim.world.borrow();
        (world.digest, world.tally.clone())
    });
    match catch_unwind(within) {
        Ok((digest, tally)) => {
            let (steps, time) = place.get();
            Story {
                steps,
                time,
                digest,
                tally,
            }
        }
        Err(panic) => {
            let (step, time) = place.get();
            panic!(
                "seed {seed} failed at step {step}, {time:?}: {}\n\
                 SIDING_SIM_SEED={seed} runs it again",
                text(&*panic)
            );
        }
    }
}

fn text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("?")
}

/// Of each scenario, in a plain `cargo test`.
const SEEDS: u64 = 60;

/// So many seeds have seen everything that can happen.
const SEEDS_FOR_EVERYTHING: usize = 1_000;

/// Storms that once found something.
const FOUND: [u64; 4] = [
    // Streams that a drain cut off stayed in the budget.
    2_000_638,
    // A stream that waited for its rate was announced after one with a higher id.
    7_223_554,
    // Streams were called out of the line of a rate one by one, while their link took nothing.
    11_016_998,
    // A reset became an orderly end, because its process ended before it was sent.
    11_160_062,
];

/// What cannot happen here, or nowhere at all.
const NEVER: [&str; 12] = [
    // No stream is opened where there is no client; where memory or dials are short, the side that
    // knows says so, and the other has it from there.
    "end at the client: client_not_connected",
    "end at the server: client_not_connected",
    // 4,096 dials have to wait.
    "end at the client: busy",
    "end at the server: busy",
    // A client's link is closed then, not its streams.
    "end at the client: replaced",
    // A client of another version.
    "end at the client: protocol_not_supported",
    "end at the server: protocol_not_supported",
    // TLS takes its chance from elsewhere, so no seed would tell the same story twice.
    "end at the client: tls_failed",
    "end at the server: tls_failed",
    // Nobody reloads.
    "not parked: made before a reload",
    // An exchange ends answered or its connection with it, and an upgraded one is raw: these guard the
    // rule against what its caller rules out today.
    "not parked: no final response",
    "not parked: upgraded",
];
