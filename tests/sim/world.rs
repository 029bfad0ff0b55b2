//! The simulated network: pipes, listeners, names and time, all of it from one seed.
//!
//! It knows neither the reactor nor HTTP. Whoever holds one end of a pipe, a reactor (by way of
//! `net`) or an actor, uses the same calls on it, and is woken the way epoll does it: once for each
//! transition, never for a state that lasts. What TCP and epoll may do is done at random, and nothing
//! that they may not:
//!
//! - A short read that leaves bytes behind is "the rest comes a moment later", with an event of its
//!   own; so is a read that would block on bytes already there. Neither happens to a reader who was
//!   told of the end: the rest then stays where it is.
//! - A short or refused write is "full for a moment", with an event when that has passed.
//! - Data and FIN that arrive together are one event, and several transitions may be one.
//! - Events may come that mean nothing; not all that are due come with one poll.
//! - Bytes that came before a reset can be read, then the reset is told once, then it is the end.
//! - A close with unread bytes, and bytes for an end that is closed, are answered with a reset.

mod bytes;
mod events;
mod faults;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use siding::{
    clock::Now,
    reactor::net::{Event, Ready},
};

pub use self::{
    bytes::LINK_PORT,
    faults::{Excuse, Fault, Storm},
};
use crate::{rng::Rng, tally::Tally};

/// One end of a pipe. Never used again after it is closed.
pub type EndId = usize;
/// A machine that runs a reactor.
pub type HostId = usize;
/// The server's.
pub const SERVER_HOST: HostId = 0;
/// The client's.
pub const CLIENT_HOST: HostId = 1;
/// That of another client, whose link alters what it carries: to either end the other breaks the protocol.
pub const ROGUE_HOST: HostId = 2;
/// That of a server that drains, while another has its place.
pub const FORMER_HOST: HostId = 3;
pub const HOSTS: usize = 4;
/// Something that drives its ends without a reactor.
pub type ActorId = usize;

/// Who is woken for an end or a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watcher {
    Nobody,
    Reactor { host: HostId, index: u32 },
    Actor(ActorId),
}

/// How bad it is, drawn once per seed: some are all calm, some all storm.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// One way, in microseconds; each segment draws anew, but none overtakes another.
    pub latency_micros: (u64, u64),
    /// Reads and writes cut short, in percent; a tenth of them to nothing at all.
    pub short_percent: usize,
    /// Polls with an event that means nothing, and events put off to the next poll, in percent.
    pub stray_percent: usize,
    /// Bytes under way and unread that one direction of a pipe takes.
    pub capacity: usize,
    /// The same for a direction that prefers latency.
    pub capacity_of_links: usize,
    /// A name's look-up takes up to this many milliseconds.
    pub names_millis: u64,
    /// Events come in the order in which they happened, and a poll ends when it was asked to.
    pub orderly: bool,
    /// What links are like, where that is not as other pipes are.
    pub lane: Option<Lane>,
    /// Turns after which a process is not scheduled for a while, in percent.
    pub freeze_percent: usize,
    pub freeze_millis: usize,
}

/// A link with a length and a width, whose narrowest place is the sender's own interface.
#[derive(Clone, Copy, Debug)]
pub struct Lane {
    /// From one end to the other.
    pub one_way: Duration,
    /// Bytes per second, in each direction.
    pub rate: u64,
    /// Bytes not yet sent from which on nothing is taken (`TCP_NOTSENT_LOWAT`). What is taken below
    /// that is taken whole, as Linux fills the buffer that it has begun; and it says that there is
    /// room again when half of it is sent.
    pub unsent_max: usize,
}

