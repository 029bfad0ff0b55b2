//! What a client's flags and file come to.

use super::*;

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
