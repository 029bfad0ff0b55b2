//! HTTP users: one exchange after the other on a front, each a stream of its own.
//!
//! The request is parsed and written anew here, the response by the client; its bytes pass here as
//! they are. Until the final response head has passed, an error can still be answered properly.

use std::{net::IpAddr, num::NonZeroU32, rc::Rc, time::Duration};

use log::{debug, info};

use super::{
    Owner, Server,
    fronts::{Front, LAST_REQUEST_MAX, Spoken, State},
    guard::Denied,
    proxies::Proxy,
};
use crate::{
    clock::Now,
    config::{Host, HostPolicy, Kind, Target, routes::plain_path},
    http::{
        Body, BodyLimits, Edits, Follower, Forwarded, Framing, Gather, Gathered, HeadLimits,
        Refused, Request, RequestTarget, Scheme, Version, denial, end_of_forwarding, error_reply,
    },
    reactor::{Deadline, Reactor, net::Net},
    tunnel::{
        REPLAY_MAX,
        control::{How, ProxyConnect, Reason, RequestFacts},
        mux::{Ended, StreamEnd},
    },
};

/// Where a request goes, and how.
struct Route {
    target: Target,
    /// The target's host, as the client is told it.
    remote_host: Rc<str>,
    protocol: &'static str,
    /// Bytes both ways instead of an exchange.
    connect: bool,
}

