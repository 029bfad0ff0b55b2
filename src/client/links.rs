//! The links of a client: the one that takes new streams, and those that only finish theirs.
//!
//! ```text
//!   present --goaway from the server--> leaving --its last stream has ended, or it is lost--> gone
//!      ^
//!      the next one, dialled at once
//! ```
//!
//! It owns them and gives them their names; it knows neither how a link is dialled nor what a stream is.
//! Which link carries it, a stream knows by that name.
//!
//! Invariants: no two links have one name; whatever is leaving has been up, and its server has said goaway;
//! no more than [`LEAVING_MAX`] are.

use std::time::Instant;

use super::connection::{Cause, Connection};
use crate::{key::Key, tunnel::Tunnel};

/// Names a link of this client. Used again, after 256 others, but by no two at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkId(u8);

/// All links of a client.
pub(super) struct Links {
    /// The one that takes new streams, or what may become it.
    pub present: Connection,
    id: LinkId,
    /// Those whose servers drain, the oldest first.
    leaving: Vec<Leaving>,
}

/// A link whose server drains.
struct Leaving {
    id: LinkId,
    tunnel: Box<Tunnel>,
    /// When it came up.
    since: Instant,
}

impl Links {
    /// None, and none under way.
    pub fn new() -> Links {
        Links {
            present: Connection::Idle,
            id: LinkId::default(),
            leaving: Vec::new(),
        }
    }

    /// The name of the present link, or of what may become it.
    pub fn id(&self) -> LinkId {
        self.id
    }

    /// Whether that is its name.
    pub fn is_present(&self, id: LinkId) -> bool {
        id == self.id
    }

    /// Whether a link is there that only finishes its streams.
    pub fn has_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// Whether any link is up.
    pub fn is_any_up(&self) -> bool {
        self.present.is_up() || self.has_leaving()
    }

    /// The names of all, whatever has become of them: the present one first.
    pub fn ids(&self) -> impl Iterator<Item = LinkId> + use<> {
        let mut ids = [None; 1 + LEAVING_MAX];
        let all = [self.id]
            .into_iter()
            .chain(self.leaving.iter().map(|it| it.id));
        for (place, id) in ids.iter_mut().zip(all) {
            *place = Some(id);
        }
        ids.into_iter().flatten()
    }

    /// The names of those whose servers have proved themselves.
    pub fn ids_up(&self) -> impl Iterator<Item = LinkId> {
        self.ids()
            .filter(|id| !self.is_present(*id) || self.present.is_up())
    }

    /// The tunnel of a link, which may not be welcomed yet.
    pub fn tunnel(&mut self, id: LinkId) -> Option<&mut Tunnel> {
        if id == self.id {
            return self.present.tunnel();
        }
        let leaving = self.leaving.iter_mut().find(|it| it.id == id);
        leaving.map(|it| &mut *it.tunnel)
    }

    /// The tunnel of a link whose server has proved itself.
    pub fn up(&mut self, id: LinkId) -> Option<&mut Tunnel> {
        let is_up = !self.is_present(id) || self.present.is_up();
        self.tunnel(id).filter(|_| is_up)
    }

    /// The tunnels of the links whose servers have proved themselves: the present one first.
    pub fn all_up(&self) -> impl Iterator<Item = &Tunnel> {
        let leaving = self.leaving.iter().map(|it| &*it.tunnel);
        self.present.up().into_iter().chain(leaving)
    }

    /// The server of the present link has said goaway: it goes on, and another will be the present one.
    /// Since when it was up; `None` if it was not.
    pub fn leave(&mut self) -> Option<Instant> {
        let present = std::mem::replace(&mut self.present, Connection::Idle);
        let Connection::Up(mut tunnel, since) = present else {
            self.present = present;
            return None;
        };
        tunnel.mux.peer_leaves();
        let id = self.id;
        self.leaving.push(Leaving { id, tunnel, since });
        self.name_next();
        Some(since)
    }

    /// The wait for the next attempt ends at `at`, if that is sooner and what it waits for may pass by itself:
    /// its timer.
    pub fn hasten(&mut self, at: Instant) -> Option<Key> {
        match &mut self.present {
            Connection::Waiting {
                timer,
                until,
                cause: Cause::Passing,
            } if at < *until => {
                *until = at;
                Some(*timer)
            }
            _ => None,
        }
    }

    /// Which link has to go so that no more than [`LEAVING_MAX`] are leaving: the oldest.
    pub fn surplus(&self) -> Option<LinkId> {
        let is_surplus = self.leaving.len() > LEAVING_MAX;
        self.leaving.first().filter(|_| is_surplus).map(|it| it.id)
    }

