//! Which names are known, which are being looked up, and in which order to dial their addresses.
//!
//! It owns the cache and starts nothing: the caller asks the system when told so, and brings the
//! answer. It knows no sockets and reads no clock.
//!
//! Names are compared as they are given; the caller has brought them into one form (lower case,
//! without a trailing dot) and keeps literal addresses to itself.
//!
//! Invariants: a name is known or pending, never both; at most [`KNOWN_MAX`] are known and at most
//! [`PENDING_MAX`] pending, so that a user who asks for ever new names costs a fixed amount of memory.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    mem,
    net::IpAddr,
    rc::Rc,
    time::{Duration, Instant},
};

/// The cache of looked-up names.
#[derive(Debug, Default)]
pub struct Names {
    known: HashMap<Rc<str>, Known>,
    /// The known names, the first to expire first. The number tells names apart that expire together.
    expiry: BTreeMap<(Instant, u64), Rc<str>>,
    pending: HashSet<Box<str>>,
    /// Names that have become known, ever.
    resolved: u64,
}

/// What a look-up brought: addresses in the order of the system's preference, at least one, or why
/// there are none. Shared, for many streams may wait for one name.
pub type Resolved = Result<Rc<[IpAddr]>, Rc<str>>;

/// Where a name stands.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It was looked up a moment ago.
    Known(Resolved),
    /// The answer will come through [`Names::resolved`].
    Pending {
        /// The caller must ask the system for it now; otherwise that is under way.
        start: bool,
    },
    /// Too many names are being looked up.
    Busy,
}

#[derive(Debug)]
struct Known {
    result: Resolved,
    /// Its place in `expiry`.
    expires: (Instant, u64),
}

/// How long addresses are used without asking again. The system does not tell us the record's own
/// lifetime, so this is short enough for a fail-over by DNS, and long enough that a busy client asks
/// a few times a minute instead of once per connection.
pub const SUCCESS_TTL: Duration = Duration::from_secs(10);
/// How long a failure is. Short, because it is often a network that is just coming up; long enough
/// that a page with fifty broken links does not send fifty queries.
pub const FAILURE_TTL: Duration = Duration::from_secs(2);
/// Longest name there can be, in bytes (RFC 1035 §2.3.4: 255 octets on the wire).
pub const NAME_MAX: usize = 253;
/// Known names kept; above it the first to expire goes. A name and its addresses take about 300
/// bytes (at most 2 KiB, by a zone made for it), so this is 300 KiB.
pub const KNOWN_MAX: usize = 1024;
/// Look-ups under way at a time. With three threads and 5 s for a dead name server to time out, the
/// last of them would wait minutes: past any dial deadline, so more would only be late as well.
pub const PENDING_MAX: usize = 256;
/// Addresses kept of one name and family. More than [`DIAL_MAX`], because the caller may have to leave out those
/// that it must not dial; bounded, because whoever runs the zone chooses how many there are.
pub const ADDRESSES_MAX: usize = 32;
/// Addresses tried in one dial. They are tried a quarter of a second apart (RFC 8305 §8), so all of
/// them have begun within 2 s of a dial deadline of 10 s.
pub const DIAL_MAX: usize = 8;

impl Names {
    /// Nothing known.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for a name's addresses.
    pub fn lookup(&mut self, name: &str, now: Instant) -> Lookup {
        if !(1..=NAME_MAX).contains(&name.len()) {
            return Lookup::Known(Err("a host name has 1 to 253 characters".into()));
        }
        self.expire(now);
        if let Some(known) = self.known.get(name) {
            return Lookup::Known(known.result.clone());
        }
        if self.pending.contains(name) {
            return Lookup::Pending { start: false };
        }
        if self.pending.len() >= PENDING_MAX {
            return Lookup::Busy;
        }
        self.pending.insert(name.into());
        Lookup::Pending { start: true }
    }

