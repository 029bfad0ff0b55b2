//! What a peer costs while nothing happens: to start, at rest, for each connection that idles, and for
//! each one that is parked at the origin.

use std::{
    fs, io,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    bulk::BulkOrigin,
    common::{Authority, PATIENCE, Scratch, pass, require, run, with_deadlines},
    cost::{Side, Sides},
    figures::{Figures, Median},
    hold::Holder,
    limits,
    measure::Scale,
    payload,
    peers::{Answers, Order, Peer, Speaks, once},
    service::Asks,
};

/// Connections that are being opened at the same time.
const OPENING: usize = 16;

/// How long a peer may take to open all that are asked for.
const OPENED: Duration = Duration::from_secs(20);

/// Users who ask at a time where the answers are held back.
const ASKING: usize = 1000;

/// Descriptors of a process beside those of connections, at most.
const OTHERS: usize = 100;

/// Names of what each connection adds to both sides, to the server and to the agent.
const CONNECTION: [&str; 3] = [
    "bytes/connection",
    "server's bytes/connection",
    "agent's bytes/connection",
];

/// The same of each connection that is parked.
const PARKED: [&str; 3] = [
    "bytes/parked",
    "server's bytes/parked",
    "agent's bytes/parked",
];

/// How long a peer may take to close what its users have closed.
const CLOSING: Duration = Duration::from_secs(10);

/// A span over which a peer that has nothing more to do uses next to nothing.
const QUIET: Duration = Duration::from_millis(100);

/// How often it is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Starts a peer a few times: how soon it serves, and what it holds then.
///
/// # Errors
/// It does not serve.
pub fn start(peer: &Peer, scale: &Scale) -> io::Result<Figures> {
    let origin = BulkOrigin::start();
    let order = Order::streams(origin.address());
    let (mut listened, mut served) = (Vec::new(), Vec::new());
    let (mut server, mut agent) = (Vec::new(), Vec::new());
    for _ in 0..scale.starts {
        let running = peer.start(&order)?;
        let resident = |side: &Option<Side>| mib(side.as_ref().map_or(0, Side::resident));
        listened.push(running.listened_after.as_secs_f64() * 1e3);
        served.push(running.served_after.as_secs_f64() * 1e3);
        server.push(resident(&running.sides.server));
        agent.push(resident(&running.sides.agent));
    }
    let mut figures = Figures::default();
    for (name, values) in [
        ("server listens after ms", listened),
        ("agent's first byte after ms", served),
        ("server's resident MiB", server),
        ("agent's resident MiB", agent),
    ] {
        let median = Median::of(values).expect("it was started once at least");
        figures.less(name, median.middle);
    }
    if let Some(bytes) = stripped(peer.programs()) {
        figures.less("stripped MiB", mib(bytes));
    }
    Ok(figures)
}

/// Bytes of programs without their symbols; of the first two, which are all that runs. `None` where
/// nothing can strip them.
fn stripped(programs: &[PathBuf]) -> Option<u64> {
    let strip = require("strip")?;
    let scratch = Scratch::new();
    let mut bytes = 0;
    for program in programs.iter().take(2) {
        let into = scratch.path("stripped");
        let mut command = Command::new(&strip);
        command.arg("-o").arg(&into).arg(program);
        run(&mut command, Vec::new(), PATIENCE).succeeded();
        bytes += fs::metadata(&into).ok()?.len();
    }
    Some(bytes)
}

