//! One scenario with one peer, once: an origin, the peer, the load, and what it gave.
//!
//! Each run has processes of its own, so that no peak of memory is another scenario's.

use std::{
    io,
    sync::atomic::AtomicU64,
    time::{Duration, Instant},
};

use crate::{
    bulk::{self, BulkOrigin, Users, Want},
    common::{Authority, PATIENCE, pass},
    cost::{Side, Sides},
    exchange::Plan,
    figures::Figures,
    footprint,
    peers::{Answers, Class, Order, Peer, Running, Speaks},
    ping::Pings,
    scenarios::{Load, PACED, Scenario},
    service::Service,
};

/// Bytes that a stalled stream moves, right to the last one, once its reader reads.
const RESUMED: u64 = 32 << 20;

/// How often it is looked at whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// How long things are measured, and by how many.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Before that.
    pub warm_up: Duration,
    /// Rates and times.
    pub measured: Duration,
    /// Round trips at a pace, of which there are few.
    pub paced: Duration,
    /// Starts of a peer, of which the median counts.
    pub starts: usize,
    /// Connections at a time, where a scenario has more.
    pub connections_max: usize,
}

/// Whether there is something to measure.
pub fn applies(scenario: &Scenario, peer: &Peer) -> bool {
    let is_able = match scenario.load {
        Load::Start | Load::Idle { .. } => peer.class() != Class::Direct,
        // Who speaks to the origin parks, and nobody else.
        Load::Parked { .. } => peer.carries(Speaks::Https),
        _ => true,
    };
    is_able && peer.carries(scenario.speaks)
}

/// Runs a scenario with a peer.
///
/// # Errors
/// `InvalidData` where a byte was wrong, and whatever else keeps the peer from being measured.
pub fn measure(scenario: &Scenario, peer: &Peer, scale: &Scale) -> io::Result<Figures> {
    match scenario.load {
        Load::Bulk { want, streams } => bulk(peer, want, streams, scale),
        Load::Ping(pings) => ping(peer, pings, scale),
        Load::Beside {
            downloads,
            stalled,
            held_uploads,
        } => beside(peer, downloads, stalled, held_uploads, scale),
        Load::Exchange(plan) => exchange(peer, scenario.speaks, plan, scale),
        Load::Start => footprint::start(peer, scale),
        Load::Idle { connections } => footprint::idle(peer, connections, scale),
        Load::Parked { connections } => {
            footprint::parked(peer, connections, scenario.speaks, scale)
        }
    }
}

fn long_streams(peer: &Peer) -> io::Result<(BulkOrigin, Running)> {
    let origin = BulkOrigin::start();
    let running = peer.start(&Order::streams(origin.address()))?;
    Ok((origin, running))
}

fn bulk(peer: &Peer, want: Want, streams: u64, scale: &Scale) -> io::Result<Figures> {
    let (origin, running) = long_streams(peer)?;
    let users = Users::start(running.address, want, streams)?;
    // What counts is what has arrived.
    let arrived = || match want {
        Want::Download => Ok(users.moved()),
        _ => origin.received(),
    };
    pass(scale.warm_up);
    let flow = flow(&running.sides, scale.measured, arrived)?;
    let mut figures = Figures::default();
    figures.more("GB/s", flow.rate());
    flow.cpu_into(&mut figures, &running.sides);
    peaks_into(&mut figures, &running.sides);
    users.finish()?;
    Ok(figures)
}

fn ping(peer: &Peer, pings: Pings, scale: &Scale) -> io::Result<Figures> {
    let (_origin, running) = long_streams(peer)?;
    let before = running.sides.cpu();
    let samples = pings.run(running.address, scale.warm_up, scale.measured)?;
    let used = running.sides.cpu() - before;
    // What came before is part of both.
    let share = scale
        .measured
        .div_duration_f64(scale.warm_up + scale.measured);
    let messages = samples.len() as f64;
    let mut figures = Figures::default();
    figures.times(samples);
    if running.sides.server.is_some() {
        figures.less(
            "CPU µs/message",
            used.as_secs_f64() * 1e6 * share / messages,
        );
    }
    figures.also("messages/s", messages / scale.measured.as_secs_f64());
    Ok(figures)
}

