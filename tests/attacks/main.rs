//! Attacks over loopback: each row of a table is a message that breaks a rule of HTTP/1.1, or looks as
//! if it did, with what must become of it. Each is sent whole and in two parts, split at every byte,
//! through a real server and client between raw sockets; after each, a correct request gets its correct
//! answer, and nothing has reached the other side but what the row allows.

#[path = "../common/mod.rs"]
mod common;

mod chunks;
mod origins;
mod request_heads;
mod request_meanings;
mod response_ends;
mod responses;
mod splits;
mod users;

use self::{
    origins::Asked,
    users::{Kind, Stage},
};

#[test]
fn request_lines() {
    Stage::of(Kind::Http).withstands(&request_heads::request_lines());
}

#[test]
fn hosts() {
    Stage::of(Kind::Http).withstands(&request_heads::hosts());
}

#[test]
fn field_lines() {
    Stage::of(Kind::Http).withstands(&request_heads::fields());
}

#[test]
fn request_lengths() {
    Stage::of(Kind::Http).withstands(&request_meanings::lengths());
}

#[test]
fn fields_with_a_meaning() {
    Stage::of(Kind::Http).withstands(&request_meanings::meanings());
}

#[test]
fn requests_that_have_one_meaning_only() {
    Stage::of(Kind::Http).withstands(&request_meanings::one_meaning());
}

#[test]
fn requests_to_a_forward_proxy() {
    Stage::of(Kind::Forward).withstands(&request_meanings::forward());
}

#[test]
fn broken_chunks_of_requests() {
    const HEAD: &[u8] = b"POST /attack HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let attacks: Vec<_> = chunks::broken()
        .into_iter()
        .map(|(name, rule, body)| users::Attack::cut(name, rule, [HEAD, &body].concat()))
        .collect();
    Stage::of(Kind::Http).withstands(&attacks);
}

#[test]
fn status_lines() {
    origins::Stage::new().withstands(&responses::status_lines());
}

#[test]
fn field_lines_of_responses() {
    origins::Stage::new().withstands(&responses::fields());
}

#[test]
fn response_lengths() {
    origins::Stage::new().withstands(&responses::lengths());
}

#[test]
fn interim_responses_and_upgrades() {
    origins::Stage::new().withstands(&responses::interims());
}

#[test]
fn ends_of_responses() {
    origins::Stage::new().withstands(&response_ends::ends());
}

#[test]
fn broken_chunks_of_responses() {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let attack = |asked| {
        move |(name, rule, body): (String, _, Vec<u8>)| {
            origins::Attack::cut(name, rule, asked, [HEAD, &body].concat())
        }
    };
    let new = chunks::broken().into_iter().map(attack(Asked::Get));
    let old = chunks::broken().into_iter().map(attack(Asked::OldGet));
    origins::Stage::new().withstands(&new.chain(old).collect::<Vec<_>>());
}
