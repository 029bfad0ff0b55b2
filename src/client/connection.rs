//! A link to the server: dialled, upgraded, proved, and again after it was lost, for ever.
//!
//! ```text
//!   Waiting --timer--> Dialling --> Upgrade --101--> Hello --welcome--> Up --goaway--> leaving
//!      ^                  |            |               |                |       |         |
//!      +------------------+------------+---------------+----------------+-------+        gone
//! ```
//!
//! A server that drains says goaway: what the link carries goes on until it is over or the server closes it,
//! while another is dialled for whatever is new (see `links`). The end of a link that is leaving has nobody
//! dial; but where its successor is still waited for, the server has just gone, and the next may be there
//! now: the wait begins anew.

mod end;

use std::time::Instant;

use log::{error, info, warn};

use self::end::Down;
pub(super) use self::end::GOODBYE_MAX;
use super::{
    Client, Owner, carried::Carried, dial::Whose, exposures::Answered, links::LinkId,
    upstream::Upstream,
};
use crate::{
    clock::Now,
    http::{Gather, Gathered},
    key::Key,
    reactor::{
        Deadline, Flushed, Reactor,
        net::{Net, Peer},
    },
    tunnel::{
        Flush, Sent, Tunnel,
        control::{Hello, ProxyOpened, Reason, Welcome},
        frame::Kind,
        link::{CloseReason, Link},
        mux::{Happened, Mux, Side},
        proof::{Challenge, Nonce, Prover},
        upgrade::{self, Asking},
    },
};

/// Where the link is.
pub(super) enum Connection {
    /// Before the first attempt, and after the last.
    Idle,
    /// Until the timer fires, at this time, or, where the reason may have passed with it, the network is another.
    Waiting {
        timer: Key,
        until: Instant,
        cause: Cause,
    },
    /// By this dial.
    Dialling(u32),
    /// The answer to the upgrade is awaited.
    Upgrade(Box<Upgrading>),
    /// Welcome is awaited.
    Hello(Box<Tunnel>, Challenge),
    /// And when it came up.
    Up(Box<Tunnel>, Instant),
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The network, perhaps.
    Passing,
    /// Somebody who does something about it.
    Lasting,
}

/// An upgrade under way.
pub(super) struct Upgrading {
    key: Key,
    asking: Asking,
    nonce: Nonce,
    gather: Gather,
}

impl Connection {
    pub fn tunnel(&mut self) -> Option<&mut Tunnel> {
        match self {
            Connection::Hello(tunnel, _) | Connection::Up(tunnel, _) => Some(tunnel),
            _ => None,
        }
    }

    /// The same, to look at.
    pub fn any_tunnel(&self) -> Option<&Tunnel> {
        match self {
            Connection::Hello(tunnel, _) | Connection::Up(tunnel, _) => Some(tunnel),
            _ => None,
        }
    }

    /// The tunnel of a link whose server has proved itself.
    pub fn up(&self) -> Option<&Tunnel> {
        match self {
            Connection::Up(tunnel, _) => Some(tunnel),
            _ => None,
        }
    }

    pub fn is_up(&self) -> bool {
        matches!(self, Connection::Up(..))
    }

    /// Its socket, or its timer.
    pub fn key(&self) -> Option<Key> {
        match self {
            Connection::Idle | Connection::Dialling(_) => None,
            Connection::Waiting { timer, .. } => Some(*timer),
            Connection::Upgrade(upgrading) => Some(upgrading.key),
            Connection::Hello(tunnel, _) | Connection::Up(tunnel, _) => Some(tunnel.key),
        }
    }
}

impl Client {
    /// What the present link has sent.
    pub fn sent(&self) -> Sent {
        let tunnel = self.links.present.any_tunnel();
        tunnel.map_or_else(Sent::default, Tunnel::sent)
    }

    /// Dials the server.
    pub(super) fn connect<N: Net>(&mut self, io: &mut Reactor<N, Owner>, now: Now) {
        let server = Upstream {
            secure: self.config.server.secure,
            target: self.config.server.target(),
        };
        self.dial(io, server, Whose::Link, now);
    }

