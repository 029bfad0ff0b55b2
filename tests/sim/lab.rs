//! A laboratory, for figures: both roles on a network where nothing is left to chance.
//!
//! A link has a length and a width ([`Lane`]), all other pipes are short and wide; a turn takes each
//! process [`TURN`], and actors take no time. Whatever is due at one instant happens in a fixed order,
//! so the same code gives the same figures on any machine, to the last digit.

use std::{cell::RefCell, net::SocketAddr, rc::Rc, time::Duration};

use siding::{
    client::Client,
    config::{Allow, ClientConfig, ClientId, HttpOptions, ProxyEntry, ServerConfig, Spec},
    reactor::{Reactor, Role},
    server::Server,
};

use crate::{
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
            host,
            address: address.parse().expect("a literal address"),
        };
        let (server_config, client_config) = configs.of(proxies);
        let mut io = Reactor::new(net(SERVER_HOST, SERVER));
        let server = Server::start(server_config, &mut io).expect("the ports are free");
        let server = Machine::new(SERVER_HOST, io, server);
        let mut io = Reactor::new(net(CLIENT_HOST, CLIENT));
        let client = Client::start(client_config, &mut io);
        let client = Machine::new(CLIENT_HOST, io, client);
        let mut lab = Lab {
            world,
            server,
            client,
            actors: Vec::new(),
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
            if server {
                take_turn(&mut self.server, &self.world);
            } else {
                take_turn(&mut self.client, &self.world);
            }
            return;
        }
        let next = world.next_due().unwrap_or(Duration::MAX);
        world.advance_to(next.min(until));
    }
}

/// A turn, after which its process is busy for a while; a poll that finds nothing takes no time.
fn take_turn<R: Role<SimNet>>(machine: &mut Machine<R>, world: &RefCell<World>) {
    machine.turn(world);
    let mut world = world.borrow_mut();
    let now = world.elapsed();
    let host = &mut world.hosts[machine.host];
    if !host.asleep {
        host.frozen_until = now + TURN;
    }
}

/// What is to be configured otherwise than by default.
pub struct Configs {
    pub server: ServerConfig,
    pub client: ClientConfig,
}

impl Configs {
    /// The defaults, but for the budget of each process.
    pub fn with_budget(undelivered: usize) -> Configs {
        let mut configs = Configs {
            server: ServerConfig::default(),
            client: ClientConfig::new(client_id()),
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
                options: HttpOptions::default(),
            }
        };
        let server = ServerConfig {
            listen: address(SERVER, 7000),
            bind: address(SERVER, 0).ip(),
            proxies: proxies.iter().map(entry).collect(),
            ..self.server
        };
        let rule = format!("{ORIGIN}:*").parse().expect("a rule");
        let client = ClientConfig {
            server: format!("ws://{SERVER}:7000").parse().expect("an address"),
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

pub const SERVER_HOST: HostId = 0;
pub const CLIENT_HOST: HostId = 1;

/// What one turn takes a process, however much it does in it: a poll, a read or two, a write or two.
const TURN: Duration = Duration::from_micros(10);

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(600);
