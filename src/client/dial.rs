//! From a host and port to a connected socket: RFC 8305, happy eyeballs.
//!
//! The name is looked up, its addresses are filtered by what may be dialled, and tried one after the
//! other, each a quarter of a second after the last or as soon as that one failed; the first to
//! connect wins. One deadline covers all of it, the wait for the look-up included.

use std::{collections::VecDeque, net::SocketAddr, time::Instant};

use log::debug;

use super::{Client, Owner, dial_reason};
use crate::{
    clock::Now,
    config::{Host, Target},
    key::Key,
    reactor::{
        Deadline, Found, Reactor, Resolving,
        net::{NameClass, Net, Purpose, is_out_of_descriptors},
        resolver::interleave,
    },
    tunnel::control::Reason,
};

/// A dial in progress.
pub(super) struct Dial {
    target: Target,
    whose: Whose,
    /// The name is being looked up.
    resolving: bool,
    /// Addresses not yet tried.
    waiting: VecDeque<SocketAddr>,
    attempts: Vec<Key>,
    /// The entry that holds its clock.
    timer: Key,
    deadline: Instant,
    /// Why the last attempt failed.
    failure: Reason,
}

/// Who wants to be connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    Link,
    Stream(u32),
}

impl Client {
    /// Starts a dial; `dialled` is called with its result, perhaps before this returns.
    pub(super) fn dial<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        target: Target,
        whose: Whose,
        now: Now,
    ) {
        let deadline = now.instant + self.config.timeouts.dial;
        let slot = self.dials.vacant_key() as u32;
        let timer = io.timer(Owner::Dial(slot), Deadline::At(deadline));
        let host = target.host.clone();
        let class = self.name_class(&target, whose);
        self.dials.insert(Dial {
            target,
            whose,
            resolving: true,
            waiting: VecDeque::new(),
            attempts: Vec::new(),
            timer,
            deadline,
            failure: Reason::Unresolvable,
        });
        self.dial_started(slot, whose);
        match host {
            Host::Address(address) => self.addresses_found(io, slot, &[address], now),
            Host::Name(name) => match io.resolve(&name, class) {
                Resolving::Known(Ok(addresses)) => self.addresses_found(io, slot, &addresses, now),
                Resolving::Known(Err(error)) => self.name_failed(io, slot, &error, now),
                Resolving::Pending => {}
                Resolving::Busy => self.dial_failed(io, slot, Reason::Busy, now),
            },
        }
    }

    /// Names in the configuration have a thread of their own, so that no user's slow names block them.
    fn name_class(&self, target: &Target, whose: Whose) -> NameClass {
        let configured = whose == Whose::Link
            || self
                .config
                .expose
                .iter()
                .any(|spec| spec.target.as_ref() == Some(target));
        if configured {
            NameClass::Configured
        } else {
            NameClass::Users
        }
    }

    pub(super) fn name_resolved<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        name: &str,
        found: &Found,
        now: Now,
    ) {
        let waiting: Vec<u32> = self
            .dials
            .iter()
            .filter(|(_, dial)| {
                dial.resolving && matches!(&dial.target.host, Host::Name(of) if **of == *name)
            })
            .map(|(index, _)| index as u32)
            .collect();
        for dial in waiting {
            match found {
                Ok(addresses) => self.addresses_found(io, dial, addresses, now),
                Err(error) => self.name_failed(io, dial, error, now),
            }
        }
    }

    fn name_failed<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        dial: u32,
        error: &str,
        now: Now,
    ) {
        debug!("{}: {error}", self.dials[dial as usize].target);
        self.dial_failed(io, dial, Reason::Unresolvable, now);
    }

    fn addresses_found<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        dial: u32,
        addresses: &[std::net::IpAddr],
        now: Now,
    ) {
        let Some(found) = self.dials.get_mut(dial as usize) else {
            return;
        };
        let Target { host, port } = &found.target;
        let allowed =
            |address| found.whose == Whose::Link || self.config.allow.permits(host, *port, address);
        found.resolving = false;
        let addresses: Vec<_> = addresses
            .iter()
            .copied()
            .filter(|ip| allowed(*ip))
            .collect();
        found.waiting = interleave(&addresses)
            .into_iter()
            .map(|address| SocketAddr::new(address, *port))
            .collect();
        if found.waiting.is_empty() {
            return self.dial_failed(io, dial, Reason::NotAllowed, now);
        }
        self.attempt(io, dial, now);
    }

    /// Tries the next address; gives up when there is none and nothing is under way.
    fn attempt<N: Net>(&mut self, io: &mut Reactor<N, Owner>, dial: u32, now: Now) {
        loop {
            let Some(found) = self.dials.get_mut(dial as usize) else {
                return;
            };
            let Some(address) = found.waiting.pop_front() else {
                if found.attempts.is_empty() {
                    let failure = found.failure;
                    self.dial_failed(io, dial, failure, now);
                } else {
                    io.set_deadline(found.timer, Deadline::At(found.deadline));
                }
                return;
            };
            let purpose = match found.whose {
                Whose::Link => Purpose::Link,
                Whose::Stream(_) => Purpose::Target,
            };
            let mut attempt = io.connect(address, purpose, Owner::Attempt(dial));
            while attempt.as_ref().is_err_and(is_out_of_descriptors) && self.evict_oldest(io) {
                attempt = io.connect(address, purpose, Owner::Attempt(dial));
            }
            let found = &mut self.dials[dial as usize];
            match attempt {
                Ok(key) => {
                    found.attempts.push(key);
                    let mut at = found.deadline;
                    if !found.waiting.is_empty() {
                        at = at.min(now.instant + ATTEMPT_DELAY);
                    }
                    io.set_deadline(found.timer, Deadline::At(at));
                    // On loopback the handshake is over by now: no event need be waited for, and a
                    // burst of users does not look like as many dials in progress.
                    if address.ip().is_loopback() {
                        self.attempt_ready(io, dial, key, now);
                    }
                    return;
                }
                Err(error) => {
                    debug!("{} at {address}: {error}", found.target);
                    found.failure = dial_reason(&error);
                }
            }
        }
    }

    pub(super) fn attempt_ready<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        dial: u32,
        key: Key,
        now: Now,
    ) {
        let Some(found) = self.dials.get_mut(dial as usize) else {
            return io.close(key);
        };
        match io.connected(key) {
            Ok(None) => {}
            Ok(Some(peer)) => {
                found.attempts.retain(|attempt| *attempt != key);
                let whose = found.whose;
                self.cancel_dial(io, dial);
                self.dialled(io, whose, Ok((key, peer)), now);
            }
            Err(error) => {
                debug!("{}: {error}", found.target);
                found.attempts.retain(|attempt| *attempt != key);
                found.failure = dial_reason(&error);
                io.close(key);
                self.attempt(io, dial, now);
            }
        }
    }

    pub(super) fn dial_timeout<N: Net>(&mut self, io: &mut Reactor<N, Owner>, dial: u32, now: Now) {
        let Some(found) = self.dials.get(dial as usize) else {
            return;
        };
        if now.instant >= found.deadline {
            self.dial_failed(io, dial, Reason::DialTimeout, now);
        } else {
            self.attempt(io, dial, now);
        }
    }

    fn dial_failed<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        dial: u32,
        reason: Reason,
        now: Now,
    ) {
        let whose = self.dials[dial as usize].whose;
        self.cancel_dial(io, dial);
        self.dialled(io, whose, Err(reason), now);
    }

    /// Forgets a dial and all its attempts.
    pub(super) fn cancel_dial<N: Net>(&mut self, io: &mut Reactor<N, Owner>, dial: u32) {
        let Some(dial) = self.dials.try_remove(dial as usize) else {
            return;
        };
        for attempt in dial.attempts {
            io.close(attempt);
        }
        io.close(dial.timer);
    }

    /// The result of a dial.
    fn dialled<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        whose: Whose,
        result: Result<(Key, SocketAddr), Reason>,
        now: Now,
    ) {
        match whose {
            Whose::Link => self.link_dialled(io, result, now),
            Whose::Stream(carried) => self.stream_dialled(io, carried, result, now),
        }
    }
}

/// RFC 8305 §5: Connection Attempt Delay.
const ATTEMPT_DELAY: std::time::Duration = std::time::Duration::from_millis(250);
