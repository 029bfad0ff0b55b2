//! Both roles, as released, on a simulated network: one thread, virtual time, one seed.
//!
//! `world` is the network, `net` what a reactor sees of it, `machine` one process, and `sim` all of them
//! together with the actors outside: users and origins (`tcp`; `http`, `origin`), which use the world
//! directly and check every byte. `calm` and `storm` are what is played.
//!
//! `SIDING_SIM_SEED=n` runs that seed alone, with the log; `SIDING_SIM_SEEDS=n` runs so many.

mod calm;
mod http;
mod machine;
mod message;
mod net;
mod oracles;
mod origin;
mod rng;
mod sim;
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

use crate::sim::{Scenario, Sim};

#[test]
fn tcp_streams_arrive_whole_and_end_as_they_were_ended() {
    each_seed(0, &calm::TCP_STREAMS);
}

#[test]
fn each_request_is_answered_once_with_its_own_bytes() {
    each_seed(1_000_000, &calm::POOLED_EXCHANGES);
}

#[test]
fn a_seed_tells_the_same_story_twice() {
    for seed in [3, 1_000_003] {
        let scenario = if seed < 1_000_000 {
            &calm::TCP_STREAMS
        } else {
            &calm::POOLED_EXCHANGES
        };
        assert_eq!(run(seed, scenario), run(seed, scenario), "seed {seed}");
    }
}

fn each_seed(first: u64, scenario: &Scenario) {
    let number = |name| {
        let text = env::var(name).ok()?;
        Some(
            text.parse::<u64>()
                .unwrap_or_else(|_| panic!("{name}: a number expected")),
        )
    };
    if let Some(seed) = number("SIDING_SIM_SEED") {
        // Each scenario has a million seeds of its own.
        if seed / 1_000_000 == first / 1_000_000 {
            let ours = simplelog::ConfigBuilder::new()
                .add_filter_allow_str("siding")
                .build();
            let _ = simplelog::SimpleLogger::init(log::LevelFilter::Trace, ours);
            run(seed, scenario);
        }
        return;
    }
    for seed in first..first + number("SIDING_SIM_SEEDS").unwrap_or(SEEDS) {
        run(seed, scenario);
    }
}

/// Runs one seed; what it answers is the same whenever it runs.
fn run(seed: u64, scenario: &Scenario) -> (u64, Duration, u64) {
    let place = Rc::new(Cell::new((0, Duration::ZERO)));
    let within = AssertUnwindSafe(|| {
        let mut sim = Sim::new(seed, scenario, Rc::clone(&place));
        (scenario.play)(&mut sim);
        sim.world.borrow().digest
    });
    match catch_unwind(within) {
        Ok(digest) => {
            let (steps, time) = place.get();
            (steps, time, digest)
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
