//! A target with a limit of exchanges: the others wait in their order, not too many and not too long.

mod common;

use std::sync::{Arc, Mutex, mpsc};

use common::{HttpOrigin, HttpUser, PATIENCE, Then, Tunnel, eventually};

/// An origin that answers when it is told to, one request for each word.
fn patient() -> (HttpOrigin, mpsc::Sender<()>, Arc<Mutex<Vec<String>>>) {
    let (go, told) = mpsc::channel();
    let told = Mutex::new(told);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let order = Arc::clone(&asked);
    let origin = HttpOrigin::start(move |exchange| {
        order.lock().unwrap().push(exchange.request.target.clone());
        told.lock().unwrap().recv().map_err(std::io::Error::other)?;
        exchange.greet()
    });
    (origin, go, asked)
}

fn tunnel(origin: &HttpOrigin, pool: &str, timeouts: &str) -> Tunnel {
    let config = format!(r#"{{ "pool": {{ {pool} }}, "timeouts": {{ {timeouts} }} }}"#);
    Tunnel::builder()
        .to("http", origin.address())
        .client_config(config)
        .start()
}

fn ask(tunnel: &Tunnel, target: &str) -> HttpUser {
    let mut user = HttpUser::connect(tunnel.address());
    user.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
    user
}

fn wait_until_asked(asked: &Mutex<Vec<String>>, count: usize) {
    eventually("the origin was asked", || {
        (asked.lock().unwrap().len() == count).then_some(())
    });
}

#[test]
fn those_who_wait_are_served_in_their_order_on_the_connection_that_becomes_free() {
    let (origin, go, asked) = patient();
    let pool = r#""max_active_per_target": 1, "queue_per_target": 2"#;
    let tunnel = tunnel(&origin, pool, "");
    let mut first = ask(&tunnel, "/1");
    wait_until_asked(&asked, 1);
    // A user sends its request only when the one before it has arrived.
    let mark = tunnel.client.log().mark();
    let mut second = ask(&tunnel, "/2");
    tunnel
        .client
        .log()
        .wait_for_since(mark, "waits for a place");
    let mark = tunnel.client.log().mark();
    let mut third = ask(&tunnel, "/3");
    tunnel
        .client
        .log()
        .wait_for_since(mark, "waits for a place");
    let refused = ask(&tunnel, "/4").reply("GET");
    assert_eq!(
        (refused.status, &*refused.text()),
        (503, "503 Service Unavailable: target_busy\n")
    );
    for (user, number) in [(&mut first, 1), (&mut second, 2), (&mut third, 3)] {
        go.send(()).unwrap();
        assert_eq!(
            user.reply("GET").text(),
            format!("GET /{number} on connection 1\n")
        );
    }
    assert_eq!(*asked.lock().unwrap(), ["/1", "/2", "/3"]);
    // Nobody is left who would hold a place.
    go.send(()).unwrap();
    assert_eq!(ask(&tunnel, "/5").reply("GET").status, 200);
}

#[test]
fn who_waits_too_long_is_refused_and_who_leaves_is_not_served() {
    let (origin, go, asked) = patient();
    let pool = r#""max_active_per_target": 1"#;
    let tunnel = tunnel(&origin, pool, r#""queue": "1s""#);
    let mut first = ask(&tunnel, "/1");
    wait_until_asked(&asked, 1);
    let mark = tunnel.client.log().mark();
    let leaver = ask(&tunnel, "/2");
    tunnel
        .client
        .log()
        .wait_for_since(mark, "waits for a place");
    common::reset(leaver.into_stream());
    tunnel
        .client
        .log()
        .wait_for_all_of(mark, &["user_reset", "not connected"], PATIENCE);
    assert_eq!(ask(&tunnel, "/3").reply("GET").status, 503);
    go.send(()).unwrap();
    assert_eq!(first.reply("GET").status, 200);
    go.send(()).unwrap();
    assert_eq!(ask(&tunnel, "/4").reply("GET").status, 200);
    assert_eq!(*asked.lock().unwrap(), ["/1", "/4"]);
}

#[test]
fn a_place_is_given_back_however_its_exchange_ends() {
    let origin = HttpOrigin::start(|exchange| match &*exchange.request.target {
        "/reset" => Ok(Then::Reset),
        "/close" => Ok(Then::Close),
        "/bad" => {
            exchange.send("HTTP/1.1 wrong\r\n\r\n")?;
            Ok(Then::Close)
        }
        "/cut" => {
            exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut")?;
            Ok(Then::Close)
        }
        "/upgrade" => {
            exchange.send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            )?;
            Ok(Then::Close)
        }
        _ => exchange.greet(),
    });
    let pool = r#""max_active_per_target": 1, "queue_per_target": 0"#;
    let tunnel = tunnel(&origin, pool, "");
    let ends = ["/reset", "/close", "/bad", "/cut", "/upgrade", "/well"];
    for target in ends.into_iter().cycle().take(18) {
        let mark = tunnel.client.log().mark();
        let mut user = HttpUser::connect(tunnel.address());
        let upgrade = "Connection: upgrade\r\nUpgrade: x\r\n";
        let fields = if target == "/upgrade" { upgrade } else { "" };
        user.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        // A cut body is an error of the connection's.
        match user.try_reply("GET") {
            Ok(reply) => assert_ne!(reply.status, 503, "{target}"),
            Err(_) => assert_eq!(target, "/cut"),
        }
        drop(user);
        tunnel.client.log().wait_for_since(mark, "stream user-");
    }
}
