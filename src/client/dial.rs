//! From a target to a connected socket: RFC 8305, happy eyeballs.
//!
//! The name is looked up, its addresses are filtered by what may be dialled, and tried one after the
//! other, each a quarter of a second after the last or as soon as that one failed; the first to
//! connect wins. A unix socket has no addresses: it is tried, and that is it. Where TLS is asked for, the
//! winner has to prove who it is. Where the way to the server leads through a proxy, it is the proxy that is
//! dialled, and asked to lead on, before that. One deadline covers all of it, the wait for the look-up and
//! the handshake included.
//!
//! What may be dialled, and who is trusted, is asked when a dial is started, not when it is queued; a reload has
//! those that are under way begin anew. What is left to do once one has connected stands in `connected`.

mod connected;

use std::{collections::VecDeque, io::ErrorKind, net::SocketAddr, time::Instant};

use log::{debug, info};
use slab::Slab;

use super::{Client, Owner, detour::Detour, dial_reason, upstream::Upstream};
use crate::{
    clock::Now,
    config::{Host, SocketPath, Target},
    key::Key,
    reactor::{
        Deadline, Found, Reactor, Resolving,
        net::{Address, NameClass, Net, Peer, Purpose, is_out_of_descriptors},
        resolver::interleave,
    },
    tunnel::control::Reason,
};

/// A dial in progress.
pub(super) struct Dial {
    upstream: Upstream,
    whose: Whose,
    /// Through whom, if not straight.
    detour: Option<Box<Detour>>,
    progress: Progress,
    /// Addresses not yet tried.
    waiting: VecDeque<SocketAddr>,
    attempts: Vec<Key>,
    /// The entry that holds its clock.
    timer: Key,
    deadline: Instant,
    /// Why the last attempt failed.
    failure: Reason,
}

/// How far a dial has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// It waits until fewer are under way.
    Queued,
    /// The name is being looked up.
    Resolving,
    /// Addresses are tried.
    Connecting,
    /// The one that won is a proxy, which is asked to lead on.
    Asking(Peer),
    /// The one that won, or that it leads to, has to prove itself.
    Securing(Peer),
}

impl Dial {
    /// What its addresses are those of.
    fn place(&self) -> Target {
        match &self.detour {
            Some(detour) => detour.proxy().target(),
            None => self.upstream.target.clone(),
        }
    }
}

/// The dials of a client: at most so many under way, and a bounded number that wait their turn.
#[derive(Default)]
pub(super) struct Dials {
    slab: Slab<Dial>,
    /// Those that wait, each with its timer to tell it from a later tenant of its slot.
    queue: VecDeque<(u32, Key)>,
    /// How many are under way.
    active: usize,
}

impl Dials {
    /// Whether one more would have to wait longer than makes sense.
    pub fn is_full(&self) -> bool {
        self.queue.len() >= QUEUE_MAX
    }

