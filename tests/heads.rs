//! What the heads of messages become on their way, over loopback: what an origin is told of its user,
//! what a user is told of the way of an answer, and how large any of it may be.

mod common;

use std::{
    io::{self, Write},
    net::SocketAddr,
    sync::{Mutex, mpsc},
    time::{SystemTime, UNIX_EPOCH},
};

use common::{HttpOrigin, HttpUser, PATIENCE, Then, Tunnel, eventually};

/// An origin that answers with the head that it got.
fn mirror() -> HttpOrigin {
    HttpOrigin::start(|exchange| {
        exchange.body()?;
        let request = &exchange.request;
        let mut seen = format!(
            "{} {} {}\n",
            request.method, request.target, request.version
        );
        for (name, value) in &request.fields {
            seen.push_str(&format!("{name}: {value}\n"));
        }
        exchange.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{seen}",
            seen.len()
        ))?;
        Ok(Then::Keep)
    })
}

/// What the mirror behind `proxy` saw of a request.
fn seen(proxy: SocketAddr, head: &str) -> String {
    let mut user = HttpUser::connect(proxy);
    user.send(head);
    let reply = user.reply("GET");
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.text()
}

/// A tunnel whose one proxy, of `kind`, leads to `target` with these options, in JSON. The server has
/// it in its configuration, or the client asks for it.
fn with_options(
    kind: &str,
    target: SocketAddr,
    options: &str,
    exposed: bool,
) -> (Tunnel, SocketAddr) {
    let tunnel = Tunnel::builder()
        .allow(target.to_string())
        .proxy_with(format!("{kind}:0:{target}"), options, exposed)
        .start();
    let proxy = tunnel.address();
    (tunnel, proxy)
}

