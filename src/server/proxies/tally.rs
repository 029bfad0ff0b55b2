//! What proxies have come to, in numbers: their streams, and whom they have refused.

use std::collections::HashMap;

use super::{Proxies, Proxy};
use crate::{server::fronts::Fronts, tunnel::mux::Ended};

/// What the streams of one proxy have come to.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::server) struct Tally {
    pub opened: u64,
    ended: u64,
    /// Payload bytes of those that have ended, from users and to them.
    pub up: u64,
    pub down: u64,
}

impl Tally {
    /// One of them has ended.
    pub fn ended(&mut self, ended: &Ended) {
        self.ended += 1;
        self.up += ended.sent;
        self.down += ended.delivered;
    }

    /// How many there are.
    pub fn open(&self) -> u64 {
        self.opened - self.ended
    }
}

/// Whom proxies have refused.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::server) struct RefusalCounts {
    /// Users by their address.
    pub address: u64,
    /// Connections of a balancer that has not said whose they are.
    pub unintroduced: u64,
    /// Requests by their password.
    pub denied: u64,
}

impl RefusalCounts {
    pub(super) fn add(&mut self, proxy: &Proxy) {
        self.address += proxy.refused.total();
        self.unintroduced += proxy.unintroduced.total();
        self.denied += proxy.denied.total();
    }
}

impl Proxies {
    /// All proxies by their slots, in the order of these.
    pub fn all(&self) -> impl Iterator<Item = (u32, &Proxy)> {
        let proxies = self.slab.iter();
        proxies.map(|(index, proxy)| (index as u32, proxy))
    }

    /// Whom proxies have refused since the start, those that are gone included.
    pub fn refusals(&self) -> RefusalCounts {
        let mut counts = self.gone;
        for (_, proxy) in &self.slab {
            counts.add(proxy);
        }
        counts
    }

    /// Panics where a proxy has other streams than the fronts say.
    pub fn check_tallies(&self, fronts: &Fronts) {
        let mut streams: HashMap<u32, u64> = HashMap::new();
        for (_, front) in fronts.iter().filter(|(_, front)| front.stream().is_some()) {
            *streams.entry(front.proxy).or_default() += 1;
        }
        for (index, proxy) in self.all() {
            let of = streams.get(&index).copied().unwrap_or_default();
            assert_eq!(of, proxy.tally.open(), "streams of a proxy");
        }
    }
}
