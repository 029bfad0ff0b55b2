//! A ceiling on memory holds, whoever comes: readers that never read beside downloads at full speed.

mod common;

use std::{io, net::TcpStream, thread};

use common::{Origin, Process, Tunnel, connect, eventually, expect_pattern};

/// Users that never read a byte of what they are sent.
const STALLED: usize = 500;

/// Users that read all of it.
const DOWNLOADS: u64 = 16;

/// Bytes of one download.
const LENGTH: u64 = 2 << 20;

#[test]
fn five_hundred_stalled_readers_stay_below_the_ceiling() {
    let peaks = peaks_with("16MiB");
    assert!(peaks.iter().all(|peak| *peak < 16 << 20), "{peaks:?}");
}

/// There is room for half of the readers; the others wait where they cost us nothing.
#[test]
fn the_least_ceiling_holds_as_well() {
    let peaks = peaks_with("4MiB");
    assert!(peaks.iter().all(|peak| *peak < 4 << 20), "{peaks:?}");
}

/// By how much the resident memory of server and client was larger than at rest, at most.
fn peaks_with(memory_max: &str) -> [u64; 2] {
    let (endless, finite) = (Origin::source(1, u64::MAX), Origin::source(2, LENGTH));
    let tunnel = Tunnel::builder()
        .to("tcp", endless.address())
        .to("tcp", finite.address())
        .server_argument("--memory-max")
        .server_argument(memory_max)
        .client_argument("--memory-max")
        .client_argument(memory_max)
        .start();
    // What is loaded when it is first used is no memory that waiting bytes take.
    download(vec![connect(tunnel.proxy(1))]);
    let processes: [&Process; 2] = [&tunnel.server, &tunnel.client];
    let rest = processes.map(|process| {
        process.forget_peak();
        process.resident_bytes("VmRSS:")
    });

    let readers = (0..DOWNLOADS).map(|_| connect(tunnel.proxy(1))).collect();
    finite.wait_for_open(DOWNLOADS as usize);
    let stalled: Vec<TcpStream> = (0..STALLED).map(|_| connect(tunnel.proxy(0))).collect();
    eventually("the stalled readers are served", || {
        (endless.open() >= STALLED / 5).then_some(())
    });
    download(readers);
    let peaks = [0, 1].map(|index| processes[index].resident_bytes("VmHWM:") - rest[index]);
    println!(
        "ceiling {memory_max}: server at most {} KiB above its {} at rest, client {} above {}; \
         {} of {STALLED} were served at once",
        peaks[0] >> 10,
        rest[0] >> 10,
        peaks[1] >> 10,
        rest[1] >> 10,
        endless.open(),
    );
    drop(stalled);
    // Once what waited for them is gone, nobody is refused for it any more.
    eventually("a download works", || {
        expect_pattern(connect(tunnel.proxy(1)), 2, LENGTH).ok()
    });
    peaks
}

/// Reads all of it at once, each to its end.
fn download(readers: Vec<TcpStream>) {
    let reading = readers.into_iter().map(|reader| {
        thread::spawn(move || -> io::Result<()> { expect_pattern(&reader, 2, LENGTH) })
    });
    for reading in reading.collect::<Vec<_>>() {
        let read = reading.join().expect("the reader does not panic");
        read.expect("all of it came");
    }
}
