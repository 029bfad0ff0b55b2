//! What a user asks the origin of an `http` or `forward` proxy for, and how it is answered.
//!
//! A request's path says all about the exchange: whose it is, what its body is and how it is to be
//! answered. Both sides check every byte of it.

use crate::{
    message::{Head, head_end, write_body},
    rng::{Rng, pattern},
    world::Excuse,
};

/// One request and its response.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    pub id: u64,
    pub method: Method,
    /// Its target is a whole URL, as a forward proxy has it.
    absolute: bool,
    /// Bytes of the request's body; of [`Answer::Switches`], what the user says afterwards.
    pub request: usize,
    request_chunked: bool,
    /// The body waits for a word of the origin's.
    pub expects: bool,
    pub answer: Answer,
    /// Bytes of the response's body.
    pub response: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Post,
}

/// How the origin answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Length,
    Chunked,
    /// By closing.
    UntilClose,
    /// With a length, and `Connection: close` all the same.
    LengthAndClose,
    /// 204.
    Empty,
    /// 103, then with a length.
    Early,
    /// In HTTP/1.0, by closing.
    Ancient,
    /// In HTTP/1.0, with a length, and lets the connection stand.
    AncientKeeps,
    /// 101, and from then on both say what they have to, until both have ended.
    Switches,
    /// With a length, and closes without having said so.
    Silent,
    /// With a length, before it has read the request's body, of which it reads no more.
    Hasty,
    /// With a length, and a reset one byte before the end.
    Breaks,
    /// As that, and an end in order.
    Stops,
    /// With a length, and more than that.
    Exceeds,
    /// 401 of a scheme that authenticates connections.
    Ties,
    /// Not in HTTP.
    Babbles,
    /// By closing, before it has said anything; asked once more, with a length.
    Leaves,
    /// With a length, before it has read the request's body, and does not say that it closes.
    Rushes,
    /// With a length; and a while later it speaks again, without being asked.
    Chatters,
    /// With a length; and a while later it closes, without having said so.
    Tires,
}

pub const ANSWERS: [Answer; 20] = [
    Answer::Length,
    Answer::Chunked,
    Answer::UntilClose,
    Answer::LengthAndClose,
    Answer::Empty,
    Answer::Early,
    Answer::Ancient,
    Answer::AncientKeeps,
    Answer::Switches,
    Answer::Silent,
    Answer::Hasty,
    Answer::Breaks,
    Answer::Stops,
    Answer::Exceeds,
    Answer::Ties,
    Answer::Babbles,
    Answer::Leaves,
    Answer::Rushes,
    Answer::Chatters,
    Answer::Tires,
];

/// Of these, what origins do in good weather, and what they do that may be told from a cut.
const PLAIN: usize = 12;
const GENTLE: usize = 9;
/// And what ends by itself.
const BRIEF: usize = 8;

/// What the requests of one user are drawn from.
#[derive(Clone, Copy, Debug)]
pub struct Mood {
    /// Bytes of a body.
    pub most: usize,
    /// Users reset, and origins answer as they should not.
    pub rough: bool,
    /// Everybody asks once, for all that there is.
    pub bulk: bool,
    /// In a storm: users stand still and spoil their requests, origins answer anything.
    pub storm: bool,
    /// Places at the origin are few, and nobody waits for long: none is held for a talk.
    pub brief: bool,
}

/// The last request of a connection is not as the others.
#[derive(Clone, Copy, Debug, Default)]
pub struct Last {
    /// It says `Connection: close`.
    pub asks: bool,
    /// It is HTTP/1.0.
    pub old: bool,
    /// It has a body that is no HTTP.
    pub spoilt: bool,
}

/// A request as its user sends it.
pub struct Request {
    pub bytes: Vec<u8>,
    /// What is sent once the origin has asked for it, or has had long enough.
    pub held: Vec<u8>,
}

