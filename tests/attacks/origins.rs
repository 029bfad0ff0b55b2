//! Attacks by origins: what is answered, what the user must get of it, and the stage on which that is
//! tried.

use std::{
    fmt,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{Arc, Condvar, Mutex},
};

use super::{
    common::{HttpUser, Origin, PATIENCE, Reply, Tunnel, wait_until_all_read},
    splits::{AT_A_TIME, Splits},
};

/// As much as comes of the body of [`Asked::UpgradeAndPost`].
const BODY_BEGUN: &str = "body";

/// A response that breaks a rule, or looks as if it did.
pub struct Attack {
    pub name: String,
    /// The rule that it breaks or lives by.
    pub rule: &'static str,
    pub asked: Asked,
    pub bytes: Vec<u8>,
    /// What the origin does after its last byte.
    pub then: Then,
    pub outcome: Outcome,
}

/// What the user asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Get,
    Head,
    /// GET in HTTP/1.0, keeping the connection.
    OldGet,
    Upgrade,
    /// An upgrade with a body that does not come.
    UpgradeAndPost,
}

/// What the origin does after its last byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Then {
    /// Waits for the end of the connection, and for any byte on it.
    #[default]
    Listen,
    /// Closes by FIN.
    Close,
}

/// What becomes of an attack. Unless it says otherwise the origin's connection ends, and nothing is
/// asked on it any more.
pub enum Outcome {
    /// The user gets an error of ours.
    BadGateway,
    /// The user gets a part, and sees that it is not the whole, or an error of ours.
    Cut,
    /// The user gets this, whole.
    Means(Meaning),
}

/// A response as its user must see it.
pub struct Meaning {
    pub status: u16,
    pub body: Vec<u8>,
    pub has: &'static [(&'static str, &'static str)],
    pub lacks: &'static [&'static str],
    /// The exchange is clean: the connection is parked and used again.
    pub reused: bool,
}

/// An origin that attacks, behind a tunnel.
pub struct Stage {
    origin: Origin,
    shared: Arc<Shared>,
    tunnel: Tunnel,
    splits: Splits,
}

#[derive(Default)]
struct Shared {
    script: Mutex<Script>,
    changed: Condvar,
}

#[derive(Default)]
struct Script {
    bytes: Arc<Vec<u8>>,
    then: Then,
    /// The connections may be used again.
    clean: bool,
    /// How many ask at a time.
    users: usize,
    /// How many of them have been heard.
    heard: usize,
    /// Connections on which the first part was sent.
    halfway: Vec<TcpStream>,
    /// The second part may be sent.
    go_on: bool,
    /// How the connections ended on which an attack was sent: by their end, or by what was asked next.
    ended: Vec<Result<(), String>>,
    /// Correct requests so far.
    correct: usize,
}

impl Attack {
    pub fn refused(
        name: impl fmt::Display,
        rule: &'static str,
        asked: Asked,
        bytes: impl Into<Vec<u8>>,
    ) -> Self {
        Self {
            name: name.to_string(),
            rule,
            asked,
            bytes: bytes.into(),
            then: Then::Listen,
            outcome: Outcome::BadGateway,
        }
    }

    pub fn cut(
        name: impl fmt::Display,
        rule: &'static str,
        asked: Asked,
        bytes: impl Into<Vec<u8>>,
    ) -> Self {
        Self {
            outcome: Outcome::Cut,
            ..Self::refused(name, rule, asked, bytes)
        }
    }

    pub fn means(
        name: impl fmt::Display,
        rule: &'static str,
        asked: Asked,
        bytes: impl Into<Vec<u8>>,
        meaning: Meaning,
    ) -> Self {
        Self {
            outcome: Outcome::Means(meaning),
            ..Self::refused(name, rule, asked, bytes)
        }
    }

    pub fn then(self, then: Then) -> Self {
        Self { then, ..self }
    }
}

impl Stage {
    pub fn new() -> Self {
        let shared = Arc::new(Shared::default());
        let of_origin = Arc::clone(&shared);
        let origin = Origin::start(move |stream| serve(&of_origin, stream));
        let tunnel = Tunnel::builder()
            .to("http", origin.address())
            .log("info")
            .start();
        Self {
            origin,
            shared,
            tunnel,
            splits: Splits::default(),
        }
    }

