//! The admin's connections: what they ask, who may, and their answers until they are written.
//!
//! ```text
//!   accepted --> head --asked--> (role) --answer--> written --> head ...     or closed
//! ```
//!
//! There are few of them, and each is bounded in what it may send, hold and take: one request at a time,
//! answered from its head alone. When one more comes than there may be, one gives way that has had its last answer,
//! else the one that has been quiet longest, so that a monitor that forgets its connections locks nobody out.
//!
//! **Who may.** Where a token is set, who shows it (`Authorization: Bearer`); wrong ones are counted by
//! address, as passwords are. The page for people is there for everybody: it is where they type the token, and
//! holds nothing itself. Without a token this machine alone may, but not others' pages that a browser on it
//! shows: a name that leads here (DNS rebinding) is refused, and so is a change that another origin asks for.

use std::{collections::VecDeque, io, mem, net::IpAddr, net::SocketAddr, time::Duration};

use log::{debug, info};
use slab::Slab;

use super::{
    Asked, Told,
    answer::{self, Page, Wanted},
    page,
};
use crate::{
    clock::Now,
    config::{AdminConfig, Token},
    guesses::Guesses,
    http::{self, Gather, Gathered, HeadLimits, Refused, Request},
    journal,
    key::Key,
    reactor::{
        Accepted, Deadline, Reactor,
        net::{Net, Purpose},
    },
    refusals::Refusals,
};

/// The listener and its connections.
pub struct Admin {
    listener: Key,
    /// As it was asked for.
    listen: SocketAddr,
    token: Option<Token>,
    visitors: Slab<Visitor>,
    /// Connections that linger behind their last answers, the first to do so first; some are closed by now.
    left: VecDeque<Key>,
    guesses: Guesses,
    denied: Refusals,
    /// That of the page for people.
    policy: String,
    /// Counts events, to tell who has been quiet longest.
    clock: u64,
}

/// One connection.
struct Visitor {
    key: Key,
    peer: IpAddr,
    gather: Gather,
    /// What the role is being asked, and how its answer is to be sent.
    manner: Manner,
    /// What its socket has not taken yet.
    out: Vec<u8>,
    active: u64,
}

/// How an answer is sent.
#[derive(Clone, Copy, Debug, Default)]
struct Manner {
    /// Without its page.
    head_only: bool,
    /// The last on its connection.
    close: bool,
}

impl Admin {
    /// Opens the listener.
    ///
    /// # Errors
    /// The address cannot be had.
    pub fn open<N: Net, O: Copy>(
        config: &AdminConfig,
        io: &mut Reactor<N, O>,
        owner: O,
    ) -> io::Result<Admin> {
        let (listener, address) = io.listen(config.listen, owner)?;
        info!("admin on http://{address}/");
        io.measure_turns();
        Ok(Admin {
            listener,
            listen: config.listen,
            token: config.token.clone(),
            visitors: Slab::new(),
            left: VecDeque::new(),
            guesses: Guesses::default(),
            denied: Refusals::default(),
            policy: page::policy(),
            clock: 0,
        })
    }

    /// Takes over what may change while it runs: the token, but not that of another address, which may need
    /// none.
    pub fn set_config(&mut self, config: Option<&AdminConfig>) {
        if let Some(config) = config.filter(|config| config.listen == self.listen) {
            self.token = config.token.clone();
        }
    }

    /// Takes the connections that wait; `owner` labels each.
    pub fn accept<N: Net, O: Copy>(
        &mut self,
        io: &mut Reactor<N, O>,
        owner: impl Fn(u32) -> O,
        now: Now,
    ) {
        while io.takes_another(self.listener) {
            let visitor = self.visitors.vacant_key() as u32;
            let accepted = io.accept(self.listener, Purpose::Admin, owner(visitor));
            let Accepted::Connection(key, peer) = accepted else {
                return;
            };
            self.clock += 1;
            self.visitors.insert(Visitor {
                key,
                peer: peer.ip(),
                gather: Gather::default(),
                manner: Manner::default(),
                out: Vec::new(),
                active: self.clock,
            });
            io.set_deadline(key, Deadline::At(now.instant + HEAD_TIMEOUT));
            self.make_room(io);
        }
    }

