//! From one process to the next: what is passed on besides the listeners, and when.
//!
//! ```text
//!   SIGUSR2 --> a new process is started --> it has failed: nothing has changed
//!                                       \--> it is at work: this one takes nothing new, and drains
//! ```
//!
//! A listener finds its proxy by its address. What a configuration does not say of them is in the notes:
//! which ports the system has chosen, and what clients have exposed. That is open again before its client
//! comes, as if the client had been away for a moment. Users wait for a client that was there and has not come
//! yet, instead of being refused.

use std::{
    collections::HashSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use log::{error, info, warn};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Owner, Server, proxies::Passed};
use crate::{
    clock::Now,
    config::{ClientId, Spec},
    key::Key,
    reactor::{Deadline, Reactor, net::Net},
    stage::Stage,
};

/// What one process tells the next, which may be a newer version: absent fields are nothing, and others are
/// passed over.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Notes {
    /// Where clients connect.
    listen: Option<SocketAddr>,
    /// Proxies of the configuration on ports that the system has chosen.
    chosen: Vec<Chosen>,
    /// What clients have exposed.
    exposed: Vec<ExposedNote>,
    /// Which clients were there.
    clients: HashSet<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Chosen {
    client: String,
    spec: String,
    address: SocketAddr,
}

/// A proxy that a client has exposed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ExposedNote {
    pub client: String,
    pub spec: String,
    pub options: Map<String, Value>,
    pub address: SocketAddr,
}

impl Notes {
    /// What the process before this one has left; `None` where there was none.
    pub fn read<N: Net>(io: &mut Reactor<N, Owner>) -> Option<Notes> {
        let bytes = io.notes()?;
        match serde_json::from_slice(&bytes) {
            Ok(notes) => Some(notes),
            Err(error) => {
                warn!("the notes of the process before this one are of no use: {error}");
                None
            }
        }
    }

    /// Where clients are to connect: where they did, if the configuration lets the system choose the port.
    pub fn listen(&self, asked: SocketAddr) -> SocketAddr {
        match self.listen {
            Some(had) if asked.port() == 0 && asked.ip() == had.ip() => had,
            _ => asked,
        }
    }

    /// Where a proxy of the configuration is to be: where it was, if the configuration lets the system choose the
    /// port.
    pub fn chosen(&mut self, client: &ClientId, spec: &Spec, asked: SocketAddr) -> SocketAddr {
        if asked.port() != 0 {
            return asked;
        }
        let spec = spec.to_string();
        let is_it = |chosen: &Chosen| {
            chosen.client == client.as_str()
                && chosen.spec == spec
                && chosen.address.ip() == asked.ip()
        };
        match self.chosen.iter().position(is_it) {
            Some(index) => self.chosen.swap_remove(index).address,
            None => asked,
        }
    }
}

/// Clients that were there at the process before this one, and are to come.
#[derive(Debug)]
pub(super) struct Awaited {
    clients: HashSet<String>,
    since: Instant,
}

/// The process that was started to take over, until it has.
#[derive(Debug)]
pub(super) struct Upgrade {
    timer: Key,
    process: u32,
}

impl Server {
    /// What the next process must know.
    pub(super) fn notes(&self) -> Vec<u8> {
        let mut notes = Notes {
            listen: Some(self.address),
            ..Notes::default()
        };
        for passed in self.proxies.passed() {
            match passed {
                Passed::Chosen(client, spec, address) => notes.chosen.push(Chosen {
                    client: client.to_string(),
                    spec: spec.to_string(),
                    address,
                }),
                Passed::Exposed(note) => notes.exposed.push(note),
            }
        }
        let clients = self.links.of_clients().into_iter();
        notes
            .clients
            .extend(clients.map(|(client, _)| client.to_string()));
        // Who starts a third process at once starts it before all have come to this one.
        notes.clients.extend(
            self.awaited
                .iter()
                .flat_map(|awaited| awaited.clients.clone()),
        );
        serde_json::to_vec(&notes).expect("notes are plain data")
    }

