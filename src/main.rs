//! The command: what was typed becomes a role, and how it ends becomes the exit code, here alone.

#![forbid(unsafe_code)]

use std::{
    env,
    io::{self, Write},
    process::ExitCode,
};

use log::error;
use siding::{
    cli::{self, Command, Parsed},
    config::{Files, Source},
    journal, run,
};

fn main() -> ExitCode {
    let (parsed, files) = Files::of(|| cli::parse(env::args_os()));
    let (command, logging) = match parsed {
        Parsed::Run(command, logging) => (command, logging),
        Parsed::Exit { text, code } => return exit(&text, code),
    };
    journal::start(logging);
    let ended = match command {
        // What was typed is read once more, and so are the files that it names.
        Command::Server(config) => run::server(
            *config,
            Source::new(files, || match again()? {
                Command::Server(config) => Ok(*config),
                _ => Err(NOT_THE_SAME.into()),
            }),
        ),
        Command::Client(config) => run::client(
            *config,
            Source::new(files, || match again()? {
                Command::Client(config) => Ok(*config),
                _ => Err(NOT_THE_SAME.into()),
            }),
        ),
        #[cfg(feature = "demo")]
        Command::Demo => siding::demo::run(),
        #[cfg(feature = "admin")]
        Command::Status(question) => match siding::admin::status::run(&question) {
            // An answer to whoever has asked, and no line of a log.
            Err(reason) => return exit(&format!("siding: {reason}"), FAILED),
            Ok(()) => Ok(()),
        },
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            error!("{message}");
            ExitCode::from(FAILED)
        }
    }
}

/// What the arguments mean by now; the error is what a start would have said.
fn again() -> Result<Command, String> {
    match cli::parse(env::args_os()) {
        Parsed::Run(command, _) => Ok(command),
        Parsed::Exit { text, .. } => Err(text),
    }
}

/// Arguments do not change while a process runs.
const NOT_THE_SAME: &str = "the arguments mean another role now";

/// Help goes to standard output, complaints to standard error; whether anyone listens is no matter.
fn exit(text: &str, code: u8) -> ExitCode {
    let _ = match code {
        0 => writeln!(io::stdout(), "{text}"),
        _ => writeln!(io::stderr(), "{text}"),
    };
    ExitCode::from(code)
}

/// 0 is ended as asked, and 2 wrong usage or configuration, which `cli` says.
const FAILED: u8 = 1;
