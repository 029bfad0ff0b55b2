//! What may stand beside the SPEC of a proxy, and which proxies may stand beside each other.

use super::*;

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
