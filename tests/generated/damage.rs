//! One case of what is not valid: a user or an origin that sends spoiled bytes, another user beside it,
//! and one after it, both of whom must not notice.
//!
//! What the spoiled bytes are worth is what a strict reader finds in them: messages that are whole are
//! exchanged to the letter all the same; at the first that is not, an error of the right status comes, or
//! a cut that nobody can overlook.

use std::{sync::Arc, thread};

use crate::{
    cases::{User, verdict},
    exchange::{Exchange, Wanted},
    judge::{Answer, Last, judge, shown},
    lanes::{Lane, Way},
    message::{Framing, Request, Response, pieces},
    model::{self, Hops},
    mutation::{Side, spoil},
    origin::{After, Coming, Part},
    reader::{self, Found},
    seed::{Rng, Tag},
    tally::Tally,
    user::{End, Mark, Received, Stage, Step, converse},
};

/// A user that is up to no good, or that has an origin that is.
struct Damaged<'l> {
    way: Way<'l>,
    script: Vec<Step>,
    to_heads: Vec<bool>,
    parts: Vec<Arc<Part>>,
    verdict: Verdict,
    label: String,
}

/// What it must get.
enum Verdict {
    /// This.
    Exact { answers: Vec<Answer>, last: Last },
    /// It has gone away: what it had got until then is its own.
    Own(Vec<Tag>),
}

/// Places of the users in a case, for their tags.
const SPOILED: usize = 0;
const BESIDE: usize = 1;
const AFTER: usize = 2;

/// Runs a case.
pub fn run(seed: u64, lanes: &[Lane], tally: &Tally) -> Result<(), String> {
    // Other draws than those of the valid cases.
    let mut rng = Rng::new(!seed);
    let lane = &lanes[rng.below(lanes.len())];
    let way = lane.draw_way(&mut rng);
    let damaged = match rng.below(100) {
        0..50 => by_user(seed, way, &mut rng.fork(), tally),
        50..92 => by_origin(seed, way, &mut rng.fork(), tally),
        _ => abandoned(seed, way, &mut rng.fork(), tally),
    };
    let beside = User::draw(seed, BESIDE, lane, &mut rng.fork(), tally);
    let after = User::draw(seed, AFTER, lane, &mut rng.fork(), tally);
    let parts: Vec<Arc<Part>> = [&damaged.parts, &beside.parts, &after.parts]
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    lane.origin.announce(parts.iter().cloned());
    let label = damaged.label.clone();
    let (first, second) = thread::scope(|scope| {
        let beside = scope.spawn(|| beside.run());
        let damaged = damaged.run();
        (damaged, beside.join().expect("users do not panic"))
    });
    let wrong: Vec<String> = [first, second, after.run()]
        .into_iter()
        .filter_map(Result::err)
        .collect();
    verdict(&lane.origin, &parts, wrong).map_err(|wrong| format!("{label}\n\n{wrong}"))
}

impl Damaged<'_> {
    fn run(self) -> Result<(), String> {
        let received = converse(self.way.address, self.way.from, self.script, &self.to_heads)
            .map_err(|error| error.to_string())?;
        match &self.verdict {
            Verdict::Exact { answers, last } => judge(&received, answers, last),
            Verdict::Own(tags) => check_own(&received, tags),
        }
    }
}

