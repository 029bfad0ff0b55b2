//! One case of what is valid: a few users at once, each with a few exchanges, all to the byte.

use std::{sync::Arc, thread};

use crate::{
    exchange::{Exchange, Timing, Wanted},
    judge::{Answer, Last, judge},
    lanes::{Lane, Way},
    message::{Framing, Version, pieces},
    model,
    origin::{After, Announced, Coming, Lost, Part},
    seed::{Rng, Tag},
    tally::Tally,
    user::{Mark, Stage, Step, converse},
};

/// One user's connection, from its first byte to its last.
pub struct User<'l> {
    way: Way<'l>,
    script: Vec<Step>,
    to_heads: Vec<bool>,
    answers: Vec<Answer>,
    /// What its origin does.
    pub parts: Vec<Arc<Part>>,
    label: String,
}

/// Runs a case.
pub fn run(seed: u64, lanes: &[Lane], tally: &Tally) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    let lane = &lanes[rng.below(lanes.len())];
    let count = rng.weighted(&[(40, 1), (35, 2), (20, 3), (5, 4)]);
    let users: Vec<User> = (0..count)
        .map(|user| User::draw(seed, user, lane, &mut rng.fork(), tally))
        .collect();
    for user in &users {
        lane.origin.announce(user.parts.iter().cloned());
    }
    let parts: Vec<Arc<Part>> = users.iter().flat_map(|user| user.parts.clone()).collect();
    let results: Vec<Result<(), String>> = thread::scope(|scope| {
        let running: Vec<_> = users
            .into_iter()
            .map(|user| scope.spawn(|| user.run()))
            .collect();
        let results = running.into_iter().map(|user| user.join());
        results
            .map(|result| result.expect("users do not panic"))
            .collect()
    });
    let wrong = results.into_iter().filter_map(Result::err).collect();
    verdict(&lane.origin, &parts, wrong)
}

/// What users and origin have to say against a case, after it.
pub fn verdict(
    origin: &Announced,
    parts: &[Arc<Part>],
    mut wrong: Vec<String>,
) -> Result<(), String> {
    for part in parts {
        if part.coming == Coming::Whole && !part.is_served() {
            wrong.push(format!("the origin, {}: it never came", part.label));
        }
    }
    origin.withdraw(parts);
    wrong.extend(origin.complaints());
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(wrong.join("\n\n")),
    }
}

impl<'l> User<'l> {
    /// Draws a user of `lane` and all of its exchanges.
    pub fn draw(seed: u64, user: usize, lane: &'l Lane, rng: &mut Rng, tally: &Tally) -> Self {
        let way = lane.draw_way(rng);
        let count = rng.weighted(&[(30, 1), (25, 2), (20, 3), (10, 4), (10, 5), (5, 6)]);
        let mut drawn = Self {
            script: Vec::new(),
            to_heads: Vec::new(),
            answers: Vec::new(),
            parts: Vec::new(),
            label: format!("user {user} from {} through {}", way.from, way.proxy),
            way,
        };
        let mut unsent = Vec::new();
        let mut last = None;
        for index in 0..count {
            let tag = Tag::of(seed, user, index);
            let wanted = Wanted {
                more: index + 1 < count,
                plain: false,
            };
            let exchange = Exchange::draw(tag, drawn.way.proxy, wanted, rng);
            let label = format!(
                "user {user}, exchange {index} ({tag}): {}",
                exchange.summary()
            );
            tally.exchange(&exchange, drawn.way.proxy);
            let answer = answer(&exchange, label.clone());
            if exchange.goes_on() {
                let part = part(&exchange, label, &drawn.way, rng);
                if part.lost.is_some() {
                    tally.count("a request that is lost if its connection is not fresh");
                }
                drawn.parts.push(Arc::new(part));
            }
            drawn.to_heads.push(exchange.request.method == "HEAD");
            let pipelined = index > 0 && rng.percent(60);
            if pipelined {
                tally.count("a pipelined request");
            } else if index > 0 {
                drawn.send(&mut unsent, rng);
                drawn.wait(index - 1, Stage::Done);
            }
            drawn.ask(&exchange, index, &mut unsent, rng);
            let keep = answer.finals.iter().all(|returning| returning.keep);
            drawn.answers.push(answer);
            last = Some(exchange);
            if !keep {
                break;
            }
        }
        let last = last.expect("at least one exchange");
        drawn.finish(&last, unsent, rng, tally);
        drawn
    }

    /// Talks to its proxy and compares.
    pub fn run(self) -> Result<(), String> {
        let received = converse(self.way.address, self.way.from, self.script, &self.to_heads)
            .map_err(|error| format!("{}: {error}", self.label))?;
        judge(&received, &self.answers, &Last::End)
            .map_err(|wrong| format!("{}:\n{wrong}", self.label))
    }

