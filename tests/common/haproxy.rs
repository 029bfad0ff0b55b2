//! HAProxy with a configuration of the test's own.

use std::{net::TcpStream, process::Command};

use super::{Process, Scratch, eventually, require};

/// A HAProxy of the current user, in the foreground.
pub struct Haproxy {
    /// The program.
    pub process: Process,
    _scratch: Scratch,
}

impl Haproxy {
    /// Starts one with these sections, `frontend` and `backend` or `listen`, and waits until it listens on
    /// `port` of loopback; `None` where HAProxy is not installed.
    pub fn start(port: u16, sections: &str) -> Option<Self> {
        let program = require("haproxy")?;
        let scratch = Scratch::new();
        let configuration = scratch.write(
            "haproxy.cfg",
            format!(
                "global\n\
                 \x20 maxconn 500\n\
                 defaults\n\
                 \x20 timeout connect 5s\n\
                 \x20 timeout client 60s\n\
                 \x20 timeout server 60s\n\
                 \x20 timeout tunnel 1h\n\
                 {sections}\n"
            ),
        );
        let mut command = Command::new(program);
        command.arg("-db").arg("-f").arg(configuration);
        let mut process = Process::start("haproxy", &mut command);
        eventually("HAProxy listens", || {
            assert!(
                process.is_running(),
                "HAProxy has ended: {}",
                process.log().text()
            );
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Some(Self {
            process,
            _scratch: scratch,
        })
    }
}
