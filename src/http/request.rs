//! Requests of users: parsed once, by the server, and written again for the origin.
//!
//! Owns the request line, the rules about `Host`, `Expect` and `Upgrade`, and the status that each
//! broken rule is answered with. Does not know where a request is routed to.

use std::mem::MaybeUninit;

use super::{
    authority::{Authority, Scheme},
    chunked::BodyLimits,
    fields::{
        Connection, Declared, Duplicates, Fields, LengthError, declared_length, is_one_of,
        print_field, write_field, write_length, write_via,
    },
    forwarded::Forwarded,
    framing::{Body, Coding, Framing},
    head::{FIELDS_MAX, HeadLimits, Refused, Version, check_lines, skip_empty_lines, syntax},
    response::Asked,
};

/// The head of a request that obeys RFC 9112; the fields borrow from the bytes it was parsed from.
#[derive(Debug)]
pub struct Request<'a> {
    /// The method, a token; methods are case-sensitive.
    pub method: &'a str,
    /// What is asked for.
    pub target: RequestTarget<'a>,
    /// The user's version. [`Request::write_to`] always writes HTTP/1.1.
    pub version: Version,
    /// How the body ends: [`Framing::None`], [`Framing::Length`], [`Framing::Chunked`], or
    /// [`Framing::Raw`] after CONNECT. Never by closing (RFC 9112 §6.3).
    pub framing: Framing,
    /// The user wants the connection to stay open after the response.
    pub keep_alive: bool,
    /// The user asks to switch protocols, to one that is not HTTP/2.
    pub upgrade: bool,
    /// The user may wait for 100 before it sends the body (RFC 9110 §10.1.1).
    pub expects_continue: bool,
    /// The credentials authenticate the connection (NTLM, Negotiate): what this request travels on
    /// acts for this user from now on and must not serve another.
    pub connection_auth: bool,
    /// How many more intermediaries a TRACE or OPTIONS may pass (RFC 9110 §7.6.2); with 0, it is for
    /// us to answer. `None` in other requests, whatever they say.
    pub max_forwards: Option<u64>,
    /// What `Host` says, if it is there; not empty unless the target names its host itself.
    pub host: Option<&'a str>,
    /// The fields as received, hop-by-hop ones too.
    pub fields: Fields<'a>,
    connection: Connection,
    /// The target as received.
    target_text: &'a str,
    /// The user said `TE: trailers` (RFC 9110 §10.1.4).
    accepts_trailers: bool,
    /// `Authorization` was for us, and ends here.
    authorized_here: bool,
}

/// What is changed in a head besides what every intermediary has to change.
#[derive(Clone, Copy, Debug, Default)]
pub struct Edits<'a> {
    /// The value of `Host`, which must be a valid one; [`Request::asked_host`] if `None`, or empty if
    /// that is `None` as well.
    pub host: Option<&'a str>,
    /// What to tell the origin of the user; with `None`, fields that tell of users pass as they are.
    pub forwarded: Option<Forwarded>,
}

