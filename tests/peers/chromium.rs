//! Headless Chromium as a user: a page with many images, over several connections at a time, and a
//! WebSocket; through `http` listeners, and through `forward` as its proxy.

use std::net::SocketAddr;

use crate::{
    SESSION,
    common::{Authority, CLIENT, Nginx, PATIENCE, Tunnel, chromium, free_port, run},
    node::Node,
};

/// Images of the page: each of its own width, by which it is told from the others.
const IMAGES: usize = 50;

/// The page of the WebSocket: what it does is said there.
const CONVERSATION: &str = include_str!("websocket.html");

/// Opens a page in a browser of its own, and returns what the page has written into `#result` when
/// all of it is loaded; `None` where chromium is not installed.
fn result_of(url: &str, arguments: &[&str]) -> Option<String> {
    let (mut command, _profile) = chromium()?;
    command.args(arguments).args(["--dump-dom", url]);
    let ended = run(&mut command, Vec::new(), SESSION).succeeded();
    let page = ended.text();
    let result = page
        .split_once("<p id=\"result\">")
        .and_then(|(_, rest)| rest.split_once("</p>"));
    let Some((result, _)) = result else {
        panic!("no result in {page:?}\n{}", ended.stderr);
    };
    Some(result.to_owned())
}

/// An nginx with the page, and what the page's result must be.
fn gallery() -> Option<(Nginx, String)> {
    let nginx = Nginx::start()?;
    let mut page = "<!DOCTYPE html><p id=\"result\">nothing yet</p>\n".to_owned();
    for number in 1..=IMAGES {
        // From a hundred bytes to a hundred thousand.
        let padding = "x".repeat(number * number * 40);
        let image = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{number}\" height=\"1\">\
             <!-- {padding} --></svg>"
        );
        nginx.publish(&format!("{number}.svg"), image);
        page += &format!("<img src=\"{number}.svg\" alt=\"\">\n");
    }
    page += "<script>\n\
             onload = () => document.getElementById('result').textContent =\n\
               [...document.images].map((image) => image.naturalWidth).join(' ');\n\
             </script>\n";
    nginx.publish("gallery.html", page);
    let widths: Vec<String> = (1..=IMAGES).map(|width| width.to_string()).collect();
    Some((nginx, widths.join(" ")))
}

#[test]
fn a_page_with_fifty_images_is_loaded_whole() {
    let Some((nginx, widths)) = gallery() else {
        return;
    };
    let tunnel = Tunnel::to("http", nginx.plain());
    let url = format!("http://{}/gallery.html", tunnel.address());
    let Some(result) = result_of(&url, &[]) else {
        return;
    };
    assert_eq!(result, widths);
    // Each was asked for once (and a favicon perhaps), over as many connections as a browser has.
    for number in 1..=IMAGES {
        assert_eq!(nginx.served(&format!("/{number}.svg"), 1).len(), 1);
    }
    let connections = nginx.requests_by_connection(IMAGES + 1);
    assert!(connections.len() <= 6, "{connections:?}");
}

#[test]
fn a_page_with_fifty_images_is_loaded_whole_from_a_tls_origin() {
    let Some((nginx, widths)) = gallery() else {
        return;
    };
    let tunnel = Tunnel::builder()
        .to("https", nginx.tls())
        .client_argument("--target-ca")
        .client_argument(nginx.authority().display().to_string())
        .start();
    let url = format!("http://{}/gallery.html", tunnel.address());
    let Some(result) = result_of(&url, &[]) else {
        return;
    };
    assert_eq!(result, widths);
    let connections = nginx.requests_by_connection(IMAGES + 1);
    assert!(connections.len() <= 6, "{connections:?}");
}