fn beside(
    peer: &Peer,
    downloads: u64,
    stalled: bool,
    held_uploads: u64,
    scale: &Scale,
) -> io::Result<Figures> {
    let (origin, running) = long_streams(peer)?;
    let users = Users::start(running.address, Want::Download, downloads)?;
    let held = Users::start(running.address, Want::HeldUpload, held_uploads)?;
    let seed = downloads + 1;
    let stalled = match stalled {
        true => Some(bulk::ask(running.address, Want::Download, seed)?),
        false => None,
    };
    pass(scale.warm_up);
    let moved = || Ok(users.moved());
    let alone = flow(&running.sides, scale.measured / 2, moved)?;
    let mut samples = Vec::new();
    let together = Flow::begin(&running.sides, users.moved());
    samples.extend(PACED.run(running.address, Duration::ZERO, scale.paced)?);
    let together = together.end(&running.sides, users.moved());

    let mut figures = Figures::default();
    figures.times(samples);
    if downloads > 0 {
        figures.more("GB/s", together.rate());
        figures.also("GB/s without the round trips", alone.rate());
        together.cpu_into(&mut figures, &running.sides);
    }
    peaks_into(&mut figures, &running.sides);

    if let Some(stalled) = stalled {
        bulk::receive(&stalled, seed, RESUMED, &AtomicU64::new(0))?;
    }
    if held_uploads > 0 {
        let before = origin.received()?;
        origin.release();
        let deadline = Instant::now() + PATIENCE;
        while origin.received()? - before < RESUMED {
            if Instant::now() > deadline {
                return Err(io::Error::other("the held uploads did not go on"));
            }
            pass(LOOK_EVERY);
        }
    }
    users.finish()?;
    held.finish()?;
    Ok(figures)
}

fn exchange(peer: &Peer, speaks: Speaks, plan: Plan, scale: &Scale) -> io::Result<Figures> {
    let authority = (speaks == Speaks::Https).then(Authority::new);
    let tls = authority.as_ref().map(|all| all.server(&["127.0.0.1"]));
    let origin = Service::start(plan.asks, tls, 0);
    let file = authority.as_ref().map(Authority::file);
    let running = peer.start(&Order {
        speaks,
        target: origin.address(),
        answers: Answers::Exchanges(plan.asks),
        authority: file.as_deref(),
        parked: None,
    })?;
    let look = || (running.sides.cpu(), origin.connections());
    let outcome = plan.run(running.address, scale.warm_up, scale.measured, look)?;

    let count = outcome.samples.len() as f64;
    let cpu = outcome.after.0 - outcome.before.0;
    let connections = outcome.after.1 - outcome.before.1;
    let mut figures = Figures::default();
    figures.more("per second", count / outcome.span.as_secs_f64());
    figures.times(outcome.samples);
    if running.sides.server.is_some() {
        figures.less("CPU µs each", cpu.as_secs_f64() * 1e6 / count);
        figures.also("origin's connections each", connections as f64 / count);
    }
    figures.less("failed", outcome.failed as f64);
    Ok(figures)
}

/// Bytes over a span, and what they cost.
struct Flow {
    start: Instant,
    span: Duration,
    bytes: u64,
    server: Duration,
    agent: Duration,
}

/// Lets a span pass.
fn flow(sides: &Sides, span: Duration, moved: impl Fn() -> io::Result<u64>) -> io::Result<Flow> {
    let flow = Flow::begin(sides, moved()?);
    pass(span);
    Ok(flow.end(sides, moved()?))
}

impl Flow {
    fn begin(sides: &Sides, bytes: u64) -> Flow {
        Flow {
            server: sides.server.as_ref().map_or(Duration::ZERO, Side::cpu),
            agent: sides.agent.as_ref().map_or(Duration::ZERO, Side::cpu),
            bytes,
            start: Instant::now(),
            span: Duration::ZERO,
        }
    }

    fn end(self, sides: &Sides, bytes: u64) -> Flow {
        let span = self.start.elapsed();
        let now = Flow::begin(sides, bytes);
        Flow {
            start: self.start,
            span,
            bytes: bytes - self.bytes,
            server: now.server.saturating_sub(self.server),
            agent: now.agent.saturating_sub(self.agent),
        }
    }

    fn gigabytes(&self) -> f64 {
        self.bytes as f64 / 1e9
    }

    fn rate(&self) -> f64 {
        self.gigabytes() / self.span.as_secs_f64()
    }

    fn cpu_into(&self, figures: &mut Figures, sides: &Sides) {
        if sides.server.is_some() {
            let [server, agent] =
                [self.server, self.agent].map(|side| side.as_secs_f64() / self.gigabytes());
            figures.less("CPU s/GB", server + agent);
            figures.also("server's CPU s/GB", server);
            figures.also("agent's CPU s/GB", agent);
        }
    }
}

fn peaks_into(figures: &mut Figures, sides: &Sides) {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    if let (Some(server), Some(agent)) = (&sides.server, &sides.agent) {
        figures.less("server's peak MiB", mib(server.resident_max()));
        figures.less("agent's peak MiB", mib(agent.resident_max()));
    }
}
