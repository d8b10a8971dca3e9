use super::*;
use crate::cli::top::tests::snapshot;

fn of(pid: u32, seconds: u64, interrupts: u64) -> Snapshot {
    Snapshot { pid, ..snapshot(seconds, interrupts) }
}

fn found(machines: &[Snapshot]) -> Found {
    Found { machines: machines.to_vec(), silent: Vec::new() }
}

/// The watched machine: its process, its interrupts a second, and what has become of it.
fn watched(model: &Model) -> (u32, f64, State) {
    let (_, machine) = model.watched().expect("a machine");
    (machine.view.pid, machine.view.vcpus[0].interrupts, machine.state)
}

fn press(model: &mut Model, keys: &[Key]) {
    for &key in keys {
        assert_eq!(model.press(key), Reaction::Draw, "{key:?}");
    }
}

#[test]
fn rates_are_since_the_start_at_first_and_then_of_the_interval() {
    let mut model = Model::default();
    assert!(model.watched().is_none() && model.tables().is_empty());
    model.take(found(&[of(7, 10, 1000)]));
    assert_eq!(watched(&model), (7, 100.0, State::Running));
    model.take(found(&[of(7, 12, 1500)]));
    assert_eq!(watched(&model), (7, 250.0, State::Running));
}

#[test]
fn a_guest_that_reboots_and_a_process_that_has_the_number_of_another_begin_anew() {
    let mut model = Model::default();
    model.take(found(&[of(7, 10, 1000)]));
    model.take(found(&[Snapshot { machine: 2, ..of(7, 20, 100) }]));
    assert_eq!(watched(&model), (7, 5.0, State::Running), "the second machine");
    model.take(found(&[Snapshot { machine: 2, ..of(7, 2, 10) }]));
    assert_eq!(watched(&model), (7, 5.0, State::Running), "another process: it is younger");
    // Whatever is said: nothing is ever below 0.
    model.take(found(&[Snapshot { machine: 2, ..of(7, 4, 0) }]));
    let cells = model.tables().into_iter().flat_map(|table| table.rows).flatten();
    let rates: Vec<f64> =
        cells.filter_map(|cell| if let tables::Cell::Rate(rate) = cell { Some(rate) } else { None }).collect();
    assert!(!rates.is_empty() && rates.iter().all(|rate| *rate >= 0.0 && rate.is_finite()), "{rates:?}");
}

#[test]
fn a_watched_machine_that_ends_stays_until_another_is_watched() {
    let mut model = Model::default();
    model.take(found(&[of(7, 10, 1000), of(9, 10, 10)]));
    model.take(found(&[of(9, 11, 20)]));
    assert_eq!(watched(&model), (7, 100.0, State::Ended));
    model.take(found(&[of(9, 12, 30)]));
    assert_eq!((watched(&model), model.machines().len()), ((7, 100.0, State::Ended), 2));
    press(&mut model, &[Key::Char('n')]);
    assert_eq!(watched(&model), (9, 10.0, State::Running));
    model.take(found(&[of(9, 13, 40)]));
    assert_eq!(model.machines().len(), 1);
    model.take(found(&[]));
    assert_eq!(watched(&model), (9, 10.0, State::Ended));
    press(&mut model, &[Key::Char('n'), Key::Char('p')]);
    assert_eq!(watched(&model), (9, 10.0, State::Ended));
}

#[test]
fn one_that_does_not_answer_is_not_one_that_has_ended() {
    let mut model = Model::default();
    model.take(found(&[of(7, 10, 1000), of(9, 10, 10)]));
    model.take(Found { machines: Vec::new(), silent: vec![7, 9] });
    assert_eq!((watched(&model), model.machines().len()), ((7, 100.0, State::Silent), 2));
    model.take(found(&[of(7, 20, 2000), of(9, 20, 20)]));
    assert_eq!(watched(&model), (7, 100.0, State::Running), "over all the time between");
}

#[test]
fn paused_figures_stay_and_what_happens_meanwhile_is_seen_afterwards() {
    let mut model = Model::default();
    model.take(found(&[of(7, 10, 1000), of(9, 10, 10)]));
    press(&mut model, &[Key::Char(' ')]);
    assert!(model.is_paused());
    model.take(found(&[of(9, 11, 110)]));
    model.take(found(&[of(9, 12, 210), of(11, 1, 0)]));
    assert_eq!((watched(&model), model.machines().len()), ((7, 100.0, State::Running), 2));
    press(&mut model, &[Key::Char('n')]);
    assert_eq!(watched(&model), (9, 1.0, State::Running));
    press(&mut model, &[Key::Char('n'), Key::Char(' ')]);
    assert_eq!((watched(&model), model.machines().len()), ((7, 100.0, State::Ended), 3));
    press(&mut model, &[Key::Char('n')]);
    assert_eq!(watched(&model), (9, 100.0, State::Running));
}

#[test]
fn keys_choose_a_table_a_column_and_a_direction() {
    let mut model = Model::default();
    model.take(found(&[of(7, 10, 1000)]));
    press(&mut model, &[Key::Char('5')]);
    let first = |model: &Model| model.tables()[model.focus].rows[0][0].text();
    assert_eq!((model.focus, first(&model)), (4, "halt".to_owned()));
    press(&mut model, &[Key::Char('r')]);
    assert_eq!(first(&model), "msr");
    press(&mut model, &[Key::Left]);
    assert_eq!((model.order(4), first(&model)), (Order { column: 0, reversed: false }, "halt".to_owned()));
    press(&mut model, &[Key::Left]);
    assert_eq!(model.order(4).column, 3, "round the end");
    press(&mut model, &[Key::Right, Key::Tab, Key::Tab, Key::Tab, Key::Tab]);
    assert_eq!((model.order(4).column, model.focus), (0, 0));
    press(&mut model, &[Key::BackTab, Key::Char('x')]);
    assert_eq!((model.focus, model.order(7)), (7, ORDERS[7]), "the others' orders are theirs");
}

#[test]
fn scrolling_ends_at_the_last_row() {
    let mut model = Model::default();
    press(&mut model, &[Key::Down, Key::Left, Key::Char('n')]);
    model.take(found(&[of(7, 10, 1000)]));
    press(&mut model, &[Key::Char('4'), Key::Down, Key::Down, Key::Down]);
    assert_eq!(model.scrolled(3), 1, "two vCPUs");
    press(&mut model, &[Key::Up]);
    assert_eq!(model.scrolled(3), 0);
    press(&mut model, &[Key::End, Key::PageDown, Key::PageUp, Key::Up, Key::PageDown]);
    assert_eq!(model.scrolled(3), 1);
    press(&mut model, &[Key::Home]);
    assert_eq!(model.scrolled(3), 0);
}

#[test]
fn q_and_ctrl_c_end_it() {
    for key in [Key::Char('q'), Key::Interrupt] {
        assert_eq!(Model::default().press(key), Reaction::Quit);
    }
    assert_eq!(Model::default().press(Key::Repaint), Reaction::Repaint);
}
