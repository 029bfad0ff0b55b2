//! Every deadline and limit that can be configured, with its default and the reason for it.
//!
//! These are the `timeouts`, `pool` and `limits` objects of the JSON configurations, field by field;
//! what is left out keeps its default. They have no flags: who needs to change one has a file.

use std::{str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer};

use super::value::{Invalid, SIZE_MAX, count_within, grace, impl_text, period, size_within};

/// Deadlines of a server. There is none for dialling (that is the client's) nor for a response body.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerTimeouts {
    /// From accepting a client to its verified hello. 10 s: a few round trips on the worst of
    /// links, while a stranger holds a slot of [`ServerLimits::handshakes`] no longer.
    #[serde(deserialize_with = "period")]
    pub handshake: Duration,
    /// From the first byte of a request (or the connection's begin) to the end of its head. 30 s:
    /// slow enough for people who type, short enough against slow heads sent on purpose.
    #[serde(deserialize_with = "period")]
    pub request_head: Duration,
    /// Without a byte of a request body that is due. 60 s: outlives a stall of a mobile network.
    #[serde(deserialize_with = "period")]
    pub request_body: Duration,
    /// Between two requests of one user. 60 s: as browsers and proxies commonly assume.
    #[serde(deserialize_with = "period")]
    pub keep_alive: Duration,
    /// Without progress once one direction of a raw stream has ended. 60 s: the far side is likely
    /// still computing its answer at first, and gone after that.
    #[serde(deserialize_with = "period")]
    pub half_close: Duration,
    /// From goaway to the close of what is still open. 30 s, as service managers grant before they
    /// kill; 0 does not wait at all.
    #[serde(deserialize_with = "grace")]
    pub drain: Duration,
    /// Reading on after an answer that ended a connection, so that a reset does not destroy the
    /// answer on its way (RFC 9112 §9.6). 2 s: a few round trips; 0 closes at once.
    #[serde(deserialize_with = "grace")]
    pub linger: Duration,
    /// Silence on a link before a ping. 15 s: under the 30 s after which the worst NATs forget.
    #[serde(deserialize_with = "period")]
    pub ping: Duration,
    /// From a ping to giving the link up, while no byte comes. 10 s: longer than TCP needs to
    /// repair a short outage.
    #[serde(deserialize_with = "period")]
    pub pong: Duration,
}

impl Default for ServerTimeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            request_head: Duration::from_secs(30),
            request_body: Duration::from_secs(60),
            keep_alive: Duration::from_secs(60),
            half_close: Duration::from_secs(60),
            drain: Duration::from_secs(30),
            linger: Duration::from_secs(2),
            ping: Duration::from_secs(15),
            pong: Duration::from_secs(10),
        }
    }
}

/// Deadlines of a client. There is none for a response body.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientTimeouts {
    /// From a stream's arrival to a connected target, the name's lookup, its queue and the handshake of
    /// TLS included.
    /// 10 s: three SYNs (sent at 0, 1, 3 s, and the next only at 7 s) and some room.
    #[serde(deserialize_with = "period")]
    pub dial: Duration,
    /// Waiting for a target that has as many exchanges as `pool.max_active_per_target` lets it have.
    /// 10 s: who waits longer has given up, and most likely sends the request again.
    #[serde(deserialize_with = "period")]
    pub queue: Duration,
    /// From dialling the server to its verified welcome. 10 s, as at the server.
    #[serde(deserialize_with = "period")]
    pub handshake: Duration,
    /// From a request completely written to the end of the final response's head. 60 s: what
    /// gateways commonly grant a slow origin.
    #[serde(deserialize_with = "period")]
    pub response_head: Duration,
    /// As at the server.
    #[serde(deserialize_with = "period")]
    pub half_close: Duration,
    /// As at the server; 0 does not wait at all.
    #[serde(deserialize_with = "grace")]
    pub drain: Duration,
    /// As at the server.
    #[serde(deserialize_with = "period")]
    pub ping: Duration,
    /// As at the server.
    #[serde(deserialize_with = "period")]
    pub pong: Duration,
}

impl Default for ClientTimeouts {
    fn default() -> Self {
        Self {
            dial: Duration::from_secs(10),
            queue: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            response_head: Duration::from_secs(60),
            half_close: Duration::from_secs(60),
            drain: Duration::from_secs(30),
            ping: Duration::from_secs(15),
            pong: Duration::from_secs(10),
        }
    }
}

