//! [`Net`] on real sockets: mio for readiness, socket2 for the options mio leaves out.
//!
//! It owns the selector, the signal pipe, the threads that look up names, and what is handed on from one
//! process to the next. It does not know what a socket is for beyond [`Purpose`], keeps none of those that it
//! gives out, and decides nothing: the reactor does.
//!
//! Socket options cost system calls, so those of accepted sockets are set once, on their listener,
//! from which they are inherited: to accept a connection takes one `accept4` and one `epoll_ctl`.

#[cfg_attr(
    not(any(target_os = "linux", target_os = "android")),
    path = "mio_net/no_changes.rs"
)]
mod changes;
mod stream;
#[cfg_attr(
    not(all(target_os = "linux", feature = "upgrade")),
    path = "mio_net/no_succession.rs"
)]
mod succession;
mod way;
mod workers;

#[cfg(test)]
mod tests;

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use log::debug;
use mio::{Events, Interest, Poll, Token, Waker, net::TcpListener};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use signal_hook_mio::v1_0::Signals;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

pub use self::stream::Stream;
use self::{changes::Changes, succession::Succession, workers::Workers};
use super::net::{Address, Descriptors, Event, NameClass, Net, Peer, Phase, Purpose, Ready, Way};
use crate::{clock::Now, key::Key};

/// The operating system.
pub struct MioNet {
    poll: Poll,
    /// Scratch for one poll.
    arrived: Events,
    /// How long to look for the next event before sleeping.
    spin: Duration,
    /// Whether there were events since the last sleep: only then others may follow at once.
    stirred: bool,
    polls: u64,
    bell: Arc<Bell>,
    workers: Workers,
    signals: Option<Signals>,
    succession: Succession,
    changes: Changes,
}

/// Asks a [`MioNet`] from another thread to end, as a signal would.
#[derive(Clone)]
pub struct Stopper(Arc<Bell>);

/// Gets a sleeping poll to return.
struct Bell {
    waker: Waker,
    /// Stops asked for and not yet reported, at most [`STOPS_MAX`].
    stops: AtomicU8,
}

/// The bell's token. Sockets use their slot as a token, and slots are given out from zero: even where
/// `usize` has 32 bits, memory ends long before the tokens at the top.
const BELL: Token = Token(usize::MAX);
const SIGNALS: Token = Token(usize::MAX - 1);
const SUCCESSOR: Token = Token(usize::MAX - 2);
const FILES: Token = Token(usize::MAX - 3);
const NETWORK: Token = Token(usize::MAX - 4);
const CLOCK: Token = Token(usize::MAX - 5);
/// Events taken in one poll: with more, who comes meanwhile would wait longer.
const EVENTS: usize = 128;
/// The first stop asks, the second insists; a third says nothing new.
const STOPS_MAX: u8 = 2;
/// Connections that may wait for `accept`. At most 16 are accepted in a turn, so this covers a burst
/// of 64 turns; the kernel may cut it (`net.core.somaxconn`).
const BACKLOG: i32 = 1024;
/// Silence after which the kernel probes whether the peer still exists, the time between probes, and
/// how many go unanswered before it gives up: a peer that vanished is noticed after 90 s.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;
/// Unsent bytes of a link beyond which it says "not writable": one batch of 16 KiB, so that a
/// keystroke waits behind no more than that.
const LINK_UNSENT_MAX: u32 = 16 * 1024;
/// How long bytes of a link may go unacknowledged. A little more than the 25 s after which the link's
/// own pings give up, so that they do in the normal case and tell the reason.
///
/// Only links have it. On Linux `TCP_USER_TIMEOUT` also ends connections whose peer lives but keeps
/// its receive window shut that long (`tcp_probe_timer`), and it replaces the count of keep-alive
/// probes. A user who pauses a download or holds a terminal with Ctrl-S must not be reset for it; a
/// link has a reader that always reads.
const LINK_UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);

