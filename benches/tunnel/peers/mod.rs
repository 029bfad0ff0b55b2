//! The tunnels that are measured: which of them are here, and how one is started for a scenario.
//!
//! All are started alike: the public side, then (once that listens) the private one, then it is asked
//! through the tunnel until the origin answers. So no peer's log has to be understood.

mod list;

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    bulk::{Want, ask},
    common::{PATIENCE, Process, Scratch, free_port, pass, require},
    cost::{Side, Sides},
    service::Asks,
};

use self::list::SIDING;

/// How often a program that starts is asked whether it serves.
const ASK_EVERY: Duration = Duration::from_micros(200);

/// How long one such question may remain without an answer.
const ANSWER: Duration = Duration::from_secs(1);

/// What a scenario wants carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// Bytes.
    Tcp,
    /// HTTP to an `http` origin.
    Http,
    /// HTTP from the user, HTTPS to the origin.
    Https,
}

/// Whom siding is compared with, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// siding itself, or another build of it.
    Siding,
    /// Nothing in between.
    Direct,
    /// A reverse tunnel.
    Tunnel,
    /// Two chained reverse proxies: no tunnel, but the limit.
    Chain,
}

/// How a peer is set up: data, and one function that writes its commands.
pub struct Description {
    /// Its name in arguments and tables.
    pub name: &'static str,
    /// See [`Class`].
    pub class: Class,
    /// What it can carry.
    pub carries: &'static [Speaks],
    /// The programs that it is made of; without one of them it is skipped.
    pub programs: &'static [&'static str],
    /// Descriptors of its hungriest process for each connection of a user.
    pub descriptors: usize,
    /// Where its first process listens.
    pub listens: fn(&Site) -> SocketAddr,
    /// The commands of its public and its private side.
    pub commands: fn(&Site) -> [Command; 2],
}

/// What a peer has to be set up for.
pub struct Site<'a> {
    /// Its programs, in the order of the description.
    pub programs: &'a [PathBuf],
    /// What is carried.
    pub speaks: Speaks,
    /// Where users come.
    pub public: SocketAddr,
    /// Where the private side finds the public one.
    pub link: SocketAddr,
    /// The origin.
    pub target: SocketAddr,
    /// Who has certified an `https` origin, in PEM.
    pub authority: Option<&'a Path>,
    /// Connections to the origin that may be parked, where it is not the peer's own default.
    pub parked: Option<usize>,
    /// For its files.
    pub scratch: &'a Scratch,
}

/// A peer that is here.
pub struct Peer {
    /// Its name in the table.
    pub name: String,
    description: &'static Description,
    programs: Vec<PathBuf>,
}

/// What lies at the origin's end, and so how a peer is asked whether it serves.
pub enum Answers {
    /// An origin of long streams.
    Echo,
    /// One of exchanges.
    Exchanges(Asks),
}

/// What is to be started.
pub struct Order<'a> {
    /// What is carried.
    pub speaks: Speaks,
    /// The origin.
    pub target: SocketAddr,
    /// What it answers.
    pub answers: Answers,
    /// See [`Site::authority`].
    pub authority: Option<&'a Path>,
    /// See [`Site::parked`].
    pub parked: Option<usize>,
}

impl Order<'_> {
    /// To an origin of long streams.
    pub fn streams(target: SocketAddr) -> Self {
        Order {
            speaks: Speaks::Tcp,
            target,
            answers: Answers::Echo,
            authority: None,
            parked: None,
        }
    }
}

/// A peer that serves.
pub struct Running {
    /// Its processes.
    pub sides: Sides,
    /// Where users come.
    pub address: SocketAddr,
    /// From the start of the public side until it listened.
    pub listened_after: Duration,
    /// From the start of the private side until the first byte had come back through the tunnel.
    pub served_after: Duration,
    _scratch: Scratch,
}

impl Peer {
    /// All that are here, in the order of the table; there is a line for each that is not.
    pub fn present(wanted: impl Fn(&str) -> bool) -> Vec<Peer> {
        let all = list::ALL.iter();
        all.filter(|description| wanted(description.name))
            .filter_map(|description| {
                let programs = description.programs.iter();
                let found = programs.map(|program| match description.class {
                    Class::Siding => Some(PathBuf::from(env!("CARGO_BIN_EXE_siding"))),
                    _ => require(program),
                });
                Some(Peer {
                    name: description.name.to_owned(),
                    description,
                    programs: found.collect::<Option<_>>()?,
                })
            })
            .collect()
    }

