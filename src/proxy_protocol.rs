//! The PROXY protocol, versions 1 and 2: the line or block that a proxy puts before a connection's first
//! byte to say whose connection it is (HAProxy, `doc/proxy-protocol.txt`).
//!
//! Pure: bytes in, addresses out, and the other way round. Whom to believe is for whoever asks.
//!
//! ```text
//! v1   PROXY TCP4 192.0.2.7 198.51.100.1 51234 22\r\n
//! v2   signature (12) | version, command | family | length (2) | addresses, ports | further fields
//! ```

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// How a header is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// A block of bytes.
    V2,
}

/// Between whom a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Who has connected.
    pub source: SocketAddr,
    /// To which address.
    pub destination: SocketAddr,
}

/// What stands at the beginning of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// The beginning of a header, shorter than [`HEADER_MAX`]: more has to come.
    Partial,
    /// A whole header.
    Header {
        /// Its bytes.
        length: usize,
        /// Between whom the connection stands, where the header says so. It does not for a check of the
        /// proxy's own, nor for a user that has come by something else than TCP: then the connection is
        /// to be taken for the proxy's.
        ends: Option<Ends>,
    },
    /// No header; why.
    Malformed(&'static str),
}

/// Reads the header that `bytes` begin with.
pub fn read(bytes: &[u8]) -> Beginning {
    if begins(bytes, SIGNATURE) {
        read_block(bytes)
    } else if begins(bytes, LINE) {
        read_line(bytes)
    } else {
        Beginning::Malformed("no PROXY header")
    }
}

/// Whether the two agree as far as both go.
fn begins(bytes: &[u8], with: &[u8]) -> bool {
    let both = bytes.len().min(with.len());
    bytes[..both] == with[..both]
}

/// Section 2.1.
fn read_line(bytes: &[u8]) -> Beginning {
    let malformed = Beginning::Malformed("malformed PROXY line");
    let within = &bytes[..bytes.len().min(LINE_MAX)];
    let Some(end) = within.iter().position(|byte| *byte == b'\n') else {
        return match within.len() {
            LINE_MAX => Beginning::Malformed("PROXY line too long"),
            _ => Beginning::Partial,
        };
    };
    let length = end + 1;
    let Some(line) = within[..length].strip_suffix(b"\r\n") else {
        return malformed;
    };
    let mut words = line.split(|byte| *byte == b' ').skip(1);
    let family = words.next();
    // What follows that word is to be ignored.
    if family == Some(b"UNKNOWN") {
        return Beginning::Header { length, ends: None };
    }
    let words: Vec<&str> = words
        .map(|word| str::from_utf8(word).unwrap_or_default())
        .collect();
    let [source, destination, source_port, destination_port] = words[..] else {
        return malformed;
    };
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            Some(b"TCP4") => text.parse().ok().map(IpAddr::V4),
            Some(b"TCP6") => text.parse().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let end = |host: &str, port: &str| Some(SocketAddr::new(address(host)?, plain_port(port)?));
    match (end(source, source_port), end(destination, destination_port)) {
        (Some(source), Some(destination)) => Beginning::Header {
            length,
            ends: Some(Ends {
                source,
                destination,
            }),
        },
        _ => malformed,
    }
}

/// A port without a sign and without zeros in front.
fn plain_port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let plain = plain && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

/// Section 2.2: what follows the addresses says nothing that is needed here.
fn read_block(bytes: &[u8]) -> Beginning {
    let Some((head, rest)) = bytes.split_at_checked(BLOCK_HEAD) else {
        return Beginning::Partial;
    };
    let (version, command) = (head[12] >> 4, head[12] & 15);
    let (family, transport) = (head[13] >> 4, head[13] & 15);
    if version != 2 || command > PROXY {
        return Beginning::Malformed("PROXY header of an unknown version or command");
    }
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    if length > BLOCK_MAX {
        return Beginning::Malformed("PROXY header too long");
    }
    // Of a check of the proxy's own, all of this is to be ignored.
    if command == PROXY && (family > FAMILY_MAX || transport > TRANSPORT_MAX) {
        return Beginning::Malformed("PROXY header of an unknown family");
    }
    let Some(body) = rest.get(..length) else {
        return Beginning::Partial;
    };
    let ends = match (command, head[13]) {
        (PROXY, TCP4) => addresses::<4, Ipv4Addr>(body).map(Some),
        (PROXY, TCP6) => addresses::<16, Ipv6Addr>(body).map(Some),
        // Whatever else there may be is to be served as if nothing were said of it.
        _ => Some(None),
    };
    match ends {
        Some(ends) => Beginning::Header {
            length: BLOCK_HEAD + length,
            ends,
        },
        None => Beginning::Malformed("PROXY header too short"),
    }
}

