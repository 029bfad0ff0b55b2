//! What each stream is doing here: waiting, dialling, raw, or an HTTP exchange.
//!
//! The decision of flow A and B is made here: `http` and `https` take their connection from the pool and
//! may give it back (see `reuse`); every other word gets a fresh one, which is closed when the session
//! ends.

use std::time::Duration;

use log::{debug, info};

use super::{
    Client, LinkId, Owner,
    connection::{Connection, GOODBYE_MAX},
    dial::Whose,
    upstream::{Admission, Upstream},
};
use crate::{
    clock::Now,
    config::{ClientId, Target},
    http::{Asked, Gather, Version},
    key::Key,
    pool,
    reactor::{
        Deadline, Reactor,
        net::{Net, Peer},
    },
    tunnel::{
        control::{How, ProxyConnect, Reason, RequestFacts},
        ids::{ProxyId, UserId},
        mux::{Ended, Expired, Handle, Orphan, StreamEnd},
        window::Pressure,
    },
};

/// One stream, on this side.
pub(super) struct Carried {
    pub stream: Handle,
    pub user: UserId,
    whence: Whence,
    /// It has a place, or waits for one, where there are so many.
    place: Option<Box<Upstream>>,
    pub state: State,
}

/// By which link a stream comes, and from which proxy there. Whatever comes by a link of ours is this
/// client's, and its name is here already: no stream keeps a copy.
struct Whence {
    link: LinkId,
    port: u16,
    made: u64,
}

/// What a stream is doing.
pub(super) enum State {
    /// Its target serves as many exchanges as it may; the timer ends the wait.
    Queued(Key, Box<Exchange>),
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
    pub upstream: Upstream,
    pub asked: Asked,
    /// Doing it twice is like doing it once.
    pub repeatable: bool,
    /// It is, or may be, more than is kept of it.
    pub long: bool,
    /// The user may wait for 100 before it says more.
    expects: bool,
    /// Its connection comes from the pool and has not answered yet: it may have been dead by then.
    pub unproved: bool,
    /// It was sent a second time.
    pub retried: bool,
    /// The response head, as far as it has come; `None` once it was final.
    pub head: Option<Gather>,
    /// How many interim heads (1xx) have come, and how long they were.
    pub interims: usize,
    pub interim_bytes: usize,
    /// The connection's history; `born` and `peer` are known once it is connected.
    pub origin: Option<pool::Origin>,
    /// What the final head said.
    pub facts: pool::Facts,
    /// How long the origin says that it keeps an idle connection.
    pub idle_max: Option<Duration>,
}

impl Whence {
    fn proxy_id(&self, client: &ClientId) -> ProxyId {
        ProxyId {
            client: client.shared(),
            port: self.port,
            made: self.made,
        }
    }
}

impl Carried {
    /// Its socket, once it has one.
    pub fn key(&self) -> Option<Key> {
        match self.state {
            State::Queued(..) | State::Dialling { .. } => None,
            State::Raw(key) | State::Exchange(key, _) => Some(key),
        }
    }

    /// The link that carries it.
    pub fn link(&self) -> LinkId {
        self.whence.link
    }

    /// Its proxy, which is this client's.
    pub fn proxy_id(&self, client: &ClientId) -> ProxyId {
        self.whence.proxy_id(client)
    }

    /// Its place, and whether it has it already.
    pub fn place(&self) -> Option<(&Upstream, bool)> {
        let waits = matches!(self.state, State::Queued(..));
        self.place.as_deref().map(|place| (place, !waits))
    }

    fn exchange(&self) -> Option<&Exchange> {
        match &self.state {
            State::Queued(_, exchange) | State::Exchange(_, exchange) => Some(exchange),
            State::Dialling { exchange, .. } => exchange.as_deref(),
            State::Raw(_) => None,
        }
    }
}

