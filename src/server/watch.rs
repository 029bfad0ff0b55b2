//! What the server tells of itself, and what an admin may do to it.
//!
//! A snapshot is made when it is asked for: metrics cost a step for each link and each proxy, status one for
//! each stream that is listed besides.

use super::{Owner, Server, fronts::Front};
use crate::{
    admin::{
        self, Asked, Figures, STREAMS_MAX, Status, Told,
        snapshot::{LinkStatus, ProxyStatus, StreamStatus},
    },
    clock::Now,
    histogram::Histogram,
    reactor::{Reactor, net::Net},
    stage::Stage,
    tunnel::{control::Reason, ids::UserId},
};

impl Server {
    /// Opens the admin's listener, if the configuration asks for one.
    ///
    /// # Errors
    /// It cannot be had; the text is for the operator.
    pub fn open_admin<N: Net>(&mut self, io: &mut Reactor<N, Owner>) -> Result<(), String> {
        self.admin = admin::open(self.config.admin.as_ref(), io, Owner::Admin)?;
        Ok(())
    }

    pub(super) fn visitor_ready<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        visitor: u32,
        now: Now,
    ) {
        let Some(admin) = &mut self.admin else {
            return;
        };
        let Some(asked) = admin.ready(io, visitor, now) else {
            return;
        };
        let told = match asked {
            Asked::Readiness => Told::Readiness(self.not_ready()),
            Asked::Metrics => {
                let status = self.status(io, 0, now);
                Told::Metrics(Box::new((status, self.figures(io))))
            }
            Asked::Status => Told::Status(Box::new(self.status(io, STREAMS_MAX, now))),
            Asked::Close(user) => Told::Closed(user, self.close_user(io, user)),
        };
        if let Some(admin) = &mut self.admin {
            admin.answer(io, visitor, told, now);
        }
    }

    /// Why nobody is served, if so.
    fn not_ready(&self) -> Option<String> {
        match self.stage {
            Stage::Running => None,
            Stage::Draining | Stage::Leaving | Stage::Over => Some("draining".into()),
        }
    }

    /// What there is, with at most so many streams.
    pub fn status<N: Net>(
        &mut self,
        io: &Reactor<N, Owner>,
        streams_max: usize,
        now: Now,
    ) -> Status {
        let mut status = Status {
            role: "server".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            not_ready: self.not_ready(),
            uptime_seconds: now
                .instant
                .saturating_duration_since(self.started)
                .as_secs_f64(),
            users: self.fronts.connections(),
            streams_opened: self.opened,
            bytes_up: self.carried.sent,
            bytes_down: self.carried.received,
            undelivered_bytes: self.undelivered(io),
            undelivered_max: self.shared.budget.limit(),
            turns: io.turns().cloned().unwrap_or_default(),
            first_bytes: self.answers(),
            ..Status::default()
        };
        let mut proxies = Vec::new();
        for (index, proxy) in self.proxies.all() {
            proxies.push(index);
            status.proxies.push(ProxyStatus {
                id: proxy.id.to_string(),
                kind: proxy.spec.kind.to_string(),
                address: proxy.address.to_string(),
                client: proxy.client.to_string(),
                target: proxy.spec.target.as_ref().map(ToString::to_string),
                link_up: proxy.link.is_some(),
                users: Some(self.fronts.admission.users_of(index)),
                streams: proxy.tally.open() as usize,
                bytes_up: proxy.tally.up,
                bytes_down: proxy.tally.down,
            });
        }
        for (client, peer, draining, tunnel) in self.links.all_up() {
            let (mux, link) = (&tunnel.mux, &tunnel.link);
            let traffic = mux.traffic();
            status.streams_open += mux.len();
            status.bytes_up += traffic.sent;
            status.bytes_down += traffic.received;
            status.links.push(LinkStatus {
                client: client.to_string(),
                peer: peer.to_string(),
                age_seconds: link.age(now).as_secs_f64(),
                round_trip_seconds: link.round_trip().map(|trip| trip.as_secs_f64()),
                streams: mux.len(),
                bytes_up: traffic.sent,
                bytes_down: traffic.received,
                draining,
            });
            for view in mux.views().take(streams_max - status.streams.len()) {
                let Some(&Front { user, proxy, .. }) = self.fronts.get(view.owner as usize) else {
                    continue;
                };
                // They stand in the order of their slots.
                let place = proxies.binary_search(&proxy).ok();
                let of = place.map(|place| &mut status.proxies[place]);
                let proxy_id = match of {
                    Some(of) => {
                        of.bytes_up += view.sent;
                        of.bytes_down += view.delivered;
                        of.id.clone()
                    }
                    None => String::new(),
                };
                status.streams.push(StreamStatus {
                    user_id: user.to_string(),
                    proxy_id,
                    age_seconds: now
                        .instant
                        .saturating_duration_since(view.opened)
                        .as_secs_f64(),
                    bytes_up: view.sent,
                    bytes_down: view.delivered,
                    state: view.phase.word().into(),
                });
            }
        }
        status.streams_not_listed = status.streams_open.saturating_sub(status.streams.len());
        status
    }

    /// What metrics tell besides.
    pub fn figures<N: Net>(&self, io: &Reactor<N, Owner>) -> Figures {
        let of_proxies = self.proxies.refusals();
        let others = [
            ("address", of_proxies.address),
            ("proxy_header", of_proxies.unintroduced),
            ("password", of_proxies.denied),
            ("budget", self.overloaded),
            ("client_not_connected", self.clientless),
            ("client_address", self.refused_clients.total()),
            ("client_rate", self.hasty_clients.total()),
        ];
        let of_admission = self.fronts.admission.refusals();
        Figures {
            ends: self.ends.iter().collect(),
            refusals: of_admission.into_iter().chain(others).collect(),
            handshakes: vec![
                ("link", self.links.handshakes.len()),
                ("user", self.securing.len()),
            ],
            pool: None,
            sockets: io.len() + io.unclosed(),
            lingering: io.lingering(),
            descriptors: io.descriptors(),
        }
    }

    /// How long responses took to begin, of all links that there were.
    fn answers(&self) -> Histogram {
        let mut answers = self.carried.answers.clone();
        for (_, _, _, tunnel) in self.links.all_up() {
            answers.add(&tunnel.mux.traffic().answers);
        }
        answers
    }

    /// Resets the session of a user, whatever it is doing unless an exchange is named; whether there was one.
    fn close_user<N: Net>(&mut self, io: &mut Reactor<N, Owner>, user: UserId) -> bool {
        let is_meant = |front: &Front| {
            let same = (front.user.port, front.user.connected) == (user.port, user.connected);
            let busy = front.stream().is_some();
            same && (user.exchange == 0 || (busy && front.user.exchange == user.exchange))
        };
        let found = self.fronts.iter().find(|(_, front)| is_meant(front));
        let Some((index, front)) = found else {
            return false;
        };
        let (front, stream, link) = (index as u32, front.stream(), front.link);
        match stream {
            Some(stream) => self.give_up(io, front, link, stream, Reason::UserReset),
            None => {
                self.user_left_handshake(io, front);
                self.forget_head(front);
                self.abort_front(io, front);
            }
        }
        true
    }
}
