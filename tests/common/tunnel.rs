//! A server and a client, each a process of its own, joined over loopback.

use std::{
    ffi::OsString,
    net::{SocketAddr, TcpStream},
    ops::{Deref, DerefMut},
    path::Path,
    process::Command,
};

#[cfg(all(target_os = "linux", feature = "upgrade"))]
use {
    command_fds::{CommandFdExt, FdMapping},
    std::os::fd::OwnedFd,
};

use super::{Authority, Host, Process, Scratch, connect, eventually, free_port};

/// The id of the client in every tunnel.
pub const CLIENT: &str = "edge-1";

/// The binary under test, running.
pub struct Siding(Process);

/// A server and its client, and where the proxies listen.
pub struct Tunnel {
    /// The public side.
    pub server: Siding,
    /// The private side.
    pub client: Siding,
    plan: Builder,
    link: SocketAddr,
    proxies: Vec<SocketAddr>,
    scratch: Scratch,
}

/// What a tunnel is made of.
#[derive(Clone, Default)]
pub struct Builder {
    proxies: Vec<String>,
    exposed: Vec<String>,
    /// Proxies that stand in a configuration, for the sake of their options.
    written: Vec<String>,
    /// What lies beside the configurations: names and contents.
    files: Vec<(String, String)>,
    allow: Vec<String>,
    token: Option<String>,
    log: Option<&'static str>,
    /// Where the server waits for clients, if it is not any port of loopback.
    listen: Option<SocketAddr>,
    /// By what URL the client finds it, if not by `ws://` and its address: `{port}` is filled in.
    url: Option<String>,
    server: Role,
    client: Role,
}

#[derive(Clone, Default)]
struct Role {
    arguments: Vec<String>,
    config: Option<String>,
    /// The command that starts it, where it is not started as it is.
    under: Vec<String>,
}

impl Siding {
    /// Starts `siding` with these arguments.
    pub fn start<A: Into<OsString>>(arguments: impl IntoIterator<Item = A>) -> Self {
        Self::start_under(&[], arguments)
    }

    /// As [`Siding::start`], with these variables, and none of those that name a proxy beside them.
    pub fn start_with_variables<A: Into<OsString>>(
        variables: &[(&str, &str)],
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        let ours = ["http", "https", "all", "no"].map(|word| format!("{word}_proxy"));
        let unset = ours
            .iter()
            .flat_map(|name| [name.clone(), name.to_uppercase()])
            .flat_map(|name| ["-u".to_owned(), name]);
        let set = variables
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        let under: Vec<String> = ["env".to_owned()]
            .into_iter()
            .chain(unset)
            .chain(set)
            .collect();
        Self::start_under(&under, arguments)
    }

    /// As [`Siding::start`], with room for only `limit` descriptors.
    pub fn start_with_descriptors<A: Into<OsString>>(
        limit: usize,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        Self::start_under(&few_descriptors(limit), arguments)
    }

    /// As [`Siding::start`], with these variables, and these descriptors by their names, as a service manager
    /// does it.
    #[cfg(all(target_os = "linux", feature = "upgrade"))]
    pub fn start_inheriting<A: Into<OsString>>(
        variables: &[(&str, &str)],
        descriptors: Vec<(String, OwnedFd)>,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_siding"));
        command.args(arguments.into_iter().map(Into::into));
        let names: Vec<&str> = descriptors.iter().map(|(name, _)| name.as_str()).collect();
        if !names.is_empty() {
            command
                .env("LISTEN_FDS", names.len().to_string())
                .env("LISTEN_FDNAMES", names.join(":"));
        }
        command.envs(variables.iter().copied());
        let mapped = descriptors.into_iter().zip(3..);
        let mapped = mapped.map(|((_, parent_fd), child_fd)| FdMapping {
            parent_fd,
            child_fd,
        });
        command
            .fd_mappings(mapped.collect())
            .expect("each has a number of its own");
        Self(Process::start("siding", &mut command))
    }

    /// As [`Siding::start`], by a command that becomes the program that follows its words.
    fn start_under<A: Into<OsString>>(
        under: &[String],
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
        let name = arguments
            .first()
            .map(|role| role.to_string_lossy().into_owned());
        let binary = env!("CARGO_BIN_EXE_siding").to_owned();
        let mut words = under.iter().chain([&binary]);
        let mut command = Command::new(words.next().expect("the binary at least"));
        command
            .args(words)
            .args(arguments)
            .env_remove("SIDING_TOKEN");
        Self(Process::start(
            &format!("siding {}", name.unwrap_or_default()),
            &mut command,
        ))
    }

