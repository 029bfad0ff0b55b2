//! The threads that look up names, because `getaddrinfo` blocks.
//!
//! They are the one exception to the single thread, and share nothing with it but a queue of names
//! and a channel of answers. None is started before the first name is asked for, and no more than
//! there is work for: most clients dial literals and never have one.
//!
//! One thread is reserved for configured names. However slow the names of users are, the operator's
//! own find it free. (Configured names also use the other threads when those are idle.)

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, ToSocketAddrs},
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        mpsc::{self, Receiver, Sender},
    },
    thread,
};

use super::Bell;
use crate::reactor::net::{Event, NameClass};

/// The threads' employer. When it is dropped they end, each after the name it is busy with.
pub(super) struct Workers {
    shared: Arc<Shared>,
    /// Cloned for each thread.
    sender: Sender<Answer>,
    answers: Receiver<Answer>,
}

/// How a name is looked up; may block.
pub(super) type LookUp = fn(&str) -> Result<Vec<IpAddr>, String>;

struct Answer {
    name: Box<str>,
    result: Result<Vec<IpAddr>, String>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// The queue has changed.
    changed: Condvar,
    bell: Arc<Bell>,
    look_up: LookUp,
}

#[derive(Default)]
struct Queue {
    configured: VecDeque<Box<str>>,
    users: VecDeque<Box<str>>,
    reserved: Crew,
    ordinary: Crew,
    closed: bool,
}

/// How many threads of a post there are, and how many of them wait for work.
#[derive(Clone, Copy, Default)]
struct Crew {
    hired: usize,
    idle: usize,
}

/// Which names a thread takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Post {
    /// Configured ones.
    Reserved,
    /// All; configured ones first.
    Ordinary,
}

/// Threads for all names. A look-up mostly waits, so this is how many slow name servers it takes to
/// hold up other users' names, not a question of cores.
const ORDINARY: usize = 3;
/// Threads for configured names alone: their number is small and they are asked for seldom.
const RESERVED: usize = 1;
/// Names that may wait. The cache in front admits as many look-ups at a time; the limit here keeps
/// the queue bounded for any caller.
const QUEUE_MAX: usize = 256;
/// `getaddrinfo` keeps answers of up to 64 KiB on its stack (glibc), besides what NSS modules use;
/// the default of 2 MiB would be address space for nothing, which 32-bit routers are short of.
const STACK_BYTES: usize = 256 * 1024;

impl Workers {
    /// No thread yet.
    pub(super) fn new(bell: Arc<Bell>, look_up: LookUp) -> Self {
        let (sender, answers) = mpsc::channel();
        let shared = Shared {
            queue: Mutex::default(),
            changed: Condvar::new(),
            bell,
            look_up,
        };
        Self {
            shared: Arc::new(shared),
            sender,
            answers,
        }
    }

    /// Queues a name. Its answer comes with [`Workers::answers`] after the bell rang, always.
    pub(super) fn look_up(&mut self, name: &str, class: NameClass) {
        let mut queue = self.shared.queue();
        if queue.configured.len() + queue.users.len() >= QUEUE_MAX {
            drop(queue);
            return self.refuse(name.into(), "too many names are being looked up");
        }
        queue.of(class).push_back(name.into());
        if let Some(post) = queue.vacancy()
            && let Err(error) = self.hire(post, &mut queue)
            && !queue.is_staffed(class)
        {
            // Nobody would ever take it. It is the last one, for it was queued just now.
            queue.of(class).pop_back();
            drop(queue);
            return self.refuse(name.into(), &format!("no thread to look it up: {error}"));
        }
        drop(queue);
        // All, because which posts are idle is not known to the condition variable.
        self.shared.changed.notify_all();
    }

    /// The answers that have come in.
    pub(super) fn answers(&self) -> impl Iterator<Item = Event> {
        self.answers
            .try_iter()
            .map(|Answer { name, result }| Event::Resolved { name, result })
    }

    fn hire(&self, post: Post, queue: &mut Queue) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let sender = self.sender.clone();
        // The handle is dropped, and so the thread detached: a look-up cannot be interrupted, and
        // nobody should have to wait for it.
        thread::Builder::new()
            .name("resolver".into())
            .stack_size(STACK_BYTES)
            .spawn(move || shared.work(post, &sender))?;
        queue.crew(post).hired += 1;
        Ok(())
    }

    fn refuse(&self, name: Box<str>, reason: &str) {
        self.sender
            .send(Answer {
                name,
                result: Err(reason.into()),
            })
            .expect("the receiver is our own field");
        self.shared.bell.ring();
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let mut queue = self.shared.queue();
        queue.closed = true;
        drop(queue);
        self.shared.changed.notify_all();
    }
}

impl Shared {
    /// A thread's life.
    fn work(&self, post: Post, answers: &Sender<Answer>) {
        while let Some(name) = self.next(post) {
            let result = (self.look_up)(&name);
            if answers.send(Answer { name, result }).is_err() {
                return;
            }
            self.bell.ring();
        }
    }

