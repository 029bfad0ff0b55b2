//! siding for a long time: users of every sort, whose every byte is compared, on a link that is cut again
//! and again, and in the end nothing may be left of them.
//!
//! The released binary runs as server and client, with a relay of this program between them that cuts the
//! link; both get other configurations and certificates all the while. Users and origins are threads of
//! this program, ssh sessions are OpenSSH's. What failed must have been under way while the link was out;
//! and descriptors, sockets, streams and memory must be in the end what they were after a first short load.
//!
//! ```text
//! cargo bench --bench soak -- --minutes 40 --seed 7
//! ```

#[path = "../../tests/common/mod.rs"]
mod common;
mod ground;
mod guest;
mod ledger;
#[path = "../common/limits.rs"]
mod limits;
#[path = "../common/machine.rs"]
mod machine;
mod options;
mod origin;
#[path = "../common/ranks.rs"]
mod ranks;
mod relay;
mod report;
mod sessions;
mod sides;
#[path = "../common/talk.rs"]
mod talk;
#[path = "../common/tls.rs"]
mod tls;
mod users;

use std::{
    env,
    process::{self, ExitCode},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use signal_hook::consts::{SIGINT, SIGTERM};

use common::{Random, pass};
use ground::{DEAD_AFTER, Stage};
use guest::Guest;
use ledger::{Ledger, Over, Tally};
use machine::Run;
use options::Options;
use relay::Cut;
use sessions::SESSIONS;
use sides::{Figures, Sides};
use users::User;

/// The load before the start.
const BURST: Duration = Duration::from_secs(5);

/// How long it may take until nothing is left of a load.
const REST: Duration = Duration::from_secs(60);

/// As a monitor asks.
const SCRAPE_EVERY: Duration = Duration::from_secs(5);

/// From one configuration to the next.
const RELOAD_EVERY: Duration = Duration::from_secs(10);

/// From one cut to the next, at least and at most; in a short run at most an eighth of it longer than at least.
const CUT_AFTER_MIN: Duration = Duration::from_secs(5);
const CUT_AFTER_MAX: Duration = Duration::from_secs(60);

/// How long the link stands still without being lost, at most: less than a ping and its answer take.
const PAUSE_MAX: Duration = Duration::from_millis(1500);

/// How soon after a pause nothing of it is left.
const PAUSE_FELT: Duration = Duration::from_millis(500);

/// How long the sockets of a black hole stay.
const BLACK_HOLE: Duration = DEAD_AFTER.saturating_add(Duration::from_secs(4));

/// Who waits looks so often whether it is over.
const LOOK_EVERY: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    // Without it (`cargo test --benches`) the question is only whether the bench works.
    let is_bench = env::args().any(|argument| argument == "--bench");
    let options = match is_bench {
        true => Options::parse(env::args().skip(1)),
        false => Ok(Options::check()),
    };
    match options {
        Ok(options) => run(&options, is_bench),
        Err((message, code)) => {
            println!("{message}");
            ExitCode::from(code)
        }
    }
}

fn run(options: &Options, is_bench: bool) -> ExitCode {
    limits::raise();
    let this = Run::begin();
    let ledger = Arc::new(Ledger::default());
    for signal in [SIGINT, SIGTERM] {
        let registered = signal_hook::flag::register(signal, ledger.interruption());
        registered.expect("signals may be caught");
    }
    let stage = Stage::set(&ledger);
    if stage.sshd.is_none() {
        println!("OpenSSH is not installed: sessions are raw echoes");
    }
    println!("seed {}, {:?}", options.seed, options.span);
    let remarks = soak(options, &stage, &ledger);
    // A short look on a busy machine tells whether the bench works, not how fast siding is.
    let mut remarks = if is_bench { remarks } else { Vec::new() };
    remarks.extend(ledger.failures());
    remarks.extend(stage.remarks());
    println!(
        "This program took {:.0} s of CPU.",
        machine::cpu_in_all(process::id()).as_secs_f64()
    );
    if ledger.is_interrupted() {
        remarks = vec!["ended by a signal".to_owned()];
    }
    for remark in &remarks {
        println!("{remark}");
    }
    this.conclude();
    match remarks.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// A short load and rest, the long load, and rest: what is not as it should be, in words. A signal ends it
/// after whichever load it is at.
fn soak(options: &Options, stage: &Stage, ledger: &Arc<Ledger>) -> Vec<String> {
    let sides = Sides::of(stage);
    load(stage, ledger, BURST, options.seed, |_| {});
    if ledger.is_interrupted() {
        return Vec::new();
    }
    stage.reload(0);
    let start = sides.settle(REST);
    let mut total = ledger.take();
    report::print_head();
    report::print_row("start", None, &start);

    let mut soak = Soak::new(options, &sides);
    load(stage, ledger, options.span, options.seed, |at| {
        soak.look(ledger, at)
    });
    if ledger.is_interrupted() {
        return Vec::new();
    }
    stage.reload(0);
    let end = sides.return_to(&start, REST);
    report::print_row("end", None, &end);
    total.add(&soak.sum);
    total.add(&ledger.take());
    report::print_deeds(&total);
    let mut remarks = soak.remarks;
    let lost = stage.links_lost();
    if lost != total.cuts {
        remarks.push(format!("{} cuts, and {lost} links lost", total.cuts));
    }
    if !start.iter().all(Figures::is_at_rest) {
        remarks.push(format!("no rest before the start: {start:?}"));
    }
    for (side, name) in ["server", "client"].into_iter().enumerate() {
        let samples = soak.samples.iter();
        let samples: Vec<_> = samples.map(|(at, bytes)| (*at, bytes[side])).collect();
        let [start, end] = [&start, &end].map(|both| &both[side]);
        let plateau = soak.plateau[side];
        remarks.extend(report::grown(name, start, plateau, end, &samples));
        remarks.extend(report::left_behind(name, start, end));
    }
    remarks
}

/// What is seen of a load while it lasts.
struct Soak<'a> {
    sides: &'a Sides<'a>,
    /// From one row to the next, and in all.
    row_every: Duration,
    span: Duration,
    /// When the last row was, the next is due, and the last look was.
    row: Duration,
    next_row: Duration,
    looked: Duration,
    /// The most resident memory, in bytes, within the first quarter.
    plateau: [u64; 2],
    /// Anonymous memory, from the second quarter on.
    samples: Vec<(Duration, [u64; 2])>,
    sum: Tally,
    remarks: Vec<String>,
}

