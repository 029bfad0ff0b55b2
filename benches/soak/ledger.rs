//! What became of everything that users did, and whether a cut of the link excuses it.
//!
//! A link is out from just before its cut until both sides have said that they are linked again. What
//! failed and was under way at some moment of that may fail; it may not bring wrong bytes, nor an answer
//! that no cut explains.

use std::{
    collections::{BTreeMap, HashSet},
    io::{self, ErrorKind},
    mem,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// Failures that are told in words.
const TOLD: usize = 30;

/// The counts, for all threads.
#[derive(Default)]
pub struct Ledger {
    tally: Mutex<Tally>,
    outages: Mutex<Vec<Outage>>,
    /// The POSTs that origins have seen, by their numbers.
    posted: Mutex<HashSet<u64>>,
    sessions: AtomicUsize,
    numbers: AtomicUsize,
    is_over: AtomicBool,
    is_interrupted: Arc<AtomicBool>,
}

/// What is done: its name, whether it is an HTTP request, and whether its time is part of the quantiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deed {
    /// For people.
    pub name: &'static str,
    /// Whether it counts as a request.
    pub is_request: bool,
    /// Whether how long it takes is siding's doing, and not its user's.
    pub is_timed: bool,
}

/// What became of the deeds of some time.
#[derive(Default)]
pub struct Tally {
    /// By deed.
    pub deeds: BTreeMap<Deed, Count>,
    /// How long those took that no cut and no pause has disturbed.
    pub took: Vec<Duration>,
    /// Links cut, and links paused.
    pub cuts: usize,
    /// Links that stood still for a moment.
    pub pauses: usize,
    failures: Vec<String>,
}

/// How often a deed ended how.
#[derive(Clone, Copy, Default)]
pub struct Count {
    /// All of it, right to the byte.
    pub ok: usize,
    /// It failed, and its link was cut meanwhile.
    pub cut: usize,
    /// It failed.
    pub failed: usize,
}

struct Outage {
    end: Option<Instant>,
    /// Whether links are lost, and do not only stand still.
    is_cut: bool,
}

/// Has threads end, even if the one that holds it panics.
pub struct Over<'a>(pub &'a Ledger);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Ledger {
    /// The flag that ends it all, for signals.
    pub fn interruption(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_interrupted)
    }

    /// Whether a signal has ended it.
    pub fn is_interrupted(&self) -> bool {
        self.is_interrupted.load(Ordering::SeqCst)
    }

    /// A load begins.
    pub fn begin(&self) {
        self.is_over.store(false, Ordering::SeqCst);
    }

    /// All are to leave.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst) || self.is_interrupted()
    }

    /// A number that nothing else has.
    pub fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) as u64
    }

    /// The link is about to be cut, or to be paused.
    pub fn outage_begins(&self, is_cut: bool) {
        let mut tally = self.tally();
        match is_cut {
            true => tally.cuts += 1,
            false => tally.pauses += 1,
        }
        drop(tally);
        self.outages().push(Outage { end: None, is_cut });
    }

    /// Both sides are linked again.
    pub fn outage_ends(&self) {
        let mut outages = self.outages();
        let last = outages.last_mut().expect("it has begun");
        last.end = Some(Instant::now());
    }

    /// Whether the link is out.
    pub fn is_out(&self) -> bool {
        let outages = self.outages();
        outages
            .last()
            .is_some_and(|last| last.is_cut && last.end.is_none())
    }

    /// Enters what became of something that began then and is over; whether it went well.
    pub fn enter(&self, deed: Deed, began: Instant, done: io::Result<()>) -> bool {
        // What a signal ends is nobody's failure.
        if self.is_interrupted() {
            return done.is_ok();
        }
        let (is_cut, is_disturbed) = self.met(began);
        let mut tally = self.tally();
        let count = tally.deeds.entry(deed).or_default();
        let is_ok = done.is_ok();
        match done {
            Ok(()) => {
                count.ok += 1;
                if deed.is_timed && !is_disturbed {
                    tally.took.push(began.elapsed());
                }
            }
            // Whatever happens to the link, no byte may be another.
            Err(error) if is_cut && error.kind() != ErrorKind::InvalidData => count.cut += 1,
            Err(error) => {
                count.failed += 1;
                tally.fail(format!("{}: {error}", deed.name));
            }
        }
        is_ok
    }

    /// Something is not as it should be that is nobody's deed.
    pub fn fault(&self, fault: String) {
        self.tally().fail(fault);
    }

    /// An origin has got a POST: it may not come twice.
    pub fn posted(&self, number: u64) {
        if !self.posted.lock().expect("no holder panics").insert(number) {
            self.fault(format!("POST {number} was repeated"));
        }
    }

    /// A session is there, or has ended.
    pub fn sessions_change(&self, is_there: bool) {
        match is_there {
            true => self.sessions.fetch_add(1, Ordering::SeqCst),
            false => self.sessions.fetch_sub(1, Ordering::SeqCst),
        };
    }

    /// Sessions that are there.
    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::SeqCst)
    }

    /// What has happened since this was last asked.
    pub fn take(&self) -> Tally {
        let mut tally = self.tally();
        let failures = mem::take(&mut tally.failures);
        let taken = mem::take(&mut *tally);
        tally.failures = failures;
        taken
    }

    /// What failed, and no cut was to blame, in words.
    pub fn failures(&self) -> Vec<String> {
        self.tally().failures.clone()
    }

    /// Whether since then the link was cut, and whether it was cut or paused.
    fn met(&self, began: Instant) -> (bool, bool) {
        let outages = self.outages();
        // What is entered is over now: no outage began later.
        let met = outages
            .iter()
            .rev()
            .take_while(|outage| outage.end.is_none_or(|end| end >= began));
        met.fold((false, false), |(is_cut, _), outage| {
            (is_cut || outage.is_cut, true)
        })
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().expect("no holder panics")
    }

    fn outages(&self) -> MutexGuard<'_, Vec<Outage>> {
        self.outages.lock().expect("no holder panics")
    }
}

impl Tally {
    /// Adds what happened later.
    pub fn add(&mut self, later: &Tally) {
        for (deed, count) in &later.deeds {
            let sum = self.deeds.entry(*deed).or_default();
            sum.ok += count.ok;
            sum.cut += count.cut;
            sum.failed += count.failed;
        }
        self.cuts += later.cuts;
        self.pauses += later.pauses;
    }

    /// Requests that went well.
    pub fn requests(&self) -> usize {
        let requests = self.deeds.iter().filter(|(deed, _)| deed.is_request);
        requests.map(|(_, count)| count.ok).sum()
    }

    /// Everything together.
    pub fn all(&self) -> Count {
        let mut all = Count::default();
        for count in self.deeds.values() {
            all.ok += count.ok;
            all.cut += count.cut;
            all.failed += count.failed;
        }
        all
    }

    fn fail(&mut self, why: String) {
        if self.failures.len() < TOLD {
            eprintln!("{why}");
            self.failures.push(why);
        }
    }
}
