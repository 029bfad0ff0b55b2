//! Child processes: what they said, what they hold, how they end.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Read, Write},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use super::{PATIENCE, eventually_within};

/// Lines of a log that are shown when its test fails.
const LINES_SHOWN: usize = 300;

/// A running program whose output is read, line by line, as it comes. Killed on drop.
pub struct Process {
    name: String,
    child: Child,
    log: Log,
}

/// The lines that a process has written so far, on standard output and standard error.
#[derive(Clone, Default)]
pub struct Log(Arc<(Mutex<Lines>, Condvar)>);

#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    /// Outputs that may still bring lines.
    open: usize,
}

/// How a program ended that was run to its end.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: Vec<u8>,
    /// All of its standard error, as text.
    pub stderr: String,
    /// From its start to its end.
    pub took: Duration,
}

impl Process {
    /// Starts a program without standard input.
    pub fn start(name: &str, command: &mut Command) -> Self {
        Self::start_with(name, command.stdin(Stdio::null()))
    }

    /// Starts a program with the standard input that the command has.
    pub fn start_with(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("starting {name}: {error}"));
        let log = Log::default();
        log.0.0.lock().expect("no holder panics").open = 2;
        log.follow(child.stdout.take().expect("it is piped"));
        log.follow(child.stderr.take().expect("it is piped"));
        Self {
            name: name.to_owned(),
            child,
            log,
        }
    }

    /// What it has said.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard input, once.
    pub fn stdin(&mut self) -> std::process::ChildStdin {
        self.child
            .stdin
            .take()
            .expect("it is piped and was not taken before")
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) {
        self.child.kill().expect("the child is ours");
        self.child.wait().expect("the child is ours");
    }

    /// `kill -TERM`.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// `kill -INT`: what Ctrl-C sends.
    pub fn interrupt(&self) {
        self.signal("INT");
    }

    /// `kill -STOP` or any other signal by its name.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.pid().to_string())
            .status()
            .expect("kill belongs to every system");
        assert!(status.success(), "kill -{name} {}", self.name);
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        self.wait_within(PATIENCE)
    }

    /// Waits for the end for at most `limit`.
    pub fn wait_within(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        eventually_within(limit, &what, || {
            self.child.try_wait().expect("the child is ours")
        })
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the child is ours").is_none()
    }

    /// Descriptors that it holds.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .expect("the process runs")
            .count()
    }

    /// Memory that is its alone, in bytes: what would be free again if it ended.
    pub fn private_bytes(&self) -> u64 {
        self.rollup("Private_")
    }

    /// Memory that it has written to, in bytes. Unlike [`private_bytes`](Self::private_bytes) it does
    /// not grow when another process of the same program ends, with which it shared the code.
    pub fn written_bytes(&self) -> u64 {
        self.rollup("Private_Dirty:")
    }

    fn rollup(&self, field: &str) -> u64 {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid()))
            .expect("the process runs");
        let lines = rollup.lines().filter(|line| line.starts_with(field));
        let kib = lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        kib.sum::<u64>() * 1024
    }

    /// Makes the present resident memory the largest that it ever was.
    pub fn forget_peak(&self) {
        // As proc(5) has it.
        fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").expect("the process is ours");
    }

    /// A figure of the process's status, of memory, in bytes.
    pub fn resident_bytes(&self, field: &str) -> u64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process runs");
        let line = status.lines().find(|line| line.starts_with(field));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        kib.expect("the status has this figure") * 1024
    }

    /// Processor time it has used, user and system, in clock ticks (a hundred a second).
    pub fn cpu_ticks(&self) -> u64 {
        let stat =
            fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("the process runs");
        // The name, in brackets, may hold anything; utime and stime are the 14th and 15th words.
        let (_, rest) = stat.rsplit_once(") ").expect("the name ends in a bracket");
        rest.split(' ')
            .skip(11)
            .take(2)
            .map(|word| word.parse::<u64>().expect("a number"))
            .sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended on its own, or been killed by its test.
        self.child.kill().ok();
        self.child.wait().ok();
        if thread::panicking() {
            self.log.wait_for_end();
            eprintln!("{}", self.log.shown(&self.name));
        }
    }
}

impl Log {
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
        let (lines, news) = &*self.0;
        let mut lines = lines.lock().expect("no holder panics");
        let failure = loop {
            let fits = |line: &&String| parts.iter().all(|part| line.contains(part));
            if let Some(line) = lines.lines.iter().skip(mark).filter(fits).nth(count - 1) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if lines.open == 0 {
                break "the process has ended and never said";
            }
            if left.is_zero() {
                break "not said in time";
            }
            lines = news.wait_timeout(lines, left).expect("no holder panics").0;
        };
        // Given back first: whoever shows the log of the failed test needs it.
        drop(lines);
        panic!("{failure}: {parts:?}");
    }

    /// How many lines there are: a place to wait from.
    pub fn mark(&self) -> usize {
        self.0.0.lock().expect("no holder panics").lines.len()
    }

    /// How many lines so far contain `part`.
    pub fn count(&self, part: &str) -> usize {
        self.lines()
            .iter()
            .filter(|line| line.contains(part))
            .count()
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.0.0.lock().expect("no holder panics").lines.clone()
    }

    /// All lines so far as one text.
    pub fn text(&self) -> String {
        self.lines().join("\n")
    }

    /// Waits until no further line can come.
    pub fn wait_for_end(&self) {
        let (lines, news) = &*self.0;
        let lines = lines.lock().expect("no holder panics");
        // A grandchild may hold the pipe open after the child has gone.
        let limit = Duration::from_secs(2);
        drop(news.wait_timeout_while(lines, limit, |lines| lines.open > 0));
    }

    fn follow(&self, output: impl Read + Send + 'static) {
        let log = self.clone();
        thread::spawn(move || {
            let (lines, news) = &*log.0;
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                lines.lock().expect("no holder panics").lines.push(line);
                news.notify_all();
            }
            lines.lock().expect("no holder panics").open -= 1;
            news.notify_all();
        });
    }

    fn shown(&self, name: &str) -> String {
        let lines = self.lines();
        let left_out = lines.len().saturating_sub(LINES_SHOWN);
        let mut text = format!("--- log of {name} ({left_out} lines left out)\n");
        for line in &lines[left_out..] {
            writeln!(text, "{line}").expect("a String takes everything");
        }
        text
    }
}

/// Runs a program to its end, feeding it `input`, for at most `limit`.
pub fn run(command: &mut Command, input: Vec<u8>, limit: Duration) -> Finished {
    let name = format!("{command:?}");
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("starting {name}: {error}"));
    let mut stdin = child.stdin.take().expect("it is piped");
    // A program that ends early leaves some of its input unread: that is its affair.
    let feed = thread::spawn(move || stdin.write_all(&input).ok());
    let stdout = drain(child.stdout.take().expect("it is piped"));
    let stderr = drain(child.stderr.take().expect("it is piped"));
    let mut process = Process {
        name: name.clone(),
        child,
        log: Log::default(),
    };
    let status = process.wait_within(limit);
    let took = start.elapsed();
    feed.join().expect("it does not panic");
    let stdout = stdout.join().expect("it does not panic");
    let stderr = stderr.join().expect("it does not panic");
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    Finished {
        status,
        stdout,
        stderr,
        took,
    }
}

impl Finished {
    /// Its standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Asserts that it ended with exit code 0.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert!(
            self.status.success(),
            "{}: {}{}",
            self.status,
            self.text(),
            self.stderr
        );
        self
    }
}

fn drain(mut output: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        // What was read before an error is still worth showing.
        output.read_to_end(&mut all).ok();
        all
    })
}
