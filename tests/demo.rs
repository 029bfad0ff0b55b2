//! `siding demo` as its user meets it: a process, what it prints, and whether that works.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread::{self, JoinHandle},
    time::Duration,
};

/// Longer than any step takes; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A demo that runs, killed with the test.
struct Demo {
    child: Child,
    /// What it printed up to the last line of its introduction.
    introduction: String,
    lines: Receiver<String>,
    errors: JoinHandle<String>,
}

impl Demo {
    /// Starts it and waits until it has said what to try.
    fn start() -> Demo {
        let mut demo = Demo::spawn(Command::new(env!("CARGO_BIN_EXE_siding")).arg("demo"));
        while !demo.introduction.contains("Ctrl-C ends it.") {
            let line = demo.line();
            demo.introduction.push_str(&line);
        }
        demo
    }

    fn spawn(command: &mut Command) -> Demo {
        let mut child = command
            .env_remove("SIDING_TOKEN")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program was built");
        let (sender, lines) = mpsc::channel();
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        thread::spawn(move || {
            let mut line = String::new();
            while stdout.read_line(&mut line).is_ok_and(|read| read > 0) {
                let _ = sender.send(std::mem::take(&mut line));
            }
        });
        let mut stderr = child.stderr.take().expect("piped");
        let errors = thread::spawn(move || {
            let mut errors = String::new();
            let _ = stderr.read_to_string(&mut errors);
            errors
        });
        Demo {
            child,
            introduction: String::new(),
            lines,
            errors,
        }
    }

    /// The next line that it prints.
    fn line(&mut self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("another line")
    }

    /// The printed commands, in their order.
    fn commands(&self) -> Vec<&str> {
        self.introduction
            .lines()
            .filter_map(|line| line.strip_prefix("  ")?.split_once("  "))
            .map(|(_, command)| command.trim())
            .collect()
    }

    /// The command that begins so.
    fn command(&self, beginning: &str) -> &str {
        self.commands()
            .into_iter()
            .find(|command| command.starts_with(beginning))
            .expect("a printed command")
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status();
        assert!(status.expect("every system has kill").success());
    }

