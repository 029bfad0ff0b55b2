//! The secret that a client and its server share.
//!
//! Owns where it is looked for and what is accepted. What is proved with it, and how, is the link's
//! business; nothing here or there ever prints it.

use std::{ffi::OsString, fmt, path::Path, rc::Rc};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::{files, value::Invalid};

/// The variable that is looked at after `--token-file` and before the configuration's `token_file`.
pub const VARIABLE: &str = "SIDING_TOKEN";

/// A shared secret of at least [`Token::BYTES_MIN`] bytes. Debug-prints without them.
///
/// There is no `==`: tokens are never compared, only what was computed from them is.
#[derive(Clone)]
pub struct Token(Rc<[u8]>);

impl Token {
    /// The shortest token: 128 bits, if it was made at random. The proof of the token can be
    /// guessed at offline by whoever saw a handshake, so short ones are worth nothing.
    pub const BYTES_MIN: usize = 16;

    /// The longest token. Nobody has longer ones, and a file that is not a token (a disk image, a
    /// device) must not be read into memory.
    pub const BYTES_MAX: usize = 4096;

    /// A token from what a file or a variable holds; one trailing newline (LF or CRLF) is cut.
    ///
    /// # Errors
    /// What is left is too short or too long.
    pub fn new(bytes: &[u8]) -> Result<Self, Invalid> {
        let bytes = match bytes {
            [token @ .., b'\r', b'\n'] | [token @ .., b'\n'] => token,
            token => token,
        };
        if bytes.len() < Self::BYTES_MIN {
            return Err(Invalid::new(format!(
                "the token has {} bytes; at least {} are needed (such as: openssl rand -hex 32)",
                bytes.len(),
                Self::BYTES_MIN,
            )));
        }
        if bytes.len() > Self::BYTES_MAX {
            return Err(Invalid::new(format!(
                "the token has more than {} bytes",
                Self::BYTES_MAX
            )));
        }
        Ok(Self(bytes.into()))
    }

    /// Reads a token file.
    ///
    /// # Errors
    /// The file cannot be read, or holds no acceptable token.
    pub fn read(path: &Path) -> Result<Self, Invalid> {
        // Enough to see that it is too long: the longest token, CRLF and one byte more.
        let room = Self::BYTES_MAX as u64 + 3;
        let within =
            |error: &dyn fmt::Display| Invalid::new(format!("{}: {error}", path.display()));
        let bytes = files::read(path, room).map_err(|error| within(&error))?;
        Self::new(&bytes).map_err(|error| within(&error))
    }

    /// Whether this is the secret. Takes the same time however wrong it is.
    #[must_use]
    pub fn is(&self, given: &[u8]) -> bool {
        let mac = |bytes: &[u8]| {
            Hmac::<Sha256>::new_from_slice(b"siding token")
                .expect("HMAC takes a key of any length")
                .chain_update(bytes)
        };
        let own = mac(&self.0).finalize().into_bytes();
        mac(given).verify_slice(&own).is_ok()
    }

    /// The secret, to compute proofs with.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Which of the three places a token came from, or failed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `--token-file`.
    Flag,
    /// `SIDING_TOKEN`.
    Variable,
    /// `token_file` of the configuration.
    Field,
}