impl<'a> Soak<'a> {
    fn new(options: &Options, sides: &'a Sides<'a>) -> Soak<'a> {
        Soak {
            sides,
            row_every: options.row_every(),
            span: options.span,
            row: Duration::ZERO,
            next_row: options.row_every(),
            looked: Duration::ZERO,
            plateau: [0; 2],
            samples: Vec::new(),
            sum: Tally::default(),
            remarks: Vec::new(),
        }
    }

    /// So long after the beginning.
    fn look(&mut self, ledger: &Ledger, at: Duration) {
        let is_row = at >= self.next_row;
        if !is_row && at < self.looked + SCRAPE_EVERY {
            return;
        }
        self.looked = at;
        let figures = self.sides.look();
        if at >= self.span / 4 {
            let bytes = figures.each_ref().map(|side| side.anonymous);
            self.samples.push((at, bytes));
        } else {
            for (most, side) in self.plateau.iter_mut().zip(&figures) {
                *most = side.resident.max(*most);
            }
        }
        if is_row {
            let mut tally = ledger.take();
            let name = format!("{}:{:02}", at.as_secs() / 60, at.as_secs() % 60);
            let span = at - self.row;
            let sessions = ledger.sessions();
            report::print_row(&name, Some((&mut tally, span, sessions)), &figures);
            self.remarks.extend(report::row_remark(&name, &tally, span));
            self.sum.add(&tally);
            self.row = at;
            self.next_row += self.row_every;
        }
    }
}

/// All users, and all that disturbs them, for so long; `look` is told again and again how long it lasts.
fn load(
    stage: &Stage,
    ledger: &Arc<Ledger>,
    span: Duration,
    seed: u64,
    mut look: impl FnMut(Duration),
) {
    ledger.begin();
    thread::scope(|scope| {
        let _over = Over(ledger);
        for user in User::all(stage, ledger, seed) {
            scope.spawn(|| user.run());
        }
        for number in 0..SESSIONS {
            scope.spawn(move || sessions::keep(number, stage, ledger));
        }
        scope.spawn(|| keep_cutting(stage, ledger, span, seed));
        scope.spawn(|| keep_reloading(stage, ledger));
        let start = Instant::now();
        while start.elapsed() < span && !ledger.is_over() {
            pass(LOOK_EVERY);
            look(start.elapsed());
        }
        // They are still there.
        look(start.elapsed());
    });
}

/// Cuts the link, waits until it is there again, and lets it be for a while.
fn keep_cutting(stage: &Stage, ledger: &Ledger, span: Duration, seed: u64) {
    let mut random = Random::new(!seed);
    let longest = CUT_AFTER_MAX.min(CUT_AFTER_MIN + span / 8);
    let between = |random: &mut Random, least: Duration, most: Duration| {
        let span = (most - least).as_millis() as u64;
        least + Duration::from_millis(random.below(span + 1))
    };
    loop {
        wait(ledger, between(&mut random, CUT_AFTER_MIN, longest));
        if ledger.is_over() {
            break;
        }
        let cut = match random.below(8) {
            0..2 => Cut::Reset,
            2..4 => Cut::Fin,
            4 => Cut::BlackHole(BLACK_HOLE),
            _ => Cut::Pause(between(&mut random, LOOK_EVERY, PAUSE_MAX)),
        };
        let marks = stage.marks();
        ledger.outage_begins(!matches!(cut, Cut::Pause(_)));
        stage.relay.cut(cut);
        match cut {
            Cut::Pause(span) => pass(span + PAUSE_FELT),
            Cut::Reset | Cut::Fin | Cut::BlackHole(_) => stage.wait_until_linked(marks),
        }
        ledger.outage_ends();
    }
}

/// Gives both sides one configuration after the other. Some have a proxy of the client's that the next has
/// not: a session of it goes on.
fn keep_reloading(stage: &Stage, ledger: &Ledger) {
    let mut guest: Option<Guest> = None;
    for number in 1.. {
        wait(ledger, RELOAD_EVERY);
        if ledger.is_over() {
            break;
        }
        let began = Instant::now();
        stage.reload(number);
        if let Some(guest) = guest.take() {
            guest.leave(ledger);
        }
        if let Some(door) = stage.passing_door(number) {
            guest = Guest::come(door, number, began, ledger);
        }
    }
}

/// Waits, but not beyond the end.
fn wait(ledger: &Ledger, span: Duration) {
    let until = Instant::now() + span;
    while !ledger.is_over() && Instant::now() < until {
        pass(LOOK_EVERY);
    }
}
