//! TLS on one socket: the session between the kernel's bytes and the reader's.
//!
//! It owns the session and whatever waits in it; the socket that it is lent decides about readiness.
//! It knows neither what is verified (the session was made elsewhere) nor what is said.
//!
//! - The kernel is read once into scratch that all sessions share, and the session is fed from there:
//!   rustls by itself would ask the kernel for 4 KiB at a time.
//! - Plaintext is read before more ciphertext is. What is decrypted and not yet read raises no event:
//!   [`Tls::has_news`] tells of it.
//! - There is room to write only when nothing is unsent, so at most one record waits here.
//! - A failure of the session comes behind what was decrypted before it, and stays: what a read has
//!   found wrong, the next one would not find again, because its bytes are gone.
//! - An end of the stream without close_notify is an error: somebody may have cut it (RFC 8446 §6.1).

use std::io::{self, Read, Write};

pub use rustls::Connection as Session;

use super::Outlook;

/// The bytes below TLS: a socket that keeps its readiness.
pub(super) trait Wire {
    /// As of [`Read`].
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize>;
    /// As of [`Write`].
    fn write(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize>;
}

/// A session, and what waits in it.
pub(super) struct Tls {
    session: Session,
    /// Ciphertext that the session has not taken. Empty but for what came before the session did, and for
    /// peers that cut their records so that one read brings more plaintext than a session may hold.
    backlog: Vec<u8>,
    /// Decrypted bytes that nobody has read; once the session has failed, no more than there are.
    plaintext: usize,
    /// Bytes that were written and may not have been sent.
    unsent: usize,
    /// The peer has said that it says no more.
    ended: bool,
    /// FIN is due once all is sent.
    finishing: bool,
    /// Why nothing more will be decrypted.
    failed: Option<rustls::Error>,
}

impl Tls {
    /// A session, and what was read for it already. At most `unsent_max` bytes of plaintext are taken to be
    /// sent at once.
    pub fn new(mut session: Session, begun: Vec<u8>, unsent_max: usize) -> Tls {
        session.set_buffer_limit(Some(unsent_max));
        Tls {
            session,
            backlog: begun,
            plaintext: 0,
            unsent: 0,
            ended: false,
            finishing: false,
            failed: None,
        }
    }

    /// Bytes that wait here, in either direction.
    pub fn held(&self) -> usize {
        self.backlog.len() + self.plaintext + self.unsent
    }

    /// Whether a read finds something without the kernel.
    pub fn has_news(&self) -> bool {
        self.plaintext > 0 || self.ended || self.failed.is_some() || !self.backlog.is_empty()
    }

    /// Whether all that was written is with the kernel.
    pub fn is_flushed(&self) -> bool {
        !self.session.wants_write()
    }

    /// Goes on with the handshake; whether it is complete.
    ///
    /// # Errors
    /// It failed: the peer is not who it should be, speaks no TLS, or has closed.
    pub fn handshake(&mut self, wire: &mut impl Wire, scratch: &mut [u8]) -> io::Result<bool> {
        loop {
            blocked_is_fine(self.flush(wire))?;
            if !self.session.is_handshaking() {
                return Ok(true);
            }
            match self.feed(wire, scratch, |_| false) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads plaintext.
    ///
    /// # Errors
    /// `WouldBlock`; the wire's; `UnexpectedEof` without close_notify; `InvalidData` for what is no
    /// TLS.
    pub fn read(
        &mut self,
        into: &mut [u8],
        wire: &mut impl Wire,
        scratch: &mut [u8],
    ) -> io::Result<usize> {
        loop {
            match self.decrypted(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
            let mut got = 0;
            self.feed(wire, scratch, |tls| {
                // Record by record, so that what one look at the kernel brings goes straight to the reader.
                got += tls.decrypted(&mut into[got..]).unwrap_or(0);
                got < into.len()
            })?;
            if got > 0 {
                return Ok(got);
            }
        }
    }

    /// Reads what the session has decrypted.
    fn decrypted(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.session.reader().read(into) {
            Ok(read) => {
                // A session that fails does not say how much it has decrypted before.
                self.plaintext = self.plaintext.saturating_sub(read);
                Ok(read)
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(io::Error::new(error.kind(), "cut off, TLS was not ended"))
            }
            Err(error) => Err(error),
        }
    }

    /// Takes plaintext to be sent, and sends what the wire takes.
    ///
    /// # Errors
    /// `WouldBlock` while something is unsent; the wire's.
    pub fn write(&mut self, bytes: &[u8], wire: &mut impl Wire) -> io::Result<usize> {
        self.flush(wire)?;
        let taken = self.session.writer().write(bytes)?;
        if taken == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.unsent = taken;
        blocked_is_fine(self.flush(wire))?;
        Ok(taken)
    }

    /// Sends what waits.
    ///
    /// # Errors
    /// `WouldBlock` while something is unsent; the wire's.
    pub fn flush(&mut self, wire: &mut impl Wire) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut Sink(wire))?;
        }
        self.unsent = 0;
        Ok(())
    }

