//! The command line: what was typed, joined with a configuration file, becomes checked values.
//!
//! Owns the flags, their help, and the rule of precedence: a flag wins over the file's field of the
//! same name, and a repeated flag replaces the whole list. It does not start anything, prints
//! nothing and ends nothing: [`parse`] answers with what there is to run, or with the text and code
//! to exit with, and `main` does it.

mod admin;
mod grants;

use std::{
    collections::HashMap,
    env,
    ffi::OsString,
    fmt,
    hash::Hash,
    path::{Path, PathBuf},
    str::FromStr,
};

use argh::FromArgs;
use log::Level;
use serde::de::DeserializeOwned;

#[cfg(feature = "admin")]
use self::admin::StatusArguments;
#[cfg(feature = "admin")]
use crate::admin::status::Question;
use crate::config::{
    Allow, BIND_DEFAULT, ClientConfig, ClientId, Exposed, Identity, Invalid, Kind, LISTEN_DEFAULT,
    MemoryMax, PoolLimits, PoolMode, ProxyEntry, ProxyOptions, Roots, Rule, ServerConfig,
    ServerUrl, Spec, Token, Users, Via,
    file::{CertificateFile, ClientFile, Document, Object, ServerFile},
    grant::each_has_its_own,
    logging::{LogFormat, LogLevel, Logging},
    routes::SHARING_MAX,
    server_default,
    token::{self, Origin},
    value::{Address, Bind, Spin},
    via,
};

/// What the command line asks for.
#[derive(Debug)]
#[must_use]
pub enum Parsed {
    /// Run this, logging like this.
    Run(Command, Logging),
    /// Print the text, which ends without a newline, and exit: on stdout if `code` is 0, else on
    /// stderr. Help, the version, the result of a check, or what is wrong.
    Exit {
        /// What to print.
        text: String,
        /// 0 as asked, 2 wrong usage or configuration.
        code: u8,
    },
}

/// What there is to run.
#[derive(Debug)]
pub enum Command {
    /// The public role.
    Server(Box<ServerConfig>),
    /// The private role.
    Client(Box<ClientConfig>),
    /// Both and two origins, in one process.
    #[cfg(feature = "demo")]
    Demo,
    /// Asks one that runs how it is.
    #[cfg(feature = "admin")]
    Status(Question),
}

/// Reads the arguments (as [`env::args_os`] gives them, the program's name first), the variables
/// SIDING_TOKEN and those that name a proxy, and the files that they name.
pub fn parse(args: impl Iterator<Item = OsString>) -> Parsed {
    parse_with(args, &|name| env::var_os(name))
}

/// What variables hold.
type Variables<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// As [`parse`], with the variables as an argument.
fn parse_with(args: impl Iterator<Item = OsString>, variables: Variables<'_>) -> Parsed {
    let exit = |text: &dyn fmt::Display, code| {
        let text = text.to_string().trim_end().to_owned();
        Parsed::Exit { text, code }
    };
    let typed = match split(args.skip(1)) {
        Ok(Split::Args(args)) => args,
        Ok(Split::Version) => {
            return exit(&format_args!("{PROGRAM} {}", env!("CARGO_PKG_VERSION")), 0);
        }
        Err(reason) => return exit(&usage_error(reason), 2),
    };
    let typed: Vec<&str> = typed.iter().map(String::as_str).collect();
    let Arguments {
        log,
        log_format,
        role,
        version: _,
    } = match Arguments::from_args(&[PROGRAM], &typed) {
        Ok(arguments) => arguments,
        Err(early) if early.status.is_ok() => return exit(&early.output, 0),
        Err(early) => return exit(&usage_error(early.output.trim_end()), 2),
    };
    let Some(role) = role else {
        return exit(
            &usage_error(format_args!("a command is missing: {COMMANDS}")),
            2,
        );
    };
    match run(role, (log, log_format), variables) {
        Ok(Asked::Run(command, logging)) => Parsed::Run(command, logging),
        Ok(Asked::Checked(path)) => exit(&format_args!("{}: ok", path.display()), 0),
        Err(reason) => exit(&reason, 2),
    }
}

const PROGRAM: &str = "siding";

const COMMANDS: &str = match (cfg!(feature = "demo"), cfg!(feature = "admin")) {
    (true, true) => "server, client, demo, check or status",
    (true, false) => "server, client, demo or check",
    (false, true) => "server, client, check or status",
    (false, false) => "server, client or check",
};

