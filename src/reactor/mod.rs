//! The event loop: it owns every socket, every deadline and the names being looked up, and knows no
//! protocol.
//!
//! A role (server, client) gives each entry a label of its own, its *owner*, and is called back with
//! it. Everything a role may do to the outside goes through [`Reactor`]'s methods, by [`Key`].
//!
//! **Readiness is sticky.** An edge-triggered event sets a flag that stays until the kernel says
//! "would block", or shows it by a short read or write, so no system call is made that can only say
//! so. Once a peer was seen to close, short reads no longer mean "drained" (data and FIN queued
//! together give one event), and reading goes on to the end.
//!
//! **Deadlines are overwritten, not armed.** The wheel holds at most one entry per socket; an entry
//! that fires too early is put back at the deadline that holds by then.
//!
//! **Close is a mark.** Slots are vacated at the end of the turn, so an event can only name the
//! tenant it was meant for.
//!
//! **Work cut short is kept.** What a role gives to [`Reactor::again`] is ready in the next turn
//! without an event, and the poll does not sleep on it.

mod accepting;
mod changes;
mod closing;
pub mod mio_net;
pub mod net;
mod outlook;
mod parting;
pub mod resolver;
mod room;
mod socket;
mod succession;
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
mod tls;
mod turn;
pub mod wheel;

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::Instant,
};

use log::trace;
use slab::Slab;

use self::{
    accepting::ACCEPTS,
    net::{Address, Descriptors, Event, NameClass, Net, Peer, Purpose},
    resolver::{Lookup, Names},
    room::Room,
    socket::{Kind, Life, Socket},
    tls::Tls,
    wheel::TimerWheel,
};
pub use self::{
    accepting::Accepted,
    outlook::Outlook,
    parting::LINGER_MAX,
    socket::{Deadline, Idle},
    tls::Session,
    turn::{Flushed, Role},
};
use crate::{clock::Now, histogram::Histogram, key::Key, share::Share};

/// The addresses of a name, or why there are none.
pub type Found = Result<Rc<[IpAddr]>, Rc<str>>;

/// What [`Reactor::resolve`] can say at once.
#[derive(Debug)]
#[must_use]
pub enum Resolving {
    /// It was known.
    Known(Found),
    /// [`Role::resolved`] brings the answer.
    Pending,
    /// Too many look-ups are under way.
    Busy,
}

/// The event loop and all that it owns.
pub struct Reactor<N: Net, O> {
    net: N,
    sockets: Slab<Socket<N, O>>,
    wheel: TimerWheel<Key>,
    names: Names,
    now: Now,
    serial: u32,
    /// Bytes given back to sockets, and those inside TLS.
    unread: usize,
    lingering: usize,
    /// Whose connections lingered, and are closed by now.
    parted: Vec<O>,
    room: Room,
    /// Closed since the slab was last trimmed.
    closed: usize,
    /// Whose slot kept it from being trimmed.
    highest: Option<Key>,
    closing: Vec<Key>,
    /// Streams that have left their slots, and are closed in one of the next turns, the first to leave first.
    unclosed: VecDeque<Socket<N, O>>,
    again: VecDeque<Key>,
    /// How many reads of what nobody wants are left to this turn, and whose turn has not come.
    discards: usize,
    deferred: Vec<Key>,
    /// How many connections a listener may take in this turn; which one does so, and how many it has taken.
    accepts: Share,
    taking: Option<(Key, usize)>,
    /// Listeners that wait for a descriptor.
    starved: Vec<Key>,
    events: Vec<Event>,
    /// Where ciphertext is read into; empty until TLS is used.
    scratch: Vec<u8>,
    /// How long turns take, where anybody wants to know.
    turns: Option<Box<Histogram>>,
}

impl<N: Net, O: Copy> Reactor<N, O> {
    /// An event loop with nothing in it.
    pub fn new(mut net: N) -> Reactor<N, O> {
        let now = net.now();
        Reactor {
            net,
            sockets: Slab::new(),
            wheel: TimerWheel::new(now.instant),
            names: Names::new(),
            now,
            serial: 0,
            unread: 0,
            lingering: 0,
            parted: Vec::new(),
            room: Room::unlimited(),
            closed: 0,
            highest: None,
            closing: Vec::new(),
            unclosed: VecDeque::new(),
            again: VecDeque::new(),
            discards: 0,
            deferred: Vec::new(),
            accepts: ACCEPTS,
            taking: None,
            starved: Vec::new(),
            events: Vec::new(),
            scratch: Vec::new(),
            turns: None,
        }
    }

