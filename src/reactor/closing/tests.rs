use std::{
    collections::HashSet,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use super::*;
use crate::{
    clock::Now,
    reactor::{
        Accepted, Deadline, Flushed, Found, Role,
        mio_net::MioNet,
        net::{Address, Descriptors, Purpose},
        turn::DISCARDS_MAX,
    },
};

/// Far more than loopback needs: a test that meets it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Wants nothing of anybody.
#[derive(Default)]
struct Still {
    /// Of streams and timers.
    events: usize,
    parted: usize,
    is_over: bool,
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

    fn parted(&mut self, owner: Entry) {
        assert_eq!(owner, Entry::Stream);
        self.parted += 1;
    }

    fn stop(&mut self, _: &mut Reactor<MioNet, Entry>, _: Now) {}

    fn reload(&mut self, _: &mut Reactor<MioNet, Entry>, _: Now) {}

    fn flush(&mut self, _: &mut Reactor<MioNet, Entry>, _: Now) -> Flushed {
        Flushed::Idle
    }

    fn is_over(&self) -> bool {
        self.is_over
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
fn what_nobody_wants_is_read_in_turns_from_one_as_from_the_other() {
    const COUNT: usize = 100;
    let io = &mut reactor();
    let (keys, users) = connections(io, COUNT);
    for user in &users {
        (&*user)
            .write_all(&[0; 40 << 10])
            .expect("the kernel keeps it");
    }
    for key in &keys {
        io.linger(*key, PATIENCE);
    }
    // Three reads have something of each, and one nothing; a late event may ask for one more.
    let (least, most) = (COUNT * 3 / DISCARDS_MAX, COUNT * 8 / DISCARDS_MAX);
    let mut turns = 0;
    while turns < least || !io.again.is_empty() {
        let _ = io
            .turn(&mut Still::default(), Flushed::Idle)
            .expect("a turn");
        turns += 1;
        assert!(turns > least || !io.again.is_empty(), "too much in {turns}");
        assert!(turns < most, "somebody is passed over again and again");
    }
    drop(users);
    while io.lingering() + io.unclosed() > 0 {
        let _ = io
            .turn(&mut Still::default(), Flushed::Idle)
            .expect("a turn");
    }
    io.check_invariants();
}

#[test]
fn whose_connection_lingers_is_told_when_it_is_closed_and_once() {
    let io = &mut reactor();
    let (keys, mut users) = connections(io, 4);
    io.close(keys[3]);
    for key in &keys[..3] {
        io.farewell(*key, b"bye", PATIENCE);
        io.linger(*key, PATIENCE);
    }
    let still = &mut Still::default();
    let _ = io.turn(still, Flushed::More).expect("a turn");
    assert_eq!((still.parted, io.lingering()), (0, 3));
    io.part_now(keys[0]);
    io.part_now(keys[0]);
    let _ = io.turn(still, Flushed::More).expect("a turn");
    assert_eq!((still.parted, io.lingering()), (1, 2));
    users.remove(1);
    while io.lingering() > 1 {
        let _ = io.turn(still, Flushed::Idle).expect("a turn");
    }
    assert_eq!(still.parted, 2);
    io.part_from_all();
    let _ = io.turn(still, Flushed::More).expect("a turn");
    assert_eq!((still.parted, io.lingering()), (3, 0));
    for mut user in users {
        let mut said = Vec::new();
        user.read_to_end(&mut said).expect("an end");
        assert!(matches!(&said[..], b"bye" | b""), "{said:?}");
    }
    io.check_invariants();
}

#[test]
fn who_is_closed_alone_does_not_wait_behind_a_burst() {
    let io = &mut reactor();
    let (keys, users) = connections(io, 200);
    for key in &keys[1..] {
        io.close(*key);
    }
    let still = &mut Still::default();
    let _ = io.turn(still, Flushed::Idle).expect("a turn");
    io.write(keys[0], b"bye").expect("its end is open");
    io.close(keys[0]);
    let _ = io.turn(still, Flushed::Idle).expect("a turn");
    assert!(io.unclosed() > 0, "the burst is not over");
    let mut said = Vec::new();
    (&users[0]).read_to_end(&mut said).expect("an end");
    assert_eq!(said, b"bye");
}

#[test]
fn a_reset_does_not_become_an_end_because_the_role_is_over() {
    let io = &mut reactor();
    let (keys, users) = connections(io, 100);
    for key in &keys {
        io.abort(*key);
    }
    let still = &mut Still {
        is_over: true,
        ..Still::default()
    };
    let _ = io.turn(still, Flushed::Idle).expect("a turn");
    assert_eq!(io.unclosed(), 0);
    for user in &users {
        let error = (&*user).read(&mut [0]).expect_err("no orderly end");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn a_descriptor_that_is_wanted_is_not_waited_for() {
    let io = &mut reactor();
    let (keys, _users) = connections(io, 200);
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port of the system's choice");
    let address = listener.local_addr().expect("it has one");
    // There is room for those and the listener, and no other.
    let (limit, open) = (io.len(), io.len());
    io.room.reserve(0, Descriptors { limit, open });
    for key in &keys {
        io.close(*key);
    }
    let _ = io
        .turn(&mut Still::default(), Flushed::Idle)
        .expect("a turn");
    for _ in &keys {
        io.connect(Address::Inet(address), Purpose::Target, Entry::Stream)
            .expect("a descriptor");
    }
    assert_eq!(io.unclosed(), 0);
    io.check_invariants();
    let error = io.connect(Address::Inet(address), Purpose::Target, Entry::Stream);
    assert_eq!(error.unwrap_err().raw_os_error(), Some(libc::EMFILE));
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
