//! Both roles, as released, on a simulated network: one thread, virtual time, one seed.
//!
//! `world` is the network, `net` what a reactor sees of it; users and origins (`tcp`; `http`, `origin`)
//! use the world directly and check every byte. [`Sim`] lets one of them at a time take a turn, chosen
//! at random among those that have something to do, and moves the clock on when none has.
//!
//! A reactor's poll never sleeps here. One that finds nothing and may sleep says until when, and that
//! turn does nothing else: its role is not flushed (see `machine`), so work that a role has forgotten to
//! ask a turn for stays undone, as it would on a real network.
//!
//! After each turn: the invariants of reactor and role; no turn after turn without sleep in which
//! nothing moves; no long stillness while somebody waits; of each target's socket one owner. In the
//! end: nothing is left of any stream, and an idle process sleeps.
//!
//! `SIDING_SIM_SEED=n` runs that seed alone, with the log; `SIDING_SIM_SEEDS=n` runs so many.

mod http;
mod machine;
mod message;
mod net;
mod origin;
mod rng;
mod tcp;
mod world;

use std::{
    any::Any,
    cell::{Cell, RefCell},
    env, fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::Duration,
};

use siding::{
    client::{Client, Counters},
    config::{Allow, ClientConfig, Exposed, HttpOptions, ProxyEntry, ServerConfig, Spec, Token},
    reactor::Reactor,
    server::Server,
};

use crate::{
    machine::Machine,
    net::SimNet,
    rng::Rng,
    world::{ActorId, HostId, World},
};

#[test]
fn tcp_streams_arrive_whole_and_end_as_they_were_ended() {
    each_seed(0, tcp_streams);
}

#[test]
fn each_request_is_answered_once_with_its_own_bytes() {
    each_seed(1_000_000, pooled_exchanges);
}

#[test]
fn a_seed_tells_the_same_story_twice() {
    for seed in [3, 1_000_003] {
        let scenario = if seed < 1_000_000 {
            tcp_streams
        } else {
            pooled_exchanges
        };
        assert_eq!(run(seed, scenario), run(seed, scenario), "seed {seed}");
    }
}

/// Several users of one raw proxy, who end their streams in all orders.
fn tcp_streams(sim: &mut Sim) {
    let bulk = sim.is_bulk();
    let target = address(ORIGIN, 22);
    let ledger = tcp::Ledger::default();
    let origin = tcp::Origin::new(target, 0, Rc::clone(&ledger), &mut sim.world.borrow_mut());
    sim.actors.push(Box::new(origin));
    sim.link_up();

    let mut expected = Vec::new();
    for user in 0..sim.random().between(1, 6) as u64 {
        let mut world = sim.world.borrow_mut();
        let most = world.rng.pick(&[1_000, 30_000, 300_000, 2_000_000]);
        let size = if bulk {
            2_000_000
        } else {
            world.rng.size(most)
        };
        let plan = tcp::Plan::new(user, size, bulk, &mut world.rng);
        let port = match plan.ending {
            tcp::Ending::Refused => REFUSED_PORT,
            _ => TCP_PORT,
        };
        let user = tcp::User::new(plan, address(SERVER, port), &mut world.rng);
        drop(world);
        sim.arrive(Box::new(user));
        expected.push(plan.ending);
    }
    sim.run_until_all_are_done();
    // A user that closes without reading is done before its stream is.
    sim.run_to_rest();

    // A stream that its user resets may never reach the origin.
    expected.retain(|ending| ending.is_certain());
    let mut seen: Vec<_> = ledger.borrow().values().copied().collect();
    seen.retain(|ending| ending.is_certain());
    expected.sort();
    seen.sort();
    assert_eq!(seen, expected, "the origin saw each stream end");
}

