//! What one hop does to the fields of a message: those of the sender that are for the far side stay
//! as they are and in their order, and behind them comes what this hop has to say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use siding::http::{Asked, Coding, Edits, Forwarded, Framing, Kind, Response, Scheme, Version};

use super::{
    request::length,
    rfc::{self, Field, Length},
};

/// What is changed in a request: `Host` or not, and what is told of the user.
pub fn edits(knob: u8) -> Edits<'static> {
    let user = match knob & 16 {
        0 => IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        _ => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    };
    let proto = match knob & 32 {
        0 => Scheme::Http,
        _ => Scheme::Https,
    };
    let trusted = knob & 8 != 0;
    Edits {
        host: (knob & 1 != 0).then_some("target.example:81"),
        forwarded: (knob & 12 != 0).then_some(Forwarded {
            user,
            proto,
            trusted,
        }),
    }
}

/// The fields behind `Host` of a request that was forwarded.
pub fn request_fields(sent: &rfc::request::Request, received: &[Field], edits: &Edits<'_>) {
    let (theirs, ours) = split(received, sent.minor);
    let dropped = |name: &str| {
        name == "host"
            || match edits.forwarded {
                Some(Forwarded { trusted: true, .. }) => {
                    ["forwarded", "x-forwarded-for"].contains(&name)
                }
                Some(_) => tells_of_users(name),
                None => false,
            }
    };
    let expected = sent.fields.iter().map(|(name, value)| {
        let hops = sent.max_forwards.filter(|_| is(name, "max-forwards"));
        let value = match hops {
            Some(hops) => hops.saturating_sub(1).to_string().into_bytes(),
            None => value.clone(),
        };
        (name.clone(), value)
    });
    let expected: Vec<Field> = expected.collect();
    end_to_end(&expected, theirs, dropped, &["trailer", "expect"]);

    let mut said = Ours::default();
    if let Some(forwarded) = edits.forwarded {
        told_of_users(sent, &forwarded, &mut said);
    }
    if sent.accepts_trailers {
        said.say("TE", "trailers");
    }
    said.say_length(sent.length);
    let mut connection = Vec::new();
    if sent.upgrade {
        connection.push("Upgrade");
    }
    if sent.accepts_trailers {
        connection.push("TE");
    }
    if !connection.is_empty() {
        said.say("Connection", &connection.join(", "));
    }
    if sent.upgrade {
        said.echo("Upgrade", &sent.fields);
    }
    assert_eq!(said.0, ours);
}

/// The fields of a response that was forwarded.
pub fn response_fields(
    sent: &rfc::response::Response,
    received: &[Field],
    response: &Response<'_>,
    asked: &Asked,
    keep: bool,
) {
    let (theirs, ours) = split(received, sent.minor);
    end_to_end(&sent.fields, theirs, |_| false, &["trailer"]);

    let mut said = Ours::default();
    let is_final = response.kind == Kind::Final;
    if is_final && rfc::values(&sent.fields, "date").is_empty() {
        // The example of RFC 9110 §5.6.7.
        said.say("Date", "Sun, 06 Nov 1994 08:49:37 GMT");
    }
    match (response.framing, response.coding) {
        // RFC 9110 §8.6, RFC 9112 §6.1: in 1xx and 204 not even as information.
        (Framing::None, _) if sent.status < 200 || sent.status == 204 => {}
        (Framing::None, _) => {
            if let Some(told) = sent.told {
                said.say_length(Length::Bytes(told));
            }
        }
        (Framing::UntilClose, Coding::Chunked) => said.say_length(Length::Chunks),
        (Framing::Chunked, Coding::Plain) => {}
        (framing, _) => said.say_length(length(framing)),
    }
    match response.kind {
        Kind::Interim => {}
        Kind::Switching => {
            said.say("Connection", "Upgrade");
            said.echo("Upgrade", &sent.fields);
        }
        Kind::Final if !keep => said.say("Connection", "close"),
        Kind::Final if asked.version == Version::Http10 => said.say("Connection", "keep-alive"),
        Kind::Final => {}
    }
    assert_eq!(said.0, ours);
}

/// What stays the same however many hops of ours a message takes.
pub fn lasting(fields: &[Field]) -> Vec<&Field> {
    fields
        .iter()
        .filter(|(name, _)| {
            let name = name.to_ascii_lowercase();
            name != "via" && name != "max-forwards" && !tells_of_users(&name)
        })
        .collect()
}

