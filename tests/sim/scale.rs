//! Scale past any one machine: a million idle streams, and 100,000 parked connections.
//!
//! What a stream costs while nobody says anything must not depend on how many others there are: bytes
//! of each process ([`crate::heap`]: the simulated network pays for itself), turns and timers while all
//! is idle, turns and timers of one busy stream among them; and nothing is left when all have ended.
//! That is asserted. How long turns take is a matter of the machine, and is printed:
//! `cargo test --release --test sim -- --ignored scale --nocapture`.

use std::{
    cell::RefCell,
    net::{IpAddr, Ipv4Addr},
    rc::Rc,
    time::Duration,
};

use crate::{
    heap::Payer,
    lab::{CLIENT_HOST, Configs, LINK_PORT, Lab, SERVER_HOST, origin, proxy},
    table::{Origin, Pinger, Play, markdown},
    world::{EndId, Lane, Watcher, World},
};

#[test]
fn an_idle_stream_costs_the_same_however_many_there_are() {
    streams(&[2_000, 4_000]);
}

#[test]
fn a_parked_connection_costs_the_same_however_many_there_are() {
    parked(&[2_000, 4_000]);
}

#[test]
#[ignore = "slow"]
fn scale_to_a_million_idle_streams() {
    println!("{}", streams(&[1_000, 10_000, 100_000, 1_000_000]));
}

#[test]
#[ignore = "slow"]
fn scale_to_100_000_parked_connections() {
    println!("{}", parked(&[1_000, 10_000, 100_000]));
}

fn streams(counts: &[usize]) -> String {
    let mut rows = vec![STREAM_COLUMNS.map(str::to_owned)];
    let mut few = None;
    for &count in counts {
        let figures = Streams::run(count);
        let few: &[Work; 2] = few.get_or_insert([figures.idle, figures.busy.work]);
        figures.idle.check(&few[0], count);
        figures.busy.work.check(&few[1], count);
        for host in HOSTS {
            let (bytes, left) = (figures.bytes[host] * count, figures.left[host]);
            check_bytes(bytes, STREAM_BYTES_MAX, count);
            check_bytes(left, STREAM_BYTES_LEFT_MAX, count);
        }
        rows.push(figures.row());
    }
    markdown(&rows)
}

fn parked(counts: &[usize]) -> String {
    let mut rows = vec![PARKED_COLUMNS.map(str::to_owned)];
    let mut few = None;
    for &count in counts {
        let figures = Parked::run(count);
        let few: &Work = few.get_or_insert(figures.busy.work);
        figures.busy.work.check(few, count);
        check_bytes(figures.bytes * count, PARKED_BYTES_MAX, count);
        check_bytes(figures.left, PARKED_BYTES_LEFT_MAX, count);
        // Those of the link are a few beside them.
        let (timers, most) = (figures.timers, TIMERS_PER_EXCHANGE_MAX * count as u64 + 64);
        assert!(timers <= most, "{timers} moves of timers for {count}");
        rows.push(figures.row());
    }
    markdown(&rows)
}

/// For each there may be so many bytes. What holds them grows by doubling, and a wave of new ones has
/// timers and dials for a while.
fn check_bytes(bytes: usize, most: usize, count: usize) {
    let places = (count + 2 * WAVE).next_power_of_two();
    assert!(
        bytes <= most * places + BYTES_KEPT_MAX,
        "{bytes} bytes, for {count} and {most} each"
    );
}

/// What both processes did: by host.
#[derive(Clone, Copy, Debug)]
struct Work {
    turns: [u64; 2],
    /// How often timers were put into the wheel.
    timers: [u64; 2],
}

impl Work {
    fn so_far(lab: &Lab) -> Work {
        Work {
            turns: lab.turns,
            timers: [lab.server.io.timers_placed(), lab.client.io.timers_placed()],
        }
    }

    /// It is as much as among few others, but for a ping that may fall into it or not.
    fn check(&self, few: &Work, count: usize) {
        let all = |work: &Work| [work.turns, work.timers].concat();
        let same = all(self)
            .iter()
            .zip(all(few))
            .all(|(now, few)| now.abs_diff(few) <= 4);
        assert!(same, "{self:?} among {count}, {few:?} among few");
    }

