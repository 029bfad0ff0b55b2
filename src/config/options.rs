//! What may be said of a proxy besides its SPEC.
//!
//! Owns the values and for which kinds they mean something. They are written beside `spec` in the
//! object form of an entry, and travel as `options` in `proxy_open` when a client exposes; the server
//! checks both by the same functions. Only users differ: a file names them, and the wire carries what is
//! kept of them. An option that it does not know it refuses, there too: one that
//! says who may come in must not be passed over.

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use super::{
    access::{self, Networks},
    host_policy::HostPolicy,
    limits,
    routes::{Names, Paths, Routes},
    spec::{Kind, Spec},
    users::Users,
    value::{Invalid, SIZE_MAX, impl_text, size_within},
};
use crate::proxy_protocol::Version;

/// Options of one proxy; absent ones have the defaults of its kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyOptions {
    /// What the origin gets as `Host`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<HostPolicy>,
    /// The proxy's users are proxies themselves, and what they say of their users is passed on.
    #[serde(skip_serializing_if = "is_false")]
    pub trust_forwarded: bool,
    /// TLS is spoken to its users, with the server's certificates.
    #[serde(skip_serializing_if = "is_false")]
    pub tls: bool,
    /// The names that lead to it, where it shares its listener.
    #[serde(skip_serializing_if = "Names::is_empty")]
    pub hosts: Names,
    /// The beginnings of paths that lead to it, where it shares its listener.
    #[serde(skip_serializing_if = "Paths::is_empty")]
    pub paths: Paths,
    /// Whence users may come; from anywhere, where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_from: Option<Networks>,
    /// Whence they may not.
    #[serde(skip_serializing_if = "Networks::is_empty")]
    pub deny_from: Networks,
    /// Users at a time, 0 for any number; as many as the server's `connections_per_proxy`, where it is
    /// absent.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "connections"
    )]
    pub max_connections: Option<usize>,
    /// The balancers in front of its listener: they say whose each connection is before its first byte.
    #[serde(skip_serializing_if = "Networks::is_empty")]
    pub accept_proxy: Networks,
    /// The target is told whose each connection is, before its first byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<Version>,
    /// Bytes in a second that its users send, and as many that they are sent; any number, where it is absent.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bytes_per_second"
    )]
    pub rate: Option<usize>,
    /// Where the users stand, relative to the configuration.
    #[serde(skip_serializing)]
    pub users_file: Option<PathBuf>,
    /// The users who may come in, as they were read from there; anybody may, where it is absent.
    #[serde(skip)]
    pub users: Option<Users>,
}

fn connections<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    limits::users(deserializer).map(Some)
}

/// At least a packet's worth: what is slower is an outage.
fn bytes_per_second<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    size_within(deserializer, 1 << 10..=SIZE_MAX).map(Some)
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

impl ProxyOptions {
    /// What the origin of a proxy of this kind gets as `Host`.
    pub fn host_policy(&self, kind: Kind) -> &HostPolicy {
        match (&self.host, kind) {
            (Some(policy), _) => policy,
            // Whoever is reached by TLS is known by the name in its certificate.
            (None, Kind::Https) => &HostPolicy::Target,
            (None, _) => &HostPolicy::User,
        }
    }

