//! Node.js as an origin: HTTP servers with its own defaults, and a WebSocket echo.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Command,
};

use crate::common::{Process, Scratch, require};

/// What the origin does is said at its head.
const SCRIPT: &str = include_str!("origin.mjs");

/// A Node of several servers.
pub struct Node {
    /// The process; each request is a line of its log.
    pub process: Process,
    addresses: Vec<SocketAddr>,
    _script: Scratch,
}

/// What a Node has logged of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The method.
    pub method: String,
    /// Path and query.
    pub url: String,
    /// `HTTP/1.1`.
    pub version: String,
    /// Bytes of its body.
    pub length: usize,
    /// The number of its connection, from 1.
    pub connection: usize,
}

impl Node {
    /// One server with every default; `None` where node is not installed.
    pub fn start() -> Option<Self> {
        Self::with(&["{}"])
    }

    /// A server for each object of options; `None` where node is not installed.
    pub fn with(options: &[&str]) -> Option<Self> {
        let node = require("node")?;
        let scratch = Scratch::new();
        let script = scratch.write("origin.mjs", SCRIPT);
        let mut command = Command::new(node);
        command.arg(script).arg(format!("[{}]", options.join(",")));
        let process = Process::start("node", &mut command);
        let ports = process.log().wait_for("listening ");
        let addresses = ports.split(' ').skip(1).map(|port| {
            let port = port.parse().expect("a port");
            SocketAddr::from((Ipv4Addr::LOCALHOST, port))
        });
        let addresses = addresses.collect();
        Some(Self {
            process,
            addresses,
            _script: scratch,
        })
    }

    /// Where the first server listens.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Where each server listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The requests so far.
    pub fn received(&self) -> Vec<Received> {
        let lines = self.process.log().lines();
        let requests = lines.iter().filter_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let ["request", method, url, version, length, connection] = words[..] else {
                return None;
            };
            Some(Received {
                method: method.to_owned(),
                url: url.to_owned(),
                version: version.to_owned(),
                length: length.parse().expect("a length"),
                connection: connection.parse().expect("a number"),
            })
        });
        requests.collect()
    }
}