fn usage_error(reason: impl fmt::Display) -> String {
    format!("{PROGRAM}: {reason}\nRun {PROGRAM} --help for more information.")
}

/// What is left to do once the arguments were understood.
enum Asked {
    Run(Command, Logging),
    Checked(PathBuf),
}

/// How much is to be logged and how, as it was typed or written.
type LogWords = (Option<LogLevel>, Option<LogFormat>);

/// `early` is what stood before the subcommand; what stands after it wins.
fn run(role: Role, early: LogWords, variables: Variables<'_>) -> Result<Asked, Invalid> {
    let logging = |typed: LogWords, file: LogWords, usual: Level| Logging {
        level: typed
            .0
            .or(early.0)
            .or(file.0)
            .map_or(usual, |LogLevel(level)| level),
        format: typed.1.or(early.1).or(file.1).unwrap_or_default(),
    };
    Ok(match role {
        Role::Server(typed) => {
            let (file, document) = read::<ServerFile>(typed.config.as_deref())?;
            let typed_log = (typed.log, typed.log_format);
            let log = logging(typed_log, (file.log, file.log_format), Level::Info);
            let config = ServerConfig {
                log,
                ..server(typed, file, document.as_ref(), variables)?
            };
            Asked::Run(Command::Server(Box::new(config)), log)
        }
        Role::Client(typed) => {
            let (file, document) = read::<ClientFile>(typed.config.as_deref())?;
            let typed_log = (typed.log, typed.log_format);
            let log = logging(typed_log, (file.log, file.log_format), Level::Info);
            let config = ClientConfig {
                log,
                ..client(typed, file, document.as_ref(), variables)?
            };
            Asked::Run(Command::Client(Box::new(config)), log)
        }
        // What goes well is on its screen.
        #[cfg(feature = "demo")]
        Role::Demo(typed) => {
            let log = logging((typed.log, typed.log_format), (None, None), Level::Warn);
            Asked::Run(Command::Demo, log)
        }
        #[cfg(feature = "admin")]
        Role::Status(typed) => {
            let log = logging((typed.log, None), (None, None), Level::Warn);
            Asked::Run(Command::Status(typed.question()?), log)
        }
        Role::Check(typed) => {
            check(&typed, variables)?;
            Asked::Checked(typed.config)
        }
    })
}

/// Does all that running the role with this file and no further flag would do before it starts.
fn check(typed: &CheckArguments, variables: Variables<'_>) -> Result<(), Invalid> {
    let path = Some(typed.config.as_path());
    match typed.role {
        CheckedRole::Server => {
            let (file, document) = read::<ServerFile>(path)?;
            server(
                ServerArguments::default(),
                file,
                document.as_ref(),
                variables,
            )
            .map(drop)
        }
        CheckedRole::Client => {
            let (file, document) = read::<ClientFile>(path)?;
            client(
                ClientArguments::default(),
                file,
                document.as_ref(),
                variables,
            )
            .map(drop)
        }
    }
}

// What was typed. The doc comments of these types are the help texts.

/// A reverse tunnel over one WebSocket: services behind NAT are reached through a public server.
#[derive(FromArgs)]
#[argh(note = "Run {command_name} COMMAND --help for the flags of a command.")]
#[argh(error_code(0, "ended as asked"))]
#[argh(error_code(1, "failed while running"))]
#[argh(error_code(2, "wrong usage or configuration"))]
struct Arguments {
    /// how much to log: error, warn, info (the default), debug or trace
    #[argh(option, arg_name = "LEVEL")]
    log: Option<LogLevel>,

    /// how a line of the log looks: auto (the default: human on a terminal, else text), text, json or
    /// human
    #[argh(option, arg_name = "FORMAT")]
    log_format: Option<LogFormat>,