    fn since(self, lab: &Lab) -> Work {
        let now = Work::so_far(lab);
        let less = |now: [u64; 2], then: [u64; 2]| [now[0] - then[0], now[1] - then[1]];
        Work {
            turns: less(now.turns, self.turns),
            timers: less(now.timers, self.timers),
        }
    }
}

/// What the processes are before anybody has come.
struct Rest {
    bytes: [usize; 2],
    sockets: [usize; 2],
}

impl Rest {
    fn of(lab: &Lab) -> Rest {
        Rest {
            bytes: HOSTS.map(|host| Payer::Host(host).bytes()),
            sockets: [lab.server.io.len(), lab.client.io.len()],
        }
    }

    /// Bytes that have come since for each of so many.
    fn bytes_for_each(&self, count: usize) -> [usize; 2] {
        HOSTS.map(|host| (Payer::Host(host).bytes() - self.bytes[host]) / count)
    }

    /// Waits for all that ends by itself. Then everything is as it was, but for the bytes that are kept
    /// for the next time.
    fn is_back(&self, lab: &mut Lab) -> [usize; 2] {
        lab.run_for(Duration::from_secs(90));
        let now = Rest::of(lab);
        assert_eq!(now.sockets, self.sockets, "nothing is left in the reactors");
        HOSTS.map(|host| now.bytes[host].saturating_sub(self.bytes[host]))
    }
}

/// One stream in which 64 bytes go to and fro, among so many idle ones.
struct Busy {
    work: Work,
    /// Of turns.
    median: [Duration; 2],
}

impl Busy {
    fn run(lab: &mut Lab) -> Busy {
        let tally = Rc::default();
        lab.add(|world, me| Box::new(Origin::new(ECHO, me, Play::Echo, &tally, world)));
        let trips = Rc::new(RefCell::new(Vec::new()));
        lab.add(|_, _| Box::new(Pinger::new(10 + TRIPS, &trips)));
        let so_many = |count: usize| {
            let trips = Rc::clone(&trips);
            move |_: &mut Lab| trips.borrow().len() == count
        };
        lab.run_until("the stream is at work", so_many(10));
        lab.took = Some(Default::default());
        let before = Work::so_far(lab);
        lab.run_until("all trips are made", so_many(10 + TRIPS));
        let work = before.since(lab);
        let median = lab.took.take().unwrap_or_default().map(|mut took| {
            took.sort_unstable();
            took[took.len() / 2]
        });
        // Until it has left.
        lab.run_for(Duration::from_secs(1));
        Busy { work, median }
    }
}

/// So many idle raw streams.
struct Streams {
    count: usize,
    /// Of each process, for each stream.
    bytes: [usize; 2],
    world_bytes: usize,
    /// Of the turns until all were open, for each.
    opened: [Duration; 2],
    idle: Work,
    busy: Busy,
    /// Of the turns in which they ended because their link was lost.
    ended: [Vec<Duration>; 2],
    left: [usize; 2],
}

impl Streams {
    fn run(count: usize) -> Streams {
        let mut lab = world(count);
        let rest = Rest::of(&lab);
        let world_rest = Payer::World.bytes();
        lab.world
            .borrow_mut()
            .listen(origin(TARGET), Watcher::Nobody)
            .expect("the origin's address is free");
        lab.took = Some(Default::default());
        let mut targets = 0;
        let mut users = 0;
        while users < count {
            for _ in 0..WAVE.min(count - users) {
                arrive(&mut lab.world.borrow_mut(), users, TCP);
                users += 1;
            }
            lab.run_until("the targets of a wave are connected", |lab| {
                let mut world = lab.world.borrow_mut();
                while world.accept(origin(TARGET)).is_ok() {
                    targets += 1;
                }
                targets == users
            });
        }
        let opened = lab.took.take().unwrap_or_default();
        let opened = opened.map(|took| took.iter().sum::<Duration>() / count as u32);
        lab.run_for(Duration::from_secs(1));
        assert_eq!(lab.server.role.users(), count);
        assert_eq!(lab.client.role.streams(), count);
        let bytes = rest.bytes_for_each(count);
        let world_bytes = (Payer::World.bytes() - world_rest) / count;

        let before = Work::so_far(&lab);
        lab.run_for(Duration::from_secs(150));
        let idle = before.since(&lab);
        let busy = Busy::run(&mut lab);

        lab.took = Some(Default::default());
        assert!(lab.world.borrow_mut().sever(&[LINK_PORT]));
        lab.run_until("all streams have ended", |lab| {
            lab.server.role.users() + lab.client.role.streams() == 0
        });
        let ended = lab.took.take().unwrap_or_default();
        lab.run_until("the link is up again", |lab| lab.client.role.is_linked());
        let left = rest.is_back(&mut lab);
        Streams {
            count,
            bytes,
            world_bytes,
            opened,
            idle,
            busy,
            ended,
            left,
        }
    }

