//! The private role: a link to the server, and a connection to a target for each stream in it.
//!
//! ```text
//!   server --> link --(stream)--> carried --> dial, or take from the pool --> target
//! ```
//!
//! - `links`: the link that takes new streams, and those that only finish theirs, since their servers drain.
//! - `connection`: a link itself: dial, upgrade, hello, and again after it was lost, for ever.
//! - `dial`: from a target to a connected socket, several addresses tried, TLS if it is asked for.
//! - `detour`: to the server through an HTTP proxy.
//! - `secure`: whom TLS trusts.
//! - `upstream`: where exchanges go, and how many may be there at a time.
//! - `carried`: what a stream is doing here: dialling, raw, or an HTTP exchange.
//! - `reuse`: connections from the pool: taken, found dead, given up.
//! - `respond`: the response of an exchange: its head, and whether its connection is parked after it.
//! - `network`: what there is to do when the network is another, or the machine has slept.
//! - `watch`: what the client tells of itself.

mod backoff;
mod carried;
mod connection;
mod detour;
mod dial;
mod exposures;
mod links;
mod network;
mod reload;
mod respond;
mod reuse;
#[cfg_attr(not(feature = "tls"), path = "no_secure.rs")]
mod secure;
mod upstream;
mod watch;

use std::{
    collections::HashSet,
    rc::Rc,
    time::{Duration, Instant},
};

use log::{Level, debug, info, log_enabled, warn};
use slab::Slab;

pub use self::links::LinkId;
use self::{
    backoff::Backoff,
    carried::{Carried, State},
    dial::Dials,
    exposures::Exposures,
    links::Links,
    network::Network,
    reload::pool_limits,
    secure::Trust,
    upstream::{Places, Upstream},
};
use crate::{
    admin::Admin,
    clock::Now,
    config::{ClientConfig, Source, Via},
    key::Key,
    lend,
    pool::{self, Pool, Slot},
    reactor::{Deadline, Flushed, Found, Reactor, Role, net::Net},
    reload::{Reload, Watched},
    stage::{self, Stage},
    tunnel::{
        Shared,
        control::Reason,
        mux::{EndCounts, LinkState, Orphan, Traffic},
    },
};

/// The client's label of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A link, or the wait before the attempt at it.
    Link(LinkId),
    /// The clock of a dial.
    Dial(u32),
    /// One attempt of a dial.
    Attempt(u32),
    /// The connection of a stream.
    Target(u32),
    /// The clock of an exchange that waits for a place at its target.
    Queued(u32),
    /// A connection in the pool.
    Parked(Slot),
    /// The end of the drain.
    Drain,
    /// The end of what happens to the files of the configuration.
    Files,
    /// The end of what happens to the network.
    Network,
    /// The listener for admins.
    Admin,
    /// A connection of one.
    Visitor(u32),
}

/// The client.
pub struct Client {
    config: Rc<ClientConfig>,
    /// Where it was read from, to be read again.
    watched: Option<Watched<ClientConfig>>,
    exposures: Exposures,
    /// The present server closes a proxy when it is asked to.
    closes: bool,
    shared: Shared,
    links: Links,
    backoff: Backoff,
    network: Network,
    dials: Dials,
    /// Towards targets.
    tls: Trust,
    /// Towards the server.
    link_tls: Trust,
    carried: Slab<Carried>,
    pool: Pool<Upstream>,
    places: Places,
    /// Its `bytes` are those of links that are gone.
    counters: Counters,
    /// Streams that the server has opened since the start.
    opened: u64,
    ends: EndCounts,
    /// What links have carried that are gone.
    past: Traffic,
    /// How many streams are exchanges that have their connection.
    exchanging: usize,
    /// What the log was told of the pool, and when.
    reported: (Instant, pool::Counters),
    /// Where heads are read into.
    scratch: Box<[u8]>,
    scheduled: bool,
    stage: Stage,
    started: Instant,
    admin: Option<Admin>,
}

