//! How long things take, counted by how long: for metrics. Pure numbers, and everybody may import it.

use std::time::Duration;

/// Durations, each counted with those that are about as long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// As many as [`BOUNDS`], and those beyond.
    counts: [u64; BOUNDS.len() + 1],
    sum: Duration,
}

impl Histogram {
    /// One more.
    pub fn count(&mut self, took: Duration) {
        let place = BOUNDS.partition_point(|bound| *bound < took);
        self.counts[place] += 1;
        self.sum = self.sum.saturating_add(took);
    }

    /// All of another's, too.
    pub fn add(&mut self, other: &Histogram) {
        for (count, others) in self.counts.iter_mut().zip(other.counts) {
            *count += others;
        }
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// How many took no longer than each of [`BOUNDS`].
    pub fn cumulative(&self) -> impl Iterator<Item = (Duration, u64)> {
        let sums = self.counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        BOUNDS.into_iter().zip(sums)
    }

    /// How many there were.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How long all of them took together.
    pub fn sum(&self) -> Duration {
        self.sum
    }
}

/// From a turn that had next to nothing to do to a user who gives up waiting, three to a decade.
pub const BOUNDS: [Duration; 19] = [
    Duration::from_micros(10),
    Duration::from_micros(25),
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_up_to_its_bound_and_beyond() {
        assert!(BOUNDS.is_sorted());
        let mut histogram = Histogram::default();
        for (micros, expected) in [(0, 1), (10, 2), (11, 2), (25, 2), (20_000_000, 2)] {
            histogram.count(Duration::from_micros(micros));
            let (bound, upto) = histogram.cumulative().next().expect("there are bounds");
            assert_eq!((bound, upto), (BOUNDS[0], expected), "after {micros}");
        }
        let upto: Vec<u64> = histogram.cumulative().map(|(_, count)| count).collect();
        assert_eq!(upto[1], 4);
        assert_eq!(upto.last(), Some(&4), "what is beyond is in no bound");
        assert_eq!(histogram.total(), 5);
        assert_eq!(histogram.sum(), Duration::from_micros(20_000_046));
        let mut both = histogram.clone();
        both.add(&histogram);
        assert_eq!((both.total(), both.sum()), (10, 2 * histogram.sum()));
    }
}
