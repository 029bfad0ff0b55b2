//! What server and client hold at a moment, as the system tells and as they tell themselves.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{
    common::{HttpUser, Metrics, Process, Siding, pass},
    ground::Stage,
    machine,
};

/// From one look to the next while everything goes.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// So many looks without a difference are rest.
const ALIKE: usize = 6;

/// Something that is counted: its name here, its series of metrics, and the value of its label `of`, if it
/// has one.
struct Gauge(&'static str, &'static str, Option<&'static str>);

/// What is counted, where a side has it.
const GAUGES: [Gauge; 11] = [
    Gauge("sockets", "siding_sockets", None),
    Gauge("lingering sockets", "siding_sockets_lingering", None),
    Gauge("links", "siding_links", None),
    Gauge("users", "siding_users", None),
    Gauge("streams", "siding_streams", None),
    Gauge("links under way", "siding_handshakes", Some("link")),
    Gauge("users under way", "siding_handshakes", Some("user")),
    Gauge("dials under way", "siding_handshakes", Some("dial")),
    Gauge("parked", "siding_pool_idle", None),
    Gauge("exchanges", "siding_pool_in_use", None),
    Gauge("undelivered bytes", "siding_undelivered_bytes", None),
];

/// Both, server first.
pub struct Sides<'a>([Side<'a>; 2]);

struct Side<'a> {
    process: &'a Process,
    admin: SocketAddr,
}

/// What one of them holds.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Resident memory, in bytes, and that of it that is no file's.
    pub resident: u64,
    /// See [`Figures::resident`].
    pub anonymous: u64,
    /// Processor time so far.
    pub cpu: Duration,
    /// By name; with its descriptors.
    pub counts: Vec<(&'static str, u64)>,
}

impl<'a> Sides<'a> {
    /// Of a stage.
    pub fn of(stage: &'a Stage) -> Sides<'a> {
        let sides: [&Siding; 2] = [&stage.tunnel.server, &stage.tunnel.client];
        Sides(sides.map(|side| Side {
            process: side,
            admin: side.admin_address(),
        }))
    }

    /// What they hold now.
    pub fn look(&self) -> [Figures; 2] {
        self.0.each_ref().map(Side::look)
    }

    /// Looks until nobody is there, nothing is under way, and nothing changes; the last look is the answer,
    /// however it is when the time is over.
    pub fn settle(&self, within: Duration) -> [Figures; 2] {
        self.look_until(within, |figures| figures.iter().all(Figures::is_at_rest))
    }

    /// Looks until the counts are what they were, and stay it.
    pub fn return_to(&self, start: &[Figures; 2], within: Duration) -> [Figures; 2] {
        self.look_until(within, |figures| {
            let mut both = figures.iter().zip(start);
            both.all(|(now, before)| now.counts == before.counts)
        })
    }

    fn look_until(
        &self,
        within: Duration,
        is_well: impl Fn(&[Figures; 2]) -> bool,
    ) -> [Figures; 2] {
        let deadline = Instant::now() + within;
        let mut last = self.look();
        let mut alike = 0;
        while alike < ALIKE && Instant::now() < deadline {
            pass(LOOK_EVERY);
            let now = self.look();
            let is_same = now.iter().zip(&last).all(|(a, b)| a.counts == b.counts);
            alike = if is_same && is_well(&now) {
                alike + 1
            } else {
                0
            };
            last = now;
        }
        last
    }
}

impl Side<'_> {
    fn look(&self) -> Figures {
        // Before it, since whoever scrapes is there a moment longer.
        let descriptors = self.process.descriptors() as u64;
        let metrics = self.scrape();
        let count = |&Gauge(name, series, of): &Gauge| {
            let label = of.map(|of| [("of", of)]);
            let labels = label.as_ref().map_or(&[][..], |label| label);
            Some((name, metrics.find(series, labels)? as u64))
        };
        let mut counts: Vec<_> = GAUGES.iter().filter_map(count).collect();
        counts.push(("descriptors", descriptors));
        Figures {
            resident: self.process.resident_bytes("VmRSS:"),
            anonymous: self.process.resident_bytes("RssAnon:"),
            cpu: machine::cpu(self.process.pid()),
            counts,
        }
    }

    fn scrape(&self) -> Metrics {
        let mut visitor = HttpUser::connect(self.admin);
        visitor.send(format!(
            "GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.admin
        ));
        let reply = visitor.reply("GET");
        assert_eq!(reply.status, 200, "{}", reply.text());
        // Until it has closed it is one of its sockets.
        visitor.expect_end();
        Metrics::read(&reply.text())
    }
}

impl Figures {
    /// How many there are of something.
    pub fn count(&self, name: &str) -> u64 {
        let found = self.counts.iter().find(|(of, _)| *of == name);
        found.map_or(0, |(_, count)| *count)
    }

    /// Whether nobody is there, and nothing is under way.
    pub fn is_at_rest(&self) -> bool {
        let lasting = ["sockets", "links", "descriptors"];
        let passing = |(name, _): &&(&str, u64)| !lasting.contains(name);
        self.counts
            .iter()
            .filter(passing)
            .all(|(_, count)| *count == 0)
    }
}
