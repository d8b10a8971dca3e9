use super::Spread;

#[test]
fn the_median_is_the_middle_whatever_the_order() {
    assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
    assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
}

#[test]
fn nothing_has_no_median() {
    assert_eq!(Spread::of([]), None);
}

#[test]
fn it_prints_with_its_range_and_fills_a_column() {
    let spread = Spread { median: 1.0, min: 0.5, max: 12.25 };
    assert_eq!(format!("{spread:18}|"), "1.00 (0.50-12.25) |");
}