/// The four forms of a request target (RFC 9112 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestTarget<'a> {
    /// `/path?query`, the form that an origin expects.
    Origin(&'a str),
    /// `scheme://authority/path?query`, the form that a proxy expects.
    Absolute {
        /// `http` or `https`.
        scheme: Scheme,
        /// Where to; it wins over `Host` (RFC 9112 §3.2.2).
        authority: Authority<'a>,
        /// What follows the authority: empty, or starting with `/` or `?`.
        path_and_query: &'a str,
    },
    /// `host:port`, of CONNECT and nothing else.
    Authority(Authority<'a>),
    /// `*`, of OPTIONS and nothing else.
    Asterisk,
}

impl<'a> Request<'a> {
    /// About how many bytes [`Request::write_to`] adds to a head: `Via` and what is told of the user,
    /// with names of usual length.
    pub const ADDED: usize = 256;

    /// Parses a whole head, which is everything up to the offset that
    /// [`head_end`](super::head_end) told.
    ///
    /// # Errors
    /// The request breaks a rule or a limit; [`Refused`] says which, and the status to answer with
    /// before the connection is closed.
    pub fn parse(head: &'a [u8], limits: &HeadLimits) -> Result<Request<'a>, Refused> {
        let line = skip_empty_lines(head);
        if let Some(refused) = overlong_line(line, limits) {
            return Err(refused);
        }
        if head.len() > limits.bytes {
            return Err(HEAD_TOO_LARGE);
        }
        check_lines(line).map_err(Refused::bad)?;

        let mut room = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(line, &mut room[..limits.fields.min(FIELDS_MAX)]) {
            Ok(httparse::Status::Complete(length)) if length == line.len() => {}
            Ok(_) => return Err(Refused::bad("the head does not end at its empty line")),
            Err(error) => return Err(refused_syntax(error, line)),
        }
        let (Some(method), Some(target), Some(minor)) =
            (parsed.method, parsed.path, parsed.version)
        else {
            return Err(Refused::bad("the request line is malformed"));
        };
        Request::check(
            method,
            target,
            Version::from_minor(minor),
            Fields::new(parsed.headers),
        )
    }

    /// The answer to a head that is not complete yet and already too large: 414 if its first line
    /// has no end, else 431. `None` while more may be read.
    pub fn overlong(partial: &[u8], limits: &HeadLimits) -> Option<Refused> {
        overlong_line(skip_empty_lines(partial), limits)
            .or_else(|| (partial.len() >= limits.bytes).then_some(HEAD_TOO_LARGE))
    }

    /// Whether the method is HEAD, of a head that is not complete or breaks the rules: the answer to
    /// it has no content either (RFC 9110 §9.3.2).
    pub fn asks_by_head(bytes: &[u8]) -> bool {
        skip_empty_lines(bytes).starts_with(b"HEAD ")
    }

    fn check(
        method: &'a str,
        target: &'a str,
        version: Version,
        fields: Fields<'a>,
    ) -> Result<Request<'a>, Refused> {
        let target_text = target;
        let target = RequestTarget::parse(method, target).map_err(Refused::bad)?;
        let host = host(&fields, version, &target).map_err(Refused::bad)?;
        let connection = Connection::read(&fields).map_err(Refused::bad)?;
        let framing = framing(&fields, version, method, &target)?;
        let max_forwards = max_forwards(&fields, method).map_err(Refused::bad)?;
        let expects_continue = expects_continue(&fields, version)?;
        let opaque = matches!(target, RequestTarget::Authority(_));
        Ok(Request {
            method,
            target,
            version,
            framing,
            keep_alive: connection.persists(version) && !opaque,
            upgrade: connection.upgrade
                && version == Version::Http11
                && !opaque
                && upgrades_to_another_protocol(&fields),
            expects_continue,
            connection_auth: fields.authenticates_connection("authorization"),
            max_forwards,
            host,
            target_text,
            accepts_trailers: version == Version::Http11
                && fields
                    .elements("te")
                    .any(|coding| coding.eq_ignore_ascii_case(b"trailers")),
            fields,
            connection,
            authorized_here: false,
        })
    }

    /// `Authorization` was for us: the origin does not get it.
    pub fn authorized_here(&mut self) {
        self.authorized_here = true;
    }

    /// Whether the user's connection may carry another request once this one was answered here and now:
    /// nothing more of it is to come, and the user does not want to close. (HTTP/1.0 would have to be told;
    /// it is spared that.) What follows a CONNECT is a tunnel only after 2xx (RFC 9110 §9.3.6).
    pub fn ends_with_its_head(&self) -> bool {
        self.version == Version::Http11
            && self.connection.persists(self.version)
            && matches!(
                self.framing,
                Framing::None | Framing::Length(0) | Framing::Raw
            )
    }

    /// The values of the fields called `name`, in any letter case.
    pub fn field<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'a [u8]> + 's {
        self.fields.values(name)
    }

    /// Whether doing it twice is like doing it once (RFC 9110 §9.2.2), so that it may be sent again
    /// when a connection died before the first byte of a response.
    pub fn repeatable(&self) -> bool {
        matches!(
            self.method,
            "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE"
        )
    }

    /// Whether the response has no body whatever its fields say (RFC 9110 §9.3.2).
    pub fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// The body that follows this head on the user's connection, framed for the origin. After
    /// CONNECT it is the tunnel's bytes.
    pub fn body(&self, limits: BodyLimits) -> Body {
        Body::within(limits, self.framing, Coding::Chunked)
    }

    /// The host that is asked for, with its port if there was one: that of an absolute-form target,
    /// whatever `Host` says (RFC 9112 §3.2.2), else what `Host` says. `None` where an HTTP/1.0 user
    /// told neither.
    pub fn asked_host(&self) -> Option<&'a str> {
        self.target
            .authority()
            .map(|authority| authority.text)
            .or(self.host)
    }

    /// The name or address in [`Request::asked_host`], without its port; an IPv6 address has no brackets.
    pub fn asked_name(&self) -> Option<&'a str> {
        let text = self.asked_host()?;
        // Both were checked when they were parsed.
        Authority::parse(text, Some(0))
            .ok()
            .map(|authority| authority.host)
    }

    /// The path that is asked for, without its query; `/` where there is none.
    pub fn path(&self) -> &'a str {
        let path_and_query = match self.target {
            RequestTarget::Origin(path_and_query)
            | RequestTarget::Absolute { path_and_query, .. } => path_and_query,
            RequestTarget::Authority(_) | RequestTarget::Asterisk => "/",
        };
        let path = path_and_query.split('?').next().unwrap_or_default();
        if path.is_empty() { "/" } else { path }
    }

    /// The query of what is asked for, if it has one.
    pub fn query(&self) -> Option<&'a str> {
        match self.target {
            RequestTarget::Origin(path_and_query)
            | RequestTarget::Absolute { path_and_query, .. } => {
                path_and_query.split_once('?').map(|(_, query)| query)
            }
            RequestTarget::Authority(_) | RequestTarget::Asterisk => None,
        }
    }

    /// What the parser of the response must know about this request.
    pub fn asked(&self) -> Asked {
        Asked {
            head: self.is_head(),
            version: self.version,
            upgrade: self.upgrade,
            keep_alive: self.keep_alive,
            connection_auth: self.connection_auth,
        }
    }

    /// Appends the head that the origin gets: HTTP/1.1, target in origin-form, hop-by-hop fields
    /// removed; behind the user's fields `Via`, what `edits` add, and framing and `Connection`
    /// written by us. `Host` comes first (RFC 9110 §7.2).
    pub fn write_to(&self, out: &mut Vec<u8>, edits: &Edits<'_>) {
        out.extend_from_slice(self.method.as_bytes());
        out.push(b' ');
        self.write_target(out);
        out.extend_from_slice(b" HTTP/1.1\r\n");
        let host = edits.host.or(self.asked_host()).unwrap_or("");
        write_field(out, "Host", host.as_bytes());
        for (name, value) in self.fields.iter() {
            if !self.passes(name) || edits.forwarded.is_some_and(|edit| !edit.passes(name)) {
                continue;
            }
            match self.max_forwards {
                Some(hops) if name.eq_ignore_ascii_case("max-forwards") => {
                    print_field(out, name, hops.saturating_sub(1));
                }
                _ => write_field(out, name, value),
            }
        }
        write_via(out, self.version);
        if let Some(forwarded) = &edits.forwarded {
            forwarded.write_to(out, &self.fields, self.asked_host());
        }
        if self.accepts_trailers {
            write_field(out, "TE", b"trailers");
        }
        match self.framing {
            Framing::Length(length) => write_length(out, length),
            Framing::Chunked => write_field(out, "Transfer-Encoding", b"chunked"),
            Framing::None | Framing::UntilClose | Framing::Raw => {}
        }
        match (self.upgrade, self.accepts_trailers) {
            (true, true) => write_field(out, "Connection", b"Upgrade, TE"),
            (true, false) => write_field(out, "Connection", b"Upgrade"),
            (false, true) => write_field(out, "Connection", b"TE"),
            (false, false) => {}
        }
        if self.upgrade {
            for protocols in self.field("upgrade") {
                write_field(out, "Upgrade", protocols);
            }
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Appends the head as it was received, but for what only its addressee should see: the content
    /// of the answer to TRACE (RFC 9110 §9.3.8).
    pub(super) fn reflect(&self, out: &mut Vec<u8>) {
        let version = match self.version {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
        };
        let line = format!("{} {} {version}\r\n", self.method, self.target_text);
        out.extend_from_slice(line.as_bytes());
        for (name, value) in self.fields.iter() {
            if !is_one_of(name, SECRET) {
                write_field(out, name, value);
            }
        }
        out.extend_from_slice(b"\r\n");
    }

    fn passes(&self, name: &str) -> bool {
        if name.eq_ignore_ascii_case("host") {
            return false;
        }
        if name.eq_ignore_ascii_case("trailer") {
            return self.framing == Framing::Chunked;
        }
        if name.eq_ignore_ascii_case("expect") {
            return self.expects_continue;
        }
        if name.eq_ignore_ascii_case("authorization") && self.authorized_here {
            return false;
        }
        self.connection.passes(name, &self.fields)
    }

    fn write_target(&self, out: &mut Vec<u8>) {
        match &self.target {
            RequestTarget::Origin(target) => out.extend_from_slice(target.as_bytes()),
            RequestTarget::Asterisk => out.push(b'*'),
            RequestTarget::Authority(authority) => {
                out.extend_from_slice(authority.text.as_bytes());
            }
            // RFC 9112 §3.2.4: the last proxy turns this into the asterisk-form.
            RequestTarget::Absolute {
                path_and_query: "", ..
            } if self.method == "OPTIONS" => out.push(b'*'),
            RequestTarget::Absolute { path_and_query, .. } => {
                if !path_and_query.starts_with('/') {
                    out.push(b'/');
                }
                out.extend_from_slice(path_and_query.as_bytes());
            }
        }
    }
}

impl<'a> RequestTarget<'a> {
    fn parse(method: &str, target: &'a str) -> Result<RequestTarget<'a>, &'static str> {
        if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("a byte in the request target that is not visible ASCII");
        }
        if target.contains('#') {
            return Err("a fragment in the request target");
        }
        if method == "CONNECT" {
            return Ok(RequestTarget::Authority(Authority::parse(target, None)?));
        }
        if target == "*" {
            return match method {
                "OPTIONS" => Ok(RequestTarget::Asterisk),
                _ => Err("the target `*` is for OPTIONS only"),
            };
        }
        if target.starts_with('/') {
            return Ok(RequestTarget::Origin(target));
        }
        let (scheme, rest) = target
            .split_once("://")
            .ok_or("the request target is neither a path nor a URI")?;
        let scheme = if scheme.eq_ignore_ascii_case("http") {
            Scheme::Http
        } else if scheme.eq_ignore_ascii_case("https") {
            Scheme::Https
        } else {
            return Err("the scheme of the request target is not http or https");
        };
        let (authority, path_and_query) =
            rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        Ok(RequestTarget::Absolute {
            scheme,
            authority: Authority::parse(authority, Some(scheme.default_port()))?,
            path_and_query,
        })
    }

    /// The host and port that the target itself names.
    pub fn authority(&self) -> Option<&Authority<'a>> {
        match self {
            RequestTarget::Absolute { authority, .. } | RequestTarget::Authority(authority) => {
                Some(authority)
            }
            RequestTarget::Origin(_) | RequestTarget::Asterisk => None,
        }
    }
}