impl Client {
    /// The server opened a stream.
    pub(super) fn stream_opened<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        link: LinkId,
        stream: Handle,
        connect: ProxyConnect,
        now: Now,
    ) {
        self.opened += 1;
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
                    user_id:% = user_id; "{user_id}: refused, {reason}: {} port {remote_port}",
                    remote_host.escape_debug()
                );
                if let Some(ended) = self.refuse(link, stream, reason) {
                    self.ends.count(ended.end);
                }
                return;
            }
        };
        let secure = protocol.eq_ignore_ascii_case(HTTPS);
        let upstream = Upstream { secure, target };
        let exchange = request.map(|facts| Box::new(Exchange::new(upstream.clone(), facts)));
        let admission = match exchange {
            Some(_) => self.places.admit(&upstream),
            None => Admission::Now,
        };
        let limited = exchange.is_some() && self.places.are_limited();
        let carried = self.carried.insert(Carried {
            stream,
            user: user_id,
            whence: Whence {
                link,
                port: proxy_id.port,
                made: proxy_id.made,
            },
            place: (limited && admission != Admission::Refused).then(|| Box::new(upstream.clone())),
            state: State::Dialling {
                dial: u32::MAX,
                exchange,
            },
        }) as u32;
        if let Some(tunnel) = self.links.up(link) {
            tunnel.mux.adopt(stream, carried);
        }
        match admission {
            Admission::Now => self.obtain(io, carried, upstream, now),
            Admission::Wait => self.queue(io, carried, &upstream, now),
            Admission::Refused => {
                info!(user_id:% = user_id; "{user_id}: refused, {upstream} is busy and too many wait");
                self.fail_stream(io, carried, Reason::TargetBusy);
            }
        }
    }

    /// Waits until the target has a place.
    fn queue<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        carried: u32,
        upstream: &Upstream,
        now: Now,
    ) {
        let found = &mut self.carried[carried as usize];
        if let State::Dialling { exchange, .. } = &mut found.state
            && let Some(exchange) = exchange.take()
        {
            let at = now.instant + self.config.timeouts.queue;
            let timer = io.timer(Owner::Queued(carried), Deadline::At(at));
            debug!("{}: waits for a place at {upstream}", found.user);
            found.state = State::Queued(timer, exchange);
            self.places.wait(upstream, carried, timer);
        }
    }

    /// Starts what has waited for a place that is free now.
    pub(super) fn start_queued_exchanges<N: Net>(&mut self, io: &mut Reactor<N, Owner>, now: Now) {
        while let Some(carried) = self.places.next() {
            let Some(found) = self.carried.get_mut(carried as usize) else {
                continue;
            };
            let waiting = State::Dialling {
                dial: u32::MAX,
                exchange: None,
            };
            if let State::Queued(timer, waited) = std::mem::replace(&mut found.state, waiting) {
                io.close(timer);
                let upstream = waited.upstream.clone();
                found.state = State::Dialling {
                    dial: u32::MAX,
                    exchange: Some(waited),
                };
                self.obtain(io, carried, upstream, now);
            }
        }
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
        let spoken = cfg!(feature = "tls") || !protocol.eq_ignore_ascii_case(HTTPS);
        if poolable != has_request || !spoken {
            return Err(Reason::Unsupported);
        }
        let target = Target::from_remote(host, port).map_err(|_| Reason::Unresolvable)?;
        match &target {
            Target::Inet { port: 0, .. } => return Err(Reason::Unreachable),
            // A certificate is for a name.
            Target::Unix(_) if protocol.eq_ignore_ascii_case(HTTPS) => {
                return Err(Reason::Unsupported);
            }
            Target::Inet { .. } | Target::Unix(_) => {}
        }
        if !self.may_dial(&target) {
            return Err(Reason::NotAllowed);
        }
        if self.shared.budget.pressure() >= Pressure::Full {
            return Err(Reason::Overload);
        }
        Ok(target)
    }

    fn refuse(&mut self, link: LinkId, stream: Handle, reason: Reason) -> Option<Ended> {
        self.schedule();
        let tunnel = self.links.up(link)?;
        tunnel.mux.abort(stream, reason, &mut self.shared.budget)
    }

    /// Remembers which dial a stream waits for.
    pub(super) fn dial_started(&mut self, dial: u32, whose: Whose) {
        match whose {
            Whose::Link => self.links.present = Connection::Dialling(dial),
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
        result: Result<(Key, Peer), Reason>,
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
                    info!(user_id:% = found.user; "{}: refused, {reason}", found.user);
                    // What is parked there will not be better.
                    if let Some(upstream) = found.exchange().map(|it| it.upstream.clone()) {
                        self.flush_upstream(io, &upstream);
                    }
                }
                self.fail_stream(io, carried, reason);
            }
        }
    }

    /// A stream has its connection.
    pub(super) fn connected<N: Net>(
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
        let (link, stream) = (found.link(), found.stream);
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
                io.set_deadline(key, Deadline::idle(self.config.timeouts.response_head));
                self.exchanging += 1;
                State::Exchange(key, exchange)
            }
        };
        self.schedule();
        let Some(tunnel) = self.links.up(link) else {
            return;
        };
        if let Some(happened) = tunnel
            .mux
            .connected(stream, key, io, &mut self.shared.budget, now)
        {
            self.happened(io, link, happened, now);
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
        let (link, stream) = (found.link(), found.stream);
        let Some(key) = found.key() else { return };
        let Some(tunnel) = self.links.up(link) else {
            return;
        };
        if let Some(happened) = tunnel.mux.ready(stream, io, &mut self.shared.budget, now) {
            self.happened(io, link, happened, now);
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
        // The end of a request is none of its connection's: an exchange has its own deadlines.
        if let Some(State::Raw(key)) = self.carried.get(carried as usize).map(|it| &it.state) {
            io.set_deadline(*key, Deadline::idle(self.config.timeouts.half_close));
        }
    }

    pub(super) fn target_timeout<N: Net>(&mut self, io: &mut Reactor<N, Owner>, carried: u32) {
        let Some(found) = self.carried.get(carried as usize) else {
            return;
        };
        let stream = found.stream;
        let Some(tunnel) = self.links.up(found.link()) else {
            return;
        };
        match &found.state {
            State::Exchange(key, exchange) if exchange.head.is_some() => {
                let waits = exchange.expects && exchange.interims == 0;
                if !waits && !tunnel.mux.is_request_told(stream) && !tunnel.mux.has_tail(stream) {
                    // The origin is not to blame: the request is still coming.
                    io.set_deadline(*key, Deadline::idle(self.config.timeouts.response_head));
                } else {
                    self.fail_stream(io, carried, Reason::ResponseTimeout);
                }
            }
            State::Raw(key) => {
                let key = *key;
                let expired = tunnel
                    .mux
                    .half_close_expired(stream, &mut self.shared.budget);
                let Expired::GivenUp { ended, cut } = expired else {
                    let idle = self.config.timeouts.half_close;
                    return io.set_deadline(key, Deadline::idle(idle));
                };
                if let Some(gone) = self.remove(io, carried) {
                    self.log_end(&gone, &ended, io.now());
                }
                if cut {
                    io.abort(key);
                } else {
                    io.linger(key, GOODBYE_MAX);
                }
                self.schedule();
            }
            // A response that has begun may take its time.
            State::Exchange(..) | State::Queued(..) | State::Dialling { .. } => {}
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
        let (link, stream) = (found.link(), found.stream);
        let ended = self.refuse(link, stream, reason);
        let Some(found) = self.remove(io, carried) else {
            return;
        };
        if let Some(ended) = ended {
            self.log_end(&found, &ended, io.now());
        }
        if let Some(key) = found.key() {
            io.abort(key);
        }
    }

    /// No place became free in time.
    pub(super) fn queue_timeout<N: Net>(&mut self, io: &mut Reactor<N, Owner>, carried: u32) {
        if let Some(found) = self.carried.get(carried as usize)
            && let State::Queued(_, exchange) = &found.state
        {
            info!(user_id:% = found.user; "{}: refused, {} stays busy", found.user, exchange.upstream);
            self.fail_stream(io, carried, Reason::TargetBusy);
        }
    }

    /// Forgets a stream and what it holds, but for its socket.
    fn remove<N: Net>(&mut self, io: &mut Reactor<N, Owner>, carried: u32) -> Option<Carried> {
        let found = self.carried.try_remove(carried as usize)?;
        if let State::Exchange(..) = found.state {
            self.exchanging -= 1;
        }
        if let Some(exchange) = found.exchange() {
            let held = exchange.head.as_ref().map_or(0, Gather::held);
            self.shared.budget.drop_head(held);
        }
        match (&found.state, &found.place) {
            (State::Queued(timer, _), Some(place)) => {
                self.places.give_up(place, *timer);
                io.close(*timer);
            }
            (_, Some(place)) => self.places.leave(place),
            (_, None) => {}
        }
        Some(found)
    }

    /// The stream is over: its connection is parked or closed.
    pub(super) fn stream_ended<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        carried: u32,
        ended: Ended,
        now: Now,
    ) {
        let Some(found) = self.remove(io, carried) else {
            return;
        };
        self.log_end(&found, &ended, now);
        match found.state {
            State::Queued(..) => {}
            State::Dialling { dial, .. } => self.cancel_dial(io, dial),
            State::Raw(key) => match ended.end {
                StreamEnd::Closed => io.close(key),
                // The target may still be sending: to close on that would reset it, and destroy what
                // the kernel has not yet delivered. But nobody is there for whom it could send on.
                StreamEnd::Disconnected(How::Orderly, _) => io.linger_at_most(key, GOODBYE_MAX),
                _ => io.abort(key),
            },
            State::Exchange(key, exchange) => {
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
                if let Some(found) = self.remove(io, owner) {
                    self.log_end(&found, &ended, now);
                }
                io.farewell(key, &rest, self.config.timeouts.half_close);
            }
            None => self.stream_ended(io, owner, ended, now),
        }
    }

    /// Every stream that had a slot is counted and has its line, however it ended.
    pub(super) fn log_end(&mut self, carried: &Carried, ended: &Ended, now: Now) {
        self.ends.count(ended.end);
        let connection = match &carried.state {
            State::Queued(..) | State::Dialling { .. } => "not connected",
            State::Exchange(_, exchange) if exchange.retried => "retried",
            State::Exchange(_, exchange)
                if exchange.origin.is_some_and(|origin| origin.uses > 1) =>
            {
                "reused"
            }
            State::Raw(_) | State::Exchange(..) => "fresh",
        };
        let (client, user, end) = (&self.config.id, carried.user, ended.end);
        let proxy = carried.proxy_id(client);
        let seconds = now
            .instant
            .saturating_duration_since(ended.opened)
            .as_secs_f64();
        debug!(
            client = client.as_str(),
            proxy_id:% = proxy,
            user_id:% = user,
            reason:% = end,
            bytes_up = ended.delivered,
            bytes_down = ended.sent,
            seconds,
            connection;
            "stream {user} of proxy {proxy}: {end}, {} B up, {} B down, {seconds:.3} s, {connection}",
            ended.delivered,
            ended.sent,
        );
    }
}

impl Exchange {
    fn new(upstream: Upstream, facts: RequestFacts) -> Exchange {
        let version = if facts.http10 {
            Version::Http10
        } else {
            Version::Http11
        };
        Exchange {
            upstream,
            asked: Asked {
                head: facts.head,
                version,
                upgrade: facts.upgrade,
                keep_alive: facts.keep_alive,
                connection_auth: facts.tied,
            },
            repeatable: facts.repeatable,
            long: facts.long,
            expects: facts.expects,
            unproved: false,
            retried: false,
            head: Some(Gather::default()),
            interims: 0,
            interim_bytes: 0,
            origin: None,
            facts: pool::Facts::default(),
            idle_max: None,
        }
    }
}

/// The protocol of an exchange over TLS, in any letter case.
const HTTPS: &str = "https";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_carried_stream_is_small() {
        let size = size_of::<Carried>();
        println!("a carried stream: {size} bytes");
        assert!(size <= 72, "{size}");
        let size = size_of::<Exchange>();
        println!("its exchange: {size} bytes");
        assert!(size <= 152, "{size}");
        assert!(size_of::<Owner>() <= 12, "its label");
    }
}