pub struct World {
    pub rng: Rng,
    pub weather: Weather,
    pub storm: Storm,
    /// Of 1,000 writes on links to this address, so many are altered.
    pub altered: Option<(IpAddr, usize)>,
    /// Whom a look-up of the server may find instead.
    pub impostor: Option<IpAddr>,
    start: Instant,
    now: Duration,
    ends: Vec<End>,
    listeners: BTreeMap<SocketAddr, Listening>,
    names: BTreeMap<&'static str, Vec<IpAddr>>,
    /// Addresses that never answer.
    black_holes: BTreeSet<IpAddr>,
    due: BinaryHeap<Reverse<(Duration, u64, Due)>>,
    scheduled: u64,
    pub hosts: [Host; HOSTS],
    /// Actors with something to look at.
    pub woken: BTreeSet<ActorId>,
    /// When an actor last got anywhere.
    pub progress: Duration,
    /// All that was read and written, and when.
    pub digest: u64,
    pub tally: Tally,
    ports: u16,
}

/// What the world keeps of a machine with a reactor.
#[derive(Default)]
pub struct Host {
    /// Its role has ended: it takes no more turns.
    pub is_over: bool,
    armed: Vec<Source>,
    /// Events that are not of sockets.
    others: Vec<Event>,
    /// Its poll found nothing and may sleep.
    pub asleep: bool,
    /// When it is to wake by itself, if it sleeps.
    pub wakes: Option<Duration>,
    /// It is not scheduled before this.
    pub frozen_until: Duration,
    /// Sockets and listeners that it has, and how many it may have.
    pub descriptors: usize,
    descriptors_max: Option<usize>,
    /// What it last read off its clock.
    pub clock: Duration,
    /// Its last poll was asked not to sleep.
    pub hurried: bool,
    /// Events taken and calls that moved something.
    pub moved: u64,
    /// Calls of its own sockets, those that would have blocked included.
    pub reads: u64,
    pub writes: u64,
}

#[derive(Clone, Copy)]
enum Source {
    End(EndId),
    Listener(SocketAddr),
}

struct Listening {
    watcher: Watcher,
    armed: bool,
    backlog: VecDeque<EndId>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// What has arrived by now is to be seen.
    Arrival(EndId),
    /// There may be room to write.
    Room(EndId),
    Syn(EndId),
    Connected(EndId, EndId),
    Refused(EndId),
    Answer(HostId, Box<str>),
    Wake(ActorId),
}

struct End {
    local: SocketAddr,
    remote: SocketAddr,
    /// `None` until connected.
    peer: Option<EndId>,
    watcher: Watcher,
    armed: bool,
    inbox: VecDeque<u8>,
    /// FIN was received.
    fin: bool,
    /// RST was received, or the attempt to connect has failed.
    reset: bool,
    error: Option<io::ErrorKind>,
    /// An event has told that it is closed.
    closed_told: bool,
    /// A look has found bytes: they cannot be late any more.
    peeked: bool,
    flight: VecDeque<(Duration, Segment)>,
    flight_bytes: usize,
    /// The first of these had arrived before: they are not lost any more.
    put_back: usize,
    /// Nothing arrives before what was sent before it.
    arrives: Duration,
    capacity: usize,
    /// It is an end of a [`Lane`].
    paced: bool,
    /// When all that was written here is on the lane.
    sent_by: Duration,
    fin_sent: bool,
    /// Nothing can be written before this.
    full_until: Duration,
    /// A write was refused, or cut short: there will be an event.
    wants_room: bool,
    aborts: bool,
    gone: bool,
}

enum Segment {
    Data(Vec<u8>),
    Fin,
    Reset,
}

impl Host {
    /// Whether its poll would return now.
    fn is_pending(&self, now: Duration) -> bool {
        !self.asleep
            || !self.armed.is_empty()
            || !self.others.is_empty()
            || self.wakes.is_some_and(|at| at <= now)
    }
}

impl Weather {
    fn new(rng: &mut Rng) -> Weather {
        let fast = rng.between(10, 2_000) as u64;
        Weather {
            latency_micros: (fast, fast + rng.between(0, 20_000) as u64),
            short_percent: rng.pick(&[0, 3, 20, 50]),
            stray_percent: rng.pick(&[0, 2, 20]),
            capacity: rng.pick(&[4 << 10, 64 << 10, 256 << 10]),
            capacity_of_links: rng.pick(&[16 << 10, 64 << 10, 1 << 20]),
            names_millis: rng.pick(&[1, 300, 3_000]),
            orderly: false,
            lane: None,
            freeze_percent: rng.pick(&[0, 0, 3, 20]),
            freeze_millis: rng.pick(&[5, 50]),
        }
    }

