//! What the user of the demo sees on standard output.
//!
//! On a terminal the last line is the status, rewritten in place. Nothing here fails: whether anyone
//! still looks is no matter, and the demo runs on.

use std::{
    fmt::{self, Write as _},
    io::Write,
};

use super::{Status, origins::Addresses, roles::Listening};

/// Standard output, or a buffer in the tests.
pub(super) struct Screen<W> {
    out: W,
    live: bool,
}

impl<W: Write> Screen<W> {
    /// `live`: it is a terminal.
    pub fn new(live: bool, out: W) -> Screen<W> {
        Screen { out, live }
    }

    /// Whether there is a status line.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Prints what to try. Every command works as it is printed.
    pub fn commands(&mut self, origins: &Addresses, listening: &Listening) {
        let Listening {
            link,
            http,
            echo,
            forward,
            ssh,
        } = listening;
        let origin = origins.http;
        let mut text = format!(
            "siding demo: a server, a client linked to it by ws://{link}, and two origins\n\
             \n\
             \x20 HTTP through the tunnel, pooled    curl http://{http}/\n\
             \x20 ... a hundred megabytes of it      curl -o /dev/null http://{http}/bytes/100000000\n\
             \x20 ... by a forward proxy, pooled     curl -x http://{forward} http://{origin}/\n\
             \x20 ... by CONNECT, never pooled       curl -p -x http://{forward} http://{origin}/\n\
             \x20 raw TCP: an echo of what you type  nc {} {}\n",
            echo.ip(),
            echo.port(),
        );
        if let Some(ssh) = ssh {
            // ssh takes the user's own name by itself. Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "  ssh to this machine                ssh -p {} {}",
                ssh.port(),
                ssh.ip()
            );
        }
        text.push_str(
            "\nTry one twice: the page says which connection it came by. Ctrl-C ends it.\n",
        );
        if self.live {
            text.push('\n');
        }
        self.print(format_args!("{text}"));
    }

    /// Rewrites the status line, if there is one.
    pub fn status(&mut self, status: &Status) {
        if self.live {
            // The cursor goes back to the start, so that a log line overwrites the status instead of
            // continuing it.
            self.print(format_args!("\r{status}{CLEAR_TO_END}\r"));
        }
    }

    /// Says that the end was asked for, and what it waits for.
    pub fn stopping(&mut self, streams: usize) {
        if streams > 0 {
            self.clear();
            let streams = Count(streams as u64, "stream");
            self.print(format_args!(
                "stopping: {streams} may finish; Ctrl-C again ends at once\n"
            ));
        }
    }

    /// The last words.
    pub fn summary(&mut self, status: &Status) {
        self.clear();
        self.print(format_args!(
            "ended: {} by {} to targets, {} reused\n",
            Bytes(status.bytes),
            Count(status.dialled, "connection"),
            Count(status.reused, "time"),
        ));
    }

    /// Makes the line empty that may hold the status, and `^C` over it.
    fn clear(&mut self) {
        if self.live {
            self.print(format_args!("\r{CLEAR_TO_END}"));
        }
    }

    fn print(&mut self, text: fmt::Arguments<'_>) {
        let _ = self.out.write_fmt(text).and_then(|()| self.out.flush());
    }
}

/// ECMA-48 §8.3.41, erase in line.
const CLEAR_TO_END: &str = "\x1b[K";

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} open, {}, {} dialled, {} reused{}",
            Count(self.streams as u64, "stream"),
            Bytes(self.bytes),
            Count(self.dialled, "connection"),
            Count(self.reused, "time"),
            if self.linked { "" } else { ", link down" },
        )
    }
}

/// A number of things.
struct Count(u64, &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Count(number, thing) = self;
        let plural = if *number == 1 { "" } else { "s" };
        write!(f, "{number} {thing}{plural}")
    }
}

/// A number of bytes, to one decimal.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        // 1023.95 would be rounded up to the next unit's one.
        while value >= 1023.95 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        write!(f, "{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn shown(live: bool, show: impl FnOnce(&mut Screen<&mut Vec<u8>>)) -> String {
        let mut out = Vec::new();
        show(&mut Screen::new(live, &mut out));
        String::from_utf8(out).expect("text")
    }

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn commands(ssh: Option<SocketAddr>) -> String {
        let origins = Addresses {
            http: address(40001),
            echo: address(40002),
        };
        let listening = Listening {
            link: address(7000),
            http: address(8080),
            echo: address(10033),
            forward: address(3128),
            ssh,
        };
        shown(false, |screen| screen.commands(&origins, &listening))
    }

    #[test]
    fn commands_name_the_ports_that_are_open() {
        let text = commands(Some(address(10022)));
        for command in [
            "  curl http://127.0.0.1:8080/\n",
            "  curl -o /dev/null http://127.0.0.1:8080/bytes/100000000\n",
            "  curl -x http://127.0.0.1:3128 http://127.0.0.1:40001/\n",
            "  curl -p -x http://127.0.0.1:3128 http://127.0.0.1:40001/\n",
            "  nc 127.0.0.1 10033\n",
            "  ssh -p 10022 127.0.0.1\n",
        ] {
            assert!(text.contains(command), "{command:?} is not in {text}");
        }
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
    }

    #[test]
    fn commands_stand_in_one_column() {
        let text = commands(Some(address(10022)));
        let columns: Vec<usize> = text
            .lines()
            .filter(|line| line.starts_with("  "))
            .filter_map(|line| {
                ["  curl ", "  nc ", "  ssh -p"]
                    .iter()
                    .find_map(|c| line.find(c))
            })
            .collect();
        assert_eq!(columns.len(), 6, "{text}");
        assert!(columns.iter().all(|column| *column == columns[0]), "{text}");
    }

    #[test]
    fn ssh_is_offered_only_where_it_answers() {
        assert!(!commands(None).contains("ssh"));
    }

    #[test]
    fn the_status_is_one_line_that_is_rewritten() {
        let status = Status {
            linked: true,
            streams: 1,
            bytes: 3 << 20,
            dialled: 2,
            reused: 41,
        };
        assert_eq!(
            shown(true, |screen| screen.status(&status)),
            "\r1 stream open, 3.0 MiB, 2 connections dialled, 41 times reused\x1b[K\r"
        );
        let largest = Status {
            linked: false,
            streams: 100_000,
            bytes: u64::MAX,
            dialled: 1_000_000,
            reused: 1_000_000_000,
        };
        assert!(largest.to_string().ends_with(", link down"));
        assert!(largest.to_string().len() < 120);
    }

    #[test]
    fn without_a_terminal_nothing_is_rewritten() {
        let text = shown(false, |screen| {
            screen.status(&Status::default());
            screen.stopping(0);
            screen.stopping(2);
            screen.summary(&Status::default());
        });
        assert_eq!(
            text,
            "stopping: 2 streams may finish; Ctrl-C again ends at once\n\
             ended: 0 B by 0 connections to targets, 0 times reused\n"
        );
    }

    #[test]
    fn bytes_are_told_in_the_unit_that_fits() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (1 << 40, "1.0 TiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text, "{bytes}");
        }
    }
}
