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
//! ends with it.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use log::{info, warn};
use slab::Slab;

use super::{
    Owner, Server,
    handshakes::{Handshake, Handshakes},
    introduction::{self, Introduction, TOO_SLOW},
};
use crate::{
    clock::Now,
    config::{ClientId, Proof},
    http::{Gather, Gathered},
    key::Key,
    reactor::{
        Deadline, Flushed, Reactor,
        net::{Net, Purpose},
    },
    tunnel::{
        Flush, Sent, Tunnel,
        control::{Goaway, Hello, ProxyClose, ProxyOpen, Reason, Welcome},
        frame::Kind,
        link::{CloseReason, Link, LinkError},
        mux::{Happened, Mux, Orphan, Side},
        proof::{Challenge, Nonce, Prover},
        upgrade::{self, Upgrade},
        window::{Budget, Pressure},
    },
};

/// The links, by slot and by client.
pub(super) struct Links {
    entries: Slab<Entry>,
    /// The link of each client that takes new streams.
    by_client: HashMap<ClientId, u32>,
    /// Those that are not welcomed yet.
    pub handshakes: Handshakes,
}

/// One link, or what may become one.
pub(super) struct Entry {
    key: Key,
    /// Whence it comes: from the balancer in front, until that has said so.
    peer: SocketAddr,
    /// Until it is welcomed.
    handshake: Handshake,
    state: State,
    /// It stands in the server's queue of links to flush.
    pub scheduled: bool,
}

enum State {
    /// A balancer has yet to say whose it is.
    Introducing,
    /// TLS does not stand yet.
    Securing,
    /// The upgrade's head is awaited.
    Upgrade(Gather),
    /// The WebSocket stands, hello is awaited.
    Hello(Box<Tunnel>, Challenge),
    /// The client has proved itself.
    Up {
        tunnel: Box<Tunnel>,
        client: ClientId,
        draining: bool,
    },
}

impl Entry {
    pub fn tunnel(&mut self) -> Option<&mut Tunnel> {
        match &mut self.state {
            State::Introducing | State::Securing | State::Upgrade(_) => None,
            State::Hello(tunnel, _) | State::Up { tunnel, .. } => Some(tunnel),
        }
    }

    /// The client's id for the log, or where the link comes from.
    fn name(&self) -> String {
        match &self.state {
            State::Up { client, .. } => client.to_string(),
            State::Introducing | State::Securing | State::Upgrade(_) | State::Hello(..) => {
                format!("from {}", self.peer)
            }
        }
    }
}

impl Links {
    pub fn new(handshakes_max: usize) -> Links {
        Links {
            entries: Slab::new(),
            by_client: HashMap::new(),
            handshakes: Handshakes::new(handshakes_max),
        }
    }

    pub fn streams(&self) -> usize {
        self.entries
            .iter()
            .map(|(_, entry)| match &entry.state {
                State::Introducing | State::Securing | State::Upgrade(_) => 0,
                State::Hello(tunnel, _) | State::Up { tunnel, .. } => tunnel.mux.len(),
            })
            .sum()
    }

    /// A connection of which nothing is known but its peer.
    fn accepted(&mut self, key: Key, peer: SocketAddr, now: Now) -> u32 {
        let link = self.entries.insert(Entry {
            key,
            peer,
            handshake: self.handshakes.begin(key, now.instant),
            state: State::Introducing,
            scheduled: false,
        });
        link as u32
    }

    pub fn entry(&mut self, link: u32) -> Option<&mut Entry> {
        self.entries.get_mut(link as usize)
    }

    /// The tunnel of a link.
    pub fn tunnel(&mut self, link: u32) -> Option<&mut Tunnel> {
        self.entry(link)?.tunnel()
    }

    /// The tunnel of a link whose client has proved itself.
    pub fn up(&mut self, link: u32) -> Option<&mut Tunnel> {
        match &mut self.entry(link)?.state {
            State::Up { tunnel, .. } => Some(tunnel),
            State::Introducing | State::Securing | State::Upgrade(_) | State::Hello(..) => None,
        }
    }

    /// The links whose clients have proved themselves: of whom, whence, and whether its client drains.
    pub fn all_up(&self) -> impl Iterator<Item = (&ClientId, SocketAddr, bool, &Tunnel)> {
        self.entries
            .iter()
            .filter_map(|(_, entry)| match &entry.state {
                State::Up {
                    tunnel,
                    client,
                    draining,
                } => Some((client, entry.peer, *draining, &**tunnel)),
                State::Introducing | State::Securing | State::Upgrade(_) | State::Hello(..) => None,
            })
    }

