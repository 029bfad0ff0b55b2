use proptest::prelude::*;

use super::*;

/// Feeds `input` in pieces of `step` bytes; returns the payload and how many bytes were consumed.
fn decode(input: &[u8], step: usize) -> Result<(Vec<u8>, usize, Chunks), &'static str> {
    decode_within(BodyLimits::default(), input, step)
}

fn decode_within(
    limits: BodyLimits,
    input: &[u8],
    step: usize,
) -> Result<(Vec<u8>, usize, Chunks), &'static str> {
    let mut chunks = Chunks::new(limits);
    let mut payload = Vec::new();
    let mut consumed = 0;
    for piece in input.chunks(step) {
        let mut bytes = piece.to_vec();
        let decoded = chunks.decode(&mut bytes)?;
        assert_eq!(bytes[decoded.consumed..], piece[decoded.consumed..]);
        payload.extend_from_slice(&bytes[..decoded.payload]);
        consumed += decoded.consumed;
        if decoded.ended {
            return Ok((payload, consumed, chunks));
        }
        assert_eq!(decoded.consumed, piece.len());
    }
    Err("incomplete")
}

fn with_extension(length: usize) -> Vec<u8> {
    format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(length - 1)).into_bytes()
}

#[test]
fn the_grammar_is_decoded_alike_for_every_cut() {
    for (input, payload) in [
        (&b"0\r\n\r\n"[..], &b""[..]),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"005\r\nhello\r\n000\r\n\r\n", b"hello"),
        (
            b"a\r\n0123456789\r\nA\r\nabcdefghij\r\n0\r\n\r\n",
            b"0123456789abcdefghij",
        ),
        (b"2;a=b;c\r\n\r\n\r\n0;last\r\n\r\n", b"\r\n"),
        (b"1;a=\"q;\\\"\\\\ \"\r\nx\r\n0\r\n\r\n", b"x"),
        (b"1\r\nx\r\n0\r\nA: b\r\nC:\r\n\r\n", b"x"),
        (b"0000000000000001\r\nx\r\n0\r\n\r\n", b"x"),
    ] {
        let with_surplus = [input, b"0\r\n\r\nGET"].concat();
        for step in 1..=with_surplus.len() {
            let (decoded, consumed, _) = decode(&with_surplus, step).expect("good chunks");
            assert_eq!(
                (&decoded[..], consumed),
                (payload, input.len()),
                "step {step}"
            );
        }
    }
}

