//! Random exchanges, all of them valid: what a user may ask, and what an origin may answer.

use crate::{
    message::{Content, Field, Framing, Request, Response, Version, Wire, values},
    model::{self, Hops, Proxy},
    reader::{self, Found},
    seed::{Rng, Tag},
};

/// One request, its response, and when each part of them is sent.
pub struct Exchange {
    /// In every part of it.
    pub tag: Tag,
    /// What the user asks.
    pub request: Request,
    /// How.
    pub request_wire: Wire,
    /// What the origin says before it reads the content.
    pub interims_first: Vec<Said>,
    /// What it says when it has read the content.
    pub interims_then: Vec<Said>,
    /// What it answers.
    pub response: Response,
    /// How.
    pub response_wire: Wire,
    /// Who waits for whom.
    pub timing: Timing,
}

/// An interim response and its spelling.
pub struct Said {
    /// The message.
    pub response: Response,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Who waits for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// The origin for the whole request.
    Usual,
    /// The user for an interim response, before it sends content.
    Continue,
    /// The origin for nothing but the head, and the user for the final head, after `sent` bytes of the
    /// body; it sends the rest then or not at all.
    Held {
        /// Fewer than all.
        sent: usize,
        /// Sends the others all the same.
        rest: bool,
    },
    /// The origin answers a head at once, while the content is coming.
    Racing,
}

/// What is wanted of an exchange; the rest is chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Further requests follow on the user's connection.
    pub more: bool,
    /// Nobody waits for anybody, and the messages are small: they are to be damaged.
    pub plain: bool,
}

impl Exchange {
    /// Draws an exchange through `proxy`.
    pub fn draw(tag: Tag, proxy: &Proxy, wanted: Wanted, rng: &mut Rng) -> Self {
        let timing = match rng.below(100) {
            _ if wanted.plain => Timing::Usual,
            0..10 => Timing::Continue,
            10..16 if !wanted.more => Timing::Held {
                sent: 0,
                rest: rng.percent(50),
            },
            16..20 if !wanted.more => Timing::Racing,
            _ => Timing::Usual,
        };
        let mut request = draw_request(tag, proxy, timing, wanted, rng);
        let asked = model::asked(&request);
        let silent = request.values("expect").next().is_none();
        if timing == Timing::Usual && silent && rng.percent(8) {
            request.fields.push(Field::new("Expect", "100-continue"));
        }
        let request_wire = request.spell(rng);
        let timing = match timing {
            Timing::Held { rest, .. } => Timing::Held {
                sent: rng.below(request_wire.body.len().max(1)),
                rest,
            },
            timing => timing,
        };
        let expects =
            asked.version == Version::Http11 && values(&request.fields, "expect").next().is_some();
        let mut interims_first = Vec::new();
        if timing == Timing::Continue || expects && timing == Timing::Usual && rng.percent(80) {
            interims_first.push(draw_interim(tag, 100, rng));
        }
        let more = |rng: &mut Rng| match rng.percent(12) {
            true => rng.between(1, 2),
            false => 0,
        };
        for _ in 0..more(rng) {
            interims_first.push(draw_interim(tag, 102, rng));
        }
        let interims_then = (0..more(rng))
            .map(|_| draw_interim(tag, 103, rng))
            .collect();
        let response = draw_response(tag, &request, wanted, rng);
        let response_wire = response.spell(rng);
        let exchange = Self {
            tag,
            request,
            request_wire,
            interims_first,
            interims_then,
            response,
            response_wire,
            timing,
        };
        exchange.check_spelling(&asked);
        exchange
    }

    /// Draws what an origin may answer to a request of whoever.
    pub fn draw_answer(tag: Tag, request: &Request, rng: &mut Rng) -> Response {
        let wanted = Wanted {
            more: true,
            plain: true,
        };
        draw_response(tag, request, wanted, rng)
    }

    /// The reader, which stands in for the drawn message where one is damaged, agrees on what is not.
    fn check_spelling(&self, asked: &model::Asked) {
        match reader::request(&self.request_wire.bytes()) {
            Found::Whole { message, length } => {
                assert_eq!(message, self.request);
                assert_eq!(length, self.request_wire.bytes().len());
            }
            other => panic!("{}: {other:?}", self.request.summary()),
        }
        let bytes = self.response_wire.bytes();
        match reader::response(&bytes, asked.to_head) {
            Found::Whole { message, length } => {
                assert_eq!((&message, length), (&self.response, bytes.len()));
            }
            Found::ContentCut(message) => {
                assert_eq!(message, self.response);
                assert_eq!(message.content.framing, Framing::UntilClose);
            }
            other => panic!("{}: {other:?}", self.response.summary()),
        }
    }