#[test]
fn an_origin_behind_a_gateway_is_told_of_its_user() {
    let origin = mirror();
    let tunnel = Tunnel::to("http", origin.address());
    let mut user = HttpUser::connect(tunnel.address());
    user.send(
        "POST /a?b HTTP/1.1\r\nA: b\r\nhost: a.example:8080\r\nX-Forwarded-For: 198.51.100.7\r\n\
         Forwarded: for=198.51.100.7\r\nVia: 1.0 before\r\nX_Forwarded_Host: evil\r\n\
         Proxy-Authorization: Basic x\r\nConnection: x-hop, via\r\nX-Hop: 1\r\nTE: trailers\r\n\
         Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    );
    assert_eq!(
        user.reply("POST").text(),
        "POST /a?b HTTP/1.1\n\
         Host: a.example:8080\n\
         A: b\n\
         Via: 1.0 before\n\
         Via: 1.1 siding\n\
         X-Forwarded-For: 127.0.0.1\n\
         X-Forwarded-Proto: http\n\
         X-Forwarded-Host: a.example:8080\n\
         Forwarded: for=127.0.0.1;host=\"a.example:8080\";proto=http\n\
         TE: trailers\n\
         Transfer-Encoding: chunked\n\
         Connection: TE\n"
    );
}

#[test]
fn a_user_is_told_of_in_its_own_family() {
    let origin = mirror();
    let tunnel = Tunnel::builder()
        .proxy(format!("http:[::1]:0:{}", origin.address()))
        .allow(origin.address().to_string())
        .start();
    assert_eq!(
        seen(tunnel.address(), "GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n"),
        "GET / HTTP/1.1\nHost: [::1]\nVia: 1.1 siding\nX-Forwarded-For: ::1\n\
         X-Forwarded-Proto: http\nX-Forwarded-Host: [::1]\n\
         Forwarded: for=\"[::1]\";host=\"[::1]\";proto=http\n"
    );
}

#[test]
fn a_forward_proxy_tells_on_nobody() {
    let origin = mirror();
    let target = origin.address();
    let tunnel = Tunnel::builder()
        .proxy("forward:0")
        .allow(target.to_string())
        .start();
    let head = format!(
        "GET http://{target}/x HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-For: 198.51.100.7\r\n\
         Forwarded: for=198.51.100.7\r\nX-Real-IP: 198.51.100.7\r\nProxy-Authorization: Basic x\r\n\r\n"
    );
    assert_eq!(
        seen(tunnel.address(), &head),
        format!(
            "GET /x HTTP/1.1\nHost: {target}\nX-Forwarded-For: 198.51.100.7\n\
             Forwarded: for=198.51.100.7\nX-Real-IP: 198.51.100.7\nVia: 1.1 siding\n"
        )
    );
}

#[test]
fn users_that_are_proxies_are_believed_where_the_proxy_says_so() {
    let origin = mirror();
    for exposed in [false, true] {
        let options = r#""trust_forwarded": true"#;
        let (_tunnel, proxy) = with_options("http", origin.address(), options, exposed);
        assert_eq!(
            seen(
                proxy,
                "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 198.51.100.7\r\nX-Forwarded-Proto: https\r\n\
                 x-forwarded-for: 10.0.0.1\r\nForwarded: for=198.51.100.7;proto=https\r\n\
                 X-Real-IP: 198.51.100.7\r\n\r\n"
            ),
            "GET / HTTP/1.1\n\
             Host: a\n\
             X-Forwarded-Proto: https\n\
             X-Real-IP: 198.51.100.7\n\
             Via: 1.1 siding\n\
             X-Forwarded-For: 198.51.100.7, 10.0.0.1, 127.0.0.1\n\
             X-Forwarded-Host: a\n\
             Forwarded: for=198.51.100.7;proto=https, for=127.0.0.1;host=a;proto=http\n"
        );
    }
}

#[test]
fn host_is_what_the_proxy_says() {
    const NEW: &str = "GET / HTTP/1.1\r\nHost: user.example\r\n\r\n";
    const ABSOLUTE: &str = "GET http://user.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    const OLD: &str = "GET / HTTP/1.0\r\n\r\n";
    let origin = mirror();
    let target = origin.address().to_string();
    let user = "user.example";
    for (options, exposed, hosts) in [
        (r#""trust_forwarded": false"#, false, [user, user, &target]),
        (r#""host": "user""#, true, [user, user, &target]),
        (r#""host": "target""#, false, [&target, &target, &target]),
        (r#""host": "Target""#, true, [&target, &target, &target]),
        (
            r#""host": "API.example.com:81""#,
            true,
            ["api.example.com:81"; 3],
        ),
        (r#""host": "[::1]""#, false, ["[::1]"; 3]),
    ] {
        let (_tunnel, proxy) = with_options("http", origin.address(), options, exposed);
        for (head, host) in [NEW, ABSOLUTE, OLD].into_iter().zip(hosts) {
            let seen = seen(proxy, head);
            let line = seen.lines().nth(1).unwrap_or_default();
            assert_eq!(line, format!("Host: {host}"), "{options}: {head:?}");
            // What the user asked for is not lost.
            let asked = seen.contains("X-Forwarded-Host: user.example\n");
            assert_eq!(asked, head != OLD, "{options}: {head:?}: {seen}");
        }
    }
}

#[test]
fn an_answer_tells_its_way_and_its_time() {
    let origin = HttpOrigin::start(|exchange| {
        exchange.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")?;
        match exchange.request.target.as_str() {
            "/dated" => exchange.send(
                "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nVia: 1.1 before\r\n\
                 Content-Length: 0\r\n\r\n",
            )?,
            "/upgrade" => exchange.send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n",
            )?,
            _ => exchange.send("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")?,
        }
        Ok(Then::Close)
    });
    let tunnel = Tunnel::to("http", origin.address());
    let answers = |target: &str| {
        let mut user = HttpUser::connect(tunnel.address());
        user.send(format!(
            "GET {target} HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"
        ));
        let interim = user.reply("GET");
        assert_eq!(interim.status, 103);
        assert_eq!(
            pairs(&interim.fields),
            [("Link", "</a>"), ("Via", "1.1 siding")],
            "an interim answer has no date"
        );
        user.reply("GET")
    };
    let dated = answers("/dated");
    assert_eq!(
        pairs(&dated.fields),
        [
            ("Date", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("Via", "1.1 before"),
            ("Via", "1.1 siding"),
            ("Content-Length", "0"),
        ]
    );
    let switched = answers("/upgrade");
    assert_eq!(switched.status, 101);
    assert_eq!(
        pairs(&switched.fields),
        [
            ("Via", "1.1 siding"),
            ("Connection", "Upgrade"),
            ("Upgrade", "echo"),
        ]
    );
    let undated = answers("/");
    assert_eq!(undated.fields[0], ("Via".into(), "1.0 siding".into()));
    assert_is_now(undated.field("date"));
    // An answer of our own has a date, too.
    let mut user = HttpUser::connect(tunnel.address());
    user.send("GET / HTTP/1.1\r\n\r\n");
    let refused = user.reply("GET");
    assert_eq!(refused.status, 400);
    assert_is_now(refused.field("date"));
    assert_eq!(refused.field("via"), None, "it comes from here");
}

fn pairs(fields: &[(String, String)]) -> Vec<(&str, &str)> {
    fields
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

/// A date in the form of RFC 9110 §5.6.7, no further than a test's patience from now.
#[track_caller]
fn assert_is_now(date: Option<&str>) {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let date = date.expect("a date");
    let words: Vec<&str> = date.split(' ').collect();
    let [_, day, month, year, time, "GMT"] = words[..] else {
        panic!("{date}");
    };
    let month = MONTHS.iter().position(|name| *name == month).expect(date);
    let numbers = |text: &str| -> Vec<u64> {
        text.split(':')
            .map(|number| number.parse().expect(date))
            .collect()
    };
    let ([day], [year], [hours, minutes, seconds]) =
        (&numbers(day)[..], &numbers(year)[..], &numbers(time)[..])
    else {
        panic!("{date}");
    };
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let years: u64 = (1970..*year).map(|y| 365 + u64::from(is_leap(y))).sum();
    let february = 28 + u64::from(is_leap(*year));
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let days = years + lengths[..month].iter().sum::<u64>() + day - 1;
    let told = ((days * 24 + hours) * 60 + minutes) * 60 + seconds;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("later than 1970")
        .as_secs();
    assert!(now.abs_diff(told) <= PATIENCE.as_secs(), "{date}");
}

#[test]
fn a_request_that_may_go_no_further_is_answered_here() {
    let origin = mirror();
    let target = origin.address();
    let tunnel = Tunnel::builder()
        .to("http", target)
        .proxy("forward:0")
        .start();
    let asked = || origin.requests().iter().sum::<usize>();
    let ask = |proxy: usize, head: &str| {
        let mut user = HttpUser::connect(tunnel.proxy(proxy));
        user.send(head);
        let reply = user.reply("GET");
        if reply.closes() {
            user.expect_end();
        }
        reply
    };
    for (proxy, uri) in [(0, "/x".to_owned()), (1, format!("http://{target}/x"))] {
        let trace = |hops: &str| {
            format!(
                "TRACE {uri} HTTP/1.1\r\nhost: {target}\r\nMax-Forwards: {hops}\r\nCookie: secret\r\n\
                 Authorization: Basic secret\r\nProxy-Authorization: Basic secret\r\nA:  b\r\n\r\n"
            )
        };
        let before = asked();
        let reply = ask(proxy, &trace("0"));
        assert_eq!(reply.status, 200);
        assert_eq!(reply.field("content-type"), Some("message/http"));
        assert_eq!(
            reply.text(),
            format!("TRACE {uri} HTTP/1.1\r\nhost: {target}\r\nMax-Forwards: 0\r\nA: b\r\n\r\n")
        );
        let reply = ask(
            proxy,
            &format!("OPTIONS {uri} HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n"),
        );
        assert_eq!((reply.status, reply.text().as_str()), (200, ""));
        assert_eq!(asked(), before, "nothing has gone further");
        let further = ask(proxy, &trace("1")).text();
        assert!(further.starts_with("TRACE /x HTTP/1.1\n"), "{further}");
        assert!(further.contains("\nMax-Forwards: 0\n"), "{further}");
        assert_eq!(asked(), before + 1);
        for (what, fields) in [
            ("malformed", "Max-Forwards: x\r\n"),
            ("two", "Max-Forwards: 1\r\nMax-Forwards: 1\r\n"),
            ("content", "Max-Forwards: 1\r\nContent-Length: 1\r\n"),
        ] {
            let reply = ask(
                proxy,
                &format!("TRACE {uri} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"),
            );
            assert_eq!(reply.status, 400, "{what}");
        }
        assert_eq!(asked(), before + 1);
    }
    let get = ask(0, "GET / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n");
    assert!(get.text().contains("\nMax-Forwards: 0\n"), "as it came");
}

#[test]
fn a_refused_head_request_gets_no_body() {
    let origin = mirror();
    let mut tunnel = Tunnel::to("http", origin.address());
    tunnel.client.kill();
    tunnel.server.log().wait_for(": down");
    let mut user = HttpUser::connect(tunnel.address());
    user.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    let reply = user.reply("HEAD");
    assert_eq!(reply.status, 503);
    assert_ne!(reply.field("content-length"), Some("0"));
    user.expect_end();
}

#[test]
fn a_request_line_that_is_too_long_is_refused_before_its_end() {
    let origin = mirror();
    let tunnel = Tunnel::builder()
        .to("http", origin.address())
        .server_config(r#"{ "limits": { "request_line": "1KiB" } }"#)
        .start();
    let line = |length: usize| {
        let around = "GET / HTTP/1.1\r\n".len();
        format!("GET /{} HTTP/1.1\r\n", "x".repeat(length - around))
    };
    let mut user = HttpUser::connect(tunnel.address());
    user.send(format!("{}Host: a\r\n\r\n", line(1024)));
    assert_eq!(user.reply("GET").status, 200);
    for head in [
        format!("{}Host: a\r\n\r\n", line(1025)),
        // Its end does not come at all.
        line(2000)[..1024].to_owned(),
    ] {
        let mut user = HttpUser::connect(tunnel.address());
        user.send(&head);
        let reply = user.reply("GET");
        assert_eq!((reply.status, reply.closes()), (414, true));
        user.expect_end();
    }
    // One byte less may still be a good line.
    let mut user = HttpUser::connect(tunnel.address());
    user.send(&line(1024)[..1023]);
    user.send(&line(1024)[1023..]);
    user.send("Host: a\r\n\r\n");
    assert_eq!(user.reply("GET").status, 200);
}

#[test]
fn chunk_extensions_and_trailers_of_a_request_have_their_limits() {
    let origin = mirror();
    let tunnel = Tunnel::builder()
        .to("http", origin.address())
        .server_config(r#"{ "limits": { "chunk_extension": 100, "trailers": 50 } }"#)
        .start();
    let status = |body: &str| {
        let mut user = HttpUser::connect(tunnel.address());
        user.try_send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
        ))
        .ok();
        let reply = user.reply("POST");
        assert_eq!(reply.closes(), reply.status != 200);
        reply.status
    };
    let extended = |length: usize| format!("1;{}\r\na\r\n", "x".repeat(length - 1));
    let trailers = |length: usize| format!("0\r\nA: {}\r\n\r\n", "x".repeat(length - 5));
    for (what, body, expected) in [
        ("extensions", format!("{}0\r\n\r\n", extended(100)), 200),
        ("longer ones", format!("{}0\r\n\r\n", extended(101)), 400),
        ("endless ones", format!("1;{}", "x".repeat(10_000)), 400),
        ("trailers", trailers(50), 200),
        ("longer trailers", trailers(51), 400),
        (
            "endless trailers",
            format!("0\r\nA: {}", "x".repeat(10_000)),
            400,
        ),
        // 82 of the 100 bytes exceed what a chunk of one byte pays for.
        (
            "few chunks",
            format!("{}0\r\n\r\n", extended(100).repeat(199)),
            200,
        ),
        (
            "many chunks",
            format!("{}0\r\n\r\n", extended(100).repeat(200)),
            400,
        ),
    ] {
        assert_eq!(status(&body), expected, "{what}");
    }
}

#[test]
fn chunk_extensions_and_trailers_of_a_response_have_their_limits() {
    let origin = HttpOrigin::start(|exchange| {
        let body = match exchange.request.target.as_str() {
            "/extensions" => format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(99)),
            "/extensions-too-long" => format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(100)),
            "/trailers" => format!("1\r\na\r\n0\r\nA: {}\r\n\r\n", "x".repeat(45)),
            _ => format!("1\r\na\r\n0\r\nA: {}\r\n\r\n", "x".repeat(46)),
        };
        exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        exchange.send(body)?;
        Ok(Then::Keep)
    });
    let tunnel = Tunnel::builder()
        .to("http", origin.address())
        .client_config(r#"{ "limits": { "chunk_extension": 100, "trailers": 50 } }"#)
        .start();
    for (target, good) in [
        ("/extensions", true),
        ("/extensions-too-long", false),
        ("/trailers", true),
        ("/trailers-too-long", false),
    ] {
        let mut user = HttpUser::connect(tunnel.address());
        user.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let reply: io::Result<_> = user.try_reply("GET");
        // The head has passed by then: what comes after it is cut, and seen to be.
        assert_eq!(reply.is_ok(), good, "{target}");
    }
}

#[test]
fn a_user_that_does_not_wait_for_answers_costs_no_more_than_its_share() {
    const REQUESTS: usize = 300;
    let (answer, answers) = mpsc::channel::<()>();
    let answers = Mutex::new(answers);
    let origin = HttpOrigin::start(move |exchange| {
        if exchange.request.target == "/first" {
            // Until the test has seen what it wants.
            answers.lock().unwrap().recv().ok();
        }
        exchange.greet()
    });
    let tunnel = Tunnel::builder()
        .to("http", origin.address())
        .server_config(r#"{ "limits": { "pipelined": "1KiB" } }"#)
        .start();
    let mut user = HttpUser::connect(tunnel.address());
    user.send("GET /first HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_for_open(1);
    let before = tunnel.server.written_bytes();
    // As much as the kernel takes, and more: the server does not read it.
    let request = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "x".repeat(20_000)
    );
    let stream = user.stream().get_ref().try_clone().unwrap();
    stream.set_nonblocking(true).unwrap();
    let pipelined = request.repeat(REQUESTS);
    let mut sent = 0;
    eventually("the kernel takes no more", || {
        match (&stream).write(&pipelined.as_bytes()[sent..]) {
            Ok(written) => {
                sent += written;
                None
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(()),
            Err(error) => panic!("{error}"),
        }
    });
    assert!(sent < pipelined.len(), "the user was never stopped");
    let held = tunnel.server.written_bytes().saturating_sub(before);
    assert!(held < 1 << 20, "{held} B held of {sent} B");
    stream.set_nonblocking(false).unwrap();
    answer.send(()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| (&stream).write_all(&pipelined.as_bytes()[sent..]).unwrap());
        assert_eq!(user.reply("GET").text(), "GET /first on connection 1\n");
        for _ in 0..REQUESTS {
            assert_eq!(user.reply("GET").text(), "GET / on connection 1\n");
        }
    });
}