/// Limits of a server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerLimits {
    /// Bytes of the whole process that were received and not yet delivered. 64 MiB: 256 streams
    /// that each stall with a full window of 256 KiB. At least 1 MiB, of which the smallest initial
    /// window (4 KiB) is the 256th part.
    #[serde(deserialize_with = "undelivered")]
    pub undelivered: usize,
    /// Bytes of a request's head. 32 KiB: twice what common origins accept (Node 16 KiB, nginx
    /// 8 KiB per line), so that it is the origin that refuses, in its own words.
    #[serde(deserialize_with = "head")]
    pub head: usize,
    /// Fields of a request's head. 100, as Apache's default; browsers send some 20.
    #[serde(deserialize_with = "fields")]
    pub fields: usize,
    /// Bytes of a request line, answered with 414 where there are more. 8 KiB, as nginx's default:
    /// just above the 8000 that RFC 9112 §3 recommends to support.
    #[serde(deserialize_with = "head")]
    pub request_line: usize,
    /// Bytes of one chunk's extensions, in a request body; they mean nothing to us and are dropped.
    /// 1 KiB: the signature of an object store's client has about 90 bytes, others send none. 0
    /// refuses them. However many chunks there are, beyond 16 bytes each and two for each byte of
    /// data the extensions of one body may be 16 KiB: more would be work for nothing.
    #[serde(deserialize_with = "extension")]
    pub chunk_extension: usize,
    /// Bytes of a request's trailer section. 8 KiB, a quarter of a head: it is kept until its end
    /// to be checked, and holds digests and signatures. 0 refuses trailers.
    #[serde(deserialize_with = "trailers")]
    pub trailers: usize,
    /// Bytes read at once ahead of what is being served: all that a user who sends requests without
    /// waiting for answers can make us hold. The rest waits in the kernel, which stops the user.
    /// 16 KiB, in which a request that comes alone is read at once with its head and first bytes.
    #[serde(deserialize_with = "pipelined")]
    pub pipelined: usize,
    /// Links before their welcome. 256: a fleet that reconnects at once gets in by so many at a time,
    /// while strangers hold at most that many sockets and 4 KiB each. More wait to be accepted, and who
    /// takes longer than a second makes room for them.
    #[serde(deserialize_with = "concurrency")]
    pub handshakes: usize,
    /// Users between whom and us TLS does not stand yet. 1024, which is a listener's backlog: an honest
    /// user behind a full one of those who say nothing, each of whom has a second, waits no longer than
    /// that. They hold some 6 KiB each. With fewer places strangers keep users out whom the core, which
    /// shakes hands a thousand times in a second, would have time for.
    #[serde(deserialize_with = "concurrency")]
    pub user_handshakes: usize,
    /// Descriptors that users leave free, so that clients are still let in, proxies opened and certificates
    /// read again when users have taken all others; at most an eighth of the process's limit. 32: listeners may
    /// take 16 of them, links 8 more, and the last 8 are for files. 0 reserves none.
    #[serde(deserialize_with = "parked")]
    pub descriptors_reserved: usize,
    /// Users connected at a time; who comes beyond that is refused. 0, the default, is no limit: descriptors
    /// and `memory_max` are limits already, at which users wait instead of being refused.
    #[serde(deserialize_with = "users")]
    pub connections: usize,
    /// Users of one proxy, where its own `max_connections` does not say otherwise. 0, the default, is no
    /// limit: nobody but its operator knows what a target bears, and how many proxies share the server.
    #[serde(deserialize_with = "users")]
    pub connections_per_proxy: usize,
    /// Users of all proxies of one client. 0, the default, is no limit: with clients that do not know each
    /// other a share of `connections` for each keeps one from taking all.
    #[serde(deserialize_with = "users")]
    pub connections_per_client: usize,
    /// Users from one address, or from one /64 of IPv6. 0, the default, is no limit: behind a balancer, or a
    /// provider's NAT, one address is all there is of thousands of honest users.
    #[serde(deserialize_with = "users")]
    pub connections_per_source: usize,
    /// New users in a second from one address, or one /64 of IPv6, and as many new links. 0, the default, is
    /// no limit, as above. A source that was quiet may come with two seconds' worth at once, 12 at least.
    #[serde(deserialize_with = "rate")]
    pub rate_per_source: u32,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            undelivered: 64 << 20,
            head: 32 << 10,
            fields: 100,
            request_line: 8 << 10,
            chunk_extension: 1 << 10,
            trailers: 8 << 10,
            pipelined: 16 << 10,
            handshakes: 256,
            user_handshakes: 1024,
            descriptors_reserved: 32,
            connections: 0,
            connections_per_proxy: 0,
            connections_per_client: 0,
            connections_per_source: 0,
            rate_per_source: 0,
        }
    }
}

