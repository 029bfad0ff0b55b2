//! Proxies that pass from one process to the next.
//!
//! The next one has the listeners, and reads the configuration itself; this is what neither says.

use std::net::SocketAddr;

use super::{Origin, Proxies, Proxy, exposed::wish};
use crate::{
    clock::Now,
    config::{ClientId, Invalid, Spec},
    key::Key,
    reactor::{Reactor, net::Net},
    server::{Owner, Server, succession::ExposedNote},
    tunnel::control::ProxyOpen,
};

/// What the next process must know of a proxy.
pub(in crate::server) enum Passed<'a> {
    /// The system has chosen its port.
    Chosen(&'a ClientId, &'a Spec, SocketAddr),
    /// A client has asked for it.
    Exposed(ExposedNote),
}

impl Proxies {
    /// What no configuration says of the proxies, for the next process.
    pub fn passed(&self) -> impl Iterator<Item = Passed<'_>> {
        self.slab.iter().filter_map(|(_, proxy)| {
            let (client, spec, address) = (&proxy.client, &proxy.spec, proxy.address);
            match proxy.origin {
                Origin::Configured if spec.port == 0 => Some(Passed::Chosen(client, spec, address)),
                Origin::Configured => None,
                Origin::Exposed(_) => Some(Passed::Exposed(ExposedNote {
                    client: client.to_string(),
                    spec: spec.to_string(),
                    options: proxy.options.to_json(),
                    address,
                })),
            }
        })
    }

    /// The proxies of a listener.
    pub fn of_listener(&self, listener: u32) -> impl Iterator<Item = &Proxy> {
        let at = self.listeners.get(listener as usize);
        let proxies = at.map_or(&[][..], |listener| &listener.proxies);
        proxies.iter().filter_map(|index| self.find(*index))
    }

    /// The listeners with a proxy that this link serves.
    pub fn listeners_of(&self, link: u32) -> impl Iterator<Item = Key> {
        let of = self
            .slab
            .iter()
            .filter(move |(_, proxy)| proxy.link == Some(link));
        of.filter_map(|(_, proxy)| Some(self.listeners.get(proxy.listener as usize)?.key))
    }
}

impl Server {
    /// Opens what a client had exposed at the process before this one, as if it had been away for a moment.
    ///
    /// # Errors
    /// It may have it no longer, or the listener cannot be had.
    pub(in crate::server) fn restore<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        note: ExposedNote,
        now: Now,
    ) -> Result<(), String> {
        let client: ClientId = note
            .client
            .parse()
            .map_err(|error: Invalid| error.to_string())?;
        let wish = wish(&ProxyOpen {
            request: 0,
            spec: note.spec,
            options: note.options,
        });
        let wish = wish.map_err(|error| error.to_string())?;
        let address = self.may_expose(&client, &wish)?;
        if address.ip() != note.address.ip() || ![0, note.address.port()].contains(&address.port())
        {
            return Err(format!("{} is elsewhere by now", wish.spec));
        }
        self.may_have_more(&client, &wish.spec)?;
        self.proxies.conflict(&client, note.address, &wish, None)?;
        let origin = Origin::Exposed(None);
        let proxy = self
            .proxies
            .open(&client, wish, note.address, origin, None, io, now)
            .map_err(|error| error.to_string())?;
        self.proxies.slab[proxy as usize].await_client(proxy, io, now);
        Ok(())
    }
}
