//! What a role tells of itself at one moment.
//!
//! [`Status`] is what `/status` answers, and what `siding status` reads again: its names are a promise, so
//! that fields are added and none is renamed. [`Figures`] are what metrics tell besides.

use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};

use crate::{histogram::Histogram, pool, reactor::net::Descriptors, tunnel::ids::UserId};

/// What somebody asks of a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Whether it is of use.
    Readiness,
    /// What there is, in numbers.
    Metrics,
    /// What there is.
    Status,
    /// That the session of this user is reset; without an exchange, whatever it is doing.
    Close(UserId),
}

/// What a role answers.
#[derive(Debug)]
pub enum Told {
    /// Why it is of no use now, if so.
    Readiness(Option<String>),
    /// What there is; its streams are not looked at.
    Metrics(Box<(Status, Figures)>),
    /// What there is.
    Status(Box<Status>),
    /// Whether that user had a session.
    Closed(UserId, bool),
}

/// Streams that are listed at most: a list is for people, and one of a hundred thousand would cost the
/// data path a moment. The rest is counted.
pub const STREAMS_MAX: usize = 1000;

/// Targets of the pool that are listed at most, for the same reason.
pub const POOLS_MAX: usize = 1000;

/// What there is, for people and their programs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// `server` or `client`.
    pub role: String,
    /// Of the program.
    pub version: String,
    /// Why it is of no use now; absent if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_ready: Option<String>,
    /// Since its start.
    pub uptime_seconds: f64,
    /// Users connected (server).
    pub users: usize,
    /// Streams open.
    pub streams_open: usize,
    /// Streams opened since the start.
    pub streams_opened: u64,
    /// Payload bytes from users to targets since the start.
    pub bytes_up: u64,
    /// And from targets to users.
    pub bytes_down: u64,
    /// Bytes that were received and not yet delivered.
    pub undelivered_bytes: usize,
    /// How many of them there may be.
    pub undelivered_max: usize,
    /// Turns of the event loop since the start, their sleep not counted. As all times, not read again.
    #[serde(serialize_with = "times", skip_deserializing)]
    pub turns: Histogram,
    /// From requests' heads to the first bytes of their final responses.
    #[serde(serialize_with = "times", skip_deserializing)]
    pub first_bytes: Histogram,
    /// Exchanges for which a connection was parked (client).
    pub pool_hits: u64,
    /// And for which none was.
    pub pool_misses: u64,
    /// The links that are up.
    pub links: Vec<LinkStatus>,
    /// The proxies: of a server all there are, of a client those that it exposes.
    pub proxies: Vec<ProxyStatus>,
    /// Where the connections of the pool lead (client), at most [`POOLS_MAX`].
    pub pools: Vec<PoolStatus>,
    /// Streams, at most [`STREAMS_MAX`].
    pub streams: Vec<StreamStatus>,
    /// Open streams that are not among them.
    pub streams_not_listed: usize,
}

/// One link.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkStatus {
    /// Its client.
    pub client: String,
    /// Who is at its other end: of a server's whence it comes, of a client's the server's URL.
    pub peer: String,
    /// Since it began.
    pub age_seconds: f64,
    /// How long the peer took to answer when it was last asked.
    pub round_trip_seconds: Option<f64>,
    /// Streams in it.
    pub streams: usize,
    /// Payload bytes towards targets since it began.
    pub bytes_up: u64,
    /// And towards users.
    pub bytes_down: u64,
    /// Its other end takes no new streams.
    pub draining: bool,
}

/// One proxy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProxyStatus {
    /// Its `proxy_id`; empty at a client whose server has not opened it.
    pub id: String,
    /// `http`, `tcp`, …
    pub kind: String,
    /// Where it listens; at a client as it was asked for.
    pub address: String,
    /// Whose it is.
    pub client: String,
    /// Where it leads, unless its users say.
    pub target: Option<String>,
    /// Its client is there.
    pub link_up: bool,
    /// Users connected; nobody knows at a client.
    pub users: Option<usize>,
    /// Its open streams; at a client those that are listed.
    pub streams: usize,
    /// Payload bytes from its users: of the streams that have ended (server), and of those that are listed.
    pub bytes_up: u64,
    /// And to them.
    pub bytes_down: u64,
}

/// The connections to one target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolStatus {
    /// As `http://127.0.0.1:3000`.
    pub target: String,
    /// Parked.
    pub idle: usize,
    /// Serving an exchange among the streams that are listed.
    pub in_use: usize,
}

/// One stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamStatus {
    /// Its user, as in logs.
    pub user_id: String,
    /// Its proxy, or empty if that is closed.
    pub proxy_id: String,
    /// Since it was opened.
    pub age_seconds: f64,
    /// Payload bytes from the user.
    pub bytes_up: u64,
    /// And to it.
    pub bytes_down: u64,
    /// `connecting`, `request`, `response`, `open` or `half_closed`.
    pub state: String,
}

/// What metrics tell besides.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// How streams ended.
    pub ends: Vec<(&'static str, u64)>,
    /// How often somebody was refused, and for which reason.
    pub refusals: Vec<(&'static str, u64)>,
    /// Of what there is something under way that has a deadline: links, users' TLS, dials.
    pub handshakes: Vec<(&'static str, usize)>,
    /// A client's connections to its targets.
    pub pool: Option<PoolFigures>,
    /// What the event loop owns: sockets, listeners and timers.
    pub sockets: usize,
    /// How many of them are closed but for what their peers still send.
    pub lingering: usize,
    /// Descriptors, where they can be counted.
    pub descriptors: Option<Descriptors>,
}

/// A client's connections to its targets.
#[derive(Clone, Debug, Default)]
pub struct PoolFigures {
    /// Parked.
    pub idle: usize,
    /// Serving an exchange.
    pub in_use: usize,
    /// Dialled since the start.
    pub dialled: u64,
    /// What has happened in the pool.
    pub counters: pool::Counters,
}

/// How many there were, how long all of them took together, and how many took at most so many seconds each, as
/// `"0.001": 17`: the buckets of the histogram in metrics.
fn times<S: Serializer>(histogram: &Histogram, to: S) -> Result<S::Ok, S::Error> {
    let mut map = to.serialize_map(Some(3))?;
    map.serialize_entry("count", &histogram.total())?;
    map.serialize_entry("seconds", &histogram.sum().as_secs_f64())?;
    map.serialize_entry("within", &Within(histogram))?;
    map.end()
}

struct Within<'a>(&'a Histogram);

impl Serialize for Within<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let within = self.0.cumulative();
        to.collect_map(within.map(|(bound, count)| (bound.as_secs_f64().to_string(), count)))
    }
}
