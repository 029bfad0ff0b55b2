//! How far a role has come on its way to the end.

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