    /// print the version and exit
    #[argh(switch)]
    #[expect(
        dead_code,
        reason = "taken out before argh looks; declared for the help text"
    )]
    version: bool,

    #[argh(subcommand)]
    role: Option<Role>,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Role {
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
struct ServerArguments {
    /// where clients connect (default 127.0.0.1:7000; another than a loopback address needs a
    /// token)
    #[argh(option, arg_name = "ADDR:PORT")]
    listen: Option<Address>,

    /// the file that holds the shared secret; else SIDING_TOKEN, else the configuration's
    #[argh(option, arg_name = "FILE")]
    token_file: Option<PathBuf>,

    /// where proxies listen that name no address (default 127.0.0.1)
    #[argh(option, arg_name = "IP")]
    bind: Option<Bind>,

    /// the server's certificate and its chain (PEM): clients are spoken to by TLS (wss://)
    #[argh(option, arg_name = "FILE")]
    cert: Option<PathBuf>,

    /// the key of --cert (PEM)
    #[argh(option, arg_name = "FILE")]
    key: Option<PathBuf>,

    /// certificates (PEM) of the authority by which clients must be certified, besides knowing the
    /// token
    #[argh(option, arg_name = "FILE")]
    client_ca: Option<PathBuf>,

    /// have a client serve a proxy; may be repeated
    #[argh(option, arg_name = "CLIENT=SPEC")]
    proxy: Vec<ProxyEntry>,

    /// how much memory to take above what is taken at rest, such as 16MiB (at least 4MiB)
    #[argh(option, arg_name = "SIZE")]
    memory_max: Option<MemoryMax>,

    /// after an event, look for the next one for so long before sleeping; costs CPU (default 0, at
    /// most 1000)
    #[argh(option, arg_name = "MICROSECONDS")]
    spin: Option<Spin>,

    /// where to tell of itself by HTTP: /healthz, /readyz, /metrics, /status (another than a loopback
    /// address needs --admin-token-file)
    #[argh(option, arg_name = "ADDR:PORT")]
    admin: Option<Address>,

    /// the file that holds what must be shown there, as Authorization: Bearer
    #[argh(option, arg_name = "FILE")]
    admin_token_file: Option<PathBuf>,

    /// a JSON configuration
    #[argh(option, arg_name = "FILE")]
    config: Option<PathBuf>,

    /// how much to log: error, warn, info (the default), debug or trace
    #[argh(option, arg_name = "LEVEL")]
    log: Option<LogLevel>,

    /// how a line of the log looks: auto (the default: human on a terminal, else text), text, json or
    /// human
    #[argh(option, arg_name = "FORMAT")]
    log_format: Option<LogFormat>,
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
struct ClientArguments {
    /// where the server is: wss://HOST[:PORT][/PATH], or ws:// (default ws://127.0.0.1:7000)
    #[argh(option, arg_name = "URL")]
    server: Option<ServerUrl>,

    /// the HTTP proxy to go through: http://[USER:PASSWORD@]HOST[:PORT], or direct for none (default:
    /// what https_proxy, http_proxy or all_proxy say)
    #[argh(option, arg_name = "URL")]
    via: Option<String>,

    /// what this client is called: 1 to 64 letters, digits, '.', '_' or '-'; required unless the
    /// configuration has it
    #[argh(option, arg_name = "ID")]
    id: Option<ClientId>,

    /// the file that holds the shared secret; else SIDING_TOKEN, else the configuration's
    #[argh(option, arg_name = "FILE")]
    token_file: Option<PathBuf>,

    /// ask the server for a proxy that leads to a target here; may be repeated
    #[argh(option, arg_name = "SPEC")]
    expose: Vec<Spec>,

    /// allow what the server may have dialled besides what is exposed; may be repeated
    #[argh(option, arg_name = "RULE")]
    allow: Vec<Rule>,

    /// certificates (PEM) of a private authority of the server, trusted besides the system's
    #[argh(option, arg_name = "FILE")]
    ca: Option<PathBuf>,

    /// this client's certificate and its chain (PEM), for a server with --client-ca
    #[argh(option, arg_name = "FILE")]
    cert: Option<PathBuf>,

    /// the key of --cert (PEM)
    #[argh(option, arg_name = "FILE")]
    key: Option<PathBuf>,

    /// certificates (PEM) of a private authority of https targets, trusted besides the system's
    #[argh(option, arg_name = "FILE")]
    target_ca: Option<PathBuf>,

    /// which requests may take a parked connection: safe (the default), never or always
    #[argh(option, arg_name = "MODE")]
    pool: Option<PoolMode>,

    /// how much memory to take above what is taken at rest, such as 16MiB (at least 4MiB)
    #[argh(option, arg_name = "SIZE")]
    memory_max: Option<MemoryMax>,

    /// after an event, look for the next one for so long before sleeping; costs CPU (default 0, at
    /// most 1000)
    #[argh(option, arg_name = "MICROSECONDS")]
    spin: Option<Spin>,

    /// where to tell of itself by HTTP: /healthz, /readyz, /metrics, /status (another than a loopback
    /// address needs --admin-token-file)
    #[argh(option, arg_name = "ADDR:PORT")]
    admin: Option<Address>,

    /// the file that holds what must be shown there, as Authorization: Bearer
    #[argh(option, arg_name = "FILE")]
    admin_token_file: Option<PathBuf>,

    /// a JSON configuration
    #[argh(option, arg_name = "FILE")]
    config: Option<PathBuf>,

    /// how much to log: error, warn, info (the default), debug or trace
    #[argh(option, arg_name = "LEVEL")]
    log: Option<LogLevel>,

    /// how a line of the log looks: auto (the default: human on a terminal, else text), text, json or
    /// human
    #[argh(option, arg_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

/// Try it: server, client and origins in one process on loopback.
#[cfg(feature = "demo")]
#[derive(FromArgs)]
#[argh(subcommand, name = "demo")]
#[argh(note = "Prints what to try; Ctrl-C ends it.")]
struct DemoArguments {
    /// how much to log: error, warn (the default), info, debug or trace
    #[argh(option, arg_name = "LEVEL")]
    log: Option<LogLevel>,

    /// how a line of the log looks: auto (the default: human on a terminal, else text), text, json or
    /// human
    #[argh(option, arg_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

/// Say what is wrong with a configuration, by line and field; start nothing.
#[derive(FromArgs)]
#[argh(subcommand, name = "check")]
#[argh(note = "Prints FILE: ok if nothing is wrong, and exits 2 if something is.")]
struct CheckArguments {
    /// whose configuration it is: server or client
    #[argh(positional, arg_name = "server|client")]
    role: CheckedRole,

    /// the JSON configuration
    #[argh(option, arg_name = "FILE")]
    config: PathBuf,

    /// how much to log: error, warn, info (the default), debug or trace
    #[argh(option, arg_name = "LEVEL")]
    #[expect(
        dead_code,
        reason = "a check logs nothing, but --log is accepted everywhere"
    )]
    log: Option<LogLevel>,
}

/// The roles that have a configuration.
enum CheckedRole {
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

/// What [`split`] made of the arguments.
#[derive(Debug, PartialEq, Eq)]
enum Split {
    /// Arguments as argh takes them.
    Args(Vec<String>),
    /// `--version` stood where a flag may stand.
    Version,
}

/// Puts the arguments into the form that argh takes: `--flag=value` becomes two, help stands alone
/// behind its subcommand, and everything is UTF-8.
///
/// Every flag but help, version and [`SWITCHES`] takes a value, which is passed on whatever it looks like.
fn split(args: impl Iterator<Item = OsString>) -> Result<Split, Invalid> {
    let mut args = args.map(|arg| {
        arg.into_string().map_err(|arg| {
            Invalid::new(format!(
                "the argument {:?} is not UTF-8",
                arg.to_string_lossy()
            ))
        })
    });
    let mut given = Vec::new();
    let mut words = Vec::new();
    while let Some(arg) = args.next() {
        let arg = arg?;
        if arg == "--" {
            given.push(arg);
            for rest in args {
                given.push(rest?);
            }
            return Ok(Split::Args(given));
        }
        if !arg.starts_with("--") {
            words.push(arg.clone());
            given.push(arg);
            continue;
        }
        let (flag, value) = match arg.split_once('=') {
            Some((flag, value)) => (flag, Some(value.to_owned())),
            None => (arg.as_str(), None),
        };
        match (flag, value) {
            ("--help" | "--version", Some(_)) => {
                return Err(Invalid::new(format!("{flag} takes no value")));
            }
            ("--version", None) => return Ok(Split::Version),
            (switch, value) if SWITCHES.contains(&switch) => match value {
                None => given.push(switch.to_owned()),
                Some(_) => return Err(Invalid::new(format!("{switch} takes no value"))),
            },
            // Whatever else was typed, and be it wrong: who asks for help gets it.
            ("--help", None) => {
                words.push(arg);
                return Ok(Split::Args(words));
            }
            (flag, Some(value)) => given.extend([flag.to_owned(), value]),
            (flag, None) => {
                given.push(flag.to_owned());
                if let Some(value) = args.next() {
                    given.push(value?);
                }
            }
        }
    }
    Ok(Split::Args(given))
}

/// The flags of `status` that say all by being there.
const SWITCHES: [&str; 2] = ["--json", "--watch"];

/// Reads and understands the configuration, if there is one.
fn read<T: Default + DeserializeOwned>(
    path: Option<&Path>,
) -> Result<(T, Option<Document>), Invalid> {
    let Some(path) = path else {
        return Ok((T::default(), None));
    };
    let document = Document::read(path)?;
    Ok((document.decode()?, Some(document)))
}

/// Where a value came from, and so how to speak of it in an error.
#[derive(Clone, Copy)]
enum Source<'a> {
    Flag,
    Field(&'a Document),
}

impl<'a> Source<'a> {
    /// A list or value is the file's only if it was not typed and there is a file.
    fn of(typed: bool, document: Option<&'a Document>) -> Self {
        match document {
            Some(document) if !typed => Self::Field(document),
            _ => Self::Flag,
        }
    }

    fn error(self, flag: &str, field: &str, reason: impl fmt::Display) -> Invalid {
        match self {
            Source::Flag => Invalid::new(usage_error(format_args!("{flag}: {reason}"))),
            Source::Field(document) => document.error(field, reason),
        }
    }
}

/// Joins what was typed with the file, and checks what no single value shows.
fn server(
    typed: ServerArguments,
    file: ServerFile,
    document: Option<&Document>,
    variables: Variables<'_>,
) -> Result<ServerConfig, Invalid> {
    let listen_from = Source::of(typed.listen.is_some(), document);
    let listen = typed
        .listen
        .or(file.listen)
        .map_or(LISTEN_DEFAULT, |Address(address)| address);
    let bind = typed
        .bind
        .or(file.bind)
        .map_or(BIND_DEFAULT, |Bind(address)| address);

    let token = load_token(
        typed.token_file.as_deref(),
        variables(token::VARIABLE),
        file.token_file,
        document,
    )?;
    let clients = match document {
        Some(document) => grants::read(file.clients, bind, document, variables)?,
        None => Vec::new(),
    };
    let is_guarded = token.is_some() || each_has_its_own(&clients);
    if !is_guarded && !listen.ip().to_canonical().is_loopback() {
        return Err(listen_from.error(
            "--listen",
            "listen",
            format_args!(
                "a server without a token listens on loopback only, not on {listen}: give it one by --token-file, SIDING_TOKEN or token_file, or one to each of its clients, or listen on 127.0.0.1"
            ),
        ));
    }

    if token.is_none()
        && !file.accept_proxy.is_empty()
        && let Some(document) = document
    {
        let reason = "a server without a token is for this machine alone, and a balancer lets others through to it: give it one by --token-file, SIDING_TOKEN or token_file";
        return Err(document.error("accept_proxy", reason));
    }

    let files = Files { document };
    let first = files.identity((typed.cert, typed.key), (file.cert, file.key))?;
    let mut identities = Vec::from_iter(first);
    for (index, Object(pair)) in file.certificates.into_iter().enumerate() {
        let field = format!("certificates[{index}]");
        identities.push(files.listed_identity(&field, &pair)?);
    }
    let client_ca_from = Source::of(typed.client_ca.is_some(), document);
    let client_ca = files.roots(typed.client_ca, file.client_ca, "--client-ca", "client_ca")?;
    if client_ca.is_some() && identities.is_empty() {
        let reason = "clients show certificates to a server that has one: give --cert and --key";
        return Err(client_ca_from.error("--client-ca", "client_ca", reason));
    }

    let proxies_from = Source::of(!typed.proxy.is_empty(), document);
    let mut proxies = if typed.proxy.is_empty() {
        file.proxies
    } else {
        typed.proxy
    };
    read_users(
        proxies.iter_mut().map(|proxy| &mut proxy.options),
        "proxies",
        document,
    )?;
    let name = |index: usize| match proxies_from {
        Source::Flag => {
            let ProxyEntry { client, spec, .. } = &proxies[index];
            format!("--proxy {client}={spec}")
        }
        Source::Field(_) => format!("proxies[{index}]"),
    };
    check_options(
        proxies.iter().map(|proxy| (&proxy.spec, &proxy.options)),
        proxies_from,
        name,
    )?;
    if let Some(index) = proxies.iter().position(|proxy| proxy.options.tls)
        && identities.is_empty()
    {
        let reason = "TLS needs a certificate: give --cert and --key, or the fields cert and key";
        let name = name(index);
        return Err(proxies_from.error(&name, &format!("{name}.tls"), reason));
    }
    for (index, ProxyEntry { spec, options, .. }) in proxies.iter().enumerate() {
        let address = spec.address(bind).ip();
        if let Some(reason) = options.exposed_to_strangers(spec, address) {
            return Err(proxies_from.error(&name(index), &name(index), reason));
        }
    }
    let tls = |proxy: &ProxyEntry| proxy.spec.kind == Kind::Tls;
    if !cfg!(feature = "tls")
        && let Some(index) = proxies.iter().position(tls)
    {
        let reason = "this siding was built without TLS, which tls needs";
        return Err(proxies_from.error(&name(index), &name(index), reason));
    }
    if token.is_none()
        && each_has_its_own(&clients)
        && let Some(index) = proxies
            .iter()
            .position(|proxy| clients.iter().all(|client| client.id != proxy.client))
    {
        let reason = format_args!(
            "client {} could never link: each entry of clients has a token of its own, it has none there, and there is no common one",
            proxies[index].client
        );
        return Err(proxies_from.error(&name(index), &name(index), reason));
    }
    let listener = |proxy: &ProxyEntry| fixed(proxy.spec.port, proxy.spec.address(bind));
    let listening = proxies
        .iter()
        .map(|proxy| (listener(proxy), proxy.spec.kind, &proxy.options));
    if let Some(Collision {
        earlier,
        index,
        why,
    }) = collision(listening)
    {
        let address = proxies[index].spec.address(bind);
        let reason = format_args!("{} listens on {address} already: {why}", name(earlier));
        return Err(proxies_from.error(&name(index), &name(index), reason));
    }
    let own = fixed(listen.port(), listen);
    if let Some(index) = proxies
        .iter()
        .position(|proxy| own.is_some() && listener(proxy) == own)
    {
        let reason = format_args!("the server itself listens on {listen} (--listen, listen)");
        return Err(proxies_from.error(&name(index), &name(index), reason));
    }

    let admin = admin::read(
        (typed.admin, typed.admin_token_file),
        (file.admin, file.admin_token_file),
        document,
    )?;
    if let (Some(admin), Some(own)) = (&admin, own)
        && admin.listen == own
    {
        let from = Source::of(typed.admin.is_some(), document);
        let reason = format_args!("clients connect at {listen} (--listen, listen)");
        return Err(from.error("--admin", "admin", reason));
    }

    Ok(ServerConfig {
        listen,
        bind,
        token,
        identities,
        client_ca,
        allow_from: file.allow_from,
        deny_from: file.deny_from,
        accept_proxy: file.accept_proxy,
        proxies,
        clients,
        memory_max: typed.memory_max.or(file.memory_max),
        timeouts: file.timeouts,
        limits: file.limits,
        spin: typed.spin.or(file.spin).unwrap_or_default().0,
        admin,
        log: Logging::default(),
    })
}

/// Joins what was typed with the file, and checks what no single value shows.
fn client(
    typed: ClientArguments,
    file: ClientFile,
    document: Option<&Document>,
    variables: Variables<'_>,
) -> Result<ClientConfig, Invalid> {
    let Some(id) = typed.id.or(file.id) else {
        let reason =
            "a client needs an id, by which the server knows it: give --id ID or the field id";
        return Err(match document {
            Some(document) => document.error("", reason),
            None => Invalid::new(usage_error(reason)),
        });
    };
    let token = load_token(
        typed.token_file.as_deref(),
        variables(token::VARIABLE),
        file.token_file,
        document,
    )?;

    let expose_from = Source::of(!typed.expose.is_empty(), document);
    let mut expose = if typed.expose.is_empty() {
        file.expose
    } else {
        typed.expose.into_iter().map(Exposed::from).collect()
    };
    read_users(
        expose.iter_mut().map(|exposed| &mut exposed.options),
        "expose",
        document,
    )?;
    let name = |index: usize| match expose_from {
        Source::Flag => format!("--expose {}", expose[index].spec),
        Source::Field(_) => format!("expose[{index}]"),
    };
    check_options(
        expose
            .iter()
            .map(|exposed| (&exposed.spec, &exposed.options)),
        expose_from,
        name,
    )?;
    for (index, exposed) in expose.iter().enumerate() {
        if let Some(reason) = exposed.options.unsayable() {
            return Err(expose_from.error(&name(index), &name(index), reason));
        }
    }
    let https = |exposed: &Exposed| matches!(exposed.spec.kind, Kind::Https | Kind::Tls);
    if !cfg!(feature = "tls")
        && let Some(index) = expose.iter().position(https)
    {
        let reason = "this siding was built without TLS, which https and tls need";
        return Err(expose_from.error(&name(index), &name(index), reason));
    }
    // The server's bind is not known here, so only what is written alike is known to collide.
    let listener = |exposed: &Exposed| {
        let Spec { bind, port, .. } = exposed.spec;
        fixed(port, (bind, port))
    };
    let listening = expose
        .iter()
        .map(|exposed| (listener(exposed), exposed.spec.kind, &exposed.options));
    if let Some(Collision {
        earlier,
        index,
        why,
    }) = collision(listening)
    {
        let reason = format_args!(
            "{} listens on port {} already: {why}",
            name(earlier),
            expose[index].spec.port
        );
        return Err(expose_from.error(&name(index), &name(index), reason));
    }

    let files = Files { document };
    let identity = files.identity((typed.cert, typed.key), (file.cert, file.key))?;
    let ca = files.roots(typed.ca, file.ca, "--ca", "ca")?;
    let target_ca = files.roots(typed.target_ca, file.target_ca, "--target-ca", "target_ca")?;

    let server = typed.server.or(file.server).unwrap_or_else(server_default);
    let via = match (typed.via, file.via) {
        // Parsed here: argh would repeat a wrong one in its message, with its password.
        (Some(text), _) => text
            .parse::<via::Asked>()
            .map_err(|error| Source::Flag.error("--via", "via", error))?
            .into(),
        (None, Some(asked)) => asked.into(),
        (None, None) => Via::from_environment(&server, variables),
    };

    let rules = if typed.allow.is_empty() {
        file.allow
    } else {
        typed.allow
    };
    let admin = admin::read(
        (typed.admin, typed.admin_token_file),
        (file.admin, file.admin_token_file),
        document,
    )?;
    Ok(ClientConfig {
        server,
        via,
        host: file.host,
        headers: file.headers,
        id,
        token,
        allow: Allow::new(rules, expose.iter().map(|exposed| &exposed.spec)),
        expose,
        ca,
        identity,
        target_ca,
        memory_max: typed.memory_max.or(file.memory_max),
        timeouts: file.timeouts,
        pool: PoolLimits {
            mode: typed.pool.unwrap_or(file.pool.mode),
            ..file.pool
        },
        limits: file.limits,
        spin: typed.spin.or(file.spin).unwrap_or_default().0,
        admin,
        log: Logging::default(),
    })
}

/// The files that flags and fields name.
struct Files<'a> {
    document: Option<&'a Document>,
}

impl Files<'_> {
    fn roots(
        &self,
        typed: Option<PathBuf>,
        field: Option<PathBuf>,
        flag: &str,
        name: &str,
    ) -> Result<Option<Roots>, Invalid> {
        let from = Source::of(typed.is_some(), self.document);
        typed
            .or_else(|| field.map(|path| self.beside(&path)))
            .map(|path| Roots::read(&path).map_err(|error| from.error(flag, name, error)))
            .transpose()
    }

    /// A certificate and its key, which come from the same place: a flag does not go with a field.
    fn identity(
        &self,
        typed: (Option<PathBuf>, Option<PathBuf>),
        field: (Option<PathBuf>, Option<PathBuf>),
    ) -> Result<Option<Identity>, Invalid> {
        let is_typed = typed.0.is_some() || typed.1.is_some();
        let from = Source::of(is_typed, self.document);
        let pair = if is_typed {
            typed
        } else {
            let beside = |path: Option<PathBuf>| path.map(|path| self.beside(&path));
            (beside(field.0), beside(field.1))
        };
        match pair {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => Identity::read(&certificate, &key)
                .map(Some)
                .map_err(|error| from.error("--cert", "cert", error)),
            (Some(_), None) => Err(from.error("--cert", "cert", "its key is missing (--key, key)")),
            (None, Some(_)) => {
                Err(from.error("--key", "key", "its certificate is missing (--cert, cert)"))
            }
        }
    }

    fn listed_identity(&self, field: &str, pair: &CertificateFile) -> Result<Identity, Invalid> {
        Identity::read(&self.beside(&pair.cert), &self.beside(&pair.key))
            .map_err(|error| Source::of(false, self.document).error("", field, error))
    }

    fn beside(&self, path: &Path) -> PathBuf {
        match self.document {
            Some(document) => document.beside(path),
            None => path.to_owned(),
        }
    }
}

/// Reads the users of the proxies in this list of the file.
fn read_users<'a>(
    options: impl Iterator<Item = &'a mut ProxyOptions>,
    list: &str,
    document: Option<&Document>,
) -> Result<(), Invalid> {
    // What was typed has no options.
    let Some(document) = document else {
        return Ok(());
    };
    for (index, options) in options.enumerate() {
        if let Some(path) = &options.users_file {
            let users = Users::read(&document.beside(path));
            options.users =
                Some(users.map_err(|error| {
                    document.error(&format!("{list}[{index}].users_file"), error)
                })?);
        }
    }
    Ok(())
}

