//! The end of a chunked message, where there is less room than it needs.

use super::*;

const HEAD: &[u8] = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn trailers_for_which_a_batch_has_no_room_follow_in_the_next_ones() {
    let tail = format!("0\r\nX-Long: {}\r\n\r\n", "x".repeat(200));
    for limit in 80..tail.len() + 40 {
        let mut pair = Pair::new(64 << 20);
        let body = Body::new(Framing::Chunked, Coding::Chunked);
        let stream = pair.open(0, Some(facts()), HEAD, body);
        pair.run(true);
        let socket = pair.server.sockets.0.get_mut(&user(0)).unwrap();
        socket.input.extend(tail.as_bytes());
        pair.server.mux.schedule(stream);
        // Nothing happens at the socket any more: it is all read, and only the mux knows of the rest.
        let End {
            mux,
            budget,
            sockets,
            happened,
            batch,
        } = &mut pair.server;
        while mux.has_work() {
            batch.begin(limit);
            while let Some(event) = mux.fill(batch, QUANTUM, sockets, budget, pair.now) {
                happened.push(event);
            }
            let bytes = Bytes::copy_from_slice(batch.as_slice());
            deliver(&mut pair.client, bytes, true, pair.now).unwrap();
        }
        assert_eq!(
            pair.client.sockets.0[&target(0)].output,
            [HEAD, tail.as_bytes()].concat(),
            "in batches of {limit}"
        );
        assert!(
            pair.server
                .happened
                .iter()
                .any(|event| matches!(event, Happened::RequestSent(0)))
        );
    }
}
