//! What was asked for.

use std::time::Duration;

use crate::attacks::{ALL, Attack};

/// How it is to be asked.
const USAGE: &str = "cargo bench --bench siege -- [--seconds N] [--only NAME]... [--limits N] [--list]

  --seconds  how long each phase is (10)
  --only     this attack, or all whose names begin so; there is a calm before each, and one in the end
  --limits   how many connections a second the server takes from one address, and four times as many at
             a time: honest ones have one each, all attackers one together; a proxy to a hostile target
             has a rate, too (0: any number, and no rate)
  --list     the names of attacks";

/// What is to be run.
pub struct Options {
    /// In the order of their table.
    pub attacks: Vec<&'static Attack>,
    /// How long each phase is.
    pub span: Duration,
    /// Connections that the server takes in a second from one address; 0 for any number.
    pub rate: u32,
}

impl Options {
    /// From the words of the command line.
    ///
    /// # Errors
    /// What is to be printed instead, and the exit code.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Options, (String, u8)> {
        let usage = |message: String| (format!("{message}\n\n{USAGE}"), 2);
        let mut words = words.into_iter();
        let (mut only, mut seconds, mut rate) = (Vec::new(), 10, 0);
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .ok_or_else(|| usage(format!("{word}: of what?")))
            };
            match word.as_str() {
                // cargo's own.
                "--bench" => {}
                "--list" => return Err((list(), 0)),
                "--help" => return Err((USAGE.to_owned(), 0)),
                "--seconds" => {
                    let count = value()?;
                    seconds = match count.parse() {
                        Ok(count @ 1..) => count,
                        _ => return Err(usage(format!("--seconds {count}: not a count"))),
                    };
                }
                "--limits" => {
                    let count = value()?;
                    rate = count
                        .parse()
                        .map_err(|_| usage(format!("--limits {count}: not a count")))?;
                }
                "--only" => {
                    let name = value()?;
                    if !ALL.iter().any(|attack| attack.name.starts_with(&name)) {
                        return Err(usage(format!("--only {name}: no such attack")));
                    }
                    only.push(name);
                }
                _ => return Err(usage(format!("{word}: no such flag"))),
            }
        }
        let is_asked_for = |attack: &&Attack| {
            only.is_empty() || only.iter().any(|name| attack.name.starts_with(name))
        };
        Ok(Options {
            attacks: ALL.iter().filter(is_asked_for).collect(),
            span: Duration::from_secs(seconds),
            rate,
        })
    }

    /// All attacks, for the shortest time: whether the bench works.
    pub fn check() -> Options {
        Options {
            attacks: ALL.iter().collect(),
            span: Duration::from_millis(400),
            rate: 0,
        }
    }
}

fn list() -> String {
    let attacks = ALL.iter();
    let attacks = attacks.map(|attack| format!("{:22} {}\n", attack.name, attack.about));
    attacks.collect()
}
