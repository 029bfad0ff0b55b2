//! Request heads: taken if and only if the RFC lets them be taken, understood as it says, and
//! written again so that whoever reads them next understands the same.

use std::time::Duration;

use siding::http::{
    Edits, Framing, HeadLimits, Request, RequestTarget, Version, end_of_forwarding, head_end,
};

use super::{
    hop,
    rfc::{self, Field, Length},
    wire::knobs,
};

/// Knobs: limits, and what else is changed in a head. The rest begins with one.
pub fn check(input: &[u8]) {
    let Some(([limits_knob, edits], bytes)) = knobs(input) else {
        return;
    };
    let limits = limits(*limits_knob);
    let Some(end) = end_of_head(bytes) else {
        let overlong = Request::overlong(bytes, &limits).map(|refused| refused.status);
        let line = rfc::request::is_overlong(bytes, &limits);
        let expected = match line {
            true => Some(414),
            false if bytes.len() >= limits.bytes => Some(431),
            false => None,
        };
        assert_eq!(overlong, expected);
        return;
    };
    let head = &bytes[..end];
    match (
        Request::parse(head, &limits),
        rfc::request::read(head, &limits),
    ) {
        (Ok(request), Ok(meaning)) => {
            same_meaning(&request, &meaning);
            forwarded(&request, &meaning, &hop::edits(*edits));
            if request.max_forwards == Some(0) {
                answered(&request, &meaning);
            }
        }
        (Err(refused), Err(broken)) => {
            let status = refused.status;
            assert!(broken.contains(&status), "{refused:?}, of {broken:?}");
        }
        (Ok(request), Err(broken)) => panic!("taken in spite of {broken:?}: {request:?}"),
        (Err(refused), Ok(meaning)) => panic!("{refused:?} in spite of {meaning:?}"),
    }
}

/// Usual limits, or such as a short input can reach.
pub fn limits(knob: u8) -> HeadLimits {
    match knob & 3 {
        0 => HeadLimits {
            bytes: 160,
            fields: 4,
            line: 40,
        },
        1 => HeadLimits {
            bytes: 4096,
            fields: usize::MAX,
            line: 5000,
        },
        _ => HeadLimits::default(),
    }
}

/// Of whoever reads what we wrote.
pub const UNLIMITED: HeadLimits = HeadLimits {
    bytes: usize::MAX,
    fields: usize::MAX,
    line: usize::MAX,
};

/// Where the head ends, told alike for each beginning of `bytes` that may have been looked at before.
pub fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let end = rfc::head_end(bytes);
    assert_eq!(head_end(bytes, 0), end);
    // As bytes come, however many at a time: no end before it, and the same one whatever follows.
    for length in (0..bytes.len().min(128)).chain((128..bytes.len()).step_by(61)) {
        let scanned = end.map_or(length, |end| length.min(end - 1));
        for seen in [length, length + 1, bytes.len()] {
            let expected = end.filter(|end| *end <= seen);
            assert_eq!(
                head_end(&bytes[..seen], scanned.min(seen)),
                expected,
                "{scanned} of {seen}"
            );
        }
    }
    end
}

/// What the crate read is what the RFC says.
fn same_meaning(request: &Request<'_>, meaning: &rfc::request::Request) {
    assert_eq!(request.method, meaning.method);
    assert_eq!(minor(request.version), meaning.minor);
    assert_eq!(length(request.framing), meaning.length);
    assert_eq!(request.keep_alive, meaning.persists, "keep_alive");
    assert_eq!(request.upgrade, meaning.upgrade, "upgrade");
    assert_eq!(request.expects_continue, meaning.expects_continue);
    assert_eq!(request.connection_auth, meaning.binds_connection);
    assert_eq!(request.max_forwards, meaning.max_forwards);
    assert_eq!(request.host, meaning.host.as_deref());
    assert_eq!(request.is_head(), meaning.method == "HEAD");
    assert_eq!(owned(&request.fields), meaning.fields);
    assert_eq!(request.asked_host(), meaning.asked_host());

    let authority = request.target.authority();
    assert_eq!(
        authority.map(|authority| authority.text),
        meaning.authority.as_deref()
    );
    if let Some(authority) = authority {
        let (host, port) = rfc::authority(authority.text).expect("it was read before");
        let default = match request.target {
            RequestTarget::Absolute { scheme, .. } => scheme.default_port(),
            _ => 0,
        };
        assert_eq!(authority.host, host);
        assert_eq!(authority.port, port.unwrap_or(default));
    }
}

