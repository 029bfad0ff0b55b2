//! Attacks by users: what is sent, what must become of it, and the stage on which that is tried.

use std::{
    fmt, io, mem,
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    common::{Exchange, HttpOrigin, HttpUser, Then, Tunnel, eventually, wait_until_all_read},
    splits::{AT_A_TIME, Splits},
};

/// What an attacker wants an origin to see. It follows every request that is to be refused, in the
/// same segment, where a server would look that takes the end of the bad request for somewhere else.
const SMUGGLED: &[u8] = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// In place of this, in the bytes of an attack, stands the address of the origin.
pub const ORIGIN: &str = "{origin}";

/// A request that breaks a rule, or looks as if it did.
pub struct Attack {
    pub name: String,
    /// The rule that it breaks or lives by: the section of an RFC, and the CVE that made it known.
    pub rule: &'static str,
    pub bytes: Vec<u8>,
    pub outcome: Outcome,
}

/// What becomes of an attack.
pub enum Outcome {
    /// An error with this status, then the end of the connection; the origin hears nothing.
    Refused(u16),
    /// As `Refused`, but the head was good: the origin may have had that and a part of the body,
    /// never its end, and its connection ends with it.
    Cut(u16),
    /// It is these requests and nothing else, however it looks.
    Means(Vec<Meaning>),
}

/// A request as its origin must see it.
#[derive(Clone, Default)]
pub struct Meaning {
    /// Its request line without the version.
    pub line: &'static str,
    /// Fields that it has, once each.
    pub has: &'static [(&'static str, &'static str)],
    /// Fields that it does not have.
    pub lacks: &'static [&'static str],
    pub body: Vec<u8>,
}

/// A request that an origin has seen. The body is missing where it had no end.
#[derive(Clone, Debug)]
struct Seen {
    line: String,
    fields: Vec<(String, String)>,
    body: Result<Vec<u8>, io::ErrorKind>,
}

/// An origin that remembers all it is asked, behind a tunnel.
pub struct Stage {
    origin: HttpOrigin,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Requests of which the origin waits for the rest.
    unfinished: Arc<AtomicUsize>,
    tunnel: Tunnel,
    kind: Kind,
    splits: Splits,
}

/// The kind of the proxy that is attacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Http,
    Forward,
}

impl Attack {
    fn of(name: impl fmt::Display, rule: &'static str, bytes: Vec<u8>, outcome: Outcome) -> Self {
        Self {
            name: name.to_string(),
            rule,
            bytes,
            outcome,
        }
    }

    pub fn refused(
        name: impl fmt::Display,
        rule: &'static str,
        status: u16,
        bytes: impl Into<Vec<u8>>,
    ) -> Self {
        Self::of(name, rule, bytes.into(), Outcome::Refused(status))
    }

    pub fn cut(name: impl fmt::Display, rule: &'static str, bytes: impl Into<Vec<u8>>) -> Self {
        Self::of(name, rule, bytes.into(), Outcome::Cut(400))
    }

    pub fn means(
        name: impl fmt::Display,
        rule: &'static str,
        bytes: impl Into<Vec<u8>>,
        meanings: impl Into<Vec<Meaning>>,
    ) -> Self {
        Self::of(name, rule, bytes.into(), Outcome::Means(meanings.into()))
    }
}

