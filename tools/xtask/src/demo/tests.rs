use super::*;

const WHOLE: &str = "@@TOPHALF-BEGIN interrupts@@\nx\n@@TOPHALF-END interrupts@@\n@@TOPHALF-DONE@@\n";

fn judge(console: &str, code: i32) -> u8 {
    let options = Options { shell: false, cpus: 2 };
    verdict(&options, &Report::parse(console), code, "here", Duration::ZERO)
}

#[test]
fn only_a_whole_report_and_a_clean_power_off_is_success() {
    assert_eq!(judge(WHOLE, 0), 0);
    assert_eq!(judge(WHOLE, 1), 1);
    assert_eq!(judge("", 0), 1);
    assert_eq!(judge(&WHOLE.replace("@@TOPHALF-DONE@@", ""), 0), 1);
    assert_eq!(judge(&WHOLE.replace("END", "XXX"), 0), 1);
}

#[test]
fn a_host_that_lacks_something_keeps_its_exit_code() {
    assert_eq!(judge("", 4), 4);
    assert_eq!(judge("", 2), 1);
    assert_eq!(judge("", 256), 1);
}