impl MioNet {
    /// A selector that leaves signals alone.
    ///
    /// # Errors
    /// Descriptors have run out, or the system has no source of randomness.
    pub fn new() -> io::Result<Self> {
        // Asked here, where it can be an error: what opens the source once keeps it open.
        getrandom::fill(&mut [0]).map_err(|error| io::Error::other(error.to_string()))?;
        let poll = Poll::new()?;
        let bell = Arc::new(Bell {
            waker: Waker::new(poll.registry(), BELL)?,
            stops: AtomicU8::new(0),
        });
        Ok(Self {
            poll,
            arrived: Events::with_capacity(EVENTS),
            spin: Duration::ZERO,
            stirred: false,
            polls: 0,
            workers: Workers::new(Arc::clone(&bell), workers::system),
            bell,
            signals: None,
            succession: Succession::default(),
            changes: Changes::default(),
        })
    }

    /// A selector for a process that is nothing else: it turns SIGINT and SIGTERM into [`Event::Stop`], SIGHUP
    /// into [`Event::Reload`] and SIGUSR2 into [`Event::Upgrade`], takes what the process has inherited, and
    /// tells the service manager about it.
    ///
    /// # Errors
    /// As [`MioNet::new`], or the handlers cannot be installed.
    pub fn of_process() -> io::Result<Self> {
        let succession = Succession::from_environment();
        let mut net = Self::new()?;
        net.succession = succession;
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGUSR2])?;
        net.poll
            .registry()
            .register(&mut signals, SIGNALS, Interest::READABLE)?;
        net.signals = Some(signals);
        Ok(net)
    }

    /// A handle for other threads.
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.bell))
    }

    /// Once there were events, polls look for the next ones for so long before they sleep: where an answer
    /// is near, it comes sooner than a sleeper wakes. Zero, the default, sleeps at once. While there are no
    /// events nothing looks for them, whatever is set here.
    pub fn set_spin(&mut self, spin: Duration) {
        self.spin = spin;
    }

    /// How often the kernel was asked for events so far.
    pub fn polls(&self) -> u64 {
        self.polls
    }

    /// Waits for events to arrive: awake at first if there were some just now, then asleep.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let awake = timeout.map_or(self.spin, |timeout| timeout.min(self.spin));
        if awake.is_zero() || !std::mem::take(&mut self.stirred) {
            return self.ask(timeout);
        }
        let begun = Instant::now();
        loop {
            self.ask(Some(Duration::ZERO))?;
            if self.stirred {
                return Ok(());
            }
            let looked = begun.elapsed();
            if looked >= awake {
                return match timeout.map(|timeout| timeout.saturating_sub(looked)) {
                    Some(Duration::ZERO) => Ok(()),
                    left => self.ask(left),
                };
            }
            // Whoever is to cause the event may need this very processor: with two of them for a user, both
            // roles and a target, a round trip took three times as long before this line.
            std::thread::yield_now();
        }
    }

    /// One system call.
    fn ask(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.polls += 1;
        // mio rounds the timeout up to whole milliseconds: no turns spent on waiting for the rest.
        match self.poll.poll(&mut self.arrived, timeout) {
            // A stopped and continued process, or a debugger. The caller looks at the time and comes
            // back; a retry here would sleep for the whole timeout once more.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => outcome?,
        }
        self.stirred |= !self.arrived.is_empty();
        Ok(())
    }
}

impl Net for MioNet {
    type Stream = Stream;
    type Listener = TcpListener;

    fn now(&mut self) -> Now {
        Now {
            instant: Instant::now(),
            // A wall clock before 1970 is wrong; ids then count from zero.
            unix: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
        }
    }

    fn random(&mut self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the system's randomness was there when this net was made");
    }

    fn descriptors(&self) -> Option<Descriptors> {
        descriptors_of_process()
    }

    fn listen(&mut self, address: SocketAddr, key: Key) -> io::Result<Self::Listener> {
        let inherited = self.succession.listener(address);
        let is_new = inherited.is_none();
        let socket = match inherited {
            Some(inherited) => inherited.into(),
            None => bound(address)?,
        };
        socket.set_nonblocking(true)?;
        set_options(&SockRef::from(&socket));
        socket.listen(BACKLOG)?;
        let mut listener = TcpListener::from_std(socket.into());
        self.poll
            .registry()
            .register(&mut listener, token(key), Interest::READABLE)?;
        if is_new {
            self.succession.opened(&listener);
        }
        Ok(listener)
    }

    fn unlisten(&mut self, listener: &mut Self::Listener) {
        // As long as another process has it, too, the selector would go on to tell of it.
        note("deregister", self.poll.registry().deregister(listener));
        self.succession.closes(listener);
    }

