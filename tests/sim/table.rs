//! A table of what users feel, in virtual time, kept as an expected file: a change in the scheduler, in
//! windows or in how much is said at a time shows as a diff of `table.md`.
//!
//! Two blocks. *Bulk*: so many raw streams that all send all they can, one way; how fast, how fairly,
//! and at what cost in frames, messages and calls of the kernel. *Round trips*: how long 64 bytes take
//! there and back, alone, beside bulk, and beside a reader that never reads.
//!
//! All figures are integers until they are printed, and no clock is read, so the table is the same on
//! any machine. It is a model: see [`crate::lab`] for what takes time in it and what does not.
//! `SIDING_SIM_TABLE=write cargo test --test sim table` makes the file anew.

use std::{
    cell::RefCell, env, fmt::Write as _, fs, io::ErrorKind, net::SocketAddr, path::Path, rc::Rc,
    time::Duration,
};

use siding::tunnel::Sent;

use crate::{
    lab::{CLIENT_HOST, Configs, Lab, SERVER_HOST, client_id, origin, proxy},
    rng::Rng,
    sim::{Actor, USERS},
    world::{ActorId, EndId, Lane, Watcher, World},
};

#[test]
fn the_table_is_as_expected() {
    let found = table();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sim/table.md");
    if env::var("SIDING_SIM_TABLE").is_ok_and(|what| what == "write") {
        fs::write(&path, found).expect("the table can be written");
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "tests/sim/table.md is not what it was:\n{}\n{AGAIN}",
        difference(&expected, &found)
    );
}

fn table() -> String {
    let mut bulk = vec![BULK_COLUMNS.map(str::to_owned)];
    for way in [Way::Down, Way::Up] {
        for (trip, warm, span) in TRIPS {
            for budget in BUDGETS {
                for streams in [1, 4, 16, 100] {
                    let figures = Bulk::run(way, trip, budget, streams, [warm, span]);
                    bulk.push(figures.row());
                }
            }
        }
    }
    let mut trips = vec![TRIP_COLUMNS.map(str::to_owned)];
    for (trip, count) in [(TRIPS[0].0, 200), (TRIPS[1].0, 100), (TRIPS[2].0, 40)] {
        for beside in [Beside::Nothing, Beside::Bulk, Beside::Deaf] {
            trips.push(Trips::run(trip, beside, count).row());
        }
    }
    let (bulk, trips) = (markdown(&bulk), markdown(&trips));
    format!("{HEAD}{BULK_HEAD}{bulk}{TRIPS_HEAD}{trips}")
}

/// A table of rows whose first is the head. A column is as wide as its head at least, so that a figure
/// which gets a digit more seldom moves all others.
pub fn markdown<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max();
    let widths: [usize; COLUMNS] = std::array::from_fn(|column| width(column).unwrap_or(0));
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(widths) {
            text += &format!("| {cell:>width$} ");
        }
        text += "|\n";
        if index == 0 {
            for width in widths {
                text += &format!("|{:->1$}:", "", width + 1);
            }
            text += "|\n";
        }
    }
    text
}

/// Which way bulk goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// From the origin to the user.
    Down,
    Up,
}

/// What the streams of one scenario came to, within the measured span.
struct Bulk {
    way: Way,
    trip: Duration,
    budget: usize,
    /// Bytes that arrived, by stream.
    bytes: Vec<u64>,
    /// Bytes of all that arrived before: while windows grow.
    before: u64,
    spans: [Duration; 2],
    /// By whoever sends the data, and by whoever receives it.
    sent: [Sent; 2],
    /// Reads and writes of the server, and of the client.
    calls: [[u64; 2]; 2],
}

impl Bulk {
    fn run(way: Way, trip: Duration, budget: usize, streams: usize, spans: [Duration; 2]) -> Bulk {
        let mut lab = world(trip, budget);
        let tally = Rc::new(RefCell::new(Vec::new()));
        lab.add(|world, me| Box::new(Origin::new(DOWN, me, Play::Send, &tally, world)));
        lab.add(|world, me| Box::new(Origin::new(UP, me, Play::Receive, &tally, world)));
        let (port, play) = match way {
            Way::Down => (DOWN, Play::Receive),
            Way::Up => (UP, Play::Send),
        };
        for _ in 0..streams {
            lab.add(|_, _| Box::new(User::new(port, play, &tally)));
        }
        lab.run_for(spans[0]);
        let before: u64 = tally.borrow().iter().sum();
        tally.borrow_mut().fill(0);
        let (sent_before, calls_before) = (sent(&mut lab), calls(&lab));
        lab.run_for(spans[1]);
        let mut bytes = tally.borrow().clone();
        assert_eq!(bytes.len(), streams, "each stream has its place");
        bytes.sort_unstable();
        let mut sent = sent(&mut lab);
        for (sent, before) in sent.iter_mut().zip(sent_before) {
            sent.messages -= before.messages;
            sent.frames -= before.frames;
            sent.bytes -= before.bytes;
        }
        if way == Way::Down {
            sent.reverse();
        }
        let mut calls = calls(&lab);
        for (calls, before) in calls
            .as_flattened_mut()
            .iter_mut()
            .zip(calls_before.as_flattened())
        {
            *calls -= before;
        }
        Bulk {
            way,
            trip,
            budget,
            bytes,
            before,
            spans,
            sent,
            calls,
        }
    }
}

