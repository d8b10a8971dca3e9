use super::*;

/// Reads an archive back: name, mode, contents of each entry.
fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
    let mut entries = Vec::new();
    loop {
        let field = |n: usize| {
            let text = std::str::from_utf8(&bytes[6 + 8 * n..14 + 8 * n]).unwrap();
            u32::from_str_radix(text, 16).unwrap()
        };
        assert_eq!(&bytes[..6], b"070701");
        let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
        let name = String::from_utf8(bytes[110..110 + name_size - 1].to_vec()).unwrap();
        assert_eq!(bytes[110 + name_size - 1], 0);
        let data = (110 + name_size).next_multiple_of(4);
        entries.push((name.clone(), mode, bytes[data..data + size].to_vec()));
        if name == "TRAILER!!!" {
            return entries;
        }
        bytes = &bytes[(data + size).next_multiple_of(4)..];
    }
}

#[test]
fn an_archive_reads_back_as_written() {
    let mut archive = Archive::new();
    archive.file("/bin/run", 0o755, b"hello");
    archive.symlink("bin/sh", "run");
    let entries = read(&archive.finish());
    assert_eq!(
        entries,
        [
            ("bin".to_owned(), 0o040_755, vec![]),
            ("bin/run".to_owned(), 0o100_755, b"hello".to_vec()),
            ("bin/sh".to_owned(), 0o120_777, b"run".to_vec()),
            ("TRAILER!!!".to_owned(), 0, vec![]),
        ]
    );
}

#[test]
fn a_directory_comes_before_what_is_in_it_and_only_once() {
    let mut archive = Archive::new();
    archive.file("a/b/c", 0o644, b"");
    archive.file("a/b/d", 0o644, b"");
    archive.directory("/a/");
    let names: Vec<_> = read(&archive.finish()).into_iter().map(|entry| entry.0).collect();
    assert_eq!(names, ["a", "a/b", "a/b/c", "a/b/d", "TRAILER!!!"]);
}

#[test]
fn an_archive_is_padded_to_whole_blocks_so_that_two_can_be_joined() {
    let mut archive = Archive::new();
    archive.file("x", 0o644, b"12345");
    assert_eq!(archive.finish().len() % 512, 0);
}
