mod client;
mod files;
mod proxies;
mod server;
mod usage;

use std::{path::Path, time::Duration};

use super::*;
use crate::config::{
    ClientLimits, ClientTimeouts, Kind, PoolLimits, Proof, ProxyOptions, ServerLimits,
    ServerTimeouts, Spec, Terms, Token, Via,
    token::{self, tests::Folder},
};

const SERVER_JSON: &str = r#"{ "listen": "0.0.0.0:7000", "bind": "0.0.0.0", "token_file": "edge.token",
  "proxies": [ { "client": "edge-1", "spec": "tcp:10033:127.0.0.1:2222" }, { "client": "edge-1", "spec": "forward:127.0.0.1:3128" } ],
  "timeouts": { "handshake": "10s", "request_head": "30s", "request_body": "60s", "keep_alive": "60s", "half_close": "60s", "drain": "30s" },
  "limits": { "undelivered": "64MiB" } }
"#;

const CLIENT_JSON: &str = r#"{ "server": "ws://edge.example.com", "id": "edge-1", "token_file": "edge.token",
  "expose": [ "tcp:10033:127.0.0.1:2222" ], "allow": [ "127.0.0.1:3000-3010", "*.example.com:443" ],
  "timeouts": { "dial": "10s", "handshake": "10s", "response_head": "60s", "half_close": "60s", "drain": "30s" },
  "pool": { "max_idle": 1024, "max_idle_per_target": 1024, "idle": "30s", "age": "10m" },
  "limits": { "undelivered": "64MiB" } }
"#;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn parse_words(words: &[&str], variable: Option<&str>) -> Parsed {
    let args = ["siding"].iter().chain(words).map(OsString::from);
    parse_with(args, &|name| {
        let found = variable.filter(|_| name == token::VARIABLE);
        found.map(OsString::from)
    })
}

fn server_of(words: &[&str], variable: Option<&str>) -> ServerConfig {
    match parse_words(words, variable) {
        Parsed::Run(Command::Server(config), _) => *config,
        other => panic!("{words:?}: {other:?}"),
    }
}

fn client_of(words: &[&str], variable: Option<&str>) -> ClientConfig {
    match parse_words(words, variable) {
        Parsed::Run(Command::Client(config), _) => *config,
        other => panic!("{words:?}: {other:?}"),
    }
}

fn exit_of(words: &[&str], variable: Option<&str>) -> (String, u8) {
    match parse_words(words, variable) {
        Parsed::Exit { text, code } => (text, code),
        other => panic!("{words:?}: {other:?}"),
    }
}

/// The message of a usage or configuration error.
fn refusal(words: &[&str]) -> String {
    let (text, code) = exit_of(words, None);
    assert_eq!(code, 2, "{words:?}: {text}");
    text
}

fn logging_of(words: &[&str]) -> Logging {
    match parse_words(words, None) {
        Parsed::Run(_, logging) => logging,
        other => panic!("{words:?}: {other:?}"),
    }
}

fn level_of(words: &[&str]) -> Level {
    logging_of(words).level
}

fn exposed(config: &ClientConfig) -> Vec<String> {
    let specs: Vec<&Spec> = config.expose.iter().map(|exposed| &exposed.spec).collect();
    printed(&specs)
}

fn printed<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(T::to_string).collect()
}

fn secret(token: &Option<Token>) -> Option<&str> {
    token
        .as_ref()
        .map(|token| std::str::from_utf8(token.as_bytes()).unwrap())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

#[test]
fn nothing_typed_means_the_defaults() {
    let server = server_of(&["server"], None);
    assert_eq!(server.listen.to_string(), "127.0.0.1:7000");
    assert_eq!(server.bind.to_string(), "127.0.0.1");
    assert!(server.token.is_none() && server.proxies.is_empty() && server.clients.is_empty());
    let client = client_of(&["client", "--id", "edge-1"], None);
    assert_eq!(client.server.to_string(), "ws://127.0.0.1:7000");
    assert!(client.token.is_none() && client.expose.is_empty() && client.allow.rules().is_empty());
    // The demo has a screen: what goes well is not logged beside it.
    assert!(matches!(
        parse_words(&["demo"], None),
        Parsed::Run(
            Command::Demo,
            Logging {
                level: Level::Warn,
                format: LogFormat::Auto,
            }
        )
    ));
}