    pub(super) fn link_dialled<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        result: Result<(Key, Peer), Reason>,
        now: Now,
    ) {
        let id = self.links.id();
        let (key, peer) = match result {
            Ok(connected) => connected,
            // No rule of ours is about the server: it is the proxy before it that has said no. To ask again
            // soon may lock an account.
            Err(Reason::NotAllowed) => {
                let why = "the proxy does not let it through";
                return self.link_down(io, id, Down::Lasting(why.into()), now);
            }
            Err(reason) => {
                let why = match self.config.via.proxy() {
                    Some(proxy) => format!("{reason} via {proxy}"),
                    None => reason.to_string(),
                };
                return self.link_down(io, id, Down::Passing(why), now);
            }
        };
        let leaves =
            self.config.via.proxy().is_some() || peer.ip().is_some_and(|ip| !ip.is_loopback());
        if !self.config.server.secure && leaves {
            warn!(
                "{} is not encrypted: the token is safe, what follows it is not",
                self.config.server
            );
        }
        io.set_owner(key, Owner::Link(id));
        io.set_deadline(
            key,
            Deadline::At(now.instant + self.config.timeouts.handshake),
        );
        let mut nonce = Nonce::default();
        io.random(&mut nonce);
        let host = match &self.config.host {
            Some(host) => host.to_string(),
            None => self.config.server.host_field(),
        };
        let path = &self.config.server.path;
        let (asking, request) = Asking::new(&host, path, self.config.headers.iter(), &nonce);
        // The first bytes on this connection: there is room for them, or nobody is there.
        let written = io.write(key, request.as_bytes());
        let gather = Gather::default();
        self.links.present = Connection::Upgrade(Box::new(Upgrading {
            key,
            asking,
            nonce,
            gather,
        }));
        if !matches!(written, Ok(n) if n == request.len()) {
            self.link_down(io, id, Down::Passing("upgrade not sent".into()), now);
        }
    }

    pub(super) fn link_ready<N: Net>(&mut self, io: &mut Reactor<N, Owner>, id: LinkId, now: Now) {
        if self.links.is_present(id) && matches!(self.links.present, Connection::Upgrade(_)) {
            self.upgraded(io, now);
        } else {
            self.receive(io, id, now);
        }
    }

    pub(super) fn link_timeout<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        id: LinkId,
        now: Now,
    ) {
        if let Some(tunnel) = self.links.up(id) {
            return match tunnel.link.timeout(io, tunnel.key, now) {
                Ok(()) => io.set_deadline(tunnel.key, Deadline::At(tunnel.link.deadline())),
                Err(error) => self.link_failed(io, id, &error, now),
            };
        }
        if !self.links.is_present(id) {
            return;
        }
        match &self.links.present {
            Connection::Waiting { .. } => self.dial_again(io, now),
            Connection::Upgrade(_) | Connection::Hello(..) => {
                let why = "no welcome within the handshake deadline";
                self.link_down(io, id, Down::Passing(why.into()), now);
            }
            Connection::Idle | Connection::Dialling(_) | Connection::Up(..) => {}
        }
    }

    /// The wait for the next attempt is over.
    pub(super) fn dial_again<N: Net>(&mut self, io: &mut Reactor<N, Owner>, now: Now) {
        if let Connection::Waiting { timer, .. } = self.links.present {
            io.close(timer);
            self.links.present = Connection::Idle;
            self.connect(io, now);
        }
    }

    /// Reads the answer to the upgrade, as far as it has come.
    fn upgraded<N: Net>(&mut self, io: &mut Reactor<N, Owner>, now: Now) {
        let Connection::Upgrade(upgrading) = &mut self.links.present else {
            return;
        };
        let key = upgrading.key;
        let limit = upgrade::HEAD_LIMITS.bytes;
        let read = |into: &mut [u8]| io.read(key, into);
        let down = match upgrading.gather.read(&mut self.scratch, limit, read) {
            Gathered::Partial => return,
            Gathered::Head { bytes, head } => match upgrading.asking.answered(&bytes[..head]) {
                Ok(server) => {
                    let challenge = Challenge {
                        client: upgrading.nonce,
                        server,
                    };
                    let surplus = bytes[head..].to_vec();
                    return self.say_hello(io, key, challenge, surplus, now);
                }
                Err(error) => Down::Passing(error.to_string()),
            },
            Gathered::TooLong(_) => Down::Passing("its answer is too long".into()),
            Gathered::Ended if self.config.server.secure => {
                Down::Passing("closed before its answer".into())
            }
            Gathered::Ended => Down::Passing(
                "closed before its answer; does it speak TLS? then its URL begins with wss://"
                    .into(),
            ),
            Gathered::Failed(error) => Down::Passing(error.to_string()),
        };
        self.link_down(io, self.links.id(), down, now);
    }

    fn say_hello<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        key: Key,
        challenge: Challenge,
        surplus: Vec<u8>,
        now: Now,
    ) {
        let client = &self.config.id;
        let timeouts = &self.config.timeouts;
        let link = Link::new(Side::Client, surplus, timeouts.ping, timeouts.pong, now);
        let mut mux = Mux::new(Side::Client, &self.shared.budget);
        let proof = self
            .config
            .token
            .as_ref()
            .map(|token| challenge.prove(token.as_bytes(), Prover::Client, client.as_str()));
        mux.control(
            Kind::Hello,
            &Hello {
                id: client.to_string(),
                proof,
                window: self.shared.budget.window_initial(),
                version: env!("CARGO_PKG_VERSION").into(),
            },
        );
        let tunnel = Box::new(Tunnel::new(key, link, mux));
        self.links.present = Connection::Hello(tunnel, challenge);
        self.schedule();
        self.receive(io, self.links.id(), now);
    }

    fn receive<N: Net>(&mut self, io: &mut Reactor<N, Owner>, id: LinkId, now: Now) {
        loop {
            let Some(tunnel) = self.links.tunnel(id) else {
                return;
            };
            match tunnel.receive(io, &mut self.shared, now) {
                Ok(Some(happened)) => self.happened(io, id, happened, now),
                Ok(None) => break,
                Err(error) => return self.link_failed(io, id, &error, now),
            }
        }
        if let Some(tunnel) = self.links.up(id) {
            io.set_deadline(tunnel.key, Deadline::At(tunnel.link.deadline()));
        }
        if let Some(tunnel) = self.links.tunnel(id)
            && tunnel.link.is_scheduled()
        {
            io.again(tunnel.key);
        }
        // Even when no stream has anything to say: a pong may wait.
        self.schedule();
    }

    /// Sends what the streams of all links have to say. Links take turns: none has more than its share of
    /// one turn.
    pub(super) fn flush_links<N: Net>(&mut self, io: &mut Reactor<N, Owner>, now: Now) -> Flushed {
        let mut flushed = Flushed::Idle;
        for id in self.links.ids() {
            if let Flushed::More = self.flush_link(io, id, now) {
                self.schedule();
                flushed = Flushed::More;
            }
        }
        flushed
    }

    fn flush_link<N: Net>(&mut self, io: &mut Reactor<N, Owner>, id: LinkId, now: Now) -> Flushed {
        loop {
            let Some(tunnel) = self.links.tunnel(id) else {
                return Flushed::Idle;
            };
            match tunnel.flush(io, &mut self.shared, now) {
                Ok(Flush::Happened(happened)) => self.happened(io, id, happened, now),
                Ok(Flush::Idle | Flush::Blocked) => return Flushed::Idle,
                Ok(Flush::More) => return Flushed::More,
                Err(error) => {
                    self.link_failed(io, id, &error, now);
                    return Flushed::Idle;
                }
            }
        }
    }

    pub(super) fn happened<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        id: LinkId,
        happened: Happened,
        now: Now,
    ) {
        match happened {
            Happened::Control(kind, payload) => {
                if let Err(down) = self.control(io, id, kind, &payload, now) {
                    self.goodbye_and_down(io, id, CloseReason::Protocol, down, now);
                }
            }
            Happened::Opened(stream, connect) => self.stream_opened(io, id, stream, connect, now),
            Happened::HalfClosed(carried) => self.half_closed(io, carried),
            Happened::Ended(carried, ended) => self.stream_ended(io, carried, ended, now),
            Happened::Orphaned(orphan) => self.stream_orphaned(io, orphan, now),
            // The mux lets no server send these.
            Happened::Connected(_) | Happened::Upgraded(_) | Happened::RequestSent(_) => {}
        }
    }

    fn control<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        id: LinkId,
        kind: Kind,
        payload: &[u8],
        now: Now,
    ) -> Result<(), Down> {
        let is_present = self.links.is_present(id);
        let is_up = self.links.up(id).is_some();
        match kind {
            Kind::Welcome if !is_up => self.welcome(io, &parse(payload)?, now),
            Kind::ProxyOpened if is_up => {
                let opened = parse(payload)?;
                // Of a server that drains, it tells of a listener that is closed by now.
                if is_present {
                    self.proxy_opened(&opened);
                }
                Ok(())
            }
            Kind::Goaway if is_up => {
                if is_present {
                    self.server_drains(io, now);
                }
                Ok(())
            }
            _ => Err(Down::Passing(format!(
                "unexpected {} from server",
                kind.name()
            ))),
        }
    }

    /// The server takes no new users: its link goes on with what it carries, and another is dialled for
    /// what is new.
    fn server_drains<N: Net>(&mut self, io: &mut Reactor<N, Owner>, now: Now) {
        let id = self.links.id();
        let Some(since) = self.links.leave() else {
            return;
        };
        let of_link = |carried: &Carried| carried.link() == id;
        let streams = self.carried.iter().filter(|(_, it)| of_link(it)).count();
        let (client, is_ending) = (&self.config.id, self.stage.is_ending());
        let then = if is_ending { "" } else { "; dialling again" };
        info!(
            client = client.as_str(),
            streams,
            say:% = format_args!("the server is about to stop; {streams} streams may finish{then}");
            "link {client}: server drains, {streams} streams may finish{then}"
        );
        if let Some(oldest) = self.links.surplus() {
            let down = Down::Passing("too many links are leaving".into());
            self.goodbye_and_down(io, oldest, CloseReason::Done, down, now);
        }
        if !is_ending {
            self.backoff
                .drained(now.instant.saturating_duration_since(since));
            self.dial_soon(io, now);
        }
    }

    /// Checks that the server knows the token, too; only then anything is opened.
    fn welcome<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        welcome: &Welcome,
        now: Now,
    ) -> Result<(), Down> {
        let Connection::Hello(_, challenge) = &self.links.present else {
            return Ok(());
        };
        if let Some(token) = &self.config.token {
            let right = welcome.proof.as_deref().is_some_and(|proof| {
                challenge.verify(
                    token.as_bytes(),
                    Prover::Server,
                    self.config.id.as_str(),
                    proof,
                )
            });
            if !right {
                let why = "the server does not know this client's token";
                error!(client = self.config.id.as_str(); "link {}: {why}", self.config.id);
                return Err(Down::Lasting(why.into()));
            }
        }
        let Connection::Hello(mut tunnel, _) =
            std::mem::replace(&mut self.links.present, Connection::Idle)
        else {
            return Ok(());
        };
        let (id, server) = (&self.config.id, &self.config.server);
        info!(
            client = id.as_str(),
            server:%,
            say:% = format_args!("connected to {server} as {id}");
            "link {id}: up to {server}"
        );
        tunnel.link.welcomed(now);
        tunnel.mux.welcomed(welcome.window);
        self.closes = welcome.closes;
        for open in self.exposures.ask() {
            tunnel.mux.control(Kind::ProxyOpen, &open);
        }
        io.set_deadline(tunnel.key, Deadline::At(tunnel.link.deadline()));
        self.links.present = Connection::Up(tunnel, now.instant);
        self.schedule();
        Ok(())
    }

    fn proxy_opened(&mut self, opened: &ProxyOpened) {
        let spec = match self.exposures.answered(opened) {
            Answered::Wish(spec) => spec,
            Answered::Nobody(close) => {
                if let (Some(close), true) = (close, self.closes)
                    && let Some(tunnel) = self.links.present.tunnel()
                {
                    tunnel.mux.control(Kind::ProxyClose, &close);
                    self.schedule();
                }
                return;
            }
        };
        // The server's words, for the log: nothing but printable ones.
        let printable =
            |text: &Option<String>| text.as_deref().unwrap_or("?").escape_debug().to_string();
        match &opened.error {
            None => {
                let (proxy, address) = (printable(&opened.proxy_id), printable(&opened.address));
                let to = match &spec.target {
                    Some(target) => format!(" → {target}"),
                    None => String::new(),
                };
                info!(
                    client = self.config.id.as_str(),
                    proxy_id = &*proxy,
                    kind = spec.kind.word(),
                    address = &*address,
                    spec:%,
                    say:% = format_args!("  {:<7} {address}{to}", spec.kind.word());
                    "proxy {proxy}: open at {address}, {spec}"
                );
            }
            Some(_) => error!(
                "--expose {spec}: refused by the server: {}",
                printable(&opened.error)
            ),
        }
    }
}

fn parse<'a, T: serde::Deserialize<'a>>(payload: &'a [u8]) -> Result<T, Down> {
    serde_json::from_slice(payload)
        .map_err(|error| Down::Passing(format!("malformed control payload from server: {error}")))
}
