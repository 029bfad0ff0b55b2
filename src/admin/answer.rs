//! What may be asked, by whom, and the answers to it. Knows no connection.

use std::{net::IpAddr, time::Duration};

use log::LevelFilter;

use super::{Asked, Told, metrics, page};
use crate::http::Request;

/// What a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The page for people, which holds nothing but itself.
    Page,
    /// A sign of life: that there is an answer at all is the answer.
    Health,
    /// Another log level.
    Log(LevelFilter),
    /// What the role has to answer.
    OfRole(Asked),
}

/// A page that is to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub status: u16,
    /// Its media type; without one there is no content.
    pub kind: Option<&'static str>,
    pub content: Vec<u8>,
    /// Further fields of its head.
    pub fields: Vec<(&'static str, String)>,
}

impl Told {
    pub(super) fn page(self) -> Page {
        match self {
            Told::Readiness(None) => Page::line(200, "ready"),
            Told::Readiness(Some(reason)) => Page::line(503, &reason),
            Told::Metrics(snapshot) => {
                let (status, figures) = *snapshot;
                Page::of(METRICS, metrics::text(&status, &figures).into_bytes())
            }
            Told::Status(status) => {
                let mut json = serde_json::to_vec_pretty(&status).expect("a status is plain data");
                json.push(b'\n');
                Page::of(JSON, json)
            }
            Told::Closed(_, true) => Page::empty(204),
            Told::Closed(..) => Page::line(404, "no such session"),
        }
    }
}

impl Page {
    fn of(kind: &'static str, content: Vec<u8>) -> Page {
        Page {
            status: 200,
            kind: Some(kind),
            content,
            fields: Vec::new(),
        }
    }

    /// The page for people, with its [`page::policy`].
    pub fn for_people(policy: &str) -> Page {
        Page {
            fields: page::fields(policy),
            ..Page::of(HTML, page::TEXT.into())
        }
    }

    /// A line of text.
    pub fn line(status: u16, line: &str) -> Page {
        Page {
            status,
            ..Page::of(TEXT, format!("{line}\n").into_bytes())
        }
    }

    /// Nothing.
    pub fn empty(status: u16) -> Page {
        Page {
            status,
            kind: None,
            content: Vec::new(),
            fields: Vec::new(),
        }
    }

    fn not_allowed(allowed: &str) -> Page {
        Page {
            fields: vec![("Allow", allowed.into())],
            ..Page::line(405, "not by this method")
        }
    }

    pub fn unauthorized() -> Page {
        let challenge = "Bearer realm=\"siding\"";
        Page {
            fields: vec![("WWW-Authenticate", challenge.into())],
            ..Page::line(401, "the admin token is needed: Authorization: Bearer …")
        }
    }

    pub fn too_many(wait: Duration) -> Page {
        Page {
            fields: vec![("Retry-After", (wait.as_secs() + 1).to_string())],
            ..Page::line(429, "too many wrong tokens")
        }
    }
}

/// What a request asks.
///
/// # Errors
/// Nothing that there is, or not so.
pub(super) fn route(request: &Request<'_>) -> Result<Wanted, Page> {
    let path = request.path();
    let read = |wanted| match request.method {
        "GET" | "HEAD" => Ok(wanted),
        _ => Err(Page::not_allowed("GET, HEAD")),
    };
    match path {
        "/" => read(Wanted::Page),
        "/healthz" => read(Wanted::Health),
        "/readyz" => read(Wanted::OfRole(Asked::Readiness)),
        "/metrics" => read(Wanted::OfRole(Asked::Metrics)),
        "/status" => read(Wanted::OfRole(Asked::Status)),
        "/log" => match request.method {
            "PUT" | "POST" => level(request.query()).map(Wanted::Log),
            _ => Err(Page::not_allowed("PUT, POST")),
        },
        _ => {
            let user = path.strip_prefix("/streams/");
            let Some(user) = user.and_then(|user| user.strip_suffix("/close")) else {
                return Err(Page::line(404, "no such page"));
            };
            if request.method != "POST" {
                return Err(Page::not_allowed("POST"));
            }
            // The one sign of an id that a path cannot hold.
            let user = user.replace("%23", "#").parse();
            user.map(|user| Wanted::OfRole(Asked::Close(user)))
                .map_err(|_| Page::line(404, "no such session"))
        }
    }
}

