//! What both roles tell of themselves, over HTTP on loopback: to monitors, to people, and to nobody else.

mod common;

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    time::Duration,
};

use common::{
    AT_ONCE, CLIENT, HttpOrigin, HttpUser, Metrics, Origin, PATIENCE, Reply, Scratch, Siding,
    Tunnel, connect, echoes, eventually, eventually_within, expect_closed_at_once, free_port,
    refusing, run,
};
use serde_json::Value;

const ANY: &str = "127.0.0.1:0";

/// As long as an admin token must be.
const TOKEN: &str = "0123456789abcdef";

#[test]
fn a_tunnel_tells_what_it_has_carried() {
    let (echo, web) = (Origin::echo(), HttpOrigin::greeting());
    let tunnel = watched()
        .to("tcp", echo.address())
        .to("http", web.address())
        .proxy(format!("tcp:0:{}", refusing()))
        .start();
    let raw = tunnel.connect();
    echoes(&raw);
    let mut user = HttpUser::connect(tunnel.proxy(1));
    for _ in 0..3 {
        assert_eq!(user.get("/").status, 200);
    }
    let [server, client] = both(&tunnel);
    let ended = |metrics: &Metrics, reason: &str| {
        metrics.value("siding_streams_ended_total", &[("reason", reason)])
    };
    for (role, admin) in [("server", server), ("client", client)] {
        assert_eq!(page(admin, "/healthz"), "ok\n");
        assert_eq!(page(admin, "/readyz"), "ready\n");
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("role", role)];
        let metrics = metrics(admin);
        assert_eq!(metrics.value("siding_build_info", &labels), 1.0);
        for (name, expected) in [
            ("siding_ready", 1.0),
            ("siding_links", 1.0),
            ("siding_streams", 1.0),
            ("siding_streams_opened_total", 4.0),
            ("siding_first_byte_seconds_count", 3.0),
            ("siding_undelivered_bytes", 0.0),
            ("siding_undelivered_limit_bytes", (64 << 20) as f64),
        ] {
            assert_eq!(metrics.value(name, &[]), expected, "{role}: {name}");
        }
        assert_eq!(ended(&metrics, "answered"), 3.0);
        assert!(metrics.value("siding_turn_seconds_count", &[]) > 3.0);
        let open = metrics.value("siding_descriptors", &[]);
        assert!(open > 5.0 && open < metrics.value("siding_descriptors_limit", &[]));
        let of_link = [("client", CLIENT)];
        let trip = metrics.value("siding_link_round_trip_seconds", &of_link);
        assert!(trip > 0.0 && trip < PATIENCE.as_secs_f64());
        assert!(metrics.value("siding_link_age_seconds", &of_link) >= trip);
        assert_eq!(metrics.value("siding_link_streams", &of_link), 1.0);
        for direction in ["up", "down"] {
            let bytes = metrics.value("siding_bytes_total", &[("direction", direction)]);
            assert!(bytes > 3.0 * 20.0, "{role}: {bytes} {direction}");
            let all = [("client", CLIENT), ("direction", direction)];
            assert_eq!(metrics.value("siding_link_bytes_total", &all), bytes);
        }
    }
    // Its three proxies, where clients and admins come in, the link, two users, and who asks.
    wait_for_sockets(server, 9.0);
    // The admin's listener, the link, a target, a parked connection, and who asks.
    wait_for_sockets(client, 5.0);
    let of_server = metrics(server);
    assert_eq!(of_server.value("siding_users", &[]), 2.0);
    assert_eq!(of_server.value("siding_proxies", &[]), 3.0);
    let kinds = |name: &str| ["tcp", "http"].map(|kind| of_server.sum(name, ("kind", kind)));
    assert_eq!(kinds("siding_proxy_up"), [2.0, 1.0]);
    assert_eq!(kinds("siding_proxy_users"), [1.0, 1.0]);
    assert_eq!(kinds("siding_proxy_streams"), [1.0, 0.0]);
    let [raw_bytes, http_bytes] = kinds("siding_proxy_bytes_total");
    assert_eq!(raw_bytes, 0.0, "it goes on");
    assert!(http_bytes > 6.0 * 20.0);

    let of_client = metrics(client);
    for (name, expected) in [
        ("siding_dialled_total", 2.0),
        ("siding_pool_idle", 1.0),
        ("siding_pool_in_use", 0.0),
        ("siding_pool_hits_total", 2.0),
        ("siding_pool_misses_total", 1.0),
        ("siding_pool_parked_total", 3.0),
    ] {
        assert_eq!(of_client.value(name, &[]), expected, "{name}");
    }

    drop((raw, user));
    expect_closed_at_once(tunnel.proxy(2));
    eventually("all have gone", || {
        let metrics = metrics(server);
        let is_over = metrics.value("siding_streams", &[]) == 0.0
            && metrics.value("siding_users", &[]) == 0.0;
        is_over.then_some(())
    });
    let after = metrics(server);
    assert_eq!(ended(&after, "closed"), 1.0);
    assert_eq!(ended(&after, "target_not_allowed"), 1.0);
    let raw_bytes = after.sum("siding_proxy_bytes_total", ("kind", "tcp"));
    assert_eq!(raw_bytes, 2.0, "a byte there and back");
    // Its five listeners, the link, and who asks.
    wait_for_sockets(server, 7.0);
}

