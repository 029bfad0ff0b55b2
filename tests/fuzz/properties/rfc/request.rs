//! Request heads: which rules a head breaks, or what it means.

use std::collections::BTreeSet;

use siding::http::{FIELDS_MAX, HeadLimits};

use super::{
    Declared, Field, Length, authority, binds_connection, connection_options, declared, elements,
    fields, is_token, lines, persists, values,
};

/// A request that breaks no rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// As an origin is asked for it.
    pub target: String,
    /// The host and port that the target names, as they were written.
    pub authority: Option<String>,
    pub minor: u8,
    pub length: Length,
    pub persists: bool,
    pub upgrade: bool,
    pub expects_continue: bool,
    pub binds_connection: bool,
    /// Of TRACE and OPTIONS alone.
    pub max_forwards: Option<u64>,
    pub accepts_trailers: bool,
    pub host: Option<String>,
    /// The options of `Connection`, in lower case.
    pub connection: Vec<String>,
    pub fields: Vec<Field>,
}

impl Request {
    /// RFC 9112 §3.2.2: the host that is asked for.
    pub fn asked_host(&self) -> Option<&str> {
        self.authority.as_deref().or(self.host.as_deref())
    }
}

/// The statuses of all rules that are broken, any of which is a right answer.
pub type Broken = BTreeSet<u16>;

/// Reads a whole head.
///
/// # Errors
/// At least one status.
pub fn read(head: &[u8], limits: &HeadLimits) -> Result<Request, Broken> {
    let mut broken = Broken::new();
    let line = skip_leading(head);
    if is_overlong(line, limits) {
        broken.insert(414);
    }
    if head.len() > limits.bytes {
        broken.insert(431);
    }
    let request = lines(line).and_then(|lines| {
        let (start, rest) = lines.split_first()?;
        if rest.len() > limits.fields.min(FIELDS_MAX) {
            broken.insert(431);
        }
        let words: Vec<&str> = str::from_utf8(start).ok()?.split(' ').collect();
        let &[method, target, version] = words.as_slice() else {
            return None;
        };
        let minor = match version.as_bytes() {
            b"HTTP/1.0" => 0,
            b"HTTP/1.1" => 1,
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
                if major.is_ascii_digit() && minor.is_ascii_digit() =>
            {
                broken.insert(505);
                return None;
            }
            _ => return None,
        };
        let fields = fields(rest)?;
        is_token(method.as_bytes()).then(|| meaning(method, target, minor, fields, &mut broken))
    });
    match request {
        Some(Some(request)) if broken.is_empty() => Ok(request),
        Some(Some(_)) => Err(broken),
        Some(None) | None => {
            broken.insert(400);
            Err(broken)
        }
    }
}

/// What a head of good syntax means; `None`, or more in `broken`, if that breaks a rule.
fn meaning(
    method: &str,
    target: &str,
    minor: u8,
    fields: Vec<Field>,
    broken: &mut Broken,
) -> Option<Request> {
    let expectations = values(&fields, "expect");
    let expects_continue = match expectations.as_slice() {
        [] => false,
        [one] if one.eq_ignore_ascii_case(b"100-continue") => minor == 1,
        _ => {
            broken.insert(417);
            false
        }
    };
    let declared = declared(&fields, minor, false);
    if declared == Declared::OtherCoding {
        broken.insert(501);
    }
    let connect = method == "CONNECT";
    let length = match declared {
        Declared::Nothing | Declared::Bytes(0) if connect => Some(Length::Opaque),
        Declared::Bytes(_) | Declared::Chunks if connect => None,
        // RFC 9110 §9.3.8.
        Declared::Bytes(1..) | Declared::Chunks if method == "TRACE" => None,
        Declared::Nothing => Some(Length::Nothing),
        Declared::Bytes(length) => Some(Length::Bytes(length)),
        Declared::Chunks => Some(Length::Chunks),
        // 501 is in `broken`; the rest of the head is read for what else is.
        Declared::OtherCoding => Some(Length::Nothing),
        Declared::Malformed => None,
    };

    let visible = target.bytes().all(|byte| byte.is_ascii_graphic());
    let (origin_form, authority_text) = if !visible || target.contains('#') {
        None
    } else {
        origin_form(method, target)
    }?;
    let host = match values(&fields, "host").as_slice() {
        [] if minor == 0 => None,
        [b""] if authority_text.is_some() => Some(String::new()),
        [host] => {
            let host = str::from_utf8(host).ok()?;
            authority(host)?;
            Some(host.to_owned())
        }
        _ => return None,
    };
    let connection = connection_options(&fields)?;
    let upgrade = connection.iter().any(|option| option == "upgrade")
        && minor == 1
        && !connect
        && upgrades(&fields);
    Some(Request {
        method: method.to_owned(),
        target: origin_form,
        authority: authority_text,
        minor,
        length: length?,
        persists: persists(&connection, minor) && !connect,
        upgrade,
        expects_continue,
        binds_connection: binds_connection(&fields, "authorization"),
        max_forwards: max_forwards(method, &fields)?,
        accepts_trailers: minor == 1
            && elements(&fields, "te")
                .iter()
                .any(|coding| coding.eq_ignore_ascii_case("trailers")),
        host,
        connection,
        fields,
    })
}

/// RFC 9110 §7.6.2; a number past all counting is a large one. `None` where the field is malformed.
fn max_forwards(method: &str, fields: &[Field]) -> Option<Option<u64>> {
    let values = values(fields, "max-forwards");
    match values.as_slice() {
        _ if method != "TRACE" && method != "OPTIONS" => Some(None),
        [] => Some(None),
        [digits] if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
            let digits = str::from_utf8(digits).expect("digits are ASCII");
            Some(Some(digits.parse().unwrap_or(u64::MAX)))
        }
        _ => None,
    }
}

/// RFC 9112 §3.2: the target as an origin gets it, and the authority in it.
fn origin_form(method: &str, target: &str) -> Option<(String, Option<String>)> {
    if method == "CONNECT" {
        let (_, port) = authority(target)?;
        port?;
        return Some((target.to_owned(), Some(target.to_owned())));
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Some((target.to_owned(), None));
    }
    let scheme = target.find("://")?;
    if !["http", "https"].contains(&target[..scheme].to_ascii_lowercase().as_str()) {
        return None;
    }
    let rest = &target[scheme + 3..];
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    authority(&rest[..end])?;
    let written = rest[..end].trim_end_matches(':').to_owned();
    let path = match &rest[end..] {
        "" if method == "OPTIONS" => "*".to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        query => format!("/{query}"),
    };
    Some((path, Some(written)))
}

/// Whether `Upgrade` names something, and nothing that is HTTP again.
fn upgrades(fields: &[Field]) -> bool {
    let names: Vec<String> = elements(fields, "upgrade")
        .iter()
        .map(|protocol| protocol.split('/').next().unwrap_or("").to_lowercase())
        .collect();
    names.iter().any(|name| !name.is_empty())
        && !names
            .iter()
            .any(|name| ["h2c", "h2", "http"].contains(&name.as_str()))
}

/// Whether what has come of a head has no line end where the longest request line would have one.
pub fn is_overlong(head: &[u8], limits: &HeadLimits) -> bool {
    let line = skip_leading(head);
    line.len() >= limits.line && !line[..limits.line].contains(&b'\n')
}

fn skip_leading(head: &[u8]) -> &[u8] {
    let crlfs = head.chunks(2).take_while(|pair| pair == b"\r\n").take(2);
    &head[2 * crlfs.count()..]
}
