//! A WebSocket peer in raw bytes, which may do what no siding would.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
};

use siding::tunnel::proof::{Challenge, Prover, from_hex};

use super::{PATIENCE, connect, with_deadlines};

/// The example key of RFC 6455 §1.3 and the answer that belongs to it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Our mask: any four bytes are lawful.
const MASK: [u8; 4] = [0x5a, 0x01, 0xf0, 0x33];

/// What a siding client asks for beside the WebSocket itself; the nonce is 32 bytes in hex.
pub const SUBPROTOCOL: &str = "Sec-WebSocket-Protocol: siding.1";
/// See [`SUBPROTOCOL`].
pub const NONCE: &str =
    "Siding-Nonce: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Kinds of frames, from the table in the wire format.
pub mod kind {
    /// The client says who it is.
    pub const HELLO: u8 = 1;
    /// The server accepts it.
    pub const WELCOME: u8 = 2;
    /// The client asks for a listener.
    pub const PROXY_OPEN: u8 = 3;
    /// What became of it.
    pub const PROXY_OPENED: u8 = 4;
    /// A user is there.
    pub const PROXY_CONNECT: u8 = 5;
    /// The target is connected.
    pub const PROXY_CONNECTED: u8 = 6;
    /// Bytes of a stream.
    pub const PROXY_DATA: u8 = 7;
    /// More bytes may be sent.
    pub const PROXY_CREDIT: u8 = 8;
    /// The stream is over.
    pub const PROXY_DISCONNECT: u8 = 9;
    /// Both directions are raw from here on.
    pub const PROXY_UPGRADED: u8 = 10;
    /// No later stream is taken.
    pub const GOAWAY: u8 = 11;
    /// The client wants a listener no more.
    pub const PROXY_CLOSE: u8 = 12;
}

/// A connection that was upgraded, over TCP or whatever else.
pub struct WebSocketPeer<S = TcpStream> {
    stream: S,
    /// The head of the answer to the upgrade.
    pub answer: String,
    /// Whether we are the server, which masks nothing.
    is_server: bool,
}

/// How the server ended a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A close frame with its code and reason.
    Closed(u16, String),
    /// The end of the stream without a word.
    Ended,
    /// A reset.
    Reset,
}

impl WebSocketPeer {
    /// Asks for an upgrade with these further fields (each `Name: value`).
    ///
    /// # Errors
    /// The whole answer when it is not 101.
    pub fn upgrade(address: SocketAddr, fields: &[&str]) -> Result<Self, String> {
        let mut stream = connect(address);
        stream
            .write_all(request(address, fields).as_bytes())
            .expect("the server takes a request");
        let answer = read_head(&mut stream).expect("the server answers an upgrade");
        if answer.starts_with("HTTP/1.1 101 ") {
            assert!(
                answer.contains(ACCEPT),
                "the answer that belongs to the key: {answer}"
            );
            return Ok(Self {
                stream,
                answer,
                is_server: false,
            });
        }
        let mut rest = String::new();
        stream.read_to_string(&mut rest).ok();
        Err(answer + &rest)
    }

    /// Upgrades as a siding client does.
    pub fn siding(address: SocketAddr) -> Self {
        Self::upgrade(address, &[SUBPROTOCOL, NONCE]).expect("a siding client is upgraded")
    }

    /// Upgrades, says hello as `id` to a server without a token, and waits for its welcome.
    pub fn welcomed(address: SocketAddr, id: &str) -> Self {
        let mut peer = Self::siding(address);
        peer.send_binary(&siding_frame(0, kind::HELLO, 0, &hello(id)))
            .expect("it is read");
        let welcome = peer.wait_for_message();
        assert_eq!(
            welcome.get(8),
            Some(&kind::WELCOME),
            "welcome follows hello: {welcome:?}"
        );
        peer
    }