    /// Nothing is left to chance, and there is room for everything.
    pub fn steady(lane: Lane) -> Weather {
        Weather {
            latency_micros: (50, 50),
            short_percent: 0,
            stray_percent: 0,
            capacity: 256 << 10,
            capacity_of_links: 8 << 20,
            names_millis: 0,
            orderly: true,
            lane: Some(lane),
            freeze_percent: 0,
            freeze_millis: 0,
        }
    }

    /// Large buffers, and processes that come late to them.
    pub fn weigh_down(&mut self) {
        self.capacity = 256 << 10;
        self.capacity_of_links = 2 << 20;
        self.freeze_percent = 3;
        self.freeze_millis = 1_000;
    }
}

impl World {
    pub fn new(seed: u64) -> World {
        let mut rng = Rng(seed);
        let mut hosts: [Host; HOSTS] = Default::default();
        hosts[ROGUE_HOST].is_over = true;
        hosts[FORMER_HOST].is_over = true;
        World {
            weather: Weather::new(&mut rng),
            storm: Storm::default(),
            altered: None,
            impostor: None,
            rng,
            start: Instant::now(),
            now: Duration::ZERO,
            ends: Vec::new(),
            listeners: BTreeMap::new(),
            names: BTreeMap::new(),
            black_holes: BTreeSet::new(),
            due: BinaryHeap::new(),
            scheduled: 0,
            hosts,
            woken: BTreeSet::new(),
            progress: Duration::ZERO,
            digest: seed,
            tally: Tally::default(),
            ports: PORTS,
        }
    }

    // Time.

    pub fn elapsed(&self) -> Duration {
        self.now
    }

    pub fn clocks(&self) -> Now {
        Now {
            instant: self.start + self.now,
            unix: self.unix(),
        }
    }

    /// When something happens next by itself, if nobody takes a turn now.
    pub fn next_due(&self) -> Option<Duration> {
        let of_hosts = self.hosts.iter().filter(|host| !host.is_over).map(|host| {
            let pending = host.is_pending(self.now).then_some(host.frozen_until);
            pending.or(host.wakes.map(|at| at.max(host.frozen_until)))
        });
        let of_world = self.due.peek().map(|Reverse((at, _, _))| *at);
        of_hosts.flatten().chain(of_world).min()
    }

    /// Whether a host is to take a turn: its poll would return, and it is scheduled.
    pub fn is_due(&self, host: HostId) -> bool {
        let host = &self.hosts[host];
        !host.is_over && host.frozen_until <= self.now && host.is_pending(self.now)
    }

    /// Moves the clock on, and lets happen what is due by then.
    pub fn advance_to(&mut self, now: Duration) {
        self.now = self.now.max(now);
        while let Some(Reverse((at, _, _))) = self.due.peek()
            && *at <= self.now
            && let Some(Reverse((_, _, due))) = self.due.pop()
        {
            self.happen(due);
        }
    }

    /// Wakes an actor after a while.
    pub fn wake(&mut self, actor: ActorId, after: Duration) {
        self.schedule(after, Due::Wake(actor));
    }

    /// An actor got somewhere.
    pub fn progressed(&mut self) {
        self.progress = self.now;
    }

    fn schedule(&mut self, after: Duration, due: Due) {
        self.scheduled += 1;
        self.due
            .push(Reverse((self.now + after, self.scheduled, due)));
    }

    fn latency(&mut self) -> Duration {
        let (least, most) = self.weather.latency_micros;
        Duration::from_micros(self.rng.between(least as usize, most as usize) as u64)
    }

    /// As [`World::latency`], of the pipe that leads to this end.
    fn latency_to(&mut self, end: EndId) -> Duration {
        match self.lane(end) {
            Some(lane) => lane.one_way,
            None => self.latency(),
        }
    }

