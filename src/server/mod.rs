//! The public role: clients' links come in on one listener, users on those of the proxies.
//!
//! ```text
//!   user --> listener --> front --(stream)--> link --> client
//! ```
//!
//! - `links`: from an accepted connection to a welcomed client, and what its frames mean.
//! - `proxies`: which listeners there are, whose they are, and who serves them.
//! - `guard`: whether a user has the right password, and how often it may be wrong.
//! - `arrivals`: a user's connection until it may speak.
//! - `introduction`: whose connection it is, where a balancer in front says so.
//! - `fronts`: one user's connection: raw here, HTTP in `exchange`, SOCKS5 in `socks`.
//! - `socks`, `sni`: what comes before a raw stream whose users are listened to first.
//! - `admission`: how many users there may be; `sources`: how many of one address, and how fast.
//! - `rates`: bytes per second of a proxy.
//! - `secure`: TLS, towards either; `handshakes`: how many are under way.
//! - `succession`: what passes from one process to the next.
//! - `watch`: what the server tells of itself.
//!
//! A front lives as long as its user's connection; a stream is one raw connection or one HTTP
//! exchange of it. Slots in the slabs are named in [`Owner`] labels and in the mux; both are let go of
//! before a slot is.

mod admission;
mod arrivals;
mod exchange;
mod fronts;
mod guard;
mod handshakes;
mod introduction;
mod links;
mod proxies;
mod rates;
mod reload;
#[cfg_attr(not(feature = "tls"), path = "no_secure.rs")]
mod secure;
#[cfg_attr(not(feature = "tls"), path = "no_sni.rs")]
mod sni;
mod socks;
mod sources;
mod succession;
mod watch;

use std::{
    collections::VecDeque,
    fmt, io,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use log::{info, warn};

use self::{
    fronts::{Front, Fronts},
    handshakes::{HANDSHAKE_PAUSE, Handshakes, Room},
    links::Links,
    proxies::Proxies,
    rates::ProxyRates,
    secure::Acceptor,
    sources::Sources,
    succession::{Awaited, Notes, Upgrade},
};
use crate::{
    admin::Admin,
    clock::Now,
    config::{ClientId, ServerConfig, Source, Spec},
    guesses::Guesses,
    key::Key,
    lend,
    reactor::{
        Accepted, Deadline, Flushed, Found, Reactor, Role,
        net::{Net, Purpose},
    },
    refusals::Refusals,
    reload::{Reload, Watched},
    stage::{self, Stage},
    tunnel::{
        Shared,
        ids::Unique,
        mux::{EndCounts, LinkState, Orphan, Traffic},
        rate::RateId,
    },
};

/// The server's label of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The listener for clients.
    Clients,
    /// A link, or what may become one.
    Link(u32),
    /// A listener for users.
    Listener(u32),
    /// An exposed proxy whose client is away: it closes when this timer fires.
    Away(u32),
    /// A user's connection.
    Front(u32),
    /// One that its front has left, by the place that it still has.
    Left(u32),
    /// A rate for which streams wait.
    Rate(RateId),
    /// The end of the drain.
    Drain,
    /// The end of the wait for a new process.
    Upgrade,
    /// The end of what happens to the files of the configuration.
    Files,
    /// The listener for admins.
    Admin,
    /// A connection of one.
    Visitor(u32),
}

