//! Distance: a relay that holds back every chunk for as long as it would be on its way.
//!
//! What it cannot do is delay the connecting itself, since the kernel answers a SYN at once. So the first
//! bytes of a connection are held back by one round trip more, which is when they could have left had
//! the handshake taken its time. There is no loss, no limit of the rate, and no slow start here: for
//! the kilobytes of this bench none of them matters.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::common::{connect, with_deadlines};

/// Bytes taken at a time; more than any message here.
const CHUNK: usize = 16 * 1024;

/// Listens on a free port of loopback, passes every connection on to `target`, and says where. Its
/// threads end with the program.
pub fn start(target: SocketAddr, one_way: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let open_at = Instant::now() + 2 * one_way;
            with_deadlines(&near);
            let far = connect(target);
            for (from, to) in [(&near, &far), (&far, &near)] {
                let from = from.try_clone().expect("there are descriptors");
                let to = to.try_clone().expect("there are descriptors");
                delay(from, to, open_at, one_way);
            }
        }
    });
    address
}

/// Passes on one direction: what is read at one moment is written `one_way` later, whatever comes in
/// between, and nothing is as if read before `open_at`.
fn delay(mut from: TcpStream, mut to: TcpStream, open_at: Instant, one_way: Duration) {
    let (sender, on_its_way) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut chunk = vec![0; CHUNK];
        loop {
            // An error ends the direction like an end does: who uses the connection notices.
            let count = from.read(&mut chunk).unwrap_or(0);
            let due = Instant::now().max(open_at) + one_way;
            if sender.send((due, chunk[..count].to_vec())).is_err() || count == 0 {
                break;
            }
        }
    });
    thread::spawn(move || {
        for (due, bytes) in on_its_way {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if bytes.is_empty() || to.write_all(&bytes).is_err() {
                break;
            }
        }
        // The other end may have gone first.
        to.shutdown(Shutdown::Write).ok();
    });
}