/// What the client has done, for the demo's status line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Connections dialled to targets.
    pub dialled: u64,
    /// Exchanges on a connection from the pool.
    pub reused: u64,
    /// Exchanges whose connection from the pool was dead, and that were sent again on a fresh one.
    pub retried: u64,
    /// Payload bytes carried both ways, by streams that go on, too.
    pub bytes: u64,
}

impl Client {
    /// A client that dials its server at once.
    pub fn start<N: Net>(config: ClientConfig, io: &mut Reactor<N, Owner>) -> Client {
        let mut client = Client {
            shared: lend::shared(config.memory_max, config.limits.undelivered, io),
            links: Links::new(),
            backoff: Backoff::default(),
            network: Network::default(),
            dials: Dials::default(),
            tls: Trust::new("--target-ca", config.target_ca.clone(), None),
            link_tls: Trust::new("--ca", config.ca.clone(), config.identity.clone()),
            carried: Slab::new(),
            pool: Pool::new(pool_limits(&config)),
            places: Places::new(
                config.pool.max_active_per_target,
                config.pool.queue_per_target,
            ),
            counters: Counters::default(),
            opened: 0,
            ends: EndCounts::default(),
            past: Traffic::default(),
            exchanging: 0,
            reported: (io.now().instant, pool::Counters::default()),
            scratch: vec![0; SCRATCH].into(),
            scheduled: false,
            stage: Stage::Running,
            started: io.now().instant,
            admin: None,
            watched: None,
            closes: false,
            exposures: Exposures::new(&config.expose),
            config: Rc::new(config),
        };
        let now = io.now();
        client.say_which_way();
        io.reserve_descriptors(client.config.limits.descriptors_reserved);
        client.connect(io, now);
        client
    }

    /// Whoever wonders about the way should not have to guess which variable it came from.
    fn say_which_way(&self) {
        let (id, server) = (&self.config.id, &self.config.server);
        let by = match &self.config.via {
            Via::Direct => String::new(),
            Via::Proxy(proxy) => format!(" via {proxy}"),
            Via::Variable(name, proxy) => format!(" via {proxy} ({name})"),
            Via::Unusable(name, reason) => {
                warn!("link {id}: the variable {name} is not used: {reason}");
                String::new()
            }
        };
        info!(
            client = id.as_str(),
            server:%,
            say:% = format_args!("connecting to {server}{by}");
            "link {id}: to {server}{by}"
        );
    }

    /// From where to read the configuration again when the operator asks for it, or a file has changed.
    pub fn reads_from<N: Net>(&mut self, source: Source<ClientConfig>, io: &mut Reactor<N, Owner>) {
        self.watched = Some(Watched::new(source, Owner::Files, io));
    }

    /// What it has done so far.
    pub fn counters(&self) -> Counters {
        let of_links = self.links.all_up().map(|tunnel| tunnel.mux.carried());
        Counters {
            bytes: self.counters.bytes + of_links.sum::<u64>(),
            ..self.counters
        }
    }

    /// How many streams are open.
    pub fn streams(&self) -> usize {
        self.carried.len()
    }

    /// Streams that the server has opened since the start.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// How streams ended since the start.
    pub fn ends(&self) -> &EndCounts {
        &self.ends
    }

    /// What has happened in the pool since the start.
    pub fn pool(&self) -> &pool::Counters {
        self.pool.counters()
    }

    /// Undelivered bytes that it holds.
    pub fn undelivered<N: Net>(&self, io: &Reactor<N, Owner>) -> usize {
        self.shared.budget.held_by_streams() + io.unread_bytes()
    }

    /// What the links have come to, those included that only finish their streams, and the socket of each.
    pub fn link_states(&self) -> impl Iterator<Item = (Key, LinkState)> {
        let up = self.links.all_up();
        up.map(|tunnel| (tunnel.key, tunnel.state()))
    }