/// Before the last `Via`, which must be ours, stands what the sender said; behind it what we say.
fn split(received: &[Field], minor: u8) -> (&[Field], &[Field]) {
    let via = received.iter().rposition(|(name, _)| is(name, "via"));
    let (theirs, ours) = received.split_at(via.expect("a Via of ours"));
    let value = format!("1.{minor} siding");
    assert_eq!(ours[0], ("Via".to_owned(), value.into_bytes()));
    (theirs, &ours[1..])
}

/// Fields that concern one hop, or that we write ourselves (RFC 9110 §7.6.1).
const OF_THE_HOP: &[&str] = &[
    "connection",
    "content-length",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// Of the fields `sent`, those that are for the far side were `received`, in their order and
/// unchanged, and no other. What `Connection` lists may be missing, and so may what is `special`.
fn end_to_end(
    sent: &[Field],
    received: &[Field],
    dropped: impl Fn(&str) -> bool,
    special: &[&str],
) {
    let listed = rfc::connection_options(sent).expect("it was accepted");
    let mut received = received.iter().peekable();
    for field in sent {
        let name = field.0.to_ascii_lowercase();
        if OF_THE_HOP.contains(&name.as_str()) || dropped(&name) {
            continue;
        }
        if received.next_if_eq(&field).is_none() {
            let optional = listed.contains(&name) || special.contains(&name.as_str());
            assert!(optional, "{field:?} did not come through");
        }
    }
    assert_eq!(received.next(), None, "a field that was not sent");
}

/// Whether a field is, to any origin, one by which proxies tell of users: to some `-` and `_` are
/// one character.
fn tells_of_users(name: &str) -> bool {
    let name = name.to_ascii_uppercase().replace('-', "_");
    name == "FORWARDED" || name == "X_REAL_IP" || name.starts_with("X_FORWARDED_")
}

/// What a gateway tells of its user: RFC 7239, and the fields that are older.
fn told_of_users(sent: &rfc::request::Request, forwarded: &Forwarded, said: &mut Ours) {
    let (user, quoted) = match forwarded.user {
        IpAddr::V4(user) => (user.to_string(), user.to_string()),
        IpAddr::V6(user) => (user.to_string(), format!("\"[{user}]\"")),
    };
    let proto = match forwarded.proto {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    let host = sent.asked_host();
    // One line for a list (RFC 9110 §5.3), ours at its end where others may speak at all.
    let list = |name: &str, own: &str| {
        let mut list = Vec::new();
        if forwarded.trusted {
            for value in rfc::values(&sent.fields, name) {
                // What would swallow our element, quotes that do not close, goes.
                if !value.is_empty() && !rfc::ends_in_quotes(value) {
                    list.extend_from_slice(value);
                    list.extend_from_slice(b", ");
                }
            }
        }
        list.extend_from_slice(own.as_bytes());
        list
    };
    let unsaid = |name: &str| !forwarded.trusted || rfc::values(&sent.fields, name).is_empty();
    said.0
        .push(("X-Forwarded-For".into(), list("x-forwarded-for", &user)));
    if unsaid("x-forwarded-proto") {
        said.say("X-Forwarded-Proto", proto);
    }
    let mut element = format!("for={quoted}");
    if let Some(host) = host {
        if unsaid("x-forwarded-host") {
            said.say("X-Forwarded-Host", host);
        }
        element += &if rfc::is_token(host.as_bytes()) {
            format!(";host={host}")
        } else {
            format!(";host=\"{host}\"")
        };
    }
    element += &format!(";proto={proto}");
    said.0
        .push(("Forwarded".into(), list("forwarded", &element)));
}

/// What this hop says, in the order in which it says it.
#[derive(Default)]
struct Ours(Vec<Field>);

impl Ours {
    fn say(&mut self, name: &str, value: &str) {
        self.0.push((name.to_owned(), value.as_bytes().to_vec()));
    }

    fn say_length(&mut self, length: Length) {
        match length {
            Length::Bytes(length) => self.say("Content-Length", &length.to_string()),
            Length::Chunks => self.say("Transfer-Encoding", "chunked"),
            Length::Nothing | Length::Close | Length::Opaque => {}
        }
    }

    fn echo(&mut self, name: &str, fields: &[Field]) {
        for value in rfc::values(fields, name) {
            self.0.push((name.to_owned(), value.to_vec()));
        }
    }
}

fn is(name: &str, other: &str) -> bool {
    name.eq_ignore_ascii_case(other)
}
