//! The figure that siding was born from: a request on a parked connection against one for which the
//! client dials, `http` and `https`, with the origin near and far.
//!
//! The release binary runs as server and client, each a process of its own; user, origin and distance
//! are threads of this program. The ways of a case take turns, request by request (of each user, where
//! several ask at the same time), so that whatever else the machine does happens to all of them. `--pool safe` and `--pool never` are two tunnels that
//! differ in nothing else. Every body is compared, and the origins' counts of connections and handshakes
//! have to prove that what is called pooled, full or resumed was just that.

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../common/machine.rs"]
mod machine;
mod origin;
mod relay;
mod report;
mod route;

use std::{env, fs, path::Path, process::Command, thread, time::Duration};

use common::{Process, Scratch};
use machine::Run;
use origin::Counts;
use report::{Cost, Row, Spread};
use route::{Certified, Connection, Opening, Route, Through};

const POOLED: Through = Through::Siding("safe");
const UNPOOLED: Through = Through::Siding("never");

/// Who asks at the same time, in the case where it is not one alone.
pub const USERS_MAX: usize = 8;

/// How many requests each way of a case is measured by, and not measured by before.
struct Rounds {
    warm_up: usize,
    user_keeps: usize,
    user_reconnects: usize,
}

/// Requests by which system calls are counted.
const TRACED: usize = 200;

/// What the ways are compared in.
#[derive(Clone, Copy)]
struct Case {
    /// Between the origin and whoever connects to it.
    one_way: Duration,
    /// Who asks at the same time.
    users: usize,
}

/// One way of a case, and how long its requests took.
struct Contender {
    through: Through,
    opening: Opening,
    /// Whether its origin sees a connection for each user at most, or one for each request.
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
    let this = Run::begin();
    let certified = Certified::new();
    let (mut rows, mut costs) = (Vec::new(), Vec::new());
    let near = |users| Case {
        one_way: Duration::ZERO,
        users,
    };
    let far = |milliseconds| Case {
        one_way: Duration::from_millis(milliseconds),
        users: 1,
    };
    for (case, rounds) in [
        (near(1), rounds(300, 3000, 2000)),
        (near(USERS_MAX), rounds(100, 800, 500)),
        (far(5), rounds(5, 250, 150)),
        (far(10), rounds(5, 120, 80)),
    ] {
        for openings in [&[Opening::Plain][..], &[Opening::Full, Opening::Resumed]] {
            let Case { one_way, users } = case;
            eprintln!("{openings:?}, origin {one_way:?} away, {users} in parallel");
            compare(&certified, openings, case, &rounds, &mut rows, &mut costs);
        }
    }
    report::print_times(&rows);
    println!();
    report::print_costs(&costs);
    println!();
    this.conclude();
}

/// All ways to an origin of one scheme.
fn compare(
    certified: &Certified,
    openings: &[Opening],
    case: Case,
    rounds: &Rounds,
    rows: &mut Vec<Row>,
    costs: &mut Vec<Cost>,
) {
    let contender = |opening, through, pooled| Contender {
        through,
        opening,
        pooled,
        route: Route::start(
            certified,
            opening,
            case.one_way,
            through,
            if pooled { case.users } else { 0 },
        ),
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
            round_trip: 2 * case.one_way,
            users: case.users,
            way,
            pooled,
            unpooled: Spread::of(&unpooled.samples),
        }));
    };
    let Case { one_way, users } = case;
    let mut all: Vec<&mut Contender> = siding.iter_mut().chain(&mut direct).collect();
    let keeps = |contender: &Contender| contender.through != Through::Direct || contender.pooled;
    measure(&mut all, users, rounds.warm_up, rounds.user_keeps, keeps);
    row(&siding, "siding, user keeps its connection");
    if one_way.is_zero() && users == 1 {
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
    measure(
        &mut through_siding,
        users,
        rounds.warm_up,
        reconnects,
        |_| false,
    );
    row(&siding, "siding, user reconnects each time");
    row(&direct, "direct, without siding");

    for contender in siding.iter().chain(&direct) {
        contender.check(users);
    }
}

/// Lets the contenders take turns, one request of each user each, after a few that do not count.
fn measure(
    contenders: &mut [&mut Contender],
    users: usize,
    warm_up: usize,
    rounds: usize,
    user_keeps: impl Fn(&Contender) -> bool,
) {
    let mut connections: Vec<Vec<Option<Box<dyn Connection>>>> = Vec::new();
    for _ in &*contenders {
        connections.push((0..users).map(|_| None).collect());
    }
    let cpu = |contender: &Contender| {
        let client = contender.route.client();
        client.map_or(Duration::ZERO, |client| machine::cpu(client.pid()))
    };
    for round in 0..warm_up + rounds {
        for (contender, users) in contenders.iter_mut().zip(&mut connections) {
            if round == warm_up {
                contender.samples.clear();
                contender.cpu = cpu(contender);
            }
            let took = contender.get(users);
            contender.samples.extend(took);
            if !user_keeps(contender) {
                users.fill_with(|| None);
            }
            contender.route.settle();
        }
    }
    for contender in contenders {
        contender.cpu = cpu(contender) - contender.cpu;
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
    let mut user = [None];
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

impl Contender {
    /// A request of each user, all at the same time, and how long each took.
    fn get(&mut self, users: &mut [Option<Box<dyn Connection>>]) -> Vec<Duration> {
        // Another body for each request, so that no answer passes for that of another.
        let numbers = self.sent as u64..;
        self.sent += users.len();
        let route = &self.route;
        if let [user] = users {
            return vec![route.get(user, numbers.start)];
        }
        thread::scope(|scope| {
            let threads = users.iter_mut().zip(numbers);
            let threads =
                threads.map(|(user, number)| scope.spawn(move || route.get(user, number)));
            let threads: Vec<_> = threads.collect();
            let ends = threads.into_iter().map(|thread| thread.join());
            ends.map(|took| took.expect("its panic was printed"))
                .collect()
        })
    }

    fn cpu_per_request(&self) -> Duration {
        let requests = u32::try_from(self.samples.len()).expect("a few thousand");
        self.cpu / requests
    }

    /// Asserts that the origin has seen what this contender is said to be.
    fn check(&self, users: usize) {
        let Counts {
            connections,
            full,
            resumed,
            requests,
        } = self.route.counts();
        let is_opened = match self.pooled {
            true => (1..=users).contains(&connections),
            false => connections == self.sent,
        };
        let is_begun = match self.opening {
            Opening::Plain => (full, resumed) == (0, 0),
            Opening::Full => (full, resumed) == (connections, 0),
            // Users who come at the same time have no ticket yet.
            Opening::Resumed => (1..=users).contains(&full) && full + resumed == connections,
        };
        assert!(
            requests == self.sent && is_opened && is_begun,
            "{:?} {:?}, {users} in parallel: {:?} for {} requests",
            self.through,
            self.opening,
            self.route.counts(),
            self.sent
        );
    }
}