/// Refuses options that mean nothing for the kind of their proxy.
fn check_options<'a>(
    proxies: impl Iterator<Item = (&'a Spec, &'a ProxyOptions)>,
    from: Source<'_>,
    name: impl Fn(usize) -> String,
) -> Result<(), Invalid> {
    for (index, (spec, options)) in proxies.enumerate() {
        if let Some((field, reason)) = options.misplaced(spec.kind) {
            let name = name(index);
            return Err(from.error(&name, &format!("{name}.{field}"), reason));
        }
    }
    Ok(())
}

/// Two proxies that cannot have the listener that they want.
struct Collision {
    earlier: usize,
    index: usize,
    why: Invalid,
}

/// The first proxy that wants a listener which it cannot share with an earlier one.
fn collision<'a, K: Eq + Hash>(
    proxies: impl Iterator<Item = (Option<K>, Kind, &'a ProxyOptions)>,
) -> Option<Collision> {
    let mut at: HashMap<K, Vec<(usize, Kind, &ProxyOptions)>> = HashMap::new();
    for (index, (listener, kind, options)) in proxies.enumerate() {
        let Some(listener) = listener else { continue };
        let there = at.entry(listener).or_default();
        for (earlier, other_kind, other) in &*there {
            if let Err(why) = options.beside(kind, other, *other_kind) {
                return Some(Collision {
                    earlier: *earlier,
                    index,
                    why,
                });
            }
        }
        if there.len() == SHARING_MAX {
            return Some(Collision {
                earlier: there[0].0,
                index,
                why: Invalid::new(format!("{SHARING_MAX} proxies are the most there can be")),
            });
        }
        there.push((index, kind, options));
    }
    None
}

