//! What siding makes of a message: the exact bytes that the far end must receive.
//!
//! This is the contract of the `http` and `forward` kinds in a second writing, from RFC 9110, 9112 and
//! 7239 and the README; it shares nothing with the code that it judges. Where a field's value cannot be
//! known beforehand (`Date`), its form is checked.

use std::{
    fmt,
    net::IpAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    message::{Content, Field, Framing, Request, Response, Version, elements, values},
    reader::absolute,
};

/// A proxy, as it is configured.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// A forward proxy; else one of kind `http`.
    pub forward: bool,
    /// `host:port` of its target; of a forward proxy, of the one origin that its users ask for.
    pub target: String,
    /// Option `host`.
    pub host: HostPolicy,
    /// Option `trust_forwarded`.
    pub trusted: bool,
}

/// What an origin gets for a `Host`.
#[derive(Clone, Debug)]
pub enum HostPolicy {
    /// The user's.
    User,
    /// The target's name.
    Target,
    /// This name.
    Name(String),
}

/// What an origin must receive of a request.
#[derive(Clone, Debug)]
pub struct Arriving {
    /// Up to the empty line.
    pub head: Vec<u8>,
    /// The content that follows, framed as it says.
    pub content: Content,
}

/// What must be known of a request to understand its response.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The method is HEAD.
    pub to_head: bool,
    /// The user's version.
    pub version: Version,
    /// The user's connection may stay.
    pub keep: bool,
}

/// What a user must receive of a response.
#[derive(Clone, Debug)]
pub struct Returning {
    /// Up to the empty line.
    pub head: ReturningHead,
    /// The content that follows, framed as it says.
    pub content: Content,
    /// The user's connection stays open.
    pub keep: bool,
}

/// A head, of which one line may have been written by siding's clock.
#[derive(Clone, Debug)]
pub struct ReturningHead {
    before: Vec<u8>,
    /// A line with a date stands between the two.
    dated: bool,
    after: Vec<u8>,
}

/// What the origin must receive of a request to `proxy` by a user at `user`.
pub fn arriving(request: &Request, proxy: &Proxy, user: IpAddr) -> Arriving {
    let mut head = Vec::new();
    head.extend_from_slice(request.method.as_bytes());
    head.push(b' ');
    head.extend_from_slice(origin_form(request).as_bytes());
    head.extend_from_slice(b" HTTP/1.1\r\n");
    write(&mut head, "Host", host(request, proxy).as_bytes());
    let chunked = request.content.framing == Framing::Chunked;
    for field in &request.fields {
        let passes = match () {
            () if field.is("host") => false,
            () if field.is("trailer") => chunked,
            () if field.is("expect") => request.version == Version::Http11,
            () if !proxy.forward && is_ours_to_tell(field, proxy) => false,
            () => is_end_to_end(field, &request.fields),
        };
        match hops(request) {
            _ if !passes => {}
            Hops::Left(hops) if field.is("max-forwards") => {
                write(&mut head, &field.name, (hops - 1).to_string().as_bytes());
            }
            _ => write(&mut head, &field.name, &field.value),
        }
    }
    write_via(&mut head, request.version);
    if !proxy.forward {
        write_forwarded(&mut head, request, proxy, user);
    }
    // RFC 9110 §10.1.4: of what the user accepts, only this is also for the origin to know.
    let is_trailers = |coding: &[u8]| coding.eq_ignore_ascii_case(b"trailers");
    let trailers =
        request.version == Version::Http11 && elements(&request.fields, "te").any(is_trailers);
    if trailers {
        write(&mut head, "TE", b"trailers");
    }
    match request.content.framing {
        Framing::Length => write_length(&mut head, &request.fields),
        Framing::Chunked => write(&mut head, "Transfer-Encoding", b"chunked"),
        Framing::None | Framing::UntilClose => {}
    }
    let upgrade = is_upgrade(request);
    match (upgrade, trailers) {
        (true, true) => write(&mut head, "Connection", b"Upgrade, TE"),
        (true, false) => write(&mut head, "Connection", b"Upgrade"),
        (false, true) => write(&mut head, "Connection", b"TE"),
        (false, false) => {}
    }
    if upgrade {
        for protocols in request.values("upgrade") {
            write(&mut head, "Upgrade", protocols);
        }
    }
    head.extend_from_slice(b"\r\n");
    Arriving {
        head,
        content: passed_on(&request.content),
    }
}

