use proptest::prelude::*;

use super::*;

fn allow(rules: &[&str]) -> Allow {
    let rules = rules.iter().map(|rule| {
        rule.parse()
            .unwrap_or_else(|error| panic!("{rule}: {error}"))
    });
    Allow::new(rules.collect(), &[])
}

fn host(text: &str) -> Host {
    text.parse().expect(text)
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect(text)
}

/// Rule, host asked for, port, address dialled, permitted?
const PERMITS: &[(&str, &str, u16, &str, bool)] = &[
    // Ports.
    ("a.example:80", "a.example", 80, "8.8.8.8", true),
    ("a.example:80", "a.example", 81, "8.8.8.8", false),
    ("a.example:8000-8100", "a.example", 7999, "8.8.8.8", false),
    ("a.example:8000-8100", "a.example", 8000, "8.8.8.8", true),
    ("a.example:8000-8100", "a.example", 8100, "8.8.8.8", true),
    ("a.example:8000-8100", "a.example", 8101, "8.8.8.8", false),
    ("a.example:*", "a.example", 1, "8.8.8.8", true),
    ("a.example:*", "a.example", 65535, "8.8.8.8", true),
    ("a.example:*", "a.example", 0, "8.8.8.8", false),
    // An exact name: what it resolves to, private ranges too.
    ("a.example:80", "A.Example.", 80, "8.8.8.8", true),
    ("A.EXAMPLE.:80", "a.example", 80, "8.8.8.8", true),
    ("a.example:80", "b.example", 80, "8.8.8.8", false),
    ("a.example:80", "x.a.example", 80, "8.8.8.8", false),
    ("a.example:80", "a.example.org", 80, "8.8.8.8", false),
    ("a.example:80", "8.8.8.8", 80, "8.8.8.8", false),
    ("a.example:80", "a.example", 80, "10.1.2.3", true),
    ("a.example:80", "a.example", 80, "172.16.0.1", true),
    ("a.example:80", "a.example", 80, "192.168.1.1", true),
    ("a.example:80", "a.example", 80, "100.64.0.1", true),
    ("a.example:80", "a.example", 80, "fd00::1", true),
    ("a.example:80", "a.example", 80, "::ffff:10.1.2.3", true),
    ("a.example:80", "a.example", 80, "2606:4700::1111", true),
    // But not link-local, multicast, unspecified; loopback only for localhost.
    ("a.example:80", "a.example", 80, "169.254.169.254", false),
    ("a.example:80", "a.example", 80, "fe80::1", false),
    ("a.example:80", "a.example", 80, "224.0.0.1", false),
    ("a.example:80", "a.example", 80, "ff02::1", false),
    ("a.example:80", "a.example", 80, "0.0.0.0", false),
    ("a.example:80", "a.example", 80, "0.0.0.1", false),
    ("a.example:80", "a.example", 80, "::", false),
    ("a.example:80", "a.example", 80, "127.0.0.1", false),
    ("a.example:80", "a.example", 80, "127.8.8.8", false),
    ("a.example:80", "a.example", 80, "::1", false),
    ("a.example:80", "a.example", 80, "::ffff:127.0.0.1", false),
    (
        "a.example:80",
        "a.example",
        80,
        "::ffff:169.254.169.254",
        false,
    ),
    ("a.example:80", "a.example", 80, "64:ff9b::127.0.0.1", false),
    (
        "a.example:80",
        "a.example",
        80,
        "64:ff9b::169.254.169.254",
        false,
    ),
    ("a.example:80", "a.example", 80, "64:ff9b::8.8.8.8", true),
    ("a.example:80", "a.example", 80, "::127.0.0.1", false),
    ("a.example:80", "a.example", 80, "2002:7f00:1::", false),
    (
        "a.example:80",
        "a.example",
        80,
        "2001:0:808:808::80ff:fffe",
        false,
    ),
    ("localhost:80", "localhost", 80, "127.0.0.1", true),
    ("localhost:80", "LOCALHOST.", 80, "::1", true),
    ("localhost:80", "localhost", 80, "::ffff:127.0.0.1", true),
    ("localhost:80", "localhost", 80, "10.0.0.1", true),
    ("localhost:80", "localhost", 80, "0.0.0.0", false),
    ("localhost:80", "localhost", 80, "169.254.1.1", false),
    ("localhost:80", "127.0.0.1", 80, "127.0.0.1", false),
    ("a.localhost:80", "a.localhost", 80, "127.0.0.1", false),
    // A suffix: not the suffix itself, and global unicast only.
    ("*.example.com:443", "api.example.com", 443, "8.8.8.8", true),
    ("*.example.com:443", "a.b.example.com", 443, "8.8.8.8", true),
    (
        "*.Example.COM.:443",
        "API.example.com.",
        443,
        "8.8.8.8",
        true,
    ),
    ("*.example.com:443", "example.com", 443, "8.8.8.8", false),
    ("*.example.com:443", "badexample.com", 443, "8.8.8.8", false),
    (
        "*.example.com:443",
        "example.com.evil.org",
        443,
        "8.8.8.8",
        false,
    ),
    ("*.example.com:443", "8.8.8.8", 443, "8.8.8.8", false),
    (
        "*.example.com:443",
        "api.example.com",
        443,
        "10.0.0.1",
        false,
    ),
    (
        "*.example.com:443",
        "api.example.com",
        443,
        "127.0.0.1",
        false,
    ),
    (
        "*.example.com:443",
        "api.example.com",
        443,
        "169.254.169.254",
        false,
    ),
    (
        "*.example.com:443",
        "api.example.com",
        443,
        "100.64.0.1",
        false,
    ),
    (
        "*.example.com:443",
        "api.example.com",
        443,
        "fd00::1",
        false,
    ),
    (
        "*.example.com:443",
        "api.example.com",
        443,
        "::ffff:10.0.0.1",
        false,
    ),
    (
        "*.example.com:443",
        "api.example.com",
        443,
        "::ffff:8.8.8.8",
        true,
    ),
    ("*.localhost:80", "a.localhost", 80, "127.0.0.1", false),
    // Any host: global unicast only.
    ("*:443", "a.example", 443, "8.8.8.8", true),
    ("*:443", "8.8.8.8", 443, "8.8.8.8", true),
    ("*:443", "[2606:4700::1111]", 443, "2606:4700::1111", true),
    ("*:443", "[::ffff:8.8.8.8]", 443, "8.8.8.8", true),
    ("*:443", "localhost", 443, "127.0.0.1", false),
    ("*:443", "127.0.0.1", 443, "127.0.0.1", false),
    ("*:443", "a.example", 443, "10.0.0.1", false),
    ("*:443", "a.example", 443, "192.0.0.1", false),
    ("*:443", "a.example", 443, "192.0.2.1", false),
    ("*:443", "a.example", 443, "198.18.0.1", false),
    ("*:443", "a.example", 443, "255.255.255.255", false),
    ("*:443", "a.example", 443, "fec0::1", false),
    ("*:443", "a.example", 443, "2002:808:808::1", false),
    ("*:443", "a.example", 443, "2001:0:808:808::1", false),
    ("*:443", "a.example", 443, "64:ff9b::10.0.0.1", false),
    ("*:443", "a.example", 443, "4000::1", false),
    ("*:*", "a.example", 0, "8.8.8.8", false),
    // An address covers itself, however it is written and whatever was asked for.
    ("127.0.0.1:80", "127.0.0.1", 80, "127.0.0.1", true),
    ("127.0.0.1:80", "localhost", 80, "127.0.0.1", true),
    ("127.0.0.1:80", "a.example", 80, "127.0.0.1", true),
    ("127.0.0.1:80", "127.0.0.2", 80, "127.0.0.2", false),
    ("127.0.0.1:80", "127.0.0.1", 81, "127.0.0.1", false),
    (
        "127.0.0.1:80",
        "[::ffff:127.0.0.1]",
        80,
        "::ffff:127.0.0.1",
        true,
    ),
    ("[::ffff:127.0.0.1]:80", "127.0.0.1", 80, "127.0.0.1", true),
    (
        "127.0.0.1:80",
        "[64:ff9b::7f00:1]",
        80,
        "64:ff9b::7f00:1",
        true,
    ),
    ("127.0.0.1:80", "[::1]", 80, "::1", false),
    ("[::1]:80", "localhost", 80, "::1", true),
    ("[::1]:80", "127.0.0.1", 80, "127.0.0.1", false),
    (
        "169.254.169.254:80",
        "169.254.169.254",
        80,
        "169.254.169.254",
        true,
    ),
    ("0.0.0.0:80", "0.0.0.0", 80, "0.0.0.0", true),
    ("0.0.0.0:80", "127.0.0.1", 80, "127.0.0.1", false),
    // What is dialled must be what was asked for, when that was an address.
    ("*:80", "8.8.8.8", 80, "1.1.1.1", false),
    ("127.0.0.1:80", "127.0.0.2", 80, "127.0.0.1", false),
    // A CIDR covers its addresses; special ones only from inside the special range.
    ("10.0.0.0/8:80", "10.1.2.3", 80, "10.1.2.3", true),
    ("10.0.0.0/8:80", "a.example", 80, "10.1.2.3", true),
    ("10.0.0.0/8:80", "11.1.2.3", 80, "11.1.2.3", false),
    ("10.1.0.0/16:80", "10.1.2.3", 80, "10.1.2.3", true),
    ("10.0.0.0/7:80", "10.1.2.3", 80, "10.1.2.3", false),
    ("10.0.0.0/7:80", "11.1.2.3", 80, "11.1.2.3", true),
    ("127.0.0.0/8:80", "127.0.0.1", 80, "127.0.0.1", true),
    ("127.0.0.0/8:80", "a.example", 80, "::ffff:127.0.0.1", true),
    ("0.0.0.0/0:80", "8.8.8.8", 80, "8.8.8.8", true),
    ("0.0.0.0/0:80", "a.example", 80, "8.8.8.8", true),
    ("0.0.0.0/0:80", "127.0.0.1", 80, "127.0.0.1", false),
    ("0.0.0.0/0:80", "10.1.2.3", 80, "10.1.2.3", false),
    (
        "0.0.0.0/0:80",
        "169.254.169.254",
        80,
        "169.254.169.254",
        false,
    ),
    ("0.0.0.0/0:80", "0.0.0.0", 80, "0.0.0.0", false),
    (
        "0.0.0.0/0:80",
        "[2606:4700::1111]",
        80,
        "2606:4700::1111",
        false,
    ),
    (
        "0.0.0.0/0:80",
        "[::ffff:8.8.8.8]",
        80,
        "::ffff:8.8.8.8",
        true,
    ),
    ("192.168.0.0/15:80", "192.168.1.1", 80, "192.168.1.1", false),
    ("192.168.0.0/15:80", "192.169.1.1", 80, "192.169.1.1", true),
    (
        "240.0.0.0/4:80",
        "255.255.255.255",
        80,
        "255.255.255.255",
        false,
    ),
    (
        "255.255.255.255:80",
        "255.255.255.255",
        80,
        "255.255.255.255",
        true,
    ),
    (
        "[::/0]:80",
        "[2606:4700::1111]",
        80,
        "2606:4700::1111",
        true,
    ),
    ("[::/0]:80", "[::1]", 80, "::1", false),
    ("[::/0]:80", "[fe80::1]", 80, "fe80::1", false),
    ("[::/0]:80", "[fd00::1]", 80, "fd00::1", false),
    ("[::/0]:80", "[4000::1]", 80, "4000::1", false),
    ("[::/0]:80", "8.8.8.8", 80, "8.8.8.8", false),
    ("[::/0]:80", "[::ffff:8.8.8.8]", 80, "::ffff:8.8.8.8", false),
    ("[::ffff:0:0/96]:80", "8.8.8.8", 80, "8.8.8.8", true),
    ("[::ffff:0:0/96]:80", "127.0.0.1", 80, "127.0.0.1", false),
    (
        "[::ffff:127.0.0.0/104]:80",
        "127.0.0.1",
        80,
        "127.0.0.1",
        true,
    ),
    ("[64:ff9b::]/96:80", "8.8.8.8", 80, "64:ff9b::8.8.8.8", true),
    ("[fd00::/8]:80", "[fd00::1]", 80, "fd00::1", true),
    ("[fc00::/7]:80", "[fd00::1]", 80, "fd00::1", true),
    ("[fc00::/6]:80", "[fd00::1]", 80, "fd00::1", false),
    ("[fe80::/10]:80", "[fe80::1]", 80, "fe80::1", true),
    ("[fe80::/9]:80", "[fe80::1]", 80, "fe80::1", false),
    ("[2000::/3]:80", "[2001:db8::1]", 80, "2001:db8::1", false),
    (
        "[2000::/3]:80",
        "[2002:7f00:1::]",
        80,
        "2002:7f00:1::",
        false,
    ),
    (
        "[2001::/23]:80",
        "[2001:0:808:808::1]",
        80,
        "2001:0:808:808::1",
        false,
    ),
    (
        "[2001::/32]:80",
        "[2001:0:808:808::1]",
        80,
        "2001:0:808:808::1",
        true,
    ),
    (
        "[2001:db8::/32]:80",
        "[2001:db8::1]",
        80,
        "2001:db8::1",
        true,
    ),
];

