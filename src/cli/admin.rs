//! Where a role is to tell of itself, what whoever asks must show, and the command that asks.

use std::path::{Path, PathBuf};

#[cfg(feature = "admin")]
use argh::FromArgs;

use super::Source;
use crate::config::{AdminConfig, Invalid, Token, file::Document, value::Address};
#[cfg(feature = "admin")]
use crate::{
    admin::status::Question,
    config::{ADMIN_DEFAULT, logging::LogLevel},
};

/// An address and a token file, as they were typed or written.
type Given = (Option<Address>, Option<PathBuf>);

/// Joins what was typed with the file.
pub(super) fn read(
    typed: Given,
    file: Given,
    document: Option<&Document>,
) -> Result<Option<AdminConfig>, Invalid> {
    let from = Source::of(typed.0.is_some(), document);
    let token_from = Source::of(typed.1.is_some(), document);
    let listen = typed.0.or(file.0).map(|Address(address)| address);
    let beside = |path: PathBuf| match document {
        Some(document) => document.beside(&path),
        None => path,
    };
    let token_file = typed.1.or_else(|| file.1.map(beside));
    let token_error =
        |reason: &str| token_from.error("--admin-token-file", "admin_token_file", reason);
    let Some(listen) = listen else {
        return match token_file {
            None => Ok(None),
            Some(_) => Err(token_error("it is for the admin listener (--admin, admin)")),
        };
    };
    if !cfg!(feature = "admin") {
        return Err(from.error("--admin", "admin", WITHOUT));
    }
    let token = match token_file {
        None => None,
        Some(path) => Some(token(&path).map_err(|error| token_error(&error.to_string()))?),
    };
    if token.is_none() && !listen.ip().to_canonical().is_loopback() {
        let reason = format_args!(
            "without a token it is on loopback only, not on {listen}: give it one by --admin-token-file or admin_token_file, or listen on 127.0.0.1"
        );
        return Err(from.error("--admin", "admin", reason));
    }
    Ok(Some(AdminConfig { listen, token }))
}

/// Reads a token that can stand in a field of HTTP.
fn token(path: &Path) -> Result<Token, Invalid> {
    let token = Token::read(path)?;
    if !token.as_bytes().iter().all(u8::is_ascii_graphic) {
        return Err(Invalid::new(format!(
            "{}: an admin token is of visible ASCII, without spaces, since HTTP carries it (such as: openssl rand -hex 32)",
            path.display()
        )));
    }
    Ok(token)
}

const WITHOUT: &str = "this siding was built without the admin listener (feature admin)";

/// Ask a running server or client how it is, at its --admin address.
#[cfg(feature = "admin")]
#[derive(FromArgs)]
#[argh(subcommand, name = "status")]
#[argh(note = "Exits 1 if nobody answers. What --json prints is documented in the README.")]
pub(super) struct StatusArguments {
    /// where it tells of itself (default 127.0.0.1:7001)
    #[argh(option, arg_name = "ADDR:PORT")]
    admin: Option<Address>,

    /// the file that holds what must be shown there
    #[argh(option, arg_name = "FILE")]
    admin_token_file: Option<PathBuf>,

    /// print the answer as it is
    #[argh(switch)]
    json: bool,

    /// ask again each second, until Ctrl-C
    #[argh(switch)]
    watch: bool,

    /// how much to log: error, warn (the default), info, debug or trace
    #[argh(option, arg_name = "LEVEL")]
    pub log: Option<LogLevel>,
}

#[cfg(feature = "admin")]
impl StatusArguments {
    /// What is to be asked.
    pub fn question(self) -> Result<Question, Invalid> {
        let token = self.admin_token_file.map(|path| {
            token(&path).map_err(|error| Source::Flag.error("--admin-token-file", "", error))
        });
        Ok(Question {
            admin: self.admin.map_or(ADMIN_DEFAULT, |Address(address)| address),
            token: token.transpose()?,
            json: self.json,
            watch: self.watch,
        })
    }
}

#[cfg(all(test, feature = "admin"))]
mod tests {
    use std::ffi::OsString;

    use crate::{
        cli::{Command, Parsed, parse_with},
        config::{AdminConfig, token::tests::Folder},
    };

    fn parse(words: &[&str]) -> Result<Command, String> {
        let args = ["siding"].iter().chain(words).map(OsString::from);
        match parse_with(args, &|_| None) {
            Parsed::Run(command, _) => Ok(command),
            Parsed::Exit { text, .. } => Err(text),
        }
    }