impl Server {
    /// Reads the next request of a front, as far as it has come.
    pub(super) fn read_request<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        front: u32,
        now: Now,
    ) {
        let limits = self.head_limits();
        let Some(Front {
            key,
            state: State::Head(gather),
            ..
        }) = self.fronts.get_mut(front as usize)
        else {
            return;
        };
        let key = *key;
        let before = gather.held();
        let gathered = gather.read(&mut self.scratch, limits.bytes, |into| io.read(key, into));
        let after = gather.held();
        if !self.shared.budget.hold_head(before, after) {
            self.overloaded += 1;
            let status = Reason::Overload.status();
            return self.refuse_head(io, front, status, "too many half heads");
        }
        match gathered {
            Gathered::Head { bytes, head } => {
                io.unread(key, &bytes[head..]);
                let head = bytes[..head].to_vec();
                self.request(io, front, &head, now);
            }
            Gathered::Partial => {
                if let Some(refused) = Request::overlong(gather.bytes(), &limits) {
                    return self.refuse_head(io, front, refused.status, refused.reason);
                }
                if before == 0 && after > 0 {
                    let at = now.instant + self.config.timeouts.request_head;
                    io.set_deadline(key, Deadline::At(at));
                }
            }
            Gathered::TooLong(bytes) => {
                let Refused { status, reason } =
                    Request::overlong(&bytes, &limits).unwrap_or(Refused {
                        status: 431,
                        reason: "request head too long",
                    });
                let head_only = Request::asks_by_head(&bytes);
                self.refuse_request(io, front, status, reason, head_only);
            }
            Gathered::Ended | Gathered::Failed(_) => {
                self.close_front(io, front);
            }
        }
    }

    /// Sends a request on its way, or refuses it.
    fn request<N: Net>(&mut self, io: &mut Reactor<N, Owner>, front: u32, head: &[u8], now: Now) {
        let found = &mut self.fronts[front as usize];
        found.user = found.user.exchange(found.user.exchange + 1);
        let (key, user, proxy, address) = (found.key, found.user, found.proxy, found.address());
        let mut request = match Request::parse(head, &self.head_limits()) {
            Ok(request) => request,
            Err(Refused { status, reason }) => {
                info!(user_id:% = user; "{user}: refused, {status} {reason}");
                let head_only = Request::asks_by_head(head);
                return self.refuse_request(io, front, status, reason, head_only);
            }
        };
        let is_head = request.is_head();
        let proxy = match self.select(front, proxy, &request, now) {
            Ok(proxy) => proxy,
            Err(Refused { status, reason }) => {
                info!(user_id:% = user; "{user}: refused, {status} {reason}");
                return self.refuse_request(io, front, status, reason, is_head);
            }
        };
        if let Err(denied) = self.authorise(proxy, address, &mut request, now) {
            let stays = request.ends_with_its_head();
            return self.deny(io, front, denied, stays, is_head, now);
        }
        // RFC 9110 §7.6.2: it is addressed to whoever it has come to.
        if request.max_forwards == Some(0) {
            debug!("{user}: answered here, Max-Forwards is 0");
            let mut answer = Vec::new();
            end_of_forwarding(&mut answer, &request, now.unix);
            return self.say_last(io, front, &answer);
        }
        let route = match self.route(proxy, &request) {
            Ok(route) => route,
            Err(Refused { status, reason }) => {
                info!(user_id:% = user; "{user}: refused, {status} {reason}");
                return self.refuse_request(io, front, status, reason, is_head);
            }
        };
        let Some(found) = self.proxies.find(proxy) else {
            return;
        };
        let asked = request.asked();
        let mut written = Vec::new();
        let body = if route.connect {
            Body::raw()
        } else {
            written.reserve_exact(head.len() + Request::ADDED);
            let host = host(found, &request, &route.target);
            let edits = Edits {
                host: host.as_deref(),
                forwarded: forwarded(found, address),
            };
            request.write_to(&mut written, &edits);
            request.body(self.body_limits())
        };
        let facts = RequestFacts {
            head: is_head,
            http10: asked.version == Version::Http10,
            upgrade: asked.upgrade,
            keep_alive: asked.keep_alive && !self.stage.is_ending(),
            tied: asked.connection_auth,
            repeatable: request.repeatable(),
            long: match request.framing {
                Framing::None => false,
                Framing::Length(length) => length > REPLAY_MAX.saturating_sub(written.len()) as u64,
                // Nobody knows yet.
                Framing::Chunked | Framing::UntilClose | Framing::Raw => true,
            },
            expects: request.expects_continue,
        };
        let connect = ProxyConnect {
            proxy_id: found.id.clone(),
            user_id: user,
            remote_host: route.remote_host,
            remote_port: route.target.remote_port(),
            protocol: route.protocol.into(),
            request: (!route.connect).then_some(facts),
        };
        let whole = body.is_ended();
        // The head is never empty, and shorter than heads may be.
        let go_ahead = NonZeroU32::new(written.len() as u32).filter(|_| facts.expects && !whole);
        match self.open_stream(io, front, connect, written, body, now) {
            Ok(stream) => {
                // The next request on this connection may be for another client.
                if self.proxies.is_shared(proxy) && !route.connect {
                    let link = self.fronts[front as usize].link;
                    if let Some(tunnel) = self.links.tunnel(link) {
                        tunnel.mux.follow(stream, Follower::new(asked));
                    }
                }
                let state = if route.connect {
                    State::Connect(stream, Spoken::Http)
                } else {
                    State::Exchange {
                        stream,
                        head: is_head,
                        last: false,
                        go_ahead,
                    }
                };
                self.fronts[front as usize].state = state;
                if whole {
                    self.bound_read_ahead(io, front);
                } else if !route.connect {
                    io.set_deadline(key, Deadline::idle(self.config.timeouts.request_body));
                }
            }
            Err(reason) => {
                info!(user_id:% = user; "{user}: refused, {reason}");
                let client = &self
                    .proxies
                    .find(proxy)
                    .map(|proxy| proxy.client.to_string());
                let text = match (reason, client) {
                    (Reason::NoClient, Some(client)) => format!("client {client} is not connected"),
                    _ => reason.word().into(),
                };
                self.refuse_request(io, front, reason.status(), &text, is_head);
            }
        }
    }

    /// Which of the proxies at a front's listener the request is for; the front is that one's from here on.
    fn select(
        &mut self,
        front: u32,
        proxy: u32,
        request: &Request<'_>,
        now: Now,
    ) -> Result<u32, Refused> {
        let refused = |status, reason| Err(Refused { status, reason });
        if !self.proxies.is_shared(proxy) {
            return Ok(proxy);
        }
        let host = request.asked_name().and_then(Host::asked_for);
        let path = if self.proxies.has_paths(proxy) {
            match plain_path(request.path()) {
                Some(path) => path,
                None => return refused(400, "a path that may be read in several ways"),
            }
        } else {
            "/".into()
        };
        let Some(found) = self.proxies.closest(proxy, host.as_ref(), &path) else {
            // RFC 9110 §15.5.20.
            return refused(421, "nothing here is for this host and path");
        };
        self.enter(front, found, now)?;
        Ok(found)
    }

    /// Where a request of this proxy goes.
    fn route(&self, proxy: u32, request: &Request<'_>) -> Result<Route, Refused> {
        let refused = |status, reason| Err(Refused { status, reason });
        let Some(proxy) = self.proxies.find(proxy) else {
            return refused(503, "proxy closed");
        };
        match (&proxy.spec.kind, &request.target) {
            (Kind::Forward, RequestTarget::Authority(authority)) => {
                let target = target(authority.host, authority.port)?;
                Ok(Route {
                    remote_host: target.remote_host(),
                    target,
                    protocol: Kind::Tcp.word(),
                    connect: true,
                })
            }
            (
                Kind::Forward,
                RequestTarget::Absolute {
                    scheme, authority, ..
                },
            ) => {
                let kind = match scheme {
                    Scheme::Http => Kind::Http,
                    Scheme::Https => Kind::Https,
                };
                let target = target(authority.host, authority.port)?;
                Ok(Route {
                    remote_host: target.remote_host(),
                    target,
                    protocol: kind.word(),
                    connect: false,
                })
            }
            (Kind::Forward, _) => refused(
                400,
                "this is a forward proxy: absolute-form or CONNECT expected",
            ),
            (_, RequestTarget::Authority(_)) => refused(405, "CONNECT needs a forward proxy"),
            (kind, _) => {
                let (Some(target), Some(remote_host)) = (&proxy.spec.target, &proxy.remote_host)
                else {
                    return refused(503, "proxy without a target");
                };
                Ok(Route {
                    target: target.clone(),
                    remote_host: Rc::clone(remote_host),
                    protocol: kind.word(),
                    connect: false,
                })
            }
        }
    }

    /// The request is on its way whole: now it is the origin's turn, which may take its time.
    pub(super) fn request_sent<N: Net>(&mut self, io: &mut Reactor<N, Owner>, front: u32) {
        if let Some(Front {
            key,
            state: State::Exchange { .. },
            ..
        }) = self.fronts.get(front as usize)
        {
            io.set_deadline(*key, Deadline::None);
            self.bound_read_ahead(io, front);
        }
    }

    /// What was read behind a request is held until that is answered, and by nobody's reader but ours. Where
    /// there is too much of it, this user's is forgotten, and its connection serves no other request: whoever
    /// does not wait for an answer has to be prepared for that (RFC 9112 §9.3.2).
    fn bound_read_ahead<N: Net>(&mut self, io: &mut Reactor<N, Owner>, front: u32) {
        let Some(Front {
            key,
            user,
            state: State::Exchange { last, .. },
            ..
        }) = self.fronts.get_mut(front as usize)
        else {
            return;
        };
        if io.held(*key) == 0 || self.shared.budget.may_read_ahead(io.unread_bytes()) {
            return;
        }
        debug!("{user}: too much was read ahead, no further request of it is served");
        *last = true;
        for _ in 0..FORGET_READS_MAX {
            if io.held(*key) == 0 || !matches!(io.read(*key, &mut self.scratch), Ok(1..)) {
                break;
            }
        }
    }

    pub(super) fn exchange_ended<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        front: u32,
        ended: Ended,
        now: Now,
    ) {
        let Some(Front { key, state, .. }) = self.fronts.get(front as usize) else {
            return;
        };
        let (key, last) = (*key, matches!(state, State::Exchange { last: true, .. }));
        match ended.end {
            StreamEnd::Answered {
                keep: true,
                request_whole: true,
            } if !last => {
                self.fronts[front as usize].state = State::Head(Gather::default());
                // Who was told that there may be another request may have sent it already.
                let wait = match self.stage.is_ending() {
                    false => self.config.timeouts.keep_alive,
                    true => LAST_REQUEST_MAX,
                };
                io.set_deadline(key, Deadline::At(now.instant + wait));
                // A request that came in the meantime has had its event.
                if io.is_readable(key) {
                    self.read_request(io, front, now);
                }
            }
            // Only raw streams end by FIN, and an upgraded one is raw.
            StreamEnd::Answered { .. } | StreamEnd::Closed => self.close_answered(io, front),
            StreamEnd::Disconnected(_, reason) | StreamEnd::Failed(reason) if !ended.answered => {
                if ended.torn {
                    self.abort_front(io, front);
                } else if reason == Reason::UserReset {
                    // Nothing of this answer has passed, but the user may still be reading the one before.
                    self.close_answered(io, front);
                } else {
                    self.answer_error(io, front, reason.status(), reason.word());
                }
            }
            StreamEnd::Disconnected(How::Orderly, _) => self.close_answered(io, front),
            // What the user has got is not all: it must not look so.
            StreamEnd::Disconnected(How::Abort, _) | StreamEnd::Failed(_) => {
                self.abort_front(io, front);
            }
        }
    }

    /// Closes after a response, so that it is not lost to a reset.
    fn close_answered<N: Net>(&mut self, io: &mut Reactor<N, Owner>, front: u32) {
        let key = self.leave_front(io, front);
        io.linger(key, self.config.timeouts.linger);
    }

    /// Answers with an error of our own and closes; for the front's present request, of whose response
    /// nothing final has passed.
    pub(super) fn answer_error<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        front: u32,
        status: u16,
        text: &str,
    ) {
        let Some(found) = self.fronts.get(front as usize) else {
            return;
        };
        let head_only = matches!(found.state, State::Exchange { head: true, .. });
        self.refuse_request(io, front, status, text, head_only);
    }

    /// Tells a user that it may not come in; a request that `stays` does not cost it its connection.
    fn deny<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        front: u32,
        denied: Denied,
        stays: bool,
        head_only: bool,
        now: Now,
    ) {
        let Front { key, user, .. } = self.fronts[front as usize];
        let (status, wait) = match denied {
            Denied::Ask(status) => (status, Duration::ZERO),
            Denied::Wait(wait) => (429, wait),
            Denied::Ambiguous => {
                let reason = "credentials more than once";
                info!(user_id:% = user; "{user}: refused, 400 {reason}");
                return self.refuse_request(io, front, 400, reason, head_only);
            }
        };
        // Who sends on without having been asked in has said the first bytes of a tunnel, or means what
        // follows to be done only after this.
        let stays = stays && status != 429 && io.held(key) == 0 && !self.stage.is_ending();
        let mut answer = Vec::new();
        denial(&mut answer, status, wait, !stays, head_only, now.unix);
        if !stays {
            return self.say_last(io, front, &answer);
        }
        // Each answer is read before the next request is sent: there is room.
        if !matches!(io.write(key, &answer), Ok(n) if n == answer.len()) {
            self.abort_front(io, front);
            return;
        }
        let at = now.instant + self.config.timeouts.keep_alive;
        io.set_deadline(key, Deadline::At(at));
        if io.is_readable(key) {
            io.again(key);
        }
    }

    /// As [`Server::answer_error`], for a head of which not all has come.
    fn refuse_head<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        front: u32,
        status: u16,
        text: &str,
    ) {
        let head_only = match self.fronts.get(front as usize).map(|front| &front.state) {
            Some(State::Head(gather)) => Request::asks_by_head(gather.bytes()),
            _ => return,
        };
        self.forget_head(front);
        self.refuse_request(io, front, status, text, head_only);
    }

    /// As [`Server::answer_error`], for a request that was read but is no exchange yet.
    fn refuse_request<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        front: u32,
        status: u16,
        text: &str,
        head_only: bool,
    ) {
        let mut answer = Vec::new();
        error_reply(&mut answer, status, text, true, head_only, io.now().unix);
        self.say_last(io, front, &answer);
    }

    /// Answers for the last time on this connection.
    pub(super) fn say_last<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        front: u32,
        answer: &[u8],
    ) {
        let key = self.leave_front(io, front);
        io.farewell(key, answer, self.config.timeouts.linger);
    }

    /// No request came in time.
    pub(super) fn head_timeout<N: Net>(&mut self, io: &mut Reactor<N, Owner>, front: u32) {
        match self.fronts.get(front as usize).map(|front| &front.state) {
            Some(State::Head(gather)) if gather.held() > 0 => {
                self.refuse_head(io, front, 408, "request head too slow");
            }
            _ => self.close_front(io, front),
        }
    }

    /// Drops a partial head, or what stands for one, if there is any.
    pub(super) fn forget_head(&mut self, front: u32) {
        let held = match self
            .fronts
            .get_mut(front as usize)
            .map(|front| &mut front.state)
        {
            Some(State::Head(gather)) => std::mem::take(gather).held(),
            Some(State::Named(beginning)) => std::mem::take(&mut beginning.said).len(),
            _ => return,
        };
        self.shared.budget.drop_head(held);
    }

    fn head_limits(&self) -> HeadLimits {
        HeadLimits {
            bytes: self.config.limits.head,
            fields: self.config.limits.fields,
            line: self.config.limits.request_line,
        }
    }

    fn body_limits(&self) -> BodyLimits {
        BodyLimits {
            chunk_extension: self.config.limits.chunk_extension,
            trailers: self.config.limits.trailers,
            ahead: self.config.limits.pipelined,
        }
    }
}

