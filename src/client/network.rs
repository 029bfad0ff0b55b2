//! The network below the link is another, or the machine has slept: who waits for a deadline then waits in vain.
//!
//! The system says only that something has changed, and in a busy one does so all the time. So a moment later,
//! and at most once in a second, it is asked what has become of the ways that are ours: from which address
//! packets would leave for the server. As long as that is what it was, nothing has happened.
//!
//! ```text
//!   something changed --SETTLED_AFTER--> a wait:  another way to the server? dial, from the first backoff on
//!                                        a link:  its address is gone, and there is another? dial anew
//!                                                 another way, or one again? ask, and wait for less long
//! ```

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use log::{debug, info};

use super::{
    Client, Owner,
    connection::{Cause, Connection},
    links::LinkId,
};
use crate::{
    clock::Now,
    key::Key,
    reactor::{
        Deadline, Reactor,
        net::{Net, Way},
    },
};

/// What was known of the network when it was last looked at.
pub(super) struct Network {
    /// Until when changes are waited out.
    settling: Option<Key>,
    looked: Option<Instant>,
    /// Where the server was looked for, and from which address of ours; `None` where its name was not found.
    server: Option<Vec<(SocketAddr, Option<IpAddr>)>>,
    /// The link's.
    way: Way,
}

impl Default for Network {
    fn default() -> Network {
        Network {
            settling: None,
            looked: None,
            server: None,
            way: Way::Same,
        }
    }
}

impl Network {
    /// The name of the server is looked up, or what stands for it.
    pub fn resolves(&mut self) {
        self.server = None;
    }

    /// The server is dialled at these addresses.
    pub fn dials<N: Net>(
        &mut self,
        addresses: impl Iterator<Item = SocketAddr>,
        io: &Reactor<N, Owner>,
    ) {
        self.way = Way::Same;
        // What is on this machine is reached whatever becomes of the network.
        let far = addresses.filter(|address| !address.ip().is_loopback());
        let with_source = |address| (address, io.source_towards(address));
        self.server = Some(far.map(with_source).collect());
    }

    /// Whether the server may be reached by another way than when this was last asked.
    fn has_changed<N: Net>(&mut self, io: &Reactor<N, Owner>) -> bool {
        let Some(server) = &mut self.server else {
            return true;
        };
        let mut changed = false;
        for (address, source) in server {
            let before = std::mem::replace(source, io.source_towards(*address));
            changed |= source.is_some() && *source != before;
        }
        changed
    }
}

impl Client {
    /// Has the system tell when the network is another.
    pub fn watches_network<N: Net>(&mut self, io: &mut Reactor<N, Owner>) {
        if let Err(error) = io.watch_network() {
            debug!("changes of the network are not told: {error}");
        }
    }

    /// Something of the network is another.
    pub(super) fn network_stirred<N: Net>(&mut self, io: &mut Reactor<N, Owner>, now: Now) {
        if self.stage.is_ending() || self.network.settling.is_some() {
            return;
        }
        let next = self.network.looked.map(|looked| looked + LOOKED_EVERY);
        let at = (now.instant + SETTLED_AFTER).max(next.unwrap_or(now.instant));
        self.network.settling = Some(io.timer(Owner::Network, Deadline::At(at)));
    }

    /// It has settled, or changes all the time.
    pub(super) fn network_settled<N: Net>(&mut self, io: &mut Reactor<N, Owner>, now: Now) {
        if let Some(timer) = self.network.settling.take() {
            io.close(timer);
        }
        // Told of what comes after this look.
        self.watches_network(io);
        self.network.looked = Some(now.instant);
        self.look_at_network(io, false, now);
    }

    /// The machine has slept, or its clock was set, which nobody can tell apart; neither does harm.
    pub(super) fn has_slept<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        skipped: Duration,
        now: Now,
    ) {
        if self.stage.is_ending() {
            return;
        }
        info!(
            "this machine has slept for {:.0} s, or its clock was set",
            skipped.as_secs_f64()
        );
        // Origins have waited by their own clocks, and whatever they said of it met nobody here.
        let mut parked = Vec::new();
        self.pool.give_up(&mut parked);
        for key in parked {
            io.close(key);
        }
        self.look_at_network(io, true, now);
    }

    fn look_at_network<N: Net>(&mut self, io: &mut Reactor<N, Owner>, has_slept: bool, now: Now) {
        let changed = self.network.has_changed(io) || has_slept;
        if changed {
            io.forget_names();
            self.backoff.renew(now.instant);
        }
        if changed {
            for id in self.links.ids() {
                if !self.links.is_present(id) {
                    self.ask_server(io, id, now);
                }
            }
        }
        match &self.links.present {
            Connection::Waiting {
                cause: Cause::Passing,
                ..
            } if changed => {
                let id = &self.config.id;
                info!("link {id}: dialled at once, for the network may be another");
                self.dial_again(io, now);
            }
            Connection::Upgrade(_) | Connection::Hello(..) | Connection::Up(..) => {
                let Some(key) = self.links.present.key() else {
                    return;
                };
                let way = io.way(key);
                let before = std::mem::replace(&mut self.network.way, way);
                debug!("link {}: the network has changed: {way:?}", self.config.id);
                match way {
                    Way::Lost => self.link_stranded(io, now),
                    // There is nothing to be won yet; the address may come back, and the link with it.
                    Way::None => {}
                    Way::Same | Way::Other(_) if way != before || has_slept => {
                        self.ask_server(io, self.links.id(), now);
                    }
                    Way::Same | Way::Other(_) => {}
                }
            }
            Connection::Idle | Connection::Waiting { .. } | Connection::Dialling(_) => {}
        }
    }

    /// Asks whether it is still there.
    fn ask_server<N: Net>(&mut self, io: &mut Reactor<N, Owner>, id: LinkId, now: Now) {
        let Some(tunnel) = self.links.up(id) else {
            return;
        };
        match tunnel.link.ask(io, tunnel.key, ANSWERED_WITHIN, now) {
            Ok(()) => io.set_deadline(tunnel.key, Deadline::At(tunnel.link.deadline())),
            Err(error) => self.link_failed(io, id, &error, now),
        }
    }
}

/// From the first change to the look: an address, its route and the route's next hop come one by one, within
/// a few milliseconds of each other.
const SETTLED_AFTER: Duration = Duration::from_millis(200);

/// A network that changes without end is looked at no more often: a router with a full table costs a dozen
/// system calls a second, and a client in a train a dial.
const LOOKED_EVERY: Duration = Duration::from_secs(1);

/// A server that is there answers in a round trip. A VPN may take a second or two until it carries anything.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3);
