//! What goes wrong while a storm lasts. Each seed draws its own mix: some faults never, some all the time.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{Due, EndId, HOSTS, HostId, LINK_PORT, World};
use crate::rng::Rng;

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The link's connection is reset at both ends.
    LinkReset,
    /// Nothing arrives on the link for a while, and nobody is told.
    LinkLost,
    /// The connection of a user is reset at both ends.
    UserReset,
    /// The same with one to a target.
    TargetReset,
    /// A process gets no time for a while.
    Suspended,
    /// The wall clock of all is set.
    ClockSet,
    /// A process is killed, and started again after a while.
    Killed,
    /// A process is asked to stop, and started again once it has.
    Drained,
    /// The server is asked to stop, and another begins in its place as soon as it is free.
    Succeeded,
    /// For a while a process gets few descriptors more than it has, or none.
    OutOfDescriptors,
    /// Somebody who is no client comes where clients come.
    Stranger,
    /// A dial is refused.
    Refused,
    /// A dial finds no way.
    Unreachable,
    /// A dial is never answered.
    Hangs,
    /// A look-up fails.
    NameFails,
    /// A look-up takes long.
    NameSlow,
    /// A look-up of the server finds somebody else.
    Impostor,
    /// A byte of the rogue's link is another; this one does not end with the storm.
    Altered,
}

impl Fault {
    pub const ALL: [Fault; 18] = [
        Fault::LinkReset,
        Fault::LinkLost,
        Fault::UserReset,
        Fault::TargetReset,
        Fault::Suspended,
        Fault::ClockSet,
        Fault::Killed,
        Fault::Drained,
        Fault::Succeeded,
        Fault::OutOfDescriptors,
        Fault::Stranger,
        Fault::Refused,
        Fault::Unreachable,
        Fault::Hangs,
        Fault::NameFails,
        Fault::NameSlow,
        Fault::Impostor,
        Fault::Altered,
    ];

    /// Those that strike; the others lie in wait for whoever does something.
    const STRIKES: usize = 11;
}

/// The storm of one seed.
#[derive(Default)]
pub struct Storm {
    /// From its first fault until the last of those who have lived through it is done: what fails is
    /// excused.
    pub is_excuse: bool,
    /// A process was killed: its kernel has ended its connections in order, whole or not.
    pub killed: [bool; HOSTS],
    /// Faults happen until then.
    until: Duration,
    /// How often each strikes, beside the others; of those that lie in wait, percent.
    weights: [usize; Fault::ALL.len()],
    link_lost_until: Duration,
    unix_offset_secs: i64,
}

/// How much somebody who is cut off may put up with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Excuse {
    /// Errors, and resets instead of answers.
    pub errors: bool,
    /// An end in order before the end.
    pub cuts: bool,
}

impl Storm {
    fn new(until: Duration, rng: &mut Rng) -> Storm {
        let mut weights = [0; Fault::ALL.len()];
        for (fault, weight) in weights.iter_mut().enumerate() {
            let often: &[usize] = if fault < Fault::STRIKES {
                &[0, 0, 1, 3, 10]
            } else {
                &[0, 0, 5, 30]
            };
            *weight = rng.pick(often);
        }
        Storm {
            is_excuse: true,
            until,
            weights,
            ..Storm::default()
        }
    }
}

impl Storm {
    /// Only what lies in wait is left of it.
    pub fn strike_no_more(&mut self) {
        self.weights[..Fault::STRIKES].fill(0);
    }
}

impl World {
    /// From now until then everything goes wrong that this seed has in store.
    pub fn begin_storm(&mut self, until: Duration) {
        self.storm = Storm::new(until, &mut self.rng);
        for fault in Fault::ALL {
            self.tally.add(&name(fault), 0);
        }
    }

    /// Whether faults still happen.
    pub fn rages(&self) -> bool {
        self.now < self.storm.until
    }

    /// What somebody may put up with whose connection leads to a process of this host.
    pub fn excuse(&self, host: HostId) -> Excuse {
        let errors = self.storm.is_excuse;
        let cuts = errors && self.storm.killed[host];
        Excuse { errors, cuts }
    }

    /// What strikes next; `None` in a seed in which nothing does.
    pub fn draw_strike(&mut self) -> Option<Fault> {
        let strikes = &self.storm.weights[..Fault::STRIKES];
        let mut at = self.rng.between(1, strikes.iter().sum());
        let struck = strikes.iter().position(|weight| {
            let is_it = at <= *weight;
            at = at.saturating_sub(*weight);
            is_it && *weight > 0
        });
        struck.map(|fault| Fault::ALL[fault])
    }

    /// It has happened.
    pub fn struck(&mut self, fault: Fault) {
        log::trace!("{fault:?} at {:?}", self.now);
        self.tally.count(&name(fault));
    }

    /// Whether a fault that lies in wait happens now.
    fn befalls(&mut self, fault: Fault) -> bool {
        let happens = self.rages() && self.rng.chance(self.storm.weights[fault as usize]);
        if happens {
            self.struck(fault);
        }
        happens
    }