    fn local_address(&self, listener: &Self::Listener) -> io::Result<SocketAddr> {
        listener.local_addr()
    }

    fn near_address(&self, stream: &Self::Stream) -> io::Result<SocketAddr> {
        stream.near_address()
    }

    fn accept(&mut self, listener: &mut Self::Listener) -> io::Result<(Self::Stream, SocketAddr)> {
        loop {
            match listener.accept() {
                Ok((stream, peer)) => return Ok((stream.into(), peer)),
                // The peer was gone before we came: others may wait behind it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn connect(&mut self, address: Address<'_>, purpose: Purpose) -> io::Result<Self::Stream> {
        let mut stream = Stream::connect(address)?;
        if let Some(socket) = stream.tcp() {
            set_options(&socket);
        }
        if purpose == Purpose::Link {
            self.prefer_latency(&mut stream);
        }
        Ok(stream)
    }

    fn connected(&mut self, stream: &mut Self::Stream) -> io::Result<Option<Peer>> {
        // The order that `mio::net::TcpStream::connect` documents. A failed attempt and one under way
        // both have no peer: only the pending error tells them apart.
        if let Some(error) = self.take_error(stream) {
            return Err(error);
        }
        match stream.peer() {
            Ok(peer) => Ok(Some(peer)),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn register(&mut self, stream: &mut Self::Stream, key: Key) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        // A read stops at urgent data (telnet, ftp) as if there were no more.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let both = both | Interest::PRIORITY;
        self.poll
            .registry()
            .register(stream.source(), token(key), both)
    }

    fn deregister(&mut self, stream: &mut Self::Stream) {
        let registry = self.poll.registry();
        note("deregister", registry.deregister(stream.source()));
    }

    fn prefer_latency(&mut self, stream: &mut Self::Stream) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Some(socket) = stream.tcp() {
            note(
                "TCP_NOTSENT_LOWAT",
                socket.set_tcp_notsent_lowat(LINK_UNSENT_MAX),
            );
            note(
                "TCP_USER_TIMEOUT",
                socket.set_tcp_user_timeout(Some(LINK_UNACKNOWLEDGED_MAX)),
            );
        }
        // Elsewhere socket2 does not offer them; the link's own pings find a dead peer as well.
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let _ = (stream, LINK_UNSENT_MAX, LINK_UNACKNOWLEDGED_MAX);
    }

    fn acknowledge(&mut self, stream: &mut Self::Stream) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Some(socket) = stream.tcp() {
            note("TCP_QUICKACK", socket.set_tcp_quickack(true));
        }
        // Elsewhere it is sent in its time.
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let _ = stream;
    }

    fn shutdown(&mut self, stream: &mut Self::Stream) -> io::Result<()> {
        stream.shutdown()
    }

    fn abort(&mut self, stream: &mut Self::Stream) {
        if let Some(socket) = stream.tcp() {
            note("SO_LINGER", socket.set_linger(Some(Duration::ZERO)));
        }
    }

    fn take_error(&mut self, stream: &mut Self::Stream) -> Option<io::Error> {
        stream.take_error().unwrap_or_else(Some)
    }

    fn peek(&mut self, stream: &mut Self::Stream) -> io::Result<usize> {
        stream.peek()
    }

    fn resolve(&mut self, name: &str, class: NameClass) {
        self.workers.look_up(name, class);
    }

    fn notes(&mut self) -> Option<Vec<u8>> {
        self.succession.notes()
    }

    fn tell(&mut self, phase: Phase) {
        self.succession.tell(phase);
    }

    fn bequeath(&mut self, notes: &[u8]) {
        self.succession.bequeath(notes);
    }

    fn start_successor(&mut self, listeners: &[&TcpListener], notes: &[u8]) -> io::Result<u32> {
        let registry = self.poll.registry();
        self.succession.start(listeners, notes, registry, SUCCESSOR)
    }

    fn give_up_successor(&mut self) {
        self.succession.give_up();
    }

    fn watch_files(&mut self, paths: &[PathBuf]) -> io::Result<()> {
        self.changes.watch_files(paths, self.poll.registry())
    }

    fn watch_network(&mut self) -> io::Result<()> {
        self.changes.watch_network(self.poll.registry())
    }

    fn way(&self, stream: &Self::Stream) -> Way {
        way::of(stream)
    }

    fn source_towards(&self, peer: SocketAddr) -> Option<IpAddr> {
        way::source_towards(peer).ok().flatten()
    }

    fn poll(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        let sleep_max = self.succession.sleep_max();
        self.wait(timeout.into_iter().chain(sleep_max).min())?;
        for event in &self.arrived {
            match event.token() {
                BELL => {
                    events.extend(self.workers.answers());
                    let stops = self.bell.stops.swap(0, Ordering::Acquire);
                    events.extend((0..stops).map(|_| Event::Stop));
                }
                SIGNALS => {
                    let pending = self.signals.iter_mut().flat_map(Signals::pending);
                    events.extend(pending.map(|signal| match signal {
                        SIGHUP => Event::Reload,
                        SIGUSR2 => Event::Upgrade,
                        _ => Event::Stop,
                    }));
                }
                SUCCESSOR => events.extend(self.succession.heard().map(Event::Succeeded)),
                FILES => events.extend(self.changes.files()),
                NETWORK => events.extend(self.changes.network()),
                CLOCK => self.changes.clock(self.poll.registry()),
                Token(index) => events.push(Event::Ready {
                    // Tokens were made from a u32 by `token`.
                    index: index as u32,
                    ready: Ready {
                        readable: event.is_readable(),
                        writable: event.is_writable(),
                        closed: event.is_read_closed(),
                        error: event.is_error(),
                        urgent: event.is_priority(),
                    },
                }),
            }
        }
        Ok(())
    }
}

impl Stopper {
    /// Makes the net's poll report [`Event::Stop`], now or when it next polls. Two calls that it
    /// finds at once are two events, more are still two. Harmless when the net is gone.
    pub fn stop(&self) {
        let more = |stops: u8| (stops < STOPS_MAX).then_some(stops + 1);
        // An error only says that enough stops are waiting already.
        let _ = self
            .0
            .stops
            .fetch_update(Ordering::Release, Ordering::Relaxed, more);
        self.0.ring();
    }
}

impl Bell {
    fn ring(&self) {
        note("the waker", self.waker.wake());
    }
}

/// A socket on this address, on which nobody can connect yet.
fn bound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restart must not wait for the old connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // Whatever the system's default: 0.0.0.0 and [::] can then be bound side by side, and
        // "[::]" opens no IPv4 port that nobody asked for.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// What Linux tells of itself. There is a call for the limit, which the standard library does not have; and
/// elsewhere descriptors are simply used until there are none.
fn descriptors_of_process() -> Option<Descriptors> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    // "Max open files            1024                 524288               files": soft, then hard.
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    let limit = line.split_whitespace().next()?.parse().ok()?;
    // One of these is for reading them.
    let open = fs::read_dir("/proc/self/fd")
        .ok()?
        .count()
        .saturating_sub(1);
    Some(Descriptors { limit, open })
}

/// The options that every socket has, set on the listener for those it accepts.
fn set_options(socket: &SockRef<'_>) {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    note("TCP_NODELAY", socket.set_tcp_nodelay(true));
    note("SO_KEEPALIVE", socket.set_tcp_keepalive(&keepalive));
    #[cfg(any(target_os = "linux", target_os = "android"))]
    note(
        "TCP_NOTSENT_LOWAT",
        socket.set_tcp_notsent_lowat(UNSENT_MAX),
    );
}

/// What a refused option costs is latency, or time until a dead peer is noticed: never worth failing
/// a connection. Some systems also refuse when the peer has just reset it, which is then seen anyway.
fn note(option: &str, outcome: io::Result<()>) {
    if let Err(error) = outcome {
        debug!("{option}: {error}");
    }
}

/// The slot alone: it is vacated only between two polls, so no event can meet a later tenant.
fn token(key: Key) -> Token {
    Token(key.index as usize)
}

/// Unsent bytes in the kernel above which a user's or target's socket says that it is full. Its send
/// buffer may grow to megabytes, of which a slow reader takes minutes while nothing seems to move, and
/// which no budget counts; two quanta beyond what is on the wire keep any reader busy.
const UNSENT_MAX: u32 = 128 * 1024;
