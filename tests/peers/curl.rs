//! curl as a user: every way in which it frames, asks and keeps, against nginx and Node.

use std::{fs, net::SocketAddr, process::Command};

use crate::{
    SESSION,
    common::{Ended, HttpUser, Nginx, Pattern, Scratch, Tunnel, curl, run},
    node::Node,
};

/// What curl tells of each transfer, one line each.
const REPORT: &str = "%{http_version} %{http_code} %{num_connects} %{size_download}\\n";

/// A Node, a tunnel to it, and curl with `REPORT` on its standard output; bodies go nowhere unless told.
fn node_and_curl() -> Option<(Node, Tunnel, Command)> {
    let (node, mut curl) = (Node::start()?, curl()?);
    curl.args(["--write-out", REPORT]);
    let tunnel = Tunnel::to("http", node.address());
    Some((node, tunnel, curl))
}

fn url(proxy: SocketAddr, path: &str) -> String {
    format!("http://{proxy}{path}")
}

#[test]
fn many_urls_are_one_connection_of_curl_and_one_of_the_origin() {
    let Some((node, tunnel, mut curl)) = node_and_curl() else {
        return;
    };
    curl.args(["--output", "/dev/null"]);
    curl.arg(url(tunnel.address(), "/[1-50]"));
    let said = run(&mut curl, Vec::new(), SESSION).succeeded().text();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 50);
    for (number, line) in lines.iter().enumerate() {
        let length = format!("GET /{}\n", number + 1).len();
        let connects = usize::from(number == 0);
        assert_eq!(*line, format!("1.1 200 {connects} {length}"));
    }
    let received = node.received();
    assert_eq!(received.len(), 50);
    assert!(received.iter().all(|request| request.connection == 1));
}

#[test]
fn curl_in_http_1_0_is_answered_and_the_origin_is_asked_in_1_1() {
    let Some((node, tunnel, mut curl)) = node_and_curl() else {
        return;
    };
    curl.arg("--http1.0").args([
        url(tunnel.address(), "/a"),
        url(tunnel.address(), "/chunked"),
    ]);
    let said = run(&mut curl, Vec::new(), SESSION).succeeded().text();
    // The status line is ours, so 1.1 (RFC 9112 §2.3); without chunks, and closed.
    assert_eq!(said, "GET /a\n1.1 200 1 7\nGET /chunked\n1.1 200 1 13\n");
    let versions: Vec<String> = node.received().into_iter().map(|it| it.version).collect();
    assert_eq!(versions, ["HTTP/1.1", "HTTP/1.1"]);
}

#[test]
fn uploads_of_curl_arrive_whole_in_each_framing_and_with_expect() {
    const LENGTH: usize = 3_000_000;
    let Some((node, tunnel, _)) = node_and_curl() else {
        return;
    };
    let scratch = Scratch::new();
    let bytes = Pattern::bytes(1, LENGTH);
    let file = scratch.write("file", &bytes).display().to_string();
    let data = format!("@{file}");
    let type_of = "Content-Type: application/octet-stream";
    let (put, post) = (["--upload-file", &file], ["--data-binary", &data]);
    let chunked = ["--header", "Transfer-Encoding: chunked"];
    // curl expects 100-continue by itself for a large body; with an empty Expect it does not.
    let (expecting, not) = (
        ["--header", "Expect: 100-continue"],
        ["--header", "Expect:"],
    );
    let cases: [(&str, &[[&str; 2]], &str, &str); 6] = [
        ("PUT", &[put, not], "none", "length"),
        ("PUT", &[put, expecting], "100-continue", "length"),
        ("PUT", &[put, chunked, expecting], "100-continue", "chunked"),
        ("POST", &[post, not], "none", "length"),
        ("POST", &[post, expecting], "100-continue", "length"),
        ("POST", &[post, chunked, not], "none", "chunked"),
    ];
    for (number, (method, arguments, expect, framing)) in cases.into_iter().enumerate() {
        let Some(mut curl) = curl() else { return };
        curl.args(["--header", type_of, "--dump-header"]);
        curl.arg(scratch.path("head"));
        // It would wait no longer for a 100 than this before it sends anyway; too long to pass.
        curl.args(["--expect100-timeout", "300"]);
        curl.args(arguments.as_flattened());
        curl.arg(url(tunnel.address(), &format!("/{number}")));
        let ended = run(&mut curl, Vec::new(), SESSION).succeeded();
        assert!(ended.stdout == bytes, "{number}: {}", ended.stdout.len());
        let head = fs::read_to_string(scratch.path("head")).unwrap();
        let interim = head.contains("HTTP/1.1 100 Continue\r\n");
        assert_eq!(interim, expect != "none", "{number}: {head}");
        for said in [
            format!("X-Expect: {expect}\r\n"),
            format!("X-Framing: {framing}\r\n"),
        ] {
            assert!(head.contains(&said), "{number}: {said:?} in {head}");
        }
        let received = &node.received()[number];
        assert_eq!((&*received.method, received.length), (method, LENGTH));
    }
}

#[test]
fn curl_streams_standard_input_up_in_chunks_and_gets_it_back() {
    let Some((_node, tunnel, mut curl)) = node_and_curl() else {
        return;
    };
    let bytes = Pattern::bytes(2, 1_000_000);
    curl.args(["--upload-file", "-", "--write-out", ""]);
    curl.arg(url(tunnel.address(), "/stream"));
    let ended = run(&mut curl, bytes.clone(), SESSION).succeeded();
    assert!(ended.stdout == bytes, "{} bytes", ended.stdout.len());
}

