//! What was measured, in numbers with a name.

use std::{fmt, time::Duration};

/// Which way a figure is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// The larger, the better.
    More,
    /// The smaller, the better.
    Less,
    /// It explains others.
    Neither,
}

/// A number, as it stands in the table.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// What it is, with its unit.
    pub name: &'static str,
    /// See [`Better`].
    pub better: Better,
    /// How much.
    pub value: f64,
}

/// What one run of one peer gave, the most important first.
#[derive(Clone, Debug, Default)]
pub struct Figures(Vec<Figure>);

/// The middle of some rounds, and how far they went apart.
#[derive(Clone, Copy, Debug)]
pub struct Median {
    /// The middle one (the lower of two).
    pub middle: f64,
    least: f64,
    most: f64,
}

impl Figures {
    /// Adds one of which more is better.
    pub fn more(&mut self, name: &'static str, value: f64) {
        self.push(name, Better::More, value);
    }

    /// Adds one of which less is better.
    pub fn less(&mut self, name: &'static str, value: f64) {
        self.push(name, Better::Less, value);
    }

    /// Adds one that explains others.
    pub fn also(&mut self, name: &'static str, value: f64) {
        self.push(name, Better::Neither, value);
    }

    /// Adds p50, p99 and p99.9, in microseconds.
    pub fn times(&mut self, mut samples: Vec<Duration>) {
        samples.sort_unstable();
        let ranks = [("p50 µs", 500), ("p99 µs", 990), ("p99.9 µs", 999)];
        for (name, per_mille) in ranks {
            // By nearest rank.
            let rank = (samples.len() * per_mille).div_ceil(1000).max(1);
            if let Some(sample) = samples.get(rank - 1) {
                self.less(name, sample.as_secs_f64() * 1e6);
            }
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Figure> {
        self.0.iter()
    }

    fn push(&mut self, name: &'static str, better: Better, value: f64) {
        self.0.push(Figure {
            name,
            better,
            value,
        });
    }
}

impl Median {
    /// Of what the rounds gave; none of nothing.
    pub fn of(mut values: Vec<f64>) -> Option<Median> {
        values.sort_unstable_by(f64::total_cmp);
        Some(Median {
            middle: *values.get(values.len().checked_sub(1)? / 2)?,
            least: *values.first()?,
            most: *values.last()?,
        })
    }
}

impl Better {
    /// How many times better the first is than the second.
    pub fn ratio(self, one: f64, other: f64) -> Option<f64> {
        let ratio = match self {
            Better::More => one / other,
            Better::Less => other / one,
            Better::Neither => return None,
        };
        (ratio.is_finite() && ratio > 0.0).then_some(ratio)
    }
}

impl fmt::Display for Median {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [middle, least, most] = [self.middle, self.least, self.most].map(shown);
        match least == most {
            true => f.write_str(&middle),
            false => write!(f, "{middle} ({least}–{most})"),
        }
    }
}

/// A number to three figures, or in full from a hundred on.
pub fn shown(value: f64) -> String {
    match value.abs() {
        ..9.995 => format!("{value:.2}"),
        ..99.95 => format!("{value:.1}"),
        _ => {
            let digits = format!("{:.0}", value.abs());
            let mut text = String::from(if value < 0.0 { "-" } else { "" });
            for (place, digit) in digits.chars().enumerate() {
                if place > 0 && (digits.len() - place).is_multiple_of(3) {
                    text.push(',');
                }
                text.push(digit);
            }
            text
        }
    }
}
