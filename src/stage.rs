//! How far a role has come on its way to the end, and what it says on that way.

use std::time::Duration;

use log::info;

use crate::readable::{many, size, span};

/// A role's stage; each is only ever followed by a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// It serves.
    Running,
    /// Asked to stop: it takes nothing new, and what goes on may end.
    Draining,
    /// Goodbye is said; until the peers have read it.
    Leaving,
    /// It has ended.
    Over,
}

impl Stage {
    /// Whether it takes nothing new.
    pub fn is_ending(self) -> bool {
        self > Stage::Running
    }

    /// Whether nothing is sent any more. `lingering` is how many connections wait for their peers to
    /// read a goodbye: without any, a role that is leaving is over.
    pub fn has_left(&mut self, lingering: usize) -> bool {
        if *self == Stage::Leaving && lingering == 0 {
            *self = Stage::Over;
        }
        *self >= Stage::Leaving
    }
}

/// Says that what goes on may end; `what` it is that there are so many of.
pub(crate) fn say_stopping(count: usize, what: &str) {
    let said = match count {
        0 => "stopping".into(),
        _ => format!(
            "stopping when {} ended; Ctrl-C again ends all at once",
            match count {
                1 => "a session has".into(),
                _ => format!("{count} sessions have"),
            }
        ),
    };
    info!(say = &*said; "stopping: {count} {what} may finish");
}

/// Says what there was in all: streams, payload bytes towards targets and towards users.
pub(crate) fn say_summary(streams: u64, up: u64, down: u64, ran: Duration) {
    let seconds = ran.as_secs_f64();
    info!(
        streams,
        bytes_up = up,
        bytes_down = down,
        seconds,
        say:% = format_args!(
            "served {} in {}, {} up, {} down",
            many(streams, "session"),
            span(ran),
            size(up),
            size(down)
        );
        "ended: {streams} streams, {up} B up, {down} B down, {seconds:.3} s"
    );
}