    /// Where a server waits for clients.
    pub fn link_address(&self) -> SocketAddr {
        address_after(
            &self.log().wait_for("listening for clients on "),
            "listening for clients on ",
        )
    }

    /// Where it tells of itself.
    pub fn admin_address(&self) -> SocketAddr {
        let line = self.log().wait_for("admin on http://");
        let (_, address) = line.split_once("admin on http://").expect("waited for");
        let address = address.trim_end_matches('/');
        address.parse().expect("an address and a slash")
    }

    /// Where the proxy of `spec` (or of an equal one) listens.
    pub fn proxy_address(&self, spec: &str) -> SocketAddr {
        let (kind, rest) = spec.split_once(':').expect("a SPEC starts with KIND:");
        let on = format!(": {} on ", kind.to_lowercase());
        let fields: Vec<&str> = rest.split(':').collect();
        let line = match fields[..] {
            [.., host, port] if fields.len() > 2 => {
                let to = format!(" to {host}:{port}");
                self.log()
                    .wait_for_all_of(0, &["proxy ", &on, &to], super::PATIENCE)
            }
            _ => self
                .log()
                .wait_for_all_of(0, &["proxy ", &on], super::PATIENCE),
        };
        address_after(&line, &on)
    }
}

impl Deref for Siding {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.0
    }
}

impl DerefMut for Siding {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.0
    }
}

impl Tunnel {
    /// Nothing yet: neither proxy nor allowance.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A tunnel whose one proxy, of `kind`, leads to `target`, which the client may dial.
    pub fn to(kind: &str, target: SocketAddr) -> Self {
        Self::builder().to(kind, target).start()
    }

    /// Where the first proxy listens.
    pub fn address(&self) -> SocketAddr {
        self.proxy(0)
    }

    /// Where the proxy that was asked for as number `index` listens (exposed ones come last).
    pub fn proxy(&self, index: usize) -> SocketAddr {
        self.proxies[index]
    }

    /// A user of the first proxy.
    pub fn connect(&self) -> TcpStream {
        connect(self.address())
    }

    /// Where the server waits for clients.
    pub fn link(&self) -> SocketAddr {
        self.link
    }

    /// Descriptors held by the server and by the client.
    pub fn descriptors(&self) -> (usize, usize) {
        (self.server.descriptors(), self.client.descriptors())
    }

    /// Waits until both sides hold as many descriptors as before.
    pub fn wait_for_descriptors(&self, before: (usize, usize)) {
        let mut now = before;
        eventually(
            "the descriptors of server and client are back where they were",
            || {
                now = self.descriptors();
                (now == before).then_some(())
            },
        );
    }

    /// The arguments that started the client, for another one like it.
    pub fn client_arguments(&self) -> Vec<String> {
        self.plan.client_arguments(&self.scratch, self.link)
    }

    /// Starts a client after the old one has gone, and waits for its link.
    pub fn restart_client(&mut self) {
        assert!(!self.client.is_running(), "the old client is gone");
        let mark = self.server.log().mark();
        self.client = self.plan.start_client(&self.scratch, self.link);
        self.server.log().wait_for_since(mark, ": up from ");
        self.client.log().wait_for(": up to ");
    }

    /// Starts a server at the same place after the old one has gone, and waits until the client,
    /// which nobody touches, has found it. For [`Builder::listen_again`].
    pub fn restart_server(&mut self) {
        assert!(!self.server.is_running(), "the old server is gone");
        assert!(self.plan.listen.is_some(), "its place is kept");
        let mark = self.client.log().mark();
        let listen = self.link.to_string();
        self.server = self.plan.start_server(&self.scratch, &listen);
        self.server.log().wait_for(": up from ");
        self.client.log().wait_for_since(mark, ": up to ");
        self.proxies = self.plan.addresses(&self.server, &self.client);
    }

    /// Asks the server to stop, and starts another at the same place as soon as that is free. The old one,
    /// which drains, once the client has a link to the new one. For proxies on fixed ports, and
    /// [`Builder::listen_again`].
    pub fn succeed_server(&mut self) -> Siding {
        assert!(self.plan.listen.is_some(), "its place is kept");
        let mark = self.client.log().mark();
        self.server.terminate();
        self.client.log().wait_for_since(mark, "server drains");
        let link = self.link;
        eventually("the old server's listener is closed", || {
            TcpStream::connect(link).err()
        });
        let new = self.plan.start_server(&self.scratch, &link.to_string());
        new.log().wait_for(": up from ");
        self.client.log().wait_for_since(mark, ": up to ");
        std::mem::replace(&mut self.server, new)
    }
}

