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

#[test]
fn a_thread_may_lower_its_own_priority_and_nobody_elses() {
    let nice = || {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        // The 19th field; the second is a name in parentheses.
        stat.rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap().parse::<i32>().unwrap()
    };
    let before = nice();
    std::thread::spawn(move || {
        set_nice(19).unwrap();
        assert_eq!(nice(), 19);
    })
    .join()
    .unwrap();
    assert_eq!(nice(), before);
}

#[test]
fn a_thread_runs_where_it_is_told_to() {
    let allowed = || {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim().to_owned()
    };
    let first = allowed().split([',', '-']).next().unwrap().parse::<usize>().unwrap();
    let pinned = std::thread::spawn(move || {
        run_on_cpus(&[first]).unwrap();
        allowed()
    });
    assert_eq!(pinned.join().unwrap(), first.to_string());
    assert!(run_on_cpus(&[]).is_err(), "nowhere");
    assert!(run_on_cpus(&[usize::MAX]).is_err(), "a CPU that can't be");
}
