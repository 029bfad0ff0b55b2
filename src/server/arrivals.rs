//! Users' connections until they may speak: whose they are, whether they may come in, and TLS.
//!
//! Owns what comes between a listener and a front's first byte. A connection is taken for its peer's,
//! unless the peer is a balancer, which has to say first whose it is (`accept_proxy`); where that is known,
//! it is known for everything else.
//!
//! Who is refused before it was heard is reset: it is no orderly end, and leaves nothing behind in the kernel,
//! where each closed connection whose peer stays is there for another minute.

use std::net::SocketAddr;

use log::{info, trace};

use super::{
    Owner, Server,
    admission::Full,
    fronts::{Beginning, Front, State},
    introduction::{self, Introduction, Whence},
};
use crate::{
    clock::Now,
    config::Kind,
    http::{Gather, turned_away},
    key::Key,
    reactor::{
        Deadline, Reactor,
        net::{Net, Purpose},
    },
    socks::Stage,
    tunnel::ids::UserId,
};

impl Server {
    pub(super) fn user_arrived<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        proxy: u32,
        key: Key,
        peer: SocketAddr,
        now: Now,
    ) {
        let Some(found) = self.proxies.find(proxy) else {
            return io.close(key);
        };
        let is_introduced = found.options.accept_proxy.contains(peer.ip());
        let secure = found.options.tls;
        // Before a byte is read, whatever is spoken here.
        if !is_introduced && !self.proxies.admit(proxy, peer.ip(), now) {
            return io.abort(key);
        }
        let Some(found) = self.proxies.find(proxy) else {
            return io.close(key);
        };
        let users_max = found.users_max(self.config.limits.connections_per_proxy);
        let admitted = self.fronts.admission.admit(proxy, &found.client, users_max);
        let place = match admitted {
            Ok(place) => place,
            Err(full) => return self.turn_away(io, proxy, key, peer, full, now),
        };
        let user = UserId {
            port: found.address.port(),
            connected: self.users.after(now.unix.as_nanos() as u64),
            exchange: 0,
        };
        let handshake = secure.then(|| self.securing.begin(key, now.instant));
        let state = State::Introducing {
            handshake,
            port: peer.port(),
        };
        let front = Front::new(key, proxy, user, peer.ip(), place, state);
        let front = self.fronts.insert(front);
        io.set_owner(key, Owner::Front(front));
        if is_introduced || secure {
            // One deadline for both.
            let at = now.instant + self.config.timeouts.handshake;
            io.set_deadline(key, Deadline::At(at));
        }
        if !is_introduced {
            self.user_known(io, front, Whence::directly(peer), now);
        }
    }

    /// Reads on in what the balancer in front says of a connection.
    pub(super) fn introduce_user<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        front: u32,
        now: Now,
    ) {
        let found = &self.fronts[front as usize];
        let State::Introducing { port, .. } = found.state else {
            return;
        };
        let balancer = SocketAddr::new(found.address(), port);
        match introduction::read(io, found.key, &mut self.scratch) {
            Introduction::Partial => {}
            Introduction::Whole(whence) => {
                let whence = whence.unwrap_or(Whence::directly(balancer));
                if !self.proxies.admit(found.proxy, whence.source.ip(), now) {
                    return self.refuse_unheard(io, front);
                }
                self.user_known(io, front, whence, now);
                // What came behind the header has had its event.
                self.front_ready(io, front, now);
            }
            Introduction::Left => self.drop_unsecured(io, front),
            Introduction::Refused(why) => self.refuse_unintroduced(io, front, why, now),
        }
    }

    pub(super) fn refuse_unintroduced<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        front: u32,
        why: &str,
        now: Now,
    ) {
        let found = &self.fronts[front as usize];
        let address = found.address();
        if let Some(proxy) = self.proxies.find_mut(found.proxy) {
            proxy.unintroduced(address, why, now);
        }
        self.refuse_unheard(io, front);
    }

    /// A user may not come in, whatever it would have said.
    fn refuse_unheard<N: Net>(&mut self, io: &mut Reactor<N, Owner>, front: u32) {
        self.user_left_handshake(io, front);
        self.abort_front(io, front);
    }

    /// Whose connection it is, is known from here on, and that it may come from there; nothing else of it has
    /// been read. Its source is counted here, and all that is said of the user's address follows this.
    fn user_known<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        front: u32,
        whence: Whence,
        now: Now,
    ) {
        let source = whence.source;
        let counted = self.fronts.comes_from(front, source.ip(), now.instant);
        let found = &self.fronts[front as usize];
        let (key, proxy, user) = (found.key, found.proxy, found.user);
        if let Err(full) = counted {
            self.user_left_handshake(io, front);
            self.fronts.remove(front as usize);
            return self.turn_away(io, proxy, key, source, full, now);
        }
        let State::Introducing { handshake, .. } = found.state else {
            return;
        };
        let Some(found) = self.proxies.find(proxy) else {
            return self.drop_unsecured(io, front);
        };
        trace!("{user} from {source} at proxy {}", found.id);
        let Some(handshake) = handshake else {
            return self.user_may_speak(io, front, whence, now);
        };
        let Some(session) = self.tls.user(found.spec.kind.is_http()) else {
            return self.drop_unsecured(io, front);
        };
        io.start_tls(key, session, Purpose::SecureUser);
        self.fronts[front as usize].state = State::Securing(handshake, Box::new(whence));
    }

    /// There is no place for a user. Where plain HTTP is spoken it is told so, unless too many are: before it
    /// has said anything, so that the answer has no body and is right whatever is asked.
    fn turn_away<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        proxy: u32,
        key: Key,
        source: SocketAddr,
        full: Full,
        now: Now,
    ) {
        let Some(found) = self.proxies.find(proxy) else {
            return io.close(key);
        };
        self.fronts
            .refused(&found.id, source.ip(), full, now.instant);
        let is_heard = found.spec.kind.is_http() && !found.options.tls;
        if !is_heard || !self.fronts.admission.may_answer(now.instant) {
            return io.abort(key);
        }
        let (status, wait) = full.answer();
        let mut answer = Vec::new();
        turned_away(&mut answer, status, wait, now.unix);
        io.farewell_at_most(key, &answer, self.config.timeouts.linger);
    }

    /// A user's bytes are its own from here on.
    fn user_may_speak<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        front: u32,
        whence: Whence,
        now: Now,
    ) {
        let found = &mut self.fronts[front as usize];
        let Front { key, proxy, .. } = *found;
        let Some(kind) = self.proxies.find(proxy).map(|proxy| proxy.spec.kind) else {
            self.fronts.remove(front as usize);
            return io.close(key);
        };
        found.state = match kind {
            Kind::Socks5 => State::Socks(Stage::Greeting),
            Kind::Tls => State::Named(Box::new(Beginning {
                whence,
                said: Vec::new(),
            })),
            _ if kind.is_raw() => return self.begin_raw(io, front, &whence, now),
            _ => State::Head(Gather::default()),
        };
        io.set_deadline(
            key,
            Deadline::At(now.instant + self.config.timeouts.request_head),
        );
    }

    /// Goes on with the handshake of TLS.
    pub(super) fn secure_user<N: Net>(&mut self, io: &mut Reactor<N, Owner>, front: u32, now: Now) {
        let Front { key, user, .. } = self.fronts[front as usize];
        match io.handshake(key) {
            Ok(true) => {
                self.user_left_handshake(io, front);
                let state = self.fronts[front as usize].state.take();
                if let State::Securing(_, whence) = state {
                    self.user_may_speak(io, front, *whence, now);
                }
                // What came behind the handshake has had its event.
                if self.fronts.contains(front as usize) {
                    self.front_ready(io, front, now);
                }
            }
            Ok(false) => {}
            Err(error) => {
                info!(user_id:% = user; "{user}: refused, TLS: {error}");
                self.drop_unsecured(io, front);
            }
        }
    }

    /// A handshake under way has had its time, and others wait.
    pub(super) fn user_gives_way<N: Net>(&mut self, io: &mut Reactor<N, Owner>, key: Key) {
        if let Some(Owner::Front(front)) = io.owner(key) {
            self.drop_unsecured(io, front);
        }
    }

    pub(super) fn drop_unsecured<N: Net>(&mut self, io: &mut Reactor<N, Owner>, front: u32) {
        self.user_left_handshake(io, front);
        self.close_front(io, front);
    }

    pub(super) fn user_left_handshake<N: Net>(&mut self, io: &mut Reactor<N, Owner>, front: u32) {
        if let State::Introducing {
            handshake: Some(handshake),
            ..
        }
        | State::Securing(handshake, _) = self.fronts[front as usize].state
        {
            for listener in self.securing.end(handshake) {
                io.again(listener);
            }
        }
    }
}