    /// Waits for its end: exit status, the rest of its output, its errors.
    fn end(mut self) -> (ExitStatus, String, String) {
        let mut rest = String::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => rest.push_str(&line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("it goes on after {rest:?}"),
            }
        }
        let status = self.child.wait().expect("our child");
        let errors = std::mem::replace(&mut self.errors, thread::spawn(String::new));
        (status, rest, errors.join().expect("a reader"))
    }

    #[track_caller]
    fn ends_well_by(self, signal: &str) -> String {
        self.signal(signal);
        let (status, rest, errors) = self.end();
        assert_eq!((status.code(), errors.as_str()), (Some(0), ""));
        rest
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // It has ended, unless a test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address in a printed URL.
fn of_url(url: &str) -> &str {
    let rest = url.strip_prefix("http://").expect("a URL");
    rest.split('/').next().unwrap_or(rest)
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("an open port");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream
}

/// Asks for `target`; the body of the answer, which must be a success.
fn get(stream: &mut TcpStream, target: &str, host: &str) -> String {
    let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an orderly end");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
    body.to_owned()
}

fn hello(request: u32, connection: u32) -> String {
    format!("Hello from the origin: request {request} on connection {connection}.\n")
}

fn is_installed(tool: &str) -> bool {
    Command::new("sh")
        .args(["-c", &format!("command -v {tool}")])
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// A shell that runs a line as it is, whatever proxies the environment names.
fn shell(line: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", line]);
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        command
            .env_remove(name)
            .env_remove(name.to_ascii_uppercase());
    }
    command
}

/// What a line prints; it must succeed.
fn output(line: &str) -> String {
    let output = shell(line).output().expect("a shell");
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn every_way_leads_to_its_origin_and_http_shares_one_connection() {
    let demo = Demo::start();
    let words = |beginning| -> Vec<&str> { demo.command(beginning).split(' ').collect() };
    let ["curl", page] = words("curl http:")[..] else {
        panic!("{:?}", demo.commands());
    };
    let ["curl", "-x", forward, origin] = words("curl -x")[..] else {
        panic!("{:?}", demo.commands());
    };
    let ["curl", "-p", "-x", connect_by, connect_to] = words("curl -p")[..] else {
        panic!("{:?}", demo.commands());
    };
    let ["nc", echo, port] = words("nc ")[..] else {
        panic!("{:?}", demo.commands());
    };

    let proxy = of_url(page);
    for request in 1..=3 {
        assert_eq!(get(&mut connect(proxy), "/", proxy), hello(request, 1));
    }
    let mut user = connect(of_url(forward));
    assert_eq!(get(&mut user, origin, of_url(origin)), hello(4, 1));

    let mut tunnel = connect(of_url(connect_by));
    let target = of_url(connect_to);
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    tunnel.write_all(request.as_bytes()).expect("it reads");
    let mut established = String::new();
    while !established.ends_with("\r\n\r\n") {
        let mut byte = [0];
        tunnel.read_exact(&mut byte).expect("an answer");
        established.push(byte[0].into());
    }
    assert!(established.starts_with("HTTP/1.1 200 "), "{established}");
    assert_eq!(get(&mut tunnel, "/", target), hello(1, 2));
    assert_eq!(get(&mut connect(proxy), "/", proxy), hello(5, 1));

    let mut raw = connect(&format!("{echo}:{port}"));
    raw.write_all(b"hello\n").expect("it reads");
    raw.shutdown(Shutdown::Write).expect("a connection");
    let mut echoed = String::new();
    raw.read_to_string(&mut echoed).expect("an orderly end");
    assert_eq!(echoed, "hello\n");

    // Left open, they would hold up the end: the server waits until its last words are read.
    drop((user, tunnel, raw));
    let rest = demo.ends_well_by("-INT");
    let summary = rest.lines().last().expect("a summary");
    let told = "by 3 connections to targets, 4 times reused";
    assert!(
        summary.starts_with("ended: ") && summary.ends_with(told),
        "{rest}"
    );
}

#[test]
fn the_printed_curl_lines_work_as_they_are() {
    if !is_installed("curl") {
        return;
    }
    let demo = Demo::start();
    let (page, bytes) = (
        demo.command("curl http:"),
        demo.command("curl -o /dev/null"),
    );
    let (forward, connect) = (demo.command("curl -x"), demo.command("curl -p"));
    assert_eq!(output(page), hello(1, 1));
    assert_eq!(output(page), hello(2, 1));
    assert_eq!(output(forward), hello(3, 1));
    assert_eq!(output(connect), hello(1, 2));
    assert_eq!(output(connect), hello(1, 3));
    assert_eq!(output(bytes), "");
    assert_eq!(output(page), hello(5, 1));
    demo.ends_well_by("-INT");
}

#[test]
fn the_printed_nc_line_works_as_it_is() {
    if !is_installed("nc") {
        return;
    }
    let demo = Demo::start();
    let mut nc = shell(&format!("exec {}", demo.command("nc ")))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell");
    let mut typed = nc.stdin.take().expect("piped");
    let mut shown = BufReader::new(nc.stdout.take().expect("piped"));
    for line in ["hello\n", "once more\n"] {
        typed.write_all(line.as_bytes()).expect("nc reads");
        let mut echoed = String::new();
        shown.read_line(&mut echoed).expect("nc prints");
        assert_eq!(echoed, line);
    }
    nc.kill().expect("our child");
    nc.wait().expect("our child");
    demo.ends_well_by("-INT");
}

#[test]
fn busy_ports_move_to_free_ones() {
    // Those that somebody else has are as busy.
    let held: Vec<TcpListener> = [7000, 8080, 10033, 3128, 10022]
        .into_iter()
        .filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok())
        .collect();
    let demo = Demo::start();
    let numbers: Vec<&str> = demo
        .introduction
        .split(|c: char| !c.is_ascii_digit())
        .collect();
    for listener in &held {
        let port = listener.local_addr().expect("bound").port().to_string();
        assert!(!numbers.contains(&port.as_str()), "{}", demo.introduction);
    }
    let page = demo.command("curl http:").trim_start_matches("curl ");
    let proxy = of_url(page);
    assert_eq!(get(&mut connect(proxy), "/", proxy), hello(1, 1));
    let forward = demo.command("curl -x").split(' ').nth(2);
    let origin = demo.command("curl -x").split(' ').nth(3).expect("a URL");
    let mut user = connect(of_url(forward.expect("a URL")));
    assert_eq!(get(&mut user, origin, of_url(origin)), hello(2, 1));
    drop(user);
    demo.ends_well_by("-TERM");
}

#[test]
fn what_is_under_way_may_finish_and_a_second_signal_ends_it() {
    let mut demo = Demo::start();
    let echo = demo.command("nc ").replacen("nc ", "", 1).replace(' ', ":");
    let mut raw = connect(&echo);
    let mut returned = |text: &[u8]| {
        raw.write_all(text).expect("it reads");
        let mut echoed = vec![0; text.len()];
        raw.read_exact(&mut echoed).expect("the echo answers");
        assert_eq!(echoed, text);
    };
    returned(b"before");
    demo.signal("-INT");
    let line = demo.line();
    assert!(line.starts_with("stopping: 1 stream may finish"), "{line}");
    returned(b"after");
    demo.signal("-INT");
    let (status, _, errors) = demo.end();
    assert_eq!(status.code(), Some(0));
    assert!(!errors.contains("drain deadline"), "{errors}");
}

#[test]
fn nothing_is_rewritten_where_there_is_no_terminal() {
    let demo = Demo::start();
    assert!(!demo.introduction.contains(['\r', '\x1b']));
    let rest = demo.ends_well_by("-INT");
    assert_eq!(
        rest,
        "ended: 0 B by 0 connections to targets, 0 times reused\n"
    );
}

#[test]
fn a_demo_that_cannot_start_says_why_and_ends() {
    // Standard streams, the signals' pipe, and one event loop at most: at every step one is short.
    for descriptors in [6, 8, 10, 12, 14, 16] {
        let line = format!(
            "ulimit -n {descriptors} && exec '{}' demo",
            env!("CARGO_BIN_EXE_siding")
        );
        let (status, rest, errors) = Demo::spawn(Command::new("sh").args(["-c", &line])).end();
        assert_eq!(status.code(), Some(1), "{descriptors}: {errors}");
        assert_eq!(rest, "", "{descriptors}");
        assert!(errors.contains("Too many open files"), "{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
}
