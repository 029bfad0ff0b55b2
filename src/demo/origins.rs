//! What there is to reach in the demo: an HTTP origin and a TCP echo, on any free ports.
//!
//! A role like the others, on an event loop of its own: the client dials it through real sockets and
//! cannot tell it from a stranger's. Owns the listeners and the connections; what a connection says is
//! in `http` and `echo`.
//!
//! Invariants: a connection holds at most one head or [`SCRATCH`] bytes; one on which no byte moves is
//! closed after [`IDLE`]; there are at most [`CONNECTIONS_MAX`].

mod echo;
mod http;

use std::{io, net::SocketAddr, time::Duration};

use log::{debug, warn};
use slab::Slab;

use self::{echo::Echo, http::Visit};
use super::{
    LOOPBACK,
    part::{Started, event_loop, loop_failed},
};
use crate::{
    clock::Now,
    key::Key,
    reactor::{
        Accepted, Deadline, Flushed, Found, Reactor, Role,
        net::{Net, Purpose},
    },
};

/// Where the origins listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Addresses {
    pub http: SocketAddr,
    pub echo: SocketAddr,
}

/// The origins' label of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Listener(Service),
    Connection(u32),
}

/// What is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    Http,
    Echo,
}

/// Both origins.
pub(super) struct Origins {
    connections: Slab<Connection>,
    /// HTTP connections so far: their numbers.
    visits: u64,
    scratch: Box<[u8]>,
    over: bool,
}

/// One connection.
enum Connection {
    Http(Visit),
    Echo(Echo),
}

/// What becomes of a connection after it was driven as far as it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
enum Next {
    /// Its next event goes on.
    Wait,
    /// It had its share of this turn.
    Again,
    /// Both sides have said all.
    Close,
    /// We have said all, and do not care for what the peer still says.
    Linger,
    /// The peer is gone, or has broken off.
    Abort,
}

impl Origins {
    /// The thread of the origins.
    pub fn serve(started: Started<Addresses>) -> Result<(), String> {
        let (mut reactor, stopper) = event_loop()?;
        let (mut origins, addresses) = Origins::open(&mut reactor)
            .map_err(|error| format!("cannot listen on {LOOPBACK}: {error}"))?;
        started.tell(stopper, addresses);
        reactor.run(&mut origins).map_err(loop_failed)
    }

    /// Opens the listeners.
    fn open<N: Net>(io: &mut Reactor<N, Owner>) -> io::Result<(Origins, Addresses)> {
        let mut listen = |service| {
            let any = SocketAddr::new(LOOPBACK, 0);
            let (_, address) = io.listen(any, Owner::Listener(service))?;
            Ok::<_, io::Error>(address)
        };
        let addresses = Addresses {
            http: listen(Service::Http)?,
            echo: listen(Service::Echo)?,
        };
        let origins = Origins {
            connections: Slab::new(),
            visits: 0,
            scratch: vec![0; SCRATCH].into(),
            over: false,
        };
        Ok((origins, addresses))
    }

    fn accept<N: Net>(&mut self, io: &mut Reactor<N, Owner>, listener: Key, service: Service) {
        while io.takes_another(listener) {
            match io.accept(listener, Purpose::User, Owner::Listener(service)) {
                Accepted::Connection(key, _) => self.accepted(io, key, service),
                Accepted::Empty => return,
                Accepted::Starved => return warn!("out of descriptors: accepting pauses"),
            }
        }
    }

    fn accepted<N: Net>(&mut self, io: &mut Reactor<N, Owner>, key: Key, service: Service) {
        if self.connections.len() >= CONNECTIONS_MAX {
            warn!("{CONNECTIONS_MAX} connections are open: a new one is refused");
            return io.close(key);
        }
        let connection = match service {
            Service::Http => {
                self.visits += 1;
                Connection::Http(Visit::new(self.visits))
            }
            Service::Echo => Connection::Echo(Echo::default()),
        };
        let index = self.connections.insert(connection) as u32;
        io.set_owner(key, Owner::Connection(index));
        io.set_deadline(key, Deadline::idle(IDLE));
    }

    fn go_on<N: Net>(&mut self, io: &mut Reactor<N, Owner>, key: Key, index: u32) {
        let next = match self.connections.get_mut(index as usize) {
            None => return,
            Some(_) if io.is_failed(key) => Next::Abort,
            Some(Connection::Http(visit)) => visit.go_on(io, key, &mut self.scratch),
            Some(Connection::Echo(echo)) => echo.go_on(io, key, &mut self.scratch),
        };
        match next {
            Next::Wait => return,
            Next::Again => return io.again(key),
            Next::Close => io.close(key),
            Next::Linger => io.linger(key, LINGER),
            Next::Abort => io.abort(key),
        }
        self.connections.remove(index as usize);
    }
}

impl<N: Net> Role<N> for Origins {
    type Owner = Owner;

    fn ready(&mut self, io: &mut Reactor<N, Owner>, key: Key, owner: Owner, _: Now) {
        match owner {
            Owner::Listener(service) => self.accept(io, key, service),
            Owner::Connection(index) => self.go_on(io, key, index),
        }
    }

    fn timeout(&mut self, io: &mut Reactor<N, Owner>, key: Key, owner: Owner, _: Now) {
        if let Owner::Connection(index) = owner
            && let Some(connection) = self.connections.try_remove(index as usize)
        {
            debug!("origin: idle connection closed");
            if connection.is_at_rest() {
                io.close(key);
            } else {
                io.abort(key);
            }
        }
    }

    fn resolved(&mut self, _: &mut Reactor<N, Owner>, _: &str, _: &Found, _: Now) {
        // Origins dial nobody.
    }

    fn stop(&mut self, _: &mut Reactor<N, Owner>, _: Now) {
        self.over = true;
    }

    fn reload(&mut self, _: &mut Reactor<N, Owner>, _: Now) {
        // Nothing was read from a file.
    }

    fn flush(&mut self, _: &mut Reactor<N, Owner>, _: Now) -> Flushed {
        Flushed::Idle
    }

    fn is_over(&self) -> bool {
        self.over
    }
}

impl Connection {
    /// Whether it owes its peer nothing.
    fn is_at_rest(&self) -> bool {
        match self {
            Connection::Http(visit) => visit.is_at_rest(),
            Connection::Echo(echo) => echo.is_at_rest(),
        }
    }
}

/// One read or write.
const SCRATCH: usize = 16 * 1024;

/// Reads and writes of one connection in a turn while others wait: 256 KiB.
const STEPS_PER_TURN_MAX: usize = 16;

/// More than a person tries at once, and below a common limit of descriptors, of which each of these
/// costs the process four: the user's, the client's, this one and a share of the rest.
const CONNECTIONS_MAX: usize = 1000;

/// A minute without a byte, as common origins grant; the client parks for half of it.
const IDLE: Duration = Duration::from_secs(60);

/// A few round trips: what the server itself grants.
const LINGER: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
