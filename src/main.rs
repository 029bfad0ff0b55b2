//! The command: what was typed becomes a role, and how it ends becomes the exit code, here alone.

#![forbid(unsafe_code)]

use std::{
    env,
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use log::{LevelFilter, error};
use siding::{
    cli::{self, Command, Parsed},
    client::Client,
    config::{ClientConfig, ServerConfig},
    reactor::{Reactor, mio_net::MioNet},
    server::Server,
};
use simplelog::{
    ColorChoice, ConfigBuilder, TermLogger, TerminalMode, ThreadLogMode, ThreadPadding,
};

fn main() -> ExitCode {
    let (command, level) = match cli::parse(env::args_os()) {
        Parsed::Run(command, level) => (command, level),
        Parsed::Exit { text, code } => return exit(&text, code),
    };
    log_to_stderr(level.to_level_filter());
    let ended = match command {
        Command::Server(config) => server(*config),
        Command::Client(config) => client(*config),
        Command::Demo => siding::demo::run(),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            error!("{message}");
            ExitCode::from(FAILED)
        }
    }
}

fn server(config: ServerConfig) -> Result<(), String> {
    let mut reactor = reactor()?;
    let mut server = Server::start(config, &mut reactor).map_err(|error| error.to_string())?;
    reactor
        .run(&mut server)
        .map_err(|error| format!("event loop: {error}"))
}

fn client(config: ClientConfig) -> Result<(), String> {
    let mut reactor = reactor()?;
    let mut client = Client::start(config, &mut reactor);
    reactor
        .run(&mut client)
        .map_err(|error| format!("event loop: {error}"))
}

fn reactor<O: Copy>() -> Result<Reactor<MioNet, O>, String> {
    MioNet::with_signals()
        .map(Reactor::new)
        .map_err(|error| format!("event loop: {error}"))
}

/// Help goes to standard output, complaints to standard error; whether anyone listens is no matter.
fn exit(text: &str, code: u8) -> ExitCode {
    let _ = match code {
        0 => writeln!(io::stdout(), "{text}"),
        _ => writeln!(io::stderr(), "{text}"),
    };
    ExitCode::from(code)
}

fn log_to_stderr(level: LevelFilter) {
    let config = ConfigBuilder::new()
        .set_time_format_rfc3339()
        .set_thread_level(LevelFilter::Off)
        .set_thread_mode(ThreadLogMode::Names)
        .set_thread_padding(ThreadPadding::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        // The libraries underneath print whole payloads at trace.
        .add_filter_allow_str("siding")
        .build();
    let color = if io::stderr().is_terminal() {
        ColorChoice::Auto
    } else {
        ColorChoice::Never
    };
    TermLogger::init(level, config, TerminalMode::Stderr, color)
        .expect("the logger is set here and nowhere else");
}

/// 0 is ended as asked, and 2 wrong usage or configuration, which `cli` says.
const FAILED: u8 = 1;
