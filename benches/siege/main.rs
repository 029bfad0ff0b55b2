//! siding under attack: honest users and ssh sessions, whose every byte is compared, beside one attack
//! after the other, as one table. Each attack is compared with a calm right before it: a machine is not in the
//! same mood for minutes.
//!
//! The released binary runs as server (the link and one listener over TLS, a token for each client) and
//! client. Honest users and the origin are threads of this program, ssh sessions are OpenSSH's, and each attack is
//! this program once more, in a process of its own that runs behind everybody else.
//!
//! ```text
//! cargo bench --bench siege -- --seconds 10 --only user-
//! ```

mod attacker;
mod attacks;
mod classes;
#[path = "../../tests/common/mod.rs"]
mod common;
mod ground;
#[path = "../common/limits.rs"]
mod limits;
#[path = "../common/machine.rs"]
mod machine;
mod options;
#[path = "../common/ranks.rs"]
mod ranks;
mod report;
mod sessions;
mod sides;
#[path = "../common/talk.rs"]
mod talk;
#[path = "../common/tls.rs"]
mod tls;
mod users;
mod victim;

use std::{
    env,
    process::ExitCode,
    time::{Duration, Instant},
};

use attacker::{Attacker, Outcome};
use attacks::Attack;
use common::pass;
use ground::Stage;
use machine::Run;
use options::Options;
use report::{Row, Table};
use sessions::Sessions;
use sides::{LOOK_EVERY, Watch};
use users::Users;
use victim::Victim;

/// How long an attack is felt after its end.
const AFTERMATH: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    attacker::attack_if_told();
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
    let precedes = is_bench && classes::precede();
    let stage = Stage::set(options.rate);
    let users = Users::start(&stage);
    let sessions = Sessions::start(&stage);
    let mut table = Table::default();
    let attacks = options.attacks.iter();
    let phases = attacks.flat_map(|&attack| [None, Some(attack)]);
    for attack in phases.chain([None]) {
        if let Some(attack) = attack {
            eprintln!("{}", attack.name);
        }
        table.add(phase(attack, options, &stage, &users, &sessions));
    }
    let failures = [users.stop(), sessions.stop()].concat();
    if is_bench {
        table.print();
        println!();
        if !precedes {
            println!("{}", classes::BESIDE);
        }
    }
    let remarks = table.remarks().chain(failures).chain(stage.remarks());
    let remarks: Vec<String> = remarks.collect();
    for remark in &remarks {
        println!("{remark}");
    }
    this.conclude();
    match table.is_honest_well() && remarks.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// A span of honest load, with an attack or without, up to the moment when the attack has gone.
fn phase(
    attack: Option<&'static Attack>,
    options: &Options,
    stage: &Stage,
    users: &Users,
    sessions: &Sessions,
) -> Row {
    let is_on_client = attack.is_some_and(|attack| attack.is_servers());
    let mut victim = is_on_client.then(|| Victim::start(&stage.ground));
    let attacker = attack.map(|attack| Attacker::start(attack, &stage.ground, options.span));
    let mut watch = Watch::begin(stage);
    users.begin();
    sessions.begin();
    let start = Instant::now();
    while start.elapsed() < options.span {
        pass(LOOK_EVERY);
        watch.look();
        sessions.look();
        if let Some(victim) = &mut victim {
            victim.look();
        }
    }
    let mut outcome = attacker.map_or_else(Outcome::default, Attacker::end);
    if attack.is_some() {
        // What it leaves behind is part of it.
        pass(AFTERMATH);
    }
    if let Some(victim) = victim {
        outcome.faults.extend(victim.end());
    }
    let took = start.elapsed();
    Row {
        attack: attack.map(|attack| attack.name),
        took,
        users: users.end(),
        lines: sessions.end(),
        cost: watch.end(),
        outcome,
    }
}