#[test]
fn other_parsers_understand_the_metrics() {
    let tunnel = watched().to("tcp", Origin::echo().address()).start();
    let library = "import sys\n\
                   from prometheus_client.parser import text_string_to_metric_families as read\n\
                   names = [family.name for family in read(sys.stdin.read())]\n\
                   assert 'siding_turn_seconds' in names, names\n\
                   print(len(names))";
    let python = |code: &str| {
        let mut command = Command::new("python3");
        command.args(["-c", code]);
        command
    };
    let is_there = |mut command: Command| {
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
        quiet.status().is_ok_and(|status| status.success())
    };
    for admin in both(&tunnel) {
        let text = page(admin, "/metrics");
        assert!(Metrics::read(&text).len() > 50);
        if is_there(python("import prometheus_client")) {
            run(&mut python(library), text.clone().into(), PATIENCE).succeeded();
        } else {
            println!("skipped: prometheus_client is not installed");
        }
        let mut promtool = Command::new("promtool");
        promtool.args(["check", "metrics"]);
        let mut version = Command::new("promtool");
        version.arg("--version");
        if is_there(version) {
            run(&mut promtool, text.into(), PATIENCE).succeeded();
        } else {
            println!("skipped: promtool is not installed");
        }
    }
}

#[test]
fn who_was_refused_is_counted_by_what_was_in_the_way() {
    let tunnel = watched()
        .proxy_with(
            "forward:0",
            r#""users_file": "users", "max_connections": 1"#,
            false,
        )
        .file("users", "alice:open sesame\n")
        .start();
    let mut user = HttpUser::connect(tunnel.address());
    user.send("GET http://a/ HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Basic YTpi\r\n\r\n");
    assert_eq!(user.reply("GET").status, 407);
    let mut refused = HttpUser::connect(tunnel.address());
    assert_eq!(refused.reply("GET").status, 503);
    let [server, _] = both(&tunnel);
    let metrics = metrics(server);
    for (reason, expected) in [
        ("password", 1.0),
        ("connections_per_proxy", 1.0),
        ("connections", 0.0),
        ("address", 0.0),
        ("budget", 0.0),
        ("client_not_connected", 0.0),
    ] {
        let labels = [("reason", reason)];
        let count = metrics.value("siding_refused_total", &labels);
        assert_eq!(count, expected, "{reason}");
    }
}

