//! What is soaked: a server, the relay that cuts its link, its client, and the targets behind it; and the
//! configurations that they get one after the other.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use crate::{
    common::{Authority, CLIENT, HttpOrigin, Origin, Scratch, Siding, Sshd, Tunnel, free_port},
    ledger::Ledger,
    origin,
    relay::Relay,
};

/// Silence before a ping, and from there to the end of a link, in seconds: short, so that a black hole is
/// found while users still wait.
const PING: u64 = 3;
const PONG: u64 = 3;

/// How long a link takes to find out, at most, that nothing comes any more.
pub const DEAD_AFTER: Duration = Duration::from_secs(PING + PONG);

/// How long a connection is parked, in seconds.
const PARKED: u64 = 4;

/// What both sides know.
const TOKEN: &str = "the token of a long run";

/// How long both sides may take to be linked again.
const RELINKED: Duration = Duration::from_secs(60);

/// Names of the server's certificate.
const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

/// All of it, running.
pub struct Stage {
    /// Server and client.
    pub tunnel: Tunnel,
    /// What lies between them.
    pub relay: Relay,
    /// Who certifies them and the origin.
    pub authority: Authority,
    /// Where ssh sessions go; an echo where OpenSSH is not installed.
    pub sshd: Option<Sshd>,
    /// Where users come in.
    pub doors: Doors,
    plan: Plan,
    scratch: Scratch,
    targets: Targets,
}

/// The listeners that never change.
#[derive(Clone, Copy)]
pub struct Doors {
    /// `http`, to an origin without TLS.
    pub http: SocketAddr,
    /// `https`, to one with it.
    pub https: SocketAddr,
    /// `http`, whose users speak TLS.
    pub secure: SocketAddr,
    /// `tcp`, to a target that reads to the end before it answers.
    pub raw: SocketAddr,
    /// `ssh`.
    pub ssh: SocketAddr,
}

struct Targets {
    plain: HttpOrigin,
    tls: HttpOrigin,
    raw: Origin,
    echo: Origin,
}

/// What configurations are made of.
struct Plan {
    /// The entries of the proxies that never change.
    lasting: Vec<String>,
    /// What the client allows, always.
    allow: Vec<SocketAddr>,
    /// Ports of proxies that come and go, of the server's list and of the client's.
    passing: [u16; 2],
}

