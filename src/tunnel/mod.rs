//! The tunnel protocol, pure: bytes and time come as arguments, sockets are lent by name.
//!
//! ```text
//! user or target socket                                                    link socket
//!        |  read   +-------+ pending, body +-----+  frames  +-------+ message  |
//!        +-------->| relay |-------------->| mux |--------->| batch |--------->+
//!        |  write  | (two  |    slices     | (of |  frames  +-------+          |
//!        +<--------| halves)|<-------------| one |<----------------------------+
//!                  +-------+               | link)         link: WebSocket, liveness
//!                                          +-----+
//! ```
//!
//! - [`frame`]: the wire format; [`control`]: its JSON payloads; [`ids`]: the names people see.
//! - [`window`]: credit, and the budget of all undelivered bytes.
//! - [`relay`]: one stream's two halves; [`mux`]: the streams of one link.
//! - [`pace`]: how much may be under way on a link; [`drain`]: how fast its socket takes it; [`rate`]: bytes
//!   per second of a proxy.
//! - [`upgrade`], [`proof`]: how a link begins; [`link`]: the WebSocket and its liveness.
//! - [`Tunnel`]: a link and its mux, as a role drives them.

pub mod control;
mod drain;
pub mod frame;
pub mod ids;
pub mod link;
mod liveness;
pub mod mux;
mod pace;
pub mod proof;
pub mod rate;
pub mod relay;
mod replay;
mod tail;
pub mod upgrade;
pub mod window;

pub use replay::REPLAY_MAX;

use std::{
    io,
    time::{Duration, Instant},
};

use log::warn;

use crate::{
    clock::Now,
    http::Source,
    key::Key,
    share::Share,
    tunnel::{
        drain::Drain,
        frame::{BATCH_MAX, Batch, Message},
        link::{Link, LinkError, Scratch},
        mux::{Happened, LinkState, Mux},
        window::{Budget, Pressure},
    },
};

/// The sockets behind the keys, lent for one call.
///
/// The same rules as for [`std::io`] on a non-blocking socket: `WouldBlock` is the only "not now",
/// and a key whose socket is gone answers `NotConnected`.
pub trait Sockets {
    /// Reads what was [`Sockets::unread`] first, then from the network.
    ///
    /// # Errors
    /// The socket's.
    fn read(&mut self, key: Key, into: &mut [u8]) -> io::Result<usize>;

    /// Gives bytes back, to be read again before anything else.
    fn unread(&mut self, key: Key, bytes: &[u8]);

    /// Writes what the socket takes.
    ///
    /// # Errors
    /// The socket's.
    fn write(&mut self, key: Key, bytes: &[u8]) -> io::Result<usize>;

    /// Sends FIN.
    fn shutdown(&mut self, key: Key);

    /// What a read would find, without reading.
    fn outlook(&mut self, key: Key) -> Outlook;

    /// What the socket's events have told so far, without a look.
    fn standing(&self, key: Key) -> Standing;
}

/// What a socket's events have told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing to read.
    Quiet,
    /// There may be something to read.
    Readable,
    /// What it had to say was whole, and it takes nothing any more.
    Deaf,
    /// It was reset, or timed out.
    Failed,
}

/// What a read would find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// Nothing, as far as we were told.
    Quiet,
    /// Bytes.
    Data,
    /// The end of the stream.
    End,
    /// An error.
    Failed,
}

/// One socket of many, as a source of a message's bytes.
struct SocketSource<'a> {
    sockets: &'a mut dyn Sockets,
    key: Key,
}

impl Source for SocketSource<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.sockets.read(self.key, into)
    }

    fn unread(&mut self, surplus: &[u8]) {
        self.sockets.unread(self.key, surplus);
    }
}

/// What all links of a process share: there is one of each because there is one thread.
pub struct Shared {
    /// Undelivered bytes, and how many there may be.
    pub budget: Budget,
    /// When streams to reset were last looked for.
    looked: Option<Instant>,
    /// How many frames a link may bring in this turn.
    frames: Share,
    batch: Batch,
    scratch: Scratch,
}

