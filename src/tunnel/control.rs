//! The JSON payloads of control frames, and the words in them.
//!
//! Fields that a newer peer adds are ignored; a field that is missing or of another type breaks the
//! protocol.

use std::{borrow::Cow, fmt, io, rc::Rc};

use serde::{Deserialize, Deserializer, Serialize, de::Visitor};
use serde_json::{Map, Value};

use super::ids::{ProxyId, UserId};

/// The client says who it is and proves that it knows the token.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The client's id.
    pub id: String,
    /// Proof of the token, in hex; absent where the client has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<String>,
    /// The window, in bytes, that each stream towards the client begins with.
    pub window: u32,
    /// The program's version, for the log.
    pub version: String,
}

/// The server accepts the client and proves that it knows the token, too.
#[derive(Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// Proof of the token, in hex; absent where the server has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<String>,
    /// The window, in bytes, that each stream towards the server begins with.
    pub window: u32,
    /// The program's version, for the log.
    pub version: String,
    /// The server knows proxy_close.
    #[serde(default, skip_serializing_if = "is_false")]
    pub closes: bool,
}

/// The client wants a listener no more that it has asked for: who waits for a request there goes, sessions
/// may finish.
#[derive(Debug, Serialize, Deserialize)]
pub struct ProxyClose {
    /// The proxy's name, as proxy_opened has said it.
    pub proxy_id: String,
}

impl ProxyClose {
    /// Of the proxy that is called so.
    pub fn of(proxy_id: String) -> ProxyClose {
        ProxyClose { proxy_id }
    }
}

/// The client asks for a listener.
#[derive(Debug, Serialize, Deserialize)]
pub struct ProxyOpen {
    /// Echoed in the answer.
    pub request: u32,
    /// What to open, as on the command line.
    pub spec: String,
    /// As beside a `spec` in a configuration. A server refuses to open what has options that it does not
    /// know.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub options: Map<String, Value>,
}

/// The server's answer to [`ProxyOpen`].
#[derive(Debug, Serialize, Deserialize)]
pub struct ProxyOpened {
    /// Which request this answers.
    pub request: u32,
    /// The proxy's name, where it was opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_id: Option<String>,
    /// Where it listens, where it was opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Why it was not opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A user is there: the client dials, or takes a connection from its pool.
#[derive(Debug, Serialize, Deserialize)]
pub struct ProxyConnect {
    /// The proxy that the user came through.
    pub proxy_id: ProxyId,
    /// The user's connection, or one exchange on it.
    pub user_id: UserId,
    /// The host to dial, a name or an address (IPv6 in brackets); or a unix socket of the client's
    /// machine, as `unix:/path`. No host has a colon outside brackets, so a client that knows of no unix
    /// sockets ends such a stream as one whose name it cannot find.
    #[serde(deserialize_with = "shared")]
    pub remote_host: Rc<str>,
    /// The port to dial; 0 with a unix socket.
    pub remote_port: u16,
    /// What the client must do: `http`, `https`, or a raw word.
    #[serde(deserialize_with = "word")]
    pub protocol: Cow<'static, str>,
    /// What the client must know of the request to frame the response; `http` and `https` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestFacts>,
}

/// What decides how the response to a request is framed for the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestFacts {
    /// The method is HEAD.
    #[serde(default, skip_serializing_if = "is_false")]
    pub head: bool,
    /// The user speaks HTTP/1.0.
    #[serde(default, skip_serializing_if = "is_false")]
    pub http10: bool,
    /// The user asked for an upgrade.
    #[serde(default, skip_serializing_if = "is_false")]
    pub upgrade: bool,
    /// The user's connection may be kept afterwards.
    #[serde(default, skip_serializing_if = "is_false")]
    pub keep_alive: bool,
    /// Its credentials are the connection's (NTLM, Negotiate): it serves nobody else afterwards.
    #[serde(default, skip_serializing_if = "is_false")]
    pub tied: bool,
    /// The request may be sent twice (RFC 9110 §9.2.2).
    #[serde(default, skip_serializing_if = "is_false")]
    pub repeatable: bool,
    /// It is, or may be, longer than what is kept of a request that may have to be sent twice.
    #[serde(default, skip_serializing_if = "is_false")]
    pub long: bool,
    /// The user may wait for 100 before it sends the body.
    #[serde(default, skip_serializing_if = "is_false")]
    pub expects: bool,
}

