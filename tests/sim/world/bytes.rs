//! The bytes of a pipe: written, under way, arrived, read; and how they end.

use std::{io, net::SocketAddr, time::Duration};

use super::{
    CLIENT_HOST, Due, End, EndId, FORMER_HOST, HostId, Lane, SERVER_HOST, Segment, Watcher, World,
};
use crate::rng::Rng;

impl Lane {
    /// How long so many bytes take to get on it.
    fn time_of(self, bytes: usize) -> Duration {
        Duration::from_nanos(bytes as u64 * 1_000_000_000 / self.rate)
    }
}

impl World {
    pub fn read(&mut self, end: EndId, into: &mut [u8]) -> io::Result<usize> {
        if let Watcher::Reactor { host, .. } = self.ends[end].watcher {
            self.hosts[host].reads += 1;
        }
        let there = self.visible(end)?;
        let mut length = there.min(into.len());
        let found = &self.ends[end];
        if found.closed_told && length > 0 && self.rng.chance(self.weather.short_percent) {
            length = self.rng.between(1, length);
        }
        let found = &mut self.ends[end];
        let (front, back) = found.inbox.as_slices();
        let first = front.len().min(length);
        into[..first].copy_from_slice(&front[..first]);
        into[first..length].copy_from_slice(&back[..length - first]);
        found.inbox.drain(..length);
        found.peeked = false;
        self.note(end, length);
        if length > 0
            && let Some(peer) = self.ends[end].peer
        {
            let after = self.latency_to(peer);
            self.schedule(after, Due::Room(peer));
        }
        Ok(length)
    }

    pub fn peek(&mut self, end: EndId) -> io::Result<usize> {
        let there = self.visible(end)?;
        self.ends[end].peeked = there > 0;
        Ok(there.min(1))
    }

    /// Whether nothing more will come.
    pub fn is_ended(&self, end: EndId) -> bool {
        let found = &self.ends[end];
        found.inbox.is_empty() && (found.fin || found.reset)
    }