/// A user that sends spoiled requests.
fn by_user<'l>(seed: u64, way: Way<'l>, rng: &mut Rng, tally: &Tally) -> Damaged<'l> {
    let wanted = Wanted {
        more: true,
        plain: true,
    };
    let count = rng.between(1, 3);
    let valid: Vec<u8> = (0..count)
        .flat_map(|index| {
            let tag = Tag::of(seed, SPOILED, index);
            let exchange = Exchange::draw(tag, way.proxy, wanted, rng);
            exchange.request_wire.bytes()
        })
        .collect();
    let (bytes, ways) = loop {
        let (bytes, ways) = spoil(&valid, Side::User, rng);
        if is_of_this_lane(&bytes, &way) {
            break (bytes, ways);
        }
    };
    for name in &ways {
        tally.count(name);
    }
    let label = format!("a user that sends {ways:?}:\n{}", shown(&bytes));

    let mut damaged = Damaged {
        script: pieces(&bytes, rng).into_iter().map(Step::Send).collect(),
        to_heads: Vec::new(),
        parts: Vec::new(),
        verdict: Verdict::Own(Vec::new()),
        label,
        way,
    };
    let (answers, last) = damaged.predict(seed, &bytes, rng);
    tally.count(match &last {
        Last::End => "spoiled requests that are good all the same",
        Last::Error { .. } => "a request that is refused",
        Last::CutOff { .. } | Last::Cut { .. } => "a request that is cut off",
    });
    // Whoever is refused need not close to learn of it.
    let may_wait = matches!(last, Last::Error { .. });
    if !(may_wait && rng.percent(50)) {
        damaged.script.push(Step::Finish);
    }
    damaged.verdict = Verdict::Exact { answers, last };
    damaged
}

impl Damaged<'_> {
    /// What siding has to make of these bytes, whose requests this announces to the origin.
    fn predict(&mut self, seed: u64, bytes: &[u8], rng: &mut Rng) -> (Vec<Answer>, Last) {
        let mut answers: Vec<Answer> = Vec::new();
        let mut rest = bytes;
        loop {
            // HEAD, as far as that can be told.
            let to_head = is_to_head(rest);
            let error = |statuses: &[u16]| Last::Error {
                statuses: statuses.to_vec(),
                to_head,
            };
            let (request, last) = match reader::request(rest) {
                Found::Whole { message, length } => {
                    rest = &rest[length..];
                    (message, None)
                }
                Found::HeadCut if rest.len() < reader::REQUEST_HEAD_MAX => {
                    return (answers, Last::End);
                }
                Found::HeadCut => return (answers, error(&[431])),
                Found::HeadBroken(statuses) => return (answers, error(&statuses)),
                Found::ContentCut(message) => (message, Some(Last::CutOff { to_head })),
                Found::ContentBroken(message) => (message, Some(error(&[400]))),
            };
            let index = answers.len();
            if model::hops(&request) == Hops::None {
                answers.push(Answer {
                    label: format!("request {index}: {}", request.summary()),
                    interims: Vec::new(),
                    finals: vec![model::returned(&request)],
                });
                return (answers, Last::End);
            }
            if let Some(statuses) = self.unroutable(&request) {
                return (answers, error(statuses));
            }
            let tag = Tag::of(seed, SPOILED, 100 + index);
            let label = format!("spoiled request {index}: {}", request.summary());
            let arriving = model::arriving(&request, self.way.proxy, self.way.from);
            let mut part = Part::new(tag, label.clone(), arriving);
            if let Some(last) = last {
                part.coming = Coming::Broken;
                self.parts.push(Arc::new(part));
                return (answers, last);
            }
            let response = Exchange::draw_answer(tag, &request, rng);
            let asked = model::asked(&request);
            let returning = model::returning(&response, &asked, false);
            part.then = pieces(&response.spell(rng).bytes(), rng);
            part.after = after(&request, &response);
            self.parts.push(Arc::new(part));
            self.to_heads.push(asked.to_head);
            let keep = returning.keep;
            answers.push(Answer {
                label,
                interims: Vec::new(),
                finals: vec![returning],
            });
            if !keep {
                return (answers, Last::End);
            }
        }
    }

    /// The answer to a request that is good, but not here.
    fn unroutable(&self, request: &Request) -> Option<&'static [u16]> {
        if !self.way.proxy.forward {
            return None;
        }
        match reader::absolute(&request.target) {
            None => Some(&[400]),
            Some((scheme, ..)) if scheme.eq_ignore_ascii_case("https") => Some(&[403, 502]),
            Some((_, authority, _)) if authority == self.way.proxy.target => None,
            // What it may dial is this lane's origin, under this name.
            Some(_) => Some(&[400, 403]),
        }
    }
}

