//! Streams that share a rate: which of them wait for it, in line, and what becomes of the tokens of one that
//! ends.
//!
//! A stream that may not be read from leaves the queues of those that speak for the line *up* of its rate; one
//! whose announcement or credit has to wait stands in the line *down*, and its mark is set again when it has
//! come first. Nobody overtakes: while there is a line, only who was called out of it goes, with its share of
//! what there is. The lines are the mux's, for its own streams; when they are to be looked at is its role's to
//! know, which it is told by [`Mux::limited`].

use std::collections::VecDeque;

use crate::{
    clock::Now,
    tunnel::{
        mux::{
            Handle, Mux,
            stream::{Limited, Place, Queued, Stream},
        },
        rate::{RateId, Way},
        window::Budget,
    },
};

/// Those that wait for one rate.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub up: VecDeque<Handle>,
    pub down: VecDeque<Handle>,
}

impl Mux {
    /// Has a stream that was just opened share a rate with all that have it.
    pub fn limit(&mut self, handle: Handle, rate: RateId, budget: &mut Budget) {
        let unpaid = self.window.initial;
        if let Some(stream) = self.stream(handle) {
            budget.rates.hold(rate);
            stream.aside.get_or_insert_default().limited = Some(Limited {
                rate,
                unpaid,
                up: Place::Free,
                down: Place::Free,
            });
        }
    }

    /// The rates for which streams wait, and which way.
    pub fn limited(&self) -> impl Iterator<Item = (RateId, Way)> {
        self.lines.iter().flat_map(|(rate, lines)| {
            let up = (!lines.up.is_empty()).then_some((*rate, Way::Up));
            let down = (!lines.down.is_empty()).then_some((*rate, Way::Down));
            [up, down].into_iter().flatten()
        })
    }

    /// A rate may have room again: as many streams are woken as can say something worth a turn each.
    pub fn resume(&mut self, rate: RateId, budget: &Budget, now: Now) {
        let Some(mut lines) = self.lines.remove(&rate) else {
            return;
        };
        let allowed = budget.rates.allowed(rate, Way::Up, now.instant);
        for (handle, share) in called(&mut lines.up, allowed) {
            if let Some(stream) = self.stream(handle)
                && let Some(limited) = stream.limited()
            {
                limited.up = Place::Called(share);
                stream.queued = Queued::Waiting;
                self.waiting.push_back(handle);
            }
        }
        let allowed = budget.rates.allowed(rate, Way::Down, now.instant);
        for (handle, share) in called(&mut lines.down, allowed) {
            if let Some(limited) = self.limited_mut(handle) {
                limited.down = Place::Called(share);
                self.mark(handle);
            }
        }
        if !(lines.up.is_empty() && lines.down.is_empty()) {
            self.lines.insert(rate, lines);
        }
    }

    /// How much a stream whose turn it is may say: `None`, and it waits in line, where that is nothing.
    pub(super) fn may_say(&mut self, handle: Handle, budget: &Budget, now: Now) -> Option<usize> {
        let Some(limited) = self.limited_mut(handle) else {
            return Some(usize::MAX);
        };
        let (rate, place) = (
            limited.rate,
            std::mem::replace(&mut limited.up, Place::Free),
        );
        let is_first = self.lines.get(&rate).is_none_or(|of| of.up.is_empty());
        let share = share(place, is_first);
        let allowed = share.min(budget.rates.allowed(rate, Way::Up, now.instant));
        if allowed > 0 {
            return Some(allowed);
        }
        let stream = self.stream(handle)?;
        stream.queued = Queued::Limited;
        if let Some(limited) = stream.limited() {
            limited.up = Place::InLine;
        }
        self.lines.entry(rate).or_default().up.push_back(handle);
        None
    }

    /// How many bytes the stream's peer may be let send; where that is none, the stream waits in line.
    pub(super) fn may_ask_for(&mut self, handle: Handle, budget: &Budget, now: Now) -> u32 {
        let Some(limited) = self.limited_mut(handle) else {
            return u32::MAX;
        };
        let (rate, place) = (limited.rate, limited.down);
        if place == Place::InLine {
            return 0;
        }
        limited.down = Place::Free;
        let is_first = self.lines.get(&rate).is_none_or(|of| of.down.is_empty());
        let share = share(place, is_first);
        let allowed = share.min(budget.rates.allowed(rate, Way::Down, now.instant));
        if allowed == 0 {
            self.wait_to_ask(handle);
        }
        u32::try_from(allowed).unwrap_or(u32::MAX)
    }

    /// There is more to ask for than could be.
    pub(super) fn wait_to_ask(&mut self, handle: Handle) {
        if let Some(limited) = self.limited_mut(handle)
            && limited.down != Place::InLine
        {
            limited.down = Place::InLine;
            let rate = limited.rate;
            self.lines.entry(rate).or_default().down.push_back(handle);
        }
    }

    fn limited_mut(&mut self, handle: Handle) -> Option<&mut Limited> {
        self.stream(handle)?.limited()
    }

    /// Whether this stands in a line of its rate, and how often.
    pub(super) fn in_lines(&self, handle: Handle) -> (usize, usize) {
        let count = |line: &VecDeque<Handle>| line.iter().filter(|of| **of == handle).count();
        let counts = self
            .lines
            .values()
            .map(|lines| (count(&lines.up), count(&lines.down)));
        counts.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }
}

impl Stream {
    /// The peer has sent so much: of its first window, that is paid now.
    pub fn pay(&mut self, bytes: usize, budget: &mut Budget, now: Now) {
        if let Some(limited) = self.limited() {
            let unpaid = bytes.min(limited.unpaid as usize);
            limited.unpaid -= unpaid as u32;
            budget
                .rates
                .take(limited.rate, Way::Down, unpaid, now.instant);
        }
    }

    /// It is over: what was paid for it and not sent is for others.
    pub(super) fn leave_rate(&mut self, budget: &mut Budget) {
        let limited = self.aside.as_mut().and_then(|aside| aside.limited.take());
        if let Some(limited) = limited {
            let paid = self.relay.granted().saturating_sub(limited.unpaid as usize);
            budget.rates.give_back(limited.rate, Way::Down, paid);
            budget.rates.release(limited.rate);
        }
    }
}

/// Takes as many out of a line as may have a share worth a turn, and says how much each may have.
fn called(line: &mut VecDeque<Handle>, allowed: usize) -> impl Iterator<Item = (Handle, u32)> {
    let count = line.len().min(allowed.div_ceil(SHARE));
    let share = allowed.checked_div(count).unwrap_or(0);
    let share = u32::try_from(share).unwrap_or(u32::MAX);
    line.drain(..count).map(move |handle| (handle, share))
}

/// What a stream may have at most, by where it stood.
fn share(place: Place, is_first: bool) -> usize {
    match place {
        Place::Called(share) => share as usize,
        Place::Free | Place::InLine if is_first => usize::MAX,
        Place::Free | Place::InLine => 0,
    }
}

/// What is worth a turn: where there is more, more streams have one at a time.
const SHARE: usize = 16 * 1024;
