//! The link to the server: dialled, upgraded, proved, and again after it was lost, for ever.
//!
//! ```text
//!   Waiting --timer--> Dialling --> Upgrade --101--> Hello --welcome--> Up
//!      ^                  |            |               |                |
//!      +------------------+------------+---------------+----------------+
//! ```

use std::{
    fmt,
    time::{Duration, Instant},
};

use log::{Level, error, info, log, warn};

use super::{Client, Owner, dial::Whose, exposures::Answered, upstream::Upstream};
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
        link::{CloseReason, Link, LinkError},
        mux::{Happened, Mux, Side},
        proof::{Challenge, Nonce, Prover},
        upgrade::{self, Asking},
    },
};

/// Where the link is.
pub(super) enum Connection {
    /// Before the first attempt, and after the last.
    Idle,
    /// Until the timer of this key fires, or, where the reason may have passed with it, the network is another.
    Waiting(Key, Cause),
    Dialling,
    /// The answer to the upgrade is awaited.
    Upgrade(Box<Upgrading>),
    /// Welcome is awaited.
    Hello(Box<Tunnel>, Challenge),
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

/// Why there is no link now, and how soon it makes sense to try again.
enum Down {
    /// It may be better in a moment.
    Passing(String),
    /// It will not mend itself soon.
    Lasting(String),
    /// The server said that it stops.
    Announced(String),
}

impl Connection {
    pub fn tunnel(&mut self) -> Option<&mut Tunnel> {
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

    /// Payload bytes that the present link has carried.
    pub fn carried(&self) -> u64 {
        match self {
            Connection::Up(tunnel, _) => tunnel.mux.carried(),
            _ => 0,
        }
    }

    /// What the present link has sent.
    fn sent(&self) -> Sent {
        match self {
            Connection::Hello(tunnel, _) | Connection::Up(tunnel, _) => tunnel.sent(),
            _ => Sent::default(),
        }
    }

    pub fn dialling(&mut self) {
        *self = Connection::Dialling;
    }

    /// Its socket, or its timer.
    pub fn key(&self) -> Option<Key> {
        match self {
            Connection::Idle | Connection::Dialling => None,
            Connection::Waiting(key, _) => Some(*key),
            Connection::Upgrade(upgrading) => Some(upgrading.key),
            Connection::Hello(tunnel, _) | Connection::Up(tunnel, _) => Some(tunnel.key),
        }
    }

    /// Panics where the invariants do not hold.
    pub fn check_invariants(&self, held: usize) {
        if let Connection::Hello(tunnel, _) | Connection::Up(tunnel, _) = self {
            tunnel.mux.check_invariants();
            assert!(
                tunnel.mux.held() <= held,
                "the budget holds at least what the link does"
            );
        }
    }
}

impl fmt::Display for Down {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Down::Passing(why) | Down::Lasting(why) | Down::Announced(why) => f.write_str(why),
        }
    }
}

