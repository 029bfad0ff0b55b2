//! Real programs: OpenSSH as a target, with its own configuration in a scratch directory, and the
//! users curl and wget.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{Process, Scratch, free_port, require, run};

/// How long a preparation (a key, a certificate) may take.
const PREPARING: Duration = Duration::from_secs(30);

/// An OpenSSH server of the current user, with keys of its own.
pub struct Sshd {
    /// The daemon.
    pub process: Process,
    address: SocketAddr,
    user: String,
    ssh: PathBuf,
    scp: PathBuf,
    scratch: Scratch,
}

impl Sshd {
    /// Starts it; `None` where OpenSSH is not installed.
    pub fn start() -> Option<Self> {
        let (sshd, ssh) = (require("sshd")?, require("ssh")?);
        let (keygen, scp) = (require("ssh-keygen")?, require("scp")?);
        // As root sshd wants its separation directory, which a package makes at service start.
        fs::create_dir_all("/run/sshd").ok();
        let scratch = Scratch::new();
        for name in ["host_key", "user_key"] {
            let mut command = Command::new(&keygen);
            command
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(scratch.path(name));
            run(&mut command, Vec::new(), PREPARING).succeeded();
        }
        let directory = scratch.directory().display();
        let port = free_port();
        let config = scratch.write(
            "sshd_config",
            format!(
                "ListenAddress 127.0.0.1:{port}\n\
                 HostKey {directory}/host_key\n\
                 AuthorizedKeysFile {directory}/user_key.pub\n\
                 PidFile {directory}/sshd.pid\n\
                 Subsystem sftp internal-sftp\n\
                 PermitRootLogin yes\n\
                 StrictModes no\n\
                 UsePAM no\n\
                 MaxStartups 200\n"
            ),
        );
        let process = Process::start(
            "sshd",
            Command::new(sshd).args(["-D", "-e", "-f"]).arg(config),
        );
        process.log().wait_for("Server listening on 127.0.0.1");
        let user = run(Command::new("id").arg("-un"), Vec::new(), PREPARING)
            .succeeded()
            .text();
        let user = user.trim().to_owned();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Some(Self {
            process,
            address,
            user,
            ssh,
            scp,
            scratch,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A directory for files to copy.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// `ssh OPTIONS… user@127.0.0.1 WORDS…` through a proxy.
    pub fn ssh(&self, proxy: SocketAddr, options: &[&str], words: &[&str]) -> Command {
        let mut command = Command::new(&self.ssh);
        self.authenticate(&mut command);
        command
            .arg("-p")
            .arg(proxy.port().to_string())
            .args(options);
        command
            .arg(format!("{}@{}", self.user, proxy.ip()))
            .args(words);
        command
    }

    /// `scp` from here to there, through a proxy.
    pub fn scp_up(&self, proxy: SocketAddr, from: &Path, to: &Path) -> Command {
        let mut command = self.scp(proxy);
        command.arg(from).arg(self.remote(proxy, to));
        command
    }

    /// `scp` from there to here, through a proxy.
    pub fn scp_down(&self, proxy: SocketAddr, from: &Path, to: &Path) -> Command {
        let mut command = self.scp(proxy);
        command.arg(self.remote(proxy, from)).arg(to);
        command
    }

    fn scp(&self, proxy: SocketAddr) -> Command {
        let mut command = Command::new(&self.scp);
        self.authenticate(&mut command);
        command.arg("-q").arg("-P").arg(proxy.port().to_string());
        command
    }

    fn remote(&self, proxy: SocketAddr, path: &Path) -> String {
        format!("{}@{}:{}", self.user, proxy.ip(), path.display())
    }

    /// Our key and nothing of the machine's own configuration.
    fn authenticate(&self, command: &mut Command) {
        let known_hosts = self.scratch.path("known_hosts");
        command
            .args([
                "-F",
                "none",
                "-o",
                "BatchMode=yes",
                "-o",
                "StrictHostKeyChecking=no",
            ])
            .args(["-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR"])
            .arg("-o")
            .arg(format!("UserKnownHostsFile={}", known_hosts.display()))
            .arg("-i")
            .arg(self.scratch.path("user_key"));
    }
}

/// `curl` that shows errors, and obeys no proxy of the environment; `None` if not installed.
pub fn curl() -> Option<Command> {
    let mut command = Command::new(require("curl")?);
    command.args([
        "--silent",
        "--show-error",
        "--fail",
        "--noproxy",
        "",
        "--max-time",
        "60",
    ]);
    obey_no_proxy(&mut command);
    Some(command)
}

/// `wget` that says what happens, tries once, and obeys no proxy of the environment and no
/// configuration of the user; `None` if not installed.
pub fn wget() -> Option<Command> {
    let mut command = Command::new(require("wget")?);
    command.args([
        "--no-config",
        "--tries=1",
        "--timeout=60",
        "--server-response",
    ]);
    obey_no_proxy(&mut command);
    Some(command)
}

/// Takes from a program's environment what could send its requests elsewhere.
pub fn obey_no_proxy(command: &mut Command) {
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
}