impl Bulk {
    fn row(&self) -> [String; BULK_COLUMNS.len()] {
        let total: u64 = self.bytes.iter().sum();
        let squares: u128 = self.bytes.iter().map(|&it| u128::from(it).pow(2)).sum();
        let streams = self.bytes.len() as u128;
        let rate = |bytes: u64, span: Duration| ratio(bytes.into(), span.as_micros(), 2);
        let [there, back] = self.sent;
        let per_mib = |count: u64| ratio(u128::from(count) << 20, total.into(), 0);
        let [server, client] = self.calls.map(|of_host| of_host.map(per_mib));
        let [server_reads, server_writes] = server;
        let [client_reads, client_writes] = client;
        [
            match self.way {
                Way::Down => "down".into(),
                Way::Up => "up".into(),
            },
            millis(self.trip),
            format!("{} MiB", self.budget >> 20),
            streams.to_string(),
            rate(self.before, self.spans[0]),
            rate(total, self.spans[1]),
            ratio(u128::from(total).pow(2), streams * squares, 3),
            ratio(u128::from(self.bytes[0]) * streams, total.into(), 3),
            ratio(there.frames.into(), there.messages.into(), 1),
            ratio(there.bytes.into(), u128::from(there.messages) << 10, 1),
            per_mib(back.messages),
            server_reads,
            server_writes,
            client_reads,
            client_writes,
        ]
    }
}

/// What goes on beside the round trips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    Nothing,
    /// Four downloads.
    Bulk,
    /// A download whose user never reads.
    Deaf,
}

/// How long 64 bytes took, each time, sorted.
struct Trips {
    trip: Duration,
    beside: Beside,
    took: Vec<Duration>,
}

impl Trips {
    fn run(trip: Duration, beside: Beside, count: usize) -> Trips {
        let mut lab = world(trip, BUDGETS[0]);
        let tally = Rc::new(RefCell::new(Vec::new()));
        lab.add(|world, me| Box::new(Origin::new(DOWN, me, Play::Send, &tally, world)));
        lab.add(|world, me| Box::new(Origin::new(ECHO, me, Play::Echo, &tally, world)));
        let (others, play) = match beside {
            Beside::Nothing => (0, Play::Deaf),
            Beside::Bulk => (4, Play::Receive),
            Beside::Deaf => (1, Play::Deaf),
        };
        for _ in 0..others {
            lab.add(|_, _| Box::new(User::new(DOWN, play, &tally)));
        }
        // Until windows have grown.
        lab.run_for(trip * 5 + Duration::from_millis(100));
        let took = Rc::new(RefCell::new(Vec::new()));
        lab.add(|_, _| Box::new(Pinger::new(count, &took)));
        lab.run_until("all trips are made", |_| took.borrow().len() == count);
        let mut took = took.take();
        took.sort_unstable();
        Trips { trip, beside, took }
    }
}

impl Trips {
    fn row(&self) -> [String; TRIP_COLUMNS.len()] {
        let of_hundred = |percent: usize| {
            let place = (self.took.len() * percent).div_ceil(100) - 1;
            millis(self.took[place])
        };
        [
            millis(self.trip),
            match self.beside {
                Beside::Nothing => "nothing".into(),
                Beside::Bulk => "4 downloads".into(),
                Beside::Deaf => "a reader that never reads".into(),
            },
            of_hundred(50),
            of_hundred(99),
            of_hundred(100),
        ]
    }
}

fn world(trip: Duration, budget: usize) -> Lab {
    let lane = Lane {
        one_way: trip / 2,
        rate: RATE,
        unsent_max: 16 << 10,
    };
    let proxies = [DOWN, UP, ECHO].map(|port| (port, port));
    Lab::new(lane, &proxies, Configs::with_budget(budget))
}

/// By the server, and by the client.
fn sent(lab: &mut Lab) -> [Sent; 2] {
    [
        lab.server.role.sent_to(&client_id()),
        lab.client.role.sent(),
    ]
}

fn calls(lab: &Lab) -> [[u64; 2]; 2] {
    let world = lab.world.borrow();
    [SERVER_HOST, CLIENT_HOST].map(|host| [world.hosts[host].reads, world.hosts[host].writes])
}

