//! What both roles say: in words to a person at a terminal, in lines to whoever greps, in JSON to programs.

mod common;

use std::{
    io::{self, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    process::{ChildStdin, Command, Stdio},
};

use common::{
    HttpOrigin, HttpUser, Origin, Process, Scratch, Siding, Tunnel, WebSocketPeer, connect, echoes,
    eventually, obey_no_proxy, require,
    websocket::{frame, hello, kind, siding_frame},
};
use serde_json::Value;

/// Runs a program at a terminal of its own, shows what is on it, and types what comes in. When nothing can
/// come any more nobody sits there, and the program is ended.
const TERMINAL: &str = r#"
import os, pty, select, sys
child, terminal = pty.fork()
if child == 0:
    os.execv(sys.argv[1], sys.argv[1:])
while True:
    for ready in select.select([terminal, 0], [], [])[0]:
        try:
            said = os.read(ready, 65536)
        except OSError:
            said = b""
        if ready == terminal and said:
            os.write(1, said)
        elif ready == terminal:
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        elif said:
            os.write(terminal, said)
        else:
            os.kill(child, 9)
            sys.exit(9)
"#;

/// A person who runs siding.
struct Person {
    process: Process,
    keyboard: Option<ChildStdin>,
}

impl Person {
    /// `None` where there is no Python, which knows how to make a terminal.
    fn runs(arguments: &[&str], variables: &[(&str, &str)]) -> Option<Person> {
        let mut command = Command::new(require("python3")?);
        obey_no_proxy(&mut command);
        command
            .args(["-c", TERMINAL, env!("CARGO_BIN_EXE_siding")])
            .args(arguments)
            .env_remove("SIDING_TOKEN")
            .env_remove("NO_COLOR")
            .env("TERM", "xterm-256color")
            .envs(variables.iter().copied())
            .stdin(Stdio::piped());
        let name = format!("siding {} at a terminal", arguments[0]);
        let mut process = Process::start_with(&name, &mut command);
        let keyboard = Some(process.stdin());
        Some(Person { process, keyboard })
    }

    /// Waits for a line that contains this.
    fn sees(&self, said: &str) -> String {
        self.process.log().wait_for(said)
    }

    /// Ctrl-C, and what was on the screen by the end.
    fn leaves(mut self) -> String {
        let keyboard = self.keyboard.as_mut().expect("there until the end");
        keyboard.write_all(b"\x03").expect("it is read");
        assert!(self.process.wait().success());
        self.process.log().wait_for_end();
        self.process.log().text()
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        // What runs at the terminal would stay, were the terminal's end alone killed.
        drop(self.keyboard.take());
        self.process.wait();
    }
}

/// The address that ends a line, whatever colours the screen has.
fn address_in(line: &str, before: &str) -> SocketAddr {
    let (_, rest) = line.split_once(before).expect("waited for");
    let word = rest.split_whitespace().next().expect("an address");
    word.parse().expect("an address")
}

#[test]
fn a_person_sees_who_is_connected_and_what_leads_where() {
    let origin = Origin::echo();
    let target = origin.address();
    for (variables, coloured) in [(&[][..], true), (&[("NO_COLOR", "1")], false)] {
        let Some(server) = Person::runs(&["server", "--listen", "127.0.0.1:0"], variables) else {
            return;
        };
        let link = address_in(&server.sees("clients connect to ws://"), "ws://");
        let (url, ssh) = (format!("ws://{link}"), format!("ssh:0:{target}"));
        let client = ["client", "--id", "edge-1", "--server", &url];
        let privileged = format!("http:80:{target}");
        let exposed = ["--expose", &ssh, "--expose", &privileged];
        let client = Person::runs(&[&client[..], &exposed].concat(), variables)
            .expect("there was Python before");
        client.sees(&format!("connecting to {url}"));
        client.sees(&format!("connected to {url} as edge-1"));
        server.sees("edge-1 connected from 127.0.0.1:");
        let line = client.sees("  ssh ");
        assert!(line.ends_with(&format!(" → {target}")), "{line}");
        let address = address_in(&line, "  ssh ");
        server.sees(&format!("{address} → edge-1 → {target}"));
        let error = client.sees("refused by the server");
        let warning = server.sees("expose refused");
        let user = connect(address);
        echoes(&user);
        drop(user);
        let mut screens = Vec::new();
        if coloured {
            screens.push(server.leaves());
            client.sees("the server is about to stop");
        } else {
            drop(server);
            client.sees(&format!("warning: lost the link to {url} ("));
        }
        client.sees(&format!(
            "cannot connect to {url} (target_refused); trying again in "
        ));
        screens.push(client.leaves());
        for screen in screens {
            assert!(screen.contains("served 1 session in "), "{screen}");
            // The screen's own newlines are "\r\n", and it shows ^C where that was typed.
            let odd = |c: char| c.is_control() && !"\r\n".contains(c);
            assert_eq!(screen.contains(odd), coloured, "{screen:?}");
            assert!(
                !screen.contains("[INFO]") && !screen.contains("T0"),
                "{screen}"
            );
        }
        let [error_stands_out, warning_stands_out] = match coloured {
            true => ["\x1b[1;31merror:\x1b[0m ", "\x1b[1;33mwarning:\x1b[0m "],
            false => ["Z  error: ", "Z  warning: "],
        };
        assert!(error.contains(error_stands_out), "{error:?}");
        assert!(warning.contains(warning_stands_out), "{warning:?}");
    }
}

#[test]
fn a_terminal_that_is_dumb_or_was_told_otherwise_has_plain_lines() {
    let server = ["server", "--listen", "127.0.0.1:0"];
    for (more, variables, begins) in [
        (&[][..], &[("TERM", "dumb")][..], "20"),
        (&["--log-format", "text"], &[], "20"),
        (&["--log-format", "json"], &[], "{\"time\":\"20"),
    ] {
        let Some(person) = Person::runs(&[&server[..], more].concat(), variables) else {
            return;
        };
        assert!(person.sees("listening for clients on ").starts_with(begins));
        let screen = person.leaves();
        assert!(!screen.contains('\x1b'), "{screen:?}");
        assert!(screen.contains("stopping: 0 users may finish"), "{screen}");
    }
}

#[test]
fn what_nobody_looks_at_is_plain() {
    let origin = Origin::echo();
    let mut tunnel = Tunnel::builder()
        .to("tcp", origin.address())
        .log("trace")
        .start();
    echoes(&tunnel.connect());
    for role in [&mut tunnel.client, &mut tunnel.server] {
        role.terminate();
        assert!(role.wait().success());
        role.log().wait_for_end();
        for line in role.log().lines() {
            assert!(!line.contains(char::is_control), "{line:?}");
            let (time, rest) = line.split_once(" [").expect(&line);
            assert!(
                time.starts_with("20") && time.ends_with('Z') && time.len() == 27,
                "{line}"
            );
            let (level, _) = rest.split_once("] ").expect(&line);
            assert!(
                ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&level),
                "{line}"
            );
        }
    }
}