    /// Waits for a name; `None` when there will be no more.
    fn next(&self, post: Post) -> Option<Box<str>> {
        let mut queue = self.queue();
        loop {
            if queue.closed {
                return None;
            }
            if let Some(name) = queue.take(post) {
                return Some(name);
            }
            queue.crew(post).idle += 1;
            queue = self.changed.wait(queue).expect(UNPOISONED);
            queue.crew(post).idle -= 1;
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect(UNPOISONED)
    }
}

const UNPOISONED: &str = "nothing that can panic is called while the queue is locked";

impl Queue {
    fn of(&mut self, class: NameClass) -> &mut VecDeque<Box<str>> {
        match class {
            NameClass::Configured => &mut self.configured,
            NameClass::Users => &mut self.users,
        }
    }

    fn crew(&mut self, post: Post) -> &mut Crew {
        match post {
            Post::Reserved => &mut self.reserved,
            Post::Ordinary => &mut self.ordinary,
        }
    }

    fn take(&mut self, post: Post) -> Option<Box<str>> {
        match post {
            Post::Reserved => self.configured.pop_front(),
            Post::Ordinary => self
                .configured
                .pop_front()
                .or_else(|| self.users.pop_front()),
        }
    }

    /// The post to fill for the names that wait, if the idle threads are too few for them.
    fn vacancy(&self) -> Option<Post> {
        let configured = self.configured.len();
        if configured > self.reserved.idle && self.reserved.hired < RESERVED {
            return Some(Post::Reserved);
        }
        let waiting = self.users.len() + configured.saturating_sub(self.reserved.idle);
        (waiting > self.ordinary.idle && self.ordinary.hired < ORDINARY).then_some(Post::Ordinary)
    }

    /// Whether some thread takes names of this class.
    fn is_staffed(&self, class: NameClass) -> bool {
        self.ordinary.hired > 0 || class == NameClass::Configured && self.reserved.hired > 0
    }
}

/// Asks the system: hosts file, DNS, whatever it is set up for.
pub(super) fn system(name: &str) -> Result<Vec<IpAddr>, String> {
    let addresses: Vec<IpAddr> = (name, 0)
        .to_socket_addrs()
        .map_err(|error| error.to_string())?
        .map(|address| address.ip())
        .collect();
    if addresses.is_empty() {
        return Err("the name has no address".into());
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use mio::{Poll, Waker};

    use super::*;

    /// While it is locked, names that begin with "slow" are not answered.
    static GATE: Mutex<()> = Mutex::new(());

    fn gated(name: &str) -> Result<Vec<IpAddr>, String> {
        if name.starts_with("slow") {
            drop(
                GATE.lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner),
            );
        }
        Err(name.to_owned())
    }

    fn workers(look_up: LookUp) -> (Workers, Poll) {
        let poll = Poll::new().expect("a selector");
        let waker = Waker::new(poll.registry(), mio::Token(0)).expect("a waker");
        let bell = Bell {
            waker,
            stops: 0.into(),
        };
        (Workers::new(Arc::new(bell), look_up), poll)
    }

    #[test]
    fn slow_names_of_users_hold_up_other_users_but_no_configured_name() {
        let (mut workers, _poll) = workers(gated);
        let gate = GATE
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        for number in 0..ORDINARY {
            workers.look_up(&format!("slow-{number}"), NameClass::Users);
        }
        workers.look_up("user", NameClass::Users);
        for _ in 0..10 {
            workers.look_up("configured", NameClass::Configured);
            let answer = workers.answers.recv().expect("an answer");
            assert_eq!(&*answer.name, "configured");
        }
        drop(gate);
        let rest: HashSet<_> = (0..=ORDINARY)
            .map(|_| workers.answers.recv().expect("an answer").name)
            .collect();
        assert!(rest.contains("user"));
        assert_eq!(rest.len(), ORDINARY + 1);
    }

    #[test]
    fn threads_are_started_as_needed_and_no_more_than_the_limits() {
        let (mut workers, _poll) = workers(|_| Ok(vec![]));
        workers.look_up("configured", NameClass::Configured);
        {
            let queue = workers.shared.queue();
            assert_eq!((queue.reserved.hired, queue.ordinary.hired), (1, 0));
        }
        for _ in 0..100 {
            workers.look_up("user", NameClass::Users);
        }
        for _ in 0..101 {
            workers.answers.recv().expect("an answer");
        }
        let queue = workers.shared.queue();
        assert_eq!(queue.reserved.hired, RESERVED);
        assert!((1..=ORDINARY).contains(&queue.ordinary.hired));
    }

    #[test]
    fn a_queue_that_is_full_refuses_at_once() {
        let (mut workers, _poll) = workers(gated);
        let gate = GATE
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        for _ in 0..ORDINARY + QUEUE_MAX + 1 {
            workers.look_up("slow", NameClass::Users);
        }
        let answer = workers.answers.recv().expect("an answer");
        assert_eq!(
            answer.result,
            Err("too many names are being looked up".to_owned())
        );
        drop(gate);
    }

    #[test]
    fn the_threads_end_with_their_employer() {
        let (mut workers, _poll) = workers(|_| Ok(vec![]));
        for class in [NameClass::Configured, NameClass::Users] {
            workers.look_up("name", class);
            workers.answers.recv().expect("an answer");
        }
        let (_, unused) = mpsc::channel();
        let answers = std::mem::replace(&mut workers.answers, unused);
        drop(workers);
        assert!(
            answers.recv().is_err(),
            "every sender is gone, and with it its thread"
        );
    }
}
