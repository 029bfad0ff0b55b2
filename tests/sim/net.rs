//! [`Net`] on the simulated network: what the reactor of one host sees of the world.

use std::{
    cell::{Cell, RefCell, RefMut},
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr},
    ops::{Deref, DerefMut},
    rc::Rc,
    time::Duration,
};

use siding::{
    clock::Now,
    key::Key,
    reactor::net::{Address, Event, NameClass, Net, Peer, Purpose},
};

use crate::{
    heap::{Charge, Payer},
    world::{EndId, HostId, Watcher, World},
};

/// The world as one host sees it.
pub struct SimNet {
    pub world: Rc<RefCell<World>>,
    /// Which one, for as long as its process has its place.
    pub host: Rc<Cell<HostId>>,
    /// Where its connections come from.
    pub address: IpAddr,
}

/// One end of a pipe; dropped, it is closed.
pub struct SimStream {
    world: Rc<RefCell<World>>,
    host: Rc<Cell<HostId>>,
    end: EndId,
}

pub struct SimListener {
    world: Rc<RefCell<World>>,
    host: Rc<Cell<HostId>>,
    address: SocketAddr,
}

/// The world, which pays for what it allocates itself.
struct Entered<'a> {
    world: RefMut<'a, World>,
    _charge: Charge,
}

fn enter(world: &RefCell<World>) -> Entered<'_> {
    Entered {
        world: world.borrow_mut(),
        _charge: Charge::to(Payer::World),
    }
}

impl Deref for Entered<'_> {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl DerefMut for Entered<'_> {
    fn deref_mut(&mut self) -> &mut World {
        &mut self.world
    }
}

impl SimNet {
    fn stream(&self, end: EndId) -> SimStream {
        SimStream {
            world: Rc::clone(&self.world),
            host: Rc::clone(&self.host),
            end,
        }
    }
}

impl Net for SimNet {
    type Stream = SimStream;
    type Listener = SimListener;

    fn now(&mut self) -> Now {
        let mut world = enter(&self.world);
        world.hosts[self.host.get()].clock = world.elapsed();
        world.clocks()
    }

    fn random(&mut self, bytes: &mut [u8]) {
        let mut world = enter(&self.world);
        bytes.fill_with(|| world.rng.next() as u8);
    }

    fn listen(&mut self, address: SocketAddr, key: Key) -> io::Result<SimListener> {
        let watcher = Watcher::Reactor {
            host: self.host.get(),
            index: key.index,
        };
        let mut world = enter(&self.world);
        let address = world.listen(address, watcher)?;
        world.hosts[self.host.get()].descriptors += 1;
        Ok(SimListener {
            address,
            host: Rc::clone(&self.host),
            world: Rc::clone(&self.world),
        })
    }

    fn local_address(&self, listener: &SimListener) -> io::Result<SocketAddr> {
        Ok(listener.address)
    }

    fn near_address(&self, stream: &SimStream) -> io::Result<SocketAddr> {
        Ok(enter(&self.world).local(stream.end))
    }

    fn accept(&mut self, listener: &mut SimListener) -> io::Result<(SimStream, SocketAddr)> {
        let mut world = enter(&self.world);
        world.descriptor(self.host.get())?;
        let accepted = world.accept(listener.address);
        world.hosts[self.host.get()].descriptors -= usize::from(accepted.is_err());
        world.hosts[self.host.get()].moved += u64::from(accepted.is_ok());
        drop(world);
        let (end, from) = accepted?;
        Ok((self.stream(end), from))
    }

    fn connect(&mut self, address: Address<'_>, purpose: Purpose) -> io::Result<SimStream> {
        let Address::Inet(address) = address else {
            // This network is made of addresses and ports; unix sockets are the real kernel's.
            return Err(io::ErrorKind::Unsupported.into());
        };
        let mut world = enter(&self.world);
        world.descriptor(self.host.get())?;
        let dialled = world.dial(address, self.address);
        world.hosts[self.host.get()].descriptors -= usize::from(dialled.is_err());
        drop(world);
        let mut stream = self.stream(dialled?);
        if purpose == Purpose::Link {
            self.prefer_latency(&mut stream);
        }
        Ok(stream)
    }

    fn connected(&mut self, stream: &mut SimStream) -> io::Result<Option<Peer>> {
        let peer = enter(&self.world).connected(stream.end)?;
        Ok(peer.map(Peer::Inet))
    }

    fn register(&mut self, stream: &mut SimStream, key: Key) -> io::Result<()> {
        let watcher = Watcher::Reactor {
            host: self.host.get(),
            index: key.index,
        };
        enter(&self.world).watch(stream.end, watcher);
        Ok(())
    }

    fn deregister(&mut self, stream: &mut SimStream) {
        enter(&self.world).watch(stream.end, Watcher::Nobody);
    }

    fn prefer_latency(&mut self, stream: &mut SimStream) {
        enter(&self.world).prefer_latency(stream.end);
    }

    fn acknowledge(&mut self, _stream: &mut SimStream) {
        // No sender of this network waits for it.
    }

    fn shutdown(&mut self, stream: &mut SimStream) -> io::Result<()> {
        enter(&self.world).shutdown(stream.end)
    }

    fn abort(&mut self, stream: &mut SimStream) {
        enter(&self.world).abort(stream.end);
    }

    fn take_error(&mut self, stream: &mut SimStream) -> Option<io::Error> {
        enter(&self.world).take_error(stream.end)
    }

    fn peek(&mut self, stream: &mut SimStream) -> io::Result<usize> {
        enter(&self.world).peek(stream.end)
    }

    fn resolve(&mut self, name: &str, _: NameClass) {
        enter(&self.world).resolve(self.host.get(), name);
    }

    fn poll(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        enter(&self.world).poll(self.host.get(), events, timeout);
        Ok(())
    }
}

impl Read for SimStream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        assert!(!into.is_empty(), "nothing is read into an empty slice");
        enter(&self.world).read(self.end, into)
    }
}

impl Write for SimStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        enter(&self.world).write(self.end, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        let mut world = enter(&self.world);
        world.hosts[self.host.get()].descriptors -= 1;
        world.close(self.end);
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let mut world = enter(&self.world);
        world.hosts[self.host.get()].descriptors -= 1;
        world.unlisten(self.address);
    }
}