/// The lines of a log, each of which is an object that has what each has.
fn objects(process: &Siding) -> Vec<Value> {
    let object = |line: String| {
        let object: Value = serde_json::from_str(&line).unwrap_or_else(|error| {
            panic!("{error}: {line}");
        });
        for (name, starts) in [("time", "20"), ("target", "siding"), ("message", "")] {
            let text = object[name]
                .as_str()
                .unwrap_or_else(|| panic!("{name}: {line}"));
            assert!(text.starts_with(starts), "{line}");
        }
        let level = object["level"].as_str().expect("a word");
        assert!(
            ["error", "warn", "info", "debug", "trace"].contains(&level),
            "{line}"
        );
        assert!(object.get("say").is_none(), "{line}");
        object
    };
    process.log().lines().into_iter().map(object).collect()
}

/// The first object whose message contains this.
fn about(process: &Siding, message: &str) -> Value {
    process.log().wait_for(message);
    let mut all = objects(process).into_iter();
    let found = all.find(|it| {
        it["message"]
            .as_str()
            .is_some_and(|it| it.contains(message))
    });
    found.unwrap_or_else(|| panic!("no message says {message}"))
}

/// A server and a client that log everything as JSON, and where the proxy listens.
fn in_json(target: SocketAddr, kind: &str) -> (Siding, Siding, SocketAddr, SocketAddr) {
    let format = ["--log-format", "json", "--log", "trace"];
    let server = Siding::start([&["server", "--listen", "127.0.0.1:0"][..], &format].concat());
    let address = |value: &Value| -> SocketAddr {
        let text = value["address"].as_str().expect("a field");
        text.parse().expect("an address")
    };
    let link = address(&about(&server, "listening for clients on "));
    let (url, expose) = (format!("ws://{link}"), format!("{kind}:0:{target}"));
    let client = [
        "client", "--id", "edge-1", "--server", &url, "--expose", &expose,
    ];
    let client = Siding::start([&client[..], &format].concat());
    let proxy = address(&about(&client, ": open at "));
    (server, client, link, proxy)
}

#[test]
fn a_session_is_a_line_of_json_with_all_its_numbers() {
    let origin = HttpOrigin::greeting();
    let (server, client, _, proxy) = in_json(origin.address(), "http");
    assert_eq!(HttpUser::connect(proxy).get("/").status, 200);
    let up = about(&server, ": up from ");
    assert_eq!(up["client"], "edge-1");
    assert_eq!(up["version"], env!("CARGO_PKG_VERSION"));
    assert!(
        up["peer"]
            .as_str()
            .is_some_and(|peer| peer.starts_with("127.0.0.1:"))
    );
    let opened = about(&client, ": open at ");
    assert_eq!(opened["kind"], "http");
    let [of_server, of_client] = [&server, &client].map(|role| about(role, "stream user-"));
    for session in [&of_server, &of_client] {
        assert_eq!(session["level"], "debug");
        assert_eq!(session["client"], "edge-1");
        assert_eq!(session["proxy_id"], opened["proxy_id"]);
        assert_eq!(session["reason"], "answered");
        assert!(
            session["seconds"].as_f64().is_some_and(|it| it > 0.0),
            "{session}"
        );
        assert!(
            session["user_id"]
                .as_str()
                .is_some_and(|it| it.ends_with("#1"))
        );
        for field in ["user_id", "bytes_up", "bytes_down"] {
            assert_eq!(session[field], of_server[field], "{field}");
        }
        assert!(
            session["bytes_down"]
                .as_u64()
                .is_some_and(|bytes| bytes > 0)
        );
    }
    assert_eq!(of_client["connection"], "fresh");
}

