//! The forward proxy, over loopback: the user names the target, the client says whether it may.

mod common;

use std::{
    io::Read,
    net::{Shutdown, SocketAddr},
};

use common::{
    HttpOrigin, HttpUser, Origin, Then, Tunnel, expect_pattern, refusing, send_pattern,
    wait_until_read,
};

#[test]
fn a_forward_proxy_takes_requests_in_absolute_form() {
    let (first, second) = (HttpOrigin::greeting(), HttpOrigin::greeting());
    let tunnel = forward(&[first.address(), second.address()]);
    let mut user = HttpUser::connect(tunnel.address());
    for _ in 0..3 {
        // One connection of the user, two origins, each with its own parked connection.
        for origin in [&first, &second] {
            let reply = user.get(&format!("http://{}/path?query", origin.address()));
            assert_eq!(reply.text(), "GET /path?query on connection 1\n");
        }
    }
    assert_eq!((first.requests(), second.requests()), (vec![3], vec![3]));
}

#[test]
fn the_target_of_a_forwarded_request_is_its_host_whatever_the_field_says() {
    let origin = HttpOrigin::start(|exchange| {
        let host = exchange
            .request
            .field("host")
            .unwrap_or_default()
            .to_owned();
        let proxy = exchange.request.field("proxy-connection").is_some();
        exchange.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{host}",
            host.len()
        ))?;
        Ok(if proxy { Then::Reset } else { Then::Keep })
    });
    let tunnel = forward(&[origin.address()]);
    let mut user = HttpUser::connect(tunnel.address());
    let address = origin.address();
    user.send(format!(
        "GET http://{address}/ HTTP/1.1\r\nHost: evil.test\r\nProxy-Connection: keep-alive\r\n\r\n"
    ));
    assert_eq!(user.reply("GET").text(), address.to_string());
    user.send(format!(
        "GET http://{address}/ HTTP/1.1\r\nHost: evil.test\r\n\r\n"
    ));
    assert_eq!(user.reply("GET").text(), address.to_string());
    assert_eq!(origin.requests(), [2], "Proxy-Connection stays here");
}

#[test]
fn connect_is_an_opaque_tunnel_and_never_parked() {
    let origin = HttpOrigin::greeting();
    let tunnel = forward(&[origin.address()]);
    let address = origin.address();
    for number in 1..=3 {
        let mut user = HttpUser::connect(tunnel.address());
        user.send(format!(
            "CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n\r\n"
        ));
        let reply = user.reply("CONNECT");
        assert_eq!(reply.status, 200);
        assert_eq!(
            reply
                .field("content-length")
                .or(reply.field("transfer-encoding")),
            None
        );
        assert_eq!(
            user.get("/inside").text(),
            format!("GET /inside on connection {number}\n")
        );
        drop(user);
        origin.wait_for_open(0);
    }
    let reply = HttpUser::connect(tunnel.address()).get(&format!("http://{address}/"));
    assert_eq!(reply.text(), "GET / on connection 4\n");
}

#[test]
fn bytes_sent_right_behind_connect_reach_the_target() {
    let origin = Origin::digest();
    let tunnel = forward(&[origin.address()]);
    let mut user = HttpUser::connect(tunnel.address());
    let mut request = format!(
        "CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n",
        origin.address()
    )
    .into_bytes();
    request.extend(7_u64.to_be_bytes());
    request.extend(500_000_u64.to_be_bytes());
    user.send(request);
    send_pattern(user.stream().get_mut(), 7, 100_000).unwrap();
    user.stream().get_ref().shutdown(Shutdown::Write).unwrap();
    assert_eq!(user.reply("CONNECT").status, 200);
    let mut count = [0; 8];
    user.stream().read_exact(&mut count).unwrap();
    assert_eq!(u64::from_be_bytes(count), 100_000);
    expect_pattern(user.stream(), !7, 500_000).unwrap();
    user.expect_end();
}

#[test]
fn a_connect_split_at_every_byte_is_the_same_connect() {
    let origin = Origin::echo();
    let tunnel = forward(&[origin.address()]);
    let request = format!(
        "CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\nhello",
        origin.address()
    );
    for place in 1..request.len() {
        let (early, late) = request.split_at(place);
        let mut user = HttpUser::connect(tunnel.address());
        user.send(early);
        wait_until_read(user.stream().get_ref());
        user.send(late);
        assert_eq!(user.reply("CONNECT").status, 200, "split at {place}");
        let mut hello = [0; 5];
        user.stream().read_exact(&mut hello).unwrap();
        assert_eq!(&hello, b"hello", "split at {place}");
    }
}

#[test]
fn a_target_that_is_not_allowed_gets_403_and_is_never_dialled() {
    let (allowed, other) = (HttpOrigin::greeting(), HttpOrigin::greeting());
    let tunnel = forward(&[allowed.address()]);
    let other_address = other.address();
    let reply = HttpUser::connect(tunnel.address()).get(&format!("http://{other_address}/"));
    assert_eq!((reply.status, reply.text().lines().count()), (403, 1));
    let mut user = HttpUser::connect(tunnel.address());
    user.send(format!(
        "CONNECT {other_address} HTTP/1.1\r\nHost: {other_address}\r\n\r\n"
    ));
    assert_eq!(user.reply("GET").status, 403);
    assert_eq!(other.connections(), 0);
    let reply = HttpUser::connect(tunnel.address()).get(&format!("http://{}/", allowed.address()));
    assert_eq!(reply.status, 200);
}

#[test]
fn a_forwarded_target_that_refuses_gets_502() {
    let nobody = refusing();
    let tunnel = forward(&[nobody]);
    assert_eq!(
        HttpUser::connect(tunnel.address())
            .get(&format!("http://{nobody}/"))
            .status,
        502
    );
    let mut user = HttpUser::connect(tunnel.address());
    user.send(format!(
        "CONNECT {nobody} HTTP/1.1\r\nHost: {nobody}\r\n\r\n"
    ));
    // Not 2xx, so it has a body: read it as that of any other request.
    assert_eq!(user.reply("GET").status, 502);
}

#[test]
fn a_name_that_nobody_knows_gets_502() {
    // RFC 6761 §6.4: no resolver knows a name under `invalid`.
    let tunnel = Tunnel::builder()
        .proxy("forward:0")
        .allow("nobody.invalid:80")
        .start();
    let reply = HttpUser::connect(tunnel.address()).get("http://nobody.invalid/");
    assert_eq!((reply.status, reply.text().lines().count()), (502, 1));
}

#[test]
fn a_name_is_looked_up_by_the_client() {
    let origin = HttpOrigin::greeting();
    let port = origin.address().port();
    let tunnel = Tunnel::builder()
        .proxy("forward:0")
        .allow(format!("localhost:{port}"))
        .start();
    for _ in 0..2 {
        let reply = HttpUser::connect(tunnel.address()).get(&format!("http://LocalHost:{port}/"));
        assert_eq!(reply.text(), "GET / on connection 1\n");
    }
}

/// A tunnel with a forward proxy, to these targets and no other.
fn forward(targets: &[SocketAddr]) -> Tunnel {
    let builder = Tunnel::builder().proxy("forward:0");
    targets
        .iter()
        .fold(builder, |builder, target| builder.allow(target.to_string()))
        .start()
}