/// Limits of a client.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientLimits {
    /// As at the server. Routers do with 4 MiB.
    #[serde(deserialize_with = "undelivered")]
    pub undelivered: usize,
    /// Bytes of a response's head. 64 KiB: twice a request's, because origins are chosen by the
    /// operator while users are not, and answers do carry long `Set-Cookie`, `Link` and policy
    /// fields. Every exchange may hold one such head while it is incomplete, so not more.
    #[serde(deserialize_with = "head")]
    pub head: usize,
    /// Fields of a response's head. 100, as for requests.
    #[serde(deserialize_with = "fields")]
    pub fields: usize,
    /// As at the server, in a response body.
    #[serde(deserialize_with = "extension")]
    pub chunk_extension: usize,
    /// As at the server, of a response.
    #[serde(deserialize_with = "trailers")]
    pub trailers: usize,
    /// Dials in progress per link; more wait their turn, within their deadline. 256: black-holed
    /// targets cost at most that many sockets.
    #[serde(deserialize_with = "concurrency")]
    pub dials: usize,
    /// Interim responses (1xx) to one request; together they are at most `head` bytes. 100: a `102`
    /// every 20 s for half an hour. They are passed on at once, whether the user reads or not, and
    /// each renews the origin's deadline.
    #[serde(deserialize_with = "concurrency")]
    pub interims: usize,
    /// Descriptors that connections to targets leave free, so that the link can be dialled again, names looked
    /// up and certificates read. 32, as at the server.
    #[serde(deserialize_with = "parked")]
    pub descriptors_reserved: usize,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            undelivered: 64 << 20,
            head: 64 << 10,
            fields: 100,
            chunk_extension: 1 << 10,
            trailers: 8 << 10,
            dials: 256,
            interims: 100,
            descriptors_reserved: 32,
        }
    }
}

/// What a client keeps parked.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolLimits {
    /// Which requests may take a parked connection.
    pub mode: PoolMode,
    /// Parked connections in total. 1024: a common limit of descriptors, since a client whose limit
    /// is lower evicts the oldest when it runs out. 0 parks nothing.
    #[serde(deserialize_with = "parked")]
    pub max_idle: usize,
    /// Parked connections per target. 1024, so that the one target that most clients have may have them all:
    /// what it served at once a moment ago it will serve at once again, and 50 users who find 32 dial
    /// for every fourth request. For an origin that minds, less. 0 parks nothing.
    #[serde(deserialize_with = "parked")]
    pub max_idle_per_target: usize,
    /// Exchanges that one target serves at a time; more wait. 0, the default, is no limit: an origin
    /// knows best what it can take, and says so by not accepting. For one that breaks instead.
    #[serde(deserialize_with = "parked")]
    pub max_active_per_target: usize,
    /// Exchanges that may wait for a target, where it has such a limit. 1024: at 16 KiB each, which
    /// is what a user may send ahead, a quarter of the default of `undelivered`.
    #[serde(deserialize_with = "parked")]
    pub queue_per_target: usize,
    /// How long a connection stays parked. 30 s: well under the 60 to 75 s after which origins and
    /// middleboxes commonly drop it; origins that say less are believed.
    #[serde(deserialize_with = "period")]
    pub idle: Duration,
    /// How old a connection may get and still be parked. 10 min: so that a name that moved to
    /// another address is followed.
    #[serde(deserialize_with = "period")]
    pub age: Duration,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self {
            mode: PoolMode::Safe,
            max_idle: 1024,
            max_idle_per_target: 1024,
            max_active_per_target: 0,
            queue_per_target: 1024,
            idle: Duration::from_secs(30),
            age: Duration::from_secs(600),
        }
    }
}

/// Which requests may take a parked connection. Its origin may close it at the very moment, and a
/// request that was sent then may or may not have been acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolMode {
    /// Any that may be repeated; one that may not, only a connection parked less than a second ago.
    Safe,
    /// None: each has a fresh connection, and nothing is parked.
    Never,
    /// Any.
    Always,
}