#[test]
fn whatever_strangers_say_each_line_is_an_object() {
    let origin = HttpOrigin::greeting();
    let (mut server, mut client, link, proxy) = in_json(origin.address(), "http");
    let odd = "\"\\\u{1b}[31m\r\n\u{9b}\u{7f}\u{2028}}{\u{0}😀";
    for id in [odd, "a b", "", "\"", &"é".repeat(65)] {
        let id = hello(&id.replace('\\', "\\\\").replace('"', "\\\""));
        let mut peer = WebSocketPeer::siding(link);
        peer.send_raw(&frame(0x2, &siding_frame(0, kind::HELLO, 0, &id)))
            .ok();
        peer.wait_for_refusal();
    }
    let mut version = WebSocketPeer::siding(link);
    let greeting = r#"{"id":"edge-2","version":"\u001b[2J\"\\\n","window":4096}"#;
    version
        .send_raw(&frame(
            0x2,
            &siding_frame(0, kind::HELLO, 0, greeting.as_bytes()),
        ))
        .ok();
    version.wait_for_message();
    let expose = br#"{"request":1,"spec":"tcp:0:\u001b]0;x\u0007:1\n\"","options":{}}"#;
    let frames = [
        frame(0x2, &siding_frame(0, kind::PROXY_OPEN, 0, expose)),
        frame(0x2, &siding_frame(0, kind::PROXY_OPENED, 0, odd.as_bytes())),
    ];
    version.send_raw(&frames.concat()).ok();
    version.wait_for_refusal();
    for listener in [link, proxy] {
        for said in [
            odd.as_bytes(),
            b"\x16\x03\x01\x00\xff\"\\\n",
            b"GET /\"\\\x1b HTTP/1.1\r\nHost: \"\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX\"\\: \x01\r\n\r\n",
            &[0xff; 300],
        ] {
            let mut stranger = connect(listener);
            stranger.write_all(said).ok();
            stranger.shutdown(Shutdown::Write).ok();
            io::copy(&mut stranger, &mut io::sink()).ok();
        }
    }
    // One statement is heard so often and no more: how often it was not is a number.
    let stranger = || {
        let mut stranger = TcpStream::connect(link).expect("it listens");
        stranger.write_all(b"?\r\n\r\n").ok();
        io::copy(&mut stranger, &mut io::sink()).ok();
    };
    (0..1000).for_each(|_| stranger());
    let many = eventually("a line says how many were left out", || {
        stranger();
        let lines = server.log().lines();
        lines.into_iter().find(|line| line.contains("left_out"))
    });
    let many: Value = serde_json::from_str(&many).expect("JSON");
    assert!(
        many["left_out"].as_u64().is_some_and(|lines| lines > 0),
        "{many}"
    );
    assert!(
        !many["message"]
            .as_str()
            .expect("text")
            .contains("more such")
    );
    for role in [&mut client, &mut server] {
        role.terminate();
        assert!(role.wait().success());
        role.log().wait_for_end();
        let all = objects(role);
        assert!(
            all.iter()
                .any(|it| it["streams"].is_u64() && it["bytes_up"].is_u64())
        );
        assert!(
            !role
                .log()
                .text()
                .contains(['\u{1b}', '\u{9b}', '\u{7f}', '\0'])
        );
    }
}

#[test]
fn a_reload_takes_over_how_it_is_logged() {
    let scratch = Scratch::new();
    let json = |log: &str| format!(r#"{{ "listen": "127.0.0.1:0"{log} }}"#);
    let config = scratch.write("server.json", json(""));
    let server = Siding::start(["server", "--config", &config.display().to_string()]);
    server.log().wait_for("[INFO] listening for clients on ");
    let becomes = |log: &str, said: &str| {
        let mark = server.log().mark();
        scratch.write("server.json", json(log));
        server.signal("HUP");
        server.log().wait_for_since(mark, said)
    };
    let object: Value = serde_json::from_str(&becomes(
        r#", "log": "debug", "log_format": "json""#,
        "reload: log level DEBUG, it was INFO",
    ))
    .expect("JSON");
    assert_eq!(object["level"], "info");
    let refused = becomes(r#", "log": "loud""#, "reload: nothing changed");
    let refused: Value = serde_json::from_str(&refused).expect("as it was before");
    assert_eq!(refused["level"], "error");
    becomes("", "[INFO] reload: log level INFO, it was DEBUG");
}