    /// Another build of siding.
    pub fn other_siding(name: String, program: PathBuf) -> Peer {
        Peer {
            name,
            description: &SIDING,
            programs: vec![program],
        }
    }

    /// Every name that there is.
    pub fn names() -> Vec<&'static str> {
        let all = list::ALL.iter();
        all.map(|description| description.name).collect()
    }

    /// See [`Class`].
    pub fn class(&self) -> Class {
        self.description.class
    }

    /// Whether it can be measured where this is carried.
    pub fn carries(&self, speaks: Speaks) -> bool {
        self.description.carries.contains(&speaks)
    }

    /// Descriptors of its hungriest process for `connections` of users.
    pub fn descriptors(&self, connections: usize) -> usize {
        self.description.descriptors * connections
    }

    /// The programs that it is made of.
    pub fn programs(&self) -> &[PathBuf] {
        &self.programs
    }

    /// Starts it and waits until it serves.
    ///
    /// # Errors
    /// It does not, within [`PATIENCE`].
    pub fn start(&self, order: &Order) -> io::Result<Running> {
        let scratch = Scratch::new();
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let site = Site {
            programs: &self.programs,
            speaks: order.speaks,
            public: local(free_port()),
            link: local(free_port()),
            target: order.target,
            authority: order.authority,
            parked: order.parked,
            scratch: &scratch,
        };
        let mut sides = Sides::none();
        if self.class() == Class::Direct {
            return Ok(Running {
                sides,
                address: order.target,
                listened_after: Duration::ZERO,
                served_after: Duration::ZERO,
                _scratch: scratch,
            });
        }
        let listens = (self.description.listens)(&site);
        let start = |role: &str, command: &mut Command| {
            // What the environment asks of siding is not asked of this one.
            let command = command.env_remove("SIDING_TOKEN").env("RUST_LOG", "warn");
            Process::start(&format!("{} {role}", self.name), command)
        };
        let [mut server, mut agent] = (self.description.commands)(&site);
        let began = Instant::now();
        let mut process = start("server", &mut server);
        until(&mut process, || {
            TcpStream::connect_timeout(&listens, ANSWER).map(drop)
        })
        .map_err(|error| named(&error, "its server does not listen"))?;
        let listened_after = began.elapsed();
        sides.server = Some(Side::new(process));
        let began = Instant::now();
        let mut process = start("agent", &mut agent);
        if self.class() == Class::Chain {
            // Asked before, the first would wait for a second before it asked again.
            until(&mut process, || {
                TcpStream::connect_timeout(&site.link, ANSWER).map(drop)
            })
            .map_err(|error| named(&error, "its second half does not listen"))?;
        }
        until(&mut process, || order.answers.probe(site.public))
            .map_err(|error| named(&error, "it does not serve"))?;
        sides.agent = Some(Side::new(process));
        Ok(Running {
            sides,
            address: site.public,
            listened_after,
            served_after: began.elapsed(),
            _scratch: scratch,
        })
    }
}

impl Answers {
    /// One byte, or one answer, through the tunnel.
    fn probe(&self, address: SocketAddr) -> io::Result<()> {
        match *self {
            Answers::Echo => {
                let mut stream = ask(address, Want::Echo, 0)?;
                stream.set_read_timeout(Some(ANSWER))?;
                stream.write_all(b"?")?;
                stream.read_exact(&mut [0])
            }
            Answers::Exchanges(asks) => once(address, asks, 0, ANSWER).map(drop),
        }
    }
}

/// One exchange on a connection of its own, which is returned.
///
/// # Errors
/// The connection's; `InvalidData` for a wrong answer.
pub fn once(
    address: SocketAddr,
    asks: Asks,
    number: u64,
    patience: Duration,
) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_nodelay(true)?;
    let mut request = Vec::new();
    asks.request(number, &mut request);
    stream.write_all(&request)?;
    let mut answer = vec![0; asks.room()];
    let mut held = 0;
    while !asks.is_answered(number, &answer[..held])? {
        match stream.read(&mut answer[held..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => held += count,
        }
    }
    Ok(stream)
}

/// Asks until the answer is good, while the process runs that is to give it.
fn until(process: &mut Process, mut ask: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Err(_) if !process.is_running() => {
                process.log().wait_for_end();
                let said = process.log().lines().pop();
                return Err(io::Error::other(said.unwrap_or("it has ended".to_owned())));
            }
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => pass(ASK_EVERY),
            Ok(()) => return Ok(()),
        }
    }
}

fn named(error: &io::Error, what: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
