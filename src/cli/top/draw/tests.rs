use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::cli::top::find::Found;
use crate::cli::top::keys::Key;
use crate::cli::top::tests::snapshot;
use vmm::stats::Snapshot;

fn model() -> Model {
    let mut model = Model::default();
    for seconds in [10, 12] {
        model.take(Found { machines: vec![snapshot(seconds, 100 * seconds)], silent: Vec::new() });
    }
    model
}

/// The lines of a screen of this size.
fn screen(model: &Model, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("it can't fail");
    terminal.draw(|frame| draw(frame, model)).expect("it can't fail");
    let buffer = terminal.backend().buffer();
    let line = |y: u16| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..height).map(line).collect()
}

#[test]
fn a_common_terminal_has_the_machine_two_tables_and_the_keys() {
    let lines = screen(&model(), 80, 24);
    assert!(lines[0].starts_with(" vmlinuz  process 7  up 0:00:12  irqchip user"), "{lines:#?}");
    assert!(lines[1].contains("100 interrupts/s") && lines[1].contains("200 exits/s, over 2.0 s"), "{lines:#?}");
    assert!(lines[2].contains("1 lines: rises a second") && lines[12].contains("2 sources"), "{lines:#?}");
    assert!(lines[3].contains("GSI") && lines[3].contains("rises\u{25be}"), "{lines:#?}");
    assert!(lines[4].contains("4") && lines[4].contains("0x31") && lines[4].contains("100"), "{lines:#?}");
    assert!(lines[23].contains("q quit"), "{lines:#?}");
}

#[test]
fn a_large_one_has_all_tables_and_zooming_gives_one_the_screen() {
    let mut model = model();
    let all = screen(&model, 160, 50).join("\n");
    for number in 1..=COUNT {
        assert_eq!(all.matches(&format!("\u{250c} {number} ")).count(), 1, "{all}");
    }
    let _ = model.press(Key::Char('7'));
    let _ = model.press(Key::Char('z'));
    let one = screen(&model, 160, 50).join("\n");
    assert_eq!((one.matches('\u{250c}').count(), one.contains("90.0 us")), (1, true), "{one}");
}

#[test]
fn the_table_in_focus_is_shown_whatever_the_size() {
    let mut model = model();
    for key in '1'..='8' {
        let _ = model.press(Key::Char(key));
        let frame = format!("\u{250c} {key} ");
        for (width, height) in [(80, 24), (80, 12), (200, 24), (40, 6), (300, 100)] {
            let screen = screen(&model, width, height).join("\n");
            assert_eq!(screen.matches(&frame).count(), 1, "{width}x{height}\n{screen}");
        }
    }
}

#[test]
fn no_size_is_too_small_and_no_state_is_in_the_way() {
    let mut model = model();
    for key in [Key::Char('5'), Key::Left, Key::End, Key::Char(' '), Key::Char('z')] {
        let _ = model.press(key);
        for width in [1, 2, 3, 5, 10, 30, 79, 128, 129] {
            for height in 1..30 {
                assert_eq!(screen(&model, width, height).len(), usize::from(height));
            }
        }
    }
    assert_eq!(screen(&Model::default(), 80, 24)[0].trim(), "", "no machine");
}

#[test]
fn the_column_that_is_sorted_by_is_on_a_narrow_screen() {
    let mut model = model();
    let _ = model.press(Key::Char('7'));
    let _ = model.press(Key::Left);
    let lines = screen(&model, 30, 12);
    assert!(lines[3].contains("CPU") && lines[3].contains("max\u{25be}"), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains("100 us")), "{lines:#?}");
}

#[test]
fn the_first_line_says_what_has_become_of_the_machine() {
    let mut model = model();
    model.take(Found { machines: Vec::new(), silent: vec![7] });
    assert!(screen(&model, 80, 24)[0].contains("DOES NOT ANSWER"));
    model.take(Found::default());
    assert!(screen(&model, 80, 24)[0].contains("HAS ENDED"));
    let _ = model.press(Key::Char(' '));
    assert!(screen(&model, 80, 24)[0].contains("PAUSED"));
    let mut model = self::model();
    let others = [Snapshot { machine: 3, ..snapshot(20, 1) }, Snapshot { pid: 8, ..snapshot(1, 1) }];
    model.take(Found { machines: others.to_vec(), silent: Vec::new() });
    let line = &screen(&model, 80, 24)[0];
    assert!(line.contains("resets 2") && line.contains("machine 1 of 2"), "{line}");
}

#[test]
fn rows_scroll_and_the_last_page_is_full() {
    let mut many = snapshot(10, 1000);
    many.wires = (0..20).map(|gsi| vmm::stats::WireStats { gsi, ..many.wires[0].clone() }).collect();
    let mut model = Model::default();
    model.take(Found { machines: vec![many], silent: Vec::new() });
    let shown = |model: &Model| {
        let lines = screen(model, 40, 10);
        lines[4..8]
            .iter()
            .filter_map(|line| line.trim_matches('\u{2502}').split_whitespace().next()?.parse::<u8>().ok())
            .collect::<Vec<_>>()
    };
    assert_eq!(shown(&model), [0, 1, 2, 3]);
    let _ = model.press(Key::Down);
    assert_eq!(shown(&model), [1, 2, 3, 4]);
    let _ = model.press(Key::End);
    assert_eq!(shown(&model), [16, 17, 18, 19]);
}
