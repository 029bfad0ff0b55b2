//! A status as a person likes to read it: a few lines, and a table for each sort of thing that there is.

use std::time::Duration;

use super::snapshot::{Status, StreamStatus};
use crate::readable::{many, size, span};

/// The whole page, which ends in a newline.
pub(super) fn of(status: &Status) -> String {
    let mut page = summary(status);
    let age = |seconds: f64| span(Duration::try_from_secs_f64(seconds).unwrap_or_default());
    let trip = |seconds: Option<f64>| seconds.map_or_else(|| "-".into(), age);

    let links = status.links.iter().map(|link| {
        let state = if link.draining { "draining" } else { "up" };
        vec![
            link.client.clone(),
            link.peer.clone(),
            state.into(),
            age(link.age_seconds),
            trip(link.round_trip_seconds),
            link.streams.to_string(),
            size(link.bytes_up),
            size(link.bytes_down),
        ]
    });
    let head = [
        "LINK",
        "peer",
        "state",
        ">age",
        ">round trip",
        ">streams",
        ">up",
        ">down",
    ];
    table(&mut page, &head, links, status.links.len());

    let proxies = status.proxies.iter().map(|proxy| {
        let users = proxy.users.map_or_else(|| "-".into(), |it| it.to_string());
        vec![
            proxy.kind.clone(),
            proxy.address.clone(),
            proxy.target.clone().unwrap_or_else(|| "-".into()),
            proxy.client.clone(),
            if proxy.link_up { "up" } else { "down" }.into(),
            users,
            proxy.streams.to_string(),
            size(proxy.bytes_up),
            size(proxy.bytes_down),
        ]
    });
    let head = [
        "PROXY", "address", "target", "client", "link", ">users", ">streams", ">up", ">down",
    ];
    table(&mut page, &head, proxies, status.proxies.len());

    let pools = status.pools.iter().map(|pool| {
        let (idle, in_use) = (pool.idle.to_string(), pool.in_use.to_string());
        vec![pool.target.clone(), idle, in_use]
    });
    let head = ["POOL", ">idle", ">in use"];
    table(&mut page, &head, pools, status.pools.len());

    let mut streams: Vec<&StreamStatus> = status.streams.iter().collect();
    streams.sort_by_key(|stream| std::cmp::Reverse(stream.bytes_up + stream.bytes_down));
    let rows = streams.into_iter().map(|stream| {
        vec![
            stream.user_id.clone(),
            stream.proxy_id.clone(),
            stream.state.clone(),
            age(stream.age_seconds),
            size(stream.bytes_up),
            size(stream.bytes_down),
        ]
    });
    let head = ["STREAM", "proxy", "state", ">age", ">up", ">down"];
    let all = status.streams.len() + status.streams_not_listed;
    table(&mut page, &head, rows, all);
    page
}

fn summary(status: &Status) -> String {
    let ready = match &status.not_ready {
        None => "ready".into(),
        Some(reason) => format!("not ready: {}", plain(reason)),
    };
    let up = Duration::try_from_secs_f64(status.uptime_seconds).unwrap_or_default();
    let users = match &*status.role {
        "server" => format!("{}, ", many(status.users as u64, "user")),
        _ => String::new(),
    };
    format!(
        "siding {} {}, up {}, {ready}\n{users}{} ({} opened), {} up, {} down, {} of {} undelivered\n",
        plain(&status.role),
        plain(&status.version),
        span(up),
        many(status.streams_open as u64, "stream"),
        status.streams_opened,
        size(status.bytes_up),
        size(status.bytes_down),
        size(status.undelivered_bytes as u64),
        size(status.undelivered_max as u64),
    )
}

/// Appends a table with the first rows of `all`, or nothing where there are none. A column whose name begins
/// with `>` stands on its right edge.
fn table(page: &mut String, head: &[&str], rows: impl Iterator<Item = Vec<String>>, all: usize) {
    let rows: Vec<Vec<String>> = rows
        .take(ROWS_MAX)
        .map(|row| row.iter().map(|cell| plain(cell)).collect())
        .collect();
    if rows.is_empty() {
        return;
    }
    let names: Vec<String> = head
        .iter()
        .map(|name| name.trim_start_matches('>').to_owned())
        .collect();
    let width = |column: usize| {
        let cells = rows.iter().chain([&names]).map(|row| &row[column]);
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    page.push('\n');
    for row in [&names].into_iter().chain(&rows) {
        let mut line = String::new();
        for ((cell, width), name) in row.iter().zip(&widths).zip(head) {
            let padded = if name.starts_with('>') {
                format!("{cell:>width$}  ")
            } else {
                format!("{cell:width$}  ")
            };
            line.push_str(&padded);
        }
        page.push_str(line.trim_end());
        page.push('\n');
    }
    if all > rows.len() {
        page.push_str(&format!("… and {} more\n", all - rows.len()));
    }
}

/// What a terminal may be shown of somebody else's words.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// Rows of a table: all of them fit on a screen that a person looks at.
const ROWS_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::snapshot::{LinkStatus, ProxyStatus};

    #[test]
    fn what_there_is_stands_in_its_table_and_what_is_not_has_none() {
        let streams = (0..30_u64).map(|number| StreamStatus {
            user_id: format!("user-1-{number}"),
            bytes_up: number,
            state: "open".into(),
            ..StreamStatus::default()
        });
        let status = Status {
            role: "server".into(),
            version: "0.1.0".into(),
            not_ready: Some("drain\x1b[31m".into()),
            users: 1,
            streams_open: 35,
            links: vec![LinkStatus {
                client: "edge-1".into(),
                peer: "192.0.2.7:4711".into(),
                round_trip_seconds: Some(0.0125),
                ..LinkStatus::default()
            }],
            proxies: vec![ProxyStatus {
                kind: "forward".into(),
                users: Some(1),
                ..ProxyStatus::default()
            }],
            streams: streams.collect(),
            streams_not_listed: 5,
            ..Status::default()
        };
        let page = of(&status);
        let lines: Vec<&str> = page.lines().collect();
        assert_eq!(
            lines[0],
            "siding server 0.1.0, up 0 µs, not ready: drain?[31m"
        );
        assert!(lines[1].starts_with("1 user, 35 streams (0 opened), 0 B up"));
        assert!(lines[3].starts_with("LINK    peer"), "{page}");
        assert!(lines[4].contains("12.5 ms"), "{page}");
        assert!(!page.contains("POOL"));
        let first = lines.iter().position(|line| line.starts_with("STREAM"));
        let first = first.expect("a table of streams");
        assert!(lines[first + 1].starts_with("user-1-29"), "the most first");
        assert_eq!(lines.last(), Some(&"… and 15 more"));
        assert!(lines.iter().all(|line| *line == line.trim_end()));
    }
}
