//! The fault that the program has chosen.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::{Fault, NOW_AND_THEN};

/// No fault.
const NONE: u32 = u32::MAX;

/// The chosen one's number. Set before there are threads.
static CHOSEN: AtomicU32 = AtomicU32::new(NONE);
/// How often [`now_and_then`] was asked for the chosen one.
static ASKED: AtomicU32 = AtomicU32::new(0);

/// There is no fault of that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unknown;

/// Gives the program the fault called `name`; to be called once, before anything else.
///
/// # Errors
///
/// When there is no such fault.
pub fn choose(name: &str) -> Result<(), Unknown> {
    let record = Fault::ALL.iter().find(|record| record.name == name).ok_or(Unknown)?;
    CHOSEN.store(record.fault as u32, Ordering::Relaxed);
    Ok(())
}

/// Whether the program has this fault.
#[inline]
pub fn is(fault: Fault) -> bool {
    CHOSEN.load(Ordering::Relaxed) == fault as u32
}

/// As [`is`], but true only once in [`NOW_AND_THEN`] calls: for what goes wrong rarely, and is lost for good.
#[inline]
pub fn now_and_then(fault: Fault) -> bool {
    is(fault) && ASKED.fetch_add(1, Ordering::Relaxed) % NOW_AND_THEN == NOW_AND_THEN - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_chosen_one_is_there_and_now_and_then_is_rare() {
        assert_eq!(choose("NoSuchFault"), Err(Unknown));
        assert!(Fault::ALL.iter().all(|record| !is(record.fault)), "a fault without a choice");
        let (first, second) = (Fault::ALL[0], Fault::ALL[1]);
        assert_eq!(choose(second.name), Ok(()));
        assert!(is(second.fault) && !is(first.fault));
        let times = |fault| (0..10 * NOW_AND_THEN).filter(|_| now_and_then(fault)).count();
        assert_eq!((times(first.fault), times(second.fault)), (0, 10));
    }
}
