//! What the reactor asks of the outside world.
//!
//! [`Net`] is the only seam between siding and an operating system: `mio_net` implements it on mio
//! and real sockets, the tests implement it on a simulated network with a seed, and the release code
//! of both roles runs on either without knowing which.
//!
//! Readiness is edge-triggered. A stream is registered once, for both directions, and an event only
//! says "maybe"; [`std::io::ErrorKind::WouldBlock`] is the only "no".

use std::{
    fmt,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use crate::{clock::Now, key::Key};

/// Sockets, names, time and chance: everything that is not computation.
pub trait Net {
    /// A connected (or connecting) byte stream; reads and writes never block.
    type Stream: Read + Write;
    /// A listening socket.
    type Listener;

    /// Reads both clocks. The reactor calls it once per turn, and once more at its end where turns are
    /// measured.
    fn now(&mut self) -> Now;

    /// Fills `bytes` with unpredictable ones (nonces, jitter).
    fn random(&mut self, bytes: &mut [u8]);

    /// How many descriptors the process may have, and has; `None` where nobody can tell. The reactor asks
    /// once.
    fn descriptors(&self) -> Option<Descriptors> {
        None
    }

    /// Binds and registers a listener under `key`. Connections it accepts inherit its options.
    ///
    /// # Errors
    /// The address is in use, not ours, or not permitted; or descriptors have run out.
    fn listen(&mut self, address: SocketAddr, key: Key) -> io::Result<Self::Listener>;

    /// A listener is about to be closed: it is forgotten by all who might find it again.
    fn unlisten(&mut self, _: &mut Self::Listener) {}

    /// The address a listener is bound to (the port the system chose where 0 was asked for).
    ///
    /// # Errors
    /// The system's own.
    fn local_address(&self, listener: &Self::Listener) -> io::Result<SocketAddr>;

    /// The address at which the peer of an accepted stream has found us, which its listener does not say
    /// where it listens on all of them.
    ///
    /// # Errors
    /// The system's own; `Unsupported` for what is not TCP.
    fn near_address(&self, stream: &Self::Stream) -> io::Result<SocketAddr>;

    /// Takes one connection that waits, not yet registered.
    ///
    /// # Errors
    /// `WouldBlock` when none waits; others when descriptors or memory have run out.
    fn accept(&mut self, listener: &mut Self::Listener) -> io::Result<(Self::Stream, SocketAddr)>;

    /// Starts to connect. The stream is not yet registered; once it is, "writable" tells that the
    /// attempt has ended and [`Net::connected`] how.
    ///
    /// # Errors
    /// The attempt failed at once, or descriptors have run out; `WouldBlock` when as many connections
    /// wait at a unix socket as may, `Unsupported` where there are no unix sockets.
    fn connect(&mut self, address: Address<'_>, purpose: Purpose) -> io::Result<Self::Stream>;

    /// Whether an attempt has ended: `None` while it goes on, else who is there.
    ///
    /// # Errors
    /// Why the attempt failed.
    fn connected(&mut self, stream: &mut Self::Stream) -> io::Result<Option<Peer>>;

    /// Registers a stream under `key` for both directions, once in its life.
    ///
    /// # Errors
    /// The system's own.
    fn register(&mut self, stream: &mut Self::Stream, key: Key) -> io::Result<()>;

    /// Nothing more is to be heard of a stream, which stays open for now.
    fn deregister(&mut self, stream: &mut Self::Stream);

    /// Marks a stream as a link: a short queue of unsent bytes (`TCP_NOTSENT_LOWAT`).
    fn prefer_latency(&mut self, stream: &mut Self::Stream);

    /// Acknowledges what has come, instead of waiting for something to send along
    /// (`TCP_QUICKACK`): the peer may be waiting for just that.
    fn acknowledge(&mut self, stream: &mut Self::Stream);

    /// Sends FIN: nothing more will be written.
    ///
    /// # Errors
    /// The peer is gone already.
    fn shutdown(&mut self, stream: &mut Self::Stream) -> io::Result<()>;

    /// Makes dropping the stream send RST instead of FIN. A unix socket knows no such thing: its peer sees
    /// a reset where bytes of its own were left unread, and else an end.
    fn abort(&mut self, stream: &mut Self::Stream);

    /// The pending error of a stream, which it clears.
    fn take_error(&mut self, stream: &mut Self::Stream) -> Option<io::Error>;

    /// Looks a byte ahead without taking it.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; `Ok(0)` is the end of the stream.
    fn peek(&mut self, stream: &mut Self::Stream) -> io::Result<usize>;

    /// Looks up a host name; [`Event::Resolved`] brings the answer. One look-up per name is under
    /// way at a time (the caller sees to it).
    fn resolve(&mut self, name: &str, class: NameClass);

    /// What the process before this one has left for it, once. Its listeners are found by
    /// [`Net::listen`].
    fn notes(&mut self) -> Option<Vec<u8>> {
        None
    }

    /// Tells whoever looks after this process how far it is. At [`Phase::Ready`] the process before this one
    /// goes, and what was inherited and not listened on is closed.
    fn tell(&mut self, _: Phase) {}

    /// Leaves to the next process, whoever starts it, what this one knows; it is about to stop, and what it
    /// closes from now on may go on without it.
    fn bequeath(&mut self, _: &[u8]) {}

    /// Starts a process that is to take these listeners over, with `notes` of what it must know.
    /// [`Event::Succeeded`] brings what came of it.
    ///
    /// # Errors
    /// One was started already; `Unsupported` where there is no such thing; or the system's own.
    fn start_successor(&mut self, _: &[&Self::Listener], _: &[u8]) -> io::Result<u32> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Ends the one that was started and was not heard of.
    fn give_up_successor(&mut self) {}

    /// Watches these files from here on, and none of those before: [`Event::FilesChanged`] tells when one
    /// of them may hold something else, is there, or is not, by whatever links and folders it is found.
    /// Nothing where no system tells.
    ///
    /// # Errors
    /// Some of them cannot be watched; the others are.
    fn watch_files(&mut self, _paths: &[PathBuf]) -> io::Result<()> {
        Ok(())
    }

    /// Tells by [`Event::NetworkChanged`], once, when an address, a route or an interface of this machine is
    /// another than now; then it has to be asked for again. A clock that is set ends a poll from then on.
    /// Nothing where no system tells.
    ///
    /// # Errors
    /// The system tells others, but not us.
    fn watch_network(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Which way packets to the peer of a stream take now. It sends none.
    fn way(&self, _stream: &Self::Stream) -> Way {
        Way::Same
    }

    /// From which address of ours packets to `peer` would leave now; `None` where they would not. It sends
    /// none.
    fn source_towards(&self, _peer: SocketAddr) -> Option<IpAddr> {
        None
    }

    /// Waits for events until `timeout` has passed (`None`: for ever) and appends them.
    ///
    /// # Errors
    /// The selector itself failed: the process cannot go on.
    fn poll(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()>;
}

/// The descriptors of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// How many it may have.
    pub limit: usize,
    /// How many it has.
    pub open: usize,
}

/// Where to connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address<'a> {
    /// A TCP port.
    Inet(SocketAddr),
    /// A unix socket, by its path.
    Unix(&'a str),
}

impl Address<'_> {
    /// Whether it is this machine's own: an attempt to connect has ended when it is made.
    pub fn is_local(&self) -> bool {
        match self {
            Address::Inet(address) => address.ip().is_loopback(),
            Address::Unix(_) => true,
        }
    }
}

impl fmt::Display for Address<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Inet(address) => address.fmt(f),
            Address::Unix(path) => f.write_str(path),
        }
    }
}

