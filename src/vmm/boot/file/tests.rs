use std::io;

use super::super::error::ErrorKind;
use super::super::testing::Scratch;
use super::*;

fn open(path: &Path) -> Result<InputFile, BootError> {
    InputFile::open(InputKind::Initrd, path)
}

#[test]
fn a_regular_file_is_opened_with_its_size() {
    let file = Scratch::file(b"12345");
    assert_eq!(open(file.path()).unwrap().bytes, 5);
}

#[test]
fn each_unusable_file_is_named_with_cause_and_remedy() {
    let (missing, directory, empty) = (Scratch::name(), Scratch::directory(), Scratch::file(b""));
    let below_a_file = empty.path().join("initrd");
    for (path, cause, remedy) in [
        (missing.path(), "No such file", "check the path"),
        (below_a_file.as_path(), "Not a directory", "check the path"),
        (directory.path(), "is a directory", "name the file in it"),
        (empty.path(), "is empty", "check how the file was made"),
        (Path::new("/dev/null"), "no regular file", "copy its contents to a file"),
    ] {
        let error = open(path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input, "{error}");
        let line = error.to_string();
        assert!(line.starts_with(&format!("initrd {path:?}")), "{line}");
        assert!(line.contains(cause) && line.contains(remedy) && !line.contains('\n'), "{line}");
    }
}

#[test]
fn permission_is_the_users_to_mend_and_a_broken_disk_the_hosts() {
    let error = |kind: io::ErrorKind| BootError::Open {
        what: InputKind::Kernel,
        path: "vmlinuz".into(),
        cause: io::Error::from(kind),
    };
    let denied = error(io::ErrorKind::PermissionDenied);
    assert_eq!(denied.kind(), ErrorKind::Input);
    assert!(denied.to_string().contains("readable for this user"), "{denied}");
    assert_eq!(error(io::ErrorKind::Other).kind(), ErrorKind::Host);
}

#[test]
fn a_name_with_a_line_break_stays_on_one_line() {
    let line = open(Path::new("no\nsuch\nfile")).unwrap_err().to_string();
    assert!(!line.contains('\n') && line.contains(r"no\nsuch\nfile"), "{line}");
}