/// The server.
pub struct Server {
    config: Rc<ServerConfig>,
    /// Where it was read from, to be read again.
    watched: Option<Watched<ServerConfig>>,
    shared: Shared,
    links: Links,
    proxies: Proxies,
    fronts: Fronts,
    tls: Acceptor,
    /// Users between whom and us TLS does not stand yet.
    securing: Handshakes,
    users: Unique,
    /// Clients whose address may not connect.
    refused_clients: Refusals,
    /// Clients whose address connects too often, and where links come from.
    hasty_clients: Refusals,
    link_sources: Sources,
    guesses: Guesses,
    rates: ProxyRates,
    /// Streams opened since the start.
    opened: u64,
    ends: EndCounts,
    /// What links have carried that are gone.
    carried: Traffic,
    /// Streams that were refused for want of memory, and for want of a client.
    overloaded: u64,
    clientless: u64,
    /// Where heads are read into; what one read brings behind a head is all that is held of what
    /// follows it.
    scratch: Box<[u8]>,
    /// Links with something to send, each once.
    scheduled: VecDeque<u32>,
    listener: Key,
    address: SocketAddr,
    /// When it was last said that accepting pauses for want of descriptors, and of room for handshakes.
    starved: Option<Instant>,
    crowded: Option<Instant>,
    stage: Stage,
    started: Instant,
    admin: Option<Admin>,
    /// The process that is to take over.
    upgrade: Option<Upgrade>,
    /// Clients that have not come to this process yet, and whose users wait.
    awaited: Option<Awaited>,
}

/// Why the server cannot start.
#[derive(Debug)]
pub struct StartError {
    what: String,
    address: SocketAddr,
    error: io::Error,
}

impl StartError {
    /// The address that could not be listened on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: cannot listen on {}: {}",
            self.what, self.address, self.error
        )
    }
}

impl Server {
    /// Opens the listeners, those that the process before this one has left among them.
    ///
    /// # Errors
    /// One of them cannot be opened.
    pub fn start<N: Net>(
        config: ServerConfig,
        io: &mut Reactor<N, Owner>,
    ) -> Result<Server, StartError> {
        let config = Rc::new(config);
        let now = io.now();
        let mut notes = Notes::read(io);
        let listen = match &notes {
            Some(notes) => notes.listen(config.listen),
            None => config.listen,
        };
        let (listener, address) =
            io.listen(listen, Owner::Clients)
                .map_err(|error| StartError {
                    what: "--listen".into(),
                    address: listen,
                    error,
                })?;
        let scheme = if config.identities.is_empty() {
            "ws"
        } else {
            "wss"
        };
        info!(
            address:%,
            say:% = format_args!("clients connect to {scheme}://{address}");
            "listening for clients on {address}"
        );
        let mut server = Server {
            shared: lend::shared(config.memory_max, config.limits.undelivered, io),
            links: Links::new(config.limits.handshakes),
            proxies: Proxies::default(),
            fronts: Fronts::new(&config.limits, now.instant),
            tls: Acceptor::new(config.identities.clone(), config.client_ca.clone()),
            securing: Handshakes::new(config.limits.user_handshakes),
            users: Unique::default(),
            refused_clients: Refusals::default(),
            hasty_clients: Refusals::default(),
            link_sources: Sources::new(0, config.limits.rate_per_source),
            guesses: Guesses::default(),
            rates: ProxyRates::default(),
            opened: 0,
            ends: EndCounts::default(),
            carried: Traffic::default(),
            overloaded: 0,
            clientless: 0,
            scratch: vec![0; config.limits.pipelined].into(),
            scheduled: VecDeque::new(),
            listener,
            address,
            starved: None,
            crowded: None,
            stage: Stage::Running,
            started: now.instant,
            admin: None,
            upgrade: None,
            awaited: None,
            config: config.clone(),
            watched: None,
        };
        for entry in &config.proxies {
            let asked = entry.spec.address(config.bind);
            let address = match &mut notes {
                Some(notes) => notes.chosen(&entry.client, &entry.spec, asked),
                None => asked,
            };
            server
                .proxies
                .open_configured(entry, address, io, now)
                .map_err(|error| StartError {
                    what: format!("--proxy {}={}", entry.client, entry.spec),
                    address,
                    error,
                })?;
        }
        if let Some(notes) = notes {
            server.take_over(io, notes, now);
        }
        // What the configuration asks for may have all there are.
        io.reserve_descriptors(config.limits.descriptors_reserved);
        Ok(server)
    }