const HEAD_TOO_LARGE: Refused = Refused {
    status: 431,
    reason: "the head is too large",
};

fn overlong_line(bytes: &[u8], limits: &HeadLimits) -> Option<Refused> {
    // Without a look at the bytes while there are few: this is asked again for each that comes.
    let line = bytes.get(..limits.line)?;
    (!line.contains(&b'\n')).then_some(Refused {
        status: 414,
        reason: "the request line is too long",
    })
}

fn refused_syntax(error: httparse::Error, head: &[u8]) -> Refused {
    let status = match error {
        httparse::Error::TooManyHeaders => 431,
        httparse::Error::Version if names_another_version(head) => 505,
        _ => 400,
    };
    Refused {
        status,
        reason: syntax(error),
    }
}

/// Whether the request line is well-formed but for the digits of its version (RFC 9112 §2.3).
fn names_another_version(head: &[u8]) -> bool {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or(head);
    let mut words = line.split(|&byte| byte == b' ');
    let (Some(_method), Some(_target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return false;
    };
    matches!(
        version.strip_prefix(b"HTTP/"),
        Some([b'0'..=b'9', b'.', b'0'..=b'9'])
    )
}

/// RFC 9112 §3.2: exactly one valid `Host`, which only an HTTP/1.0 user may leave out. It may be
/// empty only where it is not used, because the target names its host.
fn host<'a>(
    fields: &Fields<'a>,
    version: Version,
    target: &RequestTarget<'_>,
) -> Result<Option<&'a str>, &'static str> {
    let mut values = fields.values("host");
    let Some(value) = values.next() else {
        return match version {
            Version::Http10 => Ok(None),
            Version::Http11 => Err("no Host in a request of HTTP/1.1"),
        };
    };
    if values.next().is_some() {
        return Err("more than one Host");
    }
    let text = str::from_utf8(value).map_err(|_| "Host is not ASCII")?;
    if text.is_empty() && target.authority().is_some() {
        return Ok(Some(text));
    }
    // Only the syntax matters here, and it allows to leave out the port.
    match Authority::parse(text, Some(80)) {
        Ok(_) => Ok(Some(text)),
        Err(_) => Err("Host is not a host and a port"),
    }
}

