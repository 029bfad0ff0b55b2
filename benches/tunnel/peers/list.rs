//! How each peer is set up: its own defaults, with logging turned down, and what it takes to hold
//! thousands of connections.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{
    Class, Description, Site,
    Speaks::{self, Http, Https, Tcp},
};
use crate::{common::run, limits};

/// Every peer, in the order of the table.
pub const ALL: &[Description] = &[
    SIDING,
    DIRECT,
    Description {
        name: "rathole",
        programs: &["rathole"],
        commands: |site| rathole(site, ""),
        ..TUNNEL
    },
    Description {
        name: "rathole-ws",
        programs: &["rathole"],
        commands: |site| {
            let transport = "[SIDE.transport]\ntype = \"websocket\"\n\
                             [SIDE.transport.websocket]\ntls = false\n";
            rathole(site, transport)
        },
        ..TUNNEL
    },
    Description {
        name: "bore",
        programs: &["bore"],
        // Its port cannot be chosen.
        listens: |_| SocketAddr::from(([127, 0, 0, 1], 7835)),
        commands: bore,
        ..TUNNEL
    },
    Description {
        name: "ssh",
        programs: &["sshd", "ssh", "ssh-keygen"],
        descriptors: 1,
        commands: ssh,
        ..TUNNEL
    },
    Description {
        name: "wstunnel",
        programs: &["wstunnel"],
        commands: wstunnel,
        ..TUNNEL
    },
    Description {
        name: "chisel",
        programs: &["chisel"],
        descriptors: 1,
        commands: chisel,
        ..TUNNEL
    },
    Description {
        name: "haproxy-tcp",
        class: Class::Chain,
        programs: &["haproxy"],
        listens: |site| site.public,
        commands: |site| haproxy(site, "mode tcp\noption splice-auto"),
        ..TUNNEL
    },
    Description {
        name: "haproxy-http",
        class: Class::Chain,
        carries: &[Http, Https],
        programs: &["haproxy"],
        listens: |site| site.public,
        commands: |site| haproxy(site, "mode http\nhttp-reuse always"),
        ..TUNNEL
    },
];

/// The binary of this repository.
pub const SIDING: Description = Description {
    name: "siding",
    class: Class::Siding,
    carries: &[Tcp, Http, Https],
    programs: &["siding"],
    descriptors: 1,
    commands: siding,
    ..TUNNEL
};

/// No proxy at all.
pub const DIRECT: Description = Description {
    name: "direct",
    class: Class::Direct,
    programs: &[],
    descriptors: 1,
    commands: |_| unreachable!("there is nothing to start"),
    ..TUNNEL
};

/// What most of them have in common.
const TUNNEL: Description = Description {
    name: "",
    class: Class::Tunnel,
    carries: &[Tcp, Http],
    programs: &[],
    descriptors: 2,
    listens: |site| site.link,
    commands: |_| unreachable!("each has its own"),
};

