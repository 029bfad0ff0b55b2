//! What was asked for.

use std::{path::PathBuf, time::Duration};

use crate::{
    measure::Scale,
    peers::Peer,
    scenarios::{self, Scenario},
};

/// How it is to be asked.
const USAGE: &str = "cargo bench --bench tunnel -- [SCENARIO]... [--peers NAME,...] [--rounds N] [--quick] [--against NAME=PROGRAM]... [--list]

  SCENARIO   a scenario's name, or the beginning of several; all of them without any
  --peers    only these, named in the same way; siding and direct are among them
  --rounds   how often each peer has its turn (3)
  --quick    shorter spans: for a look, not for a table
  --against  another build of siding, as one more peer
  --list     the names of scenarios and peers";

/// What is to be run.
pub struct Options {
    /// In the order of their table.
    pub scenarios: Vec<&'static Scenario>,
    /// Who takes turns.
    pub peers: Vec<Peer>,
    /// How often.
    pub rounds: usize,
    /// For how long, and by how many.
    pub scale: Scale,
}

const THOROUGH: Scale = Scale {
    warm_up: Duration::from_millis(500),
    measured: Duration::from_secs(2),
    paced: Duration::from_secs(4),
    starts: 5,
    connections_max: usize::MAX,
};

const QUICK: Scale = Scale {
    warm_up: Duration::from_millis(200),
    measured: Duration::from_millis(600),
    paced: Duration::from_millis(1500),
    starts: 3,
    connections_max: usize::MAX,
};

impl Options {
    /// From the words of the command line.
    ///
    /// # Errors
    /// What is to be printed instead, and the exit code.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Options, (String, u8)> {
        let usage = |message: String| (format!("{message}\n\n{USAGE}"), 2);
        let mut words = words.into_iter();
        let (mut names, mut peers, mut others) = (Vec::new(), None, Vec::new());
        let (mut rounds, mut scale) = (3, THOROUGH);
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .ok_or_else(|| usage(format!("{word}: of what?")))
            };
            match word.as_str() {
                // cargo's own.
                "--bench" => {}
                "--quick" => scale = QUICK,
                "--list" => return Err((list(), 0)),
                "--help" => return Err((USAGE.to_owned(), 0)),
                "--rounds" => {
                    let count = value()?;
                    rounds = match count.parse() {
                        Ok(count @ 1..) => count,
                        _ => return Err(usage(format!("--rounds {count}: not a count"))),
                    };
                }
                "--peers" => {
                    let list = value()?;
                    let all: Vec<String> = list.split(',').map(str::to_owned).collect();
                    check(&all, &Peer::names())
                        .map_err(|name| usage(format!("--peers {name}: no such peer")))?;
                    peers = Some(all);
                }
                "--against" => {
                    let other = value()?;
                    let Some((name, program)) = other.split_once('=') else {
                        return Err(usage(format!("--against {other}: not NAME=PROGRAM")));
                    };
                    others.push(Peer::other_siding(name.to_owned(), PathBuf::from(program)));
                }
                _ if word.starts_with('-') => return Err(usage(format!("{word}: no such flag"))),
                _ => names.push(word),
            }
        }
        let known = scenarios::ALL.iter().map(|scenario| scenario.name);
        let known: Vec<&str> = known.collect();
        check(&names, &known).map_err(|name| usage(format!("{name}: no such scenario")))?;
        let scenarios = scenarios::ALL.iter();
        let scenarios = scenarios
            .filter(|scenario| names.is_empty() || is_asked_for(scenario.name, &names, &known));
        let mut present = Peer::present(|name| {
            let asked = peers.as_ref();
            asked.is_none_or(|asked| is_asked_for(name, asked, &Peer::names()))
        });
        let after_siding = present.len().min(1);
        present.splice(after_siding..after_siding, others);
        Ok(Options {
            scenarios: scenarios.collect(),
            peers: present,
            rounds,
            scale,
        })
    }

    /// All scenarios, for the shortest time, with siding alone: whether the bench works.
    pub fn check() -> Options {
        Options {
            scenarios: scenarios::ALL.iter().collect(),
            peers: Peer::present(|name| name == "siding"),
            rounds: 1,
            scale: Scale {
                warm_up: Duration::from_millis(10),
                measured: Duration::from_millis(40),
                paced: Duration::from_millis(40),
                starts: 1,
                connections_max: 20,
            },
        }
    }
}

/// Finds a word that is neither a name nor the beginning of one.
fn check<'a>(asked: &'a [String], names: &[&str]) -> Result<(), &'a str> {
    let is_unknown = |word: &&String| !names.iter().any(|name| name.starts_with(word.as_str()));
    asked
        .iter()
        .find(is_unknown)
        .map_or(Ok(()), |word| Err(word))
}

/// Whether a name is asked for, by itself or by its beginning. A word that is a name means that one,
/// though others begin so.
fn is_asked_for(name: &str, asked: &[String], names: &[&str]) -> bool {
    asked
        .iter()
        .any(|word| match names.contains(&word.as_str()) {
            true => name == word,
            false => name.starts_with(word),
        })
}

fn list() -> String {
    let scenarios = scenarios::ALL.iter();
    let scenarios = scenarios.map(|all| format!("{:12} {}\n", all.name, all.about));
    format!(
        "{}\npeers: {}",
        scenarios.collect::<String>(),
        Peer::names().join(", ")
    )
}