impl Client {
    /// What the present link has sent.
    pub fn sent(&self) -> Sent {
        self.connection.sent()
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
        let (key, peer) = match result {
            Ok(connected) => connected,
            // No rule of ours is about the server: it is the proxy before it that has said no. To ask again
            // soon may lock an account.
            Err(Reason::NotAllowed) => {
                let why = "the proxy does not let it through";
                return self.link_down(io, Down::Lasting(why.into()), now);
            }
            Err(reason) => {
                let why = match self.config.via.proxy() {
                    Some(proxy) => format!("{reason} via {proxy}"),
                    None => reason.to_string(),
                };
                return self.link_down(io, Down::Passing(why), now);
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
        io.set_owner(key, Owner::Link);
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
        self.connection = Connection::Upgrade(Box::new(Upgrading {
            key,
            asking,
            nonce,
            gather,
        }));
        if !matches!(written, Ok(n) if n == request.len()) {
            self.link_down(io, Down::Passing("upgrade not sent".into()), now);
        }
    }

    pub(super) fn link_ready<N: Net>(&mut self, io: &mut Reactor<N, Owner>, now: Now) {
        match self.connection {
            Connection::Upgrade(_) => self.upgraded(io, now),
            Connection::Hello(..) | Connection::Up(..) => self.receive(io, now),
            Connection::Idle | Connection::Waiting(..) | Connection::Dialling => {}
        }
    }

    pub(super) fn link_timeout<N: Net>(&mut self, io: &mut Reactor<N, Owner>, now: Now) {
        match &mut self.connection {
            Connection::Waiting(..) => self.dial_again(io, now),
            Connection::Upgrade(_) | Connection::Hello(..) => {
                let why = "no welcome within the handshake deadline";
                self.link_down(io, Down::Passing(why.into()), now);
            }
            Connection::Up(tunnel, _) => match tunnel.link.timeout(io, tunnel.key, now) {
                Ok(()) => io.set_deadline(tunnel.key, Deadline::At(tunnel.link.deadline())),
                Err(error) => self.link_failed(io, &error, now),
            },
            Connection::Idle | Connection::Dialling => {}
        }
    }

    /// The wait for the next attempt is over.
    pub(super) fn dial_again<N: Net>(&mut self, io: &mut Reactor<N, Owner>, now: Now) {
        if let Connection::Waiting(timer, _) = self.connection {
            io.close(timer);
            self.connection = Connection::Idle;
            self.connect(io, now);
        }
    }

    /// Reads the answer to the upgrade, as far as it has come.
    fn upgraded<N: Net>(&mut self, io: &mut Reactor<N, Owner>, now: Now) {
        let Connection::Upgrade(upgrading) = &mut self.connection else {
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
        self.link_down(io, down, now);
    }

    fn say_hello<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        key: Key,
        challenge: Challenge,
        surplus: Vec<u8>,
        now: Now,
    ) {
        let id = &self.config.id;
        let timeouts = &self.config.timeouts;
        let link = Link::new(Side::Client, surplus, timeouts.ping, timeouts.pong, now);
        let mut mux = Mux::new(Side::Client, &self.shared.budget);
        let proof = self
            .config
            .token
            .as_ref()
            .map(|token| challenge.prove(token.as_bytes(), Prover::Client, id.as_str()));
        mux.control(
            Kind::Hello,
            &Hello {
                id: id.to_string(),
                proof,
                window: self.shared.budget.window_initial(),
                version: env!("CARGO_PKG_VERSION").into(),
            },
        );
        self.connection = Connection::Hello(Box::new(Tunnel::new(key, link, mux)), challenge);
        self.schedule();
        self.receive(io, now);
    }

    fn receive<N: Net>(&mut self, io: &mut Reactor<N, Owner>, now: Now) {
        loop {
            let Some(tunnel) = self.connection.tunnel() else {
                return;
            };
            match tunnel.receive(io, &mut self.shared, now) {
                Ok(Some(happened)) => self.happened(io, happened, now),
                Ok(None) => break,
                Err(error) => return self.link_failed(io, &error, now),
            }
        }
        if let Connection::Up(tunnel, _) = &self.connection {
            io.set_deadline(tunnel.key, Deadline::At(tunnel.link.deadline()));
        }
        if let Some(tunnel) = self.connection.tunnel()
            && tunnel.link.is_scheduled()
        {
            io.again(tunnel.key);
        }
        // Even when no stream has anything to say: a pong may wait.
        self.schedule();
    }

    pub(super) fn flush_link<N: Net>(&mut self, io: &mut Reactor<N, Owner>, now: Now) -> Flushed {
        loop {
            let Some(tunnel) = self.connection.tunnel() else {
                return Flushed::Idle;
            };
            match tunnel.flush(io, &mut self.shared, now) {
                Ok(Flush::Happened(happened)) => self.happened(io, happened, now),
                Ok(Flush::Idle | Flush::Blocked) => return Flushed::Idle,
                Ok(Flush::More) => {
                    self.schedule();
                    return Flushed::More;
                }
                Err(error) => {
                    self.link_failed(io, &error, now);
                    return Flushed::Idle;
                }
            }
        }
    }

    pub(super) fn happened<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        happened: Happened,
        now: Now,
    ) {
        match happened {
            Happened::Control(kind, payload) => {
                if let Err(down) = self.control(io, kind, &payload, now) {
                    self.goodbye_and_down(io, CloseReason::Protocol, down, now);
                }
            }
            Happened::Opened(stream, connect) => self.stream_opened(io, stream, connect, now),
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
        kind: Kind,
        payload: &[u8],
        now: Now,
    ) -> Result<(), Down> {
        match (kind, &mut self.connection) {
            (Kind::Welcome, Connection::Hello(..)) => self.welcome(io, &parse(payload)?, now),
            (Kind::ProxyOpened, Connection::Up(..)) => {
                let opened = parse(payload)?;
                self.proxy_opened(&opened);
                Ok(())
            }
            (Kind::Goaway, Connection::Up(tunnel, _)) => {
                tunnel.mux.peer_leaves();
                info!(
                    client = self.config.id.as_str(),
                    say = "the server is about to stop";
                    "link {}: server drains", self.config.id
                );
                Ok(())
            }
            _ => Err(Down::Passing(format!(
                "unexpected {} from server",
                kind.name()
            ))),
        }
    }

    /// Checks that the server knows the token, too; only then anything is opened.
    fn welcome<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        welcome: &Welcome,
        now: Now,
    ) -> Result<(), Down> {
        let Connection::Hello(_, challenge) = &self.connection else {
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
            std::mem::replace(&mut self.connection, Connection::Idle)
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
        self.connection = Connection::Up(tunnel, now.instant);
        self.schedule();
        Ok(())
    }

    fn proxy_opened(&mut self, opened: &ProxyOpened) {
        let spec = match self.exposures.answered(opened) {
            Answered::Wish(spec) => spec,
            Answered::Nobody(close) => {
                if let (Some(close), true) = (close, self.closes)
                    && let Some(tunnel) = self.connection.tunnel()
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

    pub(super) fn link_failed<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        failure: &LinkError,
        now: Now,
    ) {
        let down = match failure {
            LinkError::Closed(CloseReason::WrongToken, _) => {
                error!(
                    client = self.config.id.as_str();
                    "link {}: wrong token: the server does not accept it",
                    self.config.id
                );
                Down::Lasting(failure.to_string())
            }
            LinkError::Closed(CloseReason::Replaced, _) => {
                error!(
                    client = self.config.id.as_str();
                    "link {}: another client of this id has taken over",
                    self.config.id
                );
                Down::Lasting(failure.to_string())
            }
            LinkError::Closed(CloseReason::Done, _) => Down::Announced(failure.to_string()),
            _ => Down::Passing(failure.to_string()),
        };
        match failure.goodbye() {
            Some((reason, _)) => self.goodbye_and_down(io, reason, down, now),
            None => self.link_down(io, down, now),
        }
    }

    fn goodbye_and_down<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        reason: CloseReason,
        down: Down,
        now: Now,
    ) {
        if let Some(tunnel) = self.connection.tunnel() {
            tunnel.link.close(io, tunnel.key, reason, &down.to_string());
        }
        self.link_down(io, down, now);
    }

    /// The link's own address is not this machine's any more.
    pub(super) fn link_stranded<N: Net>(&mut self, io: &mut Reactor<N, Owner>, now: Now) {
        self.link_down(io, Down::Passing("its address is gone".into()), now);
    }

    /// The link is gone, and all that it carried; it is dialled again after a while.
    fn link_down<N: Net>(&mut self, io: &mut Reactor<N, Owner>, down: Down, now: Now) {
        if let Some(key) = self.connection.key() {
            // Lets what was said last arrive before the socket goes, whatever the server still sends.
            io.linger_at_most(key, GOODBYE_MAX);
        }
        self.leave_link();
        let mut connection = std::mem::replace(&mut self.connection, Connection::Idle);
        let was_up = connection.is_up();
        if let Connection::Up(_, since) = connection {
            self.backoff
                .was_up(now.instant.saturating_duration_since(since));
        }
        if let Some(tunnel) = connection.tunnel() {
            let orphans = tunnel
                .mux
                .end_all(Reason::LinkLost, &mut self.shared.budget);
            for orphan in orphans {
                self.stream_orphaned(io, orphan, now);
            }
        }
        if self.stage.is_ending() {
            return;
        }
        let mut random = [0; 4];
        io.random(&mut random);
        let random = u32::from_ne_bytes(random);
        let wait = match down {
            Down::Passing(_) | Down::Announced(_) => self.backoff.next(random),
            Down::Lasting(_) => self.backoff.longest(random),
        };
        let level = match down {
            Down::Announced(_) => Level::Info,
            Down::Passing(_) | Down::Lasting(_) => Level::Warn,
        };
        let (id, server, again) = (&self.config.id, &self.config.server, wait.as_secs_f64());
        let lost = if was_up {
            "lost the link to"
        } else {
            "cannot connect to"
        };
        log!(
            level,
            client = id.as_str(),
            server:%,
            reason:% = down,
            again_seconds = again,
            say:% = format_args!("{lost} {server} ({down}); trying again in {again:.1} s");
            "link {id}: down ({down}), again in {again:.1} s"
        );
        let timer = io.timer(Owner::Link, Deadline::At(now.instant + wait));
        let cause = match down {
            Down::Passing(_) | Down::Announced(_) => Cause::Passing,
            Down::Lasting(_) => Cause::Lasting,
        };
        self.connection = Connection::Waiting(timer, cause);
    }

    /// Remembers what the present link has carried, which is about to go.
    fn leave_link(&mut self) {
        self.counters.bytes += self.connection.carried();
        if let Some(tunnel) = self.connection.up() {
            self.past.add(tunnel.mux.traffic());
        }
    }

    /// Says goodbye: the process is about to end.
    pub(super) fn goodbye<N: Net>(&mut self, io: &mut Reactor<N, Owner>) {
        if let Some(tunnel) = self.connection.tunnel() {
            tunnel
                .link
                .close(io, tunnel.key, CloseReason::Done, "client stops");
        }
        self.leave_link();
        match std::mem::replace(&mut self.connection, Connection::Idle) {
            Connection::Hello(tunnel, _) | Connection::Up(tunnel, _) => {
                io.linger(tunnel.key, GOODBYE_MAX);
            }
            _ => {}
        }
    }
}

fn parse<'a, T: serde::Deserialize<'a>>(payload: &'a [u8]) -> Result<T, Down> {
    serde_json::from_slice(payload)
        .map_err(|error| Down::Passing(format!("malformed control payload from server: {error}")))
}

/// How long the server may take to read a goodbye.
pub(super) const GOODBYE_MAX: Duration = Duration::from_secs(2);
