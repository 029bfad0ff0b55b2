//! What a child process has said, line by line.
//!
//! Whoever looks reads first what waits in the pipes. So what a process has said before it did what a test has
//! just seen is among the lines, however late the thread is that follows them.

use std::{
    fmt::Write as _,
    io::{ErrorKind, Read},
    process::Child,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, unix::pipe::Receiver};

use super::PATIENCE;

/// Lines of a log that are shown when its test fails.
const LINES_SHOWN: usize = 300;

/// The lines that a process has written so far, on standard output and standard error.
#[derive(Clone, Default)]
pub struct Log(Arc<(Mutex<Said>, Condvar)>);

#[derive(Default)]
struct Said {
    lines: Vec<String>,
    outputs: Vec<Output>,
}

struct Output {
    /// Read without waiting.
    pipe: Receiver,
    /// The line that has not ended.
    line: Vec<u8>,
    is_over: bool,
}

impl Log {
    /// Follows what a child says from now on.
    pub fn of(child: &mut Child) -> Log {
        let stdout = Receiver::from(child.stdout.take().expect("it is piped"));
        let stderr = Receiver::from(child.stderr.take().expect("it is piped"));
        let outputs = [stdout, stderr].map(Output::new).into();
        let lines = Vec::new();
        let log = Log(Arc::new((
            Mutex::new(Said { lines, outputs }),
            Condvar::new(),
        )));
        let mut poll = Poll::new().expect("a selector");
        for output in &mut log.look().outputs {
            poll.registry()
                .register(&mut output.pipe, Token(0), Interest::READABLE)
                .expect("a pipe can be waited for");
        }
        let following = log.clone();
        thread::spawn(move || {
            let mut events = Events::with_capacity(2);
            while !following.look().is_over() {
                // Interrupted or not, what there is is read.
                poll.poll(&mut events, None).ok();
            }
        });
        log
    }

    /// Waits for a line that contains `part`.
    pub fn wait_for(&self, part: &str) -> String {
        self.wait_for_since(0, part)
    }

    /// Waits for a line that contains `part` and is not among the first `mark` lines.
    ///
    /// # Panics
    /// When it does not come, or the process ends without it.
    pub fn wait_for_since(&self, mark: usize, part: &str) -> String {
        self.wait_for_all_of(mark, &[part], PATIENCE)
    }

    /// Waits for a line that contains every one of `parts` and comes after the first `mark`.
    pub fn wait_for_all_of(&self, mark: usize, parts: &[&str], limit: Duration) -> String {
        self.wait_for_lines(1, mark, parts, limit)
    }

    /// Waits until `count` lines contain `part`: what a process did is known before its log is read.
    pub fn wait_for_count(&self, count: usize, part: &str) {
        self.wait_for_lines(count, 0, &[part], PATIENCE);
    }

    /// Waits for the line that is the `count`th of those that contain `parts` after the first `mark`.
    fn wait_for_lines(&self, count: usize, mark: usize, parts: &[&str], limit: Duration) -> String {
        let deadline = Instant::now() + limit;
        let mut said = self.look();
        let failure = loop {
            let fits = |line: &&String| parts.iter().all(|part| line.contains(part));
            if let Some(line) = said.lines.iter().skip(mark).filter(fits).nth(count - 1) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if said.is_over() {
                break "the process has ended and never said";
            }
            if left.is_zero() {
                break "not said in time";
            }
            said = self
                .0
                .1
                .wait_timeout(said, left)
                .expect("no holder panics")
                .0;
        };
        // Given back first: whoever shows the log of the failed test needs it.
        drop(said);
        panic!("{failure}: {parts:?}");
    }

    /// How many lines there are: a place to wait from.
    pub fn mark(&self) -> usize {
        self.look().lines.len()
    }

    /// How many lines so far contain `part`.
    pub fn count(&self, part: &str) -> usize {
        let said = self.look();
        said.lines.iter().filter(|line| line.contains(part)).count()
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.look().lines.clone()
    }

    /// All lines so far as one text.
    pub fn text(&self) -> String {
        self.look().lines.join("\n")
    }

    /// Waits until no further line can come.
    pub fn wait_for_end(&self) {
        // A grandchild may hold the pipe open after the child has gone.
        let limit = Duration::from_secs(2);
        let waits = |said: &mut Said| !said.is_over();
        drop(self.0.1.wait_timeout_while(self.look(), limit, waits));
    }

    /// The last lines, as they are shown where a test has failed.
    pub fn shown(&self, name: &str) -> String {
        let lines = self.lines();
        let left_out = lines.len().saturating_sub(LINES_SHOWN);
        let mut text = format!("--- log of {name} ({left_out} lines left out)\n");
        for line in &lines[left_out..] {
            writeln!(text, "{line}").expect("a String takes everything");
        }
        text
    }

    /// All that was said until now.
    fn look(&self) -> MutexGuard<'_, Said> {
        let (said, news) = &*self.0;
        let mut said = said.lock().expect("no holder panics");
        if said.read() {
            news.notify_all();
        }
        said
    }
}

impl Said {
    /// Reads what there is; whether that was anything.
    fn read(&mut self) -> bool {
        let outputs = self.outputs.iter_mut();
        outputs.fold(false, |news, output| output.read(&mut self.lines) | news)
    }

    fn is_over(&self) -> bool {
        self.outputs.iter().all(|output| output.is_over)
    }
}

impl Output {
    fn new(pipe: Receiver) -> Output {
        pipe.set_nonblocking(true).expect("it is ours alone");
        Output {
            pipe,
            line: Vec::new(),
            is_over: false,
        }
    }

    /// Reads what there is, to its end if that has come; whether that was anything.
    fn read(&mut self, lines: &mut Vec<String>) -> bool {
        let mut buffer = [0; 16 * 1024];
        let mut news = false;
        while !self.is_over {
            let read = match self.pipe.read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read.unwrap_or(0),
            };
            news = true;
            self.is_over = read == 0;
            for byte in &buffer[..read] {
                match byte {
                    b'\n' => lines.push(self.take_line()),
                    _ => self.line.push(*byte),
                }
            }
            if self.is_over && !self.line.is_empty() {
                lines.push(self.take_line());
            }
        }
        news
    }

    fn take_line(&mut self) -> String {
        let line = std::mem::take(&mut self.line);
        String::from_utf8_lossy(&line).trim_end().to_owned()
    }
}