    /// Tries each attack, whole and split everywhere, and after each a correct request.
    pub fn withstands(&mut self, attacks: &[Attack]) {
        self.answers_a_correct_request();
        for attack in attacks {
            let splits = self.splits.of(attack.asked.name(), &attack.bytes);
            println!("{}: {}, in {} ways", attack.rule, attack.name, splits.len());
            for some in splits.chunks(AT_A_TIME) {
                self.withstands_split(attack, some);
            }
        }
    }

    fn withstands_split(&self, attack: &Attack, splits: &[usize]) {
        self.shared.change(|script| {
            *script = Script {
                bytes: Arc::new(attack.bytes.clone()),
                then: attack.then,
                clean: attack.is_clean(),
                users: splits.len(),
                correct: script.correct,
                ..Script::default()
            };
        });
        let mut users: Vec<HttpUser> = splits
            .iter()
            .map(|split| {
                let mut user = HttpUser::connect(self.tunnel.address());
                user.send(attack.asked.request(*split));
                user
            })
            .collect();
        let halfway = self.shared.wait(
            |script| script.halfway.len() == splits.len(),
            |script| std::mem::take(&mut script.halfway),
        );
        wait_until_all_read(&halfway);
        drop(halfway);
        self.shared.change(|script| script.go_on = true);
        for (user, split) in users.iter_mut().zip(splits) {
            if let Err(wrong) = attack.judge(user) {
                panic!("{attack}, split at {split}: {wrong}");
            }
        }
        users.into_iter().for_each(HttpUser::leave);
        if attack.is_clean() {
            let before = self.origin.accepted();
            self.answers_a_correct_request();
            assert_eq!(before, self.origin.accepted(), "{attack}: it is reused");
            return;
        }
        let ended = self.shared.wait(
            |script| script.ended.len() == splits.len(),
            |script| script.ended.clone(),
        );
        for (ended, split) in ended.into_iter().zip(splits) {
            if let Err(asked) = ended {
                panic!("{attack}, split at {split}: then the origin was asked {asked}");
            }
        }
        self.answers_a_correct_request();
    }

    fn answers_a_correct_request(&self) {
        let mut user = HttpUser::connect(self.tunnel.address());
        let reply = user.get("/correct");
        let number = self.shared.wait(|_| true, |script| script.correct);
        assert_eq!(
            (reply.status, reply.text()),
            (200, format!("answer {number}"))
        );
    }
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().expect("no holder panics"));
        self.changed.notify_all();
    }

    /// Waits until `is_there`, then takes what is there.
    fn wait<T>(
        &self,
        mut is_there: impl FnMut(&Script) -> bool,
        take: impl FnOnce(&mut Script) -> T,
    ) -> T {
        let script = self.script.lock().expect("no holder panics");
        let (mut script, waited) = self
            .changed
            .wait_timeout_while(script, PATIENCE, |script| !is_there(script))
            .expect("no holder panics");
        assert!(!waited.timed_out(), "the origin has not got so far");
        take(&mut script)
    }
}

/// Serves one connection of the origin, and says how it ended once there was an attack on it.
fn serve(shared: &Shared, stream: TcpStream) {
    let mut reader = BufReader::new(stream);
    let mut attacked = false;
    let ended = |end| shared.change(|script| script.ended.push(end));
    while let Some(line) = read_request(&mut reader) {
        if attacked {
            ended(Err(line.clone()));
        }
        let stream = reader.get_mut();
        // The user judges what came of an answer that could not be written.
        match line
            .split(' ')
            .nth(1)
            .and_then(|target| target.strip_prefix("/attack/"))
        {
            None => answer(shared, stream),
            Some(split) => {
                let split = split.parse().expect("the number that the user has sent");
                let (then, clean) = attack(shared, stream, split);
                attacked = !clean;
                match then {
                    Then::Listen => {}
                    Then::Close => drop(stream.shutdown(Shutdown::Write)),
                }
            }
        }
    }
    if attacked {
        ended(Ok(()));
    }
}

/// Answers a correct request by its number.
fn answer(shared: &Shared, stream: &mut TcpStream) {
    let mut answer = String::new();
    shared.change(|script| {
        script.correct += 1;
        answer = format!("answer {}", script.correct);
    });
    let length = answer.len();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all((head + &answer).as_bytes()).ok();
}