    /// From where to read the configuration again when the operator asks for it, or a file has changed.
    pub fn reads_from<N: Net>(&mut self, source: Source<ServerConfig>, io: &mut Reactor<N, Owner>) {
        self.watched = Some(Watched::new(source, Owner::Files, io));
    }

    /// How many users are connected.
    pub fn users(&self) -> usize {
        self.fronts.len()
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The proxies that are open, and where each listens.
    pub fn proxies(&self) -> impl Iterator<Item = (&Spec, SocketAddr)> {
        self.proxies.iter()
    }

    /// What it is doing.
    pub fn counters(&self) -> Counters {
        Counters {
            users: self.fronts.len(),
            streams: self.links.streams(),
        }
    }

    /// Streams opened since the start.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// How streams ended since the start.
    pub fn ends(&self) -> &EndCounts {
        &self.ends
    }

    /// Undelivered bytes that it holds.
    pub fn undelivered<N: Net>(&self, io: &Reactor<N, Owner>) -> usize {
        self.shared.budget.held_by_streams() + io.unread_bytes()
    }

    /// What a client's link has come to; `None` when it has none.
    pub fn link_of(&mut self, client: &ClientId) -> Option<LinkState> {
        let link = self.links.of_client(client)?;
        Some(self.links.up(link)?.state())
    }

    fn accept_links<N: Net>(&mut self, io: &mut Reactor<N, Owner>, now: Now) {
        while io.takes_another(self.listener) {
            match self.links.handshakes.room(self.listener, now.instant) {
                Room::Free => {}
                Room::After(oldest) => self.handshake_gives_way(io, oldest),
                Room::Wait => return self.wait_for_handshakes(io, self.listener, now),
            }
            match io.accept(self.listener, Purpose::Link, Owner::Clients) {
                Accepted::Connection(key, peer) => self.link_arrived(io, key, peer, now),
                Accepted::Empty => return,
                Accepted::Starved => {
                    // Users have left room for links: it is strangers who have taken it.
                    if let Some(oldest) = self.links.handshakes.overdue(now.instant) {
                        self.handshake_gives_way(io, oldest);
                    }
                    return self.pause_accepting(now);
                }
            }
        }
    }

    fn accept_users<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        listener: Key,
        at: u32,
        now: Now,
    ) {
        let Some(proxy) = self.proxies.at(at) else {
            return;
        };
        if let Some(until) = self.users_wait(at, now) {
            return io.set_deadline(listener, Deadline::At(until));
        }
        let secure = self
            .proxies
            .find(proxy)
            .is_some_and(|found| found.options.tls);
        let purpose = if secure {
            Purpose::SecureUser
        } else {
            Purpose::User
        };
        while io.takes_another(listener) {
            if secure {
                match self.securing.room(listener, now.instant) {
                    Room::Free => {}
                    Room::After(oldest) => self.user_gives_way(io, oldest),
                    Room::Wait => return self.wait_for_handshakes(io, listener, now),
                }
            }
            match io.accept(listener, purpose, Owner::Listener(at)) {
                Accepted::Connection(key, peer) => {
                    self.user_arrived(io, proxy, key, peer, now);
                }
                Accepted::Empty => return,
                Accepted::Starved => return self.pause_accepting(now),
            }
        }
    }

    /// So many handshakes are under way that one more has to wait.
    fn wait_for_handshakes<N: Net>(&mut self, io: &mut Reactor<N, Owner>, listener: Key, now: Now) {
        io.set_deadline(listener, Deadline::At(now.instant + HANDSHAKE_PAUSE));
        if is_news(&mut self.crowded, now) {
            warn!("as many handshakes are under way as may be: accepting pauses");
        }
    }

    /// Descriptors have run out. Said now and then: each user who leaves lets one in who waits, and
    /// then it has come to this again.
    fn pause_accepting(&mut self, now: Now) {
        if is_news(&mut self.starved, now) {
            warn!("out of descriptors, or of the room that memory_max leaves: accepting pauses");
        }
    }