    /// Takes the system's answer and gives it back in the form that is kept: without duplicates, cut
    /// to [`ADDRESSES_MAX`], and none at all being a failure. An answer that nobody waits for is not
    /// kept.
    ///
    /// # Errors
    /// Why the name has no address.
    pub fn resolved(
        &mut self,
        name: &str,
        result: Result<Vec<IpAddr>, String>,
        now: Instant,
    ) -> Resolved {
        let result: Resolved = match result {
            Ok(addresses) if addresses.is_empty() => Err("the name has no address".into()),
            Ok(addresses) => Ok(distinct(&addresses, ADDRESSES_MAX).into()),
            Err(reason) => Err(reason.into()),
        };
        if self.pending.remove(name) {
            self.keep(name, result.clone(), now);
        }
        result
    }

    /// Knows nothing any more; look-ups under way go on.
    pub fn forget(&mut self) {
        self.known.clear();
        self.expiry.clear();
    }

    /// Panics when the cache contradicts itself. For tests and the simulator; O(names).
    pub fn check_invariants(&self) {
        assert!(self.known.len() <= KNOWN_MAX, "the known names are bounded");
        assert!(
            self.pending.len() <= PENDING_MAX,
            "the pending names are bounded"
        );
        assert_eq!(
            self.known.len(),
            self.expiry.len(),
            "every known name expires once"
        );
        for (expires, name) in &self.expiry {
            let known = self.known.get(name).expect("only known names expire");
            assert_eq!(known.expires, *expires, "a name knows when it expires");
            assert!(
                !self.pending.contains(&**name),
                "a known name is not looked up"
            );
            if let Ok(addresses) = &known.result {
                let bounds = 1..=2 * ADDRESSES_MAX;
                assert!(bounds.contains(&addresses.len()), "addresses are bounded");
            }
        }
    }

    fn keep(&mut self, name: &str, result: Resolved, now: Instant) {
        self.expire(now);
        if self.known.len() >= KNOWN_MAX {
            self.forget_first();
        }
        let ttl = if result.is_ok() {
            SUCCESS_TTL
        } else {
            FAILURE_TTL
        };
        let expires = (now + ttl, self.resolved);
        self.resolved += 1;
        let name: Rc<str> = name.into();
        self.expiry.insert(expires, Rc::clone(&name));
        self.known.insert(name, Known { result, expires });
    }

    fn expire(&mut self, now: Instant) {
        while let Some((&(at, _), _)) = self.expiry.first_key_value()
            && at <= now
        {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, name)) = self.expiry.pop_first() {
            self.known.remove(&name);
        }
    }
}

/// The order in which to dial (RFC 8305 §4): the family that the system put first, then the families
/// in turn, each in the system's order, so that a broken family costs one attempt and not all of
/// them. Without duplicates, and at most [`DIAL_MAX`].
pub fn interleave(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let distinct = distinct(addresses, DIAL_MAX);
    let first_is_v6 = distinct.first().is_some_and(IpAddr::is_ipv6);
    let (turn, other): (Vec<_>, Vec<_>) = distinct
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let (mut turn, mut other) = (turn.into_iter(), other.into_iter());
    let mut order = Vec::new();
    // When one family has run out, the other goes on alone.
    while let Some(address) = turn.next().or_else(|| other.next())
        && order.len() < DIAL_MAX
    {
        order.push(address);
        mem::swap(&mut turn, &mut other);
    }
    order
}