/// Both addresses, of `N` bytes each, and the ports behind them.
fn addresses<const N: usize, A: From<[u8; N]> + Into<IpAddr>>(body: &[u8]) -> Option<Ends> {
    let (source, rest) = body.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (from, rest) = rest.split_first_chunk::<2>()?;
    let to = rest.first_chunk::<2>()?;
    let end = |address: [u8; N], port: [u8; 2]| {
        SocketAddr::new(A::from(address).into(), u16::from_be_bytes(port))
    };
    Some(Ends {
        source: end(*source, *from),
        destination: end(*destination, *to),
    })
}

/// The header of a connection that stands between these.
pub fn header(version: Version, ends: Ends) -> Vec<u8> {
    let (source, destination) = same_family(ends.source.ip(), ends.destination.ip());
    let (from, to) = (ends.source.port(), ends.destination.port());
    match version {
        Version::V1 => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (source, destination) = (Canonical(source), Canonical(destination));
            format!("PROXY {family} {source} {destination} {from} {to}\r\n").into_bytes()
        }
        Version::V2 => {
            let mut body = Vec::new();
            for address in [source, destination] {
                match address {
                    IpAddr::V4(address) => body.extend_from_slice(&address.octets()),
                    IpAddr::V6(address) => body.extend_from_slice(&address.octets()),
                }
            }
            body.extend_from_slice(&from.to_be_bytes());
            body.extend_from_slice(&to.to_be_bytes());
            let family = if source.is_ipv4() { TCP4 } else { TCP6 };
            let mut header = SIGNATURE.to_vec();
            header.extend_from_slice(&[0x20 | PROXY, family]);
            header.extend_from_slice(&(body.len() as u16).to_be_bytes());
            header.extend_from_slice(&body);
            header
        }
    }
}

/// Both as IPv4, or else both as IPv6: a header has room for one family.
fn same_family(one: IpAddr, other: IpAddr) -> (IpAddr, IpAddr) {
    let (one, other) = (one.to_canonical(), other.to_canonical());
    let as_v6 = |address: IpAddr| match address {
        IpAddr::V4(address) => IpAddr::V6(address.to_ipv6_mapped()),
        IpAddr::V6(_) => address,
    };
    match one.is_ipv4() == other.is_ipv4() {
        true => (one, other),
        false => (as_v6(one), as_v6(other)),
    }
}

/// An address as section 2.1 has it: of IPv6, nothing but hexadecimal digits and colons.
struct Canonical(IpAddr);

impl fmt::Display for Canonical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => {
                let [.., high, low] = address.segments();
                write!(f, "::ffff:{high:x}:{low:x}")
            }
            address => address.fmt(f),
        }
    }
}

const LINE: &[u8] = b"PROXY ";

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest line, its end included (section 2.1).
const LINE_MAX: usize = 107;

/// Signature, version and command, family, length.
const BLOCK_HEAD: usize = 16;

/// What may follow that: far more than addresses (36 bytes, of unix sockets 216) and the fields that
/// balancers add (some hundred bytes, with the names in a certificate).
const BLOCK_MAX: usize = 2048;

/// The longest header there is.
pub const HEADER_MAX: usize = BLOCK_HEAD + BLOCK_MAX;

/// The command of a user's connection; 0 is that of the proxy's own.
const PROXY: u8 = 1;

