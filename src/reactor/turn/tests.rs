use std::{
    collections::HashSet,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    time::Instant,
};

use super::*;
use crate::reactor::{Accepted, mio_net::MioNet, net::Purpose};

/// Far more than loopback needs: a test that meets it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Wants nothing of anybody.
#[derive(Default)]
struct Still {
    /// Of streams and timers.
    events: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Entry {
    Listener,
    Stream,
    Timer,
}

impl Role<MioNet> for Still {
    type Owner = Entry;

    fn ready(&mut self, _: &mut Reactor<MioNet, Entry>, _: Key, owner: Entry, _: Now) {
        self.events += usize::from(owner != Entry::Listener);
    }

    fn timeout(&mut self, _: &mut Reactor<MioNet, Entry>, _: Key, _: Entry, _: Now) {
        unreachable!("all deadlines are of closed timers");
    }

    fn resolved(&mut self, _: &mut Reactor<MioNet, Entry>, _: &str, _: &Found, _: Now) {}

    fn stop(&mut self, _: &mut Reactor<MioNet, Entry>, _: Now) {}

    fn reload(&mut self, _: &mut Reactor<MioNet, Entry>, _: Now) {}

    fn flush(&mut self, _: &mut Reactor<MioNet, Entry>, _: Now) -> Flushed {
        Flushed::Idle
    }

    fn is_over(&self) -> bool {
        false
    }
}

fn reactor() -> Reactor<MioNet, Entry> {
    Reactor::new(MioNet::new().expect("a selector"))
}

/// So many connections to a listener of the reactor, as it sees them, and as their users do.
fn connections(io: &mut Reactor<MioNet, Entry>, count: usize) -> (Vec<Key>, Vec<TcpStream>) {
    let (listener, address) = io
        .listen((Ipv4Addr::LOCALHOST, 0).into(), Entry::Listener)
        .expect("a port of the system's choice");
    let connect = |_| {
        let user = TcpStream::connect(address).expect("it listens");
        user.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let Accepted::Connection(key, _) = io.accept(listener, Purpose::User, Entry::Stream) else {
            panic!("the connection was made");
        };
        (key, user)
    };
    (0..count).map(connect).unzip()
}

#[test]
fn a_burst_of_closed_connections_takes_turns_and_leaves_its_slots_at_once() {
    let io = &mut reactor();
    let (keys, users) = connections(io, 200);
    let others = io.len() - keys.len();
    for key in &keys {
        io.close(*key);
        io.close(*key);
    }
    // What users say to a connection that is over is heard by nobody, least of all the next in its slot.
    for user in &users[100..] {
        (&*user).write_all(b"hello").expect("its end is open");
    }
    let mut left = keys.len();
    while left > 0 {
        // It would sleep for ever, if it slept.
        let flushed = io
            .turn(&mut Still::default(), Flushed::Idle)
            .expect("a turn");
        assert_eq!(flushed, Flushed::Idle);
        assert_eq!(io.len(), others, "all slots are vacant");
        assert_eq!(io.unclosed(), left - CLOSES_MIN.min(left));
        left = io.unclosed();
        io.check_invariants();
    }
    for user in &users {
        let ended = (&*user).read(&mut [0]);
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
        let kind = ended.err().map(|error| error.kind());
        assert!(
            matches!(kind, None | Some(ErrorKind::ConnectionReset)),
            "{kind:?}"
        );
    }
}

#[test]
fn no_event_of_a_closed_connection_reaches_the_next_in_its_slot() {
    let io = &mut reactor();
    let (keys, users) = connections(io, 100);
    for key in &keys {
        io.close(*key);
    }
    let still = &mut Still::default();
    let _ = io.turn(still, Flushed::Idle).expect("a turn");
    assert!(io.unclosed() > 0);
    let late = Deadline::At(Instant::now() + PATIENCE);
    let new: Vec<Key> = (0..100).map(|_| io.timer(Entry::Timer, late)).collect();
    let slots = |keys: &[Key]| keys.iter().map(|key| key.index).collect::<HashSet<_>>();
    assert_eq!(slots(&new), slots(&keys));
    for user in &users {
        (&*user).write_all(b"hello").ok();
    }
    while io.unclosed() > 0 {
        let _ = io.turn(still, Flushed::Idle).expect("a turn");
    }
    assert_eq!(still.events, 0);
}

#[test]
fn the_port_of_a_closed_listener_is_free_before_its_slot_is() {
    let io = &mut reactor();
    let (key, address) = io
        .listen((Ipv4Addr::LOCALHOST, 0).into(), Entry::Listener)
        .expect("a port of the system's choice");
    io.close(key);
    TcpListener::bind(address).expect("nobody else has it");
    let (key, again) = io
        .listen(address, Entry::Listener)
        .expect("nobody else has it");
    assert_eq!(again, address);
    assert_eq!(io.owner(key), Some(Entry::Listener));
}