impl Exchange {
    pub fn new(id: u64, mood: Mood, absolute: bool, rng: &mut Rng) -> Exchange {
        let mut method = rng.pick(&[Method::Get, Method::Get, Method::Head, Method::Post]);
        let size = |rng: &mut Rng| {
            if mood.bulk {
                mood.most
            } else {
                rng.size(mood.most)
            }
        };
        let mut request = match method {
            Method::Post => size(rng),
            Method::Get | Method::Head => 0,
        };
        let mut answer = match rng.between(0, 9) {
            0..=2 => Answer::Length,
            3..=5 => Answer::Chunked,
            6 | 7 if mood.storm => Answer::Tires,
            8 if mood.storm => Answer::Rushes,
            _ if mood.storm => rng.pick(&ANSWERS),
            _ if mood.rough => rng.pick(&ANSWERS[..PLAIN]),
            _ if mood.brief => rng.pick(&ANSWERS[..BRIEF]),
            _ => rng.pick(&ANSWERS[..GENTLE]),
        };
        let response = match answer {
            Answer::Empty => 0,
            _ => size(rng),
        };
        // There must be something to be hasty with, and to break.
        let hastes = matches!(answer, Answer::Hasty | Answer::Rushes) && request > 0;
        let breaks = matches!(answer, Answer::Breaks | Answer::Stops)
            && response > 0
            && method != Method::Head;
        let needs = matches!(
            answer,
            Answer::Hasty | Answer::Rushes | Answer::Breaks | Answer::Stops
        );
        if needs && !hastes && !breaks {
            answer = Answer::Length;
        }
        if answer == Answer::Switches {
            method = Method::Get;
            request = size(rng);
        }
        Exchange {
            id,
            method,
            absolute,
            request,
            request_chunked: rng.chance(50),
            expects: method == Method::Post && request > 0 && rng.chance(20),
            answer,
            response,
        }
    }

    /// Whether another request may follow on the origin's connection.
    pub fn is_reusable(&self) -> bool {
        matches!(
            self.answer,
            Answer::Length | Answer::Chunked | Answer::Empty | Answer::Early | Answer::AncientKeeps
        )
    }

    /// Whether the client may ask twice: the answer may be lost whole, and asking is repeatable.
    pub fn may_be_asked_again(&self, excuse: Excuse) -> bool {
        let loses = matches!(self.answer, Answer::Breaks | Answer::Leaves);
        (loses || excuse.errors) && self.method != Method::Post
    }

    /// What the origin answers to the second try.
    pub fn again(self) -> Exchange {
        let answer = match self.answer {
            Answer::Leaves => Answer::Length,
            answer => answer,
        };
        Exchange { answer, ..self }
    }

    /// Whether the origin says that it closes.
    fn says_close(&self) -> bool {
        let said = [Answer::UntilClose, Answer::LengthAndClose, Answer::Hasty];
        said.contains(&self.answer)
    }

    /// Whether any parked connection will do for it.
    pub fn is_repeatable(&self) -> bool {
        self.method != Method::Post
    }

    /// The request as its user sends it.
    pub fn request(&self, last: Last, rng: &mut Rng) -> Request {
        let chunked = (self.request_chunked || last.spoilt) && !last.old;
        let expects = self.expects && !last.old;
        let mut sent = format!(
            "{} {}/{}/{}/{}/{} HTTP/1.{}\r\nHost: site.test\r\n",
            match self.method {
                Method::Get => "GET",
                Method::Head => "HEAD",
                Method::Post => "POST",
            },
            if self.absolute {
                "http://origin.test"
            } else {
                ""
            },
            self.id,
            self.request,
            self.answer as u8,
            self.response,
            if last.old { 0 } else { 1 },
        )
        .into_bytes();
        if self.absolute {
            sent.extend_from_slice(b"X-Form: absolute\r\n");
        }
        if last.asks {
            sent.extend_from_slice(b"Connection: close\r\n");
        }
        if expects {
            sent.extend_from_slice(b"Expect: 100-continue\r\n");
        }
        if self.answer == Answer::Switches {
            sent.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: talk\r\n");
        }
        if self.method != Method::Post {
            sent.extend_from_slice(b"\r\n");
            return Request {
                bytes: sent,
                held: Vec::new(),
            };
        }
        // The line end of the last field may be the first half of the empty line.
        let framed = sent.len() - 2;
        write_body(&mut sent, &self.said(), chunked, rng);
        if last.spoilt {
            let end = sent.len() - 5;
            sent.truncate(end.max(sent.len() / 2));
            sent.extend_from_slice(b"\r\nno size\r\n");
        }
        let body = head_end(&sent[framed..]).map(|end| framed + end);
        let held = match body {
            Some(body) if expects => sent.split_off(body),
            _ => Vec::new(),
        };
        Request { bytes: sent, held }
    }

