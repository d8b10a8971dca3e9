use super::*;

#[test]
fn only_a_whole_word_among_the_flags_counts() {
    assert!(has_virtualization("model name\t: x\nflags\t\t: fpu svm lm\n"));
    assert!(has_virtualization("flags\t\t: fpu vmx\n"));
    assert!(!has_virtualization("flags\t\t: fpu svm_lock\nvmx flags\t: vnmi vmx\nbugs\t: svm\n"));
    assert!(!has_virtualization(""));
}
