//! One server and one client for all cases, and the proxies that these go through.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use crate::{
    common::{CLIENT, Tunnel},
    model::{HostPolicy, Proxy},
    origin::Announced,
    seed::Rng,
};

/// The binary under test, both roles, with all that the cases need.
pub struct Lanes {
    tunnel: Tunnel,
    forward: SocketAddr,
    lanes: Vec<Vec<Lane>>,
}

/// An origin and the `http` proxy that leads to it; one worker's alone.
pub struct Lane {
    /// The origin.
    pub origin: Announced,
    http: (Proxy, SocketAddr),
    forward: (Proxy, SocketAddr),
}

/// Where a user connects, from where, and what for.
pub struct Way<'l> {
    /// The proxy.
    pub proxy: &'l Proxy,
    /// Where it listens.
    pub address: SocketAddr,
    /// The user's own address.
    pub from: IpAddr,
}

impl Lanes {
    /// Starts all of it, with as many lanes of each sort as there are workers.
    pub fn start(workers: usize, log: &'static str) -> Self {
        let has_v6 = TcpListener::bind("[::1]:0").is_ok();
        if !has_v6 {
            println!("no IPv6 on this machine: all users come by IPv4");
        }
        let mut entries = vec![format!(
            r#"{{ "client": "{CLIENT}", "spec": "forward:0" }}"#
        )];
        let mut builder = Tunnel::builder().log(log);
        let mut started = Vec::new();
        for _ in 0..workers {
            let mut of_worker = Vec::new();
            for sort in SORTS.iter().filter(|sort| has_v6 || !sort.v6) {
                let origin = Announced::start();
                let target = origin.address().to_string();
                let bind = if sort.v6 { "[::1]:" } else { "" };
                let spec = format!("http:{bind}0:{target}");
                let options = sort.options;
                entries.push(format!(
                    r#"{{ "client": "{CLIENT}", "spec": "{spec}"{options} }}"#
                ));
                builder = builder.allow(&target);
                of_worker.push((sort, spec, target, origin));
            }
            started.push(of_worker);
        }
        let config = format!(r#"{{ "proxies": [ {} ] }}"#, entries.join(",\n"));
        let tunnel = builder.server_config(config).start();
        let forward = tunnel.server.proxy_address("forward:0");
        let lanes = started.into_iter().map(|of_worker| {
            let lanes = of_worker.into_iter().map(|(sort, spec, target, origin)| {
                let address = tunnel.server.proxy_address(&spec);
                let host = match sort.host {
                    "user" => HostPolicy::User,
                    "target" => HostPolicy::Target,
                    name => HostPolicy::Name(name.to_owned()),
                };
                let http = Proxy {
                    forward: false,
                    target: target.clone(),
                    host,
                    trusted: sort.trusted,
                };
                let by_forward = Proxy {
                    forward: true,
                    target,
                    host: HostPolicy::User,
                    trusted: false,
                };
                Lane {
                    origin,
                    http: (http, address),
                    forward: (by_forward, forward),
                }
            });
            lanes.collect()
        });
        let lanes = lanes.collect();
        Self {
            tunnel,
            forward,
            lanes,
        }
    }

    /// The lanes of one worker.
    pub fn of(&self, worker: usize) -> &[Lane] {
        &self.lanes[worker]
    }

    /// All lanes.
    pub fn all(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.iter().flatten()
    }

    /// Both roles have lived through it all.
    pub fn expect_running(&mut self) {
        assert!(self.tunnel.server.is_running(), "the server lives");
        assert!(self.tunnel.client.is_running(), "the client lives");
        drop(crate::common::connect(self.forward));
    }
}

impl Lane {
    /// A way for one more user.
    pub fn draw_way(&self, rng: &mut Rng) -> Way<'_> {
        let (proxy, address) = match rng.percent(30) {
            true => &self.forward,
            false => &self.http,
        };
        let from = match address.is_ipv4() {
            true => Ipv4Addr::new(127, 0, 0, rng.between(1, 254) as u8).into(),
            false => Ipv6Addr::LOCALHOST.into(),
        };
        Way {
            proxy,
            address: *address,
            from,
        }
    }
}

/// A sort of `http` proxy.
struct Sort {
    /// `user`, `target` or a name.
    host: &'static str,
    trusted: bool,
    /// Listens on IPv6.
    v6: bool,
    /// The same, in JSON.
    options: &'static str,
}

const SORTS: &[Sort] = &[
    Sort {
        host: "user",
        trusted: false,
        v6: false,
        options: "",
    },
    Sort {
        host: "user",
        trusted: false,
        v6: true,
        options: r#", "host": "user""#,
    },
    Sort {
        host: "target",
        trusted: true,
        v6: false,
        options: r#", "host": "target", "trust_forwarded": true"#,
    },
    Sort {
        host: "name.test:8080",
        trusted: true,
        v6: true,
        options: r#", "host": "name.test:8080", "trust_forwarded": true"#,
    },
];
