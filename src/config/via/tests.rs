use proptest::prelude::*;

use super::*;

fn proxy(text: &str) -> ProxyUrl {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn proxies_print_their_canonical_form_without_the_password() {
    for (text, printed, target, authorization) in [
        ("http://a", "http://a", "a:80", None),
        (
            "HTTP://A.Example.:3128/",
            "http://a.example:3128",
            "a.example:3128",
            None,
        ),
        ("http://[::1]:80", "http://[::1]", "[::1]:80", None),
        (
            // RFC 7617 §2.
            "http://Aladdin:open%20sesame@a:1",
            "http://Aladdin:***@a:1",
            "a:1",
            Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        ),
        // §2.1.
        (
            "http://test:123%C2%A3@a",
            "http://test:***@a",
            "a:80",
            Some("Basic dGVzdDoxMjPCow=="),
        ),
        ("http://u@a", "http://u:***@a", "a:80", Some("Basic dTo=")),
        ("http://:@a", "http://:***@a", "a:80", Some("Basic Og==")),
        // An at sign that was not encoded: the last one counts, as for curl.
        (
            "http://u:p@ss:w/rd@a",
            "http://u:***@a",
            "a:80",
            Some("Basic dTpwQHNzOncvcmQ="),
        ),
    ] {
        let proxy = proxy(text);
        assert_eq!(proxy.to_string(), printed, "{text}");
        assert_eq!(format!("{proxy:?}"), format!("ProxyUrl({printed})"));
        assert_eq!(proxy.target().to_string(), target, "{text}");
        assert_eq!(proxy.authorization().as_deref(), authorization, "{text}");
    }
}

#[test]
fn other_urls_are_refused_with_the_reason_and_without_the_secret() {
    for (text, expected) in [
        ("", "is not a URL"),
        ("proxy:3128", "is not a URL"),
        ("socks5://me:secret@a:1080", "the scheme \"socks5\""),
        ("https://me:secret@a", "the scheme \"https\""),
        ("http://", "HOST \"\" is empty"),
        ("http://me:secret@", "HOST \"\" is empty"),
        ("http://me:secret@a/path", "has a path"),
        ("http://me:secret@a:1:2", "is not HOST[:PORT]"),
        ("http://me:secret@a:0", "from 1 to 65535"),
        ("http://me:secret%@a", "percent-encoded"),
        ("http://me:secret%4@a", "percent-encoded"),
        ("http://me:secret%zz@a", "percent-encoded"),
        ("http://me:secret%ff@a", "percent-encoded"),
        ("http://me%3a:secret@a", "has no colon"),
        ("http://me:secret%0d%0aX:y@a", "control character"),
        ("http://me%00:secret@a", "control character"),
    ] {
        let reason = text.parse::<ProxyUrl>().expect_err(text).to_string();
        assert!(reason.contains(expected), "{text}: {reason}");
        assert!(!reason.contains("secret"), "{reason}");
    }
    let long = format!("http://u:{}@a", "x".repeat(1023));
    assert!(long.parse::<ProxyUrl>().is_ok());
    let reason = long.replace("u:", "uu:").parse::<ProxyUrl>().unwrap_err();
    assert!(reason.to_string().contains("longer than"), "{reason}");
}

#[test]
fn direct_is_a_way_too() {
    assert_eq!("Direct".parse(), Ok(Asked(None)));
    assert_eq!(Via::from(Asked(None)), Via::Direct);
    let asked: Asked = "http://a".parse().unwrap();
    assert_eq!(Via::from(asked).proxy(), Some(&proxy("http://a")));
}

/// What these variables say of a server.
fn found(server: &str, secure: bool, variables: &[(&str, &str)]) -> Via {
    let server = ServerUrl {
        secure,
        ..server.parse().expect(server)
    };
    Via::from_environment(&server, |name| {
        let found = variables.iter().find(|(known, _)| *known == name)?;
        Some(found.1.into())
    })
}

#[test]
fn a_variable_names_the_proxy_of_its_scheme_or_of_all() {
    let plain = |variables: &[(&str, &str)]| found("ws://edge.example", false, variables);
    let secure = |variables: &[(&str, &str)]| found("ws://edge.example", true, variables);
    let through = |name, url: &str| Via::Variable(name, proxy(url));
    assert_eq!(plain(&[]), Via::Direct);
    assert_eq!(plain(&[("http_proxy", "")]), Via::Direct);
    assert_eq!(
        plain(&[("http_proxy", "http://a:1")]),
        through("http_proxy", "http://a:1")
    );
    // A scheme may be left out, and an empty variable is none.
    assert_eq!(
        plain(&[("http_proxy", ""), ("all_proxy", "u:p@a:1")]),
        through("all_proxy", "http://u:p@a:1")
    );
    for ignored in ["HTTP_PROXY", "https_proxy", "HTTPS_PROXY"] {
        assert_eq!(plain(&[(ignored, "http://a")]), Via::Direct, "{ignored}");
    }
    for ignored in ["HTTP_PROXY", "http_proxy"] {
        assert_eq!(secure(&[(ignored, "http://a")]), Via::Direct, "{ignored}");
    }
    let all = [
        ("https_proxy", "http://a"),
        ("HTTPS_PROXY", "http://b"),
        ("all_proxy", "http://c"),
        ("ALL_PROXY", "http://d"),
    ];
    for (from, (name, url)) in all.into_iter().enumerate() {
        assert_eq!(secure(&all[from..]), through(name, url));
    }
}

#[test]
fn servers_on_loopback_are_looked_for_there() {
    let variables = [("http_proxy", "http://a")];
    for server in [
        "ws://127.0.0.1:7000",
        "ws://127.8.8.8",
        "ws://[::1]:7000",
        "ws://[::ffff:127.0.0.1]",
        "ws://localhost",
        "ws://edge.localhost",
    ] {
        assert_eq!(found(server, false, &variables), Via::Direct, "{server}");
    }
}

#[test]
fn what_no_proxy_covers_is_reached_straight() {
    let through = |list: &str| {
        let variables = [("http_proxy", "http://a"), ("no_proxy", list)];
        found("ws://edge.example:7000", false, &variables) != Via::Direct
    };
    assert!(through(""));
    assert!(through("other.example"));
    assert!(!through("other.example, edge.example"));
    assert!(!through("*"));
    let upper = [("http_proxy", "http://a"), ("NO_PROXY", "edge.example")];
    assert_eq!(found("ws://edge.example", false, &upper), Via::Direct);
    let both = [upper[0], upper[1], ("no_proxy", "b")];
    assert_ne!(found("ws://edge.example", false, &both), Via::Direct);
}

#[test]
fn a_variable_that_cannot_be_used_is_named_and_nothing_more() {
    for value in [
        "socks5://me:secret@a:1080",
        "https://me:secret@a",
        "http://me:secret@",
        "me:secret@a:b",
        "socks5h://a",
    ] {
        let variables = [("all_proxy", value)];
        let Via::Unusable(name, reason) = found("ws://edge.example", false, &variables) else {
            panic!("{value} is of no use");
        };
        assert_eq!(name, "all_proxy");
        assert!(!reason.to_string().contains("secret"), "{reason}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,30}|http://[%0-9a-f:@/\\[\\]é]{0,20}") {
        let _ = text.parse::<ProxyUrl>();
    }

    #[test]
    fn credentials_survive_their_encoding(user in "[^:\\p{C}]{0,12}", password in "\\P{C}{0,12}") {
        let encoded = |text: &str| {
            text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>()
        };
        let url = format!("http://{}:{}@a", encoded(&user), encoded(&password));
        let credentials = proxy(&url).credentials.expect("there are some");
        prop_assert_eq!((&*credentials.user, &*credentials.password), (&*user, &*password));
    }
}
