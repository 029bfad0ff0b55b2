//! The PROXY protocol, versions 1 and 2: the line or block that a proxy puts before a connection's first
//! byte to say whose connection it is (HAProxy, `doc/proxy-protocol.txt`).
//!
//! Pure: bytes in, addresses out, and the other way round. Whom to believe is for whoever asks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How a header is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// A block of bytes.
    V2,
}

/// What stands at the beginning of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// The beginning of a header: more has to come.
    Partial,
    /// A header of so many bytes; whose connection it is, where the proxy says so: a check of its own, or
    /// a connection that is neither TCP over IPv4 nor over IPv6, has no address.
    Header {
        /// Bytes of the header.
        length: usize,
        /// The user's address.
        source: Option<SocketAddr>,
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

/// Section 2.1: `PROXY TCP4 192.0.2.1 192.0.2.2 56324 443`, ended by CRLF within 107 bytes.
fn read_line(bytes: &[u8]) -> Beginning {
    let Some(end) = bytes.windows(2).take(LINE_MAX - 1).position(|two| two == b"\r\n") else {
        return match bytes.len() < LINE_MAX {
            true => Beginning::Partial,
            false => Beginning::Malformed("PROXY line too long"),
        };
    };
    let malformed = Beginning::Malformed("malformed PROXY line");
    let Ok(line) = str::from_utf8(&bytes[..end]) else {
        return malformed;
    };
    let length = end + 2;
    let mut words = line.split(' ').skip(1);
    let (family, rest) = (words.next(), words.collect::<Vec<_>>());
    // What follows that word is to be ignored.
    if family == Some("UNKNOWN") {
        return Beginning::Header {
            length,
            source: None,
        };
    }
    let [source, destination, source_port, destination_port] = rest[..] else {
        return malformed;
    };
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            Some("TCP4") => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            Some("TCP6") => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let port = |text: &str| {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit());
        let plain = plain && (text == "0" || !text.starts_with('0'));
        text.parse::<u16>().ok().filter(|_| plain)
    };
    let both = (address(source), address(destination));
    let ports = (port(source_port), port(destination_port));
    match (both, ports) {
        ((Some(source), Some(_)), (Some(port), Some(_))) => Beginning::Header {
            length,
            source: Some(SocketAddr::new(source, port)),
        },
        _ => malformed,
    }
}

/// Section 2.2: twelve bytes of signature, version and command, family, length, addresses, and fields of
/// which nothing is needed here.
fn read_block(bytes: &[u8]) -> Beginning {
    let Some((head, rest)) = bytes.split_at_checked(BLOCK_HEAD) else {
        return Beginning::Partial;
    };
    let (version, command) = (head[12] >> 4, head[12] & 15);
    if version != 2 || command > 1 {
        return Beginning::Malformed("PROXY header of an unknown version");
    }
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    if length > BLOCK_MAX {
        return Beginning::Malformed("PROXY header too long");
    }
    let Some(body) = rest.get(..length) else {
        return Beginning::Partial;
    };
    let source = match (command, head[13]) {
        (1, TCP4) => match body.first_chunk::<12>() {
            Some(&[a, b, c, d, _, _, _, _, high, low, _, _]) => {
                let port = u16::from_be_bytes([high, low]);
                Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), port))
            }
            None => return Beginning::Malformed("PROXY header too short"),
        },
        (1, TCP6) => match (body.first_chunk::<16>(), body.get(32..34), body.len() >= 36) {
            (Some(address), Some(port), true) => {
                let port = u16::from_be_bytes([port[0], port[1]]);
                Some(SocketAddr::new(Ipv6Addr::from(*address).into(), port))
            }
            _ => return Beginning::Malformed("PROXY header too short"),
        },
        // The proxy's own connection, or one of another kind: section 2.2 has it served all the same.
        _ => None,
    };
    Beginning::Header {
        length: BLOCK_HEAD + length,
        source,
    }
}