#[test]
fn status_names_links_proxies_pools_and_streams() {
    let (echo, web) = (Origin::echo(), HttpOrigin::greeting());
    let exposed = format!("tcp:0:{}", echo.address());
    let tunnel = watched().to("http", web.address()).expose(exposed).start();
    assert_eq!(HttpUser::connect(tunnel.address()).get("/").status, 200);
    let raw = connect(tunnel.proxy(1));
    echoes(&raw);
    let [server, client] = both(&tunnel);
    let (of_server, of_client) = (status(server), status(client));
    for (role, status) in [("server", &of_server), ("client", &of_client)] {
        assert_eq!(status["role"], role);
        assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
        assert!(status.get("not_ready").is_none());
        assert!(status["uptime_seconds"].as_f64().expect("a number") > 0.0);
        assert_eq!(status["streams_opened"], 2);
        assert_eq!(status["streams_open"], 1);
        assert_eq!(status["streams_not_listed"], 0);
        assert_eq!(status["first_bytes"]["count"], 1);
        assert_eq!(status["first_bytes"]["within"]["10"], 1);
        assert!(status["first_bytes"]["seconds"].as_f64() > Some(0.0));
        assert!(status["turns"]["count"].as_u64() > Some(3));
        assert!(status["turns"]["seconds"].as_f64() > Some(0.0));
        let found = (role == "client") as u8;
        assert_eq!(status["pool_misses"], found, "it was asked once");
        assert_eq!(status["pool_hits"], 0);
        let [link] = &list(status, "links")[..] else {
            panic!("one link: {status}");
        };
        assert_eq!(
            (&link["client"], &link["streams"]),
            (&CLIENT.into(), &1.into())
        );
        assert!(
            link["round_trip_seconds"]
                .as_f64()
                .is_some_and(|it| it > 0.0)
        );
        assert_eq!(link["bytes_up"], status["bytes_up"]);
        let [stream] = &list(status, "streams")[..] else {
            panic!("one stream: {status}");
        };
        let is_user = |id: &str| id.starts_with("user-") && !id.contains('#');
        assert!(stream["user_id"].as_str().is_some_and(is_user), "{stream}");
        assert_eq!(stream["state"], "open");
        assert_eq!(
            (&stream["bytes_up"], &stream["bytes_down"]),
            (&1.into(), &1.into())
        );
    }
    assert_eq!(
        list(&of_server, "streams")[0]["user_id"],
        list(&of_client, "streams")[0]["user_id"]
    );
    assert_eq!(of_server["users"], 1);
    let proxies = list(&of_server, "proxies");
    let [http, tcp] = &proxies[..] else {
        panic!("two proxies: {of_server}");
    };
    assert_eq!(
        (&http["kind"], &tcp["kind"]),
        (&"http".into(), &"tcp".into())
    );
    assert_eq!(tcp["address"], tunnel.proxy(1).to_string());
    assert_eq!(tcp["target"], echo.address().to_string());
    assert_eq!((&tcp["users"], &tcp["streams"]), (&1.into(), &1.into()));
    assert_eq!(
        (&tcp["bytes_up"], &tcp["link_up"]),
        (&1.into(), &true.into())
    );
    assert!(http["bytes_down"].as_u64().is_some_and(|bytes| bytes > 20));

    let [exposed] = &list(&of_client, "proxies")[..] else {
        panic!("one exposed proxy: {of_client}");
    };
    for field in ["id", "kind", "address", "target", "streams", "bytes_up"] {
        assert_eq!(exposed[field], tcp[field], "{field}");
    }
    assert_eq!(exposed["users"], Value::Null);
    let pool = &list(&of_client, "pools")[0];
    assert_eq!(pool["target"], format!("http://{}", web.address()));
    assert_eq!((&pool["idle"], &pool["in_use"]), (&1.into(), &0.into()));
}

#[test]
fn an_exchange_under_way_is_seen_at_both_ends() {
    let web = HttpOrigin::start(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")?;
        // Until its user has gone.
        exchange
            .stream()
            .read_exact(&mut [0])
            .map(|()| common::Then::Close)
    });
    let tunnel = watched().to("http", web.address()).start();
    let mut user = tunnel.connect();
    user.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("room");
    let mut seen = Vec::new();
    while !seen.ends_with(b"first") {
        let mut byte = [0];
        user.read_exact(&mut byte).expect("half a response");
        seen.push(byte[0]);
    }
    let [server, client] = both(&tunnel);
    for admin in [server, client] {
        let status = status(admin);
        let stream = &list(&status, "streams")[0];
        assert_eq!(stream["state"], "response", "{stream}");
        let id = stream["user_id"].as_str().expect("a string");
        assert!(id.ends_with("#1"), "{id}");
    }
    assert_eq!(list(&status(client), "pools")[0]["in_use"], 1);
    assert_eq!(metrics(client).value("siding_pool_in_use", &[]), 1.0);
}

