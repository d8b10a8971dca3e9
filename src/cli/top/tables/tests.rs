use super::*;
use crate::cli::top::tests::view;

fn column(table: &Table, column: usize) -> Vec<String> {
    table.rows.iter().map(|row| row[column].text()).collect()
}

#[test]
fn every_table_has_a_cell_for_each_column_and_an_order_by_one() {
    for (table, order) in all(&view()).into_iter().zip(ORDERS) {
        assert!(table.rows.iter().all(|row| row.len() == table.columns.len()), "{table:?}");
        assert!(order.column < table.columns.len(), "{table:?}");
        assert!(!table.rows.is_empty(), "{table:?}");
    }
}

#[test]
fn the_tables_have_what_happened() {
    let [lines, sources, vectors, vcpus, exits, softirqs, cpus, queues] = all(&view());
    assert_eq!(lines.rows, [vec![Cell::Number(4), Cell::Vector(0x31), Cell::Rate(250.0)]]);
    assert_eq!((column(&sources, 0), column(&sources, 2)), (vec!["pin 4".to_owned()], vec!["250".to_owned()]));
    assert_eq!(vectors.columns, ["vector", "total", "vCPU 0", "vCPU 1"]);
    assert_eq!(vectors.rows[0][1..], [250.0, 250.0, 0.0].map(Cell::Rate));
    assert_eq!((column(&vcpus, 4), column(&vcpus, 5)), (heads(["500", "0"]), heads(["2.0", "-"])));
    assert_eq!((column(&exits, 0), column(&exits, 1)), (heads(["halt", "msr"]), heads(["500", "0"])));
    assert_eq!(softirqs.columns, ["softirq", "total", "vCPU 0", "vCPU 1", "main"]);
    assert_eq!(
        cpus.rows[2][3..],
        [Cell::Count(10), Cell::Time(1500), Cell::Time(2000), Cell::Time(90_000), Cell::Time(100_000)]
    );
    assert_eq!(cpus.rows[0][4..], [const { Cell::Nothing }; 4], "nothing was measured");
    assert_eq!(column(&queues, 2), heads(["250"]));
}

#[test]
fn rates_are_sorted_down_names_up_and_what_does_not_apply_is_last() {
    let rows = [("pin 10", 3.0), ("pin 9", 7.0), ("IRQ 4", 0.5)];
    let rows = rows.map(|(name, rate)| vec![Cell::Name(name.to_owned()), Cell::Rate(rate)]).to_vec();
    let mut table = Table { title: "", columns: heads(["name", "rate"]), rows };
    table.rows.push(vec![Cell::Name("MSI".to_owned()), Cell::Nothing]);
    for (order, expected) in [
        (Order { column: 0, reversed: false }, ["IRQ 4", "MSI", "pin 9", "pin 10"]),
        (Order { column: 0, reversed: true }, ["pin 10", "pin 9", "MSI", "IRQ 4"]),
        (Order { column: 1, reversed: false }, ["pin 9", "pin 10", "IRQ 4", "MSI"]),
        (Order { column: 1, reversed: true }, ["IRQ 4", "pin 10", "pin 9", "MSI"]),
        // There is no such column.
        (Order { column: 9, reversed: false }, ["IRQ 4", "pin 10", "pin 9", "MSI"]),
    ] {
        table.sort(order);
        assert_eq!(column(&table, 0), expected, "{order:?}");
    }
}

#[test]
fn the_column_that_is_wanted_is_shown_whatever_the_room() {
    let widths = [6, 5, 5, 5, 5];
    assert_eq!(columns_that_fit(&widths, 34, 1), [0, 1, 2, 3, 4]);
    assert_eq!(columns_that_fit(&widths, 33, 1), [0, 1, 2, 3]);
    assert_eq!(columns_that_fit(&widths, 20, 4), [0, 3, 4]);
    assert_eq!(columns_that_fit(&widths, 20, 0), [0, 1, 2]);
    assert_eq!(columns_that_fit(&widths, 0, 3), [0, 3]);
    assert_eq!(columns_that_fit(&[6], 80, 1), [0]);
    assert!(columns_that_fit(&[], 80, 0).is_empty());
    for room in 0..60 {
        for wanted in 0..7 {
            let shown = columns_that_fit(&widths, room, wanted);
            assert!(shown.is_sorted() && shown.contains(&wanted.clamp(1, 4)), "{room} {wanted}: {shown:?}");
        }
    }
}

#[test]
fn as_text_each_table_has_its_title_and_its_rows() {
    let text = text(&view());
    assert_eq!(text.lines().filter(|line| !line.is_empty() && !line.starts_with(' ')).count(), COUNT, "{text}");
    let line = text.lines().find(|line| line.contains("halt")).expect("exits");
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["halt", "500", "500", "0"]);
}