impl Stage {
    pub fn of(kind: Kind) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let unfinished = Arc::new(AtomicUsize::new(0));
        let origin = {
            let (seen, unfinished) = (Arc::clone(&seen), Arc::clone(&unfinished));
            HttpOrigin::start(move |exchange| {
                unfinished.fetch_add(1, Ordering::SeqCst);
                let answered = remember_and_answer(exchange, &seen);
                unfinished.fetch_sub(1, Ordering::SeqCst);
                answered
            })
        };
        let address = origin.address();
        let builder = match kind {
            Kind::Http => Tunnel::builder().to("http", address),
            Kind::Forward => Tunnel::builder()
                .proxy("forward:0")
                .allow(address.to_string()),
        };
        Self {
            origin,
            seen,
            unfinished,
            tunnel: builder.log("info").start(),
            kind,
            splits: Splits::default(),
        }
    }

    /// Tries each attack, whole and split everywhere, and after each a correct request.
    pub fn withstands(&mut self, attacks: &[Attack]) {
        self.answers_a_correct_request();
        for attack in attacks {
            let bytes = self.bytes(attack);
            let splits = self.splits.of("", &bytes);
            println!("{}: {}, in {} ways", attack.rule, attack.name, splits.len());
            for some in splits.chunks(AT_A_TIME) {
                self.withstands_split(attack, &bytes, some);
            }
        }
        let garbled = self.origin.garbled();
        assert!(garbled.is_empty(), "the origin could not read: {garbled:?}");
    }

    fn bytes(&self, attack: &Attack) -> Vec<u8> {
        match str::from_utf8(&attack.bytes) {
            Ok(text) => text
                .replace(ORIGIN, &self.origin.address().to_string())
                .into_bytes(),
            Err(_) => attack.bytes.clone(),
        }
    }

    fn withstands_split(&self, attack: &Attack, bytes: &[u8], splits: &[usize]) {
        let users = self.send_split(bytes, splits, attack.behind());
        for (mut user, split) in users.into_iter().zip(splits) {
            if let Err(wrong) = attack.judge_answer(&mut user) {
                panic!("{attack}, split at {split}: {wrong}");
            }
            user.leave();
        }
        eventually("every request that was cut has lost its connection", || {
            (self.unfinished.load(Ordering::SeqCst) == 0).then_some(())
        });
        self.answers_a_correct_request();
        let seen = mem::take(&mut *self.seen.lock().expect("no holder panics"));
        if let Err(wrong) = attack.judge_seen(&seen, splits.len()) {
            panic!("{attack}, at the origin: {wrong}\n{seen:#?}");
        }
    }

    /// Has one user for each split send the bytes, the second part only when the server has read the
    /// first.
    fn send_split(&self, bytes: &[u8], splits: &[usize], behind: &[u8]) -> Vec<HttpUser> {
        let mut users: Vec<HttpUser> = splits
            .iter()
            .map(|&split| {
                let mut user = HttpUser::connect(self.tunnel.address());
                user.send(&bytes[..split]);
                user
            })
            .collect();
        let streams: Vec<TcpStream> = users
            .iter_mut()
            .map(|user| user.stream().get_ref().try_clone().expect("descriptors"))
            .collect();
        wait_until_all_read(&streams);
        for (user, &split) in users.iter_mut().zip(splits) {
            // It may have been refused already.
            user.try_send([&bytes[split..], behind].concat()).ok();
        }
        users
    }

    fn answers_a_correct_request(&self) {
        let host = self.origin.address();
        let target = match self.kind {
            Kind::Http => "/correct".to_owned(),
            Kind::Forward => format!("http://{host}/correct"),
        };
        let mut user = HttpUser::connect(self.tunnel.address());
        user.send(format!(
            "PUT {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\n\r\nbody"
        ));
        let reply = user.reply("PUT");
        assert_eq!(
            (reply.status, reply.text().as_str()),
            (200, "PUT /correct: body")
        );
    }
}

/// Answers a whole request by itself. A request without an end has no answer.
fn remember_and_answer(exchange: &mut Exchange<'_>, seen: &Mutex<Vec<Seen>>) -> io::Result<Then> {
    let body = exchange.body();
    let request = &exchange.request;
    let line = format!("{} {}", request.method, request.target);
    if request.target != "/correct" {
        seen.lock().expect("no holder panics").push(Seen {
            line: line.clone(),
            fields: request.fields.clone(),
            body: match &body {
                Ok(body) => Ok(body.bytes.clone()),
                Err(error) => Err(error.kind()),
            },
        });
    }
    let text = answer(&line, &body?.bytes);
    exchange.send(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    ))?;
    Ok(Then::Keep)
}

