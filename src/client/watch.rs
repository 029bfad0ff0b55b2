//! What the client tells of itself, and what an admin may do to it.
//!
//! A snapshot is made when it is asked for: metrics cost a step for each proxy, status one for each stream
//! and each target that is listed besides.

use std::collections::HashMap;

use super::{
    Client, Owner,
    carried::{Carried, State},
};
use crate::{
    admin::{
        self, Asked, Figures, STREAMS_MAX, Status, Told,
        snapshot::{LinkStatus, POOLS_MAX, PoolFigures, PoolStatus, ProxyStatus, StreamStatus},
    },
    clock::Now,
    histogram::Histogram,
    reactor::{Reactor, net::Net},
    tunnel::{control::Reason, ids::UserId},
};

impl Client {
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

    /// Why nothing is served, if so.
    fn not_ready(&self) -> Option<String> {
        if self.stage.is_ending() {
            Some("draining".into())
        } else if self.links.present.is_up() {
            None
        } else if self.links.has_leaving() {
            Some("the server drains, no new link yet".into())
        } else {
            Some(format!("no link to {}", self.config.server))
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
            role: "client".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            not_ready: self.not_ready(),
            uptime_seconds: now
                .instant
                .saturating_duration_since(self.started)
                .as_secs_f64(),
            streams_open: self.carried.len(),
            streams_opened: self.opened,
            bytes_up: self.past.received,
            bytes_down: self.past.sent,
            undelivered_bytes: self.undelivered(io),
            undelivered_max: self.shared.budget.limit(),
            turns: io.turns().cloned().unwrap_or_default(),
            first_bytes: self.answers(),
            pool_hits: self.pool.counters().hits,
            pool_misses: self.pool.counters().misses,
            ..Status::default()
        };
        let link_up = self.links.present.is_up();
        let mut of_proxies = HashMap::new();
        for (exposed, name, address) in self.exposures.iter() {
            let spec = &exposed.spec;
            let asked_for = || match spec.bind {
                Some(_) => spec.address([0, 0, 0, 0].into()).to_string(),
                None => format!(":{}", spec.port),
            };
            if let Some(name) = name {
                of_proxies.insert(name.to_owned(), status.proxies.len());
            }
            status.proxies.push(ProxyStatus {
                id: name.unwrap_or_default().into(),
                kind: spec.kind.to_string(),
                address: address.map_or_else(asked_for, str::to_owned),
                client: self.config.id.to_string(),
                target: spec.target.as_ref().map(ToString::to_string),
                link_up,
                ..ProxyStatus::default()
            });
        }
        let mut of_targets = HashMap::new();
        if streams_max > 0 {
            for (upstream, idle) in self.pool.targets().take(POOLS_MAX) {
                of_targets.insert(upstream, status.pools.len());
                status.pools.push(PoolStatus {
                    target: upstream.to_string(),
                    idle,
                    in_use: 0,
                });
            }
        }
        for tunnel in self.links.all_up() {
            let (mux, link) = (&tunnel.mux, &tunnel.link);
            let traffic = mux.traffic();
            status.bytes_up += traffic.received;
            status.bytes_down += traffic.sent;
            status.links.push(LinkStatus {
                client: self.config.id.to_string(),
                peer: self.config.server.to_string(),
                age_seconds: link.age(now).as_secs_f64(),
                round_trip_seconds: link.round_trip().map(|trip| trip.as_secs_f64()),
                streams: mux.len(),
                bytes_up: traffic.received,
                bytes_down: traffic.sent,
                draining: mux.is_peer_leaving(),
            });
            let rest = streams_max - status.streams.len();
            for view in mux.views().take(rest) {
                let Some(carried) = self.carried.get(view.owner as usize) else {
                    continue;
                };
                let proxy_id = carried.proxy_id(&self.config.id).to_string();
                if let Some(of) = of_proxies.get(&proxy_id) {
                    let of = &mut status.proxies[*of];
                    of.streams += 1;
                    of.bytes_up += view.delivered;
                    of.bytes_down += view.sent;
                }
                let state = match &carried.state {
                    State::Queued(..) => "queued",
                    State::Exchange(_, exchange) => {
                        let pools = &mut status.pools;
                        let of = of_targets.entry(&exchange.upstream).or_insert_with(|| {
                            pools.push(PoolStatus {
                                target: exchange.upstream.to_string(),
                                ..PoolStatus::default()
                            });
                            pools.len() - 1
                        });
                        pools[*of].in_use += 1;
                        view.phase.word()
                    }
                    State::Dialling { .. } | State::Raw(_) => view.phase.word(),
                };
                status.streams.push(StreamStatus {
                    user_id: carried.user.to_string(),
                    proxy_id,
                    age_seconds: now
                        .instant
                        .saturating_duration_since(view.opened)
                        .as_secs_f64(),
                    bytes_up: view.delivered,
                    bytes_down: view.sent,
                    state: state.into(),
                });
            }
        }
        status.streams_not_listed = status.streams_open.saturating_sub(status.streams.len());
        status
    }

    /// What metrics tell besides.
    pub fn figures<N: Net>(&self, io: &Reactor<N, Owner>) -> Figures {
        Figures {
            ends: self.ends.iter().collect(),
            // Whatever a client refuses is a stream that has ended so.
            refusals: Vec::new(),
            handshakes: vec![("dial", self.dials.len())],
            pool: Some(PoolFigures {
                idle: self.pool.len(),
                in_use: self.exchanging,
                dialled: self.counters.dialled,
                counters: self.pool.counters().clone(),
            }),
            sockets: io.len() + io.unclosed(),
            lingering: io.lingering(),
            descriptors: io.descriptors(),
        }
    }

    /// How long responses took to begin, of all links that there were.
    fn answers(&self) -> Histogram {
        let mut answers = self.past.answers.clone();
        for tunnel in self.links.all_up() {
            answers.add(&tunnel.mux.traffic().answers);
        }
        answers
    }

    /// Resets the stream of a user; whether there was one.
    fn close_user<N: Net>(&mut self, io: &mut Reactor<N, Owner>, user: UserId) -> bool {
        let is_meant = |carried: &Carried| {
            let of = carried.user;
            (of.port, of.connected) == (user.port, user.connected)
                && (user.exchange == 0 || of.exchange == user.exchange)
        };
        let found = self.carried.iter().find(|(_, carried)| is_meant(carried));
        let Some((carried, state)) = found.map(|(index, it)| (index as u32, &it.state)) else {
            return false;
        };
        if let State::Dialling { dial, .. } = state {
            self.cancel_dial(io, *dial);
        }
        self.fail_stream(io, carried, Reason::TargetReset);
        true
    }
}