fn is_false(value: &bool) -> bool {
    !*value
}

/// A string in one allocation: serde by itself would make a `String` and a `Box` of it first.
fn shared<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Rc<str>, D::Error> {
    deserializer.deserialize_str(Text(|text| text.into()))
}

/// A word that is most likely one of ours, and then costs nothing.
fn word<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'static, str>, D::Error> {
    let word = |text: &str| match PROTOCOLS.iter().find(|word| **word == text) {
        Some(word) => Cow::Borrowed(*word),
        None => Cow::Owned(text.to_owned()),
    };
    deserializer.deserialize_str(Text(word))
}

/// What servers of this version ask for.
const PROTOCOLS: [&str; 5] = ["http", "https", "tcp", "ssh", "telnet"];

/// Makes a value of a string where it stands.
struct Text<T>(fn(&str) -> T);

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E>(self, text: &str) -> Result<T, E> {
        Ok(self.0(text))
    }
}

/// A stream is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disconnect {
    /// In order with the data, or at once.
    pub how: How,
    /// Why.
    pub reason: Reason,
}

/// How a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// After the data: the far side writes what it holds, then closes.
    Orderly,
    /// Overtakes the data: the far side resets.
    Abort,
}

/// This end takes nothing new. A client's means that it has not touched, and will not touch, any
/// stream above `last`; a server's, that it accepts no new users (those that are connected may
/// still open streams until it says goodbye). The client dials anew at once, for those who come to whoever
/// takes that server's place, and finishes on this link what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goaway {
    /// The highest stream that was opened by then.
    pub last: u64,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $status:literal;)*) => {
        /// Why a stream ended: one table from reason to wire, log and HTTP status.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Reason {
            $($(#[$doc])* #[serde(rename = $word)] $name,)*
        }

        impl Reason {
            /// Every reason there is.
            pub const ALL: &[Reason] = &[$(Reason::$name,)*];

            /// The word on the wire and in logs.
            pub fn word(self) -> &'static str {
                match self { $(Reason::$name => $word,)* }
            }

            /// The status to answer an HTTP user with while no response head was sent.
            pub fn status(self) -> u16 {
                match self { $(Reason::$name => $status,)* }
            }
        }
    };
}

