//! Addresses, routes and interfaces, by netlink (rtnetlink(7)).

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use mio::{Interest, Registry, unix::SourceFd};
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, netlink::SocketAddrNetlink, socket_with,
};

use crate::reactor::mio_net::NETWORK;

/// A socket that is ready when something changes. There is nothing to be learnt from what it brings: it is
/// the way of each connection that counts, and that is asked for.
pub(super) fn watch(registry: &Registry) -> io::Result<OwnedFd> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        // Of its protocols the one whose number is 0: NETLINK_ROUTE.
        None,
    )?;
    bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    registry.register(
        &mut SourceFd(&socket.as_raw_fd()),
        NETWORK,
        Interest::READABLE,
    )?;
    Ok(socket)
}

/// RTMGRP_LINK (an interface that goes down takes its IPv4 routes along without a word of them), _IPV4_IFADDR,
/// _IPV4_ROUTE, _IPV6_IFADDR and _IPV6_ROUTE of linux/rtnetlink.h.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