    /// Connects and asks for an upgrade as a siding client does; the answer is still to be read.
    ///
    /// # Errors
    /// The connection's: nobody listens.
    pub fn knock(address: SocketAddr) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        with_deadlines(&stream);
        stream.write_all(request(address, &[SUBPROTOCOL, NONCE]).as_bytes())?;
        Ok(stream)
    }

    /// Reads the answer to a [`knock`](Self::knock), says hello as `id` to a server without a token, and
    /// waits for its welcome.
    ///
    /// # Errors
    /// The connection's: the server has ended it.
    ///
    /// # Panics
    /// When the server says anything else.
    pub fn enter(mut stream: TcpStream, id: &str) -> io::Result<Self> {
        let answer = read_head(&mut stream)?;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        let mut peer = Self {
            stream,
            answer,
            is_server: false,
        };
        peer.send_binary(&siding_frame(0, kind::HELLO, 0, &hello(id)))?;
        let (opcode, welcome) = peer.read_frame()?;
        assert_eq!((opcode, welcome.get(8)), (0x2, Some(&kind::WELCOME)));
        Ok(peer)
    }

    /// Takes a siding client in, as a server would, up to the upgrade.
    ///
    /// # Errors
    /// The connection's; `InvalidData` for a request without a key.
    pub fn accept(mut stream: TcpStream) -> io::Result<Self> {
        let request = read_head(&mut stream)?;
        let key = request.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("sec-websocket-key")
                .then_some(value)
        });
        let key = key.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, request.clone()))?;
        let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\n{SUBPROTOCOL}\r\n{NONCE}\r\n\r\n"
        );
        stream.write_all(answer.as_bytes())?;
        Ok(Self {
            stream,
            answer,
            is_server: true,
        })
    }

    /// The same connection once more, for another thread.
    ///
    /// # Errors
    /// There are no descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            stream: self.stream.try_clone()?,
            answer: self.answer.clone(),
            is_server: self.is_server,
        })
    }
}

impl<S: Read + Write> WebSocketPeer<S> {
    /// Upgrades as a siding client does, over a connection that is there already.
    ///
    /// # Errors
    /// The connection's; `InvalidData` with the answer when it is not 101.
    pub fn begin(mut stream: S, host: SocketAddr) -> io::Result<Self> {
        stream.write_all(request(host, &[SUBPROTOCOL, NONCE]).as_bytes())?;
        let answer = read_head(&mut stream)?;
        match answer.starts_with("HTTP/1.1 101 ") {
            true => Ok(Self {
                stream,
                answer,
                is_server: false,
            }),
            false => Err(io::Error::new(io::ErrorKind::InvalidData, answer)),
        }
    }

    /// Says hello as `id` with the proof that it knows `token`.
    ///
    /// # Errors
    /// The connection's.
    ///
    /// # Panics
    /// When the answer to the upgrade has no nonce.
    pub fn prove(&mut self, id: &str, token: &str) -> io::Result<()> {
        let challenge = Challenge {
            client: nonce(NONCE),
            server: self
                .answer
                .lines()
                .find(|line| line.starts_with("Siding-Nonce: "))
                .map(nonce)
                .expect("a server says its nonce"),
        };
        let proof = challenge.prove(token.as_bytes(), Prover::Client, id);
        let hello =
            format!(r#"{{"id":"{id}","proof":"{proof}","window":65536,"version":"0.0.0"}}"#);
        self.send_binary(&siding_frame(0, kind::HELLO, 0, hello.as_bytes()))
    }

    /// The connection below.
    pub fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The payload of the next binary message.
    pub fn wait_for_message(&mut self) -> Vec<u8> {
        loop {
            match self.read_frame().expect("a message") {
                (0x2, payload) => return payload,
                (0x8, payload) => panic!("closed: {}", String::from_utf8_lossy(&payload)),
                _ => {}
            }
        }
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The connection's: the server may have had enough.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a text message.
    ///
    /// # Errors
    /// The connection's.
    pub fn send_text(&mut self, text: &str) -> io::Result<()> {
        self.send(0x1, text.as_bytes())
    }

    /// Sends a binary message.
    ///
    /// # Errors
    /// The connection's.
    pub fn send_binary(&mut self, payload: &[u8]) -> io::Result<()> {
        self.send(0x2, payload)
    }

    /// Sends a close frame and goes on reading.
    ///
    /// # Errors
    /// The connection's.
    pub fn send_close(&mut self, code: u16, reason: &str) -> io::Result<()> {
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend(reason.as_bytes());
        self.send(0x8, &payload)
    }

    fn send(&mut self, opcode: u8, payload: &[u8]) -> io::Result<()> {
        let bytes = match self.is_server {
            true => unmasked_frame(opcode, payload),
            false => frame(opcode, payload),
        };
        self.send_raw(&bytes)
    }

    /// Reads until the far side ends the connection, passing over its messages.
    pub fn wait_for_refusal(mut self) -> Refusal {
        loop {
            match self.read_frame() {
                Ok((0x8, payload)) if payload.len() >= 2 => {
                    let code = u16::from_be_bytes([payload[0], payload[1]]);
                    let reason = String::from_utf8_lossy(&payload[2..]).into_owned();
                    return Refusal::Closed(code, reason);
                }
                Ok((0x8, _)) => return Refusal::Closed(1005, String::new()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Refusal::Ended;
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Refusal::Reset;
                }
                Err(error) => panic!("the server neither answers nor closes: {error}"),
            }
        }
    }

    /// The opcode and payload of the next frame.
    ///
    /// # Errors
    /// The connection's.
    pub fn read_frame(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head)?;
        let length = match head[1] & 0x7f {
            126 => {
                let mut length = [0; 2];
                self.stream.read_exact(&mut length)?;
                u64::from(u16::from_be_bytes(length))
            }
            127 => {
                let mut length = [0; 8];
                self.stream.read_exact(&mut length)?;
                u64::from_be_bytes(length)
            }
            length => u64::from(length),
        };
        let is_masked = head[1] & 0x80 != 0;
        assert_eq!(
            is_masked, self.is_server,
            "a client masks all, a server nothing"
        );
        assert!(
            length <= 1 << 20,
            "no message of siding is that long: {length}"
        );
        let mut mask = [0; 4];
        if is_masked {
            self.stream.read_exact(&mut mask)?;
        }
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload)?;
        apply(mask, &mut payload);
        Ok((head[0] & 0x0f, payload))
    }
}