    /// Which link takes a client's new streams.
    pub fn of_client(&self, client: &ClientId) -> Option<u32> {
        self.by_client.get(client).copied()
    }

    /// The clients that there are, and their links.
    pub fn of_clients(&self) -> Vec<(ClientId, u32)> {
        let clients = self.by_client.iter();
        clients
            .map(|(client, link)| (client.clone(), *link))
            .collect()
    }

    /// Tells every client that no new streams come; which links have to say so.
    pub fn start_drain<N: Net>(&mut self, io: &mut Reactor<N, Owner>) -> Vec<u32> {
        let mut up = Vec::new();
        let mut rest = Vec::new();
        for (link, entry) in &mut self.entries {
            match &mut entry.state {
                State::Up { tunnel, .. } => {
                    tunnel.mux.goaway();
                    up.push(link as u32);
                }
                State::Introducing | State::Securing | State::Upgrade(_) | State::Hello(..) => {
                    rest.push(link)
                }
            }
        }
        for link in rest {
            io.close(self.entries.remove(link).key);
        }
        self.handshakes.clear();
        up
    }

    /// Ends the streams of all links: the process is about to end.
    pub fn end_streams(&mut self, budget: &mut Budget) -> Vec<Orphan> {
        let tunnels = self
            .entries
            .iter_mut()
            .filter_map(|(_, entry)| entry.tunnel());
        tunnels
            .flat_map(|tunnel| tunnel.mux.end_all(Reason::Draining, budget))
            .collect()
    }

    /// Says goodbye on every link: the process is about to end.
    pub fn goodbye<N: Net>(&mut self, io: &mut Reactor<N, Owner>, linger: Duration) {
        for mut entry in self.entries.drain() {
            let key = entry.key;
            if let Some(tunnel) = entry.tunnel() {
                tunnel
                    .link
                    .close(io, key, CloseReason::Done, "server stops");
            }
            io.linger(key, linger);
        }
        self.by_client.clear();
        self.handshakes.clear();
    }

    /// Whether all that was ever said to the clients is with the kernel.
    pub fn is_flushed(&mut self) -> bool {
        self.entries
            .iter_mut()
            .all(|(_, entry)| entry.tunnel().is_none_or(|tunnel| tunnel.is_flushed()))
    }

    /// Panics where the invariants do not hold.
    pub fn check_invariants(&mut self, held: usize) {
        let mut of_links = 0;
        let mut handshakes = 0;
        for (_, entry) in &mut self.entries {
            handshakes += usize::from(!matches!(entry.state, State::Up { .. }));
            if let Some(tunnel) = entry.tunnel() {
                tunnel.mux.check_invariants();
                of_links += tunnel.mux.held();
            }
        }
        assert_eq!(handshakes, self.handshakes.len(), "handshakes are counted");
        assert!(
            of_links <= held,
            "the budget holds at least what the links do"
        );
        for (client, link) in &self.by_client {
            let entry = &self.entries[*link as usize];
            assert!(
                matches!(&entry.state, State::Up { client: of, .. } if of == client),
                "a client's link is up"
            );
        }
    }
}

impl Server {
    /// What the present link of a client has sent.
    pub fn sent_to(&mut self, client: &ClientId) -> Sent {
        let link = self.links.of_client(client);
        let tunnel = link.and_then(|link| self.links.up(link));
        tunnel.map_or_else(Sent::default, |tunnel| tunnel.sent())
    }

