use super::*;

fn keys(bytes: &[u8]) -> Vec<Key> {
    let mut keys = Keys::default();
    let whole = keys.take(bytes);
    // The same byte by byte.
    let mut keys = Keys::default();
    let single: Vec<Key> = bytes.iter().flat_map(|&byte| keys.take(&[byte])).collect();
    assert_eq!(whole, single, "{bytes:?}");
    whole
}

#[test]
fn characters_and_sequences_are_keys() {
    use Key::*;
    assert_eq!(keys(b"q \t\x03\x0c"), [Char('q'), Char(' '), Tab, Interrupt, Repaint]);
    assert_eq!(keys(b"\x1b[A\x1bOB\x1b[1;5C\x1b[D"), [Up, Down, Right, Left]);
    assert_eq!(keys(b"\x1b[5~\x1b[6~\x1b[H\x1b[4~\x1b[Z"), [PageUp, PageDown, Home, End, BackTab]);
}

#[test]
fn what_means_nothing_is_left_out_and_the_next_key_is_not() {
    assert_eq!(keys(b"\x1b[15~q"), [Key::Char('q')]);
    assert_eq!(keys(b"\x1bq"), [Key::Char('q')], "the Escape key");
    assert_eq!(keys(b"\x1b\x1b[A"), [Key::Up]);
    assert_eq!(keys("é\u{0}\r".as_bytes()), []);
    assert_eq!(keys(&[b"\x1b[".as_slice(), &[b'1'; 14], b"q"].concat()), [Key::Char('q')], "no end");
}