/// The level in `level=debug`.
fn level(query: Option<&str>) -> Result<LevelFilter, Page> {
    let level = query.and_then(|query| {
        let mut parts = query.split('&');
        parts.find_map(|part| part.strip_prefix("level="))
    });
    match level.map(str::parse) {
        Some(Ok(level)) => Ok(level),
        _ => Err(Page::line(
            400,
            "level= off, error, warn, info, debug or trace is expected",
        )),
    }
}

/// The token that a request shows.
pub(super) fn bearer<'a>(request: &Request<'a>) -> Option<&'a [u8]> {
    let mut values = request.field("authorization");
    let value = values.next().filter(|_| values.next().is_none())?;
    let (scheme, token) = value.split_at_checked(BEARER.len())?;
    let is_bearer = scheme.eq_ignore_ascii_case(BEARER);
    is_bearer.then(|| token.trim_ascii())
}

/// Whether a request that has come from this machine is meant by somebody on it, and not by somebody else's
/// page in its browser: ours is what it came from if it says so, at the address that it asks.
///
/// # Errors
/// It is not, or nobody can tell.
pub(super) fn is_of_this_machine(request: &Request<'_>) -> Result<(), Page> {
    let is_ours =
        |name: &str| name.parse::<IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost");
    if request.asked_name().is_some_and(|name| !is_ours(name)) {
        return Err(Page::line(
            403,
            "without a token, by an address or as localhost only",
        ));
    }
    let is_ours = |origin: &[u8]| {
        let host = origin.strip_prefix(b"http://");
        host.zip(request.asked_host())
            .is_some_and(|(from, asked)| from.eq_ignore_ascii_case(asked.as_bytes()))
    };
    let changes = !matches!(request.method, "GET" | "HEAD");
    if changes && !request.field("origin").all(is_ours) {
        return Err(Page::line(
            403,
            "without a token, not from another's web page",
        ));
    }
    Ok(())
}

const BEARER: &[u8] = b"Bearer ";

const HTML: &str = "text/html; charset=utf-8";

const TEXT: &str = "text/plain; charset=utf-8";

const JSON: &str = "application/json";

