//! Foul weather: faults of all kinds while users come and go, then calm, in which all that is left must
//! end and everything must work again.
//!
//! Who lives through the storm may be cut off, refused or kept waiting, but never given a wrong byte,
//! another's answer, or a part that looks whole; and no POST arrives twice. Who comes afterwards is
//! served as in good weather.

use std::{cell::RefCell, rc::Rc, time::Duration};

use siding::{
    config::{ClientConfig, PoolMode, ProxyEntry, ProxyOptions, ServerConfig},
    tunnel::mux::EndCounts,
};

use crate::{
    calm, exchange, http,
    oracles::{LEFT_STREAMS, TWO_LINKS},
    origin,
    rng::Rng,
    sim::{
        FORBIDDEN_PORT, FORWARD_PORT, HTTP_PORT, IMPOSTOR, ORIGIN, REFUSED_PORT, ROGUE, ROGUE_ID,
        ROGUE_PORT, SERVER, Scenario, Sim, TCP_PORT, address,
    },
    strangers::{Careless, Impostor, Parrot, Stranger},
    tally::Tally,
    tcp,
    world::{CLIENT_HOST, FORMER_HOST, Fault, HostId, LINK_PORT, ROGUE_HOST, SERVER_HOST},
};

pub const STORM: Scenario = Scenario {
    configs,
    play: storm,
};

/// The default configurations leave all day; these do not.
fn configs(rng: &mut Rng) -> (ServerConfig, ClientConfig) {
    let (mut server, mut client) = crate::sim::configs(rng);
    let undelivered = rng.pick(&[CROWDED, 256 << 10, 1 << 20, 64 << 20, 64 << 20]);
    server.limits.undelivered = undelivered;
    client.limits.undelivered = undelivered;
    let seconds = |rng: &mut Rng, of: &[u64]| Duration::from_secs(rng.pick(of));
    server.proxies.push(ProxyEntry {
        client: ROGUE_ID.parse().expect("an id"),
        spec: format!("tcp:{ROGUE_PORT}:origin.test:7")
            .parse()
            .expect("a spec"),
        options: ProxyOptions::default(),
    });
    server.timeouts.request_body = seconds(rng, &[4, 60]);
    server.timeouts.request_head = seconds(rng, &[4, 30]);
    server.timeouts.half_close = seconds(rng, &[4, 60]);
    server.timeouts.drain = seconds(rng, &[1, 30]);
    client.timeouts.response_head = seconds(rng, &[4, 60]);
    client.timeouts.half_close = seconds(rng, &[4, 60]);
    client.timeouts.drain = seconds(rng, &[1, 30]);
    client.timeouts.queue = seconds(rng, &[1, 10]);
    client.timeouts.dial = seconds(rng, &[5, 10]);
    client.pool.mode = match rng.chance(10) {
        true => PoolMode::Never,
        false => PoolMode::Safe,
    };
    client.pool.max_idle = rng.pick(&[1, 1024]);
    client.pool.max_active_per_target = rng.pick(&[0, 0, 1, 3]);
    client.pool.queue_per_target = rng.pick(&[1, 1024]);
    client.pool.idle = seconds(rng, &[2, 30]);
    client.pool.age = seconds(rng, &[3, 600]);
    client.limits.dials = rng.pick(&[1, 256]);
    (server, client)
}

