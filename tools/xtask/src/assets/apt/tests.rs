use super::*;

#[test]
fn the_newest_kernel_is_what_the_metapackage_depends_on() {
    let text = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n  Conflicts: <x>\n";
    assert_eq!(parse_depends(text), ["linux-image-6.1.0-56-cloud-amd64"]);
    assert_eq!(parse_depends(""), [""; 0]);
}

#[test]
fn the_last_line_that_says_something_is_shown() {
    assert_eq!(last_line(b"W: one\nE: Unable to locate package x\n\n"), "E: Unable to locate package x");
    assert_eq!(last_line(b""), "no message");
}

#[test]
fn a_program_comes_with_its_libraries_and_with_theirs() {
    let text = "\
fio
  Depends: libaio1
 |Depends: libodd1
  Depends: python3
  PreDepends: libc6
libaio1
  Depends: libc6
  Depends: <virtual>
python3
  Depends: libpython3
libc6
  Depends: libgcc-s1
libgcc-s1
  Depends: libc6
libpython3
";
    assert_eq!(with_libraries("fio", text.as_bytes()), ["fio", "libaio1", "libodd1", "libc6", "libgcc-s1"]);
    assert_eq!(with_libraries("fio", b""), ["fio"]);
}
