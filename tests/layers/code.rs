//! Reading Rust source well enough to look for words in it: comments, strings and test modules are blanked out.

use std::ops::Range;

/// The source with comments and the contents of string and character literals replaced by blanks, line by line as it
/// was.
pub fn code_only(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match skipped(bytes, at) {
            Some(end) => {
                blank(&mut out, at..end);
                end
            }
            None => at + 1,
        };
        at = end;
    }
    String::from_utf8(out).expect("blanking keeps UTF-8: whole characters are replaced")
}

/// The end of the comment or literal that starts at `at`, if one does.
fn skipped(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        return Some(at + position(rest, b"\n").unwrap_or(rest.len()));
    }
    if rest.starts_with(b"/*") {
        return Some(end_of_block_comment(bytes, at));
    }
    let starts_word = at == 0 || !is_word(bytes[at - 1]);
    match rest[0] {
        b'"' => Some(end_of_string(bytes, at)),
        b'r' if starts_word => end_of_raw_string(bytes, at + 1),
        b'b' if starts_word && rest.get(1) == Some(&b'r') => end_of_raw_string(bytes, at + 2),
        b'\'' => end_of_character(bytes, at),
        _ => None,
    }
}

fn end_of_block_comment(bytes: &[u8], at: usize) -> usize {
    let (mut depth, mut i) = (0, at);
    while i < bytes.len() {
        match &bytes[i..] {
            [b'/', b'*', ..] => (depth, i) = (depth + 1, i + 2),
            [b'*', b'/', ..] => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            break;
        }
    }
    i
}

fn end_of_string(bytes: &[u8], at: usize) -> usize {
    let mut i = at + 1;
    while i < bytes.len() && bytes[i] != b'"' {
        i += if bytes[i] == b'\\' { 2 } else { 1 };
    }
    (i + 1).min(bytes.len())
}

fn end_of_raw_string(bytes: &[u8], at: usize) -> Option<usize> {
    let hashes = bytes[at..].iter().take_while(|&&byte| byte == b'#').count();
    if bytes.get(at + hashes) != Some(&b'"') {
        return None;
    }
    let close = [&b"\""[..], &vec![b'#'; hashes]].concat();
    let body = at + hashes + 1;
    Some(position(&bytes[body..], &close).map_or(bytes.len(), |found| body + found + close.len()))
}

/// A character literal, as against a lifetime.
fn end_of_character(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at + 1) == Some(&b'\\') {
        let body = at + 3;
        return Some(position(bytes.get(body..)?, b"'").map_or(bytes.len(), |found| body + found + 1));
    }
    // One character is up to four bytes.
    (at + 2..=at + 5)
        .find(|&i| bytes.get(i) == Some(&b'\''))
        .filter(|&end| {
            let inside = std::str::from_utf8(&bytes[at + 1..end]);
            inside.is_ok_and(|text| text.chars().count() == 1)
        })
        .map(|end| end + 1)
}

fn position(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn blank(out: &mut [u8], range: Range<usize>) {
    out[range].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
}

/// Where `word` stands in `code` as a whole word, or as a path for a word with colons: byte offsets.
pub fn find_word(code: &str, word: &str) -> Vec<usize> {
    let bytes = code.as_bytes();
    let bounded = |&at: &usize| {
        let before = at == 0 || !is_word(bytes[at - 1]) || !is_word(word.as_bytes()[0]);
        let after =
            bytes.get(at + word.len()).is_none_or(|&b| !is_word(b) || !is_word(word.as_bytes()[word.len() - 1]));
        before && after
    };
    code.match_indices(word).map(|(at, _)| at).filter(bounded).collect()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// The line number, from 1, of a byte offset.
pub fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count() + 1
}

/// `code` (as [`code_only`] gives it) without what is compiled for tests only: inline modules and other items under
/// `#[cfg(test)]`. Also the names of the test modules that are files of their own.
pub fn without_tests(code: &str) -> (String, Vec<String>) {
    let mut out = code.as_bytes().to_vec();
    let mut files = Vec::new();
    for (at, _) in code.match_indices("#[cfg(") {
        let Some(close) = code[at..].find(']').map(|found| at + found + 1) else { continue };
        if find_word(&code[at..close], "test").is_empty() || code[at..close].contains("not(test") {
            continue;
        }
        let end = end_of_item(code, close);
        let item = code[close..end].trim();
        if let Some(name) = item.split("mod ").nth(1).and_then(|rest| rest.strip_suffix(';')) {
            files.push(name.trim().to_owned());
        }
        blank(&mut out, at..end);
    }
    (String::from_utf8(out).expect("blanking whole items keeps UTF-8"), files)
}

/// Behind the item that starts at `at`: its semicolon, or the brace that closes its first.
fn end_of_item(code: &str, at: usize) -> usize {
    let mut depth = 0;
    for (i, byte) in code.bytes().enumerate().skip(at) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return i + 1,
            b'}' => depth -= 1,
            b';' if depth == 0 => return i + 1,
            _ => {}
        }
    }
    code.len()
}

#[test]
fn comments_and_literals_are_blanked_and_code_is_not() {
    let source = concat!(
        "let a = \"unsafe \\\" {\"; // unsafe\n",
        "/* unsafe /* nested */ unsafe */ let b = r#\"unsafe \" \"#;\n",
        "let c: &'static str = f('\"', '\\'', b'x'); unsafe { g() }\n",
    );
    let code = code_only(source);
    assert_eq!(find_word(&code, "unsafe").len(), 1);
    assert_eq!(line_of(&code, find_word(&code, "unsafe")[0]), 3);
    assert_eq!(code.lines().count(), source.lines().count());
    assert!(code.contains("&'static str"), "{code}");
}

#[test]
fn words_are_whole_words() {
    assert_eq!(find_word("unsafe_code allow(unsafe_code)", "unsafe"), []);
    assert_eq!(find_word("a std::thread::spawn", "std::thread"), [2]);
    assert_eq!(find_word("std::threads", "std::thread"), []);
    assert_eq!(find_word("unsafe{", "unsafe"), [0]);
}

#[test]
fn test_items_are_blanked_and_test_files_named() {
    let code = "mod a;\n#[cfg(test)]\nmod tests;\n#[cfg(all(test, not(loom)))]\nmod b_tests;\n#[cfg(test)]\nmod inline { fn x() { y() } }\nfn z() {}\n#[cfg(not(test))]\nfn w() {}";
    let (rest, files) = without_tests(code);
    assert_eq!(files, ["tests", "b_tests"]);
    assert!(rest.contains("mod a;") && rest.contains("fn z()") && rest.contains("fn w()"));
    assert!(!rest.contains("inline") && !rest.contains("y()"));
}
