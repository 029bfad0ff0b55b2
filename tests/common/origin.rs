//! Targets on threads: one thread accepts, one serves each connection.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use super::{PATIENCE, Pattern, eventually, expect_pattern, send_pattern, with_deadlines};

/// Enough for what a connection's thread does, little enough for thousands of them.
const STACK: usize = 256 * 1024;

/// Bytes of the request of a [`Origin::digest`]: a seed and the length of the reply.
const DIGEST_HEAD: usize = 16;

/// More than any reply is long: who asks for more has come by chance, to a port that was another's.
const DIGEST_MAX: u64 = 1 << 40;

/// A TCP target on 127.0.0.1.
pub struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    accepted: AtomicUsize,
    open: AtomicUsize,
    stopped: AtomicBool,
}

impl Origin {
    /// Serves every connection by `serve`, on a thread of its own; it ends when `serve` returns.
    pub fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        Self::on(listener(), serve)
    }

    /// As [`Origin::start`], on a listener that is there already.
    pub fn on(listener: TcpListener, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared::default());
        let serve = Arc::new(serve);
        let of_thread = Arc::clone(&shared);
        let accepting = thread::spawn(move || accept(&listener, &of_thread, &serve));
        Self {
            address,
            shared,
            accepting: Some(accepting),
        }
    }

    /// Sends back what comes, and its end.
    pub fn echo() -> Self {
        Self::start(|stream| {
            // A test that resets its stream, or is over, ends the copy; the user judges the bytes.
            io::copy(&mut &stream, &mut &stream).ok();
        })
    }

    /// Sends the first `length` bytes of `seed` to whoever connects, then closes.
    pub fn source(seed: u64, length: u64) -> Self {
        Self::start(move |stream| {
            send_pattern(&stream, seed, length).ok();
            drain_after(&stream);
        })
    }

    /// Reads a request to its *end*, checks it, and only then replies: see [`converse`].
    pub fn digest() -> Self {
        Self::start(|stream| {
            digest(&stream).ok();
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections it has accepted so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Connections that it serves now.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Waits until it serves `count` connections.
    pub fn wait_for_open(&self, count: usize) {
        eventually(&format!("the origin has {count} connections open"), || {
            (self.open() == count).then_some(())
        });
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which then sees that it is over.
        drop(TcpStream::connect_timeout(&self.address, PATIENCE));
        if let Some(accepting) = self.accepting.take() {
            accepting.join().ok();
        }
    }
}

/// A listener on any port of 127.0.0.1.
pub(super) fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("loopback has free ports")
}

/// One session with an [`Origin::digest`]: `up` bytes of `seed` and an end, then the whole answer.
///
/// # Errors
/// The stream's; `InvalidData` when either side saw other bytes than were sent.
pub fn converse(mut user: &TcpStream, seed: u64, up: u64, down: u64) -> io::Result<()> {
    user.write_all(&seed.to_be_bytes())?;
    user.write_all(&down.to_be_bytes())?;
    send_pattern(user, seed, up)?;
    user.shutdown(Shutdown::Write)?;
    digest_reply(user, seed, up, down)
}

/// Reads the answer of an [`Origin::digest`], to its end.
///
/// # Errors
/// As of [`converse`].
pub fn digest_reply(mut user: &TcpStream, seed: u64, up: u64, down: u64) -> io::Result<()> {
    let mut counted = [0; 8];
    user.read_exact(&mut counted)?;
    if u64::from_be_bytes(counted) != up {
        let message = format!("{up} bytes were sent, {counted:?} arrived in order");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    expect_pattern(user, !seed, down)?;
    match user.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "bytes after the end of the reply",
        )),
    }
}

/// Answers by the number of bytes that were as the seed says, then the reply's own stream.
fn digest(mut stream: &TcpStream) -> io::Result<()> {
    let mut head = [0; DIGEST_HEAD];
    stream.read_exact(&mut head)?;
    let (seed, down) = head.split_at(8);
    let seed = u64::from_be_bytes(seed.try_into().expect("half of sixteen bytes"));
    let down = u64::from_be_bytes(down.try_into().expect("half of sixteen bytes"));
    if down > DIGEST_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut pattern = Pattern::new(seed);
    let mut piece = vec![0; 16 * 1024];
    let mut expected = piece.clone();
    let mut in_order = 0;
    loop {
        let count = stream.read(&mut piece)?;
        if count == 0 {
            break;
        }
        pattern.fill(&mut expected[..count]);
        if piece[..count] != expected[..count] {
            in_order = u64::MAX;
            break;
        }
        in_order += count as u64;
    }
    stream.write_all(&in_order.to_be_bytes())?;
    send_pattern(stream, !seed, down)
}

/// Ends our half and waits for the other, so that closing cannot turn into a reset.
fn drain_after(mut stream: &TcpStream) {
    if stream.shutdown(Shutdown::Write).is_ok() {
        io::copy(&mut stream, &mut io::sink()).ok();
    }
}

fn accept<F>(listener: &TcpListener, shared: &Arc<Shared>, serve: &Arc<F>)
where
    F: Fn(TcpStream) + Send + Sync + 'static,
{
    for stream in listener.incoming() {
        if shared.stopped.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        with_deadlines(&stream);
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        shared.open.fetch_add(1, Ordering::SeqCst);
        let (of_thread, serve) = (Arc::clone(shared), Arc::clone(serve));
        thread::Builder::new()
            .stack_size(STACK)
            .spawn(move || {
                let _open = Open(of_thread);
                serve(stream);
            })
            .expect("the system has threads");
    }
}

/// Counts a connection as open until its thread is over, however that ends.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}