impl Shared {
    /// Shared state with this budget.
    pub fn new(budget: Budget) -> Shared {
        Shared {
            budget,
            looked: None,
            frames: FRAMES,
            batch: Batch::default(),
            scratch: Scratch::default(),
        }
    }
}

impl Shared {
    /// All that has come in this turn was handled, and so many bytes were given back to their sockets.
    pub fn end_turn(&mut self, unread: usize) {
        self.budget.note_unread(unread);
        self.frames.divide();
    }

    /// Whether memory is so short that streams are to be reset whose readers stand still. Looking for
    /// them costs a step for each stream, so it is answered with yes once a second at most.
    pub fn is_short(&mut self, now: Now) -> bool {
        let lately = |at| now.instant.saturating_duration_since(at) < LOOK_EVERY;
        if self.budget.pressure() < Pressure::Full || self.looked.is_some_and(lately) {
            return false;
        }
        self.looked = Some(now.instant);
        true
    }

    /// Resets such streams of one link, so many as a turn may. If that was not enough, the next turn goes on.
    pub fn shed(&mut self, mux: &mut Mux, now: Now) -> Vec<Happened> {
        let shed = mux.shed(SHED_PER_TURN_MAX, &mut self.budget, now);
        if !shed.is_empty() {
            let count = shed.len();
            warn!("memory is short: {count} streams whose readers stood still are reset");
            self.looked = None;
        }
        shed
    }
}

/// What a turn's flush of one link came to.
#[derive(Debug)]
#[must_use]
pub enum Flush {
    /// A stream needs its role; flush again afterwards.
    Happened(Happened),
    /// All that there was to say is with the kernel.
    Idle,
    /// The link's socket is full: its next writable event goes on.
    Blocked,
    /// It had its share of this turn.
    More,
}

/// What a link has sent since it began; pings and their like are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// WebSocket messages.
    pub messages: u64,
    /// Frames in them.
    pub frames: u64,
    /// Bytes of these frames, their headers included.
    pub bytes: u64,
}

/// One link and the streams in it.
///
/// Driving it: after an event on its socket, [`Tunnel::receive`] until it answers `None`; at the end
/// of every turn in which anything was scheduled or received, [`Tunnel::flush`] until it no longer
/// answers `Happened`.
#[derive(Debug)]
pub struct Tunnel {
    /// The link's socket.
    pub key: Key,
    /// The WebSocket.
    pub link: Link,
    /// Its streams.
    pub mux: Mux,
    message: Option<Message>,
    /// A batch was begun and an event interrupted it.
    filling: bool,
    /// Bytes sent in this turn.
    flushed: usize,
    sent: Sent,
    drain: Drain,
}

impl Tunnel {
    /// Joins a link that was just upgraded with its (empty) mux.
    pub fn new(key: Key, link: Link, mux: Mux) -> Tunnel {
        Tunnel {
            key,
            link,
            mux,
            message: None,
            filling: false,
            flushed: 0,
            sent: Sent::default(),
            drain: Drain::default(),
        }
    }

    /// What was put on the link so far.
    pub fn sent(&self) -> Sent {
        self.sent
    }

    /// Whether all that was ever said is with the kernel.
    pub fn is_flushed(&self) -> bool {
        !self.drain.is_blocked() && !self.filling && !self.mux.has_work()
    }

    /// Whether its socket takes no more for now: its next flush comes with the event that it does.
    pub fn is_blocked(&self) -> bool {
        self.drain.is_blocked()
    }

    /// What the link has come to. O(streams).
    pub fn state(&self) -> LinkState {
        self.mux.state(self.is_flushed())
    }

