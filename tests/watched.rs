//! A changed file is noticed by itself: however it was replaced, once, and only where it holds something else.

#![cfg(any(target_os = "linux", target_os = "android"))]

mod common;

use std::{
    fs::{self, File, FileTimes},
    net::{SocketAddr, TcpStream},
    os::unix::fs::symlink,
    path::Path,
    process::Command,
    time::SystemTime,
};

use common::{
    Authority, CLIENT, Log, Origin, Scratch, Siding, TlsUser, Tunnel, connect, echoes, eventually,
    free_port, tls_user,
};

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A server's configuration with one proxy.
fn proxy(port: u16, origin: &Origin) -> String {
    format!(
        "{{ \"proxies\": [ \"{CLIENT}=tcp:{port}:{}\" ] }}",
        origin.address()
    )
}

/// A tunnel whose server has its configuration there.
fn tunnel_of(config: &Path) -> Tunnel {
    Tunnel::builder()
        .server_files("--config", config)
        .allow("127.0.0.1:*")
        .start()
}

/// Does something to a file, and waits for what the log says of it.
fn after(log: &Log, said: &str, change: impl FnOnce()) -> String {
    let mark = log.mark();
    change();
    log.wait_for_since(mark, said)
}

/// How `config.json` comes to hold something else.
#[derive(Clone, Copy, Debug)]
enum Way {
    WrittenInPlace,
    /// As editors do.
    RenamedOver,
    RemovedAndMade,
    ReplacedByLink,
    WrittenWhereTheLinkLeads,
}

impl Way {
    const ALL: [Way; 5] = [
        Way::WrittenInPlace,
        Way::RenamedOver,
        Way::RemovedAndMade,
        Way::ReplacedByLink,
        Way::WrittenWhereTheLinkLeads,
    ];

    fn replace(self, scratch: &Scratch, json: &str) {
        let path = scratch.path("config.json");
        match self {
            Way::WrittenInPlace => fs::write(&path, json).unwrap(),
            Way::RenamedOver => fs::rename(scratch.write(".config.json.swp", json), path).unwrap(),
            Way::RemovedAndMade => {
                fs::remove_file(&path).unwrap();
                fs::write(&path, json).unwrap();
            }
            Way::ReplacedByLink => {
                let there = scratch.write("elsewhere.json", json);
                fs::remove_file(&path).unwrap();
                symlink(there, &path).unwrap();
            }
            Way::WrittenWhereTheLinkLeads => {
                fs::write(scratch.path("elsewhere.json"), json).unwrap();
            }
        }
    }
}

#[test]
fn a_configuration_is_read_again_however_it_is_replaced_and_no_session_is_touched() {
    let [one, two] = [Origin::echo(), Origin::echo()];
    let port = free_port();
    let scratch = Scratch::new();
    let config = scratch.write("config.json", proxy(port, &one));
    let tunnel = tunnel_of(&config);
    let session = connect(at(port));
    echoes(&session);
    for (number, way) in Way::ALL.into_iter().enumerate() {
        let origin = [&two, &one][number % 2];
        let before = origin.accepted();
        let json = proxy(port, origin);
        after(tunnel.server.log(), "reload: done", || {
            way.replace(&scratch, &json);
        });
        echoes(&connect(at(port)));
        assert_eq!(origin.accepted(), before + 1, "{way:?}");
        echoes(&session);
    }
    assert_eq!(tunnel.server.log().count("reload: done"), 5);
    assert_eq!(tunnel.server.log().count(": down ("), 0);
}

#[test]
fn what_holds_the_same_is_not_read_again() {
    let echo = Origin::echo();
    let [port, other] = [free_port(), free_port()];
    let scratch = Scratch::new();
    let config = scratch.write("config.json", proxy(port, &echo));
    let tunnel = tunnel_of(&config);
    let log = tunnel.server.log();
    let touch = || {
        let times = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
        let file = File::options().write(true).open(&config).unwrap();
        file.set_times(times).unwrap();
    };
    after(log, "no file has changed", touch);
    let again = || drop(scratch.write("config.json", proxy(port, &echo)));
    after(log, "no file has changed", again);
    // What happens to others is of no interest; that it is not waited for is seen by what comes next.
    scratch.write("config.json.bak", "{");
    let next = proxy(other, &echo);
    after(log, "reload: done", || {
        drop(scratch.write("config.json", &next));
    });
    assert_eq!(log.count("reload: done"), 1);
    assert_eq!(log.count("has changed"), 3);
}

