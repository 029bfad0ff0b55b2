//! What a dial has to do yet once one of its attempts has connected: a proxy on the way is asked to lead on, and
//! the far end has to prove who it is.

use log::warn;

use super::{Progress, Whose};
use crate::{
    client::{Client, Owner, detour::Answer},
    clock::Now,
    config::Target,
    key::Key,
    reactor::{
        Deadline, Reactor,
        net::{Net, Peer, Purpose},
    },
    tunnel::control::Reason,
};

impl Client {
    /// All attempts but the winner are given up, and what is left of the deadline is all that the timer is for.
    pub(super) fn settle<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        dial: u32,
        winner: Option<Key>,
    ) {
        let found = &mut self.dials.slab[dial as usize];
        for attempt in std::mem::replace(&mut found.attempts, winner.into_iter().collect()) {
            if winner != Some(attempt) {
                io.close(attempt);
            }
        }
        found.waiting.clear();
        io.set_deadline(found.timer, Deadline::At(found.deadline));
    }

    /// The proxy is connected.
    pub(super) fn ask_proxy<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        dial: u32,
        key: Key,
        peer: Peer,
        now: Now,
    ) {
        self.settle(io, dial, Some(key));
        let found = &mut self.dials.slab[dial as usize];
        found.progress = Progress::Asking(peer);
        let Some(detour) = &found.detour else { return };
        let request = detour.request();
        // The first bytes on this connection: there is room for them, or nobody is there.
        match io.write(key, request.as_bytes()) {
            Ok(written) if written == request.len() => {
                self.proxy_answered(io, dial, key, peer, now);
            }
            Ok(_) | Err(_) => {
                let why = "CONNECT not sent";
                self.detour_failed(io, dial, Reason::Unreachable, why, now);
            }
        }
    }

    /// Reads what the proxy has said to that.
    pub(super) fn proxy_answered<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        dial: u32,
        key: Key,
        peer: Peer,
        now: Now,
    ) {
        let found = &mut self.dials.slab[dial as usize];
        let secure = found.upstream.secure;
        let Some(detour) = &mut found.detour else {
            return;
        };
        let answer = detour.answer(&mut self.scratch, |into| io.read(key, into));
        match answer {
            Answer::Partial => {}
            // Whoever speaks TLS waits for us to begin; in its plaintext this must not turn up.
            Answer::Open(behind) if secure && !behind.is_empty() => {
                let why = "bytes came before TLS was begun";
                self.detour_failed(io, dial, Reason::BadResponse, why, now);
            }
            Answer::Open(behind) => {
                io.unread(key, &behind);
                // No event will tell of it, nor of what may be readable still.
                io.again(key);
                self.reached(io, dial, key, peer, now);
            }
            Answer::Refused(reason, why) => self.detour_failed(io, dial, reason, &why, now),
        }
    }

    pub(super) fn detour_failed<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        dial: u32,
        reason: Reason,
        why: &str,
        now: Now,
    ) {
        if let Some(detour) = &self.dials.slab[dial as usize].detour {
            warn!("link {}: {}: {why}", self.config.id, detour.proxy());
        }
        self.dial_failed(io, dial, reason, now);
    }

    /// The far end is who was asked for, if it can prove that where it has to.
    pub(super) fn reached<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        dial: u32,
        key: Key,
        peer: Peer,
        now: Now,
    ) {
        if !self.dials.slab[dial as usize].upstream.secure {
            return self.dial_succeeded(io, dial, key, peer, now);
        }
        self.settle(io, dial, Some(key));
        let found = &mut self.dials.slab[dial as usize];
        found.progress = Progress::Securing(peer);
        let trust = match found.whose {
            Whose::Link => &mut self.link_tls,
            Whose::Stream(_) => &mut self.tls,
        };
        let session = match &found.upstream.target {
            Target::Inet { host, .. } => trust.session(host),
            Target::Unix(_) => Err("no certificate can be for a path".into()),
        };
        match session {
            Ok(session) => {
                let purpose = match found.whose {
                    Whose::Link => Purpose::Link,
                    Whose::Stream(_) => Purpose::SecureTarget,
                };
                io.start_tls(key, session, purpose);
                self.secure(io, dial, key, peer, now);
            }
            Err(error) => {
                warn!("{}: {error}", found.upstream);
                self.dial_failed(io, dial, Reason::TlsFailed, now);
            }
        }
    }

    /// Goes on with the handshake of TLS.
    pub(super) fn secure<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        dial: u32,
        key: Key,
        peer: Peer,
        now: Now,
    ) {
        match io.handshake(key) {
            Ok(true) => self.dial_succeeded(io, dial, key, peer, now),
            Ok(false) => {}
            Err(error) => {
                let called = self.called(&self.dials.slab[dial as usize]);
                warn!("{called} at {peer}: TLS: {error}");
                self.dial_failed(io, dial, Reason::TlsFailed, now);
            }
        }
    }
}