    /// Whether the origin sees it.
    pub fn goes_on(&self) -> bool {
        model::hops(&self.request) != Hops::None
    }

    /// What it is, for whoever reads of its failure.
    pub fn summary(&self) -> String {
        if !self.goes_on() {
            return format!("{}, Max-Forwards: 0", self.request.summary());
        }
        format!(
            "{} -> {}, {:?}",
            self.request.summary(),
            self.response.summary(),
            self.timing
        )
    }
}

fn draw_request(tag: Tag, proxy: &Proxy, timing: Timing, wanted: Wanted, rng: &mut Rng) -> Request {
    let waits = timing != Timing::Usual;
    let version = match waits || rng.percent(85) {
        true => Version::Http11,
        false => Version::Http10,
    };
    let method = match waits {
        true => rng.pick(&["POST", "PUT", "PATCH", "x-odd"]),
        false => rng.weighted(METHODS),
    };
    let target = draw_target(method, proxy, rng);
    let framing = match rng.below(100) {
        _ if method == "TRACE" => Framing::None,
        0..80 if !waits && SELDOM_WITH_CONTENT.contains(&method) => Framing::None,
        0..10 if !waits => Framing::None,
        0..55 => Framing::Length,
        _ if version == Version::Http10 => Framing::Length,
        _ => Framing::Chunked,
    };
    let content = draw_content(tag, framing, waits, wanted, rng);

    let mut fields = vec![Field::new("X-Exchange", tag.to_string())];
    if version == Version::Http11 || rng.percent(70) {
        // Of no account where the target names its host.
        let host = match reader::absolute(&target).is_some() && rng.percent(30) {
            true => "",
            false => rng.pick(HOSTS),
        };
        fields.push(Field::new("Host", host));
    }
    draw_fields(&mut fields, REQUEST_FIELDS, rng);
    if matches!(method, "OPTIONS" | "TRACE") {
        fields.retain(|field| !field.is("max-forwards"));
        if rng.percent(60) {
            let hops = rng.pick(if wanted.more { &HOPS[1..] } else { HOPS });
            fields.push(Field::new("Max-Forwards", hops));
        }
    }
    let stays = match wanted.more {
        true => true,
        false => rng.percent(60),
    };
    draw_connection(&mut fields, version, stays, rng);
    if rng.percent(4) {
        fields.push(Field::new("Connection", "Upgrade"));
        fields.push(Field::new("Upgrade", rng.pick(PROTOCOLS)));
    }
    if version == Version::Http10 && rng.percent(10) {
        fields.push(Field::new("Expect", "100-Continue"));
    }
    if timing == Timing::Continue {
        fields.push(Field::new(
            "Expect",
            rng.pick(&["100-continue", "100-Continue"]),
        ));
    }
    draw_framing(&mut fields, &content, rng);
    finish_fields(&mut fields, rng);
    Request {
        method: method.to_owned(),
        target,
        version,
        fields,
        content,
    }
}

fn draw_target(method: &str, proxy: &Proxy, rng: &mut Rng) -> String {
    if method == "OPTIONS" && !proxy.forward && rng.percent(30) {
        return "*".to_owned();
    }
    let path = rng.pick(PATHS);
    if proxy.forward {
        let scheme = rng.pick(&["http", "http", "HTTP", "hTTp"]);
        let path = match rng.below(10) {
            0 => "",
            1 => "?query",
            _ => path,
        };
        return format!("{scheme}://{}{path}", proxy.target);
    }
    match rng.below(100) {
        0..80 => path.to_owned(),
        80..85 => format!("http://{}", rng.pick(AUTHORITIES)),
        85..90 => format!("http://{}?query/with/slashes", rng.pick(AUTHORITIES)),
        _ => format!("HTTP://{}{path}", rng.pick(AUTHORITIES)),
    }
}