/// The header of a user's connection that came to `destination`.
pub fn header(version: Version, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let (source_ip, destination_ip) = same_family(source.ip(), destination.ip());
    match version {
        Version::V1 => {
            let family = if source_ip.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (source.port(), destination.port());
            format!("PROXY {family} {source_ip} {destination_ip} {from} {to}\r\n").into_bytes()
        }
        Version::V2 => {
            let mut header = SIGNATURE.to_vec();
            let mut body = Vec::new();
            for address in [source_ip, destination_ip] {
                match address {
                    IpAddr::V4(address) => body.extend_from_slice(&address.octets()),
                    IpAddr::V6(address) => body.extend_from_slice(&address.octets()),
                }
            }
            body.extend_from_slice(&source.port().to_be_bytes());
            body.extend_from_slice(&destination.port().to_be_bytes());
            let family = if source_ip.is_ipv4() { TCP4 } else { TCP6 };
            header.extend_from_slice(&[0x21, family]);
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

const LINE: &[u8] = b"PROXY ";

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest line, its end included (section 2.1).
const LINE_MAX: usize = 107;

/// Signature, version and command, family, length.
const BLOCK_HEAD: usize = 16;

/// Far more than addresses (36 bytes) and the fields that balancers add (some hundred bytes).
const BLOCK_MAX: usize = 2048;

/// The longest header there is.
pub const HEADER_MAX: usize = BLOCK_HEAD + BLOCK_MAX;

const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn found(length: usize, source: &str) -> Beginning {
        Beginning::Header {
            length,
            source: Some(of(source)),
        }
    }

    #[test]
    fn lines_are_read_as_the_specification_writes_them() {
        for (line, source) in [
            ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", Some("255.255.255.255:65535")),
            ("PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", Some("192.168.0.1:56324")),
            ("PROXY TCP6 2001:db8::1 ::1 1 0\r\n", Some("[2001:db8::1]:1")),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", None),
        ] {
            let bytes = format!("{line}GET / HTTP/1.1\r\n");
            let expected = Beginning::Header {
                length: line.len(),
                source: source.map(of),
            };
            assert_eq!(read(bytes.as_bytes()), expected, "{line}");
            for cut in 0..line.len() {
                assert_eq!(read(&bytes.as_bytes()[..cut]), Beginning::Partial, "{line}: {cut}");
            }
        }
    }

    #[test]
    fn what_is_no_line_is_refused() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
        for line in [
            "GET / HTTP/1.1\r\n",
            "PROXY\r\n",
            "PROXY  TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 65536 2\r\n",
            "PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n",
            "PROXY TCP4 1.1.1.1 evil 1 2\r\n",
            &long,
        ] {
            let outcome = read(line.as_bytes());
            assert!(matches!(outcome, Beginning::Malformed(_)), "{line}: {outcome:?}");
        }
    }

    #[test]
    fn blocks_are_read_whole_or_not() {
        let mut block = header(Version::V2, of("192.0.2.7:51234"), of("198.51.100.1:22"));
        assert_eq!(block[..13], *b"\r\n\r\n\0\r\nQUIT\n\x21");
        assert_eq!(block.len(), 28);
        // A field that nobody needs: section 2.2.
        let with_field = [&block[..14], &[0, 16], &block[16..], &[4, 0, 1, 0], b"SSH-2.0"].concat();
        assert_eq!(read(&with_field), found(32, "192.0.2.7:51234"));
        for cut in 0..block.len() {
            assert_eq!(read(&block[..cut]), Beginning::Partial, "{cut}");
        }
        block[12] = 0x20;
        let local = Beginning::Header {
            length: 28,
            source: None,
        };
        assert_eq!(read(&block), local, "a check of the proxy's own");
        for (at, byte) in [(12, 0x11), (12, 0x22), (15, 11), (14, 0xFF)] {
            let mut block = header(Version::V2, of("192.0.2.7:51234"), of("198.51.100.1:22"));
            block[at] = byte;
            assert!(matches!(read(&block), Beginning::Malformed(_)), "{at}: {byte:#x}");
        }
    }

    #[test]
    fn one_family_holds_both() {
        let line = header(Version::V1, of("192.0.2.7:5"), of("[2001:db8::1]:22"));
        assert_eq!(line, b"PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 5 22\r\n");
        let line = header(Version::V1, of("[::ffff:192.0.2.7]:5"), of("198.51.100.1:22"));
        assert_eq!(line, b"PROXY TCP4 192.0.2.7 198.51.100.1 5 22\r\n");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(v6: bool, a: u128, b: u128, from: u16, to: u16, line: bool) {
            let address = |bits: u128| match v6 {
                true => IpAddr::V6(Ipv6Addr::from(bits | 1 << 127)),
                false => IpAddr::V4(Ipv4Addr::from(bits as u32)),
            };
            let (source, destination) = (SocketAddr::new(address(a), from), SocketAddr::new(address(b), to));
            let version = if line { Version::V1 } else { Version::V2 };
            let written = header(version, source, destination);
            let expected = Beginning::Header { length: written.len(), source: Some(source) };
            prop_assert_eq!(read(&written), expected);
        }

        #[test]
        fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200), line: bool) {
            let begin = if line { LINE } else { SIGNATURE };
            let _ = read(&[begin, &bytes].concat());
        }
    }
}
