//! The rule of parking: what must be true of an exchange when it ends, or the connection is closed.
//!
//! A pool that parks one connection too many hands one user's bytes to another. So everything that is
//! known about the exchange is written down in one value, and judged in one function, in the order in
//! which it becomes known; what the pool itself may object (age, reload, drain, size) comes after it.

use std::fmt;

/// Everything that is known about an exchange at the moment it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The head of a final response (not 1xx) was read in full (RFC 9110 §15).
    pub final_head: bool,
    /// The response's end was told by its framing, and reached: its length, its last chunk with
    /// trailers, or no body by rule. Not by the end of the connection (RFC 9112 §6.3).
    pub framed_end: bool,
    /// Both sides let the connection persist: no `Connection: close` from either, and HTTP/1.1, or
    /// 1.0 with `keep-alive` said (RFC 9112 §9.3).
    pub persistent: bool,
    /// The request was written to its end, body included, before the response ended.
    pub request_written: bool,
    /// Bytes came after the response's end (RFC 9112 §9.2): a sign of desync or smuggling.
    pub surplus: bool,
    /// The socket was read to `WouldBlock`, and no end, error or hang-up was seen on it.
    pub socket_quiet: bool,
    /// The connection left HTTP: an upgrade or CONNECT (RFC 9110 §7.8, §9.3.6).
    pub upgraded: bool,
    /// The origin takes the connection for one user's: NTLM or Negotiate authenticate connections.
    pub tied_to_user: bool,
    /// The process is draining.
    pub draining: bool,
}

/// Why a connection is not parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No final response head was read.
    NoFinalHead,
    /// The response did not end by framing.
    NotFramed,
    /// One side said, or the version implies, that the connection ends here.
    NotPersistent,
    /// The response came before the request was written.
    RequestUnfinished,
    /// Bytes came after the response. Worth a look when it happens.
    Surplus,
    /// The socket has seen an end, an error or a hang-up.
    SocketNotQuiet,
    /// It carries another protocol now.
    Upgraded,
    /// It is authenticated as one user.
    TiedToUser,
    /// It has reached the age limit.
    TooOld,
    /// It was made before a reload, by rules and under roots that may be others now.
    Outdated,
    /// The process is draining.
    Draining,
    /// A limit of the pool is 0.
    PoolOff,
}

impl Refusal {
    /// Every reason, in the order in which they are looked for and of their counters.
    pub const ALL: [Self; 12] = [
        Self::NoFinalHead,
        Self::NotFramed,
        Self::NotPersistent,
        Self::RequestUnfinished,
        Self::Surplus,
        Self::SocketNotQuiet,
        Self::Upgraded,
        Self::TiedToUser,
        Self::TooOld,
        Self::Outdated,
        Self::Draining,
        Self::PoolOff,
    ];
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoFinalHead => "no final response",
            Self::NotFramed => "response not framed",
            Self::NotPersistent => "not persistent",
            Self::RequestUnfinished => "request unfinished",
            Self::Surplus => "surplus bytes",
            Self::SocketNotQuiet => "socket not quiet",
            Self::Upgraded => "upgraded",
            Self::TiedToUser => "tied to its user",
            Self::TooOld => "too old",
            Self::Outdated => "made before a reload",
            Self::Draining => "draining",
            Self::PoolOff => "pool off",
        })
    }
}

/// The first reason not to park a connection, in the order of [`Refusal`]'s arms; `None` lets it be offered
/// to the pool.
pub fn refusal(facts: &Facts) -> Option<Refusal> {
    // Without `..`: a new fact must be judged here before it compiles.
    let &Facts {
        final_head,
        framed_end,
        persistent,
        request_written,
        surplus,
        socket_quiet,
        upgraded,
        tied_to_user,
        draining,
    } = facts;
    [
        (!final_head, Refusal::NoFinalHead),
        (!framed_end, Refusal::NotFramed),
        (!persistent, Refusal::NotPersistent),
        (!request_written, Refusal::RequestUnfinished),
        (surplus, Refusal::Surplus),
        (!socket_quiet, Refusal::SocketNotQuiet),
        (upgraded, Refusal::Upgraded),
        (tied_to_user, Refusal::TiedToUser),
        (draining, Refusal::Draining),
    ]
    .into_iter()
    .find_map(|(broken, why)| broken.then_some(why))
}

/// Whether connections of a protocol may be parked: `http` and `https`, in any letter case. Any
/// other word is an opaque byte stream, whose end no framing tells.
pub fn is_poolable(protocol: &str) -> bool {
    protocol.eq_ignore_ascii_case("http") || protocol.eq_ignore_ascii_case("https")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const CLEAN: Facts = Facts {
        final_head: true,
        framed_end: true,
        persistent: true,
        request_written: true,
        surplus: false,
        socket_quiet: true,
        upgraded: false,
        tied_to_user: false,
        draining: false,
    };

    type Break = fn(&mut Facts);

    /// Each way to break the rule, in its order.
    const BREAKS: [(Break, Refusal); 9] = [
        (|facts| facts.final_head = false, Refusal::NoFinalHead),
        (|facts| facts.framed_end = false, Refusal::NotFramed),
        (|facts| facts.persistent = false, Refusal::NotPersistent),
        (
            |facts| facts.request_written = false,
            Refusal::RequestUnfinished,
        ),
        (|facts| facts.surplus = true, Refusal::Surplus),
        (|facts| facts.socket_quiet = false, Refusal::SocketNotQuiet),
        (|facts| facts.upgraded = true, Refusal::Upgraded),
        (|facts| facts.tied_to_user = true, Refusal::TiedToUser),
        (|facts| facts.draining = true, Refusal::Draining),
    ];

    #[test]
    fn a_clean_exchange_may_be_parked() {
        assert_eq!(refusal(&CLEAN), None);
    }

    #[test]
    fn of_any_set_of_broken_rules_the_first_is_named() {
        for set in 1u32..1 << BREAKS.len() {
            let mut facts = CLEAN;
            for (bit, (break_it, _)) in BREAKS.iter().enumerate() {
                if set >> bit & 1 == 1 {
                    break_it(&mut facts);
                }
            }
            let first = BREAKS[set.trailing_zeros() as usize].1;
            assert_eq!(refusal(&facts), Some(first), "{facts:?}");
        }
    }

    #[test]
    fn reasons_are_counted_in_their_order_and_read_differently() {
        for (place, why) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, place);
        }
        let words: HashSet<_> = Refusal::ALL.iter().map(Refusal::to_string).collect();
        assert_eq!(words.len(), Refusal::ALL.len());
    }

    #[test]
    fn http_and_https_are_poolable_and_nothing_else_is() {
        for protocol in ["http", "https", "HTTP", "HTTPS", "Http", "hTtPs"] {
            assert!(is_poolable(protocol), "{protocol:?}");
        }
        for protocol in [
            "", " http", "http ", "tcp", "ssh", "telnet", "foo", "htt", "httpss", "http2",
            "http/1.1", "forward", "ws", "wss", "tls", "socks5", "ｈttp", "http\0", "https\n",
        ] {
            assert!(!is_poolable(protocol), "{protocol:?}");
        }
    }
}
