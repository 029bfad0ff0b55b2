//! What only the kernel can tell: sockets by address, queues, descriptor limits.

use std::{
    collections::HashSet,
    fs,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    process::{self, Command},
    sync::atomic::{AtomicU16, Ordering},
};

use super::{eventually, sock_diag};

/// States of /proc/net/tcp in which a socket belongs to a process no more.
const TIME_WAIT: &str = "06";
const CLOSED: &str = "07";

/// The state of a socket whose far end has neither closed nor reset it, as far as it knows.
const ESTABLISHED: &str = "01";

/// A line of /proc/net/tcp.
struct Entry {
    local: SocketAddr,
    remote: SocketAddr,
    state: String,
    unsent: u64,
    unread: u64,
}

/// How many connections have `target` as their far end, those in TIME-WAIT left out.
pub fn connections_to(target: SocketAddr) -> usize {
    let alive = |entry: &Entry| entry.state != TIME_WAIT && entry.state != CLOSED;
    entries()
        .iter()
        .filter(|entry| entry.remote == target && alive(entry))
        .count()
}

/// Waits until every connection to `target` has met its end there: the FIN or RST has arrived, and
/// whoever holds the socket has only to look. (That the target has closed is not enough: on a busy
/// machine the kernel may deliver it later.)
pub fn wait_until_closed_by(target: SocketAddr) {
    eventually("the ends of the connections have arrived", || {
        let open = |entry: &Entry| entry.remote == target && entry.state == ESTABLISHED;
        (!entries().iter().any(open)).then_some(())
    });
}

/// Waits until the far end of `stream`, a process on this machine, has read all that was written.
pub fn wait_until_read(stream: &TcpStream) {
    wait_until_all_read([stream]);
}

/// As [`wait_until_read`], for many at a time.
pub fn wait_until_all_read<'a>(streams: impl IntoIterator<Item = &'a TcpStream>) {
    // Who has closed already has no addresses any more.
    let ends = |stream: &TcpStream| Some((stream.peer_addr().ok()?, stream.local_addr().ok()?));
    let mut waiting: HashSet<_> = streams.into_iter().filter_map(ends).collect();
    eventually("the far ends read what was sent", || {
        let mut table = None;
        waiting.retain(|&(far, near)| {
            // In this order: what has left one is at the other.
            match (sock_diag::queues(near, far), sock_diag::queues(far, near)) {
                (Some(near), Some(far)) => near.unsent > 0 || far.unread > 0,
                _ => table.get_or_insert_with(entries).iter().any(|entry| {
                    let ends = (entry.local, entry.remote);
                    ends == (near, far) && entry.unsent > 0
                        || ends == (far, near) && entry.unread > 0
                }),
            }
        });
        waiting.is_empty().then_some(())
    });
}

/// Bytes that the far end of `stream`, a process on this machine, has received and not read.
pub fn unread_by_far_end(stream: &TcpStream) -> u64 {
    let near = stream.local_addr().expect("the stream is connected");
    let far = stream.peer_addr().expect("the stream is connected");
    match sock_diag::queues(far, near) {
        Some(queues) => queues.unread.into(),
        None => entries()
            .iter()
            .filter(|entry| (entry.local, entry.remote) == (far, near))
            .map(|entry| entry.unread)
            .sum(),
    }
}

/// A port of 127.0.0.1 for a program that cannot be told to take any free one.
///
/// It lies below the range from which the kernel takes ports of its own accord, so that no
/// connection of another test grabs it between this look and the program's bind.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 20_000;
    let start = (process::id() % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (start.wrapping_add(step)) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port of 127.0.0.1 is free");
}

/// Lets this process and its children open `count` descriptors, as far as the hard limit goes.
pub fn raise_descriptor_limit(count: usize) {
    let status = Command::new("prlimit")
        .arg(format!("--pid={}", process::id()))
        .arg(format!("--nofile={count}:"))
        .status()
        .expect("prlimit belongs to every Linux system (util-linux)");
    assert!(
        status.success(),
        "this test needs {count} descriptors in a process"
    );
}

fn entries() -> Vec<Entry> {
    let table = fs::read_to_string("/proc/net/tcp").expect("Linux has /proc/net/tcp");
    // It takes several reads, between which the table may change: a line may come twice.
    let mut seen = HashSet::new();
    let entries = table.lines().skip(1).filter_map(entry);
    entries
        .filter(|entry| seen.insert((entry.local, entry.remote)))
        .collect()
}

/// `sl local_address rem_address st tx_queue:rx_queue …`, numbers in hexadecimal.
fn entry(line: &str) -> Option<Entry> {
    let mut words = line.split_whitespace().skip(1);
    let local = address(words.next()?)?;
    let remote = address(words.next()?)?;
    let state = words.next()?.to_owned();
    let (unsent, unread) = words.next()?.split_once(':')?;
    let [unsent, unread] = [unsent, unread].map(|bytes| u64::from_str_radix(bytes, 16));
    Some(Entry {
        local,
        remote,
        state,
        unsent: unsent.ok()?,
        unread: unread.ok()?,
    })
}

/// `0100007F:1F90`: the address in the byte order of the machine, the port as a number.
fn address(word: &str) -> Option<SocketAddr> {
    let (host, port) = word.split_once(':')?;
    let host = Ipv4Addr::from(u32::from_str_radix(host, 16).ok()?.to_ne_bytes());
    Some(SocketAddrV4::new(host, u16::from_str_radix(port, 16).ok()?).into())
}
