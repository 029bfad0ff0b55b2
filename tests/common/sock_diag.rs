//! What the kernel knows of one socket, asked for by its addresses (sock_diag(7)).
//!
//! /proc/net/tcp tells the same, but only of all sockets at once, those in TIME-WAIT too, which after a
//! few thousand connections of other tests takes longer than what is waited for.

use std::{
    io::{self, Read},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::LazyLock,
};

use socket2::{Domain, Protocol, Socket, Type};

const AF_NETLINK: i32 = 16;
const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const AF_INET: u8 = 2;
const IPPROTO_TCP: u8 = 6;

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;

/// Where in an answer `idiag_state` stands.
const STATE_AT: usize = HEADER + 1;

/// Whoever asks for a connection that is gone is told of the listener that it came to.
const LISTENING: u8 = 10;

/// Where in an answer `idiag_rqueue` stands: behind the header, four bytes, the id, and a timer.
const UNREAD_AT: usize = HEADER + 4 + 48 + 4;

/// And `idiag_wqueue`.
const UNSENT_AT: usize = UNREAD_AT + 4;

/// What a socket holds, in bytes.
#[derive(Clone, Copy, Default)]
pub struct Queues {
    /// It has received them, and its owner has not read them.
    pub unread: u32,
    /// Its owner has written them, and the far end has not said that they are there.
    pub unsent: u32,
}

/// What the socket at `local`, connected to `remote`, holds; nothing if there is no such socket. `None` where
/// the kernel does not answer such questions.
pub fn queues(local: SocketAddr, remote: SocketAddr) -> Option<Queues> {
    static IS_ANSWERED: LazyLock<bool> = LazyLock::new(|| is_answered().unwrap_or_default());
    (*IS_ANSWERED).then(|| ask(local, remote).expect("it was answered before"))
}

/// Without its module the kernel answers as it does where there is no such socket.
fn is_answered() -> io::Result<bool> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    io::Write::write_all(&mut &near, b"?")?;
    Ok(ask(near.peer_addr()?, near.local_addr()?)?.unread == 1)
}

fn ask(local: SocketAddr, remote: SocketAddr) -> io::Result<Queues> {
    let (SocketAddr::V4(local), SocketAddr::V4(remote)) = (local, remote) else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    let mut request = Vec::new();
    // struct nlmsghdr: length (set below), kind, flags, number, sender.
    request.extend([0; 4]);
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(NLM_F_REQUEST.to_ne_bytes());
    request.extend([0; 8]);
    // struct inet_diag_req_v2: family, protocol, extensions, padding, states; then the id: ports,
    // addresses with room for IPv6, interface, and no cookie.
    request.extend([AF_INET, IPPROTO_TCP, 0, 0]);
    request.extend(u32::MAX.to_ne_bytes());
    request.extend(local.port().to_be_bytes());
    request.extend(remote.port().to_be_bytes());
    for address in [local.ip(), remote.ip()] {
        request.extend(address.octets());
        request.extend([0; 12]);
    }
    request.extend([0; 4]);
    request.extend([0xff; 8]);
    let length = request.len() as u32;
    request[..4].copy_from_slice(&length.to_ne_bytes());

    let socket = Socket::new(
        Domain::from(AF_NETLINK),
        Type::RAW,
        Some(Protocol::from(NETLINK_SOCK_DIAG)),
    )?;
    socket.send(&request)?;
    let mut answer = [0; 512];
    let length = (&socket).read(&mut answer)?;
    let kind = u16::from_ne_bytes([answer[4], answer[5]]);
    let number = |at: usize| {
        let bytes = answer[..length].get(at..at + 4)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    match (number(UNREAD_AT), number(UNSENT_AT)) {
        _ if kind == NLMSG_ERROR || answer[STATE_AT] == LISTENING => Ok(Queues::default()),
        (Some(unread), Some(unsent)) if kind == SOCK_DIAG_BY_FAMILY => {
            Ok(Queues { unread, unsent })
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