/// Connections of users that stay and say nothing.
///
/// # Errors
/// The limit of descriptors forbids it, or the peer does not serve.
pub fn idle(peer: &Peer, count: usize, scale: &Scale) -> io::Result<Figures> {
    let count = count.min(scale.connections_max);
    check_limit(peer.descriptors(count))?;
    let holder = Holder::start(Asks::Byte, 0, None);
    let running = peer.start(&Order {
        speaks: Speaks::Tcp,
        target: holder.address(),
        answers: Answers::Exchanges(Asks::Byte),
        authority: None,
        parked: None,
    })?;
    let sides = &running.sides;
    let rest = Held::by(sides);
    let start = Instant::now();
    let mut users = in_parallel(count, |number| {
        once(running.address, Asks::Byte, number as u64, PATIENCE)
    })?;
    let took = start.elapsed();
    let idle = idle_share(sides, scale.measured);

    let mut figures = Figures::default();
    rest.each_into(&mut figures, &Held::by(sides), count, CONNECTION);
    figures.less("idle CPU %", 100.0 * idle);
    figures.more("opened/s", count as f64 / took.as_secs_f64());
    // They are still what they were.
    for (number, user) in users.iter_mut().enumerate() {
        let mut byte = [0];
        user.write_all(b"?")
            .and_then(|()| user.read_exact(&mut byte))
            .map_err(|error| of_connection(number, &error))?;
        if byte != *b"?" {
            return Err(payload::wrong("another byte came back"));
        }
    }
    drop(users);
    rest.after_into(&mut figures, sides);
    Ok(figures)
}

/// Connections to an HTTP origin that are parked, all of them at once.
///
/// # Errors
/// As of [`idle`].
pub fn parked(peer: &Peer, count: usize, speaks: Speaks, scale: &Scale) -> io::Result<Figures> {
    let count = count.min(scale.connections_max);
    check_limit(peer.descriptors(count))?;
    const ASKS: Asks = Asks::Http { body: 1024 };
    let authority = (speaks == Speaks::Https).then(Authority::new);
    let file = authority.as_ref().map(Authority::file);
    // That many answers are held back until that many connections are open.
    let holder = Holder::start(ASKS, count, authority.as_ref());
    let running = peer.start(&Order {
        speaks,
        target: holder.address(),
        answers: Answers::Exchanges(ASKS),
        authority: file.as_deref(),
        parked: Some(count),
    })?;
    let sides = &running.sides;
    let rest = Held::by(sides);
    let mut users = Vec::new();
    while users.len() < count {
        let (first, more) = (users.len(), ASKING.min(count - users.len()));
        users.extend(in_parallel(more, |number| {
            asking(running.address, ASKS, (first + number) as u64)
        })?);
        // No user is answered before all have asked, so the peer is given time to dial for these.
        if !within(PATIENCE, || holder.open() >= users.len()) {
            let arrived = format!("{} of {} have arrived", holder.open(), users.len());
            return Err(io::Error::other(arrived));
        }
    }
    for (number, user) in users.into_iter().enumerate() {
        answer(user, ASKS, number as u64).map_err(|error| of_connection(number, &error))?;
    }
    let idle = idle_share(sides, scale.measured);
    let now = Held::by(sides);

    let mut figures = Figures::default();
    let parked = holder.open();
    if parked == 0 {
        return Err(io::Error::other("nothing is parked"));
    }
    rest.each_into(&mut figures, &now, parked, PARKED);
    figures.less("idle CPU %", 100.0 * idle);
    figures.also("parked", parked as f64);
    drop(holder);
    rest.after_into(&mut figures, sides);
    Ok(figures)
}

fn check_limit(descriptors: usize) -> io::Result<()> {
    let limit = limits::descriptors();
    match descriptors + OTHERS <= limit {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "{descriptors} descriptors in a process, of which the limit leaves {limit}"
        ))),
    }
}

/// Opens connections on a few threads, all of which end at the first failure.
fn in_parallel(
    count: usize,
    open: impl Fn(usize) -> io::Result<TcpStream> + Sync,
) -> io::Result<Vec<TcpStream>> {
    let deadline = Instant::now() + OPENED;
    let is_over = AtomicBool::new(false);
    let try_open = |number| match is_over.load(Ordering::Relaxed) || Instant::now() > deadline {
        true => Err(io::Error::other("not opened in time")),
        false => open(number),
    };
    let open = |number| {
        try_open(number).map_err(|error| {
            is_over.store(true, Ordering::Relaxed);
            of_connection(number, &error)
        })
    };
    let open = &open;
    let opened = thread::scope(|scope| {
        let threads = (0..OPENING).map(|first| {
            scope.spawn(move || {
                let numbers = (first..count).step_by(OPENING);
                let opened = numbers.map(|number| Ok((number, open(number)?)));
                opened.collect::<io::Result<Vec<_>>>()
            })
        });
        let threads: Vec<_> = threads.collect();
        let ends = threads.into_iter().map(|thread| thread.join());
        let ends = ends.map(|end| end.expect("a user does not panic"));
        ends.collect::<io::Result<Vec<_>>>()
    });
    let mut all: Vec<_> = opened?.into_iter().flatten().collect();
    all.sort_unstable_by_key(|&(number, _)| number);
    Ok(all.into_iter().map(|(_, user)| user).collect())
}