    /// This turn's time.
    pub fn now(&self) -> Now {
        self.now
    }

    /// The outside world, for what only its maker knows of it.
    pub fn net(&mut self) -> &mut N {
        &mut self.net
    }

    /// Makes room for so many connections, by their weight, and no more: then it is as if descriptors had
    /// run out.
    pub fn set_room(&mut self, connections: usize) {
        self.room.limit_load(connections);
    }

    /// Keeps so many descriptors free from users and targets, for links, listeners and files: to those it is
    /// as if descriptors had run out before they have. Not where nobody can tell how many there are.
    pub fn reserve_descriptors(&mut self, reserved: usize) {
        if let Some(descriptors) = self.net.descriptors() {
            self.room.reserve(reserved, descriptors);
        }
    }

    /// How many descriptors the process may have, and has; `None` where nobody can tell, or nothing was
    /// [reserved](Reactor::reserve_descriptors).
    pub fn descriptors(&self) -> Option<Descriptors> {
        self.room.descriptors()
    }

    /// Measures turns from here on, which costs a look at the clock for each.
    pub fn measure_turns(&mut self) {
        self.turns.get_or_insert_default();
    }

    /// How long turns have taken, what they slept not counted; `None` where nobody measures.
    pub fn turns(&self) -> Option<&Histogram> {
        self.turns.as_deref()
    }

    /// Fills `bytes` with unpredictable ones.
    pub fn random(&mut self, bytes: &mut [u8]) {
        self.net.random(bytes);
    }

    /// How many connections are closed but for what their peers still send.
    pub fn lingering(&self) -> usize {
        self.lingering
    }

    /// How often a timer was put into a slot of the wheel so far.
    pub fn timers_placed(&self) -> u64 {
        self.wheel.placed()
    }

