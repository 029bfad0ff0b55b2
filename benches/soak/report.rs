//! The table, a row as it comes, and what is said of it in the end.

use std::time::Duration;

use crate::{
    ledger::{Count, Tally},
    ranks::rank,
    sides::Figures,
};

/// How much larger the memory may be in the end than it was in the first quarter: by so much of it, or so many
/// bytes.
const GROWTH_PERCENT: u64 = 25;
const GROWTH_BYTES: u64 = 2 << 20;

/// Requests that have to go well in a second, in a row that is so long at least.
const REQUESTS_MIN: f64 = 200.0;
const JUDGED_MIN: Duration = Duration::from_secs(60);

const KIB: f64 = 1024.0;
const MIB: f64 = KIB * KIB;

/// Prints what stands above the rows.
pub fn print_head() {
    println!(
        "Times in ms, of GETs and POSTs that met neither a cut nor a pause; memory in MiB (resident, of that \
         anonymous); streams with those whose users wait; CPU in seconds so far.\n"
    );
    let side = "memory | fds | sockets | streams | undelivered | CPU";
    println!(
        "| at | requests/s | ssh | cuts, pauses | cut off | failed | p50 | p99 | server: {side} \
         | client: {side} | parked |"
    );
    println!("|---|{}", "--:|".repeat(20));
}

/// Prints a row: when, what happened since the one before, and what both sides hold; without a load there
/// is only the latter.
pub fn print_row(at: &str, load: Option<(&mut Tally, Duration, usize)>, sides: &[Figures; 2]) {
    let loaded = match load {
        None => " | | | | | | ".to_owned(),
        Some((tally, span, sessions)) => {
            tally.took.sort_unstable();
            let Count { cut, failed, .. } = tally.all();
            format!(
                "{:.0} | {sessions} | {}, {} | {cut} | {failed} | {:.1} | {:.1}",
                tally.requests() as f64 / span.as_secs_f64(),
                tally.cuts,
                tally.pauses,
                rank(&tally.took, 500),
                rank(&tally.took, 990),
            )
        }
    };
    let [server, client] = sides.each_ref().map(|side| {
        format!(
            "{:.1}, {:.1} | {} | {} | {} | {} | {:.1}",
            side.resident as f64 / MIB,
            side.anonymous as f64 / MIB,
            side.count("descriptors"),
            side.count("sockets"),
            side.count("streams"),
            side.count("undelivered bytes"),
            side.cpu.as_secs_f64(),
        )
    });
    let parked = sides[1].count("parked");
    println!("| {at} | {loaded} | {server} | {client} | {parked} |");
}

/// What is to be said of a row: nothing, if it brought enough, or is so short that one cut fills it.
pub fn row_remark(at: &str, tally: &Tally, span: Duration) -> Option<String> {
    if span < JUDGED_MIN {
        return None;
    }
    let rate = tally.requests() as f64 / span.as_secs_f64();
    (rate < REQUESTS_MIN).then(|| format!("{at}: {rate:.0} requests/s"))
}

/// Prints how often what was done, and how that ended.
pub fn print_deeds(tally: &Tally) {
    println!("\n| what | well | cut off | failed |\n|---|--:|--:|--:|");
    for (deed, Count { ok, cut, failed }) in &tally.deeds {
        println!("| {} | {ok} | {cut} | {failed} |", deed.name);
    }
    println!();
}

/// What has not returned to where it was at the start; nothing, where all has. Prints both.
pub fn left_behind(name: &str, start: &Figures, end: &Figures) -> Vec<String> {
    for (when, figures) in [("at the start", start), ("in the end", end)] {
        let counts = figures.counts.iter();
        let counts: Vec<_> = counts.map(|(of, count)| format!("{of} {count}")).collect();
        println!("{name} {when}: {}.", counts.join(", "));
    }
    let both = start.counts.iter().zip(&end.counts);
    let changed = both.filter(|(before, after)| before != after);
    let told =
        changed.map(|((of, before), (_, after))| format!("{name}: {of} {before}, now {after}"));
    told.collect()
}

/// Prints what memory has done, and says whether that is too much: `plateau` is the most of the first quarter,
/// in bytes, and a sample is when, and how many bytes were anonymous.
pub fn grown(
    name: &str,
    start: &Figures,
    plateau: u64,
    end: &Figures,
    samples: &[(Duration, u64)],
) -> Option<String> {
    println!(
        "{name}: {:.2} MiB at the start, {:.2} at most in the first quarter, {:.2} in the end; anonymous \
         {:+.0} KiB/h from the second quarter on ({} samples).",
        start.resident as f64 / MIB,
        plateau as f64 / MIB,
        end.resident as f64 / MIB,
        slope(samples) * 3600.0 / KIB,
        samples.len(),
    );
    let allowed = plateau + (plateau * GROWTH_PERCENT / 100).max(GROWTH_BYTES);
    (end.resident > allowed).then(|| format!("{name}: its memory has not returned"))
}

/// Bytes a second, by least squares.
fn slope(samples: &[(Duration, u64)]) -> f64 {
    let count = samples.len() as f64;
    let points = || {
        samples
            .iter()
            .map(|(at, bytes)| (at.as_secs_f64(), *bytes as f64))
    };
    let mean_at = points().map(|(at, _)| at).sum::<f64>() / count;
    let mean = points().map(|(_, bytes)| bytes).sum::<f64>() / count;
    let rise: f64 = points()
        .map(|(at, bytes)| (at - mean_at) * (bytes - mean))
        .sum();
    let run: f64 = points().map(|(at, _)| (at - mean_at).powi(2)).sum();
    rise / run
}
