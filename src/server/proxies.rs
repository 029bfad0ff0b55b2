//! Which listeners there are, whose they are, and which link serves them now.
//!
//! A proxy is either configured (`--proxy`: open as long as the server runs) or exposed (a client asked
//! for it: open until its client was away for [`AWAY_MAX`]). A port belongs to the client that opened
//! it first; a newer link of that client finds its proxies as they were.

mod exposed;
mod passed;
mod reload;
mod tally;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use log::info;
use slab::Slab;

pub(super) use self::passed::Passed;
use self::tally::{RefusalCounts, Tally};
use super::Owner;
use crate::{
    clock::Now,
    config::{ClientId, Exposed, Host, ProxyEntry, ProxyOptions, Spec, Target},
    key::Key,
    reactor::{Deadline, Reactor, net::Net},
    refusals::Refusals,
    tunnel::ids::{ProxyId, Unique},
};

/// All proxies, and the listeners that they have or share.
#[derive(Default)]
pub(super) struct Proxies {
    slab: Slab<Proxy>,
    listeners: Slab<Listener>,
    made: Unique,
    /// Refusals of proxies that are gone.
    gone: RefusalCounts,
}

/// Where users come in.
pub(super) struct Listener {
    key: Key,
    address: SocketAddr,
    /// Never empty; several are told apart by what a user asks for.
    proxies: Vec<u32>,
}

/// One way from a listener to a target.
pub(super) struct Proxy {
    pub id: ProxyId,
    pub client: ClientId,
    pub spec: Spec,
    /// The target's host, as clients are told it.
    pub remote_host: Option<Rc<str>>,
    pub options: ProxyOptions,
    pub address: SocketAddr,
    /// The link that serves it now.
    pub link: Option<u32>,
    listener: u32,
    origin: Origin,
    /// Users whose address may not come in.
    refused: Refusals,
    /// Connections of which the balancer in front has not said whose they are.
    unintroduced: Refusals,
    /// Requests of users whose password was wrong.
    pub denied: Refusals,
    /// What its streams have come to.
    pub tally: Tally,
}

/// Who asked for a proxy.
enum Origin {
    Configured,
    /// A client; the timer runs while it is away.
    Exposed(Option<Key>),
}

impl Proxies {
    pub fn find(&self, proxy: u32) -> Option<&Proxy> {
        self.slab.get(proxy as usize)
    }

    pub fn find_mut(&mut self, proxy: u32) -> Option<&mut Proxy> {
        self.slab.get_mut(proxy as usize)
    }

    /// A proxy of this listener, by which it is known whether TLS is spoken there, and what within.
    pub fn at(&self, listener: u32) -> Option<u32> {
        self.listeners
            .get(listener as usize)?
            .proxies
            .first()
            .copied()
    }

    /// The proxies that share the listener of this one.
    fn sharing(&self, proxy: u32) -> &[u32] {
        self.find(proxy)
            .and_then(|proxy| self.listeners.get(proxy.listener as usize))
            .map_or(&[], |listener| &listener.proxies)
    }

    /// Whether users of this proxy's listener may be meant for another.
    pub fn is_shared(&self, proxy: u32) -> bool {
        match self.sharing(proxy) {
            [only] => self
                .find(*only)
                .is_some_and(|proxy| !proxy.options.routes().are_open()),
            _ => true,
        }
    }

    /// Whether paths matter at this proxy's listener.
    pub fn has_paths(&self, proxy: u32) -> bool {
        let of = self
            .sharing(proxy)
            .iter()
            .filter_map(|proxy| self.find(*proxy));
        of.into_iter().any(|proxy| !proxy.options.paths.is_empty())
    }

    /// Which of those that share this proxy's listener is meant by a name and a plain path.
    pub fn closest(&self, proxy: u32, host: Option<&Host>, path: &str) -> Option<u32> {
        let fits = self.sharing(proxy).iter().filter_map(|&index| {
            let fit = self.find(index)?.options.routes().fit(host, path)?;
            Some((fit, index))
        });
        fits.max().map(|(_, index)| index)
    }