impl Builder {
    /// Asks the server for a proxy: a SPEC. It implies no allowance at the client.
    pub fn proxy(mut self, spec: impl Into<String>) -> Self {
        self.proxies.push(spec.into());
        self
    }

    /// A proxy of `kind` on any port to `target`, which the client may dial.
    pub fn to(self, kind: &str, target: SocketAddr) -> Self {
        self.proxy(format!("{kind}:0:{target}"))
            .allow(target.to_string())
    }

    /// Has the client ask for a proxy: a SPEC.
    pub fn expose(mut self, spec: impl Into<String>) -> Self {
        self.exposed.push(spec.into());
        self
    }

    /// A proxy with options, in JSON: in the server's configuration, or in the client's if it is
    /// `exposed`. For one proxy, and instead of other configurations.
    pub fn proxy_with(mut self, spec: impl Into<String>, options: &str, exposed: bool) -> Self {
        let spec = spec.into();
        if exposed {
            self.client.config = Some(format!(
                r#"{{ "expose": [ {{ "spec": "{spec}", {options} }} ] }}"#
            ));
        } else {
            self.server.config = Some(format!(
                r#"{{ "proxies": [ {{ "client": "{CLIENT}", "spec": "{spec}", {options} }} ] }}"#
            ));
        }
        self.written.push(spec);
        self
    }

    /// A file beside the configurations, which may name it.
    pub fn file(mut self, name: &str, content: impl Into<String>) -> Self {
        self.files.push((name.to_owned(), content.into()));
        self
    }

    /// A RULE of the client.
    pub fn allow(mut self, rule: impl Into<String>) -> Self {
        self.allow.push(rule.into());
        self
    }

    /// A secret that both sides know.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// The log level of both sides, instead of `debug`.
    pub fn log(mut self, level: &'static str) -> Self {
        self.log = Some(level);
        self
    }

    /// The server's configuration file.
    pub fn server_config(mut self, json: impl Into<String>) -> Self {
        self.server.config = Some(json.into());
        self
    }

    /// The client's configuration file.
    pub fn client_config(mut self, json: impl Into<String>) -> Self {
        self.client.config = Some(json.into());
        self
    }

    /// A further argument of the server.
    pub fn server_argument(mut self, argument: impl Into<String>) -> Self {
        self.server.arguments.push(argument.into());
        self
    }

    /// A further argument of the client.
    pub fn client_argument(mut self, argument: impl Into<String>) -> Self {
        self.client.arguments.push(argument.into());
        self
    }

    /// How many descriptors the server may open.
    pub fn server_descriptors(mut self, limit: usize) -> Self {
        self.server.under = few_descriptors(limit);
        self
    }

    /// How many descriptors the client may open.
    pub fn client_descriptors(mut self, limit: usize) -> Self {
        self.client.under = few_descriptors(limit);
        self
    }

    /// The link is TLS: the server's certificate is of this authority, which the client trusts.
    pub fn secure(self, authority: &Authority) -> Self {
        let (certificate, key) = authority.files(&["localhost", "127.0.0.1"]);
        self.server_files("--cert", &certificate)
            .server_files("--key", &key)
            .url("wss://localhost:{port}")
            .client_files("--ca", &authority.file())
    }

