//! Python, from both ends: `http.server` as an origin (HTTP/1.0 as it comes, and 1.1), `http.client` as
//! a user.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    thread,
};

use crate::{
    SESSION,
    common::{HttpUser, Pattern, Process, Scratch, Tunnel, require, run},
    counted,
    node::Node,
    pool_report,
};

/// The user: each function of it is one conversation.
const USER: &str = include_str!("user.py");

/// A server of `http.server`, with its own handler for files.
const SERVER: &str = "\
import functools, http.server, sys
server, protocol, directory = sys.argv[1:]
handler = http.server.SimpleHTTPRequestHandler
handler.protocol_version = protocol
handler = functools.partial(handler, directory=directory)
with getattr(http.server, server)(('127.0.0.1', 0), handler) as server:
    print('Serving HTTP on 127.0.0.1 port', server.server_port, flush=True)
    server.serve_forever()
";

/// Python's `http.server`, over a directory of its own.
struct Python {
    process: Process,
    address: SocketAddr,
    _directory: Scratch,
}

impl Python {
    /// `python3 -m http.server`: HTTP/1.0, a thread for each connection.
    fn module() -> Option<Self> {
        let mut command = Command::new(require("python3")?);
        command.args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]);
        Some(Self::launch(|directory| {
            command.arg("--directory").arg(directory.directory());
            command
        }))
    }

    /// A class of `http.server`, with this `protocol_version`.
    fn server(class: &str, protocol: &str) -> Option<Self> {
        let mut command = Command::new(require("python3")?);
        command.args(["-u", "-c", SERVER, class, protocol]);
        Some(Self::launch(|directory| {
            command.arg(directory.directory());
            command
        }))
    }

    fn launch(complete: impl FnOnce(&Scratch) -> Command) -> Self {
        let directory = Scratch::new();
        directory.write("file", file());
        directory.write("page.html", "a page\n");
        let process = Process::start("http.server", &mut complete(&directory));
        let line = process.log().wait_for("Serving HTTP on 127.0.0.1 port ");
        let port = line
            .split_whitespace()
            .nth(5)
            .and_then(|it| it.parse().ok());
        let port: u16 = port.unwrap_or_else(|| panic!("no port in {line:?}"));
        Self {
            process,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            _directory: directory,
        }
    }
}

/// Longer than a batch of the link and a window.
fn file() -> Vec<u8> {
    Pattern::bytes(1, 300_000)
}

/// Listing, file, page, HEAD, what is not there, and what `http.server` does not do; on one connection
/// of the user, whatever the origin does with its own.
fn browse(tunnel: &Tunnel) {
    let mut user = HttpUser::connect(tunnel.address());
    let listing = user.get("/");
    assert_eq!(listing.status, 200);
    assert!(
        listing
            .text()
            .contains("<a href=\"page.html\">page.html</a>")
    );
    let reply = user.get("/file");
    assert!(reply.body.bytes == file());
    assert_eq!((&*reply.version, reply.status), ("HTTP/1.1", 200));
    assert_eq!(user.get("/page.html").text(), "a page\n");
    user.send("HEAD /file HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = user.reply("HEAD");
    assert_eq!(head.field("content-length"), Some("300000"));
    assert_eq!(user.get("/nothing").status, 404);
    let since = reply.field("last-modified").expect("it has a date");
    user.send(format!(
        "GET /file HTTP/1.1\r\nHost: a\r\nIf-Modified-Since: {since}\r\n\r\n"
    ));
    assert_eq!(user.reply("GET").status, 304);
    // http.server answers before it has read the body, and never reads it.
    user.send("POST /file HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(user.reply("POST").status, 501);
}

#[test]
fn the_module_http_server_serves_listings_and_files_and_is_never_parked() {
    let Some(python) = Python::module() else {
        return;
    };
    let mut tunnel = Tunnel::to("http", python.address);
    for _ in 0..3 {
        browse(&tunnel);
    }
    python.process.log().wait_for("\"GET /file HTTP/1.1\" 200");
    let report = pool_report(&mut tunnel);
    assert_eq!(counted(&report, "parked"), 0, "HTTP/1.0 closes: {report}");
}

#[test]
fn http_server_in_http_1_1_is_parked_and_reused() {
    let Some(python) = Python::server("ThreadingHTTPServer", "HTTP/1.1") else {
        return;
    };
    // However late a POST comes on a busy machine.
    let tunnel = Tunnel::builder().to("http", python.address);
    let mut tunnel = tunnel.client_argument("--pool=always").start();
    for _ in 0..3 {
        browse(&tunnel);
    }
    let report = pool_report(&mut tunnel);
    // Of each seven, the errors 404 and 501 say Connection: close, and the others let go on.
    assert_eq!(counted(&report, "hits"), 15, "{report}");
    assert_eq!(counted(&report, "misses"), 6, "{report}");
}

#[test]
fn a_server_of_one_thread_serves_many_users_by_one_connection_where_it_is_known_to_have_but_one() {
    let Some(python) = Python::server("HTTPServer", "HTTP/1.1") else {
        return;
    };
    // While one connection is open it accepts no other.
    let tunnel = Tunnel::builder()
        .to("http", python.address)
        .client_config(r#"{ "pool": { "max_active_per_target": 1, "queue_per_target": 100 } }"#);
    let mut tunnel = tunnel.start();
    let proxy = tunnel.address();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(move || {
                for _ in 0..5 {
                    let reply = HttpUser::connect(proxy).get("/file");
                    assert!(reply.body.bytes == file(), "{}", reply.status);
                }
            });
        }
    });
    let report = pool_report(&mut tunnel);
    assert_eq!(counted(&report, "misses"), 1, "{report}");
    assert_eq!(counted(&report, "hits"), 39, "{report}");
}

#[test]
fn http_client_keeps_its_connection_uploads_in_chunks_and_pipelines_and_speaks_http_1_0() {
    let (Some(python), Some(node)) = (require("python3"), Node::start()) else {
        return;
    };
    let tunnel = Tunnel::to("http", node.address());
    let mut command = Command::new(python);
    let scratch = Scratch::new();
    command
        .arg(scratch.write("user.py", USER))
        .arg(tunnel.address().port().to_string());
    let ended = run(&mut command, Vec::new(), SESSION).succeeded();
    assert_eq!(
        ended.text(),
        "keep_alive\nchunked_upload\nexpect_nothing\npipelining\nhttp_1_0\nchunked_for_http_1_0\ntrailers\n"
    );
}
