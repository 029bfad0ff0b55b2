//! The program's contract with a shell: what is printed where, and with which code it ends, before
//! anything is started.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command, Output},
};

/// Runs the program to its end, with no token in its environment.
fn siding(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_siding"))
        .args(args)
        .env_remove("SIDING_TOKEN")
        .output()
        .expect("the program was built")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("messages are UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("messages are UTF-8")
}

/// Asserts wrong usage or configuration, and gives the message.
#[track_caller]
fn refused(args: &[&str]) -> String {
    let output = siding(args);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
    assert_eq!(stdout(&output), "", "{args:?}");
    stderr(&output)
}

/// A folder of its own for one test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = env::temp_dir().join(format!("siding-cli-{}-{test}", process::id()));
        fs::create_dir_all(&path).expect("the temporary folder can be written to");
        Self(path)
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, content).expect("the temporary folder can be written to");
        text(&path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder left behind in the system's temporary one harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn text(path: &Path) -> String {
    path.to_str()
        .expect("temporary folders have plain names")
        .to_owned()
}

#[test]
fn help_and_version_go_to_stdout_and_succeed() {
    for words in [
        &[][..],
        &["server"],
        &["client"],
        &["demo"],
        &["check"],
        &["check", "client"],
        &["status"],
    ] {
        let help = siding(&[words, &["--help"]].concat());
        assert_eq!(help.status.code(), Some(0), "{words:?}: {help:?}");
        assert!(
            stdout(&help).starts_with("Usage: siding"),
            "{words:?}: {help:?}"
        );
        assert_eq!(stderr(&help), "");
        let version = siding(&[words, &["--version"]].concat());
        assert_eq!(version.status.code(), Some(0), "{words:?}: {version:?}");
        assert_eq!(
            stdout(&version),
            concat!("siding ", env!("CARGO_PKG_VERSION"), "\n")
        );
        assert_eq!(stderr(&version), "");
    }
}

#[test]
fn wrong_usage_ends_with_two_and_names_the_flag() {
    for (args, expected) in [
        (&[][..], "server, client, demo, check or status"),
        (&["serve"], "serve"),
        (&["server", "--listen=nowhere"], "--listen"),
        (&["server", "--listen", "0.0.0.0:0"], "without a token"),
        (
            &["server", "--proxy", "edge-1=https:1"],
            "https:[BIND:]PORT:HOST:PORT",
        ),
        (&["server", "--admin", "0.0.0.0:0"], "--admin-token-file"),
        (&["status", "--admin", "nowhere"], "--admin"),
        (&["status", "--json=1"], "--json takes no value"),
        (&["client"], "--id"),
        (&["client", "--id", "edge 1"], "--id"),
        (
            &["client", "--id", "edge-1", "--server", "https://a"],
            "another scheme than ws and wss",
        ),
        (&["client", "--id", "edge-1", "--pool", "most"], "--pool"),
        (&["demo", "--log", "loud"], "--log"),
        (&["check", "server"], "--config"),
    ] {
        let reason = refused(args);
        assert!(reason.starts_with("siding: "), "{args:?}: {reason}");
        assert!(reason.contains(expected), "{args:?}: {reason}");
    }
}

#[test]
fn a_short_token_in_the_environment_is_refused_and_not_shown() {
    let output = Command::new(env!("CARGO_BIN_EXE_siding"))
        .args(["client", "--id", "edge-1"])
        .env("SIDING_TOKEN", "hunter2")
        .output()
        .expect("the program was built");
    assert_eq!(output.status.code(), Some(2));
    let reason = stderr(&output);
    assert!(
        reason.contains("SIDING_TOKEN") && !reason.contains("hunter2"),
        "{reason}"
    );
}

#[test]
fn a_wrong_configuration_is_named_by_file_line_and_field() {
    let folder = Folder::new("wrong");
    let file = folder.file(
        "edge.json",
        "{ \"proxies\": [\n  \"edge-1=forward:0\",\n  { \"client\": \"edge-1\",\n    \"spec\": \"tpc:1:a:2\" } ] }",
    );
    let expected = format!("{file}: line 4: proxies[1].spec: unknown kind \"tpc\"");
    for args in [
        ["server", "--config", &file].as_slice(),
        &["check", "server", "--config", &file],
    ] {
        let reason = refused(args);
        assert!(reason.starts_with(&expected), "{reason}");
    }
    let unknown = folder.file(
        "unknown.json",
        "{ \"id\": \"edge-1\",\n\"proxy\": \"127.0.0.1:0\" }",
    );
    let reason = refused(&["client", "--config", &unknown]);
    assert!(
        reason.starts_with(&format!("{unknown}: line 2: proxy: unknown field `proxy`")),
        "{reason}"
    );
}

#[test]
fn a_checked_configuration_is_ok_and_nothing_is_started() {
    let folder = Folder::new("checked");
    folder.file("edge.token", "0123456789abcdef\n");
    let server = folder.file(
        "server.json",
        r#"{ "listen": "0.0.0.0:7000", "token_file": "edge.token", "clients": [ { "id": "edge-1" } ] }"#,
    );
    let client = folder.file(
        "client.json",
        r#"{ "id": "edge-1", "allow": [ "*.example.com:443" ] }"#,
    );
    for (role, file) in [("server", &server), ("client", &client)] {
        // To have an end at all, this process must not have started to serve.
        let output = siding(&["check", role, "--config", file]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(stdout(&output), format!("{file}: ok\n"));
        assert_eq!(stderr(&output), "");
    }
    let reason = refused(&["check", "client", "--config", &server]);
    assert!(
        reason.starts_with(&format!("{server}: line 1: listen: unknown field `listen`")),
        "{reason}"
    );
}