    /// Handles what has arrived, up to the next event that the role must see; `None`: no more
    /// has come. At most [`link::READ_PER_TURN_MAX`] bytes a turn, and its [share](Shared) of frames; [`Link::is_scheduled`] says if that was why.
    ///
    /// # Errors
    /// The link is over.
    pub fn receive(
        &mut self,
        sockets: &mut dyn Sockets,
        shared: &mut Shared,
        now: Now,
    ) -> Result<Option<Happened>, LinkError> {
        loop {
            if let Some(message) = &mut self.message {
                let share = self.link.share(&shared.frames);
                message.set_share(share);
                let happened = self.mux.receive(message, sockets, &mut shared.budget, now);
                self.link.spend(share - message.share());
                if let Some(happened) = happened.map_err(LinkError::Violation)? {
                    if matches!(happened, Happened::Control(..)) {
                        self.link.spend(CONTROL_FRAMES);
                    }
                    return Ok(Some(happened));
                }
                if message.is_over() {
                    self.message = None;
                }
            }
            let Shared {
                scratch, frames, ..
            } = shared;
            let received = self.link.receive(sockets, self.key, scratch, frames, now)?;
            match received {
                Some(bytes) => self.message = Some(Message::new(bytes)),
                None => return Ok(None),
            }
        }
    }

    /// Sends what the streams have to say, as far as the link takes it. After `Happened` it must be
    /// called again before any other tunnel's, because the batch is shared.
    ///
    /// # Errors
    /// The link is over.
    pub fn flush(
        &mut self,
        sockets: &mut dyn Sockets,
        shared: &mut Shared,
        now: Now,
    ) -> Result<Flush, LinkError> {
        let Shared { budget, batch, .. } = shared;
        loop {
            if !self.filling {
                // Nothing is read for a link that cannot take it: bytes wait in the kernel instead.
                if !self.link.flush(sockets, self.key)? {
                    self.flushed = 0;
                    self.drain.block(now.instant);
                    return Ok(Flush::Blocked);
                }
                self.drain.open(now.instant);
                if self.flushed >= WRITE_PER_TURN_MAX && self.mux.has_work() {
                    self.flushed = 0;
                    return Ok(Flush::More);
                }
                batch.begin(if self.drain.is_slow() && self.flushed == 0 {
                    BATCH_FIRST
                } else {
                    BATCH_MAX
                });
                self.filling = true;
            }
            let quantum = match (self.link.is_open(), self.drain.is_slow()) {
                (false, _) => 0,
                (true, true) => self.flushed.clamp(QUANTUM_MIN, BATCH_MAX),
                (true, false) => BATCH_MAX,
            };
            // An event does not end the batch: the role handles it and comes back to fill it up.
            if let Some(happened) = self.mux.fill(batch, quantum, sockets, budget, now) {
                return Ok(Flush::Happened(happened));
            }
            self.filling = false;
            if batch.is_empty() {
                self.flushed = 0;
                self.drain.pause();
                return Ok(Flush::Idle);
            }
            self.flushed += batch.len();
            self.drain.given(batch.len());
            self.sent.messages += 1;
            self.sent.frames += u64::from(batch.frames());
            self.sent.bytes += batch.len() as u64;
            self.link.send(sockets, self.key, batch, now)?;
        }
    }
}

/// How many frames are taken from one link in a turn while others wait, a message and a ping counting as one,
/// too: each may cost as much as a system call, and 64 KiB hold five thousand.
const FRAMES: Share = Share::new(16, 256, 512);

/// What a frame of the link costs besides, in frames: its text is parsed, and it may open a listener.
const CONTROL_FRAMES: usize = 7;

/// The first batch of a turn on a slow link is one quantum, so that a keystroke never waits behind more
/// than this in our hands; later ones are longer, because a completed flush shows that it takes more.
const BATCH_FIRST: usize = 16 * 1024;

/// What a stream says in one go while others wait, on a slow link: as much as the link has taken in this
/// turn, but at least so much. Each stream waits for short turns of the others there; on one that takes
/// all that comes a turn is a whole batch, for fewer system calls on both ends.
const QUANTUM_MIN: usize = 16 * 1024;

/// How many streams are reset in a turn because memory is short, while others wait.
const SHED_PER_TURN_MAX: usize = 64;

/// A tenth of the time for which a reader must have stood still.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How much one link may send in a turn while others wait, its own streams among them: what has come for one
/// of them meanwhile is looked at before more of the others. A whole batch; with four of them a keystroke
/// beside bulk takes twice as long.
const WRITE_PER_TURN_MAX: usize = BATCH_MAX;
