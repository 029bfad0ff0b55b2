//! SOCKS5 users: from their greeting to a raw stream like any other.
//!
//! A message that is not whole yet goes back to where it was read from, so a front holds nothing but the
//! stage that it is at; one deadline, `request_head`, is for the whole negotiation.

use std::io;

use log::{debug, info};

use super::{
    Owner, Server,
    fronts::{Front, Spoken, State},
    guard::Verdict,
};
use crate::{
    clock::Now,
    config::{Host, Kind, Target},
    http::Body,
    key::Key,
    reactor::{Reactor, net::Net},
    socks::{
        Code, Destination, LOGIN_RIGHT, LOGIN_WRONG, MESSAGE_MAX, Message, Method, Methods,
        Refused, Stage,
    },
    tunnel::control::{ProxyConnect, Reason},
};

/// What became of a message.
enum Step {
    /// The next one may follow.
    Next,
    /// No further one is awaited: the front has a stream, or is gone.
    Over,
}

impl Server {
    /// Reads on in a front's negotiation, as far as it has come.
    pub(super) fn read_socks<N: Net>(&mut self, io: &mut Reactor<N, Owner>, front: u32, now: Now) {
        let Front { key, .. } = self.fronts[front as usize];
        // What was given back last time, and what has come since.
        let mut said: Vec<u8> = Vec::new();
        loop {
            match io.read(key, &mut self.scratch) {
                Ok(0) => return self.close_front(io, front),
                Ok(length) => said.extend_from_slice(&self.scratch[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    debug_assert!(said.len() < MESSAGE_MAX, "a longer message is whole");
                    return io.unread(key, &said);
                }
                Err(_) => return self.close_front(io, front),
            }
            let mut taken = 0;
            while let Some(&Front {
                state: State::Socks(stage),
                ..
            }) = self.fronts.get(front as usize)
            {
                match stage.read(&said[taken..]) {
                    Ok(None) => break,
                    Ok(Some((message, length))) => {
                        taken += length;
                        let step = match message {
                            Message::Greeting(methods) => self.greeted(io, front, methods),
                            Message::Login { name, password } => {
                                self.login(io, front, name, password, now)
                            }
                            Message::Connect(destination, port) => {
                                // What follows belongs to the stream.
                                io.unread(key, &said[taken..]);
                                self.connect_socks(io, front, destination, port, now)
                            }
                        };
                        if let Step::Over = step {
                            return;
                        }
                    }
                    Err(Refused::Foreign(what)) => {
                        let user = self.fronts[front as usize].user;
                        info!(user_id:% = user; "{user}: refused, {what}");
                        return self.close_front(io, front);
                    }
                    Err(Refused::Request(code)) => {
                        let user = self.fronts[front as usize].user;
                        info!(user_id:% = user; "{user}: refused, {code:?}");
                        return self.say_last(io, front, &code.answer());
                    }
                }
            }
            said.drain(..taken);
        }
    }

    /// Chooses by what the user is to say who it is.
    fn greeted<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        front: u32,
        methods: Methods<'_>,
    ) -> Step {
        let Front {
            key, proxy, user, ..
        } = self.fronts[front as usize];
        let has_users = self
            .proxies
            .find(proxy)
            .is_some_and(|proxy| proxy.options.users.is_some());
        let (method, next) = if has_users {
            (Method::Password, Stage::Login)
        } else {
            (Method::Open, Stage::Request)
        };
        if !methods.have(method) {
            debug!("{user}: refused, it does not know the method {method:?}");
            self.say_last(io, front, &Method::Unacceptable.answer());
            return Step::Over;
        }
        self.answer_socks(io, front, key, &method.answer(), next)
    }

    fn login<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        front: u32,
        name: &[u8],
        password: &[u8],
        now: Now,
    ) -> Step {
        let found = &self.fronts[front as usize];
        let (key, proxy, address) = (found.key, found.proxy, found.address());
        let users = self
            .proxies
            .find(proxy)
            .and_then(|proxy| proxy.options.users.clone());
        let verdict = match users {
            Some(users) => self.verify(proxy, &users, address, name, password, now),
            // They were taken off the proxy since it asked.
            None => Verdict::Wrong,
        };
        match verdict {
            Verdict::Right => self.answer_socks(io, front, key, &LOGIN_RIGHT, Stage::Request),
            Verdict::Wrong | Verdict::Wait(_) => {
                self.say_last(io, front, &LOGIN_WRONG);
                Step::Over
            }
        }
    }

    /// Has the target dialled, whose bytes then follow; the user is told once it is connected.
    fn connect_socks<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        front: u32,
        destination: Destination<'_>,
        port: u16,
        now: Now,
    ) -> Step {
        let Front { proxy, user, .. } = self.fronts[front as usize];
        let host = match destination {
            Destination::Address(address) => Some(Host::Address(address)),
            Destination::Name(name) => str::from_utf8(name).ok().and_then(Host::asked_for),
        };
        let Some(host) = host.filter(|_| port != 0) else {
            info!(user_id:% = user; "{user}: refused, the request names no target");
            self.say_last(io, front, &Code::Failed.answer());
            return Step::Over;
        };
        let Some(found) = self.proxies.find(proxy) else {
            self.close_front(io, front);
            return Step::Over;
        };
        let target = Target::Inet { host, port };
        let connect = ProxyConnect {
            proxy_id: found.id.clone(),
            user_id: user,
            remote_host: target.remote_host(),
            remote_port: target.remote_port(),
            protocol: Kind::Tcp.word().into(),
            request: None,
        };
        match self.open_stream(io, front, connect, Vec::new(), Body::raw(), now) {
            Ok(stream) => {
                self.fronts[front as usize].state = State::Connect(stream, Spoken::Socks);
            }
            Err(reason) => {
                info!(user_id:% = user; "{user}: refused, {reason}");
                self.say_last(io, front, &code(reason).answer());
            }
        }
        Step::Over
    }

    /// Says what the user waits for, and awaits what it says next.
    fn answer_socks<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        front: u32,
        key: Key,
        answer: &[u8],
        next: Stage,
    ) -> Step {
        // The first bytes on this connection: a socket without room for them is broken.
        if !matches!(io.write(key, answer), Ok(n) if n == answer.len()) {
            self.abort_front(io, front);
            return Step::Over;
        }
        self.fronts[front as usize].state = State::Socks(next);
        Step::Next
    }
}

/// What a user is told of a stream that came to nothing: one table from reason to code.
pub(super) fn code(reason: Reason) -> Code {
    match reason {
        Reason::NotAllowed => Code::NotAllowed,
        Reason::Unreachable | Reason::Unresolvable => Code::HostUnreachable,
        Reason::Refused => Code::Refused,
        Reason::DialTimeout
        | Reason::ResponseTimeout
        | Reason::RequestTimeout
        | Reason::HalfCloseTimeout => Code::Expired,
        Reason::TlsFailed
        | Reason::TargetBusy
        | Reason::Unsupported
        | Reason::Busy
        | Reason::Descriptors
        | Reason::Overload
        | Reason::BadResponse
        | Reason::OriginClosed
        | Reason::BadRequest
        | Reason::UserReset
        | Reason::TargetReset
        | Reason::Stalled
        | Reason::Replaced
        | Reason::LinkLost
        | Reason::Draining
        | Reason::NoClient => Code::Failed,
    }
}
