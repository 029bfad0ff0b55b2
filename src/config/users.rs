//! Who may come in, by name and password.
//!
//! Owns the users file, what is kept of a password, and how the list crosses the link. A password itself is
//! forgotten as soon as it was read: what is kept is a random salt and HMAC-SHA256(salt, password). That is
//! quick to compute, as it must be for each request; so whoever gets hold of a list can try billions of
//! passwords a minute, and short ones are worth nothing then.

use std::{fmt, path::Path, rc::Rc};

use hmac::{Hmac, KeyInit, Mac};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, Unexpected},
};
use sha2::Sha256;

use super::{files, value::Invalid};
use crate::base64;

/// Names, and what proves each; never empty.
#[derive(Clone, PartialEq, Eq)]
pub struct Users(
    /// Sorted by name, each once.
    Rc<[User]>,
);

#[derive(Clone, PartialEq, Eq)]
struct User {
    name: Box<str>,
    secret: Secret,
}

/// What is kept of a password.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Secret {
    salt: [u8; SALT_BYTES],
    digest: [u8; 32],
}

/// 96 bits: no two passwords ever get the same by chance, and it is 16 characters on the wire.
const SALT_BYTES: usize = 12;

/// Somebody who is in no list: its password is checked all the same, so that the time an answer takes does
/// not tell names that exist from those that do not.
const NOBODY: Secret = Secret {
    salt: [0; SALT_BYTES],
    digest: [0; 32],
};

impl Users {
    /// The most users of one proxy: more belong into a directory, which siding does not ask.
    pub const COUNT_MAX: usize = 1000;

    /// The most that a client may ask a server to know: what fits into a control frame is less still, with
    /// names of usual length about 50.
    pub const ASKED_MAX: usize = 64;

    /// The longest name and the longest password: SOCKS has one byte for their lengths (RFC 1929 §2).
    const BYTES_MAX: usize = 255;

    /// The largest file: as many users as there may be, with as much again of comments.
    const FILE_BYTES_MAX: usize = 1 << 20;

    /// Reads a users file: a line `name:password` for each, lines that begin with `#`, and blank ones.
    ///
    /// # Errors
    /// It cannot be read, or a line is not like that. No message quotes what may be a password.
    pub fn read(path: &Path) -> Result<Self, Invalid> {
        let within =
            |error: &dyn fmt::Display| Invalid::new(format!("{}: {error}", path.display()));
        let room = Self::FILE_BYTES_MAX as u64 + 1;
        let bytes = files::read(path, room).map_err(|error| within(&error))?;
        let salt = || {
            let mut salt = [0; SALT_BYTES];
            getrandom::fill(&mut salt).map(|()| salt)
        };
        Self::parse(&bytes, |password| {
            let salt = salt().map_err(|error| Invalid::new(format!("no random salt: {error}")))?;
            Ok(Secret::of(salt, password))
        })
        .map_err(|error| within(&error))
    }

    fn parse(
        bytes: &[u8],
        mut secret: impl FnMut(&[u8]) -> Result<Secret, Invalid>,
    ) -> Result<Self, Invalid> {
        if bytes.len() > Self::FILE_BYTES_MAX {
            return Err(Invalid::new("is larger than 1 MiB, which no users file is"));
        }
        let mut users = Vec::new();
        for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.trim_ascii().is_empty() || line.starts_with(b"#") {
                continue;
            }
            let refused =
                |reason: &dyn fmt::Display| Invalid::new(format!("line {}: {reason}", index + 1));
            let line = str::from_utf8(line).map_err(|_| refused(&"is not UTF-8"))?;
            let (name, password) = line
                .split_once(':')
                .ok_or_else(|| refused(&"is not name:password"))?;
            check_name(name).map_err(|reason| refused(&reason))?;
            check_password(password).map_err(|reason| refused(&reason))?;
            users.push(User {
                name: name.into(),
                secret: secret(password.as_bytes())?,
            });
        }
        Self::new(users, Self::COUNT_MAX)
    }

    fn new(mut users: Vec<User>, count_max: usize) -> Result<Self, Invalid> {
        if users.is_empty() {
            return Err(Invalid::new(
                "names no user, so that nobody could come in: a line is name:password",
            ));
        }
        if users.len() > count_max {
            return Err(Invalid::new(format!(
                "names {} users; {count_max} are the most",
                users.len()
            )));
        }
        users.sort_by(|one, other| one.name.cmp(&other.name));
        if let Some(pair) = users.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(Invalid::new(format!("names {:?} twice", pair[0].name)));
        }
        Ok(Self(users.into()))
    }

    /// Whether there is such a user with such a password. Takes the same time whichever is wrong.
    #[must_use]
    pub fn verify(&self, name: &[u8], password: &[u8]) -> bool {
        let found = self.find(name);
        let secret = found.map_or(&NOBODY, |user| &user.secret);
        let right = secret.verify(password);
        right && found.is_some()
    }

    /// The user's name as it is in the list, if it is: what is not may be a password typed into the wrong
    /// field, and must not come into a log.
    pub fn known(&self, name: &[u8]) -> Option<&str> {
        self.find(name).map(|user| &*user.name)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether both lists name the same users. Their salts differ each time a file is read.
    pub fn names_as(&self, other: &Users) -> bool {
        let ours = self.0.iter().map(|user| &user.name);
        ours.eq(other.0.iter().map(|user| &user.name))
    }

    fn find(&self, name: &[u8]) -> Option<&User> {
        self.0
            .binary_search_by(|user| user.name.as_bytes().cmp(name))
            .ok()
            .map(|index| &self.0[index])
    }
}

