//! Who is met where a peer was expected: at the server somebody who is no client, and where the server
//! was looked for somebody who is no server. They speak no protocol of siding's; they have its ports.
//!
//! And who keeps a rogue's link busy, on which anything may become of their bytes.

use std::{io::ErrorKind, net::SocketAddr, time::Duration};

use crate::{
    rng::Rng,
    sim::{Actor, USERS},
    world::{ActorId, EndId, Watcher, World},
};

/// What a stranger does.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// Says nothing, for ever.
    Mute,
    /// Any bytes.
    Noise,
    /// Says what begins a link, and then any bytes.
    Upgrades,
    /// Leaves at once.
    Leaves,
    /// As that, by a reset.
    Resets,
}

/// A connection of a stranger.
#[derive(Debug)]
struct Connection {
    end: EndId,
    manner: Manner,
    out: Vec<u8>,
}

/// Somebody who is no client.
#[derive(Debug)]
pub struct Stranger {
    server: SocketAddr,
    connection: Option<Connection>,
    done: bool,
}

/// Somebody who is no server.
#[derive(Debug)]
pub struct Impostor {
    address: SocketAddr,
    connections: Vec<Connection>,
}

impl Connection {
    fn new(end: EndId, opening: &str, rng: &mut Rng) -> Connection {
        let manner = rng.pick(&[
            Manner::Mute,
            Manner::Noise,
            Manner::Upgrades,
            Manner::Leaves,
            Manner::Resets,
        ]);
        let mut out = match manner {
            Manner::Upgrades => opening.as_bytes().to_vec(),
            Manner::Mute | Manner::Noise | Manner::Leaves | Manner::Resets => Vec::new(),
        };
        if matches!(manner, Manner::Noise | Manner::Upgrades) {
            let length = rng.between(1, 20_000);
            let noise = (0..length).map(|_| rng.next() as u8);
            out.extend(noise);
        }
        Connection { end, manner, out }
    }

    /// Whether it goes on.
    fn step(&mut self, world: &mut World) -> bool {
        match self.manner {
            Manner::Leaves => return false,
            Manner::Resets => {
                world.abort(self.end);
                return false;
            }
            Manner::Mute | Manner::Noise | Manner::Upgrades => {}
        }
        let goes_on = |error: ErrorKind| error == ErrorKind::WouldBlock;
        if !self.out.is_empty() {
            match world.write(self.end, &self.out) {
                Ok(written) => drop(self.out.drain(..written)),
                Err(error) if goes_on(error.kind()) => {}
                Err(_) => return false,
            }
        }
        match world.read(self.end, &mut [0; 4096]) {
            Ok(read) => read > 0,
            Err(error) => goes_on(error.kind()),
        }
    }
}

impl Stranger {
    pub fn new(server: SocketAddr) -> Stranger {
        Stranger {
            server,
            connection: None,
            done: false,
        }
    }
}

impl Actor for Stranger {
    fn step(&mut self, world: &mut World, me: ActorId) {
        if self.done {
            return;
        }
        let connection = self.connection.get_or_insert_with(|| {
            let end = world.connect(self.server, USERS);
            world.watch(end, Watcher::Actor(me));
            Connection::new(end, ASKS, &mut world.rng)
        });
        if world.is_connecting(connection.end) {
            return;
        }
        if connection.step(world) {
            // The server has a deadline; whatever it does is looked at now and then.
            world.wake(me, Duration::from_secs(1));
        } else {
            world.close(connection.end);
            self.done = true;
        }
    }

    fn is_done(&self) -> bool {
        self.done
    }
}

impl Impostor {
    pub fn new(address: SocketAddr, me: ActorId, world: &mut World) -> Impostor {
        world
            .listen(address, Watcher::Actor(me))
            .expect("the impostor's address is free");
        world.impostor = Some(address.ip());
        Impostor {
            address,
            connections: Vec::new(),
        }
    }
}

impl Actor for Impostor {
    fn step(&mut self, world: &mut World, me: ActorId) {
        while let Ok((end, _)) = world.accept(self.address) {
            world.watch(end, Watcher::Actor(me));
            self.connections
                .push(Connection::new(end, AGREES, &mut world.rng));
        }
        self.connections.retain_mut(|connection| {
            let goes_on = connection.step(world);
            if !goes_on {
                world.close(connection.end);
            }
            goes_on
        });
        if !self.connections.is_empty() {
            world.wake(me, Duration::from_secs(1));
        }
    }

    fn is_done(&self) -> bool {
        self.connections.is_empty()
    }
}

/// Somebody who sends bytes for a while, and takes whatever comes.
#[derive(Debug)]
pub struct Careless {
    proxy: SocketAddr,
    end: Option<EndId>,
    left: usize,
    until: Duration,
    /// When it looks again, whatever happens.
    looks: Duration,
    done: bool,
}

impl Careless {
    pub fn new(proxy: SocketAddr, until: Duration, rng: &mut Rng) -> Careless {
        Careless {
            proxy,
            end: None,
            left: rng.size(300_000),
            until,
            looks: Duration::ZERO,
            done: false,
        }
    }
}

impl Actor for Careless {
    fn step(&mut self, world: &mut World, me: ActorId) {
        if self.done {
            return;
        }
        let end = *self.end.get_or_insert_with(|| {
            let end = world.connect(self.proxy, USERS);
            world.watch(end, Watcher::Actor(me));
            end
        });
        if world.is_connecting(end) {
            return;
        }
        let read = world.read(end, &mut [0; 4096]);
        let goes_on = match read {
            Ok(read) => read > 0,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        };
        if self.left > 0 {
            let piece = vec![self.left as u8; world.rng.between(1, self.left.min(10_000))];
            if let Ok(written) = world.write(end, &piece) {
                self.left -= written;
            }
        }
        let now = world.elapsed();
        if goes_on && now < self.until {
            if now >= self.looks {
                self.looks = now + LOOKS_AFTER;
                world.wake(me, LOOKS_AFTER);
            }
            return;
        }
        if world.rng.chance(50) {
            world.abort(end);
        }
        world.close(end);
        self.done = true;
    }

    fn is_done(&self) -> bool {
        self.done
    }
}

/// Says what it hears.
#[derive(Debug)]
pub struct Parrot {
    address: SocketAddr,
    ends: Vec<EndId>,
}

impl Parrot {
    pub fn new(address: SocketAddr, me: ActorId, world: &mut World) -> Parrot {
        world
            .listen(address, Watcher::Actor(me))
            .expect("the parrot's address is free");
        Parrot {
            address,
            ends: Vec::new(),
        }
    }
}

impl Actor for Parrot {
    fn step(&mut self, world: &mut World, me: ActorId) {
        while let Ok((end, _)) = world.accept(self.address) {
            world.watch(end, Watcher::Actor(me));
            self.ends.push(end);
        }
        self.ends.retain(|end| {
            let mut piece = [0; 4096];
            let read = world.read(*end, &mut piece);
            match read {
                Ok(read) if read > 0 => {
                    // What does not fit is not missed.
                    let _ = world.write(*end, &piece[..read]);
                    world.woken.insert(me);
                    true
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => true,
                _ => {
                    world.close(*end);
                    false
                }
            }
        });
    }

    fn is_done(&self) -> bool {
        // Its connections end with those who talk to it.
        true
    }
}

const LOOKS_AFTER: Duration = Duration::from_millis(10);

/// As RFC 6455 has it, with its example of a key.
const ASKS: &str = "GET / HTTP/1.1\r\nHost: edge.test:7000\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: siding.1\r\n\r\n";

/// The answer to that example.
const AGREES: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: siding.1\r\n\r\n";
