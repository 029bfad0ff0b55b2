//! A client whose server is hostile: it dials nothing but what it allows, stays within its memory, lives,
//! and comes back more and more slowly.

use crate::{common::Siding, ground::Ground};

/// Its ceiling, as it is told, and in bytes.
const MEMORY_MAX: &str = "16MiB";
const MEMORY_MAX_BYTES: u64 = 16 << 20;

/// A client of the hostile server.
pub struct Victim {
    client: Siding,
    rest: u64,
    most: u64,
}

impl Victim {
    /// Starts it before its server is there, and has a look at what it takes at rest.
    pub fn start(ground: &Ground) -> Victim {
        let url = format!("ws://{}", ground.server);
        let allowed = ground.allowed.to_string();
        let words = [
            "client", "--server", &url, "--id", "victim", "--allow", &allowed,
        ];
        let client = Siding::start(words.iter().chain(&["--memory-max", MEMORY_MAX]));
        client.log().wait_for(", again in ");
        let rest = client.written_bytes();
        Victim {
            client,
            rest,
            most: rest,
        }
    }

    /// Looks at what would not be known afterwards.
    pub fn look(&mut self) {
        if self.client.is_running() {
            self.most = self.most.max(self.client.written_bytes());
        }
    }

    /// The attack is over: what it has done, in words; nothing, where the client has stood it.
    pub fn end(mut self) -> Vec<String> {
        let mut faults = Vec::new();
        if !self.client.is_running() {
            faults.push(format!(
                "the client has ended: {}",
                self.client.log().text()
            ));
            return faults;
        }
        let grown = self.most - self.rest;
        eprintln!("the victim has grown by {} KiB", grown >> 10);
        if grown > MEMORY_MAX_BYTES {
            faults.push(format!("the client has grown by {} KiB", grown >> 10));
        }
        faults
    }
}
