//! `siding status`: asks a running role for its status, and shows it.
//!
//! A program of its own, which has nothing to do with any event loop: it asks, waits, prints and ends.

use std::{
    io::{self, ErrorKind, IsTerminal, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use super::{Status, table};
use crate::{
    config::Token,
    http::{Asked, Framing, HeadLimits, Response, Version, head_end},
};

/// Whom to ask, and how to show the answer.
#[derive(Clone, Debug)]
pub struct Question {
    /// Where the role tells of itself.
    pub admin: SocketAddr,
    /// What it wants to see.
    pub token: Option<Token>,
    /// The answer is shown as it came.
    pub json: bool,
    /// It is asked again each second, for ever.
    pub watch: bool,
}

/// Why there is no status.
enum Unanswered {
    /// It may be there in a moment.
    Passing(String),
    /// The token is wrong: whoever showed it each second would have everybody at its address shut out.
    Denied(String),
}

/// Asks and shows.
///
/// # Errors
/// Nobody answers, or not with a status, or not to this token; the text is for the operator.
pub fn run(question: &Question) -> Result<(), String> {
    let json =
        answer(question).map_err(|(Unanswered::Passing(why) | Unanswered::Denied(why))| why)?;
    let mut shown = show(&json, question);
    while question.watch && shown.is_ok() {
        thread::sleep(WATCH_EVERY);
        // Who watches wants to see it come back.
        shown = match answer(question) {
            Ok(json) => show(&json, question),
            Err(Unanswered::Passing(why)) => say(&format!("{why}\n"), question.watch),
            Err(Unanswered::Denied(why)) => return Err(why),
        };
    }
    // Whoever has read enough (`| head`) need not be told.
    Ok(())
}

fn answer(question: &Question) -> Result<Vec<u8>, Unanswered> {
    use Unanswered::{Denied, Passing};
    let admin = question.admin;
    let (head, content) = ask(question).map_err(|error| {
        let reason = match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                format!("nothing within {} s", PATIENCE.as_secs())
            }
            _ => error.to_string(),
        };
        Passing(format!(
            "nobody answers at {admin}: {reason}; is siding running there, with --admin?"
        ))
    })?;
    let foreign = |what: &str| Passing(format!("what answers at {admin} is not siding: {what}"));
    let response = read(&head).map_err(foreign)?;
    let said: String = String::from_utf8_lossy(&content)
        .chars()
        .take_while(|c| !c.is_control())
        .collect();
    match response.status {
        200 => {}
        401 => {
            return Err(Denied(match question.token {
                None => format!("{admin} wants a token: give --admin-token-file"),
                Some(_) => format!("{admin} does not take this token"),
            }));
        }
        status => return Err(Passing(format!("{admin} answers {status}: {said}"))),
    }
    if response.framing != Framing::Length(content.len() as u64) {
        return Err(Passing(format!("the answer of {admin} is cut off")));
    }
    match serde_json::from_slice::<Status>(&content) {
        Ok(_) => Ok(content),
        Err(_) => Err(foreign("no status")),
    }
}

/// The answer's head and what follows it.
fn ask(question: &Question) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut stream = TcpStream::connect_timeout(&question.admin, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = format!(
        "GET /status HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n",
        question.admin
    )
    .into_bytes();
    if let Some(token) = &question.token {
        request.extend_from_slice(b"Authorization: Bearer ");
        request.extend_from_slice(token.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request)?;
    let mut answer = Vec::new();
    let mut scratch = vec![0; SCRATCH];
    let (mut scanned, mut head) = (0, None);
    loop {
        let length = stream.read(&mut scratch)?;
        answer.extend_from_slice(&scratch[..length]);
        head = head.or_else(|| head_end(&answer, scanned));
        scanned = answer.len();
        // Whoever answers may not close.
        let is_whole = head.is_some_and(|head| match read(&answer[..head]) {
            Ok(Response {
                framing: Framing::Length(length),
                ..
            }) => (answer.len() - head) as u64 >= length,
            Ok(_) => false,
            Err(_) => true,
        });
        if length == 0 || is_whole || answer.len() > ANSWER_MAX {
            let content = answer.split_off(head.unwrap_or(answer.len()));
            return Ok((answer, content));
        }
    }
}

fn read(head: &[u8]) -> Result<Response<'_>, &'static str> {
    Response::parse(head, &ASKED, &HeadLimits::default()).map_err(|bad| bad.reason)
}

fn show(json: &[u8], question: &Question) -> io::Result<()> {
    if question.json {
        return say(&String::from_utf8_lossy(json), false);
    }
    match serde_json::from_slice(json) {
        Ok(status) => say(&table::of(&status), question.watch),
        // It was read before.
        Err(_) => Ok(()),
    }
}

/// Prints a text; `again` is where the one before stood.
fn say(text: &str, again: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if again && out.is_terminal() {
        out.write_all(HOME.as_bytes())?;
    }
    out.write_all(text.as_bytes())?;
    if again && !out.is_terminal() {
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// What decides how the answer is read.
const ASKED: Asked = Asked {
    head: false,
    version: Version::Http11,
    upgrade: false,
    keep_alive: false,
    connection_auth: false,
};

/// On a terminal: all is cleared, and the cursor in its corner.
const HOME: &str = "\x1b[H\x1b[2J\x1b[3J";

const PATIENCE: Duration = Duration::from_secs(5);

const WATCH_EVERY: Duration = Duration::from_secs(1);

/// More than any status: each of its lists is bounded, and none comes near this.
const ANSWER_MAX: usize = 64 << 20;

const SCRATCH: usize = 64 * 1024;
