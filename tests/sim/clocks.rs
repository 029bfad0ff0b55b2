//! A wall clock that jumps: a machine that has slept, or whose clock was set. The client looks whether its
//! link is still there; otherwise nothing happens.

use std::{cell::RefCell, rc::Rc, time::Duration};

use crate::{
    lab::{Configs, Lab, SERVER_HOST},
    table::{ECHO, Origin, Pinger, Play},
    world::Lane,
};

fn lab() -> Lab {
    let lane = Lane {
        one_way: Duration::from_millis(5),
        rate: 125_000_000,
        unsent_max: 16 << 10,
    };
    Lab::new(lane, &[(ECHO, ECHO)], Configs::with_budget(64 << 20))
}

/// How long it takes the client to see that its server is gone, whose clock has jumped meanwhile.
fn noticed_after(jump: i64) -> Duration {
    let mut lab = lab();
    let cut = lab.elapsed();
    {
        let mut world = lab.world.borrow_mut();
        world.hosts[SERVER_HOST].frozen_until = cut + Duration::from_secs(3600);
        world.set_clock_by(jump);
    }
    lab.run_until("the link is given up", |lab| !lab.client.role.is_linked());
    lab.elapsed() - cut
}

#[test]
fn who_has_slept_waits_for_less_long_for_a_server_that_is_gone() {
    let pong = Duration::from_secs(10);
    let usual = noticed_after(0);
    assert!(usual > pong, "{usual:?}");
    // It wakes to ask in any case, and then has seven seconds less to wait.
    for jump in [6, 60, 8 * 3600, i64::from(u32::MAX)] {
        let noticed = noticed_after(jump);
        assert_eq!(usual - noticed, Duration::from_secs(7), "{jump} s");
    }
    for jump in [1, 4, -1, -60, -8 * 3600] {
        assert_eq!(noticed_after(jump), usual, "{jump} s");
    }
}

#[test]
fn sessions_go_on_whatever_the_wall_clock_says() {
    let mut lab = lab();
    let tally = Rc::new(RefCell::new(Vec::new()));
    lab.add(|world, me| Box::new(Origin::new(ECHO, me, Play::Echo, &tally, world)));
    let took = Rc::new(RefCell::new(Vec::new()));
    lab.add(|_, _| Box::new(Pinger::new(200, &took)));
    for (round, jump) in [3600, -7200, 10, -10, 86_400, 86_400]
        .into_iter()
        .enumerate()
    {
        lab.run_until("some trips are made", |_| took.borrow().len() >= 30 * round);
        lab.world.borrow_mut().set_clock_by(jump);
    }
    lab.run_until("all trips are made", |_| took.borrow().len() == 200);
    lab.run_for(Duration::from_secs(120));
    assert!(lab.client.role.is_linked());
    // All of them in one stream of one link.
    assert_eq!(lab.client.role.opened(), 1);
}
