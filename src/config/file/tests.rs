use super::*;

fn document(text: &str) -> Document {
    Document {
        path: PathBuf::from("conf/edge.json"),
        text: text.to_owned(),
    }
}

fn server_error(text: &str) -> String {
    document(text)
        .decode::<ServerFile>()
        .expect_err(text)
        .to_string()
}

fn client_error(text: &str) -> String {
    document(text)
        .decode::<ClientFile>()
        .expect_err(text)
        .to_string()
}

#[test]
fn unknown_fields_are_named_at_every_level() {
    for (text, expected) in [
        (
            "{\n\"admins\": \"127.0.0.1:7001\" }",
            "line 2: admins: unknown field `admins`",
        ),
        ("{ \"pool\": {} }", "line 1: pool: unknown field `pool`"),
        ("{ \"proxy\": [] }", "line 1: proxy: unknown field `proxy`"),
        (
            "{ \"timeouts\": {\n \"ping\": \"1s\",\n \"dial\": \"1s\" } }",
            "line 3: timeouts.dial: unknown field `dial`",
        ),
        (
            "{ \"limits\": { \"dials\": 1 } }",
            "line 1: limits.dials: unknown field `dials`",
        ),
        (
            "{ \"proxies\": [ { \"client\": \"a\", \"spec\": \"forward:1\" },\n{ \"client\": \"a\", \"spec\": \"forward:1\",\n\"mode\": 1 } ] }",
            "line 3: proxies[1].mode: unknown field `mode`",
        ),
        (
            "{ \"clients\": [ { \"id\": \"a\", \"token\": \"x\" } ] }",
            "line 1: clients[0].token: unknown field `token`",
        ),
    ] {
        let reason = server_error(text);
        assert!(reason.starts_with("conf/edge.json: "), "{reason}");
        assert!(reason.contains(expected), "{reason}");
    }
    for (text, expected) in [
        ("{ \"bind\": 1 }", "line 1: bind: unknown field `bind`"),
        (
            "{ \"listen\": 1 }",
            "line 1: listen: unknown field `listen`",
        ),
        (
            "{ \"client_ca\": 1 }",
            "line 1: client_ca: unknown field `client_ca`",
        ),
        (
            "{\n\n\"pool\": { \"size\": \"safe\" } }",
            "line 3: pool.size: unknown field `size`",
        ),
        (
            "{ \"timeouts\": { \"linger\": \"1s\" } }",
            "timeouts.linger: unknown field `linger`",
        ),
        (
            "{ \"limits\": { \"handshakes\": 1 } }",
            "limits.handshakes: unknown field",
        ),
        (
            "{ \"expose\": [ { \"spec\": \"forward:1\", \"kind\": 1 } ] }",
            "line 1: expose[0].kind: unknown field `kind`",
        ),
    ] {
        let reason = client_error(text);
        assert!(reason.contains(expected), "{reason}");
    }
}

#[test]
fn unknown_fields_are_answered_with_what_is_known_in_this_version() {
    let server = server_error("{ \"x\": 1 }");
    let client = client_error("{ \"x\": 1 }");
    assert!(
        server.contains("`listen`, `bind`, `token_file`, `cert`, `key`, `certificates`"),
        "{server}"
    );
    assert!(
        client.contains("`server`, `via`, `host`, `headers`"),
        "{client}"
    );
    for absent in ["proxy", "mode"] {
        assert!(!server.contains(&format!("`{absent}`")), "{server}");
        assert!(!client.contains(&format!("`{absent}`")), "{client}");
    }
}

