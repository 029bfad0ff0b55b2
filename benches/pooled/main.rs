//! The figure that siding was born from: a request on a parked connection against one for which the
//! client dials, `http` and `https`, with the origin near and far.
//!
//! The release binary runs as server and client, each a process of its own; user, origin and distance
//! are threads of this program. The ways of a case take turns, request by request, so that whatever
//! else the machine does happens to all of them. `--pool safe` and `--pool never` are two tunnels that
//! differ in nothing else. Every body is compared, and the origins' counts of connections and handshakes
//! have to prove that what is called pooled, full or resumed was just that.

#[path = "../../tests/common/mod.rs"]
mod common;
mod origin;
mod relay;
mod report;
mod route;

use std::{
    env, fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use common::{Process, Scratch};
use origin::Counts;
use report::{Cost, Row, Spread};
use route::{Certified, Connection, Opening, Route, Through, cpu};

const POOLED: Through = Through::Siding("safe");
const UNPOOLED: Through = Through::Siding("never");

/// Between the origin and whoever connects to it, in the cases that have a distance.
const ONE_WAY: Duration = Duration::from_millis(5);

/// How many requests each way of a case is measured by, and not measured by before.
struct Rounds {
    warm_up: usize,
    user_keeps: usize,
    user_reconnects: usize,
}

/// Requests by which system calls are counted.
const TRACED: usize = 200;

/// One way of a case, and how long its requests took.
struct Contender {
    through: Through,
    opening: Opening,
    /// Whether its origin sees one connection, or one for each request.
    pooled: bool,
    route: Route,
    sent: usize,
    samples: Vec<Duration>,
    /// The client's, over what was measured.
    cpu: Duration,
}

fn main() {
    // Without it (`cargo test --benches`) the question is only whether the bench works.
    let is_bench = env::args().any(|argument| argument == "--bench");
    let rounds = |warm_up, user_keeps, user_reconnects| match is_bench {
        true => Rounds {
            warm_up,
            user_keeps,
            user_reconnects,
        },
        false => Rounds {
            warm_up: 1,
            user_keeps: 2,
            user_reconnects: 2,
        },
    };
    let start = Instant::now();
    let load = load();
    let certified = Certified::new();
    let (mut rows, mut costs) = (Vec::new(), Vec::new());
    for (one_way, rounds) in [
        (Duration::ZERO, rounds(300, 3000, 2000)),
        (ONE_WAY, rounds(5, 250, 150)),
    ] {
        for openings in [&[Opening::Plain][..], &[Opening::Full, Opening::Resumed]] {
            eprintln!("{openings:?}, origin {one_way:?} away");
            case(
                &certified, openings, one_way, &rounds, &mut rows, &mut costs,
            );
        }
    }
    report::print_times(&rows);
    println!();
    report::print_costs(&costs);
    println!();
    println!(
        "{} cores, load before it {load}; took {:.0} s.",
        thread::available_parallelism().map_or(1, usize::from),
        start.elapsed().as_secs_f64()
    );
}

/// All ways to an origin of one scheme, at one distance.
fn case(
    certified: &Certified,
    openings: &[Opening],
    one_way: Duration,
    rounds: &Rounds,
    rows: &mut Vec<Row>,
    costs: &mut Vec<Cost>,
) {
    let contender = |opening, through, pooled| Contender {
        through,
        opening,
        pooled,
        route: Route::start(certified, opening, one_way, through, pooled),
        sent: 0,
        samples: Vec::new(),
        cpu: Duration::ZERO,
    };
    // What is pooled opens once, in whatever way.
    let mut siding = vec![contender(openings[0], POOLED, true)];
    siding.extend(openings.iter().map(|&o| contender(o, UNPOOLED, false)));
    let mut direct = vec![contender(openings[0], Through::Direct, true)];
    direct.extend(
        openings
            .iter()
            .map(|&o| contender(o, Through::Direct, false)),
    );

    let mut row = |contenders: &[Contender], way| {
        let pooled = Spread::of(&contenders[0].samples);
        rows.extend(contenders[1..].iter().map(|unpooled| Row {
            opening: unpooled.opening,
            round_trip: 2 * one_way,
            way,
            pooled,
            unpooled: Spread::of(&unpooled.samples),
        }));
    };
    let mut all: Vec<&mut Contender> = siding.iter_mut().chain(&mut direct).collect();
    measure(&mut all, rounds.warm_up, rounds.user_keeps, |contender| {
        contender.through != Through::Direct || contender.pooled
    });
    row(&siding, "siding, user keeps its connection");
    if one_way.is_zero() {
        let calls: Vec<_> = siding.iter_mut().map(system_calls).collect();
        costs.extend(
            siding
                .iter()
                .zip(&calls)
                .skip(1)
                .map(|(unpooled, count)| Cost {
                    opening: unpooled.opening,
                    cpu: [&siding[0], unpooled].map(Contender::cpu_per_request),
                    calls: [calls[0], *count],
                }),
        );
    }
    let mut through_siding: Vec<_> = siding.iter_mut().collect();
    let reconnects = rounds.user_reconnects;
    measure(&mut through_siding, rounds.warm_up, reconnects, |_| false);
    row(&siding, "siding, user reconnects each time");
    row(&direct, "direct, without siding");

    for contender in siding.iter().chain(&direct) {
        contender.check();
    }
}

/// Lets the contenders take turns, one request each, after a few that do not count.
fn measure(
    contenders: &mut [&mut Contender],
    warm_up: usize,
    rounds: usize,
    user_keeps: impl Fn(&Contender) -> bool,
) {
    let mut users: Vec<Option<Box<dyn Connection>>> = Vec::new();
    users.resize_with(contenders.len(), || None);
    for round in 0..warm_up + rounds {
        for (contender, user) in contenders.iter_mut().zip(&mut users) {
            if round == warm_up {
                contender.samples.clear();
                contender.cpu = contender.route.client().map_or(Duration::ZERO, cpu);
            }
            let took = contender.get(user);
            contender.samples.push(took);
            if !user_keeps(contender) {
                *user = None;
            }
            contender.route.settle();
        }
    }
    for contender in contenders {
        let used = contender.route.client().map_or(Duration::ZERO, cpu);
        contender.cpu = used - contender.cpu;
    }
}

/// How many system calls the client makes for a request, or `None` where they cannot be counted.
fn system_calls(contender: &mut Contender) -> Option<f64> {
    let strace = common::require("strace")?;
    let client = contender.route.client().expect("it is siding's way").pid();
    let scratch = Scratch::new();
    let trace = scratch.path("trace");
    let mut command = Command::new(strace);
    command.args(["-e", "signal=none", "-p", &client.to_string(), "-o"]);
    let mut tracer = Process::start("strace", command.arg(&trace));
    let attached = |tracer: &Process| tracer.log().count("attached") > 0;
    // It may not be allowed to.
    common::eventually("strace attaches or gives up", || {
        (attached(&tracer) || !tracer.is_running()).then_some(())
    });
    if !attached(&tracer) {
        return None;
    }
    let mut user = None;
    for _ in 0..TRACED {
        contender.get(&mut user);
        contender.route.settle();
    }
    tracer.interrupt();
    tracer.wait();
    Some(lines(&trace) as f64 / TRACED as f64)
}

fn lines(file: &Path) -> usize {
    let text = fs::read_to_string(file).expect("strace has written it");
    text.lines().count()
}

/// The load average of the last minute, where the system tells.
fn load() -> String {
    let all = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let last_minute = all.split(' ').next().filter(|load| !load.is_empty());
    last_minute.unwrap_or("unknown").to_owned()
}

impl Contender {
    fn get(&mut self, user: &mut Option<Box<dyn Connection>>) -> Duration {
        // Another body for each request, so that no answer passes for that of another.
        self.sent += 1;
        self.route.get(user, self.sent as u64)
    }

    fn cpu_per_request(&self) -> Duration {
        let requests = u32::try_from(self.samples.len()).expect("a few thousand");
        self.cpu / requests
    }

    /// Asserts that the origin has seen what this contender is said to be.
    fn check(&self) {
        let Counts {
            connections,
            full,
            resumed,
            requests,
        } = self.route.counts();
        let opened = if self.pooled { 1 } else { self.sent };
        let expected = match self.opening {
            Opening::Plain => (0, 0),
            Opening::Full => (opened, 0),
            Opening::Resumed => (1, opened - 1),
        };
        assert_eq!(
            (requests, connections, (full, resumed)),
            (self.sent, opened, expected),
            "{:?} {:?}",
            self.through,
            self.opening
        );
    }
}
