//! Users' connections: what all fronts share, and the raw ones.
//!
//! How a connection comes to be one stands in `arrivals`. A raw front is one stream from its first byte to
//! its last. An HTTP front (see `exchange`) carries one exchange at a time, and becomes raw after CONNECT or
//! an upgrade; one of SOCKS5 (see `socks`) once its target is connected.

mod table;

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    rc::Rc,
    time::Duration,
};

use log::{debug, info};

pub(super) use self::table::Fronts;
use super::{
    Owner, Server,
    admission::Place,
    handshakes::Handshake,
    introduction::{TOO_SLOW, Whence},
    socks,
};
use crate::{
    clock::Now,
    http::{Body, CONNECT_ESTABLISHED, Gather, Refused},
    key::Key,
    proxy_protocol::{self, Ends},
    reactor::{Deadline, Reactor, net::Net},
    socks::{Code, Stage},
    tunnel::{
        control::{How, ProxyConnect, Reason},
        ids::UserId,
        mux::{Ended, Expired, Handle, Opening, Orphan, StreamEnd},
        window::Pressure,
    },
};

/// One user's connection.
pub(super) struct Front {
    pub key: Key,
    pub proxy: u32,
    /// The link that carries its stream, while it has one.
    pub link: u32,
    pub user: UserId,
    /// Whence the user comes, or the balancer that has yet to say so; an IPv4 address as a mapped one, which
    /// takes a word less than both kinds.
    address: Ipv6Addr,
    /// What it takes of what there may be.
    place: Place,
    pub state: State,
}

/// What a front is doing.
///
/// ```text
/// arrived --> Securing --> Head <--> Exchange --> Raw        (each stage where it is spoken)
///    |     ^           \-> Socks --> Connect  --> Raw
///    |     |           \-> Named ---------------> Raw
///    v     |           \------------------------> Raw
///  Introducing                (from a balancer, until its header is whole)
/// ```
pub(super) enum State {
    /// A balancer has yet to say whose it is.
    Introducing {
        /// Its place among those, where TLS follows.
        handshake: Option<Handshake>,
        /// The balancer's.
        port: u16,
    },
    /// TLS does not stand yet.
    Securing(Handshake, Box<Whence>),
    /// A request head is awaited.
    Head(Gather),
    /// An exchange is under way.
    Exchange {
        stream: Handle,
        /// The method is HEAD: an error answer has no body.
        head: bool,
        /// No further request is read.
        last: bool,
        /// The user may wait for 100, so long as no more than these bytes, the head, were sent.
        go_ahead: Option<NonZeroU32>,
    },
    /// A message of SOCKS5 is awaited.
    Socks(Stage),
    /// The beginning of TLS with the target is awaited, for the name in it.
    Named(Box<Beginning>),
    /// The target is being dialled, the user waits to hear of it.
    Connect(Handle, Spoken),
    /// Bytes both ways.
    Raw(Handle),
}

/// The beginning of TLS with the target.
pub(super) struct Beginning {
    #[cfg_attr(
        not(feature = "tls"),
        expect(dead_code, reason = "nobody gets any further then")
    )]
    pub whence: Whence,
    /// What has come of it, counted as a partial head.
    pub said: Vec<u8>,
}

impl State {
    /// Takes it out; another is about to take its place.
    pub fn take(&mut self) -> State {
        std::mem::replace(self, State::Head(Gather::default()))
    }
}

/// What a user spoke when it asked for a target, and so how it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    Http,
    Socks,
}

impl Front {
    /// A connection of which nothing has been read.
    pub fn new(
        key: Key,
        proxy: u32,
        user: UserId,
        address: IpAddr,
        place: Place,
        state: State,
    ) -> Front {
        Front {
            key,
            proxy,
            link: u32::MAX,
            user,
            address: as_v6(address),
            place,
            state,
        }
    }

    /// Whence the user comes; a v4-mapped address unwrapped.
    pub fn address(&self) -> IpAddr {
        self.address.to_canonical()
    }

