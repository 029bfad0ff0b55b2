//! Honest sessions that last for the whole siege: ssh to an echo of lines, or where OpenSSH is not
//! installed a raw echo. Each sends a line at a pace, and waits for it to come back.

use std::{
    io,
    net::Ipv4Addr,
    process::Child,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{common::pass, ground::Stage, talk::Talk};

/// How many there are.
const SESSIONS: usize = 20;

/// From one line of a session to its next.
const PACE: Duration = Duration::from_millis(100);

/// A session whose line has not come back by then has failed.
const DEADLINE: Duration = Duration::from_secs(10);

/// How long all of them may take to begin.
const BEGINNING: Duration = Duration::from_secs(60);

/// All of them.
pub struct Sessions {
    all: Vec<Session>,
}

/// What became of the sessions in a phase.
pub struct Lines {
    /// Sessions that go on.
    pub alive: usize,
    /// Sessions that were lost in this phase.
    pub failed: usize,
    /// How long each line took, the shortest first.
    pub took: Vec<Duration>,
}

struct Session {
    shared: Arc<Shared>,
    /// Of ssh.
    child: Option<Child>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    is_over: AtomicBool,
}

#[derive(Default)]
struct State {
    took: Vec<Duration>,
    /// When the line was sent that has not come back.
    waits_since: Option<Instant>,
    lines: usize,
    failure: Option<String>,
    is_counted: bool,
}

impl Sessions {
    /// Starts them, and waits until each has had a line back.
    pub fn start(stage: &Stage) -> Sessions {
        if stage.sshd.is_none() {
            println!("OpenSSH is not installed: sessions are raw echoes");
        }
        let all = (0..SESSIONS).map(|number| Session::start(number, stage));
        let sessions = Sessions { all: all.collect() };
        let deadline = Instant::now() + BEGINNING;
        let is_begun = |session: &Session| session.shared.state().lines > 0;
        while !sessions.all.iter().all(is_begun) {
            assert!(Instant::now() < deadline, "the sessions do not begin");
            pass(PACE);
        }
        sessions
    }

    /// A phase begins.
    pub fn begin(&self) {
        for session in &self.all {
            session.shared.state().took.clear();
        }
    }

    /// Fails sessions that have waited too long.
    pub fn look(&self) {
        for session in &self.all {
            let mut state = session.shared.state();
            if state
                .waits_since
                .is_some_and(|since| since.elapsed() > DEADLINE)
            {
                state.fail("a line did not come back in time");
            }
        }
    }

    /// The phase is over.
    pub fn end(&self) -> Lines {
        let mut lines = Lines {
            alive: 0,
            failed: 0,
            took: Vec::new(),
        };
        for session in &self.all {
            let mut state = session.shared.state();
            lines.took.append(&mut state.took);
            match state.failure {
                None => lines.alive += 1,
                Some(_) if state.is_counted => {}
                Some(_) => {
                    state.is_counted = true;
                    lines.failed += 1;
                }
            }
        }
        lines.took.sort_unstable();
        lines
    }

    /// The siege is over; what failed in it, in words.
    pub fn stop(self) -> Vec<String> {
        let mut failures = Vec::new();
        for (number, mut session) in self.all.into_iter().enumerate() {
            session.shared.is_over.store(true, Ordering::SeqCst);
            let failure = session.shared.state().failure.take();
            failures.extend(failure.map(|why| format!("session {number}: {why}")));
            if let Some(child) = &mut session.child {
                // It may have ended on its own, which is then one of the failures.
                child.kill().ok();
                child.wait().ok();
            }
            session.thread.join().expect("a session does not panic");
        }
        failures
    }
}

impl Session {
    fn start(number: usize, stage: &Stage) -> Session {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        // As users, each from an address of its own.
        let from = Ipv4Addr::new(127, 0, 2, number as u8 + 1);
        let (child, talk) = Talk::open(stage.sshd.as_ref(), from.into(), stage.session, &[]);
        Session {
            shared,
            child,
            thread: thread::spawn(move || converse(number, talk, &of_thread)),
        }
    }
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

impl State {
    fn fail(&mut self, why: &str) {
        self.waits_since = None;
        self.failure.get_or_insert_with(|| why.to_owned());
    }
}

fn converse(number: usize, talk: Talk, shared: &Shared) {
    if let Err(error) = lines(number, talk, shared)
        // The end of the siege ends sessions in the middle of a line.
        && !shared.is_over.load(Ordering::SeqCst)
    {
        shared.state().fail(&error.to_string());
    }
}

fn lines(number: usize, mut talk: Talk, shared: &Shared) -> io::Result<()> {
    for line in 0.. {
        if shared.is_over.load(Ordering::SeqCst) {
            break;
        }
        let start = Instant::now();
        if line > 0 {
            // The first one waits for ssh to log in.
            shared.state().waits_since = Some(start);
        }
        talk.echoes(&format!("line {line} of session {number}\n"))?;
        let mut state = shared.state();
        state.waits_since = None;
        state.lines += 1;
        state.took.push(start.elapsed());
        drop(state);
        pass(PACE);
    }
    Ok(())
}
