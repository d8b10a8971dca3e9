use super::*;

const CONSOLE: &str = "\
[    1.0] Run /init as init process\r
@@TOPHALF-BEGIN uptime@@\r
7.50\r
@@TOPHALF-END uptime@@\r
noise\r
@@TOPHALF-BEGIN interrupts@@\r
           CPU0       CPU1       \r
  0:        179          0   IO-APIC   2-edge      timer\r
  4:          0         61   IO-APIC   4-edge      ttyS0\r
  2:          0          0    XT-PIC      cascade\r
LOC:       1409       1385   Local timer interrupts\r
@@TOPHALF-END interrupts@@\r
@@TOPHALF-DONE@@\r
";

#[test]
fn sections_are_found_between_their_markers() {
    let report = Report::parse(CONSOLE);
    assert_eq!(report.first_line("uptime"), Some("7.50"));
    assert_eq!(report.section("interrupts").map(|text| text.lines().count()), Some(5));
    assert_eq!(report.section("noise"), None);
    assert!(report.done);
}

#[test]
fn chips_are_named_by_numbered_lines_only() {
    assert_eq!(Report::parse(CONSOLE).chips().into_iter().collect::<Vec<_>>(), ["IO-APIC", "XT-PIC"]);
}

#[test]
fn a_console_that_broke_off_has_neither_the_open_section_nor_the_end() {
    let cut = CONSOLE.find("LOC:").unwrap();
    let report = Report::parse(&CONSOLE[..cut]);
    assert_eq!(report.section("interrupts"), None);
    assert!(report.chips().is_empty());
    assert!(!report.done);
}
