//! What a server's flags and file come to.

use super::*;

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
