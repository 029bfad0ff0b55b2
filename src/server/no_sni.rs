//! In the place of `sni` where siding is built without TLS: no proxy of that kind is opened.

use super::{Owner, Server};
use crate::{
    clock::Now,
    reactor::{Reactor, net::Net},
};

impl Server {
    /// Nobody gets so far.
    pub(super) fn read_hello<N: Net>(&mut self, io: &mut Reactor<N, Owner>, front: u32, _: Now) {
        self.close_front(io, front);
    }
}
