use std::io::Write;

use super::*;

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(path).unwrap()
}

fn read(mut file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4096];
    let count = file.read(&mut bytes)?;
    bytes.truncate(count);
    Ok(bytes)
}

#[test]
fn it_tells_whether_somebody_is_there() {
    let mut pty = Pty::open().unwrap();
    assert!(!pty.has_client());
    pty.take_news();
    for _ in 0..3 {
        let client = open(pty.path());
        assert!(pty.has_client());
        assert!(ready(&pty.news).contains(Ready::INPUT), "an event");
        pty.take_news();
        assert!(!ready(&pty.news).contains(Ready::INPUT), "taken");
        drop(client);
        assert!(!pty.has_client());
        assert!(ready(&pty.news).contains(Ready::INPUT), "an event");
        pty.take_news();
    }
}

#[test]
fn bytes_pass_both_ways_as_they_are() {
    let pty = Pty::open().unwrap();
    let all: Vec<u8> = (0..=255).collect();
    let client = open(pty.path());
    pty.master().write_all(&all).unwrap();
    assert_eq!(read(&client).unwrap(), all);
    (&client).write_all(&all).unwrap();
    assert_eq!(read(pty.master()).unwrap(), all, "and nothing is echoed");
}

/// What the console relies on: nothing is lost between one who goes and the next who comes.
#[test]
fn what_was_written_before_a_close_is_there_for_both_sides() {
    let pty = Pty::open().unwrap();
    let client = open(pty.path());
    (&client).write_all(b"last words").unwrap();
    pty.master().write_all(b"unread").unwrap();
    drop(client);
    assert_eq!(read(pty.master()).unwrap(), b"last words");
    assert_eq!(read(pty.master()).unwrap_err().raw_os_error(), Some(libc::EIO), "nobody is there");
    let client = open(pty.path());
    assert_eq!(read(&client).unwrap(), b"unread");
    assert_eq!(read(pty.master()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn draining_ends_when_all_is_read_and_when_nobody_reads() {
    let pty = Pty::open().unwrap();
    const NEVER: Duration = Duration::from_secs(3600);
    pty.drain(NEVER);
    let client = open(pty.path());
    pty.drain(NEVER);
    pty.master().write_all(b"unread").unwrap();
    pty.drain(Duration::from_millis(20));
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(read(&client).unwrap(), b"unread"));
        pty.drain(NEVER);
    });
}
