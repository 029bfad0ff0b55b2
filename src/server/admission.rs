//! How many users there may be: in all, of each proxy, of each client, of each source, and how fast they come.
//!
//! A user takes a place when it is accepted; [`Fronts`](super::fronts::table::Fronts), which owns the places,
//! gives each back when its connection is closed. Whoever is over a limit is refused, which is counted, and said at most
//! once a second.
//!
//! Where a user comes from is a question of its own, [`Admission::seat`]: it may be answered later than the rest,
//! where a proxy in front has to tell of it.
//!
//! It knows no socket and no proxy, only their numbers: a proxy's count is an account of its own, which outlives
//! the proxy while it has users, so that a later tenant of the slot begins at none.

use std::{
    array,
    collections::HashMap,
    fmt, mem,
    net::IpAddr,
    time::{Duration, Instant},
};

use slab::Slab;

use super::sources::{Bucket, Excess, Seat, Sources};
use crate::{
    config::{ClientId, ServerLimits},
    refusals::Refusals,
};

/// All places there are, and who has them.
#[derive(Debug)]
pub(super) struct Admission {
    connections_max: usize,
    client_max: usize,
    taken: usize,
    accounts: Slab<Account>,
    /// The accounts of the proxies that there are, by their slots.
    of_proxies: HashMap<u32, u32>,
    clients: Slab<OfClient>,
    by_client: HashMap<ClientId, u32>,
    sources: Sources,
    refused: [Refusals; Full::KINDS],
    answers: Bucket,
}

/// The users of one proxy.
#[derive(Debug)]
struct Account {
    users: usize,
    client: u32,
    /// Its proxy is there.
    open: bool,
}

/// The users of one client.
#[derive(Debug)]
struct OfClient {
    id: ClientId,
    users: usize,
    accounts: usize,
}

/// The place of one user. It is given back to [`Admission::release`], once.
#[derive(Debug)]
#[must_use]
pub(super) struct Place {
    account: u32,
    seat: Seat,
}

/// Why a user is not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Full {
    /// There are as many users as may be.
    All,
    /// The proxy has as many as it may.
    Proxy,
    /// The client's proxies have.
    Client,
    /// The source has.
    Source,
    /// The source comes too fast: to come back after this time.
    Rate(Duration),
}

impl Admission {
    pub fn new(limits: &ServerLimits, now: Instant) -> Admission {
        Admission {
            connections_max: limits.connections,
            client_max: limits.connections_per_client,
            taken: 0,
            accounts: Slab::new(),
            of_proxies: HashMap::new(),
            clients: Slab::new(),
            by_client: HashMap::new(),
            sources: Sources::new(limits.connections_per_source, limits.rate_per_source),
            refused: Default::default(),
            answers: Bucket::full(now),
        }
    }

    /// What there may be from now on; those who are there stay.
    pub fn set_limits(&mut self, limits: &ServerLimits) {
        self.connections_max = limits.connections;
        self.client_max = limits.connections_per_client;
        self.sources
            .set_limits(limits.connections_per_source, limits.rate_per_source);
    }

    /// Takes a place for a user of this proxy, which is this client's and has no more than `proxy_max` users
    /// (0: any number).
    ///
    /// # Errors
    /// There is none; nothing is counted then.
    pub fn admit(
        &mut self,
        proxy: u32,
        client: &ClientId,
        proxy_max: usize,
    ) -> Result<Place, Full> {
        let is_full = |users: usize, max: usize| max > 0 && users >= max;
        if is_full(self.taken, self.connections_max) {
            return Err(Full::All);
        }
        let account = self.account(proxy, client);
        let of_proxy = &mut self.accounts[account as usize];
        let of_client = &mut self.clients[of_proxy.client as usize];
        if is_full(of_proxy.users, proxy_max) {
            return Err(Full::Proxy);
        }
        if is_full(of_client.users, self.client_max) {
            return Err(Full::Client);
        }
        self.taken += 1;
        of_proxy.users += 1;
        of_client.users += 1;
        Ok(Place {
            account,
            seat: Seat::NONE,
        })
    }

