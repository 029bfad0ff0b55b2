//! A snapshot as Prometheus reads it: version 0.0.4 of its text format.
//!
//! Every name begins with `siding_`; times are seconds and sizes bytes. There is a series for each link and
//! each proxy at most, none for a user, a stream or a target.

use std::fmt::{Display, Write};

use super::snapshot::{Figures, LinkStatus, PoolFigures, ProxyStatus, Status};
use crate::{
    histogram::Histogram,
    pool::{Eviction, Refusal},
};

/// All metrics of a role.
pub(super) fn text(status: &Status, figures: &Figures) -> String {
    let mut page = Exposition(String::new());
    process(&mut page, status, figures);
    links(&mut page, &status.links);
    proxies(&mut page, status);
    streams(&mut page, status, figures);
    if let Some(pool) = &figures.pool {
        of_pool(&mut page, pool);
    }
    page.0
}

fn process(page: &mut Exposition, status: &Status, figures: &Figures) {
    let labels = [("version", &*status.version), ("role", &*status.role)];
    page.gauge("build_info", "What this is.").with(&labels, 1);
    page.gauge("uptime_seconds", "Since its start.")
        .alone(status.uptime_seconds);
    page.gauge("ready", "Whether it is of use, as /readyz says.")
        .alone(u8::from(status.not_ready.is_none()));
    page.gauge(
        "undelivered_bytes",
        "Bytes that were received and not yet delivered.",
    )
    .alone(status.undelivered_bytes);
    page.gauge("undelivered_limit_bytes", "How many of them there may be.")
        .alone(status.undelivered_max);
    page.gauge(
        "sockets",
        "Sockets, listeners and timers of the event loop.",
    )
    .alone(figures.sockets);
    page.gauge(
        "sockets_lingering",
        "Those of them that are closed but for what their peers still send.",
    )
    .alone(figures.lingering);
    if let Some(descriptors) = figures.descriptors {
        page.gauge("descriptors", "Descriptors in use.")
            .alone(descriptors.open);
        page.gauge("descriptors_limit", "How many there may be.")
            .alone(descriptors.limit);
    }
    let mut handshakes = page.gauge(
        "handshakes",
        "What is under way and has a deadline: links not welcomed yet, users' TLS, dials.",
    );
    for (of, count) in &figures.handshakes {
        handshakes.with(&[("of", of)], count);
    }
    if !figures.refusals.is_empty() {
        let mut refused = page.counter(
            "refused_total",
            "Connections, streams and requests that were refused, by what was in their way.",
        );
        for (reason, count) in &figures.refusals {
            refused.with(&[("reason", reason)], count);
        }
    }
    page.histogram(
        "turn_seconds",
        "How long a turn of the event loop takes, its sleep not counted.",
        &status.turns,
    );
}

fn links(page: &mut Exposition, links: &[LinkStatus]) {
    page.gauge("links", "Links that are up.").alone(links.len());
    // A client has one link that takes new streams; an older one that drains would have the same labels.
    let links = || links.iter().filter(|link| !link.draining);
    let mut round_trip = page.gauge(
        "link_round_trip_seconds",
        "How long the far end of a link took to answer when it was last asked.",
    );
    for link in links() {
        if let Some(seconds) = link.round_trip_seconds {
            round_trip.with(&[("client", &link.client)], seconds);
        }
    }
    let mut age = page.gauge("link_age_seconds", "Since a link began.");
    for link in links() {
        age.with(&[("client", &link.client)], link.age_seconds);
    }
    let mut streams = page.gauge("link_streams", "Streams in a link.");
    for link in links() {
        streams.with(&[("client", &link.client)], link.streams);
    }
    let mut bytes = page.counter("link_bytes_total", "Payload bytes since a link began.");
    for link in links() {
        bytes.both_ways(&[("client", &link.client)], link.bytes_up, link.bytes_down);
    }
}

