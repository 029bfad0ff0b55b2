//! What must hold whatever the weather: of each process after its turns, between the two while nothing is
//! under way, and of everything in the end.
//!
//! - No stream waits for its turn while others have two.
//! - Undelivered bytes stay within the budget.
//! - A parked connection has nothing to say that its owner has not been told of, and one that is taken
//!   has nothing to say at all.
//! - The name of a connection that is gone names no other.
//! - What one side may send is what the other has granted: credit is conserved.
//! - Each stream that was opened has ended once, on either side.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use siding::{
    client::Client,
    config::{ClientId, ServerLimits},
    key::Key,
    reactor::Outlook,
    server::Server,
    tunnel::{
        frame::StreamId,
        mux::{EndCounts, LinkState},
        window::Budget,
    },
};

use crate::{
    machine::Machine,
    world::{CLIENT_HOST, World},
};

/// What was seen before.
#[derive(Default)]
pub struct Oracles {
    at_server: Queue,
    /// By the sockets of its links.
    at_client: Vec<(Key, Queue)>,
    /// The connections that were parked when the client's last turn was over.
    parked: BTreeSet<u32>,
    /// The connections that the client had then, and some of those that it had before.
    had: Vec<Key>,
    gone: VecDeque<Key>,
}

/// The streams of one link that wait for their turn.
#[derive(Default)]
struct Queue {
    turns: u64,
    waiting: BTreeMap<StreamId, Waiting>,
}

/// How a stream was first seen in its present place.
struct Waiting {
    sent: u64,
    turns: u64,
    behind: usize,
}

impl Oracles {
    pub fn after_server(
        &mut self,
        server: &mut Machine<Server>,
        limits: &ServerLimits,
        client: &ClientId,
    ) {
        let (role, io) = (&mut server.role, &server.io);
        let streams = role.counters().streams + io.lingering();
        // And what one read has brought behind a request.
        let ahead = role.users() * limits.pipelined;
        assert_within(limits.undelivered, role.undelivered(io), streams, ahead);
        self.at_server.check(role.link_of(client).as_ref());
    }

    /// The same of a server that drains, while another has its place.
    pub fn after_former(&mut self, former: &Machine<Server>, limits: &ServerLimits) {
        let (role, io) = (&former.role, &former.io);
        let streams = role.counters().streams + io.lingering();
        let ahead = role.users() * limits.pipelined;
        assert_within(limits.undelivered, role.undelivered(io), streams, ahead);
    }

    /// It has stopped, and was not killed.
    pub fn former_is_over(&self, former: &Machine<Server>) {
        let role = &former.role;
        each_has_ended("former server", role.opened(), role.ends());
    }

    /// Another client is started: it has nothing of the one before.
    pub fn client_starts(&mut self) {
        self.at_client.clear();
        self.parked.clear();
        self.had.clear();
        self.gone.clear();
    }

    pub fn after_client(&mut self, client: &mut Machine<Client>, budget: usize, world: &mut World) {
        let role = &client.role;
        let streams = role.streams() + client.io.lingering();
        assert_within(budget, role.undelivered(&client.io), streams, 0);
        let parked: BTreeSet<u32> = role.parked_keys().map(|key| key.index).collect();
        for index in &parked {
            assert!(
                !world.is_untold(CLIENT_HOST, *index),
                "a parked connection has news that nobody will hear of"
            );
        }
        let links: Vec<(Key, LinkState)> = role.link_states().collect();
        let streams = links.iter().flat_map(|(_, link)| &link.streams);
        for index in streams.filter_map(|stream| Some(stream.key?.index)) {
            assert!(
                !self.parked.contains(&index) || !world.has_news(CLIENT_HOST, index),
                "a connection was taken that had ended, or spoken, by then"
            );
        }
        self.parked = parked;
        self.at_client = links
            .iter()
            .map(|(key, link)| {
                let of_link = self.at_client.iter().position(|(of, _)| of == key);
                let mut queue =
                    of_link.map_or_else(Queue::default, |at| self.at_client.swap_remove(at).1);
                queue.check(Some(link));
                (*key, queue)
            })
            .collect();
        if let [_, leaving @ ..] = &links[..]
            && role.is_linked()
        {
            for (_, link) in leaving {
                world.tally.count(TWO_LINKS);
                world.tally.add(LEFT_STREAMS, link.streams.len() as u64);
            }
        }
        let has: Vec<Key> = (links.iter().flat_map(|(_, link)| &link.streams))
            .filter_map(|stream| stream.key)
            .chain(role.parked_keys())
            .collect();
        let gone = self.had.iter().filter(|key| !has.contains(key));
        self.gone.extend(gone.copied());
        self.gone.drain(..self.gone.len().saturating_sub(GONE_MAX));
        self.had = has;
        for key in &self.gone {
            let found = client.io.outlook(*key);
            assert_eq!(found, Outlook::Failed, "{key:?} is gone, and names another");
        }
    }