    /// Counts where the user comes from that has this place.
    ///
    /// # Errors
    /// Its source has had its share. The place is still to be given back.
    pub fn seat(&mut self, place: &mut Place, source: IpAddr, now: Instant) -> Result<(), Full> {
        let seat = self.sources.arrive(source, now)?;
        self.sources.leave(mem::replace(&mut place.seat, seat));
        Ok(())
    }

    /// The user turns to another proxy of its listener, and its place with it. Who has one at that proxy
    /// already keeps it.
    ///
    /// # Errors
    /// There is none; it has the one that it had.
    pub fn turn(
        &mut self,
        place: &mut Place,
        proxy: u32,
        client: &ClientId,
        proxy_max: usize,
    ) -> Result<(), Full> {
        if self.of_proxies.get(&proxy) == Some(&place.account) {
            return Ok(());
        }
        // Both are held for a moment, which is no reason to be too many in all, or of one client.
        self.taken -= 1;
        let client_of_old = self.accounts[place.account as usize].client;
        self.clients[client_of_old as usize].users -= 1;
        let new = self.admit(proxy, client, proxy_max);
        self.taken += 1;
        self.clients[client_of_old as usize].users += 1;
        let mut new = new?;
        new.seat = mem::replace(&mut place.seat, Seat::NONE);
        self.release(mem::replace(place, new));
        Ok(())
    }

    /// The user has gone.
    pub fn release(&mut self, place: Place) {
        let Place { account, seat } = place;
        self.sources.leave(seat);
        self.taken -= 1;
        let found = &mut self.accounts[account as usize];
        found.users -= 1;
        self.clients[found.client as usize].users -= 1;
        self.close_if_over(account);
    }

    /// The proxy is gone, and another may have its slot next.
    pub fn proxy_gone(&mut self, proxy: u32) {
        if let Some(account) = self.of_proxies.remove(&proxy) {
            self.accounts[account as usize].open = false;
            self.close_if_over(account);
        }
    }

    /// One more was refused; how many were for that reason so far, if it is time to say so.
    #[must_use]
    pub fn refused(&mut self, full: Full, now: Instant) -> Option<u64> {
        self.refused[full.kind()].count(now)
    }

    /// How many were refused so far, by the limit that they were over.
    pub fn refusals(&self) -> [(&'static str, u64); Full::KINDS] {
        array::from_fn(|kind| (Full::LIMITS[kind], self.refused[kind].total()))
    }

    /// How many users a proxy has.
    pub fn users_of(&self, proxy: u32) -> usize {
        let account = self.of_proxies.get(&proxy);
        account.map_or(0, |account| self.accounts[*account as usize].users)
    }

    /// Whether one who is refused may be told so. An answer occupies its connection until the user has read
    /// it, or a moment later; who hears none is reset at once, at hardly any cost.
    #[must_use]
    pub fn may_answer(&mut self, now: Instant) -> bool {
        self.answers.take(ANSWERS, ANSWERS, now).is_ok()
    }

    /// The account of a proxy, a new one if it has had no user yet.
    fn account(&mut self, proxy: u32, client: &ClientId) -> u32 {
        if let Some(account) = self.of_proxies.get(&proxy) {
            return *account;
        }
        let client = *self.by_client.entry(client.clone()).or_insert_with(|| {
            self.clients.insert(OfClient {
                id: client.clone(),
                users: 0,
                accounts: 0,
            }) as u32
        });
        self.clients[client as usize].accounts += 1;
        let account = self.accounts.insert(Account {
            users: 0,
            client,
            open: true,
        }) as u32;
        self.of_proxies.insert(proxy, account);
        account
    }

    fn close_if_over(&mut self, account: u32) {
        let found = &self.accounts[account as usize];
        if found.open || found.users > 0 {
            return;
        }
        let client = self.accounts.remove(account as usize).client;
        let of_client = &mut self.clients[client as usize];
        of_client.accounts -= 1;
        if of_client.accounts == 0 {
            let of_client = self.clients.remove(client as usize);
            self.by_client.remove(&of_client.id);
        }
    }

    /// Panics where the invariants do not hold; `places` are all that were given out and not given back.
    pub fn check_invariants<'a>(&self, places: impl Iterator<Item = &'a Place> + Clone) {
        assert_eq!(places.clone().count(), self.taken, "each user has a place");
        let mut of_clients: HashMap<u32, (usize, usize)> = HashMap::new();
        for (index, account) in &self.accounts {
            let users = places
                .clone()
                .filter(|place| place.account as usize == index);
            assert_eq!(users.count(), account.users, "users of a proxy");
            assert!(account.open || account.users > 0, "it is closed in time");
            let (users, accounts) = of_clients.entry(account.client).or_default();
            *users += account.users;
            *accounts += 1;
        }
        for (index, client) in &self.clients {
            let counted = of_clients.get(&(index as u32));
            assert_eq!(counted, Some(&(client.users, client.accounts)));
        }
        assert_eq!(self.by_client.len(), self.clients.len());
        self.sources
            .check_invariants(places.map(|place| &place.seat));
    }
}

