use super::*;
use alloc::vec;
use proptest::prelude::*;

fn lines(framer: &mut LineFramer) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    while let Some(line) = framer.next_line() {
        lines.push(line.unwrap());
    }
    lines
}

#[test]
fn lf_and_crlf_end_a_line() {
    let mut framer = LineFramer::new(10);
    framer.push(b"a\nb\r\nc\r\r\nd\re\n");
    assert_eq!(lines(&mut framer), [&b"a"[..], b"b", b"c\r", b"d\re"]);
    assert_eq!(framer.buffered(), 0);
}

#[test]
fn blank_lines_are_skipped() {
    let mut framer = LineFramer::new(10);
    framer.push(b"\n\r\n  \n\t\r\na\n\n");
    assert_eq!(lines(&mut framer), [b"a"]);
    assert_eq!(framer.finish(), None);
}

#[test]
fn longest_line_is_accepted_and_one_more_octet_is_not() {
    let mut framer = LineFramer::new(4);
    framer.push(b"abcd\nabcde\nab\n");
    assert_eq!(framer.next_line(), Some(Ok(b"abcd".to_vec())));
    assert_eq!(framer.next_line(), Some(Err(LineTooLong { allowed: 4 })));
    assert!(framer.is_poisoned());
    framer.push(b"ok\n");
    assert_eq!(framer.next_line(), None);
    assert_eq!(framer.finish(), None);
    assert_eq!(framer.buffered(), 0);
}

#[test]
fn overlong_line_is_refused_before_its_end_arrives() {
    let mut framer = LineFramer::new(4);
    framer.push(b"abcd");
    assert_eq!(framer.next_line(), None);
    framer.push(b"e");
    let error = framer.next_line().unwrap().unwrap_err();
    assert_eq!(error.code(), ErrorCode::LineTooLong);
}

#[test]
fn finish_gives_the_last_line_without_its_end() {
    let mut framer = LineFramer::new(10);
    framer.push(b"first\nlast\r");
    assert_eq!(lines(&mut framer), [b"first"]);
    assert_eq!(framer.finish(), Some(b"last".to_vec()));
    assert_eq!(framer.finish(), None);
}

#[test]
fn finish_gives_lines_that_were_not_taken_first() {
    let mut framer = LineFramer::new(10);
    framer.push(b"first\nlast");
    assert_eq!(framer.finish(), Some(b"first".to_vec()));
    assert_eq!(framer.finish(), Some(b"last".to_vec()));
    assert_eq!(framer.finish(), None);
}

#[test]
fn finish_of_an_overlong_rest_is_nothing() {
    let mut framer = LineFramer::new(3);
    framer.push(b"abcd");
    assert_eq!(framer.finish(), None);
    assert!(framer.is_poisoned());
}

#[test]
fn endless_line_never_buffers_more_than_the_bound_and_a_push() {
    let mut framer = LineFramer::new(DEFAULT_MAX_LINE);
    let piece = [b'x'; 1_000];
    let mut refused = false;
    for _ in 0..10_000 {
        framer.push(&piece);
        refused |= matches!(framer.next_line(), Some(Err(_)));
        assert!(framer.buffered() <= DEFAULT_MAX_LINE);
        assert!(framer.buffer.capacity() <= 2 * (DEFAULT_MAX_LINE + piece.len()));
    }
    assert!(refused);
}

#[test]
fn memory_of_a_large_push_is_given_back() {
    let mut framer = LineFramer::new(100);
    framer.push(&b"0123456789\n".repeat(100_000));
    framer.push(b"rest");
    assert_eq!(lines(&mut framer).len(), 100_000);
    assert!(
        framer.buffer.capacity() <= 100,
        "{}",
        framer.buffer.capacity()
    );
    assert_eq!(framer.finish(), Some(b"rest".to_vec()));
}

/// What the framer is to be equal to: the lines, and whether one was too long.
fn reference(stream: &[u8], max_line: usize) -> (Vec<Vec<u8>>, bool) {
    let mut lines = Vec::new();
    for line in stream.split(|&octet| octet == b'\n') {
        if line.len() > max_line {
            return (lines, true);
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if !line.iter().all(|octet| b" \t\r".contains(octet)) {
            lines.push(line.to_vec());
        }
    }
    (lines, false)
}

proptest! {
    #[test]
    fn equals_splitting_on_lf_under_any_chunking(
        stream in prop::collection::vec(prop::sample::select(&b"ab \t\r\n\n"[..]), 0..300),
        sizes in prop::collection::vec(0_usize..40, 1..20),
        max_line in 5_usize..30,
    ) {
        let mut framer = LineFramer::new(max_line);
        let mut found = Vec::new();
        let mut too_long = false;
        let mut rest = &stream[..];
        for size in sizes.iter().cycle().copied().take(1_000) {
            let (chunk, after) = rest.split_at(size.min(rest.len()));
            rest = after;
            framer.push(chunk);
            while let Some(line) = framer.next_line() {
                match line {
                    Ok(line) => found.push(line),
                    Err(_) => too_long = true,
                }
            }
            prop_assert!(framer.buffered() <= max_line);
        }
        framer.push(rest);
        while let Some(line) = framer.next_line() {
            match line {
                Ok(line) => found.push(line),
                Err(_) => too_long = true,
            }
        }
        found.extend(framer.finish());
        prop_assert_eq!((found, too_long), reference(&stream, max_line));
    }

    #[test]
    fn octet_by_octet_equals_all_at_once(stream in prop::collection::vec(any::<u8>(), 0..500)) {
        let mut whole = LineFramer::new(1_000);
        whole.push(&stream);
        let mut single = LineFramer::new(1_000);
        let mut found = vec![];
        for octet in &stream {
            single.push(&[*octet]);
            found.extend(lines(&mut single));
        }
        found.extend(single.finish());
        let mut expected = lines(&mut whole);
        expected.extend(whole.finish());
        prop_assert_eq!(found, expected);
    }
}
