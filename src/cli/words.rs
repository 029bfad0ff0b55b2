//! The words of a command line, in the form that argh takes.

use std::ffi::OsString;

use crate::config::Invalid;

/// What [`split`] made of the arguments.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Split {
    /// Arguments as argh takes them.
    Args(Vec<String>),
    /// `--version` stood where a flag may stand.
    Version,
}

/// Puts the arguments into the form that argh takes: `--flag=value` becomes two, help stands alone
/// behind its subcommand, and everything is UTF-8.
///
/// Every flag but help, version and [`SWITCHES`] takes a value, which is passed on whatever it looks like.
pub(super) fn split(args: impl Iterator<Item = OsString>) -> Result<Split, Invalid> {
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