fn storm(sim: &mut Sim) {
    let tcp_ledger = tcp::Ledger::default();
    let ledger = Rc::new(RefCell::new(http::Ledger::default()));
    {
        let world = &mut sim.world.borrow_mut();
        let tcp_origin = tcp::Origin::new(
            address(ORIGIN, 22),
            TCP_ORIGIN,
            Rc::clone(&tcp_ledger),
            world,
        );
        let web = origin::Origin::new(address(ORIGIN, 80), WEB, Rc::clone(&ledger), world);
        let web = web.weathered(&mut world.rng);
        // Much happens while a process gets no time, and is seen in any order then.
        world.weather.freeze_percent = world.rng.pick(&[0, 20, 60]);
        world.weather.freeze_millis = world.rng.pick(&[5, 50, 200]);
        let impostor = Impostor::new(address(IMPOSTOR, LINK_PORT), IMPOSTER, world);
        sim.actors.push(Box::new(tcp_origin));
        sim.actors.push(Box::new(web));
        sim.actors.push(Box::new(impostor));
        let parrot = Parrot::new(address(ORIGIN, 7), PARROT, world);
        sim.actors.push(Box::new(parrot));
    }
    sim.link_up();
    {
        let tally = &mut sim.world.borrow_mut().tally;
        for answer in exchange::ANSWERS {
            tally.add(&origin::tallied(answer), 0);
        }
        tally.add(origin::CONTINUES, 0);
        tally.add(tcp::CONNECTED, 0);
        tally.add(TWO_LINKS, 0);
        tally.add(LEFT_STREAMS, 0);
    }

    let mut random = sim.random();
    let start = sim.world.borrow().elapsed();
    let span = Duration::from_secs(random.between(10, 90) as u64);
    sim.world.borrow_mut().begin_storm(start + span);
    if sim.client_config.limits.undelivered == CROWDED {
        // Little fits into the kernel, so that much waits here.
        sim.world.borrow_mut().weather.capacity = 4 << 10;
        if random.chance(50) {
            // Or hardly any link would live for long enough.
            sim.world.borrow_mut().storm.strike_no_more();
        }
        for user in 500..500 + random.between(30, 60) as u64 {
            let plan = tcp::Plan::long(user, &mut random);
            let user = tcp::User::new(plan, address(SERVER, TCP_PORT), &mut random);
            let deaf = Duration::from_secs(random.between(5, 40) as u64);
            let user = user.deaf_until(start + deaf);
            sim.arrive_within(Duration::from_secs(3), Box::new(user));
        }
    }
    for user in 0..random.between(2, 8) as u64 {
        let size = random.pick(&[1_000, 30_000, 300_000]);
        let plan = tcp::Plan::new(user, random.size(size), false, &mut random);
        let user = calm::user_of(plan, &[REFUSED_PORT, FORBIDDEN_PORT], &mut random);
        let user = user.weathered(&mut random);
        sim.arrive_within(span, Box::new(user));
    }
    let mood = exchange::Mood {
        bulk: false,
        rough: true,
        storm: true,
        brief: false,
        most: random.pick(&[1_000, 30_000, 300_000]),
    };
    for user in 1..=random.between(1, 6) as u64 {
        let user = http::User::new(user, mood, Rc::clone(&ledger), &mut random);
        sim.arrive_within(span, Box::new(user));
    }
    if random.chance(40) {
        let permille = random.pick(&[3, 30, 200]);
        sim.world.borrow_mut().altered = Some((address(ROGUE, 0).ip(), permille));
        sim.start(ROGUE_HOST);
        for _ in 0..random.between(1, 6) {
            let until = start + span + Duration::from_secs(random.between(0, 100) as u64);
            let user = Careless::new(address(SERVER, ROGUE_PORT), until, &mut random);
            sim.arrive_within(span, Box::new(user));
        }
    }
    rage(sim, start + span, &mut random);
    calm_down(sim);

    // Who comes now has nothing to put up with.
    let before = ledger.borrow().trouble();
    for user in 1_000..1_000 + random.between(1, 3) as u64 {
        let size = random.size(100_000);
        let plan = tcp::Plan::new(user, size, false, &mut random);
        let user = calm::user_of(plan, &[REFUSED_PORT], &mut random);
        sim.arrive(Box::new(user));
    }
    let mood = exchange::Mood {
        bulk: false,
        rough: false,
        storm: false,
        brief: sim.client_config.pool.max_active_per_target != 0,
        // Copies for a second try are no reason to run short of memory.
        most: 20_000,
    };
    let most_users = match sim.client_config.pool.max_active_per_target {
        0 => 3,
        // Others would have to wait, perhaps too long.
        _ => 1,
    };
    for user in 1_000..1_000 + random.between(1, most_users) as u64 {
        let user = http::User::new(user, mood, Rc::clone(&ledger), &mut random);
        sim.arrive(Box::new(user));
    }
    sim.run_until_all_are_done();
    assert_eq!(ledger.borrow().trouble(), before, "all is well again");
    sim.kill(ROGUE_HOST);
    sim.note_ends();
    sim.run_to_rest();
}

/// Faults strike until then.
fn rage(sim: &mut Sim, until: Duration, random: &mut Rng) {
    loop {
        let now = sim.world.borrow().elapsed();
        let pause = Duration::from_millis(random.between(10, 4_000) as u64);
        sim.run_for(pause.min(until.saturating_sub(now)));
        sim.revive(random);
        if now >= until {
            return;
        }
        let strike = sim.world.borrow_mut().draw_strike();
        if let Some(fault) = strike
            && strike_with(sim, fault, random)
        {
            sim.world.borrow_mut().struck(fault);
        }
    }
}