/// An origin that sends a spoiled response.
fn by_origin<'l>(seed: u64, way: Way<'l>, rng: &mut Rng, tally: &Tally) -> Damaged<'l> {
    let wanted = Wanted {
        more: false,
        plain: true,
    };
    let tag = Tag::of(seed, SPOILED, 0);
    let exchange = loop {
        let exchange = Exchange::draw(tag, way.proxy, wanted, rng);
        if exchange.goes_on() {
            break exchange;
        }
    };
    let asked = model::asked(&exchange.request);
    let interims = exchange
        .interims_first
        .iter()
        .chain(&exchange.interims_then);
    let mut valid: Vec<u8> = interims.flat_map(|said| said.bytes.clone()).collect();
    valid.extend(exchange.response_wire.bytes());
    let (bytes, ways) = spoil(&valid, Side::Origin, rng);
    for name in &ways {
        tally.count(name);
    }
    let label = format!(
        "an origin that sends {ways:?} in answer to {}:\n{}",
        exchange.request.summary(),
        shown(&bytes)
    );
    let mut outcome = Outcome::of(&bytes, &exchange.request);
    // Also after a good answer an origin may fail.
    if matches!(outcome.after, After::Close) && rng.percent(30) {
        outcome.after = After::Reset;
        outcome.end_is_known = false;
    }
    tally.count(match (&outcome.last, outcome.after) {
        (_, After::Reset) => "an origin that resets",
        (Some(_), _) => "spoiled responses that are good all the same",
        (None, _) if outcome.cut.is_some() => "a response that is cut off",
        (None, _) => "a response that is refused",
    });

    let arriving = model::arriving(&exchange.request, way.proxy, way.from);
    let mut part = Part::new(
        tag,
        format!("the exchange with {}", exchange.summary()),
        arriving,
    );
    // What follows the end must be there as soon as the end is, or it is too late to see it.
    part.then = pieces(&bytes[..outcome.apart], rng);
    part.then.push(bytes[outcome.apart..].to_vec());
    part.after = outcome.after;
    if model::is_repeatable(&exchange.request) {
        // If not a byte of the answer is seen, and the connection was not fresh.
        part.visits_max = 2;
    }
    let mut script: Vec<Step> = pieces(&exchange.request_wire.bytes(), rng)
        .into_iter()
        .map(Step::Send)
        .collect();
    script.push(Step::Finish);
    let returning = |response: &Response| model::returning(response, &asked, false);
    let interims = match asked.version {
        crate::message::Version::Http10 => Vec::new(),
        crate::message::Version::Http11 => outcome.interims.iter().map(returning).collect(),
    };
    let (answers, last) = match (&outcome.last, outcome.end_is_known) {
        (Some(last), true) => {
            let answer = Answer {
                label: format!("the exchange with {}", exchange.summary()),
                interims,
                finals: vec![returning(last)],
            };
            (vec![answer], Last::End)
        }
        (last, end_is_known) => {
            let cut = Last::Cut {
                interims,
                response: last.as_ref().or(outcome.cut.as_ref()).map(returning),
                whole: !end_is_known,
                to_head: asked.to_head,
            };
            (Vec::new(), cut)
        }
    };
    Damaged {
        script,
        to_heads: vec![asked.to_head],
        parts: vec![Arc::new(part)],
        verdict: Verdict::Exact { answers, last },
        label,
        way,
    }
}

/// What a spoiled response comes to.
struct Outcome {
    interims: Vec<Response>,
    /// The final response, if it is whole.
    last: Option<Response>,
    /// What there is of it, if its head is good and its content is not.
    cut: Option<Response>,
    /// What the origin does then: it ends what has no end of its own.
    after: After,
    /// Up to where the bytes may come in any pieces.
    apart: usize,
    /// The origin does nothing that may destroy what it has sent.
    end_is_known: bool,
}

