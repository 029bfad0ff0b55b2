//! What the cases were made of: a test that never tried a thing has not shown that it works.

use std::{collections::BTreeMap, sync::Mutex};

use crate::{
    exchange::{Exchange, Timing},
    message::{Framing, Version},
    model::Proxy,
};

/// Counts by name.
#[derive(Default)]
pub struct Tally(Mutex<BTreeMap<&'static str, usize>>);

impl Tally {
    /// One more.
    pub fn count(&self, name: &'static str) {
        *self
            .0
            .lock()
            .expect("no holder panics")
            .entry(name)
            .or_default() += 1;
    }

    /// How many.
    pub fn of(&self, name: &str) -> usize {
        let counts = self.0.lock().expect("no holder panics");
        counts.get(name).copied().unwrap_or_default()
    }

    /// Counts what an exchange is made of.
    pub fn exchange(&self, exchange: &Exchange, proxy: &Proxy) {
        let Exchange {
            request, response, ..
        } = exchange;
        self.count("an exchange");
        self.count(match proxy.forward {
            true => "a user of a forward proxy",
            false => "a user of an http proxy",
        });
        match request.version {
            Version::Http10 => self.count("a request of HTTP/1.0"),
            Version::Http11 => self.count("a request of HTTP/1.1"),
        }
        match response.version {
            Version::Http10 => self.count("a response of HTTP/1.0"),
            Version::Http11 => self.count("a response of HTTP/1.1"),
        }
        match request.content.framing {
            Framing::None | Framing::UntilClose => self.count("a request without content"),
            Framing::Length => self.count("a request with Content-Length"),
            Framing::Chunked => self.count("a chunked request"),
        }
        match response.content.framing {
            Framing::None => self.count("a response without content"),
            Framing::Length => self.count("a response with Content-Length"),
            Framing::Chunked => self.count("a chunked response"),
            Framing::UntilClose => self.count("a response that ends by closing"),
        }
        match exchange.timing {
            Timing::Usual => {}
            Timing::Continue => self.count("a user that waits for 100"),
            Timing::Held { .. } => self.count("a response to half a request"),
            Timing::Racing => self.count("a response while the request comes"),
        }
        if !request.content.trailers.is_empty() {
            self.count("trailers of a request");
        }
        if !response.content.trailers.is_empty() {
            self.count("trailers of a response");
        }
        if !(exchange.interims_first.is_empty() && exchange.interims_then.is_empty()) {
            self.count("interim responses");
        }
        if request.content.bytes.len() > 65_535 || response.content.bytes.len() > 65_535 {
            self.count("content of 64 KiB or more");
        }
        if response.values("date").next().is_none() {
            self.count("a response without Date");
        }
    }

    /// Panics unless each of these was there.
    pub fn expect_all(&self, names: &[&str]) {
        for name in names {
            assert!(self.of(name) > 0, "no case had {name}");
        }
    }

    /// All counts, a line each.
    pub fn text(&self) -> String {
        let counts = self.0.lock().expect("no holder panics");
        let lines = counts
            .iter()
            .map(|(name, count)| format!("{count:8} {name}\n"));
        lines.collect()
    }
}
