//! How the words of a command line are read, and what is said of wrong ones.

use super::*;

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
