//! What the reactor keeps of one socket, listener or timer.

use std::{
    io::{self, Read, Write},
    time::{Duration, Instant},
};

use super::{
    Outlook,
    net::Net,
    tls::{Tls, Wire},
    wheel::TimerId,
};

/// One entry of the reactor's slab. There may be a hundred thousand: no heap while idle.
pub(super) struct Socket<N: Net, O> {
    pub kind: Kind<N>,
    pub owner: O,
    pub serial: u32,
    pub life: Life,
    pub deadline: Deadline,
    /// Its one entry in the wheel.
    pub timer: Option<TimerId>,
    /// When bytes last moved.
    pub active: Instant,
    /// Why the socket failed, once an event or a read has said so.
    pub failed: Option<io::ErrorKind>,
    /// Bytes that were given back; of a lingering socket, those to be written.
    pub unread: Option<Box<Unread>>,
    /// Between the kernel and the owner, where there is TLS.
    pub tls: Option<Box<Tls>>,
    pub readable: bool,
    pub writable: bool,
    /// The peer was reset after it had ended in order: nothing can be written, and no event will tell
    /// of it again.
    pub deaf: bool,
    /// A short read does not mean that there is no more: only "would block" does.
    pub read_on: bool,
    pub connecting: bool,
    /// It stands in the reactor's queue of work kept.
    pub again: bool,
    /// What it counts of the reactor's room.
    pub weight: u8,
}

pub(super) enum Kind<N: Net> {
    Stream(N::Stream),
    Listener(N::Listener),
    Timer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Open,
    /// Its owner has left it: what is unread is still to be written, then FIN is sent, and until then
    /// what comes is discarded.
    Lingering {
        /// Known once FIN is sent.
        until: Option<Instant>,
    },
    /// Its slot is vacated at the end of the turn.
    Closing {
        /// By RST.
        reset: bool,
    },
}

/// When an entry's owner is to be called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deadline {
    /// Never.
    #[default]
    None,
    /// At this instant.
    At(Instant),
    /// When no byte was read or written for so long, counted from when this was set.
    Idle(Idle),
}

impl Deadline {
    /// When no byte was read or written for so long.
    pub fn idle(time: Duration) -> Deadline {
        let nanoseconds = time.as_nanos().try_into().unwrap_or(u64::MAX);
        Deadline::Idle(Idle { nanoseconds })
    }
}

/// How long nothing may move. A [`Duration`] would make each deadline half as large again: it has no room
/// beside it in which to tell the cases apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    nanoseconds: u64,
}

/// Bytes that wait at a socket.
pub(super) struct Unread {
    bytes: Vec<u8>,
    taken: usize,
}

impl Unread {
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    /// Takes `bytes` off the front; what is empty then is gone.
    pub fn advance(unread: &mut Option<Box<Unread>>, bytes: usize) {
        if let Some(waiting) = unread {
            waiting.taken += bytes;
            if waiting.taken == waiting.bytes.len() {
                *unread = None;
            }
        }
    }
}

impl<N: Net, O> Socket<N, O> {
    pub fn new(serial: u32, kind: Kind<N>, owner: O, now: Instant) -> Socket<N, O> {
        // A listener may hold connections from before it was polled; a stream's first event tells.
        let readable = matches!(kind, Kind::Listener(_));
        Socket {
            kind,
            owner,
            serial,
            life: Life::Open,
            deadline: Deadline::None,
            timer: None,
            active: now,
            failed: None,
            unread: None,
            tls: None,
            readable,
            writable: true,
            deaf: false,
            read_on: false,
            connecting: false,
            again: false,
            weight: 0,
        }
    }

    /// Whether it is over for its owner, and for everybody else.
    pub fn is_closing(&self) -> bool {
        matches!(self.life, Life::Closing { .. })
    }

    /// Whether the system keeps something for it.
    pub fn has_descriptor(&self) -> bool {
        !matches!(self.kind, Kind::Timer)
    }

    pub fn is_readable(&self) -> bool {
        self.readable
            || self.unread.is_some()
            || self.tls.as_ref().is_some_and(|tls| tls.has_news())
    }

    /// Reads from the network: plaintext, where there is TLS.
    pub fn read(&mut self, into: &mut [u8], scratch: &mut [u8], now: Instant) -> io::Result<usize> {
        self.with_tls(now, |tls, raw| match tls {
            Some(tls) => tls.read(into, raw, scratch),
            None => raw.read(into),
        })
    }

    /// Writes what the network takes, or one record of it.
    pub fn write(&mut self, bytes: &[u8], now: Instant) -> io::Result<usize> {
        self.with_tls(now, |tls, raw| match tls {
            Some(tls) => tls.write(bytes, raw),
            None => raw.write(&[io::IoSlice::new(bytes)]),
        })
    }

    /// Goes on with the handshake of TLS; whether it is complete.
    pub fn handshake(&mut self, scratch: &mut [u8], now: Instant) -> io::Result<bool> {
        self.with_tls(now, |tls, raw| match tls {
            Some(tls) => tls.handshake(raw, scratch),
            None => Ok(true),
        })
    }

    /// Sends what TLS holds back, as far as the network takes it, and the FIN that waits for that.
    pub fn flush_tls(&mut self, net: &mut N, now: Instant) {
        let finished = self.with_tls(now, |tls, raw| {
            let tls = tls?;
            let waited = !tls.is_flushed();
            // An error is kept in the socket: whoever reads or writes next finds it.
            let flushed = waited && tls.flush(raw).is_ok();
            Some(flushed && tls.is_finished())
        });
        if finished == Some(true)
            && let Kind::Stream(stream) = &mut self.kind
        {
            let _ = net.shutdown(stream);
        }
    }