    /// Puts a request's bytes behind those that are not sent yet, and what it waits for in between.
    fn ask(&mut self, exchange: &Exchange, index: usize, unsent: &mut Vec<u8>, rng: &mut Rng) {
        let wire = &exchange.request_wire;
        unsent.extend_from_slice(&wire.head);
        match exchange.timing {
            Timing::Usual | Timing::Racing => unsent.extend_from_slice(&wire.body),
            Timing::Continue => {
                self.send(unsent, rng);
                self.wait(index, Stage::Interim);
                unsent.extend_from_slice(&wire.body);
            }
            Timing::Held { sent, rest } => {
                unsent.extend_from_slice(&wire.body[..sent]);
                self.send(unsent, rng);
                self.wait(index, Stage::Head);
                if rest {
                    unsent.extend_from_slice(&wire.body[sent..]);
                }
            }
        }
    }

    /// The end of the script.
    fn finish(&mut self, last: &Exchange, mut unsent: Vec<u8>, rng: &mut Rng, tally: &Tally) {
        let index = self.answers.len() - 1;
        let over = !model::asked(&last.request).keep || !last.goes_on();
        if over && last.timing == Timing::Usual && rng.percent(30) {
            // Behind a request that closes the connection there is none.
            unsent.extend_from_slice(b"GET /never HTTP/1.1\r\nHost: never.test\r\n\r\n");
            tally.count("bytes behind the last request");
        }
        self.send(&mut unsent, rng);
        // What was begun and is not to be finished cannot be told from a cut.
        let complete = matches!(last.timing, Timing::Usual | Timing::Continue);
        if complete && rng.percent(30) {
            tally.count("a half-close before the answer");
        } else {
            self.wait(index, Stage::Done);
        }
        self.script.push(Step::Finish);
    }

    fn send(&mut self, unsent: &mut Vec<u8>, rng: &mut Rng) {
        let pieces = pieces(unsent, rng);
        self.script.extend(pieces.into_iter().map(Step::Send));
        unsent.clear();
    }

    fn wait(&mut self, exchange: usize, stage: Stage) {
        self.script.push(Step::Await(Mark { exchange, stage }));
    }
}

/// What the user must get.
fn answer(exchange: &Exchange, label: String) -> Answer {
    if !exchange.goes_on() {
        return Answer {
            label,
            interims: Vec::new(),
            finals: vec![model::returned(&exchange.request)],
        };
    }
    let asked = model::asked(&exchange.request);
    let interims = exchange
        .interims_first
        .iter()
        .chain(&exchange.interims_then);
    let interims = match asked.version {
        // RFC 9110 §15.2.
        Version::Http10 => Vec::new(),
        Version::Http11 => interims
            .map(|said| model::returning(&said.response, &asked, false))
            .collect(),
    };
    let finally = |cut_short| model::returning(&exchange.response, &asked, cut_short);
    let finals = match exchange.timing {
        Timing::Usual | Timing::Continue => vec![finally(false)],
        Timing::Held { .. } => vec![finally(true)],
        Timing::Racing => vec![finally(false), finally(true)],
    };
    Answer {
        label,
        interims,
        finals,
    }
}

/// What the origin must receive and do.
fn part(exchange: &Exchange, label: String, way: &Way<'_>, rng: &mut Rng) -> Part {
    let arriving = model::arriving(&exchange.request, way.proxy, way.from);
    let said = |interims: &[crate::exchange::Said]| -> Vec<u8> {
        interims
            .iter()
            .flat_map(|said| said.bytes.clone())
            .collect()
    };
    let mut then = said(&exchange.interims_then);
    then.extend(exchange.response_wire.bytes());
    let stays = model::origin_stays(&exchange.request, &exchange.response);
    let after = match exchange.response.content.framing {
        Framing::UntilClose => After::Close,
        _ if stays => After::Keep,
        // Both know; either may be first.
        _ => rng.pick(&[After::Close, After::Closed]),
    };
    let mut part = Part::new(exchange.tag, label, arriving);
    part.coming = match exchange.timing {
        Timing::Usual | Timing::Continue => Coming::Whole,
        Timing::Held { .. } | Timing::Racing => Coming::Early,
    };
    part.first = pieces(&said(&exchange.interims_first), rng);
    part.then = pieces(&then, rng);
    part.after = after;
    let fits = exchange.request.content.bytes.len() < REPEATED_MAX;
    if part.coming == Coming::Whole
        && model::is_repeatable(&exchange.request)
        && fits
        && rng.percent(15)
    {
        part.lost = Some(Lost {
            whole: rng.percent(50),
            reset: rng.percent(50),
        });
        part.visits_max = 2;
    }
    part
}

/// Content that siding can send again: of 64 KiB in all, with room for the largest head and chunks.
const REPEATED_MAX: usize = 40_000;
