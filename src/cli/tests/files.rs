//! What flags and fields win, and the files that they name.

use super::*;

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