    /// How many links are up, those included that only finish their streams.
    pub fn links(&self) -> usize {
        self.links.all_up().count()
    }

    /// The connections that are parked.
    pub fn parked_keys(&self) -> impl Iterator<Item = Key> {
        self.pool.keys().map(|(_, key)| key)
    }

    /// How many connections are parked.
    pub fn parked(&self) -> usize {
        self.pool.len()
    }

    /// Whether a link is up that takes new streams.
    pub fn is_linked(&self) -> bool {
        self.links.present.is_up()
    }

    /// Says now and then, where anybody wants to know, what the pool has done since.
    fn report_pool(&mut self, now: Now, at_last: bool) {
        if !log_enabled!(Level::Debug) {
            return;
        }
        let (said, counters) = &self.reported;
        let lately = now.instant.saturating_duration_since(*said) < REPORT_EVERY;
        if (lately && !at_last) || counters == self.pool.counters() {
            return;
        }
        let oldest = self.pool.oldest(now.instant).unwrap_or_default();
        debug!(
            "pool: {} idle for up to {:.1} s; {}",
            self.pool.len(),
            oldest.as_secs_f64(),
            self.pool.counters()
        );
        self.reported = (now.instant, self.pool.counters().clone());
    }

    /// The mux of a link has something to say.
    fn schedule(&mut self) {
        self.scheduled = true;
    }

    /// Frees a descriptor: a parked connection must never cost a session its own.
    fn evict_oldest<N: Net>(&mut self, io: &mut Reactor<N, Owner>) -> bool {
        match self.pool.evict_oldest() {
            Some(key) => {
                io.close_now(key);
                true
            }
            None => false,
        }
    }

    /// Resets streams whose readers stand still while new ones have to be refused, from the link that holds
    /// most of such bytes; whether there may be more of them.
    fn shed<N: Net>(&mut self, io: &mut Reactor<N, Owner>, now: Now) -> Flushed {
        if !self.shared.is_short(now) {
            return Flushed::Idle;
        }
        let ids = self.links.ids();
        let stalled = |id| Some((self.links.up(id)?.mux.stalled(now), id));
        let most = ids.filter_map(stalled).max_by_key(|(stalled, _)| *stalled);
        let Some((1.., id)) = most else {
            return Flushed::Idle;
        };
        let Some(tunnel) = self.links.up(id) else {
            return Flushed::Idle;
        };
        for happened in self.shared.shed(&mut tunnel.mux, now) {
            self.happened(io, id, happened, now);
        }
        self.schedule();
        Flushed::More
    }

    fn end_if_drained<N: Net>(&mut self, io: &mut Reactor<N, Owner>) {
        let flushed = self.links.all_up().all(|tunnel| tunnel.is_flushed());
        if self.stage == Stage::Draining && self.carried.is_empty() && flushed {
            info!("drained");
            self.end(io);
        }
    }

    /// Whoever is still served sees that it was not all.
    fn drop_streams<N: Net>(&mut self, io: &mut Reactor<N, Owner>) {
        let streams = std::mem::take(&mut self.carried);
        self.exchanging = 0;
        for id in self.links.ids() {
            let Some(tunnel) = self.links.up(id) else {
                continue;
            };
            let budget = &mut self.shared.budget;
            for Orphan { owner, ended, .. } in tunnel.mux.end_all(Reason::Draining, budget) {
                if let Some(carried) = streams.get(owner as usize) {
                    self.log_end(carried, &ended, io.now());
                }
            }
        }
        for (_, carried) in streams {
            match carried.state {
                State::Queued(timer, _) => io.close(timer),
                State::Dialling { dial, .. } => self.cancel_dial(io, dial),
                State::Raw(key) | State::Exchange(key, _) => io.abort(key),
            }
        }
        self.places.clear();
    }

