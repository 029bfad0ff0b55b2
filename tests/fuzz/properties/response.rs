//! Response heads: taken if and only if the RFC lets them be taken, understood as it says in the
//! light of the request, and written again so that the user understands the same.

use std::time::Duration;

use siding::http::{Asked, Coding, Framing, Kind, NotReusable, Response, Version};

use super::{
    hop,
    request::{UNLIMITED, end_of_head, length, limits, owned},
    rfc::{self, Length},
    wire::knobs,
};

/// Knobs: limits, and what was asked. The rest begins with a response head.
pub fn check(input: &[u8]) {
    let Some(([limits_knob, asked_knob], bytes)) = knobs(input) else {
        return;
    };
    let limits = limits(*limits_knob);
    let asked = asked(*asked_knob);
    let Some(end) = end_of_head(bytes) else {
        return;
    };
    let head = &bytes[..end];
    match (
        Response::parse(head, &asked, &limits),
        rfc::response::read(head, &asked, &limits),
    ) {
        (Ok(response), Some(meaning)) => {
            same_meaning(&response, &meaning, &asked);
            for keep in [response.keep(), false] {
                forwarded(&response, &meaning, &asked, keep);
            }
        }
        (Err(_), None) => {}
        (Ok(response), None) => panic!("taken: {response:?}"),
        (Err(bad), Some(meaning)) => panic!("{bad:?} in spite of {meaning:?}"),
    }
}

/// What was asked, of all that can be.
pub fn asked(knob: u8) -> Asked {
    Asked {
        head: knob & 1 != 0,
        version: if knob & 2 != 0 {
            Version::Http10
        } else {
            Version::Http11
        },
        // An HTTP/1.0 user cannot ask for one.
        upgrade: knob & 6 == 4,
        keep_alive: knob & 8 != 0,
        connection_auth: knob & 16 != 0,
    }
}

fn same_meaning(response: &Response<'_>, meaning: &rfc::response::Response, asked: &Asked) {
    assert_eq!(response.status, meaning.status);
    assert_eq!(response.phrase, meaning.phrase);
    assert_eq!(length(response.framing), meaning.length);
    assert_eq!(owned(&response.fields), meaning.fields);
    let kind = match response.status {
        101 => Kind::Switching,
        100..200 => Kind::Interim,
        _ => Kind::Final,
    };
    assert_eq!(response.kind, kind);

    // RFC 9112 §9.3, and a hint of the origin about its own connection.
    let reasons = [
        (kind != Kind::Final, NotReusable::NotFinal),
        (meaning.length == Length::Close, NotReusable::CloseDelimited),
        (
            meaning.connection.iter().any(|option| option == "close")
                || response.keep_alive.max == Some(0),
            NotReusable::AskedToClose,
        ),
        (!meaning.persists, NotReusable::OldVersion),
        (
            meaning.binds_connection || asked.connection_auth,
            NotReusable::ConnectionAuth,
        ),
    ];
    let reason = reasons.iter().find(|(holds, _)| *holds);
    assert_eq!(response.reusable.err(), reason.map(|(_, reason)| *reason));
    if rfc::values(&meaning.fields, "keep-alive").is_empty() {
        assert_eq!(response.keep_alive, siding::http::KeepAlive::default());
    }

    // RFC 9112 §6.1 and §7: chunks are for users of HTTP/1.1, and for none but what needs them.
    let chunked = matches!(response.framing, Framing::Chunked | Framing::UntilClose)
        && asked.version == Version::Http11;
    assert_eq!(response.coding == Coding::Chunked, chunked);
    let ends = !matches!(
        (response.framing, asked.version),
        (Framing::Chunked | Framing::UntilClose, Version::Http10) | (Framing::Raw, _)
    );
    assert_eq!(
        response.keep(),
        kind == Kind::Final && asked.keep_alive && ends
    );
}

/// When responses come.
pub const UNIX: Duration = Duration::from_secs(784_111_777);

/// What the user reads in the head that is written for it.
fn forwarded(
    response: &Response<'_>,
    meaning: &rfc::response::Response,
    asked: &Asked,
    keep: bool,
) {
    let mut out = Vec::new();
    response.write_to(&mut out, keep, UNIX);
    assert_eq!(rfc::head_end(&out), Some(out.len()), "one whole head");
    let user = rfc::response::read(&out, asked, &UNLIMITED)
        .unwrap_or_else(|| panic!("unreadable: {}", out.escape_ascii()));
    assert_eq!(user.minor, 1);
    assert_eq!(user.status, meaning.status);
    assert_eq!(user.phrase, meaning.phrase);
    let seen = match (meaning.length, asked.version) {
        (Length::Close | Length::Chunks, Version::Http11) => Length::Chunks,
        (Length::Close | Length::Chunks, Version::Http10) => Length::Close,
        (length, _) => length,
    };
    assert_eq!(user.length, seen);
    hop::response_fields(meaning, &user.fields, response, asked, keep);

    // Read by ourselves it means the same to this user, and has its final form but for what each hop
    // adds.
    let Ok(again) = Response::parse(&out, asked, &UNLIMITED) else {
        assert!(user.fields.len() > siding::http::FIELDS_MAX);
        return;
    };
    same_meaning(&again, &user, asked);
    let mut twice = Vec::new();
    again.write_to(&mut twice, keep, UNIX);
    let twice = rfc::response::read(&twice, asked, &UNLIMITED).expect("our own head");
    // Where we wrote `Date` it now is the sender's.
    let sorted = |fields| {
        let mut fields = hop::lasting(fields);
        fields.sort();
        fields
            .into_iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(sorted(&twice.fields), sorted(&user.fields));
}