    /// Has somebody go where there is one connection too many.
    fn make_room<N: Net, O: Copy>(&mut self, io: &mut Reactor<N, O>) {
        if self.visitors.len() + self.left.len() <= VISITORS_MAX {
            return;
        }
        if let Some(left) = self.left.pop_front() {
            return io.part_now(left);
        }
        let quiet = self.visitors.iter().min_by_key(|(_, it)| it.active);
        if let Some(quiet) = quiet.map(|(quiet, _)| quiet) {
            debug!("admin: more than {VISITORS_MAX} connections, the quietest is closed");
            io.close(self.visitors.remove(quiet).key);
        }
    }

    /// A connection may be ready; what it asks the role, if it does.
    pub fn ready<N: Net, O: Copy>(
        &mut self,
        io: &mut Reactor<N, O>,
        visitor: u32,
        now: Now,
    ) -> Option<Asked> {
        self.clock += 1;
        let clock = self.clock;
        let found = self.visitors.get_mut(visitor as usize)?;
        found.active = clock;
        if !found.out.is_empty() && !self.write(io, visitor, now) {
            return None;
        }
        let found = self.visitors.get_mut(visitor as usize)?;
        let key = found.key;
        let before = found.gather.held();
        let mut scratch = [0; SCRATCH];
        let read = |into: &mut [u8]| io.read(key, into);
        match found.gather.read(&mut scratch, HEAD_LIMITS.bytes, read) {
            Gathered::Head { bytes, head } => {
                io.unread(key, &bytes[head..]);
                let head = bytes[..head].to_vec();
                self.asked(io, visitor, &head, now)
            }
            Gathered::Partial => {
                if before == 0 && found.gather.held() > 0 {
                    io.set_deadline(key, Deadline::At(now.instant + HEAD_TIMEOUT));
                }
                None
            }
            Gathered::TooLong(_) => {
                found.manner = Manner {
                    head_only: false,
                    close: true,
                };
                self.show(io, visitor, Page::line(431, "request head too long"), now);
                None
            }
            Gathered::Ended | Gathered::Failed(_) => {
                self.remove(io, visitor);
                None
            }
        }
    }

    /// A connection has had its time.
    pub fn timeout<N: Net, O: Copy>(&mut self, io: &mut Reactor<N, O>, visitor: u32) {
        self.remove(io, visitor);
    }

    /// The role's answer to what the connection has asked.
    pub fn answer<N: Net, O: Copy>(
        &mut self,
        io: &mut Reactor<N, O>,
        visitor: u32,
        told: Told,
        now: Now,
    ) {
        if let Told::Closed(user, true) = told {
            info!(user_id:% = user; "{user}: closed, an admin has asked for it");
        }
        self.show(io, visitor, told.page(), now);
    }

    /// Closes all of it: the process ends.
    pub fn close<N: Net, O: Copy>(&mut self, io: &mut Reactor<N, O>) {
        io.close(self.listener);
        for visitor in self.visitors.drain() {
            io.close(visitor.key);
        }
    }

    /// Understands a request, and answers what needs no role.
    fn asked<N: Net, O: Copy>(
        &mut self,
        io: &mut Reactor<N, O>,
        visitor: u32,
        head: &[u8],
        now: Now,
    ) -> Option<Asked> {
        let found = self.visitors.get_mut(visitor as usize)?;
        let peer = found.peer;
        let page = match Request::parse(head, &HEAD_LIMITS) {
            Err(Refused { status, reason }) => {
                found.manner = Manner {
                    head_only: Request::asks_by_head(head),
                    close: true,
                };
                Page::line(status, reason)
            }
            Ok(request) => {
                found.manner = Manner {
                    head_only: request.is_head(),
                    close: !request.ends_with_its_head(),
                };
                let wanted = answer::route(&request);
                match self.admit(&request, &wanted, peer, now).and(wanted) {
                    Ok(Wanted::Page) => Page::for_people(&self.policy),
                    Ok(Wanted::Health) => Page::line(200, "ok"),
                    Ok(Wanted::Log(level)) => {
                        journal::set_level(level, "admin");
                        Page::empty(204)
                    }
                    Ok(Wanted::OfRole(asked)) => return Some(asked),
                    Err(page) => page,
                }
            }
        };
        self.show(io, visitor, page, now);
        None
    }

