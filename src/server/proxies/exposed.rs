//! What clients ask for: whether a wish may be a proxy here, which one it is if it was one before, and when it
//! is none any more.

use std::net::SocketAddr;

use log::{info, warn};

use super::{AWAY_MAX, Origin, Proxies, Proxy};
use crate::{
    clock::Now,
    config::{ClientId, Exposed, Invalid, Kind, ProxyOptions, Spec, routes::SHARING_MAX},
    reactor::{Reactor, net::Net},
    server::{Owner, Server},
    tunnel::{
        control::{ProxyOpen, ProxyOpened},
        ids::ProxyId,
    },
};

impl Proxies {
    /// How many a client has asked for.
    fn exposed_by(&self, client: &ClientId) -> usize {
        let exposed =
            |proxy: &Proxy| proxy.client == *client && matches!(proxy.origin, Origin::Exposed(_));
        self.slab.iter().filter(|(_, proxy)| exposed(proxy)).count()
    }

    /// Why a client's wish cannot be a proxy at this address, if something stands in its way there.
    pub(super) fn conflict(
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
}

impl Server {
    /// A client asks for a listener: a new one, or one that it had before.
    pub(in crate::server) fn open_exposed<N: Net>(
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
    pub(super) fn may_expose(
        &self,
        client: &ClientId,
        wish: &Exposed,
    ) -> Result<SocketAddr, String> {
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
    pub(super) fn may_have_more(&self, client: &ClientId, spec: &Spec) -> Result<(), String> {
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
    pub(in crate::server) fn close_exposed<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        client: &ClientId,
        proxy_id: &str,
    ) {
        let Ok(proxy_id) = proxy_id.parse::<ProxyId>() else {
            return;
        };
        let found = self.proxies.slab.iter().find(|(_, proxy)| {
            proxy.id == proxy_id
                && proxy.client == *client
                && matches!(proxy.origin, Origin::Exposed(_))
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
    pub(in crate::server) fn proxy_abandoned<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        proxy: u32,
    ) {
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

/// What a client asks for, held to the rules that hold for a file.
pub(super) fn wish(open: &ProxyOpen) -> Result<Exposed, Invalid> {
    let spec: Spec = open.spec.parse()?;
    let options = ProxyOptions::from_json(&open.options)?;
    match options.misplaced(spec.kind) {
        Some((_, reason)) => Err(reason),
        None => Ok(Exposed { spec, options }),
    }
}

/// Characters of a refusal's text, so that it fits into a control frame whatever it quotes.
const REFUSAL_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

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
