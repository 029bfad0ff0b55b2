//! One process of the simulation: a role as released, its reactor, and how a turn of it is taken.

use std::{cell::RefCell, time::Duration};

use siding::{
    clock::Now,
    key::Key,
    reactor::{Flushed, Found, Reactor, Role},
};

use crate::{
    heap::{Charge, Payer},
    net::SimNet,
    world::{HostId, World},
};

/// A role and its reactor.
pub struct Machine<R: Role<SimNet>> {
    pub host: HostId,
    pub io: Reactor<SimNet, R::Owner>,
    pub role: R,
    flushed: Flushed,
    /// Turns in which it was awake.
    pub turns: u64,
    /// Its reactor is checked after each turn, which takes a step for each socket.
    pub checked: bool,
    /// Turns without sleep in which nothing moved, up to now.
    hurried: u32,
}

/// What a burst has left for later turns.
struct Rest {
    entries: usize,
    unclosed: usize,
    timers_placed: u64,
}

impl Rest {
    fn of<O: Copy>(io: &Reactor<SimNet, O>) -> Rest {
        Rest {
            entries: io.len(),
            unclosed: io.unclosed(),
            timers_placed: io.timers_placed(),
        }
    }

    /// Something ended, was closed, or has another deadline.
    fn has_moved(&self, after: &Rest) -> bool {
        after.entries < self.entries
            || after.unclosed < self.unclosed
            || after.timers_placed > self.timers_placed
    }
}

/// A role that is not flushed by a poll that would have slept.
struct Awake<'a, R> {
    role: &'a mut R,
    world: &'a RefCell<World>,
    host: HostId,
}

impl<R: Role<SimNet>> Machine<R> {
    pub fn new(host: HostId, mut io: Reactor<SimNet, R::Owner>, mut role: R) -> Machine<R> {
        let now = io.now();
        Machine {
            host,
            flushed: role.flush(&mut io, now),
            io,
            role,
            turns: 0,
            checked: true,
            hurried: 0,
        }
    }

    pub fn turn(&mut self, world: &RefCell<World>) {
        let moved = world.borrow().hosts[self.host].moved;
        let before = Rest::of(&self.io);
        let mut role = Awake {
            role: &mut self.role,
            world,
            host: self.host,
        };
        let charge = Charge::to(Payer::Host(self.host));
        let turn = self.io.turn(&mut role, self.flushed);
        drop(charge);
        self.flushed = turn.expect("the selector does not fail");
        let mut world = world.borrow_mut();
        let host = &mut world.hosts[self.host];
        host.is_over = self.role.is_over();
        if host.asleep {
            return;
        }
        self.turns += 1;
        let is_at_work = before.has_moved(&Rest::of(&self.io));
        self.hurried = if host.hurried && host.moved == moved && !is_at_work {
            self.hurried + 1
        } else {
            0
        };
        assert!(
            self.hurried < HURRIED_MAX,
            "host {} does not sleep, and nothing moves",
            self.host
        );
        world.freeze(self.host);
        drop(world);
        if self.checked {
            self.io.check_invariants();
        }
    }
}

impl<R: Role<SimNet>> Role<SimNet> for Awake<'_, R> {
    type Owner = R::Owner;

    fn ready(&mut self, io: &mut Reactor<SimNet, R::Owner>, key: Key, owner: R::Owner, now: Now) {
        self.role.ready(io, key, owner, now);
    }

    fn timeout(&mut self, io: &mut Reactor<SimNet, R::Owner>, key: Key, owner: R::Owner, now: Now) {
        self.role.timeout(io, key, owner, now);
    }

    fn resolved(
        &mut self,
        io: &mut Reactor<SimNet, R::Owner>,
        name: &str,
        found: &Found,
        now: Now,
    ) {
        self.role.resolved(io, name, found, now);
    }

    fn stop(&mut self, io: &mut Reactor<SimNet, R::Owner>, now: Now) {
        self.role.stop(io, now);
    }

    fn reload(&mut self, io: &mut Reactor<SimNet, R::Owner>, now: Now) {
        self.role.reload(io, now);
    }

    fn clock_skipped(&mut self, io: &mut Reactor<SimNet, R::Owner>, skipped: Duration, now: Now) {
        self.role.clock_skipped(io, skipped, now);
    }

    fn flush(&mut self, io: &mut Reactor<SimNet, R::Owner>, now: Now) -> Flushed {
        if self.world.borrow().hosts[self.host].asleep {
            return Flushed::Idle;
        }
        self.role.flush(io, now)
    }

    fn is_over(&self) -> bool {
        self.role.is_over()
    }
}

/// Turns without sleep in which nothing moves. A few are legal: a read that would block was not known
/// to.
const HURRIED_MAX: u32 = 20;