impl Full {
    const KINDS: usize = 5;

    /// The limit of each kind.
    const LIMITS: [&str; Full::KINDS] = [
        "connections",
        "connections_per_proxy",
        "connections_per_client",
        "connections_per_source",
        "rate_per_source",
    ];

    fn kind(self) -> usize {
        match self {
            Full::All => 0,
            Full::Proxy => 1,
            Full::Client => 2,
            Full::Source => 3,
            Full::Rate(_) => 4,
        }
    }

    /// The status of the answer, where HTTP is spoken, and when to come back if that is known.
    pub fn answer(self) -> (u16, Option<Duration>) {
        match self {
            Full::All | Full::Proxy | Full::Client => (503, None),
            Full::Source => (429, Some(SOURCE_WAIT)),
            Full::Rate(wait) => (429, Some(wait)),
        }
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Full::All => "as many users are connected as may be (limits.connections)",
            Full::Proxy => {
                "it has as many users as it may (max_connections, limits.connections_per_proxy)"
            }
            Full::Client => {
                "its client has as many users as it may (limits.connections_per_client)"
            }
            Full::Source => {
                "its source has as many connections as it may (limits.connections_per_source)"
            }
            Full::Rate(_) => "its source connects too often (limits.rate_per_source)",
        })
    }
}

impl From<Excess> for Full {
    fn from(excess: Excess) -> Full {
        match excess {
            Excess::Connections => Full::Source,
            Excess::Rate(wait) => Full::Rate(wait),
        }
    }
}

/// How many are told in a second that they are refused: with the 2 s for which `timeouts.linger` keeps a
/// connection until its user has read that, 200 descriptors at most.
const ANSWERS: u32 = 100;