#[test]
fn head_shows_the_fields_of_get_and_the_connection_goes_on() {
    let (Some(nginx), Some(mut curl)) = (Nginx::start(), curl()) else {
        return;
    };
    nginx.publish("file.txt", Pattern::bytes(3, 12_345));
    let tunnel = Tunnel::to("http", nginx.plain());
    curl.arg("--head");
    curl.args([
        url(tunnel.address(), "/file.txt"),
        url(tunnel.address(), "/file.txt"),
    ]);
    curl.args(["--write-out", "connects: %{num_connects}\n"]);
    let said = run(&mut curl, Vec::new(), SESSION).succeeded().text();
    for (what, count) in [
        ("HTTP/1.1 200 OK\r\n", 2),
        ("Content-Length: 12345\r\n", 2),
        ("Accept-Ranges: bytes\r\n", 2),
        ("Via: 1.1 siding\r\n", 2),
        ("connects: 1\n", 1),
        ("connects: 0\n", 1),
    ] {
        assert_eq!(said.matches(what).count(), count, "{what:?} in {said}");
    }
    assert_eq!(nginx.served("/file.txt", 2)[1].1, 2, "one connection");
}

#[test]
fn a_compressed_answer_is_passed_on_as_it_is() {
    // Without gzip_proxied nginx compresses nothing for a request with Via (RFC 9110 §7.6.3).
    let gzip = "gzip on; gzip_proxied any; gzip_types text/plain; gzip_min_length 1;";
    let (Some(nginx), Some(mut plain), Some(mut compressed)) = (Nginx::with(gzip), curl(), curl())
    else {
        return;
    };
    let text = "the same line again and again\n".repeat(10_000);
    nginx.publish("file.txt", &text);
    let tunnel = Tunnel::to("http", nginx.plain());
    let url = url(tunnel.address(), "/file.txt");
    let size = ["--write-out", "%{stderr}%{size_download}"];
    let plain = run(plain.args(size).arg(&url), Vec::new(), SESSION).succeeded();
    assert!(plain.text() == text);
    assert_eq!(plain.stderr, text.len().to_string());
    // nginx does not know the length of what it compresses: in chunks.
    compressed.arg("--compressed").args(size).arg(&url);
    let compressed = run(&mut compressed, Vec::new(), SESSION).succeeded();
    assert!(compressed.text() == text, "decoded by curl");
    let sent: usize = compressed.stderr.parse().expect("a number");
    assert!(sent < text.len() / 10, "{sent} bytes for {}", text.len());
}

#[test]
fn ranges_and_conditions_reach_the_origin() {
    let (Some(nginx), Some(mut curl)) = (Nginx::start(), curl()) else {
        return;
    };
    let bytes = Pattern::bytes(4, 100_000);
    nginx.publish("file", &bytes);
    let tunnel = Tunnel::to("http", nginx.plain());
    curl.args(["--range", "50000-50099,-7"]);
    curl.arg(url(tunnel.address(), "/file"));
    let ended = run(&mut curl, Vec::new(), SESSION).succeeded();
    let parts = [&bytes[50_000..50_100], &bytes[99_993..]];
    for part in parts {
        assert!(
            ended
                .stdout
                .windows(part.len())
                .any(|window| window == part),
            "in a multipart/byteranges body"
        );
    }
}

/// A forward listener that reaches both listeners of nginx.
fn forward(nginx: &Nginx) -> Tunnel {
    Tunnel::builder()
        .proxy("forward:0")
        .allow(nginx.plain().to_string())
        .allow(nginx.tls().to_string())
        .client_argument("--target-ca")
        .client_argument(nginx.authority().display().to_string())
        .start()
}

#[test]
fn one_curl_mixes_http_and_connect_at_a_forward_proxy() {
    let (Some(nginx), Some(mut curl)) = (Nginx::start(), curl()) else {
        return;
    };
    nginx.publish("page", "a page\n");
    let tunnel = forward(&nginx);
    curl.arg("--proxy")
        .arg(format!("http://{}", tunnel.address()));
    curl.arg("--cacert").arg(nginx.authority());
    for _ in 0..3 {
        curl.arg(format!("http://{}/page", nginx.plain()));
        curl.arg(format!("https://{}/page", nginx.tls()));
    }
    let ended = run(&mut curl, Vec::new(), SESSION).succeeded();
    assert_eq!(ended.text(), "a page\n".repeat(6));
    // One from the pool for the plain ones, and curl's own through its one CONNECT.
    let mut served = nginx.served("/page", 6);
    served.sort();
    let (first, second) = (served[0].0, served[5].0);
    let of = |connection| [1, 2, 3].map(|requests| (connection, requests));
    assert_eq!(served, [of(first), of(second)].concat());
}

#[test]
fn an_https_target_in_absolute_form_is_fetched_by_the_clients_own_tls() {
    let Some(nginx) = Nginx::start() else { return };
    nginx.publish("page", "a page\n");
    let tunnel = forward(&nginx);
    let mut user = HttpUser::connect(tunnel.address());
    for _ in 0..3 {
        let tls = nginx.tls();
        user.send(format!(
            "GET https://{tls}/page HTTP/1.1\r\nHost: another.test\r\n\r\n"
        ));
        let reply = user.reply("GET");
        assert_eq!((reply.status, &*reply.text()), (200, "a page\n"));
        assert_eq!(reply.body.ended, Ended::Length);
    }
    let served = nginx.served("/page", 3);
    let connection = served[0].0;
    assert_eq!(served, [1, 2, 3].map(|requests| (connection, requests)));
}