    /// How many bytes a read may find now; 0 is the end.
    fn visible(&mut self, end: EndId) -> io::Result<usize> {
        let found = &mut self.ends[end];
        if found.inbox.is_empty() {
            if found.fin {
                return Ok(0);
            }
            if let Some(error) = found.error.take() {
                return Err(error.into());
            }
            if found.reset {
                return Ok(0);
            }
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let cut = !found.closed_told && !found.reset;
        if cut && self.rng.chance(self.weather.short_percent) {
            let there = self.ends[end].inbox.len();
            let kept = if self.rng.chance(10) && !self.ends[end].peeked {
                0
            } else {
                self.rng.between(1, there)
            };
            self.delay_rest(end, kept);
            if kept == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
        Ok(self.ends[end].inbox.len())
    }

    /// All but the first `kept` bytes arrive a moment later.
    fn delay_rest(&mut self, end: EndId, kept: usize) {
        let after = self.moment();
        let at = self.now + after;
        let found = &mut self.ends[end];
        let rest: Vec<u8> = found.inbox.drain(kept..).collect();
        if rest.is_empty() {
            return;
        }
        if std::mem::take(&mut found.fin) {
            found.flight.push_front((at, Segment::Fin));
            found.put_back += 1;
        }
        found.flight_bytes += rest.len();
        found.flight.push_front((at, Segment::Data(rest)));
        found.put_back += 1;
        found.arrives = found.arrives.max(at);
        self.schedule(after, Due::Arrival(end));
    }

    pub fn write(&mut self, end: EndId, bytes: &[u8]) -> io::Result<usize> {
        if let Watcher::Reactor { host, .. } = self.ends[end].watcher {
            self.hosts[host].writes += 1;
        }
        let (now, found) = (self.now, &mut self.ends[end]);
        if found.reset || found.fin_sent {
            let error = found.error.take().unwrap_or(io::ErrorKind::BrokenPipe);
            return Err(error.into());
        }
        let Some(peer) = found.peer else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let full = now < found.full_until;
        let full = full || self.unsent(end) >= self.unsent_max(end);
        let mut length = if full {
            0
        } else {
            bytes.len().min(self.room(peer))
        };
        // No kernel has so little memory for a socket that a few KiB do not fit into an empty one.
        let fits = bytes.len() <= EMPTY_TAKES && self.room(peer) == self.ends[peer].capacity;
        if length > 0 && !fits && self.rng.chance(self.weather.short_percent) {
            length = if self.rng.chance(10) {
                0
            } else {
                self.rng.between(1, length)
            };
            if length < bytes.len() {
                let after = self.moment();
                self.ends[end].full_until = self.now + after;
                self.schedule(after, Due::Room(end));
            }
        }
        if length < bytes.len() {
            self.ends[end].wants_room = true;
        }
        if length == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        match self.lane(end) {
            Some(lane) => self.send_paced(end, lane, &bytes[..length]),
            None => {
                let mut bytes = bytes[..length].to_vec();
                self.alter(end, &mut bytes);
                self.send(end, Segment::Data(bytes));
            }
        }
        self.note(end, length);
        Ok(length)
    }

    pub fn shutdown(&mut self, end: EndId) -> io::Result<()> {
        let found = &mut self.ends[end];
        if found.reset || found.peer.is_none() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        if !std::mem::replace(&mut found.fin_sent, true) {
            self.send(end, Segment::Fin);
        }
        Ok(())
    }

    /// Makes [`World::close`] send RST.
    pub fn abort(&mut self, end: EndId) {
        self.ends[end].aborts = true;
    }

    pub fn take_error(&mut self, end: EndId) -> Option<io::Error> {
        self.ends[end].error.take().map(io::Error::from)
    }

    pub fn close(&mut self, end: EndId) {
        let found = &mut self.ends[end];
        found.watcher = Watcher::Nobody;
        if std::mem::replace(&mut found.gone, true) || found.reset {
            return;
        }
        if found.aborts || !found.inbox.is_empty() {
            self.reset_peer(end);
        } else if !std::mem::replace(&mut found.fin_sent, true) {
            self.send(end, Segment::Fin);
        }
    }

    /// How many ends `host` has open that lead to `remote`.
    pub fn open_to(&self, host: HostId, remote: SocketAddr) -> usize {
        let of_host = |end: &&End| {
            matches!(end.watcher, Watcher::Reactor { host: of, .. } if of == host)
                && end.remote == remote
        };
        self.ends.iter().filter(of_host).count()
    }

    /// Whether a reactor's socket has something to read of which no event has told yet, nor is about to.
    pub fn is_untold(&self, host: HostId, index: u32) -> bool {
        let watcher = Watcher::Reactor { host, index };
        let untold = |end: &End| end.watcher == watcher && !end.armed && has_news(end);
        self.ends.iter().any(untold)
    }

    /// Whether a reactor's socket has something to read, told or not.
    pub fn has_news(&self, host: HostId, index: u32) -> bool {
        let watcher = Watcher::Reactor { host, index };
        self.ends
            .iter()
            .filter(|end| end.watcher == watcher)
            .any(has_news)
    }

    /// Whose the far end of a reactor's socket is.
    pub fn far_host(&self, host: HostId, index: u32) -> Option<HostId> {
        let watcher = Watcher::Reactor { host, index };
        let end = self.ends.iter().find(|end| end.watcher == watcher)?;
        match self.ends[end.peer?].watcher {
            Watcher::Reactor { host, .. } => Some(host),
            Watcher::Nobody | Watcher::Actor(_) => None,
        }
    }

    /// Whether all processes sleep, and nothing is under way between them.
    pub fn are_links_quiet(&self) -> bool {
        let busy = |end: &End| {
            let of_link = [end.local.port(), end.remote.port()].contains(&LINK_PORT);
            of_link && !end.gone && !(end.inbox.is_empty() && end.flight.is_empty())
        };
        let sleeps = |host: HostId| {
            let found = &self.hosts[host];
            (host == FORMER_HOST && found.is_over) || (found.asleep && found.armed.is_empty())
        };
        [SERVER_HOST, CLIENT_HOST, FORMER_HOST]
            .into_iter()
            .all(sleeps)
            && !self.ends.iter().any(busy)
    }

    pub(super) fn reset_peer(&mut self, end: EndId) {
        let Some(peer) = self.ends[end].peer else {
            return;
        };
        // What the kernel has not sent yet is lost.
        if self.rng.chance(50) {
            let peer = &mut self.ends[peer];
            peer.flight.truncate(peer.put_back);
            let data = peer.flight.iter().map(|(_, segment)| match segment {
                Segment::Data(bytes) => bytes.len(),
                Segment::Fin | Segment::Reset => 0,
            });
            peer.flight_bytes = data.sum();
        }
        self.send(end, Segment::Reset);
    }

    /// Puts bytes on a lane, one segment after the other.
    fn send_paced(&mut self, from: EndId, lane: Lane, bytes: &[u8]) {
        for part in bytes.chunks(SEGMENT) {
            let begins = self.ends[from].sent_by.max(self.now);
            self.ends[from].sent_by = begins + lane.time_of(part.len());
            self.send(from, Segment::Data(part.to_vec()));
        }
        let half = lane.time_of(lane.unsent_max / 2);
        let after = (self.ends[from].sent_by - self.now).saturating_sub(half);
        self.schedule(after + Duration::from_nanos(1), Due::Room(from));
    }

    /// Bytes that were written on a lane and are not on it yet.
    fn unsent(&self, from: EndId) -> usize {
        let left = self.ends[from].sent_by.saturating_sub(self.now);
        let bytes = |lane: Lane| left.as_nanos() * u128::from(lane.rate) / 1_000_000_000;
        self.lane(from).map_or(0, |lane| bytes(lane) as usize)
    }

    fn unsent_max(&self, from: EndId) -> usize {
        self.lane(from).map_or(usize::MAX, |lane| lane.unsent_max)
    }

    fn send(&mut self, from: EndId, segment: Segment) {
        let Some(to) = self.ends[from].peer else {
            return;
        };
        let found = &self.ends[to];
        let earliest = self.detained(found.local, found.remote).max(found.arrives);
        let leaves = self.ends[from].sent_by.max(self.now);
        let at = (leaves + self.latency_to(from)).max(earliest);
        let found = &mut self.ends[to];
        found.arrives = at;
        if let Segment::Data(bytes) = &segment {
            found.flight_bytes += bytes.len();
        }
        found.flight.push_back((at, segment));
        self.schedule(at - self.now, Due::Arrival(to));
    }

    pub(super) fn arrive(&mut self, end: EndId) {
        let now = self.now;
        let found = &mut self.ends[end];
        let mut arrived = false;
        while found.flight.front().is_some_and(|(at, _)| *at <= now)
            && let Some((_, segment)) = found.flight.pop_front()
        {
            arrived = true;
            found.put_back = found.put_back.saturating_sub(1);
            match segment {
                Segment::Data(bytes) => {
                    found.flight_bytes -= bytes.len();
                    if found.gone {
                        found.flight.clear();
                        found.flight_bytes = 0;
                        found.put_back = 0;
                        return self.reset_peer(end);
                    }
                    // What was sent before its sender knew of a reset that came from neither.
                    if !found.reset {
                        found.inbox.extend(bytes);
                    }
                }
                Segment::Fin if found.reset => {}
                Segment::Fin => found.fin = true,
                Segment::Reset if found.reset => {}
                Segment::Reset => {
                    found.reset = true;
                    // As Linux's tcp_reset: once the peer has ended in order, only writing fails.
                    found.error = Some(if found.fin {
                        io::ErrorKind::BrokenPipe
                    } else {
                        io::ErrorKind::ConnectionReset
                    });
                    found.flight.clear();
                    found.flight_bytes = 0;
                    found.put_back = 0;
                }
            }
        }
        if arrived {
            self.arm(end);
        }
    }

    /// Room for bytes towards `end`.
    pub(super) fn room(&self, end: EndId) -> usize {
        let end = &self.ends[end];
        end.capacity
            .saturating_sub(end.inbox.len() + end.flight_bytes)
    }

    pub(super) fn offer_room(&mut self, end: EndId) {
        if self.ends[end].wants_room && self.is_writable(end) {
            self.ends[end].wants_room = false;
            self.arm(end);
        }
    }

    /// Whether it is worth an event: as in Linux, a third must be free.
    pub(super) fn is_writable(&self, end: EndId) -> bool {
        let found = &self.ends[end];
        found.reset
            || found.peer.is_some_and(|peer| {
                self.now >= found.full_until
                    && self.room(peer) >= self.ends[peer].capacity / 3
                    && self.unsent(end) < self.unsent_max(end).div_ceil(2)
            })
    }

    fn note(&mut self, end: EndId, length: usize) {
        let what = (end as u64) << 40 ^ (length as u64) << 8 ^ self.now.as_nanos() as u64;
        self.digest = Rng(self.digest ^ what).next();
        match self.ends[end].watcher {
            Watcher::Reactor { host, .. } => self.hosts[host].moved += 1,
            Watcher::Actor(_) => self.progress = self.now,
            Watcher::Nobody => {}
        }
    }
}

fn has_news(end: &End) -> bool {
    !end.inbox.is_empty() || end.fin || end.reset
}

/// Where the server waits for clients.
pub const LINK_PORT: u16 = 7000;

/// What a direction with nothing under way or unread takes at once, in bytes: the least send buffer of
/// Linux (`tcp_wmem`). Both roles rely on it for the first bytes of a connection.
const EMPTY_TAKES: usize = 4096;

/// What a kernel hands to its interface in one piece, and gets from it: 16 packets, where both know how
/// to (TSO, GRO).
const SEGMENT: usize = 16 * 1448;