impl Secret {
    fn of(salt: [u8; SALT_BYTES], password: &[u8]) -> Self {
        Self {
            salt,
            digest: mac(&salt, password).finalize().into_bytes().into(),
        }
    }

    /// In constant time.
    fn verify(&self, password: &[u8]) -> bool {
        mac(&self.salt, password).verify_slice(&self.digest).is_ok()
    }
}

fn mac(salt: &[u8], password: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(salt).expect("HMAC takes a key of any length");
    mac.update(password);
    mac
}

fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("the name is empty");
    }
    if name.len() > Users::BYTES_MAX {
        return Err("the name is longer than 255 bytes");
    }
    if name.contains(':') || name.contains(char::is_control) {
        return Err("the name has a colon or a control character");
    }
    if name.trim() != name {
        return Err("the name has a space around it");
    }
    Ok(())
}

fn check_password(password: &str) -> Result<(), &'static str> {
    if password.is_empty() {
        return Err("the password is empty");
    }
    if password.len() > Users::BYTES_MAX {
        return Err("the password is longer than 255 bytes");
    }
    if password.contains(char::is_control) {
        // RFC 7617 §2; and most likely a tab or carriage return that nobody sees.
        return Err("the password has a control character");
    }
    Ok(())
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Users({})", self.count())
    }
}

/// On the wire: strings `name:salt:digest`, salt and digest in base64.
impl Serialize for Users {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|User { name, secret }| {
            let (salt, digest) = (base64::encode(&secret.salt), base64::encode(&secret.digest));
            format!("{name}:{salt}:{digest}")
        }))
    }
}

impl<'de> Deserialize<'de> for Users {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Whatever carries it is a control frame: short.
        let lines: Vec<String> = Vec::deserialize(deserializer)?;
        let user = |line: &String| -> Option<User> {
            let mut parts = line.rsplitn(3, ':');
            let digest = base64::decode(parts.next()?.as_bytes())?;
            let salt = base64::decode(parts.next()?.as_bytes())?;
            let name = parts.next().filter(|name| check_name(name).is_ok())?;
            Some(User {
                name: name.into(),
                secret: Secret {
                    salt: salt.try_into().ok()?,
                    digest: digest.try_into().ok()?,
                },
            })
        };
        let users: Option<Vec<User>> = lines.iter().map(user).collect();
        let users = users.ok_or_else(|| {
            D::Error::invalid_value(
                Unexpected::Other("what is no user"),
                &"strings name:salt:digest",
            )
        })?;
        Self::new(users, Self::ASKED_MAX).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::token::tests::Folder;

    fn parse(text: impl AsRef<[u8]>) -> Result<Users, Invalid> {
        Users::parse(text.as_ref(), |password| Ok(Secret::of([7; 12], password)))
    }

    #[test]
    fn a_user_is_who_knows_its_password() {
        let users =
            parse("# people\n\nalice:open sesame\r\n  \nbob::a:b:\n#eve:x\nZo\u{eb}:\u{a3}1")
                .expect("a good file");
        for (name, password) in [
            ("alice", "open sesame"),
            ("bob", ":a:b:"),
            ("Zo\u{eb}", "\u{a3}1"),
        ] {
            assert!(users.verify(name.as_bytes(), password.as_bytes()), "{name}");
            assert_eq!(users.known(name.as_bytes()), Some(name));
        }
        for (name, password) in [
            ("alice", "open sesame\r"),
            ("alice", "open sesam"),
            ("alice", ""),
            ("Alice", "open sesame"),
            ("bob", "open sesame"),
            ("#eve", "x"),
            ("", ""),
            ("nobody", ""),
        ] {
            assert!(
                !users.verify(name.as_bytes(), password.as_bytes()),
                "{name}"
            );
        }
        assert!(!users.verify(b"\xff", b"\xff"));
        assert_eq!(users.known(b"open sesame"), None);
        assert_eq!(users.count(), 3);
    }