/// What somebody does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Play {
    /// Sends all that it takes.
    Send,
    Receive,
    /// Sends back what comes.
    Echo,
    /// Never reads, or never again.
    Deaf,
}

/// Bytes received, by stream.
pub type Tally = Rc<RefCell<Vec<u64>>>;

/// One end that somebody plays with.
#[derive(Debug)]
struct Player {
    end: EndId,
    play: Play,
    /// Its place in the tally, if it receives.
    place: usize,
}

impl Player {
    fn new(end: EndId, play: Play, tally: &Tally) -> Player {
        let place = tally.borrow().len();
        if play == Play::Receive {
            tally.borrow_mut().push(0);
        }
        Player { end, play, place }
    }

    /// Does what can be done now.
    fn step(&mut self, tally: &Tally, world: &mut World) {
        let mut piece = [0; 64 << 10];
        match self.play {
            Play::Send => while write(world, self.end, &piece) > 0 {},
            Play::Receive => loop {
                match read(world, self.end, &mut piece) {
                    0 => return,
                    length => tally.borrow_mut()[self.place] += length as u64,
                }
            },
            Play::Echo => match read(world, self.end, &mut piece) {
                0 if !world.is_ended(self.end) => {}
                0 => {
                    world.close(self.end);
                    self.play = Play::Deaf;
                }
                length => assert_eq!(write(world, self.end, &piece[..length]), length),
            },
            Play::Deaf => {}
        }
    }
}

/// Everybody who is connected to one port of the origin.
#[derive(Debug)]
pub struct Origin {
    address: SocketAddr,
    play: Play,
    players: Vec<Player>,
    tally: Tally,
}

impl Origin {
    pub fn new(port: u16, me: ActorId, play: Play, tally: &Tally, world: &mut World) -> Origin {
        let address = origin(port);
        let free = world.listen(address, Watcher::Actor(me));
        free.expect("the origin's address is free");
        Origin {
            address,
            play,
            players: Vec::new(),
            tally: Rc::clone(tally),
        }
    }
}

impl Actor for Origin {
    fn step(&mut self, world: &mut World, me: ActorId) {
        while let Ok((end, _)) = world.accept(self.address) {
            world.watch(end, Watcher::Actor(me));
            self.players.push(Player::new(end, self.play, &self.tally));
        }
        for player in &mut self.players {
            player.step(&self.tally, world);
        }
    }

    fn is_done(&self) -> bool {
        false
    }
}

/// A user with one stream.
#[derive(Debug)]
pub struct User {
    port: u16,
    play: Play,
    player: Option<Player>,
    tally: Tally,
}

impl User {
    pub fn new(port: u16, play: Play, tally: &Tally) -> User {
        User {
            port,
            play,
            player: None,
            tally: Rc::clone(tally),
        }
    }
}

impl Actor for User {
    fn step(&mut self, world: &mut World, me: ActorId) {
        match &mut self.player {
            Some(player) => player.step(&self.tally, world),
            None => {
                let end = connect(self.port, me, world);
                self.player = Some(Player::new(end, self.play, &self.tally));
            }
        }
    }

    fn is_done(&self) -> bool {
        false
    }
}

/// A user who says 64 bytes, awaits them, and after a while says them again.
#[derive(Debug)]
pub struct Pinger {
    /// Of round trips, after which it leaves.
    count: usize,
    end: Option<EndId>,
    said: Option<Duration>,
    come: usize,
    waits_until: Duration,
    /// How long it waits: from a seed of its own; always the same, it would fall into step with the batches.
    moods: Rng,
    took: Rc<RefCell<Vec<Duration>>>,
}

impl Pinger {
    pub fn new(count: usize, took: &Rc<RefCell<Vec<Duration>>>) -> Pinger {
        Pinger {
            count,
            end: None,
            said: None,
            come: 0,
            waits_until: Duration::ZERO,
            moods: Rng(1),
            took: Rc::clone(took),
        }
    }
}

impl Actor for Pinger {
    fn step(&mut self, world: &mut World, me: ActorId) {
        if self.took.borrow().len() == self.count {
            return;
        }
        let Some(end) = self.end else {
            self.end = Some(connect(ECHO, me, world));
            // By then the target is connected, too.
            self.waits_until = world.elapsed() + Duration::from_secs(1);
            return world.wake(me, Duration::from_secs(1));
        };
        let now = world.elapsed();
        let Some(said) = self.said else {
            if now >= self.waits_until {
                self.said = Some(now);
                assert_eq!(write(world, end, &PING), PING.len());
            }
            return;
        };
        self.come += read(world, end, &mut [0; 2 * PING.len()]);
        if self.come == PING.len() {
            (self.said, self.come) = (None, 0);
            self.took.borrow_mut().push(now - said);
            if self.took.borrow().len() == self.count {
                return world.close(end);
            }
            let thinks = Duration::from_micros(self.moods.between(1_000, 5_000) as u64);
            self.waits_until = now + thinks;
            world.wake(me, thinks);
        }
    }

