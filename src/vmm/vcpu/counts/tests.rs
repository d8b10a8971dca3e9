use super::*;

#[test]
fn the_kinds_are_numbered_in_their_order() {
    for (at, kind) in ExitKind::ALL.into_iter().enumerate() {
        assert_eq!(kind as usize, at, "{kind:?}");
    }
}

#[test]
fn each_exit_is_counted_by_its_kind() {
    let counts = Counts::default();
    counts.exit(&Exit::Halt);
    counts.exit(&Exit::PioOut { port: 0x80, size: 1, data: &[0] });
    counts.exit(&Exit::PioIn { port: 0x80, size: 1, data: &mut [0] });
    counts.exit(&Exit::Shutdown);
    let seen = ExitKind::ALL.map(|kind| counts.exits(kind));
    assert_eq!(seen, [2, 0, 0, 1, 0, 0, 0, 0, 1]);
}

#[test]
fn they_are_shown_as_names_with_numbers() {
    let counts = Counts::default();
    counts.interrupts.add();
    counts.interrupts.add();
    counts.spared_eois.set(7);
    counts.exit(&Exit::InterruptWindow);
    let text = counts.to_string();
    for part in ["interrupts=2 ", "eois=0 ", "spared-eois=7 ", " exit:window=1 ", " call:KVM_RUN=0 "] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    assert_eq!(text.split(' ').filter(|part| part.contains('=')).count(), 4 + ExitKind::ALL.len() + Call::ALL.len());
}
