//! Which listeners there are, whose they are, and which link serves them now.
//!
//! A proxy is either configured (`--proxy`: open as long as the server runs) or exposed (a client asked
//! for it: open until its client was away for [`AWAY_MAX`]). A port belongs to the client that opened
//! it first; a newer link of that client finds its proxies as they were.

mod passed;
mod reload;
mod tally;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use log::{info, warn};
use slab::Slab;

pub(super) use self::passed::Passed;
use self::tally::{RefusalCounts, Tally};
use super::{Owner, Server};
use crate::{
    clock::Now,
    config::{
        ClientId, Exposed, Host, Invalid, Kind, ProxyEntry, ProxyOptions, Spec, Target,
        routes::SHARING_MAX,
    },
    key::Key,
    reactor::{Deadline, Reactor, net::Net},
    refusals::Refusals,
    tunnel::{
        control::{ProxyOpen, ProxyOpened},
        ids::{ProxyId, Unique},
    },
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

    /// How many a client has asked for.
    fn exposed_by(&self, client: &ClientId) -> usize {
        let exposed =
            |proxy: &Proxy| proxy.client == *client && matches!(proxy.origin, Origin::Exposed(_));
        self.slab.iter().filter(|(_, proxy)| exposed(proxy)).count()
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

    /// Why a client's wish cannot be a proxy at this address, if something stands in its way there.
    fn conflict(
        &self,
        client: &ClientId,
        address: SocketAddr,
        wish: &Exposed,
        besides: Option<u32>,
    ) -> Result<(), String> {
        let there = self
            .slab
            .iter()
            .filter(|(index, proxy)| proxy.address == address && Some(*index as u32) != besides);
        if there.clone().count() >= SHARING_MAX {
            return Err(format!("{address} has {SHARING_MAX} proxies already"));
        }
        for (_, proxy) in there {
            let beside = wish
                .options
                .beside(wish.spec.kind, &proxy.options, proxy.spec.kind);
            let theirs = proxy.client != *client || matches!(proxy.origin, Origin::Configured);
            // Whoever was there first must lose none of its names to another.
            let overlap = wish.options.routes().overlap(&proxy.options.routes());
            if beside.is_ok() && !(theirs && overlap) {
                continue;
            }
            let owner = match &proxy.origin {
                Origin::Configured => "is a proxy of the server's configuration".into(),
                Origin::Exposed(_) => format!("belongs to client {}", proxy.client),
            };
            return Err(match beside {
                Err(reason) => format!("{address} {owner}: {reason}"),
                Ok(()) => format!("{address} {owner}, whose hosts these are"),
            });
        }
        Ok(())
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

impl Server {
    /// A client asks for a listener: a new one, or one that it had before.
    pub(super) fn open_exposed<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        link: u32,
        client: &ClientId,
        open: ProxyOpen,
        now: Now,
    ) -> ProxyOpened {
        let request = open.request;
        match self.try_open_exposed(io, link, client, &open, now) {
            Ok(proxy) => {
                let proxy = &self.proxies.slab[proxy as usize];
                ProxyOpened {
                    request,
                    proxy_id: Some(proxy.id.to_string()),
                    address: Some(proxy.address.to_string()),
                    error: None,
                }
            }
            Err(error) => {
                // It may quote what was asked for, which may be as long as a frame.
                let error: String = error.chars().take(REFUSAL_MAX).collect();
                warn!("link {client}: expose refused: {}", error.escape_debug());
                ProxyOpened {
                    request,
                    proxy_id: None,
                    address: None,
                    error: Some(error),
                }
            }
        }
    }

    /// Where a client's wish would be.
    ///
    /// # Errors
    /// It may not have it, or not here.
    fn may_expose(&self, client: &ClientId, wish: &Exposed) -> Result<SocketAddr, String> {
        let Exposed { spec, options } = wish;
        if spec.kind == Kind::Tls && !cfg!(feature = "tls") {
            return Err(format!("{spec}: the server was built without TLS"));
        }
        if options.tls && self.tls.len() == 0 {
            return Err(format!("{spec}: the server has no certificate for tls"));
        }
        let grant = self.config.grant(client);
        let address = grant
            .listener(spec)
            .and_then(|address| {
                grant.options(spec.kind, options)?;
                Ok(address)
            })
            .map_err(|refused| format!("{spec}: {refused}"))?;
        match options.exposed_to_strangers(spec, address.ip()) {
            Some(refused) => Err(format!("{spec}: {refused}")),
            None => Ok(address),
        }
    }

    /// # Errors
    /// A client has as many proxies as it may.
    fn may_have_more(&self, client: &ClientId, spec: &Spec) -> Result<(), String> {
        let max = self.config.grant(client).max_proxies();
        if self.proxies.exposed_by(client) >= max {
            return Err(format!(
                "{spec}: the server lets this client expose {max} proxies, and it has as many"
            ));
        }
        Ok(())
    }

    fn try_open_exposed<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        link: u32,
        client: &ClientId,
        open: &ProxyOpen,
        now: Now,
    ) -> Result<u32, String> {
        if self.stage.is_ending() {
            return Err("the server is stopping".into());
        }
        let wish = wish(open).map_err(|error| error.to_string())?;
        let address = self.may_expose(client, &wish)?;
        let Exposed { spec, options } = &wish;
        let same = self.proxies.slab.iter().find(|(_, proxy)| {
            let own = proxy.client == *client && matches!(proxy.origin, Origin::Exposed(_));
            own && if spec.port == 0 {
                // Any port was asked for: the same wish finds the port that it got before.
                proxy.spec == *spec && proxy.options.asks_as(options)
            } else {
                // It is asked for anew, perhaps otherwise than before.
                proxy.address == address && proxy.options.routes().clash(&options.routes())
            }
        });
        let same = same.map(|(index, _)| index as u32);
        if spec.port != 0 {
            self.proxies
                .conflict(client, address, &wish, same)
                .map_err(|reason| format!("{spec}: {reason}"))?;
        }
        if let Some(same) = same {
            let proxy = &mut self.proxies.slab[same as usize];
            if let Origin::Exposed(away) = &mut proxy.origin
                && let Some(timer) = away.take()
            {
                io.close(timer);
            }
            proxy.lead(wish);
            proxy.link = Some(link);
            return Ok(same);
        }
        self.may_have_more(client, spec)?;
        let origin = Origin::Exposed(None);
        let text = spec.to_string();
        self.proxies
            .open(client, wish, address, origin, Some(link), io, now)
            .map_err(|error| format!("{text}: cannot listen on {address}: {error}"))
    }

    /// A client wants one of its proxies no more. One that is not there, or not its own, is nobody's loss:
    /// it may have been closed a moment ago.
    pub(super) fn close_exposed<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        client: &ClientId,
        proxy_id: &str,
    ) {
        let found = self.proxies.slab.iter().find(|(_, proxy)| {
            proxy.client == *client
                && matches!(proxy.origin, Origin::Exposed(_))
                && proxy.id.to_string() == proxy_id
        });
        let Some(proxy) = found.map(|(index, _)| index as u32) else {
            return;
        };
        if let Some(gone) = self.proxies.remove(proxy, io) {
            info!(proxy_id:% = gone.id; "proxy {}: closed, its client wants it no more", gone.id);
            if let Origin::Exposed(Some(timer)) = gone.origin {
                io.close(timer);
            }
            self.close_fronts_of(io, proxy);
        }
    }

    /// An exposed proxy's client stayed away: its port is free again.
    pub(super) fn proxy_abandoned<N: Net>(&mut self, io: &mut Reactor<N, Owner>, proxy: u32) {
        let Some(gone) = self.proxies.remove(proxy, io) else {
            return;
        };
        info!(
            proxy_id:% = gone.id;
            "proxy {}: closed, no client asked for it within {AWAY_MAX:?}",
            gone.id
        );
        self.close_fronts_of(io, proxy);
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

/// What a client asks for, held to the rules that hold for a file.
fn wish(open: &ProxyOpen) -> Result<Exposed, Invalid> {
    let spec: Spec = open.spec.parse()?;
    let options = ProxyOptions::from_json(&open.options)?;
    match options.misplaced(spec.kind) {
        Some((_, reason)) => Err(reason),
        None => Ok(Exposed { spec, options }),
    }
}

/// How long a client's exposed proxies wait for it: long enough for a restart and most outages of a
/// provider, short enough that a port given up is free within a minute.
const AWAY_MAX: Duration = Duration::from_secs(60);

/// Characters of a refusal's text, so that it fits into a control frame whatever it quotes.
const REFUSAL_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_asks_for_is_held_to_the_rules_of_a_file() {
        let open = |spec: &str, options: &str| ProxyOpen {
            request: 0,
            spec: spec.into(),
            options: serde_json::from_str(options).expect("an object"),
        };
        let granted = wish(&open(
            "https:0:a:443",
            r#"{"host":"USER","trust_forwarded":true}"#,
        ))
        .expect("good options");
        assert_eq!(granted.options.host, Some("user".parse().unwrap()));
        assert!(granted.options.trust_forwarded);
        let granted = wish(&open("ssh:0:a:22", r#"{"allow_from":["10.0.0.0/8"]}"#)).unwrap();
        assert!(!granted.options.admits(IpAddr::from([127, 0, 0, 1])));
        for (open, expected) in [
            (open("http:0:a", "{}"), "is not http:"),
            (open("http:0:a:80", r#"{"host":""}"#), "is empty"),
            (open("http:0:a:80", r#"{"host":"a\r\nX: y"}"#), "HOST"),
            (open("http:0:a:80", r#"{"host":7}"#), "invalid type"),
            (
                open("http:0:a:80", r#"{"colour":"red"}"#),
                "unknown field `colour`",
            ),
            (
                open("tcp:0:a:80", r#"{"allow_from":["a"]}"#),
                "is not an address or a CIDR",
            ),
            (
                open("tcp:0:a:80", r#"{"users_file":"users"}"#),
                "unknown field `users_file`",
            ),
            (
                open("forward:0", r#"{"users":["alice:secret"]}"#),
                "expected strings name:salt:digest",
            ),
            (
                open(
                    "ssh:0:a:22",
                    r#"{"users":["a:AAAAAAAAAAAAAAAA:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]}"#,
                ),
                "users_file is for the kinds http, https, forward and socks5, not for ssh",
            ),
            (
                open("tcp:0:a:80", r#"{"host":"target"}"#),
                "host is for the kinds http and https, not for tcp",
            ),
            (
                open("forward:0", r#"{"trust_forwarded":true}"#),
                "trust_forwarded is for the kinds http and https, not for forward",
            ),
        ] {
            let reason = wish(&open).expect_err(&open.spec).to_string();
            assert!(reason.contains(expected), "{reason}");
        }
    }
}