fn draw_response(tag: Tag, request: &Request, wanted: Wanted, rng: &mut Rng) -> Response {
    let version = match rng.percent(85) {
        true => Version::Http11,
        false => Version::Http10,
    };
    let status = rng.weighted(STATUSES);
    let bodiless = request.method == "HEAD" || status == 204 || status == 304;
    let framing = match rng.below(100) {
        _ if bodiless => Framing::None,
        0..15 => Framing::UntilClose,
        15..50 if version == Version::Http11 => Framing::Chunked,
        _ => Framing::Length,
    };
    let content = draw_content(tag, framing, false, wanted, rng);
    let mut fields = vec![Field::new("X-Exchange", tag.to_string())];
    if rng.percent(85) {
        fields.push(Field::new("Date", "Sun, 06 Nov 1994 08:49:37 GMT"));
    }
    draw_fields(&mut fields, RESPONSE_FIELDS, rng);
    draw_connection(&mut fields, version, rng.percent(75), rng);
    draw_framing(&mut fields, &content, rng);
    match rng.below(10) {
        0..4 if bodiless => {
            let length = rng.pick(&["0", "1", "5000", "00017", "9223372036854775807"]);
            fields.push(Field::new("Content-Length", length));
        }
        4..6 if bodiless && version == Version::Http11 => {
            fields.push(Field::new("Transfer-Encoding", "chunked"));
        }
        // Told twice, but the same.
        0 if framing == Framing::Length => draw_framing(&mut fields, &content, &mut Rng::new(0)),
        _ => {}
    }
    let lengths: Vec<Vec<u8>> = values(&fields, "content-length").map(Vec::from).collect();
    if let [first, second] = &lengths[..]
        && first != second
    {
        // A leading zero makes them two values.
        let last = fields.iter().rposition(|field| field.is("content-length"));
        fields.remove(last.expect("there are two"));
    }
    finish_fields(&mut fields, rng);
    Response {
        version,
        status,
        phrase: rng.pick(PHRASES).as_bytes().to_vec(),
        fields,
        content,
    }
}

fn draw_interim(tag: Tag, status: u16, rng: &mut Rng) -> Said {
    let mut fields = vec![Field::new("X-Exchange", tag.to_string())];
    if rng.percent(50) {
        fields.push(Field::new("Link", "</style.css>; rel=preload"));
    }
    if rng.percent(20) {
        fields.push(Field::new("Keep-Alive", "timeout=5"));
        fields.push(Field::new("Connection", "keep-alive, x-hop"));
        fields.push(Field::new("X-Hop", "gone"));
    }
    let response = Response {
        version: Version::Http11,
        status,
        phrase: rng.pick(PHRASES).as_bytes().to_vec(),
        fields,
        content: Content::none(),
    };
    let bytes = response.spell(rng).head;
    Said { response, bytes }
}

fn draw_content(tag: Tag, framing: Framing, some: bool, wanted: Wanted, rng: &mut Rng) -> Content {
    if framing == Framing::None {
        return Content::none();
    }
    let length = match rng.below(100) {
        0..10 => 0,
        10..18 => 1,
        _ if wanted.plain => rng.between(2, 700),
        18..70 => rng.between(2, 400),
        70..84 => rng.between(401, 8_000),
        84..96 => rng.pick(&[16_383, 16_384, 16_385, 65_535, 65_536, 65_537]),
        _ => rng.between(8_001, 200 << 10),
    };
    let mut trailers = Vec::new();
    if framing == Framing::Chunked && rng.percent(30) {
        for _ in 0..rng.between(1, 3) {
            let (name, value) = rng.pick(TRAILERS);
            trailers.push(Field::new(name, value));
        }
        trailers.push(Field::new("X-Exchange", tag.to_string()));
    }
    Content {
        framing,
        bytes: tag.content(length.max(usize::from(some))),
        trailers,
    }
}

fn draw_framing(fields: &mut Vec<Field>, content: &Content, rng: &mut Rng) {
    match content.framing {
        Framing::Length => {
            let zeros = if rng.percent(5) { "00" } else { "" };
            let length = format!("{zeros}{}", content.bytes.len());
            fields.push(Field::new("Content-Length", length));
        }
        Framing::Chunked => {
            let coding = rng.pick(&["chunked", "chunked", "Chunked", "CHUNKED"]);
            fields.push(Field::new("Transfer-Encoding", coding));
        }
        Framing::None | Framing::UntilClose => {}
    }
}

fn draw_fields(fields: &mut Vec<Field>, from: &[(&str, &str)], rng: &mut Rng) {
    for _ in 0..rng.pick(&[0, 1, 2, 3, 5, 8, 20]) {
        let (name, value) = rng.pick(from);
        fields.push(Field::new(name, value));
    }
    if rng.percent(10) {
        // obs-text (RFC 9110 §5.5), a tab within, and what looks like other things.
        fields.push(Field::new("X-Odd", b"\xe9t\xe9\t\xff: , ;\"".to_vec()));
    }
    if rng.percent(2) {
        fields.push(Field::new("X-Long", vec![b'l'; rng.between(1_000, 15_000)]));
    }
}