    /// What of its listener is for it.
    pub fn routes(&self) -> Routes<'_> {
        Routes {
            hosts: &self.hosts,
            paths: &self.paths,
        }
    }

    /// Why a proxy with these options cannot share its listener with another, if it cannot; `of` and
    /// `other_of` are their kinds.
    pub fn beside(&self, of: Kind, other: &ProxyOptions, other_of: Kind) -> Result<(), Invalid> {
        let refused = |reason: &str| Err(Invalid::new(reason));
        if !(of.has_routes() && other_of.has_routes()) {
            return refused("only proxies of http, https and tls share a listener");
        }
        if (of == Kind::Tls) != (other_of == Kind::Tls) || self.tls != other.tls {
            return refused("all of a listener's proxies speak TLS to its users, or none does");
        }
        // What a connection begins with must be known before it is known for whom it is.
        if self.accept_proxy != other.accept_proxy {
            return refused("all of a listener's proxies have the same accept_proxy");
        }
        if self.routes().clash(&other.routes()) {
            return refused("their hosts and paths are not told apart");
        }
        Ok(())
    }

    /// Whether a user from this address may come in.
    #[must_use]
    pub fn admits(&self, address: IpAddr) -> bool {
        access::admits(self.allow_from.as_ref(), &self.deny_from, address)
    }

    /// Why a client cannot ask a server for them, if it cannot.
    pub fn unsayable(&self) -> Option<Invalid> {
        let users = self.users.as_ref().map_or(0, Users::count);
        if users > Users::ASKED_MAX {
            return Some(Invalid::new(format!(
                "users_file names {users} users; {} are the most that a client can tell its server of",
                Users::ASKED_MAX
            )));
        }
        let bytes = Value::Object(self.to_json()).to_string().len();
        (bytes > SAYABLE_BYTES_MAX).then(|| {
            Invalid::new(format!(
                "the options take {bytes} bytes, and a client can say no more than {SAYABLE_BYTES_MAX} to its server: shorten the lists, or write the proxy into the server's configuration"
            ))
        })
    }

    /// What a client asks for: the reverse of [`ProxyOptions::to_json`].
    ///
    /// # Errors
    /// An option is not known, or has a wrong value.
    pub fn from_json(options: &Map<String, Value>) -> Result<Self, Invalid> {
        let mut rest = options.clone();
        let users = rest.remove(USERS);
        let refused = |error: serde_json::Error| Invalid::new(error.to_string());
        let options = Self::deserialize(rest).map_err(refused)?;
        if options.users_file.is_some() {
            return Err(Invalid::new("unknown field `users_file`"));
        }
        Ok(Self {
            users: users.map(Users::deserialize).transpose().map_err(refused)?,
            ..options
        })
    }

    /// Whether both ask for the same proxy, where a client asks again after a new start: its users have
    /// other salts then.
    pub fn asks_as(&self, other: &Self) -> bool {
        let rest = |options: &Self| Self {
            users: None,
            ..options.clone()
        };
        let same_users = match (&self.users, &other.users) {
            (Some(one), Some(other)) => one.names_as(other),
            (one, other) => one.is_none() && other.is_none(),
        };
        same_users && rest(self) == rest(other)
    }

    /// Why a proxy with these options must not listen on this address: whoever reaches a proxy whose users
    /// choose the target is inside wherever the client is allowed to dial.
    pub fn exposed_to_strangers(&self, spec: &Spec, address: IpAddr) -> Option<Invalid> {
        let open = self.users.is_none() && self.allow_from.is_none();
        let choose = matches!(spec.kind, Kind::Forward | Kind::Socks5);
        if !(choose && open) {
            return None;
        }
        let kind = spec.kind;
        if !address.to_canonical().is_loopback() {
            return Some(Invalid::new(format!(
                "a {kind} proxy on {address} would serve anybody who finds it: give it users_file or allow_from (in an object with spec), or let it listen on 127.0.0.1"
            )));
        }
        // Its own address says nothing of whom a balancer lets through to it.
        (!self.accept_proxy.is_empty()).then(|| {
            Invalid::new(format!(
                "a {kind} proxy behind a balancer (accept_proxy) would serve anybody whom that lets through: give it users_file or allow_from"
            ))
        })
    }

    /// As written, without what has its default.
    pub fn to_json(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(mut options)) => {
                if let Some(users) = &self.users {
                    options.insert(USERS.into(), json!(users));
                }
                options
            }
            // A struct of strings, numbers and lists is an object.
            _ => Map::new(),
        }
    }

    /// The field that makes no sense for a proxy of this kind, if there is one, and why.
    pub fn misplaced(&self, kind: Kind) -> Option<(&'static str, Invalid)> {
        if (kind.is_raw() || kind == Kind::Tls)
            && (self.users_file.is_some() || self.users.is_some())
        {
            let reason = format!(
                "users_file is for the kinds http, https, forward and socks5, not for {kind}"
            );
            return Some(("users_file", Invalid::new(reason)));
        }
        if self.proxy_protocol.is_some() && !(kind.is_raw() || kind == Kind::Tls) {
            let instead = match kind {
                Kind::Http | Kind::Https => {
                    ", whose connections serve many users: X-Forwarded-For tells of them"
                }
                _ => "",
            };
            let reason = format!(
                "proxy_protocol is for the kinds tcp, ssh, telnet and tls, not for {kind}{instead}"
            );
            return Some(("proxy_protocol", Invalid::new(reason)));
        }
        if matches!(kind, Kind::Http | Kind::Https) {
            return None;
        }
        if !self.hosts.is_empty() && kind != Kind::Tls {
            let reason = format!("hosts is for the kinds http, https and tls, not for {kind}");
            return Some(("hosts", Invalid::new(reason)));
        }
        if self.tls && kind == Kind::Tls {
            let reason = "tls is for the kinds whose users have none of their own: those of this one speak TLS to the target";
            return Some(("tls", Invalid::new(reason)));
        }
        let field = if self.host.is_some() {
            "host"
        } else if self.trust_forwarded {
            "trust_forwarded"
        } else if !self.paths.is_empty() {
            "paths"
        } else {
            return None;
        };
        let reason = format!("{field} is for the kinds http and https, not for {kind}");
        Some((field, Invalid::new(reason)))
    }
}

