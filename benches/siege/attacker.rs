//! An attack in a process of its own: this program once more, told by its first argument.

use std::{
    env, process,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    attacks::{ALL, Attack},
    classes::behind,
    common::{PATIENCE, Process, pass},
    ground::Ground,
    limits,
};

/// The argument by which this program is the attacker.
const ATTACK: &str = "--attack";

/// What it says when it begins, and in the end.
const BEGINS: &str = "begins";
const ENDED: &str = "ended ";

/// How long an attacker waits after something did not go.
const RETRY: Duration = Duration::from_millis(2);

/// The attack, running. It ends with the value.
pub struct Attacker(Process);

/// What it has achieved.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// How often it did what it does.
    count: usize,
    /// What that is.
    unit: String,
    /// How long it took.
    seconds: f64,
    /// The most that it held at a time, where it holds something.
    held: usize,
    /// What siding should not have let it do.
    pub faults: Vec<String>,
}

/// What an attack counts.
#[derive(Default)]
pub struct Score {
    count: AtomicUsize,
    held: AtomicUsize,
    is_over: AtomicBool,
    faults: Mutex<Vec<String>>,
}

impl Attacker {
    /// Starts an attack, which ends after `span`.
    pub fn start(attack: &Attack, ground: &Ground, span: Duration) -> Attacker {
        let ground = serde_json::to_string(ground).expect("names and numbers");
        let program = env::current_exe().expect("it runs");
        let mut command = behind(program);
        command.args([ATTACK, attack.name, &span.as_millis().to_string(), &ground]);
        let process = Process::start(attack.name, &mut command);
        process.log().wait_for(BEGINS);
        Attacker(process)
    }

    /// Waits for its end.
    pub fn end(self) -> Outcome {
        let said = self.0.log().wait_for_all_of(0, &[ENDED], 2 * PATIENCE);
        let outcome = said.strip_prefix(ENDED).map(serde_json::from_str);
        outcome
            .expect("a line begins so")
            .expect("it is an outcome")
    }
}

impl Outcome {
    /// In a cell of the table.
    pub fn shown(&self) -> String {
        let rate = self.count as f64 / self.seconds;
        match (self.unit.as_str(), self.held) {
            ("", _) => "–".to_owned(),
            (unit, 0) => format!("{rate:.0} {unit}/s"),
            (unit, held) => format!("{rate:.0} {unit}/s, {held} at a time"),
        }
    }
}

impl Score {
    /// Counts what was done.
    pub fn add(&self, count: usize) {
        self.count.fetch_add(count, Ordering::Relaxed);
    }

    /// Remembers the most that was held at a time.
    pub fn holds(&self, count: usize) {
        self.held.fetch_max(count, Ordering::Relaxed);
    }

    /// What siding should not have let happen.
    pub fn fault(&self, fault: String) {
        self.faults.lock().expect("no holder panics").push(fault);
    }

    /// Whether the attack has had its time.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Does something again and again on so many threads, until the attack is over.
    pub fn repeat<E>(&self, threads: usize, again: impl Fn(usize) -> Result<(), E> + Sync) {
        let again = &again;
        thread::scope(|scope| {
            for number in 0..threads {
                scope.spawn(move || {
                    while !self.is_over() {
                        match again(number) {
                            Ok(()) => self.add(1),
                            Err(_) => pass(RETRY),
                        }
                    }
                });
            }
        });
    }
}

/// Is the attacker until the end, where that is what this process was started for.
pub fn attack_if_told() {
    let mut words = env::args().skip(1);
    if words.next().is_none_or(|word| word != ATTACK) {
        return;
    }
    let (Some(name), Some(span), Some(ground)) = (words.next(), words.next(), words.next()) else {
        panic!("it is started by the bench alone");
    };
    let attack = ALL.iter().find(|attack| attack.name == name);
    let attack = attack.expect("the bench knows what it starts");
    let span = Duration::from_millis(span.parse().expect("the bench writes a number"));
    let ground: Ground = serde_json::from_str(&ground).expect("the bench has written it");
    limits::raise();
    let start = Instant::now();
    let score = &Score::default();
    // Threads may wait for the far end longer than the attack lasts: they end with the process.
    thread::scope(|scope| {
        scope.spawn(move || {
            println!("{BEGINS}");
            (attack.run)(&ground, score);
        });
        pass(span);
        score.is_over.store(true, Ordering::SeqCst);
        let outcome = Outcome {
            count: score.count.load(Ordering::Relaxed),
            unit: attack.unit.to_owned(),
            seconds: start.elapsed().as_secs_f64(),
            held: score.held.load(Ordering::Relaxed),
            faults: score.faults.lock().expect("no holder panics").clone(),
        };
        let outcome = serde_json::to_string(&outcome).expect("names and numbers");
        println!("{ENDED}{outcome}");
        process::exit(0);
    });
}