/// When to come back whose source has too many connections: one of them has to end first, which nobody knows
/// when it will.
const SOURCE_WAIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(connections: usize, per_client: usize, per_source: usize) -> Admission {
        let limits = ServerLimits {
            connections,
            connections_per_client: per_client,
            connections_per_source: per_source,
            ..ServerLimits::default()
        };
        Admission::new(&limits, Instant::now())
    }

    fn id(text: &str) -> ClientId {
        text.parse().expect(text)
    }

    fn address(number: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, number])
    }

    #[test]
    fn each_limit_is_kept_and_a_place_given_back_is_free_again() {
        let now = Instant::now();
        let (edge, other) = (id("edge"), id("other"));
        let mut admission = limits(5, 3, 2);
        let mut places = Vec::new();
        let mut came = |admission: &mut Admission, proxy, client, max, source| {
            let mut place = admission.admit(proxy, client, max)?;
            let seated = admission.seat(&mut place, address(source), now);
            match seated {
                Ok(()) => places.push(place),
                Err(_) => admission.release(place),
            }
            admission.check_invariants(places.iter());
            seated
        };
        for (proxy, client, max, source, expected) in [
            (0, &edge, 2, 1, Ok(())),
            (0, &edge, 2, 2, Ok(())),
            (0, &edge, 2, 3, Err(Full::Proxy)),
            (1, &edge, 0, 1, Ok(())),
            (1, &edge, 0, 3, Err(Full::Client)),
            (2, &other, 9, 1, Err(Full::Source)),
            (2, &other, 9, 2, Ok(())),
            (2, &other, 9, 3, Ok(())),
            (2, &other, 9, 4, Err(Full::All)),
        ] {
            let came = came(&mut admission, proxy, client, max, source);
            assert_eq!(came, expected, "{proxy} {source}");
        }
        admission.release(places.remove(0));
        let place = admission.admit(0, &edge, 2);
        let mut place = place.expect("proxy, client and all have room again");
        assert_eq!(admission.seat(&mut place, address(1), now), Ok(()));
        places.push(place);
        for place in places.drain(..) {
            admission.release(place);
        }
        admission.check_invariants([].iter());
        assert_eq!(admission.taken, 0);
    }

    #[test]
    fn a_proxys_users_outlive_it_and_the_next_in_its_slot_begins_at_none() {
        let edge = id("edge");
        let mut admission = limits(0, 2, 0);
        let old = admission.admit(7, &edge, 1).unwrap();
        admission.proxy_gone(7);
        admission.check_invariants([&old].into_iter());
        let new = admission.admit(7, &edge, 1).unwrap();
        assert_eq!(admission.admit(7, &edge, 1).err(), Some(Full::Proxy));
        let third = admission.admit(8, &edge, 1);
        assert_eq!(third.err(), Some(Full::Client), "the old one counts there");
        admission.release(old);
        admission.check_invariants([&new].into_iter());
        for proxy in [7, 8] {
            admission.proxy_gone(proxy);
        }
        admission.release(new);
        assert!(admission.accounts.is_empty() && admission.clients.is_empty());
        assert!(admission.by_client.is_empty() && admission.of_proxies.is_empty());
    }

    #[test]
    fn a_source_may_be_known_later_and_be_another_than_was_thought() {
        let now = Instant::now();
        let edge = id("edge");
        let mut admission = limits(0, 0, 1);
        let mut first = admission.admit(0, &edge, 0).unwrap();
        let mut second = admission.admit(0, &edge, 0).unwrap();
        assert_eq!(admission.seat(&mut first, address(1), now), Ok(()));
        assert_eq!(
            admission.seat(&mut second, address(1), now),
            Err(Full::Source)
        );
        assert_eq!(admission.seat(&mut first, address(2), now), Ok(()));
        assert_eq!(admission.seat(&mut second, address(1), now), Ok(()));
        admission.check_invariants([&first, &second].into_iter());
        admission.release(second);
        admission.release(first);
        admission.check_invariants([].iter());
    }

    #[test]
    fn a_user_who_turns_to_another_proxy_counts_there() {
        let now = Instant::now();
        let [edge, other] = [id("edge"), id("other")];
        let mut admission = limits(2, 2, 1);
        let mut one = admission.admit(0, &edge, 1).unwrap();
        let mut two = admission.admit(1, &edge, 1).unwrap();
        assert_eq!(admission.seat(&mut one, address(1), now), Ok(()));
        assert_eq!(admission.turn(&mut one, 0, &edge, 1), Ok(()), "it is there");
        assert_eq!(admission.turn(&mut one, 1, &edge, 1), Err(Full::Proxy));
        admission.check_invariants([&one, &two].into_iter());
        // Full in all and of its client, but none comes.
        assert_eq!(admission.turn(&mut two, 2, &edge, 1), Ok(()));
        assert_eq!(admission.turn(&mut one, 1, &edge, 1), Ok(()));
        assert_eq!(admission.turn(&mut two, 3, &other, 1), Ok(()));
        admission.check_invariants([&one, &two].into_iter());
        assert_eq!(admission.seat(&mut two, address(1), now), Err(Full::Source));
        for place in [one, two] {
            admission.release(place);
        }
        for proxy in 0..4 {
            admission.proxy_gone(proxy);
        }
        admission.check_invariants([].iter());
        assert!(admission.accounts.is_empty() && admission.clients.is_empty());
    }

    #[test]
    fn a_thousand_refusals_are_a_hundred_answers_and_one_line() {
        let mut admission = limits(1, 0, 0);
        let now = Instant::now();
        let said = (0..1000).filter_map(|_| admission.refused(Full::All, now));
        assert_eq!(said.collect::<Vec<_>>(), [1]);
        assert_eq!(admission.refused(Full::Client, now), Some(1));
        let answers = (0..1000).filter(|_| admission.may_answer(now));
        assert_eq!(answers.count(), ANSWERS as usize);
    }
}
