//! A session against a server's, over a wire in memory that is as rough as one wishes.

use std::{collections::VecDeque, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    version::{TLS12, TLS13},
};

use super::*;

/// What the two ends have in flight; reads and writes of at most `most` bytes, each of which blocks
/// once `room` bytes wait.
struct Memory {
    to_us: VecDeque<u8>,
    to_peer: VecDeque<u8>,
    ended: bool,
    most: usize,
    room: usize,
}

impl Memory {
    fn new(most: usize) -> Memory {
        Memory {
            to_us: VecDeque::new(),
            to_peer: VecDeque::new(),
            ended: false,
            most,
            room: usize::MAX,
        }
    }
}

impl Wire for Memory {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        assert!(!into.is_empty(), "never read into an empty slice");
        if self.to_us.is_empty() && !self.ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let length = into.len().min(self.most).min(self.to_us.len());
        for (byte, from) in into.iter_mut().zip(self.to_us.drain(..length)) {
            *byte = from;
        }
        Ok(length)
    }

    fn write(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        let room = self.room - self.to_peer.len().min(self.room);
        let length = bytes.len().min(self.most).min(room);
        if length == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.to_peer.extend(&bytes[..length]);
        Ok(length)
    }
}

/// The two configurations, for a server whose name is `origin.test`.
fn configs(
    versions: &[&'static SupportedProtocolVersion],
) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["origin.test".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(issuer.der().clone()).unwrap();
    let provider = Arc::new(ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    (Arc::new(client), Arc::new(server))
}

/// Ours, the server's, and the wire between them.
struct Pair {
    tls: Tls,
    server: ServerConnection,
    wire: Memory,
    scratch: Vec<u8>,
}

impl Pair {
    fn new(name: &'static str, version: &'static SupportedProtocolVersion, most: usize) -> Pair {
        let (client, server) = configs(&[version]);
        let session = ClientConnection::new(client, name.try_into().unwrap()).unwrap();
        let mut server = ServerConnection::new(server).unwrap();
        server.set_buffer_limit(None);
        Pair {
            tls: Tls::new(session.into(), Vec::new(), UNSENT_MAX),
            server,
            wire: Memory::new(most),
            scratch: vec![0; SCRATCH],
        }
    }

    /// With the handshake behind it.
    fn secured(version: &'static SupportedProtocolVersion, most: usize) -> Pair {
        let mut pair = Pair::new("origin.test", version, most);
        for _ in 0..100_000 {
            if pair.handshake().unwrap() {
                pair.peer();
                return pair;
            }
            pair.peer();
        }
        panic!("the handshake goes on for ever");
    }

    fn handshake(&mut self) -> io::Result<bool> {
        self.tls.handshake(&mut self.wire, &mut self.scratch)
    }

    /// Everything that is under way reaches the server, and what it says is under way.
    fn peer(&mut self) {
        while !self.wire.to_peer.is_empty() {
            let (bytes, _) = self.wire.to_peer.as_slices();
            let mut rest = bytes;
            let read = self.server.read_tls(&mut rest).unwrap();
            self.wire.to_peer.drain(..read);
            // What is wrong with our side, or with the server, the test sees by other signs.
            let _ = self.server.process_new_packets();
        }
        let mut out = Vec::new();
        while self.server.wants_write() {
            self.server.write_tls(&mut out).unwrap();
        }
        self.wire.to_us.extend(out);
    }

    fn say(&mut self, bytes: &[u8]) {
        self.server.writer().write_all(bytes).unwrap();
        self.peer();
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.tls.read(into, &mut self.wire, &mut self.scratch)
    }

    /// What there is to read, `most` bytes at a time, and what ended it.
    fn read_all(&mut self, most: usize) -> (Vec<u8>, Result<(), io::ErrorKind>) {
        let mut all = Vec::new();
        let mut piece = vec![0; most];
        loop {
            match self.read(&mut piece) {
                Ok(0) => return (all, Ok(())),
                Ok(read) => all.extend_from_slice(&piece[..read]),
                Err(error) => return (all, Err(error.kind())),
            }
        }
    }

    fn outlook(&mut self) -> Outlook {
        self.tls.outlook(&mut self.wire, &mut self.scratch)
    }
}

fn text(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 7 % 251) as u8).collect()
}