fn framing(
    fields: &Fields<'_>,
    version: Version,
    method: &str,
    target: &RequestTarget<'_>,
) -> Result<Framing, Refused> {
    let declared = match declared_length(fields, version, Duplicates::Refuse) {
        Ok(declared) => declared,
        Err(LengthError::Malformed(reason)) => return Err(Refused::bad(reason)),
        Err(LengthError::UnknownCoding) => {
            return Err(Refused {
                status: 501,
                reason: "a transfer coding other than chunked",
            });
        }
    };
    match (target, declared) {
        // RFC 9110 §9.3.6: what follows is the tunnel, from its first byte.
        (RequestTarget::Authority(_), Declared::Nothing | Declared::Bytes(0)) => Ok(Framing::Raw),
        (RequestTarget::Authority(_), _) => Err(Refused::bad("CONNECT with content")),
        // RFC 9110 §9.3.8. Chunks may turn out to hold nothing, but who sends them means to.
        (_, Declared::Bytes(1..) | Declared::Chunked) if method == "TRACE" => {
            Err(Refused::bad("TRACE with content"))
        }
        (_, Declared::Nothing) => Ok(Framing::None),
        (_, Declared::Bytes(length)) => Ok(Framing::Length(length)),
        (_, Declared::Chunked) => Ok(Framing::Chunked),
    }
}