#[test]
fn a_session_is_reset_by_its_name_at_either_end() {
    let echo = Origin::echo();
    let tunnel = watched().to("tcp", echo.address()).start();
    for admin in both(&tunnel) {
        let other = tunnel.connect();
        echoes(&other);
        let mut user = tunnel.connect();
        echoes(&user);
        let streams = status(admin);
        let streams = list(&streams, "streams");
        let id = streams.last().expect("two streams")["user_id"].clone();
        let id = id.as_str().expect("a string");
        let close = format!("POST /streams/{id}/close");
        assert_eq!(ask(admin, &close).status, 204);
        let error = user.read(&mut [0]).expect_err("a reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert_eq!(ask(admin, &close).status, 404, "it is gone");
        echoes(&other);
        drop(other);
        eventually("nobody is left", || {
            let streams = status(admin)["streams_open"].clone();
            (streams == 0).then_some(())
        });
    }
    tunnel
        .server
        .log()
        .wait_for("closed, an admin has asked for it");
}

#[test]
fn an_exchange_is_meant_by_its_number_and_a_quiet_user_without_one() {
    let web = HttpOrigin::greeting();
    let tunnel = watched().log("debug").to("http", web.address()).start();
    let [server, _] = both(&tunnel);
    let mut user = HttpUser::connect(tunnel.address());
    assert_eq!(user.get("/").status, 200);
    let line = tunnel.server.log().wait_for("stream user-");
    let id = line
        .split("stream ")
        .nth(1)
        .and_then(|rest| rest.split('#').next());
    let id = id.expect("its line names it");
    let over = format!("POST /streams/{id}%231/close");
    assert_eq!(ask(server, &over).status, 404, "that exchange is over");
    assert_eq!(user.get("/").status, 200);
    assert_eq!(
        ask(server, &format!("POST /streams/{id}/close")).status,
        204
    );
    let error = user.stream().read(&mut [0]).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_thousand_streams_are_listed_and_the_rest_is_counted() {
    let echo = Origin::echo();
    common::raise_descriptor_limit(8192);
    let tunnel = watched().log("info").to("tcp", echo.address()).start();
    let users: Vec<TcpStream> = (0..1010).map(|_| tunnel.connect()).collect();
    users.iter().for_each(echoes);
    for admin in both(&tunnel) {
        let status = status(admin);
        assert_eq!(status["streams_open"], 1010);
        assert_eq!(list(&status, "streams").len(), 1000);
        assert_eq!(status["streams_not_listed"], 10);
        assert_eq!(metrics(admin).value("siding_streams", &[]), 1010.0);
    }
    users.into_iter().for_each(common::reset);
}

#[test]
fn it_is_ready_while_it_is_of_use() {
    let echo = Origin::echo();
    let mut tunnel = watched().to("tcp", echo.address()).start();
    let user = tunnel.connect();
    echoes(&user);
    let [server, client] = both(&tunnel);
    tunnel.server.terminate();
    tunnel.server.log().wait_for("users may finish");
    let reply = ask(server, "GET /readyz");
    assert_eq!((reply.status, &*reply.text()), (503, "draining\n"));
    assert_eq!(page(server, "/healthz"), "ok\n");
    assert_eq!(metrics(server).value("siding_ready", &[]), 0.0);
    assert_eq!(status(server)["not_ready"], "draining");
    let reply = eventually("the client knows", || {
        Some(ask(client, "GET /readyz")).filter(|reply| reply.status == 503)
    });
    assert_eq!(reply.text(), "the server drains, no new link yet\n");
    assert_eq!(metrics(client).value("siding_streams", &[]), 1.0);
    echoes(&user);
    drop(user);
    assert!(
        tunnel.server.wait().success(),
        "an admin keeps nobody from ending"
    );
    eventually("the link is down", || {
        let reply = ask(client, "GET /readyz");
        (reply.status == 503 && reply.text().starts_with("no link to ws://")).then_some(())
    });
    assert_eq!(metrics(client).value("siding_links", &[]), 0.0);
    let answered = metrics(client);
    let ended = [("reason", "closed")];
    assert_eq!(answered.value("siding_streams_ended_total", &ended), 1.0);
    let up = [("direction", "up")];
    assert_eq!(
        answered.value("siding_bytes_total", &up),
        2.0,
        "of a link that is gone"
    );
}

#[test]
fn the_log_level_changes_while_it_runs() {
    let echo = Origin::echo();
    let tunnel = watched().log("info").to("tcp", echo.address()).start();
    let [server, _] = both(&tunnel);
    let visit = || {
        let user = tunnel.connect();
        echoes(&user);
        drop(user);
        eventually("it has gone", || {
            (status(server)["streams_open"] == 0).then_some(())
        });
    };
    visit();
    assert_eq!(tunnel.server.log().count("stream user-"), 0);
    assert_eq!(ask(server, "PUT /log?level=debug").status, 204);
    visit();
    tunnel.server.log().wait_for("stream user-");
    assert_eq!(ask(server, "POST /log?level=warn").status, 204);
    tunnel.server.log().wait_for("log level WARN, it was DEBUG");
    let mark = tunnel.server.log().mark();
    visit();
    assert_eq!(ask(server, "PUT /log?level=loud").status, 400);
    assert_eq!(ask(server, "PUT /log?level=info").status, 204);
    let line = tunnel.server.log().wait_for_since(mark, "");
    assert!(line.contains("log level INFO, it was WARN"), "{line}");
}

#[test]
fn beyond_loopback_it_is_for_those_who_know_the_token() {
    let scratch = Scratch::new();
    let file = scratch.write("admin.token", format!("{TOKEN}\n"));
    let file = file.display().to_string();
    let server = Siding::start([
        "server",
        "--listen",
        ANY,
        "--admin",
        "0.0.0.0:0",
        "--admin-token-file",
        &file,
    ]);
    let address = SocketAddr::from(([127, 0, 0, 1], server.admin_address().port()));
    let mut visitor = HttpUser::connect(address);
    let mut get = |page: &str, shown: &str| {
        let field = match shown {
            "" => String::new(),
            shown => format!("Authorization: {shown}\r\n"),
        };
        visitor.send(format!(
            "GET {page} HTTP/1.1\r\nHost: edge.test\r\n{field}\r\n"
        ));
        visitor.reply("GET")
    };
    let right = format!("Bearer {TOKEN}");
    for page in ["/healthz", "/metrics", "/nothing"] {
        let reply = get(page, "");
        assert_eq!(reply.status, 401, "{page}");
        assert_eq!(
            reply.field("www-authenticate"),
            Some("Bearer realm=\"siding\"")
        );
    }
    assert_eq!(get("/metrics", &right).status, 200, "whatever its name");
    assert_eq!(get("/nothing", &right).status, 404);
    let (status, asked) = siding_status(&["--admin", &address.to_string()]);
    assert_eq!(status, 1);
    assert!(
        asked.contains("wants a token: give --admin-token-file"),
        "{asked}"
    );
    let with = ["--admin", &address.to_string(), "--admin-token-file", &file];
    assert_eq!(siding_status(&with).0, 0);
    for _ in 0..10 {
        assert_eq!(get("/metrics", "Bearer 0123456789abcdeX").status, 401);
    }
    let reply = get("/metrics", &right);
    assert_eq!(reply.status, 429, "it was guessed too often");
    assert!(reply.field("retry-after").is_some());
    let log = server.log().text();
    assert!(log.contains("admin: wrong token from 127.0.0.1"), "{log}");
    assert!(!log.contains("0123456789abcde"), "{log}");
}

#[test]
fn without_a_token_it_is_for_this_machine_and_not_for_its_browser() {
    let server = Siding::start(["server", "--listen", ANY, "--admin", ANY]);
    let admin = server.admin_address();
    let asked = |head: &str| {
        let mut visitor = HttpUser::connect(admin);
        visitor.send(format!("{head}\r\n\r\n"));
        visitor.reply("GET").status
    };
    for (head, expected) in [
        ("GET /status HTTP/1.1\r\nHost: localhost:7001", 200),
        ("GET /status HTTP/1.0", 200),
        ("GET /status HTTP/1.1\r\nHost: evil.test", 403),
        (
            "PUT /log?level=trace HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.test",
            403,
        ),
    ] {
        assert_eq!(asked(head), expected, "{head}");
    }
}

#[test]
fn it_speaks_http_to_whoever_comes() {
    let server = Siding::start(["server", "--listen", ANY, "--admin", ANY]);
    let admin = server.admin_address();
    let mut visitor = HttpUser::connect(admin);
    // Two at once, and then others on the same connection.
    let health = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    visitor.send(health.repeat(2));
    for _ in 0..2 {
        let reply = visitor.reply("GET");
        assert_eq!((reply.status, reply.closes()), (200, false));
        assert_eq!(reply.field("cache-control"), Some("no-store"));
    }
    visitor.send("HEAD /status HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let reply = visitor.reply("HEAD");
    assert_eq!(reply.field("content-type"), Some("application/json"));
    assert!(
        reply
            .field("content-length")
            .is_some_and(|length| length != "0")
    );
    visitor.send("DELETE /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let reply = visitor.reply("DELETE");
    assert_eq!(
        (reply.status, reply.field("allow")),
        (405, Some("GET, HEAD"))
    );
    // In pieces.
    for piece in ["GET /metr", "ics HTTP/1.1\r\nHost: loc", "alhost\r\n\r\n"] {
        visitor.send(piece);
    }
    let reply = visitor.reply("GET");
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    assert_eq!(reply.field("content-type"), Some(kind));
    visitor.send("GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let reply = visitor.reply("GET");
    assert_eq!((reply.status, reply.closes()), (404, true));
    visitor.expect_end();
    for (request, status) in [
        ("GET /healthz HTTP/1.0\r\n\r\n".to_owned(), 200),
        (
            "PUT /log?level=info HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi".into(),
            204,
        ),
        ("hello\r\n\r\n".into(), 400),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(10_000)),
            431,
        ),
    ] {
        let mut visitor = HttpUser::connect(admin);
        visitor.send(&request);
        let reply = visitor.reply("GET");
        assert_eq!(
            (reply.status, reply.closes()),
            (status, true),
            "{request:.40}"
        );
        visitor.expect_end();
    }
}

#[test]
fn who_was_answered_for_the_last_time_is_one_of_so_many_connections_too() {
    let server = Siding::start(["server", "--listen", ANY, "--admin", ANY]);
    let admin = server.admin_address();
    let before = server.descriptors();
    let mut told = Vec::new();
    for _ in 0..50 {
        let mut visitor = HttpUser::connect(admin);
        visitor.send("X\r\n\r\n");
        let reply = visitor.reply("GET");
        assert_eq!((reply.status, reply.closes()), (400, true));
        visitor.expect_end();
        told.push(visitor);
        for visitor in &mut told {
            visitor.try_send("x").ok();
        }
    }
    eventually_within(AT_ONCE, "no more than sixteen are kept", || {
        (server.descriptors() <= before + 16).then_some(())
    });
    // Each of those has sent something a moment ago.
    assert_eq!(health(&mut HttpUser::connect(admin)), 200);
}

#[test]
fn of_too_many_connections_the_quietest_gives_way() {
    let server = Siding::start(["server", "--listen", ANY, "--admin", ANY]);
    let admin = server.admin_address();
    let before = server.descriptors();
    let mut visitors: Vec<HttpUser> = (0..16).map(|_| HttpUser::connect(admin)).collect();
    for visitor in &mut visitors {
        assert_eq!(health(visitor), 200);
    }
    assert_eq!(health(&mut visitors[0]), 200, "it is not the quietest now");
    let mut newcomer = HttpUser::connect(admin);
    assert_eq!(health(&mut newcomer), 200);
    visitors[1].expect_end();
    assert_eq!(health(&mut visitors[0]), 200);
    assert_eq!(health(&mut visitors[2]), 200);
    let many: Vec<TcpStream> = (0..100).map(|_| connect(admin)).collect();
    assert_eq!(health(&mut HttpUser::connect(admin)), 200);
    // Of a burst each turn closes a share.
    eventually("no more than sixteen are kept", || {
        (server.descriptors() <= before + 16).then_some(())
    });
    drop(many);
}

#[test]
fn it_answers_when_users_have_taken_all_descriptors() {
    let echo = Origin::echo();
    let tunnel = watched()
        .server_descriptors(64)
        .to("tcp", echo.address())
        .start();
    let users: Vec<TcpStream> = (0..80).map(|_| tunnel.connect()).collect();
    tunnel.server.log().wait_for("out of descriptors");
    let [server, _] = both(&tunnel);
    let metrics = metrics(server);
    assert_eq!(metrics.value("siding_descriptors_limit", &[]), 64.0);
    assert!(metrics.value("siding_descriptors", &[]) >= 56.0);
    assert_eq!(page(server, "/readyz"), "ready\n");
    users.into_iter().for_each(common::reset);
}

#[test]
fn the_token_is_read_again_and_the_address_stays() {
    let scratch = Scratch::new();
    scratch.write("admin.token", TOKEN);
    let written = |admin: &str, more: &str| {
        let json = format!(r#"{{ "listen": "{ANY}", "admin": "{admin}" {more} }}"#);
        scratch.write("server.json", &json).display().to_string()
    };
    let token = r#", "admin_token_file": "admin.token""#;
    let config = written(ANY, token);
    let server = Siding::start(["server", "--config", &config]);
    let admin = server.admin_address();
    let shown = |token: &str| {
        let mut visitor = HttpUser::connect(admin);
        visitor.send(format!(
            "GET /healthz HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
        ));
        visitor.reply("GET").status
    };
    assert_eq!(shown(TOKEN), 200);
    scratch.write("admin.token", "fedcba9876543210");
    let reload = || {
        let mark = server.log().mark();
        server.signal("HUP");
        server.log().wait_for_since(mark, "reload: done");
    };
    reload();
    assert_eq!((shown(TOKEN), shown("fedcba9876543210")), (401, 200));
    written("127.0.0.1:1", "");
    reload();
    server
        .log()
        .wait_for("reload: admin stay as they were until a restart");
    assert_eq!(shown(""), 401, "another address would need no token");
    assert_eq!(shown("fedcba9876543210"), 200);
}

#[test]
fn an_address_that_cannot_be_had_ends_the_start() {
    let taken = std::net::TcpListener::bind(ANY).expect("a free port");
    let taken = taken.local_addr().expect("it is bound").to_string();
    for role in [&["server", "--listen", ANY][..], &["client", "--id", "a"]] {
        let words = [role, &["--admin", &taken]].concat();
        let mut command = Command::new(env!("CARGO_BIN_EXE_siding"));
        let ended = run(command.args(words), Vec::new(), PATIENCE);
        assert_eq!(ended.status.code(), Some(1));
        let expected = format!("--admin: cannot listen on {taken}: ");
        assert!(ended.stderr.contains(&expected), "{}", ended.stderr);
    }
}

#[test]
fn a_person_sees_tables_and_a_program_what_was_answered() {
    let (echo, web) = (Origin::echo(), HttpOrigin::greeting());
    let tunnel = watched()
        .to("tcp", echo.address())
        .to("http", web.address())
        .start();
    let raw = tunnel.connect();
    echoes(&raw);
    assert_eq!(HttpUser::connect(tunnel.proxy(1)).get("/").status, 200);
    for (role, admin) in ["server", "client"].into_iter().zip(both(&tunnel)) {
        let admin = admin.to_string();
        let (code, page) = siding_status(&["--admin", &admin]);
        assert_eq!(code, 0, "{page}");
        let first = format!("siding {role} {}, up ", env!("CARGO_PKG_VERSION"));
        assert!(page.starts_with(&first), "{page}");
        for part in [
            ", ready\n",
            "1 stream (2 opened)",
            "\nLINK ",
            "\nSTREAM ",
            CLIENT,
        ] {
            assert!(page.contains(part), "{part:?} in {page}");
        }
        assert_eq!(page.contains("\nPROXY "), role == "server");
        assert_eq!(page.contains("\nPOOL "), role == "client");
        let (code, json) = siding_status(&["--json", &format!("--admin={admin}")]);
        assert_eq!(code, 0);
        let json: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(json["role"], role);
    }
    let nobody = refusing().to_string();
    for more in [&[][..], &["--json"], &["--watch"]] {
        let (code, said) = siding_status(&[&["--admin", &nobody], more].concat());
        assert_eq!(code, 1);
        let expected = format!("siding: nobody answers at {nobody}: ");
        assert!(said.starts_with(&expected), "{said}");
    }
    let (code, said) = siding_status(&["--admin", &web.address().to_string()]);
    assert_eq!(code, 1);
    assert!(said.contains("is not siding"), "{said}");
}

#[test]
fn who_watches_sees_it_again_each_second_even_after_a_restart() {
    let admin = format!("127.0.0.1:{}", free_port());
    let words = ["server", "--listen", ANY, "--admin", &*admin];
    let mut server = Siding::start(words);
    server.admin_address();
    let watching = Siding::start(["status", "--watch", "--admin", &admin]);
    watching.log().wait_for_count(2, "siding server ");
    server.kill();
    watching.log().wait_for("nobody answers");
    let mark = watching.log().mark();
    let _server = Siding::start(words);
    watching.log().wait_for_since(mark, "siding server ");
    let mut watching = watching;
    watching.interrupt();
    assert!(!watching.wait().success(), "ended by the signal");
}

#[test]
fn who_watches_with_a_token_that_is_no_longer_right_stops_and_shuts_nobody_out() {
    let scratch = Scratch::new();
    let (old, new) = (TOKEN, "fedcba9876543210");
    let [at_server, at_watcher] =
        ["server", "watcher"].map(|name| scratch.write(name, old).display().to_string());
    let words = ["server", "--listen", ANY, "--admin", ANY];
    let server = Siding::start(words.iter().chain(&["--admin-token-file", &*at_server]));
    let admin = server.admin_address().to_string();
    let words = ["status", "--watch", "--admin", &*admin];
    let mut watching = Siding::start(words.iter().chain(&["--admin-token-file", &*at_watcher]));
    watching.log().wait_for_count(2, "siding server ");
    scratch.write("server", new);
    server.signal("HUP");
    assert_eq!(watching.wait().code(), Some(1));
    watching.log().wait_for("does not take this token");
    assert_eq!(watching.log().count("does not take this token"), 1);
    let (code, page) = siding_status(&["--admin", &admin, "--admin-token-file", &at_server]);
    assert_eq!(code, 0, "{page}");
}

/// A tunnel whose both ends tell of themselves.
fn watched() -> common::tunnel::Builder {
    Tunnel::builder()
        .server_argument("--admin")
        .server_argument(ANY)
        .client_argument("--admin")
        .client_argument(ANY)
}

/// Where the server and the client tell of themselves.
fn both(tunnel: &Tunnel) -> [SocketAddr; 2] {
    [&tunnel.server, &tunnel.client].map(Siding::admin_address)
}

/// Asks by a method and a page, on a connection of its own.
fn ask(admin: SocketAddr, line: &str) -> Reply {
    let mut visitor = HttpUser::connect(admin);
    visitor.send(format!("{line} HTTP/1.1\r\nHost: {admin}\r\n\r\n"));
    visitor.reply(line.split(' ').next().unwrap_or_default())
}

/// What stands on a page.
fn page(admin: SocketAddr, page: &str) -> String {
    let reply = ask(admin, &format!("GET {page}"));
    assert_eq!(reply.status, 200, "{page}: {}", reply.text());
    reply.text()
}

fn metrics(admin: SocketAddr) -> Metrics {
    Metrics::read(&page(admin, "/metrics"))
}

/// Whoever asked before may not have left yet, and who was refused lingers.
fn wait_for_sockets(admin: SocketAddr, count: f64) {
    eventually("it has so many sockets", || {
        let metrics = metrics(admin);
        let lingering = metrics.value("siding_sockets_lingering", &[]);
        (metrics.value("siding_sockets", &[]) - lingering == count).then_some(())
    });
}

fn status(admin: SocketAddr) -> Value {
    serde_json::from_str(&page(admin, "/status")).expect("JSON")
}

fn list(status: &Value, name: &str) -> Vec<Value> {
    status[name].as_array().expect(name).clone()
}

fn health(visitor: &mut HttpUser) -> u16 {
    visitor.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    visitor.reply("GET").status
}

/// How `siding status` ends, and what it says.
fn siding_status(words: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_siding"));
    let ended = run(
        command.arg("status").args(words),
        Vec::new(),
        Duration::from_secs(20),
    );
    let said = format!("{}{}", ended.text(), ended.stderr);
    (ended.status.code().unwrap_or(-1), said)
}
