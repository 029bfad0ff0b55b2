//! What each stream is doing here: dialling, raw, or an HTTP exchange.
//!
//! The decision of flow A and B is made here: `http` takes its connection from the pool and may give
//! it back; every other word gets a fresh one, which is closed when the session ends.

use std::{net::SocketAddr, time::Duration};

use log::{debug, info, trace};

use super::{Client, Owner, connection::GOODBYE_MAX, dial::Whose};
use crate::{
    clock::Now,
    config::{Host, PoolMode, Target},
    http::{Asked, Gather, Version},
    key::Key,
    pool::{self, Eviction, Slot},
    reactor::{Deadline, Reactor, net::Net},
    tunnel::{
        control::{How, ProxyConnect, Reason},
        ids::{ProxyId, UserId},
        mux::{Ended, Expired, Handle, Orphan, StreamEnd},
        window::Pressure,
    },
};

/// One stream, on this side.
pub(super) struct Carried {
    pub stream: Handle,
    pub user: UserId,
    pub proxy: ProxyId,
    pub state: State,
}

/// What a stream is doing.
pub(super) enum State {
    /// The target is being dialled.
    Dialling {
        dial: u32,
        exchange: Option<Box<Exchange>>,
    },
    /// Bytes both ways, on a fresh connection.
    Raw(Key),
    /// One request and its response.
    Exchange(Key, Box<Exchange>),
}

/// An HTTP exchange.
pub(super) struct Exchange {
    pub target: Target,
    pub asked: Asked,
    /// The response head, as far as it has come; `None` once it was final.
    pub head: Option<Gather>,
    /// How many interim heads (1xx) have come.
    pub interims: u32,
    /// The connection's history; `born` and `peer` are known once it is connected.
    pub origin: Option<pool::Origin>,
    /// What the final head said.
    pub facts: pool::Facts,
    /// How long the origin says that it keeps an idle connection.
    pub idle_max: Option<Duration>,
}

impl Carried {
    /// Its socket, once it has one.
    pub fn key(&self) -> Option<Key> {
        match self.state {
            State::Dialling { .. } => None,
            State::Raw(key) | State::Exchange(key, _) => Some(key),
        }
    }
}