fn command<A: AsRef<std::ffi::OsStr>>(program: &Path, arguments: &[A]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

fn siding(site: &Site) -> [Command; 2] {
    let Site { link, target, .. } = site;
    let kind = match site.speaks {
        Speaks::Tcp => "tcp",
        Speaks::Http => "http",
        Speaks::Https => "https",
    };
    let mut server = command(
        &site.programs[0],
        &["server", "--log", "warn", "--listen", &link.to_string()],
    );
    let port = site.public.port();
    server.args(["--proxy", &format!("edge-1={kind}:{port}:{target}")]);
    let mut client = command(
        &site.programs[0],
        &["client", "--log", "warn", "--id", "edge-1", "--server"],
    );
    client.arg(format!("ws://{link}"));
    client.args(["--allow", &target.to_string()]);
    if let Some(authority) = site.authority {
        client.arg("--target-ca").arg(authority);
    }
    if let Some(parked) = site.parked {
        let pool = format!(
            r#"{{ "pool": {{ "max_idle": {parked}, "max_idle_per_target": {parked}, "idle": "10m" }} }}"#
        );
        client
            .arg("--config")
            .arg(site.scratch.write("client.json", pool));
    }
    [server, client]
}

fn rathole(site: &Site, transport: &str) -> [Command; 2] {
    let file = |side: &str, address: &str, at: SocketAddr| {
        let Site { link, .. } = site;
        let transport = transport.replace("SIDE", side);
        let text = format!(
            "[{side}]\n{address} = \"{link}\"\ndefault_token = \"a token for the bench\"\n\
             {transport}[{side}.services.bench]\n{} = \"{at}\"\n",
            if side == "server" {
                "bind_addr"
            } else {
                "local_addr"
            },
        );
        let option = format!("--{side}");
        let file = site.scratch.write(&format!("{side}.toml"), text);
        command(&site.programs[0], &[PathBuf::from(option), file])
    };
    [
        file("server", "bind_addr", site.public),
        file("client", "remote_addr", site.target),
    ]
}

fn bore(site: &Site) -> [Command; 2] {
    let server = ["server", "--bind-addr", "127.0.0.1"];
    let local = site.target.port().to_string();
    let port = site.public.port().to_string();
    let client = [
        "local",
        &local,
        "--local-host",
        "127.0.0.1",
        "--to",
        "127.0.0.1",
        "--port",
        &port,
    ];
    [
        command(&site.programs[0], &server),
        command(&site.programs[0], &client),
    ]
}

fn ssh(site: &Site) -> [Command; 2] {
    let [sshd, ssh, keygen] = site.programs else {
        unreachable!("the description names three programs");
    };
    const PREPARING: Duration = Duration::from_secs(30);
    // As root sshd wants its separation directory, which a package makes at service start.
    fs::create_dir_all("/run/sshd").ok();
    for name in ["host_key", "user_key"] {
        let mut command = command(keygen, &["-q", "-t", "ed25519", "-N", "", "-f"]);
        let command = command.arg(site.scratch.path(name));
        run(command, Vec::new(), PREPARING).succeeded();
    }
    let directory = site.scratch.directory().display();
    let Site {
        link,
        public,
        target,
        ..
    } = site;
    let config = site.scratch.write(
        "sshd_config",
        format!(
            "ListenAddress {link}\nHostKey {directory}/host_key\nPidFile {directory}/sshd.pid\n\
             AuthorizedKeysFile {directory}/user_key.pub\nPermitRootLogin yes\nStrictModes no\n\
             UsePAM no\nMaxStartups 200\nLogLevel ERROR\n"
        ),
    );
    let mut server = command(sshd, &["-D", "-e", "-f"]);
    server.arg(config);
    let user = run(Command::new("id").arg("-un"), Vec::new(), PREPARING);
    let user = user.succeeded().text();
    let options = [
        "BatchMode=yes".to_owned(),
        "ExitOnForwardFailure=yes".to_owned(),
        "IdentitiesOnly=yes".to_owned(),
        "LogLevel=ERROR".to_owned(),
        "StrictHostKeyChecking=no".to_owned(),
        format!("IdentityFile={directory}/user_key"),
        format!("UserKnownHostsFile={directory}/known_hosts"),
    ];
    let mut client = command(ssh, &["-N", "-F", "none", "-c", "aes128-gcm@openssh.com"]);
    for option in options {
        client.args(["-o", &option]);
    }
    client
        .args(["-p", &link.port().to_string(), "-R"])
        .arg(format!("{public}:{target}"))
        .arg(format!("{}@127.0.0.1", user.trim()));
    [server, client]
}

fn wstunnel(site: &Site) -> [Command; 2] {
    let url = format!("ws://{}", site.link);
    let remote = format!("tcp://{}:{}", site.public, site.target);
    let client = ["--log-lvl", "WARN", "client", "-R", &remote, &url];
    [
        command(&site.programs[0], &["--log-lvl", "WARN", "server", &url]),
        command(&site.programs[0], &client),
    ]
}

fn chisel(site: &Site) -> [Command; 2] {
    let port = site.link.port().to_string();
    let server = [
        "server",
        "--reverse",
        "--host",
        "127.0.0.1",
        "--port",
        &port,
    ];
    let url = format!("http://{}", site.link);
    let remote = format!("R:{}:{}", site.public, site.target);
    [
        command(&site.programs[0], &server),
        command(&site.programs[0], &["client", &url, &remote]),
    ]
}

/// Two of them: the first takes users, the second stands in the place of a tunnel's client.
fn haproxy(site: &Site, mode: &str) -> [Command; 2] {
    let chained = |name: &str, from: SocketAddr, to: SocketAddr, tls: Option<&Path>| {
        // Two descriptors for each of these, and some of its own.
        let pipes = 64;
        let connections = limits::descriptors() / 2 - pipes - 200;
        let tls = tls.map_or(String::new(), |authority| {
            format!(" ssl verify required ca-file {}", authority.display())
        });
        let parked = site
            .parked
            .map_or(String::new(), |count| format!(" pool-max-conn {count}"));
        let text = format!(
            "global\nmaxconn {connections}\nmaxpipes {pipes}\n\
             defaults\n{mode}\ntimeout connect 10s\ntimeout client 10m\ntimeout server 10m\n\
             frontend users\nbind {from}\ndefault_backend next\n\
             backend next\nserver next {to}{tls}{parked}\n"
        );
        let file = site.scratch.write(name, text);
        command(
            &site.programs[0],
            &[Path::new("-db"), Path::new("-f"), &file],
        )
    };
    [
        chained("first.cfg", site.public, site.link, None),
        chained("second.cfg", site.link, site.target, site.authority),
    ]
}
