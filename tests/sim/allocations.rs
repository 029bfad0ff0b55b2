//! How often each process asks for memory while it does what it does most: never, for what it carries.
//!
//! Counted once all is in its stride, by process ([`crate::heap`]): what the simulated network allocates
//! is its own. The figures are exact. One that grows is a buffer that is made anew for each message, or
//! text that is put together in pieces; `SIDING_SIM_ALLOCATIONS=tell cargo test --test sim allocations`
//! prints where each of them is made.

use std::{cell::RefCell, env, rc::Rc, time::Duration};

use crate::{
    heap::{self, Payer},
    lab::{CLIENT_HOST, Configs, Lab, SERVER_HOST, client_id, origin, proxy},
    table::{Origin, Pinger, Play, User},
    world::{EndId, Lane, Watcher},
};

#[test]
fn bulk_is_carried_without_an_allocation() {
    for (port, user, target) in [
        (DOWN, Play::Receive, Play::Send),
        (UP, Play::Send, Play::Receive),
    ] {
        let mut lab = lab();
        let tally = Rc::default();
        lab.add(|world, me| Box::new(Origin::new(port, me, target, &tally, world)));
        lab.add(|_, _| Box::new(User::new(port, user, &tally)));
        // Until its window is as large as it becomes.
        lab.run_for(Duration::from_millis(500));
        let before = messages(&mut lab);
        let counted = counted(&mut lab, |lab| lab.run_for(Duration::from_millis(500)));
        let messages = messages(&mut lab) - before;
        assert!(messages > 100, "{messages} messages");
        assert_eq!(counted, [0, 0], "in {messages} messages");
    }
}

#[test]
fn a_keystroke_and_its_echo_are_carried_without_an_allocation() {
    let mut lab = lab();
    let tally = Rc::default();
    lab.add(|world, me| Box::new(Origin::new(ECHO, me, Play::Echo, &tally, world)));
    let trips = Rc::new(RefCell::new(Vec::new()));
    lab.add(|_, _| Box::new(Pinger::new(10 + TIMES, &trips)));
    let so_many = |count: usize| {
        let trips = Rc::clone(&trips);
        move |_: &mut Lab| trips.borrow().len() == count
    };
    lab.run_until("the stream is at work", so_many(10));
    let counted = counted(&mut lab, |lab| {
        lab.run_until("all but one are made", so_many(9 + TIMES));
    });
    assert_eq!(counted, [0, 0], "in {TIMES} round trips");
}

/// The server: a copy of the request's head, the list of its fields, the head that the origin gets, the
/// place where that waits for its turn, and with it what the client must know.
///
/// The client: of that the proxy's name and the host; the exchange; the head that the origin gets once
/// more, in case that its connection proves dead, and the place of it; the part of the body that came with
/// the answer's head, and the place where it waits; a copy of that head, the list of its fields, the head
/// that the user gets, and its place.
#[test]
fn an_exchange_on_a_parked_connection_allocates_what_it_holds() {
    let mut lab = lab();
    let free = lab.world.borrow_mut().listen(origin(80), Watcher::Nobody);
    free.expect("the origin's address is free");
    let user = arrive(&mut lab, HTTP);
    let mut target = None;
    let mut exchange = |lab: &mut Lab| {
        let sent = lab.world.borrow_mut().write(user, REQUEST);
        assert_eq!(sent.expect("it is connected"), REQUEST.len());
        let target = hears(lab, 80, &mut target);
        let sent = lab.world.borrow_mut().write(target, ANSWER);
        assert_eq!(sent.expect("there is room"), ANSWER.len());
        lab.run_until("the answer has come", |lab| has_bytes(lab, user));
        lab.run_until("it is parked", |lab| lab.client.role.parked() == 1);
    };
    assert_eq!(of_each(&mut lab, &mut exchange), [5, 11]);
}

