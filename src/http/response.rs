//! Responses of origins: parsed once, by the client, and written again for the user.
//!
//! Owns what a response means to two connections: how its body ends (which depends on the method
//! that was asked with), whether the user's connection may stay, and whether the origin's may serve
//! another exchange. Does not know the pool; it gives the reason, the pool decides.

use std::{mem::MaybeUninit, time::Duration};

use super::{
    chunked::BodyLimits,
    fields::{
        Connection, Declared, Duplicates, Fields, LengthError, declared_length, print, write_date,
        write_field, write_length, write_via,
    },
    framing::{Body, Coding, Framing},
    head::{Bad, FIELDS_MAX, HeadLimits, Version, check_lines, syntax},
};

/// What must be known of the request to understand its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The method was HEAD.
    pub head: bool,
    /// The user's version, which the response is framed for.
    pub version: Version,
    /// The request asked to switch protocols, so 101 is a legal answer.
    pub upgrade: bool,
    /// The user wants its connection to stay open.
    pub keep_alive: bool,
    /// The credentials in the request authenticate the origin's connection
    /// ([`Request::connection_auth`](super::Request::connection_auth)).
    pub connection_auth: bool,
}

/// What a response head is in the course of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// 1xx but 101: another head follows. Not for an HTTP/1.0 user (RFC 9110 §15.2): drop it.
    Interim,
    /// 101 that was asked for: from here on both directions are raw.
    Switching,
    /// The response.
    Final,
}

/// Why an origin's connection serves no further exchange, however cleanly this one ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotReusable {
    /// Only closing ends the body (RFC 9112 §6.3, item 8).
    CloseDelimited,
    /// The origin said `Connection: close`, or that this was the last request.
    AskedToClose,
    /// HTTP/1.0 without `Connection: keep-alive`.
    OldVersion,
    /// NTLM or Negotiate: the connection acts for one user.
    ConnectionAuth,
    /// The response is not the final one of an exchange, or ended HTTP on this connection.
    NotFinal,
}

/// What `Keep-Alive` says about the origin's connection. A hint: it may close earlier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeepAlive {
    /// `timeout=N`: the origin closes after being idle for this long.
    pub timeout: Option<Duration>,
    /// `max=N`: requests that the origin takes on this connection from now on.
    pub max: Option<u32>,
}

/// The head of a response that obeys RFC 9112; the fields borrow from the bytes it was parsed from.
#[derive(Debug)]
pub struct Response<'a> {
    /// 100 to 599.
    pub status: u16,
    /// The reason phrase, empty if there was none or not in ASCII.
    pub phrase: &'a str,
    /// What this head is in its exchange.
    pub kind: Kind,
    /// How the body ends on the origin's connection.
    pub framing: Framing,
    /// How the body is written for this user.
    pub coding: Coding,
    /// Whether the origin's connection may serve another exchange if this one ends cleanly.
    pub reusable: Result<(), NotReusable>,
    /// The origin's hints about its idle connections.
    pub keep_alive: KeepAlive,
    /// The fields as received, hop-by-hop ones too.
    pub fields: Fields<'a>,
    version: Version,
    connection: Connection,
    /// A `Content-Length` that tells of a body which is not sent (HEAD, 304).
    told_length: Option<u64>,
    asked: Asked,
}

impl<'a> Response<'a> {
    /// About how many bytes [`Response::write_to`] adds to a head: `Via`, `Date` and `Connection`.
    pub const ADDED: usize = 128;

