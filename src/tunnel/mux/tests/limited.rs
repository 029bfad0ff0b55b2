//! Streams that share a rate, in time that passes as the tests say.

use super::*;
use crate::tunnel::rate::{RateId, Way};

/// Bytes per second; what may come at once is [`BURST`].
const RATE: usize = 256 << 10;
const BURST: usize = 64 << 10;

/// Of a window that a stream begins with.
const FIRST: usize = 64 << 10;

fn limited(n: u32) -> (Pair, RateId, Vec<Handle>) {
    let mut pair = Pair::new(64 << 20);
    let rate = pair.server.budget.rates.open(RATE, pair.now.instant);
    let handles = (0..n).map(|n| {
        let handle = pair.open_raw(n);
        let End { mux, budget, .. } = &mut pair.server;
        mux.limit(handle, rate, budget);
        handle
    });
    let handles = handles.collect();
    (pair, rate, handles)
}

impl Pair {
    /// Lets time pass, and what waits for the rate be looked at in it as a role does.
    fn pass(&mut self, rate: RateId, time: Duration) {
        let until = self.now.instant + time;
        loop {
            self.run(true);
            let rates = &self.server.budget.rates;
            let waits = self.server.mux.limited();
            let next = waits
                .filter_map(|(rate, way)| rates.opens_at(rate, way))
                .min();
            let Some(next) = next.filter(|next| *next <= until) else {
                break;
            };
            self.now.instant = self.now.instant.max(next);
            let End { mux, budget, .. } = &mut self.server;
            mux.resume(rate, budget, self.now);
        }
        self.now.instant = until;
    }

    /// Bytes that the n-th target sends, or its user.
    fn says(&mut self, end: impl Fn(&mut Pair) -> &mut End, key: Key, bytes: usize) {
        let socket = end(self).sockets.0.entry(key).or_insert(Socket {
            room: usize::MAX,
            ..Socket::default()
        });
        socket.input.extend(std::iter::repeat_n(7, bytes));
    }

    fn has(&self, n: u32) -> usize {
        self.server.sockets.0[&user(n)].output.len()
    }
}

#[test]
fn credit_is_granted_as_far_as_there_are_tokens_and_what_is_left_is_given_back() {
    const SIZE: usize = 1 << 20;
    let (mut pair, rate, handles) = limited(1);
    pair.says(|pair| &mut pair.client, target(0), SIZE);
    pair.run(true);
    assert!(pair.has(0) <= BURST + FIRST, "{}", pair.has(0));
    for second in 1..=3 {
        pair.pass(rate, Duration::from_secs(1));
        let most = BURST + FIRST + second * RATE;
        let least = second * RATE;
        assert!((least..=most).contains(&pair.has(0)), "{}", pair.has(0));
    }
    pair.pass(rate, Duration::from_secs(2));
    assert_eq!(pair.has(0), SIZE);
    // Much was granted that is not used any more.
    let before = pair.server.budget.rates.opens_at(rate, Way::Down).unwrap();
    assert!(pair.server.mux.stream(handles[0]).unwrap().relay.granted() > 0);
    let End { mux, budget, .. } = &mut pair.server;
    mux.abort(handles[0], Reason::UserReset, budget);
    let after = pair.server.budget.rates.opens_at(rate, Way::Down).unwrap();
    assert!(after < before, "it is there for others");
    pair.run(true);
    assert!(pair.is_clean());
    pair.server.budget.rates.release(rate);
    assert_eq!(pair.server.budget.rates.opens_at(rate, Way::Down), None);
}

#[test]
fn while_there_is_debt_no_stream_is_announced() {
    let (mut pair, rate, _) = limited(20);
    for n in 0..20 {
        pair.says(|pair| &mut pair.client, target(n), FIRST);
    }
    pair.run(true);
    let announced = |pair: &Pair| {
        let opened = |happened: &&Happened| matches!(happened, Happened::Opened(..));
        pair.client.happened.iter().filter(opened).count()
    };
    // All of the first batch, which was there before a byte had come.
    let first = announced(&pair);
    let late: Vec<u32> = (20..40).collect();
    for &n in &late {
        let handle = pair.open_raw(n);
        let End { mux, budget, .. } = &mut pair.server;
        mux.limit(handle, rate, budget);
        assert!(pair.server.mux.is_held_up(handle));
        pair.says(|pair| &mut pair.client, target(n), FIRST);
    }
    pair.run(true);
    assert_eq!(announced(&pair), first, "20 windows are 5 s of debt");
    // One that is given up before is never heard of.
    let gone = pair.open_raw(40);
    let End { mux, budget, .. } = &mut pair.server;
    mux.limit(gone, rate, budget);
    pair.run(true);
    let End { mux, budget, .. } = &mut pair.server;
    assert!(mux.abort(gone, Reason::UserReset, budget).is_some());
    pair.pass(rate, Duration::from_secs(11));
    assert_eq!(announced(&pair), 40);
    let total: usize = (0..40).map(|n| pair.has(n)).sum();
    assert_eq!(total, 40 * FIRST);
}

#[test]
fn users_are_read_from_at_the_rate_one_after_the_other() {
    const SIZE: usize = 256 << 10;
    let (mut pair, rate, _) = limited(4);
    for n in 0..4 {
        pair.says(|pair| &mut pair.server, user(n), SIZE);
    }
    pair.run(true);
    let total = |pair: &Pair| -> usize {
        let lengths = (0..4).map(|n| pair.client.sockets.0[&target(n)].output.len());
        lengths.sum()
    };
    assert!(total(&pair) <= BURST, "{}", total(&pair));
    pair.pass(rate, Duration::from_secs(2));
    assert!((2 * RATE..=2 * RATE + BURST).contains(&total(&pair)));
    let lengths = (0..4).map(|n| pair.client.sockets.0[&target(n)].output.len());
    let (least, most) = (lengths.clone().min().unwrap(), lengths.max().unwrap());
    assert!(most - least <= 2 * BURST, "{least} {most}");
    pair.pass(rate, Duration::from_secs(3));
    assert_eq!(total(&pair), 4 * SIZE);
}