/// Whether twice is like once (RFC 9110 §9.2.2): then a request may be sent again whose connection
/// turned out to be dead.
pub fn is_repeatable(request: &Request) -> bool {
    ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"].contains(&&request.method[..])
}

/// What the response's side must know of a request.
pub fn asked(request: &Request) -> Asked {
    Asked {
        to_head: request.method == "HEAD",
        version: request.version,
        keep: persists(&request.fields, request.version),
    }
}

/// How far a request may go on (RFC 9110 §7.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hops {
    /// Anywhere.
    Any,
    /// Past so many more, at least one.
    Left(u64),
    /// No further: siding is its final recipient.
    None,
}

/// What `Max-Forwards` says, where it says anything.
pub fn hops(request: &Request) -> Hops {
    let counts = matches!(&request.method[..], "OPTIONS" | "TRACE");
    let value = request.values("max-forwards").next().filter(|_| counts);
    match value.map(|digits| String::from_utf8_lossy(digits).parse()) {
        None => Hops::Any,
        Some(Ok(0)) => Hops::None,
        Some(Ok(hops)) => Hops::Left(hops),
        // Digits are all that is let in: it is a large number.
        Some(Err(_)) => Hops::Left(u64::MAX),
    }
}

/// What the user must receive for a request that goes no further (RFC 9110 §9.3.7 and §9.3.8).
pub fn returned(request: &Request) -> Returning {
    let trace = request.method == "TRACE";
    let mut bytes = Vec::new();
    if trace {
        let line = (&request.method, &request.target, request.version.text());
        bytes.extend(format!("{} {} {}\r\n", line.0, line.1, line.2).into_bytes());
        let secret = ["authorization", "cookie", "proxy-authorization"];
        for field in &request.fields {
            if !secret.iter().any(|name| field.is(name)) {
                write(&mut bytes, &field.name, &field.value);
            }
        }
        bytes.extend_from_slice(b"\r\n");
    }
    let mut after = Vec::new();
    if trace {
        write(&mut after, "Content-Type", b"message/http");
    }
    write(
        &mut after,
        "Content-Length",
        bytes.len().to_string().as_bytes(),
    );
    write(&mut after, "Connection", b"close");
    after.extend_from_slice(b"\r\n");
    Returning {
        head: ReturningHead {
            before: b"HTTP/1.1 200 OK\r\n".to_vec(),
            dated: true,
            after,
        },
        content: Content {
            framing: Framing::Length,
            bytes,
            trailers: Vec::new(),
        },
        keep: false,
    }
}

/// What the user must receive of a response; `cut_short` where the request had not come whole before the
/// response began.
pub fn returning(response: &Response, asked: &Asked, cut_short: bool) -> Returning {
    let interim = response.status < 200;
    let content = &response.content;
    let bodiless = asked.to_head || interim || matches!(response.status, 204 | 304);
    let framing = match content.framing {
        _ if bodiless => Framing::None,
        Framing::Chunked | Framing::UntilClose if asked.version == Version::Http10 => {
            Framing::UntilClose
        }
        Framing::UntilClose => Framing::Chunked,
        other => other,
    };
    let keep = asked.keep && !cut_short && framing != Framing::UntilClose;

    let mut head = format!("HTTP/1.1 {} ", response.status).into_bytes();
    head.extend_from_slice(&response.phrase);
    head.extend_from_slice(b"\r\n");
    let trailers = framing == Framing::Chunked && content.framing == Framing::Chunked;
    for field in &response.fields {
        let passes = match field.is("trailer") {
            true => trailers,
            false => is_end_to_end(field, &response.fields),
        };
        if passes {
            write(&mut head, &field.name, &field.value);
        }
    }
    let mut dated = false;
    let mut before = Vec::new();
    write_via(&mut head, response.version);
    // RFC 9110 §6.6.1.
    if !interim && response.values("date").next().is_none() {
        dated = true;
        before = std::mem::take(&mut head);
    }
    match framing {
        Framing::Length => write_length(&mut head, &response.fields),
        Framing::Chunked => write(&mut head, "Transfer-Encoding", b"chunked"),
        // It tells of a body that is not sent (RFC 9110 §8.6: of none in 1xx and 204).
        Framing::None if !interim && response.status != 204 => {
            write_length(&mut head, &response.fields);
        }
        Framing::None | Framing::UntilClose => {}
    }
    if !interim && !keep {
        write(&mut head, "Connection", b"close");
    } else if !interim && asked.version == Version::Http10 {
        write(&mut head, "Connection", b"keep-alive");
    }
    head.extend_from_slice(b"\r\n");
    let head = match dated {
        true => ReturningHead {
            before,
            dated,
            after: head,
        },
        false => ReturningHead {
            before: head,
            dated,
            after: Vec::new(),
        },
    };
    let mut content = passed_on(content);
    content.framing = framing;
    if bodiless {
        content.bytes.clear();
    }
    if !trailers {
        content.trailers.clear();
    }
    Returning {
        head,
        content,
        keep,
    }
}