impl Outcome {
    fn of(bytes: &[u8], request: &Request) -> Self {
        let to_head = request.method == "HEAD";
        let mut outcome = Self {
            interims: Vec::new(),
            last: None,
            cut: None,
            after: After::Close,
            apart: bytes.len(),
            end_is_known: true,
        };
        let mut at = 0;
        loop {
            match reader::response(&bytes[at..], to_head) {
                Found::Whole { message, length } if message.status < 200 => {
                    at += length;
                    outcome.interims.push(message);
                    if outcome.interims.len() > INTERIMS_MAX {
                        return outcome;
                    }
                }
                Found::Whole { message, length } => {
                    let surplus = at + length < bytes.len();
                    outcome.after = match after(request, &message) {
                        After::Keep if surplus => After::Closed,
                        after => after,
                    };
                    if surplus {
                        outcome.apart = at + length - 1;
                    }
                    outcome.last = Some(message);
                    return outcome;
                }
                Found::ContentCut(message) if message.content.framing == Framing::UntilClose => {
                    outcome.last = Some(message);
                    return outcome;
                }
                Found::ContentCut(message) => {
                    outcome.cut = Some(message);
                    return outcome;
                }
                Found::ContentBroken(message) => {
                    outcome.cut = Some(message);
                    // It is siding that has to end it.
                    outcome.after = After::Closed;
                    return outcome;
                }
                Found::HeadBroken(_) => {
                    outcome.after = After::Closed;
                    return outcome;
                }
                Found::HeadCut => return outcome,
            }
        }
    }
}

/// Interim responses to one request.
const INTERIMS_MAX: usize = 16;

/// A user that goes away: while it asks, or while it is answered.
fn abandoned<'l>(seed: u64, way: Way<'l>, rng: &mut Rng, tally: &Tally) -> Damaged<'l> {
    let wanted = Wanted {
        more: false,
        plain: false,
    };
    let tag = Tag::of(seed, SPOILED, 0);
    let exchange = Exchange::draw(tag, way.proxy, wanted, rng);
    tally.count("a user that goes away");
    let label = format!("a user that goes away from {}", exchange.summary());
    let bytes = exchange.request_wire.bytes();
    let sent = match rng.percent(50) {
        true => bytes.len(),
        false => rng.between(1, bytes.len()),
    };
    let mut script: Vec<Step> = pieces(&bytes[..sent], rng)
        .into_iter()
        .map(Step::Send)
        .collect();
    if sent == bytes.len() && rng.percent(60) {
        script.push(Step::Await(Mark {
            exchange: 0,
            stage: Stage::Head,
        }));
    }
    script.push(Step::Reset);
    let mut part = Part::new(
        tag,
        label.clone(),
        model::arriving(&exchange.request, way.proxy, way.from),
    );
    part.coming = Coming::Abandoned;
    part.then = pieces(&exchange.response_wire.bytes(), rng);
    part.after = after(&exchange.request, &exchange.response);
    Damaged {
        script,
        to_heads: vec![exchange.request.method == "HEAD"],
        parts: vec![Arc::new(part)],
        verdict: Verdict::Own(vec![tag]),
        label,
        way,
    }
}

/// What becomes of the origin's connection.
fn after(request: &Request, response: &Response) -> After {
    match response.content.framing {
        Framing::UntilClose => After::Close,
        _ if model::origin_stays(request, response) => After::Keep,
        _ => After::Closed,
    }
}

/// Whether the first word of a request, if there is one, is HEAD.
fn is_to_head(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    bytes.starts_with(b"HEAD ")
}

/// A user of the forward proxy must not find another lane by chance, nor open a tunnel.
fn is_of_this_lane(bytes: &[u8], way: &Way<'_>) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let (host, _) = way.proxy.target.split_once(':').expect("host and port");
    let elsewhere = text
        .match_indices(host)
        .any(|(at, _)| !text[at..].starts_with(&way.proxy.target));
    !(way.proxy.forward && elsewhere || text.contains("CONNECT"))
}

/// Nothing of what came belongs to anybody else.
fn check_own(received: &Received, tags: &[Tag]) -> Result<(), String> {
    if received.end == End::Silent {
        return Err("it went away, and nobody took note".to_owned());
    }
    let own: Vec<String> = tags.iter().map(ToString::to_string).collect();
    let is_hex = |tag: &[u8]| tag.iter().all(|byte| b"0123456789abcdef".contains(byte));
    for window in received.bytes.windows(18) {
        if let [b'<', tag @ .., b'>'] = window
            && is_hex(tag)
            && !own.iter().any(|own| own.as_bytes() == tag)
        {
            return Err(format!("it got bytes of {}", tag.escape_ascii()));
        }
    }
    Ok(())
}