    #[test]
    fn nobody_comes_in_with_the_password_of_nobody() {
        // Whatever hashes to NOBODY's digest, nobody knows; and the name is not there either.
        let users = parse("alice:x").unwrap();
        assert!(!users.verify(b"", b"") && !NOBODY.verify(b""));
    }

    #[test]
    fn lines_that_are_no_users_are_named_and_not_quoted() {
        let long = "x".repeat(256);
        for (text, expected) in [
            ("", "names no user"),
            ("# nobody\n\n", "names no user"),
            ("a:b\nhunter2\n", "line 2: is not name:password"),
            ("a:b\n\n:hunter2", "line 3: the name is empty"),
            ("a:\nb:c", "line 1: the password is empty"),
            (" hunter2:x", "line 1: the name has a space around it"),
            ("a\tb:hunter2", "line 1: the name has a colon or a control"),
            ("a:hunter2\t", "line 1: the password has a control"),
            (&format!("{long}:hunter2"), "line 1: the name is longer"),
            (&format!("a:{long}"), "line 1: the password is longer"),
            ("a:b\na:hunter2", "names \"a\" twice"),
        ] {
            let reason = parse(text).expect_err(text).to_string();
            assert!(reason.contains(expected), "{text}: {reason}");
            assert!(!reason.contains("hunter2"), "{reason}");
        }
        let reason = parse(b"a:b\nc:\xff").unwrap_err().to_string();
        assert_eq!(reason, "line 2: is not UTF-8");
    }

    #[test]
    fn there_is_a_most_of_everything() {
        let many = |count: usize| -> String { (0..count).map(|n| format!("u{n}:x\n")).collect() };
        assert_eq!(parse(many(1000)).unwrap().count(), 1000);
        let reason = parse(many(1001)).unwrap_err().to_string();
        assert!(reason.contains("1000 are the most"), "{reason}");
        let reason = parse(vec![b'\n'; (1 << 20) + 1]).unwrap_err().to_string();
        assert!(reason.contains("larger than 1 MiB"), "{reason}");
    }

    #[test]
    fn files_name_themselves_and_salts_are_fresh() {
        let folder = Folder::new("users-files");
        let file = folder.file("users", "alice:x\nbob:x\n");
        let (one, other) = (Users::read(&file).unwrap(), Users::read(&file).unwrap());
        assert!(one != other && one.names_as(&other));
        assert!(one.0[0].secret.salt != one.0[1].secret.salt, "each its own");
        assert!(one.verify(b"alice", b"x") && other.verify(b"alice", b"x"));
        assert_eq!(format!("{one:?}"), "Users(2)");
        let absent = folder.path().join("absent");
        let reason = Users::read(&absent).unwrap_err().to_string();
        assert!(
            reason.starts_with(&format!("{}: ", absent.display())),
            "{reason}"
        );
        let wrong = folder.file("wrong", "a:b\nc");
        let reason = Users::read(&wrong).unwrap_err().to_string();
        assert!(
            reason.ends_with("wrong: line 2: is not name:password"),
            "{reason}"
        );
    }

    #[test]
    fn digests_cross_the_wire_and_passwords_do_not() {
        let users = parse("alice:open sesame\nbob:hunter2").unwrap();
        let json = serde_json::to_string(&users).unwrap();
        assert!(json.starts_with("[\"alice:BwcHBwcHBwcHBwcH:"), "{json}");
        assert!(!json.contains("hunter2"));
        let back: Users = serde_json::from_str(&json).unwrap();
        assert!(back == users && back.verify(b"bob", b"hunter2"));
    }

    #[test]
    fn what_is_no_list_of_users_is_refused() {
        let salt = base64::encode(&[1; 12]);
        let digest = base64::encode(&[2; 32]);
        let list = |names: &[String]| serde_json::to_string(names).unwrap();
        let user = |name: &str| format!("{name}:{salt}:{digest}");
        for json in [
            "[]".to_owned(),
            "7".into(),
            "\"a\"".into(),
            "[7]".into(),
            list(&["a".into()]),
            list(&[user("")]),
            list(&[user("a:b")]),
            list(&[user("a\n")]),
            list(&[format!("a:{digest}:{digest}")]),
            list(&[format!("a:{salt}:{salt}")]),
            list(&[format!("a:{salt}:{}", &digest[1..])]),
            list(&[user("a"), user("b"), user("a")]),
            list(&(0..65).map(|n| user(&n.to_string())).collect::<Vec<_>>()),
        ] {
            assert!(serde_json::from_str::<Users>(&json).is_err(), "{json}");
        }
        let most: Vec<String> = (0..64).map(|n| user(&n.to_string())).collect();
        assert!(serde_json::from_str::<Users>(&list(&most)).is_ok());
    }
}