#[test]
fn refused_values_are_named_by_line_and_path() {
    for (text, expected) in [
        (
            "{ \"listen\": \"localhost:7000\" }",
            "line 1: listen: \"localhost:7000\" is not ADDR:PORT",
        ),
        (
            "{ \"admin\": 7001 }",
            "line 1: admin: invalid type: integer `7001`, expected a string ADDR:PORT",
        ),
        (
            "{ \"listen\": 7000 }",
            "line 1: listen: invalid type: integer `7000`, expected a string ADDR:PORT",
        ),
        (
            "{\n\"listen\": [\n] }",
            "line 2: listen: invalid type: sequence",
        ),
        (
            "{ \"bind\": \"*\" }",
            "line 1: bind: BIND \"*\" is not an address",
        ),
        (
            "{ \"log\": \"loud\" }",
            "line 1: log: \"loud\" is not a level",
        ),
        (
            "{\n\"proxies\": [\n{ \"client\": \"a\", \"spec\": \"forward:1\" },\n{ \"client\": \"a\", \"spec\": \"tpc:1:a:2\" }\n] }",
            "line 4: proxies[1].spec: unknown kind \"tpc\"",
        ),
        (
            "{\n\"proxies\": [\n{ \"client\": \"a b\",\n\"spec\": \"forward:1\" } ] }",
            "line 3: proxies[0].client: \"a b\" is not a client id",
        ),
        (
            "{ \"proxies\": [\n\"a=forward:1\",\n\"forward:1\"] }",
            "line 3: proxies[1]: \"forward:1\" is not CLIENT=SPEC",
        ),
        (
            "{ \"proxies\": [ \"a=https:1\" ] }",
            "line 1: proxies[0]: \"https:1\" is not https:",
        ),
        (
            "{ \"proxies\": [ { \"client\": \"a\", \"spec\": \"http:1:a:2\",\n\"host\": \"a b\" } ] }",
            "line 2: proxies[0].host: HOST \"a b\" is not a name",
        ),
        (
            "{ \"proxies\": [ { \"client\": \"a\", \"spec\": \"http:1:a:2\",\n\"host\": true } ] }",
            "line 2: proxies[0].host: invalid type: boolean `true`, expected a string: \"user\"",
        ),
        (
            "{ \"proxies\": [ { \"client\": \"a\", \"spec\": \"http:1:a:2\",\n\"trust_forwarded\": \"yes\" } ] }",
            "line 2: proxies[0].trust_forwarded: invalid type: string \"yes\", expected a boolean",
        ),
        (
            "{ \"proxies\": [\n{\n\"client\": \"a\"\n}\n] }",
            "line 2: proxies[0]: missing field `spec`",
        ),
        (
            "{ \"proxies\": [ 7 ] }",
            "proxies[0]: invalid type: integer `7`, expected an object with `client`",
        ),
        (
            "{ \"proxies\": {} }",
            "line 1: proxies: invalid type: map, expected a sequence",
        ),
        (
            "{ \"clients\": [\n{ \"ports\": \"1\" }] }",
            "line 2: clients[0]: missing field `id`",
        ),
        (
            "{ \"clients\": [ { \"id\": \"a\", \"ports\": \"9-1\" } ] }",
            "clients[0].ports: the range \"9-1\"",
        ),
        (
            "{ \"clients\": [ { \"id\": \"a\", \"ports\": 80 } ] }",
            "clients[0].ports: invalid type: integer `80`",
        ),
        (
            "{ \"timeouts\": {\n\"ping\": \"15\" } }",
            "line 2: timeouts.ping: \"15\" is not a number with a unit",
        ),
        (
            "{ \"timeouts\": { \"ping\": \"0s\" } }",
            "timeouts.ping: \"0s\" leaves no time at all",
        ),
        (
            "{ \"limits\": {\n\"undelivered\":\n1 } }",
            "line 2: limits.undelivered: a size of 1 bytes",
        ),
        (
            "{ \"spin\": -1 }",
            "line 1: spin: invalid type: integer `-1`, expected a whole number from 0 to 1000",
        ),
        (
            "{ \"limits\": { \"fields\": -1 } }",
            "limits.fields: invalid type: integer `-1`",
        ),
        (
            "{ \"bind\": \"127.0.0.1\",\n\"bind\": \"127.0.0.1\" }",
            "line 2: bind: duplicate field `bind`",
        ),
    ] {
        let reason = server_error(text);
        assert!(reason.starts_with("conf/edge.json: line "), "{reason}");
        assert!(reason.contains(expected), "{text}\n{reason}");
    }
    for (text, expected) in [
        (
            "{ \"server\": \"https://a\" }",
            "line 1: server: \"https://a\" has another scheme than ws and wss",
        ),
        ("{ \"id\": \"\" }", "line 1: id: \"\" is not a client id"),
        (
            "{ \"expose\": [\n\"tcp:1\"] }",
            "line 2: expose[0]: \"tcp:1\" is not tcp:",
        ),
        (
            "{ \"expose\": [ {\n\"spec\": \"tcp:1\" } ] }",
            "line 2: expose[0].spec: \"tcp:1\" is not tcp:",
        ),
        ("{ \"expose\": [ {} ] }", "expose[0]: missing field `spec`"),
        (
            "{ \"allow\": [ \"a:1\",\n\"*a:1\"] }",
            "line 2: allow[1]: HOST \"*a\"",
        ),
        (
            "{\n\"spin\": 1001 }",
            "line 2: spin: 1001 is outside 0 to 1000",
        ),
        (
            "{ \"spin\": \"50us\" }",
            "line 1: spin: invalid type: string \"50us\", expected a whole number from 0 to 1000",
        ),
        (
            "{ \"pool\": { \"idle\": \"0ms\" } }",
            "pool.idle: \"0ms\" leaves no time at all",
        ),
    ] {
        let reason = client_error(text);
        assert!(reason.contains(expected), "{text}\n{reason}");
    }
}