impl Stage {
    /// Starts everything, with the first configurations.
    pub fn set(ledger: &Arc<Ledger>) -> Stage {
        let authority = Authority::new();
        let targets = Targets {
            plain: origin::start(None, ledger),
            tls: origin::start(Some(authority.server(&NAMES)), ledger),
            raw: Origin::digest(),
            echo: Origin::echo(),
        };
        let sshd = Sshd::start();
        let here = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let [http, https, secure, raw, ssh, link] = [(); 6].map(|()| here(free_port()));
        let (plain, tls, digest) = (
            targets.plain.address(),
            targets.tls.address(),
            targets.raw.address(),
        );
        let shell = sshd.as_ref().map_or(targets.echo.address(), Sshd::address);
        let entry = |kind: &str, door: SocketAddr, target: SocketAddr, options: &str| {
            let spec = format!("{kind}:{}:{target}", door.port());
            format!(r#"{{ "client": "{CLIENT}", "spec": "{spec}"{options} }}"#)
        };
        let plan = Plan {
            lasting: vec![
                entry("http", http, plain, ""),
                entry("https", https, tls, ""),
                entry("http", secure, plain, r#", "tls": true"#),
                entry("tcp", raw, digest, ""),
                entry("ssh", ssh, shell, ""),
            ],
            allow: vec![plain, tls, digest, shell],
            passing: [(); 2].map(|()| free_port()),
        };
        let scratch = Scratch::new();
        let server = scratch.write("server.json", plan.server(0));
        let client = scratch.write("client.json", plan.client(0));
        let relay = Relay::start(link);
        let any = "127.0.0.1:0";
        let tunnel = Tunnel::builder()
            .secure(&authority)
            .url(format!("wss://{}", relay.address()))
            .listen(link)
            .token(TOKEN)
            .client_files("--target-ca", &authority.file())
            .server_files("--config", &server)
            .client_files("--config", &client)
            .server_argument("--admin")
            .server_argument(any)
            .client_argument("--admin")
            .client_argument(any)
            .log("info")
            .start();
        Stage {
            tunnel,
            relay,
            authority,
            sshd,
            doors: Doors {
                http,
                https,
                secure,
                raw,
                ssh,
            },
            plan,
            scratch,
            targets,
        }
    }

    /// Gives both sides the configuration of a number, with new certificates, and waits until they have it.
    pub fn reload(&self, number: u64) {
        // The server's files, as they were written before.
        self.authority.files(&NAMES);
        self.scratch.write("server.json", self.plan.server(number));
        self.scratch.write("client.json", self.plan.client(number));
        let sides: [&Siding; 2] = [&self.tunnel.server, &self.tunnel.client];
        let marks = sides.map(|side| side.log().mark());
        for side in sides {
            side.signal("HUP");
        }
        for (side, mark) in sides.iter().zip(marks) {
            side.log().wait_for_since(mark, "reload: done");
        }
    }

    /// Where the client's proxy is that not every configuration has, if that of this number does.
    pub fn passing_door(&self, number: u64) -> Option<SocketAddr> {
        let door = SocketAddr::from((Ipv4Addr::LOCALHOST, self.plan.passing[1]));
        (number % 3 == 1).then_some(door)
    }

    /// Where the logs are now: see [`Stage::wait_until_linked`].
    pub fn marks(&self) -> [usize; 2] {
        [self.tunnel.server.log(), self.tunnel.client.log()].map(|log| log.mark())
    }

    /// Waits until both sides have said that they are linked, after these marks.
    pub fn wait_until_linked(&self, [server, client]: [usize; 2]) {
        let log = self.tunnel.server.log();
        log.wait_for_all_of(server, &[": up from "], RELINKED);
        let log = self.tunnel.client.log();
        log.wait_for_all_of(client, &[": up to "], RELINKED);
    }

    /// How often the server has lost the client's link so far.
    pub fn links_lost(&self) -> usize {
        let log = self.tunnel.server.log();
        log.count(&format!("link {CLIENT}: down"))
    }

    /// What is to be said of server and client in the end: nothing, where all is well.
    pub fn remarks(&self) -> Vec<String> {
        let sides: [(&str, &Siding); 2] = [
            ("server", &self.tunnel.server),
            ("client", &self.tunnel.client),
        ];
        let lines = sides.iter().flat_map(|(name, side)| {
            let lines = side.log().lines().into_iter();
            let told = lines.filter(|line| line.contains("ERROR") || line.contains("panicked"));
            told.map(move |line| format!("the {name} says: {line}"))
        });
        let origins = [&self.targets.plain, &self.targets.tls];
        let garbled = origins.into_iter().flat_map(HttpOrigin::garbled);
        lines
            .chain(garbled.map(|what| format!("an origin has read: {what}")))
            .collect()
    }
}

impl Plan {
    /// The server's configuration of a number; that of 0 is the one to end with.
    fn server(&self, number: u64) -> String {
        let mut proxies = self.lasting.clone();
        if number % 2 == 1 {
            let (port, target) = (self.passing[0], self.allow[0]);
            proxies.push(format!(
                r#"{{ "client": "{CLIENT}", "spec": "http:{port}:{target}", "max_connections": {} }}"#,
                10 + number % 7
            ));
        }
        format!(
            r#"{{ "proxies": [ {} ],
                 "timeouts": {{ "ping": "{PING}s", "pong": "{PONG}s", "request_body": "{}s" }},
                 "limits": {{ "connections_per_source": {}, "handshakes": {} }} }}"#,
            proxies.join(", "),
            60 + number % 5,
            100 + number % 11,
            64 + number % 3,
        )
    }

    /// The client's.
    fn client(&self, number: u64) -> String {
        let mut allow: Vec<String> = self.allow.iter().map(SocketAddr::to_string).collect();
        let mut expose = String::new();
        if number % 3 == 1 {
            expose = format!(r#""tcp:{}:{}""#, self.passing[1], self.allow[2]);
        }
        if number % 3 == 2 {
            allow.push(format!("10.{}.0.0/16:80", number % 200));
        }
        format!(
            r#"{{ "expose": [ {expose} ], "allow": [ "{}" ],
                 "timeouts": {{ "ping": "{PING}s", "pong": "{PONG}s" }},
                 "pool": {{ "idle": "{PARKED}s", "max_idle": {} }} }}"#,
            allow.join(r#"", ""#),
            64 + number % 5,
        )
    }
}
