use super::*;

fn refused(name: &str) -> String {
    Tap::open(name).expect_err("no tap interface").to_string()
}

#[test]
fn an_interface_that_is_not_there_is_not_made() {
    assert_eq!(refused("tophalf-none"), "there is no such interface");
    assert_eq!(refused("tophalf-none"), "there is no such interface");
}

#[test]
fn names_that_are_none_are_refused() {
    assert_eq!(refused(""), "an interface's name has 1 to 15 characters");
    assert_eq!(refused("sixteen-letters-"), "an interface's name has 1 to 15 characters");
    assert!(Tap::open("a\0b").is_err());
}

#[test]
fn an_interface_that_is_no_tap_is_refused() {
    // Without the right to try, the kernel says that first.
    let said = refused("lo");
    assert!(!said.contains("no such interface"), "{said}");
}

/// Where tap interfaces can be made. Red when: an interface with one queue is said to be none, or a queue that is not attached gets
/// packets.
#[test]
fn several_queues_need_an_interface_made_for_them() {
    let name = format!("thq{}", std::process::id() % 100_000);
    let Ok(made) = Tap::make(&name) else {
        println!("SKIPPED: no tap interface can be made here");
        return;
    };
    let queues = Tap::open_queues(&name, 3).expect("three queues");
    let attached: Vec<_> = queues.iter().map(|tap| tap.attached.load(Ordering::Relaxed)).collect();
    assert_eq!(attached, [true, false, false]);
    for attached in [true, true, false, false, true] {
        queues[1].set_attached(attached).expect("as often as one likes");
    }
    drop((queues, made));
    let (file, c_name) = (open_tun().expect("it was there"), checked(&name).expect("it is one"));
    attach(&file, &c_name, 0).expect("one queue");
    let refused = Tap::open_queues(&name, 2).expect_err("it has one");
    assert_eq!((refused.kind(), refused.to_string()), (io::ErrorKind::Unsupported, "it has one queue only".to_owned()));
}