fn answer(line: &str, body: &[u8]) -> String {
    format!("{line}: {}", body.escape_ascii())
}

impl Attack {
    /// What is sent behind it.
    fn behind(&self) -> &'static [u8] {
        match self.outcome {
            Outcome::Refused(_) | Outcome::Cut(_) => SMUGGLED,
            Outcome::Means(_) => b"",
        }
    }

    fn judge_answer(&self, user: &mut HttpUser) -> Result<(), String> {
        let meanings = match &self.outcome {
            Outcome::Refused(status) | Outcome::Cut(status) => {
                return expect_refusal(user, *status);
            }
            Outcome::Means(meanings) => meanings,
        };
        for Meaning { line, body, .. } in meanings {
            let method = line.split(' ').next().unwrap_or_default();
            let reply = user.try_reply(method).map_err(|error| error.to_string())?;
            if reply.status != 200 || (method != "HEAD" && reply.text() != answer(line, body)) {
                return Err(format!("{} {}", reply.status, reply.text()));
            }
        }
        Ok(())
    }

    fn judge_seen(&self, seen: &[Seen], users: usize) -> Result<(), String> {
        match &self.outcome {
            Outcome::Refused(_) if seen.is_empty() => Ok(()),
            Outcome::Refused(_) => Err("it was contacted".to_owned()),
            Outcome::Cut(_) => {
                let cut = |seen: &Seen| {
                    seen.line == "POST /attack"
                        && matches!(
                            seen.body,
                            Err(io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
                        )
                };
                match seen.iter().all(cut) {
                    true => Ok(()),
                    false => Err("a request that was not cut off".to_owned()),
                }
            }
            Outcome::Means(meanings) => {
                if seen.len() != users * meanings.len() {
                    let expected = users * meanings.len();
                    return Err(format!("{} requests, not {expected}", seen.len()));
                }
                for meaning in meanings {
                    let alike = |other: &&Meaning| other.line == meaning.line;
                    let expected = users * meanings.iter().filter(alike).count();
                    let of_meaning = seen.iter().filter(|seen| seen.line == meaning.line);
                    if of_meaning.clone().count() != expected {
                        return Err(format!("not {expected} times {}", meaning.line));
                    }
                    of_meaning
                        .into_iter()
                        .try_for_each(|seen| meaning.judge(seen))?;
                }
                Ok(())
            }
        }
    }
}

impl Meaning {
    fn judge(&self, seen: &Seen) -> Result<(), String> {
        let values = |name: &str| -> Vec<&str> {
            seen.fields
                .iter()
                .filter(|(other, _)| other.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.as_str())
                .collect()
        };
        for (name, value) in self.has {
            if values(name) != [*value] {
                return Err(format!("{name} is {:?}, not {value:?}", values(name)));
            }
        }
        for name in self.lacks {
            if !values(name).is_empty() {
                return Err(format!("there is a {name}"));
            }
        }
        match &seen.body {
            Ok(body) if *body == self.body => Ok(()),
            other => Err(format!("the body is {other:?}")),
        }
    }
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.rule)
    }
}

/// One error of one line, which says that the connection ends, and its end: not a reset, which could
/// have destroyed the answer.
fn expect_refusal(user: &mut HttpUser, status: u16) -> Result<(), String> {
    let reply = user.try_reply("GET").map_err(|error| error.to_string())?;
    let text = reply.text();
    if (reply.status, reply.closes(), text.lines().count()) != (status, true, 1) {
        return Err(format!("{} {:?} {text}", reply.status, reply.fields));
    }
    let mut rest = Vec::new();
    match io::Read::read_to_end(user.stream(), &mut rest) {
        Ok(0) => Ok(()),
        Ok(_) => Err(format!("behind the refusal: {}", rest.escape_ascii())),
        Err(error) => Err(format!("behind the refusal: {error}")),
    }
}