    /// A connection has come in at the clients' listener.
    pub(super) fn link_arrived<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        key: Key,
        peer: SocketAddr,
        now: Now,
    ) {
        let link = self.links.accepted(key, peer, now);
        io.set_owner(key, Owner::Link(link));
        if !self.config.accept_proxy.contains(peer.ip()) {
            self.link_known(io, link, peer, now);
        }
        // One deadline for all that comes before its welcome.
        let at = now.instant + self.config.timeouts.handshake;
        io.set_deadline(key, Deadline::At(at));
    }

    /// Whose connection it is, is known from here on: all that depends on a client's address begins here.
    fn link_known<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        link: u32,
        source: SocketAddr,
        now: Now,
    ) {
        let admitted = self.admits_link(source, now);
        let Some(entry) = self.links.entry(link) else {
            return;
        };
        let key = entry.key;
        if !admitted {
            let handshake = entry.handshake;
            self.links.entries.remove(link as usize);
            for listener in self.links.handshakes.end(handshake) {
                io.again(listener);
            }
            return io.close(key);
        }
        entry.peer = source;
        io.prefer_latency(key);
        entry.state = match self.tls.link() {
            Some(session) => {
                io.start_tls(key, session, Purpose::Link);
                State::Securing
            }
            None => State::Upgrade(Gather::default()),
        };
    }

    /// Whether a link may come in from there. Those that may not are counted, and said now and then.
    fn admits_link(&mut self, source: SocketAddr, now: Now) -> bool {
        if !self.config.admits_client(source.ip()) {
            if let Some(total) = self.refused_clients.count(now.instant) {
                info!("link from {source}: refused by its address, {total} so far");
            }
            return false;
        }
        if self.link_sources.pass(source.ip(), now.instant).is_err() {
            if let Some(total) = self.hasty_clients.count(now.instant) {
                info!(
                    "link from {source}: refused, its source connects too often (limits.rate_per_source), {total} so far"
                );
            }
            return false;
        }
        true
    }

    /// Reads on in what the balancer in front says of a connection.
    fn introduce_link<N: Net>(&mut self, io: &mut Reactor<N, Owner>, link: u32, now: Now) {
        let Some(&mut Entry { key, peer, .. }) = self.links.entry(link) else {
            return;
        };
        match introduction::read(io, key, &mut self.scratch) {
            Introduction::Partial => {}
            Introduction::Whole(whence) => {
                let source = whence.map_or(peer, |whence| whence.source);
                self.link_known(io, link, source, now);
                // What came behind the header has had its event.
                self.link_ready(io, link, now);
            }
            Introduction::Left => {
                self.link_over(io, link, "closed before its upgrade", Reason::LinkLost);
                io.close(key);
            }
            Introduction::Refused(why) => {
                self.link_over(io, link, why, Reason::LinkLost);
                io.close(key);
            }
        }
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
                io.close(key);
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

    /// A handshake under way has had its time, and others wait.
    pub(super) fn handshake_gives_way<N: Net>(&mut self, io: &mut Reactor<N, Owner>, key: Key) {
        if let Some(Owner::Link(link)) = io.owner(key) {
            let why = "handshake too slow while others wait";
            self.link_over(io, link, why, Reason::LinkLost);
            io.close(key);
        }
    }

    /// Goes on with the handshake of TLS.
    fn secure_link<N: Net>(&mut self, io: &mut Reactor<N, Owner>, link: u32, now: Now) {
        let Some(entry) = self.links.entry(link) else {
            return;
        };
        let key = entry.key;
        match io.handshake(key) {
            Ok(true) => {
                entry.state = State::Upgrade(Gather::default());
                self.upgrade(io, link, now);
            }
            Ok(false) => {}
            Err(error) => {
                self.link_over(io, link, &format!("TLS: {error}"), Reason::LinkLost);
                io.close(key);
            }
        }
    }

    /// Reads the upgrade's head, and answers it.
    fn upgrade<N: Net>(&mut self, io: &mut Reactor<N, Owner>, link: u32, now: Now) {
        let Some(Entry {
            key,
            state: State::Upgrade(gather),
            ..
        }) = self.links.entry(link)
        else {
            return;
        };
        let key = *key;
        let limit = upgrade::HEAD_LIMITS.bytes;
        let (head, surplus) = match gather.read(&mut self.scratch, limit, |into| io.read(key, into))
        {
            Gathered::Head { bytes, head } => (bytes[..head].to_vec(), bytes[head..].to_vec()),
            Gathered::Partial if gather.bytes().first() == Some(&TLS_HANDSHAKE) => {
                let why = "it speaks TLS, and there is no certificate (--cert) to speak it with";
                self.link_over(io, link, why, Reason::LinkLost);
                return io.close(key);
            }
            Gathered::Partial => return,
            Gathered::TooLong(_) => return self.refuse(io, link, 431, "head too long"),
            Gathered::Ended | Gathered::Failed(_) => {
                self.link_over(io, link, "closed before its upgrade", Reason::LinkLost);
                return io.close(key);
            }
        };
        let upgrade = match Upgrade::parse(&head) {
            Ok(upgrade) => upgrade,
            Err((status, reason)) => {
                return self.refuse(io, link, status, reason);
            }
        };
        let mut nonce = Nonce::default();
        io.random(&mut nonce);
        let answer = upgrade.accept(&nonce);
        // The first bytes on this connection: a socket that does not take them whole is no peer's.
        if !matches!(io.write(key, answer.as_bytes()), Ok(n) if n == answer.len()) {
            self.link_over(io, link, "upgrade not answered", Reason::LinkLost);
            return io.close(key);
        }
        let timeouts = &self.config.timeouts;
        let websocket = Link::new(Side::Server, surplus, timeouts.ping, timeouts.pong, now);
        let mux = Mux::new(Side::Server, &self.shared.budget);
        let tunnel = Box::new(Tunnel::new(key, websocket, mux));
        let challenge = Challenge {
            client: upgrade.nonce,
            server: nonce,
        };
        if let Some(entry) = self.links.entry(link) {
            entry.state = State::Hello(tunnel, challenge);
        }
        self.receive(io, link, now);
    }

    fn refuse<N: Net>(&mut self, io: &mut Reactor<N, Owner>, link: u32, status: u16, reason: &str) {
        let Some(key) = self.link_over(io, link, reason, Reason::LinkLost) else {
            return;
        };
        let answer = upgrade::refuse(status, reason, io.now().unix);
        self.part_from_stranger(io, key, answer.as_bytes());
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
    /// holds most of such bytes.
    pub(super) fn shed<N: Net>(&mut self, io: &mut Reactor<N, Owner>, now: Now) {
        if !self.shared.is_short(now) {
            return;
        }
        let mut reset = 0;
        while self.shared.budget.pressure() >= Pressure::Full {
            let most = self
                .links
                .entries
                .iter_mut()
                .filter_map(|(link, entry)| Some((link as u32, entry.tunnel()?.mux.stalled(now))))
                .filter(|(_, stalled)| *stalled > 0)
                .max_by_key(|(_, stalled)| *stalled);
            let Some((link, _)) = most else { break };
            let Some(tunnel) = self.links.tunnel(link) else {
                break;
            };
            let Some(happened) = tunnel.mux.shed(&mut self.shared.budget, now) else {
                break;
            };
            reset += 1;
            self.happened(io, link, happened, now);
            self.schedule(link);
        }
        if reset > 0 {
            warn!("memory is short: {reset} streams whose readers stood still are reset");
        }
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

    /// Checks who the client is, and takes it in.
    fn hello<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        link: u32,
        hello: Hello,
        now: Now,
    ) -> Result<(), Refusal> {
        let client: ClientId = hello
            .id
            .parse()
            .map_err(|_| Refusal::Protocol("malformed client id in hello".into()))?;
        let proof = self.config.grant(&client).proof;
        let Some(entry) = self.links.entry(link) else {
            return Ok(());
        };
        let State::Hello(_, challenge) = &entry.state else {
            return Ok(());
        };
        let proof = match &proof {
            Proof::Nothing => None,
            Proof::Token(token) => {
                let right = hello.proof.as_deref().is_some_and(|proof| {
                    challenge.verify(token.as_bytes(), Prover::Client, client.as_str(), proof)
                });
                if !right {
                    warn!(
                        client = client.as_str(), peer:% = entry.peer;
                        "link from {}: wrong token for client {client}", entry.peer
                    );
                    return Err(Refusal::WrongToken);
                }
                Some(challenge.prove(token.as_bytes(), Prover::Server, client.as_str()))
            }
            // It hears no more than one that has a token and does not know it.
            Proof::Impossible => {
                warn!(
                    client = client.as_str(), peer:% = entry.peer;
                    "link from {}: client {client} is not among those that have tokens",
                    entry.peer
                );
                return Err(Refusal::WrongToken);
            }
        };
        let welcome = Welcome {
            proof,
            window: self.shared.budget.window_initial(),
            version: env!("CARGO_PKG_VERSION").into(),
            closes: true,
        };
        let peer = entry.peer;
        let key = entry.key;
        let State::Hello(mut tunnel, _) =
            std::mem::replace(&mut entry.state, State::Upgrade(Gather::default()))
        else {
            return Ok(());
        };
        tunnel.link.welcomed(now);
        tunnel.mux.welcomed(hello.window);
        tunnel.mux.control(Kind::Welcome, &welcome);
        io.set_deadline(key, Deadline::At(tunnel.link.deadline()));
        entry.state = State::Up {
            tunnel,
            client: client.clone(),
            draining: false,
        };
        let handshake = entry.handshake;
        for listener in self.links.handshakes.end(handshake) {
            io.again(listener);
        }
        if let Some(older) = self.links.by_client.insert(client.clone(), link) {
            warn!(
                client = client.as_str(), peer:%;
                "link {client}: a newer one from {peer} takes over"
            );
            self.replace(io, older);
        }
        let version = printable(&hello.version);
        info!(
            client = client.as_str(),
            peer:%,
            version = &*version,
            say:% = format_args!("{client} connected from {peer}");
            "link {client}: up from {peer}, siding {version}"
        );
        self.proxies.found(&client, link);
        self.admit_waiting(io, link);
        self.schedule(link);
        Ok(())
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

/// With what TLS begins (RFC 8446 §5.1), and HTTP does not.
const TLS_HANDSHAKE: u8 = 22;

/// A peer's text for the log.
fn printable(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_ascii_graphic())
        .take(32)
        .collect()
}