    /// Parses a whole head, which is everything up to the offset that
    /// [`head_end`](super::head_end) told.
    ///
    /// # Errors
    /// The response breaks a rule or a limit: the user gets 502 and the connection is closed.
    pub fn parse(head: &'a [u8], asked: &Asked, limits: &HeadLimits) -> Result<Response<'a>, Bad> {
        parse(head, asked, limits).map_err(|reason| Bad { reason })
    }

    /// The body that follows this head on the origin's connection, framed for the user.
    pub fn body(&self, limits: BodyLimits) -> Body {
        Body::within(limits, self.framing, self.coding)
    }

    /// Whether the user's connection may stay open after this response: the user wants it, and can
    /// tell where the response ends. Of no meaning for an interim response.
    pub fn keep(&self) -> bool {
        self.kind == Kind::Final && self.asked.keep_alive && self.framing.is_delimited(self.coding)
    }

    /// Appends the head that the user gets: HTTP/1.1, hop-by-hop fields removed; behind the origin's
    /// fields `Via`, and framing written by us. A final response also says when it came, which is
    /// `unix` after the Unix epoch, if the origin did not (RFC 9110 §6.6.1), and what becomes of the
    /// user's connection, which is `keep`.
    pub fn write_to(&self, out: &mut Vec<u8>, keep: bool, unix: Duration) {
        print(
            out,
            format_args!("HTTP/1.1 {} {}\r\n", self.status, self.phrase),
        );
        for (name, value) in self.fields.iter() {
            if self.passes(name) {
                write_field(out, name, value);
            }
        }
        write_via(out, self.version);
        if self.kind == Kind::Final && self.fields.values("date").next().is_none() {
            write_date(out, unix);
        }
        self.write_framing(out);
        match self.kind {
            Kind::Interim => {}
            Kind::Switching => {
                write_field(out, "Connection", b"Upgrade");
                for protocol in self.fields.values("upgrade") {
                    write_field(out, "Upgrade", protocol);
                }
            }
            Kind::Final if !keep => write_field(out, "Connection", b"close"),
            Kind::Final if self.asked.version == Version::Http10 => {
                write_field(out, "Connection", b"keep-alive");
            }
            Kind::Final => {}
        }
        out.extend_from_slice(b"\r\n");
    }

    fn passes(&self, name: &str) -> bool {
        if name.eq_ignore_ascii_case("trailer") {
            return self.framing == Framing::Chunked && self.coding == Coding::Chunked;
        }
        self.connection.passes(name, &self.fields)
    }

    fn write_framing(&self, out: &mut Vec<u8>) {
        match (self.framing, self.coding) {
            (Framing::Length(length), _) => write_length(out, length),
            (Framing::Chunked | Framing::UntilClose, Coding::Chunked) => {
                write_field(out, "Transfer-Encoding", b"chunked");
            }
            (Framing::Chunked | Framing::UntilClose, Coding::Plain) | (Framing::Raw, _) => {}
            (Framing::None, _) => {
                if let Some(length) = self.told_length {
                    write_length(out, length);
                }
            }
        }
    }
}

fn parse<'a>(
    head: &'a [u8],
    asked: &Asked,
    limits: &HeadLimits,
) -> Result<Response<'a>, &'static str> {
    if head.len() > limits.bytes {
        return Err("the head is too large");
    }
    // Empty lines are forgiven before a request only (RFC 9112 §2.2); httparse skips them.
    if head.starts_with(b"\r") || head.starts_with(b"\n") {
        return Err("an empty line before the status line");
    }
    check_lines(head)?;
    let mut room = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let status = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(
            &mut parsed,
            head,
            &mut room[..limits.fields.min(FIELDS_MAX)],
        )
        .map_err(syntax)?;
    if status != httparse::Status::Complete(head.len()) {
        return Err("the head does not end at its empty line");
    }
    let (Some(minor), Some(status), Some(phrase)) = (parsed.version, parsed.code, parsed.reason)
    else {
        return Err("the status line is malformed");
    };
    if !(100..=599).contains(&status) {
        return Err("a status that is not from 100 to 599");
    }

    let version = Version::from_minor(minor);
    let fields = Fields::new(parsed.headers);
    let kind = kind(status, version, asked, &fields)?;
    let connection = Connection::read(&fields)?;
    let declared =
        declared_length(&fields, version, Duplicates::Collapse).map_err(|error| match error {
            LengthError::Malformed(reason) => reason,
            LengthError::UnknownCoding => "a transfer coding other than chunked",
        })?;
    let bodiless = asked.head || status < 200 || matches!(status, 204 | 304);
    // The steps of RFC 9112 §6.3. 205 has no content but is framed like the others (§6.3 does not
    // name it), so its framing is read, and what it wrongly frames stays in step.
    let framing = match declared {
        _ if kind == Kind::Switching => Framing::Raw,
        _ if bodiless => Framing::None,
        Declared::Chunked => Framing::Chunked,
        Declared::Bytes(length) => Framing::Length(length),
        Declared::Nothing => Framing::UntilClose,
    };
    let told_length = match declared {
        // RFC 9110 §8.6: never with 1xx and 204.
        Declared::Bytes(length) if status >= 200 && status != 204 => Some(length),
        _ => None,
    };
    let keep_alive = KeepAlive::read(&fields);
    Ok(Response {
        status,
        phrase,
        kind,
        framing,
        coding: match (framing, asked.version) {
            (Framing::Chunked | Framing::UntilClose, Version::Http11) => Coding::Chunked,
            _ => Coding::Plain,
        },
        reusable: if kind != Kind::Final {
            Err(NotReusable::NotFinal)
        } else if framing == Framing::UntilClose {
            Err(NotReusable::CloseDelimited)
        } else if connection.close || keep_alive.max == Some(0) {
            Err(NotReusable::AskedToClose)
        } else if !connection.persists(version) {
            Err(NotReusable::OldVersion)
        } else if asked.connection_auth
            || fields.authenticates_connection("www-authenticate")
            || fields.authenticates_connection("proxy-authenticate")
        {
            Err(NotReusable::ConnectionAuth)
        } else {
            Ok(())
        },
        keep_alive,
        fields,
        version,
        connection,
        told_length,
        asked: *asked,
    })
}

fn kind(
    status: u16,
    version: Version,
    asked: &Asked,
    fields: &Fields<'_>,
) -> Result<Kind, &'static str> {
    match status {
        101 if !asked.upgrade => Err("101 that was not asked for"),
        101 if version == Version::Http10 => Err("101 in HTTP/1.0"),
        // RFC 9110 §15.2.2.
        101 if fields.elements("upgrade").all(<[u8]>::is_empty) => Err("101 without Upgrade"),
        101 => Ok(Kind::Switching),
        100..200 => Ok(Kind::Interim),
        _ => Ok(Kind::Final),
    }
}

impl KeepAlive {
    /// Reads what it understands of `Keep-Alive: timeout=5, max=100`: a hint is never an error.
    fn read(fields: &Fields<'_>) -> KeepAlive {
        let mut keep_alive = KeepAlive::default();
        for parameter in fields.elements("keep-alive") {
            let Some((name, value)) = str::from_utf8(parameter)
                .ok()
                .and_then(|text| text.split_once('='))
            else {
                continue;
            };
            let Ok(number) = value.trim().parse::<u32>() else {
                continue;
            };
            match name.trim() {
                name if name.eq_ignore_ascii_case("timeout") => {
                    keep_alive.timeout = Some(Duration::from_secs(number.into()));
                }
                name if name.eq_ignore_ascii_case("max") => keep_alive.max = Some(number),
                _ => {}
            }
        }
        keep_alive
    }
}

#[cfg(test)]
mod tests;