/// Whether the origin's connection may serve another exchange after this one.
pub fn origin_stays(request: &Request, response: &Response) -> bool {
    let tied = |fields: &[Field], name: &str| {
        elements(fields, name).any(|element| {
            let scheme = element.split(|&byte| byte == b' ').next();
            let scheme = scheme.unwrap_or_default().to_ascii_lowercase();
            scheme == b"ntlm" || scheme == b"negotiate"
        })
    };
    response.content.framing != Framing::UntilClose
        && persists(&response.fields, response.version)
        && !tied(&request.fields, "authorization")
        && !tied(&response.fields, "www-authenticate")
        && !tied(&response.fields, "proxy-authenticate")
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.forward { "forward" } else { "http" };
        write!(f, "{kind} to {} (host: {:?}", self.target, self.host)?;
        f.write_str(if self.trusted { ", trusted)" } else { ")" })
    }
}

impl ReturningHead {
    /// Says how `head` differs from what it must be.
    pub fn check(&self, head: &[u8]) -> Result<(), String> {
        let expected = String::from_utf8_lossy(&self.before).into_owned()
            + if self.dated { "Date: (now)\r\n" } else { "" }
            + &String::from_utf8_lossy(&self.after);
        let wrong = || {
            Err(format!(
                "{}\ninstead of\n{}",
                head.escape_ascii(),
                expected.as_bytes().escape_ascii()
            ))
        };
        if !self.dated {
            return if head == self.before { Ok(()) } else { wrong() };
        }
        let middle = head
            .strip_prefix(&self.before[..])
            .and_then(|rest| rest.strip_suffix(&self.after[..]));
        let date = middle
            .and_then(|line| line.strip_prefix(b"Date: "))
            .and_then(|line| line.strip_suffix(b"\r\n"))
            .and_then(|date| str::from_utf8(date).ok())
            .and_then(unix_of_fixdate);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("the clock is past 1970")
            .as_secs();
        match date {
            Some(date) if date.abs_diff(now) < 120 => Ok(()),
            _ => wrong(),
        }
    }
}

