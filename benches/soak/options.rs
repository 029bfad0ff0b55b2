//! What was asked for.

use std::{
    process,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How it is to be asked.
const USAGE: &str = "cargo bench --bench soak -- [--minutes N] [--seed N]

  --minutes  how long the load lasts (1)
  --seed     of when the link is cut and how, and of who asks for what (any)";

/// What is to be run.
pub struct Options {
    /// How long the load lasts.
    pub span: Duration,
    /// Of all chance.
    pub seed: u64,
}

impl Options {
    /// From the words of the command line.
    ///
    /// # Errors
    /// What is to be printed instead, and the exit code.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Options, (String, u8)> {
        let usage = |message: String| (format!("{message}\n\n{USAGE}"), 2);
        let mut words = words.into_iter();
        let mut options = Options {
            span: Duration::from_secs(60),
            seed: any_seed(),
        };
        while let Some(word) = words.next() {
            let mut number = || {
                let value = words.next().unwrap_or_default();
                let number = value.parse::<u64>();
                number.map_err(|_| usage(format!("{word} {value}: not a number")))
            };
            match word.as_str() {
                // cargo's own.
                "--bench" => {}
                "--help" => return Err((USAGE.to_owned(), 0)),
                "--minutes" => match number()? {
                    minutes @ 1..=1440 => options.span = Duration::from_secs(60 * minutes),
                    _ => return Err(usage("--minutes is 1 to 1440".to_owned())),
                },
                "--seed" => options.seed = number()?,
                _ => return Err(usage(format!("{word}: no such flag"))),
            }
        }
        Ok(options)
    }

    /// The shortest load: whether the bench works.
    pub fn check() -> Options {
        Options {
            span: Duration::from_secs(8),
            seed: 1,
        }
    }

    /// From one row of the table to the next.
    pub fn row_every(&self) -> Duration {
        (self.span / 8).min(Duration::from_secs(300))
    }
}

/// Another one each time.
fn any_seed() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = since.map_or(0, |since| since.as_secs());
    seconds % 1_000_000 * 1000 + u64::from(process::id() % 1000)
}