/// Sends the attack in two parts, the second only when it is told to.
///
/// No part is sent before all users have been heard: a first part may be a whole response, and its
/// connection would be parked and be the next user's.
fn attack(shared: &Shared, stream: &mut TcpStream, split: usize) -> (Then, bool) {
    shared.change(|script| script.heard += 1);
    let bytes = shared.wait(
        |script| script.heard == script.users,
        |script| Arc::clone(&script.bytes),
    );
    stream.write_all(&bytes[..split]).ok();
    shared.change(|script| {
        let stream = stream.try_clone().expect("there are descriptors");
        script.halfway.push(stream);
    });
    let next = shared.wait(|script| script.go_on, |script| (script.then, script.clean));
    // It may have been refused already.
    stream.write_all(&bytes[split..]).ok();
    next
}

/// The first line of a request, or whatever else was said; nothing at the end.
fn read_request(reader: &mut impl BufRead) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let line = reader.read_until(b'\n', &mut head);
        if !matches!(line, Ok(1..)) {
            break;
        }
    }
    if head.starts_with(b"POST ") {
        // What is there of its body; the rest does not come.
        reader.read_exact(&mut [0; BODY_BEGUN.len()]).ok()?;
    }
    let line = head.split(|&byte| byte == b'\r').next()?;
    (!line.is_empty()).then(|| String::from_utf8_lossy(line).into_owned())
}

impl Asked {
    /// A request that tells the origin where to split its answer.
    fn request(self, split: usize) -> String {
        let target = format!("/attack/{split}");
        match self {
            Asked::Get => format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"),
            Asked::Head => format!("HEAD {target} HTTP/1.1\r\nHost: a\r\n\r\n"),
            Asked::OldGet => {
                format!("GET {target} HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
            }
            Asked::Upgrade => format!(
                "GET {target} HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
            ),
            Asked::UpgradeAndPost => format!(
                "POST {target} HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\
                 Content-Length: 10\r\n\r\n{BODY_BEGUN}"
            ),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Asked::Get => "GET",
            Asked::Head => "HEAD",
            Asked::OldGet => "GET in HTTP/1.0",
            Asked::Upgrade => "an upgrade",
            Asked::UpgradeAndPost => "an upgrade with a body",
        }
    }

    fn method(self) -> &'static str {
        match self {
            Asked::Head => "HEAD",
            Asked::UpgradeAndPost => "POST",
            Asked::Get | Asked::OldGet | Asked::Upgrade => "GET",
        }
    }
}

impl Attack {
    fn is_clean(&self) -> bool {
        matches!(self.outcome, Outcome::Means(Meaning { reused: true, .. }))
    }

    fn judge(&self, user: &mut HttpUser) -> Result<(), String> {
        let mut reply = user.try_reply(self.asked.method());
        while let (
            Ok(Reply {
                status: 100..=199, ..
            }),
            Outcome::Cut | Outcome::Means(_),
        ) = (&reply, &self.outcome)
        {
            reply = user.try_reply(self.asked.method());
        }
        match (&self.outcome, reply) {
            (Outcome::BadGateway, Ok(reply)) if reply.status == 502 => {
                if self.asked != Asked::Head && reply.text().lines().count() != 1 {
                    return Err(format!("not one line says why: {}", reply.text()));
                }
                let mut rest = Vec::new();
                match user.stream().read_to_end(&mut rest) {
                    Ok(0) => Ok(()),
                    Ok(_) => Err(format!("behind the refusal: {}", rest.escape_ascii())),
                    Err(error) => Err(format!("behind the refusal: {error}")),
                }
            }
            (Outcome::Cut, Err(error)) => match error.kind() {
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Ok(()),
                _ => Err(error.to_string()),
            },
            (Outcome::Cut, Ok(reply)) if reply.status == 502 => Ok(()),
            (Outcome::Means(meaning), Ok(reply)) => meaning.judge(&reply),
            (_, Ok(reply)) => Err(format!(
                "{} {:?} {}",
                reply.status,
                reply.fields,
                reply.text()
            )),
            (_, Err(error)) => Err(error.to_string()),
        }
    }
}

impl Meaning {
    fn judge(&self, reply: &Reply) -> Result<(), String> {
        if (reply.status, &reply.body.bytes) != (self.status, &self.body) {
            return Err(format!("{} {}", reply.status, reply.text()));
        }
        for (name, value) in self.has {
            if reply.field(name) != Some(value) {
                return Err(format!("{name} is {:?}, not {value:?}", reply.field(name)));
            }
        }
        for name in self.lacks {
            if reply.field(name).is_some() {
                return Err(format!("there is a {name}"));
            }
        }
        Ok(())
    }
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({}; asked by {})",
            self.name,
            self.rule,
            self.asked.name()
        )
    }
}