impl FromStr for PoolMode {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "safe" => Ok(Self::Safe),
            "never" => Ok(Self::Never),
            "always" => Ok(Self::Always),
            _ => Err(Invalid::new(format!(
                "{text:?} is not a pool mode: safe, never or always"
            ))),
        }
    }
}

impl_text!(PoolMode, "a pool mode: \"safe\", \"never\" or \"always\"");

fn undelivered<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    size_within(deserializer, 1 << 20..=SIZE_MAX)
}

/// A head is held and parsed in one piece, so it is far smaller than any budget: at most the least
/// `undelivered`, at least what a browser's request needs.
fn head<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    size_within(deserializer, 1 << 10..=1 << 20)
}

/// Fewer than the bytes that the extensions of a whole body may have for nothing.
fn extension<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    size_within(deserializer, 0..=16 << 10)
}

/// As [`head`], which it follows; none is an answer too.
fn trailers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    size_within(deserializer, 0..=1 << 20)
}

/// One buffer of this size is read into, and each user may leave as much behind.
fn pipelined<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    size_within(deserializer, 1 << 10..=1 << 20)
}

/// The parser holds one table of so many fields.
fn fields<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    count_within(deserializer, 1..=1000)
}

/// Sockets at a time; there are not more ports.
fn concurrency<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    count_within(deserializer, 1..=65_535)
}

/// Connections at a time, of however many addresses; 0 for any number.
pub(super) fn users<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    count_within(deserializer, 0..=USERS_MAX)
}

/// More descriptors than Linux gives a process (`fs.nr_open` is 2^20 by default).
const USERS_MAX: usize = 1 << 24;

/// Connections in a second, at most what one core could accept; 0 for any number.
fn rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    count_within(deserializer, 0..=65_535).map(|rate| rate as u32)
}

