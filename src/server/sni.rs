//! Which name a TLS user asks for, before anybody answers: its connection goes to the target as it is.
//!
//! The beginning of the handshake is read, looked at and given back once it is whole; until then it is held
//! and counted as a partial request head is. What is no TLS is closed; a name that leads nowhere is told so, as
//! RFC 6066 §3 has it.

use std::io;

use log::{debug, info};
use rustls::server::Acceptor;

use super::{
    Owner, Server,
    fronts::{Front, State},
};
use crate::{
    clock::Now,
    config::Host,
    reactor::{Reactor, net::Net},
};

impl Server {
    /// Reads as much of a front's first message as has come, and opens its stream once it is whole.
    pub(super) fn read_hello<N: Net>(&mut self, io: &mut Reactor<N, Owner>, front: u32, now: Now) {
        let Front {
            key,
            user,
            state: State::Named(beginning),
            ..
        } = &mut self.fronts[front as usize]
        else {
            return;
        };
        let (key, user) = (*key, *user);
        let mut said = std::mem::take(&mut beginning.said);
        self.shared.budget.drop_head(said.len());
        loop {
            match io.read(key, &mut self.scratch) {
                Ok(1..) if said.len() > HELLO_MAX => {
                    info!(user_id:% = user; "{user}: refused, its TLS hello is too long");
                    return self.close_front(io, front);
                }
                Ok(length @ 1..) => said.extend_from_slice(&self.scratch[..length]),
                Ok(0) => return self.close_front(io, front),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return self.close_front(io, front),
            }
        }
        let name = match name_in(&said) {
            Hello::Partial => return self.hold_hello(io, front, said),
            Hello::Whole(name) => name,
            Hello::Foreign(why) => {
                info!(user_id:% = user; "{user}: refused, {why}");
                return self.close_front(io, front);
            }
        };
        io.unread(key, &said);
        let host = name.as_deref().and_then(Host::asked_for);
        let Front { proxy, .. } = self.fronts[front as usize];
        let Some(found) = self.proxies.closest(proxy, host.as_ref(), "/") else {
            info!(user_id:% = user; "{user}: refused, TLS for {name:?} leads nowhere");
            let unknown = UNRECOGNIZED_NAME;
            return self.say_last(io, front, &unknown);
        };
        if let Err(refused) = self.enter(front, found, now) {
            debug!("{user}: refused, {}", refused.reason);
            return self.close_front(io, front);
        }
        debug!("{user}: TLS for {name:?}");
        if let State::Named(beginning) = self.fronts[front as usize].state.take() {
            self.begin_raw(io, front, &beginning.whence, now);
        }
    }

    /// The rest has yet to come.
    fn hold_hello<N: Net>(&mut self, io: &mut Reactor<N, Owner>, front: u32, said: Vec<u8>) {
        let Front {
            user,
            state: State::Named(beginning),
            ..
        } = &mut self.fronts[front as usize]
        else {
            return;
        };
        let user = *user;
        let held = said.len();
        beginning.said = said;
        if !self.shared.budget.hold_head(0, held) {
            self.overloaded += 1;
            info!(user_id:% = user; "{user}: refused, too many half heads");
            self.forget_head(front);
            self.close_front(io, front);
        }
    }
}

/// What the first bytes of a connection are.
#[derive(Debug, PartialEq, Eq)]
enum Hello {
    /// More has to come.
    Partial,
    /// A whole hello, and the name it asks for, in lower case.
    Whole(Option<String>),
    /// Not the beginning of TLS; why.
    Foreign(String),
}

fn name_in(said: &[u8]) -> Hello {
    // The parser starts from the first byte each time: it is asked once the first record is whole.
    let Some((&[kind, _, _, high, low], rest)) = said.split_first_chunk() else {
        return match said.first() {
            Some(&kind) if kind != HANDSHAKE => Hello::Foreign("no TLS".into()),
            _ => Hello::Partial,
        };
    };
    if kind != HANDSHAKE {
        return Hello::Foreign("no TLS".into());
    }
    if rest.len() < usize::from(u16::from_be_bytes([high, low])) {
        return Hello::Partial;
    }
    let mut acceptor = Acceptor::default();
    let mut unread = said;
    loop {
        match acceptor.read_tls(&mut unread) {
            Ok(0) => return Hello::Partial,
            Ok(_) => {}
            Err(error) => return Hello::Foreign(error.to_string()),
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let name = accepted.client_hello().server_name().map(str::to_owned);
                return Hello::Whole(name);
            }
            Ok(None) => {}
            Err((error, _)) => return Hello::Foreign(format!("TLS: {error}")),
        }
    }
}

/// The content type of a record (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;

/// The longest hello: one record. Those with post-quantum keys have two kilobytes.
const HELLO_MAX: usize = 16 * 1024 + 5;

/// A fatal alert, `unrecognized_name` (RFC 8446 §6.2), in a record of its own.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{
        ClientConfig, ClientConnection, RootCertStore, crypto::ring, pki_types::ServerName,
    };

    use super::*;

    fn hello(name: &'static str) -> Vec<u8> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring knows them")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from(name).expect("a name");
        let mut session = ClientConnection::new(Arc::new(config), name).expect("a session");
        let mut said = Vec::new();
        session.write_tls(&mut said).expect("a vector takes all");
        said
    }

    #[test]
    fn the_name_is_known_once_the_hello_is_whole() {
        for (asked, name) in [("a.test", Some("a.test")), ("127.0.0.1", None)] {
            let said = hello(asked);
            for end in 0..said.len() {
                assert_eq!(name_in(&said[..end]), Hello::Partial, "{end}");
            }
            let whole = Hello::Whole(name.map(str::to_owned));
            assert_eq!(name_in(&said), whole);
            // What comes behind it does not matter.
            let mut more = said;
            more.extend_from_slice(&[0xff; 100]);
            assert_eq!(name_in(&more), whole);
        }
    }

    #[test]
    fn a_hello_in_several_records_is_put_together() {
        let said = hello("a.test");
        let (_, message) = said.split_at(5);
        let mut pieces = Vec::new();
        for piece in message.chunks(50) {
            pieces.extend_from_slice(&[HANDSHAKE, 3, 1, 0, piece.len() as u8]);
            pieces.extend_from_slice(piece);
        }
        for end in 0..pieces.len() {
            assert_eq!(name_in(&pieces[..end]), Hello::Partial, "{end}");
        }
        assert_eq!(name_in(&pieces), Hello::Whole(Some("a.test".into())));
    }

    #[test]
    fn what_is_no_tls_is_known_by_its_first_byte() {
        for foreign in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"\0",
            b"SSH-2.0-x\r\n",
            &[0x80, 46, 1, 3, 1],
        ] {
            for end in 1..=foreign.len() {
                assert!(
                    matches!(name_in(&foreign[..end]), Hello::Foreign(_)),
                    "{foreign:?}"
                );
            }
        }
        let mut garbled = hello("a.test");
        garbled[5] = 9;
        assert!(matches!(name_in(&garbled), Hello::Foreign(_)));
        assert!(matches!(
            name_in(&[HANDSHAKE, 3, 1, 0xff, 0xff]),
            Hello::Partial
        ));
    }
}