    /// Takes nothing new, and ends when what there is has ended, or at the deadline.
    fn drain<N: Net>(&mut self, io: &mut Reactor<N, Owner>, now: Now) {
        stage::say_stopping(self.fronts.len(), "users");
        self.stage = Stage::Draining;
        io.close(self.listener);
        self.proxies.close_listeners(io);
        for link in self.links.start_drain(io) {
            self.schedule(link);
        }
        self.hurry_fronts(io, now);
        io.timer(
            Owner::Drain,
            Deadline::At(now.instant + self.config.timeouts.drain),
        );
        self.end_if_drained(io);
    }

    /// Ends when nobody is served any more.
    fn end_if_drained<N: Net>(&mut self, io: &mut Reactor<N, Owner>) {
        if self.stage == Stage::Draining && self.fronts.is_empty() && self.links.is_flushed() {
            info!("drained");
            self.end(io);
        }
    }

    /// Whoever is still served sees that it was not all.
    fn drop_fronts<N: Net>(&mut self, io: &mut Reactor<N, Owner>) {
        for Orphan { owner, ended, .. } in self.links.end_streams(&mut self.shared.budget) {
            if let Some(&Front { user, proxy, .. }) = self.fronts.get(owner as usize) {
                self.log_end(user, proxy, &ended, io.now());
            }
        }
        for key in self.fronts.remove_all() {
            io.abort(key);
        }
        self.securing.clear();
    }

    fn say_summary(&self, now: Now) {
        let links = self.links.all_up().map(|(.., tunnel)| tunnel.mux.traffic());
        let (mut up, mut down) = (self.carried.sent, self.carried.received);
        for traffic in links {
            up += traffic.sent;
            down += traffic.received;
        }
        let ran = now.instant.saturating_duration_since(self.started);
        stage::say_summary(self.opened, up, down, ran);
    }

    fn end<N: Net>(&mut self, io: &mut Reactor<N, Owner>) {
        self.drop_fronts(io);
        self.say_summary(io.now());
        self.links.goodbye(io, self.config.timeouts.linger);
        self.proxies.unlink();
        if let Some(admin) = &mut self.admin {
            admin.close(io);
        }
        self.stage = Stage::Leaving;
    }

    /// Queues a link whose mux has something to say.
    fn schedule(&mut self, link: u32) {
        if let Some(entry) = self.links.entry(link)
            && !std::mem::replace(&mut entry.scheduled, true)
        {
            self.scheduled.push_back(link);
        }
    }

    /// Panics where the invariants do not hold.
    pub fn check_invariants(&mut self) {
        self.links.check_invariants(self.shared.budget.held());
        self.proxies.check_invariants();
        self.fronts.check_invariants();
        self.proxies.check_tallies(&self.fronts);
        for (link, client) in self.proxies.served() {
            let of = self.links.of_client(client);
            assert_eq!(of, Some(link), "a proxy is served by its own client's link");
        }
    }
}

/// What the server is doing, for the demo's status line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Users connected.
    pub users: usize,
    /// Streams open.
    pub streams: usize,
}

impl<N: Net> Role<N> for Server {
    type Owner = Owner;

    fn ready(&mut self, io: &mut Reactor<N, Owner>, key: Key, owner: Owner, now: Now) {
        self.shared.budget.note_unread(io.unread_bytes());
        match owner {
            Owner::Clients => self.accept_links(io, now),
            Owner::Link(link) => self.link_ready(io, link, now),
            Owner::Listener(listener) => self.accept_users(io, key, listener, now),
            Owner::Front(front) => self.front_ready(io, front, now),
            Owner::Admin => {
                if let Some(admin) = &mut self.admin {
                    admin.accept(io, Owner::Visitor, now);
                }
            }
            Owner::Visitor(visitor) => self.visitor_ready(io, visitor, now),
            Owner::Left(_)
            | Owner::Away(_)
            | Owner::Rate(_)
            | Owner::Drain
            | Owner::Upgrade
            | Owner::Files => {}
        }
    }

