use super::*;

#[test]
fn the_marker_ends_the_stream_however_it_is_cut() {
    for cut in 0.."some text@@end@@".len() {
        let mut until = UntilMarker::new("@@end@@".to_owned());
        let (first, second) = b"some text@@end@@".split_at(cut);
        let mut out = until.take(first);
        assert!(!until.ended);
        out.extend(until.take(second));
        assert!(until.ended);
        assert_eq!(out, b"some text");
    }
}

#[test]
fn what_only_begins_like_the_marker_is_passed_on() {
    let mut until = UntilMarker::new("@@end@@".to_owned());
    assert_eq!(until.take(b"a@@e"), b"a");
    assert_eq!(until.take(b"@@en"), b"@@e");
    assert_eq!(until.take(b"x"), b"@@enx");
    assert!(!until.ended);
}

#[test]
fn messages_are_read_one_after_the_other_with_files_between() {
    let mut ctl = &b"ready\nalive\nexit 7\nfile 0 5\na\nb\0cnofile 1\nend\n"[..];
    let mut events = Vec::new();
    while let Some(event) = next_event(&mut ctl) {
        events.push(event);
    }
    let file = Event::File(0, Some(b"a\nb\0c".to_vec()));
    assert_eq!(events, [Event::Ready, Event::Alive, Event::Exit(7), file, Event::File(1, None), Event::End]);
}

#[test]
fn a_file_cut_short_or_a_line_that_makes_no_sense_is_no_message() {
    assert_eq!(next_event(&mut &b"file 0 9\nabc"[..]), None);
    assert_eq!(next_event(&mut &b"exit 256\n"[..]), None);
    assert_eq!(next_event(&mut &b"hello\n"[..]), None);
}
