//! What was typed. The doc comments of these types are the help texts.

use std::{path::PathBuf, str::FromStr};

use argh::FromArgs;

#[cfg(feature = "admin")]
use super::admin::StatusArguments;
use crate::config::{
    ClientId, Invalid, MemoryMax, PoolMode, ProxyEntry, Rule, ServerUrl, Spec,
    logging::{LogFormat, LogLevel},
    value::{Address, Bind, Spin},
};

/// A reverse tunnel over one WebSocket: services behind NAT are reached through a public server.
#[derive(FromArgs)]
#[argh(note = "Run {command_name} COMMAND --help for the flags of a command.")]
#[argh(error_code(0, "ended as asked"))]
#[argh(error_code(1, "failed while running"))]
#[argh(error_code(2, "wrong usage or configuration"))]
pub(super) struct Arguments {
    /// how much to log: error, warn, info (the default), debug or trace
    #[argh(option, arg_name = "LEVEL")]
    pub log: Option<LogLevel>,

    /// how a line of the log looks: auto (the default: human on a terminal, else text), text, json or
    /// human
    #[argh(option, arg_name = "FORMAT")]
    pub log_format: Option<LogFormat>,

    /// print the version and exit
    #[argh(switch)]
    #[expect(
        dead_code,
        reason = "taken out before argh looks; declared for the help text"
    )]
    pub version: bool,

    #[argh(subcommand)]
    pub role: Option<Role>,
}

#[derive(FromArgs)]
#[argh(subcommand)]
pub(super) enum Role {
    Server(ServerArguments),
    Client(ClientArguments),
    #[cfg(feature = "demo")]
    Demo(DemoArguments),
    Check(CheckArguments),
    #[cfg(feature = "admin")]
    Status(StatusArguments),
}

/// Be the public side: accept a client's WebSocket and the users' connections.
#[derive(Default, FromArgs)]
#[argh(subcommand, name = "server")]
#[argh(
    note = "SPEC is KIND:[BIND:]PORT:HOST:PORT (or unix:/path for HOST:PORT),
forward:[BIND:]PORT, or socks5:[BIND:]PORT. KIND is tcp, ssh, telnet, http,
https, forward (an HTTP proxy), socks5 or tls (passed on by the name that is
asked for); IPv6 addresses go in brackets; PORT 0 takes any free one. A
forward or socks5 proxy beyond loopback needs users_file or allow_from, which
entries of proxies in a configuration can have. Each flag has a field in the
configuration (--proxy is the list proxies), and flags win."
)]
#[argh(
    example = "{command_name} --token-file edge.token --listen 0.0.0.0:7000 \\
    --proxy edge-1=tcp:10033:127.0.0.1:2222"
)]
pub(super) struct ServerArguments {
    /// where clients connect (default 127.0.0.1:7000; another than a loopback address needs a
    /// token)
    #[argh(option, arg_name = "ADDR:PORT")]
    pub listen: Option<Address>,

    /// the file that holds the shared secret; else SIDING_TOKEN, else the configuration's
    #[argh(option, arg_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// where proxies listen that name no address (default 127.0.0.1)
    #[argh(option, arg_name = "IP")]
    pub bind: Option<Bind>,

    /// the server's certificate and its chain (PEM): clients are spoken to by TLS (wss://)
    #[argh(option, arg_name = "FILE")]
    pub cert: Option<PathBuf>,

    /// the key of --cert (PEM)
    #[argh(option, arg_name = "FILE")]
    pub key: Option<PathBuf>,

    /// certificates (PEM) of the authority by which clients must be certified, besides knowing the
    /// token
    #[argh(option, arg_name = "FILE")]
    pub client_ca: Option<PathBuf>,

    /// have a client serve a proxy; may be repeated
    #[argh(option, arg_name = "CLIENT=SPEC")]
    pub proxy: Vec<ProxyEntry>,

    /// how much memory to take above what is taken at rest, such as 16MiB (at least 4MiB)
    #[argh(option, arg_name = "SIZE")]
    pub memory_max: Option<MemoryMax>,

    /// after an event, look for the next one for so long before sleeping; costs CPU (default 0, at
    /// most 1000)
    #[argh(option, arg_name = "MICROSECONDS")]
    pub spin: Option<Spin>,

    /// where to tell of itself by HTTP: /healthz, /readyz, /metrics, /status (another than a loopback
    /// address needs --admin-token-file)
    #[argh(option, arg_name = "ADDR:PORT")]
    pub admin: Option<Address>,

    /// the file that holds what must be shown there, as Authorization: Bearer
    #[argh(option, arg_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,

    /// a JSON configuration
    #[argh(option, arg_name = "FILE")]
    pub config: Option<PathBuf>,

    /// how much to log: error, warn, info (the default), debug or trace
    #[argh(option, arg_name = "LEVEL")]
    pub log: Option<LogLevel>,