/// The families and transports that there are; of these the two below have addresses of TCP.
const FAMILY_MAX: u8 = 3;
const TRANSPORT_MAX: u8 = 2;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn between(source: &str, destination: &str) -> Ends {
        Ends {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        }
    }

    fn ssh() -> Ends {
        between("192.0.2.7:51234", "198.51.100.1:22")
    }

    #[test]
    fn lines_are_read_as_the_specification_writes_them() {
        let unknown = "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n";
        for (line, ends) in [
            (
                "PROXY TCP4 255.255.255.255 255.255.255.254 65535 65534\r\n",
                Some(between("255.255.255.255:65535", "255.255.255.254:65534")),
            ),
            (
                "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
                Some(between("192.168.0.1:56324", "192.168.0.11:443")),
            ),
            (
                "PROXY TCP6 2001:DB8::1 ::1 1 0\r\n",
                Some(between("[2001:db8::1]:1", "[::1]:0")),
            ),
            (
                "PROXY TCP6 ::ffff:192.0.2.7 ::ffff:c000:208 1 2\r\n",
                Some(between("[::ffff:192.0.2.7]:1", "[::ffff:192.0.2.8]:2")),
            ),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN \r\r\r\n", None),
            (unknown, None),
        ] {
            let bytes = format!("{line}GET / HTTP/1.1\r\n");
            let length = line.len();
            assert_eq!(
                read(bytes.as_bytes()),
                Beginning::Header { length, ends },
                "{line}"
            );
            for cut in 0..length {
                let outcome = read(&bytes.as_bytes()[..cut]);
                assert_eq!(outcome, Beginning::Partial, "{line}: {cut}");
            }
        }
    }

    #[test]
    fn what_is_no_line_is_refused() {
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(91));
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
        assert!(matches!(
            read(longest.as_bytes()),
            Beginning::Header { length: 107, .. }
        ));
        assert_eq!(
            read(&long.as_bytes()[..107]),
            Beginning::Malformed("PROXY line too long")
        );
        for line in [
            "GET / HTTP/1.1\r\n",
            "\r\nPROXY",
            "PROXY\r\n",
            "PROXY \r\n",
            "proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
            "PROXY tcp4 1.1.1.1 2.2.2.2 1 2\r\n",
            "PROXY  TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
            "PROXY TCP4 1.1.1.1  2.2.2.2 1 2\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n",
            "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
            "PROXY TCP6 [::1] ::1 1 2\r\n",
            "PROXY TCP4 01.1.1.1 2.2.2.2 1 2\r\n",
            "PROXY TCP4 1.1.1 2.2.2.2 1 2\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 65536 2\r\n",
            "PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n",
            "PROXY TCP4 1.1.1.1 evil 1 2\r\n",
            "PROXY TCP4 1.1.1.1 b\u{fc}cher 1 2\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY UNKNOWN\n",
            &long,
        ] {
            let outcome = read(line.as_bytes());
            assert!(
                matches!(outcome, Beginning::Malformed(_)),
                "{line}: {outcome:?}"
            );
        }
    }

    #[test]
    fn blocks_are_read_whole_or_not() {
        let block = header(Version::V2, ssh());
        assert_eq!(block[..13], *b"\r\n\r\n\0\r\nQUIT\n\x21");
        assert_eq!(block.len(), 28);
        for cut in 0..block.len() {
            assert_eq!(read(&block[..cut]), Beginning::Partial, "{cut}");
        }
        // A field that nobody needs, and what the user says behind it.
        let with_field = [
            &block[..14],
            &[0, 16],
            &block[16..],
            &[4, 0, 1, 0],
            b"SSH-2.0",
        ];
        let with_field = with_field.concat();
        let (length, ends) = (32, Some(ssh()));
        assert_eq!(read(&with_field), Beginning::Header { length, ends });
        for cut in 0..length {
            assert_eq!(read(&with_field[..cut]), Beginning::Partial, "{cut}");
        }
    }

    #[test]
    fn what_has_no_address_of_tcp_is_the_proxys_own() {
        let with = |command, family, length: usize| {
            let head = [command, family, (length >> 8) as u8, length as u8];
            [SIGNATURE, &head, &vec![0xAB; length]].concat()
        };
        for (command, family, length) in [
            // A check of its own, whatever else it may say.
            (0x20, 0x00, 0),
            (0x20, 0x11, 12),
            (0x20, 0x11, 3),
            (0x20, 0xFF, 2),
            (0x21, 0x00, 0),
            (0x21, 0x00, 36),
            (0x21, 0x10, 12),
            (0x21, 0x12, 12),
            (0x21, 0x22, 36),
            (0x21, 0x31, 216),
            (0x21, 0x32, 216),
            (0x21, 0x00, BLOCK_MAX),
        ] {
            let block = with(command, family, length);
            let expected = Beginning::Header {
                length: 16 + length,
                ends: None,
            };
            assert_eq!(read(&block), expected, "{command:#x} {family:#x}");
        }
        for (command, family, length) in [
            (0x11, 0x11, 12),
            (0x31, 0x11, 12),
            (0x22, 0x11, 12),
            (0x21, 0x11, 11),
            (0x21, 0x21, 35),
            (0x21, 0x13, 12),
            (0x21, 0x41, 12),
            (0x21, 0x11, BLOCK_MAX + 1),
            (0x21, 0x11, 0xFFFF),
        ] {
            let block = with(command, family, length);
            let outcome = read(&block);
            assert!(
                matches!(outcome, Beginning::Malformed(_)),
                "{command:#x} {family:#x}: {outcome:?}"
            );
        }
        // What cannot be good is not waited for.
        let endless = with(0x21, 0x11, 0xFFFF);
        assert!(matches!(read(&endless[..16]), Beginning::Malformed(_)));
    }

    #[test]
    fn one_family_holds_both() {
        for (source, destination, line) in [
            (
                "192.0.2.7:5",
                "[2001:db8::1]:22",
                "PROXY TCP6 ::ffff:c000:207 2001:db8::1 5 22\r\n",
            ),
            (
                "[2001:db8::1]:5",
                "192.0.2.7:22",
                "PROXY TCP6 2001:db8::1 ::ffff:c000:207 5 22\r\n",
            ),
            (
                "[::ffff:192.0.2.7]:5",
                "198.51.100.1:22",
                "PROXY TCP4 192.0.2.7 198.51.100.1 5 22\r\n",
            ),
            (
                "[::ffff:192.0.2.7]:5",
                "[::ffff:198.51.100.1]:22",
                "PROXY TCP4 192.0.2.7 198.51.100.1 5 22\r\n",
            ),
        ] {
            let ends = between(source, destination);
            assert_eq!(header(Version::V1, ends), line.as_bytes());
            let canonical = |end: SocketAddr| (end.ip().to_canonical(), end.port());
            for version in [Version::V1, Version::V2] {
                let Beginning::Header {
                    ends: Some(read), ..
                } = read(&header(version, ends))
                else {
                    panic!("{line}");
                };
                assert_eq!(canonical(read.source), canonical(ends.source));
                assert_eq!(canonical(read.destination), canonical(ends.destination));
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(v6: bool, a: u128, b: u128, from: u16, to: u16, line: bool, behind: Vec<u8>) {
            let address = |bits: u128| match v6 {
                true => IpAddr::V6(Ipv6Addr::from(bits | 1 << 127)),
                false => IpAddr::V4(Ipv4Addr::from(bits as u32)),
            };
            let ends = Ends {
                source: SocketAddr::new(address(a), from),
                destination: SocketAddr::new(address(b), to),
            };
            let version = if line { Version::V1 } else { Version::V2 };
            let mut bytes = header(version, ends);
            let length = bytes.len();
            bytes.extend(behind);
            prop_assert_eq!(read(&bytes), Beginning::Header { length, ends: Some(ends) });
        }

        #[test]
        fn any_bytes_are_answered_within_the_limit(bytes in prop::collection::vec(any::<u8>(), 0..3000), line: bool) {
            let begin = if line { LINE } else { SIGNATURE };
            let bytes = [begin, &bytes].concat();
            match read(&bytes) {
                Beginning::Partial => prop_assert!(bytes.len() < HEADER_MAX),
                Beginning::Header { length, .. } => prop_assert!(length <= bytes.len().min(HEADER_MAX)),
                Beginning::Malformed(_) => {}
            }
        }

        #[test]
        fn what_is_known_of_a_beginning_stays_so(bytes in prop::collection::vec(any::<u8>(), 0..60), line: bool, cut: prop::sample::Index) {
            let begin = if line { LINE } else { SIGNATURE };
            let bytes = [begin, &bytes].concat();
            let before = read(&bytes[..cut.index(bytes.len())]);
            if before != Beginning::Partial {
                prop_assert_eq!(read(&bytes), before);
            }
        }
    }
}