    fn row(&self) -> [String; STREAM_COLUMNS.len()] {
        let [ended_server, ended_client] = self.ended.each_ref().map(|took| sum(took));
        [
            self.count.to_string(),
            pair(self.bytes),
            self.world_bytes.to_string(),
            pair(self.opened.map(micros)),
            pair(self.idle.turns),
            pair(self.busy.work.turns),
            pair(self.busy.median.map(micros)),
            pair(self.ended.each_ref().map(Vec::len)),
            pair([ended_server, ended_client].map(millis)),
            pair(self.left),
        ]
    }
}

/// So many connections in the pool of the client.
struct Parked {
    count: usize,
    /// Of the client, for each.
    bytes: usize,
    busy: Busy,
    /// Of the turns in which they expired.
    expired: Vec<Duration>,
    /// Moves of timers in the client's wheel, from the first dial until all are gone.
    timers: u64,
    left: usize,
}

impl Parked {
    fn run(count: usize) -> Parked {
        let mut lab = world(count);
        let rest = Rest::of(&lab);
        let before = Work::so_far(&lab);
        let free = lab.world.borrow_mut().listen(origin(80), Watcher::Nobody);
        free.expect("the origin's address is free");
        let mut users: Vec<EndId> = Vec::new();
        let mut targets: Vec<EndId> = Vec::new();
        while users.len() < count {
            let wave = users.len()..count.min(users.len() + WAVE);
            for user in wave.clone() {
                users.push(arrive(&mut lab.world.borrow_mut(), user, HTTP));
            }
            lab.run_for(Duration::from_millis(1));
            for user in &users[wave] {
                let sent = lab.world.borrow_mut().write(*user, REQUEST);
                assert_eq!(sent.expect("it is connected"), REQUEST.len());
            }
            lab.run_until("a wave has reached the origin", |lab| {
                let mut world = lab.world.borrow_mut();
                while let Ok((end, _)) = world.accept(origin(80)) {
                    targets.push(end);
                }
                targets.len() == users.len()
            });
        }
        lab.run_for(Duration::from_millis(10));
        // All are answered at once, so that none could take another's connection.
        for target in &targets {
            let mut world = lab.world.borrow_mut();
            assert!(read(&mut world, *target) > 0, "each is asked once");
            let sent = world.write(*target, ANSWER);
            assert_eq!(sent.expect("there is room"), ANSWER.len());
        }
        lab.run_until("all are parked", |lab| lab.client.role.parked() == count);
        lab.run_for(Duration::from_millis(100));
        for user in &users {
            let mut world = lab.world.borrow_mut();
            assert!(read(&mut world, *user) > 0, "each is answered");
            world.close(*user);
        }
        lab.run_until("the users have left", |lab| lab.server.role.users() == 0);
        let [_, bytes] = rest.bytes_for_each(count);
        let busy = Busy::run(&mut lab);

        lab.took = Some(Default::default());
        lab.run_until("all have expired", |lab| lab.client.role.parked() == 0);
        let [_, expired] = lab.took.take().unwrap_or_default();
        let timers = before.since(&lab).timers[CLIENT_HOST] - busy.work.timers[CLIENT_HOST];
        for target in targets {
            lab.world.borrow_mut().close(target);
        }
        assert!(lab.world.borrow_mut().sever(&[LINK_PORT]));
        lab.run_for(Duration::from_secs(1));
        lab.run_until("the link is up again", |lab| lab.client.role.is_linked());
        let [_, left] = rest.is_back(&mut lab);
        Parked {
            count,
            bytes,
            busy,
            expired,
            timers,
            left,
        }
    }

