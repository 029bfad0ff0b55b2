//! Several hosts on one machine: network namespaces that a test makes itself, and that are gone with it.
//!
//! ```text
//!   here  192.0.2.2 ----- 192.0.2.1  road  198.51.100.1 ----- 198.51.100.2  public
//!         203.0.113.2 --------------------------------------- 203.0.113.1
//! ```
//!
//! The test itself is `here`, with the client and the origins; the server is at `public`. The link goes
//! by the road, where it can be cut in more than one way; users have a line of their own, so that what
//! they see is what siding does, not what became of their network. (All addresses are of RFC 5737, and
//! none of them exists outside of the namespaces.)

use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    process::Command,
};

use super::{PATIENCE, Scratch, require, run};

/// Set for the test that runs again among its hosts, to its name.
const AMONG_HOSTS: &str = "SIDING_TEST_AMONG_HOSTS";

/// The server, as its clients reach it: by the road.
const PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

/// The server, as users reach it.
const PUBLIC_TO_USERS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

/// What is run once in the new namespaces.
const LAY: &str = "
set -e
mount -t tmpfs none /run
ip netns add public
ip netns add road
ip link set lo up
ip -n public link set lo up
ip link add link0 type veth peer name link1 netns road
ip -n road link add link2 type veth peer name link3 netns public
ip link add users0 type veth peer name users1 netns public
ip address add 192.0.2.2/24 dev link0
ip -n road address add 192.0.2.1/24 dev link1
ip -n road address add 198.51.100.1/24 dev link2
ip -n public address add 198.51.100.2/24 dev link3
ip address add 203.0.113.2/24 dev users0
ip -n public address add 203.0.113.1/24 dev users1
for link in link0 users0; do ip link set $link up; done
for link in link1 link2; do ip -n road link set $link up; done
for link in link3 users1; do ip -n public link set $link up; done
ip route add 198.51.100.0/24 via 192.0.2.1
ip -n public route add 192.0.2.0/24 via 198.51.100.1
ip netns exec road sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
";

/// The hosts of a test.
pub struct Hosts(());

/// One of them.
pub struct Host(&'static str);

impl Hosts {
    /// Runs the test of this name again, among hosts of its own: there it has `Some`, and here, once
    /// that has passed, `None`. Where no hosts can be made there is a line that says so, and `None`.
    ///
    /// # Panics
    /// When the test fails there.
    pub fn of(test: &str) -> Option<Hosts> {
        if env::var_os(AMONG_HOSTS).is_some_and(|name| name == test) {
            return Some(Hosts(()));
        }
        let (unshare, _ip) = (require("unshare")?, require("ip")?);
        let new = ["--user", "--map-root-user", "--net", "--mount"];
        // Whatever becomes of the test, nothing that it has started outlives it.
        let end = ["--pid", "--fork", "--kill-child", "--mount-proc"];
        let begin = |script: &str| {
            let mut command = Command::new(&unshare);
            command.args(new).args(end).args(["sh", "-c", script]);
            command
        };
        let laid = run(&mut begin(LAY), Vec::new(), PATIENCE);
        if !laid.status.success() {
            println!("skipped: no hosts can be made here: {}", laid.stderr.trim());
            return None;
        }
        let again = env::current_exe().expect("it runs");
        // Process ids begin anew there, and what is named after them must not be found twice.
        let scratch = Scratch::new();
        let mut command = begin(&format!("{LAY}\nexec \"$0\" \"$@\""));
        command
            .arg(again)
            .args(["--exact", test, "--nocapture", "--include-ignored"])
            .env(AMONG_HOSTS, test)
            .env("TMPDIR", scratch.directory());
        let ran = run(&mut command, Vec::new(), 4 * PATIENCE);
        let said = String::from_utf8_lossy(&ran.stdout);
        println!("{said}{}", ran.stderr);
        assert!(ran.status.success(), "{test}, among its hosts");
        assert!(said.contains("1 passed"), "there is a test {test}");
        None
    }

    /// The host of the server.
    pub fn public(&self) -> Host {
        Host("public")
    }

    /// Where the server waits for clients.
    pub fn link_address(&self) -> SocketAddr {
        (PUBLIC, 7000).into()
    }

    /// A SPEC that listens where users reach the server.
    pub fn spec(&self, kind: &str, port: u16, target: SocketAddr) -> String {
        format!("{kind}:{PUBLIC_TO_USERS}:{port}:{target}")
    }

    /// The client's interface goes down, or up again: it knows at once that it has no network.
    pub fn set_interface(&self, up: bool) {
        let state = if up { "up" } else { "down" };
        self.ip(&["link", "set", "link0", state]);
        if up {
            // It went with the interface.
            self.ip(&["route", "add", "198.51.100.0/24", "via", "192.0.2.1"]);
        }
    }

    /// The road loses every packet, or none again, and nobody is told.
    pub fn set_road(&self, open: bool) {
        let script = format!("echo {} > /proc/sys/net/ipv4/ip_forward", u8::from(open));
        self.ip(&["netns", "exec", "road", "sh", "-c", &script]);
    }

    /// The client's address is this one, instead of another of its network; nothing leads anywhere from it.
    pub fn set_address(&self, address: &str) {
        self.ip(&["address", "flush", "dev", "link0"]);
        self.ip(&["address", "add", address, "dev", "link0"]);
    }

    /// From where the client reaches the server: from this address of its own, or not at all.
    pub fn set_route(&self, source: Option<&str>) {
        let to = "198.51.100.0/24";
        match source {
            Some(source) => self.ip(&["route", "replace", to, "via", "192.0.2.1", "src", source]),
            None => self.ip(&["route", "delete", to]),
        }
    }

    /// `ip` with these words, at the client's host.
    pub fn ip(&self, words: &[&str]) {
        let mut command = Command::new(require("ip").expect("it was there"));
        let ran = run(command.args(words), Vec::new(), PATIENCE);
        assert!(ran.status.success(), "ip {words:?}: {}", ran.stderr);
    }
}

impl Host {
    /// The command that runs the program that follows its words on this host.
    pub fn command(&self) -> Vec<String> {
        ["ip", "netns", "exec", self.0].map(str::to_owned).into()
    }
}
