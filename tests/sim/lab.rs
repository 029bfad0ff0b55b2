//! A laboratory, for figures: both roles on a network where nothing is left to chance.
//!
//! A link has a length and a width ([`Lane`]), all other pipes are short and wide; a turn takes each
//! process [`TURN`], and actors take no time. Whatever is due at one instant happens in a fixed order,
//! so the same code gives the same figures on any machine, to the last digit.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use siding::{
    client::Client,
    config::{Allow, ClientConfig, ClientId, ProxyEntry, ProxyOptions, ServerConfig, Spec},
    reactor::{Reactor, Role},
    server::Server,
};

use crate::{
    heap::{Charge, Payer},
    machine::Machine,
    net::SimNet,
    sim::{Actor, CLIENT, ORIGIN, SERVER, address},
    world::{ActorId, HostId, Lane, Weather, World},
};

/// Both roles, the actors, and the clock.
pub struct Lab {
    pub world: Rc<RefCell<World>>,
    pub server: Machine<Server>,
    pub client: Machine<Client>,
    actors: Vec<Box<dyn Actor>>,
    /// Turns so far, by host.
    pub turns: [u64; 2],
    /// How long turns take on this machine, by host, if anybody wants to know.
    pub took: Option<[Vec<Duration>; 2]>,
}

impl Lab {
    /// Two roles whose configurations are `configs`' but for how they find each other, and whose link
    /// is up.
    pub fn new(lane: Lane, proxies: &[(u16, u16)], configs: Configs) -> Lab {
        let mut world = World::new(0);
        world.weather = Weather::steady(lane);
        let world = Rc::new(RefCell::new(world));
        let net = |host: HostId, address: &str| SimNet {
            world: Rc::clone(&world),
            host: Rc::new(Cell::new(host)),
            address: address.parse().expect("a literal address"),
        };
        let (server_config, client_config) = configs.of(proxies);
        let charge = Charge::to(Payer::Host(SERVER_HOST));
        let mut io = Reactor::new(net(SERVER_HOST, SERVER));
        let server = Server::start(server_config, &mut io).expect("the ports are free");
        let server = Machine::new(SERVER_HOST, io, server);
        drop(charge);
        let charge = Charge::to(Payer::Host(CLIENT_HOST));
        let mut io = Reactor::new(net(CLIENT_HOST, CLIENT));
        let client = Client::start(client_config, &mut io);
        let client = Machine::new(CLIENT_HOST, io, client);
        drop(charge);
        let mut lab = Lab {
            world,
            server,
            client,
            actors: Vec::new(),
            turns: [0; 2],
            took: None,
        };
        lab.run_until("the link is up", |lab| lab.client.role.is_linked());
        lab.run_for(Duration::from_secs(1));
        lab
    }

    pub fn elapsed(&self) -> Duration {
        self.world.borrow().elapsed()
    }

    /// Adds an actor, which takes its first step at once.
    pub fn add(&mut self, make: impl FnOnce(&mut World, ActorId) -> Box<dyn Actor>) {
        let me = self.actors.len();
        let mut world = self.world.borrow_mut();
        self.actors.push(make(&mut world, me));
        world.woken.insert(me);
    }

    pub fn run_for(&mut self, time: Duration) {
        let until = self.elapsed() + time;
        while self.elapsed() < until {
            self.step(until);
        }
    }

    pub fn run_until(&mut self, what: &str, mut is_so: impl FnMut(&mut Lab) -> bool) {
        let limit = self.elapsed() + PATIENCE;
        while !is_so(self) {
            assert!(self.elapsed() < limit, "waits in vain until {what}");
            self.step(limit);
        }
    }