fn proxies(page: &mut Exposition, status: &Status) {
    page.gauge("proxies", "Proxies.")
        .alone(status.proxies.len());
    if status.role != "server" {
        return;
    }
    page.gauge("users", "Users connected.").alone(status.users);
    let labels = |proxy: &'_ ProxyStatus| -> [(&'static str, String); 4] {
        [
            ("proxy", proxy.id.clone()),
            ("client", proxy.client.clone()),
            ("kind", proxy.kind.clone()),
            ("address", proxy.address.clone()),
        ]
    };
    let labels: Vec<_> = status.proxies.iter().map(labels).collect();
    let labelled = || {
        let borrowed = labels
            .iter()
            .map(|labels| labels.each_ref().map(|(name, value)| (*name, &**value)));
        status.proxies.iter().zip(borrowed)
    };
    let mut up = page.gauge("proxy_up", "Whether a proxy's client is there.");
    for (proxy, labels) in labelled() {
        up.with(&labels, u8::from(proxy.link_up));
    }
    let mut users = page.gauge("proxy_users", "Users connected to a proxy.");
    for (proxy, labels) in labelled() {
        users.with(&labels, proxy.users.unwrap_or_default());
    }
    let mut streams = page.gauge("proxy_streams", "Open streams of a proxy.");
    for (proxy, labels) in labelled() {
        streams.with(&labels, proxy.streams);
    }
    let mut bytes = page.counter(
        "proxy_bytes_total",
        "Payload bytes of a proxy's streams that have ended.",
    );
    for (proxy, labels) in labelled() {
        bytes.both_ways(&labels, proxy.bytes_up, proxy.bytes_down);
    }
}

fn streams(page: &mut Exposition, status: &Status, figures: &Figures) {
    page.gauge("streams", "Streams open.")
        .alone(status.streams_open);
    page.counter("streams_opened_total", "Streams opened.")
        .alone(status.streams_opened);
    let mut ended = page.counter("streams_ended_total", "Streams that ended, by how.");
    for (reason, count) in &figures.ends {
        ended.with(&[("reason", reason)], count);
    }
    page.counter(
        "bytes_total",
        "Payload bytes: up from users to targets, down from targets to users.",
    )
    .both_ways(&[], status.bytes_up, status.bytes_down);
    page.histogram(
        "first_byte_seconds",
        "From a request's head to the first byte of its final response.",
        &status.first_bytes,
    );
}

fn of_pool(page: &mut Exposition, pool: &PoolFigures) {
    let counters = &pool.counters;
    page.gauge("pool_idle", "Connections that are parked.")
        .alone(pool.idle);
    page.gauge("pool_in_use", "Connections that serve an exchange.")
        .alone(pool.in_use);
    for (name, help, count) in [
        (
            "dialled_total",
            "Connections dialled to targets.",
            pool.dialled,
        ),
        (
            "pool_hits_total",
            "Exchanges for which a connection was parked.",
            counters.hits,
        ),
        (
            "pool_misses_total",
            "Exchanges for which none was.",
            counters.misses,
        ),
        ("pool_parked_total", "Connections parked.", counters.parked),
        (
            "pool_retried_total",
            "Exchanges answered on a fresh connection, where the parked one was dead.",
            counters.retried,
        ),
    ] {
        page.counter(name, help).alone(count);
    }
    let mut stale = page.counter(
        "pool_stale_total",
        "Parked connections that were found closed: when they were taken, or by their exchange.",
    );
    stale.with(&[("found", "when_taken")], counters.stale_at_take);
    stale.with(&[("found", "by_exchange")], counters.stale_after_take);
    let mut evicted = page.counter(
        "pool_evicted_total",
        "Parked connections that were closed unused, by why.",
    );
    for why in Eviction::ALL {
        let reason = why.to_string().replace(' ', "_");
        evicted.with(&[("reason", &reason)], counters.evicted(why));
    }
    let mut refused = page.counter(
        "pool_not_parked_total",
        "Connections that were closed after an exchange instead of parked, by why.",
    );
    for why in Refusal::ALL {
        let reason = why.to_string().replace(' ', "_");
        refused.with(&[("reason", &reason)], counters.refused(why));
    }
}

/// The text, as far as it is written.
struct Exposition(String);

/// One metric, whose samples follow each other.
struct Metric<'a> {
    out: &'a mut String,
    name: &'a str,
}

impl Exposition {
    fn gauge<'a>(&'a mut self, name: &'a str, help: &str) -> Metric<'a> {
        self.begin(name, help, "gauge")
    }