    /// How long something lasts; not beyond the storm.
    pub fn spell(&mut self) -> Duration {
        let millis = self.rng.pick(&[100, 1_000, 5_000, 20_000, 40_000, 70_000]);
        let spell = Duration::from_millis(self.rng.between(millis / 2, millis) as u64);
        spell.min(self.storm.until.saturating_sub(self.now))
    }

    /// Nothing arrives on links for a spell.
    pub fn lose_links(&mut self) {
        self.storm.link_lost_until = self.now + self.spell();
    }

    /// When bytes that are sent now on the link between these two arrive at the earliest.
    pub(super) fn detained(&self, local: SocketAddr, remote: SocketAddr) -> Duration {
        match [local.port(), remote.port()].contains(&LINK_PORT) {
            true => self.storm.link_lost_until,
            false => Duration::ZERO,
        }
    }

    pub fn set_clock(&mut self) {
        let hours = self.rng.pick(&[-1_000, -1, 1, 1_000]);
        self.storm.unix_offset_secs += hours * 3_600;
    }

    /// The wall clock is set ahead, or back.
    pub fn set_clock_by(&mut self, seconds: i64) {
        self.storm.unix_offset_secs += seconds;
    }

    pub(super) fn unix(&self) -> Duration {
        let unix = 1_765_000_000 + self.storm.unix_offset_secs;
        Duration::from_secs(unix.unsigned_abs()) + self.now
    }

    pub fn suspend(&mut self, host: HostId) {
        let until = self.now + self.spell();
        let host = &mut self.hosts[host];
        host.frozen_until = host.frozen_until.max(until);
    }

    /// Resets one connection of those to one of `ports`, at both ends.
    pub fn sever(&mut self, ports: &[u16]) -> bool {
        let stands = |end: &EndId| {
            let end = &self.ends[*end];
            ports.contains(&end.remote.port()) && end.peer.is_some() && !end.gone && !end.reset
        };
        let standing: Vec<EndId> = (0..self.ends.len()).filter(stands).collect();
        if standing.is_empty() {
            return false;
        }
        let end = self.rng.pick(&standing);
        if let Some(peer) = self.ends[end].peer {
            self.reset_peer(peer);
        }
        self.reset_peer(end);
        true
    }

    /// Leaves a host room for only a few descriptors more than it has; with `None`, for any number.
    pub fn limit_descriptors(&mut self, host: HostId, more: Option<usize>) {
        let host = &mut self.hosts[host];
        host.descriptors_max = more.map(|more| host.descriptors + more);
    }

    /// A process wants a descriptor.
    ///
    /// # Errors
    /// EMFILE.
    pub fn descriptor(&mut self, host: HostId) -> io::Result<()> {
        let found = &mut self.hosts[host];
        if found
            .descriptors_max
            .is_some_and(|most| found.descriptors >= most)
        {
            self.tally.count("looked at: a descriptor that was refused");
            return Err(io::Error::from_raw_os_error(EMFILE));
        }
        found.descriptors += 1;
        Ok(())
    }

    /// A process dials.
    ///
    /// # Errors
    /// There is no way.
    pub fn dial(&mut self, address: SocketAddr, from: IpAddr) -> io::Result<EndId> {
        if self.befalls(Fault::Unreachable) {
            return Err(io::ErrorKind::HostUnreachable.into());
        }
        if self.befalls(Fault::Hangs) {
            let local = SocketAddr::new(from, self.port());
            return Ok(self.end(local, address));
        }
        if self.befalls(Fault::Refused) {
            let local = SocketAddr::new(from, self.port());
            let end = self.end(local, address);
            let after = self.latency();
            self.schedule(after, Due::Refused(end));
            return Ok(end);
        }
        Ok(self.connect(address, from))
    }

    /// On some links now and then a byte is another.
    pub(super) fn alter(&mut self, from: EndId, bytes: &mut [u8]) {
        let Some((address, permille)) = self.altered else {
            return;
        };
        let ends = [self.ends[from].local, self.ends[from].remote];
        let is_altered = ends.iter().any(|end| end.ip() == address)
            && ends.iter().any(|end| end.port() == LINK_PORT)
            && !bytes.is_empty();
        if is_altered && self.rng.between(1, 1_000) <= permille {
            let at = self.rng.between(0, bytes.len() - 1);
            bytes[at] ^= self.rng.between(1, 255) as u8;
            self.struck(Fault::Altered);
        }
    }

    /// How much longer a look-up takes.
    pub(super) fn name_delay(&mut self) -> Duration {
        if self.befalls(Fault::NameSlow) {
            Duration::from_millis(self.rng.between(1_000, 15_000) as u64)
        } else {
            Duration::ZERO
        }
    }

    /// What a look-up of this name finds instead of what is there.
    pub(super) fn misnamed(&mut self, name: &str) -> Option<Result<Vec<IpAddr>, String>> {
        if self.befalls(Fault::NameFails) {
            return Some(Err("the name server does not answer".into()));
        }
        let impostor = self.impostor.filter(|_| name == "edge.test")?;
        self.befalls(Fault::Impostor).then(|| Ok(vec![impostor]))
    }
}

fn name(fault: Fault) -> String {
    format!("fault: {fault:?}")
}

/// As Linux numbers it.
const EMFILE: i32 = 24;
