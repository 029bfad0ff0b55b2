//! Proxies with a rate, in virtual time: it is kept whatever the link is like, its streams share it, and those
//! of other proxies do not notice.

use std::{cell::RefCell, rc::Rc, time::Duration};

use crate::{
    lab::{Configs, Lab, SERVER_HOST},
    table::{DOWN, ECHO, Origin, Pinger, Play, Tally, UP, User},
    world::Lane,
};

/// As long as rates are looked at.
const SPAN: Duration = Duration::from_secs(10);

/// What streams carry from the origin, or to it, within [`SPAN`], and how many turns the server took for it.
fn carried(port: u16, trip: Duration, rate: usize, streams: usize) -> (Vec<u64>, u64) {
    let mut lab = lab(trip, &[(port, rate)]);
    let tally = bulk(&mut lab);
    for _ in 0..streams {
        add(&mut lab, port, &tally);
    }
    // Until what may come at once has come.
    lab.run_for(Duration::from_secs(3));
    tally.borrow_mut().fill(0);
    let before = lab.turns[SERVER_HOST];
    lab.run_for(SPAN);
    lab.server.role.check_invariants();
    let bytes = tally.borrow().clone();
    (bytes, (lab.turns[SERVER_HOST] - before) / SPAN.as_secs())
}

fn lab(trip: Duration, rates: &[(u16, usize)]) -> Lab {
    let lane = Lane {
        one_way: trip / 2,
        rate: 125_000_000,
        unsent_max: 16 << 10,
    };
    let proxies = [DOWN, UP, ECHO].map(|port| (port, port));
    let mut configs = Configs::with_budget(64 << 20);
    configs.rates = rates.to_vec();
    Lab::new(lane, &proxies, configs)
}

/// Origins that send and receive all that they can.
fn bulk(lab: &mut Lab) -> Tally {
    let tally = Rc::new(RefCell::new(Vec::new()));
    lab.add(|world, me| Box::new(Origin::new(DOWN, me, Play::Send, &tally, world)));
    lab.add(|world, me| Box::new(Origin::new(UP, me, Play::Receive, &tally, world)));
    lab.add(|world, me| Box::new(Origin::new(ECHO, me, Play::Echo, &tally, world)));
    tally
}

fn add(lab: &mut Lab, port: u16, tally: &Tally) {
    let play = if port == UP {
        Play::Send
    } else {
        Play::Receive
    };
    lab.add(|_, _| Box::new(User::new(port, play, tally)));
}

#[test]
fn a_rate_is_kept_in_either_direction_and_shared_by_its_streams() {
    for port in [DOWN, UP] {
        for (trip, rate) in [(2, 1 << 20), (2, 10 << 20), (100, 10 << 20)] {
            for streams in [1, 8] {
                let (bytes, turns) = carried(port, Duration::from_millis(trip), rate, streams);
                let total: u64 = bytes.iter().sum();
                let expected = rate as u64 * SPAN.as_secs();
                let what = format!("port {port}, {trip} ms, {rate}/s, {streams} streams");
                println!(
                    "{what}: {} of {}, {turns} turns/s, {bytes:?}",
                    total, expected
                );
                assert!(
                    (expected * 9 / 10..=expected * 11 / 10).contains(&total),
                    "{what}: {total} of {expected}"
                );
                assert_eq!(bytes.len(), streams);
                let least = *bytes.iter().min().expect("there is one");
                let fair = total / streams as u64;
                assert!(least >= fair * 3 / 4, "{what}: {bytes:?}");
                // Woken 40 times a second for the rate, and by each message of the link.
                assert!(turns < 4_000, "{what}: {turns} turns in a second");
            }
        }
    }
}

#[test]
fn other_proxies_do_not_notice() {
    let trip = Duration::from_millis(10);
    let pings = |beside: usize| {
        let mut lab = lab(trip, &[(DOWN, 1 << 20), (UP, 1 << 20)]);
        let tally = bulk(&mut lab);
        for _ in 0..beside {
            add(&mut lab, DOWN, &tally);
            add(&mut lab, UP, &tally);
        }
        lab.run_for(Duration::from_secs(1));
        let took = Rc::new(RefCell::new(Vec::new()));
        lab.add(|_, _| Box::new(Pinger::new(200, &took)));
        lab.run_until("all trips are made", |_| took.borrow().len() == 200);
        let took = took.borrow();
        (took.iter().max().copied()).expect("there are some")
    };
    let (alone, beside) = (pings(0), pings(8));
    println!("alone {alone:?}, beside {beside:?}");
    assert!(
        beside < alone + Duration::from_millis(2),
        "{alone:?}, {beside:?}"
    );
}
