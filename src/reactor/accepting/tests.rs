use std::{
    net::{Ipv4Addr, TcpStream},
    time::{Duration, Instant},
};

use super::*;
use crate::{
    clock::Now,
    reactor::{Flushed, Found, Role, mio_net::MioNet},
};

/// Far more than loopback needs: a test that meets it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Keeps whoever comes, and counts who came where in the present turn.
#[derive(Default)]
struct Doors {
    taken: Vec<usize>,
}

impl Role<MioNet> for Doors {
    /// The number of a listener, or none: a connection.
    type Owner = Option<usize>;

    fn ready(
        &mut self,
        io: &mut Reactor<MioNet, Option<usize>>,
        key: Key,
        owner: Option<usize>,
        _: Now,
    ) {
        let Some(door) = owner else {
            return;
        };
        while io.takes_another(key) {
            match io.accept(key, Purpose::User, None) {
                Accepted::Connection(..) => self.taken[door] += 1,
                Accepted::Empty => return,
                Accepted::Starved => unreachable!("there is room"),
            }
        }
    }

    fn timeout(&mut self, _: &mut Reactor<MioNet, Self::Owner>, _: Key, _: Self::Owner, _: Now) {
        unreachable!("nothing has a deadline");
    }

    fn resolved(&mut self, _: &mut Reactor<MioNet, Self::Owner>, _: &str, _: &Found, _: Now) {}

    fn stop(&mut self, _: &mut Reactor<MioNet, Self::Owner>, _: Now) {}

    fn reload(&mut self, _: &mut Reactor<MioNet, Self::Owner>, _: Now) {}

    fn flush(&mut self, _: &mut Reactor<MioNet, Self::Owner>, _: Now) -> Flushed {
        Flushed::Idle
    }

    fn is_over(&self) -> bool {
        false
    }
}

/// So many listeners, with so many connections waiting at each, and how many each takes turn by turn, until all
/// were taken.
fn turns(doors: usize, waiting: usize) -> Vec<Vec<usize>> {
    let mut io = Reactor::new(MioNet::new().expect("a selector"));
    let mut users = Vec::new();
    for door in 0..doors {
        let (_, address) = io
            .listen((Ipv4Addr::LOCALHOST, 0).into(), Some(door))
            .expect("a free port");
        users.extend((0..waiting).map(|_| TcpStream::connect(address).expect("it listens")));
    }
    let mut role = Doors::default();
    let mut turns = Vec::new();
    let mut left = users.len();
    let deadline = Instant::now() + PATIENCE;
    while left > 0 {
        assert!(Instant::now() < deadline, "{left} are left");
        role.taken = vec![0; doors];
        // Polled without sleeping, so that what the system has yet to tell of keeps nobody.
        let _ = io.turn(&mut role, Flushed::More).expect("a turn");
        io.check_invariants();
        left -= role.taken.iter().sum::<usize>();
        turns.push(std::mem::take(&mut role.taken));
    }
    turns
}

#[test]
fn a_flooded_listener_takes_its_share_in_each_turn() {
    let taken: Vec<usize> = turns(1, 40).concat();
    assert!(taken.iter().all(|taken| *taken <= 16), "{taken:?}");
    assert_eq!(taken.iter().sum::<usize>(), 40);
    assert!(taken.contains(&16), "and no less: {taken:?}");
}

#[test]
fn many_flooded_listeners_take_no_more_together_than_two_would() {
    let turns = turns(8, 40);
    for turn in &turns[1..] {
        assert!(turn.iter().all(|taken| *taken <= 4), "{turn:?}");
    }
    let even = |turn: &Vec<usize>| turn.iter().all(|taken| *taken == 4);
    assert!(turns.iter().any(even), "nobody is passed over: {turns:?}");
}

#[test]
fn whoever_is_flooded_takes_one_at_least() {
    let turns = turns(40, 30);
    for turn in &turns[1..] {
        assert!(turn.iter().all(|taken| *taken <= 1), "{turn:?}");
    }
    assert!(turns.iter().any(|turn| turn[..] == [1; 40]), "{turns:?}");
}
