//! The log, bounded: whoever is refused can come back as often as the network allows, and must not fill a
//! disk, nor keep the process busy with writing of it.
//!
//! Of each statement that logs at `info` or above so many lines are let through at once and so many in a
//! second; the rest is counted, and the next line that is let through says how many were not. What is asked
//! for by `debug` or `trace` is never left out. It knows what no line says.

use std::{collections::HashMap, sync::Mutex, time::Instant};

use log::{Level, Log, Metadata, Record};

/// A log that lets through what may be written.
pub struct Journal<L> {
    log: L,
    sites: Mutex<HashMap<Site, Allowance>>,
}

/// A statement: where it stands in the source.
type Site = (&'static str, u32);

/// What a statement may still say.
#[derive(Debug)]
struct Allowance {
    lines: u32,
    /// Until when the lines of earlier seconds are counted in.
    since: Instant,
    left_out: u64,
}

impl<L: Log> Journal<L> {
    /// Bounds `log`.
    pub fn new(log: L) -> Journal<L> {
        Journal {
            log,
            sites: Mutex::new(HashMap::new()),
        }
    }

    /// Whether a line of this statement may be written; if so, how many were left out before it.
    fn admit(&self, site: Site, now: Instant) -> Option<u64> {
        let Ok(mut sites) = self.sites.lock() else {
            return Some(0);
        };
        let allowance = sites.entry(site).or_insert(Allowance {
            lines: BURST,
            since: now,
            left_out: 0,
        });
        let passed = now.saturating_duration_since(allowance.since);
        let more = passed.as_millis() * u128::from(PER_SECOND) / 1000;
        if more > 0 {
            let more = u32::try_from(more).unwrap_or(BURST);
            allowance.lines = allowance.lines.saturating_add(more).min(BURST);
            allowance.since = now;
        }
        if allowance.lines == 0 {
            allowance.left_out += 1;
            return None;
        }
        allowance.lines -= 1;
        Some(std::mem::take(&mut allowance.left_out))
    }
}

impl<L: Log> Log for Journal<L> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.log.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let (true, Some(file), Some(line)) = (
            record.level() <= Level::Info,
            record.file_static(),
            record.line(),
        ) else {
            return self.log.log(record);
        };
        match self.admit((file, line), Instant::now()) {
            None => {}
            Some(0) => self.log.log(record),
            Some(left_out) => {
                let arguments = format_args!("{} (and {left_out} more such lines)", record.args());
                let said = Record::builder()
                    .metadata(record.metadata().clone())
                    .args(arguments)
                    .module_path_static(record.module_path_static())
                    .file_static(record.file_static())
                    .line(record.line())
                    .build();
                self.log.log(&said);
            }
        }
    }

    fn flush(&self) {
        self.log.flush();
    }
}

/// Lines of one statement at once: a fleet of a thousand clients comes back, and each is named.
const BURST: u32 = 1000;

/// Lines of one statement in a second once those are used up: enough to see who it is, and less than a
/// million a day.
const PER_SECOND: u32 = 10;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Shorter than it takes to regain one line.
    const MOMENT: Duration = Duration::from_millis(1000 / PER_SECOND as u64 - 1);

    struct Nothing;

    impl Log for Nothing {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn log(&self, _: &Record<'_>) {}

        fn flush(&self) {}
    }

    #[test]
    fn a_statement_says_so_much_at_once_and_so_much_in_a_second() {
        let journal = Journal::new(Nothing);
        let start = Instant::now();
        let site = ("a.rs", 1);
        for _ in 0..BURST {
            assert_eq!(journal.admit(site, start), Some(0));
        }
        for _ in 0..5 {
            assert_eq!(journal.admit(site, start + MOMENT), None);
        }
        assert_eq!(
            journal.admit(("a.rs", 2), start),
            Some(0),
            "another statement"
        );
        let second = start + Duration::from_secs(1);
        assert_eq!(journal.admit(site, second), Some(5));
        for _ in 1..PER_SECOND {
            assert_eq!(journal.admit(site, second), Some(0));
        }
        assert_eq!(journal.admit(site, second), None);
        let later = second + Duration::from_secs(1_000_000);
        assert_eq!(journal.admit(site, later), Some(1));
        let at_once = (0..2 * BURST).filter(|_| journal.admit(site, later).is_some());
        assert_eq!(
            at_once.count(),
            BURST as usize - 1,
            "no more than at the start"
        );
    }
}
