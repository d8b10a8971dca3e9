use std::io::{Read, Write, pipe};
use std::os::unix::net::UnixStream;

use super::*;

#[test]
fn a_pipe_has_input_and_then_its_end() {
    let (mut reader, mut writer) = pipe().unwrap();
    assert_eq!(ready(&reader), Ready::default());
    writer.write_all(b"x").unwrap();
    assert!(ready(&reader).contains(Ready::INPUT));
    assert!(!ready(&reader).contains(Ready::INPUT | Ready::HANG_UP));
    drop(writer);
    assert!(ready(&reader).contains(Ready::INPUT | Ready::HANG_UP));
    reader.read_exact(&mut [0]).unwrap();
    assert!(ready(&reader).contains(Ready::HANG_UP));
}

#[test]
fn a_socket_whose_peer_only_stops_writing_is_not_hung_up() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(!ready(&ours).contains(Ready::HANG_UP));
    assert!(ready(&ours).contains(Ready::INPUT), "the end");
    drop(theirs);
    assert!(ready(&ours).contains(Ready::HANG_UP));
}

#[test]
fn a_wait_ends_with_the_first_that_is_ready_and_says_which() {
    let (reader, mut writer) = pipe().unwrap();
    let (other, _kept) = pipe().unwrap();
    let limit = Duration::from_secs(3600);
    let of = [(other.as_fd(), Ready::INPUT), (reader.as_fd(), Ready::INPUT)];
    assert!(wait(&of, Duration::ZERO).unwrap().iter().all(|ready| !ready.is_any()));
    writer.write_all(b"x").unwrap();
    assert_eq!(wait(&of, limit).unwrap(), [Ready::default(), Ready::INPUT]);
    assert_eq!(wait(&[(writer.as_fd(), Ready::OUTPUT)], limit).unwrap(), [Ready::OUTPUT]);
    drop(reader);
    assert!(wait(&[(writer.as_fd(), Ready::default())], limit).unwrap()[0].is_any(), "nobody reads");
}