    /// Whether the address of a user at this proxy's listener may come in to any of those who share it.
    pub fn admit(&mut self, proxy: u32, address: IpAddr, now: Now) -> bool {
        let any = self.sharing(proxy).iter().any(|&index| {
            self.find(index)
                .is_some_and(|proxy| proxy.options.admits(address))
        });
        // By the one that is asked it is counted.
        any || self
            .find_mut(proxy)
            .is_some_and(|found| found.admits(address, now))
    }

    /// All proxies, and where each listens.
    pub fn iter(&self) -> impl Iterator<Item = (&Spec, SocketAddr)> {
        self.slab
            .iter()
            .map(|(_, proxy)| (&proxy.spec, proxy.address))
    }

    /// Opens a proxy that the server's own configuration asks for.
    pub fn open_configured<N: Net>(
        &mut self,
        entry: &ProxyEntry,
        address: SocketAddr,
        io: &mut Reactor<N, Owner>,
        now: Now,
    ) -> io::Result<()> {
        let wish = Exposed {
            spec: entry.spec.clone(),
            options: entry.options.clone(),
        };
        self.open(
            &entry.client,
            wish,
            address,
            Origin::Configured,
            None,
            io,
            now,
        )
        .map(|_| ())
    }

    #[expect(clippy::too_many_arguments, reason = "each is one fact of a new proxy")]
    fn open<N: Net>(
        &mut self,
        client: &ClientId,
        wish: Exposed,
        address: SocketAddr,
        origin: Origin,
        link: Option<u32>,
        io: &mut Reactor<N, Owner>,
        now: Now,
    ) -> io::Result<u32> {
        let Exposed { spec, options } = wish;
        let slot = self.slab.vacant_entry();
        let proxy = slot.key() as u32;
        let shared = self
            .listeners
            .iter_mut()
            .find(|(_, listener)| listener.address == address);
        let (listener, address) = match shared {
            Some((index, listener)) => {
                listener.proxies.push(proxy);
                (index as u32, address)
            }
            None => {
                let place = self.listeners.vacant_entry();
                let index = place.key() as u32;
                let (key, address) = io.listen(address, Owner::Listener(index))?;
                place.insert(Listener {
                    key,
                    address,
                    proxies: vec![proxy],
                });
                (index, address)
            }
        };
        let id = ProxyId {
            client: client.shared(),
            port: address.port(),
            made: self.made.after(now.unix.as_secs()),
        };
        let [to, arrow] = [" to ", " → "].map(|word| match &spec.target {
            Some(target) => format!("{word}{target}"),
            None => String::new(),
        });
        let routes = match options.routes() {
            routes if routes.are_open() => String::new(),
            routes => format!(" for {routes}"),
        };
        let kind = spec.kind.word();
        info!(
            client = client.as_str(),
            proxy_id:% = id,
            kind,
            address:%,
            spec:%,
            say:% = format_args!("  {kind:<7} {address} → {client}{arrow}{routes}");
            "proxy {id}: {kind} on {address}{to}{routes}"
        );
        slot.insert(Proxy {
            id,
            client: client.clone(),
            remote_host: spec.target.as_ref().map(Target::remote_host),
            spec,
            options,
            address,
            link,
            listener,
            origin,
            refused: Refusals::default(),
            unintroduced: Refusals::default(),
            denied: Refusals::default(),
            tally: Tally::default(),
        });
        Ok(proxy)
    }

    /// A client is there: its proxies are served by `link` from now on.
    pub fn found(&mut self, client: &ClientId, link: u32) {
        for (_, proxy) in &mut self.slab {
            if proxy.client == *client {
                proxy.link = Some(link);
            }
        }
    }

    /// A link serves nobody any more: its proxies wait for a newer one of their client, the exposed ones
    /// not for ever, unless the client asks for them again.
    pub fn lost<N: Net>(&mut self, link: u32, io: &mut Reactor<N, Owner>, now: Now) {
        for (index, proxy) in &mut self.slab {
            if proxy.link == Some(link) {
                proxy.link = None;
                proxy.await_client(index as u32, io, now);
            }
        }
    }

    /// No link serves any of them any more.
    pub fn unlink(&mut self) {
        for (_, proxy) in &mut self.slab {
            proxy.link = None;
        }
    }

