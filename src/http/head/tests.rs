use super::*;

#[test]
fn a_head_ends_behind_its_empty_line() {
    for (bytes, end) in [
        (&b""[..], None),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r", None),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody\r\n\r\n", Some(27)),
        (b"GET / HTTP/1.1\r\n\r\n", Some(18)),
        // Empty lines before it (RFC 9112 §2.2), up to two.
        (b"\r\nG\r\n\r\n", Some(7)),
        (b"\r\n\r\nG\r\n\r\n", Some(9)),
        (b"\r\n\r\n", None),
        (b"\r\n\r\n\r", None),
        (b"\r\n\r\n\r\n", Some(6)),
        // What only a lenient parser takes for an end is one, so that it is refused at once.
        (b"\nG", Some(1)),
        (b"G\r\nHost: a\n\nx", Some(12)),
        (b"G\nHost: a\n\r\nx", Some(12)),
        (b"G\r\r\n", None),
    ] {
        assert_eq!(
            head_end(bytes, 0),
            end,
            "{:?}",
            bytes.escape_ascii().to_string()
        );
    }
}

#[test]
fn the_end_is_found_however_the_head_dribbles_in() {
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: a\r\n\r\nPOST"[..],
        b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n\r\n",
        b"\r\n\r\nG\r\n\r\n",
        b"\r\n\r\n\r\nG",
        b"G\n\nG",
        b"G\n\r\nG",
    ] {
        let end = head_end(bytes, 0).expect("a whole head");
        for step in 1..=bytes.len() {
            let mut scanned = 0;
            let mut found = None;
            let mut have = 0;
            while found.is_none() && have < bytes.len() {
                have = (have + step).min(bytes.len());
                found = head_end(&bytes[..have], scanned);
                scanned = have;
            }
            assert_eq!(found, Some(end), "step {step}");
            assert!(
                have >= end && have < end + step,
                "found late at {have}, step {step}"
            );
        }
    }
}

#[test]
fn scanning_starts_again_where_it_stopped() {
    // A blank line that was said to be scanned is not found: nothing before it is looked at again.
    let bytes = b"G\r\n\r\nlater";
    assert_eq!(head_end(bytes, 0), Some(5));
    assert_eq!(head_end(bytes, bytes.len()), None);
}

#[test]
fn only_crlf_ends_a_line_and_no_line_is_folded() {
    assert_eq!(check_lines(b"a b\r\nc: \td\xff\r\n\r\n"), Ok(()));
    for section in [
        &b"a\nb: c\r\n\r\n"[..],
        b"a\rb\r\n\r\n",
        b"a\r\r\n\r\n",
        b"a\r",
        b"a\r\nb: c\r\n d\r\n\r\n",
        b"a\r\n\tb: c\r\n\r\n",
        b" a\r\n\r\n",
        b"a\0\r\n\r\n",
        b"a\x0b\r\n\r\n",
        b"a\x7f\r\n\r\n",
        b"\n",
        b"a",
        b"",
    ] {
        assert!(check_lines(section).is_err(), "{}", section.escape_ascii());
    }
}