    /// The server waits for clients there.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = Some(address);
        self
    }

    /// The server waits for clients where a later one does, too: at a port that the kernel gives to nobody
    /// meanwhile.
    pub fn listen_again(self) -> Self {
        self.listen(([127, 0, 0, 1], free_port()).into())
    }

    /// A file of the server's, and its flag.
    pub fn server_files(self, flag: &str, path: &Path) -> Self {
        self.server_argument(flag)
            .server_argument(path.display().to_string())
    }

    /// A file of the client's, and its flag.
    pub fn client_files(self, flag: &str, path: &Path) -> Self {
        self.client_argument(flag)
            .client_argument(path.display().to_string())
    }

    /// By what URL the client finds the server; `{port}` is that of its listener.
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.url = Some(url.into());
        self
    }

    /// The server runs on another host, where it waits for clients at `listen`.
    pub fn server_on(mut self, host: &Host, listen: SocketAddr) -> Self {
        self.server.under = host.command();
        self.listen = Some(listen);
        self
    }

    /// Starts the server alone, in `scratch`.
    pub fn server_alone(&self, scratch: &Scratch) -> Siding {
        self.start_server(scratch, "127.0.0.1:0")
    }

    /// Starts a client alone, in `scratch`, of a server whose listener is at `link`.
    pub fn client_alone(&self, scratch: &Scratch, link: SocketAddr) -> Siding {
        self.start_client(scratch, link)
    }

    /// Starts both sides and waits until they are joined and every proxy listens.
    pub fn start(self) -> Tunnel {
        let scratch = Scratch::new();
        for (name, content) in &self.files {
            scratch.write(name, content);
        }
        let listen = self.listen.unwrap_or_else(|| ([127, 0, 0, 1], 0).into());
        let server = self.start_server(&scratch, &listen.to_string());
        let link = server.link_address();
        let client = self.start_client(&scratch, link);
        client.log().wait_for(": up to ");
        server.log().wait_for(": up from ");
        let proxies = self.addresses(&server, &client);
        Tunnel {
            server,
            client,
            plan: self,
            link,
            proxies,
            scratch,
        }
    }

    fn start_server(&self, scratch: &Scratch, listen: &str) -> Siding {
        let mut arguments = vec![
            "server".to_owned(),
            "--listen".to_owned(),
            listen.to_owned(),
        ];
        for spec in &self.proxies {
            arguments.extend(["--proxy".to_owned(), format!("{CLIENT}={spec}")]);
        }
        self.start_role(&self.server, scratch, arguments)
    }

    fn start_client(&self, scratch: &Scratch, link: SocketAddr) -> Siding {
        let arguments = self.client_arguments(scratch, link);
        Siding::start_under(&self.client.under, arguments)
    }

    fn client_arguments(&self, scratch: &Scratch, link: SocketAddr) -> Vec<String> {
        let url = match &self.url {
            Some(url) => url.replace("{port}", &link.port().to_string()),
            None => format!("ws://{link}"),
        };
        let mut arguments = ["client", "--server", &url, "--id", CLIENT]
            .map(str::to_owned)
            .to_vec();
        for spec in &self.exposed {
            arguments.extend(["--expose".to_owned(), spec.clone()]);
        }
        for rule in &self.allow {
            arguments.extend(["--allow".to_owned(), rule.clone()]);
        }
        self.complete(&self.client, scratch, arguments)
    }

    fn start_role(&self, role: &Role, scratch: &Scratch, arguments: Vec<String>) -> Siding {
        let arguments = self.complete(role, scratch, arguments);
        Siding::start_under(&role.under, arguments)
    }

    /// Adds what both roles have.
    fn complete(&self, role: &Role, scratch: &Scratch, mut arguments: Vec<String>) -> Vec<String> {
        arguments.extend(["--log".to_owned(), self.log.unwrap_or("debug").to_owned()]);
        if let Some(token) = &self.token {
            let file = scratch.write("token", token);
            arguments.extend(["--token-file".to_owned(), file.display().to_string()]);
        }
        if let Some(json) = &role.config {
            let file = scratch.write(&format!("{}.json", arguments[0]), json);
            arguments.extend(["--config".to_owned(), file.display().to_string()]);
        }
        arguments.extend(role.arguments.iter().cloned());
        arguments
    }

    fn addresses(&self, server: &Siding, client: &Siding) -> Vec<SocketAddr> {
        let mut addresses: Vec<SocketAddr> = self
            .proxies
            .iter()
            .chain(&self.written)
            .map(|spec| server.proxy_address(spec))
            .collect();
        if !self.exposed.is_empty() {
            client.log().wait_for(": open at ");
            addresses.extend(self.exposed.iter().map(|spec| server.proxy_address(spec)));
        }
        addresses
    }
}

/// The command that leaves room for only `limit` descriptors.
fn few_descriptors(limit: usize) -> Vec<String> {
    let script = format!("ulimit -n {limit}; exec \"$0\" \"$@\"");
    ["sh".to_owned(), "-c".to_owned(), script].into()
}

/// The socket address that follows `before` in a line.
fn address_after(line: &str, before: &str) -> SocketAddr {
    let (_, rest) = line
        .split_once(before)
        .expect("the line was found by this text");
    let word = rest.split_whitespace().next().unwrap_or_default();
    word.trim_end_matches([',', ';', ':'])
        .parse()
        .unwrap_or_else(|_| panic!("no address after {before:?} in {line:?}"))
}