#[test]
fn each_rule_permits_what_it_says_and_nothing_else() {
    for (rule, asked, port, address, expected) in PERMITS {
        let permitted = allow(&[rule]).permits(&host(asked), *port, ip(address));
        assert_eq!(
            permitted, *expected,
            "{rule} for {asked}:{port} at {address}"
        );
    }
}

#[test]
fn nothing_is_permitted_without_a_rule() {
    let nothing = Allow::default();
    for (_, asked, port, address, _) in PERMITS {
        assert!(!nothing.may_dial(&host(asked), *port));
        assert!(!nothing.permits(&host(asked), *port, ip(address)));
    }
}

#[test]
fn name_and_address_of_a_permission_come_from_one_rule() {
    // Neither rule alone covers it: the name on one port, the address on the other.
    let two = allow(&["a.example:80", "127.0.0.1:81"]);
    assert!(!two.permits(&host("a.example"), 80, ip("127.0.0.1")));
    assert!(two.permits(&host("a.example"), 80, ip("8.8.8.8")));
    assert!(two.permits(&host("a.example"), 81, ip("127.0.0.1")));
}

#[test]
fn a_name_is_worth_a_lookup_only_if_some_answer_could_be_permitted() {
    for (rule, asked, port, expected) in [
        ("a.example:80", "a.example", 80, true),
        ("a.example:80", "a.example", 81, false),
        ("a.example:80", "b.example", 80, false),
        ("*.example:80", "a.example", 80, true),
        ("*.example:80", "example", 80, false),
        ("*:80", "a.example", 80, true),
        ("*:80", "127.0.0.1", 80, false),
        ("10.0.0.0/8:80", "a.example", 80, true),
        ("10.0.0.0/8:80", "a.example", 81, false),
        ("10.0.0.0/8:80", "10.1.2.3", 80, true),
        ("10.0.0.0/8:80", "11.1.2.3", 80, false),
        ("*:*", "a.example", 0, false),
    ] {
        assert_eq!(
            allow(&[rule]).may_dial(&host(asked), port),
            expected,
            "{rule} {asked}:{port}"
        );
    }
}

