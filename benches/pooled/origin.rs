//! The origin: 1 KiB for each request, and a count of what its connections began with.
//!
//! It knows no tunnel. Its threads wait in `accept` and serve the connection that they got: a thread
//! started for each connection would be charged to whoever opens many, and is the origin's affair.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread,
};

use rustls::{HandshakeKind, ServerConfig};

use crate::{
    USERS_MAX,
    common::{PATIENCE, Pattern, Wire, with_deadlines},
};

/// Bytes of a response's body.
pub const BODY_BYTES: usize = 1024;

/// Room for a request head, as siding or the bench writes it.
const HEAD_ROOM: usize = 4096;

/// The connections that may be open at a time: for each user the one that is kept, or the one in use
/// and those whose end is on its way.
const WORKERS: usize = 4 * USERS_MAX;

/// A listener and its threads, which end with the program.
pub struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that brought a request.
    pub connections: usize,
    /// Of these, how many began with a full TLS handshake.
    pub full: usize,
    /// And how many with that of a resumed session.
    pub resumed: usize,
    /// Requests answered.
    pub requests: usize,
}

struct Shared {
    tls: Option<Arc<ServerConfig>>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    counts: Counts,
    open: usize,
}

impl Origin {
    /// Serves on a free port of loopback, over TLS where there is a configuration for it.
    pub fn start(tls: Option<Arc<ServerConfig>>) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            tls,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        for _ in 0..WORKERS {
            let listener = listener.try_clone().expect("there are descriptors");
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    shared.state.lock().expect("no holder panics").open += 1;
                    // Who asked judges the answer; here an error is the end of the connection.
                    shared.serve(stream).ok();
                    shared.state.lock().expect("no holder panics").open -= 1;
                    shared.changed.notify_all();
                }
            });
        }
        Origin { address, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        self.shared.state.lock().expect("no holder panics").counts
    }

    /// Waits until no more than `count` connections are open, so that the end of one is not part of
    /// what is measured next.
    pub fn wait_for_open(&self, count: usize) {
        let state = self.shared.state.lock().expect("no holder panics");
        let (state, _) = self
            .shared
            .changed
            .wait_timeout_while(state, PATIENCE, |state| state.open > count)
            .expect("no holder panics");
        assert!(state.open <= count, "a connection was not closed");
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        with_deadlines(&stream);
        let mut wire = Wire::accept(stream, self.tls.as_ref());
        let mut head = [0; HEAD_ROOM];
        for served in 0.. {
            let Some(number) = read_request(&mut wire, &mut head)? else {
                break;
            };
            self.count(&mut wire, served == 0);
            let mut response = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n\
                 Content-Length: {BODY_BYTES}\r\n\r\n"
            )
            .into_bytes();
            response.extend(Pattern::bytes(number, BODY_BYTES));
            wire.write_all(&response)?;
        }
        Ok(())
    }

    fn count(&self, wire: &mut Wire, is_first: bool) {
        let handshake = wire.session().and_then(|session| session.handshake_kind());
        let counts = &mut self.state.lock().expect("no holder panics").counts;
        counts.requests += 1;
        if is_first {
            counts.connections += 1;
            match handshake {
                None => {}
                Some(HandshakeKind::Resumed) => counts.resumed += 1,
                // With a further round trip or not, it costs the same signatures.
                Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest) => {
                    counts.full += 1;
                }
            }
        }
    }
}

/// The number in a GET's target (`/17`), or `None` at the end of the connection.
fn read_request(wire: &mut Wire, head: &mut [u8]) -> io::Result<Option<u64>> {
    let mut held = 0;
    while !head[..held].ends_with(b"\r\n\r\n") {
        match wire.read(&mut head[held..])? {
            // Also where the head is larger than its room.
            0 if held == 0 => return Ok(None),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => held += count,
        }
    }
    let number = str::from_utf8(&head[..held])
        .ok()
        .and_then(|head| head.strip_prefix("GET /")?.split(' ').next()?.parse().ok());
    number.map(Some).ok_or(io::ErrorKind::InvalidData.into())
}
