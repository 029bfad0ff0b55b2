//! nginx as an origin, with a configuration of its own in a scratch directory.

use std::{
    collections::HashMap,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
};

use super::{Authority, Process, Scratch, eventually, free_port, require};

/// An nginx of the current user: one process, a plain and a TLS listener, files under `www/`.
pub struct Nginx {
    /// The server.
    pub process: Process,
    program: PathBuf,
    plain: SocketAddr,
    tls: SocketAddr,
    authority: Authority,
    scratch: Scratch,
}

impl Nginx {
    /// Starts one that keeps its connections; `None` where nginx is not installed.
    pub fn start() -> Option<Self> {
        Self::with("keepalive_requests 100000;")
    }

    /// Starts one with further directives for its `http` block; `None` where nginx is not installed.
    pub fn with(directives: &str) -> Option<Self> {
        let program = require("nginx")?;
        let scratch = Scratch::new();
        let authority = Authority::new();
        let certificate = authority.files(&["127.0.0.1", "localhost"]);
        fs::create_dir(scratch.path("www")).expect("the scratch directory is writable");
        let [plain, tls] =
            [free_port(), free_port()].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        scratch.write(
            "nginx.conf",
            configuration(scratch.directory(), plain, tls, &certificate, directives),
        );
        let process = start(&program, &scratch, plain);
        Some(Self {
            process,
            program,
            plain,
            tls,
            authority,
            scratch,
        })
    }

    /// Starts it again at the same place after it was killed.
    pub fn restart(&mut self) {
        self.process = start(&self.program, &self.scratch, self.plain);
    }

    /// Where it speaks HTTP.
    pub fn plain(&self) -> SocketAddr {
        self.plain
    }

    /// Where it speaks HTTPS.
    pub fn tls(&self) -> SocketAddr {
        self.tls
    }

    /// Who certified it, in PEM: for 127.0.0.1 and localhost.
    pub fn authority(&self) -> PathBuf {
        self.authority.file()
    }

    /// Puts a file under its root; directories on the way are made.
    pub fn publish(&self, name: &str, content: impl AsRef<[u8]>) {
        let name = format!("www/{name}");
        let directory = self.scratch.path(&name);
        let directory = directory.parent().expect("it is under www/");
        fs::create_dir_all(directory).expect("the scratch directory is writable");
        self.scratch.write(&name, content);
    }

    /// A place for files that are not served.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Waits until `count` requests for `path` have ended, and returns for each the number of its
    /// connection and the number of requests which that connection had then brought.
    pub fn served(&self, path: &str, count: usize) -> Vec<(u64, u64)> {
        eventually(&format!("nginx logs {count} requests for {path}"), || {
            let served: Vec<(u64, u64)> = self
                .log()
                .into_iter()
                .filter(|(.., asked)| asked == path)
                .map(|(connection, requests, _)| (connection, requests))
                .collect();
            (served.len() >= count).then_some(served)
        })
    }

    /// Waits until `count` requests have ended, and returns how many each connection has brought.
    pub fn requests_by_connection(&self, count: usize) -> HashMap<u64, u64> {
        eventually(&format!("nginx logs {count} requests"), || {
            let log = self.log();
            (log.len() >= count).then(|| {
                let mut requests = HashMap::new();
                for (connection, ..) in log {
                    *requests.entry(connection).or_default() += 1;
                }
                requests
            })
        })
    }

    /// Connection, requests of it so far and path, for each request that has ended.
    fn log(&self) -> Vec<(u64, u64, String)> {
        let log = fs::read_to_string(self.scratch.path("access.log")).unwrap_or_default();
        let lines = log.lines().filter_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let [connection, requests, asked] = words[..] else {
                return None;
            };
            Some((
                connection.parse().ok()?,
                requests.parse().ok()?,
                asked.to_owned(),
            ))
        });
        lines.collect()
    }
}

fn start(program: &Path, scratch: &Scratch, plain: SocketAddr) -> Process {
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

fn configuration(
    directory: &Path,
    plain: SocketAddr,
    tls: SocketAddr,
    (certificate, key): &(PathBuf, PathBuf),
    directives: &str,
) -> String {
    let directory = directory.display();
    let (certificate, key) = (certificate.display(), key.display());
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
           {directives}\n\
           types {{ text/html html; text/plain txt; image/svg+xml svg; }}\n\
           root {directory}/www;\n\
           server {{ listen {plain}; }}\n\
           server {{\n\
             listen {tls} ssl;\n\
             ssl_certificate {certificate};\n\
             ssl_certificate_key {key};\n\
           }}\n\
         }}\n"
    )
}
