//! Clients' links: from an accepted connection to a welcomed client, and what its frames mean.
//!
//! ```text
//!  accepted --> Securing --TLS--> Upgrade --101--> Hello --proof, welcome--> Up --goaway--> draining
//!      |    ^       \                \               \                       \
//!      |    |        no TLS           refused         wrong token             newer link, error, silence
//!      |  PROXY header
//!      v    |
//!     Introducing        (from a balancer; without a header it is refused)
//! ```
//!
//! A client id has at most one link that takes new streams: the newest. Everything a link carried
//! ends with it. What comes before the welcome stands in `handshake`, who there is in `table`.

mod handshake;
mod table;

use log::info;

pub(super) use self::table::Links;
use self::table::{Entry, State};
use super::{Owner, Server, introduction::TOO_SLOW};
use crate::{
    clock::Now,
    config::ClientId,
    key::Key,
    reactor::{Deadline, Flushed, Reactor, net::Net},
    tunnel::{
        Flush, Sent,
        control::{Goaway, ProxyClose, ProxyOpen, Reason},
        frame::Kind,
        link::{CloseReason, LinkError},
        mux::Happened,
    },
};

impl Server {
    /// What the present link of a client has sent.
    pub fn sent_to(&mut self, client: &ClientId) -> Sent {
        let link = self.links.of_client(client);
        let tunnel = link.and_then(|link| self.links.up(link));
        tunnel.map_or_else(Sent::default, |tunnel| tunnel.sent())
    }

    pub(super) fn link_ready<N: Net>(&mut self, io: &mut Reactor<N, Owner>, link: u32, now: Now) {
        let Some(entry) = self.links.entry(link) else {
            return;
        };
        match entry.state {
            State::Introducing => self.introduce_link(io, link, now),
            State::Securing => self.secure_link(io, link, now),
            State::Upgrade(_) => self.upgrade(io, link, now),
            State::Hello(..) | State::Up { .. } => self.receive(io, link, now),
        }
    }

    pub(super) fn link_timeout<N: Net>(&mut self, io: &mut Reactor<N, Owner>, link: u32, now: Now) {
        let Some(entry) = self.links.entry(link) else {
            return;
        };
        let key = entry.key;
        match &mut entry.state {
            State::Introducing => {
                self.link_over(io, link, TOO_SLOW, Reason::LinkLost);
                io.abort(key);
            }
            State::Securing | State::Upgrade(_) | State::Hello(..) => {
                self.link_over(io, link, "handshake deadline", Reason::LinkLost);
                io.close(key);
            }
            State::Up { tunnel, .. } => match tunnel.link.timeout(io, key, now) {
                Ok(()) => io.set_deadline(key, Deadline::At(tunnel.link.deadline())),
                Err(error) => self.link_failed(io, link, &error),
            },
        }
    }

    fn receive<N: Net>(&mut self, io: &mut Reactor<N, Owner>, link: u32, now: Now) {
        loop {
            let Some(tunnel) = self.links.tunnel(link) else {
                return;
            };
            match tunnel.receive(io, &mut self.shared, now) {
                Ok(Some(happened)) => self.happened(io, link, happened, now),
                Ok(None) => break,
                Err(error) => return self.link_failed(io, link, &error),
            }
        }
        let Some(entry) = self.links.entry(link) else {
            return;
        };
        let key = entry.key;
        if let State::Up { tunnel, .. } = &mut entry.state {
            io.set_deadline(key, Deadline::At(tunnel.link.deadline()));
        }
        if entry
            .tunnel()
            .is_some_and(|tunnel| tunnel.link.is_scheduled())
        {
            io.again(key);
        }
        // Even when no stream has anything to say: a pong may wait.
        self.schedule(link);
    }