fn of_connection(number: usize, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("connection {number}: {error}"))
}

/// A user who has asked.
fn asking(address: SocketAddr, asks: Asks, number: u64) -> io::Result<TcpStream> {
    let mut user = TcpStream::connect_timeout(&address, PATIENCE)?;
    with_deadlines(&user);
    let mut request = Vec::new();
    asks.request(number, &mut request);
    user.write_all(&request)?;
    Ok(user)
}

/// The answer, after which the user goes.
fn answer(mut user: TcpStream, asks: Asks, number: u64) -> io::Result<()> {
    let mut answer = vec![0; asks.room()];
    let mut held = 0;
    while !asks.is_answered(number, &answer[..held])? {
        match user.read(&mut answer[held..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => held += count,
        }
    }
    Ok(())
}

/// The share of one processor that the sides use over a span, once they have done what there was to do.
fn idle_share(sides: &Sides, span: Duration) -> f64 {
    let deadline = Instant::now() + CLOSING;
    loop {
        let before = sides.cpu();
        pass(QUIET);
        if sides.cpu() - before < QUIET / 100 || Instant::now() > deadline {
            break;
        }
    }
    let (before, start) = (sides.cpu(), Instant::now());
    pass(span);
    (sides.cpu() - before).div_duration_f64(start.elapsed())
}

/// What server and agent hold.
struct Held {
    /// Private memory.
    bytes: [u64; 2],
    descriptors: [usize; 2],
}

impl Held {
    fn by(sides: &Sides) -> Held {
        let both = [&sides.server, &sides.agent];
        Held {
            bytes: both.map(|side| side.as_ref().map_or(0, Side::private)),
            descriptors: descriptors(sides),
        }
    }

    /// What each of `count` connections adds to it.
    fn each_into(&self, figures: &mut Figures, now: &Held, count: usize, names: [&'static str; 3]) {
        let each = |side: usize| (now.bytes[side] as f64 - self.bytes[side] as f64) / count as f64;
        let [all, server, agent] = names;
        figures.less(all, each(0) + each(1));
        figures.also(server, each(0));
        figures.also(agent, each(1));
    }

    /// Waits until the sides hold no more descriptors than at rest, and says what memory they keep.
    fn after_into(&self, figures: &mut Figures, sides: &Sides) {
        let start = Instant::now();
        // Where it is not, the figure says so.
        within(CLOSING, || {
            let now = descriptors(sides);
            (0..2).all(|side| now[side] <= self.descriptors[side])
        });
        let took = start.elapsed();
        let now = Held::by(sides);
        let [server, agent] =
            [0, 1].map(|side| mib(now.bytes[side].saturating_sub(self.bytes[side])));
        figures.less("closed after ms", took.as_secs_f64() * 1e3);
        figures.less("server's MiB kept", server);
        figures.less("agent's MiB kept", agent);
    }
}

/// Waits until something is so, and says whether it came to be.
fn within(limit: Duration, is_so: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    loop {
        match is_so() {
            true => return true,
            false if start.elapsed() > limit => return false,
            false => pass(LOOK_EVERY),
        }
    }
}

fn descriptors(sides: &Sides) -> [usize; 2] {
    [&sides.server, &sides.agent].map(|side| side.as_ref().map_or(0, Side::descriptors))
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
