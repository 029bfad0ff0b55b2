//! Quantiles of times.

use std::time::Duration;

/// A quantile of sorted times, in milliseconds; NaN where there are none.
pub fn rank(sorted: &[Duration], per_mille: usize) -> f64 {
    let index = (sorted.len() * per_mille / 1000).min(sorted.len().saturating_sub(1));
    sorted
        .get(index)
        .map_or(f64::NAN, |took| took.as_secs_f64() * 1e3)
}
