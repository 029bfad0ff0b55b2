use std::time::Duration;

use super::*;
use crate::config::{
    ClientLimits, ClientTimeouts, PoolLimits, Proof, ServerLimits, ServerTimeouts, Terms,
    token::tests::Folder,
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

#[test]
fn the_servers_file_means_what_it_says() {
    let folder = Folder::new("cli-server-file");
    folder.file("edge.token", format!("{TOKEN}\n"));
    let file = folder.file("edge.json", SERVER_JSON);
    let config = server_of(&["server", "--config", text(&file)], None);
    assert_eq!(config.listen.to_string(), "0.0.0.0:7000");
    assert_eq!(config.bind.to_string(), "0.0.0.0");
    assert_eq!(secret(&config.token), Some(TOKEN));
    let proxies: Vec<String> = config
        .proxies
        .iter()
        .map(|proxy| format!("{}={}", proxy.client, proxy.spec))
        .collect();
    assert_eq!(
        proxies,
        [
            "edge-1=tcp:10033:127.0.0.1:2222",
            "edge-1=forward:127.0.0.1:3128"
        ]
    );
    assert!(config.clients.is_empty());
    assert_eq!(config.timeouts, ServerTimeouts::default());
    assert_eq!(config.limits, ServerLimits::default());
}

#[test]
fn the_clients_file_means_what_it_says() {
    let folder = Folder::new("cli-client-file");
    folder.file("edge.token", format!("{TOKEN}\r\n"));
    let file = folder.file("edge.json", CLIENT_JSON);
    let config = client_of(&["client", "--config", text(&file)], None);
    assert_eq!(config.server.to_string(), "ws://edge.example.com");
    assert_eq!(config.server.port, 80);
    assert_eq!(config.id.as_str(), "edge-1");
    assert_eq!(secret(&config.token), Some(TOKEN));
    assert_eq!(exposed(&config), ["tcp:10033:127.0.0.1:2222"]);
    assert_eq!(
        printed(config.allow.rules()),
        ["127.0.0.1:3000-3010", "*.example.com:443", "127.0.0.1:2222"]
    );
    assert_eq!(config.timeouts, ClientTimeouts::default());
    assert_eq!(config.pool, PoolLimits::default());
    assert_eq!(config.limits, ClientLimits::default());
}

#[test]
fn what_a_file_sets_is_used() {
    let folder = Folder::new("cli-values");
    let server = folder.file(
        "server.json",
        r#"{ "timeouts": { "linger": "1s" }, "limits": { "handshakes": 7 }, "proxies": [ "a=forward:1" ] }"#,
    );
    let config = server_of(&["server", "--config", text(&server)], None);
    assert_eq!(config.timeouts.linger, Duration::from_secs(1));
    assert_eq!(config.limits.handshakes, 7);
    assert_eq!(config.proxies[0].spec.to_string(), "forward:1");
    let client = folder.file(
        "client.json",
        r#"{ "id": "a", "timeouts": { "dial": "1s" }, "limits": { "dials": 7 }, "pool": { "max_idle": 0 },
             "expose": [ { "spec": "HTTP:80:a:80" } ] }"#,
    );
    let config = client_of(&["client", "--config", text(&client)], None);
    assert_eq!(config.timeouts.dial, Duration::from_secs(1));
    assert_eq!((config.limits.dials, config.pool.max_idle), (7, 0));
    assert_eq!(exposed(&config), ["http:80:a:80"]);
}

#[test]
fn options_of_a_proxy_stand_beside_its_spec() {
    let folder = Folder::new("cli-options");
    let server = folder.file(
        "server.json",
        r#"{ "proxies": [ "a=https:1:b:443",
             { "client": "a", "spec": "http:2:b:80", "host": "API.example.com:81" },
             { "client": "a", "spec": "https:3:b:443", "host": "user", "trust_forwarded": true } ] }"#,
    );
    let config = server_of(&["server", "--config", text(&server)], None);
    let options: Vec<_> = config.proxies.iter().map(|proxy| &proxy.options).collect();
    assert_eq!(*options[0], ProxyOptions::default());
    let host = |text: &str| Some(text.parse().unwrap());
    assert_eq!(options[1].host, host("api.example.com:81"));
    assert!(!options[1].trust_forwarded);
    assert_eq!(options[2].host, host("user"));
    assert!(options[2].trust_forwarded);

    let client = folder.file(
        "client.json",
        r#"{ "id": "a", "expose": [ { "spec": "http:2:b:80", "host": "target", "trust_forwarded": true } ] }"#,
    );
    let config = client_of(&["client", "--config", text(&client)], None);
    let [exposed] = &config.expose[..] else {
        panic!("{:?}", config.expose);
    };
    assert_eq!(exposed.options.host, host("target"));
    assert!(exposed.options.trust_forwarded);
}

#[test]
fn address_lists_stand_where_somebody_comes_in() {
    let folder = Folder::new("cli-addresses");
    let server = folder.file(
        "server.json",
        r#"{ "allow_from": [ "10.0.0.0/8" ], "deny_from": [ "10.9.0.0/16" ],
             "proxies": [ "a=tcp:1:b:2", { "client": "a", "spec": "ssh:22:b:22", "allow_from": [ "::1" ], "deny_from": [] },
             { "client": "a", "spec": "http:2:b:80", "deny_from": [ "192.0.2.1" ] } ] }"#,
    );
    let config = server_of(&["server", "--config", text(&server)], None);
    let address = |text: &str| text.parse().unwrap();
    assert!(config.admits_client(address("10.8.0.1")));
    assert!(!config.admits_client(address("10.9.0.1")));
    assert!(!config.admits_client(address("127.0.0.1")));
    assert!(ServerConfig::default().admits_client(address("127.0.0.1")));
    let admit = |user: &str| -> Vec<bool> {
        let proxies = config.proxies.iter();
        proxies
            .map(|proxy| proxy.options.admits(address(user)))
            .collect()
    };
    assert_eq!(admit("192.0.2.1"), [true, false, false]);
    assert_eq!(admit("::1"), [true, true, true]);

    for (json, expected) in [
        (
            "{ \"deny_from\": [ \"10.0.0.0/8\",\n\"edge\" ] }",
            "line 2: deny_from[1]: \"edge\" is not an address or a CIDR",
        ),
        (
            "{ \"proxies\": [ { \"client\": \"a\", \"spec\": \"ssh:22:b:22\",\n\"allow_from\": [ \"10.0.0.1/8\" ] } ] }",
            "line 2: proxies[0].allow_from[0]: \"10.0.0.1/8\" has bits set past its prefix",
        ),
    ] {
        let file = folder.file("wrong.json", json);
        let reason = refusal(&["check", "server", "--config", text(&file)]);
        assert!(reason.contains(expected), "{reason}");
    }
}