    /// Says that nothing more will be written; `true` once all is sent and FIN may follow.
    ///
    /// # Errors
    /// The wire's.
    pub fn finish(&mut self, wire: &mut impl Wire) -> io::Result<bool> {
        if !std::mem::replace(&mut self.finishing, true) {
            self.session.send_close_notify();
        }
        match self.flush(wire) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether FIN is due, and all before it is sent.
    pub fn is_finished(&self) -> bool {
        self.finishing && self.is_flushed()
    }

    /// What a read would find. Tickets and key updates are taken in: they are no data.
    pub fn outlook(&mut self, wire: &mut impl Wire, scratch: &mut [u8]) -> Outlook {
        loop {
            if self.failed.is_some() {
                return Outlook::Failed;
            }
            if self.plaintext > 0 {
                return Outlook::Data;
            }
            if self.ended {
                return Outlook::End;
            }
            match self.feed(wire, scratch, |_| false) {
                // An end that the peer did not announce.
                Ok(0) => return Outlook::Failed,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Outlook::Quiet,
                Err(_) => return Outlook::Failed,
            }
        }
    }

    /// Gives the session more ciphertext, and sends what it has to say to it. 0 is the end of the
    /// stream. Whenever it holds as much plaintext as it may, `drain` takes of that and says whether it has
    /// room for more; what the session cannot take in then waits here.
    fn feed(
        &mut self,
        wire: &mut impl Wire,
        scratch: &mut [u8],
        mut drain: impl FnMut(&mut Tls) -> bool,
    ) -> io::Result<usize> {
        if let Some(error) = &self.failed {
            return Err(io::Error::new(io::ErrorKind::InvalidData, error.clone()));
        }
        let backlog = std::mem::take(&mut self.backlog);
        let mut rest = if backlog.is_empty() {
            let read = wire.read(scratch)?;
            &scratch[..read]
        } else {
            &backlog[..]
        };
        let fed = rest.len();
        if fed == 0 {
            self.session.read_tls(&mut rest)?;
        }
        while !rest.is_empty() {
            // It takes no more while it holds a record's worth of plaintext.
            if self.plaintext >= PLAINTEXT_MAX && !drain(self) {
                self.backlog = rest.to_vec();
                break;
            }
            if self.session.read_tls(&mut rest)? == 0 {
                // Behind close_notify nothing counts.
                break;
            }
            match self.session.process_new_packets() {
                Ok(state) => {
                    self.plaintext = state.plaintext_bytes_to_read();
                    self.ended = state.peer_has_closed();
                }
                Err(error) => {
                    // The alert says why, if it still arrives.
                    let _ = self.flush(wire);
                    self.failed = Some(error);
                    return Ok(fed);
                }
            }
        }
        drain(self);
        // Whether that works is for whoever writes to find out: what was read came before it.
        let _ = self.flush(wire);
        Ok(fed)
    }
}

fn blocked_is_fine(flushed: io::Result<()>) -> io::Result<()> {
    match flushed {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        flushed => flushed,
    }
}

/// A wire as rustls writes to it: many records in one call.
struct Sink<'a, W>(&'a mut W);

impl<W: Wire> Write for Sink<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(&[io::IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.write(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One read of the kernel: four records of the largest size, as a link's batch takes.
pub(super) const SCRATCH: usize = 4 * (16 * 1024 + 256);

/// What may be written and unsent: one record.
pub(super) const UNSENT_MAX: usize = 16 * 1024;

/// On a link: a batch, which leaves by one system call then.
pub(super) const LINK_UNSENT_MAX: usize = 66 * 1024;

/// rustls takes no ciphertext while it holds more plaintext than this.
const PLAINTEXT_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests;