    fn admin(words: &[&str]) -> Result<Option<AdminConfig>, String> {
        parse(words).map(|command| match command {
            Command::Server(config) => config.admin,
            Command::Client(config) => config.admin,
            other => panic!("{other:?}"),
        })
    }

    fn text(path: &std::path::Path) -> &str {
        path.to_str().expect("temporary folders have plain names")
    }

    #[test]
    fn it_is_loopback_unless_there_is_a_token() {
        let folder = Folder::new("cli-admin");
        let token = folder.file("admin.token", "0123456789abcdef\n");
        let token = ["--admin-token-file", text(&token)];
        for role in [&["server"][..], &["client", "--id", "a"]] {
            let admin = |more: &[&str]| admin(&[role, more].concat());
            assert!(admin(&[]).expect("nothing is wrong").is_none());
            let own = admin(&["--admin", "127.0.0.1:7001"]).expect("loopback");
            let own = own.expect("it was asked for");
            assert_eq!(own.listen.to_string(), "127.0.0.1:7001");
            assert!(own.token.is_none());
            assert!(admin(&["--admin", "[::1]:7001"]).is_ok());
            for open in ["0.0.0.0:7001", "[::]:7001", "192.0.2.1:7001"] {
                let refused = admin(&["--admin", open]).expect_err(open);
                assert!(refused.starts_with("siding: --admin: without a token"));
                let guarded = admin(&[&["--admin", open][..], &token].concat());
                let guarded = guarded.expect(open).expect("it was asked for");
                assert!(guarded.token.is_some_and(|it| it.is(b"0123456789abcdef")));
            }
            let refused = admin(&token).expect_err("for nothing");
            assert!(refused.contains("--admin-token-file: it is for the admin listener"));
        }
    }

    #[test]
    fn a_file_may_say_it_and_names_its_token_beside_itself() {
        let folder = Folder::new("cli-admin-file");
        folder.file("admin.token", "0123456789abcdef\n");
        folder.file("odd.token", "0123456789 abcdef\n");
        let file = |json: &str| folder.file("server.json", json);
        let with = |json: &str, more: &[&str]| {
            let file = file(json);
            admin(&[&["server", "--config", text(&file)][..], more].concat())
        };
        let json = r#"{ "admin": "0.0.0.0:7001", "admin_token_file": "admin.token" }"#;
        let own = with(json, &[]).expect("a token").expect("asked for");
        assert_eq!(own.listen.to_string(), "0.0.0.0:7001");
        let own = with(json, &["--admin", "127.0.0.1:1"]).expect("a flag wins");
        assert_eq!(own.expect("asked for").listen.to_string(), "127.0.0.1:1");
        for (json, expected) in [
            (
                "{\n\"admin\": \"0.0.0.0:1\" }",
                "line 2: admin: without a token",
            ),
            (
                r#"{ "admin": "0.0.0.0:1", "admin_token_file": "none" }"#,
                "line 1: admin_token_file: ",
            ),
            (
                r#"{ "admin": "0.0.0.0:1", "admin_token_file": "odd.token" }"#,
                "of visible ASCII",
            ),
            (
                r#"{ "admin_token_file": "admin.token" }"#,
                "admin_token_file: it is for",
            ),
            (
                r#"{ "admin": "127.0.0.1:7000" }"#,
                "admin: clients connect at 127.0.0.1:7000",
            ),
        ] {
            let refused = with(json, &[]).expect_err(json);
            assert!(refused.contains(expected), "{refused}");
        }
    }

    #[test]
    fn status_asks_where_it_is_told() {
        let folder = Folder::new("cli-status");
        let token = folder.file("admin.token", "0123456789abcdef\n");
        let question = |words: &[&str]| match parse(words).expect("a question") {
            Command::Status(question) => question,
            other => panic!("{other:?}"),
        };
        let plain = question(&["status"]);
        assert_eq!(plain.admin.to_string(), "127.0.0.1:7001");
        assert!(!plain.json && !plain.watch && plain.token.is_none());
        let full = question(&[
            "status",
            "--json",
            "--admin=[::1]:9",
            "--watch",
            "--admin-token-file",
            text(&token),
        ]);
        assert_eq!(full.admin.to_string(), "[::1]:9");
        assert!(full.json && full.watch && full.token.is_some());
        assert!(parse(&["status", "--watch=1"]).is_err());
        assert!(parse(&["server", "--json"]).is_err());
    }
}
