//! From an accepted connection to a welcomed client: whose it is, TLS, the upgrade, and the proof of the token.

use std::net::SocketAddr;

use log::{info, warn};

use super::{Entry, Refusal, State};
use crate::{
    clock::Now,
    config::{ClientId, Proof},
    http::{Gather, Gathered},
    key::Key,
    reactor::{
        Deadline, Reactor,
        net::{Net, Purpose},
    },
    server::{
        Owner, Server,
        introduction::{self, Introduction},
    },
    tunnel::{
        Tunnel,
        control::{Hello, Reason, Welcome},
        frame::Kind,
        link::Link,
        mux::{Mux, Side},
        proof::{Challenge, Nonce, Prover},
        upgrade::{self, Upgrade},
    },
};

impl Server {
    /// A connection has come in at the clients' listener.
    pub(in crate::server) fn link_arrived<N: Net>(
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
            return io.abort(key);
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
    pub(super) fn introduce_link<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        link: u32,
        now: Now,
    ) {
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
                io.abort(key);
            }
        }
    }

    /// A handshake under way has had its time, and others wait.
    pub(in crate::server) fn handshake_gives_way<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        key: Key,
    ) {
        if let Some(Owner::Link(link)) = io.owner(key) {
            let why = "handshake too slow while others wait";
            self.link_over(io, link, why, Reason::LinkLost);
            io.close(key);
        }
    }

    /// Goes on with the handshake of TLS.
    pub(super) fn secure_link<N: Net>(&mut self, io: &mut Reactor<N, Owner>, link: u32, now: Now) {
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
    pub(super) fn upgrade<N: Net>(&mut self, io: &mut Reactor<N, Owner>, link: u32, now: Now) {
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

    /// Checks who the client is, and takes it in.
    pub(super) fn hello<N: Net>(
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