#[test]
fn an_exposed_target_implies_its_rule_and_forward_implies_none() {
    let expose = |spec: &str| Allow::new(Vec::new(), &[spec.parse().expect(spec)]);
    for kind in ["tcp", "ssh", "telnet", "http"] {
        let allow = expose(&format!("{kind}:10033:127.0.0.1:2222"));
        assert!(allow.permits(&host("127.0.0.1"), 2222, ip("127.0.0.1")));
        assert!(!allow.permits(&host("127.0.0.1"), 10033, ip("127.0.0.1")));
        assert!(!allow.permits(&host("127.0.0.2"), 2222, ip("127.0.0.2")));
    }
    let named = expose("http:8080:Router.lab:80");
    assert_eq!(named.rules()[0].to_string(), "router.lab:80");
    assert!(named.permits(&host("router.lab"), 80, ip("192.168.1.1")));
    assert!(!named.permits(&host("router.lab"), 80, ip("127.0.0.1")));
    assert!(!named.permits(&host("192.168.1.1"), 80, ip("192.168.1.1")));
    assert_eq!(expose("forward:3128"), Allow::default());
}

#[test]
fn a_unix_socket_is_allowed_by_its_own_path_alone() {
    let socket = |path: &str| path.parse::<SocketPath>().expect(path);
    let app = socket("/run/app.sock");
    for (rules, permitted) in [
        (&["unix:/run/app.sock"][..], true),
        (&["*:*", "unix:/run//app.sock"], true),
        (&["*:*", "0.0.0.0/0:*", "[::/0]:*", "*.sock:*"], false),
        (&["unix:*", "localhost:*", "127.0.0.0/8:*"], false),
        (
            &["unix:/run/app.sock2", "unix:/run/app", "unix:/run"],
            false,
        ),
        (&["unix:/run/App.sock"], false),
        (&[], false),
    ] {
        assert_eq!(allow(rules).permits_socket(&app), permitted, "{rules:?}");
    }
    let exposed = ["tcp:1:unix:/run/app.sock".parse().unwrap()];
    let allow = Allow::new(Vec::new(), &exposed);
    assert!(allow.permits_socket(&app));
    assert!(!allow.permits_socket(&socket("/run/other.sock")));
    assert!(!allow.may_dial(&host("localhost"), 1));
    // Nor does it allow anything else.
    assert!(!allow.permits(&host("127.0.0.1"), 0, ip("127.0.0.1")));
}

