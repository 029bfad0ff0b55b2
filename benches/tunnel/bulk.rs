//! Streams that are open for long: the origin that sends, takes and echoes, and the users who move
//! as much as they can. A thread each, with blocking calls: nothing costs less per byte.
//!
//! A user begins by a header that says what it wants and which stream it is; what follows is that
//! stream, and each end compares what it receives.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use crate::{
    common::{self, Origin},
    payload::{self, PIECE, at, check},
};

/// What a user wants of the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Want {
    /// The stream of its seed, without end.
    Download = b'D',
    /// To send the stream of its seed.
    Upload = b'U',
    /// To send it, which the origin does not read before [`BulkOrigin::release`].
    HeldUpload = b'H',
    /// Each byte back.
    Echo = b'E',
}

/// Bytes of the header: the want and the seed.
const HEADER: usize = 9;

/// The origin of all of them.
pub struct BulkOrigin {
    origin: Origin,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Bytes of uploads that have arrived and are right.
    received: AtomicU64,
    is_released: Mutex<bool>,
    released: Condvar,
    /// The first wrong byte of an upload.
    wrong: Mutex<Option<io::Error>>,
}

/// Users who move bytes until they are told to end.
pub struct Users {
    threads: Vec<JoinHandle<io::Result<()>>>,
    streams: Vec<TcpStream>,
    shared: Arc<Moving>,
}

#[derive(Default)]
struct Moving {
    /// Bytes that have arrived and are right (downloads), or were written (uploads).
    moved: AtomicU64,
    is_over: AtomicBool,
}

impl BulkOrigin {
    /// Serves on a free port of loopback.
    pub fn start() -> BulkOrigin {
        let shared = Arc::new(Shared::default());
        let of_origin = Arc::clone(&shared);
        let origin = Origin::start(move |stream| {
            // Who asked judges what it received, and an upload's error is looked for by kind.
            if let Err(error) = of_origin.serve(&stream)
                && error.kind() == io::ErrorKind::InvalidData
            {
                *of_origin.wrong.lock().expect("no holder panics") = Some(error);
                stream.shutdown(Shutdown::Both).ok();
            }
        });
        BulkOrigin { origin, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.origin.address()
    }

    /// Bytes of uploads that have arrived so far.
    ///
    /// # Errors
    /// One of them was wrong.
    pub fn received(&self) -> io::Result<u64> {
        match self.shared.wrong.lock().expect("no holder panics").take() {
            Some(error) => Err(error),
            None => Ok(self.shared.received.load(Ordering::Relaxed)),
        }
    }

    /// Begins to read the held uploads.
    pub fn release(&self) {
        *self.shared.is_released.lock().expect("no holder panics") = true;
        self.shared.released.notify_all();
    }
}

impl Drop for BulkOrigin {
    fn drop(&mut self) {
        // Nobody waits for what will not come any more.
        self.release();
    }
}

impl Shared {
    fn serve(&self, mut stream: &TcpStream) -> io::Result<()> {
        let mut header = [0; HEADER];
        stream.read_exact(&mut header)?;
        let [want, seed @ ..] = header;
        let seed = u64::from_le_bytes(seed);
        match want {
            b'D' => send(stream, seed, &AtomicU64::new(0)),
            b'U' => self.take(stream, seed),
            b'H' => {
                let is_released = self.is_released.lock().expect("no holder panics");
                let wait = self.released.wait_while(is_released, |released| !*released);
                drop(wait.expect("no holder panics"));
                self.take(stream, seed)
            }
            b'E' => echo(stream),
            _ => Err(payload::wrong(format!("a header that begins by {want}"))),
        }
    }

    fn take(&self, stream: &TcpStream, seed: u64) -> io::Result<()> {
        receive(stream, seed, u64::MAX, &self.received)
    }
}

impl Users {
    /// Connects users with the seeds 1, 2, 3… who all want the same.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn start(address: SocketAddr, want: Want, count: u64) -> io::Result<Users> {
        let mut users = Users {
            threads: Vec::new(),
            streams: Vec::new(),
            shared: Arc::default(),
        };
        for seed in 1..=count {
            let stream = ask(address, want, seed)?;
            users.streams.push(stream.try_clone()?);
            let shared = Arc::clone(&users.shared);
            users.threads.push(thread::spawn(move || {
                let moved = match want {
                    Want::Download => receive(&stream, seed, u64::MAX, &shared.moved),
                    _ => send(&stream, seed, &shared.moved),
                };
                match moved {
                    Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(error),
                    // However it ends once it may.
                    _ if shared.is_over.load(Ordering::SeqCst) => Ok(()),
                    Ok(()) => Err(io::ErrorKind::UnexpectedEof.into()),
                    Err(error) => Err(error),
                }
            }));
        }
        Ok(users)
    }

    /// Bytes moved so far.
    pub fn moved(&self) -> u64 {
        self.shared.moved.load(Ordering::Relaxed)
    }

    /// Ends them all.
    ///
    /// # Errors
    /// A byte was wrong, or a stream has ended before.
    pub fn finish(self) -> io::Result<()> {
        self.shared.is_over.store(true, Ordering::SeqCst);
        for stream in &self.streams {
            // It may have ended on its own, which its thread says.
            stream.shutdown(Shutdown::Both).ok();
        }
        for thread in self.threads {
            thread.join().expect("a user does not panic")?;
        }
        Ok(())
    }
}

/// Connects a user and says what it wants.
///
/// # Errors
/// Nobody listens.
pub fn ask(address: SocketAddr, want: Want, seed: u64) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, common::PATIENCE)?;
    common::with_deadlines(&stream);
    let mut header = [want as u8; HEADER];
    header[1..].copy_from_slice(&seed.to_le_bytes());
    stream.write_all(&header)?;
    Ok(stream)
}

/// Receives up to `limit` bytes of the stream of `seed`, or what comes until its end, and counts what
/// is right.
///
/// # Errors
/// The stream's own, and `InvalidData` for a byte that is wrong.
pub fn receive(
    mut stream: &TcpStream,
    seed: u64,
    limit: u64,
    received: &AtomicU64,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    let mut offset = 0;
    while offset < limit {
        let count = stream.read(&mut piece)?;
        if count == 0 {
            break;
        }
        check(seed, offset, &piece[..count])?;
        offset += count as u64;
        received.fetch_add(count as u64, Ordering::Relaxed);
    }
    Ok(())
}

fn send(mut stream: &TcpStream, seed: u64, sent: &AtomicU64) -> io::Result<()> {
    let mut offset = 0;
    loop {
        let count = stream.write(at(seed, offset, PIECE))?;
        offset += count as u64;
        sent.fetch_add(count as u64, Ordering::Relaxed);
    }
}

fn echo(mut stream: &TcpStream) -> io::Result<()> {
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece)? {
            0 => return Ok(()),
            count => stream.write_all(&piece[..count])?,
        }
    }
}