/// The first of each address, at most `per_family` of each family. Takes time in proportion to the
/// list, however long the zone's owner made it: what is searched is only what was kept.
fn distinct(addresses: &[IpAddr], per_family: usize) -> Vec<IpAddr> {
    let mut kept: Vec<IpAddr> = Vec::new();
    for address in addresses {
        let family = kept
            .iter()
            .filter(|other| other.is_ipv6() == address.is_ipv6());
        if family.count() < per_family && !kept.contains(address) {
            kept.push(*address);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn addresses(list: &[&str]) -> Vec<IpAddr> {
        list.iter()
            .map(|text| text.parse().expect("an address"))
            .collect()
    }

    fn start(names: &mut Names, name: &str, now: Instant) {
        assert_eq!(names.lookup(name, now), Lookup::Pending { start: true });
        names.check_invariants();
    }

    #[test]
    fn a_name_is_looked_up_once_while_many_ask_for_it() {
        let now = Instant::now();
        let mut names = Names::new();
        start(&mut names, "a", now);
        assert_eq!(names.lookup("a", now), Lookup::Pending { start: false });
        let answer = names.resolved("a", Ok(addresses(&["192.0.2.1"])), now);
        names.check_invariants();
        assert_eq!(answer, Ok(addresses(&["192.0.2.1"]).into()));
        assert_eq!(names.lookup("a", now), Lookup::Known(answer));
        start(&mut names, "b", now);
    }

    #[test]
    fn addresses_are_known_for_ten_seconds_and_failures_for_two() {
        let now = Instant::now();
        let instant = Duration::from_nanos(1);
        for (result, ttl) in [
            (Ok(addresses(&["192.0.2.1"])), SUCCESS_TTL),
            (Err("no such name".to_owned()), FAILURE_TTL),
        ] {
            let mut names = Names::new();
            start(&mut names, "a", now);
            let answer = names.resolved("a", result, now);
            assert_eq!(
                names.lookup("a", now + ttl - instant),
                Lookup::Known(answer)
            );
            start(&mut names, "a", now + ttl);
        }
    }

    #[test]
    fn a_name_without_addresses_is_a_failure() {
        let now = Instant::now();
        let mut names = Names::new();
        start(&mut names, "a", now);
        assert!(names.resolved("a", Ok(vec![]), now).is_err());
        start(&mut names, "a", now + FAILURE_TTL);
    }

    #[test]
    fn an_answer_nobody_waits_for_is_handed_on_and_not_kept() {
        let now = Instant::now();
        let mut names = Names::new();
        assert!(
            names
                .resolved("a", Ok(addresses(&["192.0.2.1"])), now)
                .is_ok()
        );
        names.check_invariants();
        start(&mut names, "a", now);
    }

    #[test]
    fn too_many_look_ups_at_a_time_are_refused_until_one_ends() {
        let now = Instant::now();
        let mut names = Names::new();
        for number in 0..PENDING_MAX {
            start(&mut names, &number.to_string(), now);
        }
        assert_eq!(names.lookup("more", now), Lookup::Busy);
        assert_eq!(names.lookup("7", now), Lookup::Pending { start: false });
        let answer = names.resolved("7", Err("no such name".to_owned()), now);
        assert_eq!(names.lookup("7", now), Lookup::Known(answer));
        start(&mut names, "more", now);
    }

    #[test]
    fn of_too_many_known_names_the_first_to_expire_is_forgotten() {
        let begun = Instant::now();
        let mut names = Names::new();
        for number in 0..=KNOWN_MAX as u32 {
            let now = begun + Duration::from_millis(number.into());
            start(&mut names, &number.to_string(), now);
            assert!(
                names
                    .resolved(&number.to_string(), Ok(addresses(&["::1"])), now)
                    .is_ok()
            );
        }
        names.check_invariants();
        let now = begun + Duration::from_millis(KNOWN_MAX as u64);
        assert!(matches!(names.lookup("1", now), Lookup::Known(Ok(_))));
        start(&mut names, "0", now);
    }

    #[test]
    fn a_name_that_cannot_exist_is_refused_without_asking() {
        let now = Instant::now();
        let mut names = Names::new();
        let long = "a".repeat(NAME_MAX + 1);
        assert!(matches!(names.lookup(&long, now), Lookup::Known(Err(_))));
        assert!(matches!(names.lookup("", now), Lookup::Known(Err(_))));
        start(&mut names, &long[1..], now);
    }

    #[test]
    fn a_long_list_is_cut_in_each_family() {
        let now = Instant::now();
        let mut names = Names::new();
        let mut list: Vec<IpAddr> = (0..10_000u128)
            .map(|n| IpAddr::from(n.to_be_bytes()))
            .collect();
        list.extend(addresses(&["192.0.2.1", "192.0.2.1", "192.0.2.2"]));
        start(&mut names, "a", now);
        let kept = names
            .resolved("a", Ok(list.clone()), now)
            .expect("addresses");
        names.check_invariants();
        assert_eq!(kept[..ADDRESSES_MAX], list[..ADDRESSES_MAX]);
        assert_eq!(
            kept[ADDRESSES_MAX..],
            addresses(&["192.0.2.1", "192.0.2.2"])
        );
    }

    #[test]
    fn families_take_turns_and_the_preferred_one_begins() {
        for (given, order) in [
            (&[][..], &[][..]),
            (&["::1"], &["::1"]),
            (
                &["::1", "::2", "1.1.1.1", "2.2.2.2"],
                &["::1", "1.1.1.1", "::2", "2.2.2.2"],
            ),
            (
                &["1.1.1.1", "::1", "::2", "::3"],
                &["1.1.1.1", "::1", "::2", "::3"],
            ),
            (
                &["1.1.1.1", "2.2.2.2", "3.3.3.3", "::1"],
                &["1.1.1.1", "::1", "2.2.2.2", "3.3.3.3"],
            ),
            (
                &["::1", "::1", "1.1.1.1", "::1", "::2"],
                &["::1", "1.1.1.1", "::2"],
            ),
            (
                &[
                    "::1", "::2", "::3", "::4", "::5", "::6", "::7", "::8", "::9", "1.1.1.1",
                ],
                &["::1", "1.1.1.1", "::2", "::3", "::4", "::5", "::6", "::7"],
            ),
        ] {
            assert_eq!(interleave(&addresses(given)), addresses(order), "{given:?}");
        }
    }

    proptest! {
        #[test]
        fn an_order_to_dial_is_bounded_distinct_and_stays_when_asked_again(
            list in vec(prop_oneof![
                (0u8..12).prop_map(|n| IpAddr::from([192, 0, 2, n])),
                (0u128..12).prop_map(|n| IpAddr::from(n.to_be_bytes())),
            ], 0..40),
        ) {
            let order = interleave(&list);
            let set: HashSet<_> = order.iter().collect();
            let given: HashSet<_> = list.iter().collect();
            prop_assert_eq!(set.len(), order.len());
            prop_assert!(set.is_subset(&given));
            prop_assert_eq!(order.len(), given.len().min(DIAL_MAX));
            prop_assert_eq!(order.first(), list.first());
            prop_assert_eq!(interleave(&order), order);
        }

        #[test]
        fn the_cache_keeps_its_invariants_and_asks_only_for_what_it_does_not_know(
            steps in vec((0u8..6, 0u64..4_000, any::<bool>(), any::<bool>()), 1..200),
        ) {
            let mut names = Names::new();
            let mut now = Instant::now();
            let mut asked = HashSet::new();
            let mut known: HashMap<String, (Instant, bool)> = HashMap::new();
            for (name, millis, is_lookup, works) in steps {
                now += Duration::from_millis(millis / 4);
                let name = name.to_string();
                if is_lookup {
                    let fresh = known.get(&name).filter(|(until, _)| now < *until);
                    match names.lookup(&name, now) {
                        Lookup::Known(result) => {
                            prop_assert_eq!(fresh.map(|&(_, works)| works), Some(result.is_ok()));
                        }
                        Lookup::Pending { start } => {
                            prop_assert!(fresh.is_none());
                            prop_assert_eq!(start, asked.insert(name));
                        }
                        Lookup::Busy => prop_assert!(false, "six names are not many"),
                    }
                } else if asked.remove(&name) {
                    let result = if works { Ok(addresses(&["::1"])) } else { Err("no".to_owned()) };
                    prop_assert_eq!(names.resolved(&name, result, now).is_ok(), works);
                    let ttl = if works { SUCCESS_TTL } else { FAILURE_TTL };
                    known.insert(name, (now + ttl, works));
                }
                names.check_invariants();
            }
        }
    }
}
