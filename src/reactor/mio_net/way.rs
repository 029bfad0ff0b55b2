//! Which way packets take, by asking the system where it would send them: nothing is sent. (A UDP socket that is
//! connected has chosen its route and its own address by then.)

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

use super::{Peer, Stream, Way};

/// The way of a stream's packets.
pub(super) fn of(stream: &Stream) -> Way {
    let (Ok(mut own), Ok(Peer::Inet(peer))) = (stream.near_address(), stream.peer()) else {
        return Way::Same;
    };
    if peer.ip().is_loopback() {
        return Way::Same;
    }
    match source_towards(peer) {
        // Nobody can tell: descriptors have run out, or the like.
        Err(_) => Way::Same,
        Ok(None) => Way::None,
        Ok(Some(source)) if source == own.ip() => Way::Same,
        Ok(Some(source)) => {
            own.set_port(0);
            match UdpSocket::bind(own) {
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Way::Lost,
                _ => Way::Other(source),
            }
        }
    }
}

/// From where packets to `peer` would leave; `None` where they would not.
///
/// # Errors
/// There is no telling.
pub(super) fn source_towards(peer: SocketAddr) -> io::Result<Option<IpAddr>> {
    let any: IpAddr = match peer {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    match socket.connect(peer) {
        Ok(()) => socket.local_addr().map(|own| Some(own.ip())),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_for_ourselves_leaves_from_where_it_is_met() {
        let here = SocketAddr::from(([127, 0, 0, 1], 9));
        assert_eq!(source_towards(here).unwrap(), Some(here.ip()));
    }

    #[test]
    fn there_is_no_way_to_where_nobody_can_be() {
        // A multicast address is no peer of ours either, but has a route; this one never has.
        let nowhere = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 0x100], 9));
        let found = source_towards(nowhere);
        assert!(
            !matches!(found, Ok(Some(ip)) if ip.is_unspecified()),
            "{found:?}"
        );
    }
}