/// Whether there was anything to strike.
fn strike_with(sim: &mut Sim, fault: Fault, random: &mut Rng) -> bool {
    let mut host: HostId = random.between(SERVER_HOST, CLIENT_HOST);
    if host == SERVER_HOST && sim.has_former() && random.chance(50) {
        host = FORMER_HOST;
    }
    let mut world = sim.world.borrow_mut();
    match fault {
        Fault::LinkReset => return world.sever(&[LINK_PORT]),
        Fault::LinkLost => world.lose_links(),
        Fault::UserReset => return world.sever(&[TCP_PORT, HTTP_PORT, FORWARD_PORT]),
        Fault::TargetReset => return world.sever(&[22, 80]),
        Fault::Suspended => world.suspend(host),
        Fault::ClockSet => world.set_clock(),
        Fault::OutOfDescriptors => {
            let more = random.chance(70).then(|| random.between(0, 4) / 2);
            world.limit_descriptors(host, more);
            drop(world);
            // Somebody finds out: one who must dial, whatever is parked.
            for _ in 0..random.between(0, 2) {
                let plan = tcp::Plan::new(random.next(), 1_000, false, random);
                let user = calm::user_of(plan, &[REFUSED_PORT, FORBIDDEN_PORT], random);
                sim.arrive(Box::new(user));
            }
        }
        Fault::Drained => {
            if world.hosts[host].is_over {
                return false;
            }
            world.stop(host);
        }
        Fault::Succeeded => {
            drop(world);
            return sim.succeed();
        }
        Fault::Killed => {
            drop(world);
            return sim.kill(host);
        }
        Fault::Stranger => {
            drop(world);
            let stranger = Stranger::new(address(SERVER, LINK_PORT));
            sim.arrive(Box::new(stranger));
        }
        // These lie in wait.
        Fault::Refused
        | Fault::Unreachable
        | Fault::Hangs
        | Fault::NameFails
        | Fault::NameSlow
        | Fault::Impostor
        | Fault::Altered => return false,
    }
    true
}

/// Everybody who lived through it is done within a while, and the link is up again.
fn calm_down(sim: &mut Sim) {
    {
        let mut world = sim.world.borrow_mut();
        for host in [SERVER_HOST, CLIENT_HOST] {
            world.limit_descriptors(host, None);
        }
    }
    recover(sim);
    // What a process holds of the storm has its deadlines, too; and one that was asked to stop while it
    // got no time stops now.
    let settled = sim.world.borrow().elapsed() + SETTLES_WITHIN;
    while sim.world.borrow().elapsed() < settled {
        sim.run_for(Duration::from_millis(500));
        let random = &mut sim.random();
        sim.revive(random);
    }
    recover(sim);
    sim.world.borrow_mut().storm.is_excuse = false;
}

/// The link is up, and nobody has anything left to do.
fn recover(sim: &mut Sim) {
    let until = sim.world.borrow().elapsed() + RECOVERY_MAX;
    while !(sim.is_up() && sim.are_all_done()) {
        let random = &mut sim.random();
        sim.revive(random);
        sim.run_for(Duration::from_millis(500));
        assert!(
            sim.world.borrow().elapsed() < until,
            "the storm is over, and this is not: {}; up: {}; {:#?}",
            sim.summary(),
            sim.is_up(),
            sim.actors,
        );
    }
}

/// Counts how streams ended and what became of connections, by the words of logs and metrics.
pub fn note(tally: &mut Tally, who: &str, ends: &EndCounts) {
    for (word, count) in ends.iter() {
        tally.add(&format!("end at the {who}: {word}"), count);
    }
}

/// A budget that a crowd uses up by the windows that each begins with: the only one that is less than
/// may be configured, so that the crowd need not be large.
const CROWDED: usize = 128 << 10;

const TCP_ORIGIN: usize = 0;
const WEB: usize = 1;
const IMPOSTER: usize = 2;
const PARROT: usize = 3;

/// From the last fault: the worst silence until a link is given up (28 s), the longest pause before the
/// next attempt (30 s) and a dial (10 s); then the longest pause of a user (15 s) and the longest deadline
/// of a stream (60 s), each twice, since the one may begin when the other ends.
const RECOVERY_MAX: Duration = Duration::from_secs(300);

/// Beyond the longest deadline of anything that nobody uses: a half-closed connection.
const SETTLES_WITHIN: Duration = Duration::from_secs(70);
