//! Proxies that have a rate, and the links whose streams wait for one.
//!
//! Owns the one deadline that each rate has while streams wait for it; the tokens are the tunnel's, and so are
//! the lines ([`crate::tunnel::rate`]).

use std::{
    collections::{BTreeMap, HashMap},
    time::Instant,
};

use super::{Owner, Server};
use crate::{
    clock::Now,
    key::Key,
    reactor::{Deadline, Reactor, net::Net},
    tunnel::rate::{RateId, Rates},
};

/// The rates of a server's proxies.
#[derive(Debug, Default)]
pub(super) struct ProxyRates {
    /// Of those that have one and had a stream, by their slots: what it is called, and how high it is.
    of_proxies: HashMap<u32, (RateId, usize)>,
    waits: BTreeMap<RateId, Wait>,
}

/// What a rate is waited for by, and until when.
#[derive(Debug)]
struct Wait {
    timer: Key,
    at: Instant,
    links: Vec<u32>,
}

impl ProxyRates {
    /// The rate of a proxy that may say so many bytes per second now.
    pub fn of(
        &mut self,
        proxy: u32,
        per_second: Option<usize>,
        rates: &mut Rates,
        now: Instant,
    ) -> Option<RateId> {
        let Some(per_second) = per_second else {
            self.gone(proxy, rates);
            return None;
        };
        let (rate, present) = self
            .of_proxies
            .entry(proxy)
            .or_insert_with(|| (rates.open(per_second, now), per_second));
        if *present != per_second {
            *present = per_second;
            rates.change(*rate, per_second, now);
        }
        Some(*rate)
    }

    /// The proxies that have one, and had a stream.
    pub fn proxies(&self) -> Vec<u32> {
        self.of_proxies.keys().copied().collect()
    }

    /// The proxy is gone, or has no rate any more. Streams that have it keep it.
    pub fn gone(&mut self, proxy: u32, rates: &mut Rates) {
        if let Some((rate, _)) = self.of_proxies.remove(&proxy) {
            rates.release(rate);
        }
    }
}

impl Server {
    /// The rate of a proxy's streams, as its options have it by now.
    pub(super) fn rate_of(&mut self, proxy: u32, now: Now) -> Option<RateId> {
        let found = self.proxies.find(proxy);
        let per_second = found.and_then(|proxy| proxy.options.rate);
        let rates = &mut self.shared.budget.rates;
        self.rates.of(proxy, per_second, rates, now.instant)
    }

    /// Sees to it that streams of a link that wait for their rates are looked at again in time. Not while the link
    /// takes nothing: who was called out of a line could say nothing, and leave the rate as it is. Its next flush
    /// comes here again.
    pub(super) fn wait_for_rates<N: Net>(&mut self, io: &mut Reactor<N, Owner>, link: u32) {
        let tunnel = self.links.tunnel(link);
        let Some(tunnel) = tunnel.filter(|tunnel| !tunnel.is_blocked()) else {
            return;
        };
        for (rate, way) in tunnel.mux.limited() {
            let Some(at) = self.shared.budget.rates.opens_at(rate, way) else {
                continue;
            };
            let wait = self.rates.waits.entry(rate).or_insert_with(|| Wait {
                timer: io.timer(Owner::Rate(rate), Deadline::At(at)),
                at,
                links: Vec::new(),
            });
            if at < wait.at {
                wait.at = at;
                io.set_deadline(wait.timer, Deadline::At(at));
            }
            if !wait.links.contains(&link) {
                wait.links.push(link);
            }
        }
    }

    /// A rate may have room again.
    pub(super) fn rate_opens<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        rate: RateId,
        now: Now,
    ) {
        let Some(Wait { timer, links, .. }) = self.rates.waits.remove(&rate) else {
            return;
        };
        io.close(timer);
        for link in links {
            if let Some(tunnel) = self.links.tunnel(link) {
                tunnel.mux.resume(rate, &self.shared.budget, now);
                self.schedule(link);
            }
        }
    }
}