#[test]
fn what_is_no_json_is_named_by_line_and_column() {
    for (text, expected) in [
        ("", "line 1: EOF while parsing a value (column 0)"),
        ("{\n\"bind\": ,", "line 2: expected value (column 9)"),
        (
            "{ \"bind\": \"::1\"\n",
            "line 2: EOF while parsing an object (column 0)",
        ),
        (
            "{ \"bind\": \"::1\", }",
            "line 1: trailing comma (column 18)",
        ),
        ("{}\n{}", "line 2: trailing characters (column 1)"),
    ] {
        assert_eq!(server_error(text), format!("conf/edge.json: {expected}"));
    }
    // Deeper than the parser recurses: an error, not an overflow of the stack.
    let deep = format!("{{ \"proxies\": {} }}", "[".repeat(100_000));
    assert!(server_error(&deep).starts_with("conf/edge.json: line 1: "));
}

#[test]
fn arrays_do_not_pass_for_objects() {
    for (text, expected) in [
        ("[]", "line 1: invalid type: sequence, expected an object"),
        (
            "{ \"timeouts\":\n[] }",
            "line 2: timeouts: invalid type: sequence, expected an object",
        ),
        (
            "{ \"limits\": [1048576] }",
            "limits: invalid type: sequence",
        ),
        (
            "{ \"clients\": [ [\"a\"] ] }",
            "clients[0]: invalid type: sequence",
        ),
        ("{ \"proxies\": [ [\"a\", \"forward:1\"] ] }", "proxies[0]"),
    ] {
        let reason = server_error(text);
        assert!(reason.contains(expected), "{text}\n{reason}");
    }
}

#[test]
fn later_errors_find_the_line_of_their_field() {
    let document = document("{\n\"proxies\": [\n1,\n2 ] }");
    let text = |field| document.error(field, "no").to_string();
    assert_eq!(text("proxies[1]"), "conf/edge.json: line 4: proxies[1]: no");
    assert_eq!(text("listen"), "conf/edge.json: listen: no");
    assert_eq!(text(""), "conf/edge.json: no");
}

#[test]
fn paths_are_relative_to_the_file() {
    let document = document("{}");
    assert_eq!(
        document.beside(Path::new("edge.token")),
        Path::new("conf/edge.token")
    );
    assert_eq!(
        document.beside(Path::new("/etc/token")),
        Path::new("/etc/token")
    );
    let bare = Document {
        path: PathBuf::from("edge.json"),
        text: String::new(),
    };
    assert_eq!(
        bare.beside(Path::new("edge.token")),
        Path::new("edge.token")
    );
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = crate::config::token::tests::Folder::new("config-files");
    let large = folder.file("large", vec![b' '; FILE_BYTES_MAX + 1]);
    let binary = folder.file("binary", b"{\n\n\xff}");
    for (path, expected) in [
        (large.as_path(), "larger than 16 MiB"),
        (&binary, "line 3: is not UTF-8"),
        (&folder.path().join("absent"), "No such file"),
        (folder.path(), "directory"),
    ] {
        let reason = Document::read(path).unwrap_err().to_string();
        assert!(
            reason.starts_with(&format!("{}: ", path.display())),
            "{reason}"
        );
        assert!(reason.contains(expected), "{reason}");
    }
}
