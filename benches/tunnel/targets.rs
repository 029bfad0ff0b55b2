//! What siding is to reach, row by row, and whether it does.
//!
//! A bound is a share of what another has in the same run. For a tunnel that is not here its ratio to
//! the chained HAProxies, as measured once beside all of them ([`BASELINE`]), is taken times the
//! HAProxies of this run.

use crate::{
    figures::{Better, shown},
    peers::Class,
    report::Results,
};

/// What siding is compared with.
#[derive(Clone, Copy)]
enum Against {
    /// The best of all tunnels, here or not.
    BestTunnel,
    /// This peer.
    Peer(&'static str),
    /// Another figure of its own.
    Own(&'static str),
    /// A number.
    Fixed,
    /// The easier one of a share of the best tunnel and of this much of `direct`.
    BestTunnelOrDirect(f64),
}

struct Target {
    scenario: &'static str,
    figure: &'static str,
    better: Better,
    /// How much of what it is compared with; the number itself for [`Against::Fixed`].
    factor: f64,
    against: Against,
}

/// A bound, and where it comes from.
struct Bound {
    value: f64,
    from: String,
}

/// The tunnels of the baseline, in the order of its numbers.
const TUNNELS: [&str; 6] = ["wstunnel", "rathole", "rathole-ws", "bore", "ssh", "chisel"];

/// The peer that the baseline is scaled by.
const SCALE: &str = "haproxy-tcp";

/// Of one figure: of [`SCALE`], and of each of the [`TUNNELS`].
struct Baseline(&'static str, &'static str, f64, [f64; 6]);

/// Measured beside all of them on one machine, of which only the ratios are used.
const BASELINE: &[Baseline] = &[
    Baseline("down1", "GB/s", 0.80, [0.67, 0.42, 0.32, 0.51, 0.42, 0.13]),
    Baseline(
        "down1",
        "CPU s/GB",
        1.00,
        [1.57, 2.83, 3.60, 2.36, 3.65, 11.09],
    ),
    Baseline("down16", "GB/s", 0.96, [0.69, 0.56, 0.49, 0.54, 0.52, 0.15]),
    Baseline(
        "down16",
        "CPU s/GB",
        1.08,
        [1.45, 2.12, 2.65, 2.20, 2.88, 9.46],
    ),
    Baseline("up1", "GB/s", 0.77, [0.58, 0.39, 0.26, 0.49, 0.40, 0.17]),
    Baseline(
        "up1",
        "CPU s/GB",
        1.04,
        [1.70, 2.88, 5.01, 2.56, 3.69, 8.47],
    ),
    Baseline("up16", "GB/s", 0.82, [0.87, 0.64, 0.52, 0.59, 0.39, 0.16]),
    Baseline(
        "up16",
        "CPU s/GB",
        1.38,
        [1.33, 2.32, 2.76, 2.43, 3.59, 8.87],
    ),
    Baseline(
        "ping1",
        "p50 µs",
        219.0,
        [209.0, 186.0, 223.0, 238.0, 238.0, 371.0],
    ),
    Baseline(
        "paced100",
        "p50 µs",
        305.0,
        [321.0, 313.0, 348.0, 313.0, 1318.0, 592.0],
    ),
    Baseline(
        "load4",
        "p50 µs",
        5600.0,
        [19055.0, 14062.0, 11022.0, 86721.0, 2897.0, 42403.0],
    ),
    Baseline(
        "load4",
        "p99 µs",
        36141.0,
        [47800.0, 36339.0, 26280.0, 204305.0, 24609.0, 82996.0],
    ),
    Baseline(
        "stall",
        "p99 µs",
        72172.0,
        [139918.0, 50276.0, 31684.0, 183466.0, 23563.0, 61139.0],
    ),
    Baseline(
        "stall4up",
        "p99 µs",
        1721.0,
        [5282.0, 1399.0, 5278.0, 5289.0, 735.0, 1565.0],
    ),
    Baseline(
        "rate1",
        "per second",
        1832.0,
        [1490.0, 1860.0, 1553.0, 1478.0, 31.0, 932.0],
    ),
    Baseline(
        "rate64",
        "per second",
        6122.0,
        [1863.0, 3768.0, 4212.0, 4264.0, 1209.0, 2857.0],
    ),
    Baseline(
        "http-ka50",
        "per second",
        23067.0,
        [23795.0, 30744.0, 27776.0, 28653.0, 3693.0, 16282.0],
    ),
    Baseline(
        "http-64k",
        "per second",
        11691.0,
        [9509.0, 1124.0, 1125.0, 992.0, 1058.0, 2278.0],
    ),
    Baseline(
        "http-new1",
        "p50 µs",
        504.0,
        [633.0, 549.0, 603.0, 804.0, 43391.0, 930.0],
    ),
    Baseline(
        "http-new50",
        "per second",
        5023.0,
        [1955.0, 4616.0, 4074.0, 3577.0, 1031.0, 2381.0],
    ),
];

const BULK: [&str; 4] = ["down1", "down16", "up1", "up16"];

/// All targets, in the order of the scenarios.
fn targets() -> Vec<Target> {
    use Against::{BestTunnel, BestTunnelOrDirect, Fixed, Own, Peer};
    let at_least = |scenario, figure, factor, against| Target {
        scenario,
        figure,
        better: Better::More,
        factor,
        against,
    };
    let at_most = |scenario, figure, factor, against| Target {
        scenario,
        figure,
        better: Better::Less,
        factor,
        against,
    };
    let mut all = Vec::new();
    for scenario in BULK {
        all.extend([
            at_least(scenario, "GB/s", 1.0, BestTunnel),
            at_most(scenario, "CPU s/GB", 1.0, BestTunnel),
            at_most(scenario, "CPU s/GB", 1.4, Peer("haproxy-tcp")),
            at_most(scenario, "server's peak MiB", 16.0, Fixed),
            at_most(scenario, "agent's peak MiB", 16.0, Fixed),
        ]);
    }
    for scenario in ["ping1", "paced100"] {
        all.extend([
            at_most(scenario, "p50 µs", 0.9, BestTunnel),
            at_most(scenario, "p99 µs", 1.0, BestTunnel),
            at_most(scenario, "p99.9 µs", 1.0, BestTunnel),
        ]);
    }
    all.extend([
        at_most("load4", "p50 µs", 0.5, BestTunnel),
        at_most("load4", "p99 µs", 0.25, BestTunnel),
        // "As without them", to within what two halves of one run differ by.
        at_least("load4", "GB/s", 0.95, Own("GB/s without the round trips")),
        // The default budget of what is undelivered.
        at_most("load4", "server's peak MiB", 64.0, Fixed),
        at_most("stall", "p99 µs", 0.25, BestTunnelOrDirect(1.2)),
        at_least("stall", "GB/s", 0.95, Own("GB/s without the round trips")),
        at_most("stall", "server's peak MiB", 64.0, Fixed),
        at_most("stall4up", "p99 µs", 0.25, BestTunnelOrDirect(1.2)),
        at_most("stall4up", "agent's peak MiB", 64.0, Fixed),
        at_least("rate1", "per second", 1.4, BestTunnel),
        at_most("rate1", "failed", 0.0, Fixed),
        at_least("rate64", "per second", 1.5, BestTunnel),
        at_most("rate64", "failed", 0.0, Fixed),
        at_least("http-ka50", "per second", 1.2, BestTunnel),
        at_least("http-ka50", "per second", 1.0, Peer("haproxy-http")),
        at_least("http-64k", "per second", 1.0, BestTunnel),
        at_least("http-64k", "per second", 1.0, Peer("haproxy-http")),
        at_most("http-new1", "p50 µs", 0.5, BestTunnel),
        at_most("http-new1", "p50 µs", 1.0, Peer("haproxy-http")),
        at_least("http-new50", "per second", 2.0, BestTunnel),
        at_least("http-new50", "per second", 1.0, Peer("haproxy-http")),
    ]);
    for scenario in ["https-ka50", "https-new8", "https-new50"] {
        all.push(at_least(scenario, "per second", 1.0, Peer("haproxy-http")));
    }
    all.extend([
        at_most("start", "server listens after ms", 5.0, Fixed),
        at_most("start", "server's resident MiB", 4.0, Fixed),
        at_most("start", "agent's resident MiB", 4.0, Fixed),
        at_most("start", "stripped MiB", 2.0, Fixed),
        at_most("idle15000", "bytes/connection", 1024.0, Fixed),
        // One ping of a link falls into some spans.
        at_most("idle15000", "idle CPU %", 0.1, Fixed),
        // What an allocator may keep of fourteen.
        at_most("idle15000", "server's MiB kept", 1.0, Fixed),
        at_most("idle15000", "agent's MiB kept", 1.0, Fixed),
        at_most("parked15000", "agent's bytes/parked", 512.0, Fixed),
    ]);
    all
}

/// Prints which targets are met, of the scenarios that were run.
pub fn print(results: &Results) {
    let Some(siding) = results.peer(|peer| peer.class() == Class::Siding) else {
        return;
    };
    println!("| target | {} | bound | of | |", results.name(siding));
    println!("|---|--:|--:|---|---|");
    for target in targets() {
        let Target {
            scenario,
            figure,
            better,
            ..
        } = target;
        let Some(own) = results.median(scenario, figure, siding) else {
            continue;
        };
        let own = own.middle;
        let Some(bound) = target.bound(results, siding) else {
            println!(
                "| {scenario}: {figure} | {} | – | nobody here | |",
                shown(own)
            );
            continue;
        };
        let (sign, is_met) = match better {
            Better::More => ("≥", own >= bound.value),
            _ => ("≤", own <= bound.value),
        };
        println!(
            "| {scenario}: {figure} | {} | {sign} {} | {} | {} |",
            shown(own),
            shown(bound.value),
            bound.from,
            if is_met { "met" } else { "**missed**" }
        );
    }
}

impl Target {
    fn bound(&self, results: &Results, siding: usize) -> Option<Bound> {
        let factor = self.factor;
        let times = |bound: Bound| Bound {
            value: factor * bound.value,
            from: match factor == 1.0 {
                true => bound.from,
                false => format!("{factor} × {}", bound.from),
            },
        };
        match self.against {
            Against::Fixed => Some(Bound {
                value: factor,
                from: "the issue's number".to_owned(),
            }),
            Against::Own(figure) => Some(times(Bound {
                value: results.median(self.scenario, figure, siding)?.middle,
                from: figure.to_owned(),
            })),
            Against::Peer(name) => Some(times(self.of_peer(results, name)?)),
            Against::BestTunnel => Some(times(self.best_tunnel(results)?)),
            Against::BestTunnelOrDirect(of_direct) => {
                let tunnel = times(self.best_tunnel(results)?);
                let direct = self.of_peer(results, "direct").map(|direct| Bound {
                    value: of_direct * direct.value,
                    from: format!("{of_direct} × direct"),
                });
                let direct = direct.filter(|direct| direct.value > tunnel.value);
                Some(direct.unwrap_or(tunnel))
            }
        }
    }

    fn of_peer(&self, results: &Results, name: &str) -> Option<Bound> {
        let peer = results.peer(|peer| peer.name == name)?;
        Some(Bound {
            value: results.median(self.scenario, self.figure, peer)?.middle,
            from: name.to_owned(),
        })
    }

    /// The best tunnel, of those that are here and those that the baseline knows.
    fn best_tunnel(&self, results: &Results) -> Option<Bound> {
        let tunnels = TUNNELS.into_iter().enumerate();
        let bounds = tunnels.filter_map(|(index, name)| {
            self.of_peer(results, name)
                .or_else(|| self.of_absent(results, index))
        });
        let sign = match self.better {
            Better::More => -1.0,
            _ => 1.0,
        };
        bounds.min_by(|one, other| (sign * one.value).total_cmp(&(sign * other.value)))
    }

    fn of_absent(&self, results: &Results, tunnel: usize) -> Option<Bound> {
        let Baseline(_, _, chained, tunnels) = BASELINE
            .iter()
            .find(|baseline| (baseline.0, baseline.1) == (self.scenario, self.figure))?;
        let ratio = tunnels[tunnel] / chained;
        Some(Bound {
            value: ratio * self.of_peer(results, SCALE)?.value,
            from: format!("{} (absent: {} × {SCALE})", TUNNELS[tunnel], shown(ratio)),
        })
    }
}