/// What a listener collides on: nothing, where the system chooses its port.
fn fixed<T>(port: u16, listener: T) -> Option<T> {
    (port != 0).then_some(listener)
}

/// The first item that equals an earlier one: the earlier index, and its own.
fn repeated<T: Eq + Hash>(items: impl Iterator<Item = Option<T>>) -> Option<(usize, usize)> {
    let mut seen = HashMap::new();
    items
        .enumerate()
        .find_map(|(index, item)| Some((seen.insert(item?, index)?, index)))
}

/// The token from the flag, the variable or the file's field, in that order.
fn load_token(
    flag: Option<&Path>,
    variable: Option<OsString>,
    field: Option<PathBuf>,
    document: Option<&Document>,
) -> Result<Option<Token>, Invalid> {
    let field = match document {
        Some(document) => field.map(|path| document.beside(&path)),
        None => None,
    };
    token::load(flag, variable, field.as_deref()).map_err(|(origin, error)| {
        match (origin, document) {
            (Origin::Field, Some(document)) => document.error("token_file", error),
            (Origin::Variable, _) => Source::Flag.error(token::VARIABLE, "", error),
            (Origin::Flag | Origin::Field, _) => Source::Flag.error("--token-file", "", error),
        }
    })
}

#[cfg(test)]
mod tests;