/// Reads `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7), and nothing else.
fn unix_of_fixdate(text: &str) -> Option<u64> {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let number = |from: usize, to: usize| -> Option<u64> {
        let digits = text.get(from..to)?;
        let all = digits.bytes().all(|byte| byte.is_ascii_digit());
        all.then(|| digits.parse().expect("a few digits"))
    };
    let (day, year) = (number(5, 7)?, number(12, 16)?);
    let month = MONTHS
        .iter()
        .position(|name| text.get(8..11) == Some(name))?;
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let length = |month: usize| match month {
        1 => 28 + u64::from(is_leap(year)),
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    };
    let days = (1970..year)
        .map(|year| 365 + u64::from(is_leap(year)))
        .sum::<u64>()
        + (0..month).map(length).sum::<u64>()
        + day
        - 1;
    let (hour, minute, second) = (number(17, 19)?, number(20, 22)?, number(23, 25)?);
    let again = format!(
        "{}, {day:02} {} {year:04} {hour:02}:{minute:02}:{second:02} GMT",
        DAYS[(days % 7) as usize],
        MONTHS[month]
    );
    let sound = again == text && (1..=length(month)).contains(&day);
    (sound && hour < 24 && minute < 60 && second < 60)
        .then_some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

/// RFC 9112 §3.2.1 and §3.2.4.
fn origin_form(request: &Request) -> String {
    match absolute(&request.target) {
        Some((_, _, "")) if request.method == "OPTIONS" => "*".to_owned(),
        Some((_, _, rest)) if rest.starts_with('/') => rest.to_owned(),
        Some((_, _, rest)) => format!("/{rest}"),
        None => request.target.clone(),
    }
}

/// What the user asks for (RFC 9112 §3.2.2 and §3.3).
fn asked_host(request: &Request) -> Option<String> {
    match absolute(&request.target) {
        Some((_, authority, _)) => {
            Some(authority.strip_suffix(':').unwrap_or(authority).to_owned())
        }
        None => {
            let host = request.values("host").next()?;
            Some(String::from_utf8_lossy(host).into_owned())
        }
    }
}

fn host(request: &Request, proxy: &Proxy) -> String {
    match &proxy.host {
        HostPolicy::User => asked_host(request).unwrap_or_else(|| proxy.target.clone()),
        HostPolicy::Target => proxy.target.clone(),
        HostPolicy::Name(name) => name.clone(),
    }
}

fn write_forwarded(head: &mut Vec<u8>, request: &Request, proxy: &Proxy, user: IpAddr) {
    let host = asked_host(request);
    let told = |name: &'static str| match proxy.trusted {
        true => request.values(name).collect(),
        false => Vec::new(),
    };
    let list = |name: &'static str, own: String| {
        let mut elements = told(name);
        elements.retain(|element| !element.is_empty() && is_closed(element));
        elements.push(own.as_bytes());
        elements.join(&b", "[..])
    };
    write(
        head,
        "X-Forwarded-For",
        &list("X-Forwarded-For", user.to_string()),
    );
    if told("X-Forwarded-Proto").is_empty() {
        write(head, "X-Forwarded-Proto", b"http");
    }
    if let Some(host) = &host
        && told("X-Forwarded-Host").is_empty()
    {
        write(head, "X-Forwarded-Host", host.as_bytes());
    }
    let mut element = match user {
        IpAddr::V4(user) => format!("for={user}"),
        IpAddr::V6(user) => format!("for=\"[{user}]\""),
    };
    if let Some(host) = host {
        // A colon or a bracket is in no token.
        element += &match host.contains([':', '[']) {
            true => format!(";host=\"{host}\""),
            false => format!(";host={host}"),
        };
    }
    element += ";proto=http";
    write(head, "Forwarded", &list("Forwarded", element));
}

/// Whether what the user says in this field is not believed, or is said again with ours.
fn is_ours_to_tell(field: &Field, proxy: &Proxy) -> bool {
    match proxy.trusted {
        true => field.is("forwarded") || field.is("x-forwarded-for"),
        false => tells_of_forwarding(&field.name),
    }
}

/// Many an application takes `_` for `-`.
fn tells_of_forwarding(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('_', "-");
    name.starts_with("x-forwarded-") || name == "forwarded" || name == "x-real-ip"
}

/// No quoted string is left open, which would swallow what follows it in the list.
fn is_closed(value: &[u8]) -> bool {
    let mut quoted = false;
    let mut escaped = false;
    for &byte in value {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
    }
    !quoted
}

/// Neither hop-by-hop nor listed in Connection, unless that is protected from being listed.
fn is_end_to_end(field: &Field, fields: &[Field]) -> bool {
    let name = field.name.to_ascii_lowercase();
    let listed =
        || elements(fields, "connection").any(|one| one.eq_ignore_ascii_case(name.as_bytes()));
    !HOP_BY_HOP.contains(&&name[..]) && (is_protected(&name) || !listed())
}

