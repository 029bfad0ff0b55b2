//! Connections that are used again: taken from the pool, found dead, given up.
//!
//! What may be parked is decided where an exchange ends (`respond`); here is what becomes of it then. A
//! connection is looked at when it is taken, since its end may have come in the same turn; one that
//! dies all the same before it answers costs its exchange a second try, on a fresh one, if that is safe.

use log::{debug, trace};

use super::{Client, Owner, carried::State, dial::Whose, upstream::Upstream};
use crate::{
    clock::Now,
    config::{PoolMode, Target},
    key::Key,
    pool::{self, Eviction, Slot},
    reactor::{Outlook, Reactor, net::Net},
    tunnel::{control::Reason, window::Pressure},
};

impl Client {
    /// Gets a stream its connection: from the pool if it is an exchange, else by a dial.
    pub(super) fn obtain<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        carried: u32,
        upstream: Upstream,
        now: Now,
    ) {
        // What could not be sent again, whatever its method, is not sent where that may be needed.
        let is_calm = self.shared.budget.pressure() == Pressure::Calm;
        let asked = match &self.carried[carried as usize].state {
            State::Dialling {
                exchange: Some(exchange),
                ..
            } => {
                let again = exchange.repeatable && !exchange.long && is_calm;
                Some((exchange.repeatable, again))
            }
            _ => None,
        };
        if let Some((repeatable, again)) = asked
            && let Some((key, origin)) = self.take(io, &upstream, again, now)
        {
            self.counters.reused += 1;
            let found = &mut self.carried[carried as usize];
            if let State::Dialling {
                exchange: Some(exchange),
                ..
            } = &mut found.state
            {
                exchange.unproved = true;
            }
            if let Some(tunnel) = self.links.up(found.link()) {
                let budget = &mut self.shared.budget;
                tunnel.mux.keep_replay(found.stream, repeatable, budget);
            }
            return self.connected(io, carried, key, origin, now);
        }
        if self.dials.is_full() {
            return self.fail_stream(io, carried, Reason::Busy);
        }
        self.dial(io, upstream, Whose::Stream(carried), now);
    }

    /// Sends a request once more, on a fresh connection, where the one from the pool has died before it
    /// answered: RFC 9112 §9.3.1. `false` when that is not safe, or not possible.
    pub(super) fn retry<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        carried: u32,
        now: Now,
    ) -> bool {
        let Some(found) = self.carried.get_mut(carried as usize) else {
            return false;
        };
        let State::Exchange(key, exchange) = &mut found.state else {
            return false;
        };
        if !std::mem::take(&mut exchange.unproved) {
            return false;
        }
        let key = *key;
        let upstream = exchange.upstream.clone();
        let (link, stream, user) = (found.link(), found.stream, found.user);
        self.pool.stale_after_take();
        self.flush_upstream(io, &upstream);
        let Some(tunnel) = self.links.up(link) else {
            return false;
        };
        if !tunnel.mux.rewind(stream, &mut self.shared.budget, now) {
            debug!("{user}: the parked connection to {upstream} was dead, and a retry is not safe");
            return false;
        }
        debug!("{user}: the parked connection to {upstream} was dead, dialling afresh");
        io.close(key);
        self.counters.retried += 1;
        let found = &mut self.carried[carried as usize];
        let dialling = State::Dialling {
            dial: u32::MAX,
            exchange: None,
        };
        if let State::Exchange(_, mut exchange) = std::mem::replace(&mut found.state, dialling) {
            exchange.retried = true;
            self.exchanging -= 1;
            found.state = State::Dialling {
                dial: u32::MAX,
                exchange: Some(exchange),
            };
        }
        self.dial(io, upstream, Whose::Stream(carried), now);
        true
    }

    /// Closes what is parked for an origin that has shown that it closes, or is not there.
    pub(super) fn flush_upstream<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        upstream: &Upstream,
    ) {
        let mut stale = Vec::new();
        self.pool.flush(upstream, &mut stale);
        for key in stale {
            io.close(key);
        }
    }

    /// A connection from the pool that is still good.
    fn take<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        upstream: &Upstream,
        repeatable: bool,
        now: Now,
    ) -> Option<(Key, pool::Origin)> {
        let repeatable = repeatable || self.config.pool.mode == PoolMode::Always;
        while let Some(taken) = self.pool.take(upstream, repeatable, now.instant) {
            let allow = &self.config.allow;
            let allowed = match (&upstream.target, taken.origin.peer) {
                (Target::Inet { host, port }, Some(peer)) => allow.permits(host, *port, peer),
                (Target::Unix(path), None) => allow.permits_socket(path),
                (Target::Inet { .. }, None) | (Target::Unix(_), Some(_)) => false,
            };
            if allowed && io.look(taken.key) == Outlook::Quiet {
                trace!(
                    "{upstream}: connection of {} uses taken from the pool",
                    taken.origin.uses
                );
                return Some((taken.key, taken.origin));
            }
            debug!("{upstream}: parked connection closed, stale when it was taken");
            self.pool.stale_at_take();
            io.close(taken.key);
        }
        None
    }

    /// A parked connection has nothing legal to say: only "would block" keeps it.
    pub(super) fn parked_ready<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        key: Key,
        slot: Slot,
    ) {
        let why = match io.look(key) {
            Outlook::Quiet => return,
            Outlook::Data => Eviction::Unasked,
            Outlook::End | Outlook::Failed => Eviction::Closed,
        };
        debug!("parked connection: {why}");
        self.pool.forget(slot, why);
        io.close(key);
    }

    /// A parked connection has been idle, or has lived, long enough.
    pub(super) fn parked_timeout<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        key: Key,
        slot: Slot,
        now: Now,
    ) {
        self.pool.expire(slot, now.instant);
        io.close(key);
    }
}
