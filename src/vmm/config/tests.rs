use super::*;

#[test]
fn numbers_and_ranges_make_a_list_in_their_order() {
    for (text, ids) in [
        ("0", vec![0]),
        ("0,255,256,300,32766", vec![0, 255, 256, 300, 32766]),
        ("4, 8-11 ,0", vec![4, 8, 9, 10, 11, 0]),
        ("0-63", (0..64).collect()),
        ("32767", vec![32767]),
    ] {
        assert_eq!(parse_apic_ids(text).expect(text), ids);
    }
}

#[test]
fn a_bad_list_gives_one_line_with_cause_and_remedy() {
    for (text, cause) in [
        ("", "\"\" is no number"),
        ("0,,1", "\"\" is no number"),
        ("0,x", "\"x\" is no number"),
        ("-1", "\"\" is no number"),
        ("32768", "32768 is more than 32767"),
        ("99999999999", "is no number up to 32767"),
        ("3-1", "3 is more than 1"),
        ("1,2,1", "1 is there twice"),
        ("0-64", "more than 64"),
        ("0-32767", "more than 64"),
    ] {
        let error = parse_apic_ids(text).expect_err(text);
        let line = error.to_string();
        assert!(line.contains(cause) && line.contains("give --apic-ids") && !line.contains('\n'), "{text}: {line}");
        assert_eq!(error.exit_code(), crate::exit_code::USAGE);
    }
}

#[test]
fn the_modes_have_names() {
    assert_eq!(
        ["user", "split", "kernel"].map(|text| text.parse::<Irqchip>().expect(text)),
        [Irqchip::User, Irqchip::Split, Irqchip::Kernel]
    );
    let line = "on".parse::<Irqchip>().expect_err("no mode").to_string();
    assert!(line.contains("--irqchip user, split or kernel"), "{line}");
}
