//! Everything together: the processes, the actors outside, and whose turn it is.
//!
//! [`Sim`] lets one of them at a time take a turn, chosen at random among those that have something to
//! do, and moves the clock on when none has.
//!
//! A reactor's poll never sleeps here. One that finds nothing and may sleep says until when, and that
//! turn does nothing else: its role is not flushed (see `machine`), so work that a role has forgotten to
//! ask a turn for stays undone, as it would on a real network.
//!
//! After each turn: the invariants of reactor and role; no turn after turn without sleep in which
//! nothing moves; no long stillness while somebody waits; of each target's socket one owner. In the
//! end: nothing is left of any stream, and an idle process sleeps.

use std::{
    cell::{Cell, RefCell},
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use siding::{
    client::Client,
    config::{Allow, ClientConfig, Exposed, ProxyEntry, ProxyOptions, ServerConfig, Spec, Token},
    pool::{Eviction, Refusal},
    reactor::Reactor,
    server::Server,
};

use crate::{
    machine::Machine,
    net::SimNet,
    oracles::Oracles,
    rng::Rng,
    storm,
    world::{ActorId, CLIENT_HOST, FORMER_HOST, Host, HostId, ROGUE_HOST, SERVER_HOST, World},
};

/// What is played, and by which configurations.
pub struct Scenario {
    pub configs: fn(&mut Rng) -> (ServerConfig, ClientConfig),
    pub play: fn(&mut Sim),
}

/// Both processes, the actors, and whose turn it is.
pub struct Sim {
    pub world: Rc<RefCell<World>>,
    /// `None` while it is not running.
    pub server: Option<Machine<Server>>,
    pub client: Option<Machine<Client>>,
    /// A server that drains, while another has its place.
    former: Option<Machine<Server>>,
    /// What the reactor of the server takes for its host.
    server_at: Rc<Cell<HostId>>,
    /// Another server is to begin as soon as this one, which was asked to stop, has left its place.
    succession: bool,
    /// Another client, with a link of its own that may carry anything.
    rogue: Option<Machine<Client>>,
    server_config: ServerConfig,
    pub client_config: ClientConfig,
    pub actors: Vec<Box<dyn Actor>>,
    oracles: Oracles,
    /// How far it is, for whoever catches its panic.
    place: Rc<Cell<(u64, Duration)>>,
    /// What the reactors hold when nobody is there.
    resting: (usize, usize),
}

/// What a run waits for.
#[derive(Clone, Copy, Debug)]
enum Goal<'a> {
    Time(Duration),
    /// To stand still for long on the way there is an error.
    That(&'a str),
}

/// Somebody outside, who drives ends of pipes without a reactor.
pub trait Actor: fmt::Debug {
    /// Something has happened to one of its ends, or the time it asked for has come.
    fn step(&mut self, world: &mut World, me: ActorId);

    fn is_done(&self) -> bool;
}

impl Sim {
    pub fn new(seed: u64, scenario: &Scenario, place: Rc<Cell<(u64, Duration)>>) -> Sim {
        let mut world = World::new(seed);
        world.name("origin.test", &[ORIGIN]);
        let slow_addresses: &[&str] =
            world
                .rng
                .pick(&[&[SERVER], &[HOLE, SERVER], &[DEAD, SERVER]]);
        world.name("edge.test", slow_addresses);
        world.black_hole(HOLE);
        let (server_config, client_config) = (scenario.configs)(&mut world.rng);
        let mut sim = Sim {
            world: Rc::new(RefCell::new(world)),
            server: None,
            client: None,
            former: None,
            server_at: Rc::new(Cell::new(SERVER_HOST)),
            succession: false,
            rogue: None,
            server_config,
            client_config,
            actors: Vec::new(),
            oracles: Oracles::default(),
            place,
            resting: (0, 0),
        };
        sim.start(SERVER_HOST);
        sim.start(CLIENT_HOST);
        sim
    }

    /// Starts the process of a host, by its configuration.
    pub fn start(&mut self, host: HostId) {
        self.world.borrow_mut().hosts[host] = Host::default();
        let at = Rc::new(Cell::new(host));
        let net = |address: &str| SimNet {
            world: Rc::clone(&self.world),
            host: Rc::clone(&at),
            address: address.parse().expect("a literal address"),
        };
        if host == SERVER_HOST {
            let mut io = Reactor::new(net(SERVER));
            let config = self.server_config.clone();
            let server = Server::start(config, &mut io).expect("the ports are free");
            self.server = Some(Machine::new(host, io, server));
            self.server_at = at;
            self.succession = false;
        } else if host == CLIENT_HOST {
            let mut io = Reactor::new(net(CLIENT));
            let client = Client::start(self.client_config.clone(), &mut io);
            self.oracles.client_starts();
            self.client = Some(Machine::new(host, io, client));
        } else {
            let mut io = Reactor::new(net(ROGUE));
            let config = ClientConfig {
                token: self.client_config.token.clone(),
                server: self.client_config.server.clone(),
                allow: Allow::new(vec!["origin.test:*".parse().expect("a rule")], &[]),
                ..ClientConfig::new(ROGUE_ID.parse().expect("an id"))
            };
            let rogue = Client::start(config, &mut io);
            self.rogue = Some(Machine::new(host, io, rogue));
        }
    }

    /// Asks the server to stop; another begins in its place as soon as that is free. `false` if it stops
    /// already, or the one before it still drains.
    pub fn succeed(&mut self) -> bool {
        let is_stopping =
            self.succession || !self.world.borrow().is_listening(self.server_config.listen);
        if self.server.is_none() || is_stopping || self.former.is_some() {
            return false;
        }
        self.world.borrow_mut().stop(SERVER_HOST);
        self.succession = true;
        true
    }

    /// The server that was asked to stop has closed its listeners: it is the former one now.
    fn begin_successor(&mut self) {
        self.former = self.server.take();
        if let Some(former) = &mut self.former {
            former.host = FORMER_HOST;
        }
        self.server_at.set(FORMER_HOST);
        self.world.borrow_mut().rename(SERVER_HOST, FORMER_HOST);
        self.start(SERVER_HOST);
        self.retire_former_if_over();
    }

    fn retire_former_if_over(&mut self) {
        if let Some(former) = &self.former
            && self.world.borrow().hosts[FORMER_HOST].is_over
        {
            self.oracles.former_is_over(former);
            self.retire(FORMER_HOST);
        }
    }

    /// Whether a server drains beside that which has its place.
    pub fn has_former(&self) -> bool {
        self.former.is_some()
    }

    /// Ends a process as `kill -9` does; whether it was running.
    pub fn kill(&mut self, host: HostId) -> bool {
        let ran = self.retire(host);
        let of = if host == FORMER_HOST {
            SERVER_HOST
        } else {
            host
        };
        self.world.borrow_mut().storm.killed[of] |= ran;
        ran
    }

    /// Takes a process away, and notes what it has counted.
    fn retire(&mut self, host: HostId) -> bool {
        self.note_ends_of(host);
        let ran = match host {
            SERVER_HOST => self.server.take().is_some(),
            CLIENT_HOST => self.client.take().is_some(),
            FORMER_HOST => self.former.take().is_some(),
            _ => self.rogue.take().is_some(),
        };
        self.world.borrow_mut().hosts[host].is_over = true;
        ran
    }

    /// Starts what does not run any more, sooner or later.
    pub fn revive(&mut self, random: &mut Rng) {
        for host in [SERVER_HOST, CLIENT_HOST, ROGUE_HOST] {
            let is_over = self.world.borrow().hosts[host].is_over;
            let runs_at_all = host != ROGUE_HOST || self.rogue.is_some();
            if is_over && runs_at_all && random.chance(30) {
                self.retire(host);
                self.start(host);
            }
        }
    }

    /// Notes what both have counted.
    pub fn note_ends(&mut self) {
        self.note_ends_of(SERVER_HOST);
        self.note_ends_of(CLIENT_HOST);
    }

    fn note_ends_of(&self, host: HostId) {
        let tally = &mut self.world.borrow_mut().tally;
        let server = match host {
            SERVER_HOST => self.server.as_ref(),
            FORMER_HOST => self.former.as_ref(),
            _ => None,
        };
        if let Some(server) = server {
            storm::note(tally, "server", server.role.ends());
        }
        if host == CLIENT_HOST
            && let Some(client) = &self.client
        {
            storm::note(tally, "client", client.role.ends());
            let pool = client.role.pool();
            for why in Refusal::ALL {
                tally.add(&format!("not parked: {why}"), pool.refused(why));
            }
            for why in Eviction::ALL {
                tally.add(&format!("evicted: {why}"), pool.evicted(why));
            }
            tally.add("stale when taken", pool.stale_at_take);
            tally.add("stale when used", pool.stale_after_take);
            tally.add("sent once more", pool.retried);
        }
    }

    /// The server, which is running.
    pub fn server(&self) -> &Machine<Server> {
        self.server.as_ref().expect("the server is running")
    }

    /// The client, which is running.
    pub fn client(&self) -> &Machine<Client> {
        self.client.as_ref().expect("the client is running")
    }

    pub fn random(&self) -> Rng {
        Rng(self.world.borrow_mut().rng.next())
    }

    /// Whether this is one of the seeds in which everybody sends all that they can, on a link that
    /// takes more than one turn may carry.
    pub fn is_bulk(&self) -> bool {
        let mut world = self.world.borrow_mut();
        let bulk = world.rng.chance(10);
        if bulk {
            world.weather.weigh_down();
        }
        bulk
    }

    /// Runs until the link is up and its proxies listen.
    pub fn link_up(&mut self) {
        self.run_until("the link is up", Sim::is_up);
        self.run_for(Duration::from_secs(1));
        self.resting = self.holdings();
    }

    /// Whether the link is up and its proxies listen, and no other server is there.
    pub fn is_up(&mut self) -> bool {
        let world = self.world.borrow();
        let linked = self.client.as_ref().is_some_and(|it| it.role.is_linked());
        let listens = |port| world.is_listening(address(SERVER, port));
        let ports = [
            TCP_PORT,
            REFUSED_PORT,
            HTTP_PORT,
            FORWARD_PORT,
            FORBIDDEN_PORT,
        ];
        linked && self.former.is_none() && ports.into_iter().all(listens)
    }

    /// How many sockets, listeners and timers each process has.
    fn holdings(&self) -> (usize, usize) {
        (self.server().io.len(), self.client().io.len())
    }

    /// Adds an actor that begins within a second.
    pub fn arrive(&mut self, actor: Box<dyn Actor>) {
        self.arrive_within(Duration::from_secs(1), actor);
    }

    /// Adds an actor that begins within a while.
    pub fn arrive_within(&mut self, span: Duration, actor: Box<dyn Actor>) {
        let mut world = self.world.borrow_mut();
        let millis = world.rng.between(0, span.as_millis() as usize) as u64;
        world.wake(self.actors.len(), Duration::from_millis(millis));
        world.progressed();
        self.actors.push(actor);
    }

    pub fn run_until_all_are_done(&mut self) {
        self.world.borrow_mut().progressed();
        self.run_until("all are done", |sim| sim.are_all_done());
    }

    pub fn are_all_done(&self) -> bool {
        self.actors.iter().all(|actor| actor.is_done())
    }

    /// Runs until nothing is left of the streams, then long enough for everything that waits to end;
    /// then both are asked to stop.
    pub fn run_to_rest(&mut self) {
        let over = |sim: &mut Sim| {
            let (server, client) = (&sim.server().role, &sim.client().role);
            server.users() + server.counters().streams + client.streams() == 0
        };
        self.run_until("nothing is left of any stream", over);
        self.run_for(Duration::from_secs(60));
        assert_eq!(self.client().role.parked(), 0, "nothing is parked for ever");
        assert_eq!(
            self.holdings(),
            self.resting,
            "nothing is left in the reactors"
        );
        self.oracles.at_rest(self.server(), self.client());

        let turns = |sim: &Sim| sim.server().turns + sim.client().turns;
        let before = turns(self);
        self.run_for(Duration::from_secs(150));
        let idle = turns(self) - before;
        assert!(idle <= IDLE_TURNS_MAX, "{idle} turns in idleness");

        let first = self.random().between(0, 1);
        for host in [first, 1 - first] {
            self.world.borrow_mut().stop(host);
            let over = |sim: &mut Sim| sim.world.borrow().hosts[host].is_over;
            self.run_until("it stops when asked to", over);
        }
    }

    pub fn run_for(&mut self, time: Duration) {
        let until = self.world.borrow().elapsed() + time;
        while self.world.borrow().elapsed() < until {
            self.step(Goal::Time(until));
        }
    }

    pub fn run_until(&mut self, what: &str, mut is_so: impl FnMut(&mut Sim) -> bool) {
        self.world.borrow_mut().progressed();
        while !is_so(self) {
            self.step(Goal::That(what));
        }
    }

    /// One turn of somebody, or the time until somebody has one.
    fn step(&mut self, goal: Goal<'_>) {
        let (steps, _) = self.place.get();
        let mut world = self.world.borrow_mut();
        self.place.set((steps + 1, world.elapsed()));
        assert!(steps < STEPS_MAX, "there is no end to it");
        let server = world.is_due(SERVER_HOST);
        let client = world.is_due(CLIENT_HOST);
        let former = world.is_due(FORMER_HOST);
        let rogue = world.is_due(ROGUE_HOST);
        let hosts = [server, client, former, rogue]
            .map(usize::from)
            .iter()
            .sum::<usize>();
        let choices = hosts + world.woken.len();
        if choices == 0 {
            return self.pass_time(&mut world, goal);
        }
        let mut choice = world.rng.between(0, choices - 1);
        if choice < world.woken.len() {
            let actor = *world.woken.iter().nth(choice).expect("one of them");
            world.woken.remove(&actor);
            self.actors[actor].step(&mut world, actor);
        } else {
            choice -= world.woken.len();
            drop(world);
            if server && choice == 0 {
                self.turn_of_server();
            } else if client && choice == usize::from(server) {
                self.turn_of_client();
            } else if former && choice == usize::from(server) + usize::from(client) {
                self.turn_of_former();
            } else {
                self.turn_of_rogue();
            }
            world = self.world.borrow_mut();
        }
        // What it did took a while.
        let now = world.elapsed() + Duration::from_micros(world.rng.between(0, 20) as u64);
        world.advance_to(now);
    }

    fn turn_of_server(&mut self) {
        if let Some(server) = &mut self.server {
            server.turn(&self.world);
            server.role.check_invariants();
            let limits = &self.server_config.limits;
            let id = &self.client_config.id;
            self.oracles.after_server(server, limits, id);
            self.check_both();
        }
        if self.succession && !self.world.borrow().is_listening(self.server_config.listen) {
            self.begin_successor();
        }
    }

    fn turn_of_former(&mut self) {
        let Some(former) = &mut self.former else {
            return;
        };
        former.turn(&self.world);
        former.role.check_invariants();
        self.oracles
            .after_former(former, &self.server_config.limits);
        self.check_both();
        self.retire_former_if_over();
    }

    fn turn_of_client(&mut self) {
        if let Some(client) = &mut self.client {
            client.turn(&self.world);
            client.role.check_invariants(&client.io);
            let budget = self.client_config.limits.undelivered;
            self.oracles
                .after_client(client, budget, &mut self.world.borrow_mut());
            self.check_owners();
            self.check_both();
        }
    }

    /// Whatever it is told, it stays sound.
    fn turn_of_rogue(&mut self) {
        if let Some(rogue) = &mut self.rogue {
            rogue.turn(&self.world);
            rogue.role.check_invariants(&rogue.io);
        }
    }

    /// While nothing is under way between the two ends of a link, they agree.
    fn check_both(&mut self) {
        let Some(client) = &self.client else {
            return;
        };
        let (id, world) = (&self.client_config.id, &mut self.world.borrow_mut());
        for server in self.server.iter_mut().chain(&mut self.former) {
            self.oracles.between(server, &client.role, id, world);
        }
    }

    fn pass_time(&self, world: &mut World, goal: Goal<'_>) {
        let next = world.next_due().unwrap_or(Duration::MAX);
        let what = match goal {
            Goal::Time(until) => return world.advance_to(next.min(until)),
            Goal::That(what) => what,
        };
        assert!(
            next <= world.progress + STILL_MAX,
            "stands still, waiting until {what}: {}; {:#?}",
            self.summary(),
            self.actors,
        );
        world.advance_to(next);
    }

    pub fn summary(&self) -> String {
        let server = self.server.as_ref().map(|server| {
            let (users, streams) = (server.role.users(), server.role.counters().streams);
            let (held, left) = (server.io.len(), server.io.lingering());
            format!("server: {users} users, {streams} streams, {held} sockets, {left} lingering")
        });
        let client = self.client.as_ref().map(|client| {
            let (streams, parked) = (client.role.streams(), client.role.parked());
            let linked = client.role.is_linked();
            let (held, left) = (client.io.len(), client.io.lingering());
            format!(
                "client: {streams} streams, {parked} parked, linked {linked}, {held} sockets, \
                 {left} lingering"
            )
        });
        format!("{server:?}, {client:?}")
    }

    /// Each stream has a socket or a dial's clock, each parked or lingering connection a socket of its
    /// own, and the link has one. What is still to be closed has none.
    fn check_owners(&self) {
        let Some(Machine { role, io, .. }) = &self.client else {
            return;
        };
        let (streams, parked) = (role.streams(), role.parked());
        let owned = streams + parked + io.lingering();
        if role.is_linked() {
            assert!(
                owned < io.len(),
                "{streams} streams and {parked} parked connections share sockets"
            );
        }
        let targets = [22, 80].map(|port| address(ORIGIN, port));
        let world = self.world.borrow();
        if world.hosts[CLIENT_HOST].is_over {
            // Its process is about to end, and closes what is left.
            return;
        }
        let open: usize = targets.iter().map(|to| world.open_to(1, *to)).sum();
        assert!(
            open <= owned + io.unclosed(),
            "{open} connections to targets, of {streams} streams and {parked} parked"
        );
    }
}

/// Who asks for the proxies, how fast they may be, and how much memory there is, is the seed's choice.
pub fn configs(rng: &mut Rng) -> (ServerConfig, ClientConfig) {
    let id: siding::config::ClientId = "edge-1".parse().expect("an id");
    let token = rng
        .chance(50)
        .then(|| Token::new(b"a token of tests").expect("long enough"));
    let specs = [
        format!("tcp:{TCP_PORT}:origin.test:22"),
        format!("tcp:{REFUSED_PORT}:origin.test:23"),
        format!("http:{HTTP_PORT}:origin.test:80"),
        format!("forward:{FORWARD_PORT}"),
        format!("ssh:{FORBIDDEN_PORT}:elsewhere.test:22"),
    ];
    let specs = specs.map(|spec| spec.parse::<Spec>().expect("a spec"));
    let exposed = rng.chance(50);
    let undelivered = rng.pick(&[1 << 20, 8 << 20, 64 << 20]);
    let rate = rng.pick(&[None, None, Some(1 << 20), Some(16 << 20)]);
    let options = ProxyOptions {
        rate,
        ..open_to_all()
    };

    let mut server = ServerConfig {
        listen: address(SERVER, 7000),
        bind: address(SERVER, 0).ip(),
        token: token.clone(),
        ..ServerConfig::default()
    };
    server.limits.undelivered = undelivered;
    let mut client = ClientConfig {
        server: "ws://edge.test:7000".parse().expect("an address"),
        token,
        ..ClientConfig::new(id.clone())
    };
    client.limits.undelivered = undelivered;
    if exposed {
        client.allow = Allow::new(Vec::new(), &specs[..4]);
        let expose = |spec| Exposed {
            spec,
            options: options.clone(),
        };
        client.expose = specs.map(expose).into();
    } else {
        let entry = |spec| ProxyEntry {
            client: id.clone(),
            spec,
            options: options.clone(),
        };
        server.proxies = specs.map(entry).into();
        let rule = "origin.test:*".parse().expect("a rule");
        client.allow = Allow::new(vec![rule], &[]);
    }
    (server, client)
}

/// Here nobody is on loopback, and the forward proxy must be told that this is meant.
fn open_to_all() -> ProxyOptions {
    serde_json::from_str(r#"{ "allow_from": [ "0.0.0.0/0", "::/0" ] }"#).expect("options")
}

pub fn address(host: &str, port: u16) -> SocketAddr {
    SocketAddr::new(host.parse().expect("a literal address"), port)
}

pub const SERVER: &str = "192.0.2.1";
pub const CLIENT: &str = "192.0.2.2";
pub const ROGUE: &str = "192.0.2.7";
/// No byte more or less makes it the other client's.
pub const ROGUE_ID: &str = "mallory";
pub const ORIGIN: &str = "198.51.100.3";
pub const USERS: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 4));
/// No server of ours.
pub const IMPOSTOR: &str = "192.0.2.6";
/// Nobody listens there.
pub const DEAD: &str = "192.0.2.5";
/// Nothing ever answers there.
pub const HOLE: &str = "2001:db8::1";

pub const TCP_PORT: u16 = 10033;
/// The target of this one does not listen.
pub const REFUSED_PORT: u16 = 10034;
pub const HTTP_PORT: u16 = 8080;
pub const FORWARD_PORT: u16 = 3128;
/// Of the rogue.
pub const ROGUE_PORT: u16 = 10036;
/// The client allows nobody the target of this one.
pub const FORBIDDEN_PORT: u16 = 10035;

/// Far beyond any scenario: whoever needs more goes in circles.
const STEPS_MAX: u64 = 5_000_000;

/// Longer than any pause of an actor and any look-up, and shorter than every deadline that could
/// mend a stream that hangs.
const STILL_MAX: Duration = Duration::from_secs(8);

/// Both sides, in 150 s: ten pings each way, and what strays and short reads make of them.
const IDLE_TURNS_MAX: u64 = 400;