    fn row(&self) -> [String; PARKED_COLUMNS.len()] {
        let each = self.timers * 100 / self.count as u64;
        [
            self.count.to_string(),
            self.bytes.to_string(),
            pair(self.busy.work.turns),
            pair(self.busy.median.map(micros)),
            self.expired.len().to_string(),
            millis(sum(&self.expired)),
            millis(self.expired.iter().max().copied().unwrap_or_default()),
            format!("{}.{:02}", each / 100, each % 100),
            self.left.to_string(),
        ]
    }
}

/// A world with room for so many, whose link takes no time worth mentioning.
fn world(count: usize) -> Lab {
    let lane = Lane {
        one_way: Duration::from_micros(50),
        rate: 10_000_000_000,
        unsent_max: 16 << 10,
    };
    let mut configs = Configs::with_budget(64 << 20);
    configs.client.limits.dials = WAVE;
    configs.client.pool.max_idle = count;
    configs.client.pool.max_idle_per_target = count;
    let proxies = [(TCP, TARGET), (HTTP, 80), (ECHO, ECHO)];
    let mut lab = Lab::new(lane, &proxies, configs);
    // They take a step for each socket.
    (lab.server.checked, lab.client.checked) = (false, false);
    lab
}

/// A user connects, each from a port of its own.
fn arrive(world: &mut World, user: usize, port: u16) -> EndId {
    let from = u32::from(Ipv4Addr::new(203, 0, 0, 0)) + user as u32 / PORTS_PER_ADDRESS;
    world.connect(proxy(port), IpAddr::from(Ipv4Addr::from(from)))
}

/// How much there was.
fn read(world: &mut World, end: EndId) -> usize {
    world.read(end, &mut [0; 4096]).unwrap_or(0)
}

fn sum(took: &[Duration]) -> Duration {
    took.iter().sum()
}

fn pair<T: ToString>([server, client]: [T; 2]) -> String {
    format!("{} / {}", server.to_string(), client.to_string())
}

fn micros(time: Duration) -> String {
    format!("{:.1}", time.as_nanos() as f64 / 1e3)
}

fn millis(time: Duration) -> String {
    format!("{:.1}", time.as_nanos() as f64 / 1e6)
}

const HOSTS: [usize; 2] = [SERVER_HOST, CLIENT_HOST];

/// Of each process, for an idle plain stream.
const STREAM_BYTES_MAX: usize = 512;

/// Of each process, for a stream that has ended.
const STREAM_BYTES_LEFT_MAX: usize = 0;

/// Of the client: its socket, its entry in the pool, and its timer.
const PARKED_BYTES_MAX: usize = 512;

/// Of the client, for a connection that has expired: the entries of the pool and of the timer wheel are
/// kept for the next.
const PARKED_BYTES_LEFT_MAX: usize = 128;

/// Of each process, whatever there was: buffers, and slabs too small to be given back.
const BYTES_KEPT_MAX: usize = 384 << 10;

/// What an exchange and the life in the pool after it may put into the wheel: the deadlines of a dial, of
/// a response and of being idle, each of which may come down a level or two before it is due or moved.
const TIMERS_PER_EXCHANGE_MAX: u64 = 6;

/// Users who come at a time: as many as may be dialled for at a time.
const WAVE: usize = 250;

/// Those that a kernel gives to connections, about.
const PORTS_PER_ADDRESS: u32 = 30_000;

/// Round trips of the one busy stream.
const TRIPS: usize = 1_000;

const TCP: u16 = 1_001;
const HTTP: u16 = 1_002;
/// As [`Pinger`] has it.
const ECHO: u16 = 1_003;
const TARGET: u16 = 22;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: origin.test\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

const STREAM_COLUMNS: [&str; 10] = [
    "streams",
    "bytes, server / client",
    "bytes, world",
    "to open, µs",
    "turns in 150 idle s",
    "turns of 1,000 trips",
    "median of a turn, µs",
    "turns to end",
    "to end, ms",
    "bytes left",
];

const PARKED_COLUMNS: [&str; 9] = [
    "parked",
    "bytes, client",
    "turns of 1,000 trips",
    "median of a turn, µs",
    "turns to expire",
    "to expire, ms",
    "longest turn, ms",
    "timer moves for each",
    "bytes left, client",
];
