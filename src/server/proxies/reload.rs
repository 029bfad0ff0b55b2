//! From the proxies that there are to those of a new configuration.
//!
//! What is in both stays as it is: its listener, its users, its sessions. New ones are opened before old
//! ones are closed, so that a port which passes from one to another refuses nobody, and nothing is closed
//! for one that cannot be opened.

use std::{io, net::SocketAddr};

use log::{error, info};

use super::{Origin, Proxies};
use crate::{
    clock::Now,
    config::{Exposed, ProxyEntry, ServerConfig},
    reactor::{Reactor, net::Net},
    server::{Owner, links::Links},
};

/// What has come of a new configuration.
#[derive(Debug, Default)]
pub(in crate::server) struct Changes {
    pub opened: usize,
    /// Closed proxies, and those of clients that may no longer have them.
    pub closed: Vec<u32>,
}

impl Proxies {
    /// Opens and closes what `new` asks for.
    ///
    /// # Errors
    /// A listener cannot be had, and nothing has changed.
    pub fn reconfigure<N: Net>(
        &mut self,
        new: &ServerConfig,
        links: &Links,
        io: &mut Reactor<N, Owner>,
        now: Now,
    ) -> Result<Changes, String> {
        let mut kept: Vec<(u32, &ProxyEntry)> = Vec::new();
        let mut wanted: Vec<&ProxyEntry> = Vec::new();
        for entry in &new.proxies {
            let address = entry.spec.address(new.bind);
            let same = self.slab.iter().find(|(index, proxy)| {
                matches!(proxy.origin, Origin::Configured)
                    && proxy.client == entry.client
                    && proxy.spec.kind == entry.spec.kind
                    && proxy.options.tls == entry.options.tls
                    && (proxy.options.hosts == entry.options.hosts)
                    && (proxy.options.paths == entry.options.paths)
                    && if entry.spec.port == 0 {
                        proxy.spec == entry.spec && proxy.address.ip() == address.ip()
                    } else {
                        proxy.address == address
                    }
                    && !kept.iter().any(|(other, _)| *other as usize == *index)
            });
            match same {
                Some((index, _)) => kept.push((index as u32, entry)),
                None => {
                    self.unclaimed(entry, address)?;
                    wanted.push(entry);
                }
            }
        }
        let closed: Vec<u32> = self
            .slab
            .iter()
            .filter(|(index, proxy)| match proxy.origin {
                Origin::Configured => !kept.iter().any(|(other, _)| *other as usize == *index),
                // What a client has asked for it keeps, if it may still.
                Origin::Exposed(_) => {
                    let grant = new.grant(&proxy.client);
                    let options = grant.options(proxy.spec.kind, &proxy.options);
                    let granted = options.and_then(|()| grant.listener(&proxy.spec));
                    !granted.is_ok_and(|address| {
                        proxy.spec.port == 0 && address.ip() == proxy.address.ip()
                            || address == proxy.address
                    })
                }
            })
            .map(|(index, _)| index as u32)
            .collect();

        let mut opened = Vec::new();
        let mut late = Vec::new();
        for entry in wanted {
            let frees = |index: &&u32| {
                self.slab[**index as usize].address.port() == entry.spec.port
                    && !matches!(self.slab[**index as usize].origin, Origin::Exposed(_))
            };
            let is_freed = closed.iter().any(|index| frees(&index));
            match self.open_new(entry, new, links, io, now) {
                Ok(proxy) => opened.push(proxy),
                // The port is one's that goes: on another address of the same machine.
                Err(_) if is_freed => late.push(entry),
                Err(error) => {
                    for proxy in opened {
                        self.remove(proxy, io);
                    }
                    let address = entry.spec.address(new.bind);
                    return Err(format!(
                        "{}={}: cannot listen on {address}: {error}",
                        entry.client, entry.spec
                    ));
                }
            }
        }
        for (index, entry) in kept {
            let proxy = &mut self.slab[index as usize];
            if proxy.spec != entry.spec || proxy.options != entry.options {
                proxy.lead(Exposed {
                    spec: entry.spec.clone(),
                    options: entry.options.clone(),
                });
                info!(proxy_id:% = proxy.id; "proxy {}: changed, {}", proxy.id, proxy.spec);
            }
        }
        let mut changes = Changes {
            opened: opened.len(),
            closed: Vec::new(),
        };
        for index in closed {
            if let Some(gone) = self.remove(index, io) {
                info!(proxy_id:% = gone.id; "proxy {}: closed by the new configuration", gone.id);
                if let Origin::Exposed(Some(timer)) = gone.origin {
                    io.close(timer);
                }
                changes.closed.push(index);
            }
        }
        for entry in late {
            match self.open_new(entry, new, links, io, now) {
                Ok(_) => changes.opened += 1,
                Err(reason) => error!(
                    "{}={}: cannot listen on {}: {reason}",
                    entry.client,
                    entry.spec,
                    entry.spec.address(new.bind)
                ),
            }
        }
        Ok(changes)
    }

    /// Opens one that the configuration asks for, and that its client, if it is there, serves at once.
    fn open_new<N: Net>(
        &mut self,
        entry: &ProxyEntry,
        new: &ServerConfig,
        links: &Links,
        io: &mut Reactor<N, Owner>,
        now: Now,
    ) -> io::Result<u32> {
        let wish = Exposed {
            spec: entry.spec.clone(),
            options: entry.options.clone(),
        };
        let link = links.of_client(&entry.client);
        let address = entry.spec.address(new.bind);
        self.open(
            &entry.client,
            wish,
            address,
            Origin::Configured,
            link,
            io,
            now,
        )
    }

    /// # Errors
    /// A client's proxy has the address, or a part of it.
    fn unclaimed(&self, entry: &ProxyEntry, address: SocketAddr) -> Result<(), String> {
        let claimed = self.slab.iter().find(|(_, proxy)| {
            matches!(proxy.origin, Origin::Exposed(_))
                && entry.spec.port != 0
                && proxy.address == address
                && entry
                    .options
                    .beside(entry.spec.kind, &proxy.options, proxy.spec.kind)
                    .is_err()
        });
        match claimed {
            None => Ok(()),
            Some((_, proxy)) => Err(format!(
                "{}={}: {address} belongs to client {}",
                entry.client, entry.spec, proxy.client
            )),
        }
    }
}
