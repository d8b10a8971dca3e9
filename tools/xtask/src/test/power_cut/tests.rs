use super::*;

#[test]
fn the_console_breaks_when_enough_records_are_synced_and_not_before() {
    let mut console = Console::new(RECORDS);
    console.write_all(b"a boot\r\n").unwrap();
    for number in 0..RECORDS {
        assert!(!console.is_enough(), "after {number}");
        let line = format!("@@RECORD {number}@@\r\n");
        // In two pieces, as they may come.
        console.write_all(&line.as_bytes()[..5]).unwrap();
        let whole = console.write_all(&line.as_bytes()[5..]);
        assert_eq!(whole.is_err(), number + 1 == RECORDS, "after {number}");
    }
    assert!(console.is_enough());
    assert_eq!(console.lines().len(), RECORDS + 1);
}

#[test]
fn a_loss_and_what_e2fsck_finds_both_count() {
    let found = |lost: Vec<usize>, wrong: Option<&str>| Found {
        synced: 20,
        lost,
        wrong: wrong.map(str::to_owned),
        console: Vec::new(),
    };
    assert!(found(vec![], None).is_whole());
    assert!(!found(vec![3], None).is_whole());
    assert!(!found(vec![], Some("a bad inode")).is_whole());
    assert_eq!(found(vec![3], None).to_string(), "20 records synced, 1 of them lost");
}
