//! What was measured, as Markdown.

use std::{fmt, time::Duration};

use crate::route::Opening;

/// Two ways of one case, measured in turn.
pub struct Row {
    /// The target, and how a new connection to it begins.
    pub opening: Opening,
    /// There and back again, between the origin and whoever connects to it.
    pub round_trip: Duration,
    /// Who asked at the same time.
    pub users: usize,
    /// What lies between, and what the user does.
    pub way: &'static str,
    /// On a connection that was there already.
    pub pooled: Spread,
    /// On one of its own.
    pub unpooled: Spread,
}

/// What a request costs the client, pooled and unpooled.
pub struct Cost {
    /// The target, and how a new connection to it begins.
    pub opening: Opening,
    /// Processor time, user and system.
    pub cpu: [Duration; 2],
    /// System calls, where they could be counted.
    pub calls: [Option<f64>; 2],
}

/// The middle and the end of what was measured.
#[derive(Clone, Copy)]
pub struct Spread {
    median: Duration,
    p99: Duration,
}

impl Spread {
    /// By nearest rank.
    ///
    /// # Panics
    /// When nothing was measured.
    pub fn of(samples: &[Duration]) -> Spread {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable();
        let rank = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100) - 1];
        Spread {
            median: rank(50),
            p99: rank(99),
        }
    }
}

/// Prints what the requests took.
pub fn print_times(rows: &[Row]) {
    println!(
        "| target | origin at | way | pooled: median | p99 | unpooled: median | p99 | saved (median) |"
    );
    println!("|---|---|---|--:|--:|--:|--:|--:|");
    for row in rows {
        let Row {
            opening,
            way,
            pooled,
            unpooled,
            ..
        } = row;
        let distance = match (row.round_trip, row.users) {
            (Duration::ZERO, 1) => "loopback".to_owned(),
            (Duration::ZERO, users) => format!("loopback, {users} in parallel"),
            (round_trip, _) => format!("{} ms", round_trip.as_millis()),
        };
        let saved = 1.0 - pooled.median.as_secs_f64() / unpooled.median.as_secs_f64();
        println!(
            "| {opening} | {distance} | {way} | {} | {} | {} | {} | {:.0} % |",
            Shown(pooled.median),
            Shown(pooled.p99),
            Shown(unpooled.median),
            Shown(unpooled.p99),
            100.0 * saved
        );
    }
}

/// Prints what the requests cost.
pub fn print_costs(costs: &[Cost]) {
    println!(
        "| target | client's CPU: pooled | unpooled | client's system calls: pooled | unpooled |"
    );
    println!("|---|--:|--:|--:|--:|");
    for Cost {
        opening,
        cpu,
        calls,
    } in costs
    {
        let [pooled, unpooled] = calls.map(|calls| match calls {
            Some(calls) => format!("{calls:.1}"),
            None => "not counted".to_owned(),
        });
        println!(
            "| {opening} | {} | {} | {pooled} | {unpooled} |",
            Shown(cpu[0]),
            Shown(cpu[1])
        );
    }
}

impl fmt::Display for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Opening::Plain => "`http`",
            Opening::Full => "`https`, full handshakes",
            Opening::Resumed => "`https`, resumed",
        })
    }
}

/// A time to three figures.
struct Shown(Duration);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_secs_f64() * 1e6;
        match micros {
            ..999.5 => write!(f, "{micros:.0} µs"),
            ..9_995.0 => write!(f, "{:.2} ms", micros / 1e3),
            _ => write!(f, "{:.1} ms", micros / 1e3),
        }
    }
}