#[test]
fn rules_print_their_canonical_form() {
    for (text, canonical) in [
        ("127.0.0.1:3000-3010", "127.0.0.1:3000-3010"),
        ("*.Example.com.:443", "*.example.com:443"),
        ("*:*", "*:*"),
        ("*:1-65535", "*:*"),
        ("A:80-80", "a:80"),
        ("10.0.0.0/8:*", "10.0.0.0/8:*"),
        ("10.0.0.1/32:1", "10.0.0.1:1"),
        ("0.0.0.0/0:80", "0.0.0.0/0:80"),
        ("[fd00::]/8:80", "[fd00::/8]:80"),
        ("[FD00::/8]:80", "[fd00::/8]:80"),
        ("[::1]/128:80", "[::1]:80"),
        ("[::ffff:10.0.0.0/104]:80", "10.0.0.0/8:80"),
        ("[64:ff9b::]:80", "0.0.0.0:80"),
        ("unix:/run/app.sock", "unix:/run/app.sock"),
        ("Unix:/run//App:80", "unix:/run/App:80"),
        // A host that is called so.
        ("unix:80", "unix:80"),
        ("unix:80-90", "unix:80-90"),
        ("unix:*", "unix:*"),
    ] {
        let rule: Rule = text
            .parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(rule.to_string(), canonical);
        assert_eq!(rule.to_string().parse(), Ok(rule));
    }
}