    pub fn stream(&self) -> Option<Handle> {
        match self.state {
            State::Introducing { .. }
            | State::Securing(..)
            | State::Head(_)
            | State::Socks(_)
            | State::Named(_) => None,
            State::Exchange { stream, .. } | State::Connect(stream, _) | State::Raw(stream) => {
                Some(stream)
            }
        }
    }
}

impl Server {
    /// From here on all that a user says is the target's.
    pub(super) fn begin_raw<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        front: u32,
        whence: &Whence,
        now: Now,
    ) {
        if let Err(reason) = self.open_raw(io, front, whence, now) {
            let user = self.fronts[front as usize].user;
            info!(user_id:% = user; "{user}: refused, {reason}");
            self.close_front(io, front);
        }
    }

    /// A front without a stream goes.
    pub(super) fn close_front<N: Net>(&mut self, io: &mut Reactor<N, Owner>, front: u32) {
        io.close(self.fronts.remove(front as usize));
    }

    /// A front without a stream goes, and its socket when its user has read what it was told, or a little later;
    /// it has its place until then.
    pub(super) fn leave_front<N: Net>(&mut self, io: &mut Reactor<N, Owner>, front: u32) -> Key {
        let (key, place) = self.fronts.leave(front as usize);
        io.set_owner(key, Owner::Left(place));
        key
    }

    /// A front without a stream goes, so that its user does not take it for an orderly end.
    pub(super) fn abort_front<N: Net>(&mut self, io: &mut Reactor<N, Owner>, front: u32) {
        io.abort(self.fronts.remove(front as usize));
    }

    /// The user of a front is meant for this proxy, one of those at its listener.
    ///
    /// # Errors
    /// It may not come in there, with the status that says so.
    pub(super) fn enter(&mut self, front: u32, proxy: u32, now: Now) -> Result<(), Refused> {
        let refused = |status, reason| Err(Refused { status, reason });
        let address = self.fronts[front as usize].address();
        let Some(found) = self.proxies.find_mut(proxy) else {
            return refused(503, "proxy closed");
        };
        if !found.admits(address, now) {
            return refused(403, "not from this address");
        }
        let users_max = found.users_max(self.config.limits.connections_per_proxy);
        match self.fronts.turn(front, proxy, &found.client, users_max) {
            Ok(()) => Ok(()),
            Err(full) => {
                self.fronts.refused(&found.id, address, full, now.instant);
                refused(full.answer().0, "as many users as there may be")
            }
        }
    }

    fn open_raw<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        front: u32,
        whence: &Whence,
        now: Now,
    ) -> Result<(), Reason> {
        let Front {
            key, proxy, user, ..
        } = self.fronts[front as usize];
        let proxy = self.proxies.find(proxy).ok_or(Reason::NoClient)?;
        let (Some(target), Some(remote_host)) = (&proxy.spec.target, &proxy.remote_host) else {
            return Err(Reason::NoClient);
        };
        let connect = ProxyConnect {
            proxy_id: proxy.id.clone(),
            user_id: user,
            remote_host: Rc::clone(remote_host),
            remote_port: target.remote_port(),
            protocol: proxy.spec.kind.word().into(),
            request: None,
        };
        // It rides with the opening, so that the target has it before the user's first byte.
        let header = match proxy.options.proxy_protocol {
            Some(version) => {
                let source = whence.source;
                let destination = whence
                    .destination
                    .unwrap_or_else(|| reached(io, key, proxy.address));
                let ends = Ends {
                    source,
                    destination,
                };
                proxy_protocol::header(version, ends)
            }
            None => Vec::new(),
        };
        let stream = self.open_stream(io, front, connect, header, Body::raw(), now)?;
        self.fronts[front as usize].state = State::Raw(stream);
        Ok(())
    }

    /// Opens a stream for a front on the link that serves its proxy.
    pub(super) fn open_stream<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        front: u32,
        connect: ProxyConnect,
        head: Vec<u8>,
        body: Body,
        now: Now,
    ) -> Result<Handle, Reason> {
        if self.shared.budget.pressure() >= Pressure::Full {
            self.overloaded += 1;
            return Err(Reason::Overload);
        }
        let Front { key, proxy, .. } = self.fronts[front as usize];
        let Some(link) = self.proxies.find(proxy).and_then(|proxy| proxy.link) else {
            self.clientless += 1;
            return Err(Reason::NoClient);
        };
        let rate = self.rate_of(proxy, now);
        let (Some(found), Some(tunnel)) = (self.proxies.find_mut(proxy), self.links.up(link))
        else {
            self.clientless += 1;
            return Err(Reason::NoClient);
        };
        found.tally.opened += 1;
        let opening = Opening {
            key,
            owner: front,
            connect,
            head,
            body,
        };
        let stream = tunnel.mux.open(opening, &mut self.shared.budget, now);
        if let Some(rate) = rate {
            tunnel.mux.limit(stream, rate, &mut self.shared.budget);
        }
        self.opened += 1;
        self.fronts[front as usize].link = link;
        self.schedule(link);
        io.set_deadline(key, Deadline::None);
        Ok(stream)
    }

    pub(super) fn front_ready<N: Net>(&mut self, io: &mut Reactor<N, Owner>, front: u32, now: Now) {
        let Some(found) = self.fronts.get(front as usize) else {
            return;
        };
        let link = found.link;
        let Some(stream) = found.stream() else {
            return match found.state {
                State::Introducing { .. } => self.introduce_user(io, front, now),
                State::Securing(..) => self.secure_user(io, front, now),
                State::Socks(_) => self.read_socks(io, front, now),
                State::Named(_) => self.read_hello(io, front, now),
                _ => self.read_request(io, front, now),
            };
        };
        let Some(tunnel) = self.links.tunnel(link) else {
            return;
        };
        if let Some(happened) = tunnel.mux.ready(stream, io, &mut self.shared.budget, now) {
            self.happened(io, link, happened, now);
        }
        self.schedule(link);
    }

    /// The client has connected the target.
    pub(super) fn front_connected<N: Net>(&mut self, io: &mut Reactor<N, Owner>, front: u32) {
        let Some(found) = self.fronts.get_mut(front as usize) else {
            return;
        };
        let State::Connect(stream, spoken) = found.state else {
            return;
        };
        let (key, link) = (found.key, found.link);
        found.state = State::Raw(stream);
        let succeeded = Code::Succeeded.answer();
        let answer = match spoken {
            Spoken::Http => CONNECT_ESTABLISHED,
            Spoken::Socks => &succeeded,
        };
        // Nothing was written on this exchange before: a socket without room for a line is broken.
        if !matches!(io.write(key, answer), Ok(n) if n == answer.len()) {
            self.give_up(io, front, link, stream, Reason::UserReset);
        }
    }

    /// The origin has switched protocols: from here on the front is like any raw one.
    pub(super) fn front_upgraded(&mut self, front: u32) {
        if let Some(Front { state, .. }) = self.fronts.get_mut(front as usize)
            && let State::Exchange { stream, .. } = *state
        {
            *state = State::Raw(stream);
        }
    }

    /// One direction is over: the other may not stand still for ever.
    pub(super) fn half_closed<N: Net>(&mut self, io: &mut Reactor<N, Owner>, front: u32) {
        if let Some(front) = self.fronts.get(front as usize) {
            io.set_deadline(front.key, Deadline::idle(self.config.timeouts.half_close));
        }
    }

    pub(super) fn front_timeout<N: Net>(&mut self, io: &mut Reactor<N, Owner>, front: u32) {
        let Some(found) = self.fronts.get(front as usize) else {
            return;
        };
        let &Front {
            key,
            link,
            user,
            proxy,
            ..
        } = found;
        match found.state {
            State::Introducing { .. } => self.refuse_unintroduced(io, front, TOO_SLOW, io.now()),
            State::Securing(..) => self.drop_unsecured(io, front),
            State::Head(_) => self.head_timeout(io, front),
            State::Socks(_) | State::Named(_) => {
                debug!("{}: closed, its negotiation took too long", found.user);
                self.forget_head(front);
                self.close_front(io, front);
            }
            State::Exchange {
                stream, go_ahead, ..
            } => {
                let Some(tunnel) = self.links.tunnel(link) else {
                    return;
                };
                if go_ahead.is_some_and(|head| tunnel.mux.has_only_sent(stream, head.get().into()))
                {
                    // The user waits for 100, and the client for the origin, which may take its time.
                    io.set_deadline(key, Deadline::idle(self.config.timeouts.request_body));
                } else if tunnel.mux.has_tail(stream) {
                    // It neither sends what is due nor takes what is here for it.
                    self.give_up(io, front, link, stream, Reason::HalfCloseTimeout);
                } else if tunnel.mux.is_request_whole(stream) {
                    // It is the origin's turn.
                } else if tunnel.mux.is_held_up(stream) {
                    // The user is not to blame: the target does not read.
                    io.set_deadline(key, Deadline::idle(self.config.timeouts.request_body));
                } else if tunnel.mux.is_answered(stream) {
                    self.give_up(io, front, link, stream, Reason::RequestTimeout);
                } else {
                    let reason = Reason::RequestTimeout;
                    if self.abort_stream(io, front, link, stream, reason) {
                        self.abort_front(io, front);
                    } else {
                        self.answer_error(io, front, reason.status(), "request body too slow");
                    }
                }
            }
            State::Connect(stream, _) | State::Raw(stream) => {
                let Some(tunnel) = self.links.tunnel(link) else {
                    return;
                };
                let expired = tunnel
                    .mux
                    .half_close_expired(stream, &mut self.shared.budget);
                self.schedule(link);
                let Expired::GivenUp { ended, cut } = expired else {
                    let idle = self.config.timeouts.half_close;
                    return io.set_deadline(key, Deadline::idle(idle));
                };
                self.log_end(user, proxy, &ended, io.now());
                if cut {
                    self.abort_front(io, front);
                } else {
                    // What the kernel still holds for the user is not taken from it.
                    let key = self.leave_front(io, front);
                    io.linger(key, self.config.timeouts.linger);
                }
            }
        }
    }

    /// Ends a stream and its front from this side, with a reset both ways.
    pub(super) fn give_up<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        front: u32,
        link: u32,
        stream: Handle,
        reason: Reason,
    ) {
        self.abort_stream(io, front, link, stream, reason);
        self.abort_front(io, front);
    }

    /// Ends a stream from this side; whether its user has got a part of a head.
    fn abort_stream<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        front: u32,
        link: u32,
        stream: Handle,
        reason: Reason,
    ) -> bool {
        let Some(tunnel) = self.links.tunnel(link) else {
            return false;
        };
        let ended = tunnel.mux.abort(stream, reason, &mut self.shared.budget);
        self.schedule(link);
        if let (Some(ended), Some(&Front { user, proxy, .. })) =
            (ended, self.fronts.get(front as usize))
        {
            self.log_end(user, proxy, &ended, io.now());
        }
        ended.is_some_and(|ended| ended.torn)
    }

    /// The front's stream is over.
    pub(super) fn stream_ended<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        front: u32,
        ended: Ended,
        now: Now,
    ) {
        let Some(&Front { user, proxy, .. }) = self.fronts.get(front as usize) else {
            return;
        };
        self.log_end(user, proxy, &ended, now);
        match self.fronts[front as usize].state {
            State::Introducing { .. }
            | State::Securing(..)
            | State::Head(_)
            | State::Socks(_)
            | State::Named(_) => {}
            State::Raw(_) => match ended.end {
                StreamEnd::Closed => self.close_front(io, front),
                // What the kernel still holds for the user is not taken from it; but nobody is
                // there for whom it could send on.
                StreamEnd::Disconnected(How::Orderly, _) => {
                    let key = self.leave_front(io, front);
                    io.linger_at_most(key, self.config.timeouts.linger);
                }
                _ => self.abort_front(io, front),
            },
            State::Connect(_, spoken) => match (ended.end, spoken) {
                (StreamEnd::Disconnected(_, reason), Spoken::Http) => {
                    self.answer_error(io, front, reason.status(), reason.word());
                }
                (StreamEnd::Disconnected(_, reason), Spoken::Socks) => {
                    self.say_last(io, front, &socks::code(reason).answer());
                }
                _ => self.abort_front(io, front),
            },
            State::Exchange { .. } => self.exchange_ended(io, front, ended, now),
        }
    }

    /// The link of the front's stream is gone.
    pub(super) fn front_orphaned<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        orphan: Orphan,
        now: Now,
    ) {
        let Orphan { owner, ended, rest } = orphan;
        match (rest, self.fronts.get(owner as usize)) {
            (Some(rest), Some(&Front { user, proxy, .. })) => {
                self.log_end(user, proxy, &ended, now);
                let key = self.leave_front(io, owner);
                io.farewell(key, &rest, self.config.timeouts.half_close);
            }
            _ => self.stream_ended(io, owner, ended, now),
        }
    }

    /// Every stream is counted and has its line, however it ended.
    pub(super) fn log_end(&mut self, user: UserId, proxy: u32, ended: &Ended, now: Now) {
        let end = ended.end;
        self.ends.count(end);
        let (client, proxy): (_, &dyn fmt::Display) = match self.proxies.find_mut(proxy) {
            Some(proxy) => {
                proxy.tally.ended(ended);
                (Some(proxy.client.as_str()), &proxy.id)
            }
            None => (None, &"(closed)"),
        };
        if matches!(end, StreamEnd::Disconnected(_, Reason::NotAllowed)) {
            info!(client, proxy_id:% = proxy, user_id:% = user, reason:% = end; "{user}: refused, {end}");
        }
        let seconds = now
            .instant
            .saturating_duration_since(ended.opened)
            .as_secs_f64();
        debug!(
            client,
            proxy_id:% = proxy,
            user_id:% = user,
            reason:% = end,
            bytes_up = ended.sent,
            bytes_down = ended.delivered,
            seconds;
            "stream {user} of proxy {proxy}: {end}, {} B up, {} B down, {seconds:.3} s",
            ended.sent,
            ended.delivered,
        );
    }

    /// Closes the fronts of a proxy that is gone, but for those that carry a stream: they may finish,
    /// and have no proxy afterwards.
    pub(super) fn close_fronts_of<N: Net>(&mut self, io: &mut Reactor<N, Owner>, proxy: u32) {
        self.fronts.admission.proxy_gone(proxy);
        self.rates.gone(proxy, &mut self.shared.budget.rates);
        let of_proxy: Vec<u32> = self
            .fronts
            .iter()
            .filter(|(_, front)| front.proxy == proxy)
            .map(|(index, _)| index as u32)
            .collect();
        for front in of_proxy {
            if self.fronts[front as usize].stream().is_some() {
                self.fronts[front as usize].proxy = u32::MAX;
            } else {
                self.forget_head(front);
                self.drop_unsecured(io, front);
            }
        }
    }

    /// Who has not said yet what it wants has a little while for it: the server is about to stop. Its connection
    /// is ours alone, and it may be saying so in this moment.
    pub(super) fn hurry_fronts<N: Net>(&mut self, io: &mut Reactor<N, Owner>, now: Now) {
        for (_, front) in self.fronts.iter() {
            match &front.state {
                State::Head(gather) if gather.held() > 0 => {}
                State::Introducing { .. }
                | State::Securing(..)
                | State::Head(_)
                | State::Socks(_)
                | State::Named(_) => {
                    io.set_deadline(front.key, Deadline::At(now.instant + LAST_REQUEST_MAX));
                }
                _ => {}
            }
        }
    }
}

/// How long a connection on which nothing was asked for yet, or that was kept for another request, is kept when
/// the server is about to stop. Whoever has just come, or was answered a moment ago, has spoken by then, and
/// whoever is silent meets no more than it might at any time.
pub(super) const LAST_REQUEST_MAX: Duration = Duration::from_secs(1);

/// An address as [`Front`] keeps it.
fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// Where a connection has come in that a listener at `listening` has accepted.
fn reached<N: Net>(io: &mut Reactor<N, Owner>, key: Key, listening: SocketAddr) -> SocketAddr {
    if !listening.ip().is_unspecified() {
        return listening;
    }
    // Who is gone already has no address, and nobody who would miss it.
    io.near_address(key).unwrap_or(listening)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_front_is_small() {
        let size = size_of::<Front>();
        println!("a front: {size} bytes");
        assert!(size <= 72, "{size}");
        assert!(size_of::<Owner>() <= 8, "its label");
    }
}
