//! The links, by slot and by client, and how far each is.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use slab::Slab;

use crate::{
    clock::Now,
    config::ClientId,
    http::Gather,
    key::Key,
    reactor::{Reactor, net::Net},
    server::{
        Owner,
        handshakes::{Handshake, Handshakes},
    },
    tunnel::{
        Tunnel, control::Reason, link::CloseReason, mux::Orphan, proof::Challenge, window::Budget,
    },
};

/// The links, by slot and by client.
pub(in crate::server) struct Links {
    pub(super) entries: Slab<Entry>,
    /// The link of each client that takes new streams.
    pub(super) by_client: HashMap<ClientId, u32>,
    /// Those that are not welcomed yet.
    pub handshakes: Handshakes,
}

/// One link, or what may become one.
pub(in crate::server) struct Entry {
    pub(super) key: Key,
    /// Whence it comes: from the balancer in front, until that has said so.
    pub(super) peer: SocketAddr,
    /// Until it is welcomed.
    pub(super) handshake: Handshake,
    pub(super) state: State,
    /// It stands in the server's queue of links to flush.
    pub scheduled: bool,
}

pub(super) enum State {
    /// A balancer has yet to say whose it is.
    Introducing,
    /// TLS does not stand yet.
    Securing,
    /// The upgrade's head is awaited.
    Upgrade(Gather),
    /// The WebSocket stands, hello is awaited.
    Hello(Box<Tunnel>, Challenge),
    /// The client has proved itself.
    Up {
        tunnel: Box<Tunnel>,
        client: ClientId,
        draining: bool,
    },
}

impl Entry {
    pub fn tunnel(&mut self) -> Option<&mut Tunnel> {
        match &mut self.state {
            State::Introducing | State::Securing | State::Upgrade(_) => None,
            State::Hello(tunnel, _) | State::Up { tunnel, .. } => Some(tunnel),
        }
    }

    /// The client's id for the log, or where the link comes from.
    pub(super) fn name(&self) -> String {
        match &self.state {
            State::Up { client, .. } => client.to_string(),
            State::Introducing | State::Securing | State::Upgrade(_) | State::Hello(..) => {
                format!("from {}", self.peer)
            }
        }
    }
}

impl Links {
    pub fn new(handshakes_max: usize) -> Links {
        Links {
            entries: Slab::new(),
            by_client: HashMap::new(),
            handshakes: Handshakes::new(handshakes_max),
        }
    }

    pub fn streams(&self) -> usize {
        self.entries
            .iter()
            .map(|(_, entry)| match &entry.state {
                State::Introducing | State::Securing | State::Upgrade(_) => 0,
                State::Hello(tunnel, _) | State::Up { tunnel, .. } => tunnel.mux.len(),
            })
            .sum()
    }

    /// A connection of which nothing is known but its peer.
    pub(super) fn accepted(&mut self, key: Key, peer: SocketAddr, now: Now) -> u32 {
        let link = self.entries.insert(Entry {
            key,
            peer,
            handshake: self.handshakes.begin(key, now.instant),
            state: State::Introducing,
            scheduled: false,
        });
        link as u32
    }

    pub fn entry(&mut self, link: u32) -> Option<&mut Entry> {
        self.entries.get_mut(link as usize)
    }

    /// The tunnel of a link.
    pub fn tunnel(&mut self, link: u32) -> Option<&mut Tunnel> {
        self.entry(link)?.tunnel()
    }

    /// The tunnel of a link whose client has proved itself.
    pub fn up(&mut self, link: u32) -> Option<&mut Tunnel> {
        match &mut self.entry(link)?.state {
            State::Up { tunnel, .. } => Some(tunnel),
            State::Introducing | State::Securing | State::Upgrade(_) | State::Hello(..) => None,
        }
    }

    /// The links whose clients have proved themselves: of whom, whence, and whether its client drains.
    pub fn all_up(&self) -> impl Iterator<Item = (&ClientId, SocketAddr, bool, &Tunnel)> {
        self.entries
            .iter()
            .filter_map(|(_, entry)| match &entry.state {
                State::Up {
                    tunnel,
                    client,
                    draining,
                } => Some((client, entry.peer, *draining, &**tunnel)),
                State::Introducing | State::Securing | State::Upgrade(_) | State::Hello(..) => None,
            })
    }

    /// Which link takes a client's new streams.
    pub fn of_client(&self, client: &ClientId) -> Option<u32> {
        self.by_client.get(client).copied()
    }

    /// The clients that there are, and their links.
    pub fn of_clients(&self) -> Vec<(ClientId, u32)> {
        let clients = self.by_client.iter();
        clients
            .map(|(client, link)| (client.clone(), *link))
            .collect()
    }

    /// Tells every client that no new streams come; which links have to say so.
    pub fn start_drain<N: Net>(&mut self, io: &mut Reactor<N, Owner>) -> Vec<u32> {
        let mut up = Vec::new();
        let mut rest = Vec::new();
        for (link, entry) in &mut self.entries {
            match &mut entry.state {
                State::Up { tunnel, .. } => {
                    tunnel.mux.goaway();
                    up.push(link as u32);
                }
                State::Introducing | State::Securing | State::Upgrade(_) | State::Hello(..) => {
                    rest.push(link)
                }
            }
        }
        for link in rest {
            io.close(self.entries.remove(link).key);
        }
        self.handshakes.clear();
        up
    }

    /// Ends the streams of all links: the process is about to end.
    pub fn end_streams(&mut self, budget: &mut Budget) -> Vec<Orphan> {
        let tunnels = self
            .entries
            .iter_mut()
            .filter_map(|(_, entry)| entry.tunnel());
        tunnels
            .flat_map(|tunnel| tunnel.mux.end_all(Reason::Draining, budget))
            .collect()
    }

    /// Says goodbye on every link: the process is about to end.
    pub fn goodbye<N: Net>(&mut self, io: &mut Reactor<N, Owner>, linger: Duration) {
        for mut entry in self.entries.drain() {
            let key = entry.key;
            if let Some(tunnel) = entry.tunnel() {
                tunnel
                    .link
                    .close(io, key, CloseReason::Done, "server stops");
            }
            io.linger(key, linger);
        }
        self.by_client.clear();
        self.handshakes.clear();
    }

    /// Whether all that was ever said to the clients is with the kernel.
    pub fn is_flushed(&mut self) -> bool {
        self.entries
            .iter_mut()
            .all(|(_, entry)| entry.tunnel().is_none_or(|tunnel| tunnel.is_flushed()))
    }

    /// Panics where the invariants do not hold.
    pub fn check_invariants(&mut self, held: usize) {
        let mut of_links = 0;
        let mut handshakes = 0;
        for (_, entry) in &mut self.entries {
            handshakes += usize::from(!matches!(entry.state, State::Up { .. }));
            if let Some(tunnel) = entry.tunnel() {
                tunnel.mux.check_invariants();
                of_links += tunnel.mux.held();
            }
        }
        assert_eq!(handshakes, self.handshakes.len(), "handshakes are counted");
        assert!(
            of_links <= held,
            "the budget holds at least what the links do"
        );
        for (client, link) in &self.by_client {
            let entry = &self.entries[*link as usize];
            assert!(
                matches!(&entry.state, State::Up { client: of, .. } if of == client),
                "a client's link is up"
            );
        }
    }
}