#[test]
fn balancers_are_named_and_targets_told_where_that_makes_sense() {
    let folder = Folder::new("cli-balancers");
    folder.file("edge.token", TOKEN);
    let server = folder.file(
        "server.json",
        r#"{ "token_file": "edge.token", "accept_proxy": [ "10.0.0.0/8" ],
             "proxies": [ { "client": "a", "spec": "ssh:22:b:22", "accept_proxy": [ "::1" ], "proxy_protocol": "v2" } ] }"#,
    );
    let config = server_of(&["server", "--config", text(&server)], None);
    let address = |text: &str| text.parse().unwrap();
    assert!(config.accept_proxy.contains(address("10.8.0.1")));
    assert!(config.accept_proxy.contains(address("::ffff:10.8.0.1")));
    assert!(!config.accept_proxy.contains(address("127.0.0.1")));
    assert!(
        !ServerConfig::default()
            .accept_proxy
            .contains(address("127.0.0.1"))
    );
    let options = &config.proxies[0].options;
    assert_eq!(options.proxy_protocol, "v2".parse().ok());
    assert!(options.accept_proxy.contains(address("::1")));

    let entry = |options: &str| format!("{{ \"client\": \"a\", \"spec\": {options} }}");
    let proxies = |entries: &[String]| format!("{{ \"proxies\": [\n{} ] }}", entries.join(",\n"));
    for (json, expected) in [
        (
            "{ \"accept_proxy\": [ \"127.0.0.1\" ] }".to_owned(),
            "line 1: accept_proxy: a server without a token is for this machine alone",
        ),
        (
            proxies(&[entry(r#""http:80:b:80", "proxy_protocol": "v1""#)]),
            "line 2: proxies[0].proxy_protocol: proxy_protocol is for the kinds tcp, ssh, telnet and tls, not for http",
        ),
        (
            proxies(&[entry(r#""tcp:80:b:80", "proxy_protocol": "v3""#)]),
            "line 2: proxies[0].proxy_protocol: \"v3\" is not a version of the PROXY protocol",
        ),
        (
            proxies(&[entry(r#""tcp:80:b:80", "accept_proxy": true"#)]),
            "line 2: proxies[0].accept_proxy: invalid type: boolean",
        ),
        (
            proxies(&[entry(r#""forward:80", "accept_proxy": [ "::1" ]"#)]),
            "line 2: proxies[0]: a forward proxy behind a balancer",
        ),
        (
            proxies(&[
                entry(r#""http:80:b:80", "hosts": [ "a.test" ], "accept_proxy": [ "::1" ]"#),
                entry(r#""http:80:c:80", "hosts": [ "b.test" ]"#),
            ]),
            "line 3: proxies[1]: proxies[0] listens on 127.0.0.1:80 already: all of a listener's proxies have the same accept_proxy",
        ),
    ] {
        let file = folder.file("wrong.json", json);
        let reason = refusal(&["check", "server", "--config", text(&file)]);
        assert!(reason.contains(expected), "{reason}");
    }
}

#[test]
fn users_are_read_from_a_file_beside_the_configuration() {
    let folder = Folder::new("cli-users");
    folder.file("people", "alice:open sesame\n");
    folder.file("wrong", "# people\nhunter2\n");
    let entry = |file: &str| {
        format!(
            "{{ \"proxies\": [ \"a=tcp:1:b:2\",\n{{ \"client\": \"a\", \"spec\": \"forward:0.0.0.0:3128\", \"users_file\": \"{file}\" }} ] }}"
        )
    };
    let server = folder.file("server.json", entry("people"));
    let config = server_of(&["server", "--config", text(&server)], None);
    let users = config.proxies[1].options.users.as_ref().expect("users");
    assert!(users.verify(b"alice", b"open sesame"));

    let client = folder.file(
        "client.json",
        r#"{ "id": "a", "expose": [ { "spec": "http:1:b:2", "users_file": "people" } ] }"#,
    );
    let config = client_of(&["client", "--config", text(&client)], None);
    let users = config.expose[0].options.users.as_ref().expect("users");
    assert!(users.verify(b"alice", b"open sesame"));

    for (file, expected) in [
        ("absent", "absent: No such file"),
        ("wrong", "wrong: line 2: is not name:password"),
    ] {
        let server = folder.file("server.json", entry(file));
        let reason = refusal(&["check", "server", "--config", text(&server)]);
        assert!(
            reason.contains("line 2: proxies[1].users_file: "),
            "{reason}"
        );
        assert!(reason.contains(expected), "{reason}");
        assert!(!reason.contains("hunter2"), "{reason}");
    }
    let json = r#"{ "proxies": [ { "client": "a", "spec": "http:1:b:2", "users": [] } ] }"#;
    let server = folder.file("server.json", json);
    let reason = refusal(&["check", "server", "--config", text(&server)]);
    assert!(
        reason.contains("proxies[0].users: unknown field `users`"),
        "{reason}"
    );
    assert!(reason.contains("`users_file`"), "{reason}");
}

#[test]
fn a_proxy_whose_users_choose_the_target_is_not_for_strangers() {
    let folder = Folder::new("cli-strangers");
    let fix = "give it users_file or allow_from";
    for words in [
        &["server", "--proxy", "a=forward:0.0.0.0:3128"][..],
        &["server", "--proxy", "a=forward:[::]:3128"],
        &["server", "--proxy", "a=socks5:0.0.0.0:1080"],
        &["server", "--bind", "0.0.0.0", "--proxy", "a=forward:3128"],
    ] {
        let reason = refusal(words);
        assert!(reason.contains(words[words.len() - 1]), "{reason}");
        assert!(reason.contains(fix), "{reason}");
    }
    server_of(
        &[
            "server",
            "--bind",
            "0.0.0.0",
            "--proxy",
            "a=forward:127.0.0.1:3128",
        ],
        None,
    );
    let json = |options: &str| {
        format!(
            "{{ \"bind\": \"0.0.0.0\",\n\"proxies\": [ {{ \"client\": \"a\", \"spec\": \"forward:3128\"{options} }} ] }}"
        )
    };
    let file = folder.file("server.json", json(""));
    let reason = refusal(&["check", "server", "--config", text(&file)]);
    assert!(
        reason.contains("line 2: proxies[0]: a forward proxy on 0.0.0.0"),
        "{reason}"
    );
    assert!(reason.contains(fix), "{reason}");
    let file = folder.file("server.json", json(r#", "allow_from": [ "10.0.0.0/8" ]"#));
    server_of(&["server", "--config", text(&file)], None);
}

#[test]
fn what_a_client_cannot_say_to_its_server_is_wrong_in_its_configuration() {
    let folder = Folder::new("cli-unsayable");
    let list = |count| vec!["\"2001:db8:1111:2222:3333:4444:5555:6666\""; count].join(", ");
    let json = |count| {
        format!(
            r#"{{ "id": "a", "expose": [ "tcp:1:b:2", {{ "spec": "ssh:22:b:22", "allow_from": [ {} ] }} ] }}"#,
            list(count)
        )
    };
    let file = folder.file("client.json", json(200));
    let reason = refusal(&["check", "client", "--config", text(&file)]);
    assert!(
        reason.contains("line 1: expose[1]: the options take"),
        "{reason}"
    );
    let file = folder.file("client.json", json(70));
    client_of(&["client", "--config", text(&file)], None);
}

#[test]
fn options_of_http_are_refused_for_other_kinds() {
    let folder = Folder::new("cli-misplaced-options");
    for (role, json, expected) in [
        (
            "server",
            "{ \"proxies\": [ \"a=tcp:1:b:2\",\n{ \"client\": \"a\", \"spec\": \"forward:3128\",\n\"host\": \"user\" } ] }",
            "line 3: proxies[1].host: host is for the kinds http and https, not for forward",
        ),
        (
            "server",
            "{ \"proxies\": [ { \"client\": \"a\", \"spec\": \"ssh:22:b:22\", \"trust_forwarded\": true } ] }",
            "line 1: proxies[0].trust_forwarded: trust_forwarded is for the kinds http and https, not for ssh",
        ),
        (
            "client",
            "{ \"id\": \"a\", \"expose\": [\n{ \"spec\": \"tcp:1:b:2\", \"host\": \"target\" } ] }",
            "line 2: expose[0].host: host is for the kinds http and https, not for tcp",
        ),
    ] {
        let file = folder.file("siding.json", json);
        let (reason, code) = exit_of(&["check", role, "--config", text(&file)], None);
        assert_eq!(code, 2);
        assert!(
            reason.ends_with(&format!("siding.json: {expected}")),
            "{reason}"
        );
    }
}

#[test]
fn flags_win_and_replace_whole_lists() {
    let folder = Folder::new("cli-precedence");
    folder.file("edge.token", TOKEN);
    let other = folder.file("other.token", "another token of 16 bytes");
    let server = folder.file("server.json", SERVER_JSON);
    let config = server_of(
        &[
            "server",
            "--config",
            text(&server),
            "--listen",
            "127.0.0.1:1",
            "--bind",
            "::1",
            "--token-file",
            text(&other),
            "--proxy",
            "b=forward:1",
            "--proxy",
            "c=forward:2",
        ],
        None,
    );
    assert_eq!(config.listen.to_string(), "127.0.0.1:1");
    assert_eq!(config.bind.to_string(), "::1");
    assert_eq!(secret(&config.token), Some("another token of 16 bytes"));
    let clients: Vec<&str> = config
        .proxies
        .iter()
        .map(|proxy| proxy.client.as_str())
        .collect();
    assert_eq!(clients, ["b", "c"]);

    let client = folder.file("client.json", CLIENT_JSON);
    let config = client_of(
        &[
            "client",
            "--config",
            text(&client),
            "--server",
            "ws://[::1]:1/x",
            "--id",
            "edge-2",
            "--expose",
            "ssh:22:10.0.0.1:22",
            "--allow",
            "a:1",
            "--allow",
            "b:2",
        ],
        None,
    );
    assert_eq!(config.server.to_string(), "ws://[::1]:1/x");
    assert_eq!(config.id.as_str(), "edge-2");
    assert_eq!(exposed(&config), ["ssh:22:10.0.0.1:22"]);
    // What the file exposes is not exposed, and so implies no rule either.
    assert_eq!(printed(config.allow.rules()), ["a:1", "b:2", "10.0.0.1:22"]);
}

#[test]
fn nobody_spins_who_was_not_told() {
    let folder = Folder::new("cli-spin");
    let server = folder.file("server.json", r#"{ "spin": 20 }"#);
    let client = folder.file("client.json", r#"{ "spin": 1000, "id": "a" }"#);
    for (words, microseconds) in [
        (&["server"][..], 0),
        (&["server", "--spin", "50"], 50),
        (&["server", "--config", text(&server)], 20),
        (&["server", "--config", text(&server), "--spin=0"], 0),
    ] {
        let spin = server_of(words, None).spin;
        assert_eq!(spin, Duration::from_micros(microseconds), "{words:?}");
    }
    for (words, microseconds) in [
        (&["client", "--id", "a"][..], 0),
        (&["client", "--id", "a", "--spin", "50"], 50),
        (&["client", "--config", text(&client)], 1_000),
        (&["client", "--config", text(&client), "--spin", "1"], 1),
    ] {
        let spin = client_of(words, None).spin;
        assert_eq!(spin, Duration::from_micros(microseconds), "{words:?}");
    }
}

#[test]
fn tokens_come_from_flag_variable_and_file_in_that_order() {
    let folder = Folder::new("cli-token-order");
    folder.file("edge.token", "from the file 1234");
    let flag = folder.file("flag.token", "from the flag 1234");
    let file = folder.file("edge.json", CLIENT_JSON);
    let config = ["client", "--config", text(&file)];
    let with_flag = [&config[..], &["--token-file", text(&flag)]].concat();
    let variable = Some("from the variable");
    assert_eq!(
        secret(&client_of(&with_flag, variable).token),
        Some("from the flag 1234")
    );
    assert_eq!(
        secret(&client_of(&config, variable).token),
        Some("from the variable")
    );
    assert_eq!(
        secret(&client_of(&config, None).token),
        Some("from the file 1234")
    );
}

#[test]
fn bad_tokens_name_where_they_came_from() {
    let folder = Folder::new("cli-token-bad");
    let file = folder.file(
        "edge.json",
        "{ \"id\": \"a\",\n\"token_file\": \"absent\" }",
    );
    let reason = refusal(&["client", "--config", text(&file)]);
    assert!(
        reason.starts_with(&format!("{}: line 2: token_file: ", text(&file))),
        "{reason}"
    );
    assert!(
        reason.contains(text(&folder.path().join("absent"))),
        "{reason}"
    );
    let short = folder.file("short", "short");
    let reason = refusal(&["client", "--id", "a", "--token-file", text(&short)]);
    assert!(reason.starts_with("siding: --token-file: "), "{reason}");
    assert!(
        reason.contains("at least 16") && !reason.contains("SIDING_TOKEN"),
        "{reason}"
    );
    let (reason, code) = exit_of(&["server"], Some("hunter2"));
    assert_eq!(code, 2);
    assert!(
        reason.starts_with("siding: SIDING_TOKEN: the token has 7 bytes"),
        "{reason}"
    );
    assert!(!reason.contains("hunter2"), "{reason}");
}

#[test]
fn without_a_token_a_server_listens_on_loopback_only() {
    for address in [
        "127.0.0.1:0",
        "127.9.9.9:1",
        "[::1]:7000",
        "[::ffff:127.0.0.1]:7000",
    ] {
        assert_eq!(
            server_of(&["server", "--listen", address], None)
                .listen
                .to_string(),
            address
        );
    }
    for address in [
        "0.0.0.0:7000",
        "[::]:7000",
        "192.168.1.1:7000",
        "[::ffff:10.0.0.1]:7000",
    ] {
        let reason = refusal(&["server", "--listen", address]);
        assert!(
            reason.starts_with("siding: --listen: a server without a token"),
            "{reason}"
        );
        assert!(
            reason.contains("--token-file, SIDING_TOKEN or token_file"),
            "{reason}"
        );
        assert_eq!(
            server_of(&["server", "--listen", address], Some(TOKEN))
                .listen
                .to_string(),
            address
        );
    }
    let folder = Folder::new("cli-loopback");
    let file = folder.file("edge.json", "{\n\n\"listen\": \"0.0.0.0:7000\" }");
    let reason = refusal(&["server", "--config", text(&file)]);
    assert!(
        reason.starts_with(&format!(
            "{}: line 3: listen: a server without",
            text(&file)
        )),
        "{reason}"
    );
    let config = [
        "server",
        "--config",
        text(&file),
        "--listen",
        "127.0.0.1:7000",
    ];
    assert_eq!(server_of(&config, None).listen.port(), 7000);
}

#[test]
fn a_client_needs_an_id_from_somewhere() {
    let reason = refusal(&["client"]);
    assert!(reason.contains("--id ID"), "{reason}");
    let folder = Folder::new("cli-id");
    let file = folder.file("edge.json", "{}");
    let reason = refusal(&["client", "--config", text(&file)]);
    assert!(
        reason.starts_with(&format!("{}: a client needs an id", text(&file))),
        "{reason}"
    );
    let config = client_of(&["client", "--config", text(&file), "--id", "a"], None);
    assert_eq!(config.id.as_str(), "a");
}

#[test]
fn listeners_that_collide_are_both_named() {
    let reason = refusal(&[
        "server",
        "--proxy",
        "a=forward:80",
        "--proxy",
        "b=forward:81",
        "--proxy",
        "b=tcp:127.0.0.1:80:x:1",
    ]);
    assert!(
        reason.contains(
            "--proxy b=tcp:127.0.0.1:80:x:1: --proxy a=forward:80 listens on 127.0.0.1:80 already"
        ),
        "{reason}"
    );
    let reason = refusal(&["server", "--proxy", "a=forward:7000"]);
    assert!(
        reason.contains("--proxy a=forward:7000: the server itself listens on 127.0.0.1:7000"),
        "{reason}"
    );
    let reason = refusal(&[
        "client",
        "--id",
        "a",
        "--expose",
        "forward:80",
        "--expose",
        "tcp:80:x:1",
    ]);
    assert!(
        reason.contains("--expose tcp:80:x:1: --expose forward:80 listens on port 80"),
        "{reason}"
    );

    let folder = Folder::new("cli-collide");
    let file = folder.file(
        "edge.json",
        "{ \"proxies\": [\n\"a=forward:80\",\n\"a=forward:0\",\n{ \"client\": \"b\", \"spec\": \"forward:80\" }] }",
    );
    let reason = refusal(&["server", "--config", text(&file)]);
    let expected = "line 4: proxies[2]: proxies[0] listens on 127.0.0.1:80 already: only proxies of http, https and tls share a listener";
    assert_eq!(reason, format!("{}: {expected}", text(&file)));
    let file = folder.file(
        "client.json",
        "{ \"id\": \"a\", \"expose\": [ \"forward:80\",\n\"forward:80\" ] }",
    );
    let reason = refusal(&["client", "--config", text(&file)]);
    assert!(
        reason.contains("line 2: expose[1]: expose[0] listens on port 80 already: only proxies"),
        "{reason}"
    );

    for (entries, expected) in [
        (
            "{ \"spec\": \"http:80:a:1\" },\n{ \"spec\": \"http:80:a:1\" }",
            "line 2: expose[1]: expose[0] listens on port 80 already: their hosts and paths are not told apart",
        ),
        (
            "{ \"spec\": \"http:80:a:1\", \"hosts\": [\"a.test\", \"b.test\"] },\n{ \"spec\": \"http:80:a:1\", \"hosts\": [\"B.test\"] }",
            "their hosts and paths are not told apart",
        ),
        #[cfg(feature = "tls")]
        (
            "{ \"spec\": \"http:80:a:1\" },\n{ \"spec\": \"tls:80:a:1\", \"hosts\": [\"a.test\"] }",
            "all of a listener's proxies speak TLS to its users, or none does",
        ),
        (
            "{ \"spec\": \"tcp:80:a:1\" },\n{ \"spec\": \"tcp:81:a:1\", \"hosts\": [\"a.test\"] }",
            "line 2: expose[1].hosts: hosts is for the kinds http, https and tls, not for tcp",
        ),
        #[cfg(feature = "tls")]
        (
            "{ \"spec\": \"tls:81:a:1\", \"paths\": [\"/a\"] }",
            "expose[0].paths: paths is for the kinds http and https, not for tls",
        ),
        (
            "{ \"spec\": \"http:81:a:1\", \"paths\": [\"/a\",\n\"/..\"] }",
            "line 2: expose[0].paths[1]: \"/..\" is not the beginning of a path",
        ),
    ] {
        let file = folder.file(
            "client.json",
            format!("{{ \"id\": \"a\", \"expose\": [ {entries} ] }}"),
        );
        let reason = refusal(&["client", "--config", text(&file)]);
        assert!(reason.contains(expected), "{reason}");
    }
    let file = folder.file(
        "client.json",
        r#"{ "id": "a", "expose": [ "http:80:a:1", { "spec": "http:80:a:2", "hosts": ["*.a.test"] },
             { "spec": "http:80:a:3", "hosts": ["*.a.test"], "paths": ["/x"] } ] }"#,
    );
    assert_eq!(
        client_of(&["client", "--config", text(&file)], None)
            .expose
            .len(),
        3
    );

    // The system chooses: nothing can collide. Nor do different addresses of one port.
    let fine = [
        "--proxy",
        "a=forward:0",
        "--proxy",
        "a=forward:0",
        "--proxy",
        "a=forward:[::1]:7000",
    ];
    assert_eq!(
        server_of(&[&["server"][..], &fine].concat(), None)
            .proxies
            .len(),
        3
    );
    assert_eq!(
        server_of(
            &[
                "server",
                "--listen",
                "127.0.0.1:0",
                "--proxy",
                "a=forward:0"
            ],
            None
        )
        .proxies
        .len(),
        1
    );
}

#[test]
fn grants_are_read_with_their_tokens() {
    let folder = Folder::new("cli-grants");
    folder.file("own.token", "a token of its own");
    let file = folder.file(
        "edge.json",
        r#"{ "bind": "127.0.0.2", "clients": [
            { "id": "own", "token_file": "own.token", "ports": "80-90", "bind": "0.0.0.0" },
            { "id": "plain" } ] }"#,
    );
    let config = server_of(&["server", "--config", text(&file)], Some(TOKEN));
    let [own, plain] = &config.clients[..] else {
        panic!("{:?}", config.clients)
    };
    assert_eq!((own.id.as_str(), &own.terms.ports), ("own", &(80..=90)));
    assert_eq!(printed(&own.terms.binds), ["0.0.0.0"]);
    assert_eq!(secret(&own.token), Some("a token of its own"));
    assert_eq!(
        (plain.id.as_str(), &plain.terms),
        ("plain", &Terms::on("127.0.0.2".parse().unwrap()))
    );
    assert!(plain.token.is_none());
    let Proof::Token(common) = config.grant(&plain.id).proof else {
        panic!("it is the common one")
    };
    assert_eq!(secret(&Some(common)), Some(TOKEN));
    // The flag is the server's bind, which is their default.
    let config = server_of(&["server", "--config", text(&file), "--bind", "::1"], None);
    assert_eq!(printed(&config.clients[1].terms.binds), ["::1"]);

    let twice = folder.file(
        "twice.json",
        "{ \"clients\": [ { \"id\": \"a\" },\n{ \"id\": \"a\" } ] }",
    );
    let reason = refusal(&["server", "--config", text(&twice)]);
    assert!(
        reason.ends_with("line 2: clients[1].id: clients[0] is about a already"),
        "{reason}"
    );
    let absent = folder.file(
        "absent.json",
        "{ \"clients\": [ { \"id\": \"a\",\n\"token_file\": \"x\" } ] }",
    );
    let reason = refusal(&["server", "--config", text(&absent)]);
    assert!(
        reason.contains("line 2: clients[0].token_file: "),
        "{reason}"
    );
}

#[test]
fn a_grant_says_what_may_be_exposed_and_where_its_token_is() {
    let folder = Folder::new("cli-terms");
    folder.file("own.token", "a token of its own");
    let config = |entry: &str| {
        folder.file(
            "edge.json",
            format!(r#"{{ "clients": [ {{ "id": "a", {entry} }} ] }}"#),
        )
    };
    let file = config(
        r#""kinds": [ "http", "TLS" ], "bind": [ "127.0.0.3", "::1" ], "max_proxies": 2,
           "token_env": "SIDING_TOKEN""#,
    );
    let server = server_of(&["server", "--config", text(&file)], Some(TOKEN));
    let own = &server.clients[0];
    assert_eq!(own.terms.kinds, Some(vec![Kind::Http, Kind::Tls]));
    assert_eq!(printed(&own.terms.binds), ["127.0.0.3", "::1"]);
    assert_eq!(own.terms.max_proxies, 2);
    assert_eq!(secret(&own.token), Some(TOKEN));
    let nothing = server_of(
        &[
            "server",
            "--config",
            text(&config(r#""kinds": [], "max_proxies": 0"#)),
        ],
        None,
    );
    assert_eq!(nothing.clients[0].terms.kinds, Some(Vec::new()));
    for (entry, expected) in [
        (
            r#""kinds": [ "ftp" ]"#,
            "clients[0].kinds[0]: unknown kind \"ftp\"",
        ),
        (r#""kinds": "http""#, "clients[0].kinds: "),
        (r#""bind": []"#, "clients[0].bind: a list of no address"),
        (r#""bind": [ "*" ]"#, "clients[0].bind[0]: "),
        (
            r#""max_proxies": 1001"#,
            "clients[0].max_proxies: 1001 is outside 0 to 1000",
        ),
        (
            r#""token_env": "SIDING_TOKEN""#,
            "clients[0].token_env: the variable \"SIDING_TOKEN\" is not set",
        ),
        (
            r#""token_env": "A", "token_file": "own.token""#,
            "clients[0].token_env: token_file says where the token is already",
        ),
    ] {
        let reason = refusal(&["server", "--config", text(&config(entry))]);
        assert!(reason.contains(expected), "{entry}: {reason}");
    }
    let (reason, _) = exit_of(
        &[
            "server",
            "--config",
            text(&config(r#""token_env": "SIDING_TOKEN""#)),
        ],
        Some("short secret"),
    );
    assert!(reason.contains("at least 16"), "{reason}");
    assert!(!reason.contains("short secret"), "{reason}");
}

#[test]
fn tokens_of_each_client_are_as_good_as_a_common_one() {
    let folder = Folder::new("cli-each-token");
    folder.file("a.token", "the token of client a");
    let file = |more: &str, rest: &str| {
        folder.file(
            "edge.json",
            format!(
                r#"{{ "listen": "0.0.0.0:7000", {rest}
                "clients": [ {{ "id": "a", "token_file": "a.token" }} {more} ] }}"#
            ),
        )
    };
    let each = file("", "");
    assert!(
        server_of(&["server", "--config", text(&each)], None)
            .token
            .is_none()
    );
    let one_without = file(r#", { "id": "b" }"#, "");
    let reason = refusal(&["server", "--config", text(&one_without)]);
    assert!(
        reason.contains("listen: a server without a token"),
        "{reason}"
    );
    let (more, rest) = (r#", { "id": "b" }"#, r#""token_file": "a.token","#);
    let _common = server_of(&["server", "--config", text(&file(more, rest))], None);

    let of_b = r#""proxies": [ "a=tcp:1:x:1", "b=tcp:2:x:1" ],"#;
    let reason = refusal(&["server", "--config", text(&file("", of_b))]);
    assert!(
        reason.contains("proxies[1]: client b could never link"),
        "{reason}"
    );
    let each = file("", "");
    let words = ["server", "--config", text(&each), "--proxy", "b=tcp:2:x:1"];
    let reason = refusal(&words);
    assert!(reason.contains("--proxy b=tcp:2:x:1: client b"), "{reason}");
}

#[test]
fn check_says_ok_or_what_is_wrong() {
    let folder = Folder::new("cli-check");
    folder.file("edge.token", TOKEN);
    let server = folder.file("server.json", SERVER_JSON);
    let client = folder.file("client.json", CLIENT_JSON);
    for words in [
        ["check", "server", "--config", text(&server)],
        ["check", "--config", text(&server), "server"],
        ["check", "client", "--config", text(&client)],
    ] {
        let (answer, code) = exit_of(&words, None);
        assert_eq!(code, 0, "{answer}");
        assert!(answer.ends_with(".json: ok"), "{answer}");
    }
    let (answer, _) = exit_of(
        &[
            "check",
            "--log=debug",
            "server",
            &format!("--config={}", text(&server)),
        ],
        None,
    );
    assert_eq!(answer, format!("{}: ok", text(&server)));
    let reason = refusal(&["check", "client", "--config", text(&server)]);
    assert!(
        reason.starts_with(&format!("{}: line 1: listen: unknown field", text(&server))),
        "{reason}"
    );
    let open = folder.file("open.json", "{ \"listen\": \"0.0.0.0:1\" }");
    assert!(
        refusal(&["check", "server", "--config", text(&open)])
            .contains("line 1: listen: a server without")
    );
    let reason = refusal(&[
        "check",
        "client",
        "--config",
        text(&folder.path().join("absent")),
    ]);
    assert!(reason.contains("No such file"), "{reason}");
    for words in [
        &["check"][..],
        &["check", "server"],
        &["check", "--config", text(&server)],
        &["check", "demo", "--config", "x"],
    ] {
        assert!(refusal(words).starts_with("siding: "), "{words:?}");
    }
}

#[test]
fn levels_stand_before_or_after_the_command_or_in_the_file() {
    let folder = Folder::new("cli-log");
    let file = folder.file("edge.json", "{ \"log\": \"warn\" }");
    let config = format!("--config={}", text(&file));
    for (words, expected) in [
        (&["demo"][..], Level::Warn),
        (&["--log", "debug", "demo"], Level::Debug),
        (&["--log=debug", "demo"], Level::Debug),
        (&["demo", "--log", "trace"], Level::Trace),
        (&["demo", "--log=trace"], Level::Trace),
        (&["--log", "error", "demo", "--log", "warn"], Level::Warn),
        (&["--log", "error", "server"], Level::Error),
        (&["client", "--id", "a", "--log", "error"], Level::Error),
        (&["server", &config], Level::Warn),
        (&["server", &config, "--log", "debug"], Level::Debug),
        (&["--log", "debug", "server", &config], Level::Debug),
    ] {
        assert_eq!(level_of(words), expected, "{words:?}");
    }
    // How a line looks goes by the same rule.
    let folder = Folder::new("cli-log-format");
    let json = r#"{ "id": "a", "log": "debug", "log_format": "json" }"#;
    let file = folder.file("client.json", json);
    let format = |words: &[&str]| logging_of(words).format;
    let configured = ["client", "--config", text(&file)];
    assert_eq!(format(&configured), LogFormat::Json);
    let typed = [&configured[..], &["--log-format", "text"]].concat();
    assert_eq!(format(&typed), LogFormat::Text);
    let early = [&["--log-format=human"], &configured[..]].concat();
    assert_eq!(format(&early), LogFormat::Human);
    assert_eq!(format(&["server"]), LogFormat::Auto);
    assert_eq!(format(&["demo", "--log-format", "json"]), LogFormat::Json);
    // A role knows what it was told: a new configuration may say otherwise.
    let config = client_of(&configured, None);
    assert_eq!(config.log, logging_of(&configured));
    assert_eq!(config.log.level, Level::Debug);
    assert!(refusal(&["server", "--log-format", "logfmt"]).contains("auto, text, json or human"));
    folder.file("client.json", r#"{ "id": "a", "log_format": "xml" }"#);
    assert!(refusal(&configured).contains("line 1: log_format: \"xml\" is not a format"));
    for words in [
        &["demo", "--log", "loud"][..],
        &["--log", "off", "demo"],
        &["demo", "--log"],
    ] {
        assert!(refusal(words).contains("--log"), "{words:?}");
    }
}

#[test]
fn flags_take_their_value_after_an_equals_sign_too() {
    let config = server_of(
        &[
            "server",
            "--listen=[::1]:1",
            "--proxy=edge-1=tcp:1:a:2",
            "--proxy",
            "edge-2=tcp:2:a:2",
        ],
        None,
    );
    assert_eq!(config.listen.to_string(), "[::1]:1");
    assert_eq!(config.proxies[0].client.as_str(), "edge-1");
    assert_eq!(config.proxies[1].client.as_str(), "edge-2");
    let config = client_of(
        &["client", "--id=a", "--server=ws://h/?a=b", "--allow=*:*"],
        None,
    );
    assert_eq!(config.server.to_string(), "ws://h/?a=b");
}

#[test]
fn only_flags_are_split() {
    let given = |args: &[&str]| match split(args.iter().map(OsString::from)).unwrap() {
        Split::Args(args) => args,
        Split::Version => panic!("{args:?}"),
    };
    for (args, expected) in [
        (&["server", "--a=b=c"][..], &["server", "--a", "b=c"][..]),
        (&["--a="], &["--a", ""]),
        (&["--a", "--b=c", "--d=e"], &["--a", "--b=c", "--d", "e"]),
        (&["--a", "--version"], &["--a", "--version"]),
        (&["--a", "--help"], &["--a", "--help"]),
        (&["--a=1", "--b"], &["--a", "1", "--b"]),
        (&["-a=b", "c=d"], &["-a=b", "c=d"]),
        (&["--", "--a=b", "--version"], &["--", "--a=b", "--version"]),
        (
            &["server", "--a", "b", "--help", "--c=d"],
            &["server", "--help"],
        ),
        (&[], &[]),
    ] {
        assert_eq!(given(args), expected, "{args:?}");
    }
    // A value that looks like a flag is a value: here of a file that is not there.
    assert!(refusal(&["server", "--token-file", "--x=y"]).contains("--token-file: --x=y: "));
}

#[test]
fn help_and_version_are_everywhere() {
    let version = concat!("siding ", env!("CARGO_PKG_VERSION"));
    for words in [
        &[][..],
        &["server"],
        &["client"],
        &["demo"],
        &["check"],
        &["check", "server"],
        &["server", "--listen", "nonsense"],
    ] {
        assert_eq!(
            exit_of(&[words, &["--version"]].concat(), None),
            (version.to_owned(), 0)
        );
        let (help, code) = exit_of(&[words, &["--help"]].concat(), None);
        assert_eq!(code, 0, "{help}");
        let command = words
            .first()
            .map_or(String::new(), |command| format!(" {command}"));
        assert!(
            help.starts_with(&format!("Usage: siding{command} ")),
            "{help}"
        );
    }
    for words in [["server", "--help=x"], ["server", "--version=1"]] {
        assert!(refusal(&words).contains("takes no value"));
    }
}

#[test]
fn help_lists_every_flag_and_nothing_that_is_not_available() {
    for (command, flags) in [
        (
            "server",
            &[
                "--listen",
                "--token-file",
                "--bind",
                "--cert",
                "--key",
                "--client-ca",
                "--proxy",
                "--memory-max",
                "--spin",
                "--admin",
                "--admin-token-file",
                "--config",
                "--log",
            ][..],
        ),
        (
            "client",
            &[
                "--server",
                "--via",
                "--id",
                "--token-file",
                "--expose",
                "--allow",
                "--ca",
                "--cert",
                "--key",
                "--target-ca",
                "--pool",
                "--memory-max",
                "--spin",
                "--admin",
                "--admin-token-file",
                "--config",
                "--log",
            ],
        ),
        ("demo", &["--log"]),
        ("check", &["--config", "--log"]),
        #[cfg(feature = "admin")]
        (
            "status",
            &[
                "--admin",
                "--admin-token-file",
                "--json",
                "--watch",
                "--log",
            ],
        ),
    ] {
        let (help, _) = exit_of(&[command, "--help"], None);
        for flag in flags {
            // What is long has its text on the next line.
            let stands = [' ', '\n'].map(|after| help.contains(&format!("\n  {flag}{after}")));
            assert!(stands.contains(&true), "{flag}: {help}");
        }
    }
    let (help, _) = exit_of(&["--help"], None);
    for command in [
        "server",
        "client",
        "demo",
        "check",
        #[cfg(feature = "admin")]
        "status",
        "--log",
        "--version",
    ] {
        assert!(
            help.contains(&format!("\n  {command} ")),
            "{command}: {help}"
        );
    }
}

#[test]
fn the_way_to_the_server_comes_from_flag_field_and_variable_in_that_order() {
    let folder = Folder::new("via");
    let file = folder.file(
        "client.json",
        r#"{ "server": "ws://edge.example", "via": "http://u:secret@field:1" }"#,
    );
    let bare = folder.file("bare.json", r#"{ "server": "ws://edge.example" }"#);
    let via = |words: &[&str]| {
        let words = [&["client", "--id", "a"], words].concat();
        let args = ["siding"].iter().chain(&words).map(OsString::from);
        match parse_with(args, &|name| {
            (name == "http_proxy").then(|| "variable:2".into())
        }) {
            Parsed::Run(Command::Client(config), _) => {
                assert!(!format!("{config:?}").contains("secret"));
                config.via
            }
            other => panic!("{words:?}: {other:?}"),
        }
    };
    let proxy = |url: &str| url.parse().expect(url);
    let (file, bare) = (text(&file), text(&bare));
    assert_eq!(
        via(&["--config", file, "--via", "http://flag:3"]),
        Via::Proxy(proxy("http://flag:3"))
    );
    assert_eq!(via(&["--config", file, "--via=direct"]), Via::Direct);
    assert_eq!(
        via(&["--config", file]),
        Via::Proxy(proxy("http://u:secret@field:1"))
    );
    assert_eq!(
        via(&["--config", bare]),
        Via::Variable("http_proxy", proxy("http://variable:2"))
    );
    // Its own machine is nobody's to lead to, unless that is said.
    assert_eq!(via(&[]), Via::Direct);
    assert_eq!(
        via(&["--via", "http://flag:3"]),
        Via::Proxy(proxy("http://flag:3"))
    );
}

#[test]
fn a_proxy_that_cannot_be_used_is_refused_without_its_password() {
    let reason = refusal(&["client", "--id", "a", "--via", "socks5://u:secret@b"]);
    assert!(reason.contains("--via: the proxy"), "{reason}");
    assert!(reason.contains("only http"), "{reason}");
    assert!(!reason.contains("secret"), "{reason}");
    let folder = Folder::new("via-field");
    let file = folder.file(
        "client.json",
        "{ \"id\": \"a\",\n\"via\": \"http://u:secret%@b\" }",
    );
    let reason = refusal(&["client", "--config", text(&file)]);
    assert!(reason.contains("line 2: via: "), "{reason}");
    assert!(!reason.contains("secret"), "{reason}");
}

#[test]
fn what_the_upgrade_says_is_checked_where_it_stands() {
    let folder = Folder::new("headers");
    let file = folder.file(
        "good.json",
        r#"{ "id": "a", "host": "Edge.example", "headers": { "X-Edge": "1" } }"#,
    );
    let config = client_of(&["client", "--config", text(&file)], None);
    assert_eq!(config.host.unwrap().to_string(), "edge.example");
    assert_eq!(Vec::from_iter(config.headers.iter()), [("X-Edge", "1")]);
    for (json, expected) in [
        ("\"headers\": { \"Host\": \"b\" }", "as the field host"),
        ("\"headers\": { \"Upgrade\": \"h2c\" }", "itself says"),
        ("\"host\": \"b c\"", "host: HOST \"b c\" is not a name"),
    ] {
        let file = folder.file("bad.json", format!("{{ \"id\": \"a\",\n{json} }}"));
        let reason = refusal(&["client", "--config", text(&file)]);
        assert!(reason.contains("line 2: "), "{reason}");
        assert!(reason.contains(expected), "{reason}");
    }
}

#[test]
fn wrong_usage_is_refused_with_the_flag_named() {
    for (words, expected) in [
        (&[][..], "a command is missing"),
        (&["sever"], "sever"),
        (&["server", "extra"], "extra"),
        (&["demo", "--listen", "127.0.0.1:1"], "--listen"),
        (&["server", "--id", "a"], "--id"),
        (&["server", "--listen"], "--listen"),
        (
            &["server", "--listen", "7000"],
            "'--listen' with value '7000': \"7000\" is not ADDR:PORT",
        ),
        (
            &[
                "server",
                "--listen",
                "127.0.0.1:1",
                "--listen",
                "127.0.0.1:2",
            ],
            "--listen",
        ),
        (&["server", "--bind=*"], "'--bind' with value '*'"),
        (&["server", "--proxy", "forward:1"], "is not CLIENT=SPEC"),
        (
            &["server", "--proxy", "a b=forward:1"],
            "is not a client id",
        ),
        (
            &["server", "--proxy", "a=tpc:1:b:2"],
            "accepted are tcp, ssh, telnet, http, https, forward",
        ),
        (
            &["server", "--proxy", "a=https:1"],
            "is not https:[BIND:]PORT:HOST:PORT",
        ),
        (&["client", "--id", ""], "'--id'"),
        (
            &["client", "--id", "a", "--expose", "https:1:b:0"],
            "is not a number from 1 to 65535",
        ),
        (
            &["client", "--id", "a", "--server", "https://b"],
            "another scheme than ws and wss",
        ),
        (
            &["client", "--id", "a", "--allow", "10.0.0.1/8:1"],
            "write 10.0.0.0/8",
        ),
        (&["server", "--admin", "localhost:1"], "--admin"),
        (&["client", "--id", "a", "--admin=7001"], "--admin"),
        (&["client", "--id", "a", "--pool", "some"], "--pool"),
        (&["server", "--memory-max", "1MiB"], "at least 4MiB"),
        (
            &["client", "--id", "a", "--memory-max", "all"],
            "--memory-max",
        ),
        (
            &["server", "--spin", "1001"],
            "'--spin' with value '1001': \"1001\" is not a number of microseconds from 0 to 1000",
        ),
        (&["client", "--id", "a", "--spin", "50us"], "--spin"),
        (&["client", "--id", "a", "--ca", "x"], "--ca"),
        (&["client", "--id", "a", "--target-ca", "x"], "--target-ca"),
        (&["server", "--cert", "x", "--key", "y"], "--cert"),
        (
            &["server", "--config", "/nonexistent/edge.json"],
            "/nonexistent/edge.json: ",
        ),
    ] {
        let reason = refusal(words);
        assert!(reason.contains(expected), "{words:?}: {reason}");
    }
}

#[cfg(unix)]
#[test]
fn arguments_that_are_not_utf8_are_refused() {
    use std::os::unix::ffi::OsStringExt;

    let args = [
        "siding".into(),
        "server".into(),
        OsString::from_vec(b"--bind=\xff".to_vec()),
    ];
    let Parsed::Exit { text, code } = parse_with(args.into_iter(), &|_| None) else {
        panic!()
    };
    assert_eq!(code, 2);
    assert!(text.contains("not UTF-8"), "{text}");
}

#[cfg(feature = "tls")]
#[test]
fn certificates_come_with_their_keys() {
    let folder = Folder::new("cli-certificates");
    let pair = |name: &str| {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a name");
        (
            folder.file(&format!("{name}.pem"), made.cert.pem()),
            folder.file(&format!("{name}.key"), made.signing_key.serialize_pem()),
        )
    };
    let (certificate, key) = pair("a.test");
    let (_, other_key) = pair("b.test");
    let (certificate, key) = (text(&certificate), text(&key));
    let config = server_of(
        &[
            "server",
            "--cert",
            certificate,
            "--key",
            key,
            "--client-ca",
            certificate,
        ],
        None,
    );
    assert_eq!(
        (config.identities.len(), config.client_ca.is_some()),
        (1, true)
    );
    let config = client_of(
        &[
            "client",
            "--id",
            "a",
            "--cert",
            certificate,
            "--key",
            key,
            "--ca",
            certificate,
        ],
        None,
    );
    assert!(config.identity.is_some() && config.ca.is_some());
    let file = folder.file(
        "server.json",
        r#"{ "cert": "a.test.pem", "key": "a.test.key",
             "certificates": [ { "cert": "b.test.pem", "key": "b.test.key" } ],
             "proxies": [ { "client": "a", "spec": "http:1:b:2", "tls": true } ] }"#,
    );
    let config = server_of(&["server", "--config", text(&file)], None);
    assert_eq!(config.identities.len(), 2);
    assert!(config.proxies[0].options.tls);

    for (arguments, expected) in [
        (
            &["server", "--cert", certificate][..],
            "--cert: its key is missing",
        ),
        (
            &["server", "--key", key],
            "--key: its certificate is missing",
        ),
        (
            &["server", "--cert", certificate, "--key", text(&other_key)],
            "b.test.key: keys may not be consistent",
        ),
        (
            &["server", "--cert", key, "--key", key],
            "holds no certificate in PEM",
        ),
        (
            &["server", "--cert", certificate, "--key", certificate],
            "holds no private key in PEM",
        ),
        (
            &["server", "--client-ca", certificate],
            "--client-ca: clients show certificates to a server that has one",
        ),
        (
            &["client", "--id", "a", "--cert", certificate],
            "--cert: its key is missing",
        ),
    ] {
        let reason = refusal(arguments);
        assert!(reason.contains(expected), "{arguments:?}: {reason}");
    }
    for (role, json, expected) in [
        (
            "server",
            "{ \"certificates\": [\n{ \"cert\": \"a.test.pem\", \"key\": \"absent\" } ] }",
            "line 2: certificates[0]: ",
        ),
        (
            "server",
            "{ \"proxies\": [ \"a=tcp:1:b:2\",\n{ \"client\": \"a\", \"spec\": \"http:2:b:2\", \"tls\": true } ] }",
            "line 2: proxies[1].tls: TLS needs a certificate",
        ),
        (
            "client",
            "{ \"id\": \"a\",\n\"key\": \"a.test.key\" }",
            "line 2: key: its certificate",
        ),
    ] {
        let file = folder.file("refused.json", json);
        let reason = refusal(&[role, "--config", text(&file)]);
        assert!(reason.contains(expected), "{json}: {reason}");
    }
}
