//! Requests about as far apart as an origin keeps an idle connection: sent just when it closes.
//!
//! The loop in which other proxies lose up to 40 %: a POST to Node every 5.0 s. Each cell of the table
//! has an origin, and so a pool, of its own; all run side by side. `SIDING_PAUSES=n` sends n requests in
//! each cell instead of a few: 60 take five minutes.

use std::{
    env, thread,
    time::{Duration, Instant},
};

use crate::{
    common::{HttpUser, Tunnel, pass},
    counted,
    node::Node,
    pool_report,
};

/// One loop: requests of one method at one distance.
struct Cell {
    method: &'static str,
    pause: Duration,
    /// Options of its server.
    origin: &'static str,
}

/// Node as it comes: five seconds, and it says so. (Some versions wait for one second more.)
const DEFAULT: &str = "{}";

/// Node that does not say how long it waits: nothing but the end of the connection tells.
const SILENT: &str = r#"{"silent": true}"#;

/// The same, sooner.
const SILENT_AND_QUICK: &str = r#"{"silent": true, "keepAliveTimeout": 500}"#;

/// Milliseconds from the moment at which Node closes: requests that meet its FIN on the way, and some
/// on either side.
const AROUND: [i64; 12] = [-20, -8, -4, -3, -2, -1, 0, 1, 2, 3, 5, 20];

/// From the answer to the end of the connection, for these options.
struct Measured {
    options: &'static str,
    closes_after: Duration,
}

#[test]
#[ignore = "slow"]
fn no_request_to_node_fails_about_five_seconds_after_the_last() {
    let Some(silent) = Measured::of(SILENT) else {
        return;
    };
    let mut cells: Vec<Cell> = silent.around("GET").chain(silent.around("POST")).collect();
    for method in ["GET", "POST"] {
        for pause in [4_900, 5_000, 5_100].map(Duration::from_millis) {
            cells.extend([DEFAULT, SILENT].map(|origin| Cell {
                method,
                pause,
                origin,
            }));
        }
    }
    // What people do, a dozen of them: a POST every five seconds.
    cells.extend((0..11).map(|_| Cell {
        method: "POST",
        pause: Duration::from_secs(5),
        origin: DEFAULT,
    }));
    each_is_answered_and_seen_once(&cells, 5);
}

#[test]
fn no_get_fails_just_when_its_origin_closes() {
    let Some(quick) = Measured::of(SILENT_AND_QUICK) else {
        return;
    };
    each_is_answered_and_seen_once(&quick.around("GET").collect::<Vec<_>>(), 3);
}

impl Measured {
    /// Looks how long a Node of these options waits; `None` where node is not installed.
    fn of(options: &'static str) -> Option<Self> {
        let node = Node::with(&[options])?;
        let mut user = HttpUser::connect(node.address());
        assert_eq!(user.get("/").status, 200);
        let start = Instant::now();
        user.expect_end();
        Some(Self {
            options,
            closes_after: start.elapsed(),
        })
    }

    /// Loops whose pauses end just when Node closes.
    fn around(&self, method: &'static str) -> impl Iterator<Item = Cell> {
        let closes_after = self.closes_after.as_millis() as i64;
        AROUND.into_iter().map(move |offset| Cell {
            method,
            pause: Duration::from_millis((closes_after + offset) as u64),
            origin: self.options,
        })
    }
}

fn each_is_answered_and_seen_once(cells: &[Cell], few: usize) {
    let options: Vec<&str> = cells.iter().map(|cell| cell.origin).collect();
    let Some(node) = Node::with(&options) else {
        return;
    };
    let count = env::var("SIDING_PAUSES").map_or(few, |count| count.parse().expect("a number"));
    let mut tunnel = Tunnel::builder();
    for &address in node.addresses() {
        tunnel = tunnel.to("http", address);
    }
    let mut tunnel = tunnel.start();
    let failures: Vec<String> = thread::scope(|scope| {
        let loops: Vec<_> = cells
            .iter()
            .enumerate()
            .map(|(number, cell)| {
                let proxy = tunnel.proxy(number);
                scope.spawn(move || {
                    let mut user = HttpUser::connect(proxy);
                    let mut failures = Vec::new();
                    for turn in 0..count {
                        if turn > 0 {
                            pass(cell.pause);
                        }
                        if let Err(why) = ask(&mut user, cell.method, number, turn) {
                            failures.push(format!(
                                "{} after {:?}, {}: {why}",
                                cell.method, cell.pause, cell.origin
                            ));
                            user = HttpUser::connect(proxy);
                        }
                    }
                    failures
                })
            })
            .collect();
        let loops = loops.into_iter();
        loops
            .flat_map(|one| one.join().expect("it panics at nothing"))
            .collect()
    });
    let report = pool_report(&mut tunnel);
    let total = cells.len() * count;
    println!("{} of {total} failed\n{report}", failures.len());
    assert!(failures.is_empty(), "{failures:#?}");
    let mut received: Vec<(String, String)> = node
        .received()
        .into_iter()
        .map(|request| (request.method, request.url))
        .collect();
    let mut expected: Vec<(String, String)> = (0..cells.len())
        .flat_map(|number| (0..count).map(move |turn| (number, turn)))
        .map(|(number, turn)| (cells[number].method.to_owned(), path(number, turn)))
        .collect();
    received.sort();
    expected.sort();
    assert_eq!(
        received, expected,
        "Node has seen each request exactly once"
    );
    assert_eq!(
        counted(&report, "retried"),
        counted(&report, "stale after take")
    );
}

/// One request, whose answer must be its own.
fn ask(user: &mut HttpUser, method: &str, number: usize, turn: usize) -> Result<(), String> {
    let path = path(number, turn);
    let (fields, body, expected) = match method {
        "POST" => {
            let body = format!("turn {turn} of {number}");
            (
                format!("Content-Length: {}\r\n", body.len()),
                body.clone(),
                body,
            )
        }
        _ => (String::new(), String::new(), format!("{method} {path}\n")),
    };
    user.try_send(format!(
        "{method} {path} HTTP/1.1\r\nHost: origin.test\r\n{fields}\r\n{body}"
    ))
    .map_err(|error| error.to_string())?;
    let reply = user.try_reply(method).map_err(|error| error.to_string())?;
    match (reply.status, reply.text()) {
        (200, text) if text == expected => Ok(()),
        (status, text) => Err(format!("{status} {text:?}")),
    }
}

fn path(number: usize, turn: usize) -> String {
    format!("/{number}/{turn}")
}
