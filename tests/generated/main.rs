//! Generated exchanges through the real binary, compared byte for byte with a model of what siding
//! makes of them.
//!
//! A case is drawn from a seed ([`seed`]): users, what they ask (`exchange`), how it is spelled and cut
//! (`message`), what their origin answers and when. The `model` says what must arrive on either side;
//! `origin` and `user` move the bytes; `judge` compares. `damage` takes valid bytes and spoils them; what
//! is left of them is what a strict `reader` finds. Nothing here knows anything of siding's code: both
//! are written from the same contract, and each has to convince the other.
//!
//! All cases share one server and one client (`lanes`), a few at a time, so that what one leaves behind
//! is met by the others: every byte of content carries the tag of its exchange.
//!
//! A case that fails says its seed and the command that runs it again.

#![allow(clippy::ptr_arg, reason = "all ways of damage have one type")]

mod cases;
#[path = "../common/mod.rs"]
mod common;
mod damage;
mod exchange;
mod judge;
mod lanes;
mod message;
mod model;
mod mutation;
mod origin;
mod reader;
mod seed;
mod tally;
mod user;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::{
    lanes::{Lane, Lanes},
    seed::{again, seeds},
    tally::Tally,
};

#[test]
fn valid_exchanges_arrive_to_the_letter() {
    let tally = run_all("valid_exchanges", 600, cases::run);
    println!("{}", tally.text());
    if tally.of("an exchange") >= MANY {
        tally.expect_all(&[
            "a user of a forward proxy",
            "a user of an http proxy",
            "a request of HTTP/1.0",
            "a response of HTTP/1.0",
            "a chunked request",
            "a response that ends by closing",
            "a user that waits for 100",
            "a response to half a request",
            "trailers of a request",
            "trailers of a response",
            "interim responses",
            "content of 64 KiB or more",
            "a response without Date",
        ]);
    }
}

#[test]
fn damaged_exchanges_harm_nobody_else() {
    let tally = run_all("damaged_exchanges", 300, damage::run);
    println!("{}", tally.text());
    if tally.of("an exchange") >= MANY {
        tally.expect_all(&mutation::names().collect::<Vec<_>>());
    }
}

/// So many exchanges hold some of everything.
const MANY: usize = 500;

/// Runs the cases of a test, some at a time, up to the first that fails.
fn run_all(
    test: &str,
    cases: u64,
    case: impl Fn(u64, &[Lane], &Tally) -> Result<(), String> + Sync,
) -> Tally {
    const WORKERS: usize = 4;
    let seeds = seeds(cases);
    let log = match seeds.end - seeds.start {
        1 => "debug",
        _ => "info",
    };
    let mut lanes = Lanes::start(WORKERS, log);
    let tally = Tally::default();
    let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
    thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (lanes, tally, next, failure) = (&lanes, &tally, &next, &failure);
            let (case, seeds) = (&case, seeds.clone());
            scope.spawn(move || {
                while failure.lock().expect("no holder panics").is_none() {
                    let seed = seeds.start + next.fetch_add(1, Ordering::SeqCst) as u64;
                    if seed >= seeds.end {
                        return;
                    }
                    let run = || case(seed, lanes.of(worker), tally);
                    let result = catch_unwind(AssertUnwindSafe(run));
                    if let Err(wrong) = result.unwrap_or(Err("the test itself".to_owned())) {
                        let mut failure = failure.lock().expect("no holder panics");
                        failure.get_or_insert((seed, wrong));
                    }
                }
            });
        }
    });
    if let Some((seed, wrong)) = failure.into_inner().expect("no holder panics") {
        panic!("case {seed}: {wrong}\n\n{}", again(test, seed));
    }
    lanes.expect_running();
    let late: Vec<String> = lanes
        .all()
        .flat_map(|lane| lane.origin.complaints())
        .collect();
    assert!(late.is_empty(), "{}", late.join("\n"));
    let served: usize = lanes.all().map(|lane| lane.origin.served()).sum();
    let lost: usize = lanes.all().map(|lane| lane.origin.lost()).sum();
    let accepted: usize = lanes.all().map(|lane| lane.origin.accepted()).sum();
    println!("{served} requests answered over {accepted} connections, {lost} lost");
    tally
}
