//! Which listeners there are, whose they are, and which link serves them now.
//!
//! A proxy is either configured (`--proxy`: open as long as the server runs) or exposed (a client asked
//! for it: open until its client was away for [`AWAY_MAX`]). A port belongs to the client that opened
//! it first; a newer link of that client finds its proxies as they were.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use log::{info, warn};
use slab::Slab;

use super::{Owner, Server, refusals::Refusals};
use crate::{
    clock::Now,
    config::{ClientId, Exposed, Invalid, ProxyEntry, ProxyOptions, Spec, Target},
    key::Key,
    reactor::{Deadline, Reactor, net::Net},
    tunnel::{
        control::{ProxyOpen, ProxyOpened},
        ids::{ProxyId, Unique},
    },
};

/// All proxies.
#[derive(Default)]
pub(super) struct Proxies {
    slab: Slab<Proxy>,
    made: Unique,
}

/// One listener and where it leads.
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
    listener: Key,
    origin: Origin,
    /// Users whose address may not come in.
    refused: Refusals,
    /// Requests of users whose password was wrong.
    pub denied: Refusals,
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
        bind: IpAddr,
        io: &mut Reactor<N, Owner>,
        now: Now,
    ) -> Result<(), (SocketAddr, io::Error)> {
        let address = entry.spec.address(bind);
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
        .map_err(|error| (address, error))
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
        let (listener, address) = io.listen(address, Owner::Proxy(proxy))?;
        let id = ProxyId {
            client: client.shared(),
            port: address.port(),
            made: self.made.after(now.unix.as_secs()),
        };
        match &spec.target {
            Some(target) => info!("proxy {id}: {} on {address} to {target}", spec.kind),
            None => info!("proxy {id}: {} on {address}", spec.kind),
        }
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
            denied: Refusals::default(),
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
                if let Origin::Exposed(away @ None) = &mut proxy.origin {
                    let at = Deadline::At(now.instant + AWAY_MAX);
                    *away = Some(io.timer(Owner::Away(index as u32), at));
                }
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
        for (_, proxy) in &mut self.slab {
            io.close(proxy.listener);
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
        let Exposed { spec, options } = &wish;
        if options.tls && self.tls.len() == 0 {
            return Err(format!("{spec}: the server has no certificate for tls"));
        }
        let address = self
            .config
            .grant(client)
            .listener(spec)
            .map_err(|refused| format!("{spec}: {refused}"))?;
        if let Some(refused) = options.exposed_to_strangers(spec, address.ip()) {
            return Err(format!("{spec}: {refused}"));
        }
        let same = self.proxies.slab.iter_mut().find(|(_, proxy)| {
            if spec.port == 0 {
                // Any port was asked for: the same wish finds the port that it got before.
                proxy.client == *client && proxy.spec == *spec && proxy.options.asks_as(options)
            } else {
                proxy.address == address
            }
        });
        if let Some((index, proxy)) = same {
            if proxy.client != *client {
                return Err(format!(
                    "{spec}: {address} belongs to client {}",
                    proxy.client
                ));
            }
            let Origin::Exposed(away) = &mut proxy.origin else {
                return Err(format!(
                    "{spec}: {address} is a proxy of the server's configuration"
                ));
            };
            if let Some(timer) = away.take() {
                io.close(timer);
            }
            (proxy.spec, proxy.options) = (wish.spec, wish.options);
            proxy.link = Some(link);
            return Ok(index as u32);
        }
        if self
            .proxies
            .slab
            .iter()
            .filter(|(_, proxy)| proxy.client == *client)
            .count()
            >= EXPOSED_PER_CLIENT_MAX
        {
            return Err(format!(
                "{spec}: this client has {EXPOSED_PER_CLIENT_MAX} proxies already"
            ));
        }
        let origin = Origin::Exposed(None);
        let text = spec.to_string();
        self.proxies
            .open(client, wish, address, origin, Some(link), io, now)
            .map_err(|error| format!("{text}: cannot listen on {address}: {error}"))
    }

    /// An exposed proxy's client stayed away: its port is free again.
    pub(super) fn proxy_abandoned<N: Net>(&mut self, io: &mut Reactor<N, Owner>, proxy: u32) {
        let Some(gone) = self.proxies.slab.try_remove(proxy as usize) else {
            return;
        };
        info!(
            "proxy {}: closed, no client asked for it within {AWAY_MAX:?}",
            gone.id
        );
        io.close(gone.listener);
        self.close_fronts_of(io, proxy);
    }
}

impl Proxy {
    /// Whether a user who comes from `address` may come in. Who may not is counted, and said now and then.
    pub fn admits(&mut self, address: IpAddr, now: Now) -> bool {
        let admitted = self.options.admits(address);
        if !admitted && let Some(total) = self.refused.count(now.instant) {
            let address = address.to_canonical();
            info!(
                "proxy {}: refused a user from {address} by its address, {total} so far",
                self.id
            );
        }
        admitted
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

/// Listeners cost descriptors, which are for users; no known client needs a quarter of this.
const EXPOSED_PER_CLIENT_MAX: usize = 1000;

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