/// RFC 9110 §7.6.1, RFC 9112 §6 and App. C.2.2, RFC 9113 §3.1; authentication of a proxy.
const HOP_BY_HOP: &[&str] = &[
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

fn is_protected(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "authorization",
        "cache-control",
        "cookie",
        "date",
        "expect",
        "host",
        "location",
        "max-forwards",
        "origin",
        "range",
        "set-cookie",
        "trailer",
        "vary",
        "via",
        "www-authenticate",
    ];
    const PREFIXES: &[&str] = &["content-", "if-", "sec-"];
    NAMES.contains(&name)
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || tells_of_forwarding(name)
}

/// RFC 9110 §6.5.1.
fn may_trail(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "age",
        "authentication-info",
        "authorization",
        "cache-control",
        "cookie",
        "date",
        "expect",
        "expires",
        "host",
        "location",
        "max-forwards",
        "origin",
        "pragma",
        "range",
        "retry-after",
        "set-cookie",
        "trailer",
        "vary",
        "via",
        "www-authenticate",
    ];
    const PREFIXES: &[&str] = &[
        "accept",
        "access-control-",
        "content-",
        "if-",
        "proxy-",
        "sec-",
    ];
    let name = &name.to_ascii_lowercase()[..];
    let barred = HOP_BY_HOP.contains(&name)
        || NAMES.contains(&name)
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || tells_of_forwarding(name);
    // RFC 9530 §2.
    name == "content-digest" || !barred
}

/// A content without those trailers that must not be passed on.
fn passed_on(content: &Content) -> Content {
    let mut content = content.clone();
    content.trailers.retain(|trailer| may_trail(&trailer.name));
    content
}

fn persists(fields: &[Field], version: Version) -> bool {
    let says = |option: &str| {
        elements(fields, "connection").any(|one| one.eq_ignore_ascii_case(option.as_bytes()))
    };
    match version {
        Version::Http10 => says("keep-alive") && !says("close"),
        Version::Http11 => !says("close"),
    }
}

/// An upgrade to what is no HTTP.
fn is_upgrade(request: &Request) -> bool {
    let fields = &request.fields;
    let asks = elements(fields, "connection").any(|option| option.eq_ignore_ascii_case(b"upgrade"));
    let mut names = elements(fields, "upgrade").map(|protocol| {
        let name = protocol.split(|&byte| byte == b'/').next();
        name.unwrap_or_default().to_ascii_lowercase()
    });
    let is_http = |name: &Vec<u8>| [&b"h2"[..], b"h2c", b"http"].contains(&&name[..]);
    let names_any = elements(fields, "upgrade").any(|protocol| !protocol.is_empty());
    asks && request.version == Version::Http11 && names_any && !names.any(|name| is_http(&name))
}

/// RFC 9110 §7.6.3, with the version that the message came in.
fn write_via(head: &mut Vec<u8>, received: Version) {
    match received {
        Version::Http10 => write(head, "Via", b"1.0 siding"),
        Version::Http11 => write(head, "Via", b"1.1 siding"),
    }
}

/// The length that is told, if one is, without leading zeros.
fn write_length(head: &mut Vec<u8>, fields: &[Field]) {
    if let Some(length) = values(fields, "content-length").next() {
        let zeros = length.iter().take_while(|&&digit| digit == b'0').count();
        write(
            head,
            "Content-Length",
            &length[zeros.min(length.len() - 1)..],
        );
    }
}

fn write(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    head.extend_from_slice(name.as_bytes());
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}

/// The fields of a trailer section as siding writes them.
pub fn trailer_section(trailers: &[Field]) -> Vec<u8> {
    let mut section = Vec::new();
    for field in trailers {
        write(&mut section, &field.name, &field.value);
    }
    section
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_to_the_letter() {
        // The example of RFC 9110 §5.6.7, and the ends of a leap year.
        for (text, unix) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
            ("Thu, 29 Feb 2024 23:59:59 GMT", 1_709_251_199),
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ] {
            assert_eq!(unix_of_fixdate(text), Some(unix), "{text}");
        }
        for text in [
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Fri, 30 Feb 2024 00:00:00 GMT",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 GMT ",
            "Sunday, 06-Nov-94 08:49:37 GMT",
        ] {
            assert_eq!(unix_of_fixdate(text), None, "{text}");
        }
    }
}
