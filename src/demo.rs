//! Both roles and two small origins in one process, on loopback, to try siding with.
//!
//! ```text
//!   you --> server =(a WebSocket on a real socket)= client --> origins: HTTP, TCP echo
//! ```
//!
//! - `part`: one thread with an event loop; how it begins and ends.
//! - `roles`: what the server and the client of the demo are told, and how their threads run.
//! - `origins`: what there is to reach.
//! - `screen`: what the user sees.
//!
//! This file joins them. Its thread sleeps on one channel, to which signals, ends of threads and
//! changes of the status come; it looks at nothing by the clock, so an idle demo costs nothing.
//! Threads share only that channel and a `Board`: each role keeps its own world.

mod origins;
mod part;
mod roles;
mod screen;

use std::{
    io::{self, IsTerminal, Stdout},
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::{Handle, Signals},
};

use self::{
    origins::{Addresses, Origins},
    part::Part,
    roles::{Listening, Plan},
    screen::Screen,
};

/// Runs the demo until the operator ends it.
///
/// # Errors
/// A thread, a listener or the signal handlers could not be had, or a role failed; every thread has
/// ended by then.
pub fn run() -> Result<(), String> {
    let (events, inbox) = mpsc::channel();
    let _interrupts = Interrupts::forward(events.clone())?;
    let (origins, addresses) = Part::start("origins", &events, Origins::serve)?;
    let plan = Plan::new(addresses)?;
    let of_server = plan.clone();
    let (server, listening) = Part::start("server", &events, move |started| {
        roles::server(&of_server, started)
    })?;
    let board = Arc::new(Board::default());
    let reports = Reports::new(board.clone(), events.clone());
    let link = listening.link;
    let (client, ()) = Part::start("client", &events, move |started| {
        roles::client(&plan, link, reports, started)
    })?;
    let stdout = io::stdout();
    Demo {
        parts: [server, client, origins],
        addresses,
        listening,
        board,
        status: Status::default(),
        screen: Screen::new(stdout.is_terminal(), stdout),
        introduced: false,
        stage: Stage::Running,
        failure: None,
    }
    .watch(&inbox)
}

/// Where everything listens: nothing of the demo is reachable from outside.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Something that the main thread must see to.
enum Event {
    /// There is a newer status.
    Changed,
    /// The operator asks to end.
    Stop,
    /// A part's thread is about to end.
    Ended(&'static str),
}

/// What the demo is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Status {
    linked: bool,
    /// Streams open.
    streams: usize,
    /// Payload bytes carried, both ways.
    bytes: u64,
    /// Connections to targets.
    dialled: u64,
    /// Exchanges on a connection from the pool.
    reused: u64,
}

/// What the main thread and the client's look at.
#[derive(Default)]
struct Board {
    /// The newest status, until somebody has looked at it.
    latest: Mutex<Option<Status>>,
    /// The demo was asked to end.
    stopping: AtomicBool,
}

impl Board {
    /// Whether the status before was looked at, so that somebody waits to hear of this one.
    fn put(&self, status: Status) -> bool {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.replace(status).is_none()
    }

    fn take(&self) -> Option<Status> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.take()
    }
}

/// The client's end of the [`Board`]. However fast the status changes, at most one event waits.
struct Reports {
    board: Arc<Board>,
    events: Sender<Event>,
    last: Status,
}

impl Reports {
    fn new(board: Arc<Board>, events: Sender<Event>) -> Reports {
        Reports {
            board,
            events,
            last: Status::default(),
        }
    }

    fn report(&mut self, status: Status) {
        if status != self.last {
            self.last = status;
            if self.board.put(status) {
                // Nobody listens any more when the demo is over.
                let _ = self.events.send(Event::Changed);
            }
        }
    }

    /// Whether the demo ends, so that a link that is lost is not to be dialled again.
    fn is_stopping(&self) -> bool {
        self.board.stopping.load(Ordering::Acquire)
    }
}

/// The running demo.
struct Demo {
    /// From the users inwards, which is the order in which they end.
    parts: [Part; 3],
    addresses: Addresses,
    listening: Listening,
    board: Arc<Board>,
    /// The last status seen.
    status: Status,
    screen: Screen<Stdout>,
    /// The commands were printed.
    introduced: bool,
    stage: Stage,
    failure: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Running,
    /// Asked to stop: what is under way may finish.
    Draining,
    /// Asked twice, or something failed.
    Ending,
}

