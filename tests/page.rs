//! The page of the admin listener: as a program gets it, and as a person sees and uses it, in a browser.

mod common;

use std::{io::ErrorKind, io::Read, net::SocketAddr};

use common::{
    Browser, CLIENT, HttpOrigin, HttpUser, Origin, Reply, Scratch, Siding, Then, Tunnel, connect,
    echoes, eventually, free_port,
};
use serde_json::{Value, json};

const ANY: &str = "127.0.0.1:0";

/// As long as an admin token must be.
const TOKEN: &str = "0123456789abcdef";

#[test]
fn the_page_is_whole_and_the_browser_is_told_to_guard_it() {
    let server = Siding::start(["server", "--listen", ANY, "--admin", ANY]);
    let mut visitor = HttpUser::connect(server.admin_address());
    let mut ask = |method: &str| {
        visitor.send(format!("{method} / HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        visitor.reply(method)
    };
    let page = ask("GET");
    assert_eq!(page.status, 200);
    assert!(page.text().starts_with("<!DOCTYPE html>"));
    let head = ask("HEAD");
    for field in ["content-length", "content-security-policy"] {
        assert_eq!(head.field(field), page.field(field), "{field}");
    }
    for (field, expected) in [
        ("content-type", "text/html; charset=utf-8"),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(page.field(field), Some(expected), "{field}");
    }
    let policy = page.field("content-security-policy").expect("a policy");
    for part in [
        "default-src 'none'",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    ] {
        assert!(policy.split("; ").any(|it| it == part), "{part}: {policy}");
    }
    let posted = ask("POST");
    assert_eq!(
        (posted.status, posted.field("allow")),
        (405, Some("GET, HEAD"))
    );
    let foreign = asked(server.admin_address(), "GET /", "Host: evil.test");
    assert_eq!(foreign.status, 403, "a name that leads here");
}

#[test]
fn the_page_is_there_without_the_token_and_nothing_else_is() {
    let (_scratch, server) = guarded();
    let admin = server.admin_address();
    let page = || asked(admin, "GET /", "Host: edge.test");
    assert_eq!(page().status, 200);
    assert!(!page().text().contains(TOKEN));
    for path in ["GET /status", "GET /page", "POST /streams/user-1-2/close"] {
        assert_eq!(asked(admin, path, "Host: edge.test").status, 401, "{path}");
    }
    let wrong = "Host: edge.test\r\nAuthorization: Bearer 0123456789abcdeX";
    for _ in 0..10 {
        assert_eq!(asked(admin, "GET /status", wrong).status, 401);
    }
    assert_eq!(asked(admin, "GET /status", wrong).status, 429);
    assert_eq!(page().status, 200, "it guesses nothing");
}

#[test]
fn its_own_page_may_close_a_session_and_no_other_page_may() {
    let echo = Origin::echo();
    let tunnel = watched().to("tcp", echo.address()).start();
    let mut user = tunnel.connect();
    echoes(&user);
    for admin in [&tunnel.server, &tunnel.client].map(Siding::admin_address) {
        let status = asked(admin, "GET /status", &format!("Host: {admin}"));
        let status: Value = serde_json::from_str(&status.text()).expect("JSON");
        let id = status["streams"][0]["user_id"]
            .as_str()
            .expect("a stream")
            .to_owned();
        let close = format!("POST /streams/{id}/close");
        let port = admin.port();
        for (host, origin) in [
            (admin.to_string(), "http://evil.test".to_owned()),
            (admin.to_string(), "null".into()),
            (admin.to_string(), "http://127.0.0.1:1".into()),
            (admin.to_string(), format!("http://localhost:{port}")),
            (
                format!("evil.test:{port}"),
                format!("http://evil.test:{port}"),
            ),
        ] {
            let fields = format!("Host: {host}\r\nOrigin: {origin}");
            assert_eq!(asked(admin, &close, &fields).status, 403, "{fields}");
        }
        echoes(&user);
        let ours = format!("Host: {admin}\r\nOrigin: http://{admin}");
        assert_eq!(asked(admin, &close, &ours).status, 204);
        let error = user.read(&mut [0]).expect_err("a reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        user = tunnel.connect();
        echoes(&user);
    }
}

#[test]
fn a_person_sees_what_there_is_as_it_changes_and_closes_a_session_by_keyboard() {
    let (echo, web) = (Origin::echo(), HttpOrigin::greeting());
    let tunnel = watched()
        .to("http", web.address())
        .to("tcp", echo.address())
        .start();
    assert_eq!(HttpUser::connect(tunnel.address()).get("/").status, 200);
    let mut raw = connect(tunnel.proxy(1));
    echoes(&raw);
    let Some(mut browser) = Browser::open(&url(&tunnel.client)) else {
        return;
    };
    browser.wait_for(&rows("Streams", 1));
    browser.value("window.mark = 'the same page'");
    for (section, parts) in [
        ("Links", vec![CLIENT.to_owned(), tunnel.link().to_string()]),
        ("Pools", vec![format!("http://{}", web.address())]),
        ("Streams", vec!["user-".to_owned(), "open".to_owned()]),
    ] {
        let text = browser.value(&format!("{}.innerText", section_of(section)));
        for part in parts {
            assert!(
                text.as_str().is_some_and(|text| text.contains(&part)),
                "{part}: {text}"
            );
        }
    }
    browser.wait_for("document.getElementById('state').textContent === 'ready'");
    // From the second answer on there are rates, and plots of them.
    browser.wait_for("document.querySelectorAll('figure path.one[d*=L]').length >= 4");
    assert_eq!(browser.value(ODD_PATHS), 0);

    let other = connect(tunnel.proxy(1));
    echoes(&other);
    browser.wait_for(&rows("Streams", 2));
    drop(other);
    browser.wait_for(&rows("Streams", 1));

    browser.value("document.querySelector('tbody button').focus()");
    browser.press("Enter");
    browser.wait_for("document.querySelector('dialog').open && document.activeElement.id === 'no'");
    browser.press("Escape");
    browser.wait_for("!document.querySelector('dialog').open");
    echoes(&raw);
    browser.press("Enter");
    browser.press("Tab");
    browser.wait_for("document.activeElement.id === 'yes'");
    browser.press("Enter");
    let error = raw.read(&mut [0]).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    browser.wait_for(&rows("Streams", 0));
    browser.wait_for("/^user-.*: closed$/.test(document.getElementById('notice').textContent)");

    for (width, theme) in [(360, "light"), (360, "dark"), (1280, "dark")] {
        browser.look(width, 800, theme);
        let fits = "document.documentElement.scrollWidth <= innerWidth";
        assert_eq!(browser.value(fits), true, "{width}");
    }
    assert_eq!(browser.value("window.mark"), "the same page");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
#[ignore = "slow"]
fn a_person_is_told_when_nobody_answers_and_sees_it_come_back() {
    let echo = Origin::echo();
    let tunnel = watched().to("tcp", echo.address()).start();
    let admin = format!("127.0.0.1:{}", free_port());
    let words = ["server", "--listen", ANY, "--admin", &*admin];
    let mut server = Siding::start(words);
    server.admin_address();
    let Some(mut browser) = Browser::open(&format!("http://{admin}/")) else {
        return;
    };
    let shown = "document.querySelectorAll('figure path.one[d*=L]').length > 0";
    browser.wait_for(shown);
    browser.value("window.mark = 'the same page'");
    server.kill();
    let alarm = "document.getElementById('alarm').textContent";
    browser.wait_for(&format!(
        "{alarm}.startsWith('No answer from {admin} since ')"
    ));
    browser.wait_for("document.title.includes('no answer')");
    let _server = Siding::start(words);
    browser.wait_for(&format!(
        "{alarm} === '' && samples.filter((it) => it.gap).length > 1"
    ));
    browser.wait_for("samples.slice(-2).every((it) => !it.gap)");
    assert_eq!(browser.value(ODD_PATHS), 0);
    let odd = "samples.some((it) => Object.values(it).some((value) => value < 0 || value > 1e10))";
    assert_eq!(
        browser.value(odd),
        false,
        "no spike where counters began anew"
    );
    assert_eq!(browser.value("window.mark"), "the same page");

    let user = tunnel.connect();
    echoes(&user);
    let state = "document.getElementById('state').textContent";
    browser.call("Page.navigate", json!({ "url": url(&tunnel.server) }));
    browser.wait_for(&format!("{state} === 'ready'"));
    tunnel.server.terminate();
    browser.wait_for(&format!("{state} === 'draining'"));
    browser.call("Page.navigate", json!({ "url": url(&tunnel.client) }));
    browser.wait_for(&format!(
        "{state}.startsWith('not ready: the server drains')"
    ));
    drop(user);
    browser.wait_for(&format!(
        "{state}.startsWith('not ready: no link to ws://')"
    ));
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn a_person_types_the_token_and_is_told_when_it_is_wrong() {
    let (_scratch, server) = guarded();
    let Some(mut browser) = Browser::open(&url(&server)) else {
        return;
    };
    browser.wait_for("document.activeElement?.id === 'token'");
    browser.type_text("0123456789abcdeX");
    browser.press("Enter");
    browser.wait_for("document.getElementById('denied').textContent.includes('not the right one')");
    browser.wait_for("document.activeElement?.id === 'token'");
    browser.type_text(TOKEN);
    browser.press("Enter");
    browser.wait_for("!document.querySelector('main').hidden");
    assert_eq!(
        browser.value("document.getElementById('login').hidden"),
        true
    );
    // This tab knows it from now on, and nobody else.
    browser.call("Page.reload", json!({}));
    browser.wait_for("!document.querySelector('main').hidden");
    assert_eq!(
        browser.value("localStorage.length + document.cookie.length"),
        0
    );
    // Somebody at this address has guessed: the page waits as long as it is told to.
    let wrong = "Host: edge.test\r\nAuthorization: Bearer 0123456789abcdeX";
    eventually("no more guesses", || {
        (asked(server.admin_address(), "GET /status", wrong).status == 429).then_some(())
    });
    browser.wait_for(
        "document.getElementById('alarm').textContent.startsWith('429: too many wrong tokens.')",
    );
    assert_eq!(browser.value("notBefore > Date.now()"), true);
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn names_stay_names_however_they_are_written() {
    let server = Siding::start(["server", "--listen", ANY, "--admin", ANY]);
    let page = asked(server.admin_address(), "GET /", "Host: localhost");
    let policy = page
        .field("content-security-policy")
        .expect("a policy")
        .to_owned();
    let page = page.text();
    let evil = "</td><img src=x onerror='window.owned=1'><script>window.owned=1</script>\u{202e}\"";
    let status = json!({
        "role": "client", "version": evil, "not_ready": evil, "uptime_seconds": 1e9, "users": 0,
        "streams_open": 5000, "streams_opened": 1, "bytes_up": 1, "bytes_down": 1,
        "undelivered_bytes": 0, "undelivered_max": 1, "pool_hits": 0, "pool_misses": 0,
        "turns": { "count": 0, "seconds": 0, "within": {} },
        "first_bytes": { "count": 0, "seconds": 0, "within": {} },
        "links": [{ "client": evil, "peer": evil, "age_seconds": 1, "round_trip_seconds": null,
                    "streams": 1, "bytes_up": 1, "bytes_down": 1, "draining": false }],
        "proxies": [{ "id": evil, "kind": evil, "address": evil, "client": evil, "target": evil,
                      "link_up": true, "users": null, "streams": 0, "bytes_up": 0, "bytes_down": 0 }],
        "pools": [{ "target": evil, "idle": 0, "in_use": 0 }],
        "streams": (0..1000).map(|number| json!({ "user_id": format!("{number}{evil}"),
            "proxy_id": evil, "age_seconds": 1, "bytes_up": number, "bytes_down": 0, "state": evil }))
            .collect::<Vec<Value>>(),
        "streams_not_listed": 4000
    });
    let status = status.to_string();
    let impostor = HttpOrigin::start(move |exchange| {
        let (kind, content) = match &*exchange.request.target {
            "/status" => ("application/json", &status),
            _ => ("text/html; charset=utf-8", &page),
        };
        let length = content.len();
        exchange.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Security-Policy: {policy}\r\n\
             Content-Length: {length}\r\n\r\n{content}"
        ))?;
        Ok(Then::Keep)
    });
    let Some(mut browser) = Browser::open(&format!("http://{}/", impostor.address())) else {
        return;
    };
    // What is there is bounded, and the rest is counted.
    browser.wait_for(&rows("Streams", 100));
    browser.wait_for(&format!(
        "{}.innerText.includes('100 of 5,000')",
        section_of("Streams")
    ));
    let shown = format!(
        "document.querySelector('tbody th').textContent === {}",
        json!(evil)
    );
    assert_eq!(browser.value(&shown), true);
    assert_eq!(
        browser.value("document.images.length + document.scripts.length"),
        1
    );
    browser.value("document.querySelector('tbody button').click()");
    browser.wait_for("document.querySelector('dialog').open");
    browser.wait_for("samples.length > 1");
    assert_eq!(browser.value("document.images.length"), 0);
    assert_eq!(browser.value("window.owned === undefined"), true);
    assert_eq!(browser.complaints(), [""; 0]);
}

/// How many paths of plots are no paths.
const ODD_PATHS: &str = "[...document.querySelectorAll('path')].filter((it) => /NaN|Infinity/.test(it.getAttribute('d'))).length";

/// The section of this name in the page, as an expression.
fn section_of(name: &str) -> String {
    format!(
        "[...document.querySelectorAll('section')].find((it) => it.querySelector('h2').textContent === '{name}')"
    )
}

/// That there are so many rows in its table.
fn rows(section: &str, count: usize) -> String {
    format!(
        "{}?.querySelectorAll('tbody tr').length === {count}",
        section_of(section)
    )
}

/// A tunnel whose both ends tell of themselves.
fn watched() -> common::tunnel::Builder {
    Tunnel::builder()
        .server_argument("--admin")
        .server_argument(ANY)
        .client_argument("--admin")
        .client_argument(ANY)
}

/// A server that wants to see [`TOKEN`], and where that is.
fn guarded() -> (Scratch, Siding) {
    let scratch = Scratch::new();
    let file = scratch.write("admin.token", TOKEN).display().to_string();
    let words = [
        "server",
        "--listen",
        ANY,
        "--admin",
        ANY,
        "--admin-token-file",
        &file,
    ];
    let server = Siding::start(words);
    (scratch, server)
}

fn url(role: &Siding) -> String {
    format!("http://{}/", role.admin_address())
}

/// Asks with these fields, on a connection of its own.
fn asked(admin: SocketAddr, line: &str, fields: &str) -> Reply {
    let mut visitor = HttpUser::connect(admin);
    visitor.send(format!("{line} HTTP/1.1\r\n{fields}\r\n\r\n"));
    visitor.reply(line.split(' ').next().unwrap_or_default())
}
