//! Real programs as targets, each with its own configuration in a scratch directory.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{Process, Scratch, eventually, free_port, require, run};

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

/// An nginx of the current user: one process, a plain and a TLS listener, files under `www/`.
pub struct Nginx {
    /// The server.
    pub process: Process,
    program: PathBuf,
    plain: SocketAddr,
    tls: SocketAddr,
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

impl Nginx {
    /// Starts it; `None` where nginx or openssl is not installed.
    pub fn start() -> Option<Self> {
        let (program, openssl) = (require("nginx")?, require("openssl")?);
        let scratch = Scratch::new();
        let mut command = Command::new(openssl);
        command
            .args([
                "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            ])
            .args([
                "-subj",
                "/CN=127.0.0.1",
                "-addext",
                "subjectAltName=IP:127.0.0.1",
            ])
            .arg("-keyout")
            .arg(scratch.path("key.pem"))
            .arg("-out")
            .arg(scratch.path("cert.pem"));
        run(&mut command, Vec::new(), PREPARING).succeeded();
        fs::create_dir(scratch.path("www")).expect("the scratch directory is writable");
        let [plain, tls] =
            [free_port(), free_port()].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        scratch.write("nginx.conf", configuration(scratch.directory(), plain, tls));
        let process = start_nginx(&program, &scratch, plain);
        Some(Self {
            process,
            program,
            plain,
            tls,
            scratch,
        })
    }

    /// Starts it again at the same place after it was killed.
    pub fn restart(&mut self) {
        self.process = start_nginx(&self.program, &self.scratch, self.plain);
    }

    /// Where it speaks HTTP.
    pub fn plain(&self) -> SocketAddr {
        self.plain
    }

    /// Where it speaks HTTPS.
    pub fn tls(&self) -> SocketAddr {
        self.tls
    }

    /// Its certificate, which is its own authority.
    pub fn certificate(&self) -> PathBuf {
        self.scratch.path("cert.pem")
    }

    /// Puts a file under its root.
    pub fn publish(&self, name: &str, content: impl AsRef<[u8]>) {
        self.scratch.write(&format!("www/{name}"), content);
    }

    /// A place for files that are not served.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Waits until `count` requests for `path` have ended, and returns for each the number of its
    /// connection and the number of requests which that connection had then brought.
    pub fn served(&self, path: &str, count: usize) -> Vec<(u64, u64)> {
        eventually(&format!("nginx logs {count} requests for {path}"), || {
            let log = fs::read_to_string(self.scratch.path("access.log")).unwrap_or_default();
            let lines = log.lines().filter_map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                let [connection, requests, asked] = words[..] else {
                    return None;
                };
                (asked == path).then_some((connection.parse().ok()?, requests.parse().ok()?))
            });
            let served: Vec<(u64, u64)> = lines.collect();
            (served.len() >= count).then_some(served)
        })
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
    for variable in [
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "no_proxy",
        "NO_PROXY",
    ] {
        command.env_remove(variable);
    }
    command.env_remove("HTTPS_PROXY").env_remove("ALL_PROXY");
    Some(command)
}

fn start_nginx(program: &Path, scratch: &Scratch, plain: SocketAddr) -> Process {
    let mut command = Command::new(program);
    command.arg("-p").arg(scratch.directory());
    command.arg("-c").arg(scratch.path("nginx.conf"));
    command.arg("-e").arg(scratch.path("error.log"));
    let mut process = Process::start("nginx", &mut command);
    eventually("nginx listens", || {
        assert!(
            process.is_running(),
            "nginx has ended: {}",
            process.log().text()
        );
        TcpStream::connect(plain).ok()
    });
    process
}

fn configuration(directory: &Path, plain: SocketAddr, tls: SocketAddr) -> String {
    let directory = directory.display();
    format!(
        "daemon off;\n\
         master_process off;\n\
         pid {directory}/nginx.pid;\n\
         error_log {directory}/error.log notice;\n\
         events {{ worker_connections 512; }}\n\
         http {{\n\
           log_format connections '$connection $connection_requests $request_uri';\n\
           access_log {directory}/access.log connections;\n\
           client_body_temp_path {directory}/body;\n\
           proxy_temp_path {directory}/proxy;\n\
           fastcgi_temp_path {directory}/fastcgi;\n\
           uwsgi_temp_path {directory}/uwsgi;\n\
           scgi_temp_path {directory}/scgi;\n\
           keepalive_requests 100000;\n\
           root {directory}/www;\n\
           server {{ listen {plain}; }}\n\
           server {{\n\
             listen {tls} ssl;\n\
             ssl_certificate {directory}/cert.pem;\n\
             ssl_certificate_key {directory}/key.pem;\n\
           }}\n\
         }}\n"
    )
}