    /// How many there are, those that wait included.
    pub fn len(&self) -> usize {
        self.slab.len()
    }
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
        upstream: Upstream,
        whose: Whose,
        now: Now,
    ) {
        let deadline = now.instant + self.config.timeouts.dial;
        let slot = self.dials.slab.vacant_key() as u32;
        let timer = io.timer(Owner::Dial(slot), Deadline::At(deadline));
        let proxy = match whose {
            Whose::Link => self.config.via.proxy(),
            Whose::Stream(_) => None,
        };
        let detour = proxy.map(|proxy| Box::new(Detour::new(proxy, &upstream.target)));
        self.dials.slab.insert(Dial {
            upstream,
            whose,
            detour,
            progress: Progress::Queued,
            waiting: VecDeque::new(),
            attempts: Vec::new(),
            timer,
            deadline,
            failure: Reason::DialTimeout,
        });
        self.dial_started(slot, whose);
        // The link itself never waits.
        if whose == Whose::Link || self.dials.active < self.config.limits.dials {
            self.start_dial(io, slot, now);
        } else {
            self.dials.queue.push_back((slot, timer));
        }
    }

    fn start_dial<N: Net>(&mut self, io: &mut Reactor<N, Owner>, slot: u32, now: Now) {
        let Some(dial) = self.dials.slab.get_mut(slot as usize) else {
            return;
        };
        dial.progress = Progress::Resolving;
        dial.failure = Reason::Unresolvable;
        self.dials.active += 1;
        if dial.whose == Whose::Link {
            self.network.resolves();
        }
        let (place, whose) = (dial.place(), dial.whose);
        // It was when its stream was admitted; since then it has waited.
        if matches!(whose, Whose::Stream(_)) && !self.may_dial(&place) {
            return self.dial_failed(io, slot, Reason::NotAllowed, now);
        }
        let class = self.name_class(&place, whose);
        let host = match place {
            Target::Inet { host, .. } => host,
            Target::Unix(path) => return self.socket_found(io, slot, &path, now),
        };
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

    /// Starts those that wait, as far as others have ended.
    pub(super) fn start_queued_dials<N: Net>(&mut self, io: &mut Reactor<N, Owner>, now: Now) {
        while self.dials.active < self.config.limits.dials {
            let Some((slot, timer)) = self.dials.queue.pop_front() else {
                return;
            };
            let found = self.dials.slab.get(slot as usize);
            if found.is_some_and(|dial| dial.timer == timer && dial.progress == Progress::Queued) {
                self.start_dial(io, slot, now);
            }
        }
    }

    /// Begins the dials of streams anew by the rules, and with the trust, of now; but for those that have yet to
    /// meet them.
    pub(super) fn redial<N: Net>(&mut self, io: &mut Reactor<N, Owner>, now: Now) {
        let begun = |dial: &Dial| {
            matches!(dial.whose, Whose::Stream(_))
                && matches!(dial.progress, Progress::Connecting | Progress::Securing(_))
        };
        let dials = self.dials.slab.iter().filter(|(_, dial)| begun(dial));
        let dials: Vec<_> = dials.map(|(slot, dial)| (slot, dial.timer)).collect();
        for (slot, timer) in dials {
            // Its slot may have a later tenant, if one before it has ended.
            let dial = self.dials.slab.get(slot);
            if dial.is_some_and(|dial| dial.timer == timer) {
                let dial = slot as u32;
                self.settle(io, dial, None);
                self.dials.active -= 1;
                self.start_dial(io, dial, now);
            }
        }
    }

    /// Whether anything there may be dialled for a stream.
    pub(super) fn may_dial(&self, target: &Target) -> bool {
        match target {
            Target::Inet { host, port } => self.config.allow.may_dial(host, *port),
            Target::Unix(path) => self.config.allow.permits_socket(path),
        }
    }

    /// Names in the configuration have a thread of their own, so that no user's slow names block them.
    fn name_class(&self, place: &Target, whose: Whose) -> NameClass {
        let configured = whose == Whose::Link
            || self
                .config
                .expose
                .iter()
                .any(|exposed| exposed.spec.target.as_ref() == Some(place));
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
            .slab
            .iter()
            .filter(|(_, dial)| {
                dial.progress == Progress::Resolving
                    && matches!(
                        dial.place(),
                        Target::Inet { host: Host::Name(of), .. } if *of == *name
                    )
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
        debug!("{}: {error}", self.called(&self.dials.slab[dial as usize]));
        self.dial_failed(io, dial, Reason::Unresolvable, now);
    }

    fn addresses_found<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        dial: u32,
        addresses: &[std::net::IpAddr],
        now: Now,
    ) {
        let Some(found) = self.dials.slab.get_mut(dial as usize) else {
            return;
        };
        let Target::Inet { host, port } = found.place() else {
            return;
        };
        let allowed =
            |address| found.whose == Whose::Link || self.config.allow.permits(&host, port, address);
        found.progress = Progress::Connecting;
        let addresses: Vec<_> = addresses
            .iter()
            .copied()
            .filter(|ip| allowed(*ip))
            .collect();
        found.waiting = interleave(&addresses)
            .into_iter()
            .map(|address| SocketAddr::new(address, port))
            .collect();
        if found.waiting.is_empty() {
            return self.dial_failed(io, dial, Reason::NotAllowed, now);
        }
        if found.whose == Whose::Link {
            self.network.dials(found.waiting.iter().copied(), io);
        }
        self.attempt(io, dial, now);
    }

    /// There is nothing to look up, and one place to try.
    fn socket_found<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        dial: u32,
        path: &SocketPath,
        now: Now,
    ) {
        self.dials.slab[dial as usize].progress = Progress::Connecting;
        if !self.try_address(io, dial, Address::Unix(path.as_str()), now) {
            self.attempt(io, dial, now);
        }
    }

    /// Tries the next address; gives up when there is none and nothing is under way.
    fn attempt<N: Net>(&mut self, io: &mut Reactor<N, Owner>, dial: u32, now: Now) {
        loop {
            let Some(found) = self.dials.slab.get_mut(dial as usize) else {
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
            if self.try_address(io, dial, Address::Inet(address), now) {
                return;
            }
        }
    }

    /// Whether an attempt is under way then, or has been.
    fn try_address<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        dial: u32,
        address: Address<'_>,
        now: Now,
    ) -> bool {
        let found = &self.dials.slab[dial as usize];
        let purpose = match found.whose {
            Whose::Link => Purpose::Link,
            Whose::Stream(_) if found.upstream.secure => Purpose::SecureTarget,
            Whose::Stream(_) => Purpose::Target,
        };
        let mut attempt = io.connect(address, purpose, Owner::Attempt(dial));
        while attempt.as_ref().is_err_and(is_out_of_descriptors) && self.evict_oldest(io) {
            attempt = io.connect(address, purpose, Owner::Attempt(dial));
        }
        match attempt {
            Ok(key) => {
                let found = &mut self.dials.slab[dial as usize];
                found.attempts.push(key);
                let mut at = found.deadline;
                if !found.waiting.is_empty() {
                    at = at.min(now.instant + ATTEMPT_DELAY);
                }
                io.set_deadline(found.timer, Deadline::At(at));
                // The handshake is over by now: no event need be waited for, and a burst of users does
                // not look like as many dials in progress.
                if address.is_local() {
                    self.attempt_ready(io, dial, key, now);
                }
                true
            }
            Err(error) => {
                let found = &self.dials.slab[dial as usize];
                let target = &found.upstream.target;
                match address {
                    Address::Inet(_) => debug!("{} at {address}: {error}", self.called(found)),
                    // It is the machine's own administrator who can mend a path, or its permissions, and
                    // no reason that is sent says which of them it is.
                    Address::Unix(_) if error.kind() == ErrorKind::WouldBlock => {
                        info!("{target}: as many connections wait there as may");
                    }
                    Address::Unix(_) => info!("{target}: {error}"),
                }
                let found = &mut self.dials.slab[dial as usize];
                found.failure = dial_reason(&error);
                false
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
        let Some(found) = self.dials.slab.get_mut(dial as usize) else {
            return io.close(key);
        };
        match found.progress {
            Progress::Asking(peer) => return self.proxy_answered(io, dial, key, peer, now),
            Progress::Securing(peer) => return self.secure(io, dial, key, peer, now),
            Progress::Queued | Progress::Resolving | Progress::Connecting => {}
        }
        match io.connected(key) {
            Ok(None) => {}
            Ok(Some(peer)) if found.detour.is_some() => self.ask_proxy(io, dial, key, peer, now),
            Ok(Some(peer)) => self.reached(io, dial, key, peer, now),
            Err(error) => {
                debug!("{}: {error}", self.called(&self.dials.slab[dial as usize]));
                let found = &mut self.dials.slab[dial as usize];
                found.attempts.retain(|attempt| *attempt != key);
                found.failure = dial_reason(&error);
                io.close(key);
                self.attempt(io, dial, now);
            }
        }
    }

    /// What is dialled, for the log.
    fn called(&self, dial: &Dial) -> String {
        match dial.whose {
            Whose::Link => match &dial.detour {
                Some(detour) => format!("{} via {}", self.config.server, detour.proxy()),
                None => self.config.server.to_string(),
            },
            Whose::Stream(_) => dial.upstream.to_string(),
        }
    }

    fn dial_succeeded<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        dial: u32,
        key: Key,
        peer: Peer,
        now: Now,
    ) {
        let found = &mut self.dials.slab[dial as usize];
        found.attempts.retain(|attempt| *attempt != key);
        let whose = found.whose;
        self.cancel_dial(io, dial);
        self.dialled(io, whose, Ok((key, peer)), now);
    }

    pub(super) fn dial_timeout<N: Net>(&mut self, io: &mut Reactor<N, Owner>, dial: u32, now: Now) {
        let Some(found) = self.dials.slab.get(dial as usize) else {
            return;
        };
        if matches!(found.progress, Progress::Asking(_)) {
            let why = "no answer to CONNECT within the dial deadline";
            self.detour_failed(io, dial, Reason::DialTimeout, why, now);
        } else if now.instant >= found.deadline || found.progress != Progress::Connecting {
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
        let whose = self.dials.slab[dial as usize].whose;
        self.cancel_dial(io, dial);
        self.dialled(io, whose, Err(reason), now);
    }

    /// Forgets a dial and all its attempts.
    pub(super) fn cancel_dial<N: Net>(&mut self, io: &mut Reactor<N, Owner>, dial: u32) {
        let Some(dial) = self.dials.slab.try_remove(dial as usize) else {
            return;
        };
        if dial.progress != Progress::Queued {
            self.dials.active -= 1;
        }
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
        result: Result<(Key, Peer), Reason>,
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

/// How many dials may wait for others to end: a burst of users whom one target takes a while to
/// accept. What they have sent already is in the budget; more are refused as busy.
const QUEUE_MAX: usize = 4096;