/// The server: what the client must know. The client: of that the proxy's name and the host; and the dial,
/// which has lists of addresses to choose from, to try, and tried.
#[test]
fn a_visit_allocates_what_it_holds() {
    let mut lab = lab();
    let free = lab.world.borrow_mut().listen(origin(DOWN), Watcher::Nobody);
    free.expect("the origin's address is free");
    let mut visit = |lab: &mut Lab| {
        let user = arrive(lab, DOWN);
        let sent = lab.world.borrow_mut().write(user, b"?");
        assert_eq!(sent.expect("it is connected"), 1);
        let target = hears(lab, DOWN, &mut None);
        let sent = lab.world.borrow_mut().write(target, b"!");
        assert_eq!(sent.expect("there is room"), 1);
        lab.run_until("the answer has come", |lab| has_bytes(lab, user));
        lab.world.borrow_mut().close(user);
        lab.run_until("its end has come", |lab| {
            lab.world.borrow().is_ended(target)
        });
        lab.world.borrow_mut().close(target);
        lab.run_until("nothing is left", |lab| {
            lab.server.role.users() + lab.client.role.streams() == 0
        });
    };
    assert_eq!(of_each(&mut lab, &mut visit), [1, 8]);
}

fn arrive(lab: &mut Lab, port: u16) -> EndId {
    let from = USER.parse().expect("an address");
    let user = lab.world.borrow_mut().connect(proxy(port), from);
    lab.run_for(Duration::from_millis(1));
    user
}

/// Waits until the origin has something to read, on its first connection; which is that one.
fn hears(lab: &mut Lab, port: u16, target: &mut Option<EndId>) -> EndId {
    lab.run_until("the origin hears of it", |lab| {
        if target.is_none() {
            let accepted = lab.world.borrow_mut().accept(origin(port));
            *target = accepted.ok().map(|(end, _)| end);
        }
        target.is_some_and(|target| has_bytes(lab, target))
    });
    target.expect("it has heard")
}

/// Whether there was something to read.
fn has_bytes(lab: &mut Lab, end: EndId) -> bool {
    let mut world = lab.world.borrow_mut();
    matches!(world.read(end, &mut [0; 4096]), Ok(1..))
}

/// How often each process allocates for one of many, all of which cost the same.
fn of_each(lab: &mut Lab, act: &mut impl FnMut(&mut Lab)) -> [u64; 2] {
    for _ in 0..10 {
        act(lab);
    }
    let counted = counted(lab, |lab| (0..TIMES).for_each(|_| act(lab)));
    counted.map(|count| {
        assert_eq!(count % TIMES as u64, 0, "{counted:?} in {TIMES}");
        count / TIMES as u64
    })
}

/// How often each process allocates meanwhile.
fn counted(lab: &mut Lab, run: impl FnOnce(&mut Lab)) -> [u64; 2] {
    let before = HOSTS.map(|host| Payer::Host(host).allocations());
    heap::tell_allocations(env::var("SIDING_SIM_ALLOCATIONS").is_ok_and(|what| what == "tell"));
    run(lab);
    heap::tell_allocations(false);
    HOSTS.map(|host| Payer::Host(host).allocations() - before[host])
}

/// Of both ways.
fn messages(lab: &mut Lab) -> u64 {
    lab.server.role.sent_to(&client_id()).messages + lab.client.role.sent().messages
}

fn lab() -> Lab {
    let lane = Lane {
        one_way: Duration::from_micros(50),
        rate: 100_000_000,
        unsent_max: 16 << 10,
    };
    let proxies = [(DOWN, DOWN), (UP, UP), (ECHO, ECHO), (HTTP, 80)];
    Lab::new(lane, &proxies, Configs::with_budget(64 << 20))
}

const HOSTS: [usize; 2] = [SERVER_HOST, CLIENT_HOST];

const TIMES: usize = 100;

const DOWN: u16 = 1_001;
const UP: u16 = 1_002;
/// As [`Pinger`] has it.
const ECHO: u16 = 1_003;
const HTTP: u16 = 1_004;

const USER: &str = "203.0.113.1";

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: origin.test\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
