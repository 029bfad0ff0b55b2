//! Readiness, as epoll tells it: by transitions.

use std::time::Duration;

use siding::reactor::net::{Event, Ready};

use super::{EndId, HostId, Source, Watcher, World};

impl World {
    pub(super) fn ready(&self, end: EndId) -> Ready {
        let found = &self.ends[end];
        if found.peer.is_none() && !found.reset {
            return Ready::default();
        }
        Ready {
            readable: !found.inbox.is_empty() || found.fin || found.reset,
            writable: self.is_writable(end),
            closed: found.fin || found.reset,
            error: found.error.is_some(),
            ..Ready::default()
        }
    }

    pub(super) fn arm(&mut self, end: EndId) {
        let found = &mut self.ends[end];
        match found.watcher {
            Watcher::Reactor { host, .. } => {
                if !std::mem::replace(&mut found.armed, true) {
                    self.hosts[host].armed.push(Source::End(end));
                }
            }
            Watcher::Actor(actor) => {
                self.woken.insert(actor);
            }
            Watcher::Nobody => {}
        }
    }

    /// After a turn: now and then others get the processor.
    pub fn freeze(&mut self, host: HostId) {
        if self.rng.chance(self.weather.freeze_percent) {
            let micros = self.rng.between(0, self.weather.freeze_millis * 1_000) as u64;
            self.hosts[host].frozen_until = self.now + Duration::from_micros(micros);
        }
    }

    /// What a host's poll finds. Where it finds nothing and may sleep, the host is marked so; its next
    /// poll is due when [`World::is_due`] says so.
    pub fn poll(&mut self, host: HostId, events: &mut Vec<Event>, timeout: Option<Duration>) {
        let before = events.len();
        let mut armed = std::mem::take(&mut self.hosts[host].armed);
        if !self.weather.orderly {
            self.rng.shuffle(&mut armed);
        }
        for source in armed {
            if self.rng.chance(self.weather.stray_percent) {
                self.hosts[host].armed.push(source);
                continue;
            }
            events.extend(self.event(host, source));
        }
        if !self.ends.is_empty() && self.rng.chance(self.weather.stray_percent) {
            let end = self.rng.between(0, self.ends.len() - 1);
            if let Watcher::Reactor { host: of, index } = self.ends[end].watcher
                && of == host
            {
                let ready = Ready {
                    readable: self.rng.chance(50),
                    writable: self.rng.chance(50),
                    ..Ready::default()
                };
                events.push(Event::Ready { index, ready });
            }
        }
        events.append(&mut self.hosts[host].others);
        let found = events.len() - before;
        let late = if self.weather.orderly {
            0
        } else {
            self.rng.between(0, 1_000) as u64
        };
        let late = Duration::from_micros(late);
        let now = self.now;
        let host = &mut self.hosts[host];
        host.moved += found as u64;
        host.hurried = timeout == Some(Duration::ZERO);
        // What it would sleep for has passed already, if it was kept from running.
        let is_due = timeout.is_some_and(|timeout| host.clock + timeout <= now);
        host.asleep = found == 0 && !host.hurried && !is_due;
        host.wakes = timeout
            .filter(|_| host.asleep)
            .map(|timeout| now + timeout + late);
    }

    fn event(&mut self, host: HostId, source: Source) -> Option<Event> {
        match source {
            Source::End(end) => {
                self.ends[end].armed = false;
                let Watcher::Reactor { host: of, index } = self.ends[end].watcher else {
                    return None;
                };
                assert_eq!(of, host, "an end is armed where it is watched");
                let ready = self.ready(end);
                let found = &mut self.ends[end];
                found.closed_told |= ready.closed;
                // As Linux's tcp_poll does: whoever saw that there is no room hears when there is.
                found.wants_room |= !ready.writable;
                (ready != Ready::default()).then_some(Event::Ready { index, ready })
            }
            Source::Listener(address) => {
                let listening = self.listeners.get_mut(&address)?;
                listening.armed = false;
                let Watcher::Reactor { index, .. } = listening.watcher else {
                    return None;
                };
                let ready = Ready {
                    readable: true,
                    ..Ready::default()
                };
                (!listening.backlog.is_empty()).then_some(Event::Ready { index, ready })
            }
        }
    }
}
