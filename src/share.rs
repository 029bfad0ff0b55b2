//! What a turn can do of something, divided among those who want more of it than there is: many who flood hold
//! everybody else up for little longer than one.

/// How much of something each may have in a turn.
#[derive(Debug)]
pub struct Share {
    least: usize,
    most: usize,
    together: usize,
    each: usize,
    /// How many had all of theirs in this turn, and want more.
    wanting: usize,
}

impl Share {
    /// At most `most` for each, and `together` for those who want more than they get, but `least` for each of
    /// them however many they are.
    pub const fn new(least: usize, most: usize, together: usize) -> Share {
        Share {
            least,
            most,
            together,
            each: most,
            wanting: 0,
        }
    }

    /// How much each may have in this turn.
    pub fn each(&self) -> usize {
        self.each
    }

    /// One has had as much, and wants more: the next turn will be divided among such.
    pub fn wants_more(&mut self) {
        self.wanting += 1;
    }

    /// A turn is over.
    pub fn divide(&mut self) {
        let wanting = std::mem::take(&mut self.wanting);
        self.each = (self.together / wanting.max(1)).clamp(self.least, self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_want_more_the_less_each_gets_and_never_nothing() {
        let mut share = Share::new(2, 16, 32);
        assert_eq!(share.each(), 16);
        for (wanting, each) in [
            (0, 16),
            (1, 16),
            (2, 16),
            (3, 10),
            (8, 4),
            (16, 2),
            (1000, 2),
        ] {
            for _ in 0..wanting {
                share.wants_more();
            }
            share.divide();
            assert_eq!(share.each(), each, "{wanting}");
        }
        share.divide();
        assert_eq!(share.each(), 16, "nobody does any more");
    }
}
