//! The two roles of the demo: what they are told, and the threads that they run on.
//!
//! The server opens the usual ports, or free ones where those are busy; the client may dial exactly
//! what the server's proxies lead to. A token that exists for this run alone joins them, so that the
//! demo takes the way that every link takes.

use std::{
    fmt::Write,
    io::Read,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use log::debug;

use super::{
    LOOPBACK, Reports, Status,
    origins::Addresses,
    part::{Started, event_loop, loop_failed},
};
use crate::{
    client::Client,
    config::{
        Allow, ClientConfig, ClientId, ClientTimeouts, Host, Kind, ProxyEntry, ProxyOptions,
        ServerConfig, ServerTimeouts, ServerUrl, Spec, Target, Token,
    },
    reactor::{Flushed, Reactor, Role, mio_net::MioNet},
    server::{self, Server},
};

/// What both roles must know of each other and of the origins. Configurations hold what cannot
/// leave a thread, so each thread makes its own from this.
#[derive(Clone)]
pub(super) struct Plan {
    origins: Addresses,
    /// The port at which an ssh server answers.
    ssh: Option<u16>,
    token: String,
}

impl Plan {
    /// A plan with a token of its own, after a look for an ssh server.
    ///
    /// # Errors
    /// The system has no randomness for the token.
    pub fn new(origins: Addresses) -> Result<Plan, String> {
        let mut random = [0; TOKEN_BYTES];
        getrandom::fill(&mut random).map_err(|error| format!("token: {error}"))?;
        let mut token = String::with_capacity(2 * TOKEN_BYTES);
        for byte in random {
            // Writing to a string cannot fail.
            let _ = write!(token, "{byte:02x}");
        }
        Ok(Plan {
            origins,
            ssh: ssh_answers(SSH).then_some(SSH.port()),
            token,
        })
    }

    fn specs(&self, ports: &Ports) -> Vec<Spec> {
        let spec = |kind, port, target: Option<u16>| Spec {
            kind,
            bind: None,
            port,
            target: target.map(|port| Target::Inet {
                host: Host::Address(LOOPBACK),
                port,
            }),
        };
        let mut specs = vec![
            spec(Kind::Http, ports.http, Some(self.origins.http.port())),
            spec(Kind::Tcp, ports.echo, Some(self.origins.echo.port())),
            spec(Kind::Forward, ports.forward, None),
        ];
        specs.extend(
            self.ssh
                .map(|target| spec(Kind::Ssh, ports.ssh, Some(target))),
        );
        specs
    }

    fn server(&self, ports: &Ports) -> Result<ServerConfig, String> {
        let client = client_id()?;
        let proxy = |spec| ProxyEntry {
            client: client.clone(),
            spec,
            options: ProxyOptions::default(),
        };
        Ok(ServerConfig {
            listen: SocketAddr::new(LOOPBACK, ports.link),
            bind: LOOPBACK,
            token: Some(self.token()?),
            proxies: self.specs(ports).into_iter().map(proxy).collect(),
            timeouts: ServerTimeouts {
                drain: DRAIN,
                ..ServerTimeouts::default()
            },
            ..ServerConfig::default()
        })
    }

    fn client(&self, link: SocketAddr) -> Result<ClientConfig, String> {
        Ok(ClientConfig {
            server: ServerUrl {
                secure: false,
                host: Host::Address(link.ip()),
                port: link.port(),
                path: "/".into(),
            },
            token: Some(self.token()?),
            // As if it had exposed them itself: the targets of the proxies and nothing else.
            allow: Allow::new(Vec::new(), &self.specs(&Ports::PREFERRED)),
            timeouts: ClientTimeouts {
                drain: DRAIN,
                ..ClientTimeouts::default()
            },
            ..ClientConfig::new(client_id()?)
        })
    }

    fn token(&self) -> Result<Token, String> {
        Token::new(self.token.as_bytes()).map_err(|error| error.to_string())
    }
}

fn client_id() -> Result<ClientId, String> {
    "demo"
        .parse()
        .map_err(|error| format!("client id: {error}"))
}

/// What the server listens on, 0 for any free port.
struct Ports {
    link: u16,
    http: u16,
    echo: u16,
    forward: u16,
    ssh: u16,
}

impl Ports {
    /// What people expect: the default of `--listen`, and the ports of the README's examples.
    const PREFERRED: Ports = Ports {
        link: 7000,
        http: 8080,
        echo: 10033,
        forward: 3128,
        ssh: 10022,
    };

    /// Takes any free port instead of this one; `false` if it is not one of ours.
    fn give_up(&mut self, port: u16) -> bool {
        let ports = [
            &mut self.link,
            &mut self.http,
            &mut self.echo,
            &mut self.forward,
            &mut self.ssh,
        ];
        let busy = ports
            .into_iter()
            .find(|ours| **ours == port && **ours != 0)
            .map(|ours| *ours = 0);
        busy.is_some()
    }
}

/// What the server has opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listening {
    pub link: SocketAddr,
    pub http: SocketAddr,
    pub echo: SocketAddr,
    pub forward: SocketAddr,
    /// Only where an ssh server answers.
    pub ssh: Option<SocketAddr>,
}