#[test]
fn what_is_wrong_is_said_once_and_what_is_right_again_is_taken_over() {
    let echo = Origin::echo();
    let [port, other] = [free_port(), free_port()];
    let scratch = Scratch::new();
    let config = scratch.write("config.json", proxy(port, &echo));
    let tunnel = tunnel_of(&config);
    let log = tunnel.server.log();
    let writes = |json: &str| drop(scratch.write("config.json", json));
    let line = after(log, "reload: nothing changed", || writes("{"));
    assert!(line.contains("line 1"), "{line}");
    echoes(&connect(at(port)));
    after(log, "no file has changed", || writes("{"));
    assert_eq!(log.count("reload: nothing changed"), 1);

    // A file that is not there is waited for, with the folder that it is to be in.
    let json = proxy(other, &echo).replacen('{', "{ \"token_file\": \"secrets/token\",", 1);
    let line = after(log, "reload: nothing changed", || writes(&json));
    assert!(line.contains("secrets/token"), "{line}");
    echoes(&connect(at(port)));
    after(log, "reload: done", || {
        fs::create_dir(scratch.path("secrets")).unwrap();
        scratch.write("secrets/token", "a token of this test only");
    });
    // The client does not know it.
    tunnel.client.log().wait_for("wrong token");
    // From here on it is watched as any other, also in another folder of that name.
    let line = after(log, "reload: nothing changed", || {
        fs::rename(scratch.path("secrets"), scratch.path("away")).unwrap();
    });
    assert!(line.contains("secrets/token"), "{line}");
    after(log, "reload: done", || {
        fs::create_dir(scratch.path("secrets")).unwrap();
        scratch.write("secrets/token", "another token of this test");
    });
    // What is named no longer is watched no longer.
    after(log, "reload: done", || writes(&proxy(port, &echo)));
    let before = log.count("has changed");
    scratch.write("secrets/token", "short");
    after(log, "reload: done", || writes(&proxy(other, &echo)));
    assert_eq!(log.count("has changed"), before + 1);
}

#[test]
fn a_pipe_in_the_place_of_a_file_is_not_waited_for() {
    let echo = Origin::echo();
    let port = free_port();
    let scratch = Scratch::new();
    let config = scratch.write("config.json", proxy(port, &echo));
    let tunnel = tunnel_of(&config);
    let log = tunnel.server.log();
    let pipe = scratch.path("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo belongs to every system").success());
    let line = after(log, "reload: nothing changed", || {
        fs::rename(&pipe, &config).unwrap();
    });
    assert!(line.contains("it is a pipe"), "{line}");
    echoes(&connect(at(port)));
    // Asked for, neither.
    after(log, "reload: nothing changed", || {
        tunnel.server.signal("HUP")
    });
    let other = free_port();
    after(log, "reload: done", || {
        fs::rename(scratch.write("new", proxy(other, &echo)), &config).unwrap();
    });
    echoes(&connect(at(other)));
}

/// As a volume of Kubernetes is laid out: `name -> ..data/name`, and `..data -> ..<time>`.
struct Volume(Scratch);

impl Volume {
    fn new(files: &[(&str, &str)]) -> Self {
        let volume = Self(Scratch::new());
        volume.becomes("..1", files);
        for (name, _) in files {
            symlink(format!("..data/{name}"), volume.0.path(name)).unwrap();
        }
        volume
    }

    /// What the kubelet's AtomicWriter does.
    fn becomes(&self, version: &str, files: &[(&str, &str)]) {
        let Self(scratch) = self;
        fs::create_dir(scratch.path(version)).unwrap();
        for (name, content) in files {
            scratch.write(&format!("{version}/{name}"), content);
        }
        let old = fs::read_link(scratch.path("..data")).ok();
        symlink(version, scratch.path("..data_tmp")).unwrap();
        fs::rename(scratch.path("..data_tmp"), scratch.path("..data")).unwrap();
        if let Some(old) = old {
            fs::remove_dir_all(scratch.directory().join(old)).unwrap();
        }
    }
}

#[test]
fn a_volume_of_kubernetes_is_read_again_when_it_is_swapped() {
    let [one, two] = [Origin::echo(), Origin::echo()];
    let port = free_port();
    let secret = "a token of this test only";
    let json = |origin| proxy(port, origin).replacen('{', "{ \"token_file\": \"token\",", 1);
    let volume = Volume::new(&[("config.json", &json(&one)), ("token", secret)]);
    let tunnel = Tunnel::builder()
        .server_files("--config", &volume.0.path("config.json"))
        .client_files("--token-file", &volume.0.path("token"))
        .allow("127.0.0.1:*")
        .start();
    let session = connect(at(port));
    echoes(&session);
    let log = tunnel.server.log();
    after(log, "reload: done", || {
        volume.becomes("..2", &[("config.json", &json(&two)), ("token", secret)]);
    });
    echoes(&connect(at(port)));
    assert_eq!(two.accepted(), 1);
    after(log, "no file has changed", || {
        volume.becomes("..3", &[("config.json", &json(&two)), ("token", secret)]);
    });
    echoes(&session);
    // Both sides have the new token before the link is up again.
    let mark = tunnel.client.log().mark();
    let other = "another token of this test";
    after(log, "the token of this client has changed", || {
        volume.becomes("..4", &[("config.json", &json(&two)), ("token", other)]);
    });
    tunnel.client.log().wait_for_since(mark, ": up to ");
    echoes(&connect(at(port)));
}