    fn say_summary(&self, now: Now) {
        let (mut up, mut down) = (self.past.received, self.past.sent);
        for tunnel in self.links.all_up() {
            let traffic = tunnel.mux.traffic();
            up += traffic.received;
            down += traffic.sent;
        }
        let ran = now.instant.saturating_duration_since(self.started);
        stage::say_summary(self.opened, up, down, ran);
    }

    fn end<N: Net>(&mut self, io: &mut Reactor<N, Owner>) {
        self.drop_streams(io);
        self.say_summary(io.now());
        self.report_pool(io.now(), true);
        self.goodbye(io);
        if let Some(admin) = &mut self.admin {
            admin.close(io);
        }
        self.stage = Stage::Leaving;
    }

    /// Panics where the invariants do not hold.
    pub fn check_invariants<N: Net>(&self, io: &Reactor<N, Owner>) {
        self.pool.check_invariants();
        let mut keys = HashSet::new();
        for key in self.carried.iter().filter_map(|(_, carried)| carried.key()) {
            assert!(keys.insert(key), "a connection serves one stream");
        }
        for (slot, key) in self.pool.keys() {
            assert!(keys.insert(key), "a parked connection serves no stream");
            assert_eq!(
                io.owner(key),
                Some(Owner::Parked(slot)),
                "a parked connection is labelled so"
            );
            assert_eq!(io.held(key), 0, "a parked connection has no unread bytes");
        }
        let exchanging = self
            .carried
            .iter()
            .filter(|(_, carried)| matches!(carried.state, State::Exchange(..)));
        assert_eq!(exchanging.count(), self.exchanging, "exchanges are counted");
        let places = || {
            self.carried
                .iter()
                .filter_map(|(_, carried)| carried.place())
        };
        self.places.check_invariants(
            places().filter(|(_, taken)| *taken).count(),
            places().filter(|(_, taken)| !taken).count(),
        );
        self.links.check_invariants(self.shared.budget.held());
        let up: Vec<LinkId> = self.links.ids_up().collect();
        for (_, carried) in &self.carried {
            assert!(
                up.contains(&carried.link()),
                "the link of each stream stands"
            );
        }
    }
}

impl<N: Net> Role<N> for Client {
    type Owner = Owner;

    fn ready(&mut self, io: &mut Reactor<N, Owner>, key: Key, owner: Owner, now: Now) {
        self.shared.budget.note_unread(io.unread_bytes());
        match owner {
            Owner::Link(id) => self.link_ready(io, id, now),
            Owner::Attempt(dial) => self.attempt_ready(io, dial, key, now),
            Owner::Target(carried) => self.target_ready(io, carried, now),
            Owner::Parked(slot) => self.parked_ready(io, key, slot),
            Owner::Admin => {
                if let Some(admin) = &mut self.admin {
                    admin.accept(io, Owner::Visitor, now);
                }
            }
            Owner::Visitor(visitor) => self.visitor_ready(io, visitor, now),
            Owner::Dial(_) | Owner::Queued(_) | Owner::Drain | Owner::Files | Owner::Network => {}
        }
    }

    fn timeout(&mut self, io: &mut Reactor<N, Owner>, key: Key, owner: Owner, now: Now) {
        match owner {
            Owner::Link(id) => self.link_timeout(io, id, now),
            Owner::Dial(dial) => self.dial_timeout(io, dial, now),
            Owner::Target(carried) => self.target_timeout(io, carried),
            Owner::Queued(carried) => self.queue_timeout(io, carried),
            Owner::Parked(slot) => self.parked_timeout(io, key, slot, now),
            Owner::Files => self.files_settled(io, now),
            Owner::Network => self.network_settled(io, now),
            Owner::Drain if self.stage != Stage::Draining => {}
            Owner::Drain => {
                warn!("drain deadline: {} streams are cut off", self.carried.len());
                self.end(io);
            }
            Owner::Visitor(visitor) => {
                if let Some(admin) = &mut self.admin {
                    admin.timeout(io, visitor);
                }
            }
            Owner::Attempt(_) | Owner::Admin => {}
        }
    }