#[test]
fn malformed_rules_are_refused_with_the_reason() {
    for (text, expected) in [
        ("", "is not HOST:PORT"),
        ("a.example", "is not HOST:PORT"),
        ("a:80:90", "is not HOST:PORT"),
        ("::1:80", "is not HOST:PORT"),
        ("fd00::/8:80", "is not HOST:PORT"),
        ("a:", "PORT \"\" is not"),
        ("a:0", "PORT \"0\" is not"),
        ("a:65536", "PORT \"65536\" is not"),
        ("a:90-80", "PORT \"90-80\" is not"),
        ("a:80,90", "or *"),
        ("a:http", "or *"),
        (":80", "HOST \"\" is empty"),
        ("*.:80", "HOST \"\" is empty"),
        ("*a:80", "'*' stands alone"),
        ("a.*:80", "'*' stands alone"),
        ("**:80", "'*' stands alone"),
        ("*.*.a:80", "is not a name"),
        ("*.10.0.0.1:80", "an address has no subdomains"),
        ("*.1:80", "resolvers"),
        ("127.1:80", "resolvers"),
        ("10.0.0.0/:80", "is not a CIDR"),
        ("10.0.0.0/x:80", "is not a CIDR"),
        ("10.0.0.0/+8:80", "is not a CIDR"),
        ("10.0.0.0/8/8:80", "is not a CIDR"),
        ("a.example/8:80", "is not a CIDR"),
        ("10.0.0.0/8]:80", "brackets"),
        ("[10.0.0.0/8]:80", "is not a CIDR"),
        ("[fd00::/8:80", "brackets"),
        ("[fd00::/8]/8:80", "is not a CIDR"),
        ("10.0.0.0/33:80", "prefix longer than its address"),
        ("10.0.0.0/999:80", "prefix longer than its address"),
        ("[fd00::/129]:80", "prefix longer than its address"),
        ("10.1.2.3/8:80", "write 10.0.0.0/8 for the network"),
        ("[fd00::1/8]:80", "write [fd00::/8] for the network"),
        ("unix:app.sock", "is not absolute"),
        ("unix:/run/*", "no patterns"),
        ("unix:/run/../app.sock", ". or .."),
        ("unix:", "PORT \"\" is not"),
    ] {
        let reason = text.parse::<Rule>().expect_err(text).to_string();
        assert!(reason.contains(expected), "{text}: {reason}");
    }
}

