//! What can be measured, by name.

use std::time::Duration;

use crate::{bulk::Want, exchange::Plan, peers::Speaks, ping::Pings, service::Asks};

/// A name for what is measured.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// In arguments and in the table.
    pub name: &'static str,
    /// What the table says of it.
    pub about: &'static str,
    /// What is to be carried.
    pub speaks: Speaks,
    /// What happens.
    pub load: Load,
}

/// What happens.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// As many bytes as go, over so many streams.
    Bulk {
        /// Which way.
        want: Want,
        /// Over how many streams.
        streams: u64,
    },
    /// Round trips, and nothing else.
    Ping(Pings),
    /// Round trips beside others.
    Beside {
        /// Downloads that take all that they get.
        downloads: u64,
        /// Whether there is one more, whose reader never reads.
        stalled: bool,
        /// Uploads that the origin never reads.
        held_uploads: u64,
    },
    /// Short exchanges.
    Exchange(Plan),
    /// Nothing but to serve the first byte.
    Start,
    /// Users who stay and say nothing.
    Idle {
        /// How many.
        connections: usize,
    },
    /// Connections to the origin that nobody uses any more.
    Parked {
        /// How many.
        connections: usize,
    },
}

/// Round trips beside others: an interactive user.
pub const PACED: Pings = Pings {
    streams: 1,
    pace: Duration::from_millis(5),
};

const KIB: Asks = Asks::Http { body: 1024 };
const KIB_64: Asks = Asks::Http { body: 64 * 1024 };

/// All of them, in the order in which they are run.
pub const ALL: &[Scenario] = &[
    bulk("down1", "download, 1 stream", Want::Download, 1),
    bulk("down16", "download, 16 streams", Want::Download, 16),
    bulk("up1", "upload, 1 stream", Want::Upload, 1),
    bulk("up16", "upload, 16 streams", Want::Upload, 16),
    tcp(
        "ping1",
        "64 bytes there and back, 1 stream",
        Load::Ping(Pings {
            streams: 1,
            pace: Duration::ZERO,
        }),
    ),
    tcp(
        "paced100",
        "64 bytes there and back each 10 ms, 100 streams",
        Load::Ping(Pings {
            streams: 100,
            pace: Duration::from_millis(10),
        }),
    ),
    tcp(
        "load4",
        "64 bytes there and back each 5 ms, beside 4 downloads",
        Load::Beside {
            downloads: 4,
            stalled: false,
            held_uploads: 0,
        },
    ),
    tcp(
        "stall",
        "the same, and one more download whose reader never reads",
        Load::Beside {
            downloads: 4,
            stalled: true,
            held_uploads: 0,
        },
    ),
    tcp(
        "stall4up",
        "64 bytes there and back each 5 ms, beside 4 uploads that nobody reads",
        Load::Beside {
            downloads: 0,
            stalled: false,
            held_uploads: 4,
        },
    ),
    exchange(
        "rate1",
        "connect, one byte, close; one at a time",
        Speaks::Tcp,
        Asks::Byte,
        1,
        true,
    ),
    exchange(
        "rate64",
        "connect, one byte, close; 64 in parallel",
        Speaks::Tcp,
        Asks::Byte,
        64,
        true,
    ),
    exchange(
        "http-ka50",
        "HTTP 1 KiB, keep-alive, 50 users",
        Speaks::Http,
        KIB,
        50,
        false,
    ),
    exchange(
        "http-64k",
        "HTTP 64 KiB, keep-alive, 50 users",
        Speaks::Http,
        KIB_64,
        50,
        false,
    ),
    exchange(
        "http-new1",
        "HTTP 1 KiB, a connection per request, 1 user",
        Speaks::Http,
        KIB,
        1,
        true,
    ),
    exchange(
        "http-new50",
        "HTTP 1 KiB, a connection per request, 50 users",
        Speaks::Http,
        KIB,
        50,
        true,
    ),
    exchange(
        "https-ka50",
        "HTTPS origin, 1 KiB, keep-alive, 50 users",
        Speaks::Https,
        KIB,
        50,
        false,
    ),
    exchange(
        "https-new8",
        "HTTPS origin, 1 KiB, a connection per request, 8 users",
        Speaks::Https,
        KIB,
        8,
        true,
    ),
    exchange(
        "https-new50",
        "HTTPS origin, 1 KiB, a connection per request, 50 users",
        Speaks::Https,
        KIB,
        50,
        true,
    ),
    tcp("start", "from nothing to the first byte", Load::Start),
    idle("idle1000", "1,000 connections that idle", 1_000),
    idle("idle5000", "5,000 connections that idle", 5_000),
    idle("idle15000", "15,000 connections that idle", 15_000),
    parked("parked1000", "1,000 parked", Speaks::Http, 1_000),
    parked("parked5000", "5,000 parked", Speaks::Http, 5_000),
    parked("parked15000", "15,000 parked", Speaks::Http, 15_000),
    parked(
        "tls-parked1000",
        "1,000 parked, with TLS",
        Speaks::Https,
        1_000,
    ),
    parked(
        "tls-parked5000",
        "5,000 parked, with TLS",
        Speaks::Https,
        5_000,
    ),
];

const fn tcp(name: &'static str, about: &'static str, load: Load) -> Scenario {
    Scenario {
        name,
        about,
        speaks: Speaks::Tcp,
        load,
    }
}

const fn bulk(name: &'static str, about: &'static str, want: Want, streams: u64) -> Scenario {
    tcp(name, about, Load::Bulk { want, streams })
}

const fn idle(name: &'static str, about: &'static str, connections: usize) -> Scenario {
    tcp(name, about, Load::Idle { connections })
}

const fn parked(
    name: &'static str,
    about: &'static str,
    speaks: Speaks,
    connections: usize,
) -> Scenario {
    Scenario {
        name,
        about,
        speaks,
        load: Load::Parked { connections },
    }
}

const fn exchange(
    name: &'static str,
    about: &'static str,
    speaks: Speaks,
    asks: Asks,
    users: usize,
    reconnects: bool,
) -> Scenario {
    let plan = Plan {
        asks,
        users,
        reconnects,
    };
    Scenario {
        name,
        about,
        speaks,
        load: Load::Exchange(plan),
    }
}