/// As [`concurrency`], but none is an answer too.
fn parked<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    count_within(deserializer, 0..=65_535)
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::*;

    fn read<T: DeserializeOwned>(json: &str) -> Result<T, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_left_out_keeps_its_default() {
        assert_eq!(read("{}"), Ok(ServerTimeouts::default()));
        assert_eq!(read("{}"), Ok(ClientTimeouts::default()));
        assert_eq!(read("{}"), Ok(ServerLimits::default()));
        assert_eq!(read("{}"), Ok(ClientLimits::default()));
        assert_eq!(read("{}"), Ok(PoolLimits::default()));
        assert_eq!(
            read(r#"{ "linger": "500ms" }"#),
            Ok(ServerTimeouts {
                linger: Duration::from_millis(500),
                ..ServerTimeouts::default()
            })
        );
        assert_eq!(
            read(r#"{ "undelivered": "4MiB", "dials": 8 }"#),
            Ok(ClientLimits {
                undelivered: 4 << 20,
                dials: 8,
                ..ClientLimits::default()
            })
        );
    }

    #[test]
    fn every_field_can_be_set() {
        let seconds = Duration::from_secs;
        assert_eq!(
            read(
                r#"{ "handshake": "1s", "request_head": "2s", "request_body": "3s", "keep_alive": "4s",
                "half_close": "5s", "drain": "6s", "linger": "7s", "ping": "8s", "pong": "9s" }"#
            ),
            Ok(ServerTimeouts {
                handshake: seconds(1),
                request_head: seconds(2),
                request_body: seconds(3),
                keep_alive: seconds(4),
                half_close: seconds(5),
                drain: seconds(6),
                linger: seconds(7),
                ping: seconds(8),
                pong: seconds(9),
            })
        );
        assert_eq!(
            read(
                r#"{ "dial": "1s", "handshake": "2s", "response_head": "3s", "half_close": "4s",
                "drain": "5s", "ping": "6s", "pong": "7s", "queue": "8s" }"#
            ),
            Ok(ClientTimeouts {
                dial: seconds(1),
                queue: seconds(8),
                handshake: seconds(2),
                response_head: seconds(3),
                half_close: seconds(4),
                drain: seconds(5),
                ping: seconds(6),
                pong: seconds(7),
            })
        );
        assert_eq!(
            read(
                r#"{ "undelivered": 1048576, "head": 1024, "fields": 1, "request_line": 1025,
                "chunk_extension": 0, "trailers": 1, "pipelined": 1026, "handshakes": 2,
                "user_handshakes": 3, "descriptors_reserved": 9, "connections": 4, "connections_per_proxy": 5,
                "connections_per_client": 6, "connections_per_source": 7, "rate_per_source": 8 }"#
            ),
            Ok(ServerLimits {
                undelivered: 1 << 20,
                head: 1024,
                fields: 1,
                request_line: 1025,
                chunk_extension: 0,
                trailers: 1,
                pipelined: 1026,
                handshakes: 2,
                user_handshakes: 3,
                descriptors_reserved: 9,
                connections: 4,
                connections_per_proxy: 5,
                connections_per_client: 6,
                connections_per_source: 7,
                rate_per_source: 8,
            })
        );
        assert_eq!(
            read(
                r#"{ "undelivered": "1GiB", "head": "1MiB", "fields": 1000,
                "chunk_extension": "16KiB", "trailers": "1MiB", "dials": 65535,
                "interims": 1000, "descriptors_reserved": 0 }"#
            ),
            Ok(ClientLimits {
                undelivered: 1 << 30,
                head: 1 << 20,
                fields: 1000,
                chunk_extension: 16 << 10,
                trailers: 1 << 20,
                dials: 65535,
                interims: 1000,
                descriptors_reserved: 0,
            })
        );
        assert_eq!(
            read(
                r#"{ "mode": "always", "max_idle": 0, "max_idle_per_target": 1,
                "max_active_per_target": 2, "queue_per_target": 3, "idle": "1s",
                     "age": "2h" }"#
            ),
            Ok(PoolLimits {
                mode: PoolMode::Always,
                max_idle: 0,
                max_idle_per_target: 1,
                max_active_per_target: 2,
                queue_per_target: 3,
                idle: seconds(1),
                age: seconds(7200),
            })
        );
    }

    #[test]
    fn each_bound_is_enforced() {
        for json in [
            r#"{ "undelivered": 1048575 }"#,
            r#"{ "undelivered": "1025GiB" }"#,
            r#"{ "undelivered": 0 }"#,
            r#"{ "head": 1023 }"#,
            r#"{ "head": 1048577 }"#,
            r#"{ "fields": 0 }"#,
            r#"{ "fields": 1001 }"#,
            r#"{ "request_line": 1023 }"#,
            r#"{ "request_line": "2MiB" }"#,
            r#"{ "chunk_extension": 16385 }"#,
            r#"{ "trailers": 1048577 }"#,
            r#"{ "pipelined": 1023 }"#,
            r#"{ "pipelined": 1048577 }"#,
            r#"{ "handshakes": 0 }"#,
            r#"{ "handshakes": 65536 }"#,
            r#"{ "connections": 16777217 }"#,
            r#"{ "connections_per_source": 16777217 }"#,
            r#"{ "rate_per_source": 65536 }"#,
        ] {
            let reason = read::<ServerLimits>(json).expect_err(json);
            assert!(reason.contains("is outside"), "{json}: {reason}");
        }
        for field in [
            "handshake",
            "request_head",
            "request_body",
            "keep_alive",
            "half_close",
            "ping",
            "pong",
        ] {
            let reason =
                read::<ServerTimeouts>(&format!(r#"{{ "{field}": "0s" }}"#)).expect_err(field);
            assert!(reason.contains("longer than 0"), "{field}: {reason}");
        }
        for field in [
            "dial",
            "handshake",
            "response_head",
            "half_close",
            "ping",
            "pong",
        ] {
            let reason =
                read::<ClientTimeouts>(&format!(r#"{{ "{field}": "0s" }}"#)).expect_err(field);
            assert!(reason.contains("longer than 0"), "{field}: {reason}");
        }
        for field in ["idle", "age"] {
            let reason = read::<PoolLimits>(&format!(r#"{{ "{field}": "0s" }}"#)).expect_err(field);
            assert!(reason.contains("longer than 0"), "{field}: {reason}");
        }
        assert!(read::<PoolLimits>(r#"{ "max_idle": 65536 }"#).is_err());
        assert!(read::<ClientLimits>(r#"{ "dials": 0 }"#).is_err());
        let zero = read::<ServerTimeouts>(r#"{ "drain": "0s", "linger": "0ms" }"#).unwrap();
        assert!(zero.drain.is_zero() && zero.linger.is_zero());
    }

    #[test]
    fn numbers_are_no_durations() {
        let reason = read::<ServerTimeouts>(r#"{ "ping": 15 }"#).unwrap_err();
        assert!(reason.contains("\"30s\""), "{reason}");
    }
}