/// Addresses near the edges of special ranges, where mistakes live, and any others.
fn any_address() -> impl Strategy<Value = IpAddr> {
    let base = prop::sample::select(vec![
        "0.0.0.0",
        "10.0.0.0",
        "127.0.0.1",
        "169.254.169.254",
        "192.168.0.0",
        "224.0.0.0",
        "8.8.8.8",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "64:ff9b::a00:1",
        "2002:7f00:1::",
        "2001::",
        "fd00::1",
        "fe80::1",
        "ff02::1",
        "2606:4700::1111",
    ]);
    prop_oneof![base.prop_map(ip), any::<IpAddr>()]
}

fn any_name() -> impl Strategy<Value = Rc<str>> {
    let names = vec!["localhost", "a.example", "b.a.example", "example", "lab"];
    prop::sample::select(names).prop_map(Rc::from)
}

fn any_host() -> impl Strategy<Value = Host> {
    prop_oneof![
        any_name().prop_map(Host::Name),
        any_address().prop_map(Host::Address)
    ]
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let network = (any_address(), 0u8..=128).prop_map(|(address, prefix)| {
        let prefix = if address.is_ipv4() {
            prefix % 33
        } else {
            prefix
        };
        let network = Network::around(address, prefix).expect("the prefix fits the family");
        Pattern::Network(network.unwrapped())
    });
    let pattern = prop_oneof![
        Just(Pattern::Any),
        any_name().prop_map(Pattern::Suffix),
        any_name().prop_map(Pattern::Name),
        any_address().prop_map(|address| Pattern::exact(Host::Address(address))),
        network,
    ];
    let ports = prop_oneof![
        Just(PORTS_ALL),
        (1u16..5, 0u16..3).prop_map(|(first, more)| first..=first + more),
    ];
    prop_oneof![
        8 => (pattern, ports).prop_map(|(pattern, ports)| Rule(Covered::Ports(pattern, ports))),
        1 => "(/[a-z:\\[\\]]{1,4}){1,3}"
            .prop_map(|path| Rule(Covered::Socket(path.parse().expect("a path")))),
    ]
}

proptest! {
    #[test]
    fn a_printed_rule_parses_to_itself(rule in any_rule()) {
        prop_assert_eq!(rule.to_string().parse(), Ok(rule));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,40}|[0-9a-f:.*/\\[\\]-]{0,40}") {
        if let Ok(rule) = text.parse::<Rule>() {
            prop_assert_eq!(rule.to_string().parse(), Ok(rule));
        }
    }

    #[test]
    fn what_is_permitted_was_worth_a_lookup(
        rules in prop::collection::vec(any_rule(), 0..4),
        host in any_host(),
        port in 0u16..8,
        address in any_address(),
    ) {
        let allow = Allow { rules };
        if allow.permits(&host, port, address) {
            prop_assert!(allow.may_dial(&host, port));
        }
        if let Host::Address(asked) = host && allow.may_dial(&host, port) {
            prop_assert!(allow.permits(&host, port, asked));
        }
    }

    #[test]
    fn names_and_wildcards_never_reach_what_only_an_address_may_name(
        pattern in prop_oneof![
            Just("*"), Just("*.example"), Just("a.example"), Just("0.0.0.0/0"), Just("[::/0]"),
        ],
        host in any_host(),
        address in any_address(),
    ) {
        let allow = allow(&[&format!("{pattern}:*")]);
        if allow.permits(&host, 80, address) {
            let class = special::class(special::unwrap_address(address));
            prop_assert!(matches!(class, Class::Global | Class::Other), "{class:?}");
            prop_assert!(class == Class::Global || pattern == "a.example");
        }
    }
}
