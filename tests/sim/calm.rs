//! Good weather: nothing breaks but what the actors themselves break, and all of it arrives.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use siding::{
    client::Counters,
    config::{ClientConfig, ServerConfig},
};

use crate::{
    exchange,
    heap::Payer,
    http, origin,
    rng::Rng,
    sim::{FORWARD_PORT, ORIGIN, REFUSED_PORT, SERVER, Scenario, Sim, TCP_PORT, address, configs},
    tcp,
    world::{CLIENT_HOST, SERVER_HOST},
};

/// Long enough for everybody to have said all (an origin thinks for half a second at most), and for links
/// to have given back what their buffers grew by, which they do when a ping is due.
const SILENT_WITHIN: Duration = Duration::from_secs(45);

pub const TCP_STREAMS: Scenario = Scenario {
    configs,
    play: tcp_streams,
};

pub const POOLED_EXCHANGES: Scenario = Scenario {
    configs,
    play: pooled_exchanges,
};

pub const SILENCE: Scenario = Scenario {
    configs: configs_without_rates,
    play: silence,
};

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
        let user = user_of(plan, &[REFUSED_PORT], &mut world.rng);
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

/// A user of a raw proxy, or of the one that forwards; those of `refused` lead nowhere.
pub fn user_of(plan: tcp::Plan, refused: &[u16], rng: &mut Rng) -> tcp::User {
    let is_refused = plan.ending == tcp::Ending::Refused;
    if rng.chance(25) {
        let target = match is_refused {
            true => rng.pick(&["origin.test:23", "elsewhere.test:22"]),
            false => "origin.test:22",
        };
        let user = tcp::User::new(plan, address(SERVER, FORWARD_PORT), rng);
        return user.connecting(target, rng);
    }
    let port = match is_refused {
        true => rng.pick(refused),
        false => TCP_PORT,
    };
    tcp::User::new(plan, address(SERVER, port), rng)
}

/// A stream that shares a rate has its part in that on the heap, so that others need no room for it.
fn configs_without_rates(rng: &mut Rng) -> (ServerConfig, ClientConfig) {
    let (mut server, mut client) = configs(rng);
    let of_server = server.proxies.iter_mut().map(|entry| &mut entry.options);
    let of_client = client.expose.iter_mut().map(|entry| &mut entry.options);
    for options in of_server.chain(of_client) {
        options.rate = None;
    }
    (server, client)
}

/// Users of all kinds who fall silent: what their connections then have of the heap is nothing.
fn silence(sim: &mut Sim) {
    let ledger = Rc::new(RefCell::new(http::Ledger::default()));
    {
        let world = &mut sim.world.borrow_mut();
        let echo = tcp::Origin::new(address(ORIGIN, 22), 0, tcp::Ledger::default(), world);
        let web = origin::Origin::new(address(ORIGIN, 80), 1, Rc::clone(&ledger), world);
        sim.actors.push(Box::new(echo));
        sim.actors.push(Box::new(web));
    }
    sim.link_up();

    let mut random = sim.random();
    let rests = Rc::new(Cell::new(true));
    for user in 1..=random.between(1, 10) as u64 {
        let size = random.size(300_000);
        let user = user_of(tcp::Plan::open_ended(user, size), &[], &mut random);
        sim.arrive(Box::new(user.resting(&rests)));
    }
    let mood = exchange::Mood {
        storm: false,
        brief: false,
        bulk: false,
        rough: false,
        most: random.pick(&[1_000, 30_000, 300_000]),
    };
    for user in 1..=random.between(0, 10) as u64 {
        let user = http::User::new(user, mood, Rc::clone(&ledger), &mut random);
        sim.arrive(Box::new(user.resting(&rests)));
    }
    let heap = || [SERVER_HOST, CLIENT_HOST].map(|host| Payer::Host(host).bytes());
    sim.run_for(SILENT_WITHIN);
    let silent = heap();
    let streams = sim.client().role.streams();
    rests.set(false);
    for actor in 0..sim.actors.len() {
        sim.world.borrow_mut().woken.insert(actor);
    }
    sim.run_until_all_are_done();
    sim.run_for(Duration::from_secs(1));
    assert_eq!(sim.client().role.streams(), 0, "all have left");
    assert!(streams > 0, "there were some");
    // Tables may have grown meanwhile; what the streams had would be missing now.
    let after = heap();
    assert!(
        silent
            .iter()
            .zip(&after)
            .all(|(silent, after)| silent <= after),
        "{streams} silent streams own of the heap: {silent:?}, without them {after:?}"
    );
    sim.run_to_rest();
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
    let mood = exchange::Mood {
        storm: false,
        brief: false,
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
        let user = http::User::new(user, mood, Rc::clone(&ledger), &mut random);
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
    asked.check(&ledger.borrow(), sim.client().role.counters());
    if sim.random().chance(50) {
        ledger.borrow_mut().closing = true;
        sim.world.borrow_mut().woken.insert(0);
        let emptied = |sim: &mut Sim| sim.client().role.parked() == 0;
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
    mood: exchange::Mood,
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