impl Demo {
    fn watch(mut self, inbox: &Receiver<Event>) -> Result<(), String> {
        let mut shown = None;
        // When a change is to be shown that was not yet.
        let mut due: Option<Instant> = None;
        while !self.is_over() {
            let event = match due {
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => inbox.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match event {
                Ok(Event::Changed) if !self.introduced => self.introduce(),
                Ok(Event::Changed) => {
                    // Where no line is rewritten, the status is only looked at in the end.
                    if self.screen.is_live() && due.is_none() {
                        let now = Instant::now();
                        due = Some(shown.map_or(now, |at: Instant| now.max(at + STATUS_EVERY)));
                    }
                }
                Ok(Event::Stop) => self.stop(),
                Ok(Event::Ended(name)) => self.part_ended(name),
                Err(RecvTimeoutError::Timeout) => {
                    self.look();
                    self.screen.status(&self.status);
                    shown = Some(Instant::now());
                    due = None;
                }
                // The signals' thread has a sender: without it, nobody could end us.
                Err(RecvTimeoutError::Disconnected) => self.end(),
            }
        }
        self.look();
        self.screen.summary(&self.status);
        self.failure.map_or(Ok(()), Err)
    }

    /// Prints what to try, once it works.
    fn introduce(&mut self) {
        self.look();
        if self.status.linked {
            self.introduced = true;
            self.screen.commands(&self.addresses, &self.listening);
            self.screen.status(&self.status);
        }
    }

    fn look(&mut self) {
        if let Some(status) = self.board.take() {
            self.status = status;
        }
    }

    fn stop(&mut self) {
        if self.stage != Stage::Running {
            return self.end();
        }
        self.stage = Stage::Draining;
        self.look();
        self.screen.stopping(self.status.streams);
        self.board.stopping.store(true, Ordering::Release);
        self.stop_next();
    }

    /// Stops the outermost part that still runs. Each ends when the one before it has: so nobody's
    /// last bytes are on their way through a part that is gone.
    fn stop_next(&mut self) {
        if let Some(part) = self.parts.iter_mut().find(|part| !part.is_over()) {
            part.stop();
        }
    }

    /// Ends everything at once.
    fn end(&mut self) {
        self.stage = Stage::Ending;
        self.board.stopping.store(true, Ordering::Release);
        // From inside: a client that is over does not miss its server.
        for part in self.parts.iter().rev() {
            part.stop_at_once();
        }
    }

    fn part_ended(&mut self, name: &str) {
        let Some(part) = self.parts.iter_mut().find(|part| part.name() == name) else {
            return;
        };
        match part.join() {
            // Nothing works any more without it.
            Ok(()) if self.stage == Stage::Running => {
                self.failure = Some(format!("{name}: ended unasked"));
                self.end();
            }
            Ok(()) => self.stop_next(),
            Err(error) => {
                self.failure.get_or_insert(error);
                self.end();
            }
        }
    }

    fn is_over(&self) -> bool {
        self.parts.iter().all(Part::is_over)
    }
}

/// How often the status line is rewritten while something changes: an eye follows, a terminal far
/// away is not flooded.
const STATUS_EVERY: Duration = Duration::from_millis(500);

/// The thread that turns SIGINT and SIGTERM into [`Event::Stop`], as long as this lives.
struct Interrupts {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Interrupts {
    fn forward(events: Sender<Event>) -> Result<Interrupts, String> {
        let failed = |error| format!("signal handlers: {error}");
        let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
        let handle = signals.handle();
        let thread = thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                for _ in signals.forever() {
                    if events.send(Event::Stop).is_err() {
                        return;
                    }
                }
            })
            .map_err(failed)?;
        Ok(Interrupts {
            handle,
            thread: Some(thread),
        })
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            // It cannot fail; and if it did, there is nobody to tell.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_that_nobody_looked_at_is_told_of_once() {
        let (events, inbox) = mpsc::channel();
        let board = Arc::new(Board::default());
        let mut reports = Reports::new(board.clone(), events);
        let status = |streams| Status {
            streams,
            ..Status::default()
        };

        reports.report(status(0));
        assert!(inbox.try_recv().is_err(), "nothing has changed");

        reports.report(status(1));
        reports.report(status(2));
        reports.report(status(2));
        assert_eq!(inbox.try_iter().count(), 1);
        assert_eq!(board.take(), Some(status(2)));
        assert_eq!(board.take(), None);

        reports.report(status(3));
        assert_eq!(inbox.try_iter().count(), 1);
        assert_eq!(board.take(), Some(status(3)));
    }
}
