//! A connection of the operating system: TCP, or a unix socket.
//!
//! Whatever the two have in common is done here without asking which it is; the options of TCP are lent only
//! where there is TCP. Reads and writes never answer [`io::ErrorKind::Interrupted`].

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    net::{Shutdown, SocketAddr},
};

#[cfg(unix)]
use mio::net::UnixStream;
use mio::{event::Source, net::TcpStream};
use socket2::SockRef;

use super::{Address, Peer};

/// A connection.
#[derive(Debug)]
pub struct Stream(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

/// The same of either kind.
macro_rules! either {
    ($stream:expr, $socket:ident => $what:expr) => {
        match $stream {
            Stream(Kind::Tcp($socket)) => $what,
            #[cfg(unix)]
            Stream(Kind::Unix($socket)) => $what,
        }
    };
}

impl Stream {
    /// Starts to connect. At a unix socket that is done at once: where its queue is full, Linux says
    /// `WouldBlock`, and would say nothing when there is room.
    pub(super) fn connect(address: Address<'_>) -> io::Result<Self> {
        match address {
            Address::Inet(address) => TcpStream::connect(address).map(Self::from),
            #[cfg(unix)]
            Address::Unix(path) => UnixStream::connect(path).map(|socket| Self(Kind::Unix(socket))),
            #[cfg(not(unix))]
            Address::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// The address at which its peer has found it.
    pub(super) fn near_address(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Kind::Tcp(socket) => socket.local_addr(),
            #[cfg(unix)]
            Kind::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// The socket, for the options of TCP.
    pub(super) fn tcp(&self) -> Option<SockRef<'_>> {
        match &self.0 {
            Kind::Tcp(socket) => Some(SockRef::from(socket)),
            #[cfg(unix)]
            Kind::Unix(_) => None,
        }
    }

    pub(super) fn source(&mut self) -> &mut dyn Source {
        either!(self, socket => socket)
    }

    pub(super) fn peer(&self) -> io::Result<Peer> {
        match &self.0 {
            Kind::Tcp(socket) => socket.peer_addr().map(Peer::Inet),
            #[cfg(unix)]
            Kind::Unix(socket) => socket.peer_addr().map(|_| Peer::Unix),
        }
    }

    pub(super) fn shutdown(&self) -> io::Result<()> {
        either!(self, socket => socket.shutdown(Shutdown::Write))
    }

    pub(super) fn take_error(&self) -> io::Result<Option<io::Error>> {
        either!(self, socket => socket.take_error())
    }

    pub(super) fn peek(&self) -> io::Result<usize> {
        let socket = either!(self, socket => SockRef::from(socket));
        uninterrupted(|| socket.peek(&mut [MaybeUninit::uninit()]))
    }
}

impl From<TcpStream> for Stream {
    fn from(socket: TcpStream) -> Self {
        Self(Kind::Tcp(socket))
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        either!(self, socket => uninterrupted(|| socket.read(buffer)))
    }

    fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        either!(self, socket => uninterrupted(|| socket.read_vectored(buffers)))
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        either!(self, socket => uninterrupted(|| socket.write(bytes)))
    }

    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        either!(self, socket => uninterrupted(|| socket.write_vectored(buffers)))
    }

    /// Nothing to do: written bytes are the kernel's.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn uninterrupted(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}
