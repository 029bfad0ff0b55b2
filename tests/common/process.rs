//! Child processes: what they hold, how they end.

use std::{
    fs,
    io::{Read, Write},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{Log, PATIENCE, eventually_within};

/// A running program whose output is read, line by line, as it comes. Killed on drop.
pub struct Process {
    name: String,
    child: Child,
    log: Log,
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
        Self {
            name: name.to_owned(),
            log: Log::of(&mut child),
            child,
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

    /// Memory that it has written to, in bytes. Unlike all that is its alone, it does not grow when another
    /// process of the same program ends, with which it shared the code.
    pub fn written_bytes(&self) -> u64 {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid()))
            .expect("the process runs");
        let mut lines = rollup.lines();
        let line = lines.find(|line| line.starts_with("Private_Dirty:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        kib.expect("the kernel counts it") * 1024
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