    /// What its user says: the request's body, or what follows 101.
    pub fn said(&self) -> Vec<u8> {
        let mut said = vec![0; self.request];
        pattern(self.id, 0, &mut said);
        said
    }

    /// What the origin makes of a request's head.
    pub fn parse(head: &Head) -> Exchange {
        let words: Vec<&str> = head.first.split(' ').collect();
        let numbers: Vec<u64> = words[1][1..]
            .split('/')
            .map(|number| number.parse().expect("a number of ours"))
            .collect();
        // RFC 9112 3.2.2: of two names, a forward proxy believes the target's.
        let absolute = head.field("x-form") == Some("absolute");
        let host = if absolute { "origin.test" } else { "site.test" };
        assert_eq!(head.field("host"), Some(host), "{head:?}");
        Exchange {
            id: numbers[0],
            method: match words[0] {
                "GET" => Method::Get,
                "HEAD" => Method::Head,
                "POST" => Method::Post,
                other => panic!("method {other}"),
            },
            absolute,
            request: numbers[1] as usize,
            request_chunked: false,
            expects: head.field("expect") == Some("100-continue"),
            answer: ANSWERS[numbers[2] as usize],
            response: numbers[3] as usize,
        }
    }

    /// The response as the origin sends it.
    pub fn response(&self, rng: &mut Rng) -> Vec<u8> {
        let mut sent = Vec::new();
        if self.answer == Answer::Early {
            sent.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n");
        }
        let status = match self.answer {
            Answer::Empty => "1 204 No Content",
            Answer::Ties => "1 401 Unauthorized\r\nWWW-Authenticate: Negotiate",
            Answer::Ancient => "0 200 OK",
            Answer::AncientKeeps => "0 200 OK\r\nConnection: keep-alive",
            Answer::Switches => "1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: talk",
            _ => "1 200 OK",
        };
        let head = format!("HTTP/1.{status}\r\nX-Owner: {}\r\n", self.id);
        sent.extend_from_slice(head.as_bytes());
        if self.says_close() {
            sent.extend_from_slice(b"Connection: close\r\n");
        }
        let mut body = vec![0; self.response];
        pattern(!self.id, 0, &mut body);
        // The line end of the last field may be the first half of the empty line.
        let framed = sent.len() - 2;
        match self.answer {
            Answer::Empty => sent.extend_from_slice(b"\r\n"),
            Answer::UntilClose | Answer::Ancient | Answer::Switches => {
                sent.extend_from_slice(b"\r\n");
                sent.extend_from_slice(&body);
            }
            Answer::Chunked => write_body(&mut sent, &body, true, rng),
            _ => write_body(&mut sent, &body, false, rng),
        }
        match self.answer {
            Answer::Breaks | Answer::Stops => drop(sent.pop()),
            Answer::Babbles => sent = b"220 mail.test ready\r\n\r\n".to_vec(),
            Answer::Leaves => sent.clear(),
            _ => {}
        }
        if self.method == Method::Head {
            let end = sent.get(framed..).and_then(head_end);
            sent.truncate(end.map_or(sent.len(), |end| framed + end));
        }
        if self.answer == Answer::Exceeds {
            // No response: one that comes when the next request is on its way would be its answer, and
            // nobody in between could tell.
            sent.extend_from_slice(b"and more");
        }
        sent
    }
}
