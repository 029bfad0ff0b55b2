//! An HTTP proxy that knows CONNECT and whatever else a test has it do.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use super::{Origin, connect};

/// A proxy, and what it was asked.
pub struct ConnectProxy {
    origin: Origin,
    asked: Arc<Mutex<Vec<String>>>,
}

/// What a proxy does with a request.
pub enum Lead {
    /// Leads to this address, whatever was asked for, and says these bytes first.
    To(SocketAddr, Vec<u8>),
    /// Says these bytes, and closes.
    Say(Vec<u8>),
    /// Says nothing until the client has had enough.
    Nowhere,
}

impl Lead {
    /// Leads there as a proxy should.
    pub fn to(address: SocketAddr) -> Self {
        Lead::To(
            address,
            b"HTTP/1.1 200 Connection established\r\n\r\n".into(),
        )
    }

    /// Says this, and closes.
    pub fn say(text: &str) -> Self {
        Lead::Say(text.as_bytes().to_vec())
    }
}

impl ConnectProxy {
    /// Does with each request head what `lead` says.
    pub fn start(lead: impl Fn(&str) -> Lead + Send + Sync + 'static) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&asked);
        let origin = Origin::start(move |mut stream| {
            let Ok(head) = read_head(&mut stream) else {
                return;
            };
            let lead = lead(&head);
            all.lock().expect("no holder panics").push(head);
            // The test judges what came of a connection that failed.
            match lead {
                Lead::To(address, first) => drop(relay(&stream, address, &first)),
                Lead::Say(bytes) => drop(stream.write_all(&bytes)),
                Lead::Nowhere => drop(io::copy(&mut stream, &mut io::sink())),
            }
        });
        Self { origin, asked }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.origin.address())
    }

    /// Its URL, for this user and password.
    pub fn url_for(&self, userinfo: &str) -> String {
        format!("http://{userinfo}@{}", self.origin.address())
    }

    /// The heads of all requests so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no holder panics").clone()
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.origin.accepted()
    }
}

fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    String::from_utf8(head).map_err(io::Error::other)
}

fn relay(mut near: &TcpStream, address: SocketAddr, first: &[u8]) -> io::Result<()> {
    let far = connect(address);
    // Links are silent for longer than a test has patience.
    for stream in [near, &far] {
        stream.set_read_timeout(None)?;
    }
    near.write_all(first)?;
    thread::scope(|scope| {
        scope.spawn(|| {
            io::copy(&mut &far, &mut &*near).ok();
            near.shutdown(Shutdown::Write).ok();
        });
        io::copy(&mut &*near, &mut &far).ok();
        far.shutdown(Shutdown::Write)
    })
}