impl Listening {
    fn of(server: &Server) -> Option<Listening> {
        let proxy = |kind| {
            server
                .proxies()
                .find(|(spec, _)| spec.kind == kind)
                .map(|(_, address)| address)
        };
        Some(Listening {
            link: server.address(),
            http: proxy(Kind::Http)?,
            echo: proxy(Kind::Tcp)?,
            forward: proxy(Kind::Forward)?,
            ssh: proxy(Kind::Ssh),
        })
    }
}

/// The server's thread.
pub(super) fn server(plan: &Plan, started: Started<Listening>) -> Result<(), String> {
    let mut ports = Ports::PREFERRED;
    loop {
        // A server that could not start leaves its other listeners with the event loop.
        let (mut reactor, stopper) = event_loop::<server::Owner>()?;
        match Server::start(plan.server(&ports)?, &mut reactor) {
            Ok(mut server) => {
                let listening = Listening::of(&server).ok_or("a proxy is not open")?;
                started.tell(stopper, listening);
                return reactor.run(&mut server).map_err(loop_failed);
            }
            Err(error) if ports.give_up(error.address().port()) => {
                debug!("{error}; any free port will do");
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// The client's thread: as [`Reactor::run`], but that it reports after each turn.
pub(super) fn client(
    plan: &Plan,
    link: SocketAddr,
    mut reports: Reports,
    started: Started<()>,
) -> Result<(), String> {
    let (mut reactor, stopper) = event_loop()?;
    let mut client = Client::start(plan.client(link)?, &mut reactor);
    started.tell(stopper, ());
    let now = reactor.now();
    let mut flushed = client.flush(&mut reactor, now);
    let mut deserted = false;
    while !is_over(&client, &reactor) {
        flushed = reactor.turn(&mut client, flushed).map_err(loop_failed)?;
        let counters = client.counters();
        reports.report(Status {
            linked: client.is_linked(),
            streams: client.streams(),
            bytes: counters.bytes,
            dialled: counters.dialled,
            reused: counters.reused,
        });
        // The server was stopped first, and has said goodbye: nobody is there to be dialled again.
        if !deserted && reports.is_stopping() && client.links() == 0 {
            deserted = true;
            let now = reactor.now();
            client.stop(&mut reactor, now);
            flushed = Flushed::More;
        }
    }
    Ok(())
}

/// [`Role::is_over`] alone does not say on which network.
fn is_over<R: Role<MioNet>>(role: &R, _: &Reactor<MioNet, R::Owner>) -> bool {
    role.is_over()
}

/// Whether an ssh server answers there. It speaks first (RFC 4253 §4.2), so that it is not taken for
/// another service.
fn ssh_answers(address: SocketAddr) -> bool {
    let mut greeting = [0; SSH_GREETING_MAX];
    let read = TcpStream::connect_timeout(&address, SSH_PATIENCE).and_then(|mut stream| {
        stream.set_read_timeout(Some(SSH_PATIENCE))?;
        // The whole line: to close with bytes unread would be a reset, which servers log.
        stream.read(&mut greeting)
    });
    read.is_ok_and(|read| greeting[..read].starts_with(b"SSH-"))
}

/// Where an ssh server listens.
const SSH: SocketAddr = SocketAddr::new(LOOPBACK, 22);

/// On loopback, a server that is well greets in a few milliseconds; one that is not must not hold up
/// the demo's start for long.
const SSH_PATIENCE: Duration = Duration::from_millis(500);

/// The longest greeting (RFC 4253 §4.2).
const SSH_GREETING_MAX: usize = 255;

/// As many as `openssl rand -hex 32` makes, which is what the documents tell people to use.
const TOKEN_BYTES: usize = 32;

/// How long what is under way may take to finish after Ctrl-C: a forgotten terminal with `nc` in it
/// should not hold up whoever is done with trying.
const DRAIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::{io::Write as _, net::TcpListener, thread};

    use super::*;

    fn plan(ssh: Option<u16>) -> Plan {
        let address = |port| SocketAddr::new(LOOPBACK, port);
        let origins = Addresses {
            http: address(40001),
            echo: address(40002),
        };
        let plan = Plan::new(origins).expect("randomness");
        Plan { ssh, ..plan }
    }

    #[test]
    fn the_client_may_dial_the_targets_of_the_proxies_and_nothing_else() {
        let link = SocketAddr::new(LOOPBACK, 7000);
        let may_dial = |ssh, host: &str, port| {
            let allow = plan(ssh).client(link).expect("a good configuration").allow;
            allow.may_dial(&host.parse().expect("a host"), port)
        };
        for (ssh, host, port, expected) in [
            (None, "127.0.0.1", 40001, true),
            (None, "127.0.0.1", 40002, true),
            (None, "127.0.0.1", 22, false),
            (Some(22), "127.0.0.1", 22, true),
            (Some(22), "127.0.0.1", 40003, false),
            (Some(22), "127.0.0.1", 7000, false),
            (Some(22), "127.0.0.2", 40001, false),
            (Some(22), "192.0.2.1", 40001, false),
        ] {
            assert_eq!(may_dial(ssh, host, port), expected, "{host}:{port}");
        }
    }

    #[test]
    fn each_plan_has_a_token_of_its_own() {
        let (one, other) = (plan(None).token, plan(None).token);
        assert_eq!(one.len(), 64);
        assert_ne!(one, other);
    }

    #[test]
    fn a_busy_port_is_given_up_once() {
        let mut ports = Ports::PREFERRED;
        assert!(ports.give_up(8080));
        assert_eq!((ports.http, ports.echo), (0, 10033));
        assert!(!ports.give_up(8080), "not ours any more");
        assert!(!ports.give_up(0), "there is no other port than any");
        assert!(!ports.give_up(1));
    }

    #[test]
    fn only_what_greets_as_ssh_is_taken_for_it() {
        for (greeting, expected) in [(&b"SSH-2.0-test\r\n"[..], true), (b"220 ftp\r\n", false)] {
            let listener = TcpListener::bind((LOOPBACK, 0)).expect("a free port");
            let address = listener.local_addr().expect("bound");
            let greeter = thread::spawn(move || {
                let (mut stream, _) = listener.accept().expect("a connection");
                stream.write_all(greeting).expect("room for a line");
            });
            assert_eq!(ssh_answers(address), expected);
            greeter.join().expect("it greeted");
            assert!(!ssh_answers(address), "nobody listens any more");
        }
    }
}