    /// To be called when either has had a turn.
    pub fn between(
        &self,
        server: &mut Machine<Server>,
        client: &Client,
        id: &ClientId,
        world: &mut World,
    ) {
        if !world.are_links_quiet() {
            return;
        }
        // Nobody has two links to one server.
        let leads = |key: Key| world.far_host(CLIENT_HOST, key.index) == Some(server.host);
        let far = client.link_states().find(|(key, _)| leads(*key));
        let (Some(near), Some((_, far))) = (server.role.link_of(id), far) else {
            return;
        };
        if !near.is_flushed || !far.is_flushed {
            return;
        }
        let far: BTreeMap<_, _> = far.streams.iter().map(|far| (far.id, far)).collect();
        for near in &near.streams {
            if let Some(far) = far.get(&near.id) {
                assert_eq!(near.credit, far.granted, "to the client: {near:?}, {far:?}");
                assert_eq!(far.credit, near.granted, "to the server: {near:?}, {far:?}");
                world.tally.count("looked at: credit of a stream");
            }
        }
    }

    /// Nobody is there any more.
    pub fn at_rest(&self, server: &Machine<Server>, client: &Machine<Client>) {
        each_has_ended("server", server.role.opened(), server.role.ends());
        each_has_ended("client", client.role.opened(), client.role.ends());
        assert_eq!(server.role.undelivered(&server.io), 0, "held by the server");
        assert_eq!(client.role.undelivered(&client.io), 0, "held by the client");
    }
}

impl Queue {
    fn check(&mut self, link: Option<&LinkState>) {
        let Some(link) = link.filter(|link| link.turns >= self.turns) else {
            // Another link, or none.
            *self = Queue::default();
            return;
        };
        self.turns = link.turns;
        let before = std::mem::take(&mut self.waiting);
        for stream in &link.streams {
            let Some(behind) = stream.waits_behind else {
                continue;
            };
            let seen = before
                .get(&stream.id)
                .filter(|seen| seen.sent == stream.sent);
            if let Some(seen) = seen {
                let passed = link.turns - seen.turns;
                assert!(
                    passed <= seen.behind as u64,
                    "behind {} others, {passed} turns ago: {stream:?}",
                    seen.behind
                );
            }
            let waiting = seen.map_or(
                Waiting {
                    sent: stream.sent,
                    turns: link.turns,
                    behind,
                },
                |seen| Waiting { ..*seen },
            );
            self.waiting.insert(stream.id, waiting);
        }
    }
}

/// Streams are refused above three quarters, and each that is there, or of which only the rest is, may
/// still get what its window began with.
fn assert_within(budget: usize, held: usize, streams: usize, ahead: usize) {
    let begins = Budget::new(budget).window_initial() as usize;
    let most = budget + streams * begins + ahead;
    assert!(held <= most, "{held} bytes held by {streams} streams");
}

fn each_has_ended(who: &str, opened: u64, ends: &EndCounts) {
    assert_eq!(
        opened,
        ends.total(),
        "{who}: each stream ends once: {:?}",
        ends.iter()
            .filter(|(_, count)| *count > 0)
            .collect::<Vec<_>>()
    );
}

/// A client had a link beside that which takes new streams.
pub const TWO_LINKS: &str = "looked at: a link that leaves, beside another";
/// And streams in it.
pub const LEFT_STREAMS: &str = "looked at: a stream of such a link";

/// Names that are gone and still asked for: more than there are sockets at a time.
const GONE_MAX: usize = 64;