    fn counter<'a>(&'a mut self, name: &'a str, help: &str) -> Metric<'a> {
        self.begin(name, help, "counter")
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        let out = self.begin(name, help, "histogram").out;
        let mut line = |suffix: &str, value: &dyn Display| {
            writeln!(out, "siding_{name}_{suffix} {value}").expect(ENDLESS);
        };
        for (bound, count) in histogram.cumulative() {
            let bucket = format!("bucket{{le=\"{}\"}}", bound.as_secs_f64());
            line(&bucket, &count);
        }
        line("bucket{le=\"+Inf\"}", &histogram.total());
        line("sum", &histogram.sum().as_secs_f64());
        line("count", &histogram.total());
    }

    fn begin<'a>(&'a mut self, name: &'a str, help: &str, kind: &str) -> Metric<'a> {
        let out = &mut self.0;
        writeln!(out, "# HELP siding_{name} {help}").expect(ENDLESS);
        writeln!(out, "# TYPE siding_{name} {kind}").expect(ENDLESS);
        Metric { out, name }
    }
}

impl Metric<'_> {
    fn alone(&mut self, value: impl Display) {
        self.with(&[], value);
    }

    fn with(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let Metric { out, name } = self;
        write!(out, "siding_{name}").expect(ENDLESS);
        for (index, (label, value)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            write!(out, "{before}{label}=\"").expect(ENDLESS);
            escape(out, value);
            out.push('"');
        }
        if !labels.is_empty() {
            out.push('}');
        }
        writeln!(out, " {value}").expect(ENDLESS);
    }

    fn both_ways(&mut self, labels: &[(&str, &str)], up: u64, down: u64) {
        for (direction, bytes) in [("up", up), ("down", down)] {
            let labels: Vec<_> = labels
                .iter()
                .copied()
                .chain([("direction", direction)])
                .collect();
            self.with(&labels, bytes);
        }
    }
}

/// Writes the value of a label.
fn escape(out: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            character => out.push(character),
        }
    }
}

const ENDLESS: &str = "a String takes all that is written to it";

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use super::*;

    #[test]
    fn a_label_holds_whatever_stands_in_it() {
        let mut page = Exposition(String::new());
        page.gauge("odd", "Odd.")
            .with(&[("a", "x\"y\\z\n"), ("b", "ü")], 1.5);
        assert_eq!(
            page.0,
            "# HELP siding_odd Odd.\n# TYPE siding_odd gauge\nsiding_odd{a=\"x\\\"y\\\\z\\n\",b=\"ü\"} 1.5\n"
        );
    }

    #[test]
    fn a_histogram_has_its_buckets_in_order_and_ends_in_all() {
        let mut histogram = Histogram::default();
        histogram.count(Duration::from_millis(3));
        histogram.count(Duration::from_secs(60));
        let mut page = Exposition(String::new());
        page.histogram("h", "H.", &histogram);
        assert!(page.0.contains("\nsiding_h_bucket{le=\"0.0025\"} 0\n"));
        assert!(page.0.contains("\nsiding_h_bucket{le=\"0.005\"} 1\n"));
        assert!(page.0.contains("\nsiding_h_bucket{le=\"0.00001\"} 0\n"));
        let end = "siding_h_bucket{le=\"10\"} 1\nsiding_h_bucket{le=\"+Inf\"} 2\nsiding_h_sum 60.003\nsiding_h_count 2\n";
        assert!(page.0.ends_with(end), "{}", page.0);
    }

    #[test]
    fn no_series_stands_there_twice() {
        let link = |draining| LinkStatus {
            client: "edge-1".into(),
            round_trip_seconds: Some(0.001),
            draining,
            ..LinkStatus::default()
        };
        let proxy = |id: &str| ProxyStatus {
            id: id.into(),
            ..ProxyStatus::default()
        };
        let status = Status {
            role: "server".into(),
            links: vec![link(true), link(false)],
            proxies: vec![proxy("edge-1-80-1"), proxy("edge-1-80-2")],
            ..Status::default()
        };
        let figures = Figures {
            pool: Some(PoolFigures::default()),
            ..Figures::default()
        };
        let text = text(&status, &figures);
        let mut seen = HashSet::new();
        for line in text.lines() {
            let series = match line.strip_prefix("# ") {
                Some(comment) => comment.rsplitn(2, ' ').last().expect("a word").to_owned(),
                None => line.rsplit_once(' ').expect("a value").0.to_owned(),
            };
            assert!(seen.insert(series), "{line}");
        }
        assert!(text.contains("\nsiding_links 2\n"));
    }
}
