use super::*;

fn name_after(name: &'static str) -> String {
    std::thread::spawn(move || {
        set_name(name);
        std::fs::read_to_string("/proc/thread-self/comm").unwrap().trim_end().to_owned()
    })
    .join()
    .unwrap()
}

#[test]
fn a_thread_gets_its_name() {
    assert_eq!(name_after("vcpu 3"), "vcpu 3");
}

#[test]
fn a_long_name_and_a_nul_are_cut() {
    assert_eq!(name_after("0123456789abcdefgh"), "0123456789abcde");
    assert_eq!(name_after("ab\0cd"), "ab");
}

#[test]
fn there_is_at_least_one_cpu() {
    assert!(online_cpus() >= 1);
}