/// What was read ahead takes no more reads: what was given back, and what is inside TLS.
const FORGET_READS_MAX: usize = 4;

/// The `Host` that the origin gets, where it is not what the user asked for.
fn host(proxy: &Proxy, request: &Request<'_>, target: &Target) -> Option<String> {
    let kind = proxy.spec.kind;
    match proxy.options.host_policy(kind) {
        HostPolicy::User if request.asked_host().is_some() => None,
        // HTTP/1.0 knows no Host; the origin may.
        HostPolicy::User | HostPolicy::Target => {
            let scheme = match kind {
                Kind::Https => Scheme::Https,
                _ => Scheme::Http,
            };
            Some(target.host_field(scheme.default_port()))
        }
        name @ HostPolicy::Name(..) => Some(name.to_string()),
    }
}

/// What the origin is told of the user: by a gateway. A forward proxy is the user's own, and tells on
/// nobody.
fn forwarded(proxy: &Proxy, user: IpAddr) -> Option<Forwarded> {
    (proxy.spec.kind != Kind::Forward).then_some(Forwarded {
        user,
        proto: if proxy.options.tls {
            Scheme::Https
        } else {
            Scheme::Http
        },
        trusted: proxy.options.trust_forwarded,
    })
}

fn target(host: &str, port: u16) -> Result<Target, Refused> {
    let host = Host::asked_for(host).ok_or(Refused {
        status: 400,
        reason: "malformed host in request target",
    })?;
    Ok(Target::Inet { host, port })
}