    /// Takes a link out, which is at its end: what it was. `Idle` if it is there no more.
    pub fn remove(&mut self, id: LinkId) -> Connection {
        if id == self.id {
            self.name_next();
            return std::mem::replace(&mut self.present, Connection::Idle);
        }
        match self.leaving.iter().position(|it| it.id == id) {
            Some(place) => {
                let Leaving { tunnel, since, .. } = self.leaving.remove(place);
                Connection::Up(tunnel, since)
            }
            None => Connection::Idle,
        }
    }

    /// The next link that is dialled gets a name that none has which is still there.
    fn name_next(&mut self) {
        loop {
            self.id = LinkId(self.id.0.wrapping_add(1));
            if self.leaving.iter().all(|it| it.id != self.id) {
                return;
            }
        }
    }

    /// Panics where the invariants do not hold. `held` is what the budget holds.
    pub fn check_invariants(&self, held: usize) {
        let mut of_links = 0;
        for tunnel in self
            .present
            .any_tunnel()
            .into_iter()
            .chain(self.leaving.iter().map(|it| &*it.tunnel))
        {
            tunnel.mux.check_invariants();
            of_links += tunnel.mux.held();
        }
        assert!(
            of_links <= held,
            "the budget holds at least what the links do"
        );
        assert!(self.leaving.len() <= LEAVING_MAX, "few links are leaving");
        for (place, leaving) in self.leaving.iter().enumerate() {
            assert!(
                leaving.tunnel.mux.is_peer_leaving(),
                "its server has said goaway"
            );
            assert!(
                leaving.id != self.id,
                "the present link has a name of its own"
            );
            let others = &self.leaving[..place];
            assert!(
                others.iter().all(|it| it.id != leaving.id),
                "so has each that is leaving"
            );
        }
    }
}

/// Links that may be leaving at a time: a server that is restarted again and again, while sessions of each
/// go on. Each costs a socket and pings; from the next one on, the oldest is closed.
const LEAVING_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        clock::Now,
        tunnel::{
            link::Link,
            mux::{Mux, Side},
            window::Budget,
        },
    };

    /// The present link is up.
    fn come_up(links: &mut Links) -> LinkId {
        let instant = Instant::now();
        let unix = Duration::ZERO;
        let second = Duration::from_secs(1);
        let link = Link::new(
            Side::Client,
            Vec::new(),
            second,
            second,
            Now { instant, unix },
        );
        let key = Key {
            index: 0,
            serial: 0,
        };
        let mux = Mux::new(Side::Client, &Budget::new(1 << 20));
        links.present = Connection::Up(Box::new(Tunnel::new(key, link, mux)), instant);
        links.id()
    }

    #[test]
    fn no_two_links_have_one_name_however_many_there_were() {
        let mut links = Links::new();
        let old = come_up(&mut links);
        assert!(links.leave().is_some());
        for _ in 0..1000 {
            let id = come_up(&mut links);
            assert!(id != old && links.is_present(id));
            links.check_invariants(0);
            assert!(matches!(links.remove(id), Connection::Up(..)));
            assert!(links.up(id).is_none() && links.up(old).is_some());
        }
        assert!(matches!(links.remove(old), Connection::Up(..)));
        assert!(matches!(links.remove(old), Connection::Idle));
        assert!(!links.is_any_up());
    }

    #[test]
    fn a_wait_is_shortened_unless_it_is_for_somebody_who_mends_something() {
        let timer = Key {
            index: 7,
            serial: 7,
        };
        let now = Instant::now();
        let [sooner, usual, later] = [1, 2, 3].map(|seconds| now + Duration::from_secs(seconds));
        let mut links = Links::new();
        assert_eq!(links.hasten(sooner), None);
        for (cause, hastened) in [(Cause::Passing, Some(timer)), (Cause::Lasting, None)] {
            links.present = Connection::Waiting {
                timer,
                until: usual,
                cause,
            };
            assert_eq!(links.hasten(later), None);
            assert_eq!(links.hasten(sooner), hastened, "{cause:?}");
            assert_eq!(links.hasten(sooner), None, "it is so already");
        }
        come_up(&mut links);
        assert_eq!(links.hasten(sooner), None);
    }

    #[test]
    fn the_oldest_is_surplus_once_too_many_are_leaving() {
        let mut links = Links::new();
        assert!(links.leave().is_none(), "there is none yet");
        let mut ids = Vec::new();
        for _ in 0..LEAVING_MAX {
            ids.push(come_up(&mut links));
            links.leave();
            assert_eq!(links.surplus(), None);
            links.check_invariants(0);
        }
        come_up(&mut links);
        links.leave();
        assert_eq!(links.surplus(), Some(ids[0]));
        links.remove(ids[0]);
        links.check_invariants(0);
        assert_eq!(links.all_up().count(), LEAVING_MAX);
    }
}