    fn is_done(&self) -> bool {
        false
    }
}

fn connect(port: u16, me: ActorId, world: &mut World) -> EndId {
    let end = world.connect(proxy(port), USERS);
    world.watch(end, Watcher::Actor(me));
    end
}

/// How much was taken.
fn write(world: &mut World, end: EndId, bytes: &[u8]) -> usize {
    match world.write(end, bytes) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        taken => taken.expect("nobody ends here"),
    }
}

/// How much came.
fn read(world: &mut World, end: EndId, into: &mut [u8]) -> usize {
    match world.read(end, into) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        come => come.expect("nobody ends here"),
    }
}

/// A ratio with so many digits behind the point, rounded half up: in integers, so that it is the same
/// everywhere.
fn ratio(part: u128, whole: u128, digits: usize) -> String {
    let unit = 10_u128.pow(digits as u32);
    let Some(rounded) = (2 * part * unit + whole).checked_div(2 * whole) else {
        return "-".into();
    };
    match digits {
        0 => rounded.to_string(),
        _ => format!("{}.{:0digits$}", rounded / unit, rounded % unit),
    }
}

fn millis(time: Duration) -> String {
    ratio(time.as_nanos(), 1_000_000, 2)
}

/// The lines that differ, one above the other.
fn difference(expected: &str, found: &str) -> String {
    let mut text = String::new();
    let (mut old, mut new) = (expected.lines(), found.lines());
    loop {
        match (old.next(), new.next()) {
            (None, None) => return text,
            (old, new) if old == new => {}
            (old, new) => {
                for (sign, line) in [('-', old), ('+', new)] {
                    if let Some(line) = line {
                        writeln!(text, "{sign} {line}").expect("a string takes all");
                    }
                }
            }
        }
    }
}

/// 100 Mbit/s: slow enough to be filled in a test, and by one stream over the longest link.
const RATE: u64 = 12_500_000;

/// Round trips of the link; how long windows may grow, and how long is measured.
const TRIPS: [(Duration, Duration, Duration); 3] = [
    (
        Duration::from_micros(200),
        Duration::from_millis(100),
        Duration::from_millis(1_000),
    ),
    (
        Duration::from_millis(10),
        Duration::from_millis(500),
        Duration::from_millis(1_000),
    ),
    (
        Duration::from_millis(100),
        Duration::from_millis(1_000),
        Duration::from_millis(2_000),
    ),
];

/// The default, and a router's.
const BUDGETS: [usize; 2] = [64 << 20, 4 << 20];

const PING: [u8; 64] = [7; 64];

/// The ports, of the proxies and of the origin, where the far side sends, receives, and echoes.
pub const DOWN: u16 = 1_001;
pub const UP: u16 = 1_002;
pub const ECHO: u16 = 1_003;

const AGAIN: &str = "If it is meant to be so: SIDING_SIM_TABLE=write cargo test --test sim table";

const HEAD: &str = "\
# Throughput, fairness and latency, in virtual time

Made by `SIDING_SIM_TABLE=write cargo test --test sim table`, the same on every machine: the release
code of both roles on a simulated network, where a turn takes each process 10 µs and the link carries
12.5 MB/s each way. Users, targets and all other pipes are fast. What differs after a change shows what the
change does; the model is in `lab.rs`, the scenarios in `table.rs`.
";

const BULK_HEAD: &str = "
## Bulk

Raw streams that send all they can, from the origin to the user (down) or to the origin (up). *At first*
is while windows grow: the first 100, 500 and 1000 ms; all else is of the 1, 1 and 2 s after that. *Jain*
is 1 where all streams get the same, 1/n where one gets all; *slowest* is relative to the mean. Messages
*back* (credit) and calls of the kernel are for each MiB of data.

";

const BULK_COLUMNS: [&str; 15] = [
    "way",
    "trip, ms",
    "budget",
    "streams",
    "MB/s at first",
    "MB/s",
    " Jain",
    "slowest",
    "frames/message",
    "KiB/message",
    "back",
    "server reads",
    "server writes",
    "client reads",
    "client writes",
];

const TRIPS_HEAD: &str = "
## Round trips

64 bytes from a user to an echo and back, in milliseconds; again 1 to 5 ms after each.

";

const TRIP_COLUMNS: [&str; 5] = ["link, ms", "beside", "     p50", "     p99", "   worst"];