/// Who is at the other end of a connection that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TCP port.
    Inet(SocketAddr),
    /// Whoever listens at the unix socket that was asked for.
    Unix,
}

impl Peer {
    /// Its address, if it has one.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Peer::Inet(address) => Some(address.ip()),
            Peer::Unix => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Inet(address) => address.fmt(f),
            Peer::Unix => f.write_str("a unix socket"),
        }
    }
}

/// The way that packets of a connection take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// They leave from the connection's own address, as ever.
    Same,
    /// New ones would leave from this address, the connection's is ours still: what is sent from it may be
    /// dropped on this way.
    Other(IpAddr),
    /// New ones would leave from another address, and the connection's is not ours any more.
    Lost,
    /// There is none now.
    None,
}

/// What a connection is for; it decides the socket's options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A link: a short queue of unsent bytes (`TCP_NOTSENT_LOWAT`) keeps latency low under load.
    Link,
    /// A user.
    User,
    /// A target or origin.
    Target,
    /// A user to whom TLS is spoken.
    SecureUser,
    /// A target to which TLS is spoken.
    SecureTarget,
    /// Whoever looks after the process.
    Admin,
}

impl Purpose {
    /// What it counts where there is room for so many connections only: by the memory that it may come to
    /// hold, as many as of plain ones. A link has two buffers for a batch each, a TLS session certificates
    /// and a record in either direction.
    pub fn weight(self) -> u8 {
        match self {
            Purpose::User | Purpose::Target | Purpose::Admin => 1,
            Purpose::SecureUser | Purpose::SecureTarget => 4,
            Purpose::Link => 8,
        }
    }
}

/// Who named a host; a thread is kept for the operator's own names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameClass {
    /// In our configuration.
    Configured,
    /// By a user of a `forward` listener.
    Users,
}

/// Something happened outside.
#[derive(Debug)]
pub enum Event {
    /// A socket may have become ready.
    Ready {
        /// The slot of the key it was registered under. Slots are vacated only between two polls, so
        /// the index alone cannot name a stranger.
        index: u32,
        /// In which ways.
        ready: Ready,
    },
    /// A name was looked up.
    Resolved {
        /// As it was asked for.
        name: Box<str>,
        /// Its addresses, at least one, or why there are none.
        result: Result<Vec<IpAddr>, String>,
    },
    /// The operator asks the process to end (SIGINT, SIGTERM); the second time, at once.
    Stop,
    /// The operator asks the process to read its files again (SIGHUP).
    Reload,
    /// The operator asks for a new process in the place of this one (SIGUSR2).
    Upgrade,
    /// The process that was started to take over has done so, or has failed, and why.
    Succeeded(Result<(), String>),
    /// One of the files that are [watched](Net::watch_files) may have changed.
    FilesChanged,
    /// Something of the [network](Net::watch_network) is another now.
    NetworkChanged,
}

/// How far a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It serves.
    Ready,
    /// It reads its files again; [`Phase::Ready`] follows.
    Reloading,
    /// It takes nothing new any more.
    Stopping,
}

/// Edge-triggered readiness, as hints: only `WouldBlock` says "no".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Bytes, an end of stream or a connection to accept may be there.
    pub readable: bool,
    /// There may be room to write, or a connection attempt has ended.
    pub writable: bool,
    /// The peer has sent FIN or RST: read on to the end, a short read no longer means "drained".
    pub closed: bool,
    /// The socket has a pending error.
    pub error: bool,
    /// Urgent data came: a short read may have stopped at its mark.
    pub urgent: bool,
}

/// Whether an error means that descriptors or socket memory have run out: it passes when a socket is
/// closed.
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}