    /// Whether somebody may ask this.
    fn admit(
        &mut self,
        request: &Request<'_>,
        wanted: &Result<Wanted, Page>,
        peer: IpAddr,
        now: Now,
    ) -> Result<(), Page> {
        let Some(token) = &self.token else {
            return answer::is_of_this_machine(request);
        };
        if let Ok(Wanted::Page) = wanted {
            return Ok(());
        }
        if let Some(wait) = self.guesses.wait(peer, now.instant) {
            return Err(Page::too_many(wait));
        }
        let Some(shown) = answer::bearer(request) else {
            return Err(Page::unauthorized());
        };
        if token.is(shown) {
            return Ok(());
        }
        self.guesses.count(peer, now.instant);
        if let Some(total) = self.denied.count(now.instant) {
            info!("admin: wrong token from {peer}, {total} denied so far");
        }
        Err(Page::unauthorized())
    }

    /// Sends a page.
    fn show<N: Net, O: Copy>(
        &mut self,
        io: &mut Reactor<N, O>,
        visitor: u32,
        page: Page,
        now: Now,
    ) {
        let Some(found) = self.visitors.get_mut(visitor as usize) else {
            return;
        };
        let Manner { head_only, close } = found.manner;
        let Page {
            status,
            kind,
            content,
            fields,
        } = &page;
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| (*name, &**value))
            .collect();
        let content = kind.map(|kind| (kind, &**content));
        http::page(
            &mut found.out,
            *status,
            content,
            &fields,
            close,
            head_only,
            now.unix,
        );
        if close {
            let gone = self.visitors.remove(visitor as usize);
            self.left.push_back(gone.key);
            return io.farewell_at_most(gone.key, &gone.out, LINGER);
        }
        self.write(io, visitor, now);
    }

    /// Writes on; whether all of it is written.
    fn write<N: Net, O: Copy>(&mut self, io: &mut Reactor<N, O>, visitor: u32, now: Now) -> bool {
        let Some(found) = self.visitors.get_mut(visitor as usize) else {
            return false;
        };
        let key = found.key;
        let mut written = 0;
        while written < found.out.len() {
            match io.write(key, &found.out[written..]) {
                Ok(length) => written += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    found.out.drain(..written);
                    io.set_deadline(key, Deadline::idle(WRITE_TIMEOUT));
                    return false;
                }
                Err(_) => {
                    self.remove(io, visitor);
                    return false;
                }
            }
        }
        mem::take(&mut found.out);
        io.set_deadline(key, Deadline::At(now.instant + KEEP_ALIVE));
        if io.is_readable(key) {
            io.again(key);
        }
        true
    }

    fn remove<N: Net, O: Copy>(&mut self, io: &mut Reactor<N, O>, visitor: u32) {
        if let Some(gone) = self.visitors.try_remove(visitor as usize) {
            io.close(gone.key);
        }
    }
}

/// More than a person, a monitor and a load balancer have at a time.
const VISITORS_MAX: usize = 16;

/// Requests here have a line and a few fields; browsers send 1 KiB of them.
const HEAD_LIMITS: HeadLimits = HeadLimits {
    bytes: 8 * 1024,
    fields: 64,
    line: 2 * 1024,
};

const SCRATCH: usize = 2 * 1024;

/// From the first byte of a head to its last.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Without a byte that is taken.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two requests: monitors come back after 15 to 60 s.
const KEEP_ALIVE: Duration = Duration::from_secs(65);

/// Reading on after a last answer.
const LINGER: Duration = Duration::from_secs(2);