impl Client {
    /// The server opened a stream.
    pub(super) fn stream_opened<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        stream: Handle,
        connect: ProxyConnect,
        now: Now,
    ) {
        let ProxyConnect {
            proxy_id,
            user_id,
            remote_host,
            remote_port,
            protocol,
            request,
        } = connect;
        let target = match self.admit(&remote_host, remote_port, &protocol, request.is_some()) {
            Ok(target) => target,
            Err(reason) => {
                // The name is the server's word: nothing of it is printed as it is.
                info!(
                    "{user_id}: refused, {reason}: {} port {remote_port}",
                    remote_host.escape_debug()
                );
                self.refuse(stream, reason);
                return;
            }
        };
        let exchange = request.map(|facts| {
            let version = if facts.http10 {
                Version::Http10
            } else {
                Version::Http11
            };
            let asked = Asked {
                head: facts.head,
                version,
                upgrade: facts.upgrade,
                keep_alive: facts.keep_alive,
                connection_auth: facts.tied,
            };
            (facts.repeatable, asked)
        });
        let entry = self.carried.vacant_entry();
        let carried = entry.key() as u32;
        entry.insert(Carried {
            stream,
            user: user_id,
            proxy: proxy_id,
            state: State::Dialling {
                dial: u32::MAX,
                exchange: exchange.map(|(_, asked)| {
                    Box::new(Exchange {
                        target: target.clone(),
                        asked,
                        head: Some(Gather::default()),
                        interims: 0,
                        origin: None,
                        facts: pool::Facts::default(),
                        idle_max: None,
                    })
                }),
            },
        });
        if let Some(tunnel) = self.connection.tunnel() {
            tunnel.mux.adopt(stream, carried);
        }
        if let Some((repeatable, _)) = exchange
            && let Some((key, origin)) = self.take(io, &target, repeatable, now)
        {
            self.counters.reused += 1;
            return self.connected(io, carried, key, origin, now);
        }
        if self.dials.is_full() {
            return self.fail_stream(io, carried, Reason::Busy);
        }
        self.dial(io, target, Whose::Stream(carried), now);
    }

    /// Whether a stream may be served at all, and to what it leads.
    fn admit(
        &self,
        host: &str,
        port: u16,
        protocol: &str,
        has_request: bool,
    ) -> Result<Target, Reason> {
        let poolable = pool::is_poolable(protocol);
        // `https` is an exchange over TLS, which this version does not speak to targets.
        if poolable != has_request || protocol.eq_ignore_ascii_case("https") {
            return Err(Reason::Unsupported);
        }
        let host: Host = host.parse().map_err(|_| Reason::Unresolvable)?;
        if port == 0 {
            return Err(Reason::Unreachable);
        }
        if !self.config.allow.may_dial(&host, port) {
            return Err(Reason::NotAllowed);
        }
        if self.shared.budget.pressure() >= Pressure::Full {
            return Err(Reason::Overload);
        }
        Ok(Target { host, port })
    }

    fn refuse(&mut self, stream: Handle, reason: Reason) -> Option<Ended> {
        self.schedule();
        let tunnel = self.connection.tunnel()?;
        tunnel.mux.abort(stream, reason, &mut self.shared.budget)
    }

    /// A connection from the pool that is still good.
    fn take<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        target: &Target,
        repeatable: bool,
        now: Now,
    ) -> Option<(Key, pool::Origin)> {
        let repeatable = repeatable || self.config.pool.mode == PoolMode::Always;
        while let Some(taken) = self.pool.take(target, repeatable, now.instant) {
            let allowed = self
                .config
                .allow
                .permits(&target.host, target.port, taken.origin.peer);
            if allowed && io.is_quiet(taken.key) {
                trace!(
                    "{target}: connection of {} uses taken from the pool",
                    taken.origin.uses
                );
                return Some((taken.key, taken.origin));
            }
            self.pool.stale_at_take();
            io.close(taken.key);
        }
        None
    }

    /// Remembers which dial a stream waits for.
    pub(super) fn dial_started(&mut self, dial: u32, whose: Whose) {
        match whose {
            Whose::Link => self.connection.dialling(),
            Whose::Stream(carried) => {
                if let Some(Carried {
                    state: State::Dialling { dial: of, .. },
                    ..
                }) = self.carried.get_mut(carried as usize)
                {
                    *of = dial;
                }
            }
        }
    }

    pub(super) fn stream_dialled<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        carried: u32,
        result: Result<(Key, SocketAddr), Reason>,
        now: Now,
    ) {
        match result {
            Ok((key, peer)) => {
                self.counters.dialled += 1;
                let origin = pool::Origin {
                    born: now.instant,
                    uses: 0,
                    peer: peer.ip(),
                };
                self.connected(io, carried, key, origin, now);
            }
            Err(reason) => {
                if let Some(found) = self.carried.get(carried as usize) {
                    info!("{}: refused, {reason}", found.user);
                }
                self.fail_stream(io, carried, reason);
            }
        }
    }

    /// A stream has its connection.
    fn connected<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        carried: u32,
        key: Key,
        origin: pool::Origin,
        now: Now,
    ) {
        let Some(found) = self.carried.get_mut(carried as usize) else {
            return io.close(key);
        };
        let stream = found.stream;
        let State::Dialling { exchange, .. } = &mut found.state else {
            return io.close(key);
        };
        io.set_owner(key, Owner::Target(carried));
        found.state = match exchange.take() {
            None => {
                io.set_deadline(key, Deadline::None);
                State::Raw(key)
            }
            Some(mut exchange) => {
                exchange.origin = Some(pool::Origin {
                    uses: origin.uses + 1,
                    ..origin
                });
                io.set_deadline(key, Deadline::Idle(self.config.timeouts.response_head));
                State::Exchange(key, exchange)
            }
        };
        self.schedule();
        let Some(tunnel) = self.connection.tunnel() else {
            return;
        };
        if let Some(happened) = tunnel
            .mux
            .connected(stream, key, io, &mut self.shared.budget, now)
        {
            self.happened(io, happened, now);
        }
    }

    pub(super) fn target_ready<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        carried: u32,
        now: Now,
    ) {
        let Some(found) = self.carried.get(carried as usize) else {
            return;
        };
        let stream = found.stream;
        let Some(key) = found.key() else { return };
        let Some(tunnel) = self.connection.tunnel() else {
            return;
        };
        if let Some(happened) = tunnel.mux.ready(stream, io, &mut self.shared.budget, now) {
            self.happened(io, happened, now);
        }
        self.schedule();
        let awaits_head = self.carried.get(carried as usize).is_some_and(
            |found| matches!(&found.state, State::Exchange(_, exchange) if exchange.head.is_some()),
        );
        if awaits_head && io.is_readable(key) {
            self.read_response(io, carried, now);
        }
    }

    pub(super) fn half_closed<N: Net>(&mut self, io: &mut Reactor<N, Owner>, carried: u32) {
        if let Some(key) = self.carried.get(carried as usize).and_then(Carried::key) {
            io.set_deadline(key, Deadline::Idle(self.config.timeouts.half_close));
        }
    }

    pub(super) fn target_timeout<N: Net>(&mut self, io: &mut Reactor<N, Owner>, carried: u32) {
        let Some(found) = self.carried.get(carried as usize) else {
            return;
        };
        let stream = found.stream;
        let Some(tunnel) = self.connection.tunnel() else {
            return;
        };
        match &found.state {
            State::Exchange(key, exchange) if exchange.head.is_some() => {
                if !tunnel.mux.is_request_told(stream) && !tunnel.mux.has_tail(stream) {
                    // The origin is not to blame: the request is still coming.
                    io.set_deadline(*key, Deadline::Idle(self.config.timeouts.response_head));
                } else {
                    self.fail_stream(io, carried, Reason::ResponseTimeout);
                }
            }
            State::Raw(key) => {
                let key = *key;
                let expired = tunnel
                    .mux
                    .half_close_expired(stream, &mut self.shared.budget);
                let Expired::GivenUp { ended, stuck } = expired else {
                    let idle = self.config.timeouts.half_close;
                    return io.set_deadline(key, Deadline::Idle(idle));
                };
                let gone = self.carried.remove(carried as usize);
                self.log_end(&gone, &ended, io.now());
                if stuck {
                    io.abort(key);
                } else {
                    io.linger(key, GOODBYE_MAX);
                }
                self.schedule();
            }
            _ => self.fail_stream(io, carried, Reason::HalfCloseTimeout),
        }
    }

    /// Ends a stream from this side.
    pub(super) fn fail_stream<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        carried: u32,
        reason: Reason,
    ) {
        let Some(found) = self.carried.get(carried as usize) else {
            return;
        };
        let stream = found.stream;
        let ended = self.refuse(stream, reason);
        let Some(found) = self.carried.try_remove(carried as usize) else {
            return;
        };
        if let Some(ended) = ended {
            self.log_end(&found, &ended, io.now());
        }
        if let State::Exchange(_, exchange) = &found.state {
            let held = exchange.head.as_ref().map_or(0, Gather::held);
            self.shared.budget.drop_head(held);
        }
        if let Some(key) = found.key() {
            io.abort(key);
        }
    }

    /// The stream is over: its connection is parked or closed.
    pub(super) fn stream_ended<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        carried: u32,
        ended: Ended,
        now: Now,
    ) {
        let Some(found) = self.carried.try_remove(carried as usize) else {
            return;
        };
        self.log_end(&found, &ended, now);
        match found.state {
            State::Dialling { dial, .. } => self.cancel_dial(io, dial),
            State::Raw(key) => match ended.end {
                StreamEnd::Closed => io.close(key),
                // The target may still be sending: to close on that would reset it, and destroy what
                // the kernel has not yet delivered.
                StreamEnd::Disconnected(How::Orderly, _) => io.linger(key, GOODBYE_MAX),
                _ => io.abort(key),
            },
            State::Exchange(key, exchange) => {
                let held = exchange.head.as_ref().map_or(0, Gather::held);
                self.shared.budget.drop_head(held);
                self.exchange_ended(io, key, *exchange, ended.end, now);
            }
        }
    }

    /// The link of the stream is gone.
    pub(super) fn stream_orphaned<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        orphan: Orphan,
        now: Now,
    ) {
        let Orphan { owner, ended, rest } = orphan;
        let key = match self.carried.get(owner as usize).map(|found| &found.state) {
            Some(State::Raw(key)) => *key,
            // Nobody is left to have the response.
            _ => return self.stream_ended(io, owner, ended, now),
        };
        match rest {
            Some(rest) => {
                let found = self.carried.remove(owner as usize);
                self.log_end(&found, &ended, now);
                io.farewell(key, &rest, self.config.timeouts.half_close);
            }
            None => self.stream_ended(io, owner, ended, now),
        }
    }

    /// Every stream that had a slot is counted and has its line, however it ended.
    fn log_end(&mut self, carried: &Carried, ended: &Ended, now: Now) {
        self.counters.ended += 1;
        let connection = match &carried.state {
            State::Dialling { .. } => "not connected",
            State::Exchange(_, exchange)
                if exchange.origin.is_some_and(|origin| origin.uses > 1) =>
            {
                "reused"
            }
            State::Raw(_) | State::Exchange(..) => "fresh",
        };
        debug!(
            "stream {} of proxy {}: {}, {} B up, {} B down, {:.3} s, {connection}",
            carried.user,
            carried.proxy,
            ended.end,
            ended.delivered,
            ended.sent,
            now.instant
                .saturating_duration_since(ended.opened)
                .as_secs_f64()
        );
    }

    /// A parked connection has nothing legal to say: only "would block" keeps it.
    pub(super) fn parked_ready<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        key: Key,
        slot: Slot,
    ) {
        if !io.is_quiet(key) {
            self.pool.forget(slot, Eviction::Readable);
            io.close(key);
        }
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
