//! The table: a line for each figure of each scenario, a column for each peer.

use crate::{
    figures::{Better, Figures, Median, shown},
    peers::Peer,
    scenarios::Scenario,
};

/// What all rounds gave.
pub struct Results<'a> {
    peers: &'a [Peer],
    lines: Vec<Line>,
}

/// One figure of one scenario.
pub struct Line {
    scenario: &'static Scenario,
    name: &'static str,
    better: Better,
    /// What each peer's rounds gave, in the order of the peers.
    values: Vec<Vec<f64>>,
}

impl<'a> Results<'a> {
    /// Nothing yet.
    pub fn new(peers: &'a [Peer]) -> Results<'a> {
        Results {
            peers,
            lines: Vec::new(),
        }
    }

    /// Adds what one run of the peer of this index gave.
    pub fn add(&mut self, scenario: &'static Scenario, peer: usize, figures: &Figures) {
        for figure in figures.iter() {
            let is_it =
                |line: &Line| (line.scenario.name, line.name) == (scenario.name, figure.name);
            let index = self.lines.iter().position(is_it).unwrap_or_else(|| {
                self.lines.push(Line {
                    scenario,
                    name: figure.name,
                    better: figure.better,
                    values: vec![Vec::new(); self.peers.len()],
                });
                self.lines.len() - 1
            });
            self.lines[index].values[peer].push(figure.value);
        }
    }

    /// The first peer that is one.
    pub fn peer(&self, is_one: impl Fn(&Peer) -> bool) -> Option<usize> {
        self.peers.iter().position(is_one)
    }

    /// The name of the peer of this index.
    pub fn name(&self, peer: usize) -> &str {
        &self.peers[peer].name
    }

    /// The median of a figure of a peer.
    pub fn median(&self, scenario: &str, figure: &str, peer: usize) -> Option<Median> {
        let line = self
            .lines
            .iter()
            .find(|line| (line.scenario.name, line.name) == (scenario, figure))?;
        Median::of(line.values[peer].clone())
    }

    /// Prints them all.
    pub fn print(&self, rounds: usize) {
        let names: Vec<&str> = self.peers.iter().map(|peer| peer.name.as_str()).collect();
        let Some(first) = names.first() else {
            return;
        };
        println!(
            "Medians of {rounds} (least–most); ×: how many times better {first} is than the other.\n"
        );
        println!("| scenario: figure | {} |", names.join(" | "));
        println!("|---|{}", "--:|".repeat(names.len()));
        for line in &self.lines {
            let medians: Vec<Option<Median>> =
                line.values.iter().cloned().map(Median::of).collect();
            let first = medians.first().copied().flatten();
            let cells = medians.iter().enumerate().map(|(index, median)| {
                let Some(median) = median else {
                    return "–".to_owned();
                };
                let ratio = first
                    .filter(|_| index > 0)
                    .and_then(|first| line.better.ratio(first.middle, median.middle));
                match ratio {
                    Some(ratio) => format!("{median} **{}×**", shown(ratio)),
                    None => median.to_string(),
                }
            });
            let cells: Vec<String> = cells.collect();
            println!(
                "| {}: {} | {} |",
                line.scenario.name,
                line.name,
                cells.join(" | ")
            );
        }
    }
}