/// Asks for an upgrade, with these further fields.
pub fn request(address: SocketAddr, fields: &[&str]) -> String {
    let mut request = format!(
        "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
    );
    for field in fields {
        request.push_str(field);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    request
}

/// A frame of siding.1: stream, kind, flags, length, payload.
pub fn siding_frame(stream: u64, kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = stream.to_be_bytes().to_vec();
    frame.extend([kind, flags]);
    frame.extend((payload.len() as u16).to_be_bytes());
    frame.extend(payload);
    frame
}

/// The frames of a message: stream, kind and payload of each.
///
/// # Panics
/// When it ends within one.
pub fn frames(mut message: &[u8]) -> Vec<(u64, u8, &[u8])> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = message.split_first_chunk::<12>() {
        let stream = u64::from_be_bytes(head[..8].try_into().expect("eight bytes"));
        let length = u16::from_be_bytes([head[10], head[11]]).into();
        let (payload, rest) = rest.split_at(length);
        frames.push((stream, head[8], payload));
        message = rest;
    }
    assert!(message.is_empty(), "a message of whole frames");
    frames
}

/// The hello of a client without a token.
pub fn hello(id: &str) -> Vec<u8> {
    format!(r#"{{"id":"{id}","window":65536,"version":"0.0.0"}}"#).into_bytes()
}

/// Sends `request` on a fresh connection and returns all that comes until the server closes.
pub fn text_of_http_answer(address: SocketAddr, request: &str) -> String {
    let mut stream = connect(address);
    stream
        .write_all(request.as_bytes())
        .expect("the server takes a request");
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .expect("the server answers and closes");
    String::from_utf8_lossy(&answer).into_owned()
}

/// A whole masked WebSocket frame.
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = unmasked_frame(opcode, payload);
    let head = frame.len() - payload.len();
    frame[1] |= 0x80;
    apply(MASK, &mut frame[head..]);
    frame.splice(head..head, MASK);
    frame
}

/// A whole WebSocket frame as a server sends it.
fn unmasked_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..=125 => frame.push(length as u8),
        length @ 126..=0xffff => {
            frame.push(126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(payload);
    frame
}

fn apply(mask: [u8; 4], payload: &mut [u8]) {
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// Reads up to and with the empty line, and not a byte further.
fn read_head(stream: &mut impl Read) -> io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// The number in a `Siding-Nonce` field.
fn nonce(field: &str) -> [u8; 32] {
    let mut nonce = [0; 32];
    let (_, digits) = field.split_once(": ").expect("a name and a value");
    assert!(from_hex(digits.trim_end(), &mut nonce), "a nonce: {field}");
    nonce
}