    /// How many sockets, listeners and timers there are.
    pub fn len(&self) -> usize {
        self.sockets.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// Bytes that were read and given back, that are left to be written in a farewell, or that wait
    /// inside TLS.
    pub fn unread_bytes(&self) -> usize {
        self.unread
    }

    /// Bytes that were read from a socket, or decrypted, and that its owner has not taken.
    pub fn held(&self, key: Key) -> usize {
        self.sockets
            .get(key.index as usize)
            .filter(|socket| socket.serial == key.serial)
            .map_or(0, |socket| socket.held())
    }

    /// Starts to connect. The owner is told that the stream is ready once the attempt has ended;
    /// [`Reactor::connected`] says how.
    ///
    /// # Errors
    /// It failed at once, or descriptors, or room, have run out.
    pub fn connect(&mut self, address: Address<'_>, purpose: Purpose, owner: O) -> io::Result<Key> {
        let mut stream = self.with_descriptor(|room, net| {
            room.admit(purpose)?;
            net.connect(address, purpose)
        })?;
        let key = self.vacant();
        self.net.register(&mut stream, key)?;
        self.occupy(key, Kind::Stream(stream), owner);
        self.weigh(key, purpose);
        let socket = &mut self.sockets[key.index as usize];
        socket.connecting = true;
        socket.writable = false;
        Ok(key)
    }

    /// Whether an attempt to connect has ended: `None` while it goes on, else who is there.
    ///
    /// # Errors
    /// Why it failed.
    pub fn connected(&mut self, key: Key) -> io::Result<Option<Peer>> {
        let (socket, net) = self.lend(key)?;
        let Kind::Stream(stream) = &mut socket.kind else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let peer = net.connected(stream)?;
        if peer.is_some() {
            socket.connecting = false;
            socket.writable = true;
        }
        Ok(peer)
    }

    /// The address at which the peer of an accepted connection has found us.
    ///
    /// # Errors
    /// The system's own: the connection is dead.
    pub fn near_address(&mut self, key: Key) -> io::Result<SocketAddr> {
        let (socket, net) = self.lend(key)?;
        match &socket.kind {
            Kind::Stream(stream) => net.near_address(stream),
            Kind::Listener(_) | Kind::Timer => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Marks an accepted connection as a link: a short queue of unsent bytes.
    pub fn prefer_latency(&mut self, key: Key) {
        if let Ok((
            Socket {
                kind: Kind::Stream(stream),
                ..
            },
            net,
        )) = self.lend(key)
        {
            net.prefer_latency(stream);
        }
    }

    /// Acknowledges what has come: the peer may be waiting for just that.
    pub fn acknowledge(&mut self, key: Key) {
        if let Ok((
            Socket {
                kind: Kind::Stream(stream),
                ..
            },
            net,
        )) = self.lend(key)
        {
            net.acknowledge(stream);
        }
    }

    /// An entry without a socket: nothing but an owner and a deadline.
    pub fn timer(&mut self, owner: O, deadline: Deadline) -> Key {
        let key = self.vacant();
        self.occupy(key, Kind::Timer, owner);
        self.set_deadline(key, deadline);
        key
    }

    /// Looks up a name.
    pub fn resolve(&mut self, name: &str, class: NameClass) -> Resolving {
        match self.names.lookup(name, self.now.instant) {
            Lookup::Known(found) => Resolving::Known(found),
            Lookup::Pending { start } => {
                if start {
                    self.net.resolve(name, class);
                }
                Resolving::Pending
            }
            Lookup::Busy => Resolving::Busy,
        }
    }

    /// Whose socket it is.
    pub fn owner(&self, key: Key) -> Option<O> {
        self.sockets
            .get(key.index as usize)
            .filter(|socket| socket.serial == key.serial && socket.life == Life::Open)
            .map(|socket| socket.owner)
    }

    /// Gives the socket another label.
    pub fn set_owner(&mut self, key: Key, owner: O) {
        if let Some(socket) = self.socket(key) {
            socket.owner = owner;
        }
    }

    /// Sets, moves or unsets the deadline of an entry.
    pub fn set_deadline(&mut self, key: Key, deadline: Deadline) {
        let now = self.now.instant;
        let Some(socket) = self.sockets.get_mut(key.index as usize) else {
            return;
        };
        if socket.serial != key.serial || socket.is_closing() {
            return;
        }
        socket.deadline = deadline;
        if matches!(deadline, Deadline::Idle(_)) {
            socket.active = now;
        }
        let Some(at) = socket.due() else { return };
        if let Some(timer) = socket.timer {
            // An entry that fires a little too early is left, and put back when it does; one that
            // fires much too early would wake an idle process for nothing.
            let slack = at.saturating_duration_since(now) / 4;
            let armed = self.wheel.deadline(timer);
            if armed.is_some_and(|armed| armed <= at && at - armed <= slack) {
                return;
            }
            self.wheel.cancel(timer);
        }
        socket.timer = Some(self.wheel.insert(at, key));
    }

    /// Calls the owner in the next turn, event or not.
    pub fn again(&mut self, key: Key) {
        if self.is_new_work(key) {
            self.again.push_back(key);
        }
    }

    /// Those whose turn did not come stand first in the next.
    fn put_off(&mut self) {
        for key in std::mem::take(&mut self.deferred).into_iter().rev() {
            if self.is_new_work(key) {
                self.again.push_front(key);
            }
        }
    }

    /// Marks a socket as one that stands in the queue of work kept; whether it did not yet.
    fn is_new_work(&mut self, key: Key) -> bool {
        let socket = self.sockets.get_mut(key.index as usize);
        socket.is_some_and(|socket| {
            socket.serial == key.serial && !std::mem::replace(&mut socket.again, true)
        })
    }

    /// Reads what was given back, then from the network.
    ///
    /// # Errors
    /// `WouldBlock`; an error of the socket, also where the peer's reset was seen before; `NotConnected`
    /// for a stale key.
    pub fn read(&mut self, key: Key, into: &mut [u8]) -> io::Result<usize> {
        let socket = self.lend(key)?.0;
        if let Some(taken) = socket.take_unread(into) {
            self.unread -= taken;
            return Ok(taken);
        }
        self.work(key, |socket, scratch, now| socket.read(into, scratch, now))
    }

    /// Gives bytes back, to be read again before anything else.
    pub fn unread(&mut self, key: Key, bytes: &[u8]) {
        if let Some(socket) = self.socket(key) {
            socket.unread(bytes);
            self.unread += bytes.len();
        }
    }

    /// Writes what the socket takes.
    ///
    /// # Errors
    /// `WouldBlock`; an error of the socket; `NotConnected` for a stale key.
    pub fn write(&mut self, key: Key, bytes: &[u8]) -> io::Result<usize> {
        self.work(key, |socket, _, now| socket.write(bytes, now))
    }

    /// Speaks TLS on a connection from here on: what is read and written is plaintext. Nothing may
    /// be before [`Reactor::handshake`] says that it is complete. What was given back before belongs to TLS.
    pub fn start_tls(&mut self, key: Key, session: Session, purpose: Purpose) {
        if self.scratch.is_empty() {
            self.scratch = vec![0; tls::SCRATCH];
        }
        if let Some(socket) = self.socket(key) {
            let unsent_max = match purpose {
                Purpose::Link => tls::LINK_UNSENT_MAX,
                _ => tls::UNSENT_MAX,
            };
            let begun = socket.unread.take();
            let begun = begun.map_or_else(Vec::new, |unread| unread.rest().to_vec());
            socket.tls = Some(Box::new(Tls::new(session, begun, unsent_max)));
        }
    }

    /// Goes on with the handshake; whether it is complete. To be called again after each event.
    ///
    /// # Errors
    /// The peer could not prove who it is, spoke no TLS, or closed.
    pub fn handshake(&mut self, key: Key) -> io::Result<bool> {
        self.work(key, |socket, scratch, now| socket.handshake(scratch, now))
    }

    /// Whether all that was written is with the kernel, and nothing waits inside TLS.
    pub fn is_flushed(&self, key: Key) -> bool {
        self.sockets
            .get(key.index as usize)
            .is_none_or(|socket| socket.serial != key.serial || socket.is_flushed())
    }

    /// Sends FIN.
    pub fn shutdown(&mut self, key: Key) {
        if let Err(error) = self.finish(key) {
            // The peer is gone; reading will say so.
            trace!("shutdown: {error}");
        }
    }

    /// Sends FIN, behind what waits inside TLS; whether it is sent.
    fn finish(&mut self, key: Key) -> io::Result<bool> {
        let now = self.now.instant;
        let Some(socket) = self.sockets.get_mut(key.index as usize) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        if socket.serial != key.serial || socket.is_closing() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let before = socket.held();
        let finished = socket.finish(&mut self.net, now);
        self.unread = self.unread + socket.held() - before;
        finished
    }

    /// Does something with a socket that may change what waits in it.
    fn work<T>(
        &mut self,
        key: Key,
        work: impl FnOnce(&mut Socket<N, O>, &mut [u8], Instant) -> io::Result<T>,
    ) -> io::Result<T> {
        let socket = self
            .sockets
            .get_mut(key.index as usize)
            .filter(|socket| socket.serial == key.serial && socket.life == Life::Open)
            .ok_or(io::ErrorKind::NotConnected)?;
        let before = socket.held();
        let done = work(socket, &mut self.scratch, self.now.instant);
        self.unread = self.unread + socket.held() - before;
        done
    }

    fn vacant(&self) -> Key {
        Key {
            index: self.sockets.vacant_key() as u32,
            serial: self.serial,
        }
    }

    fn occupy(&mut self, key: Key, kind: Kind<N>, owner: O) {
        let socket = Socket::new(key.serial, kind, owner, self.now.instant);
        if socket.has_descriptor() {
            self.room.opened();
        }
        let index = self.sockets.insert(socket);
        debug_assert_eq!(
            index as u32, key.index,
            "the vacant slot is the one that is filled"
        );
        self.serial = self.serial.wrapping_add(1);
    }

    fn weigh(&mut self, key: Key, purpose: Purpose) {
        self.sockets[key.index as usize].weight = purpose.weight();
        self.room.load(purpose.weight());
    }

    fn lend(&mut self, key: Key) -> io::Result<(&mut Socket<N, O>, &mut N)> {
        self.sockets
            .get_mut(key.index as usize)
            .filter(|socket| socket.serial == key.serial && socket.life == Life::Open)
            .map(|socket| (socket, &mut self.net))
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn socket(&mut self, key: Key) -> Option<&mut Socket<N, O>> {
        self.lend(key).ok().map(|(socket, _)| socket)
    }

    /// Panics where the invariants do not hold.
    pub fn check_invariants(&self) {
        let (mut unread, mut load, mut descriptors) = (0, 0, 0);
        for (index, socket) in &self.sockets {
            let key = Key {
                index: index as u32,
                serial: socket.serial,
            };
            unread += socket.held();
            load += usize::from(socket.weight);
            descriptors += usize::from(socket.has_descriptor());
            if let (Some(due), true) = (socket.due(), !socket.is_closing()) {
                let armed = socket.timer.and_then(|timer| self.wheel.deadline(timer));
                // The wheel rounds up to whole ticks, and what is past fires at its present one.
                let latest = due.max(self.now.instant) + wheel::TICK;
                assert!(
                    armed.is_some_and(|at| at < latest),
                    "a deadline is never answered late"
                );
            }
            let queued = self.again.iter().filter(|queued| **queued == key).count();
            assert!(
                queued <= 1 && (!socket.again || queued == 1),
                "`again` flag and queue agree"
            );
        }
        assert_eq!(unread, self.unread, "unread bytes are counted");
        self.room.check(descriptors + self.unclosed.len(), load);
        self.wheel.check_invariants();
    }
}
