//! nginx that closes its connections as early as it may, under load: after seven requests, or a second
//! without one. No GET fails, and each is answered by its own file.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    common::{HttpUser, Nginx, Pattern, Tunnel, pass},
    counted, pool_report,
};

/// Gives an idle connection up early, and a busy one soon.
const IMPATIENT: &str = "keepalive_timeout 1s; keepalive_requests 7;";

/// Requests that nginx takes from a connection.
const REQUESTS_PER_CONNECTION: u64 = 7;

/// Sizes of the files: nothing, less than a segment, more than one, more than a batch of the link.
const SIZES: [usize; 4] = [0, 700, 5_000, 100_000];

/// Users who ask again as soon as they are answered, on one connection.
const STEADY: usize = 4;

/// Users who connect for each request.
const FRESH: usize = 4;

/// Users who ask at the same moments, about as far apart as nginx waits: whatever is parked then was
/// parked in the last moment, and nginx is about to close it.
const WAVES: usize = 12;

#[test]
fn no_get_fails_for_three_seconds_of_load() {
    plain(Duration::from_secs(3));
}

#[test]
#[ignore = "slow"]
fn no_get_fails_for_a_minute_of_load() {
    plain(Duration::from_secs(60));
}

#[test]
#[ignore = "slow"]
fn no_get_fails_for_three_seconds_of_load_over_tls() {
    tls(Duration::from_secs(3));
}

#[test]
#[ignore = "slow"]
fn no_get_fails_for_a_minute_of_load_over_tls() {
    tls(Duration::from_secs(60));
}

fn plain(span: Duration) {
    let Some(nginx) = Nginx::with(IMPATIENT) else {
        return;
    };
    let port = nginx.plain().port();
    // Two names, so two pools: who asks without rest would leave nothing stale to the others.
    let tunnel = Tunnel::builder()
        .to("http", nginx.plain())
        .proxy(format!("http:0:localhost:{port}"))
        .allow(format!("localhost:{port}"))
        .start();
    load(&nginx, tunnel, span);
}

fn tls(span: Duration) {
    let Some(nginx) = Nginx::with(IMPATIENT) else {
        return;
    };
    let port = nginx.tls().port();
    let tunnel = Tunnel::builder()
        .to("https", nginx.tls())
        .proxy(format!("https:0:localhost:{port}"))
        .allow(format!("localhost:{port}"))
        .client_argument("--target-ca")
        .client_argument(nginx.authority().display().to_string())
        .start();
    load(&nginx, tunnel, span);
}

/// All users at once for so long, of the first proxy and (the waves) the second.
fn load(nginx: &Nginx, mut tunnel: Tunnel, span: Duration) {
    let files: Vec<Vec<u8>> = (0..SIZES.len())
        .map(|number| Pattern::bytes(number as u64, SIZES[number]))
        .collect();
    for (number, file) in files.iter().enumerate() {
        nginx.publish(&number.to_string(), file);
    }
    let start = Instant::now();
    let end = start + span;
    let (hot, cold) = (tunnel.proxy(0), tunnel.proxy(1));
    let files = &files;
    let asked: u64 = thread::scope(|scope| {
        let mut users = Vec::new();
        for user in 0..STEADY {
            users.push(scope.spawn(move || {
                let mut connection = HttpUser::connect(hot);
                let asks = (user..).take_while(|_| Instant::now() < end);
                asks.map(|ask| get(&mut connection, files, ask, "")).count()
            }));
        }
        for user in 0..FRESH {
            users.push(scope.spawn(move || {
                // Half of them say that it is their last request, half just go.
                let fields = ["", "Connection: close\r\n"][user % 2];
                let asks = (user..).take_while(|_| Instant::now() < end);
                asks.map(|ask| get(&mut HttpUser::connect(hot), files, ask, fields))
                    .count()
            }));
        }
        for user in 0..WAVES {
            users.push(scope.spawn(move || {
                let mut connection = HttpUser::connect(cold);
                let mut next = start;
                let mut asked = 0;
                while next < end {
                    pass(next.saturating_duration_since(Instant::now()));
                    get(&mut connection, files, user + asked, "");
                    // All at the same moments, from 0.990 s to 1.010 s apart.
                    next += Duration::from_millis(990 + (asked * 8 % 21) as u64);
                    asked += 1;
                }
                asked
            }));
        }
        users
            .into_iter()
            .map(|user| user.join().expect("no GET fails") as u64)
            .sum()
    });
    let report = pool_report(&mut tunnel);
    let connections = nginx.requests_by_connection(asked as usize);
    println!(
        "{asked} requests, {} connections\n{report}",
        connections.len()
    );
    // A repeated GET is one that nginx has never seen.
    assert_eq!(connections.values().sum::<u64>(), asked);
    assert!(
        connections
            .values()
            .any(|&requests| requests == REQUESTS_PER_CONNECTION),
        "connections are used as long as nginx lets them"
    );
    assert_eq!(
        counted(&report, "retried"),
        counted(&report, "stale after take"),
        "{report}"
    );
}

/// One GET of one of the files, whose answer must be that file.
fn get(user: &mut HttpUser, files: &[Vec<u8>], ask: usize, fields: &str) {
    let number = ask % files.len();
    user.send(format!(
        "GET /{number} HTTP/1.1\r\nHost: origin.test\r\n{fields}\r\n"
    ));
    let reply = user.reply("GET");
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(
        reply.body.bytes == files[number],
        "file {number}: {} bytes",
        reply.body.bytes.len()
    );
}