    /// how a line of the log looks: auto (the default: human on a terminal, else text), text, json or
    /// human
    #[argh(option, arg_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// Be the private side: dial out to the server, and dial the targets.
#[derive(Default, FromArgs)]
#[argh(subcommand, name = "client")]
#[argh(
    note = "SPEC is KIND:[BIND:]PORT:HOST:PORT (or unix:/path for HOST:PORT),
forward:[BIND:]PORT, or socks5:[BIND:]PORT. KIND is tcp, ssh, telnet, http,
https, forward (an HTTP proxy), socks5 or tls (passed on by the name that is
asked for); IPv6 addresses go in brackets; PORT 0 takes any free one. A
forward or socks5 proxy beyond loopback needs users_file or allow_from, which
entries of expose in a configuration can have.
RULE is HOST:PORT; HOST a name, *.suffix, an address, a CIDR or *; PORT a
number, a range or *. Or it is unix:/path, that socket alone. What is neither
exposed nor allowed is never dialled. Each flag has a field of its name in the
configuration, and flags win."
)]
#[argh(example = "{command_name} --id edge-1 --token-file edge.token \\
    --server ws://edge.example.com:7000 --expose tcp:10033:127.0.0.1:2222")]
pub(super) struct ClientArguments {
    /// where the server is: wss://HOST[:PORT][/PATH], or ws:// (default ws://127.0.0.1:7000)
    #[argh(option, arg_name = "URL")]
    pub server: Option<ServerUrl>,

    /// the HTTP proxy to go through: http://[USER:PASSWORD@]HOST[:PORT], or direct for none (default:
    /// what https_proxy, http_proxy or all_proxy say)
    #[argh(option, arg_name = "URL")]
    pub via: Option<String>,

    /// what this client is called: 1 to 64 letters, digits, '.', '_' or '-'; required unless the
    /// configuration has it
    #[argh(option, arg_name = "ID")]
    pub id: Option<ClientId>,

    /// the file that holds the shared secret; else SIDING_TOKEN, else the configuration's
    #[argh(option, arg_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// ask the server for a proxy that leads to a target here; may be repeated
    #[argh(option, arg_name = "SPEC")]
    pub expose: Vec<Spec>,

    /// allow what the server may have dialled besides what is exposed; may be repeated
    #[argh(option, arg_name = "RULE")]
    pub allow: Vec<Rule>,

    /// certificates (PEM) of a private authority of the server, trusted besides the system's
    #[argh(option, arg_name = "FILE")]
    pub ca: Option<PathBuf>,

    /// this client's certificate and its chain (PEM), for a server with --client-ca
    #[argh(option, arg_name = "FILE")]
    pub cert: Option<PathBuf>,

    /// the key of --cert (PEM)
    #[argh(option, arg_name = "FILE")]
    pub key: Option<PathBuf>,

    /// certificates (PEM) of a private authority of https targets, trusted besides the system's
    #[argh(option, arg_name = "FILE")]
    pub target_ca: Option<PathBuf>,

    /// which requests may take a parked connection: safe (the default), never or always
    #[argh(option, arg_name = "MODE")]
    pub pool: Option<PoolMode>,

    /// how much memory to take above what is taken at rest, such as 16MiB (at least 4MiB)
    #[argh(option, arg_name = "SIZE")]
    pub memory_max: Option<MemoryMax>,

    /// after an event, look for the next one for so long before sleeping; costs CPU (default 0, at
    /// most 1000)
    #[argh(option, arg_name = "MICROSECONDS")]
    pub spin: Option<Spin>,

    /// where to tell of itself by HTTP: /healthz, /readyz, /metrics, /status (another than a loopback
    /// address needs --admin-token-file)
    #[argh(option, arg_name = "ADDR:PORT")]
    pub admin: Option<Address>,

    /// the file that holds what must be shown there, as Authorization: Bearer
    #[argh(option, arg_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,

    /// a JSON configuration
    #[argh(option, arg_name = "FILE")]
    pub config: Option<PathBuf>,

    /// how much to log: error, warn, info (the default), debug or trace
    #[argh(option, arg_name = "LEVEL")]
    pub log: Option<LogLevel>,

    /// how a line of the log looks: auto (the default: human on a terminal, else text), text, json or
    /// human
    #[argh(option, arg_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// Try it: server, client and origins in one process on loopback.
#[cfg(feature = "demo")]
#[derive(FromArgs)]
#[argh(subcommand, name = "demo")]
#[argh(note = "Prints what to try; Ctrl-C ends it.")]
pub(super) struct DemoArguments {
    /// how much to log: error, warn (the default), info, debug or trace
    #[argh(option, arg_name = "LEVEL")]
    pub log: Option<LogLevel>,

    /// how a line of the log looks: auto (the default: human on a terminal, else text), text, json or
    /// human
    #[argh(option, arg_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// Say what is wrong with a configuration, by line and field; start nothing.
#[derive(FromArgs)]
#[argh(subcommand, name = "check")]
#[argh(note = "Prints FILE: ok if nothing is wrong, and exits 2 if something is.")]
pub(super) struct CheckArguments {
    /// whose configuration it is: server or client
    #[argh(positional, arg_name = "server|client")]
    pub role: CheckedRole,

    /// the JSON configuration
    #[argh(option, arg_name = "FILE")]
    pub config: PathBuf,

    /// how much to log: error, warn, info (the default), debug or trace
    #[argh(option, arg_name = "LEVEL")]
    #[expect(
        dead_code,
        reason = "a check logs nothing, but --log is accepted everywhere"
    )]
    pub log: Option<LogLevel>,
}

/// The roles that have a configuration.
pub(super) enum CheckedRole {
    Server,
    Client,
}

impl FromStr for CheckedRole {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "server" => Ok(Self::Server),
            "client" => Ok(Self::Client),
            _ => Err(Invalid::new("there is server and client")),
        }
    }
}