    /// The links that proxies name, and the clients these must be of.
    pub fn served(&self) -> impl Iterator<Item = (u32, &ClientId)> {
        self.slab
            .iter()
            .filter_map(|(_, proxy)| Some((proxy.link?, &proxy.client)))
    }

    /// Takes no more users anywhere.
    pub fn close_listeners<N: Net>(&mut self, io: &mut Reactor<N, Owner>) {
        for (_, listener) in &mut self.listeners {
            io.close(listener.key);
        }
    }

    /// Forgets a proxy, and its listener if it was the last one there.
    fn remove<N: Net>(&mut self, proxy: u32, io: &mut Reactor<N, Owner>) -> Option<Proxy> {
        let gone = self.slab.try_remove(proxy as usize)?;
        self.gone.add(&gone);
        let listener = &mut self.listeners[gone.listener as usize];
        listener.proxies.retain(|index| *index != proxy);
        if listener.proxies.is_empty() {
            io.close(listener.key);
            self.listeners.remove(gone.listener as usize);
        }
        Some(gone)
    }

    /// Panics where the invariants do not hold.
    pub fn check_invariants(&self) {
        for (index, proxy) in &self.slab {
            let listener = &self.listeners[proxy.listener as usize];
            assert_eq!(
                listener.address, proxy.address,
                "a proxy is where it listens"
            );
            let at = listener.proxies.iter().filter(|at| **at == index as u32);
            assert_eq!(at.count(), 1, "a proxy stands once at its listener");
        }
        let at: usize = self
            .listeners
            .iter()
            .map(|(_, listener)| listener.proxies.len())
            .sum();
        assert_eq!(
            at,
            self.slab.len(),
            "listeners have no proxies that are gone"
        );
        for (_, listener) in &self.listeners {
            assert!(!listener.proxies.is_empty(), "a listener leads somewhere");
        }
    }
}

impl Proxy {
    /// Its client is away: if that has asked for it, it closes after a while, unless it is asked for again.
    fn await_client<N: Net>(&mut self, index: u32, io: &mut Reactor<N, Owner>, now: Now) {
        if let Origin::Exposed(away @ None) = &mut self.origin {
            let at = Deadline::At(now.instant + AWAY_MAX);
            *away = Some(io.timer(Owner::Away(index), at));
        }
    }

    /// From now on it is this; its listener stays, and so do its sessions.
    fn lead(&mut self, wish: Exposed) {
        self.remote_host = wish.spec.target.as_ref().map(Target::remote_host);
        (self.spec, self.options) = (wish.spec, wish.options);
    }

    /// How many users it may have, 0 for any number, where `limit` is what each may by default. A client may
    /// ask for less than that, and not for more.
    pub fn users_max(&self, limit: usize) -> usize {
        match (self.options.max_connections, &self.origin) {
            (None, _) => limit,
            (Some(own), Origin::Configured) => own,
            (Some(0), Origin::Exposed(_)) => limit,
            (Some(own), Origin::Exposed(_)) if limit == 0 => own,
            (Some(own), Origin::Exposed(_)) => own.min(limit),
        }
    }

    /// Whether a user who comes from `address` may come in. Who may not is counted, and said now and then.
    pub fn admits(&mut self, address: IpAddr, now: Now) -> bool {
        let admitted = self.options.admits(address);
        if !admitted && let Some(total) = self.refused.count(now.instant) {
            let address = address.to_canonical();
            info!(
                proxy_id:% = self.id, peer:% = address;
                "proxy {}: refused a user from {address} by its address, {total} so far",
                self.id
            );
        }
        admitted
    }

    /// A balancer at `address` has not said whose a connection is. It is counted, and said now and then.
    pub fn unintroduced(&mut self, address: IpAddr, why: &str, now: Now) {
        if let Some(total) = self.unintroduced.count(now.instant) {
            info!(
                proxy_id:% = self.id, peer:% = address;
                "proxy {}: refused a connection of the balancer {address}, {why}, {total} so far",
                self.id
            );
        }
    }
}

/// How long a client's exposed proxies wait for it: long enough for a restart and most outages of a
/// provider, short enough that a port given up is free within a minute.
const AWAY_MAX: Duration = Duration::from_secs(60);