    /// Sends FIN, or what comes before it where there is TLS; whether it is sent.
    pub fn finish(&mut self, net: &mut N, now: Instant) -> io::Result<bool> {
        let finished = self.with_tls(now, |tls, raw| match tls {
            Some(tls) => tls.finish(raw),
            None => Ok(true),
        })?;
        if finished && let Kind::Stream(stream) = &mut self.kind {
            net.shutdown(stream)?;
        }
        Ok(finished)
    }

    /// What TLS has for a reader, where there is any.
    pub fn tls_outlook(&mut self, scratch: &mut [u8], now: Instant) -> Option<Outlook> {
        self.with_tls(now, |tls, raw| tls.map(|tls| tls.outlook(raw, scratch)))
    }

    /// Whether all that was written is with the kernel.
    pub fn is_flushed(&self) -> bool {
        self.tls.as_ref().is_none_or(|tls| tls.is_flushed())
    }

    /// Bytes that wait here, given back or inside TLS.
    pub fn held(&self) -> usize {
        self.unread_len() + self.tls.as_ref().map_or(0, |tls| tls.held())
    }

    /// Lends TLS, if there is any, the socket below it.
    fn with_tls<T>(
        &mut self,
        now: Instant,
        work: impl FnOnce(Option<&mut Tls>, &mut Raw<'_, N, O>) -> T,
    ) -> T {
        let mut tls = self.tls.take();
        let done = work(tls.as_deref_mut(), &mut Raw { socket: self, now });
        self.tls = tls;
        done
    }

    /// When its owner is to be called.
    pub fn due(&self) -> Option<Instant> {
        match self.deadline {
            Deadline::None => None,
            Deadline::At(at) => Some(at),
            Deadline::Idle(Idle { nanoseconds }) => {
                Some(self.active + Duration::from_nanos(nanoseconds))
            }
        }
    }

    pub fn unread_len(&self) -> usize {
        self.unread.as_ref().map_or(0, |unread| unread.rest().len())
    }

    pub fn unread(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        match &mut self.unread {
            None => {
                self.unread = Some(Box::new(Unread {
                    bytes: bytes.to_vec(),
                    taken: 0,
                }))
            }
            Some(unread) => {
                unread.bytes.splice(..unread.taken, bytes.iter().copied());
                unread.taken = 0;
            }
        }
    }

    /// Takes of what was given back; `None` when there is nothing.
    pub fn take_unread(&mut self, into: &mut [u8]) -> Option<usize> {
        let rest = self.unread.as_ref()?.rest();
        let taken = rest.len().min(into.len());
        into[..taken].copy_from_slice(&rest[..taken]);
        Unread::advance(&mut self.unread, taken);
        Some(taken)
    }

    /// Writes what waits; whether all of it is written.
    pub fn write_unread(&mut self, now: Instant) -> io::Result<bool> {
        while let Some(unread) = self.unread.take() {
            let written = self.write(unread.rest(), now);
            self.unread = Some(unread);
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => Unread::advance(&mut self.unread, written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    pub fn drop_unread(&mut self) {
        self.unread = None;
    }
}

/// A socket below TLS, or without it: the kernel's bytes, and what its answers tell of readiness.
struct Raw<'a, N: Net, O> {
    socket: &'a mut Socket<N, O>,
    now: Instant,
}

impl<N: Net, O> Wire for Raw<'_, N, O> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let socket = &mut *self.socket;
        if !socket.readable {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let Kind::Stream(stream) = &mut socket.kind else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        match stream.read(into) {
            Ok(0) => {
                socket.read_on = true;
                match socket.failed {
                    // A reset looks like an end once its error was taken.
                    Some(kind) => Err(kind.into()),
                    None => Ok(0),
                }
            }
            Ok(read) => {
                socket.active = self.now;
                if read < into.len() && !socket.read_on {
                    socket.readable = false;
                }
                Ok(read)
            }
            Err(error) => {
                if error.kind() == io::ErrorKind::WouldBlock {
                    socket.readable = false;
                } else {
                    socket.failed = Some(error.kind());
                }
                Err(error)
            }
        }
    }

    fn write(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let socket = &mut *self.socket;
        if !socket.writable {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let Kind::Stream(stream) = &mut socket.kind else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let written = match slices {
            [bytes] => stream.write(bytes),
            slices => stream.write_vectored(slices),
        };
        match &written {
            Ok(written) => {
                socket.active = self.now;
                // The kernel took less than it was given: it is full and will say when it is not.
                if *written < slices.iter().map(|bytes| bytes.len()).sum() {
                    socket.writable = false;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.writable = false,
            // The peer has ended in order before it took no more: reading ends in order, too.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            // The write has taken the pending error: to reading, a reset would look like an end.
            Err(error) => socket.failed = Some(error.kind()),
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::mio_net::MioNet;

    #[test]
    fn a_socket_is_small() {
        // The roles' labels have 8 and 12 bytes.
        let size = size_of::<Socket<MioNet, [u32; 3]>>();
        println!("a socket: {size} bytes");
        // In debug builds mio remembers where each of its sockets is registered.
        let checks = if cfg!(debug_assertions) { 16 } else { 0 };
        assert!(size <= 104 + checks, "{size}");
        assert_eq!(size_of::<Deadline>(), size_of::<Instant>());
    }
}
