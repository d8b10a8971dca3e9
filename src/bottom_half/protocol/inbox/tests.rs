use super::*;

fn links<const N: usize>() -> [AtomicU32; N] {
    std::array::from_fn(|_| AtomicU32::new(0))
}

fn take(inbox: &Inbox, links: &[AtomicU32]) -> Vec<u32> {
    let mut taken = Vec::new();
    let mut chain = inbox.take(|id| &links[id as usize]);
    while let Some(id) = chain.next(|id| &links[id as usize]) {
        taken.push(id);
    }
    taken
}

#[test]
fn entries_come_out_as_they_went_in() {
    let (inbox, links) = (Inbox::default(), links::<4>());
    assert_eq!(inbox.push(2, &links[2]), Pushed::First);
    assert_eq!(inbox.push(0, &links[0]), Pushed::Behind);
    assert_eq!(inbox.push(3, &links[3]), Pushed::Behind);
    assert_eq!(take(&inbox, &links), [2, 0, 3]);
    assert!(inbox.is_empty() && take(&inbox, &links).is_empty());
}

#[test]
fn an_entry_may_be_pushed_again_while_its_fellows_are_taken() {
    let (inbox, links) = (Inbox::default(), links::<2>());
    let _ = inbox.push(0, &links[0]);
    let _ = inbox.push(1, &links[1]);
    let mut taken = Vec::new();
    let mut chain = inbox.take(|id| &links[id as usize]);
    while let Some(id) = chain.next(|id| &links[id as usize]) {
        taken.push(id);
        let _ = inbox.push(id, &links[id as usize]);
    }
    assert_eq!(taken, [0, 1]);
    assert_eq!(take(&inbox, &links), [0, 1]);
}

#[test]
fn a_taker_is_woken_by_the_first_push_only() {
    let (inbox, links) = (Inbox::default(), links::<2>());
    assert!(inbox.ask() && inbox.ask());
    assert_eq!(inbox.push(0, &links[0]), Pushed::Wake);
    assert_eq!(inbox.push(1, &links[1]), Pushed::Behind);
    assert!(!inbox.ask(), "there is something to take");
    assert_eq!(take(&inbox, &links), [0, 1]);
    assert_eq!(inbox.push(0, &links[0]), Pushed::First);
}
