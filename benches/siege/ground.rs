//! What is besieged: a server and its client with an origin and an sshd behind them, and what an attacker
//! knows of it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use crate::common::{
    Authority, CLIENT, HttpOrigin, Origin, Scratch, Sshd, Tunnel, echoing_bodies, free_port,
};

/// What the honest client proves.
const TOKEN: &str = "the token of honest clients";

/// What those who attack as clients prove, each with an id of its own.
const THEIR_TOKEN: &str = "a token of hostile clients";

/// What the users of a proxy to a stranger's target may be sent in a second where there are limits.
const RATE: &str = "100MiB";

/// How many hostile clients may come in.
pub const HOSTILE_CLIENTS: usize = 8;

/// Where all this is: enough to attack it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ground {
    /// Where the server waits for clients, over TLS.
    pub link: SocketAddr,
    /// Who certifies the server.
    pub ca: PathBuf,
    /// What hostile clients know; their ids are those of [`Ground::id`].
    pub token: String,
    /// An `http` listener with honest users.
    pub http: SocketAddr,
    /// The same inside of TLS.
    pub https: SocketAddr,
    /// A `tcp` listener to `raw_target`, where nobody honest goes.
    pub raw: SocketAddr,
    /// A target of the honest client, where nobody listens until an attacker does.
    pub raw_target: SocketAddr,
    /// An `http` listener to `target`, where nobody honest goes.
    pub detour: SocketAddr,
    /// A target of the honest client, where nobody listens until an attacker does.
    pub target: SocketAddr,
    /// What the hostile client of each index may expose.
    pub exposed: Vec<u16>,
    /// Where a hostile server is to wait for the client that is its victim.
    pub server: SocketAddr,
    /// The only target that this client allows.
    pub allowed: SocketAddr,
}

/// All of it, running.
pub struct Stage {
    /// What an attacker knows.
    pub ground: Ground,
    /// Server and client.
    pub tunnel: Tunnel,
    /// Who speaks as honest users do.
    pub authority: Authority,
    /// Where ssh sessions go; an echo where OpenSSH is not installed.
    pub sshd: Option<Sshd>,
    /// The listener of sessions.
    pub session: SocketAddr,
    _origin: HttpOrigin,
    _echo: Origin,
    _scratch: Scratch,
}

impl Ground {
    /// The id of a hostile client.
    pub fn id(index: usize) -> String {
        format!("hostile-{index}")
    }
}

impl Stage {
    /// Starts everything; the server takes so many connections in a second from one address, four times as
    /// many at a time, and [`RATE`] of what strangers lead to, or (0) any number and as much as comes.
    pub fn set(rate: u32) -> Stage {
        let authority = Authority::new();
        let origin = echoing_bodies();
        let echo = Origin::echo();
        let sshd = Sshd::start();
        let session_target = sshd.as_ref().map_or(echo.address(), Sshd::address);
        let scratch = Scratch::new();
        let token = scratch.write("hostile.token", THEIR_TOKEN);
        let here = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let [raw_target, target, server, allowed] = [(); 4].map(|()| here(free_port()));
        let exposed: Vec<u16> = (0..HOSTILE_CLIENTS).map(|_| free_port()).collect();
        let clients = exposed.iter().enumerate().map(|(index, port)| {
            let (id, token) = (Ground::id(index), token.display());
            format!(r#"{{ "id": "{id}", "token_file": "{token}", "ports": "{port}" }}"#)
        });
        let clients: Vec<String> = clients.collect();
        let detour = match rate {
            0 => String::new(),
            _ => format!(r#", "rate": "{RATE}""#),
        };
        let proxies = [
            ("http", origin.address(), ""),
            ("https", origin.address(), r#", "tls": true"#),
            ("raw", raw_target, ""),
            ("detour", target, detour.as_str()),
            ("ssh", session_target, ""),
        ];
        let listeners = proxies.map(|_| here(free_port()));
        let entries = proxies.iter().zip(listeners);
        let entries = entries.map(|((name, target, options), listener)| {
            let kind = match *name {
                "raw" => "tcp",
                "ssh" => "ssh",
                _ => "http",
            };
            let spec = format!("{kind}:{}:{target}", listener.port());
            format!(r#"{{ "client": "{CLIENT}", "spec": "{spec}"{options} }}"#)
        });
        let entries: Vec<String> = entries.collect();
        let allow = [origin.address(), raw_target, target, session_target];
        let tunnel = allow
            .iter()
            .fold(Tunnel::builder(), |plan, target| {
                plan.allow(target.to_string())
            })
            .secure(&authority)
            .token(TOKEN)
            .server_config(format!(
                r#"{{ "clients": [ {} ], "proxies": [ {} ],
                     "limits": {{ "rate_per_source": {rate}, "connections_per_source": {} }} }}"#,
                clients.join(", "),
                entries.join(", "),
                4 * rate
            ))
            .log("info")
            .start();
        let [http, https, raw, detour, session] = listeners;
        let ground = Ground {
            link: tunnel.link(),
            ca: authority.file(),
            token: THEIR_TOKEN.to_owned(),
            http,
            https,
            raw,
            raw_target,
            detour,
            target,
            exposed,
            server,
            allowed,
        };
        Stage {
            ground,
            tunnel,
            authority,
            sshd,
            session,
            _origin: origin,
            _echo: echo,
            _scratch: scratch,
        }
    }

    /// What is to be said of server and client in the end: nothing, where all is well.
    pub fn remarks(&self) -> Vec<String> {
        let lost = self.tunnel.server.log();
        let lost = lost.count(&format!("link {CLIENT}: down"));
        match lost {
            0 => Vec::new(),
            _ => vec![format!("the honest client has lost its link {lost} times")],
        }
    }
}
