//! The table: a line for each phase.

use std::{iter, time::Duration};

use crate::{attacker::Outcome, ranks::rank, sessions::Lines, sides::Cost, users::Served};

/// A phase.
pub struct Row {
    /// The attack; none, where it is calm.
    pub attack: Option<&'static str>,
    /// How long it was, the going of the attack included.
    pub took: Duration,
    /// What became of the users.
    pub users: Served,
    /// And of the sessions.
    pub lines: Lines,
    /// Of server and client.
    pub cost: [Cost; 2],
    /// Of the attack.
    pub outcome: Outcome,
}

impl Row {
    fn name(&self) -> &'static str {
        self.attack.unwrap_or("calm")
    }
}

/// All phases: a calm before each attack, and one in the end.
#[derive(Default)]
pub struct Table(Vec<Row>);

impl Table {
    /// Adds the next phase.
    pub fn add(&mut self, row: Row) {
        self.0.push(row);
    }

    /// Whether every honest request and session went well.
    pub fn is_honest_well(&self) -> bool {
        self.0
            .iter()
            .all(|row| row.users.failed == 0 && row.lines.failed == 0)
    }

    /// What attacks have achieved that they should not.
    pub fn remarks(&self) -> impl Iterator<Item = String> + '_ {
        self.0.iter().flat_map(|row| {
            let faults = row.outcome.faults.iter();
            faults.map(|fault| format!("{}: {fault}", row.name()))
        })
    }

    /// Prints them all.
    pub fn print(&self) {
        println!(
            "Times in ms; server, client: the most memory (MiB), CPU of a core + waiting for one, the most \
             descriptors.\n"
        );
        println!(
            "| phase | requests/s | failed | p50 | p99 | calm p99 | to it | ssh | lines/s | p99 | failed \
             | server | CPU | fds | client | CPU | fds | the attack |"
        );
        println!("|---|{}---|", "--:|".repeat(16));
        let (Some(first), Some(last)) = (self.0.first(), self.0.last()) else {
            return;
        };
        // Each is compared with the calm before it, and that in the end with the first.
        let attacks = self.0.windows(2).map(|two| (&two[0], &two[1]));
        let attacks = attacks.filter(|(_, row)| row.attack.is_some());
        let calm = |row| iter::once((first, row));
        for (calm, row) in calm(first).chain(attacks).chain(calm(last)) {
            let seconds = row.took.as_secs_f64();
            let [calm, p99] = [calm, row].map(|row| rank(&row.users.took, 990));
            let [server, client] = row.cost;
            println!(
                "| {} | {:.0} | {} | {:.1} | {:.1} | {:.1} | {:.1}× | {} | {:.0} | {:.1} | {} \
                 | {} | {} | {} |",
                row.name(),
                row.users.took.len() as f64 / seconds,
                row.users.failed,
                rank(&row.users.took, 500),
                p99,
                calm,
                p99 / calm,
                row.lines.alive,
                row.lines.took.len() as f64 / seconds,
                rank(&row.lines.took, 990),
                row.lines.failed,
                shown(server),
                shown(client),
                row.outcome.shown(),
            );
        }
    }
}

fn shown(cost: Cost) -> String {
    format!(
        "{:.1} | {:.0} + {:.0} % | {}",
        cost.resident_mib, cost.cpu_percent, cost.waited_percent, cost.descriptors
    )
}