    pub(super) fn flush_link<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        link: u32,
        now: Now,
    ) -> Flushed {
        if let Some(entry) = self.links.entry(link) {
            entry.scheduled = false;
        }
        loop {
            let Some(entry) = self.links.entry(link) else {
                return Flushed::Idle;
            };
            let Some(tunnel) = entry.tunnel() else {
                return Flushed::Idle;
            };
            match tunnel.flush(io, &mut self.shared, now) {
                Ok(Flush::Happened(happened)) => self.happened(io, link, happened, now),
                Ok(Flush::Idle) => {
                    self.end_if_deserted(io, link);
                    return Flushed::Idle;
                }
                Ok(Flush::Blocked) => return Flushed::Idle,
                Ok(Flush::More) => return Flushed::More,
                Err(error) => {
                    self.link_failed(io, link, &error);
                    return Flushed::Idle;
                }
            }
        }
    }

    /// Resets streams whose readers stand still while new ones have to be refused, from the link that
    /// holds most of such bytes; whether there may be more of them.
    pub(super) fn shed<N: Net>(&mut self, io: &mut Reactor<N, Owner>, now: Now) -> Flushed {
        if !self.shared.is_short(now) {
            return Flushed::Idle;
        }
        let entries = self.links.entries.iter_mut();
        let most = entries
            .filter_map(|(link, entry)| Some((entry.tunnel()?.mux.stalled(now), link as u32)))
            .max();
        let Some((1.., link)) = most else {
            return Flushed::Idle;
        };
        let Some(tunnel) = self.links.tunnel(link) else {
            return Flushed::Idle;
        };
        for happened in self.shared.shed(&mut tunnel.mux, now) {
            self.happened(io, link, happened, now);
        }
        self.schedule(link);
        Flushed::More
    }

    pub(super) fn happened<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        link: u32,
        happened: Happened,
        now: Now,
    ) {
        match happened {
            Happened::Control(kind, payload) => {
                if let Err(error) = self.control(io, link, kind, &payload, now) {
                    self.link_refused(io, link, &error);
                }
            }
            Happened::Connected(front) => self.front_connected(io, front),
            Happened::Upgraded(front) => self.front_upgraded(front),
            Happened::RequestSent(front) => self.request_sent(io, front),
            Happened::HalfClosed(front) => self.half_closed(io, front),
            Happened::Ended(front, ended) => self.stream_ended(io, front, ended, now),
            Happened::Orphaned(orphan) => self.front_orphaned(io, orphan, now),
            // The mux lets no client send proxy_connect.
            Happened::Opened(..) => {}
        }
    }

    fn control<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        link: u32,
        kind: Kind,
        payload: &[u8],
        now: Now,
    ) -> Result<(), Refusal> {
        let Some(entry) = self.links.entry(link) else {
            return Ok(());
        };
        match (kind, &mut entry.state) {
            (Kind::Hello, State::Hello(..)) => self.hello(io, link, parse(payload)?, now),
            (
                Kind::ProxyOpen,
                State::Up {
                    client,
                    draining: false,
                    ..
                },
            ) => {
                let client = client.clone();
                let opened =
                    self.open_exposed(io, link, &client, parse::<ProxyOpen>(payload)?, now);
                if let Some(tunnel) = self.links.tunnel(link) {
                    tunnel.mux.control(Kind::ProxyOpened, &opened);
                }
                self.schedule(link);
                Ok(())
            }
            (Kind::ProxyClose, State::Up { client, .. }) => {
                let client = client.clone();
                let close = parse::<ProxyClose>(payload)?;
                self.close_exposed(io, &client, &close.proxy_id);
                Ok(())
            }
            // Said again it changes nothing.
            (Kind::Goaway, State::Up { draining: true, .. }) => Ok(()),
            (
                Kind::Goaway,
                State::Up {
                    client, draining, ..
                },
            ) => {
                *draining = true;
                let client = client.clone();
                let last = parse::<Goaway>(payload)?.last;
                info!(
                    client = client.as_str(),
                    say:% = format_args!("{client} is about to leave");
                    "link {client}: client drains"
                );
                if self.links.of_client(&client) == Some(link) {
                    self.links.by_client.remove(&client);
                    self.proxies.lost(link, io, now);
                }
                let untouched = match self.links.tunnel(link) {
                    Some(tunnel) => tunnel.mux.untouched_above(last, &mut self.shared.budget),
                    None => Vec::new(),
                };
                for (front, ended) in untouched {
                    self.stream_ended(io, front, ended, now);
                }
                Ok(())
            }
            _ => Err(Refusal::Protocol(format!("unexpected {}", kind.name()))),
        }
    }

    /// Ends a link whose client has a newer one.
    fn replace<N: Net>(&mut self, io: &mut Reactor<N, Owner>, link: u32) {
        self.close_link(
            io,
            link,
            CloseReason::Replaced,
            "replaced by a newer link",
            Reason::Replaced,
        );
    }

    /// A client that drains has nothing more to do here once its last stream has ended.
    fn end_if_deserted<N: Net>(&mut self, io: &mut Reactor<N, Owner>, link: u32) {
        if let Some(Entry {
            state:
                State::Up {
                    tunnel,
                    draining: true,
                    ..
                },
            ..
        }) = self.links.entry(link)
            && tunnel.mux.is_empty()
        {
            self.close_link(io, link, CloseReason::Done, "drained", Reason::Draining);
        }
    }

    fn link_refused<N: Net>(&mut self, io: &mut Reactor<N, Owner>, link: u32, refusal: &Refusal) {
        let (reason, text) = match refusal {
            Refusal::WrongToken => (CloseReason::WrongToken, "wrong token"),
            Refusal::Protocol(text) => (CloseReason::Protocol, text.as_str()),
        };
        self.close_link(io, link, reason, text, Reason::LinkLost);
    }

    fn link_failed<N: Net>(&mut self, io: &mut Reactor<N, Owner>, link: u32, error: &LinkError) {
        match error.goodbye() {
            Some((reason, text)) => self.close_link(io, link, reason, &text, Reason::LinkLost),
            None => {
                if let Some(key) = self.link_over(io, link, &error.to_string(), Reason::LinkLost) {
                    io.abort(key);
                }
            }
        }
    }

    /// Tells the peer why and closes, so that what we say arrives.
    pub(super) fn close_link<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        link: u32,
        reason: CloseReason,
        text: &str,
        ends: Reason,
    ) {
        let Some(entry) = self.links.entry(link) else {
            return;
        };
        let key = entry.key;
        let is_up = matches!(entry.state, State::Up { .. });
        if let Some(tunnel) = entry.tunnel() {
            tunnel.link.close(io, key, reason, text);
        }
        self.link_over(io, link, text, ends);
        if is_up {
            // Whoever breaks the protocol may never stop.
            io.linger_at_most(key, self.config.timeouts.linger);
        } else {
            self.part_from_stranger(io, key, &[]);
        }
    }

    /// Tells somebody who was never let in why, if it takes it soon. As many are waited for as may shake
    /// hands: each holds a descriptor and a session of TLS, and who comes to be refused comes for ever.
    fn part_from_stranger<N: Net>(&self, io: &mut Reactor<N, Owner>, key: Key, answer: &[u8]) {
        if io.lingering() < self.config.limits.handshakes {
            io.farewell_at_most(key, answer, self.config.timeouts.linger);
        } else {
            io.close(key);
        }
    }

    /// Forgets a link and ends all that it carried; its socket is the caller's to close.
    fn link_over<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        link: u32,
        why: &str,
        reason: Reason,
    ) -> Option<Key> {
        let mut entry = self.links.entries.try_remove(link as usize)?;
        let name = entry.name();
        match &entry.state {
            State::Up { client, .. } => {
                info!(
                    client = client.as_str(),
                    peer:% = entry.peer,
                    reason = why,
                    say:% = format_args!("{client} disconnected ({why})");
                    "link {name}: down ({why})"
                );
                if self.links.of_client(client) == Some(link) {
                    self.links.by_client.remove(client);
                }
                self.proxies.lost(link, io, io.now());
            }
            State::Introducing | State::Securing | State::Upgrade(_) | State::Hello(..) => {
                info!(peer:% = entry.peer, reason = why; "link {name}: refused ({why})");
                for listener in self.links.handshakes.end(entry.handshake) {
                    io.again(listener);
                }
            }
        }
        let orphans = match entry.tunnel() {
            Some(tunnel) => {
                self.carried.add(tunnel.mux.traffic());
                tunnel.mux.end_all(reason, &mut self.shared.budget)
            }
            None => Vec::new(),
        };
        for orphan in orphans {
            self.front_orphaned(io, orphan, io.now());
        }
        Some(entry.key)
    }
}

/// Why a client is not taken in.
enum Refusal {
    WrongToken,
    Protocol(String),
}

fn parse<'a, T: serde::Deserialize<'a>>(payload: &'a [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(payload).map_err(|error| {
        // The error may quote what the peer said.
        let error = error.to_string();
        Refusal::Protocol(format!(
            "malformed control payload: {}",
            error.escape_debug()
        ))
    })
}