reasons! {
    /// The client's rules do not name the target.
    NotAllowed = "target_not_allowed", 403;
    /// The target refused the connection.
    Refused = "target_refused", 502;
    /// No route to the target, or another failure to dial.
    Unreachable = "target_unreachable", 502;
    /// The target's name has no address.
    Unresolvable = "name_not_found", 502;
    /// The dial took too long.
    DialTimeout = "dial_timeout", 504;
    /// The target did not speak TLS as it should, or could not prove who it is.
    TlsFailed = "tls_failed", 502;
    /// The target has as many exchanges as it may have, and too many wait, or for too long; or as many
    /// connections wait at its unix socket as may.
    TargetBusy = "target_busy", 503;
    /// The client's version does not know this kind of target.
    Unsupported = "protocol_not_supported", 501;
    /// Too many dials or look-ups are in progress.
    Busy = "busy", 503;
    /// Descriptors have run out.
    Descriptors = "out_of_descriptors", 503;
    /// The memory budget is nearly used up.
    Overload = "overload", 503;
    /// The origin's response breaks HTTP.
    BadResponse = "bad_response", 502;
    /// The origin closed before its response was complete.
    OriginClosed = "origin_closed", 502;
    /// The origin did not answer in time.
    ResponseTimeout = "response_timeout", 504;
    /// The request's body breaks HTTP.
    BadRequest = "bad_request", 400;
    /// The request's body stopped coming.
    RequestTimeout = "request_timeout", 408;
    /// The user's connection was reset or failed.
    UserReset = "user_reset", 502;
    /// The target's connection was reset or failed.
    TargetReset = "target_reset", 502;
    /// One direction was closed and nothing moved in the other for too long.
    HalfCloseTimeout = "half_close_timeout", 504;
    /// Its reader stood still while memory was short.
    Stalled = "stalled", 503;
    /// A newer link of the same client took over.
    Replaced = "replaced", 503;
    /// The link is gone.
    LinkLost = "link_lost", 502;
    /// This end is about to stop.
    Draining = "draining", 503;
    /// No client of that id is connected.
    NoClient = "client_not_connected", 503;
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Writes a control payload, bounded by the room there is.
///
/// # Errors
/// It does not fit.
pub fn encode(payload: &impl Serialize, room: &mut [u8]) -> io::Result<usize> {
    let available = room.len();
    let mut rest: &mut [u8] = room;
    serde_json::to_writer(&mut rest, payload)?;
    Ok(available - rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_word_of_its_own_that_reads_back() {
        let mut words = std::collections::HashSet::new();
        for reason in Reason::ALL {
            assert!(words.insert(reason.word()));
            let json = serde_json::to_string(reason).unwrap();
            assert_eq!(json, format!("\"{}\"", reason.word()));
            assert_eq!(serde_json::from_str::<Reason>(&json).unwrap(), *reason);
            assert!((400..600).contains(&reason.status()));
        }
    }

    #[test]
    fn flow_a_reads_as_in_its_diagram() {
        let connect = ProxyConnect {
            proxy_id: "edge-1-10033-1765020008".parse().unwrap(),
            user_id: "user-10033-1765242071641539471".parse().unwrap(),
            remote_host: "127.0.0.1".into(),
            remote_port: 2222,
            protocol: "tcp".into(),
            request: None,
        };
        let mut room = [0; 300];
        let length = encode(&connect, &mut room).unwrap();
        assert_eq!(
            std::str::from_utf8(&room[..length]).unwrap(),
            "{\"proxy_id\":\"edge-1-10033-1765020008\",\"user_id\":\"user-10033-1765242071641539471\",\
             \"remote_host\":\"127.0.0.1\",\"remote_port\":2222,\"protocol\":\"tcp\"}"
        );
        assert!(encode(&connect, &mut room[..length - 1]).is_err());
    }

    #[test]
    fn options_of_a_proxy_are_absent_unless_said() {
        let open = |options| ProxyOpen {
            request: 1,
            spec: "http:0:a:80".into(),
            options,
        };
        let host = Map::from_iter([("host".into(), Value::from("target"))]);
        for (open, json) in [
            (open(Map::new()), r#"{"request":1,"spec":"http:0:a:80"}"#),
            (
                open(host),
                r#"{"request":1,"spec":"http:0:a:80","options":{"host":"target"}}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&open).unwrap(), json);
            let again: ProxyOpen = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&again).unwrap(), json);
        }
    }

    #[test]
    fn the_longest_options_fit_beside_the_longest_spec() {
        use crate::{config::options::SAYABLE_BYTES_MAX, tunnel::frame::CONTROL_MAX};
        let address = "1111:2222:3333:4444:5555:6666:7777:8888";
        let name = "a".repeat(253);
        let open = ProxyOpen {
            request: u32::MAX,
            spec: format!("forward:[{address}]:65535:{name}:65535"),
            options: Map::new(),
        };
        let bare = serde_json::to_string(&open).unwrap().len();
        let options = r#","options":"#.len() + SAYABLE_BYTES_MAX;
        assert!(bare + options <= CONTROL_MAX, "{bare} + {options}");
    }

    #[test]
    fn fields_of_a_newer_peer_are_ignored() {
        let hello: Hello =
            serde_json::from_str(r#"{"id":"a","window":1,"version":"9","colour":"red"}"#).unwrap();
        assert_eq!(
            (hello.id.as_str(), hello.window, hello.proof),
            ("a", 1, None)
        );
    }
}
