//! How many connections there may be: by the memory that they come to hold, and by descriptors.
//!
//! Users and targets are of no use without their link, and a process that has run out is no use to its
//! operator. So they leave some of both free, and so do others, each a little less:
//!
//! ```text
//!  |<---------------------------- descriptors of the process ---------------------------->|
//!  | not ours | sockets of the reactor                     |<-------- reserved ---------->|
//!  |          |  users, targets: up to here                |  listeners  | links  | files |
//! ```
//!
//! Files and the look-ups of names, which nobody asks here about, have the last quarter of the reserve.
//! Nothing here makes a system call: the limit is looked up once, and the reactor counts what it opens.

use std::io;

use super::net::{Descriptors, Purpose};

/// How many connections there are, and may be.
#[derive(Debug)]
pub(super) struct Room {
    /// By their weight.
    load: usize,
    load_max: usize,
    /// Sockets, listeners included.
    sockets: usize,
    sockets_max: usize,
    /// Of these, what users and targets leave free.
    reserved: usize,
    /// Descriptors that there may be at all, if that is known.
    descriptors_max: Option<usize>,
}

impl Room {
    /// As much as the system gives.
    pub fn unlimited() -> Room {
        Room {
            load: 0,
            load_max: usize::MAX,
            sockets: 0,
            sockets_max: usize::MAX,
            reserved: 0,
            descriptors_max: None,
        }
    }

    /// There may be so many connections, by their weight.
    pub fn limit_load(&mut self, connections: usize) {
        self.load_max = connections;
    }

    /// Keeps some of the process's descriptors, at most an eighth of them.
    pub fn reserve(&mut self, reserved: usize, descriptors: Descriptors) {
        let Descriptors { limit, open } = descriptors;
        let others = open.saturating_sub(self.sockets);
        self.sockets_max = limit.saturating_sub(others);
        self.reserved = reserved.min(limit / RESERVED_PART);
        self.descriptors_max = Some(limit);
    }

    /// How many descriptors there may be, and are, as far as sockets are concerned.
    pub fn descriptors(&self) -> Option<Descriptors> {
        let limit = self.descriptors_max?;
        let others = limit.saturating_sub(self.sockets_max);
        Some(Descriptors {
            limit,
            open: others + self.sockets,
        })
    }

    /// # Errors
    /// There is no room for another of these.
    pub fn admit(&self, purpose: Purpose) -> io::Result<()> {
        let (load_kept, sockets_kept) = match purpose {
            Purpose::Link => (0, self.reserved / 4),
            // Who is to find out why there are none left needs one, but not instead of the link.
            Purpose::Admin => (usize::from(Purpose::Link.weight()), self.reserved / 4),
            Purpose::User | Purpose::SecureUser | Purpose::Target | Purpose::SecureTarget => (
                LINKS_KEPT * usize::from(Purpose::Link.weight()),
                self.reserved,
            ),
        };
        let load = self.load + usize::from(purpose.weight());
        if load > self.load_max.saturating_sub(load_kept) {
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        }
        self.admit_socket(sockets_kept)
    }

    /// # Errors
    /// There is no room for another listener.
    pub fn admit_listener(&self) -> io::Result<()> {
        self.admit_socket(self.reserved / 2)
    }

    fn admit_socket(&self, kept: usize) -> io::Result<()> {
        if self.sockets >= self.sockets_max.saturating_sub(kept) {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        Ok(())
    }

    /// A socket was opened.
    pub fn opened(&mut self) {
        self.sockets += 1;
    }

    /// Its descriptor is free again.
    pub fn closed(&mut self) {
        self.sockets -= 1;
    }

    /// A connection weighs this from now on.
    pub fn load(&mut self, weight: u8) {
        self.load += usize::from(weight);
    }

    /// It weighs nothing any more.
    pub fn unload(&mut self, weight: u8) {
        self.load -= usize::from(weight);
    }

    /// Panics unless there are these.
    pub fn check(&self, sockets: usize, load: usize) {
        assert_eq!(load, self.load, "room is counted");
        assert_eq!(sockets, self.sockets, "descriptors are counted");
    }
}

/// Room that users leave for links: for the one there is, and one that takes over from it.
const LINKS_KEPT: usize = 2;

/// Where there are few descriptors, most of them are to serve.
const RESERVED_PART: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    /// How many more of these there is room for.
    fn left(room: &Room, purpose: Purpose) -> usize {
        let mut room = Room { ..*room };
        let mut count = 0;
        while room.admit(purpose).is_ok() && count < 1000 {
            room.opened();
            room.load(purpose.weight());
            count += 1;
        }
        count
    }

    #[test]
    fn users_leave_room_for_links_and_links_for_files() {
        let mut room = Room::unlimited();
        (0..4).for_each(|_| room.opened());
        let descriptors = Descriptors {
            limit: 512,
            open: 14,
        };
        room.reserve(32, descriptors);
        assert_eq!(room.descriptors(), Some(descriptors));
        assert_eq!(left(&room, Purpose::User), 512 - 14 - 32);
        assert_eq!(left(&room, Purpose::SecureTarget), 512 - 14 - 32);
        assert_eq!(left(&room, Purpose::Link), 512 - 14 - 8);
        while room.admit(Purpose::User).is_ok() {
            room.opened();
        }
        assert_eq!(left(&room, Purpose::Link), 24);
        assert_eq!(left(&room, Purpose::Admin), 24);
        assert_eq!(room.descriptors().map(|it| it.open), Some(512 - 32));
        for _ in 0..16 {
            room.admit_listener().expect("room for a listener");
            room.opened();
        }
        let refused = room.admit_listener().expect_err("no more of them");
        assert_eq!(refused.raw_os_error(), Some(libc::EMFILE));
        assert_eq!(left(&room, Purpose::Link), 8);
        (0..16).for_each(|_| room.closed());
        assert_eq!(left(&room, Purpose::User), 0, "the reserve is not theirs");
        room.closed();
        assert_eq!(left(&room, Purpose::User), 1);
    }

    #[test]
    fn of_few_descriptors_an_eighth_is_reserved_at_most() {
        for (limit, reserved, kept) in [
            (64, 32, 8),
            (1024, 32, 32),
            (1024, 0, 0),
            (256, 65_535, 32),
            (8, 32, 1),
        ] {
            let mut room = Room::unlimited();
            room.reserve(reserved, Descriptors { limit, open: 0 });
            let users = left(&room, Purpose::User);
            assert_eq!(users, (limit - kept).min(1000), "{reserved} of {limit}");
        }
    }

    #[test]
    fn memory_has_room_for_so_many_by_their_weight() {
        let mut room = Room::unlimited();
        room.limit_load(100);
        let kept = LINKS_KEPT * 8;
        assert_eq!(left(&room, Purpose::User), 100 - kept);
        assert_eq!(left(&room, Purpose::SecureUser), (100 - kept) / 4);
        assert_eq!(left(&room, Purpose::Link), 100 / 8);
        assert_eq!(left(&room, Purpose::Admin), 100 - 8);
        let refused = {
            room.load(100);
            room.admit(Purpose::Link).expect_err("no room")
        };
        assert_eq!(refused.raw_os_error(), Some(libc::ENOMEM));
    }
}