    /// One turn of somebody, or the time until somebody has one, but at most `until`.
    fn step(&mut self, until: Duration) {
        let mut world = self.world.borrow_mut();
        if let Some(actor) = world.woken.pop_first() {
            return self.actors[actor].step(&mut world, actor);
        }
        let (server, client) = (world.is_due(SERVER_HOST), world.is_due(CLIENT_HOST));
        if server || client {
            drop(world);
            let began = self.took.as_ref().map(|_| Instant::now());
            let (host, awake) = if server {
                (SERVER_HOST, take_turn(&mut self.server, &self.world))
            } else {
                (CLIENT_HOST, take_turn(&mut self.client, &self.world))
            };
            self.turns[host] += u64::from(awake);
            if let (Some(took), Some(began), true) = (&mut self.took, began, awake) {
                took[host].push(began.elapsed());
            }
            return;
        }
        let next = world.next_due().unwrap_or(Duration::MAX);
        world.advance_to(next.min(until));
    }
}

/// A turn, after which its process is busy for a while. `false`: it found neither an event nor a deadline
/// that has passed, which takes no time.
fn take_turn<R: Role<SimNet>>(machine: &mut Machine<R>, world: &RefCell<World>) -> bool {
    let now = world.borrow().elapsed();
    let called = world.borrow().hosts[machine.host].wakes;
    machine.turn(world);
    let host = &mut world.borrow_mut().hosts[machine.host];
    let awake = !host.asleep || called.is_some_and(|at| at <= now);
    if awake {
        host.frozen_until = now + TURN;
    }
    awake
}

/// What is to be configured otherwise than by default.
pub struct Configs {
    pub server: ServerConfig,
    pub client: ClientConfig,
    /// Bytes per second of the proxies on some ports.
    pub rates: Vec<(u16, usize)>,
}

impl Configs {
    /// The defaults, but for the budget of each process.
    pub fn with_budget(undelivered: usize) -> Configs {
        let mut configs = Configs {
            server: ServerConfig::default(),
            client: ClientConfig::new(client_id()),
            rates: Vec::new(),
        };
        configs.server.limits.undelivered = undelivered;
        configs.client.limits.undelivered = undelivered;
        configs
    }

    /// With proxies that lead from ports of the server to ports of the origin: HTTP to port 80, raw to
    /// all others.
    fn of(self, proxies: &[(u16, u16)]) -> (ServerConfig, ClientConfig) {
        let entry = |&(port, target): &(u16, u16)| {
            let kind = if target == 80 { "http" } else { "tcp" };
            let spec = format!("{kind}:{port}:{ORIGIN}:{target}");
            ProxyEntry {
                client: client_id(),
                spec: spec.parse::<Spec>().expect("a spec"),
                options: ProxyOptions {
                    rate: self.rates.iter().find(|of| of.0 == port).map(|of| of.1),
                    ..ProxyOptions::default()
                },
            }
        };
        let server = ServerConfig {
            listen: address(SERVER, LINK_PORT),
            bind: address(SERVER, 0).ip(),
            proxies: proxies.iter().map(entry).collect(),
            ..self.server
        };
        let rule = format!("{ORIGIN}:*").parse().expect("a rule");
        let client = ClientConfig {
            server: format!("ws://{SERVER}:{LINK_PORT}")
                .parse()
                .expect("an address"),
            allow: Allow::new(vec![rule], &[]),
            ..self.client
        };
        (server, client)
    }
}

pub fn client_id() -> ClientId {
    "edge-1".parse().expect("an id")
}

/// Where the origin listens.
pub fn origin(port: u16) -> SocketAddr {
    address(ORIGIN, port)
}

/// Where users find a proxy.
pub fn proxy(port: u16) -> SocketAddr {
    address(SERVER, port)
}

/// Where the server listens for its client.
pub const LINK_PORT: u16 = 7_000;

pub const SERVER_HOST: HostId = 0;
pub const CLIENT_HOST: HostId = 1;

/// What one turn takes a process, however much it does in it: a poll, a read or two, a write or two.
const TURN: Duration = Duration::from_micros(10);

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(600);