/// The fields that concern the connection, so that it `stays` or not, and what they list.
fn draw_connection(fields: &mut Vec<Field>, version: Version, stays: bool, rng: &mut Rng) {
    let mut options = Vec::new();
    match (version, stays) {
        (Version::Http10, true) => options.push("keep-alive"),
        (Version::Http10, false) if rng.percent(30) => options.push("close"),
        (Version::Http10, false) => {}
        (Version::Http11, true) if rng.percent(20) => options.push("Keep-Alive"),
        (Version::Http11, true) => {}
        (Version::Http11, false) => options.push(rng.pick(&["close", "Close", "CLOSE"])),
    }
    if rng.percent(15) {
        for _ in 0..rng.between(1, 4) {
            let option = rng.pick(LISTED);
            options.push(option);
            // Most of what is listed is there, too.
            if rng.percent(70) && option.starts_with("X-Hop") {
                fields.push(Field::new(option, "for the next hop only"));
            }
        }
        rng.shuffle(&mut options);
    }
    if options.is_empty() {
        return;
    }
    if rng.percent(20) {
        for option in options {
            fields.push(Field::new("Connection", option));
        }
    } else {
        let between = rng.pick(&[",", ", ", " , ", ",, ,"]);
        fields.push(Field::new("Connection", options.join(between)));
    }
}

/// Puts the fields into any order and any letters.
fn finish_fields(fields: &mut [Field], rng: &mut Rng) {
    rng.shuffle(fields);
    if rng.percent(30) {
        for field in fields {
            let letters = field.name.chars().map(|letter| match rng.percent(50) {
                true => letter.to_ascii_uppercase(),
                false => letter.to_ascii_lowercase(),
            });
            field.name = letters.collect();
        }
    }
}

const METHODS: &[(usize, &str)] = &[
    (30, "GET"),
    (12, "HEAD"),
    (20, "POST"),
    (8, "PUT"),
    (6, "DELETE"),
    (6, "OPTIONS"),
    (5, "PATCH"),
    (3, "TRACE"),
    (2, "PROPFIND"),
    (1, "M-SEARCH"),
    (1, "get"),
    (1, "Head"),
    (1, "x!#$%&'*+-.^_`|~9"),
];
const SELDOM_WITH_CONTENT: &[&str] = &["GET", "HEAD", "DELETE", "OPTIONS"];

/// For what they mean: no further, one more, many more.
const HOPS: &[&str] = &["0", "1", "007", "70", "18446744073709551615"];

const STATUSES: &[(usize, u16)] = &[
    (40, 200),
    (4, 201),
    (2, 202),
    (4, 204),
    (2, 205),
    (3, 206),
    (1, 299),
    (4, 302),
    (5, 304),
    (2, 400),
    (2, 401),
    (4, 404),
    (1, 407),
    (1, 417),
    (1, 426),
    (3, 500),
    (1, 502),
    (1, 503),
    (1, 599),
];

const PATHS: &[&str] = &[
    "/",
    "/a",
    "//double//slash",
    "/a%20b?c=d&e=%00",
    "/..;/a/../b/./",
    "/?http://elsewhere.test/",
    "/http://elsewhere.test/",
    "/a:80,b;c=d!$&'()*+,;=:@~_-.",
    "/{a}|b\\c^d`e\"f<g>",
    "/*",
    "/very/long/path/that/goes/on/and/on/and/on/and/on/and/on/and/on/and/on/and/on/and/on?and=on",
];

const AUTHORITIES: &[&str] = &[
    "other.test",
    "Other.TEST:8080",
    "[2001:db8::7]:81",
    "a:",
    "127.0.0.1",
];

const HOSTS: &[&str] = &[
    "origin.test",
    "Origin.TEST:80",
    "127.0.0.1:3000",
    "[::1]:8080",
    "[2001:db8::1]",
    "a",
    "a.test:",
    "my_service.local.",
];

const PHRASES: &[&str] = &[
    "OK",
    "",
    "Not Quite OK",
    "a\tb  c",
    "200 OK HTTP/1.1 \"x\"",
    "OK ",
];

const PROTOCOLS: &[&str] = &[
    "websocket",
    "foo/2",
    "foo, bar/1",
    "h2c",
    "h2c, websocket",
    "HTTP/2.0",
];

const LISTED: &[&str] = &[
    "X-Hop",
    "x-hop-2",
    "X-Hop-3",
    "Cookie",
    "Host",
    "Date",
    "Content-Type",
    "Content-Length",
    "Transfer-Encoding",
    "X-Forwarded-For",
    "Authorization",
    "Accept",
    "Server",
    "TE",
    "Via",
    "keep-alive",
    "not-there",
];