#[test]
fn a_browser_with_siding_as_its_proxy_loads_http_and_https_pages() {
    let Some((nginx, widths)) = gallery() else {
        return;
    };
    let tunnel = Tunnel::builder()
        .proxy("forward:0")
        .allow(nginx.plain().to_string())
        .allow(nginx.tls().to_string())
        .start();
    let proxy = format!("--proxy-server=http://{}", tunnel.address());
    // Of itself it asks no proxy for loopback; and our authority is not among those it knows.
    let arguments = [
        &*proxy,
        "--proxy-bypass-list=<-loopback>",
        "--ignore-certificate-errors",
    ];
    for origin in [
        format!("http://{}", nginx.plain()),
        format!("https://{}", nginx.tls()),
    ] {
        let Some(result) = result_of(&format!("{origin}/gallery.html"), &arguments) else {
            return;
        };
        assert_eq!(result, widths, "{origin}");
    }
    assert!(tunnel.server.log().count("stream user-") > 2);
}

#[test]
fn a_browser_finds_each_of_two_sites_behind_one_tls_port_by_its_name() {
    let (Some((one, widths)), Some(two)) = (gallery(), Nginx::start()) else {
        return;
    };
    two.publish(
        "gallery.html",
        "<!DOCTYPE html><p id=\"result\">the other one</p>",
    );
    let authority = Authority::new();
    let (certificate, key) = authority.files(&["one.test", "two.test", "localhost"]);
    let port = free_port();
    let entry = |host: &str, origin: SocketAddr| {
        format!(
            r#"{{ "client": "{CLIENT}", "spec": "http:{port}:{origin}", "hosts": [ "{host}" ], "tls": true }}"#
        )
    };
    let tunnel = Tunnel::builder()
        .secure(&authority)
        .allow("127.0.0.1:*")
        .server_config(format!(
            r#"{{ "cert": "{}", "key": "{}", "proxies": [ {}, {} ] }}"#,
            certificate.display(),
            key.display(),
            entry("one.test", one.plain()),
            entry("two.test", two.plain())
        ))
        .start();
    let arguments = [
        "--host-resolver-rules=MAP *.test 127.0.0.1",
        "--ignore-certificate-errors",
    ];
    for (host, expected) in [("one.test", &*widths), ("two.test", "the other one")] {
        let Some(result) = result_of(&format!("https://{host}:{port}/gallery.html"), &arguments)
        else {
            return;
        };
        assert_eq!(result, expected, "{host}");
    }
    assert_eq!(tunnel.server.log().count("down ("), 0);
}

#[test]
fn a_browser_with_siding_as_its_socks_proxy_leaves_names_to_the_client() {
    let Some((nginx, widths)) = gallery() else {
        return;
    };
    let port = nginx.plain().port();
    let tunnel = Tunnel::builder()
        .proxy("socks5:0")
        .allow(format!("localhost:{port}"))
        .start();
    let proxy = format!("--proxy-server=socks5://{}", tunnel.address());
    let arguments = [&*proxy, "--proxy-bypass-list=<-loopback>"];
    let Some(result) = result_of(&format!("http://localhost:{port}/gallery.html"), &arguments)
    else {
        return;
    };
    assert_eq!(result, widths);
    assert!(tunnel.server.log().count("stream user-") > 2);
}

#[test]
fn a_browsers_websocket_carries_text_and_bytes_and_closes_in_order() {
    let page = serde_json::json!({ "page": CONVERSATION }).to_string();
    let Some(node) = Node::with(&[&page]) else {
        return;
    };
    let tunnel = Tunnel::to("http", node.address());
    let url = format!("http://{}/page", tunnel.address());
    let Some(result) = result_of(&url, &[]) else {
        return;
    };
    assert_eq!(
        result,
        "0 1 125 126 65535 65536 1000000, closed 4321 goodbye clean"
    );
    let log = node.process.log();
    log.wait_for("websocket close 4321");
    log.wait_for("websocket ended");
    assert_eq!(log.count("websocket error"), 0);
    for log in [tunnel.server.log(), tunnel.client.log()] {
        log.wait_for_all_of(0, &["#1 of proxy ", ": closed, "], PATIENCE);
    }
}
