//! The command line: what was typed, joined with a configuration file, becomes checked values.
//!
//! Owns the flags, their help, and the rule of precedence: a flag wins over the file's field of the
//! same name, and a repeated flag replaces the whole list. It does not start anything, prints
//! nothing and ends nothing: [`parse`] answers with what there is to run, or with the text and code
//! to exit with, and `main` does it.

mod admin;
mod arguments;
mod client;
mod files;
mod grants;
mod proxies;
mod server;
mod source;
mod words;

use std::{env, ffi::OsString, fmt, path::PathBuf};

use argh::FromArgs;
use log::Level;

use self::{
    arguments::{Arguments, CheckArguments, CheckedRole, ClientArguments, Role, ServerArguments},
    files::read,
    source::Source,
    words::{Split, split},
};
#[cfg(feature = "admin")]
use crate::admin::status::Question;
use crate::config::{
    ClientConfig, Invalid, LogFormat, Logging, ServerConfig,
    file::{ClientFile, ServerFile},
    logging::LogLevel,
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
                ..server::config(typed, file, document.as_ref(), variables)?
            };
            Asked::Run(Command::Server(Box::new(config)), log)
        }
        Role::Client(typed) => {
            let (file, document) = read::<ClientFile>(typed.config.as_deref())?;
            let typed_log = (typed.log, typed.log_format);
            let log = logging(typed_log, (file.log, file.log_format), Level::Info);
            let config = ClientConfig {
                log,
                ..client::config(typed, file, document.as_ref(), variables)?
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
            server::config(
                ServerArguments::default(),
                file,
                document.as_ref(),
                variables,
            )
            .map(drop)
        }
        CheckedRole::Client => {
            let (file, document) = read::<ClientFile>(path)?;
            client::config(
                ClientArguments::default(),
                file,
                document.as_ref(),
                variables,
            )
            .map(drop)
        }
    }
}

#[cfg(test)]
mod tests;