/// Several users of one HTTP proxy, whose exchanges share the origin's connections.
fn pooled_exchanges(sim: &mut Sim) {
    let bulk = sim.is_bulk();
    let target = address(ORIGIN, 80);
    let ledger = Rc::new(RefCell::new(http::Ledger::default()));
    let origin = origin::Origin::new(target, 0, Rc::clone(&ledger), &mut sim.world.borrow_mut());
    sim.actors.push(Box::new(origin));
    sim.link_up();

    let mut random = sim.random();
    let mood = http::Mood {
        bulk,
        rough: random.chance(50),
        most: if bulk {
            2_000_000
        } else {
            random.pick(&[1_000, 30_000, 300_000])
        },
    };
    let (mut asked, mut unpooled) = (0, 0);
    let users = random.between(1, 5);
    for user in 1..=users as u64 {
        let proxy = address(SERVER, HTTP_PORT);
        let user = http::User::new(user, proxy, mood, Rc::clone(&ledger), &mut random);
        asked += user.exchanges().count();
        unpooled += user
            .exchanges()
            .filter(|exchange| !exchange.is_reusable() || !exchange.is_repeatable())
            .count();
        sim.arrive(Box::new(user));
    }
    sim.run_until_all_are_done();

    let asked = Asked {
        users,
        exchanges: asked,
        unpooled,
        mood,
    };
    asked.check(&ledger.borrow(), sim.client.role.counters());
    if sim.random().chance(50) {
        ledger.borrow_mut().closing = true;
        sim.world.borrow_mut().woken.insert(0);
        let emptied = |sim: &mut Sim| sim.client.role.parked() == 0;
        sim.run_until("the pool notices that its origin has closed", emptied);
    }
    sim.run_to_rest();
}

/// What the users of a seed asked for, all in all.
#[derive(Debug)]
struct Asked {
    users: usize,
    exchanges: usize,
    /// Those after which the connection cannot be parked, or that must not take any that is.
    unpooled: usize,
    mood: http::Mood,
}

impl Asked {
    fn check(&self, ledger: &http::Ledger, counters: Counters) {
        let [dialled, reused, retried] =
            [counters.dialled, counters.reused, counters.retried].map(|count| count as usize);
        let http::Ledger {
            connections,
            lost,
            broken,
            abandoned,
            ..
        } = *ledger;
        let (seen, asked) = (ledger.seen.len(), self.exchanges);
        let story = format!(
            "{self:?}; {lost} lost, {broken} broken, {abandoned} abandoned, {seen} seen; \
             {connections} connections, {dialled} dialled, {reused} reused, {retried} retried"
        );
        if !self.mood.rough {
            assert_eq!(lost + broken + abandoned, 0, "all is well: {story}");
        }
        // What is lost or abandoned may have reached the origin, or not.
        let arrived = asked - lost - abandoned..=asked;
        assert!(arrived.contains(&seen), "each is asked once: {story}");
        let carried = asked + retried - abandoned..=asked + retried;
        let exchanges = dialled + reused;
        assert!(
            carried.contains(&exchanges),
            "each has a connection: {story}"
        );
        let accepted = dialled..=dialled + abandoned;
        assert!(accepted.contains(&connections), "none is unknown: {story}");
        // At most one for each user at a time; beyond that only what cannot be parked or taken.
        let needed = self.users + self.unpooled + lost + abandoned + retried;
        assert!(dialled <= needed, "the pool is used: {story}");
    }
}

/// Both roles, the actors, and whose turn it is.
struct Sim {
    world: Rc<RefCell<World>>,
    server: Machine<Server>,
    client: Machine<Client>,
    actors: Vec<Box<dyn Actor>>,
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
trait Actor: fmt::Debug {
    /// Something has happened to one of its ends, or the time it asked for has come.
    fn step(&mut self, world: &mut World, me: ActorId);

    fn is_done(&self) -> bool;
}

impl Sim {
    fn new(seed: u64, place: Rc<Cell<(u64, Duration)>>) -> Sim {
        let mut world = World::new(seed);
        world.name("origin.test", &[ORIGIN]);
        let slow_addresses: &[&str] =
            world
                .rng
                .pick(&[&[SERVER], &[HOLE, SERVER], &[DEAD, SERVER]]);
        world.name("edge.test", slow_addresses);
        world.black_hole(HOLE);
        let (server_config, client_config) = configs(&mut world.rng);
        let world = Rc::new(RefCell::new(world));
        let net = |host: HostId, address: &str| SimNet {
            world: Rc::clone(&world),
            host,
            address: address.parse().expect("a literal address"),
        };
        let mut io = Reactor::new(net(0, SERVER));
        let server = Server::start(server_config, &mut io).expect("the ports are free");
        let server = Machine::new(0, io, server);
        let mut io = Reactor::new(net(1, CLIENT));
        let client = Client::start(client_config, &mut io);
        let client = Machine::new(1, io, client);
        Sim {
            world,
            server,
            client,
            actors: Vec::new(),
            place,
            resting: (0, 0),
        }
    }

