//! The response of an exchange: its head, and what becomes of the connection after it.
//!
//! The head is parsed once, here, and written anew for this user; the body is read through the framing
//! that it declares. Only when that framing proves the end of a clean exchange is the connection
//! parked ([`pool::refusal`]).

use std::time::Duration;

use log::{debug, info};

use super::{
    Client, Owner,
    carried::{Exchange, State},
};
use crate::{
    clock::Now,
    http::{BodyLimits, Framing, Gathered, HeadLimits, Kind, NotReusable, Response, Version},
    key::Key,
    pool::{self, Parked},
    reactor::{Deadline, Outlook, Reactor, net::Net},
    tunnel::{control::Reason, mux::StreamEnd},
};

/// What a response head asks for.
enum Next {
    /// Another head follows.
    Head,
    /// The body, or the raw stream, is the mux's.
    Mux,
    /// The exchange cannot go on.
    Fail(Reason),
    /// The connection is over before the response is. Whether a write failed, the origin reset it, or
    /// it closed it in order: all come to this.
    Dead(Reason),
}

impl Client {
    /// Reads the response's head, as far as it has come.
    pub(super) fn read_response<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        carried: u32,
        now: Now,
    ) {
        loop {
            let limit = self.config.limits.head;
            let Some(found) = self.carried.get_mut(carried as usize) else {
                return;
            };
            let (link, stream) = (found.link(), found.stream);
            let State::Exchange(key, exchange) = &mut found.state else {
                return;
            };
            let key = *key;
            let Some(gather) = &mut exchange.head else {
                return;
            };
            let before = gather.held();
            let mut heard = false;
            let gathered = gather.read(&mut self.scratch, limit, |into| {
                let read = io.read(key, into);
                heard |= matches!(read, Ok(1..));
                read
            });
            let after = gather.held();
            let fits = self.shared.budget.hold_head(before, after);
            if heard && std::mem::take(&mut exchange.unproved) {
                // It lives: whatever becomes of it, the request is not sent again.
                let budget = &mut self.shared.budget;
                if let Some(tunnel) = self.links.up(link) {
                    tunnel.mux.drop_replay(stream, budget);
                }
            }
            let next = match gathered {
                _ if !fits => Next::Fail(Reason::Overload),
                Gathered::Head { bytes, head } => {
                    io.unread(key, &bytes[head..]);
                    let head = bytes[..head].to_vec();
                    self.response(io, carried, &head, now)
                }
                // However it goes on, it cannot become a status line: no reason to wait for the rest.
                Gathered::Partial if matches!(gather.bytes(), [b'\r' | b'\n', ..]) => {
                    Next::Fail(Reason::BadResponse)
                }
                Gathered::Partial => {
                    if heard {
                        io.acknowledge(key);
                    }
                    return;
                }
                Gathered::TooLong(_) => Next::Fail(Reason::BadResponse),
                Gathered::Ended => Next::Dead(Reason::OriginClosed),
                Gathered::Failed(_) => Next::Dead(Reason::TargetReset),
            };
            match next {
                Next::Head => {}
                Next::Mux => return,
                Next::Fail(reason) => return self.fail_stream(io, carried, reason),
                Next::Dead(reason) => {
                    if !self.retry(io, carried, now) {
                        self.fail_stream(io, carried, reason);
                    }
                    return;
                }
            }
        }
    }

    fn response<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        carried: u32,
        head: &[u8],
        now: Now,
    ) -> Next {
        let limits = HeadLimits {
            bytes: self.config.limits.head,
            fields: self.config.limits.fields,
            ..HeadLimits::default()
        };
        let body_limits = BodyLimits {
            chunk_extension: self.config.limits.chunk_extension,
            trailers: self.config.limits.trailers,
            ..BodyLimits::default()
        };
        let Some(found) = self.carried.get_mut(carried as usize) else {
            return Next::Fail(Reason::BadResponse);
        };
        let (link, stream, user) = (found.link(), found.stream, found.user);
        let State::Exchange(key, exchange) = &mut found.state else {
            return Next::Fail(Reason::BadResponse);
        };
        let key = *key;
        let response = match Response::parse(head, &exchange.asked, &limits) {
            Ok(response) => response,
            Err(bad) => {
                info!(
                    user_id:% = user; "{user}: bad response of {}: {}",
                    exchange.upstream, bad.reason
                );
                return Next::Fail(Reason::BadResponse);
            }
        };
        let Some(tunnel) = self.links.up(link) else {
            return Next::Mux;
        };
        let budget = &mut self.shared.budget;
        let mut written = Vec::with_capacity(head.len() + Response::ADDED);
        match response.kind {
            Kind::Interim => {
                exchange.interims += 1;
                exchange.interim_bytes += head.len();
                if exchange.interims > self.config.limits.interims
                    || exchange.interim_bytes > self.config.limits.head
                {
                    info!(
                        user_id:% = user; "{user}: {} sends interim responses without end",
                        exchange.upstream
                    );
                    return Next::Fail(Reason::BadResponse);
                }
                // RFC 9110 §15.2: a 1.0 user does not know them.
                if exchange.asked.version == Version::Http11 {
                    response.write_to(&mut written, true, now.unix);
                    tunnel.mux.send(stream, written, false, budget, now);
                }
                Next::Head
            }
            Kind::Switching => {
                if !tunnel.mux.is_request_whole(stream) {
                    info!(
                        user_id:% = user; "{user}: {} switched protocols before the request's end",
                        exchange.upstream
                    );
                    return Next::Fail(Reason::BadResponse);
                }
                response.write_to(&mut written, true, now.unix);
                tunnel.mux.upgrade(stream);
                tunnel.mux.send(stream, written, false, budget, now);
                io.set_deadline(key, Deadline::None);
                // From here on it is like any raw stream: never parked, and it may be quiet for days.
                if let Some(carried) = self.carried.get_mut(carried as usize) {
                    carried.state = State::Raw(key);
                    self.exchanging -= 1;
                }
                Next::Mux
            }
            Kind::Final => {
                // A user whose request is not read to its end cannot send another (RFC 9112 §9.3).
                // A server that drains takes no other.
                let keep = response.keep()
                    && tunnel.mux.is_request_told(stream)
                    && !tunnel.mux.is_peer_leaving();
                response.write_to(&mut written, keep, now.unix);
                let hint = response.keep_alive;
                if exchange.retried {
                    self.pool.retried();
                }
                exchange.head = None;
                exchange.idle_max = hint.timeout.map(|idle| idle - IDLE_MARGIN.min(idle / 2));
                exchange.facts = pool::Facts {
                    final_head: true,
                    framed_end: response.framing != Framing::UntilClose,
                    persistent: matches!(
                        response.reusable,
                        Ok(()) | Err(NotReusable::ConnectionAuth)
                    ) && exchange.idle_max != Some(Duration::ZERO),
                    tied_to_user: response.reusable == Err(NotReusable::ConnectionAuth),
                    ..pool::Facts::default()
                };
                io.set_deadline(key, Deadline::None);
                tunnel.mux.send(stream, written, true, budget, now);
                tunnel.mux.respond(stream, response.body(body_limits), keep);
                // An origin that writes head and body one by one, with Nagle's algorithm, keeps the
                // body back until the head is acknowledged: 40 ms, were that left to the kernel.
                if !matches!(response.framing, Framing::None | Framing::Length(0))
                    && io.outlook(key) == Outlook::Quiet
                {
                    io.acknowledge(key);
                }
                Next::Mux
            }
        }
    }

    /// Parks the connection of an exchange that is over, or closes it.
    pub(super) fn exchange_ended<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        key: Key,
        exchange: Exchange,
        end: StreamEnd,
        now: Now,
    ) {
        let StreamEnd::Answered { request_whole, .. } = end else {
            return io.abort(key);
        };
        // The last look, after which an event will tell.
        let outlook = io.look(key);
        let facts = pool::Facts {
            // What TLS has not sent yet is not written, whatever the mux was told.
            request_written: request_whole && io.is_flushed(key),
            surplus: outlook == Outlook::Data,
            socket_quiet: outlook == Outlook::Quiet,
            draining: self.stage.is_ending(),
            ..exchange.facts
        };
        let Some(origin) = exchange.origin else {
            return io.close(key);
        };
        let refused = match pool::refusal(&facts) {
            Some(refusal) => {
                self.pool.refuse(refusal);
                refusal
            }
            None => match self.pool.park(&exchange.upstream, key, origin, now.instant) {
                Parked::Kept {
                    slot,
                    expires,
                    evicted,
                } => {
                    let hinted = exchange.idle_max.map(|idle| now.instant + idle);
                    let expires = hinted.map_or(expires, |hinted| hinted.min(expires));
                    io.set_owner(key, Owner::Parked(slot));
                    io.set_deadline(key, Deadline::At(expires));
                    if let Some(evicted) = evicted {
                        io.close(evicted);
                    }
                    return;
                }
                Parked::Refused(refusal) => refusal,
            },
        };
        debug!("{}: connection not parked, {refused}", exchange.upstream);
        io.close(key);
    }
}

/// How long before an origin's own limit (`Keep-Alive: timeout=N`) its connection is given up, or half
/// of that if it is less: a request that left just before it would arrive just after.
const IDLE_MARGIN: Duration = Duration::from_secs(1);