/// RFC 9110 §7.6.2. A number too large to be kept is a large number.
fn max_forwards(fields: &Fields<'_>, method: &str) -> Result<Option<u64>, &'static str> {
    if !matches!(method, "TRACE" | "OPTIONS") {
        return Ok(None);
    }
    let mut values = fields.values("max-forwards");
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err("more than one Max-Forwards");
    }
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err("Max-Forwards is not a decimal number");
    }
    Ok(Some(value.iter().fold(0, |hops: u64, digit| {
        hops.saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    })))
}

/// RFC 9110 §10.1.1: 100-continue is the one expectation there is, and in HTTP/1.0 it is ignored.
fn expects_continue(fields: &Fields<'_>, version: Version) -> Result<bool, Refused> {
    let mut expectations = fields.values("expect");
    match (expectations.next(), expectations.next()) {
        (None, _) => Ok(false),
        (Some(one), None) if one.eq_ignore_ascii_case(b"100-continue") => {
            Ok(version == Version::Http11)
        }
        _ => Err(Refused {
            status: 417,
            reason: "an expectation other than 100-continue",
        }),
    }
}

/// Whether `Upgrade` names protocols that an opaque pipe can carry. An upgrade to HTTP/2 would make
/// that pipe a second way to send requests, past every check here.
fn upgrades_to_another_protocol(fields: &Fields<'_>) -> bool {
    let mut named = false;
    for protocol in fields.elements("upgrade") {
        let name = protocol.split(|&byte| byte == b'/').next().unwrap_or(b"");
        let http = [&b"h2c"[..], b"h2", b"http"];
        if http.iter().any(|other| name.eq_ignore_ascii_case(other)) {
            return false;
        }
        named |= !name.is_empty();
    }
    named
}

/// What a request is trusted with, for its addressee alone.
const SECRET: &[&str] = &["authorization", "cookie", "proxy-authorization"];

#[cfg(test)]
mod tests;
