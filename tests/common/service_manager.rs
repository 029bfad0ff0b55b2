//! A service manager, for those who tell one how they are.

use std::{
    io::IoSliceMut,
    mem::MaybeUninit,
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt,
        unix::{self, net::UnixDatagram},
    },
    process,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg, sockopt::set_socket_passcred,
};

use super::{PATIENCE, Scratch};

/// A service manager, as far as sd_notify(3) has it.
pub struct ServiceManager {
    socket: UnixDatagram,
    /// Where it is, as `NOTIFY_SOCKET` has it.
    pub address: String,
    _scratch: Scratch,
}

impl ServiceManager {
    /// At a path.
    pub fn new() -> Self {
        let scratch = Scratch::new();
        let path = scratch.path("notify");
        Self::of(
            UnixDatagram::bind(&path).expect("bound"),
            path.display().to_string(),
            scratch,
        )
    }

    /// One that is in no file system.
    pub fn abstract_one() -> Self {
        let name = format!("siding-test-{}", process::id());
        let address = unix::net::SocketAddr::from_abstract_name(&name).expect("a name");
        Self::of(
            UnixDatagram::bind_addr(&address).expect("bound"),
            format!("@{name}"),
            Scratch::new(),
        )
    }

    fn of(socket: UnixDatagram, address: String, scratch: Scratch) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self {
            socket,
            address,
            _scratch: scratch,
        }
    }

    /// From here on each message says whose it is.
    pub fn asks_who_it_is(&self) {
        set_socket_passcred(&self.socket, true).expect("the system tells");
    }

    /// The next message, and the descriptor that came with it.
    pub fn next(&self) -> (String, Option<OwnedFd>) {
        let (text, descriptor, _) = self.receive();
        (text, descriptor)
    }

    /// The next message, and the process that it is of.
    pub fn next_by(&self) -> (String, String) {
        let (text, _, sender) = self.receive();
        (text, sender.expect("it was asked for"))
    }

    fn receive(&self) -> (String, Option<OwnedFd>, Option<String>) {
        let mut bytes = [0; 4096];
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4), ScmCredentials(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(&self.socket, &mut slices, &mut ancillary, flags);
        let length = received.expect("a message comes in time").bytes;
        let (mut descriptor, mut sender) = (None, None);
        for message in ancillary.drain() {
            match message {
                RecvAncillaryMessage::ScmRights(mut descriptors) => descriptor = descriptors.next(),
                RecvAncillaryMessage::ScmCredentials(of) => {
                    sender = Some(of.pid.as_raw_nonzero().to_string());
                }
                _ => {}
            }
        }
        let text = String::from_utf8(bytes[..length].to_vec()).expect("text");
        (text, descriptor, sender)
    }

    /// The next message but signs of life, which is this and has no descriptor.
    pub fn expect(&self, expected: &str) {
        let (said, descriptor) = loop {
            let (said, descriptor) = self.next();
            if said != "WATCHDOG=1\n" {
                break (said, descriptor);
            }
        };
        assert_eq!((said.as_str(), descriptor.is_some()), (expected, false));
    }

    /// As [`ServiceManager::expect`], with a descriptor to keep, which has this name.
    pub fn expect_to_keep(&self, name: &str) -> (String, OwnedFd) {
        let (said, descriptor) = self.next();
        assert_eq!(said, format!("FDSTORE=1\nFDNAME={name}\n"));
        (name.to_owned(), descriptor.expect("what is to be kept"))
    }
}