#[test]
fn bytes_pass_both_ways_however_the_wire_cuts_them() {
    for version in [&TLS12, &TLS13] {
        for (most, length) in [
            (1, 2000),
            (7, 20_000),
            (100, 40_000),
            (4096, 100_000),
            (usize::MAX, 100_000),
        ] {
            let mut pair = Pair::secured(version, most);
            let down = text(length);
            pair.say(&down);
            let (read, end) = pair.read_all(if most == 1 { 1 } else { 3000 });
            assert_eq!(end, Err(io::ErrorKind::WouldBlock));
            assert!(read == down, "{most}");
            assert_eq!(pair.tls.held(), 0);

            let up = text(length);
            let mut rest = &up[..];
            let mut arrived = Vec::new();
            while !rest.is_empty() {
                match pair.tls.write(rest, &mut pair.wire) {
                    Ok(written) => rest = &rest[written..],
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
                pair.peer();
                // The end of what there is shows as an error.
                let _ = pair.server.reader().read_to_end(&mut arrived);
            }
            assert!(pair.tls.is_flushed());
            assert!(arrived == up, "{most}");
        }
    }
}

#[test]
fn a_full_wire_blocks_after_one_record_and_what_was_taken_is_sent_later() {
    let mut pair = Pair::secured(&TLS13, usize::MAX);
    pair.wire.room = 1000;
    let bytes = text(50_000);
    let taken = pair.tls.write(&bytes, &mut pair.wire).unwrap();
    assert!((1..=UNSENT_MAX).contains(&taken));
    assert!(!pair.tls.is_flushed());
    assert_eq!(pair.tls.held(), taken);
    let blocked = pair.tls.write(&bytes, &mut pair.wire).unwrap_err();
    assert_eq!(blocked.kind(), io::ErrorKind::WouldBlock);
    pair.wire.room = usize::MAX;
    pair.tls.flush(&mut pair.wire).unwrap();
    assert_eq!(pair.tls.held(), 0);
    pair.peer();
    let mut arrived = Vec::new();
    let _ = pair.server.reader().read_to_end(&mut arrived);
    assert!(arrived == bytes[..taken]);
}

#[test]
fn tickets_are_no_data_and_an_answer_without_being_asked_is() {
    // TLS 1.3 sends its tickets after the handshake, which is when a connection may be parked already.
    let mut pair = Pair::secured(&TLS13, usize::MAX);
    assert!(!pair.wire.to_us.is_empty(), "tickets are under way");
    assert_eq!(pair.outlook(), Outlook::Quiet);
    assert_eq!(pair.tls.held(), 0);
    pair.server.refresh_traffic_keys().unwrap();
    pair.peer();
    assert_eq!(pair.outlook(), Outlook::Quiet);
    pair.say(b"!");
    assert_eq!(pair.outlook(), Outlook::Data);
    assert!(pair.tls.has_news(), "without another event");
    assert_eq!(pair.tls.held(), 1);
}

#[test]
fn an_end_is_one_only_if_the_peer_has_said_so() {
    for version in [&TLS12, &TLS13] {
        let mut pair = Pair::secured(version, usize::MAX);
        pair.say(b"all");
        pair.server.send_close_notify();
        pair.peer();
        pair.wire.ended = true;
        assert_eq!(pair.outlook(), Outlook::Data);
        let mut all = [0; 3];
        assert_eq!(pair.read(&mut all).unwrap(), 3);
        assert!(pair.tls.has_news(), "the end is still to be read");
        assert_eq!(pair.outlook(), Outlook::End);
        assert_eq!(pair.read(&mut all).unwrap(), 0);

        let mut cut = Pair::secured(version, usize::MAX);
        cut.say(b"not all");
        cut.wire.ended = true;
        let (read, end) = cut.read_all(100);
        assert_eq!(read, b"not all");
        assert_eq!(end, Err(io::ErrorKind::UnexpectedEof));
        let mut quiet = Pair::secured(version, usize::MAX);
        quiet.wire.ended = true;
        assert_eq!(quiet.outlook(), Outlook::Failed);
    }
}

#[test]
fn our_own_end_is_said_once_and_behind_what_was_written() {
    let mut pair = Pair::secured(&TLS13, usize::MAX);
    pair.wire.room = 10;
    let taken = pair.tls.write(b"the last words", &mut pair.wire).unwrap();
    assert_eq!(taken, 14);
    assert!(!pair.tls.finish(&mut pair.wire).unwrap());
    assert!(!pair.tls.is_finished());
    pair.wire.room = usize::MAX;
    pair.tls.flush(&mut pair.wire).unwrap();
    assert!(pair.tls.is_finished());
    assert!(pair.tls.finish(&mut pair.wire).unwrap());
    pair.peer();
    let mut arrived = Vec::new();
    pair.server.reader().read_to_end(&mut arrived).unwrap();
    assert_eq!(arrived, b"the last words");
}

#[test]
fn a_handshake_fails_with_its_reason() {
    let mut pair = Pair::new("another.test", &TLS13, usize::MAX);
    let error = loop {
        match pair.handshake() {
            Ok(done) => assert!(!done, "the certificate is for another name"),
            Err(error) => break error,
        }
        pair.peer();
    };
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(error.to_string().contains("certificate"), "{error}");

    let mut pair = Pair::new("origin.test", &TLS13, usize::MAX);
    assert!(!pair.handshake().unwrap());
    pair.wire.to_us.extend(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    assert_eq!(
        pair.handshake().unwrap_err().kind(),
        io::ErrorKind::InvalidData
    );

    let mut pair = Pair::new("origin.test", &TLS13, usize::MAX);
    assert!(!pair.handshake().unwrap());
    pair.wire.ended = true;
    assert_eq!(
        pair.handshake().unwrap_err().kind(),
        io::ErrorKind::UnexpectedEof
    );
}

#[test]
fn what_was_read_before_the_session_began_is_its_beginning() {
    let (client, server) = configs(&[&TLS13]);
    let mut peer = ClientConnection::new(client, "origin.test".try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    peer.write_tls(&mut hello).unwrap();
    for cut in 0..=hello.len() {
        let session = ServerConnection::new(server.clone()).unwrap();
        let (begun, rest) = hello.split_at(cut);
        let mut tls = Tls::new(session.into(), begun.to_vec(), UNSENT_MAX);
        assert_eq!((tls.held(), tls.has_news()), (cut, cut > 0));
        let mut wire = Memory::new(usize::MAX);
        wire.to_us.extend(rest);
        let scratch = &mut vec![0; SCRATCH];
        assert!(!tls.handshake(&mut wire, scratch).unwrap(), "{cut}");
        assert!(!wire.to_peer.is_empty(), "{cut}: the hello is answered");
        assert_eq!(tls.held(), 0, "{cut}");
    }
}

#[test]
fn many_small_records_in_one_read_are_all_there() {
    let mut pair = Pair::secured(&TLS13, usize::MAX);
    assert_eq!(pair.outlook(), Outlook::Quiet);
    // A record that ends within the next read, and small ones behind it.
    let mut all = text(16 * 1024);
    pair.server.writer().write_all(&all).unwrap();
    for n in 0..400u16 {
        let small = n.to_be_bytes().repeat(16);
        pair.server.writer().write_all(&small).unwrap();
        all.extend(small);
    }
    pair.peer();
    let late = pair.wire.to_us.split_off(16 * 1024);
    assert_eq!(pair.outlook(), Outlook::Quiet);
    pair.wire.to_us.extend(late);
    let (read, _) = pair.read_all(5000);
    assert!(read == all, "{} of {}", read.len(), all.len());
    assert_eq!(pair.tls.held(), 0);
}

/// What a record looks like that nobody with the session's keys has made.
const FORGED: &[u8] = &[
    23, 3, 3, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0,
];

#[test]
fn what_came_before_a_forged_record_is_read_and_then_the_session_has_failed_for_good() {
    for version in [&TLS12, &TLS13] {
        for most in [1, 100, usize::MAX] {
            let mut pair = Pair::secured(version, most);
            assert_eq!(pair.outlook(), Outlook::Quiet);
            pair.say(b"good");
            pair.wire.to_us.extend(FORGED);
            let (read, end) = pair.read_all(3);
            assert_eq!(
                (&read[..], end),
                (&b"good"[..], Err(io::ErrorKind::InvalidData))
            );
            for _ in 0..3 {
                let (read, end) = pair.read_all(3);
                assert_eq!(
                    (&read[..], end),
                    (&b""[..], Err(io::ErrorKind::InvalidData))
                );
                assert_eq!(pair.outlook(), Outlook::Failed);
            }
            assert!(pair.tls.has_news(), "no event will tell of it again");
            assert_eq!(pair.tls.held(), 0);
        }
    }
}