    fn timeout(&mut self, io: &mut Reactor<N, Owner>, key: Key, owner: Owner, now: Now) {
        match owner {
            Owner::Link(link) => self.link_timeout(io, link, now),
            Owner::Front(front) => self.front_timeout(io, front),
            Owner::Away(proxy) => {
                io.close(key);
                self.proxy_abandoned(io, proxy);
            }
            Owner::Rate(rate) => self.rate_opens(io, rate, now),
            Owner::Files => self.files_settled(io, now),
            Owner::Drain if self.stage != Stage::Draining => {}
            Owner::Drain => {
                warn!("drain deadline: {} users are cut off", self.fronts.len());
                self.end(io);
            }
            Owner::Upgrade => self.successor_late(io),
            Owner::Visitor(visitor) => {
                if let Some(admin) = &mut self.admin {
                    admin.timeout(io, visitor);
                }
            }
            Owner::Clients | Owner::Listener(_) | Owner::Left(_) | Owner::Admin => {}
        }
    }

    fn parted(&mut self, owner: Owner) {
        if let Owner::Left(place) = owner {
            self.fronts.closed(place);
        }
    }

    fn resolved(&mut self, _: &mut Reactor<N, Owner>, _: &str, _: &Found, _: Now) {
        // The server dials nobody.
    }

    fn files_changed(&mut self, io: &mut Reactor<N, Owner>, _: Now) {
        self.files_stirred(io);
    }

    fn stop(&mut self, io: &mut Reactor<N, Owner>, now: Now) {
        match self.stage {
            Stage::Running => {
                self.stop_upgrade(io);
                // Before the listeners are closed: it is for whoever has them next.
                io.bequeath(&self.notes());
                self.drain(io, now);
            }
            Stage::Draining | Stage::Leaving => {
                info!("stopping at once");
                if self.stage == Stage::Draining {
                    self.say_summary(now);
                }
                self.drop_fronts(io);
                io.part_from_all();
                self.stage = Stage::Over;
            }
            Stage::Over => {}
        }
    }

    fn reload(&mut self, io: &mut Reactor<N, Owner>, now: Now) {
        self.read_again(io, now);
    }

    fn upgrade(&mut self, io: &mut Reactor<N, Owner>, now: Now) {
        self.start_successor(io, now);
    }

    fn succeeded(&mut self, io: &mut Reactor<N, Owner>, outcome: Result<(), String>, now: Now) {
        self.successor_heard(io, outcome, now);
    }

    fn flush(&mut self, io: &mut Reactor<N, Owner>, now: Now) -> Flushed {
        self.shared.end_turn(io.unread_bytes());
        let shed = self.shed(io, now);
        if self.stage.has_left(io.lingering()) {
            return Flushed::Idle;
        }
        // What one link's events schedule on others is flushed in this turn, too; what asks for more
        // than its share of it waits for the next.
        let mut later = Vec::new();
        while let Some(link) = self.scheduled.pop_front() {
            if self.flush_link(io, link, now) == Flushed::More {
                later.push(link);
            }
            self.wait_for_rates(io, link);
        }
        for link in later {
            self.schedule(link);
        }
        self.fronts.trim();
        self.end_if_drained(io);
        if self.stage == Stage::Leaving {
            // Quick peers have read the goodbye already, and no event will tell of it.
            return Flushed::More;
        }
        if self.scheduled.is_empty() {
            shed
        } else {
            Flushed::More
        }
    }

    fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }
}

/// Whether a state of want is to be said again; if so, it is by now.
fn is_news(said: &mut Option<Instant>, now: Now) -> bool {
    let lately = said.is_some_and(|said| now.instant.saturating_duration_since(said) < WANT_EVERY);
    if !lately {
        *said = Some(now.instant);
    }
    !lately
}

/// How often a want is said: a server can live at its limits for hours.
const WANT_EVERY: Duration = Duration::from_secs(60);