#[test]
fn every_departure_from_the_grammar_is_refused_for_every_cut() {
    // RFC 9112 §7.1 unless another section is named.
    for (what, input) in [
        ("no size", &b"\r\nhello\r\n0\r\n\r\n"[..]),
        ("no size before an extension", b";a\r\n\r\n"),
        ("a sign", b"+5\r\nhello\r\n0\r\n\r\n"),
        ("a prefix", b"0x5\r\nhello\r\n0\r\n\r\n"),
        ("a digit that is none", b"5g\r\nhello\r\n0\r\n\r\n"),
        ("an underscore", b"1_0\r\n"),
        ("a blank before the size", b" 5\r\nhello\r\n0\r\n\r\n"),
        ("a blank behind the size", b"5 \r\nhello\r\n0\r\n\r\n"),
        ("a blank before an extension", b"5 ;a\r\nhello\r\n0\r\n\r\n"),
        ("a tab behind the size", b"5\t\r\nhello\r\n0\r\n\r\n"),
        ("a bare LF behind the size (§2.2)", b"5\nhello\r\n0\r\n\r\n"),
        ("a bare CR behind the size", b"5\rhello\r\n0\r\n\r\n"),
        (
            "a bare LF in an extension (§7.1.1)",
            b"5;a\nhello\r\n0\r\n\r\n",
        ),
        ("a bare CR in an extension", b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
        (
            "a line end in a quoted extension",
            b"5;a=\"\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "an escaped CR in an extension",
            b"5;a=\"\\\r\nhello\r\n0\r\n\r\n",
        ),
        ("NUL in an extension", b"5;a\0\r\nhello\r\n0\r\n\r\n"),
        ("DEL in an extension", b"5;a\x7f\r\nhello\r\n0\r\n\r\n"),
        ("data longer than its size", b"4\r\nhello\r\n0\r\n\r\n"),
        ("data without CR", b"5\r\nhello\n0\r\n\r\n"),
        ("data without LF", b"5\r\nhello\r0\r\n\r\n"),
        ("a size of 2^63", b"8000000000000000\r\n"),
        ("a size of 2^64", b"10000000000000000\r\n"),
        (
            "a size of 2^64 + 5",
            b"10000000000000005\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "seventeen digits",
            b"00000000000000005\r\nhello\r\n0\r\n\r\n",
        ),
        ("a bare LF at the end", b"0\r\n\n"),
        ("a bare CR at the end", b"0\r\n\rx"),
        ("a bare LF in a trailer", b"0\r\nA: b\n\r\n"),
        ("a bare CR in a trailer", b"0\r\nA: b\rc\r\n\r\n"),
        ("NUL in a trailer", b"0\r\nA: \0\r\n\r\n"),
        ("CR CR LF at the end", b"0\r\n\r\r\n"),
    ] {
        let whole = decode(input, input.len()).map(|_| ()).expect_err(what);
        assert_ne!(whole, "incomplete", "{what}");
        for step in 1..input.len() {
            assert_eq!(
                decode(input, step).map(|_| ()),
                Err(whole),
                "{what}, step {step}"
            );
        }
    }
}

#[test]
fn the_largest_size_is_below_2_to_the_63rd() {
    let mut chunks = Chunks::new(BodyLimits::default());
    let mut bytes = *b"7fffffffffffffff\r\nx";
    let decoded = chunks.decode(&mut bytes).expect("a legal size");
    assert_eq!((decoded.payload, decoded.ended), (1, false));
}

#[test]
fn extensions_are_bounded_for_each_chunk() {
    for most in [2, 100, 1024, 16 * 1024] {
        let limits = BodyLimits {
            chunk_extension: most,
            ..BodyLimits::default()
        };
        let longest = with_extension(most);
        assert!(decode_within(limits, &longest, longest.len()).is_ok());
        let longer = with_extension(most + 1);
        for step in [1, 7, longer.len()] {
            let error = decode_within(limits, &longer, step).map(|_| ());
            assert_eq!(error, Err("chunk extensions that are too long"));
        }
    }
    let none = BodyLimits {
        chunk_extension: 0,
        ..BodyLimits::default()
    };
    assert!(decode_within(none, b"1\r\na\r\n0\r\n\r\n", 1).is_ok());
    assert!(decode_within(none, b"1;\r\na\r\n0\r\n\r\n", 1).is_err());
}

/// `count` chunks of `size` bytes with `extension` bytes of extensions each.
fn chunks_with_extensions(count: usize, size: usize, extension: usize) -> Vec<u8> {
    let extension = match extension {
        0 => String::new(),
        _ => format!(";{}", "x".repeat(extension - 1)),
    };
    let chunk = format!("{size:x}{extension}\r\n{}\r\n", "d".repeat(size));
    format!("{}0\r\n\r\n", chunk.repeat(count)).into_bytes()
}

#[test]
fn extensions_are_bounded_by_the_data_that_they_come_with() {
    let out_of_proportion = Err("chunk extensions out of proportion to the data");
    let outcome = |count, size, extension| {
        let input = chunks_with_extensions(count, size, extension);
        let whole = decode(&input, input.len()).map(|_| ());
        for step in [1, 13, 1000] {
            assert_eq!(decode(&input, step).map(|_| ()), whole);
        }
        whole
    };
    // A byte at a time, or no more than a chunk and its data pay for: for ever.
    assert_eq!(outcome(20_000, 1, 0), Ok(()));
    assert_eq!(outcome(20_000, 1, 18), Ok(()));
    assert_eq!(outcome(200, 504, 1024), Ok(()));
    // The signatures of an object store.
    assert_eq!(outcome(10, 64 * 1024, 90), Ok(()));
    // One byte more each: until the allowance is used up.
    assert_eq!(outcome(16 * 1024, 1, 19), Ok(()));
    assert_eq!(outcome(16 * 1024 + 1, 1, 19), out_of_proportion);
    // The longest that each chunk may have, with a byte of data each.
    assert_eq!(outcome(16, 1, 1024), Ok(()));
    assert_eq!(outcome(17, 1, 1024), out_of_proportion);
    // What was paid too much is no credit for what comes later.
    let input = [
        &chunks_with_extensions(1, 100_000, 0)[..],
        &chunks_with_extensions(17, 1, 1024),
    ]
    .concat();
    let end = input
        .windows(5)
        .position(|window| window == b"0\r\n\r\n")
        .expect("the end of the first message");
    let input = [&input[..end], &input[end + 5..]].concat();
    assert_eq!(decode(&input, input.len()).map(|_| ()), out_of_proportion);
}

#[test]
fn a_read_reaches_no_further_into_the_next_message_than_it_may() {
    let input = b"5;x=y\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\nA: b\r\n\r\n";
    for ahead in [1, 2, 5, 100] {
        let limits = BodyLimits {
            ahead,
            ..BodyLimits::default()
        };
        let with_surplus = [&input[..], &[b'n'; 200]].concat();
        let mut chunks = Chunks::new(limits);
        let mut at = 0;
        loop {
            let reach = chunks.reach(with_surplus.len() - at);
            assert!(reach > 0, "no progress");
            let mut bytes = with_surplus[at..at + reach].to_vec();
            let decoded = chunks.decode(&mut bytes).expect("good chunks");
            at += decoded.consumed;
            if decoded.ended {
                assert_eq!(at, input.len());
                assert!(reach - decoded.consumed <= ahead);
                break;
            }
        }
    }
    let mut chunks = Chunks::new(BodyLimits::default());
    assert_eq!(
        chunks.reach(1 << 20),
        16 << 10,
        "where nothing is known yet"
    );
    let _ = chunks.decode(&mut b"fffff\r\n".to_vec()).expect("a size");
    assert_eq!(
        chunks.reach(1 << 20),
        1 << 20,
        "in the middle of a large chunk"
    );
}

#[test]
fn trailers_are_bounded_in_bytes_and_in_number() {
    let section = |bytes: usize| format!("0\r\nA: {}\r\n\r\n", "x".repeat(bytes - 5)).into_bytes();
    for most in [10, 8 * 1024, 100 * 1024] {
        let limits = BodyLimits {
            trailers: most,
            ..BodyLimits::default()
        };
        let (.., mut chunks) = decode_within(limits, &section(most), 100).expect("at the limit");
        assert!(chunks.finish().expect("good trailers").is_some());
        assert!(decode_within(limits, &section(most + 1), 100).is_err());
    }
    let none = BodyLimits {
        trailers: 0,
        ..BodyLimits::default()
    };
    assert!(decode_within(none, b"0\r\n\r\n", 1).is_ok());
    assert!(decode_within(none, b"0\r\nA:\r\n\r\n", 1).is_err());

    let fields = |count: usize| format!("0\r\n{}\r\n", "A: b\r\n".repeat(count)).into_bytes();
    let (.., mut chunks) = decode(&fields(TRAILER_FIELDS_MAX), 100).expect("good chunks");
    assert!(chunks.finish().is_ok());
    let (.., mut chunks) = decode(&fields(TRAILER_FIELDS_MAX + 1), 100).expect("good chunks");
    assert_eq!(chunks.finish(), Err("too many fields"));
}

#[test]
fn trailers_that_change_the_meaning_of_what_came_before_are_dropped() {
    let input = b"0\r\n\
        X-Sum: 1\r\nContent-Length: 5\r\nTRANSFER-ENCODING: chunked\r\nHost: a\r\n\
        Authorization: x\r\nSet-Cookie: x\r\nCookie: x\r\nContent-Type: x\r\nContent-Encoding: x\r\n\
        Content-Range: x\r\nConnection: x\r\nKeep-Alive: x\r\nUpgrade: x\r\nTrailer: x\r\nTE: x\r\n\
        If-Match: x\r\nRange: x\r\nExpect: x\r\nCache-Control: x\r\nAge: x\r\nLocation: x\r\n\
        Proxy-Authorization: x\r\nX-Forwarded-For: x\r\nContent-Digest: y\r\ngrpc-status:0\r\n\r\n";
    let (.., mut chunks) = decode(input, input.len()).expect("good chunks");
    let tail = chunks.finish().expect("good trailers").expect("trailers");
    assert_eq!(
        str::from_utf8(&tail),
        Ok("0\r\nX-Sum: 1\r\nContent-Digest: y\r\ngrpc-status: 0\r\n\r\n")
    );
}

#[test]
fn trailers_obey_the_syntax_of_fields() {
    for (what, input) in [
        ("a folded line", &b"0\r\nA: b\r\n c\r\n\r\n"[..]),
        ("a first line with a blank", b"0\r\n A: b\r\n\r\n"),
        ("a blank before the colon", b"0\r\nA : b\r\n\r\n"),
        ("no colon", b"0\r\nA\r\n\r\n"),
        ("no name", b"0\r\n: b\r\n\r\n"),
    ] {
        let (.., mut chunks) = decode(input, 1).expect(what);
        assert!(chunks.finish().is_err(), "{what}");
    }
}

#[test]
fn a_chunk_is_sealed_in_its_shortest_form() {
    for length in 64..600 {
        let layout = Layout::of(length);
        for payload in [1, 9, 15, 16, 17, 255, 256, 257, layout.room] {
            if payload > layout.room {
                continue;
            }
            let bytes: Vec<u8> = (0..payload).map(|at| at as u8).collect();
            let mut out = vec![0; length];
            out[layout.head..layout.head + payload].copy_from_slice(&bytes);
            let end = layout.seal(&mut out, payload);
            let expected = [format!("{payload:x}\r\n").as_bytes(), &bytes, b"\r\n"].concat();
            assert_eq!(out[..end], expected);
            assert!(end + LAST_CHUNK.len() <= length, "no room for the end");
        }
    }
}

proptest! {
    #[test]
    fn random_bytes_are_decoded_or_refused_alike_for_every_cut(
        input in proptest::collection::vec(
            prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b'2'), Just(b';'), any::<u8>()],
            0..40,
        ),
        step in 1..8usize,
    ) {
        let outcome = |step| decode(&input, step).map(|(payload, consumed, _)| (payload, consumed));
        prop_assert_eq!(outcome(input.len().max(1)), outcome(step));
    }
}
