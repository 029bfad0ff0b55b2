//! Where somebody comes from, as far as an address tells one machine from another. Everybody may import it.

use std::net::IpAddr;

/// An IPv4 address, or the first half of an IPv6 one, of which a household or a rented server has all
/// addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    V4(u32),
    V6(u64),
}

impl Source {
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}