    fn lane(&self, end: EndId) -> Option<Lane> {
        self.weather.lane.filter(|_| self.ends[end].paced)
    }

    fn moment(&mut self) -> Duration {
        Duration::from_micros(self.rng.between(1, 3_000) as u64)
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Arrival(end) => self.arrive(end),
            Due::Room(end) => self.offer_room(end),
            Due::Syn(end) => self.syn(end),
            Due::Connected(end, peer) => {
                self.ends[end].peer = Some(peer);
                if self.ends[end].gone {
                    self.reset_peer(end);
                } else {
                    self.arm(end);
                }
            }
            Due::Refused(end) => {
                self.ends[end].reset = true;
                self.ends[end].error = Some(io::ErrorKind::ConnectionRefused);
                self.arm(end);
            }
            Due::Answer(host, name) => {
                let result = match (self.misnamed(&name), self.names.get(&*name)) {
                    (Some(result), _) => result,
                    (None, Some(addresses)) => Ok(addresses.clone()),
                    (None, None) => Err("no such name".into()),
                };
                self.hosts[host]
                    .others
                    .push(Event::Resolved { name, result });
            }
            Due::Wake(actor) => {
                self.woken.insert(actor);
            }
        }
    }

    // Names and addresses.

    pub fn name(&mut self, name: &'static str, addresses: &[&str]) {
        let addresses = addresses
            .iter()
            .map(|address| address.parse().expect("a literal address"));
        self.names.insert(name, addresses.collect());
    }

    /// Nothing sent to this address is ever answered.
    pub fn black_hole(&mut self, address: &str) {
        self.black_holes
            .insert(address.parse().expect("a literal address"));
    }

    pub fn resolve(&mut self, host: HostId, name: &str) {
        let millis = self.weather.names_millis as usize;
        let after = Duration::from_millis(self.rng.between(0, millis) as u64);
        let after = after + self.name_delay();
        self.schedule(after, Due::Answer(host, name.into()));
    }

    /// The operator asks a host to end.
    pub fn stop(&mut self, host: HostId) {
        self.hosts[host].others.push(Event::Stop);
    }

    /// A process is the host's no more, but the other's: all that it has goes with it.
    pub fn rename(&mut self, from: HostId, to: HostId) {
        self.hosts[to] = std::mem::take(&mut self.hosts[from]);
        let ends = self.ends.iter_mut().map(|end| &mut end.watcher);
        let listeners = self.listeners.values_mut().map(|it| &mut it.watcher);
        for watcher in ends.chain(listeners) {
            if let Watcher::Reactor { host, .. } = watcher
                && *host == from
            {
                *host = to;
            }
        }
    }

    // Listeners.

    pub fn listen(&mut self, mut address: SocketAddr, watcher: Watcher) -> io::Result<SocketAddr> {
        if address.port() == 0 {
            address.set_port(self.port());
        }
        if self.listeners.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let listening = Listening {
            watcher,
            armed: false,
            backlog: VecDeque::new(),
        };
        self.listeners.insert(address, listening);
        Ok(address)
    }

    pub fn is_listening(&self, address: SocketAddr) -> bool {
        self.listeners.contains_key(&address)
    }

    /// Whoever waits at the listener is reset.
    pub fn unlisten(&mut self, address: SocketAddr) {
        if let Some(listening) = self.listeners.remove(&address) {
            for end in listening.backlog {
                self.abort(end);
                self.close(end);
            }
        }
    }

    pub fn accept(&mut self, address: SocketAddr) -> io::Result<(EndId, SocketAddr)> {
        let waiting = self.listeners.get_mut(&address);
        let end = waiting
            .and_then(|listening| listening.backlog.pop_front())
            .ok_or(io::ErrorKind::WouldBlock)?;
        Ok((end, self.ends[end].remote))
    }

    // Connections.

    pub fn local(&self, end: EndId) -> SocketAddr {
        self.ends[end].local
    }

    pub fn connect(&mut self, address: SocketAddr, from: IpAddr) -> EndId {
        let local = SocketAddr::new(from, self.port());
        let end = self.end(local, address);
        if !self.black_holes.contains(&address.ip()) {
            let after = self.latency();
            self.schedule(after, Due::Syn(end));
        }
        end
    }

    /// Whether an attempt has ended: `None` while it goes on.
    pub fn connected(&mut self, end: EndId) -> io::Result<Option<SocketAddr>> {
        if let Some(error) = self.ends[end].error.take() {
            return Err(error.into());
        }
        let end = &self.ends[end];
        Ok(end.peer.map(|_| end.remote))
    }

    pub fn is_connecting(&self, end: EndId) -> bool {
        self.ends[end].peer.is_none() && !self.ends[end].reset
    }

    /// Whether all that was sent from here has reached the far kernel.
    pub fn is_delivered(&self, end: EndId) -> bool {
        let far = self.ends[end].peer.map(|peer| &self.ends[peer]);
        far.is_some_and(|far| far.flight.is_empty())
    }

    pub fn watch(&mut self, end: EndId, watcher: Watcher) {
        self.ends[end].watcher = watcher;
        // As epoll does where it is ready already.
        let ready = self.ready(end);
        if ready != Ready::default() {
            self.arm(end);
        }
    }

    pub fn prefer_latency(&mut self, end: EndId) {
        let capacity = self.weather.capacity_of_links;
        let paced = self.weather.lane.is_some();
        self.ends[end].capacity = capacity;
        self.ends[end].paced = paced;
        if let Some(peer) = self.ends[end].peer {
            self.ends[peer].capacity = capacity;
            self.ends[peer].paced = paced;
        }
    }

    fn end(&mut self, local: SocketAddr, remote: SocketAddr) -> EndId {
        self.ends.push(End {
            local,
            remote,
            peer: None,
            watcher: Watcher::Nobody,
            armed: false,
            inbox: VecDeque::new(),
            fin: false,
            reset: false,
            error: None,
            closed_told: false,
            peeked: false,
            flight: VecDeque::new(),
            flight_bytes: 0,
            put_back: 0,
            arrives: Duration::ZERO,
            capacity: self.weather.capacity,
            paced: false,
            sent_by: Duration::ZERO,
            fin_sent: false,
            full_until: Duration::ZERO,
            wants_room: false,
            aborts: false,
            gone: false,
        });
        self.ends.len() - 1
    }

    /// The next one; from the first again when there are no more, for nobody is known by it.
    fn port(&mut self) -> u16 {
        self.ports = self.ports.checked_add(1).unwrap_or(PORTS);
        self.ports
    }

    fn syn(&mut self, end: EndId) {
        let End {
            local,
            remote,
            gone,
            capacity,
            ..
        } = self.ends[end];
        if gone {
            return;
        }
        let detained = self.detained(local, remote);
        if detained > self.now {
            // It is sent again now and then.
            let again = detained - self.now + self.moment();
            return self.schedule(again, Due::Syn(end));
        }
        let back = self.latency();
        if !self.listeners.contains_key(&remote) {
            return self.schedule(back, Due::Refused(end));
        }
        let peer = self.end(remote, local);
        self.ends[peer].peer = Some(end);
        self.ends[peer].capacity = capacity;
        self.ends[end].arrives = self.now + back;
        self.schedule(back, Due::Connected(end, peer));
        if let Some(listening) = self.listeners.get_mut(&remote) {
            listening.backlog.push_back(peer);
            match listening.watcher {
                Watcher::Reactor { host, .. } if !listening.armed => {
                    listening.armed = true;
                    self.hosts[host].armed.push(Source::Listener(remote));
                }
                Watcher::Actor(actor) => {
                    self.woken.insert(actor);
                }
                Watcher::Reactor { .. } | Watcher::Nobody => {}
            }
        }
    }
}

/// Ports from here on are given to whoever does not say which.
const PORTS: u16 = 32768;