    /// Opens what clients had exposed at the process before this one, for them to find.
    pub(super) fn take_over<N: Net>(&mut self, io: &mut Reactor<N, Owner>, notes: Notes, now: Now) {
        for note in notes.exposed {
            let (client, address) = (note.client.clone(), note.address);
            if let Err(reason) = self.restore(io, note, now) {
                warn!("the proxy of client {client} on {address} is not taken over: {reason}");
            }
        }
        self.awaited = Some(Awaited {
            clients: notes.clients,
            since: now.instant,
        });
    }

    /// Until when users of a listener wait for clients, if they do. Where one has come, and they may be meant for
    /// another, that is not for long.
    pub(super) fn users_wait(&mut self, listener: u32, now: Now) -> Option<Instant> {
        let awaited = self.awaited.as_ref()?;
        if now.instant >= awaited.since + CLIENTS_AWAITED {
            self.awaited = None;
            return None;
        }
        let (mut some_here, mut some_away) = (false, false);
        for proxy in self.proxies.of_listener(listener) {
            some_here |= proxy.link.is_some();
            some_away |= proxy.link.is_none() && awaited.clients.contains(proxy.client.as_str());
        }
        let most = match some_here {
            false => CLIENTS_AWAITED,
            true => OTHERS_AWAITED,
        };
        let until = awaited.since + most;
        (some_away && now.instant < until).then_some(until)
    }

    /// A client is there: its users need wait no longer.
    pub(super) fn admit_waiting<N: Net>(&mut self, io: &mut Reactor<N, Owner>, link: u32) {
        if self.awaited.is_some() {
            for listener in self.proxies.listeners_of(link) {
                io.again(listener);
            }
        }
    }

    /// Starts a new process, which is to take over.
    pub(super) fn start_successor<N: Net>(&mut self, io: &mut Reactor<N, Owner>, now: Now) {
        if self.stage.is_ending() {
            return warn!("upgrade: this process stops already");
        }
        match io.start_successor(&self.notes()) {
            Ok(process) => {
                info!("upgrade: process {process} is to take over");
                let at = Deadline::At(now.instant + SUCCESSOR_MAX);
                let timer = io.timer(Owner::Upgrade, at);
                self.upgrade = Some(Upgrade { timer, process });
            }
            Err(reason) => error!("upgrade: nothing has changed: {reason}"),
        }
    }

    /// The new process is at work, or has failed.
    pub(super) fn successor_heard<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        outcome: Result<(), String>,
        now: Now,
    ) {
        let Some(Upgrade { timer, process }) = self.upgrade.take() else {
            return;
        };
        io.close(timer);
        match outcome {
            Ok(()) => {
                info!("upgrade: process {process} has taken over");
                if self.stage == Stage::Running {
                    self.drain(io, now);
                    // Whoever looks after the service is to meet the one that goes on.
                    if let Some(mut admin) = self.admin.take() {
                        admin.close(io);
                    }
                }
            }
            Err(reason) => error!("upgrade: nothing has changed: {reason}"),
        }
    }

    /// The new process has said nothing for so long that it never will.
    pub(super) fn successor_late<N: Net>(&mut self, io: &mut Reactor<N, Owner>) {
        if let Some(process) = self.end_successor(io) {
            error!(
                "upgrade: nothing has changed: process {process} was not at work within {SUCCESSOR_MAX:?}"
            );
        }
    }

    /// This process is to stop, which is not meant to leave another.
    pub(super) fn stop_upgrade<N: Net>(&mut self, io: &mut Reactor<N, Owner>) {
        if let Some(process) = self.end_successor(io) {
            info!("upgrade: process {process} was not at work yet, and stops, too");
        }
    }

    /// Ends the process that was to take over, and has not yet.
    fn end_successor<N: Net>(&mut self, io: &mut Reactor<N, Owner>) -> Option<u32> {
        let Upgrade { timer, process } = self.upgrade.take()?;
        io.close(timer);
        io.give_up_successor();
        Some(process)
    }
}

/// How long users wait for clients that were there a moment ago. A client comes back at once; users of one
/// that does not are told so in the end.
const CLIENTS_AWAITED: Duration = Duration::from_secs(10);

/// How long at most those of them wait whose client may be there. Clients come within a few round trips; one
/// that has died meanwhile must not keep the users of all others out.
const OTHERS_AWAITED: Duration = Duration::from_secs(3);

/// How long a new process may take to read its configuration and open its listeners.
const SUCCESSOR_MAX: Duration = Duration::from_secs(30);
