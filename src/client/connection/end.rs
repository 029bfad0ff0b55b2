//! How a link ends, and how long it is until the next one is dialled.

use std::{fmt, time::Duration};

use log::{Level, error, info, log, warn};

use super::{Cause, Connection};
use crate::{
    client::{Client, Owner, links::LinkId},
    clock::Now,
    reactor::{Deadline, Reactor, net::Net},
    tunnel::{
        Tunnel,
        control::Reason,
        link::{CloseReason, LinkError},
    },
};

/// Why there is no link now, and how soon it makes sense to try again.
pub(super) enum Down {
    /// It may be better in a moment.
    Passing(String),
    /// It will not mend itself soon.
    Lasting(String),
    /// The server said that it stops.
    Announced(String),
}

impl fmt::Display for Down {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Down::Passing(why) | Down::Lasting(why) | Down::Announced(why) => f.write_str(why),
        }
    }
}

impl Client {
    pub(in crate::client) fn link_failed<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        id: LinkId,
        failure: &LinkError,
        now: Now,
    ) {
        let down = match failure {
            LinkError::Closed(CloseReason::WrongToken, _) => {
                error!(
                    client = self.config.id.as_str();
                    "link {}: wrong token: the server does not accept it",
                    self.config.id
                );
                Down::Lasting(failure.to_string())
            }
            // Whoever it was that took over from a link that is leaving, it was to be expected.
            LinkError::Closed(CloseReason::Replaced, _) if self.links.is_present(id) => {
                error!(
                    client = self.config.id.as_str();
                    "link {}: another client of this id has taken over",
                    self.config.id
                );
                Down::Lasting(failure.to_string())
            }
            LinkError::Closed(CloseReason::Done, _) => Down::Announced(failure.to_string()),
            _ => Down::Passing(failure.to_string()),
        };
        match failure.goodbye() {
            Some((reason, _)) => self.goodbye_and_down(io, id, reason, down, now),
            None => self.link_down(io, id, down, now),
        }
    }

    pub(super) fn goodbye_and_down<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        id: LinkId,
        reason: CloseReason,
        down: Down,
        now: Now,
    ) {
        if let Some(tunnel) = self.links.tunnel(id) {
            tunnel.link.close(io, tunnel.key, reason, &down.to_string());
        }
        self.link_down(io, id, down, now);
    }

    /// The present link's own address is not this machine's any more.
    pub(in crate::client) fn link_stranded<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        now: Now,
    ) {
        let down = Down::Passing("its address is gone".into());
        self.link_down(io, self.links.id(), down, now);
    }

    /// A link is gone, and all that it carried; the present one is dialled again after a while.
    pub(super) fn link_down<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        id: LinkId,
        down: Down,
        now: Now,
    ) {
        let was_present = self.links.is_present(id);
        let mut link = self.links.remove(id);
        let was_up = link.is_up();
        if let Some(key) = link.key() {
            // Lets what was said last arrive before the socket goes, whatever the server still sends.
            io.linger_at_most(key, GOODBYE_MAX);
        }
        if let Connection::Up(_, since) = link
            && !self.links.present.is_up()
        {
            self.backoff
                .was_up(now.instant.saturating_duration_since(since));
        }
        let mut cut = 0;
        if let Some(tunnel) = link.tunnel() {
            self.remember(tunnel);
            let budget = &mut self.shared.budget;
            let orphans = tunnel.mux.end_all(Reason::LinkLost, budget);
            cut = orphans.len();
            for orphan in orphans {
                self.stream_orphaned(io, orphan, now);
            }
        }
        if !was_present {
            self.say_left(&down, cut);
            return self.dial_sooner(io, now);
        }
        if self.stage.is_ending() {
            return;
        }
        let random = random(io);
        let wait = match down {
            Down::Passing(_) | Down::Announced(_) => self.backoff.next(random),
            Down::Lasting(_) => self.backoff.longest(random),
        };
        let level = match down {
            Down::Announced(_) => Level::Info,
            Down::Passing(_) | Down::Lasting(_) => Level::Warn,
        };
        let (id, server, again) = (&self.config.id, &self.config.server, wait.as_secs_f64());
        let lost = if was_up {
            "lost the link to"
        } else {
            "cannot connect to"
        };
        log!(
            level,
            client = id.as_str(),
            server:%,
            reason:% = down,
            again_seconds = again,
            say:% = format_args!("{lost} {server} ({down}); trying again in {again:.1} s");
            "link {id}: down ({down}), again in {again:.1} s"
        );
        let cause = match down {
            Down::Passing(_) | Down::Announced(_) => Cause::Passing,
            Down::Lasting(_) => Cause::Lasting,
        };
        self.wait(io, wait, cause, now);
    }

    /// What the log is told of the end of a link that was leaving.
    fn say_left(&self, down: &Down, cut: usize) {
        let client = &self.config.id;
        match (down, cut) {
            (Down::Announced(_), 0) => info!("link {client}: drained, the old one is closed"),
            (_, 0) => info!("link {client}: the old one is closed ({down})"),
            _ => warn!("link {client}: the old one is closed ({down}), {cut} streams are cut off"),
        }
    }

    /// Dials after the wait that is due now.
    pub(super) fn dial_soon<N: Net>(&mut self, io: &mut Reactor<N, Owner>, now: Now) {
        let wait = self.backoff.next(random(io));
        self.wait(io, wait, Cause::Passing, now);
    }

    /// A link that was leaving has ended. Whoever takes its server's place could often not be there before:
    /// a long wait for it that began meanwhile is over soon.
    fn dial_sooner<N: Net>(&mut self, io: &mut Reactor<N, Owner>, now: Now) {
        let at = now.instant + self.backoff.due(random(io));
        if let Some(timer) = self.links.hasten(at) {
            io.set_deadline(timer, Deadline::At(at));
        }
    }

    fn wait<N: Net>(&mut self, io: &mut Reactor<N, Owner>, wait: Duration, cause: Cause, now: Now) {
        let until = now.instant + wait;
        let timer = io.timer(Owner::Link(self.links.id()), Deadline::At(until));
        self.links.present = Connection::Waiting {
            timer,
            until,
            cause,
        };
    }

    /// Remembers what a link has carried, which is about to go.
    pub(super) fn remember(&mut self, tunnel: &Tunnel) {
        self.counters.bytes += tunnel.mux.carried();
        self.past.add(tunnel.mux.traffic());
    }

    /// Gives up what is not yet a link: nobody is to come any more.
    pub(in crate::client) fn forgo_link<N: Net>(&mut self, io: &mut Reactor<N, Owner>) {
        if self.links.present.is_up() {
            return;
        }
        match self.links.remove(self.links.id()) {
            Connection::Dialling(dial) => self.cancel_dial(io, dial),
            Connection::Hello(mut tunnel, _) => say_goodbye(io, &mut tunnel),
            attempt => {
                if let Some(key) = attempt.key() {
                    io.close(key);
                }
            }
        }
    }

    /// Says goodbye on all links: the process is about to end.
    pub(in crate::client) fn goodbye<N: Net>(&mut self, io: &mut Reactor<N, Owner>) {
        self.forgo_link(io);
        for id in self.links.ids() {
            if let Connection::Up(mut tunnel, _) = self.links.remove(id) {
                say_goodbye(io, &mut tunnel);
                self.remember(&tunnel);
            }
        }
    }
}

fn say_goodbye<N: Net>(io: &mut Reactor<N, Owner>, tunnel: &mut Tunnel) {
    let reason = CloseReason::Done;
    tunnel.link.close(io, tunnel.key, reason, "client stops");
    io.linger(tunnel.key, GOODBYE_MAX);
}

fn random<N: Net>(io: &mut Reactor<N, Owner>) -> u32 {
    let mut random = [0; 4];
    io.random(&mut random);
    u32::from_ne_bytes(random)
}

/// How long the server may take to read a goodbye.
pub(in crate::client) const GOODBYE_MAX: Duration = Duration::from_secs(2);