/// What an origin reads in the head that is written for it.
fn forwarded(request: &Request<'_>, meaning: &rfc::request::Request, edits: &Edits<'_>) {
    let edits = Edits {
        // The server names its target where the user named nothing.
        host: edits.host.or(meaning.asked_host().is_none().then_some("a")),
        ..*edits
    };
    let mut out = Vec::new();
    request.write_to(&mut out, &edits);

    assert_eq!(rfc::head_end(&out), Some(out.len()), "one whole head");
    let origin = rfc::request::read(&out, &UNLIMITED)
        .unwrap_or_else(|broken| panic!("{broken:?}: {}", out.escape_ascii()));
    assert_eq!(origin.minor, 1);
    assert_eq!(origin.method, meaning.method);
    assert_eq!(origin.target, meaning.target);
    assert_eq!(origin.length, meaning.length);
    assert_eq!(origin.upgrade, meaning.upgrade);
    assert_eq!(origin.expects_continue, meaning.expects_continue);
    assert_eq!(origin.accepts_trailers, meaning.accepts_trailers);
    let host = edits.host.or(meaning.asked_host());
    assert_eq!(origin.host.as_deref(), host);
    let (first, rest) = origin.fields.split_first().expect("a Host");
    assert_eq!(first.0, "Host", "RFC 9110 §7.2");
    hop::request_fields(meaning, rest, &edits);

    // Read by ourselves it means the same, and has its final form but for what each hop adds.
    let Ok(again) = Request::parse(&out, &UNLIMITED) else {
        // There is an end to how many fields we read, and ours come on top.
        assert!(origin.fields.len() > siding::http::FIELDS_MAX);
        return;
    };
    same_meaning(&again, &origin);
    let mut twice = Vec::new();
    again.write_to(&mut twice, &edits);
    let twice = rfc::request::read(&twice, &UNLIMITED).expect("our own head");
    assert_eq!(hop::lasting(&twice.fields), hop::lasting(&origin.fields));
}

/// RFC 9110 §9.3.7 and §9.3.8: the last recipient answers, to TRACE with what it received, which is
/// not to hold a secret.
fn answered(request: &Request<'_>, meaning: &rfc::request::Request) {
    let mut out = Vec::new();
    end_of_forwarding(&mut out, request, Duration::from_secs(784_111_777));
    let end = rfc::head_end(&out).expect("a whole head");
    let asked = request.asked();
    let answer = rfc::response::read(&out[..end], &asked, &UNLIMITED).expect("a response");
    assert_eq!(answer.status, 200);
    assert!(!answer.persists);
    let content = &out[end..];
    assert_eq!(answer.length, Length::Bytes(content.len() as u64));
    if meaning.method != "TRACE" {
        assert!(content.is_empty());
        return;
    }
    let kind = rfc::values(&answer.fields, "content-type");
    assert_eq!(kind, [b"message/http"]);
    let secret = |field: &&Field| {
        let name = field.0.to_ascii_lowercase();
        ["authorization", "cookie", "proxy-authorization"].contains(&name.as_str())
    };
    let received = rfc::request::read(content, &UNLIMITED).expect("the request again");
    let shown: Vec<&Field> = meaning.fields.iter().filter(|f| !secret(f)).collect();
    assert_eq!(received.fields.iter().collect::<Vec<_>>(), shown);
    assert_eq!(received.minor, meaning.minor);
    assert_eq!(received.target, meaning.target);
    assert_eq!(received.authority, meaning.authority);
}

pub fn minor(version: Version) -> u8 {
    match version {
        Version::Http10 => 0,
        Version::Http11 => 1,
    }
}

pub fn length(framing: Framing) -> Length {
    match framing {
        Framing::None => Length::Nothing,
        Framing::Length(length) => Length::Bytes(length),
        Framing::Chunked => Length::Chunks,
        Framing::UntilClose => Length::Close,
        Framing::Raw => Length::Opaque,
    }
}

pub fn owned(fields: &siding::http::Fields<'_>) -> Vec<Field> {
    fields
        .iter()
        .map(|(name, value)| (name.to_owned(), value.to_vec()))
        .collect()
}
