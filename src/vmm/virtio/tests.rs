use super::*;

fn disk(text: &str) -> Result<DiskConfig, String> {
    text.parse().map_err(|e: Error| {
        assert_eq!(e.exit_code(), crate::exit_code::USAGE);
        e.to_string()
    })
}

#[test]
fn a_disk_is_a_path_and_options() {
    let expected = |path: &str, read_only, direct| Ok(DiskConfig { path: path.into(), read_only, direct });
    assert_eq!(disk("a.img"), expected("a.img", false, false));
    assert_eq!(disk("/dev/vda,ro"), expected("/dev/vda", true, false));
    assert_eq!(disk("a b,direct,ro"), expected("a b", true, true));
}

#[test]
fn a_bad_disk_gives_one_line_with_cause_and_remedy() {
    for (text, words) in [
        ("", "names no file; give --disk PATH"),
        (",ro", "names no file; give --disk PATH"),
        ("a,rw", "no option \"rw\"; give ro or direct"),
        ("a,", "no option \"\"; give ro or direct"),
    ] {
        let said = disk(text).expect_err(text);
        assert!(said.contains(words) && !said.contains('\n'), "{said}");
    }
}

#[test]
fn there_are_two_ways_to_connect() {
    assert_eq!(
        ["pci", "mmio"].map(|text| text.parse::<Transport>().ok()),
        [Some(Transport::Pci), Some(Transport::Mmio)]
    );
    let said = "isa".parse::<Transport>().expect_err("no such way").to_string();
    assert_eq!(said, "\"isa\" is no way to connect virtio devices; give --virtio pci or mmio");
    assert_eq!(Transport::default(), Transport::Pci);
}

#[test]
fn windows_have_the_four_wires_in_turn() {
    assert_eq!([0, 1, 3, 4, 30].map(mmio_gsi), [16, 17, 19, 16, 18]);
}
