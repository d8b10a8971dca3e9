use super::*;

#[test]
fn it_is_scheduled_once_until_it_runs() {
    let state = TaskletState::default();
    assert_eq!([state.schedule(), state.schedule()], [Schedule::Mine, Schedule::Merged]);
    assert_eq!(state.begin(), Begin::Run);
    assert_eq!(state.schedule(), Schedule::Mine);
    assert_eq!(state.begin(), Begin::Parked, "it runs elsewhere");
    assert_eq!(state.finish().owed, Owed::Push);
    assert_eq!(state.begin(), Begin::Run);
    assert_eq!(state.finish().owed, Owed::Nothing);
}

#[test]
fn disabling_nests_and_the_last_enable_puts_it_back() {
    let state = TaskletState::default();
    state.disable();
    state.disable();
    assert_eq!(state.schedule(), Schedule::Mine);
    assert_eq!(state.begin(), Begin::Parked);
    assert_eq!([state.enable(), state.enable()], [Owed::Nothing, Owed::Push]);
    assert_eq!(state.begin(), Begin::Run);
}

#[test]
fn killing_drops_what_is_scheduled_and_lets_a_run_end() {
    let state = TaskletState::default();
    assert_eq!(state.schedule(), Schedule::Mine);
    assert!(state.kill());
    assert!(!state.kill());
    assert_eq!(state.begin(), Begin::Dropped { forget: false });
    assert_eq!(state.schedule(), Schedule::Killed);
    assert!(!state.is_scheduled());
}

#[test]
fn exactly_one_forgets_a_tasklet_whose_handle_is_gone() {
    let idle = TaskletState::default();
    assert!(idle.bury());

    let listed = TaskletState::default();
    assert_eq!(listed.schedule(), Schedule::Mine);
    assert!(!listed.bury());
    assert_eq!(listed.begin(), Begin::Dropped { forget: true });

    let running = TaskletState::default();
    assert_eq!(running.schedule(), Schedule::Mine);
    assert_eq!(running.begin(), Begin::Run);
    assert_eq!(running.schedule(), Schedule::Mine);
    assert!(!running.bury());
    assert_eq!(running.begin(), Begin::Dropped { forget: false });
    assert!(running.finish().forget);

    let parked = TaskletState::default();
    parked.disable();
    assert_eq!(parked.schedule(), Schedule::Mine);
    assert_eq!(parked.begin(), Begin::Parked);
    assert!(parked.bury());
}

#[test]
fn the_end_of_a_run_tells_who_waits() {
    let state = TaskletState::default();
    assert!(!state.watch());
    assert_eq!(state.schedule(), Schedule::Mine);
    assert!(!state.watch());
    assert_eq!(state.begin(), Begin::Run);
    assert!(state.watch());
    assert!(state.finish().watched);
    assert_eq!(state.schedule(), Schedule::Mine);
    assert_eq!(state.begin(), Begin::Run);
    assert!(!state.finish().watched);
}