/// What the users are called on the wire.
const USERS: &str = "users";

/// The longest options, as JSON, that a client asks for: its `proxy_open` holds at most 4 KiB, of which the
/// other fields and the longest SPEC take less than 512 bytes.
pub const SAYABLE_BYTES_MAX: usize = 3584;

impl FromStr for Version {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let is = |word: &str| text.eq_ignore_ascii_case(word);
        match () {
            () if is("v1") => Ok(Self::V1),
            () if is("v2") => Ok(Self::V2),
            () => Err(Invalid::new(format!(
                "{text:?} is not a version of the PROXY protocol: \"v1\" or \"v2\""
            ))),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        })
    }
}

impl_text!(Version, "a string: \"v1\" or \"v2\"", Serialize);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::token::tests::Folder;

    #[test]
    fn each_kind_has_its_default() {
        let none = ProxyOptions::default();
        assert_eq!(none.host_policy(Kind::Http), &HostPolicy::User);
        assert_eq!(none.host_policy(Kind::Forward), &HostPolicy::User);
        assert_eq!(none.host_policy(Kind::Https), &HostPolicy::Target);
        let user = ProxyOptions {
            host: Some(HostPolicy::User),
            ..none
        };
        assert_eq!(user.host_policy(Kind::Https), &HostPolicy::User);
    }

    #[test]
    fn users_cross_the_wire_without_their_file() {
        let folder = Folder::new("options-users");
        let read = |text: &str| Users::read(&folder.file("users", text)).unwrap();
        let options = |users| ProxyOptions {
            users_file: Some("users".into()),
            users: Some(users),
            ..ProxyOptions::default()
        };
        let said = options(read("alice:x")).to_json();
        assert_eq!(said.keys().collect::<Vec<_>>(), ["users"]);
        let heard = ProxyOptions::from_json(&said).unwrap();
        assert_eq!((&heard.users_file, heard.to_json()), (&None, said.clone()));
        assert!(heard.users.as_ref().unwrap().verify(b"alice", b"x"));

        let again = ProxyOptions::from_json(&options(read("alice:x")).to_json()).unwrap();
        assert!(heard != again && heard.asks_as(&again), "salts differ");
        for other in [
            options(read("bob:x")).to_json(),
            ProxyOptions::default().to_json(),
        ] {
            assert!(!heard.asks_as(&ProxyOptions::from_json(&other).unwrap()));
        }

        for json in [
            json!({"users_file": "users"}),
            json!({"users": []}),
            json!({"users": "users"}),
            json!({"users": null}),
        ] {
            let Value::Object(wire) = json else {
                unreachable!("each is an object")
            };
            assert!(ProxyOptions::from_json(&wire).is_err(), "{wire:?}");
        }
    }

    #[test]
    fn a_number_of_connections_is_a_number() {
        let read = |json: &str| serde_json::from_str::<ProxyOptions>(json);
        let options = read(r#"{ "max_connections": 7 }"#).unwrap();
        assert_eq!(options.max_connections, Some(7));
        let said = options.to_json();
        assert_eq!(said, *json!({ "max_connections": 7 }).as_object().unwrap());
        assert_eq!(ProxyOptions::from_json(&said), Ok(options));
        assert_eq!(read("{}").unwrap().max_connections, None);
        for json in ["-1", "1.5", "\"7\"", "null", "16777217"] {
            let json = format!(r#"{{ "max_connections": {json} }}"#);
            assert!(read(&json).is_err(), "{json}");
        }
    }

    #[test]
    fn a_rate_is_a_size_in_each_second() {
        let read = |json: &str| serde_json::from_str::<ProxyOptions>(json);
        let options = read(r#"{ "rate": "10MiB" }"#).unwrap();
        assert_eq!(options.rate, Some(10 << 20));
        assert_eq!(ProxyOptions::from_json(&options.to_json()), Ok(options));
        for json in ["0", "1023", "\"10MB\"", "\"10MiB/s\"", "null"] {
            assert!(read(&format!(r#"{{ "rate": {json} }}"#)).is_err(), "{json}");
        }
    }

    #[test]
    fn a_client_can_tell_of_some_users() {
        let folder = Folder::new("options-sayable");
        let unsayable = |count: usize| {
            let lines: String = (0..count).map(|n| format!("user-{n:03}:x\n")).collect();
            let options = ProxyOptions {
                users: Some(Users::read(&folder.file("users", lines)).unwrap()),
                ..ProxyOptions::default()
            };
            options.unsayable().map(|reason| reason.to_string())
        };
        assert_eq!(unsayable(48), None);
        assert!(unsayable(64).unwrap().contains("the options take"));
        assert!(unsayable(65).unwrap().contains("names 65 users; 64 are"));
    }

    #[test]
    fn users_belong_to_kinds_that_can_ask_for_them() {
        let options = ProxyOptions {
            users_file: Some("users".into()),
            ..ProxyOptions::default()
        };
        for kind in [Kind::Http, Kind::Https, Kind::Forward, Kind::Socks5] {
            assert!(options.misplaced(kind).is_none());
        }
        for kind in [Kind::Tcp, Kind::Ssh, Kind::Telnet] {
            let (field, reason) = options.misplaced(kind).expect("misplaced");
            assert_eq!(field, "users_file");
            assert!(reason.to_string().ends_with(&format!("not for {kind}")));
        }
    }

    #[test]
    fn a_proxy_whose_users_choose_the_target_is_not_for_strangers() {
        let nobody = ProxyOptions::default();
        let lists = |json: &str| serde_json::from_str::<ProxyOptions>(json).unwrap();
        let allow = lists(r#"{ "allow_from": ["0.0.0.0/0"] }"#);
        let deny = lists(r#"{ "deny_from": ["192.0.2.1"] }"#);
        let forward: Spec = "forward:3128".parse().unwrap();
        let http: Spec = "http:80:a:80".parse().unwrap();
        for (options, spec, address, expected) in [
            (&nobody, &forward, "127.0.0.1", false),
            (&nobody, &forward, "127.9.9.9", false),
            (&nobody, &forward, "::1", false),
            (&nobody, &forward, "::ffff:127.0.0.1", false),
            (&nobody, &forward, "0.0.0.0", true),
            (&nobody, &forward, "::", true),
            (&nobody, &forward, "192.168.1.1", true),
            (&deny, &forward, "0.0.0.0", true),
            (&allow, &forward, "0.0.0.0", false),
            (&nobody, &http, "0.0.0.0", false),
        ] {
            let refused = options.exposed_to_strangers(spec, address.parse().unwrap());
            assert_eq!(refused.is_some(), expected, "{spec} on {address}");
        }
    }

    #[test]
    fn a_balancer_in_front_makes_strangers_of_everybody() {
        let lists = |json: &str| serde_json::from_str::<ProxyOptions>(json).unwrap();
        let behind = lists(r#"{ "accept_proxy": ["127.0.0.1"] }"#);
        let known = lists(r#"{ "accept_proxy": ["127.0.0.1"], "allow_from": ["10.0.0.0/8"] }"#);
        let loopback = IpAddr::from([127, 0, 0, 1]);
        for kind in ["forward:1", "socks5:1"] {
            let spec: Spec = kind.parse().unwrap();
            let refused = behind.exposed_to_strangers(&spec, loopback).expect(kind);
            assert!(
                refused.to_string().contains("behind a balancer"),
                "{refused}"
            );
            assert_eq!(known.exposed_to_strangers(&spec, loopback), None);
        }
        let spec: Spec = "tcp:1:a:2".parse().unwrap();
        assert_eq!(behind.exposed_to_strangers(&spec, loopback), None);
    }

    #[test]
    fn a_header_goes_where_a_connection_has_one_user() {
        let options: ProxyOptions =
            serde_json::from_str(r#"{ "proxy_protocol": "V2", "accept_proxy": ["::1"] }"#).unwrap();
        assert_eq!(options.proxy_protocol, Some(Version::V2));
        let said = options.to_json();
        assert_eq!(
            Value::Object(said.clone()).to_string(),
            r#"{"accept_proxy":["[::1]"],"proxy_protocol":"v2"}"#
        );
        assert_eq!(ProxyOptions::from_json(&said).as_ref(), Ok(&options));
        for kind in [
            Kind::Tcp,
            Kind::Ssh,
            Kind::Telnet,
            Kind::Tls,
            Kind::Http,
            Kind::Https,
            Kind::Forward,
            Kind::Socks5,
        ] {
            let misplaced = options.misplaced(kind);
            if kind.is_raw() || kind == Kind::Tls {
                assert_eq!(misplaced, None);
                continue;
            }
            let (field, reason) = misplaced.expect("misplaced");
            let reason = reason.to_string();
            assert_eq!(field, "proxy_protocol");
            assert!(
                reason.contains(&format!("and tls, not for {kind}")),
                "{reason}"
            );
            assert_eq!(reason.contains("X-Forwarded-For"), kind.has_target());
        }
        for wrong in ["\"v3\"", "\"\"", "2", "true", "null", "[\"v1\"]"] {
            let json = format!(r#"{{ "proxy_protocol": {wrong} }}"#);
            let read = serde_json::from_str::<ProxyOptions>(&json);
            assert_eq!(read.is_ok(), wrong == "null", "{wrong}");
        }
    }

    #[test]
    fn who_shares_a_listener_believes_the_same_balancers() {
        let lists = |json: &str| serde_json::from_str::<ProxyOptions>(json).unwrap();
        let a = lists(r#"{ "hosts": ["a.test"], "accept_proxy": ["10.0.0.0/8"] }"#);
        let b = lists(r#"{ "hosts": ["b.test"], "accept_proxy": ["10.0.0.0/8"] }"#);
        let none = lists(r#"{ "hosts": ["b.test"] }"#);
        let more = lists(r#"{ "hosts": ["b.test"], "accept_proxy": ["10.0.0.0/8", "::1"] }"#);
        assert_eq!(a.beside(Kind::Http, &b, Kind::Https), Ok(()));
        for other in [none, more] {
            let refused = a.beside(Kind::Tls, &other, Kind::Tls).unwrap_err();
            assert!(refused.to_string().contains("the same accept_proxy"));
        }
    }

    #[test]
    fn options_of_http_belong_to_http() {
        let host = ProxyOptions {
            host: Some(HostPolicy::User),
            ..ProxyOptions::default()
        };
        let trust = ProxyOptions {
            trust_forwarded: true,
            ..ProxyOptions::default()
        };
        for (options, field) in [(&host, "host"), (&trust, "trust_forwarded")] {
            for kind in [Kind::Http, Kind::Https] {
                assert!(options.misplaced(kind).is_none());
            }
            for kind in [Kind::Tcp, Kind::Ssh, Kind::Telnet, Kind::Forward] {
                let (named, reason) = options.misplaced(kind).expect("misplaced");
                assert_eq!(named, field);
                assert_eq!(
                    reason.to_string(),
                    format!("{field} is for the kinds http and https, not for {kind}")
                );
                assert!(ProxyOptions::default().misplaced(kind).is_none());
            }
        }
    }
}