#[test]
fn a_renewed_certificate_is_shown_to_whoever_comes_next() {
    let authority = Authority::new();
    let echo = Origin::echo();
    let scratch = Scratch::new();
    // As certbot has them: links to the last of several.
    let renew = |number: u32| {
        let (certificate, key) = authority.certify(&["localhost"]);
        for (name, pem) in [("cert", certificate), ("key", key)] {
            let file = scratch.write(&format!("{name}{number}.pem"), pem);
            let link = scratch.path(&format!("{name}.pem"));
            fs::remove_file(&link).ok();
            symlink(file, link).unwrap();
        }
    };
    renew(1);
    let port = free_port();
    let json = format!(
        "{{ \"cert\": \"cert.pem\", \"key\": \"key.pem\", \"proxies\": [ \
         {{ \"client\": \"{CLIENT}\", \"spec\": \"tcp:{port}:{}\", \"tls\": true }} ] }}",
        echo.address()
    );
    let tunnel = Tunnel::builder()
        .server_files("--config", &scratch.write("config.json", json))
        .url("wss://localhost:{port}")
        .client_files("--ca", &authority.file())
        .allow("127.0.0.1:*")
        .start();
    let meets = || {
        let mut user = tls_user(authority.client(), at(port), "localhost");
        assert_eq!(said(&mut user), *b"x");
        let shown = user.conn.peer_certificates().expect("shown")[0].to_vec();
        (user, shown)
    };
    let (mut old, first) = meets();
    after(tunnel.server.log(), "reload: done", || renew(2));
    let (_, second) = meets();
    assert_ne!(first, second);
    assert_eq!(said(&mut old), *b"x", "who was there stays");
    assert_eq!(tunnel.server.log().count(": down ("), 0);
}

/// What comes back for one byte.
fn said(user: &mut TlsUser) -> [u8; 1] {
    use std::io::{Read, Write};
    user.write_all(b"x").expect("taken");
    let mut byte = [0];
    user.read_exact(&mut byte).expect("echoed");
    byte
}

#[test]
fn a_client_watches_its_files_too_and_its_log_has_the_level_that_is_written_there() {
    let echo = Origin::echo();
    let [port, other] = [free_port(), free_port()];
    let exposes = |port: u16, more: &str| {
        let target = echo.address();
        format!("{{ {more} \"expose\": [ \"tcp:{port}:{target}\" ] }}")
    };
    let scratch = Scratch::new();
    let config = scratch.write("config.json", exposes(port, "\"log\": \"info\","));
    let server = Siding::start(["server", "--listen", "127.0.0.1:0"]);
    let url = format!("ws://{}", server.link_address());
    let config_argument = config.display().to_string();
    let client = Siding::start([
        "client",
        "--id",
        CLIENT,
        "--server",
        &url,
        "--config",
        &config_argument,
    ]);
    let log = client.log();
    log.wait_for(": open at ");
    echoes(&connect(at(port)));
    let line = after(log, "reload: done", || {
        drop(scratch.write("config.json", exposes(other, "\"log\": \"debug\",")));
    });
    assert!(line.contains("1 proxies asked for, 1 closed"), "{line}");
    log.wait_for("reload: log level DEBUG");
    let open = format!("open at 127.0.0.1:{other}");
    log.wait_for(&open);
    // It does so from here on.
    drop(connect(at(other)));
    log.wait_for("[DEBUG]");
    eventually("nobody listens there any more", || {
        TcpStream::connect(at(port)).err()
    });
}

#[test]
fn a_client_whose_token_was_wrong_dials_at_once_with_another() {
    let [right, wrong] = ["a token of this test only", "another token of this test"];
    let scratch = Scratch::new();
    let [of_server, of_client] = [("server", right), ("client", wrong)]
        .map(|(name, token)| scratch.write(name, token).display().to_string());
    let listen = ["server", "--listen", "127.0.0.1:0"];
    let server = Siding::start(listen.iter().chain(&["--token-file", &*of_server]));
    let url = format!("ws://{}", server.link_address());
    let dial = ["client", "--id", CLIENT, "--server", &*url];
    let client = Siding::start(dial.iter().chain(&["--token-file", &*of_client]));
    let log = client.log();
    log.wait_for("wrong token");
    after(log, "dialled at once, by the new configuration", || {
        drop(scratch.write("client", right));
    });
    log.wait_for(": up to ");
    assert_eq!(log.count("wrong token: "), 1);
    // The link that is up stays.
    let mark = log.mark();
    client.signal("HUP");
    log.wait_for_since(mark, "reload: done");
    assert_eq!(log.count("dialled at once"), 1);
}
