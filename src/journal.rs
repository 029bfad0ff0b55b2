//! The log: what there is to say goes to standard error, a line each, in the style that was asked for.
//!
//! It is bounded: whoever is refused can come back as often as the network allows, and must not fill a disk,
//! nor keep the process busy with writing of it. Of each statement that logs at `info` or above so many lines
//! are let through at once and so many in a second; the rest is counted, and the next line that is let through
//! says how many were not. What is asked for by `debug` or `trace` is never left out. It knows what no line
//! says.

mod line;

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::{
        Mutex,
        atomic::{AtomicU8, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use log::{Level, LevelFilter, Log, Metadata, Record, info};

use self::line::{Screen, Style};
use crate::config::{LogFormat, Logging};

/// Logs from now on.
///
/// # Panics
/// The process logs already.
pub fn start(logging: Logging) {
    JOURNAL.write_as(logging.format);
    log::set_logger(&JOURNAL).expect("the logger is set here and nowhere else");
    log::set_max_level(logging.level.to_level_filter());
}

/// A new configuration is taken over: what is as it was in the old one stays as an admin may have set it.
pub fn change(old: Logging, new: Logging) {
    if new.format != old.format {
        JOURNAL.write_as(new.format);
    }
    if new.level != old.level {
        set_level(new.level.to_level_filter(), "reload");
    }
}

/// Logs as much as that from now on, which is said whatever the level was, and who has asked for it.
pub fn set_level(level: LevelFilter, by: &str) {
    let before = log::max_level();
    log::set_max_level(before.max(LevelFilter::Info));
    info!("{by}: log level {level}, it was {before}");
    log::set_max_level(level);
}

static JOURNAL: Journal = Journal::new();

/// A log that lets through what may be written.
struct Journal {
    /// A [`Style`]; the logger is shared by whoever logs.
    style: AtomicU8,
    sites: Mutex<BTreeMap<Site, Allowance>>,
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

impl Journal {
    const fn new() -> Journal {
        Journal {
            style: AtomicU8::new(Style::Text as u8),
            sites: Mutex::new(BTreeMap::new()),
        }
    }

    fn write_as(&self, format: LogFormat) {
        let style = Style::of(format, Screen::of_stderr());
        self.style.store(style as u8, Ordering::Relaxed);
    }

    fn style(&self) -> Style {
        let style = self.style.load(Ordering::Relaxed);
        let all = [Style::Text, Style::Json, Style::Human, Style::Coloured];
        all[usize::from(style)]
    }

    fn write(&self, record: &Record<'_>, left_out: u64) {
        // A clock from before the epoch is one that was never set.
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        let line = self
            .style()
            .line(record, left_out, unix.unwrap_or_default());
        // Whole, so that lines of several threads do not mix. Whether anyone reads is no matter.
        let _ = io::stderr().write_all(&line);
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

impl Log for Journal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // The libraries underneath print whole payloads at trace. The level is asked for before this.
        metadata.target().starts_with("siding")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let (true, Some(file), Some(line)) = (
            record.level() <= Level::Info,
            record.file_static(),
            record.line(),
        ) else {
            return self.write(record, 0);
        };
        if let Some(left_out) = self.admit((file, line), Instant::now()) {
            self.write(record, left_out);
        }
    }

    fn flush(&self) {}
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

    #[test]
    fn a_statement_says_so_much_at_once_and_so_much_in_a_second() {
        let journal = Journal::new();
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