const REQUEST_FIELDS: &[(&str, &str)] = &[
    ("Accept", "*/*"),
    ("Accept", "text/html;q=0.8, text/plain"),
    ("Accept-Encoding", "gzip, br"),
    ("Authorization", "Basic dXNlcjpwYXNz"),
    ("Authorization", "NTLM TlRMTVNTUAABAAAA"),
    ("Cache-Control", "no-cache"),
    ("Content-Type", "text/plain; charset=\"utf-8\""),
    ("Cookie", "a=1; b=2"),
    ("Cookie", "c=\"3, 4\""),
    ("Forwarded", "for=192.0.2.60;proto=http;by=203.0.113.43"),
    ("Forwarded", "for=\"[2001:db8::1]\", for=unknown"),
    ("Forwarded", "for=\"_open\\\""),
    ("HTTP2-Settings", "AAMAAABkAAQAAP__"),
    ("If-None-Match", "\"abc\", W/\"def\""),
    ("Keep-Alive", "timeout=5, max=100"),
    ("Max-Forwards", "7"),
    ("Origin", "null"),
    ("Proxy-Authorization", "Basic cHJveHk6cGFzcw=="),
    ("Proxy-Connection", "keep-alive"),
    ("Range", "bytes=0-499"),
    ("TE", "gzip;q=0.5"),
    ("TE", "trailers, deflate"),
    ("TE", "Trailers"),
    ("TE", "trailers;q=1"),
    ("Trailer", "X-Checksum, X-Exchange"),
    ("User-Agent", "generated/1.0 (of \\ a \"case\")"),
    ("Via", "1.0 fred, 1.1 p.example.net"),
    ("X-Empty", ""),
    ("X-Forwarded-For", "203.0.113.195, 198.51.100.178"),
    ("X-Forwarded-For", "unknown"),
    ("X-Forwarded-For", ""),
    ("X_Forwarded_For", "203.0.113.196"),
    ("X-Forwarded-Host", "forged.test"),
    ("X-Forwarded-Port", "8443"),
    ("X-Forwarded-Proto", "https"),
    ("X-Hop", "not listed, so it passes"),
    ("X-Real-IP", "203.0.113.195"),
];

const RESPONSE_FIELDS: &[(&str, &str)] = &[
    ("Accept-Ranges", "bytes"),
    ("Age", "17"),
    ("Alt-Svc", "h3=\":443\""),
    ("Cache-Control", "max-age=0, private=\"set-cookie\""),
    ("Content-Type", "application/octet-stream"),
    ("ETag", "W/\"xyzzy\""),
    ("HTTP2-Settings", "AAMAAABkAAQAAP__"),
    ("Keep-Alive", "timeout=15, max=100"),
    ("Keep-Alive", "timeout=1"),
    ("Keep-Alive", "max=0"),
    ("Location", "http://elsewhere.test/?a=b"),
    ("Proxy-Authenticate", "Basic realm=\"proxy\""),
    ("Proxy-Connection", "keep-alive"),
    ("Retry-After", "120"),
    ("Server", "generated/1.0"),
    (
        "Set-Cookie",
        "a=1; Path=/; Expires=Wed, 09 Jun 2027 10:18:14 GMT",
    ),
    ("Set-Cookie", "b=2; HttpOnly"),
    ("TE", "trailers"),
    ("Trailer", "X-Checksum"),
    ("Upgrade", "h2c"),
    ("Vary", "Accept, Cookie"),
    ("Via", "1.1 inner"),
    ("WWW-Authenticate", "Basic realm=\"a, b\""),
    ("WWW-Authenticate", "Negotiate"),
    ("X-Empty", ""),
    ("X-Hop", "not listed, so it passes"),
];

const TRAILERS: &[(&str, &str)] = &[
    ("X-Checksum", "0123456789abcdef"),
    ("x-lower", ""),
    (
        "Content-Digest",
        "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:",
    ),
    ("Server-Timing", "db;dur=53"),
    ("Content-Length", "0"),
    ("Content-Type", "text/html"),
    ("Transfer-Encoding", "chunked"),
    ("Host", "trailer.test"),
    ("Set-Cookie", "forged=1"),
    ("Authorization", "Basic Zm9yZ2Vk"),
    ("X-Forwarded-For", "192.0.2.1"),
    ("Te", "trailers"),
    ("Connection", "close"),
    ("Expires", "0"),
];
