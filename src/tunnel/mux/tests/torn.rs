//! Interim heads that a user has got a part of: nothing else may be said to it.

use super::*;

const INTERIM: &[u8] = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";

#[test]
fn only_between_two_heads_another_answer_may_follow() {
    for room in 0..=2 * INTERIM.len() {
        let mut pair = Pair::new(64 << 20);
        pair.open(
            0,
            Some(facts()),
            b"GET / HTTP/1.1\r\n\r\n",
            Body::new(Framing::None, Coding::Plain),
        );
        pair.server.sockets.0.get_mut(&user(0)).unwrap().room = room;
        pair.run(true);
        let far = opened(&pair.client, 0);
        for _ in 0..2 {
            let End { mux, budget, .. } = &mut pair.client;
            mux.send(far, INTERIM.to_vec(), false, budget, pair.now);
        }
        pair.run(true);
        assert_eq!(pair.server.sockets.0[&user(0)].output.len(), room);
        let End { mux, budget, .. } = &mut pair.client;
        let ended = mux.abort(far, Reason::TargetReset, budget);
        assert!(ended.is_some());
        pair.run(true);
        let ended = pair
            .server
            .happened
            .iter()
            .find_map(|happened| match happened {
                Happened::Ended(_, ended) => Some(*ended),
                _ => None,
            });
        let ended = ended.expect("the server is told");
        assert!(!ended.answered);
        assert_eq!(ended.torn, !room.is_multiple_of(INTERIM.len()), "{room}");
    }
}