/// The token from the first place that has one: flag, variable, field. Later ones are not looked at.
///
/// A variable that is set but empty is refused like any other short token: whoever set it meant to
/// give one.
///
/// # Errors
/// The first place that has one holds no acceptable token.
pub fn load(
    flag: Option<&Path>,
    variable: Option<OsString>,
    field: Option<&Path>,
) -> Result<Option<Token>, (Origin, Invalid)> {
    let (origin, token) = match (flag, variable, field) {
        (Some(path), _, _) => (Origin::Flag, Token::read(path)),
        (None, Some(value), _) => (Origin::Variable, Token::new(value.as_encoded_bytes())),
        (None, None, Some(path)) => (Origin::Field, Token::read(path)),
        (None, None, None) => return Ok(None),
    };
    token.map(Some).map_err(|error| (origin, error))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{env, fs, path::PathBuf, process};

    use super::*;

    /// A folder of its own for one test, removed at its end.
    pub(crate) struct Folder(PathBuf);

    impl Folder {
        pub(crate) fn new(test: &str) -> Self {
            let path = env::temp_dir().join(format!("siding-{}-{test}", process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, content).unwrap();
            path
        }

        pub(crate) fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            // A folder left behind in the system's temporary one harms nobody.
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn one_trailing_newline_is_cut() {
        let secret = b"0123456789abcdef";
        for (content, expected) in [
            (&b"0123456789abcdef"[..], &secret[..]),
            (b"0123456789abcdef\n", secret),
            (b"0123456789abcdef\r\n", secret),
            (b"0123456789abcdef\n\n", b"0123456789abcdef\n"),
            (b"0123456789abcdef\r", b"0123456789abcdef\r"),
            (b" 0123456789abcdef ", b" 0123456789abcdef "),
            (b"\xff\x000123456789abcdef", b"\xff\x000123456789abcdef"),
        ] {
            assert_eq!(Token::new(content).unwrap().as_bytes(), expected);
        }
    }

    #[test]
    fn short_and_endless_tokens_are_refused() {
        for content in [
            &b""[..],
            b"\n",
            b"0123456789abcde",
            b"0123456789abcde\n",
            b"0123456789abcde\r\n",
        ] {
            let reason = Token::new(content).unwrap_err().to_string();
            assert!(reason.contains("at least 16"), "{reason}");
        }
        assert!(Token::new(&[b'x'; 4096]).is_ok());
        assert!(
            Token::new(&[b'x'; 4097])
                .unwrap_err()
                .to_string()
                .contains("more than 4096")
        );
    }

    #[test]
    fn the_secret_is_known_and_nothing_else() {
        let token = Token::new(b"0123456789abcdef\n").unwrap();
        assert!(token.is(b"0123456789abcdef"));
        for wrong in [
            &b""[..],
            b"0123456789abcde",
            b"0123456789abcdef\n",
            b"0123456789abcdeg",
        ] {
            assert!(!token.is(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn the_secret_is_not_printed() {
        let token = Token::new(b"0123456789abcdef").unwrap();
        assert_eq!(format!("{token:?}"), "Token(..)");
        let reason = Token::new(b"hunter2").unwrap_err().to_string();
        assert!(!reason.contains("hunter2"), "{reason}");
    }

    #[test]
    fn token_files_name_themselves_when_they_fail() {
        let folder = Folder::new("token-files");
        let longest = folder.file("long", [&[b'x'; 4096][..], b"\r\n"].concat());
        assert_eq!(Token::read(&longest).unwrap().as_bytes().len(), 4096);
        let endless = folder.file("endless", vec![b'x'; 100_000]);
        let short = folder.file("short", "short\n");
        for (path, expected) in [
            (endless.as_path(), "more than 4096"),
            (&short, "at least 16"),
            (&folder.path().join("absent"), "No such file"),
            (folder.path(), "directory"),
        ] {
            let reason = Token::read(path).unwrap_err().to_string();
            assert!(
                reason.starts_with(&format!("{}: ", path.display())),
                "{reason}"
            );
            assert!(reason.contains(expected), "{reason}");
        }
    }

    #[test]
    fn the_flag_comes_before_the_variable_and_that_before_the_field() {
        let folder = Folder::new("token-order");
        let flag = folder.file("flag", "from the flag 123");
        let field = folder.file("field", "from the field 123");
        let variable = || Some(OsString::from("from the variable"));
        let secret = |token: Result<Option<Token>, (Origin, Invalid)>| {
            token
                .unwrap()
                .map(|token| String::from_utf8(token.as_bytes().to_vec()).unwrap())
        };
        let expected = |text: &str| Some(text.to_owned());
        assert_eq!(
            secret(load(Some(&flag), variable(), Some(&field))),
            expected("from the flag 123")
        );
        assert_eq!(
            secret(load(None, variable(), Some(&field))),
            expected("from the variable")
        );
        assert_eq!(
            secret(load(None, None, Some(&field))),
            expected("from the field 123")
        );
        assert_eq!(secret(load(None, None, None)), None);
    }

    #[test]
    fn a_bad_token_is_not_passed_over_for_the_next_place() {
        let folder = Folder::new("token-bad");
        let good = folder.file("good", "0123456789abcdef");
        let absent = folder.path().join("absent");
        let origin = |token: Result<Option<Token>, (Origin, Invalid)>| token.unwrap_err().0;
        let variable = |text: &str| Some(OsString::from(text));
        assert_eq!(
            origin(load(Some(&absent), variable("0123456789abcdef"), None)),
            Origin::Flag
        );
        assert_eq!(
            origin(load(None, variable(""), Some(&good))),
            Origin::Variable
        );
        assert_eq!(origin(load(None, None, Some(&absent))), Origin::Field);
    }
}