/// Version 0.0.4 of the text format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::HeadLimits;

    impl From<Asked> for Wanted {
        fn from(asked: Asked) -> Wanted {
            Wanted::OfRole(asked)
        }
    }

    fn with<T>(head: &str, look: impl FnOnce(&Request<'_>) -> T) -> T {
        let head = format!("{head}\r\n\r\n");
        let request = Request::parse(head.as_bytes(), &HeadLimits::default());
        look(&request.expect("a good request"))
    }

    fn asked(line: &str) -> Result<Wanted, (u16, Option<String>)> {
        with(&format!("{line} HTTP/1.1\r\nHost: localhost"), |request| {
            let field = |page: Page| page.fields.into_iter().next().map(|(_, value)| value);
            route(request).map_err(|page| (page.status, field(page)))
        })
    }

    #[test]
    fn what_there_is_can_be_asked_and_nothing_else() {
        let user = |text: &str| Asked::Close(text.parse().expect(text)).into();
        for (line, expected) in [
            ("GET /", Wanted::Page),
            ("HEAD /?", Wanted::Page),
            ("GET /healthz", Wanted::Health),
            ("HEAD /readyz", Asked::Readiness.into()),
            ("GET /metrics?x=y", Asked::Metrics.into()),
            ("GET http://127.0.0.1/status", Asked::Status.into()),
            ("PUT /log?level=debug", Wanted::Log(LevelFilter::Debug)),
            ("POST /log?a=b&level=WARN", Wanted::Log(LevelFilter::Warn)),
            ("POST /streams/user-1-2/close", user("user-1-2")),
            ("POST /streams/user-1-2%237/close", user("user-1-2#7")),
        ] {
            assert_eq!(asked(line), Ok(expected), "{line}");
        }
        let only = |allowed: &str| (405, Some(allowed.to_owned()));
        for (line, expected) in [
            ("GET /index.html", (404, None)),
            ("POST /", only("GET, HEAD")),
            ("GET /Status", (404, None)),
            ("OPTIONS *", only("GET, HEAD")),
            ("POST /status", only("GET, HEAD")),
            ("DELETE /healthz", only("GET, HEAD")),
            ("GET /log", only("PUT, POST")),
            ("PUT /log", (400, None)),
            ("PUT /log?level=loud", (400, None)),
            ("GET /streams/user-1-2/close", only("POST")),
            ("POST /streams/user-1/close", (404, None)),
            ("POST /streams/user-1-2", (404, None)),
        ] {
            assert_eq!(asked(line), Err(expected), "{line}");
        }
    }

    #[test]
    fn the_token_stands_once_behind_its_scheme() {
        let shown = |fields: &str| {
            with(
                &format!("GET / HTTP/1.1\r\nHost: a{fields}"),
                |request: &Request<'_>| {
                    bearer(request).map(|token| String::from_utf8_lossy(token).into_owned())
                },
            )
        };
        for (fields, expected) in [
            ("", None),
            ("\r\nAuthorization: Bearer secret", Some("secret")),
            ("\r\nauthorization: bearer  secret", Some("secret")),
            ("\r\nAuthorization: Bearersecret", None),
            ("\r\nAuthorization: Basic secret", None),
            ("\r\nAuthorization: Bearer", None),
            (
                "\r\nAuthorization: Bearer a\r\nAuthorization: Bearer a",
                None,
            ),
        ] {
            assert_eq!(shown(fields).as_deref(), expected, "{fields}");
        }
    }

    #[test]
    fn anothers_page_in_a_browser_is_nobody_of_this_machine() {
        for (head, expected) in [
            ("GET /status HTTP/1.1\r\nHost: 127.0.0.1:7001", true),
            ("GET /status HTTP/1.1\r\nHost: [::1]:7001", true),
            ("GET /status HTTP/1.1\r\nHost: LOCALHOST:7001", true),
            ("GET /status HTTP/1.0", true),
            ("GET /status HTTP/1.1\r\nHost: evil.example:7001", false),
            (
                "GET http://evil.example/status HTTP/1.1\r\nHost: 127.0.0.1",
                false,
            ),
            ("POST /log HTTP/1.1\r\nHost: 127.0.0.1", true),
            (
                "POST /log HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: null",
                false,
            ),
            (
                "GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://evil.example",
                true,
            ),
        ] {
            let admitted = with(head, |request| is_of_this_machine(request).is_ok());
            assert_eq!(admitted, expected, "{head}");
        }
    }

    #[test]
    fn our_own_page_may_change_what_it_was_asked_at_and_no_other() {
        for (host, origin, expected) in [
            ("127.0.0.1:7001", "http://127.0.0.1:7001", true),
            ("[::1]:7001", "http://[::1]:7001", true),
            ("localhost:7001", "http://LOCALHOST:7001", true),
            ("127.0.0.1", "http://127.0.0.1", true),
            // Another program on this machine.
            ("localhost:7001", "http://localhost:3000", false),
            ("localhost:7001", "http://localhost", false),
            ("localhost:7001", "http://127.0.0.1:7001", false),
            ("localhost:7001", "https://localhost:7001", false),
            (
                "localhost:7001",
                "http://localhost:7001.evil.example",
                false,
            ),
            ("localhost:7001", "http://localhost:7001/", false),
            ("localhost:7001", "null", false),
            ("localhost:7001", "", false),
            // A name that leads here is refused whatever the page says.
            ("evil.example:7001", "http://evil.example:7001", false),
            (
                "localhost:7001",
                "http://localhost:7001\r\nOrigin: null",
                false,
            ),
        ] {
            let head = format!("POST /log HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}");
            let admitted = with(&head, |request| is_of_this_machine(request).is_ok());
            assert_eq!(admitted, expected, "{head}");
        }
        let old = "POST /log HTTP/1.0\r\nOrigin: http://127.0.0.1";
        assert!(!with(old, |request| is_of_this_machine(request).is_ok()));
    }
}
