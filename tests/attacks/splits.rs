//! Where a message is cut in two, so that its reader sees it in two parts.

use std::{collections::HashSet, env};

/// How many splits are tried at a time.
pub const AT_A_TIME: usize = 100;

/// Around the ends of a message, every byte.
const NEAR: usize = 200;

/// Between them, so many places.
const BETWEEN: usize = 40;

/// The splits that were tried on one stage.
///
/// The rows of a table begin alike, and a reader that has had the same first part is in the same state:
/// so each first part is tried with the row in which it first comes. `SIDING_EVERY_SPLIT=1` tries each
/// with every row.
#[derive(Default)]
pub struct Splits {
    tried: HashSet<(&'static str, Vec<u8>)>,
}

impl Splits {
    /// The lengths of first parts of a message to be tried, 0 (which leaves it whole) among them.
    /// What was asked before it came is `asked`.
    pub fn of(&mut self, asked: &'static str, message: &[u8]) -> Vec<usize> {
        let every = env::var_os("SIDING_EVERY_SPLIT").is_some_and(|value| value == "1");
        let step = (message.len() / BETWEEN).max(1);
        (0..message.len())
            .filter(|at| *at < NEAR || message.len() - at <= NEAR || at % step == 0)
            .filter(|at| {
                let is_new = self.tried.insert((asked, message[..*at].to_vec()));
                is_new || every || *at == 0
            })
            .collect()
    }
}