    fn random(&self) -> Rng {
        Rng(self.world.borrow_mut().rng.next())
    }

    /// Whether this is one of the seeds in which everybody sends all that they can, on a link that
    /// takes more than one turn may carry.
    fn is_bulk(&self) -> bool {
        let mut world = self.world.borrow_mut();
        let bulk = world.rng.chance(10);
        if bulk {
            world.weather.weigh_down();
        }
        bulk
    }

    /// Runs until the link is up and its proxies listen.
    fn link_up(&mut self) {
        let up = |sim: &mut Sim| {
            let world = sim.world.borrow();
            sim.client.role.is_linked()
                && world.is_listening(address(SERVER, TCP_PORT))
                && world.is_listening(address(SERVER, HTTP_PORT))
        };
        self.run_until("the link is up", up);
        self.run_for(Duration::from_secs(1));
        self.resting = (self.server.io.len(), self.client.io.len());
    }

    /// Adds an actor that begins within a second.
    fn arrive(&mut self, actor: Box<dyn Actor>) {
        let mut world = self.world.borrow_mut();
        let millis = world.rng.between(0, 1_000) as u64;
        world.wake(self.actors.len(), Duration::from_millis(millis));
        world.progressed();
        self.actors.push(actor);
    }

    fn run_until_all_are_done(&mut self) {
        self.world.borrow_mut().progressed();
        let done = |sim: &mut Sim| sim.actors.iter().all(|actor| actor.is_done());
        self.run_until("all are done", done);
    }

    /// Runs until nothing is left of the streams, then long enough for everything that waits to end;
    /// then both are asked to stop.
    fn run_to_rest(&mut self) {
        let over = |sim: &mut Sim| {
            let streams = sim.server.role.counters().streams + sim.client.role.streams();
            sim.server.role.users() + streams == 0
        };
        self.run_until("nothing is left of any stream", over);
        self.run_for(Duration::from_secs(60));
        assert_eq!(self.client.role.parked(), 0, "nothing is parked for ever");
        let now = (self.server.io.len(), self.client.io.len());
        assert_eq!(now, self.resting, "nothing is left in the reactors");

        let before = self.server.turns + self.client.turns;
        self.run_for(Duration::from_secs(150));
        let turns = self.server.turns + self.client.turns - before;
        assert!(turns <= IDLE_TURNS_MAX, "{turns} turns in idleness");

        let first = self.random().between(0, 1);
        for host in [first, 1 - first] {
            self.world.borrow_mut().stop(host);
            let over = |sim: &mut Sim| sim.world.borrow().hosts[host].is_over;
            self.run_until("it stops when asked to", over);
        }
    }

    fn run_for(&mut self, time: Duration) {
        let until = self.world.borrow().elapsed() + time;
        while self.world.borrow().elapsed() < until {
            self.step(Goal::Time(until));
        }
    }

    fn run_until(&mut self, what: &str, mut is_so: impl FnMut(&mut Sim) -> bool) {
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
        let server = world.is_due(self.server.host);
        let client = world.is_due(self.client.host);
        let choices = usize::from(server) + usize::from(client) + world.woken.len();
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
                self.server.turn(&self.world);
                self.server.role.check_invariants();
            } else {
                self.client.turn(&self.world);
                self.client.role.check_invariants(&self.client.io);
                self.check_owners();
            }
            world = self.world.borrow_mut();
        }
        // What it did took a while.
        let now = world.elapsed() + Duration::from_micros(world.rng.between(0, 20) as u64);
        world.advance_to(now);
    }

    fn pass_time(&self, world: &mut World, goal: Goal<'_>) {
        let next = world.next_due().unwrap_or(Duration::MAX);
        let what = match goal {
            Goal::Time(until) => return world.advance_to(next.min(until)),
            Goal::That(what) => what,
        };
        assert!(
            next <= world.progress + STILL_MAX,
            "stands still, waiting until {what}: {} users and {} + {} streams, {} parked; {:#?}",
            self.server.role.users(),
            self.server.role.counters().streams,
            self.client.role.streams(),
            self.client.role.parked(),
            self.actors,
        );
        world.advance_to(next);
    }

    /// Each stream has a socket or a dial's clock, each parked or lingering connection a socket of its
    /// own, and the link has one.
    fn check_owners(&self) {
        let Machine { role, io, .. } = &self.client;
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
        let open: usize = targets.iter().map(|to| world.open_to(1, *to)).sum();
        assert!(
            open <= owned,
            "{open} connections to targets, of {streams} streams and {parked} parked"
        );
    }
}