    fn resolved(&mut self, io: &mut Reactor<N, Owner>, name: &str, found: &Found, now: Now) {
        self.name_resolved(io, name, found, now);
    }

    fn reload(&mut self, io: &mut Reactor<N, Owner>, now: Now) {
        self.read_again(io, now);
    }

    fn files_changed(&mut self, io: &mut Reactor<N, Owner>, _: Now) {
        self.files_stirred(io);
    }

    fn network_changed(&mut self, io: &mut Reactor<N, Owner>, now: Now) {
        self.network_stirred(io, now);
    }

    fn clock_skipped(&mut self, io: &mut Reactor<N, Owner>, skipped: Duration, now: Now) {
        self.has_slept(io, skipped, now);
    }

    fn stop(&mut self, io: &mut Reactor<N, Owner>, now: Now) {
        match self.stage {
            Stage::Running => {
                stage::say_stopping(self.carried.len(), "streams");
                self.stage = Stage::Draining;
                let mut parked = Vec::new();
                self.pool.close(&mut parked);
                for key in parked {
                    io.close(key);
                }
                if !self.links.is_any_up() {
                    return self.end(io);
                }
                self.forgo_link(io);
                // Even when no stream is open: the last bytes of one may still be on their way.
                for id in self.links.ids() {
                    if let Some(tunnel) = self.links.up(id) {
                        tunnel.mux.goaway();
                    }
                }
                self.schedule();
                let at = now.instant + self.config.timeouts.drain;
                io.timer(Owner::Drain, Deadline::At(at));
            }
            Stage::Draining | Stage::Leaving => {
                info!("stopping at once");
                if self.stage == Stage::Draining {
                    self.say_summary(now);
                }
                self.drop_streams(io);
                io.part_from_all();
                self.stage = Stage::Over;
            }
            Stage::Over => {}
        }
    }

    fn flush(&mut self, io: &mut Reactor<N, Owner>, now: Now) -> Flushed {
        self.shared.end_turn(io.unread_bytes());
        let shed = self.shed(io, now);
        self.start_queued_exchanges(io, now);
        self.start_queued_dials(io, now);
        if self.stage.has_left(io.lingering()) {
            return Flushed::Idle;
        }
        let flushed = if std::mem::take(&mut self.scheduled) {
            self.flush_links(io, now)
        } else {
            Flushed::Idle
        };
        if self.carried.is_empty() && self.carried.capacity() > TRIM_MIN {
            self.carried = Slab::new();
        }
        // What the flush has ended makes room, too.
        self.start_queued_exchanges(io, now);
        self.start_queued_dials(io, now);
        self.report_pool(now, false);
        self.end_if_drained(io);
        if self.stage == Stage::Leaving {
            // A quick server has read the goodbye already, and no event will tell of it.
            return Flushed::More;
        }
        if self.scheduled || shed == Flushed::More {
            Flushed::More
        } else {
            flushed
        }
    }

    fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }
}

/// How often the log is told of the pool, at most.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// One read of a response head; a small response comes with it whole.
const SCRATCH: usize = 16 * 1024;

/// Why a target could not be dialled, from the error of the last attempt.
fn dial_reason(error: &std::io::Error) -> Reason {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused => Reason::Refused,
        ErrorKind::TimedOut => Reason::DialTimeout,
        ErrorKind::WouldBlock => Reason::TargetBusy,
        ErrorKind::Unsupported => Reason::Unsupported,
        _ if crate::reactor::net::is_out_of_descriptors(error) => Reason::Descriptors,
        _ => Reason::Unreachable,
    }
}

/// A slab that a burst has filled is given back when it is empty again, if it was larger than this.
const TRIM_MIN: usize = 1024;