/// Who asks for the proxies, and how much memory there is, is the seed's choice.
fn configs(rng: &mut Rng) -> (ServerConfig, ClientConfig) {
    let id: siding::config::ClientId = "edge-1".parse().expect("an id");
    let token = rng
        .chance(50)
        .then(|| Token::new(b"a token of tests").expect("long enough"));
    let specs = [
        format!("tcp:{TCP_PORT}:origin.test:22"),
        format!("tcp:{REFUSED_PORT}:origin.test:23"),
        format!("http:{HTTP_PORT}:origin.test:80"),
    ];
    let specs = specs.map(|spec| spec.parse::<Spec>().expect("a spec"));
    let exposed = rng.chance(50);
    let undelivered = rng.pick(&[1 << 20, 8 << 20, 64 << 20]);

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
        client.allow = Allow::new(Vec::new(), &specs);
        client.expose = specs.map(Exposed::from).into();
    } else {
        let entry = |spec| ProxyEntry {
            client: id.clone(),
            spec,
            options: HttpOptions::default(),
        };
        server.proxies = specs.map(entry).into();
        let rule = "origin.test:*".parse().expect("a rule");
        client.allow = Allow::new(vec![rule], &[]);
    }
    (server, client)
}

fn each_seed(first: u64, scenario: fn(&mut Sim)) {
    let number = |name| {
        let text = env::var(name).ok()?;
        Some(
            text.parse::<u64>()
                .unwrap_or_else(|_| panic!("{name}: a number expected")),
        )
    };
    if let Some(seed) = number("SIDING_SIM_SEED") {
        // Each scenario has a million seeds of its own.
        if seed / 1_000_000 == first / 1_000_000 {
            let ours = simplelog::ConfigBuilder::new()
                .add_filter_allow_str("siding")
                .build();
            let _ = simplelog::SimpleLogger::init(log::LevelFilter::Trace, ours);
            run(seed, scenario);
        }
        return;
    }
    for seed in first..first + number("SIDING_SIM_SEEDS").unwrap_or(SEEDS) {
        run(seed, scenario);
    }
}

/// Runs one seed; what it answers is the same whenever it runs.
fn run(seed: u64, scenario: fn(&mut Sim)) -> (u64, Duration, u64) {
    let place = Rc::new(Cell::new((0, Duration::ZERO)));
    let within = AssertUnwindSafe(|| {
        let mut sim = Sim::new(seed, Rc::clone(&place));
        scenario(&mut sim);
        sim.world.borrow().digest
    });
    match catch_unwind(within) {
        Ok(digest) => {
            let (steps, time) = place.get();
            (steps, time, digest)
        }
        Err(panic) => {
            let (step, time) = place.get();
            panic!(
                "seed {seed} failed at step {step}, {time:?}: {}\n\
                 SIDING_SIM_SEED={seed} runs it again",
                text(&*panic)
            );
        }
    }
}

fn text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("?")
}

fn address(host: &str, port: u16) -> SocketAddr {
    SocketAddr::new(host.parse().expect("a literal address"), port)
}

const SERVER: &str = "192.0.2.1";
const CLIENT: &str = "192.0.2.2";
const ORIGIN: &str = "198.51.100.3";
const USERS: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 4));
/// Nobody listens there.
const DEAD: &str = "192.0.2.5";
/// Nothing ever answers there.
const HOLE: &str = "2001:db8::1";

const TCP_PORT: u16 = 10033;
/// The target of this one does not listen.
const REFUSED_PORT: u16 = 10034;
const HTTP_PORT: u16 = 8080;

/// Of each scenario, in a plain `cargo test`.
const SEEDS: u64 = 60;

/// Far beyond any scenario: whoever needs more goes in circles.
const STEPS_MAX: u64 = 5_000_000;

/// Longer than any pause of an actor and any look-up, and shorter than every deadline that could
/// mend a stream that hangs.
const STILL_MAX: Duration = Duration::from_secs(8);

/// Both sides, in 150 s: ten pings each way, and what strays and short reads make of them.
const IDLE_TURNS_MAX: u64 = 400;
